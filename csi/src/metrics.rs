//! What the plugin counts and measures, in Prometheus' words and base units. No label ever holds an id.
//!
//! | family | says |
//! |---|---|
//! | `aldaas_operations_total`, `aldaas_operation_duration_seconds` | publish, unpublish, reap, ... by outcome |
//! | `aldaas_step_duration_seconds` | their steps: where the time goes |
//! | `aldaas_operations_in_flight` | what is being worked on now |
//! | `aldaas_clones` | clones of this node by state; the whole pool's `trash` and `orphaned` too |
//! | `aldaas_clone_written_bytes_total` | bytes that pods of this node wrote to their clones |
//! | `aldaas_pool_fullness_ratio`, `aldaas_pool_used_bytes`, `aldaas_pool_available_bytes` | when the pool will be full |
//! | `aldaas_latest_age_seconds` | how old each database's `latest` is |
//! | `aldaas_quarantines_total` | clones that could not be let go at once, because somebody still held them |
//! | `aldaas_reaper_passes_total`, `aldaas_reaper_pass_duration_seconds` | whether the reaper runs and how long it takes |
//! | `aldaas_reaper_late` | things that the reaper has been taking away for longer than a pass waits: they hang |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aldaas_api::DatabaseName;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What is counted as one piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `NodePublishVolume`.
    Publish,
    /// `NodeUnpublishVolume`.
    Unpublish,
    /// `NodeGetVolumeStats`.
    Stats,
    /// The reaper takes one thing away.
    Reap,
    /// The second step of a removal: out of the trash.
    Purge,
}

impl Operation {
    /// The word in the label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Unpublish => "unpublish",
            Self::Stats => "stats",
            Self::Reap => "reap",
            Self::Purge => "purge",
        }
    }
}

impl EncodeLabelValue for Operation {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.as_str())
    }
}

/// The outcome of work that was done. Others are words of the code too: a gRPC code, or a reason.
pub const OK: &str = "ok";
/// The outcome of work that its caller dropped, or that panicked.
pub const ABANDONED: &str = "abandoned";

/// From 5 ms to kubelet's two minutes.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Done {
    operation: Operation,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepDone {
    operation: Operation,
    step: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Doing {
    operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDatabase {
    database: String,
}

type Ratio = Gauge<f64, AtomicU64>;

/// How full the pool is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PoolFullness {
    /// Bytes used on disk, copies included.
    pub used: u64,
    /// Bytes that still fit.
    pub available: u64,
    /// 0 empty, 1 full.
    pub ratio: f64,
}

/// The warnings that were given about the pool: one each time a threshold is passed, not one a look.
const THRESHOLDS: [f64; 2] = [0.85, 0.90];

/// Everything that is counted. One for the whole plugin.
pub struct Metrics {
    registry: Registry,
    operations: Family<Done, Counter>,
    durations: Family<Done, Histogram>,
    steps: Family<StepDone, Histogram>,
    in_flight: Family<Doing, Gauge>,
    clones: Family<InState, Gauge>,
    written: Counter,
    fullness: Ratio,
    used: Gauge,
    available: Gauge,
    latest: Family<OfDatabase, Gauge>,
    quarantines: Counter,
    passes: Family<Outcome, Counter>,
    pass_duration: Histogram,
    late: Gauge,
    warned: Mutex<usize>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(BUCKETS);
        let mut metrics = Self {
            registry: Registry::with_prefix("aldaas"),
            operations: Family::default(),
            durations: Family::new_with_constructor(histogram),
            steps: Family::new_with_constructor(histogram),
            in_flight: Family::default(),
            clones: Family::default(),
            written: Counter::default(),
            fullness: Ratio::default(),
            used: Gauge::default(),
            available: Gauge::default(),
            latest: Family::default(),
            quarantines: Counter::default(),
            passes: Family::default(),
            pass_duration: histogram(),
            late: Gauge::default(),
            warned: Mutex::new(0),
        };
        metrics.register_work();
        metrics.register_stock();
        metrics
    }
}

