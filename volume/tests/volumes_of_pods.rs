//! What the node plugin needs of volumes: many at once, each apart from the others, taken away without a wait.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aldaas_rbd as rbd;
use aldaas_volume::{Error, Filesystem, ImageSpec, Node, OpenVolume, Server, mountinfo};
use common::{Fixture, marker, writable};

/// Addresses of the clients that have the image open.
fn watchers(fixture: &Fixture, spec: &ImageSpec) -> BTreeSet<String> {
    let status = fixture.bed.rbd(["status", "--format", "json", &spec.to_string()]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let watchers = status["watchers"].as_array().unwrap();
    watchers.iter().map(|w| w["address"].as_str().unwrap().to_owned()).collect()
}

fn own_client(expect: &aldaas_volume::Marker) -> OpenVolume<'_> {
    OpenVolume { own_client: true, ..OpenVolume::writable(expect) }
}

fn write_and_sync(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// A process that keeps what is mounted now in a mount namespace of its own.
fn holder_of_mounts() -> Child {
    let mut holder = aldaas_testbed::own_mounts(&[])
        .args(["sh", "-c", "echo holding; exec sleep 120"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "holding\n");
    holder
}

#[test]
fn a_discarded_volume_goes_at_once_however_much_of_it_is_unwritten() {
    const DIRTY: usize = 192 << 20;
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        let fixture = Fixture::new();
        let golden = fixture.sealed("g", 512, filesystem);
        let (clone, node, marker) = (fixture.clone_of(&golden, "c"), fixture.node(), marker("g"));
        let mounted = node.open(&clone, &writable(&marker)).unwrap();
        write_and_sync(&mounted.data.join("synced"), b"before the cut").unwrap();
        std::fs::write(mounted.data.join("dirty"), vec![7; DIRTY]).unwrap();
        let begun = Instant::now();
        node.discard(&clone).unwrap();
        let took = begun.elapsed();
        fixture.assert_nothing_left_on_the_node();
        let usage = fixture.bed.rbd(["du", "--exact", "--format", "json", &clone.to_string()]);
        let usage: serde_json::Value = serde_json::from_str(&usage).unwrap();
        let used = usage["images"][0]["used_size"].as_u64().unwrap();
        assert!(used < DIRTY as u64 / 2, "{filesystem}: {used} bytes were written out in {took:?}");
        assert!(took < Duration::from_secs(5), "{filesystem}: {took:?}");
        node.discard(&clone).unwrap();
        // As after a power cut: repaired, and what was synced is there.
        let mounted = node.open(&clone, &writable(&marker)).unwrap();
        assert_eq!(std::fs::read(mounted.data.join("synced")).unwrap(), b"before the cut");
        node.close(&clone).unwrap();
        fixture.assert_nothing_left_on_the_node();
    }
}

#[test]
fn between_the_halves_of_a_discard_only_the_server_has_the_image_and_a_new_open_waits() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 512, Filesystem::Ext4);
    let (clone, node, marker) = (fixture.clone_of(&golden, "c"), fixture.node(), marker("g"));
    for dirty in [1, 192 << 20] {
        let mounted = node.open(&clone, &writable(&marker)).unwrap();
        std::fs::write(mounted.data.join("dirty"), vec![7; dirty]).unwrap();
        let rest = node.begin_discard(&clone).unwrap().unwrap();
        for point in [&mounted.root, &mounted.data] {
            assert!(!mountinfo::is_mounted(point).unwrap(), "{}", point.display());
        }
        let watching = watchers(&fixture, &clone);
        assert!(
            !watching.is_empty() && watching.iter().all(|who| rest.closing().contains(who)),
            "{watching:?}"
        );
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| node.open(&clone, &writable(&marker)).unwrap());
            std::thread::sleep(Duration::from_millis(300));
            assert!(!opening.is_finished(), "the rest is not done");
            node.finish_discard(rest).unwrap();
            opening.join().unwrap();
        });
        assert!(mounted.data.join("hello").exists());
        node.discard(&clone).unwrap();
        fixture.assert_nothing_left_on_the_node();
    }
}

