//! Bad dumps: each fails for good, in plain words, and leaves nothing running.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use common::*;

/// Restores `dump`, which must fail for good; tells the reason.
#[track_caller]
fn reason(dump: impl AsRef<[u8]>) -> String {
    let room = Room::new();
    let outcome = run(&mut room.restore(room.write("dump", dump)));
    let reason = outcome.failed(1).to_owned();
    assert!(!room.path("manifest.json").exists());
    room.wait_for_no_process();
    reason
}

#[track_caller]
fn assert_says(reason: &str, words: &[&str]) {
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in {reason:?}");
    }
}

#[test]
fn a_truncated_gzip_never_becomes_a_database() {
    let whole = gzip(dump(30_000));
    for cut in [1, 4, 8, 9, whole.len() / 2, whole.len() - 20] {
        assert_says(&reason(&whole[..whole.len() - cut]), &["truncated"]);
    }
}

#[test]
fn a_flipped_byte_in_gzip_never_becomes_a_database() {
    let whole = gzip(dump(30_000));
    for at in [whole.len() / 3, whole.len() - 6, whole.len() - 2] {
        let mut bad = whole.clone();
        bad[at] ^= 0x10;
        // A flipped bit in the middle may be bad SQL before the checksum tells.
        let said = reason(&bad);
        assert!(said.contains("corrupt") || said.contains("the dump fails at line"), "{said}");
    }
}

#[test]
fn bytes_after_the_gzip_stream_never_go_unseen() {
    assert_says(&reason([gzip(dump(10)), b"garbage".to_vec()].concat()), &["do not belong to it"]);
}

#[test]
fn a_truncated_plain_dump_never_becomes_a_database() {
    let whole = dump(1000);
    let end = whole.find("--\n-- PostgreSQL database dump complete").unwrap();
    assert_says(&reason(&whole[..end]), &["truncated", "last line"]);
    let middle = whole.find("customer 500").unwrap();
    assert_says(&reason(&whole[..middle]), &["truncated", "table data that begins at line"]);
    assert_says(&reason(gzip(&whole[..end - 20])), &["truncated"]);
}

#[test]
fn a_transaction_without_its_commit_never_becomes_a_database() {
    let open = "CREATE TABLE a (x int);\nBEGIN;\nINSERT INTO a VALUES (1);\n";
    assert_says(&reason(open), &["leaves a transaction open (no COMMIT)", "cut short"]);
    assert_says(&reason(format!("{open}\\connect orders\n")), &["leaves a transaction open"]);
    let room = Room::new();
    let whole = room.write("dump", format!("{open}COMMIT;"));
    assert_eq!(run(&mut room.restore(whole)).done().contents.rows, 1);
}

#[test]
fn a_dump_that_makes_no_tables_is_taken_only_when_that_is_wanted() {
    let nothing = "BEGIN;\nCREATE TABLE a ();\nROLLBACK;\n";
    assert_says(&reason(nothing), &["made no tables in database \"orders\"", "--allow-empty"]);
    let room = Room::new();
    let outcome = run(room.restore(room.write("dump", nothing)).arg("--allow-empty"));
    assert_eq!(outcome.done().contents.tables, 0);
}

#[test]
fn tables_in_a_database_that_will_not_be_served_never_go_unseen() {
    let stray = "CREATE TABLE a ();\n\\connect postgres\nCREATE TABLE b ();\n";
    assert_says(&reason(stray), &["in the database \"postgres\"", "dump one database alone"]);
    let two = "create database a;\ncreate database b;\n\\connect a\nCREATE TABLE t ();\n";
    assert_says(&reason(two), &["makes the databases a, b", "dump one database alone"]);
}

#[test]
fn an_empty_object_is_told_as_such() {
    assert_says(&reason(""), &["the dump is empty"]);
    assert_says(&reason(gzip("")), &["the dump is empty"]);
}

#[test]
fn what_is_not_a_dump_is_told_as_such() {
    assert_says(&reason(b"\xff\xd8\xff\xe0\0\x10JFIF\0"), &["not a database dump", "JPEG"]);
    assert_says(&reason(gzip([7, 0, 1, 2, 3].repeat(5000))), &["not a database dump", "binary"]);
    assert_says(&reason("Dear all,\nplease find attached the dump.\n"), &["not a database dump", "Dear"]);
    assert_says(&reason(b"PK\x03\x04\0\0\0"), &["zip", "not supported"]);
    assert_says(&reason("--\n-- PostgreSQL database cluster dump\n--\n"), &["not one statement"]);
}

#[test]
fn an_sql_error_in_the_middle_is_told_with_its_line() {
    let bad = dump(10).replace("ALTER TABLE ONLY", "ALTERR TABLE ONLY");
    let line = bad.lines().position(|line| line.starts_with("ALTERR")).unwrap() + 1;
    assert_says(&reason(&bad), &[&format!("fails at line {line}"), "syntax error", "ALTERR"]);
    let bad = dump(10).replace("5\tcustomer 5", "five\tcustomer 5");
    let said = reason(&bad);
    assert_says(&said, &["invalid input syntax", "COPY customer, line 6, column id"]);
    assert!(!said.contains("five"), "{said}");
}

