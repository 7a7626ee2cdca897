//! As the first process of a container: what nobody else waits for is ours to wait for, and a signal that has no handler
//! here is lost. So the first process does that alone, and a copy of it does the work.

use std::process::{Command, ExitCode};

use aldaas_api::event::{Event, Step, exit};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::report::say;

/// What is passed on.
const PASSED_ON: [i32; 6] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2];

/// Whether this is the first process of its container.
#[must_use]
pub fn is_needed() -> bool {
    getpid() == Pid::INIT
}

/// Starts a copy of this program and lives as long as it; returns its exit code.
///
/// # Errors
/// When it cannot be started.
pub fn run() -> std::io::Result<ExitCode> {
    // Before it is started: it may end at once.
    let mut signals = Signals::new(PASSED_ON.iter().chain(&[SIGCHLD]))?;
    // By its own name, that people know it by.
    let mut worker = Command::new(std::env::current_exe()?);
    let worker = Pid::from_child(&worker.args(std::env::args_os().skip(1)).spawn()?);
    for signal in signals.forever() {
        if signal != SIGCHLD {
            // It was not waited for yet: the id is its own.
            let _ =
                Signal::from_named_raw(signal).map(|signal| rustix::process::kill_process(worker, signal));
        } else if let Some(status) = reap(worker) {
            return Ok(ExitCode::from(code(status)));
        }
    }
    Ok(ExitCode::from(exit::TEMPORARY))
}

/// Waits for all that has ended; tells how the worker did.
fn reap(worker: Pid) -> Option<WaitStatus> {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == worker {
            return Some(status);
        }
    }
    None
}

fn code(status: WaitStatus) -> u8 {
    if let Some(code) = status.exit_status() {
        return u8::try_from(code).unwrap_or(exit::PERMANENT);
    }
    // It had no time to say so itself.
    let signal = status.terminating_signal().unwrap_or_default();
    let hint = if signal == Signal::KILL.as_raw() { ": out of memory, perhaps" } else { "" };
    let reason = format!("aldaas-restore was killed by signal {signal}{hint}");
    tracing::error!("{reason}");
    say(&Event::Failed { step: Step::Open, reason, temporary: true });
    exit::TEMPORARY
}
