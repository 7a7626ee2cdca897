//! How the API server is reached.

use std::path::Path;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A client: through this kubeconfig, or as a pod's service account.
///
/// # Errors
/// When there is no such file, or this is no pod.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client> {
    let config = match kubeconfig {
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
    Client::try_from(config).context("make a client for the API server")
}
