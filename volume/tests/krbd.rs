//! The kernel's own RBD client, for real, in a guest.

#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

use std::path::Path;
use std::process::Command;

#[test]
fn a_kernel_with_rbd_attaches_mounts_checks_and_writes_clones_without_librbd() {
    let volume = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(volume.join("tests/krbd-guest.sh"))
        .env("BY_HAND", common::by_hand())
        .env("FUSE", common::fuse_program())
        .env("HACK", volume.with_file_name("hack"))
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.ends_with("krbd works\n"), "{stdout}\n{stderr}");
}
