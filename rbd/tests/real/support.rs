//! A pool of one's own, and the words that all tests use.

use std::collections::BTreeMap;
use std::time::Duration;

use aldaas_rbd as rbd;
use aldaas_testbed::{TestPool, Testbed};

pub const MIB: u64 = 1 << 20;

/// A fresh pool with the two rados namespaces, and a connection to it. The connection goes before the pool.
pub struct Bed {
    pub cluster: rbd::Cluster,
    pub pool: rbd::Pool,
    pub golden: rbd::Namespace,
    pub clone: rbd::Namespace,
    pub test_pool: TestPool,
}

impl Bed {
    pub fn new() -> Self {
        let bed = Testbed::get();
        let test_pool = bed.fresh_pool();
        let cluster = connect(bed);
        let pool = cluster.pool(&rbd::PoolName::new(test_pool.name()).unwrap()).unwrap();
        pool.ensure_namespace("golden").unwrap();
        pool.ensure_namespace("clone").unwrap();
        let (golden, clone) = (pool.namespace("golden").unwrap(), pool.namespace("clone").unwrap());
        Self { cluster, pool, golden, clone, test_pool }
    }

    /// A second client that has the same namespace open.
    pub fn other_client(&self, namespace: &str) -> (rbd::Cluster, rbd::Namespace) {
        let cluster = connect(Testbed::get());
        let other = cluster.pool(self.pool.name()).unwrap().namespace(namespace).unwrap();
        (cluster, other)
    }

    /// A new image in `golden`.
    pub fn image(&self, text: &str, size: u64) -> rbd::ImageName {
        let image = name(text);
        self.golden.create(&image, size, &rbd::CreateOptions::default()).unwrap();
        image
    }

    /// A new image in `golden` with a snapshot `sealed`.
    pub fn sealed(&self, text: &str, size: u64) -> rbd::ImageName {
        let image = self.image(text, size);
        let open = self.golden.open(&image).unwrap();
        open.write(0, b"from the parent".to_vec()).wait().unwrap();
        open.create_snapshot("sealed").unwrap();
        open.close().unwrap();
        image
    }
}

pub fn options(bed: &Testbed) -> rbd::ConnectOptions {
    rbd::ConnectOptions { conf: Some(bed.ceph_conf().to_owned()), ..Default::default() }
}

pub fn connect(bed: &Testbed) -> rbd::Cluster {
    rbd::Cluster::connect(&options(bed)).unwrap()
}

/// Time-outs that make an outage visible soon.
pub fn impatient(bed: &Testbed) -> rbd::ConnectOptions {
    rbd::ConnectOptions {
        connect_timeout: Duration::from_secs(3),
        operation_timeout: Duration::from_secs(3),
        ..options(bed)
    }
}

pub fn name(text: &str) -> rbd::ImageName {
    rbd::ImageName::new(text).unwrap()
}

pub fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
