//! One pass of the reaper over very many clones: of other nodes, which is what most clones of a pool are to any node.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aldaas_api::{DatabaseName, VolumeId};
use aldaas_csi::access::Own;
use aldaas_csi::guard::Guards;
use aldaas_csi::metrics::Metrics;
use aldaas_csi::ports::{Away, Cluster, Database, Directory, Labels, Pod};
use aldaas_csi::publish::{self, Publisher};
use aldaas_csi::reaper::{Parts, Reaper};
use aldaas_csi::removal::Remover;
use aldaas_csi::storage::Storage;
use aldaas_golden::record::CloneRecord;
use aldaas_golden::{CLONE, PodUse, Purpose, Store};
use aldaas_rbd as rbd;
use aldaas_volume::{AttachMode, Node, NodeConfig};
use anyhow::{Context as _, Result, ensure};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::figure::{Bound, Figure};

/// How many clones there are at first, and then.
const FEW: usize = 1_000;
const MANY: usize = 10_000;
/// How many are made at once.
const MAKERS: usize = 16;
/// Passes, each of a plugin that was started just before and knows nothing yet; the quickest counts.
const PASSES: usize = 3;
/// A pool of its own is quicker to take away than so many clones.
const POOL: &str = "bench-reaper";

/// Measures a pass, in a pool of its own.
pub fn measure(ceph_conf: &Path, cluster: &rbd::Cluster, run_dir: &Path) -> Result<Vec<Figure>> {
    let name = rbd::PoolName::new(POOL)?;
    cluster.create_pool(&name, Some(8)).context("make the pool for the reaper's figures")?;
    let figures = measure_in(ceph_conf, cluster, &name, run_dir);
    cluster.delete_pool(&name)?;
    figures
}

fn measure_in(
    ceph_conf: &Path,
    cluster: &rbd::Cluster,
    pool: &rbd::PoolName,
    run_dir: &Path,
) -> Result<Vec<Figure>> {
    cluster.pool(pool)?.ensure_initialised()?;
    Store::open(cluster, pool)?;
    let clones = cluster.pool(pool)?.namespace(CLONE)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let pass = || runtime.block_on(quickest_pass(ceph_conf, pool, run_dir));
    make(&clones, 0..FEW)?;
    let few = pass()?;
    make(&clones, FEW..MANY)?;
    let many = pass()?;
    let (few, many) = (few.as_secs_f64(), many.as_secs_f64());
    let name = "one reaper pass over 10,000 clones";
    Ok(vec![
        Figure::new(name, "s", many, "over 1,000", few, Bound::Times(12.0)),
        Figure::new(name, "s", many, "the reaper's period", 30.0, Bound::Times(1.0)),
    ])
}

