//! What lies in a bucket, told by a real gateway.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use aldaas_api::event::{Event, Listing};
use aldaas_testbed::Testbed;
use common::bucket::{Bucket, Stranger, with_s3};
use common::liar::{Liar, Lie};
use common::tls::TlsGateway;
use common::*;

/// Runs `list`; what it found.
#[track_caller]
fn listed(command: &mut Command) -> Listing {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    serde_json::from_str(&said).unwrap()
}

fn keys(listing: &Listing) -> Vec<&str> {
    listing.objects.iter().map(|object| object.key.as_str()).collect()
}

#[test]
fn the_dumps_below_a_prefix_are_listed_the_newest_first() {
    let (bed, room) = (Testbed::get(), Room::new());
    let bucket = Bucket::new(bed);
    assert_eq!(listed(with_s3(&mut room.list(bucket.at("")), bed)), Listing::default());
    bucket.put("other/x.sql.gz", b"other");
    for (key, content) in [("daily/a.sql.gz", "1"), ("daily/c.sql.gz", "22"), ("daily/b.sql.gz", "333")] {
        bucket.put(key, content.as_bytes());
        std::thread::sleep(Duration::from_millis(1100)); // some stores tell whole seconds
    }
    bucket.put("daily/", b"");
    bucket.put("daily/notes.txt", b"x");

    let all = listed(with_s3(&mut room.list(bucket.at("daily/")), bed));
    assert_eq!(keys(&all), ["daily/notes.txt", "daily/b.sql.gz", "daily/c.sql.gz", "daily/a.sql.gz"]);
    assert_eq!(all.total, 4);
    let dump = &all.objects[1];
    assert_eq!((dump.size, dump.etag.as_deref().unwrap().len()), (3, 32));
    let age = jiff::Timestamp::now().duration_since(dump.last_modified);
    assert!(age < jiff::SignedDuration::from_mins(5) && age > jiff::SignedDuration::ZERO, "{age}");

    let some = listed(
        with_s3(&mut room.list(bucket.at("daily/")), bed).args(["--suffix", ".sql.gz", "--newest", "2"]),
    );
    assert_eq!((keys(&some), some.total), (vec!["daily/b.sql.gz", "daily/c.sql.gz"], 3));
    // All of the bucket, and what only begins with the same letters.
    assert_eq!(listed(with_s3(&mut room.list(bucket.at("")), bed)).total, 5);
    assert_eq!(listed(with_s3(&mut room.list(bucket.at("dai")), bed)).total, 4);
    assert_eq!(listed(with_s3(&mut room.list(bucket.at("none/")), bed)).total, 0);
}

#[test]
fn a_bucket_with_many_objects_is_listed_to_its_end() {
    let (bed, room) = (Testbed::get(), Room::new());
    let bucket = Bucket::new(bed);
    let keys: Vec<String> = (0..2500).map(|at| format!("many/{at:04}.sql")).collect();
    bucket.put_all(&keys);
    std::thread::sleep(Duration::from_millis(1100));
    // The newest stands in the middle of the alphabet.
    bucket.put("many/1234.sql", b"new");
    let listing = listed(with_s3(&mut room.list(bucket.at("many/")), bed));
    assert_eq!((listing.total, listing.objects.len()), (2500, 20));
    assert_eq!(listing.objects[0].key, "many/1234.sql");
    let listing = listed(with_s3(&mut room.list(bucket.at("many/")), bed).args(["--newest", "3000"]));
    assert_eq!((listing.total, listing.objects.len()), (2500, 2500));
}

#[test]
fn keys_may_hold_whatever_people_write() {
    let (bed, room) = (Testbed::get(), Room::new());
    let bucket = Bucket::new(bed);
    let odd = [
        "odd/täglich/größe ü.sql.gz",
        "odd/日本 😀.sql",
        "odd/two  blanks",
        "odd/ leading and trailing ",
        "odd/a+b%20c&d<e>f\"g'h?i#j=k;l\\m",
        "odd//double//slash",
    ];
    for key in odd {
        bucket.put(key, b"SELECT 1;");
    }
    let listing = listed(with_s3(&mut room.list(bucket.at("odd/")), bed));
    let mut found = keys(&listing);
    found.sort_unstable();
    let mut want = odd.to_vec();
    want.sort_unstable();
    assert_eq!(found, want);
    // What is listed can be read by the key that was told.
    for key in found {
        let outcome = run(with_s3(&mut room.inspect(bucket.at(key)), bed));
        assert!(matches!(outcome.events.last(), Some(Event::Source { .. })), "{key}: {:?}", outcome.events);
    }
    assert_eq!(listed(with_s3(&mut room.list(bucket.at("odd/täglich/größe")), bed)).total, 1);
}

