//! Bad dumps and broken surroundings: one line that says what to do, an exit code that is not 0, `latest` as it was, and nothing
//! left behind.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};

use common::{Bed, DUMP, endless_ingest, processes_naming, query, refusal, signal, text};
use rustix::process::Signal;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[test]
fn a_bad_dump_never_becomes_latest() {
    let bed = Bed::new();
    let latest = bed.ingest_small();
    let rows: String =
        (0..20_000).map(|n| format!("INSERT INTO customer VALUES ({}, 'x{n}');\n", n + 1000)).collect();
    let long = DUMP.replace(
        "--\n-- PostgreSQL database dump complete",
        &format!("{rows}--\n-- PostgreSQL database dump complete"),
    );
    let zipped = gzip(long.as_bytes());
    let mut flipped = zipped.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let wrong = DUMP.replace("INSERT INTO customer SELECT", "INSERT INTO custmoer SELECT");
    let binary: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cut = &long.as_bytes()[..long.len() / 2];
    let before = bed.census();
    let cases: [(&str, &[u8], &str); 7] = [
        ("truncated.sql.gz", &zipped[..zipped.len() / 2], "truncated"),
        ("truncated.sql", cut, ""),
        ("flipped.sql.gz", &flipped, ""),
        ("empty.sql", b"", "empty"),
        ("not-a-dump", &binary, ""),
        ("wrong.sql", wrong.as_bytes(), "custmoer"),
        ("trailing.sql.gz", &[zipped.as_slice(), b"rubbish behind it"].concat(), ""),
    ];
    for (name, content, said) in cases {
        let path = bed.file(name, content);
        let error = bed.refused(&["ingest", "orders", "--from", &path]);
        assert!(error.contains(said), "{name}: {error}");
        println!("{name}: {error}");
        assert_eq!(bed.latest("orders").as_deref(), Some(latest.as_str()), "{name}");
        bed.assert_census(&before, name);
    }
}

#[test]
fn a_dump_larger_than_the_volume_is_said_to_be_so() {
    let bed = Bed::new();
    let before = bed.census();
    let big =
        "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 30) AS t FROM generate_series(1, 400000) n;\n";
    let dump = bed.file("big.sql", big);
    let error = bed.refused(&["ingest", "orders", "--from", &dump, "--size", "256MiB"]);
    assert!(error.contains("--size") || error.contains("larger"), "{error}");
    bed.assert_census(&before, "after a full volume");
}

#[test]
fn a_check_that_fails_keeps_the_image_from_becoming_latest() {
    let bed = Bed::new();
    let latest = bed.ingest_small();
    let before = bed.census();
    let dump = bed.file("orders.sql", DUMP);
    let check = "SELECT count(*) > 1000 FROM customer";
    let error = bed.refused(&["ingest", "orders", "--from", &dump, "--check", check]);
    assert!(error.contains(check), "{error}");
    assert_eq!(bed.latest("orders"), Some(latest.clone()));
    bed.assert_census(&before, "after a failed check");

    bed.refused(&["ingest", "orders", "--from", &dump, "--check", check, "--keep-failed"]);
    let images = bed.json(&["images"]);
    let failed = images.as_array().unwrap().iter().find(|image| image["state"] == "failed").unwrap();
    assert!(failed["reason"].as_str().unwrap().contains(check));
    assert_eq!(bed.latest("orders"), Some(latest));
    bed.ok(&["retire", failed["image"].as_str().unwrap()]);
    bed.assert_census(&before, "after the failed image was retired");
}

