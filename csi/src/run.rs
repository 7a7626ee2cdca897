//! Starts everything, and stops it: the CSI socket, the registration, health, the reaper.

use std::sync::Arc;

use aldaas_volume::{Node, NodeConfig};
use anyhow::{Context as _, Result, bail};
use tokio_util::sync::CancellationToken;

use crate::access::Own;
use crate::config::Objects;
use crate::grpc::call::Calls;
use crate::grpc::identity::{IdentityService, Readiness};
use crate::grpc::node::NodeService;
use crate::guard::Guards;
use crate::metrics::Metrics;
use crate::ports::Directory;
use crate::publish::{Parts, Publisher};
use crate::removal::Remover;
use crate::storage::Storage;
use crate::{Config, grpc};

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
    let directory = directory(&config)?;
    let metrics = Arc::new(Metrics::default());
    let storage = Arc::new(Storage::new(config.ceph.clone(), config.pool.clone()));
    let node = Arc::new(node(&config)?);
    let remover = Arc::new(Remover::new(storage.clone(), node.clone(), metrics.clone()));
    let publisher = Arc::new(Publisher::new(Parts {
        storage: storage.clone(),
        node,
        directory: directory.clone(),
        guards: Arc::new(Guards::default()),
        remover,
        metrics: metrics.clone(),
        own: Own { namespace: config.own_namespace.clone(), ingest_account: config.ingest_account.clone() },
        node_name: config.node.clone(),
        lease: config.lease,
        workers: config.workers,
    }));
    let calls = Calls::new(config.call_timeout);
    let identity = IdentityService::new(Readiness::new(storage, directory));
    let service =
        NodeService::new(publisher, metrics, config.node.clone(), config.kubelet_dir.clone(), calls);
    let listener = grpc::bind(&config.endpoint).await?;
    let served = grpc::serve(listener, identity, service, stop).await;
    // kubelet takes a socket that nobody serves for a plugin that is coming back.
    let _ = std::fs::remove_file(&config.endpoint);
    served
}

fn directory(config: &Config) -> Result<Arc<dyn Directory>> {
    match &config.objects {
        Objects::File(path) => Ok(Arc::new(crate::objects::Objects::new(path.clone()))),
        Objects::Kubernetes(_) => bail!("only --objects is there yet"),
    }
}

/// The plugin's own calls to Ceph end after a time; the I/O of mounted clones waits for ever, as that of a disk does.
fn node(config: &Config) -> Result<Node> {
    let mut ceph = config.ceph.clone();
    ceph.operation_timeout = std::time::Duration::ZERO;
    Ok(Node::new(NodeConfig {
        run_dir: config.run_dir.clone(),
        ceph,
        attach: config.attach,
        fuse_program: config.fuse_program.clone(),
    })?)
}
