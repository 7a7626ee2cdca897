//! In a container of Kubernetes: the first process, as a user without a name, on a read-only root.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aldaas_api::event::{Event, Step};
use common::container::{Container, NOBODY, child_of};
use common::*;
use rustix::process::Signal;

/// Where Debian keeps what gives a user a name.
fn wrapper() -> std::path::PathBuf {
    let out = Command::new("find").args(["/usr/lib", "-name", "libnss_wrapper.so"]).output().unwrap();
    let found = String::from_utf8(out.stdout).unwrap();
    found.lines().next().expect("libnss-wrapper is not installed: run hack/deps, or make test").into()
}

/// `restore` of a room's dump, with the data in `sub` of its mount.
fn restore(room: &Room, sub: &str) -> Command {
    room.restore_into(room.write("dump", dump(100)), room.path("data").join(sub)).with_manifest_in_work(room)
}

trait InWork {
    fn with_manifest_in_work(self, room: &Room) -> Command;
}

impl InWork for Command {
    /// The rest of the room is read-only.
    fn with_manifest_in_work(self, room: &Room) -> Command {
        let mut again = Command::new(self.get_program());
        again.envs(self.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let outside = room.path("manifest.json");
        let inside = room.path("work/manifest.json");
        again.args(
            self.get_args().map(|arg| if arg == outside.as_os_str() { inside.as_os_str() } else { arg }),
        );
        again
    }
}

#[test]
fn as_the_first_process_and_a_user_without_a_name_it_restores_and_checks_on_a_read_only_root() {
    wrapper();
    for sub in ["", "pgdata"] {
        let room = Room::new();
        let mut command = restore(&room, sub);
        // Processes that nobody waits for, as a dump or a command may leave them.
        let script = "touch /var/tmp/x 2>/dev/null && exit 1; test \"$(id -u)\" = 4242 || exit 2; \
                      for i in 1 2 3 4 5 6 7 8; do (setsid sleep 0.1 &) ; done; sleep 1; \
                      ! grep -l '^State:.Z' /proc/[0-9]*/status";
        command.args(["--mask-sql", "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; (setsid sleep 0.1 &)'"]);
        for word in ["sh", "-c", script] {
            command.args(["--mask-command", word]);
        }
        let container = Container::default();
        let outcome = run(&mut container.command(&room, &command));
        assert_eq!(outcome.done().contents.rows, 100);
        let data = fs::metadata(room.path("data").join(sub)).unwrap();
        assert_eq!((data.uid(), data.mode() & 0o777), (NOBODY, 0o700));
        room.wait_for_no_process();

        // The manifest is a read-only file there.
        let check = room.check_in(room.path("data").join(sub)).with_manifest_in_work(&room);
        let manifest = room.path("work/manifest.json");
        fs::set_permissions(&manifest, fs::Permissions::from_mode(0o444)).unwrap();
        chown(&manifest, Some(0), Some(0)).unwrap();
        run(&mut container.command(&room, &check)).done();
        room.wait_for_no_process();
    }
}

#[test]
fn a_user_without_a_name_gets_one_from_the_image_or_is_told_how_to() {
    let room = Room::new();
    let wrapper = wrapper();
    let without = Container { without: Some(&wrapper), ..Container::default() };
    let outcome = run(&mut without.command(&room, &restore(&room, "")));
    let reason = outcome.failed(1);
    assert!(reason.contains("4242") && reason.contains("nss_wrapper"), "{reason}");
    let passwd = "root:x:0:0:root:/:/bin/sh\nengine:x:4242:4242::/:/bin/sh\n";
    let named = Container { passwd: Some(passwd), ..without };
    assert_eq!(run(&mut named.command(&room, &restore(&room, ""))).done().contents.rows, 100);
}

#[test]
fn a_data_directory_of_another_user_is_told_as_such() {
    let room = Room::new();
    fs::create_dir(room.path("data")).unwrap();
    fs::set_permissions(room.path("data"), fs::Permissions::from_mode(0o777)).unwrap();
    chown(room.path("data"), Some(1), None).unwrap();
    let outcome = run(&mut Container::default().command(&room, &restore(&room, "")));
    let reason = outcome.failed(1);
    assert!(reason.contains("belongs to user 1") && reason.contains("user 4242"), "{reason}");
}

/// A restore that waits in its mask; the program that is the container's first process, and the one that works.
fn stuck(room: &Room) -> (Running, u32, u32) {
    let mut command = restore(room, "");
    let mut command =
        Container::default().command(room, command.args(["--mask-sql", "SELECT pg_sleep(100)"]));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running::adopt(command.spawn().unwrap());
    running.until(|event| matches!(event, Event::Step { step: Step::Mask }));
    let first = child_of(running.child.id());
    (running, first, child_of(first))
}

#[test]
fn a_container_that_is_told_to_stop_stops_at_once_with_143() {
    let room = Room::new();
    let (mut running, first, _) = stuck(&room);
    let since = Instant::now();
    signal_pid(first, Signal::TERM);
    let event = running.until(|event| matches!(event, Event::Failed { .. }));
    assert_eq!(event, Event::Failed { step: Step::Mask, reason: "cancelled".into(), temporary: true });
    assert_eq!(running.code(), 143);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    room.wait_for_no_process();
}

#[test]
fn a_container_whose_work_was_killed_says_that_it_may_pass() {
    let room = Room::new();
    let (mut running, _, worker) = stuck(&room);
    signal_pid(worker, Signal::KILL);
    let event = running.until(|event| matches!(event, Event::Failed { .. }));
    let Event::Failed { reason, temporary: true, .. } = event else { panic!("{event:?}") };
    assert!(reason.contains("killed by signal 9") && reason.contains("out of memory"), "{reason}");
    assert_eq!(running.code(), 75);
    room.wait_for_no_process();
}

#[test]
fn an_installed_copy_works_in_a_container_that_holds_nothing_else_of_ours() {
    let room = Room::new();
    assert!(
        run(room.command(room.path("aldaas-restore")).arg("install").arg(room.path("copy")))
            .events
            .is_empty()
    );
    fs::remove_file(room.path("aldaas-restore")).unwrap();
    let command = restore(&room, "");
    let mut again = Command::new(room.path("copy"));
    again.args(command.get_args()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    assert_eq!(run(&mut Container::default().command(&room, &again)).done().contents.rows, 100);
    assert!(Path::new(&room.path("ca-certificates.crt")).exists());
}
