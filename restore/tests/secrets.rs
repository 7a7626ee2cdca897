//! A dump is code. What that code can reach, and what not.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::path::Path;
use std::process::Command;

use common::container::Container;
use common::*;

/// Looks at everything that `/proc` shows, and at the program that runs us, whatever it takes.
const SPY: &str = "\
echo begin
env
cat /proc/*/environ 2>/dev/null | tr \"\\0\" \"\\n\"
pid=$$
until grep -q ^Name:.aldaas-restore /proc/$pid/status; do pid=$(sed -n s/^PPid:.//p /proc/$pid/status); done
while [ $pid -gt 0 ] && grep -q ^Name:.aldaas-restore /proc/$pid/status; do
  echo found $pid
  for file in environ mem maps auxv io stack syscall; do head -c 1 /proc/$pid/$file >/dev/null 2>&1 && echo open $file; done
  ls /proc/$pid/fd /proc/$pid/map_files >/dev/null 2>&1 && echo open files
  readlink /proc/$pid/cwd /proc/$pid/root /proc/$pid/exe && echo open links
  for fd in 0 1 2; do (echo forged >/proc/$pid/fd/$fd) 2>/dev/null && echo open $fd; done
  pid=$(sed -n s/^PPid:.//p /proc/$pid/status)
done
cat $HOME/.aws/* /root/.aws/* 2>/dev/null
echo end
true";

/// A dump that keeps what the spy says in a table.
fn spying_dump(spy: &Path) -> String {
    format!(
        "CREATE TABLE seen (line text);\nCOPY seen FROM PROGRAM 'sh {}' WITH (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02', ESCAPE E'\\x02', NULL E'\\x03');\n",
        spy.display()
    )
}

/// What was seen: by the dump's own code, and by the commands.
fn saw(room: &Room, port: u16) -> Vec<String> {
    let by_dump = psql(port, "orders", "SELECT line FROM seen");
    let by_commands = ["restore", "mask"].map(|name| std::fs::read_to_string(room.path("work").join(name)));
    std::iter::once(by_dump).chain(by_commands.into_iter().map(Result::unwrap)).collect()
}

fn with_secrets(command: &mut Command) -> &mut Command {
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "hush-id"),
        ("AWS_SECRET_ACCESS_KEY", "hush-secret"),
        ("AWS_SESSION_TOKEN", "hush-token"),
        ("OTHER", "hush-other"),
        ("ALDAAS_CHECK_ENV_X", "hush-check"),
        ("ALDAAS_ENGINE_ENV_SHOWN", "for the engine"),
    ] {
        command.env(name, value);
    }
    command
}

#[track_caller]
fn assert_learnt_nothing(saw: &[String], programs: usize) {
    for seen in saw {
        assert!(seen.contains("begin") && seen.contains("found ") && seen.ends_with("end"), "{seen}");
        assert!(seen.contains("for the engine"), "it does not even see what it may: {seen}");
        for word in ["hush", "open "] {
            assert!(!seen.contains(word), "{word}: {seen}");
        }
        assert_eq!(seen.matches("found ").count(), programs, "{seen}");
    }
}

/// Restores the spying dump by our own means, then by a command; both times a mask spies as well.
fn spy(container: Option<&Container>) {
    let room = Room::new();
    let program = room.write("spy", SPY);
    let dump = room.write("dump", spying_dump(&program));
    let script = |name: &str| format!("sh {} >\"$HOME/{name}\" 2>&1", program.display());
    let by_command = format!("psql -qf -; {}", script("restore"));
    let mut command = room.restore(&dump);
    for (flag, script) in [("--command", by_command), ("--mask-command", script("mask"))] {
        for word in ["sh", "-c", &script] {
            command.args([flag, word]);
        }
    }
    command.env("ALDAAS_RESTORE_ENV_SHOWN", "for the engine").env("ALDAAS_MASK_ENV_SHOWN", "for the engine");
    with_secrets(&mut command);
    if let Some(container) = container {
        command.env("ALDAAS_MANIFEST", room.path("work/manifest.json"));
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let at = args.iter().position(|arg| arg == "--manifest").unwrap();
        let mut again = Command::new(command.get_program());
        again.args(&args[..at]).args(&args[at + 2..]);
        again.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command = container.command(&room, &again);
    }
    let outcome = run(&mut command);
    outcome.done();
    assert!(!outcome.log.contains("forged") && !outcome.log.contains("hush"), "{}", outcome.log);
    let saw = if container.is_some() {
        // Its data is another user's.
        let by_dump = Command::new("grep")
            .args(["-rlaE", "hush-|open (environ|mem|maps|[0-9])"])
            .arg(room.path("data"))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&by_dump.stdout), "");
        ["restore", "mask"]
            .map(|name| std::fs::read_to_string(room.path("work").join(name)).unwrap())
            .to_vec()
    } else {
        let mut served = Running::start(&mut room.serve());
        let saw = saw(&room, served.ready().0);
        served.signal(rustix::process::Signal::TERM);
        served.code();
        saw
    };
    assert_learnt_nothing(
        &saw.iter().map(|seen| seen.trim().to_owned()).collect::<Vec<_>>(),
        1 + usize::from(container.is_some()),
    );
}

#[test]
fn neither_a_dump_nor_a_command_sees_the_keys_or_touches_the_program_that_runs_it() {
    spy(None);
}

#[test]
fn nor_in_a_container_where_that_is_the_first_process() {
    spy(Some(&Container::default()));
}

#[test]
fn a_dump_cannot_leave_an_event_in_the_log() {
    let forged = r#"{"event":"done"}"#;
    let room = Room::new();
    let dump = format!(
        "CREATE TABLE t ();\nDO $$ BEGIN RAISE WARNING E'\\n{forged}\\n'; END $$;\nDO $$ BEGIN RAISE EXCEPTION E'x\\n{forged}\\n'; END $$;\n"
    );
    let outcome = run(&mut room.restore(room.write("dump", dump)));
    outcome.failed(1);
    for line in outcome.log.split(['\n', '\r']) {
        assert!(!line.starts_with('{'), "{line}");
    }
}
