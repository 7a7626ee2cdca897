//! The reaper and all that it works with in this process, on a pool and directories of a test's own, and a Kubernetes that a
//! test makes up.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aldaas_api::context::VolumeContext;
use aldaas_api::{CloneName, DatabaseName, GoldenImageName, VolumeId};
use aldaas_csi::access::Own;
use aldaas_csi::guard::Guards;
use aldaas_csi::metrics::Metrics;
use aldaas_csi::ports::{
    Away, ClonePolicy, Cluster, Database, Directory, Labels, Pod, PodVolume, Selector, StoragePolicy,
};
use aldaas_csi::publish::{self, PublishRequest, Publisher};
use aldaas_csi::reaper::{Parts, Reaper};
use aldaas_csi::removal::Remover;
use aldaas_csi::storage::Storage;
use aldaas_csi::target::Target;
use aldaas_rbd as rbd;
use aldaas_testbed::{Census, Scratch, TestPool, Testbed};
use aldaas_volume::{AttachMode, Filesystem, ImageSpec, Node, NodeConfig};
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::common::{Golden, NODE, PATIENCE};

/// What a test says that Kubernetes says.
#[derive(Default)]
pub struct World {
    pub pods: Vec<Pod>,
    pub nodes: BTreeSet<String>,
    pub away: bool,
    pub elected: bool,
    /// Pods that the API server knows and the cache does not.
    pub uncached: BTreeSet<String>,
    /// Pods that were deleted, and what was said.
    pub deleted: Vec<(String, String)>,
}

pub struct FakeCluster(pub Mutex<World>);

impl FakeCluster {
    fn answer<T>(&self, of: impl FnOnce(&mut World) -> T) -> Result<T, Away> {
        let mut world = self.0.lock().unwrap();
        if world.away { Err(Away("the test says so".into())) } else { Ok(of(&mut world)) }
    }
}

impl Cluster for FakeCluster {
    fn pods(&self) -> Result<Vec<Pod>, Away> {
        self.answer(|world| world.pods.clone())
    }

    fn nodes(&self) -> Result<BTreeSet<String>, Away> {
        self.answer(|world| world.nodes.clone())
    }

    fn pod_exists<'a>(&'a self, _: &'a str, _: &'a str, uid: &'a str) -> BoxFuture<'a, Result<bool, Away>> {
        let known = move |world: &mut World| {
            world.uncached.contains(uid) || world.pods.iter().any(|pod| pod.uid == uid)
        };
        Box::pin(async move { self.answer(known) })
    }

    fn node_exists<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, Away>> {
        Box::pin(async move { self.answer(|world| world.nodes.contains(name)) })
    }

    fn node_is_ready<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, Away>> {
        self.node_exists(name)
    }

    fn delete_pod<'a>(
        &'a self,
        pod: &'a Pod,
        reason: &'a str,
        message: &'a str,
    ) -> BoxFuture<'a, Result<(), Away>> {
        Box::pin(async move {
            self.answer(|world| {
                world.pods.retain(|other| other.uid != pod.uid);
                world.deleted.push((pod.uid.clone(), format!("{reason}: {message}")));
            })
        })
    }

    fn is_elected(&self) -> bool {
        self.0.lock().unwrap().elected
    }
}

/// The usual one.
const LEASE: Duration = Duration::from_secs(90);

/// Every namespace may clone every database.
pub struct OpenDirectory;

/// The port on which the engines of these databases listen.
pub const PORT: u16 = 5432;

impl Directory for OpenDirectory {
    fn database(&self, name: &DatabaseName) -> Result<Option<Arc<Database>>, Away> {
        let storage = StoragePolicy {
            size: aldaas_golden::BlankSize { bytes: 1 << 26, object_size: None },
            filesystem: Filesystem::Ext4,
            owner: (0, 0),
        };
        Ok(Some(Arc::new(Database {
            name: name.clone(),
            namespaces: Some(Selector::default()),
            contact: None,
            clones: ClonePolicy::default(),
            storage,
            port: PORT,
        })))
    }

