//! Creating, opening and closing volumes on a real cluster, through the FUSE server.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use std::io::Write;
use std::path::Path;

use aldaas_volume::{Error, Filesystem, ImageSpec, NewVolume, OpenVolume, Server};
use common::{Fixture, marker, writable};

#[test]
fn a_new_volume_has_an_empty_data_directory_and_keeps_what_is_written() {
    let fixture = Fixture::new();
    let (node, spec) = (fixture.node(), fixture.blank("one", 64));
    let marker = marker("one");
    let new = NewVolume { filesystem: Filesystem::Ext4, marker: &marker, owner: (12, 34) };
    let mounted = node.create(&spec, &new).unwrap();
    assert_eq!(std::fs::read_dir(&mounted.data).unwrap().count(), 0, "not even lost+found");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&mounted.data).unwrap());
    assert_eq!(owner, 12);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&mounted.data).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    std::fs::write(mounted.data.join("row"), "1").unwrap();
    node.close(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();

    let again = node.open(&spec, &writable(&marker)).unwrap();
    assert_eq!(again.data, mounted.data);
    assert_eq!(std::fs::read_to_string(again.data.join("row")).unwrap(), "1");
    assert_eq!(node.open(&spec, &writable(&marker)).unwrap(), again, "opening again is fine");
    let inventory = node.inventory().unwrap();
    assert_eq!(inventory.len(), 1);
    assert_eq!((&inventory[0].spec, inventory[0].server), (&spec, Server::Alive));
    assert_eq!(inventory[0].mounts.len(), 2);
    node.close(&spec).unwrap();
    node.close(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();
    fixture.remove(&spec);
    assert_eq!(fixture.bed.census(fixture.pool.name(), fixture.run_dir()), fixture.before);
}

#[test]
fn closing_what_never_was_succeeds() {
    let fixture = Fixture::new();
    fixture.node().close(&ImageSpec::new(fixture.pool.name(), "clone", "nobody")).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn opening_an_image_that_does_not_exist_says_so_and_leaves_nothing() {
    let fixture = Fixture::new();
    let error = fixture
        .node()
        .open(&ImageSpec::new(fixture.pool.name(), "clone", "nobody"), &writable(&marker("x")))
        .unwrap_err();
    assert!(error.is_not_found(), "{error}");
    fixture.assert_nothing_left_on_the_node();
    let nowhere = ImageSpec::new("no-such-pool", "clone", "x");
    let error = fixture.node().open(&nowhere, &writable(&marker("x"))).unwrap_err();
    assert!(
        !error.is_not_found() && error.to_string().contains("pool no-such-pool does not exist"),
        "{error}"
    );
    fixture.assert_nothing_left_on_the_node();
}

fn two_clones_of_one_image_are_independent(filesystem: Filesystem, mib: u32) {
    let fixture = Fixture::new();
    let golden = fixture.sealed("golden-1", mib, filesystem);
    let (a, b) = (fixture.clone_of(&golden, "a"), fixture.clone_of(&golden, "b"));
    let (node, marker) = (fixture.node(), marker("golden-1"));
    let (at_a, at_b) =
        (node.open(&a, &writable(&marker)).unwrap(), node.open(&b, &writable(&marker)).unwrap());
    let hello = |root: &Path| std::fs::read_to_string(root.join("hello")).unwrap();
    assert_eq!(
        (hello(&at_a.data), hello(&at_b.data)),
        ("from the golden image".into(), "from the golden image".into())
    );
    std::fs::write(at_a.data.join("hello"), "changed in a").unwrap();
    rustix::fs::syncfs(std::fs::File::open(&at_a.data).unwrap()).unwrap();
    assert_eq!(hello(&at_b.data), "from the golden image");
    node.close(&a).unwrap();
    assert_eq!(hello(&at_b.data), "from the golden image");
    node.close(&b).unwrap();
    let again = node.open(&a, &writable(&marker)).unwrap();
    assert_eq!(hello(&again.data), "changed in a");
    node.close(&a).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn two_ext4_clones_of_one_image_are_mounted_at_once() {
    two_clones_of_one_image_are_independent(Filesystem::Ext4, 64);
}

#[test]
fn two_xfs_clones_of_one_image_are_mounted_at_once() {
    two_clones_of_one_image_are_independent(Filesystem::Xfs, 320);
}

#[test]
fn a_wrong_marker_is_refused_and_undone() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("right", 64, Filesystem::Ext4);
    let error = fixture.node().open(&golden, &writable(&marker("wrong"))).unwrap_err();
    assert!(matches!(&error, Error::WrongMarker { .. }), "{error}");
    assert!(error.to_string().contains("golden image right"), "{error}");
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_wrong_expectation_does_not_disturb_a_volume_that_is_open() {
    let fixture = Fixture::new();
    let (node, spec, mounted) = fixture.open("kept");
    assert!(matches!(node.open(&spec, &writable(&marker("other"))), Err(Error::WrongMarker { .. })));
    assert!(matches!(
        node.open(&spec, &OpenVolume::read_only(&marker("kept"))),
        Err(Error::OpenOtherwise { .. })
    ));
    std::fs::write(mounted.data.join("still"), "here").unwrap();
    node.close(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_file_system_without_marker_is_refused_and_undone() {
    let fixture = Fixture::new();
    let (node, spec) = (fixture.node(), fixture.blank("stranger", 64));
    let device = node.attach(&spec, false).unwrap();
    let made = std::process::Command::new("mkfs.ext4").arg("-q").arg(&device).status().unwrap();
    assert!(made.success());
    node.detach(&spec).unwrap();
    let error = node.open(&spec, &writable(&marker("stranger"))).unwrap_err();
    assert!(matches!(error, Error::NoMarker { .. }), "{error}");
    fixture.assert_nothing_left_on_the_node();
}

/// Somebody else's image, snapshotted while it was mounted: its journal waits to be replayed.
fn strangers_image(fixture: &Fixture, filesystem: Filesystem) -> ImageSpec {
    let (node, spec) = (fixture.node(), fixture.blank("stranger", 320));
    let device = node.attach(&spec, false).unwrap();
    let made =
        std::process::Command::new(format!("mkfs.{filesystem}")).arg("-q").arg(&device).status().unwrap();
    assert!(made.success());
    let point = fixture.run_dir().join("point");
    std::fs::create_dir(&point).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(&device, &point, filesystem.to_string(), flags, None).unwrap();
    for i in 0..100 {
        std::fs::create_dir(point.join(format!("d{i}"))).unwrap();
    }
    rustix::fs::syncfs(std::fs::File::open(&point).unwrap()).unwrap();
    fixture.bed.rbd(["snap", "create", &format!("{spec}@sealed")]);
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty()).unwrap();
    std::fs::remove_dir(&point).unwrap();
    node.detach(&spec).unwrap();
    fixture.clone_of(&spec, "taken")
}

#[test]
fn nothing_is_written_to_an_image_of_somebody_else_not_even_by_its_journal() {
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        let fixture = Fixture::new();
        let image = strangers_image(&fixture, filesystem);
        let content = || {
            let file = fixture.run_dir().join("export");
            fixture.bed.rbd(["export", "--no-progress", &image.to_string(), file.to_str().unwrap()]);
            let content = std::fs::read(&file).unwrap();
            std::fs::remove_file(file).unwrap();
            content
        };
        let before = content();
        let error = fixture.node().open(&image, &writable(&marker("mine"))).unwrap_err();
        assert!(matches!(error, Error::NoMarker { .. }), "{filesystem}: {error}");
        assert!(before == content(), "{filesystem}: it was written");
        fixture.assert_nothing_left_on_the_node();
    }
}

#[test]
fn a_device_that_was_attached_before_a_failed_open_stays_attached() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let node = fixture.node();
    let device = node.attach(&golden, false).unwrap();
    node.open(&golden, &writable(&marker("other"))).unwrap_err();
    node.attach(&golden, true).unwrap_err();
    let observed = node.inventory().unwrap().remove(0);
    assert_eq!((observed.device, observed.mounts.len()), (Some(device), 0));
    node.close(&golden).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_device_that_somebody_mounted_elsewhere_is_not_adopted() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let node = fixture.node();
    let device = node.attach(&golden, false).unwrap();
    let point = fixture.run_dir().join("point");
    std::fs::create_dir(&point).unwrap();
    rustix::mount::mount(&device, &point, "ext4", rustix::mount::MountFlags::empty(), None).unwrap();
    let error = node.open(&golden, &writable(&marker("g"))).unwrap_err();
    assert!(error.is_busy() && error.to_string().contains("point"), "{error}");
    assert!(point.join("data/hello").exists());
    rustix::mount::unmount(&point, rustix::mount::UnmountFlags::empty()).unwrap();
    std::fs::remove_dir(&point).unwrap();
    node.close(&golden).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_blank_image_is_never_mounted() {
    let fixture = Fixture::new();
    let spec = fixture.blank("blank", 16);
    let error = fixture.node().open(&spec, &writable(&marker("blank"))).unwrap_err();
    assert!(matches!(error, Error::NoFilesystem { .. }), "{error}");
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn mkfs_never_runs_over_an_image_that_holds_something() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("precious", 64, Filesystem::Ext4);
    let clone = fixture.clone_of(&golden, "c");
    let (node, right) = (fixture.node(), marker("precious"));
    let new = NewVolume { filesystem: Filesystem::Ext4, marker: &right, owner: (0, 0) };
    assert!(matches!(node.create(&clone, &new), Err(Error::NotBlank { .. })));
    fixture.assert_nothing_left_on_the_node();
    let mounted = node.open(&clone, &writable(&right)).unwrap();
    assert_eq!(std::fs::read_to_string(mounted.data.join("hello")).unwrap(), "from the golden image");
    assert!(matches!(node.create(&clone, &new), Err(Error::OpenOtherwise { .. })));
    node.close(&clone).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_read_only_volume_can_be_read_and_not_written() {
    for (filesystem, mib) in [(Filesystem::Ext4, 64), (Filesystem::Xfs, 320)] {
        let fixture = Fixture::new();
        let golden = fixture.sealed("g", mib, filesystem);
        let (node, marker) = (fixture.node(), marker("g"));
        let mounted = node.open(&golden, &OpenVolume::read_only(&marker)).unwrap();
        assert_eq!(std::fs::read_to_string(mounted.data.join("hello")).unwrap(), "from the golden image");
        let error = std::fs::write(mounted.data.join("x"), "y").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        let device = std::fs::OpenOptions::new().write(true).open(&mounted.device);
        assert!(device.and_then(|mut d| std::io::Write::write_all(&mut d, &[1; 512])).is_err());
        node.close(&golden).unwrap();
        fixture.assert_nothing_left_on_the_node();
    }
}

#[test]
fn a_range_of_a_device_that_is_zeroed_reads_as_zeroes_however_small_and_unaligned() {
    let fixture = Fixture::new();
    let golden = fixture.blank("full", 16);
    let node = fixture.node();
    let device = node.attach(&golden, false).unwrap();
    std::fs::OpenOptions::new().write(true).open(&device).unwrap().write_all(&[0xCD; 16 << 20]).unwrap();
    node.detach(&golden).unwrap();
    fixture.bed.rbd(["snap", "create", &format!("{golden}@sealed")]);
    // In the image itself, and in a clone, where the parent's data must not show through; with and without leave to
    // give the space back.
    let (c, d) = (fixture.clone_of(&golden, "c"), fixture.clone_of(&golden, "d"));
    for (spec, how) in [(golden, "--punch-hole"), (c, "--punch-hole"), (d, "--zero-range")] {
        let device = node.attach(&spec, false).unwrap();
        let ranges = [(4096, 8192), ((1 << 20) + 512, 200 << 10), ((4 << 20) - 4096, (4 << 20) + 8192)];
        for (offset, length) in ranges {
            let (offset, length) = (offset.to_string(), length.to_string());
            let zeroed = std::process::Command::new("fallocate")
                .args([how, "--keep-size", "-o", &offset, "-l", &length])
                .arg(&device)
                .output()
                .unwrap();
            assert!(zeroed.status.success(), "{zeroed:?}");
        }
        node.detach(&spec).unwrap();
        let content = std::fs::read(node.attach(&spec, true).unwrap()).unwrap();
        for (at, byte) in content.iter().enumerate() {
            let zeroed = ranges.iter().any(|(offset, length)| (*offset..offset + length).contains(&at));
            assert_eq!(*byte, if zeroed { 0 } else { 0xCD }, "{spec} at {at}");
        }
        node.detach(&spec).unwrap();
    }
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn deleted_data_is_given_back_to_rbd_when_trimmed() {
    let fixture = Fixture::new();
    let (node, spec) = (fixture.node(), fixture.blank("trimmed", 512));
    let marker = marker("trimmed");
    let new = NewVolume { filesystem: Filesystem::Ext4, marker: &marker, owner: (0, 0) };
    let mounted = node.create(&spec, &new).unwrap();
    let used = || -> u64 {
        let text = fixture.bed.rbd(["du", "--format", "json", &spec.to_string()]);
        let at = text.find("\"used_size\":").unwrap() + "\"used_size\":".len();
        text[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    let file = mounted.data.join("big");
    std::fs::write(&file, vec![7; 200 << 20]).unwrap();
    rustix::fs::syncfs(std::fs::File::open(&mounted.data).unwrap()).unwrap();
    let full = used();
    assert!(full >= 200 << 20, "{full}");
    std::fs::remove_file(file).unwrap();
    assert!(node.trim(&spec).unwrap() > 180 << 20);
    let trimmed = used();
    assert!(trimmed + (180 << 20) < full, "{full} -> {trimmed}");
    node.close_trimmed(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_fresh_file_system_of_a_large_image_takes_little_space() {
    let fixture = Fixture::new();
    let (node, spec) = (fixture.node(), fixture.blank("large", 1 << 20));
    let marker = marker("large");
    let new = NewVolume { filesystem: Filesystem::Ext4, marker: &marker, owner: (0, 0) };
    let mounted = node.create(&spec, &new).unwrap();
    let stat = rustix::fs::statvfs(&mounted.data).unwrap();
    // ext4 itself keeps 4096 blocks back for delayed allocation, whatever mkfs says.
    assert!(stat.f_bfree - stat.f_bavail <= 4096, "nothing is reserved for root");
    node.close(&spec).unwrap();
    let objects = fixture.bed.rados(["-p", fixture.pool.name(), "-N", "golden", "ls"]);
    let objects = objects.lines().filter(|o| o.starts_with("rbd_data")).count();
    assert!(objects < 300, "{objects} objects of 4 MiB on a blank 1 TiB file system");
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_busy_volume_stays_and_its_user_is_named() {
    let fixture = Fixture::new();
    let (node, spec, mounted) = fixture.open("busy");
    let mut user = std::process::Command::new("sleep").arg("60").current_dir(&mounted.data).spawn().unwrap();
    let error = node.close(&spec).unwrap_err();
    assert!(error.is_busy() && error.to_string().contains(&format!("sleep (pid {})", user.id())), "{error}");
    user.kill().unwrap();
    user.wait().unwrap();
    node.close(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_volume_that_is_bound_elsewhere_is_not_taken_away() {
    let fixture = Fixture::new();
    let (node, spec, mounted) = fixture.open("bound");
    let target = fixture.run_dir().join("target");
    std::fs::create_dir(&target).unwrap();
    rustix::mount::mount_bind(&mounted.data, &target).unwrap();
    let error = node.close(&spec).unwrap_err();
    assert!(error.is_busy() && error.to_string().contains("target"), "{error}");
    std::fs::write(target.join("x"), "still writable").unwrap();
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).unwrap();
    std::fs::remove_dir(&target).unwrap();
    node.close(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_volume_that_was_not_unmounted_cleanly_is_repaired_when_it_is_opened() {
    let fixture = Fixture::new();
    let (node, spec, _) = fixture.open("crashed");
    // A marker that is only in the journal yet would be refused: nothing is replayed before it was seen.
    node.close(&spec).unwrap();
    let mounted = node.open(&spec, &writable(&marker("crashed"))).unwrap();
    std::fs::write(mounted.data.join("safe"), "synced").unwrap();
    rustix::fs::syncfs(std::fs::File::open(&mounted.data).unwrap()).unwrap();
    // A copy of the device as it is now is what a crash leaves.
    fixture.bed.rbd(["snap", "create", &format!("{spec}@crash")]);
    node.close(&spec).unwrap();
    let crashed = ImageSpec::new(fixture.pool.name(), "clone", "after");
    fixture.bed.rbd([
        "clone",
        "--rbd-default-clone-format",
        "2",
        &format!("{spec}@crash"),
        &crashed.to_string(),
    ]);
    let marker = marker("crashed");
    let read_only = node.open(&crashed, &OpenVolume::read_only(&marker)).unwrap_err();
    assert!(matches!(read_only, Error::NeedsRecovery { .. }), "{read_only}");
    let mounted = node.open(&crashed, &writable(&marker)).unwrap();
    assert_eq!(std::fs::read_to_string(mounted.data.join("safe")).unwrap(), "synced");
    node.close(&crashed).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

/// XFS is told by nothing but its log that it was not unmounted, and replays it even where it is mounted read-only.
#[test]
fn an_xfs_with_a_log_to_replay_is_refused_read_only_and_nothing_is_written_to_it() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 320, Filesystem::Xfs);
    let (node, marker) = (fixture.node(), marker("g"));
    let used = fixture.clone_of(&golden, "used");
    let mounted = node.open(&used, &writable(&marker)).unwrap();
    std::fs::write(mounted.data.join("safe"), "in the log").unwrap();
    rustix::fs::syncfs(std::fs::File::open(&mounted.data).unwrap()).unwrap();
    fixture.bed.rbd(["snap", "create", &format!("{used}@sealed")]);
    node.close(&used).unwrap();
    let crashed = fixture.clone_of(&used, "after");
    fixture.bed.rbd(["snap", "create", &format!("{crashed}@before")]);

    let refused = node.open(&crashed, &OpenVolume::read_only(&marker)).unwrap_err();
    assert!(matches!(refused, Error::NeedsRecovery { .. }), "{refused}");
    fixture.assert_nothing_left_on_the_node();
    let written = || fixture.bed.rbd(["diff", "--from-snap", "before", &crashed.to_string()]);
    assert_eq!(written(), "", "the log is still as it was");

    let mounted = node.open(&crashed, &writable(&marker)).unwrap();
    assert_eq!(std::fs::read_to_string(mounted.data.join("safe")).unwrap(), "in the log");
    node.close(&crashed).unwrap();
    assert_ne!(written(), "");
    node.open(&crashed, &OpenVolume::read_only(&marker)).unwrap();
    node.close(&crashed).unwrap();
    fixture.assert_nothing_left_on_the_node();
}
