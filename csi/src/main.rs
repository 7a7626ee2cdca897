//! `aldaas-csi`: the node plugin. Flags in `args`, the rest in the library.

use aldaas_csi::args::{Args, Command};
use clap::Parser;

fn main() -> ! {
    aldaas_daemon::set_up();
    let result = match Args::parse().command {
        Command::Serve(serve) => serve.config().and_then(aldaas_csi::run),
        Command::Explain(explain) => explain.run(),
    };
    let failed = result.is_err();
    let _ = aldaas_daemon::ended(result);
    aldaas_rbd::exit_at_once(u8::from(failed))
}