#[test]
fn a_discard_that_was_killed_on_the_way_is_finished_by_the_next() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let (clone, node, marker) = (fixture.clone_of(&golden, "c"), fixture.node(), marker("g"));
    for step in ["after-unbind", "after-shut-down", "after-unmount", "after-detach"] {
        node.open(&clone, &writable(&marker)).unwrap();
        let args = ["discard", &clone.pool, "clone", "c"];
        let killed = fixture.by_hand(&args, Some(&format!("volume::{step}")));
        assert!(killed.status.code().is_none(), "{step}: {killed:?}");
        node.discard(&clone).unwrap();
        assert_eq!(node.find(&clone).unwrap(), None);
        fixture.assert_nothing_left_on_the_node();
    }
}

#[test]
fn cutting_a_client_of_its_own_off_fails_its_volume_and_no_other() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let [fenced, beside, shared] = ["fenced", "beside", "shared"].map(|name| fixture.clone_of(&golden, name));
    let (node, marker) = (fixture.node(), marker("g"));
    let volume = node.open(&fenced, &own_client(&marker)).unwrap();
    let others =
        [node.open(&beside, &own_client(&marker)).unwrap(), node.open(&shared, &writable(&marker)).unwrap()];
    write_and_sync(&volume.data.join("kept"), b"synced before").unwrap();
    let addresses = watchers(&fixture, &fenced);
    assert!(addresses.is_disjoint(&watchers(&fixture, &beside)));
    assert!(addresses.is_disjoint(&watchers(&fixture, &shared)));
    let asked_later = node.open(&shared, &own_client(&marker)).unwrap_err();
    assert!(matches!(asked_later, Error::OpenOtherwise { .. }), "{asked_later}");
    node.open(&beside, &writable(&marker)).unwrap();

    addresses.iter().for_each(|a| drop(fixture.bed.ceph(["osd", "blocklist", "add", a, "600"])));
    let mut user = Command::new("sleep").arg("60").current_dir(&volume.data).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while write_and_sync(&volume.data.join("lost"), b"after it was cut off").is_ok() {
        assert!(Instant::now() < deadline, "it still writes");
    }
    for other in &others {
        write_and_sync(&other.data.join("x"), b"goes on").unwrap();
    }
    assert_eq!(node.find(&fenced).unwrap().unwrap().server, Server::Dead);
    assert_eq!(node.find(&beside).unwrap().unwrap().server, Server::Alive);
    // Whoever still looks at it keeps its device, but not its mounts.
    assert!(node.close(&fenced).is_err_and(|e| e.is_busy()));
    user.kill().unwrap();
    user.wait().unwrap();
    let again = node.open(&fenced, &own_client(&marker)).unwrap();
    assert_eq!(std::fs::read(again.data.join("kept")).unwrap(), b"synced before");
    write_and_sync(&again.data.join("x"), b"with a new client").unwrap();
    for spec in [&fenced, &beside, &shared] {
        node.close(spec).unwrap();
    }
    addresses.iter().for_each(|a| drop(fixture.bed.ceph(["osd", "blocklist", "rm", a])));
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn of_a_killed_server_the_clients_of_single_images_are_cut_off_too() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let [kept, closed] = ["kept", "closed"].map(|name| fixture.clone_of(&golden, name));
    let (node, marker) = (fixture.node(), marker("g"));
    let signed = || std::fs::read_to_string(fixture.run_dir().join("fuse.lock")).unwrap();
    node.open(&kept, &own_client(&marker)).unwrap();
    let with_one = signed();
    node.open(&closed, &own_client(&marker)).unwrap();
    assert_ne!(signed(), with_one);
    node.close(&closed).unwrap();
    assert_eq!(signed(), with_one);
    fixture.kill_server();
    let begun = Instant::now();
    node.discard(&kept).unwrap();
    fixture.remove(&kept);
    assert!(begun.elapsed() < Duration::from_secs(15), "its watch: {:?}", begun.elapsed());
}

