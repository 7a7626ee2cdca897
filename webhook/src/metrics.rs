//! What the webhook counts and measures, in Prometheus' words and base units. No label ever holds a name that users choose.
//!
//! | family | says |
//! |---|---|
//! | `aldaas_webhook_reviews_total`, `aldaas_webhook_review_duration_seconds` | reviews by kind and outcome, and how long they took |
//! | `aldaas_webhook_denials_total` | why pods were denied |
//! | `aldaas_webhook_cache_age_seconds` | how long ago the API server last said that what is known is current |
//! | `aldaas_webhook_cache_objects` | how much is known |
//! | `aldaas_webhook_certificate_expiry_timestamp_seconds` | when the certificate and its authority expire |
//! | `aldaas_webhook_certificate_loads_total` | certificates taken over, and refused |

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::index::{Index, Watched};

/// From 50 µs to the API server's three seconds.
const BUCKETS: [f64; 10] = [0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 0.5, 1.5, 3.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reviewed {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    of: &'static str,
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    reviews: Family<Reviewed, Counter>,
    durations: Histogram,
    denials: Family<Because, Counter>,
    age: Family<OfKind, Gauge<f64, std::sync::atomic::AtomicU64>>,
    objects: Family<OfKind, Gauge>,
    expiry: Family<Of, Gauge>,
    loads: Family<Outcome, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("aldaas_webhook"),
            reviews: Family::default(),
            durations: Histogram::new(BUCKETS),
            denials: Family::default(),
            age: Family::default(),
            objects: Family::default(),
            expiry: Family::default(),
            loads: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("reviews", "Reviews, by kind and outcome", self.reviews.clone());
        r.register_with_unit(
            "review_duration",
            "Time that a review took",
            Unit::Seconds,
            self.durations.clone(),
        );
        r.register("denials", "Why pods were denied", self.denials.clone());
        r.register_with_unit(
            "cache_age",
            "Time since the API server said that what is known is current",
            Unit::Seconds,
            self.age.clone(),
        );
        r.register("cache_objects", "Objects that are known", self.objects.clone());
        let stamp = Unit::Other("timestamp_seconds".to_owned());
        r.register_with_unit("certificate_expiry", "When it expires", stamp, self.expiry.clone());
        r.register("certificate_loads", "Certificates that were read, by outcome", self.loads.clone());
    }

    /// A review was answered.
    pub fn reviewed(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.reviews.get_or_create(&Reviewed { kind, outcome }).inc();
        self.durations.observe(took.as_secs_f64());
    }

    /// A pod was denied.
    pub fn denied(&self, reason: &'static str) {
        self.denials.get_or_create(&Because { reason }).inc();
    }

    /// A certificate is served that expires then, and so does the authority that signed it.
    pub fn certificate(&self, serving: Timestamp, authority: Option<Timestamp>) {
        self.loads.get_or_create(&Outcome { outcome: "ok" }).inc();
        self.expiry.get_or_create(&Of { of: "serving" }).set(serving.as_second());
        if let Some(authority) = authority {
            self.expiry.get_or_create(&Of { of: "authority" }).set(authority.as_second());
        }
    }

    /// A certificate could not be taken over.
    pub fn certificate_refused(&self) {
        self.loads.get_or_create(&Outcome { outcome: "refused" }).inc();
    }

    /// Everything in OpenMetrics' text format.
    pub fn encode(&self, index: &Index) -> String {
        for (kind, count) in Watched::ALL.into_iter().zip(index.catalogue().sizes()) {
            let of = OfKind { kind: kind.as_str() };
            self.objects.get_or_create(&of).set(i64::try_from(count).unwrap_or(i64::MAX));
            if let Some(age) = index.age(kind) {
                self.age.get_or_create(&of).set(age.as_secs_f64());
            }
        }
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry) {
            let _ = writeln!(text, "# {error}");
        }
        text
    }
}
