//! Dumps in S3: a real gateway, and a server that does not keep its word.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use aldaas_api::event::Event;
use aldaas_testbed::Testbed;
use common::bucket::with_s3;
use common::liar::{Liar, Lie};
use common::*;

/// Adds what a liar needs.
fn with_liar<'a>(command: &'a mut Command, endpoint: &str) -> &'a mut Command {
    command.env("AWS_ENDPOINT_URL", endpoint).env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b")
}

fn bucket(bed: &Testbed) -> String {
    let name = aldaas_testbed::unique("restore");
    bed.bucket(&name);
    name
}

#[test]
fn a_dump_in_s3_is_restored_with_its_etag() {
    let (bed, room) = (Testbed::get(), Room::new());
    let bucket = bucket(bed);
    let dump = gzip(dump(5000));
    bed.put_object(&bucket, "daily/orders dump.sql.gz", &dump);
    let outcome = run(with_s3(&mut room.restore(format!("s3://{bucket}/daily/orders dump.sql.gz")), bed));
    let manifest = outcome.done();
    room.assert_at_rest();
    assert_eq!(manifest.contents.rows, 5000);
    assert_eq!(
        (manifest.source.size, manifest.source.etag.as_ref().map(String::len)),
        (dump.len() as u64, Some(32))
    );
    let size = dump.len() as u64;
    assert!(outcome.events.contains(&Event::Progress { bytes: size, total: Some(size) }));
    bed.delete_object(&bucket, "daily/orders dump.sql.gz");
}

/// One suite over every kind of place: the same dump is the same thing wherever it lies.
#[test]
fn every_source_tells_the_same_of_the_same_dump() {
    let (bed, room) = (Testbed::get(), Room::new());
    let bucket = bucket(bed);
    let dump = gzip(dump(3));
    bed.put_object(&bucket, "dump", &dump);
    let file = room.write("dump", &dump);
    for from in [format!("s3://{bucket}/dump"), file.display().to_string(), "-".into()] {
        let outcome = run_with_input(with_s3(&mut room.inspect(&from), bed), &dump);
        let Some(Event::Source { size, format, .. }) = outcome.events.last() else {
            panic!("{from}: {:?}", outcome.events)
        };
        assert_eq!(format, "gzip, plain SQL", "{from}");
        assert_eq!(*size, (from != "-").then_some(dump.len() as u64), "{from}");
        let target = Room::new();
        let input = if from == "-" { dump.as_slice() } else { &[] };
        let readable = if from.starts_with('/') {
            target.write("dump", &dump).display().to_string()
        } else {
            from.clone()
        };
        let outcome = run_with_input(with_s3(&mut target.restore(&readable), bed), input);
        assert_eq!(
            (outcome.done().contents.rows, outcome.done().source.size),
            (3, dump.len() as u64),
            "{from}"
        );
    }
    bed.delete_object(&bucket, "dump");
}

#[test]
fn a_key_or_bucket_that_is_missing_is_told_with_what_to_check() {
    let (bed, room) = (Testbed::get(), Room::new());
    let bucket = bucket(bed);
    let outcome = run(with_s3(&mut room.restore(format!("s3://{bucket}/missing.sql")), bed));
    let reason = outcome.failed(1);
    assert!(
        reason.contains(&format!("s3://{bucket}/missing.sql does not exist"))
            && reason.contains("check the key"),
        "{reason}"
    );
    let outcome = run(with_s3(&mut room.restore("s3://no-such-bucket-anywhere/x"), bed));
    let reason = outcome.failed(1);
    assert!(reason.contains("check the bucket's name"), "{reason}");
}

#[test]
fn keys_that_may_not_read_are_told_with_what_to_check() {
    let (bed, room) = (Testbed::get(), Room::new());
    let bucket = bucket(bed);
    bed.put_object(&bucket, "dump", b"SELECT 1;");
    let from = format!("s3://{bucket}/dump");
    let outcome = run(with_s3(&mut room.restore(&from), bed).env("AWS_SECRET_ACCESS_KEY", "wrong"));
    let reason = outcome.failed(1);
    assert!(reason.contains("SignatureDoesNotMatch") && reason.contains("check that the keys"), "{reason}");
    let outcome = run(with_s3(&mut room.restore(&from), bed).env("AWS_ACCESS_KEY_ID", "stranger"));
    assert!(outcome.failed(1).contains("InvalidAccessKeyId"));
    bed.delete_object(&bucket, "dump");
}

