//! The main job: from a dump to a running, writable clone.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Stdio};

use common::{Bed, query, refusal, shared_dump, signal, text, wait_until};

#[test]
fn a_dump_in_s3_becomes_independent_writable_clones() {
    let bed = Bed::new();
    let before = bed.census();
    bed.testbed.bucket("path");
    bed.testbed.put_object("path", "orders.sql", common::DUMP.as_bytes());
    let ingested = bed.json(&["ingest", "orders", "--from", "s3://path/orders.sql"]);
    assert_eq!(
        (ingested["contents"]["tables"].as_u64(), ingested["contents"]["rows"].as_u64()),
        (Some(1), Some(100))
    );
    let image = ingested["image"].as_str().unwrap();
    assert_eq!(bed.latest("orders").as_deref(), Some(image));

    let urls: Vec<String> = ["a", "b", "c"]
        .iter()
        .map(|name| bed.json(&["clone", "orders:latest", name])["url"].as_str().unwrap().to_owned())
        .collect();
    query(&urls[0], "DELETE FROM customer");
    query(&urls[1], "INSERT INTO customer VALUES (101, 'new')");
    let counts: Vec<_> = urls.iter().map(|url| query(url, "SELECT count(*) FROM customer")).collect();
    assert_eq!(counts, ["0", "101", "100"]);
    // A clone made after all this sees nothing of it.
    let rows = bed.ok(&["run", "orders:latest", "--", "psql", "-XAtqc", "SELECT count(*) FROM customer"]);
    assert_eq!(rows.trim(), "100");

    let clones = bed.json(&["clones", "--long"]);
    assert_eq!(clones.as_array().unwrap().len(), 3);
    assert!(clones[0]["written_bytes"].as_u64().unwrap() > 0);
    bed.ok(&["rm", "a", "b", "c"]);
    bed.ok(&["retire", image, "--force"]);
    bed.assert_census(&before, "after the whole path");
}

#[test]
fn real_dumps_are_ingested() {
    let bed = Bed::new();
    for (file, database, table, rows) in
        [("chinook.sql.gz", "chinook", "\"Track\"", "3503"), ("pagila.sql.gz", "pagila", "rental", "16044")]
    {
        let Some(dump) = shared_dump(file) else {
            println!("{file} is not in ../shared/data: not ingested");
            continue;
        };
        bed.ok(&["ingest", database, "--from", dump.to_str().unwrap()]);
        let count = format!("SELECT count(*) FROM {table}");
        let counted = bed.ok(&["run", &format!("{database}:latest"), "--", "psql", "-XAtqc", &count]);
        assert_eq!(counted.trim(), rows, "{file}");
    }
}

#[test]
fn a_custom_format_dump_from_a_pipe_on_xfs_is_ingested() {
    let bed = Bed::new();
    bed.ingest_small();
    let run = ["run", "orders:latest", "--", "pg_dump", "-Fc", "--no-owner"];
    let dump = bed.command(&run).output().unwrap();
    assert!(dump.status.success());
    let mut ingest = bed
        .command(&[
            "ingest",
            "copied",
            "--from",
            "-",
            "--filesystem",
            "xfs",
            "--check",
            "SELECT count(*) = 100 FROM customer",
        ])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut ingest.stdin.take().unwrap(), &dump.stdout).unwrap();
    assert!(ingest.wait().unwrap().success());
    // Two clones of one xfs at once: they share a UUID.
    bed.ok(&["clone", "copied:latest", "one"]);
    bed.ok(&["clone", "copied:latest", "two"]);
    bed.ok(&["rm", "one", "two"]);
}

#[test]
fn a_golden_image_is_not_written_by_its_clones() {
    let bed = Bed::new();
    let image = bed.ingest_small();
    let snapshot = format!("{}/golden/{image}@sealed", bed.pool.name());
    let checksum = || {
        let script = format!(
            "rbd -c {} export-diff --no-progress {snapshot} - | sha256sum",
            bed.testbed.ceph_conf().display()
        );
        text(&Command::new("bash").args(["-o", "pipefail", "-c", &script]).output().unwrap().stdout)
    };
    let sealed = checksum();
    assert_eq!(sealed.split_whitespace().next().unwrap().len(), 64);
    let url = bed.json(&["clone", "orders:latest", "writer"])["url"].as_str().unwrap().to_owned();
    query(&url, "CREATE TABLE big AS SELECT n, repeat('x', 500) AS t FROM generate_series(1, 20000) n");
    query(&url, "CHECKPOINT");
    bed.ok(&["rm", "writer"]);
    assert_eq!(checksum(), sealed);
}

#[test]
fn run_passes_on_the_exit_code_and_the_address() {
    let bed = Bed::new();
    bed.ingest_small();
    let before = bed.census();
    let script = "psql \"$DATABASE_URL\" -XAtqc 'SELECT 1' && psql -XAtqc 'SELECT 2' && exit 42";
    let output = bed.run(&["run", "orders:latest", "--", "sh", "-c", script]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(42), "1\n2\n"));
    let output = bed.run(&["run", "orders:latest", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(output.status.code(), Some(137));
    refusal(&bed.run(&["run", "orders:latest", "--", "/no/such/program"]), "a program that is not there");
    bed.assert_census(&before, "after run");
}

#[test]
fn run_without_a_command_waits_for_ctrl_c_and_leaves_nothing() {
    let bed = Bed::new();
    bed.ingest_small();
    let before = bed.census();
    let mut run =
        bed.command(&["run", "orders:latest", "-o", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("the clone is listed with its address", || {
        bed.json(&["clones"]).as_array().unwrap().iter().any(|clone| clone["url"].is_string())
    });
    let url = bed.json(&["clones"])[0]["url"].as_str().unwrap().to_owned();
    assert_eq!(query(&url, "SELECT count(*) FROM customer"), "100");
    signal(&run, rustix::process::Signal::INT);
    assert_eq!(run.wait().unwrap().code(), Some(0));
    bed.assert_census(&before, "after Ctrl-C");
}

#[test]
fn what_is_not_there_is_said_with_what_to_do() {
    let bed = Bed::new();
    assert!(bed.refused(&["run", "orders:latest"]).contains("aldaas ingest orders --from DUMP"));
    assert!(bed.refused(&["clone", "orders-20261123t033000z"]).contains("aldaas images"));
    assert!(bed.refused(&["rm", "nothing"]).contains("aldaas clones"));
    assert!(bed.refused(&["retire", "orders-20261123t033000z"]).contains("aldaas images"));
    let output = bed.run(&["run", "orders"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("orders:latest"));
}

#[test]
fn help_teaches_and_completions_complete() {
    let bed = Bed::new();
    let help = bed.ok(&["--help"]);
    assert!(help.contains("aldaas run orders:latest -- ./migrate.sh"));
    for command in ["ingest", "images", "run", "clone", "clones", "rm", "retire", "doctor"] {
        assert!(bed.ok(&[command, "--help"]).len() > 200, "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(bed.ok(&["completions", shell]).contains("aldaas"));
    }
}