    fn databases(&self) -> Result<Vec<DatabaseName>, Away> {
        Ok(vec![])
    }

    fn namespace(&self, _: &str) -> Result<Option<Arc<Labels>>, Away> {
        Ok(Some(Arc::default()))
    }
}

/// Everything of one node.
pub struct Rig {
    // Dropped in this order: what works, what is mounted, the pool below it.
    pub reaper: Arc<Reaper>,
    pub parts: Parts,
    pub world: Arc<FakeCluster>,
    pub golden: Golden,
    pub kubelet: PathBuf,
    _pods: Scratch,
    pub scratch: Scratch,
    pub pool: TestPool,
    pub bed: &'static Testbed,
}

impl Rig {
    /// A reaper that waits `grace` before it believes that something has no user.
    pub fn new(grace: Duration) -> Self {
        // The reaper's log belongs to what a test that failed has to say.
        let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_test_writer().try_init();
        let bed = Testbed::get();
        let (pool, scratch) = (bed.fresh_pool(), bed.scratch());
        let golden = Golden::new(bed.ceph_conf(), pool.name(), &scratch.path().join("build"));
        // kubelet's own directories are no part of what we leave behind.
        let pods = bed.scratch();
        let kubelet = pods.path().to_owned();
        let world = World { nodes: [NODE.to_owned()].into(), elected: true, ..World::default() };
        let world = Arc::new(FakeCluster(Mutex::new(world)));
        let ceph = rbd::ConnectOptions { conf: Some(bed.ceph_conf().to_owned()), ..Default::default() };
        let storage = Arc::new(Storage::new(ceph.clone(), rbd::PoolName::new(pool.name()).unwrap()));
        let config = NodeConfig {
            run_dir: scratch.path().join("run"),
            ceph: rbd::ConnectOptions { operation_timeout: Duration::ZERO, ..ceph },
            attach: AttachMode::Auto,
            fuse_program: Testbed::program("aldaas-fuse"),
            fuse_server: Default::default(),
        };
        let parts = parts(storage, Node::new(config).unwrap(), world.clone(), kubelet.clone(), grace / 2);
        Self {
            reaper: Arc::new(Reaper::new(parts.clone())),
            parts,
            world,
            golden,
            kubelet,
            _pods: pods,
            scratch,
            pool,
            bed,
        }
    }

