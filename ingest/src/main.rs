//! `aldaas-ingest`: the controller. Flags in `controller::args`, the rest in the library.

use std::process::ExitCode;

use aldaas_ingest::controller::args::{Args, Command};
use aldaas_ingest::controller::{failpoints, run};
use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    failpoints::set_up();
    // The one TLS library of this program, whatever its dependencies bring along. An error means that it is set already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let args = Args::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let ended = match args.command {
        Command::Serve(serve) => serve.config().and_then(run),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
