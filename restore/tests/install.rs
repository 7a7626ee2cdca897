//! The program, copied to where an engine's container finds it.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use common::*;

fn install(room: &Room, path: &std::path::Path) -> Command {
    let mut command = room.command(room.path("aldaas-restore"));
    command.arg("install").arg(path);
    command
}

#[test]
fn an_installed_copy_is_whole_can_be_run_by_anybody_and_takes_the_place_of_an_older_one() {
    let room = Room::new();
    fs::create_dir(room.path("shared")).unwrap();
    fs::set_permissions(room.path("shared"), fs::Permissions::from_mode(0o777)).unwrap();
    let path = room.path("shared/aldaas-restore");
    for again in [false, true] {
        // Even where it runs just now, and whatever the umask is.
        let running = again.then(|| {
            Command::new(&path)
                .args(["inspect", "--from", "-"])
                .stdin(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        });
        let mut shell = room.command("/bin/sh");
        let script =
            format!("umask 077; exec {} install {}", room.path("aldaas-restore").display(), path.display());
        shell.env("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt");
        let outcome = run(shell.args(["-c", &script]));
        assert_eq!((outcome.code, outcome.events.len()), (0, 0), "{}", outcome.log);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
        let same = Command::new("cmp").arg(room.path("aldaas-restore")).arg(&path).status().unwrap();
        assert!(same.success());
        let said = room.command(&path).arg("--version").output().unwrap();
        assert!(String::from_utf8(said.stdout).unwrap().starts_with("aldaas-restore "));
        if let Some(mut running) = running {
            drop(running.stdin.take());
            running.wait().unwrap();
        }
    }
    // Nothing else is left there, but whom this machine trusts.
    let there = fs::read_dir(room.path("shared")).unwrap();
    let mut there: Vec<_> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    there.sort();
    assert_eq!(there, ["aldaas-restore", "ca-certificates.crt"]);
    let trusted = fs::read_to_string(room.path("shared/ca-certificates.crt")).unwrap();
    assert_eq!(trusted, fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap());
}

#[test]
fn where_it_cannot_be_installed_nothing_is_left() {
    let room = Room::new();
    assert!(
        run(&mut install(&room, &room.path("missing/aldaas-restore")))
            .failed(1)
            .contains("missing/aldaas-restore")
    );
    let small = room.path("small");
    let _unmounted = mount_tmpfs(&small, "size=1m,mode=0777");
    let reason = run(&mut install(&room, &small.join("aldaas-restore"))).failed(1).to_owned();
    assert!(reason.contains("No space left on device"), "{reason}");
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0);
}

#[test]
fn on_a_node_the_versions_before_it_stay_for_a_while_and_nothing_else_is_touched() {
    let room = Room::new();
    let at = |version: &str| room.path("bin").join(version).join("aldaas-restore");
    fs::create_dir(room.path("bin")).unwrap();
    fs::set_permissions(room.path("bin"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::create_dir(room.path("bin/somebody-elses")).unwrap();
    fs::write(room.path("bin/somebody-elses/file"), "").unwrap();
    for version in ["1", "2", "3", "4", "4"] {
        let outcome = run(install(&room, &at(version)).arg("--on-node"));
        assert_eq!(outcome.code, 0, "{}", outcome.log);
        assert_eq!(fs::metadata(at(version).parent().unwrap()).unwrap().mode() & 0o7777, 0o755);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(at("4").exists() && at("3").exists() && at("2").exists());
    assert!(!room.path("bin/1").exists());
    assert!(room.path("bin/somebody-elses/file").exists());
}
