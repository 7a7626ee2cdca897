//! Volumes: how fast their I/O is, what they cost in memory, how many open at once, and which object size a clone
//! should have.

mod ceiling;
mod fio;
mod many;
mod sizes;

use std::path::{Path, PathBuf};

use aldaas_api::DatabaseName;
use aldaas_golden::{CLONE, GOLDEN, SEALED, Store};
use aldaas_rbd as rbd;
use aldaas_volume::{AttachMode, Filesystem, ImageSpec, Marker, NewVolume, Node, NodeConfig};
use anyhow::Result;

use crate::figure::Figure;
use crate::part::{Only, Part};

/// What all measurements of volumes work with.
pub struct Bench {
    ceph_conf: PathBuf,
    run_dir: PathBuf,
    pool: String,
    golden: rbd::Namespace,
    clones: rbd::Namespace,
    node: Node,
    store: Store,
}

impl Bench {
    /// Volumes below `run_dir`, through `fuse_program` in any case: the kernel's rbd is not ours to measure.
    pub fn new(store: &Store, ceph_conf: &Path, fuse_program: &Path, run_dir: &Path) -> Result<Self> {
        let ceph = rbd::ConnectOptions { conf: Some(ceph_conf.to_owned()), ..Default::default() };
        let cluster = rbd::Cluster::connect(&ceph)?;
        let pool = cluster.pool(store.pool())?;
        let node = Node::new(NodeConfig {
            run_dir: run_dir.to_owned(),
            ceph,
            attach: AttachMode::Fuse,
            fuse_program: fuse_program.to_owned(),
            fuse_server: Default::default(),
        })?;
        Ok(Self {
            ceph_conf: ceph_conf.to_owned(),
            run_dir: node.run_dir().to_owned(),
            pool: store.pool().to_string(),
            golden: pool.namespace(GOLDEN)?,
            clones: pool.namespace(CLONE)?,
            node,
            store: store.clone(),
        })
    }

    /// Measures the figures of volumes that are wanted; the object sizes on clones of `database`.
    pub fn measure(&self, database: Option<&DatabaseName>, only: &Only) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        if only.wants(Part::Fio) {
            figures.extend(fio::measure(self)?);
        }
        if only.wants(Part::Many) {
            figures.extend(many::measure(self)?);
        }
        if let (Some(database), true) = (database, only.wants(Part::Sizes)) {
            figures.extend(sizes::measure(self, &self.store.latest(database)?.name)?);
        }
        Ok(figures)
    }

    fn clone_spec(&self, image: &str) -> ImageSpec {
        ImageSpec::new(&self.pool, CLONE, image)
    }

    /// A sealed image with an empty file system of ours. It is no golden image, and removed by the caller.
    fn sealed(&self, name: &rbd::ImageName, size: u64, marker: &Marker) -> Result<()> {
        self.golden.create(name, size, &Default::default())?;
        let spec = ImageSpec::new(&self.pool, GOLDEN, name.as_str());
        let new = NewVolume { filesystem: Filesystem::Ext4, marker, owner: (0, 0) };
        self.node.create(&spec, &new)?;
        self.node.close(&spec)?;
        Ok(self.golden.open(name)?.create_snapshot(SEALED).map(drop)?)
    }

    fn remove_sealed(&self, name: &rbd::ImageName) -> Result<()> {
        self.golden.open(name)?.remove_snapshot(SEALED)?;
        Ok(self.golden.remove(name)?)
    }
}
