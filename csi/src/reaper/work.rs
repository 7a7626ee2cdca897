//! What is being taken away. Each thing is a task of its own, so that one that does not end (an unmount that waits for a disk
//! that is silent) keeps neither the pass nor other things. What takes longer than a pass waits is *late*: it goes on beside the
//! following passes, which leave it alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::decision::{Decision, Subject};
use super::{Observed, Reaper};
use crate::idle::boottime;
use crate::metrics::Metrics;
use crate::run::FINISH;

/// How long a pass waits for one thing to go: longer than a removal waits for a client that was killed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// So many things may be late: each may hold a thread that blocks, of which kubelet's calls need some too.
const LATE_AT_MOST: usize = 64;

/// The things that are being taken away.
pub(super) struct Work {
    tasks: TaskTracker,
    metrics: Arc<Metrics>,
    begun: Mutex<BTreeMap<Subject, Begun>>,
}

/// A thing that is being taken away.
#[derive(Clone, Debug)]
pub(super) struct Begun {
    pub decision: Decision,
    /// Since when, since this machine was started.
    pub at: Duration,
    late: bool,
}

/// Held by whoever takes a thing away.
struct Place {
    work: Arc<Work>,
    subject: Subject,
}

impl Work {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { tasks: TaskTracker::new(), metrics, begun: Mutex::default() }
    }

    /// What is being taken away now.
    pub fn begun(&self) -> BTreeMap<Subject, Begun> {
        self.lock().clone()
    }

    /// The right to take a thing away; nothing: an earlier pass still does, or too much is late.
    fn enter(self: &Arc<Self>, decision: &Decision) -> Option<Place> {
        let mut begun = self.lock();
        if begun.contains_key(&decision.subject) || late(&begun) >= LATE_AT_MOST {
            return None;
        }
        let subject = decision.subject.clone();
        begun.insert(subject.clone(), Begun { decision: decision.clone(), at: boottime(), late: false });
        Some(Place { work: self.clone(), subject })
    }

    /// The pass no longer waits for this one.
    fn leave_behind(&self, subject: &Subject) {
        let mut begun = self.lock();
        let Some(one) = begun.get_mut(subject) else { return };
        one.late = true;
        tracing::warn!(
            reason = %one.decision.reason, action = one.decision.verdict(),
            "{subject}: still not done; it goes on, and the reaper with everything else"
        );
        let late = late(&begun);
        self.metrics.reaper_late(late);
        if late == LATE_AT_MOST {
            tracing::error!(late, "so much does not end that nothing more is begun");
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Subject, Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is being taken away.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn late(begun: &BTreeMap<Subject, Begun>) -> usize {
    begun.values().filter(|begun| begun.late).count()
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut begun = self.work.lock();
        if let Some(Begun { late: true, at, .. }) = begun.remove(&self.subject) {
            let seconds = boottime().saturating_sub(at).as_secs();
            tracing::info!(seconds, "{}: has ended after all", self.subject);
            self.work.metrics.reaper_late(late(&begun));
        }
    }
}

impl Reaper {
    /// Does what was decided, and waits for it, but not for ever.
    pub(super) async fn begin(self: &Arc<Self>, decision: &Decision, observed: &Arc<Observed>) {
        let Some(place) = self.work.enter(decision) else { return };
        let (reaper, decision_, observed) = (self.clone(), decision.clone(), observed.clone());
        let task = self.work.tasks.spawn(async move {
            let _place = place;
            reaper.carry_out(&decision_, &observed).await;
        });
        match tokio::time::timeout(self.parts.patience, task).await {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => {
                tracing::error!(%panic, "{}: broken off; it is tried again", decision.subject)
            }
            Err(_) => self.work.leave_behind(&decision.subject),
        }
    }

    /// Ends a while after `stop`. What is cut short then is found by the next plugin.
    pub(super) async fn time_is_over(&self, stop: &CancellationToken) {
        stop.cancelled().await;
        tokio::time::sleep(FINISH).await;
        let subjects: Vec<String> = self.work.begun().keys().map(ToString::to_string).collect();
        tracing::warn!(subjects = subjects.join(", "), "the reaper is cut short");
    }
}
