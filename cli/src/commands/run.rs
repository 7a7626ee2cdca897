//! `aldaas run`: a database for as long as this process or a command of the user's lives.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use aldaas_golden::Purpose;
use aldaas_ingest::Error as IngestError;
use anyhow::{Context as _, Result};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use crate::args::{Global, Run};
use crate::context::Context;
use crate::output;
use crate::running::{self, Address, RunningClone};
use crate::signals::Signals;

/// How long the user's command may take to end once we were told to stop.
const COMMAND_STOP_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn run(global: &Global, command: Run) -> Result<ExitCode> {
    let started = Instant::now();
    let signals = Signals::watch()?;
    let context = block_in_place(|| Context::open(global))?;
    let name = super::clone::made_up_name("run")?;
    let (image, engine) = (&command.image, &command.engine);
    let mut clone =
        RunningClone::start(&context, image, &name, Purpose::Run, engine, &signals.cancel).await?;
    let ended = use_it(global, &command.command, &mut clone, started.elapsed(), &signals).await;
    // Whatever became of the command, the clone goes, and says so itself if it can't.
    running::end_or_warn(&context, &name).await;
    ended
}

async fn use_it(
    global: &Global,
    command: &[OsString],
    clone: &mut RunningClone,
    took: Duration,
    signals: &Signals,
) -> Result<ExitCode> {
    if command.is_empty() {
        announce(global, &clone.address, took)?;
        return tokio::select! {
            () = signals.cancel.cancelled() => Ok(ExitCode::SUCCESS),
            status = clone.engine.wait() => Err(engine_ended(status?)),
        };
    }
    signals.leave_interrupts_to_command();
    let ended = run_command(command, &clone.address, &signals.cancel).await;
    signals.take_interrupts_back();
    ended
}

fn announce(global: &Global, address: &Address, took: Duration) -> Result<()> {
    output::one(global.output, address, || {
        format!(
            "{url}\n{image} on a clone of its own, {took:.2} s; Ctrl-C stops and removes it",
            url = address.url,
            image = address.image,
            took = took.as_secs_f64()
        )
    })
}

fn engine_ended(status: ExitStatus) -> anyhow::Error {
    IngestError::Died { status: status.to_string(), stderr: "the engine stopped while it was in use".into() }
        .into()
}

/// Runs the user's command with the database's address in its environment, and passes on how it ended.
async fn run_command(
    command: &[OsString],
    address: &Address,
    cancel: &CancellationToken,
) -> Result<ExitCode> {
    let (program, arguments) = command.split_first().context("no command")?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env("DATABASE_URL", &address.url)
        .env("PGHOST", address.host.to_string())
        .env("PGPORT", address.port.to_string())
        .env("PGUSER", &address.user)
        .env("PGDATABASE", &address.database)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("run {}", program.display()))?;
    tokio::select! {
        status = child.wait() => return Ok(passed_on(status?)),
        () = cancel.cancelled() => {}
    }
    // What told us to end told us alone.
    if let Some(pid) = child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    match tokio::time::timeout(COMMAND_STOP_TIMEOUT, child.wait()).await {
        Ok(status) => Ok(passed_on(status?)),
        Err(_) => {
            child.kill().await?;
            Ok(ExitCode::from(137))
        }
    }
}

/// A command's exit code, or 128 and its signal, as shells say it.
fn passed_on(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
