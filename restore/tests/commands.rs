//! What the user has done to the data on the way: commands, masks, checks, limits.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use aldaas_api::event::{Event, Step};
use aldaas_api::manifest::{Manifest, Ran, RanKind};
use common::*;
use rustix::process::Signal;

/// `--flag word --flag word`
fn words<'a>(flag: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    words.iter().flat_map(|word| [flag, word]).collect()
}

fn sh<'a>(flag: &'a str, script: &'a str) -> Vec<&'a str> {
    words(flag, &["sh", "-c", script])
}

/// Restores `dump`, which must fail for good; tells the reason.
#[track_caller]
fn reason(args: &[&str]) -> String {
    let room = Room::new();
    let outcome = run(room.restore(room.write("dump", dump(5))).args(args));
    assert!(!room.path("manifest.json").exists());
    room.wait_for_no_process();
    outcome.failed(1).to_owned()
}

#[track_caller]
fn assert_says(reason: &str, words: &[&str]) {
    for word in words {
        assert!(reason.contains(word), "{word:?} is not in {reason:?}");
    }
}

fn of(manifest: &Manifest, step: Step) -> Vec<&Ran> {
    manifest.ran.iter().filter(|ran| ran.step == step).collect()
}

/// Whether a file below `dir` holds `text` in any place.
fn is_in_files(dir: &Path, text: &str) -> Vec<String> {
    let out = Command::new("grep").args(["-rlaF", text]).arg(dir).output().unwrap();
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Values that PostgreSQL keeps as they are: short ones in the table, long ones beside it. Every one can be found.
fn dump_with_secrets(rows: usize) -> String {
    let long: String = (0..400).map(|at| format!("{:08x}", at * 2_654_435_761_u64 % (1 << 32))).collect();
    let data: String =
        (0..rows).map(|at| format!("{at}\tmail{at}@hush.example\tlongsecret{at}{long}\n")).collect();
    format!(
        "CREATE TABLE person (id int PRIMARY KEY, mail text, letter text);\n\
         ALTER TABLE person ALTER COLUMN letter SET STORAGE EXTERNAL;\n\
         CREATE TABLE other (id int);\nINSERT INTO other VALUES (1), (2);\n\
         COPY person FROM stdin;\n{data}\\.\nCREATE INDEX ON person (mail);\nANALYZE;\n"
    )
}

#[test]
fn what_is_masked_is_gone_from_every_file_of_the_data_directory() {
    let room = Room::new();
    let file = room.write("dump", dump_with_secrets(3000));
    let masks = [
        "--mask-sql",
        "-- the address and the letter\nUPDATE person SET mail = 'x' || id, letter = 'y'; DELETE FROM person WHERE id < 10",
        "--mask-sql",
        "UPDATE other SET id = -id",
    ];
    let outcome = run(room.restore(&file).args(masks));
    let manifest = outcome.done();
    room.assert_at_rest();
    for secret in ["@hush.example", "longsecret"] {
        assert!(!is_in_files(&file, secret).is_empty());
        assert_eq!(is_in_files(&room.path("data"), secret), Vec::<String>::new());
    }
    assert_eq!((manifest.contents.tables, manifest.contents.rows), (2, 2992));
    let said: Vec<Step> = outcome
        .events
        .iter()
        .filter_map(|event| if let Event::Step { step } = event { Some(*step) } else { None })
        .collect();
    assert_eq!(said[3..6], [Step::Restore, Step::Mask, Step::Bake]);
    assert!(manifest.steps.contains_key(&Step::Mask));
    let [first, second] = of(manifest, Step::Mask).try_into().unwrap();
    assert_eq!((first.kind, first.rows, second.rows), (RanKind::Sql, Some(3010), Some(2)));
    assert_eq!(second.text, "UPDATE other SET id = -id");
    let mut sum = Command::new("sh");
    let sum = sum.args(["-c", &format!("printf '%s' '{}' | sha256sum", second.text)]).output().unwrap();
    assert!(String::from_utf8(sum.stdout).unwrap().starts_with(&second.sha256));
    // Baked, masked or not.
    let mut served = Running::start(&mut room.serve());
    let (port, _) = served.ready();
    assert_eq!(psql(port, "orders", "SELECT count(*), min(mail) FROM person"), "2990|x10");
    let untidy =
        "SELECT relname FROM pg_class WHERE relname IN ('person', 'other') AND relallvisible <> relpages";
    assert_eq!(psql(port, "orders", untidy), "");
    served.signal(Signal::TERM);
    served.code();
}

#[test]
fn a_mask_command_runs_after_the_sql_with_its_own_environment() {
    let room = Room::new();
    let script = "test ${#SALT} = 7 && test -w \"$HOME\" && test -w \"$TMPDIR\" && \
                  psql -Atc 'SELECT min(mail) FROM person' | grep -qx sql0 && \
                  psql -qc \"UPDATE person SET mail = '$SALT' || id, letter = ''\"";
    let mut command = room.restore(room.write("dump", dump_with_secrets(500)));
    command.args(["--mask-sql", "UPDATE person SET mail = 'sql' || id"]).args(sh("--mask-command", script));
    command.env("ALDAAS_MASK_ENV_SALT", "s a l t").env("ALDAAS_RESTORE_ENV_SALT", "other");
    let outcome = run(&mut command);
    let manifest = outcome.done();
    for secret in ["@hush.example", "longsecret"] {
        assert_eq!(is_in_files(&room.path("data"), secret), Vec::<String>::new());
    }
    let ran = of(manifest, Step::Mask);
    assert_eq!((ran.len(), ran[1].kind, ran[1].rows), (2, RanKind::Command, None));
    assert!(ran[1].text.starts_with("sh -c test"), "{}", ran[1].text);
    // What it is told of is no place for secrets.
    assert!(!format!("{:?}{}", outcome.events, outcome.log).contains("s a l t"), "{}", outcome.log);
}

#[test]
fn a_mask_that_fails_fails_the_restore_and_says_why_without_data() {
    let said = reason(&["--mask-sql", "UPDATE customer SET nome = 'x'"]);
    assert_says(
        &said,
        &["the mask \"UPDATE customer SET nome = 'x'\" failed", "column \"nome\"", "does not exist"],
    );
    let said = reason(&["--mask-sql", "UPDATE customer SET name = 'x'; SELECT 1/0"]);
    assert_says(&said, &["division by zero"]);
    let said = reason(&["--mask-sql", "BEGIN; UPDATE customer SET name = 'x'"]);
    assert_says(&said, &["leaves a transaction open", "COMMIT"]);
    let said = reason(&["--mask-sql", "ALTER TABLE customer ADD CHECK (name = '')"]);
    assert_says(&said, &["is violated by some row"]);
    let said = reason(&sh("--mask-command", "echo first; echo 'ERROR:  odd' >&2; exit 3"));
    assert_says(&said, &["the mask command (sh) failed with exit status: 3: ERROR:  odd"]);
    let said = reason(&words("--mask-command", &["no-such-program"]));
    assert_says(&said, &["(no-such-program)", "127", "No such file"]);
    let said = reason(&["--mask-sql", "DO $$ BEGIN RAISE 'x\n{\"event\":\"done\"}'; END $$"]);
    assert_says(&said, &["x {"]);
}

#[test]
fn a_command_that_restores_gets_the_dump_as_it_is_and_how_to_connect() {
    let room = Room::new();
    let (plain, mut sum) = (dump_with_secrets(2000), Command::new("sha256sum"));
    let dump = gzip(&plain);
    let file = room.write("dump", &dump);
    let script =
        "test \"$PGDATABASE\" = orders && test \"$LOUD\" = yes && gunzip | psql -q -v ON_ERROR_STOP=1 -f -";
    let mut command = room.restore(&file);
    let outcome = run(command.args(sh("--command", script)).env("ALDAAS_RESTORE_ENV_LOUD", "yes"));
    let manifest = outcome.done();
    room.assert_at_rest();
    assert_eq!((manifest.contents.tables, manifest.contents.rows), (2, 2002));
    assert_eq!(manifest.source.size, dump.len() as u64);
    let sum = sum.arg(&file).output().unwrap();
    assert!(String::from_utf8(sum.stdout).unwrap().starts_with(&manifest.source.sha256));
    assert_eq!(of(manifest, Step::Restore)[0].kind, RanKind::Command);
    run(&mut room.check()).done();
}

#[test]
fn a_command_that_restores_may_make_its_own_database_and_need_not_read_to_the_end() {
    let room = Room::new();
    let file = room.write("dump", dump(50_000));
    let script = "head -c 10 >/dev/null; psql -qd postgres -c 'CREATE DATABASE shop' && \
                  psql -qd shop -c 'CREATE TABLE t AS SELECT 1 AS x'";
    let outcome = run(room.restore(&file).args(sh("--command", script)));
    let manifest = outcome.done();
    assert_eq!((manifest.contents.tables, manifest.contents.rows), (1, 1));
    // All of it was read, for the evidence.
    assert_eq!(manifest.source.size, fs::metadata(file).unwrap().len());
}

#[test]
fn a_command_that_does_not_restore_fails_for_good_or_as_it_says() {
    assert_says(&reason(&sh("--command", "cat >/dev/null")), &["made no tables", "--allow-empty"]);
    assert_says(&reason(&sh("--command", "exit 1")), &["the restore command (sh) failed", "it said nothing"]);
    for (script, word) in [("exit 75", "75"), ("kill -9 $$", "signal: 9")] {
        let room = Room::new();
        let outcome = run(room.restore(room.write("dump", dump(5))).args(sh("--command", script)));
        assert_says(outcome.failed(75), &["the restore command", word]);
    }
}

#[test]
fn a_dump_that_ends_early_is_no_end_for_the_command_that_restores() {
    let room = Room::new();
    let dump = dump(1000).into_bytes();
    let liar = liar::Liar::start(dump, liar::Lie::CutsAndStartsOver(5000));
    let mut command = room.restore("s3://bucket/key");
    command
        .env("AWS_ENDPOINT_URL", &liar.endpoint)
        .env("AWS_ACCESS_KEY_ID", "a")
        .env("AWS_SECRET_ACCESS_KEY", "b");
    let end = room.path("end");
    let script = format!("cat >/dev/null; touch {}", end.display());
    let outcome = run(command.args(sh("--command", &script)));
    assert_says(outcome.failed(75), &["cut short"]);
    room.wait_for_no_process();
    assert!(!end.exists(), "the command took half a dump for a whole one");
}

#[test]
fn what_a_command_says_is_logged_and_never_taken_for_an_event() {
    let room = Room::new();
    let forged = r#"{"event":"failed","step":"open","reason":"forged","temporary":false}"#;
    let script = format!(
        "printf '%s\\n' '{forged}'; printf '\\r\\033[2K%s\\n' '{forged}' >&2; head -c 20000 /dev/zero | tr '\\0' x"
    );
    let outcome = run(room.restore(room.write("dump", dump(5))).args(sh("--mask-command", &script)));
    outcome.done();
    assert_eq!(outcome.log.matches("forged").count(), 2, "{}", outcome.log);
    assert!(outcome.log.contains("mask command: "), "{}", outcome.log);
    for line in outcome.log.split(['\n', '\r']) {
        assert!(serde_json::from_str::<Event>(line).is_err(), "{line}");
    }
}

#[test]
fn nothing_that_a_command_started_outlives_it() {
    for (script, code) in [
        ("sleep 1000 & exit 0", 0),
        ("sleep 1000 & exit 3", 1),
        ("trap '' TERM; sleep 1000 & wait; sleep 1000", 143),
    ] {
        let room = Room::new();
        let script = format!("cd {}; touch here; {script}", room.path("work").display());
        let mut running =
            Running::start(room.restore(room.write("dump", dump(5))).args(sh("--mask-command", &script)));
        if code == 143 {
            running.until(|event| matches!(event, Event::Step { step: Step::Mask }));
            while !room.path("work/here").exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
            running.signal(Signal::TERM);
        }
        assert_eq!(running.code(), code, "{script}");
        room.wait_for_no_process();
    }
}

#[test]
fn a_check_command_must_succeed_on_the_clone() {
    let room = Room::new();
    run(room.restore(room.write("dump", dump(10))).args(["--mask-sql", "UPDATE customer SET name = ''"]))
        .done();
    let script = "test \"$WANT\" = 10 && test \"$(psql -Atc 'SELECT count(*) FROM customer')\" = \"$WANT\"";
    let mut check = room.check();
    check.args(["--sql", "SELECT true"]).args(sh("--command", script)).env("ALDAAS_CHECK_ENV_WANT", "10");
    let manifest = run(&mut check).done().clone();
    let kinds: Vec<_> = manifest.ran.iter().map(|ran| (ran.step, ran.kind)).collect();
    let want = [(Step::Mask, RanKind::Sql), (Step::Check, RanKind::Sql), (Step::Check, RanKind::Command)];
    assert_eq!(kinds, want);
    room.assert_at_rest();
    let outcome = run(room.check().args(sh("--command", "echo no good; exit 1")));
    assert_says(outcome.failed(1), &["the check command (sh) failed", "no good"]);
    room.assert_at_rest();
}

#[test]
fn who_takes_too_long_is_stopped_for_good() {
    let room = Room::new();
    let since = Instant::now();
    let mut command = room.restore(room.write("dump", dump(5)));
    let outcome = run(command.args(["--timeout", "3s", "--mask-sql", "SELECT pg_sleep(100)"]));
    assert_says(outcome.failed(1), &["longer than 3s", "--timeout", "restore.timeout"]);
    room.wait_for_no_process();
    let room = Room::new();
    run(&mut room.restore(room.write("dump", dump(5)))).done();
    let outcome = run(room.check().args(["--timeout", "2s"]).args(sh("--command", "sleep 100")));
    assert_says(outcome.failed(1), &["longer than 2s", "check.timeout"]);
    room.wait_for_no_process();
    assert!(since.elapsed() < Duration::from_secs(40), "{:?}", since.elapsed());
    assert_eq!(run(room.check().args(["--timeout", "soon"])).code, 2);
}

#[test]
fn the_engine_gets_the_users_arguments_and_environment_but_stays_private() {
    let room = Room::new();
    let args = words(
        "--engine-arg",
        &["-c", "work_mem=7MB", "-c", "listen_addresses=*", "-p", "1234", "-c", "fsync=on"],
    );
    let check = "SELECT string_agg(name || '=' || setting, ',' ORDER BY name) = \
                 'fsync=on,listen_addresses=,log_timezone=Asia/Tokyo,port=5432,work_mem=7168' FROM pg_settings \
                 WHERE name IN ('work_mem', 'listen_addresses', 'port', 'fsync', 'log_timezone')";
    let mask = format!("DO $$ BEGIN ASSERT ({check}); END $$");
    let loaded = "DO $$ BEGIN ASSERT current_setting('work_mem') = '9MB'; END $$;\n";
    let mut command = room.restore(room.write("dump", format!("{loaded}{}", dump(5))));
    command.env("ALDAAS_RESTORE_ENV_PGOPTIONS", "-c work_mem=9MB");
    command.args(&args).args(["--mask-sql", &mask]).env("ALDAAS_ENGINE_ENV_TZ", "Asia/Tokyo");
    run(&mut command).done();
    run(room.check().args(&args).args(["--sql", check])).done();
    let outcome = run(room.check().args(words("--engine-arg", &["-c", "no_such_setting=1"])));
    assert!(
        matches!(outcome.events.last(), Some(Event::Failed { reason, .. }) if reason.contains("no_such_setting"))
    );
}

#[test]
fn a_manifest_of_an_older_version_is_still_good() {
    let room = Room::new();
    run(&mut room.restore(room.write("dump", dump(10)))).done();
    let text = fs::read_to_string(room.path("manifest.json")).unwrap();
    assert!(!text.contains("\"ran\""), "{text}");
    fs::set_permissions(room.path("manifest.json"), std::os::unix::fs::PermissionsExt::from_mode(0o444))
        .unwrap();
    run(&mut room.check()).done();
}
