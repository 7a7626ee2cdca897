//! `aldaas-ingest`: the controller. Flags in `controller::args`, the rest in the library.

use std::process::ExitCode;

use aldaas_ingest::controller::args::{Args, Command};
use aldaas_ingest::controller::run;
use clap::Parser;

fn main() -> ExitCode {
    aldaas_daemon::set_up();
    aldaas_daemon::ended(match Args::parse().command {
        Command::Serve(serve) => serve.config().and_then(run),
    })
}
