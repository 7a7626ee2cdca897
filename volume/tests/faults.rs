//! What is killed, raced or missing: after `close` nothing is left.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use aldaas_volume::{Error, Filesystem, FuseServer, NewVolume, Node, NodeConfig, Server};
use common::{Fixture, by_hand, fuse_program, marker, writable};

#[test]
fn after_the_server_is_killed_close_cleans_everything() {
    for (filesystem, mib) in [(Filesystem::Ext4, 64), (Filesystem::Xfs, 320)] {
        let fixture = Fixture::new();
        let golden = fixture.sealed("g", mib, filesystem);
        let (a, b) = (fixture.clone_of(&golden, "a"), fixture.clone_of(&golden, "b"));
        let (node, marker) = (fixture.node(), marker("g"));
        let mounted = node.open(&a, &writable(&marker)).unwrap();
        node.open(&b, &writable(&marker)).unwrap();
        std::fs::write(mounted.data.join("dirty"), vec![1; 1 << 20]).unwrap();
        fixture.kill_server();
        assert!(node.inventory().unwrap().iter().all(|o| o.server == Server::Dead && o.mounts.len() == 2));
        let begun = Instant::now();
        node.close(&a).unwrap();
        node.close(&b).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10), "{filesystem}: {:?}", begun.elapsed());
        let now = fixture.bed.census(fixture.pool.name(), fixture.run_dir());
        assert_eq!((now.mounts, now.loops, now.processes, now.files), Default::default());
        fixture.remove(&a);
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "its watch keeps the image: {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn a_volume_whose_server_was_killed_opens_again_beside_one_that_still_waits_for_its_close() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let (a, b) = (fixture.clone_of(&golden, "a"), fixture.clone_of(&golden, "b"));
    let (node, marker) = (fixture.node(), marker("g"));
    node.open(&a, &writable(&marker)).unwrap();
    node.open(&b, &writable(&marker)).unwrap();
    fixture.kill_server();
    let begun = Instant::now();
    let again = node.open(&a, &writable(&marker)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(15), "the killed server's lock: {:?}", begun.elapsed());
    assert_eq!(std::fs::read_to_string(again.data.join("hello")).unwrap(), "from the golden image");
    let dead = |node: &Node| node.inventory().unwrap().iter().filter(|o| o.server == Server::Dead).count();
    assert_eq!(dead(&node), 1);
    node.close(&b).unwrap();
    std::fs::write(again.data.join("x"), "a works on").unwrap();
    node.close(&a).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_process_on_a_dead_volume_does_not_keep_it_mounted() {
    let fixture = Fixture::new();
    let (node, spec, mounted) = fixture.open("dead");
    let mut user = Command::new("sleep").arg("60").current_dir(&mounted.data).spawn().unwrap();
    fixture.kill_server();
    let closed = node.close(&spec);
    let mounts = fixture.bed.census(fixture.pool.name(), fixture.run_dir()).mounts;
    assert!(mounts.iter().all(|m| m.starts_with("images")), "{mounts:?}");
    assert!(
        closed.as_ref().is_err_and(Error::is_busy),
        "its loop device goes with its last user: {closed:?}"
    );
    user.kill().unwrap();
    user.wait().unwrap();
    node.close(&spec).unwrap();
    let now = fixture.bed.census(fixture.pool.name(), fixture.run_dir());
    assert_eq!((now.mounts, now.loops, now.processes, now.files), Default::default());
}