#[test]
fn a_mount_held_in_another_mount_namespace_is_busy_and_goes_when_it_is_let_go() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let (clone, node, marker) = (fixture.clone_of(&golden, "c"), fixture.node(), marker("g"));
    for discarding in [false, true] {
        let take_away = |node: &Node, spec| if discarding { node.discard(spec) } else { node.close(spec) };
        node.open(&clone, &writable(&marker)).unwrap();
        let mut holder = holder_of_mounts();
        let error = take_away(&node, &clone).unwrap_err();
        assert!(error.is_busy(), "{error}");
        let still = node.find(&clone).unwrap().unwrap();
        assert_eq!((still.mounts.len(), still.server), (0, Server::Alive));
        holder.kill().unwrap();
        holder.wait().unwrap();
        take_away(&node, &clone).unwrap();
        fixture.assert_nothing_left_on_the_node();
    }
}

#[test]
fn what_is_bound_at_a_path_is_found_out_also_when_its_server_is_dead() {
    let fixture = Fixture::new();
    let (node, spec, mounted) = fixture.open("found");
    let target = fixture.run_dir().join("target");
    std::fs::create_dir(&target).unwrap();
    assert_eq!(node.spec_of_mount(&target).unwrap(), None);
    rustix::mount::mount_bind(&mounted.data, &target).unwrap();
    let device = mountinfo::top_at(&target).unwrap().unwrap().device;
    let found = node.find(&spec).unwrap().unwrap();
    assert_eq!((found.server, found.device), (Server::Alive, Some(mounted.device)));
    assert_eq!(found.mounts, [mounted.root, mounted.data, target.clone()]);
    assert_eq!(node.find(&ImageSpec::new(fixture.pool.name(), "clone", "nobody")).unwrap(), None);
    for _ in 0..2 {
        assert_eq!(node.spec_of_mount(&target).unwrap().as_ref(), Some(&spec));
        assert_eq!(node.spec_of_device(device).unwrap().as_ref(), Some(&spec));
        if node.fuse_server_alive().unwrap() {
            assert!(node.discard(&spec).unwrap_err().is_busy(), "it is bound elsewhere");
            fixture.kill_server();
        }
    }
    assert_eq!(node.spec_of_mount(Path::new("/proc")).unwrap(), None);
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).unwrap();
    std::fs::remove_dir(&target).unwrap();
    node.discard(&spec).unwrap();
    assert_eq!(node.find(&spec).unwrap(), None);
}

#[test]
fn two_hundred_volumes_open_and_go_side_by_side() {
    const MANY: usize = 200;
    let fixture = Fixture::new();
    fixture.sealed("g", 64, Filesystem::Ext4);
    let options =
        rbd::ConnectOptions { conf: Some(fixture.bed.ceph_conf().to_owned()), ..Default::default() };
    let pool = rbd::Cluster::connect(&options).unwrap().pool(&fixture.pool.name().parse().unwrap()).unwrap();
    let (golden, clones) = (pool.namespace("golden").unwrap(), pool.namespace("clone").unwrap());
    let (parent, marker) = ("g".parse().unwrap(), marker("g"));
    let node = fixture.node();
    std::thread::scope(|scope| {
        for i in 0..MANY {
            let (node, golden, clones, parent, marker) = (&node, &golden, &clones, &parent, &marker);
            scope.spawn(move || {
                let name = format!("c{i}");
                let child = name.parse().unwrap();
                golden.clone_image(parent, "sealed", clones, &child, &Default::default()).unwrap();
                let spec = ImageSpec::new(golden.pool().name().as_str(), "clone", name.as_str());
                let mounted = node.open(&spec, &writable(marker)).unwrap();
                assert_eq!(std::fs::read(mounted.data.join("hello")).unwrap(), b"from the golden image");
                std::fs::write(mounted.data.join("x"), &name).unwrap();
                if i % 2 == 0 { node.close(&spec).unwrap() } else { node.discard(&spec).unwrap() }
            });
        }
    });
    fixture.assert_nothing_left_on_the_node();
}