#[test]
fn lines_are_counted_as_in_the_dump_after_connect_too() {
    let text = "CREATE DATABASE x;\n\\connect x\nSELECT 1;\nSELECT nonsense;\n";
    assert_says(&reason(format!("SET lock_timeout = 0;\n{text}")), &["fails at line 5", "nonsense"]);
}

#[test]
fn commands_of_psql_never_run() {
    let room = Room::new();
    let trace = room.path("trace");
    for command in [
        format!("\\! touch {}", trace.display()),
        format!("\\copy t from program 'touch {}'", trace.display()),
    ] {
        let bad = format!("CREATE TABLE t ();\n{command}\n");
        assert_says(&reason(bad), &["line 2", "psql command", "refused"]);
    }
    // The guard is made to believe that this is within a string; psql, restricted, still refuses.
    let bad = format!(
        "SET standard_conforming_strings TO off;\nSELECT 'a\\' ';\n\\! touch {}\n--';\n",
        trace.display()
    );
    assert_says(&reason(bad), &["backslash commands are restricted"]);
    assert!(!trace.exists());
}

#[test]
fn what_the_engine_lacks_is_told_with_advice() {
    assert_says(&reason("CREATE EXTENSION postgis_of_mars;"), &["postgis_of_mars", "install the extension"]);
    assert_says(
        &reason("CREATE TABLE t ();\nCREATE POLICY p ON t TO bob;"),
        &["role \"bob\" does not exist", "--no-owner"],
    );
    assert_says(&reason("SET transaction_timeout_of_tomorrow = 0;"), &["newer PostgreSQL", "--bin-dir"]);
}

#[test]
fn an_archive_that_is_cut_or_too_new_is_refused() {
    let room = Room::new();
    run(&mut room.restore(room.write("dump", dump(20_000)))).done();
    let mut served = Running::start(&mut room.serve());
    let (port, _) = served.ready();
    let pg_dump = |format: &str| {
        let mut pg_dump = std::process::Command::new(bin_dir().join("pg_dump"));
        pg_dump.args([format, "-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string(), "orders"]);
        pg_dump.output().unwrap().stdout
    };
    let (archive, tar) = (pg_dump("-Fc"), pg_dump("-Ft"));
    served.signal(rustix::process::Signal::TERM);
    served.code();
    for length in [6, archive.len() / 2, archive.len() - 100] {
        assert_says(&reason(&archive[..length]), &["the dump"]);
    }
    for length in [tar.len() - 20_000, tar.len() - 1000] {
        assert_says(&reason(&tar[..length]), &["truncated"]);
    }
    assert_says(&reason([&tar[..], &[1; 512]].concat()), &["do not belong to it"]);
    for garbage in [&b"garbage"[..], b"\x01", b"\x03\0\x01\0\0\0\0\0\0\0\0", &archive] {
        for jobs in ["1", "2"] {
            let bad = room.write("bad", [&archive, garbage].concat());
            let target = Room::new();
            let outcome = run(target.restore(bad).args(["--jobs", jobs]));
            let said = outcome.failed(1);
            assert!(said.contains("do not belong to it") || said.contains("truncated"), "{said}");
        }
    }
    let mut newer = archive.clone();
    newer[6] = 99;
    assert_says(&reason(&newer), &["unsupported version", "newer PostgreSQL"]);
}

#[test]
fn a_volume_that_is_too_small_is_told_as_such() {
    for (size, rows) in [("20m", 10), ("64m", 1_500_000)] {
        let room = Room::new();
        let volume = room.path("volume");
        let _unmounted = mount_tmpfs(&volume, &format!("size={size},mode=0777"));
        let outcome = run(&mut room.restore_into(room.write("dump", dump(rows)), volume.join("data")));
        assert_says(outcome.failed(1), &["the volume is too small", "--size"]);
        room.wait_for_no_process();
    }
}

#[test]
fn a_directory_that_is_not_empty_is_left_alone() {
    let room = Room::new();
    std::fs::create_dir(room.path("data")).unwrap();
    let precious = room.write("data/precious", "x");
    let outcome = run(&mut room.restore(room.write("dump", dump(1))));
    assert_says(outcome.failed(1), &["not empty"]);
    assert_eq!(std::fs::read(precious).unwrap(), b"x");
}

#[test]
fn a_file_that_is_not_there_or_closed_is_told_as_such() {
    let room = Room::new();
    assert_says(run(&mut room.restore(room.path("missing"))).failed(1), &["missing does not exist"]);
    let closed = room.write("closed", dump(1));
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    assert_says(run(&mut room.restore(&closed)).failed(1), &["may not be read", "make it readable"]);
}