#[test]
fn killed_at_any_step_an_open_or_close_is_finished_by_the_next_call() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let clone = fixture.clone_of(&golden, "c");
    let (node, marker) = (fixture.node(), marker("g"));
    let name = [clone.pool.as_str(), "clone", "c"];
    let open = [&["open"], &name[..], &["--golden", "g", "--database", "orders"]].concat();
    let close = [&["close"], &name[..]].concat();
    let killed = |args: &[&str], step: &str| {
        let output = fixture.by_hand(args, Some(&format!("volume::{step}")));
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code().is_none(), "{step}: not killed: {stderr}");
    };
    for step in ["after-attach", "after-mount", "after-bind"] {
        killed(&open, step);
        node.close(&clone).unwrap();
        fixture.assert_nothing_left_on_the_node();
        killed(&open, step);
        let mounted = node.open(&clone, &writable(&marker)).unwrap();
        assert_eq!(std::fs::read_to_string(mounted.data.join("hello")).unwrap(), "from the golden image");
        node.close(&clone).unwrap();
        fixture.assert_nothing_left_on_the_node();
    }
    for step in ["after-unbind", "after-unmount", "after-detach"] {
        node.open(&clone, &writable(&marker)).unwrap();
        killed(&close, step);
        node.close(&clone).unwrap();
        fixture.assert_nothing_left_on_the_node();
        node.open(&clone, &writable(&marker)).unwrap();
        killed(&close, step);
        node.open(&clone, &writable(&marker)).unwrap();
        node.close(&clone).unwrap();
        fixture.assert_nothing_left_on_the_node();
    }
}

#[test]
fn killed_at_any_step_of_making_a_volume_nothing_stays_mounted_and_it_is_never_taken_for_finished() {
    let fixture = Fixture::new();
    let node = fixture.node();
    for step in ["after-attach", "after-mkfs", "after-mount"] {
        let image = fixture.blank(step, 64);
        let args = ["create", &image.pool, "golden", step, "--golden", step, "--database", "orders"];
        assert!(fixture.by_hand(&args, Some(&format!("volume::{step}"))).status.code().is_none());
        node.close(&image).unwrap();
        fixture.assert_nothing_left_on_the_node();
        let error = node.open(&image, &writable(&marker(step))).unwrap_err();
        assert!(error.is_wrong_content(), "{step}: {error}");
        fixture.assert_nothing_left_on_the_node();
    }
}

#[test]
fn clean_closes_what_killed_callers_left_and_keeps_what_it_is_told_to_keep() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let (kept, lost) = (fixture.clone_of(&golden, "kept"), fixture.clone_of(&golden, "lost"));
    let (node, marker) = (fixture.node(), marker("g"));
    let mounted = node.open(&kept, &writable(&marker)).unwrap();
    let args = ["open", &lost.pool, "clone", "lost", "--golden", "g", "--database", "orders"];
    assert!(fixture.by_hand(&args, Some("volume::after-mount")).status.code().is_none());
    let cleaned = node.clean(|observed| observed.spec == kept).unwrap();
    assert_eq!((cleaned.closed, cleaned.failed.len()), (vec![lost], 0));
    std::fs::write(mounted.data.join("x"), "still here").unwrap();
    fixture.kill_server();
    assert_eq!(node.clean(|_| false).unwrap().closed, vec![kept]);
    assert!(!fixture.run_dir().join("fuse.log").exists());
    let now = fixture.bed.census(fixture.pool.name(), fixture.run_dir());
    assert_eq!((now.mounts, now.loops, now.processes, now.files), Default::default());
}

