//! Good dumps: all that was in them comes out again, and the data directory is at rest.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs;
use std::process::Stdio;

use aldaas_api::event::{Event, Step};
use common::*;
use rustix::process::Signal;

/// Makes a dump of what `room` serves, with the real `pg_dump`.
fn pg_dump(port: u16, args: &[&str]) -> Vec<u8> {
    let out = std::process::Command::new(bin_dir().join("pg_dump"))
        .args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()])
        .args(args)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// A directory that `pg_dump` wrote, in an archive that `tar` made of it: of what is in it, or of itself, with records.
fn pg_dump_directory(port: u16, args: &[&str], compressed: bool) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("orders.dir");
    pg_dump(port, &[args, &["-f", target.to_str().unwrap()]].concat());
    let mut tar = std::process::Command::new("tar");
    match compressed {
        true => tar.args(["--format=posix", "-cz", "orders.dir"]).current_dir(dir.path()),
        false => tar.args(["-c", "."]).current_dir(&target),
    };
    let out = tar.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Restores `dump` in a new room and serves it.
fn restored_and_served(dump: &[u8], args: &[&str]) -> (Room, Running, u16) {
    let room = Room::new();
    run(room.restore(room.write("dump", dump)).args(args)).done();
    room.assert_at_rest();
    let mut served = Running::start(&mut room.serve());
    let (port, _) = served.ready();
    (room, served, port)
}

#[test]
fn a_restored_database_is_at_rest_and_told_with_evidence() {
    let room = Room::new();
    let dump = gzip(dump(1000));
    let file = room.write("dump", &dump);
    let outcome = run(&mut room.restore(&file));
    let manifest = outcome.done();
    room.assert_at_rest();
    assert_eq!((manifest.contents.tables, manifest.contents.rows), (2, 1000));
    assert!(manifest.contents.bytes > 1_000_000);
    assert_eq!(manifest.source.format, "gzip, plain SQL");
    assert_eq!(manifest.source.size, dump.len() as u64);
    let sum = std::process::Command::new("sha256sum").arg(&file).output().unwrap();
    assert!(String::from_utf8_lossy(&sum.stdout).starts_with(&manifest.source.sha256));
    let steps = [
        Step::Open,
        Step::Init,
        Step::Start,
        Step::Restore,
        Step::Bake,
        Step::Serve,
        Step::Check,
        Step::Stop,
    ];
    let said: Vec<Step> = outcome
        .events
        .iter()
        .filter_map(|e| if let Event::Step { step } = e { Some(*step) } else { None })
        .collect();
    assert_eq!(said, steps);
    assert_eq!(manifest.steps.keys().copied().collect::<Vec<_>>(), steps);
    let written: aldaas_api::manifest::Manifest =
        serde_json::from_slice(&fs::read(room.path("manifest.json")).unwrap()).unwrap();
    assert_eq!(&written, manifest);
    // Nothing of ours is left in the data.
    assert!(!room.path("data/postgres.log").exists());
}

#[test]
fn several_gzip_members_are_one_dump() {
    let room = Room::new();
    let text = dump(5000);
    let (a, b) = text.split_at(text.len() / 2);
    let file = room.write("dump", [gzip(a), gzip(""), gzip(b)].concat());
    assert_eq!(run(&mut room.restore(file)).done().contents.rows, 5000);
}

#[test]
fn gzip_within_gzip_is_peeled() {
    let room = Room::new();
    let manifest = run(&mut room.restore(room.write("dump", gzip(gzip(dump(3)))))).done().clone();
    assert_eq!((manifest.source.format.as_str(), manifest.contents.rows), ("gzip, gzip, plain SQL", 3));
}

#[test]
fn a_dump_comes_from_standard_input_too() {
    let room = Room::new();
    let outcome = run_with_input(&mut room.restore("-"), &gzip(dump(10)));
    assert_eq!(outcome.done().contents.rows, 10);
    assert_eq!(outcome.done().source.location, "-");
}

