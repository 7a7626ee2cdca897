//! Kills, signals, crashes: nothing is left running, and what can be used again can be used again.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aldaas_api::event::{Event, Step};
use common::*;
use rustix::process::Signal;

/// A restore that waits in the middle of its dump, for as long as its input stays open.
#[allow(clippy::zombie_processes)] // whoever calls waits for it
fn stuck_restore(room: &Room) -> (std::process::Child, std::process::ChildStdin, Vec<u32>) {
    let mut child =
        room.restore("-").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = dump(200_000);
    // More than all buffers on the way: the engine is at it when this returns.
    std::io::Write::write_all(&mut stdin, &text.as_bytes()[..text.len() / 2]).unwrap();
    let lock = room.path("data/postmaster.pid");
    let since = Instant::now();
    loop {
        if let Some(pid) = fs::read_to_string(&lock).ok().and_then(|text| text.lines().next()?.parse().ok()) {
            std::thread::sleep(Duration::from_millis(500));
            return (child, stdin, vec![pid]);
        }
        assert!(since.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn last_event(child: std::process::Child) -> (i32, Event) {
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    (out.status.code().unwrap_or(-1), serde_json::from_str(said.lines().last().unwrap()).unwrap())
}

#[test]
fn postgres_killed_in_the_middle_is_a_failure_that_may_pass() {
    for signal in [Signal::KILL, Signal::QUIT] {
        let room = Room::new();
        let (child, stdin, pids) = stuck_restore(&room);
        signal_pid(pids[0], signal);
        let (code, event) = last_event(child);
        drop(stdin);
        let Event::Failed { step: Step::Restore, reason, temporary: true } = event else {
            panic!("{event:?}")
        };
        assert_eq!(code, 75);
        assert!(reason.contains("the engine died"), "{reason}");
        room.wait_for_no_process();
    }
}

#[test]
fn a_backend_killed_in_the_middle_is_a_failure_that_may_pass() {
    let room = Room::new();
    let (child, stdin, pids) = stuck_restore(&room);
    let backends = Command::new("pgrep").args(["-P", &pids[0].to_string(), "-f", "COPY"]).output().unwrap();
    let backend = String::from_utf8(backends.stdout).unwrap();
    signal_pid(backend.trim().parse().unwrap(), Signal::KILL);
    let (code, event) = last_event(child);
    drop(stdin);
    let Event::Failed { reason, temporary: true, .. } = event else { panic!("{event:?}") };
    assert_eq!(code, 75);
    assert!(reason.contains("was terminated by signal 9"), "{reason}");
    room.wait_for_no_process();
}

#[test]
fn told_to_stop_it_stops_at_once_and_leaves_no_process() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let room = Room::new();
        let (child, stdin, _) = stuck_restore(&room);
        let since = Instant::now();
        signal_pid(child.id(), signal);
        let (got, event) = last_event(child);
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        drop(stdin);
        let Event::Failed { reason, .. } = event else { panic!("{event:?}") };
        assert_eq!((got, reason.as_str()), (code, "cancelled"));
        room.wait_for_no_process();
    }
}

#[test]
fn told_to_stop_it_does_not_wait_for_what_is_still_to_be_written() {
    let room = Room::new();
    run(&mut room.restore(room.write("dump", dump(10)))).done();
    for signal in [Signal::TERM, Signal::KILL] {
        let mut check = Running::start(room.check().args(["--sql", "SELECT pg_sleep(2)"]));
        check.until(|event| matches!(event, Event::Step { step: Step::Check }));
        let lock = fs::read_to_string(room.path("data/postmaster.pid")).unwrap();
        // A checkpoint that takes for ever.
        let mut pgrep = Command::new("pgrep");
        let found = pgrep.args(["-P", lock.lines().next().unwrap(), "-f", "checkpointer"]).output().unwrap();
        signal_pid(String::from_utf8(found.stdout).unwrap().trim().parse().unwrap(), Signal::STOP);
        if signal == Signal::TERM {
            check.until(|event| matches!(event, Event::Step { step: Step::Stop }));
            std::thread::sleep(Duration::from_millis(200));
        }
        check.signal(signal);
        let code = check.code();
        assert_eq!(code, if signal == Signal::TERM { 143 } else { -1 });
        room.wait_for_no_process();
    }
}

#[test]
fn killed_it_takes_its_engine_along() {
    let room = Room::new();
    let (mut child, stdin, _) = stuck_restore(&room);
    child.kill().unwrap();
    child.wait().unwrap();
    room.wait_for_no_process();
    drop(stdin);
}

#[test]
fn with_parent_it_ends_when_its_parent_is_killed() {
    let room = Room::new();
    run(&mut room.restore(room.write("dump", dump(10)))).done();
    // A shell between us and the program.
    let serve = room.serve();
    let words = serve.get_args().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let script = format!("{} {words} --with-parent & wait", serve.get_program().to_str().unwrap());
    let mut shell = room.command("/bin/sh");
    let mut shell = Running::start(shell.args(["-c", &script]).process_group(0));
    shell.ready();
    shell.child.kill().unwrap();
    shell.code();
    room.wait_for_no_process();
    room.assert_at_rest();
}

#[test]
fn with_the_process_id_of_a_parent_that_died_before_it_ends_at_once() {
    let room = Room::new();
    let outcome = run(room.serve().arg("--with-parent=1"));
    assert!(outcome.failed(1).contains("already gone"), "{:?}", outcome.events);
    assert!(!room.path("work").exists());
    assert_eq!(run(room.serve().arg("--with-parent=0")).code, 2);
    // Of the one that lives it says nothing.
    let outcome = run(room.serve().arg(format!("--with-parent={}", std::process::id())));
    assert!(outcome.failed(1).contains("holds no PostgreSQL data"), "{:?}", outcome.events);
}

#[test]
fn no_engine_starts_before_the_line_that_asks_for_it() {
    let room = Room::new();
    run(&mut room.restore(room.write("dump", dump(10)))).done();
    for input in [&b""[..], b"no line"] {
        let outcome = run_with_input(room.serve().arg("--start-on-stdin"), input);
        assert_eq!((outcome.code, outcome.events.len()), (0, 0), "{}", outcome.log);
        room.assert_at_rest();
    }
    for line in [None, Some("go\n")] {
        let mut waiting = room.serve();
        let mut child = waiting
            .arg("--start-on-stdin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(!room.path("data/postmaster.pid").exists());
        let mut served = Running::adopt(child);
        if let Some(line) = line {
            std::io::Write::write_all(&mut stdin, line.as_bytes()).unwrap();
            let (port, _) = served.ready();
            drop(stdin); // that it closes now means nothing
            std::thread::sleep(Duration::from_millis(100));
            assert_eq!(psql(port, "orders", "SELECT count(*) FROM customer"), "10");
        }
        served.signal(Signal::TERM);
        assert_eq!(served.code(), 0);
        room.assert_at_rest();
    }
}

#[test]
fn a_server_outlives_whoever_read_its_output() {
    let room = Room::new();
    run(&mut room.restore(room.write("dump", dump(10)))).done();
    let mut serve = room.serve();
    serve.env("RUST_LOG", "trace").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut served = Running::adopt(serve.spawn().unwrap());
    let (port, _) = served.ready();
    // Nor does anybody else read its log, or come in through its socket.
    for (name, mode) in
        [("work", 0o700), ("work/postgres.log", 0o600), (&format!("work/.s.PGSQL.{port}"), 0o700)]
    {
        let found =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(room.path(name)).unwrap().permissions());
        assert_eq!(found & 0o777, mode, "{name}");
    }
    drop(served.child.stderr.take());
    served.deafen();
    assert_eq!(psql(port, "orders", "SELECT count(*) FROM customer"), "10");
    served.signal(Signal::TERM);
    assert_eq!(served.code(), 0);
    room.assert_at_rest();
}

#[test]
fn a_crashed_clone_is_served_again_although_its_lock_file_names_a_living_process() {
    let room = Room::new();
    run(&mut room.restore(room.write("dump", dump(100)))).done();
    let mut served = Running::start(&mut room.serve());
    let (port, pid) = served.ready();
    psql(port, "orders", "INSERT INTO customer VALUES (1000, 'new')");
    // As a snapshot of a running clone would look: SIGKILL leaves the lock file, and the children end by themselves.
    signal_pid(pid, Signal::KILL);
    assert_eq!(served.code(), 75);
    room.wait_for_no_process();
    let lock = room.path("data/postmaster.pid");
    let text = fs::read_to_string(&lock).unwrap();
    let mut stranger = room.command("sleep").arg("1000").spawn().unwrap();
    fs::write(&lock, text.replacen(&pid.to_string(), &stranger.id().to_string(), 1)).unwrap();

    let mut served = Running::start(&mut room.serve());
    let (port, _) = served.ready();
    assert_eq!(psql(port, "orders", "SELECT count(*) FROM customer"), "101");
    let text = fs::read_to_string(&lock).unwrap();
    // But a server that does run there is left alone, whichever process the lock file names.
    for name in [None, Some(stranger.id())] {
        if let Some(name) = name {
            let (_, rest) = text.split_once('\n').unwrap();
            fs::write(&lock, format!("{name}\n{rest}")).unwrap();
        }
        let second = run(&mut room.serve());
        assert!(second.failed(1).contains("another server"), "{:?}", second.events);
    }
    fs::write(&lock, &text).unwrap();
    served.signal(Signal::TERM);
    assert_eq!(served.code(), 0);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    room.assert_at_rest();
}

#[test]
fn served_clones_listen_side_by_side_on_ports_of_their_own() {
    let room = Room::new();
    run(&mut room.restore(room.write("dump", dump(10)))).done();
    let other = Room::new();
    let copied =
        other.command("cp").arg("-a").arg(room.path("data")).arg(other.path("data")).status().unwrap();
    assert!(copied.success());
    let (mut one, mut two) = (Running::start(&mut room.serve()), Running::start(&mut other.serve()));
    let ((first, _), (second, _)) = (one.ready(), two.ready());
    psql(first, "orders", "DELETE FROM customer");
    assert_eq!(psql(second, "orders", "SELECT count(*) FROM customer"), "10");
    let third = Room::new();
    other.command("cp").arg("-a").arg(room.path("data")).arg(third.path("data")).status().unwrap();
    let taken = run(third.serve().args(["--port", &first.to_string()]));
    assert!(taken.failed(1).contains("choose another with --port"));
    one.signal(Signal::TERM);
    two.signal(Signal::INT);
    assert_eq!((one.code(), two.code()), (0, 0));
}

#[test]
fn immediate_stop_is_for_clones_that_nobody_needs_any_more() {
    let room = Room::new();
    run(&mut room.restore(room.write("dump", dump(10)))).done();
    let mut served = Running::start(room.serve().args(["--stop", "immediate", "--no-fsync"]));
    let (port, _) = served.ready();
    assert_eq!(psql(port, "orders", "SHOW fsync"), "off");
    served.signal(Signal::TERM);
    assert_eq!(served.code(), 0);
    room.wait_for_no_process();
}

#[test]
fn root_is_refused_with_what_to_do() {
    let room = Room::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aldaas-restore"));
    command.args(["serve", "--database", "orders", "--data-dir"]).arg(room.path("data"));
    let outcome = run(command.arg("--work-dir").arg(room.path("work")).uid(0));
    let reason = outcome.failed(1);
    assert!(reason.contains("as root") && reason.contains("setpriv"), "{reason}");
}

#[test]
fn missing_programs_and_too_long_paths_are_told_with_what_to_do() {
    let room = Room::new();
    let outcome = run(room.serve().args(["--bin-dir", "/nowhere"]));
    assert!(outcome.failed(1).contains("--bin-dir"));
    let outcome = run(&mut room.serve());
    assert!(outcome.failed(1).contains("holds no PostgreSQL data"), "{:?}", outcome.events);
    let long = room.path(&"w".repeat(120));
    let mut command = room.serve();
    command.env("ALDAAS_WORK_DIR", &long);
    let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut again = room.command(command.get_program());
    again.args(&words[..words.len() - 2]).env("ALDAAS_WORK_DIR", &long);
    assert!(run(&mut again).failed(1).contains("choose a shorter clone name or run directory"));
}

#[test]
fn bad_arguments_are_told_with_exit_code_2() {
    let room = Room::new();
    for from in ["s3://bucket-only", "ftp://x/y"] {
        assert_eq!(run(&mut room.restore(from)).code, 2);
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn killed_at_any_step_it_leaves_no_process_and_no_manifest() {
    let steps = ["open", "init", "start", "restore", "bake", "serve", "check", "stop"];
    for step in steps {
        let room = Room::new();
        let mut command = room.restore(room.write("dump", dump(100)));
        command.env("FAILPOINTS", format!("restore::after-{step}=panic"));
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{step}");
        room.wait_for_no_process();
        assert!(!room.path("manifest.json").exists(), "{step}");
    }
}