#[test]
fn many_callers_at_once_share_one_server_and_its_data_is_right_under_load() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 128, Filesystem::Ext4);
    let clones: Vec<_> = (0..8).map(|i| fixture.clone_of(&golden, &format!("c{i}"))).collect();
    let marker = marker("g");
    std::thread::scope(|scope| {
        for (i, clone) in clones.iter().enumerate() {
            let (fixture, marker) = (&fixture, &marker);
            scope.spawn(move || {
                let node = fixture.node();
                let mounted = node.open(clone, &writable(marker)).unwrap();
                let content = |n: usize| vec![(i * 31 + n) as u8; 3 << 20];
                for n in 0..12 {
                    std::fs::write(mounted.data.join(format!("f{n}")), content(n)).unwrap();
                }
                // Through the device again, not from memory.
                node.close(clone).unwrap();
                let mounted = node.open(clone, &writable(marker)).unwrap();
                for n in 0..12 {
                    assert!(
                        std::fs::read(mounted.data.join(format!("f{n}"))).unwrap() == content(n),
                        "{clone} f{n}"
                    );
                }
                node.close(clone).unwrap();
            });
        }
    });
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_server_that_does_not_answer_for_a_moment_is_not_taken_for_dead() {
    let fixture = Fixture::new();
    let (node, spec, mounted) = fixture.open("alive");
    let mut user = Command::new("sleep").arg("60").current_dir(&mounted.data).spawn().unwrap();
    let (socket, aside) = (fixture.run_dir().join("fuse.sock"), fixture.run_dir().join("aside"));
    std::fs::rename(&socket, &aside).unwrap();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(300));
            std::fs::rename(&aside, &socket).unwrap();
        });
        node.close(&spec).unwrap_err()
    });
    assert!(error.is_busy(), "{error}");
    std::fs::write(mounted.data.join("x"), "still mounted").unwrap();
    assert_eq!(node.inventory().unwrap().remove(0).mounts.len(), 2);
    user.kill().unwrap();
    user.wait().unwrap();
    node.close(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_mount_that_may_not_be_taken_away_from_here_is_an_error_and_no_endless_loop() {
    let fixture = Fixture::new();
    let (node, spec, _) = fixture.open("locked");
    // In a user namespace of its own, the mounts it began with can't be taken away.
    let closed = Command::new("timeout")
        .args(["-s", "KILL", "20", "unshare", "--user", "--map-root-user", "--mount"])
        .arg(by_hand())
        .arg("--run-dir")
        .arg(fixture.run_dir())
        .arg("--ceph-conf")
        .arg(fixture.bed.ceph_conf())
        .args(["--attach", "fuse", "close", &spec.pool, &spec.namespace, &spec.image])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&closed.stderr);
    assert!(closed.status.code() == Some(1) && said.contains("unmount"), "{closed:?}");
    node.close(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_forced_stop_leaves_no_loop_device_that_nobody_finds_again() {
    let fixture = Fixture::new();
    let (node, spec, _mounted) = fixture.open("mounted");
    let bare = fixture.blank("bare", 16);
    node.attach(&bare, false).unwrap();
    let stop = ["stop", "--force", "--run-dir", fixture.run_dir().to_str().unwrap()];
    assert!(Command::new(fuse_program()).args(stop).status().unwrap().success());
    let loops = fixture.loops_over_images();
    let found = |file: &String| std::path::Path::new(file.trim_end()).starts_with(fixture.run_dir());
    assert!(loops.len() == 1 && loops.iter().all(found), "{loops:?}");
    node.close(&spec).unwrap();
    node.close(&bare).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_server_is_not_kept_from_serving_by_who_only_looks_whether_one_runs() {
    let fixture = Fixture::new();
    let lock = std::fs::File::create(fixture.run_dir().join("fuse.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared).unwrap();
    assert!(!fixture.node().fuse_server_alive().unwrap(), "who looks is no server");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(60));
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::Unlock).unwrap();
        });
        let mut server = fixture.serve(&[]);
        server.kill().unwrap();
        server.wait().unwrap();
    });
    fixture.node().clean(|_| false).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn addresses_of_a_killed_server_are_kept_until_it_is_cut_off() {
    let fixture = Fixture::new();
    let keyring = fixture.run_dir().join("keyring");
    let user = fixture.pool.name().to_owned();
    let client = format!("client.{user}");
    let made = fixture.bed.ceph(["auth", "get-or-create", &client, "mon", "allow r", "osd", "allow *"]);
    std::fs::write(&keyring, made).unwrap();
    let addresses = || -> Vec<String> {
        let text = std::fs::read_to_string(fixture.run_dir().join("fuse.lock")).unwrap();
        text.lines().skip(1).map(str::to_owned).collect()
    };
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut server = fixture.serve(&["--user", &user, "--keyring", keyring.to_str().unwrap()]);
        server.kill().unwrap();
        server.wait().unwrap();
        let now = addresses();
        assert!(
            now.len() == kept.len() + 1 && kept.iter().all(|address| now.contains(address)),
            "{kept:?} {now:?}"
        );
        kept = now;
    }
    // Whoever may, cuts both off.
    fixture.node().clean(|_| false).unwrap();
    let cut_off = fixture.bed.ceph(["osd", "blocklist", "ls"]);
    assert!(kept.iter().all(|address| cut_off.contains(address.as_str())), "{kept:?} {cut_off}");
    fixture.bed.ceph(["auth", "rm", &client]);
    std::fs::remove_file(keyring).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn many_commands_at_once_in_one_run_directory_do_not_wait_for_servers_of_others() {
    let fixture = Fixture::new();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let node = fixture.node();
                for _ in 0..6 {
                    node.prepare().unwrap();
                    node.settle().unwrap();
                }
            });
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    fixture.node().clean(|_| false).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn there_are_never_two_servers_for_one_run_directory() {
    let fixture = Fixture::new();
    let (node, spec, _) = fixture.open("one");
    let serve = || {
        let mut command = Command::new(fuse_program());
        command
            .arg("serve")
            .arg("--run-dir")
            .arg(fixture.run_dir())
            .arg("--ceph-conf")
            .arg(fixture.bed.ceph_conf());
        command.output().unwrap()
    };
    let pid = fixture.server_pid();
    let second = serve();
    assert!(second.status.success() && second.stdout == b"taken\n", "{second:?}");
    assert_eq!(fixture.server_pid(), pid);
    std::fs::write(node.open(&spec, &writable(&marker("one"))).unwrap().data.join("x"), "y").unwrap();
    node.close(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn the_server_outlives_whoever_started_it() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let clone = fixture.clone_of(&golden, "c");
    let args = ["open", &clone.pool, "clone", "c", "--golden", "g", "--database", "orders"];
    let opened = fixture.by_hand(&args, None);
    assert!(opened.status.success(), "{opened:?}");
    let node = fixture.node();
    let mounted = node.open(&clone, &writable(&marker("g"))).unwrap();
    assert_eq!(std::fs::read_to_string(mounted.data.join("hello")).unwrap(), "from the golden image");
    let pid = rustix::process::Pid::from_raw(fixture.server_pid().unwrap()).unwrap();
    assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid, "a session of its own");
    node.close(&clone).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_signal_ends_the_server_only_when_nothing_is_attached() {
    let fixture = Fixture::new();
    let (node, spec, mounted) = fixture.open("kept");
    let stop = |force: &[&str]| {
        let mut command = Command::new(fuse_program());
        command.arg("stop").arg("--run-dir").arg(fixture.run_dir()).args(force).output().unwrap()
    };
    let refused = stop(&[]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--force"), "{refused:?}");
    std::fs::write(mounted.data.join("x"), "served on").unwrap();
    rustix::fs::syncfs(std::fs::File::open(&mounted.data).unwrap()).unwrap();
    assert!(stop(&["--force"]).status.success());
    assert!(!node.fuse_server_alive().unwrap());
    node.close(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();

    let mut server = Command::new(fuse_program())
        .args(["serve", "--foreground", "--run-dir"])
        .arg(fixture.run_dir())
        .arg("--ceph-conf")
        .arg(fixture.bed.ceph_conf())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().unwrap()), &mut ready)
        .unwrap();
    assert_eq!(ready, "ready\n");
    // Not started on demand: the last close doesn't end it, a signal does, at once or with the last close.
    node.open(&spec, &writable(&marker("kept"))).unwrap();
    node.close(&spec).unwrap();
    assert!(node.fuse_server_alive().unwrap());
    let mounted = node.open(&spec, &writable(&marker("kept"))).unwrap();
    let pid = rustix::process::Pid::from_child(&server);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let (_, other, another) = fixture.open("other");
    for volume in [&mounted, &another] {
        std::fs::write(volume.data.join("x"), "served on").unwrap();
        rustix::fs::syncfs(std::fs::File::open(&volume.data).unwrap()).unwrap();
    }
    node.close(&spec).unwrap();
    assert!(node.fuse_server_alive().unwrap() && server.try_wait().unwrap().is_none());
    node.close(&other).unwrap();
    assert!(server.wait().unwrap().success());
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_server_that_somebody_else_runs_is_waited_for_and_never_started() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let clone = fixture.clone_of(&golden, "c");
    let config = NodeConfig { fuse_server: FuseServer::External, ..fixture.config() };
    let node = Node::new(config).unwrap();
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| node.open(&clone, &writable(&marker("g"))).unwrap());
        std::thread::sleep(Duration::from_secs(1));
        assert!(!opened.is_finished() && !node.fuse_server_alive().unwrap());
        let mut server = Command::new(fuse_program());
        server.args(["serve", "--foreground", "--run-dir"]).arg(fixture.run_dir());
        server.arg("--ceph-conf").arg(fixture.bed.ceph_conf()).stdout(std::process::Stdio::null());
        let mut server = server.spawn().unwrap();
        let mounted = opened.join().unwrap();
        assert_eq!(std::fs::read_to_string(mounted.data.join("hello")).unwrap(), "from the golden image");
        node.close(&clone).unwrap();
        node.settle().unwrap();
        assert!(node.fuse_server_alive().unwrap(), "it is not ours to end");
        let pid = rustix::process::Pid::from_child(&server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(server.wait().unwrap().success());
    });
    fixture.assert_nothing_left_on_the_node();
}