#[test]
fn a_dump_that_makes_its_own_database_ends_up_in_ours_however_that_is_written() {
    let table = "\\connect shop\nCREATE TABLE t (x int);\nINSERT INTO t VALUES (1);\n";
    let late = format!("SELECT '{}';\n", "x".repeat(100 << 10));
    for before in
        ["CREATE DATABASE shop;\n", "create database shop;\n", &format!("{late}CREATE DATABASE shop;\n")]
    {
        let room = Room::new();
        let manifest = run(&mut room.restore(room.write("dump", format!("{before}{table}")))).done().clone();
        assert_eq!((manifest.contents.tables, manifest.contents.rows), (1, 1));
    }
    // What only looks like it is data.
    let room = Room::new();
    let dump = "CREATE TABLE t (x text);\nINSERT INTO t VALUES ('\nCREATE DATABASE shop;\n');\n";
    assert_eq!(run(&mut room.restore(room.write("dump", dump))).done().contents.rows, 1);
}

#[test]
fn a_database_survives_a_round_trip_through_every_format() {
    let first = "CREATE TABLE t (id int PRIMARY KEY, x text);\nINSERT INTO t SELECT i, repeat('x', i % 50) FROM generate_series(1, 5000) i;\n\
                 CREATE VIEW v AS SELECT count(*) FROM t;\nCREATE MATERIALIZED VIEW m AS SELECT * FROM t;\nCREATE INDEX ON t (x);\n\
                 SELECT lo_from_bytea(0, repeat('large', 5000)::bytea) FROM generate_series(1, 3);\nCREATE TABLE none ();\n";
    let (_room, mut served, port) = restored_and_served(first.as_bytes(), &[]);
    let want = psql(port, "orders", "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t");
    let formats: [(&[&str], &[&str], &str); 10] = [
        (&["-Fp", "orders"], &[], "plain SQL"),
        (&["-Fp", "--create", "orders"], &[], "plain SQL"),
        (&["-Fp", "--inserts", "orders"], &["--jobs", "2"], "plain SQL"),
        (&["-Fc", "orders"], &[], "pg_dump custom archive"),
        (&["-Fc", "orders"], &["--jobs", "3"], "pg_dump custom archive"),
        (&["-Ft", "orders"], &[], "pg_dump tar archive"),
        (&["-Ft", "--blobs", "orders"], &["--jobs", "3"], "pg_dump tar archive"),
        (&["-Fd", "orders"], &[], "pg_dump directory in a tar archive"),
        (&["-Fd", "-Z0", "orders"], &["--jobs", "3"], "pg_dump directory in a tar archive"),
        (&["-Fd", "-j2", "orders"], &["--jobs", "2"], "gzip, pg_dump directory in a tar archive"),
    ];
    for (dump_args, args, format) in formats {
        let dump = match dump_args[0] {
            "-Fd" => pg_dump_directory(port, dump_args, format.starts_with("gzip")),
            _ => pg_dump(port, dump_args),
        };
        let (again, mut served, port) = restored_and_served(&dump, args);
        let manifest: aldaas_api::manifest::Manifest =
            serde_json::from_slice(&fs::read(again.path("manifest.json")).unwrap()).unwrap();
        assert_eq!(manifest.source.format, format);
        assert_eq!(
            psql(port, "orders", "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM t"),
            want,
            "{dump_args:?}"
        );
        assert_eq!(psql(port, "orders", "SELECT * FROM v"), "5000");
        let large = "SELECT count(*), min(length(lo_get(oid))) FROM pg_largeobject_metadata";
        assert_eq!(psql(port, "orders", large), "3|25000", "{dump_args:?}");
        assert!(!again.path("work/spool.dump").exists());
        served.signal(Signal::TERM);
        assert_eq!(served.code(), 0);
    }
    served.signal(Signal::TERM);
    served.code();
}

