//! A pool of one's own, and the words that all tests use.

use std::time::Duration;

use aldaas_api::manifest::{Contents, Engine, Manifest, Source};
use aldaas_api::{CloneName, DatabaseName, GoldenImageName};
use aldaas_golden::{CLONE, Candidate, CloneRequest, Error, GOLDEN, GoldenImage, PodUse, Purpose, Store};
use aldaas_rbd as rbd;
use aldaas_testbed::{TestPool, Testbed};
use jiff::Timestamp;

pub const SIZE: u64 = 64 << 20;

pub struct Bed {
    pub store: Store,
    pub cluster: rbd::Cluster,
    pub pool: TestPool,
}

pub fn bed() -> Bed {
    let pool = Testbed::get().fresh_pool();
    let cluster = connect();
    let store = Store::open(&cluster, &pool_name(&pool)).unwrap();
    Bed { pool, cluster, store }
}

/// A connection of one's own.
pub fn connect() -> rbd::Cluster {
    let conf = Some(Testbed::get().ceph_conf().into());
    rbd::Cluster::connect(&rbd::ConnectOptions { conf, ..Default::default() }).unwrap()
}

pub fn pool_name(pool: &TestPool) -> rbd::PoolName {
    rbd::PoolName::new(pool.name()).unwrap()
}

impl Bed {
    pub fn namespace(&self, name: &str) -> rbd::Namespace {
        self.cluster.pool(&pool_name(&self.pool)).unwrap().namespace(name).unwrap()
    }

    pub fn begin(&self, second: i64) -> Candidate {
        self.store.begin(&generation(second), SIZE, "s3://backup/orders.sql.gz").unwrap()
    }

    pub fn build(&self, second: i64) -> GoldenImageName {
        let candidate = self.begin(second);
        candidate.seal(&manifest()).unwrap();
        let clone = candidate.clone_for_verification().unwrap();
        self.store.remove_clone(&clone.name).unwrap();
        candidate.ready().unwrap();
        candidate.name().clone()
    }

    pub fn clone(&self, image: &GoldenImageName, name: &str) -> CloneName {
        let golden = self.store.golden_image(image).unwrap();
        self.store.clone_image(&golden, &named(name)).unwrap().name
    }

    pub fn latest(&self) -> Option<GoldenImageName> {
        match self.store.latest(&orders()) {
            Ok(image) => Some(image.name),
            Err(Error::NoneReady { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// The same pool through another client: another node's plugin, or the same one's after a restart.
    pub fn other_store(&self) -> Store {
        Store::open(&connect(), &pool_name(&self.pool)).unwrap()
    }

    pub fn golden(&self, image: &GoldenImageName) -> GoldenImage {
        self.store.golden_image(image).unwrap()
    }

    /// Every RADOS object of one rados namespace.
    pub fn objects(&self, namespace: &str) -> String {
        Testbed::get().rados(["-p", self.pool.name(), "-N", namespace, "ls"])
    }

    pub fn is_empty(&self) -> bool {
        [GOLDEN, CLONE].iter().all(|name| {
            let namespace = self.namespace(name);
            namespace.images().unwrap().is_empty() && namespace.trash().unwrap().is_empty()
        })
    }
}

pub fn orders() -> DatabaseName {
    "orders".parse().unwrap()
}

pub fn generation(second: i64) -> GoldenImageName {
    GoldenImageName::new(&orders(), Timestamp::from_second(1_800_000_000 + second).unwrap())
}

pub fn named(name: &str) -> CloneRequest {
    CloneRequest {
        name: name.parse().unwrap(),
        purpose: Purpose::Named,
        holder: None,
        object_size: None,
        pod: None,
        unverified: false,
    }
}

pub fn manifest() -> Manifest {
    Manifest {
        database: "orders".into(),
        source: Source {
            location: "s3://backup/orders.sql.gz".into(),
            etag: Some("e".into()),
            size: 10,
            sha256: "0".repeat(64),
            format: "gzip, plain SQL".into(),
        },
        engine: Engine { name: "postgres".into(), version: "15.18".into(), image_digest: None },
        contents: Contents { tables: 1, rows: 2, bytes: 3 },
        steps: Default::default(),
        ran: Vec::new(),
        finished_at: Timestamp::now(),
    }
}

/// The name of a pod's own clone, or of a named one.
pub fn pod_clone(kind: &str, number: u32) -> CloneName {
    format!("{kind}-{number:064x}").parse().unwrap()
}

pub fn pod_use(number: u32) -> PodUse {
    PodUse {
        node: "node-1".into(),
        volume: format!("csi-{number:064x}"),
        namespace: "shop".into(),
        pod: format!("web-{number}"),
        pod_uid: format!("uid-{number}"),
        ttl: Some(Duration::from_secs(1800)),
        clone_name: None,
    }
}

/// What a node plugin asks for.
pub fn for_pod(number: u32) -> CloneRequest {
    let (name, pod) = (pod_clone("csi", number), Some(pod_use(number)));
    CloneRequest { name, purpose: Purpose::Pod, holder: None, object_size: None, pod, unverified: false }
}

/// The same for a clone that outlives its pod.
pub fn for_pod_by_name(number: u32) -> CloneRequest {
    let pod = Some(PodUse { clone_name: Some("mine".into()), ..pod_use(number) });
    CloneRequest { name: pod_clone("named", number), purpose: Purpose::PodNamed, pod, ..for_pod(number) }
}

pub fn rbd_name(text: &impl std::fmt::Display) -> rbd::ImageName {
    rbd::ImageName::new(text.to_string()).unwrap()
}

/// Ends a call at a failpoint, as a kill would: nothing after it is done.
pub fn killed_at<T>(failpoint: &str, call: impl FnOnce() -> T) {
    assert!(fail::has_failpoints(), "run `make test`, or cargo nextest with --features failpoints");
    fail::cfg(failpoint, "panic").unwrap();
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
    fail::remove(failpoint);
    assert!(ended.is_err(), "{failpoint} was not reached");
}
