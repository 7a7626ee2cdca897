//! The real Ceph, S3, Postgres and Kubernetes API server that the tests run against.
//!
//! A test bed is a directory that `hack/dev up` made: a single-node Ceph with its S3 gateway.
//! `hack/test` starts one for a whole run and names it in `ALDAAS_TESTBED`; each test takes a
//! pool and a scratch directory of its own from it, and compares the [`Census`] before and after.
//!
//! ```no_run
//! # use aldaas_testbed::Testbed;
//! let bed = Testbed::get();
//! let pool = bed.fresh_pool();
//! let scratch = bed.scratch();
//! let before = bed.census(pool.name(), scratch.path());
//! // … what is under test …
//! assert_eq!(bed.census(pool.name(), scratch.path()), before);
//! ```
//!
//! Everything here panics with what to do about it: a test bed that isn't there must fail the
//! test, never skip it. The crate talks to Ceph through its command line tools only, so that what
//! it sees never depends on the code that it watches.

mod census;
mod command;
mod keeper;
mod kube;
mod own_cluster;
mod own_mounts;
mod pool;
mod program;
mod s3;
mod scratch;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

pub use census::Census;
pub use kube::{Kube, KubeDaemon, OwnKube};
pub use own_cluster::{Daemon, OwnCluster};
pub use own_mounts::own_mounts;
pub use pool::TestPool;
pub use s3::S3Env;
pub use scratch::Scratch;

/// A running single-node Ceph and its S3 gateway.
#[derive(Debug)]
pub struct Testbed {
    dir: PathBuf,
    conf: PathBuf,
    envs: BTreeMap<String, String>,
    s3: Option<S3Env>,
}

impl Testbed {
    /// The bed that `ALDAAS_TESTBED` names, shared by all tests of a run.
    ///
    /// # Panics
    /// If there is none.
    pub fn get() -> &'static Testbed {
        static BED: OnceLock<Testbed> = OnceLock::new();
        BED.get_or_init(|| {
            let dir = std::env::var_os("ALDAAS_TESTBED").unwrap_or_else(|| {
                panic!(
                    "no test bed: run `make test`, or `hack/dev up --dir /tmp/bed` and set ALDAAS_TESTBED=/tmp/bed"
                )
            });
            Testbed::at(Path::new(&dir))
        })
    }

    /// The bed in directory `dir`.
    pub(crate) fn at(dir: &Path) -> Testbed {
        let file = dir.join("env");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| {
            panic!("no test bed in {0} ({error}): run `hack/dev up --dir {0}`", dir.display())
        });
        let envs: BTreeMap<String, String> = text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        let conf = envs
            .get("ALDAAS_CEPH_CONF")
            .unwrap_or_else(|| panic!("{} names no ALDAAS_CEPH_CONF", file.display()))
            .into();
        let s3 = S3Env::from_envs(&envs);
        Testbed { dir: dir.to_owned(), conf, envs, s3 }
    }

    /// The directory that holds all of it.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration file for clients; it names the keyring of `client.admin`.
    pub fn ceph_conf(&self) -> &Path {
        &self.conf
    }

    /// How to reach the S3 gateway.
    ///
    /// # Panics
    /// If the bed was started without one.
    pub fn s3(&self) -> &S3Env {
        self.s3.as_ref().unwrap_or_else(|| panic!("{} was started with --no-s3", self.dir.display()))
    }

    /// All that `hack/dev env` prints: what a program under test finds in its environment.
    pub fn envs(&self) -> Vec<(String, String)> {
        self.envs.clone().into_iter().collect()
    }

    /// A new pool with one placement group, ready for RBD; deleted when dropped.
    pub fn fresh_pool(&self) -> TestPool {
        TestPool::create(&self.conf)
    }

    /// A new directory for mounts and sockets; all that is left in it ends when dropped.
    pub fn scratch(&self) -> Scratch {
        Scratch::create(&self.dir.join("s"))
    }

    /// What exists in `pool` and below `run_dir` right now.
    pub fn census(&self, pool: &str, run_dir: &Path) -> Census {
        Census::take(&self.conf, pool, run_dir)
    }

    /// A cluster for this test alone, that it may stop, freeze and start again.
    pub fn own_cluster() -> OwnCluster {
        OwnCluster::start(&[])
    }

    /// The same without an S3 gateway, which is up sooner.
    pub fn own_cluster_without_s3() -> OwnCluster {
        OwnCluster::start(&["--no-s3"])
    }

    /// The Kubernetes API server that `ALDAAS_KUBECONFIG` names, shared by all tests of a run: etcd and the API server alone,
    /// with our kinds. Nothing runs pods and nothing cleans up, so what a test makes has a name that is [`unique`].
    ///
    /// # Panics
    /// If there is none.
    pub fn kube() -> Kube {
        Kube::shared()
    }

    /// One for this test alone, that it may stop, freeze and start again.
    pub fn own_kube() -> OwnKube {
        OwnKube::start()
    }

    /// One for this test alone that was another test's before, and holds nothing but our kinds.
    pub fn lent_kube() -> OwnKube {
        OwnKube::lent()
    }

    /// The built program `name`, of the same profile as the running test.
    ///
    /// # Panics
    /// If it isn't built.
    pub fn program(name: &str) -> PathBuf {
        program::find(name)
    }

    /// Runs a `ceph` command, e.g. `["osd", "blocklist", "ls"]`, and returns its output.
    pub fn ceph<I: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = I>) -> String {
        command::tool("ceph", &self.conf, args)
    }

    /// Runs an `rbd` command, e.g. `["snap", "ls", "pool/image"]`, and returns its output.
    pub fn rbd<I: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = I>) -> String {
        command::tool("rbd", &self.conf, args)
    }

    /// Runs a `rados` command, e.g. `["-p", "pool", "ls"]`, and returns its output.
    pub fn rados<I: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = I>) -> String {
        command::tool("rados", &self.conf, args)
    }
}

/// A word that no other test, of this process or another, has: for names of pools, directories, buckets.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