#[test]
fn a_dump_of_a_whole_server_gives_the_database_of_our_name_with_its_roles() {
    let first = "CREATE ROLE bob LOGIN PASSWORD 'x';\nCREATE TABLE t (id int);\nINSERT INTO t VALUES (1);\nALTER TABLE t OWNER TO bob;\n";
    let (_room, mut served, port) = restored_and_served(first.as_bytes(), &[]);
    let dumpall = || {
        let mut command = std::process::Command::new(bin_dir().join("pg_dumpall"));
        command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()]);
        command.output().unwrap().stdout
    };
    let one = dumpall();
    psql(port, "postgres", "CREATE DATABASE \"odd name\"");
    psql(port, "odd name", "CREATE TABLE other (id int)");
    let several = dumpall();
    psql(port, "postgres", "ALTER DATABASE orders RENAME TO shop");
    let (renamed, several_others) = {
        let several_others = dumpall();
        psql(port, "postgres", "DROP DATABASE \"odd name\"");
        (dumpall(), several_others)
    };
    served.signal(Signal::TERM);
    served.code();
    for dump in [&one, &several, &renamed] {
        let (_room, mut served, port) = restored_and_served(dump, &[]);
        assert_eq!(
            psql(port, "orders", "SELECT count(*), min(tableowner) FROM t, pg_tables WHERE tablename = 't'"),
            "1|bob"
        );
        assert_eq!(psql(port, "orders", "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'bob'"), "t");
        assert_eq!(psql(port, "postgres", "SELECT count(*) FROM pg_database WHERE datname = 'shop'"), "0");
        served.signal(Signal::TERM);
        served.code();
    }
    let room = Room::new();
    let outcome = run(&mut room.restore(room.write("dump", &several_others)));
    assert!(outcome.failed(1).contains("none called \"orders\""), "{:?}", outcome.events);
    // Cut between two databases, or behind the last.
    let text = String::from_utf8(several).unwrap();
    let complete = "-- PostgreSQL database dump complete\n--\n";
    for cut in [text.find(complete).unwrap() + complete.len(), text.rfind(complete).unwrap() + complete.len()]
    {
        let room = Room::new();
        let outcome = run(&mut room.restore(room.write("dump", &text[..cut])));
        assert!(outcome.failed(1).contains("truncated"), "{:?}", outcome.events);
    }
}

/// Compresses with the real program.
fn compressed(program: &str, args: &[&str], data: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|err| panic!("{program}: {err}: run hack/deps, or make test"));
    let mut stdin = child.stdin.take().unwrap();
    let data = data.to_vec();
    let feed = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &data).unwrap());
    let out = child.wait_with_output().unwrap();
    feed.join().unwrap();
    assert!(out.status.success());
    out.stdout
}

#[test]
fn a_dump_may_be_compressed_by_whatever_people_have() {
    let (_room, mut served, port) = restored_and_served(dump(3000).as_bytes(), &[]);
    let (plain, tar) = (pg_dump(port, &["orders"]), pg_dump(port, &["-Ft", "orders"]));
    served.signal(Signal::TERM);
    served.code();
    for (program, args, format) in [
        ("zstd", &["-c", "-19", "--long=31"][..], "zstd, plain SQL"),
        ("pzstd", &["-c", "-p", "3"], "zstd, plain SQL"),
        ("xz", &["-c", "-T2", "--block-size=50000"], "xz, pg_dump tar archive"),
        ("lz4", &["-c"], "lz4, plain SQL"),
        ("lz4", &["-c", "-9", "-BD", "--no-frame-crc"], "lz4, plain SQL"),
        ("bzip2", &["-c"], "bzip2, plain SQL"),
    ] {
        let room = Room::new();
        let data = if format.contains("tar") { &tar } else { &plain };
        let manifest =
            run(&mut room.restore(room.write("dump", compressed(program, args, data)))).done().clone();
        assert_eq!((manifest.contents.tables, manifest.contents.rows), (2, 3000), "{program}");
        assert_eq!(manifest.source.format, format);
    }
}

#[test]
fn a_dump_that_makes_its_own_database_gets_our_name() {
    let text = "CREATE DATABASE shop WITH TEMPLATE = template0 ENCODING = 'UTF8';\n\\connect shop\n\nCREATE TABLE t (id int);\nINSERT INTO t VALUES (1);\n";
    let (_room, mut served, port) =
        restored_and_served(format!("SET lock_timeout = 0;\n{text}").as_bytes(), &[]);
    assert_eq!(psql(port, "orders", "SELECT count(*) FROM t"), "1");
    assert_eq!(psql(port, "orders", "SELECT count(*) FROM pg_database WHERE datname = 'shop'"), "0");
    served.signal(Signal::TERM);
    served.code();
}

