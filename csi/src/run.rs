//! Starts everything, and stops it: the CSI socket, the registration, health, the reaper.

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use crate::Config;

/// Runs until SIGTERM or SIGINT; a second one aborts.
///
/// # Errors
/// When something can't be started.
pub fn run(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        crate::signals::watch(stop.clone())?;
        serve(config, stop).await
    })
}

/// Runs until `stop`.
///
/// # Errors
/// When something can't be started.
pub async fn serve(config: Config, stop: CancellationToken) -> Result<()> {
    tracing::info!(node = config.node, endpoint = %config.endpoint.display(), pool = %config.pool, "starting");
    stop.cancelled().await;
    Ok(())
}
