//! What the webhook was told at its start, validated.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::certificates::own::Settings;

/// Everything that the webhook needs to know to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where reviews come in.
    pub listen: SocketAddr,
    /// Where health and metrics are served.
    pub http: SocketAddr,
    /// The kubeconfig; none: as a pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The namespace that aldaas itself runs in.
    pub own_namespace: String,
    /// Where the certificate comes from.
    pub certificates: Certificates,
    /// How long it still serves after it said that it is not ready any more.
    pub drain_delay: Duration,
    /// How long what is being answered then may take.
    pub grace: Duration,
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Certificates {
    /// A directory that somebody else keeps current, and how often it is looked at.
    Directory(PathBuf, Duration),
    /// We make it ourselves.
    Own(Box<Settings>),
}