#[test]
fn what_keeps_a_bucket_from_being_listed_is_told_and_whether_it_may_pass() {
    let (bed, room) = (Testbed::get(), Room::new());
    let bucket = Bucket::new(bed);
    let says = |outcome: &Outcome, code: i32, words: &[&str]| {
        let reason = outcome.failed(code).to_owned();
        assert!(words.iter().all(|word| reason.contains(word)), "{words:?}: {reason}");
    };
    let from = bucket.at("daily/");
    let absent = run(with_s3(&mut room.list("s3://no-such-bucket-anywhere/x"), bed));
    says(&absent, 1, &["s3://no-such-bucket-anywhere/x does not exist", "check the bucket's name"]);
    let wrong = run(with_s3(&mut room.list(&from), bed).env("AWS_SECRET_ACCESS_KEY", "wrong"));
    says(&wrong, 1, &["SignatureDoesNotMatch", "check that the keys"]);
    let stranger = run(with_s3(&mut room.list(&from), bed).env("AWS_ACCESS_KEY_ID", "stranger"));
    says(&stranger, 1, &["InvalidAccessKeyId", "check that the keys"]);
    let keyless = run(with_s3(&mut room.list(&from), bed).env_remove("AWS_ACCESS_KEY_ID"));
    says(&keyless, 1, &["may not be read", "without a key", "AWS_ACCESS_KEY_ID"]);
    // Somebody else's bucket: the key is good, but not for this.
    let closed = Stranger::new(bed);
    let denied = run(with_s3(&mut room.list(closed.bucket().at("")), bed));
    says(&denied, 1, &["AccessDenied", "may read that bucket"]);

    let (silent, busy) = (Liar::start(Vec::new(), Lie::Silent), Liar::start(Vec::new(), Lie::Busy));
    for (endpoint, word) in [
        ("http://127.0.0.1:1", "does not answer"),
        ("http://no-such-host.invalid:80", "does not answer"),
        (silent.endpoint.as_str(), "does not answer"),
        (busy.endpoint.as_str(), "503"),
    ] {
        let since = Instant::now();
        let outcome = run(with_s3(&mut room.list(&from), bed).env("AWS_ENDPOINT_URL", endpoint));
        says(&outcome, 75, &[endpoint, word]);
        assert!(since.elapsed() < Duration::from_secs(16), "{endpoint}: {:?}", since.elapsed());
    }
    for from in ["s3://", "/a/file", "http://host/bucket"] {
        assert_eq!(run(&mut room.list(from)).code, 2, "{from}");
    }
}

#[test]
fn a_public_bucket_needs_no_key() {
    let (bed, room) = (Testbed::get(), Room::new());
    let bucket = Bucket::new(bed);
    bucket.put_public("dump.sql", dump(3).as_bytes());
    let from = |mut command: Command| {
        with_s3(&mut command, bed).env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        command
    };
    assert_eq!(keys(&listed(&mut from(room.list(bucket.at(""))))), ["dump.sql"]);
    let outcome = run(&mut from(room.restore(bucket.at("dump.sql"))));
    assert_eq!(outcome.done().contents.rows, 3);
}

#[test]
fn a_certificate_that_nobody_knows_is_taken_only_when_told_or_when_it_lies_beside_the_program() {
    let (bed, room) = (Testbed::get(), Room::new());
    let bucket = Bucket::new(bed);
    bucket.put("dump.sql", b"SELECT 1;");
    let gateway = TlsGateway::start(bed);
    let list = |more: &[&str]| {
        let mut command = room.list(bucket.at(""));
        with_s3(&mut command, bed).env("AWS_ENDPOINT_URL", &gateway.endpoint).args(more);
        command
    };
    let outcome = run(&mut list(&[]));
    let reason = outcome.failed(1);
    assert!(reason.contains("certificate") && reason.contains("--s3-insecure"), "{reason}");
    assert_eq!(keys(&listed(&mut list(&["--s3-insecure"]))), ["dump.sql"]);
    assert_eq!(keys(&listed(list(&[]).env("ALDAAS_S3_INSECURE", "true"))), ["dump.sql"]);
    assert!(run(list(&[]).env("ALDAAS_S3_INSECURE", "false")).failed(1).contains("certificate"));
    room.write("ca-certificates.crt", format!("nonsense\n{}", gateway.certificate));
    assert_eq!(keys(&listed(&mut list(&[]))), ["dump.sql"]);
    // That of another name is no good, whoever signed it.
    let outcome = run(list(&[]).env("AWS_ENDPOINT_URL", gateway.endpoint.replace("localhost", "127.0.0.1")));
    assert!(outcome.failed(1).contains("certificate"), "{:?}", outcome.events);
}
