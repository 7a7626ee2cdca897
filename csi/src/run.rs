//! Starts everything, and stops it: the CSI socket, the registration, health, the reaper.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aldaas_daemon::pages::{self, Pages};
use aldaas_volume::{Node, NodeConfig};
use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use rustix::process::{Signal, getpid, kill_process};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::Own;
use crate::config::Objects;
use crate::grpc::call::Calls;
use crate::grpc::identity::{IdentityService, Readiness};
use crate::grpc::node::NodeService;
use crate::guard::Guards;
use crate::kubernetes::Kubernetes;
use crate::metrics::Metrics;
use crate::ports::{Cluster, Directory};
use crate::publish::{self, Publisher};
use crate::reaper::explain::ExplainService;
use crate::reaper::{self, Reaper};
use crate::registration::Registration;
use crate::removal::Remover;
use crate::storage::Storage;
use crate::{Config, grpc, objects};

/// How often it is checked whether the plugin could publish.
const CHECK: Duration = Duration::from_secs(10);
/// When all that is done once has been done: connected, listed, registered.
const SETTLED: Duration = Duration::from_secs(10);
/// A stop, where something hangs: so long may calls and removals that were begun go on. What is cut short is found by the next
/// try.
pub(crate) const FINISH: Duration = Duration::from_secs(20);
/// Then it is no longer waited for anything but threads that block.
const CUT: Duration = Duration::from_secs(24);
/// And then for nothing: less than the half minute after which kubelet kills.
const STOP: Duration = Duration::from_secs(27);

/// Runs until SIGTERM or SIGINT; a second one aborts.
///
/// # Errors
/// When something can't be started.
pub fn run(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    let stop = CancellationToken::new();
    let (ended, told) = runtime.block_on(async {
        let told = tokio::spawn(stop.clone().cancelled_owned().map(|()| Instant::now()));
        let serving = async {
            aldaas_daemon::signals::watch(stop.clone())?;
            serve(config, stop.clone()).await
        };
        let ended = tokio::select! {
            ended = serving => ended,
            () = stop.cancelled().then(|()| tokio::time::sleep(CUT)) => {
                tracing::warn!("cut short");
                Ok(())
            }
        };
        stop.cancel();
        (ended, told.await.unwrap_or_else(|_| Instant::now()))
    });
    // What is still being purged is waited for: Ceph's library does not bear to be used while a program ends. What hangs is not.
    let left = STOP.saturating_sub(told.elapsed());
    let waited = Instant::now();
    runtime.shutdown_timeout(left);
    if waited.elapsed() >= left {
        tracing::warn!("work that does not end is left to the next plugin");
        let _ = kill_process(getpid(), Signal::KILL);
    }
    ended
}

/// Runs until `stop`. What was begun then is brought to its end; mounted clones stay as they are.
///
/// # Errors
/// When something can't be started.
pub async fn serve(config: Config, stop: CancellationToken) -> Result<()> {
    tracing::info!(node = config.node, endpoint = %config.endpoint.display(), pool = %config.pool, "starting");
    // Whoever ends, ends all: a plugin that does half of its work is worse than one that is started again.
    let stop = stop.child_token();
    let _stop_all = stop.clone().drop_guard();
    let mut tasks = JoinSet::new();
    let (directory, cluster) = kubernetes(&config, &mut tasks, &stop).await?;
    let plugin = Plugin::new(&config, directory, cluster, &stop)?;
    plugin.publisher.tidy();
    let (listener, socket) = grpc::bind(&config.endpoint).await?;
    // kubelet calls as soon as it knows of us, so the socket is there first.
    let registration = register(&config, &mut tasks, &stop)?;
    if let Some(address) = config.http {
        plugin.serve_pages(address, registration, &mut tasks, &stop).await?;
    }
    tasks.spawn(plugin.reaper.clone().run(stop.clone()));
    tasks.spawn(plugin.reaper.clone().keep_leases(stop.clone()));
    tasks.spawn(settle(stop.clone()));
    let identity = IdentityService::new(plugin.readiness.clone());
    let explain = ExplainService(plugin.reaper.clone());
    let served =
        grpc::serve(listener, identity, plugin.node_service(&config, &stop), explain, stop.clone()).await;
    // kubelet takes a socket that nobody serves for a plugin that is coming back.
    socket.remove();
    stop.cancel();
    while tasks.join_next().await.is_some() {}
    plugin.remover.finished().await;
    tracing::info!("stopped");
    served
}

/// All that one plugin is made of.
struct Plugin {
    publisher: Arc<Publisher>,
    reaper: Arc<Reaper>,
    readiness: Readiness,
    remover: Arc<Remover>,
    metrics: Arc<Metrics>,
}

