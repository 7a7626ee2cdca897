//! The reaper: finds clones that nobody needs any more, whatever went wrong, and takes them away.
//!
//! ```text
//! observe: pods, RBD, devices, mounts, directories ─▶ plan (pure) ─▶ run: ask once more, then take away
//! ```
//!
//! - [`observed`]: what is seen; [`observe`]: seeing it
//! - [`plan`](mod@plan): what goes and what is kept; [`decision`]: and why
//! - [`run`]: one pass after the other; [`work`]: each thing that goes is a task of its own
//! - [`lease`]: named clones that are attached here are kept from others
//! - [`explain`]: the last pass's decisions, for people
//!
//! When in doubt, keep: with Kubernetes or Ceph away nothing goes, nor does anything that somebody has open.

pub mod decision;
pub mod explain;
pub mod lease;
pub mod observe;
pub mod observed;
pub mod plan;
mod remove;
pub mod run;
pub mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aldaas_volume as volume;

use crate::guard::Guards;
use crate::idle::Sampler;
use crate::metrics::Metrics;
use crate::ports::{Cluster, Directory};
use crate::publish::Publisher;
use crate::removal::Remover;
use crate::storage::Storage;

pub use decision::{Action, Decision, Reason, State, Subject};
pub use observed::Observed;
pub use plan::{Memory, plan};

/// What a [`Reaper`] works with.
#[derive(Clone)]
pub struct Parts {
    /// Ceph.
    pub storage: Arc<Storage>,
    /// Devices and mounts.
    pub node: Arc<volume::Node>,
    /// Pods and nodes.
    pub cluster: Arc<dyn Cluster>,
    /// Databases, for the ports of their engines.
    pub directory: Arc<dyn Directory>,
    /// Shared with the calls of kubelet.
    pub guards: Arc<Guards>,
    /// Takes clones away.
    pub remover: Arc<Remover>,
    /// Lets go of named clones and builds.
    pub publisher: Arc<Publisher>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// This node's name in Kubernetes.
    pub node_name: String,
    /// kubelet's directory.
    pub kubelet_dir: PathBuf,
    /// How often it looks.
    pub period: Duration,
    /// How long a node may be silent before others may take its named clones.
    pub lease: Duration,
    /// How long a pass waits for one thing to go; it goes on beside the next passes then. Usually [`work::PATIENCE`].
    pub patience: Duration,
}

/// Takes away what nobody needs.
pub struct Reaper {
    parts: Parts,
    /// How long something must seem to have no user before it goes.
    grace: Duration,
    observer: observe::Observer,
    work: Arc<work::Work>,
    state: Mutex<Progress>,
}

/// What is kept from one pass to the next.
#[derive(Default)]
struct Progress {
    memory: Memory,
    last: BTreeMap<Subject, Decision>,
    /// When the last pass was, since this machine was started; none: none yet.
    at: Option<Duration>,
    /// Why the last pass came to nothing.
    failed: Option<String>,
    passes: u64,
}

impl Reaper {
    /// Works with these. What seems to have no user goes when it has seemed so in several looks: for two periods.
    pub fn new(parts: Parts) -> Self {
        let sampler = Sampler::new(parts.node.run_dir());
        let grace = parts.period * 2;
        let observer = observe::Observer::new(parts.clone(), sampler);
        let work = Arc::new(work::Work::new(parts.metrics.clone()));
        Self { parts, grace, observer, work, state: Mutex::default() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