    /// A plugin that was restarted.
    pub fn restart(&mut self) {
        self.reaper = Arc::new(Reaper::new(self.parts.clone()));
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.world.0.lock().unwrap())
    }

    /// A pod with one volume `db`, published.
    pub async fn pod(&self, uid: &str, image: &GoldenImageName, attributes: &[(&str, &str)]) -> PathBuf {
        self.change(|world| world.pods.push(pod(uid, attributes)));
        self.publish(uid, image, attributes).await
    }

    pub async fn publish(&self, uid: &str, image: &GoldenImageName, attributes: &[(&str, &str)]) -> PathBuf {
        let db = [("db", image.to_string())];
        let attributes = attributes.iter().map(|(k, v)| (*k, (*v).to_owned())).chain(db).collect();
        self.send(uid, ["shop", "default"], attributes).await
    }

    /// The volume in which an ingest Job's pod builds an image.
    pub async fn publish_build(&self, uid: &str, image: &GoldenImageName) -> PathBuf {
        let attributes = vec![("kind", "build".to_owned()), ("image", image.to_string())];
        self.send(uid, ["aldaas", "aldaas-ingest"], attributes).await
    }

    async fn send(&self, uid: &str, who: [&str; 2], attributes: Vec<(&str, String)>) -> PathBuf {
        let target = self.target(uid);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let kubelet = [
            ("csi.storage.k8s.io/pod.name", uid),
            ("csi.storage.k8s.io/pod.namespace", who[0]),
            ("csi.storage.k8s.io/pod.uid", uid),
            ("csi.storage.k8s.io/serviceAccount.name", who[1]),
        ];
        let kubelet = kubelet.map(|(key, value)| (key, value.to_owned()));
        let context: BTreeMap<String, String> =
            kubelet.into_iter().chain(attributes).map(|(key, value)| (key.to_owned(), value)).collect();
        let request = PublishRequest {
            volume: VolumeId::of_pod(uid, "db"),
            target: Target::parse(target.to_str().unwrap(), &self.kubelet).unwrap(),
            context: VolumeContext::parse(&context).unwrap(),
            read_only: false,
            filesystem: None,
        };
        self.parts.publisher.publish(&request, tokio::time::Instant::now() + PATIENCE).await.unwrap();
        target
    }

    /// Where kubelet wants it.
    pub fn target(&self, uid: &str) -> PathBuf {
        self.kubelet.join("pods").join(uid).join("volumes/kubernetes.io~csi/db/mount")
    }

    pub fn gone(&self, uid: &str) {
        self.change(|world| world.pods.retain(|pod| pod.uid != uid));
    }

    pub async fn pass(&self) {
        self.reaper.pass(&CancellationToken::new()).await;
    }

    /// Passes until this holds.
    pub async fn pass_until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        loop {
            self.pass().await;
            if holds() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {:#?}", self.reaper.explain(""));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Passes until all that exists is what it was.
    pub async fn pass_until_census(&self, expected: &Census) {
        let begun = Instant::now();
        loop {
            self.pass().await;
            let census = self.census();
            if census == *expected {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not {expected:#?}\nbut {census:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Passes for so long that whatever was to go would have gone.
    pub async fn pass_for(&self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.pass().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn has(&self, name: &CloneName) -> bool {
        self.golden.store.find_clone(name).is_ok()
    }

    pub fn spec(&self, name: &CloneName) -> ImageSpec {
        ImageSpec::new(self.pool.name(), aldaas_golden::CLONE, name.as_str())
    }

    /// What `explain` says: state and verdict.
    pub fn verdict(&self, what: &str) -> (String, String) {
        let answer = self.reaper.explain(what);
        assert_eq!(answer.explanations.len(), 1, "{what}: {answer:#?}");
        (answer.explanations[0].state.clone(), answer.explanations[0].verdict.clone())
    }

    pub fn census(&self) -> Census {
        self.bed.census(self.pool.name(), self.scratch.path())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A test that failed must not leave what it mounted for kubelet.
        if std::thread::panicking() {
            eprintln!("{:#?}", self.reaper.explain(""));
        }
    }
}

fn parts(
    storage: Arc<Storage>,
    node: Node,
    world: Arc<FakeCluster>,
    kubelet_dir: PathBuf,
    period: Duration,
) -> Parts {
    let (node, directory) = (Arc::new(node), Arc::new(OpenDirectory));
    let (metrics, guards) = (Arc::new(Metrics::default()), Arc::new(Guards::default()));
    let remover = Arc::new(Remover::new(storage.clone(), node.clone(), metrics.clone()));
    let publisher = Arc::new(Publisher::new(publish::Parts {
        storage: storage.clone(),
        node: node.clone(),
        directory: directory.clone(),
        cluster: world.clone(),
        guards: guards.clone(),
        remover: remover.clone(),
        metrics: metrics.clone(),
        own: Own { namespace: "aldaas".into(), ingest_account: "aldaas-ingest".into() },
        node_name: NODE.into(),
        lease: LEASE,
        workers: 8,
        stop: CancellationToken::new(),
    }));
    let node_name = NODE.to_owned();
    Parts {
        storage,
        node,
        cluster: world,
        directory,
        guards,
        remover,
        publisher,
        metrics,
        node_name,
        kubelet_dir,
        period,
        lease: LEASE,
        patience: aldaas_csi::reaper::work::PATIENCE,
    }
}

pub fn pod(uid: &str, attributes: &[(&str, &str)]) -> Pod {
    let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Pod {
        namespace: "shop".into(),
        name: uid.into(),
        uid: uid.into(),
        finished: false,
        deleting: false,
        volumes: vec![PodVolume { id: VolumeId::of_pod(uid, "db"), attributes }],
    }
}

/// The clone of a pod's own volume.
pub fn clone_of(uid: &str) -> CloneName {
    VolumeId::of_pod(uid, "db").handle()
}
