//! One file per command.

mod clone;
mod clones;
mod doctor;
mod images;
mod ingest;
mod retire;
mod rm;
mod run;

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;

use crate::args::{Args, Command};

/// Does what was asked for.
pub async fn run(args: Args) -> Result<ExitCode> {
    let global = &args.global;
    match args.command {
        Command::Ingest(command) => ingest::run(global, command).await,
        Command::Images(command) => images::run(global, command),
        Command::Run(command) => run::run(global, command).await,
        Command::Clone(command) => clone::run(global, command).await,
        Command::Clones(command) => clones::run(global, command),
        Command::Rm(command) => rm::run(global, command).await,
        Command::Retire(command) => retire::run(global, command),
        Command::Doctor(command) => doctor::run(global, command).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "aldaas", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}