/// Images that are clones to the reaper: it reads their names and records, and nothing else.
fn make(clones: &rbd::Namespace, numbers: std::ops::Range<usize>) -> Result<()> {
    let next = AtomicUsize::new(numbers.start);
    let maker = || -> Result<()> {
        let options = rbd::CreateOptions { features: rbd::features::LAYERING, ..Default::default() };
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return Ok(());
            }
            let uid = format!("00000000-0000-4000-8000-{number:012}");
            let volume = VolumeId::of_pod(&uid, "db");
            let name = rbd::ImageName::new(volume.to_string())?;
            clones.create(&name, 1 << 20, &options)?;
            clones.set_metadata(&clones.image_id(&name)?, &record(&uid, &volume)?.write())?;
        }
    };
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS).map(|_| scope.spawn(maker)).collect();
        makers
            .into_iter()
            .try_for_each(|maker| maker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn record(uid: &str, volume: &VolumeId) -> Result<CloneRecord> {
    let pod = PodUse {
        node: "another".to_owned(),
        volume: volume.to_string(),
        namespace: "shop".to_owned(),
        pod: "web".to_owned(),
        pod_uid: uid.to_owned(),
        ..PodUse::default()
    };
    Ok(CloneRecord {
        golden_image: "orders-20261123t033000z".parse()?,
        purpose: Purpose::Pod,
        holder: None,
        cloned_at: jiff::Timestamp::now(),
        pod: Some(pod),
    })
}

async fn quickest_pass(ceph_conf: &Path, pool: &rbd::PoolName, run_dir: &Path) -> Result<Duration> {
    let mut quickest = Duration::MAX;
    for _ in 0..PASSES {
        let reaper = Arc::new(reaper(ceph_conf, pool, run_dir)?);
        let started = Instant::now();
        reaper.pass(&CancellationToken::new()).await;
        quickest = quickest.min(started.elapsed());
        let answer = reaper.explain("");
        ensure!(answer.away.is_empty(), "the pass came to nothing: {}", answer.away);
    }
    Ok(quickest)
}

fn reaper(ceph_conf: &Path, pool: &rbd::PoolName, run_dir: &Path) -> Result<Reaper> {
    let ceph = rbd::ConnectOptions { conf: Some(ceph_conf.to_owned()), ..Default::default() };
    let storage = Arc::new(Storage::new(ceph.clone(), pool.clone()));
    storage.store()?;
    let node = Arc::new(Node::new(NodeConfig {
        run_dir: run_dir.join("reaper"),
        ceph,
        attach: AttachMode::Auto,
        fuse_program: "aldaas-fuse".into(),
        fuse_server: Default::default(),
    })?);
    let (metrics, guards, lease) =
        (Arc::new(Metrics::default()), Arc::new(Guards::default()), Duration::from_secs(90));
    let remover = Arc::new(Remover::new(storage.clone(), node.clone(), metrics.clone()));
    let publisher = Arc::new(Publisher::new(publish::Parts {
        storage: storage.clone(),
        node: node.clone(),
        directory: Arc::new(Nothing),
        cluster: Arc::new(Nothing),
        guards: guards.clone(),
        remover: remover.clone(),
        metrics: metrics.clone(),
        own: Own { namespace: "aldaas".into(), ingest_account: "aldaas-ingest".into() },
        node_name: "here".into(),
        lease,
        workers: 1,
        stop: Default::default(),
    }));
    Ok(Reaper::new(Parts {
        storage,
        node,
        cluster: Arc::new(Nothing),
        directory: Arc::new(Nothing),
        guards,
        remover,
        publisher,
        metrics,
        node_name: "here".into(),
        kubelet_dir: run_dir.join("kubelet"),
        period: Duration::from_secs(30),
        lease,
        patience: Duration::from_secs(60),
    }))
}

/// A cluster of two nodes, and no pod on this one.
struct Nothing;

impl Directory for Nothing {
    fn database(&self, _: &DatabaseName) -> Result<Option<Arc<Database>>, Away> {
        Ok(None)
    }

    fn databases(&self) -> Result<Vec<DatabaseName>, Away> {
        Ok(vec![])
    }

    fn namespace(&self, _: &str) -> Result<Option<Arc<Labels>>, Away> {
        Ok(None)
    }
}

impl Cluster for Nothing {
    fn pods(&self) -> Result<Vec<Pod>, Away> {
        Ok(vec![])
    }

    fn nodes(&self) -> Result<BTreeSet<String>, Away> {
        Ok(["here", "another"].map(String::from).into())
    }

    fn pod_exists<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<bool, Away>> {
        Box::pin(async { Ok(true) })
    }

    fn node_exists<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool, Away>> {
        Box::pin(async { Ok(true) })
    }

    fn node_is_ready<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool, Away>> {
        Box::pin(async { Ok(true) })
    }

    fn delete_pod<'a>(&'a self, _: &'a Pod, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), Away>> {
        Box::pin(async { Ok(()) })
    }

    fn is_elected(&self) -> bool {
        true
    }
}