impl Metrics {
    fn register_work(&mut self) {
        let r = &mut self.registry;
        r.register("operations", "Work done, by outcome", self.operations.clone());
        r.register_with_unit(
            "operation_duration",
            "Time that work took",
            Unit::Seconds,
            self.durations.clone(),
        );
        r.register_with_unit("step_duration", "Time that one step took", Unit::Seconds, self.steps.clone());
        r.register("operations_in_flight", "Work being done now", self.in_flight.clone());
        r.register("reaper_passes", "Passes of the reaper, by outcome", self.passes.clone());
        r.register_with_unit(
            "reaper_pass_duration",
            "Time that one pass took",
            Unit::Seconds,
            self.pass_duration.clone(),
        );
        r.register(
            "reaper_late",
            "Things that take so long to go that the reaper goes on without them",
            self.late.clone(),
        );
    }

    fn register_stock(&mut self) {
        let r = &mut self.registry;
        r.register("clones", "Clones, by state", self.clones.clone());
        r.register_with_unit(
            "clone_written",
            "Written by pods of this node to their clones",
            Unit::Bytes,
            self.written.clone(),
        );
        r.register(
            "quarantines",
            "Clones that somebody still held when they were to go",
            self.quarantines.clone(),
        );
        r.register_with_unit(
            "pool_fullness",
            "0 empty, 1 full",
            Unit::Other("ratio".to_owned()),
            self.fullness.clone(),
        );
        r.register_with_unit(
            "pool_used",
            "Used in the pool, copies included",
            Unit::Bytes,
            self.used.clone(),
        );
        r.register_with_unit("pool_available", "What still fits", Unit::Bytes, self.available.clone());
        r.register_with_unit(
            "latest_age",
            "Age of the newest ready golden image",
            Unit::Seconds,
            self.latest.clone(),
        );
    }

    /// Begins a piece of work: it counts as in flight until the value is finished or dropped.
    pub fn begin(self: &Arc<Self>, operation: Operation) -> Running {
        self.in_flight.get_or_create(&Doing { operation }).inc();
        Running { metrics: self.clone(), operation, started: Instant::now(), outcome: ABANDONED }
    }

    /// One step of a piece of work took so long. `step` and `outcome` are words of the code, never data.
    pub fn step(&self, operation: Operation, step: &'static str, outcome: &'static str, took: Duration) {
        self.steps.get_or_create(&StepDone { operation, step, outcome }).observe(took.as_secs_f64());
    }

    /// How many clones are in which state now. States that are not named are zero.
    pub fn clones(&self, by_state: &BTreeMap<&'static str, usize>) {
        self.clones.clear();
        for (state, count) in by_state {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            self.clones.get_or_create(&InState { state }).set(count);
        }
    }

    /// Pods wrote so many bytes more to their clones.
    pub fn written(&self, bytes: u64) {
        self.written.inc_by(bytes);
    }

    /// A clone could not be let go, because somebody holds it.
    pub fn quarantined(&self) {
        self.quarantines.inc();
    }

    /// How full the pool is. The log is warned when it passes 85 % and 90 %.
    pub fn pool(&self, pool: &PoolFullness) {
        self.fullness.set(pool.ratio);
        self.used.set(i64::try_from(pool.used).unwrap_or(i64::MAX));
        self.available.set(i64::try_from(pool.available).unwrap_or(i64::MAX));
        let passed = THRESHOLDS.iter().filter(|threshold| pool.ratio >= **threshold).count();
        let before =
            std::mem::replace(&mut *self.warned.lock().unwrap_or_else(PoisonError::into_inner), passed);
        if passed > before {
            tracing::warn!(
                used_bytes = pool.used,
                available_bytes = pool.available,
                "the pool is {:.0} % full: at 100 % every clone on it stops writing. Retire golden images, or add storage",
                pool.ratio * 100.0
            );
        } else if passed < before {
            tracing::info!("the pool is {:.0} % full again", pool.ratio * 100.0);
        }
    }

