//! Golden images, made quickly: a small file system with one file in it, and no engine.

use std::path::Path;

use aldaas_api::manifest::{Contents, Engine, Manifest, Source};
use aldaas_api::{DatabaseName, GoldenImageName};
use aldaas_golden::record::STATE;
use aldaas_golden::{Candidate, GOLDEN, SEALED, State, Store};
use aldaas_rbd as rbd;
use aldaas_testbed::Testbed;
use aldaas_volume::{AttachMode, Filesystem, ImageSpec, Marker, NewVolume, Node, NodeConfig};
use jiff::Timestamp;

/// What the file `hello` holds in every golden image.
pub const HELLO: &str = "from the golden image";

pub struct Golden {
    pub store: Store,
    pub cluster: rbd::Cluster,
    pub node: Node,
    pool: String,
}

impl Golden {
    pub fn new(conf: &Path, pool: &str, run_dir: &Path) -> Self {
        let ceph = rbd::ConnectOptions { conf: Some(conf.to_owned()), ..Default::default() };
        let cluster = rbd::Cluster::connect(&ceph).unwrap();
        let store = Store::open(&cluster, &rbd::PoolName::new(pool).unwrap()).unwrap();
        let node = Node::new(NodeConfig {
            run_dir: run_dir.to_owned(),
            ceph,
            attach: AttachMode::Auto,
            fuse_program: Testbed::program("aldaas-fuse"),
            fuse_server: Default::default(),
        });
        Self { store, cluster, node: node.unwrap(), pool: pool.to_owned() }
    }

    /// A ready image of the database `orders`; the higher the second, the newer.
    pub fn build(&self, second: i64) -> GoldenImageName {
        self.build_of("orders", second)
    }

    pub fn build_of(&self, database: &str, second: i64) -> GoldenImageName {
        self.build_as(database, second, marker)
    }

    /// One whose file system carries another image's marker.
    pub fn build_with_wrong_marker(&self, second: i64) -> GoldenImageName {
        self.build_as("orders", second, |_| Marker {
            golden_image: "orders-20200101t000000z".into(),
            database: "orders".into(),
        })
    }

    fn build_as(
        &self,
        database: &str,
        second: i64,
        marker: impl Fn(&GoldenImageName) -> Marker,
    ) -> GoldenImageName {
        let candidate = self.seal(database, second, marker);
        candidate.ready().unwrap();
        candidate.name().clone()
    }

    /// One that is sealed and not verified.
    pub fn sealed(&self, second: i64) -> Candidate {
        self.seal("orders", second, marker)
    }

    fn seal(&self, database: &str, second: i64, marker: impl Fn(&GoldenImageName) -> Marker) -> Candidate {
        let name = image(database, second);
        let candidate = self.store.begin(&name, 64 << 20, "-").unwrap();
        let spec = ImageSpec::new(&self.pool, GOLDEN, name.to_string());
        let marker = marker(&name);
        let new = NewVolume { filesystem: Filesystem::Ext4, marker: &marker, owner: (0, 0) };
        let mounted = self.node.create(&spec, &new).unwrap();
        std::fs::write(mounted.data.join("hello"), HELLO).unwrap();
        // A machine with hundreds of them being mounted looks at each in passing.
        super::eventually("the golden image is unmounted", || self.node.close(&spec).is_ok());
        candidate.seal(&manifest(database)).unwrap();
        candidate
    }

    /// What a controller does when a pod has built an image.
    pub fn seal_by_hand(&self, name: &GoldenImageName) {
        let golden = self.namespace(GOLDEN);
        let image = golden.open(&rbd::ImageName::new(name.to_string()).unwrap()).unwrap();
        image.create_snapshot(SEALED).unwrap();
        image.close().unwrap();
        let id = self.store.golden_image(name).unwrap().id;
        let sealed = [(STATE.to_owned(), State::Sealed.to_string())].into();
        golden.set_metadata(&id, &sealed).unwrap();
    }

    /// What a controller does when a pod's build is no good.
    pub fn remove_candidate(&self, name: &GoldenImageName) {
        self.namespace(GOLDEN).remove(&rbd::ImageName::new(name.to_string()).unwrap()).unwrap();
    }

    /// As if it had never been.
    pub fn discard_by_hand(&self, name: &GoldenImageName) {
        let (golden, image) = (self.namespace(GOLDEN), rbd::ImageName::new(name.to_string()).unwrap());
        let open = golden.open(&image).unwrap();
        open.remove_snapshot(SEALED).unwrap();
        open.close().unwrap();
        // Its clones are purged in the background.
        super::eventually("the image has no clone", || golden.remove(&image).is_ok());
    }

    fn namespace(&self, name: &str) -> rbd::Namespace {
        let pool = self.cluster.pool(&rbd::PoolName::new(&self.pool).unwrap()).unwrap();
        pool.namespace(name).unwrap()
    }

    /// The golden image that a pod's clone is of.
    pub fn parent_of(&self, pod: &str) -> String {
        let clone = self.store.find_clone(&super::id(pod).parse().unwrap()).unwrap();
        clone.record.golden_image.to_string()
    }

    pub fn clone_names(&self) -> Vec<String> {
        self.store.clones().unwrap().into_iter().map(|clone| clone.name.to_string()).collect()
    }
}

pub fn image(database: &str, second: i64) -> GoldenImageName {
    let database: DatabaseName = database.parse().unwrap();
    GoldenImageName::new(&database, Timestamp::from_second(1_800_000_000 + second).unwrap())
}

pub fn marker(name: &GoldenImageName) -> Marker {
    Marker { golden_image: name.to_string(), database: name.database().to_string() }
}

fn manifest(database: &str) -> Manifest {
    Manifest {
        database: database.into(),
        source: Source {
            location: "-".into(),
            etag: None,
            size: 1,
            sha256: "0".repeat(64),
            format: "none".into(),
        },
        engine: Engine { name: "postgres".into(), version: "15.18".into(), image_digest: None },
        contents: Contents { tables: 1, rows: 1, bytes: 1 },
        steps: Default::default(),
        ran: Vec::new(),
        finished_at: Timestamp::now(),
    }
}
