//! All that `e2e/run` brought up.

use std::env;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use aldaas_testbed::{Testbed, unique};
use serde_json::json;

use crate::kube::run;
use crate::{Census, Database, Kube, Node, Room, dump};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `look` finds something, and returns it.
///
/// # Panics
/// If that takes longer than two minutes; `what` is awaited.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(100));
    }
}

/// A cluster with aldaas on it, and its Ceph and S3.
pub struct Site {
    /// The API server.
    pub kube: Kube,
    /// Ceph and S3.
    pub bed: &'static Testbed,
    /// The node; `None` where it is not this machine's.
    pub node: Option<Node>,
}

impl Site {
    /// What the environment names.
    ///
    /// # Panics
    /// If it names nothing.
    pub fn get() -> Site {
        Site { kube: Kube::connect(), bed: Testbed::get(), node: Node::of_environment() }
    }

    /// What helm does, by `hack/chart`; what it prints.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn chart(&self, arguments: &[&str]) -> String {
        let hack = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/chart");
        run(Command::new(hack).args(arguments)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The node, for scenarios that stop its daemons.
    ///
    /// # Panics
    /// On a cluster whose daemons are not ours to stop: leave the scenario out there.
    pub fn own_node(&self) -> &Node {
        self.node.as_ref().expect(
            "this scenario stops daemons of the node: leave it out with --on kind, minikube or existing",
        )
    }

    /// A namespace that may use aldaas, with a name that nobody else has. It goes when dropped.
    pub fn room(&self, prefix: &str) -> Room<'_> {
        let name = unique(&format!("{prefix}-{:x}-", seconds()));
        // Before Kubernetes 1.28 the webhook is asked for namespaces with its label only; 1.20 knows no label for the name.
        let labels = json!({"aldaas/webhook": "enabled", "kubernetes.io/metadata.name": name});
        Room::make(self, &name, labels)
    }

    /// A namespace that never heard of aldaas.
    pub fn plain_room(&self, prefix: &str) -> Room<'_> {
        Room::make(self, &unique(&format!("{prefix}-{:x}-", seconds())), json!({}))
    }

    /// A database of this scenario alone, with a bucket prefix of its own. It goes when dropped.
    pub fn database(&self, prefix: &str) -> Database<'_> {
        Database::make(self, &unique(&format!("{prefix}-{:x}-", seconds())), false)
    }

    /// The database that scenarios share which only need clones: 100 rows that say `as it was`. It stays as it is.
    pub fn shared_database(&self) -> Database<'_> {
        let database = Database::make(self, "shared", true);
        if database.latest().is_none() {
            database.ingest("1.sql", &dump(100, "as it was"));
        }
        database
    }

    /// What exists when nothing is on its way any more.
    ///
    /// # Panics
    /// If something always is.
    #[track_caller]
    pub fn settled_census(&self) -> Census {
        let mut last = self.census();
        until("nothing is on its way any more", || {
            sleep(Duration::from_millis(1500));
            let now = self.census();
            let settled = now == last && now.is_at_rest();
            last = now.clone();
            settled.then_some(now)
        })
    }

    /// What exists now.
    pub fn census(&self) -> Census {
        Census::take(self)
    }

    /// Waits until exactly that exists which was there `before`.
    ///
    /// # Panics
    /// If it takes too long, with the difference.
    #[track_caller]
    pub fn assert_nothing_left(&self, before: &Census) {
        let start = Instant::now();
        loop {
            let now = self.census();
            if now == *before {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "left behind: {}", now.compared_with(before));
            sleep(Duration::from_millis(500));
        }
    }

    /// How long the API server is kept away in the test of that.
    pub fn outage(&self) -> Duration {
        let seconds = env::var("ALDAAS_E2E_OUTAGE").ok().and_then(|text| text.parse().ok());
        Duration::from_secs(seconds.unwrap_or(120))
    }
}

/// Seconds since the epoch, so that names differ from those of an earlier run on the same cluster.
fn seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
