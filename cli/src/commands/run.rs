//! `aldaas run`: a database for as long as this process or a command of the user's lives.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitCode, ExitStatus};
use std::time::{Duration, Instant};

use aldaas_golden::Purpose;
use aldaas_ingest::Error as IngestError;
use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use crate::args::{Global, Run};
use crate::context::Context;
use crate::output;
use crate::session::{self, Address, Session};
use crate::signals::cancel_on_signal;

/// How long the user's command may take to end once we were told to stop.
const COMMAND_STOP_TIMEOUT: Duration = Duration::from_secs(10);

pub async fn run(global: &Global, command: Run) -> Result<ExitCode> {
    let started = Instant::now();
    let cancel = cancel_on_signal()?;
    let context = tokio::task::block_in_place(|| Context::open(global))?;
    let golden = tokio::task::block_in_place(|| context.store.resolve(&command.image, None))?;
    let name = super::clone::made_up_name("run")?;
    let mut session =
        Session::start(&context, &golden, &name, Purpose::Run, &command.engine, &cancel).await?;
    let took = started.elapsed();

    let ended = if command.command.is_empty() {
        announce(global, &session.address, took)?;
        tokio::select! {
            () = cancel.cancelled() => Ok(ExitCode::SUCCESS),
            status = session.engine.wait() => Err(engine_ended(status?)),
        }
    } else {
        run_command(&command.command, &session.address, &cancel).await
    };
    session.engine.stop().await?;
    session::end(&context, &name).await?;
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
    // Ctrl-C reached the command too; a SIGTERM to us alone did not.
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