impl Plugin {
    fn new(
        config: &Config,
        directory: Arc<dyn Directory>,
        cluster: Arc<dyn Cluster>,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let metrics = Arc::new(Metrics::default());
        let storage = Arc::new(Storage::new(config.ceph.clone(), config.pool.clone()));
        let node = Arc::new(node(config)?);
        let remover = Arc::new(Remover::new(storage.clone(), node.clone(), metrics.clone()));
        let guards = Arc::new(Guards::default());
        let own =
            Own { namespace: config.own_namespace.clone(), ingest_account: config.ingest_account.clone() };
        let publisher = Arc::new(Publisher::new(publish::Parts {
            storage: storage.clone(),
            node: node.clone(),
            directory: directory.clone(),
            cluster: cluster.clone(),
            guards: guards.clone(),
            remover: remover.clone(),
            metrics: metrics.clone(),
            own,
            node_name: config.node.clone(),
            lease: config.lease,
            workers: config.workers,
            stop: stop.clone(),
        }));
        let reaper = Reaper::new(reaper::Parts {
            storage: storage.clone(),
            node,
            cluster,
            directory: directory.clone(),
            guards,
            remover: remover.clone(),
            publisher: publisher.clone(),
            metrics: metrics.clone(),
            node_name: config.node.clone(),
            kubelet_dir: config.kubelet_dir.clone(),
            period: config.reaper_period,
            lease: config.lease,
            patience: reaper::work::PATIENCE,
        });
        let readiness = Readiness::new(storage, directory);
        Ok(Self { publisher, reaper: Arc::new(reaper), readiness, remover, metrics })
    }

    fn node_service(&self, config: &Config, stop: &CancellationToken) -> NodeService {
        let calls = Calls::new(config.call_timeout, stop.clone());
        let (publisher, metrics) = (self.publisher.clone(), self.metrics.clone());
        NodeService::new(publisher, metrics, config.node.clone(), config.kubelet_dir.clone(), calls)
    }

    /// Health, readiness and metrics over HTTP.
    async fn serve_pages(
        &self,
        address: SocketAddr,
        registration: Option<Registration>,
        tasks: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> Result<()> {
        let missing = Arc::new(Mutex::new(Some("not checked yet".to_owned())));
        tasks.spawn(keep_checking(self.readiness.clone(), missing.clone(), stop.clone()));
        let not_ready = move || {
            let missing = missing.lock().unwrap_or_else(PoisonError::into_inner).clone();
            missing.into_iter().chain(registration.as_ref().and_then(Registration::not_ready)).collect()
        };
        let metrics = self.metrics.clone();
        let pages = Pages { not_ready: Arc::new(not_ready), metrics: Arc::new(move || metrics.encode()) };
        let (address, served) = pages::serve(address, pages, stop.clone())
            .await
            .with_context(|| format!("listen on {address}"))?;
        tracing::info!(%address, "serving /healthz, /readyz and /metrics");
        tasks.spawn(async move {
            let _ = served.await.inspect_err(|error| tracing::error!(%error, "health is no longer served"));
        });
        Ok(())
    }
}

/// The plugin is on every node and mostly waits: what only its start needed is let go.
async fn settle(stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(SETTLED) => aldaas_rbd::forget_the_start(),
    }
}

/// Checks again and again what is missing for a publish, so that the answer is at hand.
async fn keep_checking(readiness: Readiness, missing: Arc<Mutex<Option<String>>>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(CHECK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let found = readiness.check().await.err();
        *missing.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// Who may clone what, and what pods there are: from the API server, watched from here on, or from a file.
async fn kubernetes(
    config: &Config,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<(Arc<dyn Directory>, Arc<dyn Cluster>)> {
    Ok(match &config.objects {
        Objects::File(path) => {
            let objects = Arc::new(objects::Objects::new(path.clone(), config.node.clone()));
            (objects.clone(), objects)
        }
        Objects::Kubernetes(kubeconfig) => {
            let watched = Kubernetes::new(kubeconfig.as_deref(), &config.node, &config.own_namespace).await?;
            tasks.spawn(watched.clone().run(stop.clone()));
            (watched.clone(), watched)
        }
    })
}

/// Makes the plugin known to kubelet, where it is to be.
fn register(
    config: &Config,
    tasks: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<Option<Registration>> {
    let Some(wanted) = &config.registration else { return Ok(None) };
    let registration = Registration::default();
    let served = registration.serve(&wanted.socket, &wanted.endpoint, stop.clone())?;
    tasks.spawn(async move {
        let _ =
            served.await.inspect_err(|error| tracing::error!(%error, "kubelet can't register us any more"));
    });
    Ok(Some(registration))
}

/// The plugin's own calls to Ceph end after a time; the I/O of mounted clones waits for ever, as that of a disk does.
fn node(config: &Config) -> Result<Node> {
    let mut ceph = config.ceph.clone();
    ceph.operation_timeout = Duration::ZERO;
    Ok(Node::new(NodeConfig {
        run_dir: config.run_dir.clone(),
        ceph,
        attach: config.attach,
        fuse_program: config.fuse_program.clone(),
        fuse_server: config.fuse_server,
    })?)
}
