//! `aldaas-webhook`: the admission webhook. Flags in `args`, the rest in the library.

use std::process::ExitCode;

use aldaas_webhook::args::{Args, Command};
use clap::Parser;

fn main() -> ExitCode {
    aldaas_daemon::set_up();
    aldaas_daemon::ended(match Args::parse().command {
        Command::Serve(serve) => serve.config().and_then(aldaas_webhook::run),
        Command::Registration(register) => serde_json::to_string_pretty(&register.registration().object())
            .map(|text| println!("{text}"))
            .map_err(anyhow::Error::from),
    })
}
