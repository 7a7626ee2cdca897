//! `aldaas-restore`: see `aldaas-restore --help`.

use std::process::ExitCode;

use aldaas_restore::{args::Args, child, init, logging, run, shutdown::Shutdown};
use clap::Parser;

fn main() -> ExitCode {
    if let Some(code) = child::become_one_if_asked() {
        return code;
    }
    let args = Args::parse();
    logging::init();
    if let Err(err) = child::hide() {
        tracing::error!("hide from the engine, which runs as the same user: {err}");
        return ExitCode::from(aldaas_api::event::exit::TEMPORARY);
    }
    if init::is_needed() {
        return init::run().unwrap_or_else(|err| {
            tracing::error!("start a copy of this program: {err}");
            ExitCode::from(aldaas_api::event::exit::TEMPORARY)
        });
    }
    // One thread, the main one: a child's parent-death signal follows the *thread* that started it, and this one
    // lives as long as we do. What blocks (decompression) has threads of its own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => {
            tracing::error!("start the runtime: {err}");
            return ExitCode::from(aldaas_api::event::exit::TEMPORARY);
        }
    };
    let code = runtime.block_on(async {
        match Shutdown::watch() {
            Ok(shutdown) => run(args, shutdown).await,
            Err(err) => {
                tracing::error!("watch for signals: {err}");
                aldaas_api::event::exit::TEMPORARY
            }
        }
    });
    // Not dropped but left: a read of standard input that never returns must not keep us.
    runtime.shutdown_background();
    ExitCode::from(code)
}
