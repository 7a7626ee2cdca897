//! `aldaas-csi`: the node plugin. Flags in `args`, the rest in the library.

use std::process::ExitCode;

use aldaas_csi::args::{Args, Command};
use clap::Parser;

fn main() -> ExitCode {
    aldaas_daemon::set_up();
    aldaas_daemon::ended(match Args::parse().command {
        Command::Serve(serve) => serve.config().and_then(aldaas_csi::run),
        Command::Explain(explain) => explain.run(),
    })
}
