//! What the controller counts and measures, in Prometheus' words and base units.
//!
//! | family | says |
//! |---|---|
//! | `aldaas_ingests_total` | ingests that ended, by database and outcome (`ready`, `failed`, `overtaken`) |
//! | `aldaas_ingest_retries_total` | tries that failed and are repeated |
//! | `aldaas_ingest_step_duration_seconds` | where the time goes: the steps of restore and check, and the `total` |
//! | `aldaas_ingests_running` | ingests under way |
//! | `aldaas_latest_created_timestamp_seconds`, `aldaas_latest_age_seconds` | how old `latest` is, by database |
//! | `aldaas_bucket_probe_failures_total`, `aldaas_bucket_reachable` | whether buckets can be read, by database |
//! | `aldaas_bucket_notifications_total` | notifications that came, by what became of them |
//! | `aldaas_golden_images` | golden images by database and state |
//! | `aldaas_controller_leader`, `aldaas_controller_ceph_up` | whether this replica acts, and whether it can |
//! | `aldaas_controller_errors_total` | actions that failed and are tried again |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use aldaas_api::DatabaseName;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    database: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    database: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepOf {
    step: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    database: String,
    state: &'static str,
}

/// From a tenth of a second to a day.
const BUCKETS: [f64; 14] =
    [0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 21600.0, 86400.0];

/// Everything that is counted. One for the whole program.
pub struct Metrics {
    registry: Registry,
    ingests: Family<Ended, Counter>,
    retries: Family<Of, Counter>,
    steps: Family<StepOf, Histogram>,
    running: Gauge,
    created: Family<Of, Gauge>,
    age: Family<Of, Gauge>,
    probe_failures: Family<Of, Counter>,
    reachable: Family<Of, Gauge>,
    notifications: Family<Outcome, Counter>,
    images: Family<InState, Gauge>,
    leader: Gauge,
    ceph_up: Gauge,
    errors: Counter,
    /// The ages as of the last look at RBD.
    latest: Mutex<BTreeMap<DatabaseName, jiff::Timestamp>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("aldaas"),
            ingests: Family::default(),
            retries: Family::default(),
            steps: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            running: Gauge::default(),
            created: Family::default(),
            age: Family::default(),
            probe_failures: Family::default(),
            reachable: Family::default(),
            notifications: Family::default(),
            images: Family::default(),
            leader: Gauge::default(),
            ceph_up: Gauge::default(),
            errors: Counter::default(),
            latest: Mutex::default(),
        };
        metrics.register_ingests();
        metrics.register_rest();
        metrics
    }
}

impl Metrics {
    fn register_ingests(&mut self) {
        let r = &mut self.registry;
        r.register("ingests", "Ingests that ended, by outcome", self.ingests.clone());
        r.register("ingest_retries", "Tries that failed and are repeated", self.retries.clone());
        r.register_with_unit(
            "ingest_step_duration",
            "Time that a step of an ingest took",
            Unit::Seconds,
            self.steps.clone(),
        );
        r.register("ingests_running", "Ingests under way", self.running.clone());
        r.register_with_unit(
            "latest_created_timestamp",
            "When the newest ready golden image was made",
            Unit::Seconds,
            self.created.clone(),
        );
        r.register_with_unit(
            "latest_age",
            "Age of the newest ready golden image",
            Unit::Seconds,
            self.age.clone(),
        );
        r.register("golden_images", "Golden images, by state", self.images.clone());
    }

    fn register_rest(&mut self) {
        let r = &mut self.registry;
        r.register("bucket_probe_failures", "Looks into a bucket that failed", self.probe_failures.clone());
        r.register("bucket_reachable", "Whether the bucket can be read", self.reachable.clone());
        r.register("bucket_notifications", "Notifications that came", self.notifications.clone());
        r.register("controller_leader", "Whether this replica acts", self.leader.clone());
        r.register("controller_ceph_up", "Whether Ceph answers", self.ceph_up.clone());
        r.register("controller_errors", "Actions that failed and are tried again", self.errors.clone());
    }

    /// An ingest ended: `ready`, `failed` or `overtaken`.
    pub fn ended(&self, database: &DatabaseName, outcome: &'static str) {
        self.ingests.get_or_create(&Ended { database: database.to_string(), outcome }).inc();
    }