/// Opens and closes in a mount namespace of its own, where /dev may be changed. Both, because whoever opens and
/// whoever closes must see the same mounts.
fn in_other_dev(fixture: &Fixture, setup: &str, args: &[&str]) -> std::process::Output {
    let script = format!(
        "set -e; hand() {{ \"$BY_HAND\" --run-dir \"$RUN_DIR\" --ceph-conf \"$CONF\" --attach fuse \
         --fuse-program \"$FUSE\" \"$@\"; }}; {setup}; hand \"$@\"; hand close $2 $3 $4"
    );
    aldaas_testbed::own_mounts(&[])
        .args(["sh", "-c", &script, "sh"])
        .args(args)
        .env("BY_HAND", by_hand())
        .env("RUN_DIR", fixture.run_dir())
        .env("CONF", fixture.bed.ceph_conf())
        .env("FUSE", fuse_program())
        .output()
        .unwrap()
}

#[test]
fn without_a_free_loop_device_it_says_what_to_do_and_leaves_nothing() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let open = ["open", &golden.pool, "golden", "g", "--golden", "g", "--database", "orders"];
    let hidden = in_other_dev(&fixture, "mount --bind /dev/null /dev/loop-control", &open);
    let said = String::from_utf8_lossy(&hidden.stderr).into_owned();
    assert!(
        !hidden.status.success() && said.contains("no free loop device") && said.contains("losetup"),
        "{said}"
    );
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_loop_device_without_a_node_gets_one() {
    let fixture = Fixture::new();
    let golden = fixture.sealed("g", 64, Filesystem::Ext4);
    let open = ["open", &golden.pool, "golden", "g", "--golden", "g", "--database", "orders"];
    // A container's /dev as it often is: no loop nodes but the control.
    let setup = "mkdir -p $RUN_DIR/dev; mount -t tmpfs none $RUN_DIR/dev; for d in null fuse loop-control urandom random; \
                 do cp -a /dev/$d $RUN_DIR/dev/; done; mount --move $RUN_DIR/dev /dev; rmdir $RUN_DIR/dev";
    let opened = in_other_dev(&fixture, setup, &open);
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    // Nodes of other devices under these names: stale ones of another life of the container.
    let stale = format!("{setup}; for i in $(seq 0 99); do mknod /dev/loop$i b 1 $i; done");
    let opened = in_other_dev(&fixture, &stale, &open);
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_cluster_that_is_away_is_an_error_in_seconds_that_names_it() {
    let fixture = Fixture::new();
    let conf = fixture.run_dir().join("away.conf");
    std::fs::write(&conf, "[global]\nmon host = 127.0.0.1:1\nauth client required = none\n").unwrap();
    let mut config = fixture.config();
    config.ceph.conf = Some(conf.clone());
    config.ceph.connect_timeout = Duration::from_secs(2);
    let spec = aldaas_volume::ImageSpec::new(fixture.pool.name(), "clone", "x");
    let begun = Instant::now();
    let error = Node::new(config).unwrap().open(&spec, &writable(&marker("x"))).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(error.to_string().contains("connect to"), "{error}");
    std::fs::remove_file(conf).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn create_waits_for_nobody_and_two_creators_of_one_image_do_not_both_win() {
    let fixture = Fixture::new();
    let spec = fixture.blank("raced", 64);
    let marker = marker("raced");
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let creators: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let new = NewVolume { filesystem: Filesystem::Ext4, marker: &marker, owner: (0, 0) };
                    fixture.node().create(&spec, &new).is_ok()
                })
            })
            .collect();
        creators.into_iter().map(|c| c.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|won| **won).count(), 1);
    fixture.node().close(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn an_image_has_at_most_one_writer() {
    let (fixture, other_node) = (Fixture::new(), Fixture::new());
    let (node, spec, mounted) = fixture.open("single");
    let marker = marker("single");
    let error = other_node.node().open(&spec, &writable(&marker)).unwrap_err();
    assert!(error.is_busy() && error.to_string().contains("another writer"), "{error}");
    other_node.assert_nothing_left_on_the_node();
    std::fs::write(mounted.data.join("x"), vec![1; 1 << 20]).unwrap();
    node.close(&spec).unwrap();
    other_node.node().open(&spec, &writable(&marker)).unwrap();
    other_node.node().close(&spec).unwrap();
    other_node.assert_nothing_left_on_the_node();
    fixture.assert_nothing_left_on_the_node();
}

#[test]
fn a_run_directory_belongs_to_one_cluster_and_says_so_to_who_means_another() {
    let fixture = Fixture::new();
    let (node, spec, mounted) = fixture.open("ours");
    let text = std::fs::read_to_string(fixture.bed.ceph_conf()).unwrap();
    let conf = fixture.run_dir().join("other.conf");
    let without = |keys: &[&str]| -> String {
        let kept = text.lines().filter(|l| !keys.iter().any(|k| l.replace('_', " ").trim().starts_with(k)));
        kept.collect::<Vec<_>>().join("\n")
    };
    let other_fsid = "[global]\nfsid = 11111111-2222-3333-4444-555555555555\n";
    let other_monitors = "[global]\nmon host = 127.0.0.1:1\n";
    let refused = [
        other_fsid.to_owned() + &without(&["fsid"]),
        other_monitors.to_owned() + &without(&["fsid", "mon host"]),
    ];
    let with = |text: &str| {
        std::fs::write(&conf, text).unwrap();
        let mut config = fixture.config();
        config.ceph.conf = Some(conf.clone());
        Node::new(config).unwrap()
    };
    for text in refused {
        let other = with(&text);
        for error in [
            other.open(&spec, &writable(&marker("ours"))).unwrap_err(),
            other.close(&spec).unwrap_err(),
            other.inventory().unwrap_err(),
            other.attach(&aldaas_volume::ImageSpec::new("p", "", "i"), true).unwrap_err(),
        ] {
            assert!(matches!(error, Error::OtherCluster { .. }), "{error}");
            let said = error.to_string();
            assert!(
                said.contains("--run-dir") && said.contains(fixture.run_dir().to_str().unwrap()),
                "{said}"
            );
        }
    }
    std::fs::write(mounted.data.join("x"), "not disturbed").unwrap();
    // One that names its cluster by monitors only is the same.
    with(&without(&["fsid"])).open(&spec, &writable(&marker("ours"))).unwrap();
    std::fs::remove_file(conf).unwrap();
    node.close(&spec).unwrap();
    fixture.assert_nothing_left_on_the_node();
}
