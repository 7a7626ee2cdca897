//! Every kind of thing that can be left behind is seen by the census: each is left on purpose.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use aldaas_testbed::{Census, Scratch, TestPool, Testbed};

struct Watch {
    bed: &'static Testbed,
    pool: TestPool,
    scratch: Scratch,
}

impl Watch {
    fn new() -> Watch {
        let bed = Testbed::get();
        Watch { bed, pool: bed.fresh_pool(), scratch: bed.scratch() }
    }

    fn census(&self) -> Census {
        self.bed.census(self.pool.name(), self.scratch.path())
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.pool.name())
    }
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().expect("run sh");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

#[test]
fn an_untouched_pool_and_directory_hold_nothing() {
    assert_eq!(Watch::new().census(), Census::default());
}

#[test]
fn an_image_a_snapshot_and_trash_are_seen() {
    let watch = Watch::new();
    watch.bed.rbd(["namespace", "create", &watch.image("golden")]);
    assert_eq!(watch.census(), Census::default(), "a rados namespace is no leak");

    watch.bed.rbd(["create", "--size", "64M", &watch.image("golden/a")]);
    assert_eq!(watch.census().images, ["golden/a"]);
    watch.bed.rbd(["snap", "create", "--no-progress", &watch.image("golden/a@sealed")]);
    assert_eq!(watch.census().images, ["golden/a@sealed"]);
    watch.bed.rbd(["snap", "rm", "--no-progress", &watch.image("golden/a@sealed")]);
    watch.bed.rbd(["trash", "mv", &watch.image("golden/a")]);
    let census = watch.census();
    assert_eq!((census.images, census.trash), (vec![], vec!["golden/a".to_owned()]));
    watch.bed.rbd(["trash", "purge", "--no-progress", &watch.image("golden")]);
    assert_eq!(watch.census(), Census::default());
}

#[test]
fn what_a_cut_short_removal_leaves_is_seen() {
    let watch = Watch::new();
    watch.bed.rbd(["create", "--size", "64M", &watch.image("a")]);
    let bench = ["bench", "--io-type", "write", "--io-size", "4M", "--io-total", "8M", "--io-threads", "1"];
    watch.bed.rbd(bench.into_iter().chain([watch.image("a").as_str()]));
    assert_eq!(watch.census().objects, Vec::<String>::new(), "an image's own objects are no leak");

    let pool = watch.pool.name();
    watch.bed.rados(["-p", pool, "rm", "rbd_id.a"]);
    watch.bed.rados(["-p", pool, "rm", "rbd_directory"]);
    let objects = watch.census().objects;
    assert!(objects.iter().any(|o| o.starts_with("rbd_header.")), "{objects:?}");
    assert!(
        objects.iter().any(|o| o.starts_with("rbd_data.") && o.ends_with(".* (2 objects)")),
        "{objects:?}"
    );
    watch.bed.rados(["-p", pool, "-N", "clone", "create", "stray"]);
    assert!(watch.census().objects.contains(&"clone/stray".to_owned()));
}

#[test]
fn a_client_that_has_an_image_open_is_seen() {
    let watch = Watch::new();
    watch.bed.rbd(["create", "--size", "64M", &watch.image("a")]);
    let mut client = Command::new("rbd")
        .args(["-c", &watch.bed.ceph_conf().display().to_string()])
        .args(["bench", "--io-type", "write", "--io-size", "4K", "--io-total", "100G", &watch.image("a")])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let seen = (0..50).any(|_| watch.census().watchers.get("a") == Some(&1));
    client.kill().unwrap();
    client.wait().unwrap();
    assert!(seen);
}

#[test]
fn a_mount_a_loop_device_a_process_and_a_file_are_seen() {
    let watch = Watch::new();
    let dir = watch.scratch.path().display().to_string();
    fs::create_dir_all(watch.scratch.path().join("volumes/a b")).unwrap();
    sh(&format!("touch '{dir}/fuse.log' '{dir}/fuse.lock'"));
    assert_eq!(watch.census().files, ["volumes/a b"], "logs, locks and the layout stay");

    sh(&format!("truncate -s 64M '{dir}/volumes/file'; mkfs.ext4 -q '{dir}/volumes/file'"));
    sh(&format!("mount -o loop '{dir}/volumes/file' '{dir}/volumes/a b'"));
    let mut sleeper = Command::new("sleep").arg("60").current_dir(watch.scratch.path()).spawn().unwrap();
    let census = watch.census();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert_eq!(census.mounts, ["volumes/a b (ext4)"]);
    assert_eq!(census.loops, ["volumes/file"]);
    assert_eq!(census.processes, ["sleep 60"]);
    assert_eq!(census.files, ["volumes/a b", "volumes/file"]);
}

#[test]
fn a_scratch_directory_takes_away_what_is_left_in_it() {
    let bed = Testbed::get();
    let scratch = bed.scratch();
    let path = scratch.path().to_owned();
    let dir = path.display();
    sh(&format!(
        "truncate -s 64M {dir}/file; mkfs.ext4 -q {dir}/file; mkdir {dir}/fs; mount -o loop {dir}/file {dir}/fs"
    ));
    let mut sleeper = Command::new("sleep").arg("60").current_dir(path.join("fs")).spawn().unwrap();
    drop(scratch);
    assert!(!sleeper.wait().unwrap().success(), "it was killed");
    assert!(!path.exists());
    let pool = bed.fresh_pool();
    assert_eq!(bed.census(pool.name(), &path), Census::default());
}

#[test]
fn a_dropped_pool_is_gone() {
    let bed = Testbed::get();
    let pool = bed.fresh_pool();
    let name = pool.name().to_owned();
    let is_there = || bed.ceph(["osd", "pool", "ls"]).lines().any(|line| line == name);
    assert!(is_there());
    drop(pool);
    let deadline = Instant::now() + Duration::from_secs(30);
    while is_there() {
        assert!(Instant::now() < deadline, "{name} is still there");
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_object_put_into_s3_is_what_comes_out() {
    let bed = Testbed::get();
    let bucket = aldaas_testbed::unique("bucket-");
    bed.bucket(&bucket);
    bed.bucket(&bucket);
    let bytes: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
    bed.put_object(&bucket, "a b/ü.sql", &bytes);
    assert_eq!(bed.get_object(&bucket, "a b/ü.sql"), bytes);
    bed.delete_object(&bucket, "a b/ü.sql");
}
