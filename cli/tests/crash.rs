//! `kill -9` at every named step: afterwards `aldaas doctor --clean` finds all of it, `latest` is what it was, and the next
//! try succeeds.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::process::ExitStatusExt;

use common::{Bed, DUMP};

/// Kills the command at the failpoint, cleans up, and compares.
fn killed_at(bed: &Bed, failpoint: &str, arguments: &[&str]) {
    let before = bed.census();
    let output = bed.command(arguments).env("FAILPOINTS", format!("{failpoint}=panic")).output().unwrap();
    let stderr = common::text(&output.stderr);
    assert_eq!(output.status.signal(), Some(9), "{failpoint} was not reached by {arguments:?}: {stderr}");
    let cleaned = bed.run(&["doctor", "--clean"]);
    assert!(cleaned.status.success(), "{failpoint}: {}", common::text(&cleaned.stdout));
    bed.assert_census(&before, &format!("after a kill at {failpoint}"));
    assert!(bed.ok(&["doctor"]).lines().all(|line| !line.contains("LEFT OVER")), "{failpoint}");
}

const INGEST: &[&str] = &[
    "golden::after-create",
    "golden::after-begin",
    "volume::after-attach",
    "volume::after-mkfs",
    "volume::after-mount",
    "volume::after-bind",
    "ingest::after-restore",
    "ingest::after-manifest",
    "volume::after-unbind",
    "volume::after-unmount",
    "volume::after-detach",
    "ingest::after-close",
    "golden::after-snapshot",
    "golden::after-seal",
    "golden::after-clone",
    "golden::after-clone-record",
    "ingest::after-verification-clone",
    "ingest::after-check",
    "golden::after-trash",
    "ingest::after-verification",
];

#[test]
fn an_ingest_killed_anywhere_leaves_nothing_and_latest_as_it_was() {
    let bed = Bed::new();
    let latest = bed.ingest_small();
    let dump = bed.file("next.sql", DUMP);
    for failpoint in INGEST {
        killed_at(&bed, failpoint, &["ingest", "orders", "--from", &dump]);
        assert_eq!(bed.latest("orders").as_deref(), Some(latest.as_str()), "{failpoint}");
    }
    let next = bed.ingest_small();
    assert_eq!(bed.latest("orders"), Some(next));
}

#[test]
fn an_ingest_killed_after_the_last_step_has_made_a_ready_image() {
    let bed = Bed::new();
    bed.ingest_small();
    let before = bed.latest("orders");
    let dump = bed.file("next.sql", DUMP);
    let output = bed
        .command(&["ingest", "orders", "--from", &dump])
        .env("FAILPOINTS", "golden::after-ready=panic")
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(9));
    bed.ok(&["doctor", "--clean"]);
    assert_ne!(bed.latest("orders"), before);
    bed.ok(&["run", "orders:latest", "--", "true"]);
}

#[test]
fn a_run_killed_anywhere_leaves_nothing() {
    let bed = Bed::new();
    bed.ingest_small();
    for failpoint in [
        "golden::after-clone",
        "golden::after-clone-record",
        "volume::after-attach",
        "volume::after-mount",
        "volume::after-bind",
        "cli::after-open",
        "cli::before-holder",
        "cli::after-holder",
        "cli::after-engine-start",
        "cli::after-engine-stop",
        "volume::after-unbind",
        "volume::after-unmount",
        "volume::after-detach",
        "cli::after-close",
        "golden::after-trash",
    ] {
        killed_at(&bed, failpoint, &["run", "orders:latest", "--", "true"]);
    }
}

#[test]
fn a_clone_killed_while_it_is_made_leaves_nothing() {
    let bed = Bed::new();
    bed.ingest_small();
    for failpoint in
        ["golden::after-clone", "volume::after-mount", "cli::after-engine-start", "cli::before-detach"]
    {
        killed_at(&bed, failpoint, &["clone", "orders:latest", "mine"]);
    }
    bed.ok(&["clone", "orders:latest", "mine"]);
    bed.ok(&["doctor", "--clean"]);
    assert_eq!(bed.json(&["clones"]).as_array().unwrap().len(), 1, "a clone in use was cleaned away");
    bed.ok(&["rm", "mine"]);
}

#[test]
fn a_removal_killed_anywhere_can_be_repeated() {
    let bed = Bed::new();
    bed.ingest_small();
    let before = bed.census();
    for failpoint in
        ["cli::after-engine-stop", "volume::after-unmount", "volume::after-detach", "cli::after-close"]
    {
        bed.ok(&["clone", "orders:latest", "mine"]);
        let output =
            bed.command(&["rm", "mine"]).env("FAILPOINTS", format!("{failpoint}=panic")).output().unwrap();
        assert_eq!(output.status.signal(), Some(9), "{failpoint}");
        bed.ok(&["rm", "mine"]);
        bed.ok(&["doctor", "--clean"]);
        bed.assert_census(&before, &format!("after a removal killed at {failpoint}"));
    }
}

#[test]
fn a_clean_up_killed_anywhere_is_finished_by_the_next() {
    let bed = Bed::new();
    let before = bed.census();
    let dump = bed.file("orders.sql", DUMP);
    for failpoint in ["golden::after-unseal", "golden::after-trash", "volume::after-unmount"] {
        for (arguments, killed) in [
            (["ingest", "orders", "--from", &dump].as_slice(), "ingest::after-check=panic"),
            (["doctor", "--clean"].as_slice(), &format!("{failpoint}=panic")),
        ] {
            let output = bed.command(arguments).env("FAILPOINTS", killed).output().unwrap();
            assert_eq!(output.status.signal(), Some(9), "{killed}: {}", common::text(&output.stderr));
        }
        bed.ok(&["doctor", "--clean"]);
        bed.assert_census(&before, &format!("after a clean-up killed at {failpoint}"));
    }
}

#[test]
fn a_retirement_killed_anywhere_is_finished_by_doctor() {
    let bed = Bed::new();
    for failpoint in ["golden::after-retire", "golden::after-retire-trash", "golden::after-snapshot-removal"]
    {
        let before = bed.census();
        let image = bed.ingest_small();
        let output = bed
            .command(&["retire", &image, "--force"])
            .env("FAILPOINTS", format!("{failpoint}=panic"))
            .output()
            .unwrap();
        assert_eq!(output.status.signal(), Some(9), "{failpoint}");
        assert_eq!(bed.latest("orders"), None, "{failpoint}");
        bed.ok(&["doctor", "--clean"]);
        bed.assert_census(&before, &format!("after a retirement killed at {failpoint}"));
    }
}