#[test]
fn owners_and_grants_survive_although_a_dump_does_not_make_roles() {
    let text = "CREATE TABLE t (id int);\nALTER TABLE public.t OWNER TO bob;\nGRANT SELECT ON TABLE public.t TO \"Read Only\";\n\
                GRANT SELECT ON TABLE public.t TO pg_monitor;\n";
    let (_room, mut served, port) = restored_and_served(text.as_bytes(), &[]);
    assert_eq!(psql(port, "orders", "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "bob");
    assert_eq!(psql(port, "orders", "SELECT has_table_privilege('Read Only', 't', 'SELECT')"), "t");
    assert_eq!(psql(port, "orders", "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'bob'"), "f");
    served.signal(Signal::TERM);
    served.code();
}

#[test]
fn the_real_dumps_are_restored_in_full() {
    for (name, tables, rows) in [("chinook.sql.gz", 11, 15_607), ("pagila.sql.gz", 22, 46_273)] {
        let Some(path) = shared_dump(name) else { continue };
        let room = Room::new();
        let manifest = run(&mut room.restore(path)).done().clone();
        assert_eq!((manifest.contents.tables, manifest.contents.rows), (tables, rows), "{name}");
        room.assert_at_rest();
        run(&mut room.check()).done();
        room.assert_at_rest();
    }
}

#[test]
fn a_clone_that_differs_or_breaks_a_check_is_found() {
    let room = Room::new();
    run(&mut room.restore(room.write("dump", dump(10)))).done();
    run(room.check().args(["--sql", "SELECT count(*) = 10 FROM customer", "--sql", "SELECT f()"])).done();
    let outcome = run(room.check().args(["--sql", "SELECT count(*) > 99 FROM customer"]));
    assert!(outcome.failed(1).contains("returned false"));
    for (sql, said) in [
        ("SELECT id FROM customer WHERE false", "returned no row"),
        ("ANALYZE", "returned no row"),
        ("SELECT max(id) > 1 FROM empty", "returned NULL"),
        ("SELECT 1, NULL::point", "returned NULL"),
        ("SELECT true, id < 9 FROM customer ORDER BY id", "returned false"),
    ] {
        let outcome = run(room.check().args(["--sql", sql]));
        assert!(outcome.failed(1).contains(said), "{sql}: {:?}", outcome.events.last());
    }
    let outcome = run(room.check().args(["--sql", "SELECT * FROM missing"]));
    assert!(outcome.failed(1).contains("\"missing\" does not exist"));
    room.assert_at_rest();
    let manifest = fs::read_to_string(room.path("manifest.json")).unwrap();
    fs::write(room.path("manifest.json"), manifest.replace("\"rows\": 10", "\"rows\": 11")).unwrap();
    assert!(run(&mut room.check()).failed(1).contains("10 rows, but 2 tables and 11 rows"));
    room.assert_at_rest();
}

#[test]
fn nothing_is_left_for_the_first_reader_of_a_clone_to_tidy_up() {
    let (_room, mut served, port) = restored_and_served(dump(20_000).as_bytes(), &[]);
    let before = psql(port, "orders", "SELECT pg_current_wal_insert_lsn()");
    assert_eq!(psql(port, "orders", "SELECT count(*) FROM customer"), "20000");
    assert_eq!(psql(port, "orders", "SELECT pg_current_wal_insert_lsn()"), before);
    let untidy = "SELECT relname, relallvisible, relpages FROM pg_class \
                  WHERE relname IN ('customer', 'pg_statistic', 'pg_proc') AND relallvisible <> relpages";
    assert_eq!(psql(port, "orders", untidy), "");
    assert_eq!(psql(port, "orders", "SELECT reltuples FROM pg_class WHERE relname = 'customer'"), "20000");
    assert_eq!(psql(port, "orders", "SHOW fsync"), "on");
    assert_eq!(psql(port, "orders", "SHOW data_checksums"), "on");
    served.signal(Signal::TERM);
    served.code();
}

#[test]
fn inspect_tells_what_a_dump_is() {
    let room = Room::new();
    let outcome = run(&mut room.inspect(room.write("dump", gzip(dump(10)))));
    assert_eq!(outcome.code, 0);
    let [Event::Source { size: Some(_), etag: None, format }] = outcome.events.as_slice() else {
        panic!("{:?}", outcome.events)
    };
    assert_eq!(format, "gzip, plain SQL");
}

#[test]
fn a_standard_input_that_never_ends_does_not_keep_inspect() {
    let room = Room::new();
    let mut child = room.inspect("-").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It closes its end when it has seen enough.
    let _ = std::io::Write::write_all(&mut stdin, "SELECT 1;\n".repeat(20_000).as_bytes());
    assert!(child.wait().unwrap().success());
    drop(stdin);
}