#[test]
fn a_source_that_is_away_or_refuses_is_said_to_be_so() {
    let bed = Bed::new();
    bed.testbed.bucket("source");
    bed.testbed.put_object("source", "orders.sql", DUMP.as_bytes());
    let before = bed.census();
    let ingest = |from: &str, key: &str, value: &str| {
        let output = bed.command(&["ingest", "orders", "--from", from]).env(key, value).output().unwrap();
        (refusal(&output, from), output.status.code())
    };
    let (error, code) = ingest("s3://source/nothing.sql", "UNUSED", "");
    assert!(error.contains("s3://source/nothing.sql"), "{error}");
    assert_eq!(code, Some(1));
    let (error, _) = ingest("s3://nowhere-at-all/orders.sql", "UNUSED", "");
    assert!(error.contains("nowhere-at-all"), "{error}");
    let (error, code) = ingest("s3://source/orders.sql", "AWS_SECRET_ACCESS_KEY", "wrong");
    assert!(error.contains("may not be read") && error.contains("check that the keys"), "{error}");
    assert_eq!(code, Some(1));
    // Nothing listens on the discard port.
    let (error, code) = ingest("s3://source/orders.sql", "AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    assert!(error.contains("127.0.0.1:9"), "{error}");
    assert_eq!(code, Some(75));
    assert!(bed.refused(&["ingest", "orders", "--from", "/no/such/file"]).contains("/no/such/file"));
    assert!(bed.refused(&["ingest", "orders", "--from", "/tmp"]).contains("/tmp"));
    bed.assert_census(&before, "after refused sources");
}

#[test]
fn names_that_are_taken_are_refused_whoever_took_them() {
    let bed = Bed::new();
    bed.ingest_small();
    bed.ok(&["clone", "orders:latest", "pr-1"]);
    assert!(bed.refused(&["clone", "orders:latest", "pr-1"]).contains("aldaas rm pr-1"));
    let url = bed.json(&["clones"])[0]["url"].as_str().unwrap().to_owned();
    assert_eq!(query(&url, "SELECT count(*) FROM customer"), "100", "the first pr-1 was harmed");
    bed.ok(&["rm", "pr-1"]);

    let pool = bed.pool.name();
    bed.testbed.rbd(["create", "--size", "1G", &format!("{pool}/clone/theirs")]);
    bed.testbed.rbd(["create", "--size", "1G", &format!("{pool}/golden/orders-20200101t000000z")]);
    let before = bed.census();
    assert!(bed.refused(&["clone", "orders:latest", "theirs"]).contains("not made by aldaas"));
    assert!(bed.refused(&["rm", "theirs"]).contains("not made by aldaas"));
    let dump = bed.file("orders.sql", DUMP);
    let error = bed.refused(&["ingest", "orders", "--from", &dump, "--name", "orders-20200101t000000z"]);
    assert!(error.contains("not made by aldaas"), "{error}");
    assert!(
        bed.refused(&["clone", "orders:latest", "verify-orders-20200101t000000z"]).contains("another name")
    );
    for (name, said) in
        [("web-20200101t000000z", "begin it with orders-"), ("orders-29990101t000000z", "future")]
    {
        assert!(bed.refused(&["ingest", "orders", "--from", &dump, "--name", name]).contains(said), "{name}");
    }
    bed.assert_census(&before, "after taken names");
}

#[test]
fn a_second_ingest_of_one_database_is_told_of_the_first() {
    let bed = Bed::new();
    let mut first = endless_ingest(&bed);
    let before = bed.census();
    let dump = bed.file("orders.sql", DUMP);
    let error = bed.refused(&["ingest", "orders", "--from", &dump]);
    assert!(
        error.contains("another ingest of database orders") && error.contains(&first.id().to_string()),
        "{error}"
    );
    bed.assert_census(&before, "after the refused second ingest");
    bed.ok(&["ingest", "other", "--from", &dump]);
    bed.ok(&["doctor", "--clean"]);
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success(), "the first ingest was harmed");
}

#[test]
fn an_ingest_stopped_by_ctrl_c_leaves_nothing() {
    let bed = Bed::new();
    let before = bed.census();
    let mut ingest = endless_ingest(&bed);
    signal(&ingest, Signal::INT);
    let output = {
        let stdin = ingest.stdin.take();
        let output = ingest.wait_with_output().unwrap();
        drop(stdin);
        output
    };
    assert!(refusal(&output, "ingest").contains("stopped"));
    assert_eq!(output.status.code(), Some(130));
    bed.assert_census(&before, "after Ctrl-C");
}

