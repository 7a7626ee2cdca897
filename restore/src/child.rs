//! Child processes that never outlive us.
//!
//! The kernel can signal a process when its parent dies (`PR_SET_PDEATHSIG`), but only the process itself can ask for
//! that, between `fork` and `exec`, where Rust has no safe code. So we start ourselves first: the copy asks, looks
//! whether its parent is still there, and becomes the program. That costs about a millisecond and holds for every way
//! in which we can end, `kill -9` included.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;

use rustix::process::{
    DumpableBehavior, Pid, Signal, getpid, getppid, set_dumpable_behavior, set_parent_process_death_signal,
};

use crate::args::Parent;

/// The hidden first argument that makes a copy of us a child.
const BECOME: &str = "become-child";

/// A command for `program` that gets `signal` when we die. It runs in a process group of its own: a Ctrl-C at the
/// terminal reaches us alone, and we stop our children in good order.
#[must_use]
pub fn command(program: &Path, signal: Signal) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command
        .arg(BECOME)
        .arg(signal.as_raw().to_string())
        .arg(getpid().as_raw_nonzero().to_string())
        .arg(program)
        .process_group(0)
        .env_clear()
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

/// Becomes the child where the arguments say so; never returns then, unless it could not.
#[must_use]
pub fn become_one_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next().as_deref() != Some(OsStr::new(BECOME)) {
        return None;
    }
    let signal = number(args.next()).and_then(Signal::from_named_raw);
    let parent = number(args.next()).and_then(Pid::from_raw);
    let (Some(signal), Some(parent), Some(program)) = (signal, parent, args.next()) else {
        return Some(ExitCode::from(aldaas_api::event::exit::USAGE));
    };
    if let Err(err) = set_parent_process_death_signal(Some(signal)) {
        complain(format_args!("ask for a signal when the parent dies: {err}"));
        return Some(ExitCode::from(aldaas_api::event::exit::TEMPORARY));
    }
    if getppid() != Some(parent) {
        return Some(ExitCode::from(aldaas_api::event::exit::TEMPORARY)); // it died before we could ask
    }
    let err = std::process::Command::new(&program).args(args).exec();
    complain(format_args!("start {}: {err}", Path::new(&program).display()));
    Some(ExitCode::from(127))
}

/// Unlike `eprintln!`, it does not mind when nobody listens any more.
fn complain(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn number(arg: Option<OsString>) -> Option<i32> {
    arg?.to_str()?.parse().ok()
}

/// Asks for SIGTERM when whoever started us dies (`--with-parent`).
///
/// The kernel watches the *thread* that started us: a caller must start us from one that lives long enough.
///
/// # Errors
/// When the kernel refuses, or the parent is already gone: who is adopted has another one.
pub fn die_with_parent(parent: Parent) -> std::io::Result<()> {
    let expected = match parent {
        Parent::Any => getppid(),
        Parent::Process(pid) => Some(pid),
    };
    set_parent_process_death_signal(Some(Signal::TERM))?;
    if expected.is_none() || getppid() != expected {
        return Err(std::io::Error::other("the program that started this one is already gone"));
    }
    Ok(())
}

/// Closes our environment, memory and open files in `/proc` to other processes of the same user: the engine runs what
/// stands in a dump. Children are what they are: this ends where they become another program.
///
/// # Errors
/// When the kernel refuses.
pub fn hide() -> std::io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Signals a child that may already be gone.
pub fn signal(pid: Option<u32>, signal: Signal) {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
