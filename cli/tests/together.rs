//! Several commands at once, in one pool and one run directory.

#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use common::{Bed, query, signal, text, wait_until};
use rustix::process::Signal;

#[test]
fn ten_runs_at_once_all_succeed_and_leave_nothing() {
    let bed = Bed::new();
    bed.ingest_small();
    let before = bed.census();
    let count = "UPDATE customer SET name = name || '!'; SELECT count(*) FROM customer";
    let runs: Vec<_> = (0..10)
        .map(|_| {
            let mut run = bed.command(&["run", "orders:latest", "--", "psql", "-XAtqc", count]);
            run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout).trim(), "100");
    }
    bed.assert_census(&before, "after ten runs at once");
}

#[test]
fn a_clean_up_beside_living_work_harms_nothing() {
    let bed = Bed::new();
    bed.ingest_small();
    let before = bed.census();
    bed.ok(&["clone", "orders:latest", "mine"]);
    let url = bed.json(&["clones"])[0]["url"].as_str().unwrap().to_owned();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..6 {
                        let rows = bed.ok(&[
                            "run",
                            "orders:latest",
                            "--",
                            "psql",
                            "-XAtqc",
                            "SELECT count(*) FROM customer",
                        ]);
                        assert_eq!(rows.trim(), "100");
                    }
                })
            })
            .collect();
        while workers.iter().any(|worker| !worker.is_finished()) {
            let cleaned = bed.run(&["doctor", "--clean"]);
            assert!(!text(&cleaned.stderr).contains("panicked"), "{}", text(&cleaned.stderr));
            assert_eq!(query(&url, "SELECT count(*) FROM customer"), "100", "a living clone was harmed");
        }
    });
    bed.ok(&["rm", "mine"]);
    bed.ok(&["doctor", "--clean"]);
    bed.assert_census(&before, "after clean-ups beside living work");
}

#[test]
fn a_closed_terminal_ends_a_run_cleanly() {
    let bed = Bed::new();
    bed.ingest_small();
    let before = bed.census();
    let mut run =
        bed.command(&["run", "orders:latest"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the clone answers", || {
        bed.json(&["clones"]).as_array().unwrap().iter().any(|clone| clone["url"].is_string())
    });
    // Nobody reads any more what it says.
    drop((run.stdout.take(), run.stderr.take()));
    signal(&run, Signal::HUP);
    let status = run.wait().unwrap();
    assert!(status.signal().is_none() && status.success(), "{status}");
    bed.assert_census(&before, "after the terminal was closed");
}

#[test]
fn an_interrupt_is_left_to_the_command() {
    let bed = Bed::new();
    bed.ingest_small();
    let before = bed.census();
    // As `psql` does it: an interrupt ends what it does at the moment, not itself.
    let script = "trap 'echo interrupted' INT; echo started; sleep 3; sleep 0.1; exit 7";
    let mut command = bed.command(&["run", "orders:latest", "--", "sh", "-c", script]);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut run = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = std::io::BufReader::new(run.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line.trim(), "started");
    let group = rustix::process::Pid::from_raw(run.id().cast_signed()).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
    assert_eq!(rest.trim(), "interrupted");
    assert_eq!(run.wait().unwrap().code(), Some(7));
    bed.assert_census(&before, "after an interrupted command");
}
