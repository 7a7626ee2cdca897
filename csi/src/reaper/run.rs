//! One pass after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio_util::sync::CancellationToken;

use super::decision::{Action, Decision, State, Subject};
use super::plan::plan;
use super::{Observed, Reaper};
use crate::idle::boottime;
use crate::metrics;

/// How many things are taken away at once.
const AT_ONCE: usize = 8;
/// Every so many passes the whole trash is looked through.
const SWEEP: u64 = 20;

impl Reaper {
    /// Looks and takes away, once a period, until `stop`. What was begun then is brought to its end, if that does not take for
    /// ever.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = self.pass_after_pass(&stop) => {}
            () = self.time_is_over(&stop) => {}
        }
    }

    async fn pass_after_pass(self: &Arc<Self>, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(self.parts.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stop.cancelled() => return self.work.ended().await,
                _ = ticks.tick() => {}
            }
            let pass = tokio::spawn({
                let (reaper, stop) = (self.clone(), stop.clone());
                async move { reaper.pass(&stop).await }
            });
            if let Err(panic) = pass.await {
                tracing::error!(%panic, "a pass of the reaper was broken off; the next one comes");
            }
        }
    }

    /// Looks once, and takes away what nobody needs. Nothing is begun after `stop`.
    pub async fn pass(self: &Arc<Self>, stop: &CancellationToken) {
        let started = Instant::now();
        let outcome = match self.try_pass(stop).await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::warn!(%error, "the reaper could not look: it removes nothing");
                self.progress().failed = Some(error.to_string());
                "failed"
            }
        };
        // A plugin that was killed while it got ready to attach leaves a server that serves nothing.
        self.parts.publisher.tidy();
        self.parts.metrics.reaper_pass(outcome, started.elapsed());
    }

    async fn try_pass(
        self: &Arc<Self>,
        stop: &CancellationToken,
    ) -> Result<&'static str, aldaas_volume::Error> {
        let (now, passes) = (boottime(), self.progress().passes);
        let mut observed = self.observer.observe(now, passes % SWEEP == 0).await?;
        let before = self.progress().memory.clone();
        let mut memory = before.clone();
        let mut decisions = plan(&observed, &mut memory, now, self.grace);
        let closer: BTreeSet<_> = decisions.iter().filter_map(to_look_at).cloned().collect();
        if !closer.is_empty() {
            self.observer.look_closer(&mut observed, &closer).await;
            memory = before;
            decisions = plan(&observed, &mut memory, now, self.grace);
        }
        let away = away(&observed);
        self.note(&decisions, memory, away.clone());
        let observed = &Arc::new(observed);
        stream::iter(decisions.iter().filter(|decision| decision.action.is_some()))
            .for_each_concurrent(AT_ONCE, |decision| async move {
                if !stop.is_cancelled() {
                    self.begin(decision, observed).await;
                }
            })
            .await;
        if observed.clones.is_ok()
            && let Err(error) = self.observer.measure().await
        {
            tracing::warn!(%error, "the pool can't be measured");
        }
        Ok(if away.is_some() { "away" } else { metrics::OK })
    }

    /// Remembers the decisions, counts them, and logs those that are new.
    fn note(&self, decisions: &[Decision], memory: super::Memory, away: Option<String>) {
        let mut progress = self.progress();
        if away != progress.failed {
            match &away {
                Some(why) => tracing::warn!(why, "the reaper removes nothing while something is away"),
                None => tracing::info!("the reaper can see everything again"),
            }
        }
        let ours = decisions.iter().filter(|decision| decision.state.is_ours());
        for decision in ours.filter(|decision| !matches!(decision.action, Some(Action::Look))) {
            if progress.last.get(&decision.subject).is_none_or(|last| decision.differs_from(last)) {
                log(decision);
            }
        }
        let mut states: BTreeMap<&'static str, usize> = BTreeMap::new();
        for decision in decisions.iter().filter(|decision| decision.state.is_ours()) {
            let count = match (&decision.subject, &decision.reason) {
                (Subject::Trash, super::Reason::Trash(count)) => *count,
                (Subject::Target(_), _) => continue,
                _ => 1,
            };
            *states.entry(decision.state.as_str()).or_default() += count;
        }
        self.parts.metrics.clones(&states);
        // While Ceph is away nothing is decided; what was decided before stays to be asked about.
        if !decisions.is_empty() || away.is_none() {
            progress.last = decisions.iter().map(|one| (one.subject.clone(), one.clone())).collect();
        }
        progress.memory = memory;
        progress.failed = away;
        progress.at = Some(boottime());
        progress.passes += 1;
    }

    /// Something was to go and could not, or went after all.
    pub(super) fn note_held(&self, subject: &Subject, held: bool) {
        let mut progress = self.progress();
        match held {
            true => progress.memory.held.insert(subject.clone()),
            false => progress.memory.held.remove(subject),
        };
    }
}

/// What keeps the reaper from removing anything.
fn away(observed: &Observed) -> Option<String> {
    let ceph = observed.clones.as_ref().err().map(|why| format!("Ceph: {why}"));
    ceph.or_else(|| observed.pods.as_ref().err().map(ToString::to_string))
}

fn to_look_at(decision: &Decision) -> Option<&aldaas_api::CloneName> {
    match (&decision.subject, &decision.action) {
        (Subject::Clone(name), Some(Action::Look)) => Some(name),
        _ => None,
    }
}

/// One line for a decision: why it is kept, or goes.
fn log(decision: &Decision) {
    let Decision { subject, state, reason, user, .. } = decision;
    let user = user.clone().unwrap_or_default();
    let trivial = decision.action.is_none() && matches!(state, State::Published | State::Kept)
        || *reason == super::Reason::Trash(0);
    let line = format_args!("{subject}: {reason}").to_string();
    let (state, verdict) = (state.as_str(), decision.verdict());
    if trivial {
        tracing::debug!(volume_id = user.volume, pod_uid = user.pod_uid, state, verdict, "{line}");
    } else {
        tracing::info!(
            volume_id = user.volume,
            pod = format!("{}/{}", user.namespace, user.pod),
            pod_uid = user.pod_uid,
            state,
            verdict,
            "{line}"
        );
    }
}
