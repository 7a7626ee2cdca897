//! `aldaas-webhook`: the admission webhook. Flags in `args`, the rest in the library.

use std::process::ExitCode;

use aldaas_webhook::args::{Args, Command};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let ended = match args.command {
        Command::Serve(serve) => serve.config().and_then(aldaas_webhook::run),
        Command::Registration(register) => serde_json::to_string_pretty(&register.registration().object())
            .map(|text| println!("{text}"))
            .map_err(anyhow::Error::from),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