    /// How old the newest ready golden image of each database is.
    pub fn latest(&self, ages: &BTreeMap<DatabaseName, Duration>) {
        self.latest.clear();
        for (database, age) in ages {
            let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
            self.latest.get_or_create(&OfDatabase { database: database.to_string() }).set(age);
        }
    }

    /// The reaper has looked once.
    pub fn reaper_pass(&self, outcome: &'static str, took: Duration) {
        self.passes.get_or_create(&Outcome { outcome }).inc();
        self.pass_duration.observe(took.as_secs_f64());
    }

    /// So many things take longer to go than a pass waits.
    pub fn reaper_late(&self, count: usize) {
        self.late.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Everything in OpenMetrics' text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            let _ = writeln!(text, "# {error}");
        }
        text
    }
}

/// A piece of work in flight.
pub struct Running {
    metrics: Arc<Metrics>,
    operation: Operation,
    started: Instant,
    outcome: &'static str,
}

impl Running {
    /// It ended so.
    pub fn finish(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Self { metrics, operation, started, outcome } = self;
        let done = Done { operation: *operation, outcome };
        metrics.in_flight.get_or_create(&Doing { operation: *operation }).dec();
        metrics.operations.get_or_create(&done).inc();
        metrics.durations.get_or_create(&done).observe(started.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_base_units_and_no_ids() {
        let metrics = Arc::new(Metrics::default());
        metrics.begin(Operation::Publish).finish(OK);
        drop(metrics.begin(Operation::Unpublish));
        let running = metrics.begin(Operation::Reap);
        metrics.step(Operation::Publish, "clone", OK, Duration::from_millis(40));
        metrics.clones(&BTreeMap::from([("published", 2), ("quarantined", 1)]));
        metrics.clones(&BTreeMap::from([("published", 3)]));
        metrics.written(4096);
        metrics.quarantined();
        metrics.pool(&PoolFullness { used: 9, available: 1, ratio: 0.9 });
        metrics.latest(&BTreeMap::from([("orders".parse().unwrap(), Duration::from_secs(60))]));
        metrics.reaper_pass(OK, Duration::from_secs(1));
        metrics.reaper_late(1);
        let text = metrics.encode();
        for line in [
            r#"aldaas_operations_total{operation="publish",outcome="ok"} 1"#,
            r#"aldaas_operations_total{operation="unpublish",outcome="abandoned"} 1"#,
            r#"aldaas_operation_duration_seconds_count{operation="publish",outcome="ok"} 1"#,
            r#"aldaas_step_duration_seconds_bucket{le="0.05",operation="publish",step="clone",outcome="ok"} 1"#,
            r#"aldaas_operations_in_flight{operation="reap"} 1"#,
            r#"aldaas_clones{state="published"} 3"#,
            "aldaas_clone_written_bytes_total 4096",
            "aldaas_quarantines_total 1",
            "aldaas_pool_fullness_ratio 0.9",
            "aldaas_pool_used_bytes 9",
            r#"aldaas_latest_age_seconds{database="orders"} 60"#,
            r#"aldaas_reaper_passes_total{outcome="ok"} 1"#,
            "aldaas_reaper_late 1",
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("quarantined\""), "a state that is over stays");
        running.finish(OK);
        assert!(metrics.encode().contains(r#"aldaas_operations_in_flight{operation="reap"} 0"#));
    }

    #[test]
    fn the_log_is_warned_once_for_each_threshold() {
        let metrics = Metrics::default();
        let passed = |ratio: f64| {
            metrics.pool(&PoolFullness { used: 0, available: 0, ratio });
            *metrics.warned.lock().unwrap()
        };
        assert_eq!([0.1, 0.85, 0.86, 0.95, 0.5].map(passed), [0, 1, 1, 2, 0]);
    }
}
