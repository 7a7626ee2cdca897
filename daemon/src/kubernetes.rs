//! How the API server is reached.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// Making a connection may take this long.
const CONNECT: Duration = Duration::from_secs(5);

/// A client: through this kubeconfig, or as a pod's service account.
///
/// # Errors
/// When there is no such file, or this is no pod.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path).with_context(|| format!("read {}", path.display()))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("use {}", path.display()))?
        }
        None => Config::incluster().context(
            "this is no pod of Kubernetes with a service account: name a kubeconfig with --kubeconfig",
        )?,
    };
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).context("make a client for the API server")
}

/// An error with its causes, of which kube's and hyper's first words say little.
pub fn say(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let word = error.to_string();
        if !text.contains(&word) {
            text = format!("{text}: {word}");
        }
        cause = error.source();
    }
    text
}
