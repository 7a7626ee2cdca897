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
use crate::sample::Sample;

/// How many clones there are in the one pool, and in the other.
const FEW: usize = 1_000;
const MANY: usize = 10_000;
/// How many are made at once.
const MAKERS: usize = 16;
/// Rounds: in each, passes over both pools that read as many clones, one after the other, so that whatever slows the machine
/// for a second slows both.
const ROUNDS: usize = 7;
/// Pools of their own are quicker to take away than so many clones.
const POOLS: [(&str, usize); 2] = [("bench-reaper-few", FEW), ("bench-reaper-many", MANY)];

/// Measures a pass, in pools of its own.
pub fn measure(ceph_conf: &Path, cluster: &rbd::Cluster, run_dir: &Path) -> Result<Vec<Figure>> {
    let mut pools = Vec::new();
    for (name, clones) in POOLS {
        let name = rbd::PoolName::new(name)?;
        cluster.create_pool(&name, Some(8)).context("make a pool for the reaper's figures")?;
        pools.push((name, clones));
    }
    let figures = measure_in(ceph_conf, cluster, &pools, run_dir);
    pools.iter().try_for_each(|(name, _)| cluster.delete_pool(name))?;
    figures
}

fn measure_in(
    ceph_conf: &Path,
    cluster: &rbd::Cluster,
    pools: &[(rbd::PoolName, usize)],
    run_dir: &Path,
) -> Result<Vec<Figure>> {
    for (pool, clones) in pools {
        cluster.pool(pool)?.ensure_initialised()?;
        Store::open(cluster, pool)?;
        make(&cluster.pool(pool)?.namespace(CLONE)?, 0..*clones)?;
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let mut seconds = [Sample::default(), Sample::default()];
    for _ in 0..ROUNDS {
        for ((pool, clones), sample) in pools.iter().zip(&mut seconds) {
            let passes = MANY / clones;
            let mut took = Duration::ZERO;
            for _ in 0..passes {
                took += runtime.block_on(pass(ceph_conf, pool, run_dir))?;
            }
            sample.add(took.as_secs_f64() / passes as f64);
        }
    }
    let [few, many] = seconds.map(|sample| sample.p50());
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

/// One pass of a plugin that was started just before and knows nothing yet.
async fn pass(ceph_conf: &Path, pool: &rbd::PoolName, run_dir: &Path) -> Result<Duration> {
    let reaper = Arc::new(reaper(ceph_conf, pool, run_dir)?);
    let started = Instant::now();
    reaper.pass(&CancellationToken::new()).await;
    let took = started.elapsed();
    let answer = reaper.explain("");
    ensure!(answer.away.is_empty(), "the pass came to nothing: {}", answer.away);
    Ok(took)
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