    /// A try failed and is repeated.
    pub fn retried(&self, database: &DatabaseName) {
        self.retries.get_or_create(&Of { database: database.to_string() }).inc();
    }

    /// A step of an ingest took so long.
    pub fn step(&self, step: &str, seconds: f64) {
        self.steps.get_or_create(&StepOf { step: step.to_owned() }).observe(seconds);
    }

    /// A bucket could not be read.
    pub fn probe_failed(&self, database: &DatabaseName) {
        self.probe_failures.get_or_create(&Of { database: database.to_string() }).inc();
    }

    /// A notification came, and this became of it: `matched`, `unmatched`, `denied` or `bad`.
    pub fn notified(&self, outcome: &'static str) {
        self.notifications.get_or_create(&Outcome { outcome }).inc();
    }

    /// An action failed.
    pub fn failed(&self) {
        self.errors.inc();
    }

    /// Whether this replica acts.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            // Else two replicas would tell of the same databases, one of them old news.
            self.forget();
        }
    }

    /// Whether Ceph answers.
    pub fn ceph(&self, up: bool) {
        self.ceph_up.set(i64::from(up));
    }

    /// How many ingests are under way, how many images there are in which state, and since when there is which latest.
    pub fn stock(
        &self,
        running: usize,
        images: &BTreeMap<(DatabaseName, &'static str), i64>,
        latest: BTreeMap<DatabaseName, jiff::Timestamp>,
        reachable: &BTreeMap<DatabaseName, bool>,
    ) {
        self.running.set(i64::try_from(running).unwrap_or(i64::MAX));
        self.images.clear();
        for ((database, state), count) in images {
            self.images.get_or_create(&InState { database: database.to_string(), state }).set(*count);
        }
        self.created.clear();
        for (database, at) in &latest {
            self.created.get_or_create(&Of { database: database.to_string() }).set(at.as_second());
        }
        self.reachable.clear();
        for (database, reachable) in reachable {
            self.reachable.get_or_create(&Of { database: database.to_string() }).set(i64::from(*reachable));
        }
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = latest;
    }

    fn forget(&self) {
        self.stock(0, &BTreeMap::new(), BTreeMap::new(), &BTreeMap::new());
    }

    /// Everything in OpenMetrics' text format.
    pub fn encode(&self) -> String {
        self.age.clear();
        for (database, at) in &*self.latest.lock().unwrap_or_else(PoisonError::into_inner) {
            let age = jiff::Timestamp::now().as_second() - at.as_second();
            self.age.get_or_create(&Of { database: database.to_string() }).set(age.max(0));
        }
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            let _ = writeln!(text, "# {error}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_does_not_lead_tells_of_no_database() {
        let metrics = Metrics::default();
        let orders: DatabaseName = "orders".parse().unwrap();
        metrics.leads(true);
        metrics.ceph(true);
        metrics.ended(&orders, "ready");
        metrics.step("restore", 2.0);
        metrics.probe_failed(&orders);
        metrics.notified("matched");
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(60);
        let (latest, reachable) = ([(orders.clone(), at)].into(), [(orders.clone(), true)].into());
        metrics.stock(1, &[((orders, "ready"), 2)].into(), latest, &reachable);
        let text = metrics.encode();
        for line in [
            r#"aldaas_ingests_total{database="orders",outcome="ready"} 1"#,
            r#"aldaas_ingest_step_duration_seconds_count{step="restore"} 1"#,
            "aldaas_ingests_running 1",
            r#"aldaas_latest_age_seconds{database="orders"} 6"#,
            r#"aldaas_golden_images{database="orders",state="ready"} 2"#,
            r#"aldaas_bucket_probe_failures_total{database="orders"} 1"#,
            r#"aldaas_bucket_reachable{database="orders"} 1"#,
            "aldaas_controller_leader 1",
            "aldaas_controller_ceph_up 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        metrics.leads(false);
        let text = metrics.encode();
        assert!(!text.contains("aldaas_latest_age_seconds{") && text.contains("aldaas_controller_leader 0"));
    }
}
