//! How `main` begins and ends.

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::failpoints;

/// The first line of a daemon's `main`: log as JSON on standard error, at the level that `RUST_LOG` names (`info`); one TLS
/// library for the whole program, whatever its dependencies bring along; [`failpoints`].
pub fn set_up() {
    failpoints::set_up();
    // An error means that it is set already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}

/// Its last: what went wrong, for people, with all its causes.
pub fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