#[test]
fn without_keys_it_says_so_in_seconds() {
    let (bed, room) = (Testbed::get(), Room::new());
    let bucket = bucket(bed);
    bed.put_object(&bucket, "dump", b"SELECT 1;");
    let since = Instant::now();
    let mut command = room.restore(format!("s3://{bucket}/dump"));
    let outcome = run(command.env("AWS_ENDPOINT_URL", &bed.s3().endpoint));
    let reason = outcome.failed(1);
    assert!(reason.contains("without a key") && reason.contains("AWS_ACCESS_KEY_ID"), "{reason}");
    assert!(since.elapsed() < Duration::from_secs(15), "{:?}", since.elapsed());
    bed.delete_object(&bucket, "dump");
}

#[test]
fn s3_away_is_a_failure_that_may_pass_and_not_a_hang() {
    // Nobody listens; packets vanish (a documentation address); somebody listens, but says nothing; busy for ever.
    let silent = Liar::start(Vec::new(), Lie::Silent);
    let busy = Liar::start(Vec::new(), Lie::Busy);
    let endpoints = ["http://127.0.0.1:1", "http://192.0.2.1:7480", &silent.endpoint, &busy.endpoint];
    for endpoint in endpoints {
        let room = Room::new();
        let since = Instant::now();
        let outcome = run(with_liar(&mut room.restore("s3://bucket/key"), endpoint));
        let reason = outcome.failed(75);
        assert!(reason.contains(endpoint), "{reason}");
        assert!(since.elapsed() < Duration::from_secs(16), "{endpoint}: {:?}", since.elapsed());
        assert!(!room.path("data").exists());
    }
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let room = Room::new();
    let dump = dump(40_000).into_bytes();
    let liar = Liar::start(dump.clone(), Lie::CutsAfter(dump.len() / 3));
    let outcome = run(with_liar(&mut room.restore("s3://bucket/key"), &liar.endpoint));
    assert_eq!(outcome.done().contents.rows, 40_000);
    assert_eq!(outcome.done().source.size, dump.len() as u64);
    let ranges = liar.ranges();
    assert_eq!(ranges.len(), 4, "{ranges:?}");
    assert_eq!(ranges[1], format!("Some({}) Some(\"\\\"e1\\\"\")", dump.len() / 3));
}

#[test]
fn a_body_that_stays_short_never_becomes_a_database() {
    let dump = dump(1000).into_bytes();
    for (lie, word) in [
        (Lie::CutsAfter(100), "cut short"),
        (Lie::CutsAndStartsOver(5000), "cut short"),
        (Lie::Changes(5000), "changed while it was read"),
        (Lie::ChangesUnseen(5000), "changed while it was read"),
        (Lie::CutsWithoutEtag(5000), "cut short"),
    ] {
        let room = Room::new();
        let liar = Liar::start(dump.clone(), lie);
        let outcome = run(with_liar(&mut room.restore("s3://bucket/key"), &liar.endpoint));
        let reason = outcome.failed(75);
        assert!(reason.contains(word), "{lie:?}: {reason}");
        assert!(!room.path("manifest.json").exists());
        room.wait_for_no_process();
    }
}

#[test]
fn an_object_of_unknown_length_is_refused_for_its_end_could_be_missing() {
    // As a whole it would be a good dump.
    let dump = "CREATE TABLE a ();\nCREATE TABLE b ();\n";
    let room = Room::new();
    let liar = Liar::start(dump.into(), Lie::CutsWithoutLength(dump.len() / 2));
    let outcome = run(with_liar(&mut room.restore("s3://bucket/key"), &liar.endpoint));
    let reason = outcome.failed(1);
    assert!(reason.contains("Content-Length") && reason.contains(&liar.endpoint), "{reason}");
}
