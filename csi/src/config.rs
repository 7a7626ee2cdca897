//! What the plugin was told at its start, validated.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aldaas_rbd as rbd;
use aldaas_volume::{AttachMode, FuseServer};

/// Everything that the plugin needs to know to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The socket on which CSI is served.
    pub endpoint: PathBuf,
    /// Where and how kubelet is told of it; none: not at all.
    pub registration: Option<Registration>,
    /// Where health and metrics are served; none: nowhere.
    pub http: Option<SocketAddr>,
    /// This node's name in Kubernetes.
    pub node: String,
    /// kubelet's directory: targets must be below it.
    pub kubelet_dir: PathBuf,
    /// How Ceph is reached. Its time-outs are the plugin's; the I/O of mounted clones waits for ever.
    pub ceph: rbd::ConnectOptions,
    /// The pool.
    pub pool: rbd::PoolName,
    /// Where volumes are kept on this machine.
    pub run_dir: PathBuf,
    /// How images become devices.
    pub attach: AttachMode,
    /// The program `aldaas-fuse`.
    pub fuse_program: PathBuf,
    /// Who starts it.
    pub fuse_server: FuseServer,
    /// Where Kubernetes' objects come from.
    pub objects: Objects,
    /// The namespace that aldaas itself runs in.
    pub own_namespace: String,
    /// The service account of its ingest Jobs, in that namespace.
    pub ingest_account: String,
    /// How often the reaper looks.
    pub reaper_period: Duration,
    /// How long a node may be silent before others may take its named clones.
    pub lease: Duration,
    /// How many publishes and unpublishes work at once; the others wait.
    pub workers: usize,
    /// The longest that a call may take: below kubelet's 2 minutes.
    pub call_timeout: Duration,
}

/// How the plugin makes itself known to kubelet.
#[derive(Clone, Debug)]
pub struct Registration {
    /// The registration socket, in kubelet's `plugins_registry`.
    pub socket: PathBuf,
    /// The CSI socket as kubelet sees it.
    pub endpoint: PathBuf,
}

/// Where Kubernetes' objects come from.
#[derive(Clone, Debug)]
pub enum Objects {
    /// The API server; through this kubeconfig, or as a pod's service account.
    Kubernetes(Option<PathBuf>),
    /// A file, for machines without Kubernetes: see `crate::objects`.
    File(PathBuf),
}
