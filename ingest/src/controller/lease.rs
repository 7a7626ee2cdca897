//! One replica among all, elected by a Lease: it alone acts.
//!
//! No two machines' clocks are compared: another's lease has run out when it was seen unchanged for its whole duration on *this*
//! machine's clock, and our own ends by the time at which we *began* to renew it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The Lease's name, in aldaas' own namespace.
pub const NAME: &str = "aldaas-controller";
/// How long it holds.
const DURATION: Duration = Duration::from_secs(15);
/// How often its holder renews it, and the others look at it.
const PERIOD: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(2));
/// One look may take this long.
const CALL: Duration = Duration::from_secs(5);

/// This replica's part in the election.
pub struct Election {
    api: Api<Lease>,
    identity: String,
    /// Until when this replica is the one.
    won_until: RwLock<Option<Instant>>,
    /// Told when it is won or lost.
    changed: Arc<Notify>,
}

/// Another's lease as it was last seen to change.
#[derive(Default)]
struct Seen {
    version: Option<String>,
    since: Option<Instant>,
}

impl Election {
    /// Takes no part yet. `changed` is told when it is won.
    pub fn new(client: Client, namespace: &str, identity: &str, changed: Arc<Notify>) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, identity: identity.to_owned(), won_until: RwLock::new(None), changed }
    }

    /// Whether this replica is the one now.
    pub fn is_won(&self) -> bool {
        let until = *self.won_until.read().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Takes part until `stop`; then another may be elected at once.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut seen = Seen::default();
        loop {
            // A server that does not answer elects nobody; what we have runs out by itself.
            if let Ok(Err(error)) = tokio::time::timeout(CALL, self.round(&mut seen)).await {
                tracing::debug!(error = super::client::say(&error), "no election at the moment");
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(if self.is_won() { PERIOD.0 } else { PERIOD.1 }) => {}
            }
        }
        if self.is_won() {
            self.set(None);
            let _ = tokio::time::timeout(CALL, self.release()).await;
        }
    }

    async fn round(&self, seen: &mut Seen) -> Result<(), kube::Error> {
        let began = Instant::now();
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let made = self.api.create(&PostParams::default(), &self.renewed(None)).await;
            return self.settle(made, began);
        };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder != self.identity && !holder.is_empty() {
            self.set(None);
            if !seen.has_run_out(&lease, began) {
                return Ok(());
            }
        }
        // It carries the version that was read: of two who try, one wins.
        let replaced = self.api.replace(NAME, &PostParams::default(), &self.renewed(Some(lease))).await;
        self.settle(replaced, began)
    }

    fn settle(&self, written: Result<Lease, kube::Error>, began: Instant) -> Result<(), kube::Error> {
        match written {
            Ok(_) => {
                let news = !self.is_won();
                self.set(Some(began + DURATION));
                if news {
                    tracing::info!(lease = NAME, "elected: this replica acts");
                    self.changed.notify_one();
                }
                Ok(())
            }
            // Somebody else was first.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let mut lease = self.api.get(NAME).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
            spec.holder_identity = Some(String::new());
            self.api.replace(NAME, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    fn renewed(&self, lease: Option<Lease>) -> Lease {
        let named = || Lease {
            metadata: ObjectMeta { name: Some(NAME.into()), ..Default::default() },
            ..Default::default()
        };
        let mut lease = lease.unwrap_or_else(named);
        let before = lease.spec.take().unwrap_or_default();
        let stays = before.holder_identity.as_deref() == Some(self.identity.as_str());
        let now = Some(MicroTime(Timestamp::now()));
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if stays { before.acquire_time } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!stays)),
            ..Default::default()
        });
        lease
    }

    fn set(&self, until: Option<Instant>) {
        *self.won_until.write().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Seen {
    /// Whether this lease of another replica was not renewed for as long as it holds.
    fn has_run_out(&mut self, lease: &Lease, now: Instant) -> bool {
        if self.version != lease.metadata.resource_version {
            *self = Self { version: lease.metadata.resource_version.clone(), since: Some(now) };
        }
        let said = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        // Not less than ours, whatever somebody wrote into it.
        let holds = Duration::from_secs(u64::try_from(said).unwrap_or(0)).max(DURATION);
        self.since.is_some_and(|since| now.duration_since(since) > holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(version: &str, seconds: i32) -> Lease {
        let mut lease = Lease::default();
        lease.metadata.resource_version = Some(version.into());
        lease.spec = Some(LeaseSpec { lease_duration_seconds: Some(seconds), ..Default::default() });
        lease
    }

    #[test]
    fn anothers_lease_has_run_out_only_when_it_was_seen_unchanged_for_its_whole_duration() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert!(!seen.has_run_out(&lease("1", 30), at(0)));
        assert!(!seen.has_run_out(&lease("1", 30), at(30)));
        assert!(seen.has_run_out(&lease("1", 30), at(31)));
        assert!(!seen.has_run_out(&lease("2", 30), at(32)), "it was renewed");
        assert!(!seen.has_run_out(&lease("2", 3600), at(100)), "it says that it holds for longer");
        assert!(!seen.has_run_out(&lease("3", -5), at(200)), "nonsense opens nothing");
        assert!(!seen.has_run_out(&lease("3", -5), at(215)));
        assert!(seen.has_run_out(&lease("3", -5), at(216)));
    }
}
