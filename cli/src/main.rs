//! `aldaas`: writable copies of production-like databases, by hand, on one machine.
//!
//! `args` says what can be asked for, `context` opens what is needed for it, `commands` has one file per command, and
//! `running` is a clone with its engine running on it.

mod args;
mod commands;
mod context;
mod output;
mod progress;
mod running;
mod signals;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;

fn main() -> ExitCode {
    aldaas_daemon::failpoints::set_up();
    let mut args = Args::parse();
    if let Err(error) = args.global.make_paths_absolute() {
        output::tell(format_args!("error: the current directory: {error}"));
        return ExitCode::FAILURE;
    }
    output::start_log(args.global.verbose);
    let ended = tokio::runtime::Runtime::new()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(commands::run(args)));
    ended.unwrap_or_else(|error| {
        output::tell(format_args!("error: {}", output::one_line(&error)));
        output::exit_code(&error)
    })
}
