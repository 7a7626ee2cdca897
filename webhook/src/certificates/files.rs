//! A certificate in a directory: a Secret that somebody else renews (cert-manager), mounted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Keeper, Pair};

/// Serves what is in a directory, and what comes there later. Never returns.
///
/// It looks instead of being told: kubelet replaces a link, which reaches watches in many ways, and looking costs nothing.
pub async fn keep(dir: PathBuf, keeper: Arc<Keeper>, period: Duration) {
    let mut last = None;
    loop {
        let read = read(&dir).await;
        let refused = match read {
            Ok(pair) => keeper.offer(pair, Timestamp::now()).err().map(|error| error.to_string()),
            Err(error) => Some(error),
        };
        // Said once, not at every look.
        if refused != last
            && let Some(error) = &refused
        {
            tracing::error!(dir = %dir.display(), error, "the certificate there can't be served");
        }
        last = refused;
        tokio::time::sleep(period).await;
    }
}

async fn read(dir: &Path) -> Result<Pair, String> {
    let file = async |name: &str| {
        let path = dir.join(name);
        tokio::fs::read(&path).await.map_err(|error| format!("read {}: {error}", path.display()))
    };
    let authorities = file("ca.crt").await.unwrap_or_default();
    Ok(Pair { certificate: file("tls.crt").await?, key: file("tls.key").await?, authorities })
}
