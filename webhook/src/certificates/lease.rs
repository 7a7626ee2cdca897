//! One of several replicas writes: the one that holds the Lease.
//!
//! Whether another's lease is over is judged by our own clock alone: by how long ago we saw it change.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Error};

/// Takes part in the election of one writer.
pub struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    duration: Duration,
    /// What another's lease was when we last saw it change, and when that was.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Election {
    /// As `me`, for the lease `name`.
    pub fn new(client: Client, namespace: &str, name: &str, me: &str, duration: Duration) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), me: me.to_owned(), duration, seen: None }
    }

    /// Takes or renews the lease where that is possible; whether we hold it.
    ///
    /// # Errors
    /// When the API server does not say.
    pub async fn hold(&mut self) -> Result<bool, Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.me && !self.is_over(&spec) {
            return Ok(false);
        }
        lease.spec = Some(self.spec(Some(&spec)));
        // The version that we read goes along: of two who take it, one is told that it changed.
        won(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Gives it up, so that nobody has to wait for it.
    ///
    /// # Errors
    /// When the API server does not take it.
    pub async fn release(&mut self) -> Result<(), Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else { return Ok(()) };
        match lease.spec.as_mut() {
            Some(spec) if spec.holder_identity.as_deref() == Some(&self.me) => spec.holder_identity = None,
            _ => return Ok(()),
        }
        won(self.api.replace(&self.name, &PostParams::default(), &lease).await).map(drop)
    }

    fn is_over(&mut self, spec: &LeaseSpec) -> bool {
        match &self.seen {
            Some((seen, at)) if seen == spec => at.elapsed() >= self.duration,
            _ => {
                self.seen = Some((spec.clone(), Instant::now()));
                false
            }
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let mine = before.filter(|before| before.holder_identity.as_deref() == Some(&self.me));
        let changes = before.and_then(|before| before.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs().max(1)).ok(),
            acquire_time: mine.map_or(now.clone(), |mine| mine.acquire_time.clone()),
            renew_time: now,
            lease_transitions: Some(if mine.is_some() || before.is_none() { changes } else { changes + 1 }),
            ..LeaseSpec::default()
        }
    }
}

/// Somebody else was first: no error, but not ours.
fn won(written: Result<Lease, Error>) -> Result<bool, Error> {
    match written {
        Ok(_) => Ok(true),
        Err(Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
