//! SIGTERM and SIGINT: the first asks for a clean stop, the second ends the program.

use std::process::exit;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `stop` at the first signal.
///
/// # Errors
/// When the signals can't be watched.
pub fn watch(stop: CancellationToken) -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("watch SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("watch SIGINT")?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = term.recv() => 143,
                _ = int.recv() => 130,
            }
        };
        next().await;
        tracing::info!("stopping; a second signal aborts");
        stop.cancel();
        exit(next().await);
    });
    Ok(())
}
