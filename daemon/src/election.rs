//! One among several, elected by a Lease: it alone does what must not be done twice.
//!
//! No two machines' clocks are compared: another's lease has run out when it was seen unchanged for its whole duration on *this*
//! machine's clock, and our own ends by the time at which we *began* to renew it.

use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use crate::kubernetes::say;

/// One look may take this long.
const CALL: Duration = Duration::from_secs(5);

/// What is voted on.
#[derive(Debug, Clone)]
pub struct Office {
    /// The Lease.
    pub name: String,
    /// How long it holds without being renewed.
    pub duration: Duration,
    /// How often its holder renews it.
    pub renewal: Duration,
    /// How often the others look at it.
    pub look: Duration,
}

/// One candidate's part in the election.
pub struct Election {
    api: Api<Lease>,
    identity: String,
    office: Office,
    seen: Mutex<Seen>,
    /// Until when this candidate is the one.
    won_until: RwLock<Option<Instant>>,
}

/// Another's lease as it was last seen to change.
#[derive(Default)]
struct Seen {
    version: Option<String>,
    since: Option<Instant>,
}

impl Election {
    /// Takes no part yet.
    pub fn new(client: Client, namespace: &str, identity: &str, office: Office) -> Self {
        let (seen, won_until) = (Mutex::default(), RwLock::new(None));
        let api = Api::namespaced(client, namespace);
        Self { api, identity: identity.to_owned(), office, seen, won_until }
    }

    /// Whether this candidate is the one now.
    pub fn is_won(&self) -> bool {
        let until = *self.won_until.read().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Takes part until `stop`; then another may be elected at once. `elected` is called each time that it is newly won.
    pub async fn run(&self, stop: &CancellationToken, elected: impl Fn()) {
        loop {
            let before = self.is_won();
            match tokio::time::timeout(CALL, self.hold()).await {
                Ok(Ok(true)) if !before => {
                    tracing::info!(lease = self.office.name, identity = self.identity, "elected");
                    elected();
                }
                // A server that does not answer elects nobody; what we have runs out by itself.
                Ok(Err(error)) => tracing::debug!(error = say(&error), "no election at the moment"),
                _ => {}
            }
            let pause = if self.is_won() { self.office.renewal } else { self.office.look };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        if self.is_won() {
            let _ = tokio::time::timeout(CALL, self.release()).await;
        }
    }

    /// Takes or renews the lease where that is possible; whether we hold it.
    ///
    /// # Errors
    /// When the API server does not say: what we held, we still hold until it runs out.
    pub async fn hold(&self) -> Result<bool, kube::Error> {
        let (began, name) = (Instant::now(), &self.office.name);
        let Some(lease) = self.api.get_opt(name).await? else {
            let made = self.api.create(&PostParams::default(), &self.renewed(None)).await;
            return self.settle(made, began);
        };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder != self.identity && !holder.is_empty() {
            self.set(None);
            if !self.has_run_out(&lease, began) {
                return Ok(false);
            }
        }
        // It carries the version that was read: of two who try, one wins.
        let replaced = self.api.replace(name, &PostParams::default(), &self.renewed(Some(lease))).await;
        self.settle(replaced, began)
    }

    fn settle(&self, written: Result<Lease, kube::Error>, began: Instant) -> Result<bool, kube::Error> {
        match written {
            Ok(_) => {
                self.set(Some(began + self.office.duration));
                Ok(true)
            }
            // Somebody else was first.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives it up, so that nobody has to wait for it.
    ///
    /// # Errors
    /// When the API server does not take it: it runs out.
    pub async fn release(&self) -> Result<(), kube::Error> {
        self.set(None);
        let Some(mut lease) = self.api.get_opt(&self.office.name).await? else { return Ok(()) };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() == Some(self.identity.as_str()) {
            spec.holder_identity = Some(String::new());
            self.api.replace(&self.office.name, &PostParams::default(), &lease).await?;
        }
        Ok(())
    }

    fn renewed(&self, lease: Option<Lease>) -> Lease {
        let named = || Lease {
            metadata: ObjectMeta { name: Some(self.office.name.clone()), ..Default::default() },
            ..Default::default()
        };
        let is_new = lease.is_none();
        let mut lease = lease.unwrap_or_else(named);
        let before = lease.spec.take().unwrap_or_default();
        let stays = before.holder_identity.as_deref() == Some(self.identity.as_str());
        let now = Some(MicroTime(Timestamp::now()));
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.office.duration.as_secs().max(1)).ok(),
            acquire_time: if stays { before.acquire_time } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!stays && !is_new)),
            ..Default::default()
        });
        lease
    }

    fn has_run_out(&self, lease: &Lease, now: Instant) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.has_run_out(lease, now, self.office.duration)
    }

    fn set(&self, until: Option<Instant>) {
        *self.won_until.write().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

impl Seen {
    /// Whether this lease of another was not renewed for as long as it holds: as long as it says, and never less than `ours`.
    fn has_run_out(&mut self, lease: &Lease, now: Instant, ours: Duration) -> bool {
        if self.since.is_none() || self.version != lease.metadata.resource_version {
            *self = Self { version: lease.metadata.resource_version.clone(), since: Some(now) };
        }
        let said = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let holds = Duration::from_secs(u64::try_from(said).unwrap_or(0)).max(ours);
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
        let mut has_run_out = |version: &str, says: i32, seconds: u64| {
            let now = start + Duration::from_secs(seconds);
            seen.has_run_out(&lease(version, says), now, Duration::from_secs(20))
        };
        assert!(!has_run_out("1", 30, 0));
        assert!(!has_run_out("1", 30, 30));
        assert!(has_run_out("1", 30, 31));
        assert!(!has_run_out("2", 30, 32), "it was renewed");
        assert!(!has_run_out("2", 3600, 100), "it says that it holds for longer");
        assert!(!has_run_out("3", -5, 200), "nonsense opens nothing");
        assert!(!has_run_out("3", -5, 220));
        assert!(has_run_out("3", -5, 221));
    }
}
