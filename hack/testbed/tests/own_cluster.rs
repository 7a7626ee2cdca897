//! A cluster of one's own can be broken and mended, and leaves nothing.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use aldaas_testbed::{Daemon, Testbed};

#[test]
fn a_cluster_of_ones_own_can_be_stopped_frozen_and_mended() {
    let cluster = Testbed::own_cluster();
    let pool = cluster.fresh_pool();
    let answers = || {
        let command = ["-p", pool.name(), "--rados-osd-op-timeout", "2", "stat", "nothing"];
        let output = Command::new("rados").arg("-c").arg(cluster.ceph_conf()).args(command).output().unwrap();
        String::from_utf8_lossy(&output.stderr).contains("No such file")
    };
    assert!(answers());
    cluster.freeze(Daemon::Osd);
    assert!(!answers());
    cluster.thaw(Daemon::Osd);
    assert!(answers());
    cluster.stop(Daemon::Rgw);
    cluster.stop(Daemon::Osd);
    assert!(!answers());
    cluster.start_again(Daemon::Osd);
    cluster.start_again(Daemon::Rgw);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !answers() {
        assert!(Instant::now() < deadline, "the OSD serves again");
    }
    cluster.bucket("again");
}

#[test]
fn a_removed_cluster_takes_mounts_loop_devices_and_processes_with_it() {
    let cluster = Testbed::own_cluster_without_s3();
    let dir = cluster.dir().to_owned();
    let run = dir.join("aldaas-run");
    let volume = format!(
        "truncate -s 64M {0}/file; mkfs.ext4 -q {0}/file; mkdir {0}/fs; mount -o loop {0}/file {0}/fs",
        run.display()
    );
    assert!(Command::new("sh").args(["-ec", &volume]).status().unwrap().success());
    let mut sleeper = Command::new("sleep").arg("300").current_dir(run.join("fs")).spawn().unwrap();
    drop(cluster);
    assert!(!sleeper.wait().unwrap().success(), "it was killed");
    assert!(!dir.exists());
    for file in ["/proc/mounts", "/proc/self/mountinfo"] {
        assert!(!fs::read_to_string(file).unwrap().contains(&*dir.to_string_lossy()));
    }
    let processes = Command::new("ps").args(["-eo", "args"]).output().unwrap().stdout;
    assert!(!String::from_utf8_lossy(&processes).contains(&format!("{}/", dir.display())));
}