#[test]
fn ctrl_c_at_any_moment_leaves_nothing() {
    let bed = Bed::new();
    bed.ingest_small();
    let before = bed.census();
    let dump = bed.file("orders.sql", DUMP);
    let commands: [&[&str]; 3] = [
        &["ingest", "orders", "--from", &dump, "-o", "json"],
        &["clone", "orders:latest", "mine"],
        &["run", "orders:latest", "--", "sleep", "0.2"],
    ];
    for (arguments, span) in commands.into_iter().zip([1500, 300, 500]) {
        for step in 0..8 {
            let mut command = bed.command(arguments);
            // A group of its own, all of which is told, as a terminal does it.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(10 + span * step / 8));
            let group = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
            let _ = rustix::process::kill_process_group(group, Signal::INT);
            let output = child.wait_with_output().unwrap();
            // Faster than we were: what it made is taken away again.
            if output.status.success() && arguments[0] == "clone" {
                bed.ok(&["rm", "mine"]);
            } else if output.status.success() && arguments[0] == "ingest" {
                let made: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                bed.ok(&["retire", made["image"].as_str().unwrap(), "--force"]);
            }
            bed.assert_census(
                &before,
                &format!("by {arguments:?} stopped in part {step} of 8: {}", text(&output.stderr)),
            );
        }
    }
}

#[test]
fn an_engine_killed_during_the_restore_ends_it_as_temporary() {
    let bed = Bed::new();
    let before = bed.census();
    let ingest = endless_ingest(&bed);
    let engine = processes_naming(bed.scratch.path())
        .into_iter()
        .find(|(_, line)| line.contains("bin/postgres "))
        .expect("the engine");
    let pid = rustix::process::Pid::from_raw(engine.0.cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    let output = ingest.wait_with_output().unwrap();
    let error = refusal(&output, "ingest");
    assert_eq!(output.status.code(), Some(75), "{error}");
    bed.assert_census(&before, "after the engine was killed");
}

#[test]
fn a_killed_fuse_server_takes_its_clone_along_and_nothing_else() {
    let bed = Bed::new();
    bed.ingest_small();
    let before = bed.census();
    bed.ok(&["clone", "orders:latest", "mine"]);
    let server = processes_naming(bed.scratch.path())
        .into_iter()
        .find(|(_, line)| line.contains("aldaas-fuse"))
        .expect("the server");
    let pid = rustix::process::Pid::from_raw(server.0.cast_signed()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    bed.ok(&["rm", "mine"]);
    bed.assert_census(&before, "after the server was killed");
    bed.ok(&["run", "orders:latest", "--", "true"]);
    bed.assert_census(&before, "after the next run");
}

#[test]
fn no_loop_device_is_said_to_be_missing() {
    let bed = Bed::new();
    bed.ingest_small();
    let before = bed.census();
    // A machine without loop devices: its control file is not one.
    let mut script = aldaas_testbed::own_mounts(&[]);
    let inner = bed.command(&["run", "orders:latest", "--", "true"]);
    script.args(["sh", "-c", "mount --bind /dev/null /dev/loop-control && exec \"$@\"", "sh"]);
    script.arg(inner.get_program()).args(inner.get_args());
    script.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = script.output().unwrap();
    let error = refusal(&output, "run without loop devices");
    assert!(error.contains("loop"), "{error}");
    bed.assert_census(&before, "without loop devices");
}

#[test]
fn a_cluster_that_is_away_is_an_error_in_seconds() {
    let bed = Bed::new();
    let conf = bed.file("ceph.conf", "[global]\nmon_host = 127.0.0.1:9\nauth_client_required = none\n");
    let started = std::time::Instant::now();
    let output = bed.command(&["images", "--ceph-conf", &conf]).output().unwrap();
    let error = refusal(&output, "images");
    assert!(error.contains("conf") || error.contains("mon"), "{error}");
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
    let output = bed.command(&["images", "--ceph-conf", "/no/such/ceph.conf"]).output().unwrap();
    assert!(refusal(&output, "images").contains("/no/such/ceph.conf"));
    let output = bed.command(&["doctor", "--ceph-conf", "/no/such/ceph.conf"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("MISSING"));
}
