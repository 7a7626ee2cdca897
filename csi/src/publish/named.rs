//! Named clones: one user at a time on whichever node, for whom others wait; back for the next one who asks.
//!
//! Who may attach one is decided by its lease (`aldaas_golden::lease`) and by what this node itself has mounted. Each is
//! attached through a client of its own, so that fencing that client stops this clone alone.

use std::sync::PoisonError;
use std::time::Duration;

use aldaas_api::CloneName;
use aldaas_api::context::WantedClone;
use aldaas_api::volume_id::named_clone;
use aldaas_golden::{self as golden, Alone, Lease, Purpose, Terms, Turn};
use aldaas_volume as volume;
use fail::fail_point;
use tokio::time::{Instant, sleep};

use super::{GaveUp, How, PublishError, PublishRequest, Publisher, Ready, UnpublishError, choose, elsewhere};
use crate::blocking::blocking;
use crate::ports::Database;
use crate::removal::Removed;

/// How long a named clone is kept after its last pod where nobody says for how long.
pub const NAMED_TTL: Duration = Duration::from_secs(24 * 3600);
/// How often a clone that somebody else uses is looked at again.
const POLL: Duration = Duration::from_millis(500);

/// A named clone that is asked for.
struct Asked<'a> {
    request: &'a PublishRequest,
    wanted: &'a WantedClone,
    database: &'a Database,
    clone: CloneName,
    spec: volume::ImageSpec,
    me: Lease,
    terms: Terms,
}

/// What one try came to.
enum Try {
    Ready(Ready),
    Wait(String),
}

impl Publisher {
    /// Waits until a named clone is free, makes it if there is none, and mounts it.
    pub(crate) async fn take_named(
        &self,
        request: &PublishRequest,
        wanted: &WantedClone,
        name: &CloneName,
        database: &Database,
        deadline: Instant,
    ) -> Result<Ready, PublishError> {
        let clones = &database.clones;
        let asked = wanted.ttl.map(aldaas_api::Ttl::duration);
        let ttl = asked.or(clones.named_ttl).or(clones.ttl).unwrap_or(NAMED_TTL);
        let asked = Asked {
            request,
            wanted,
            database,
            clone: named_clone(&request.context.pod.namespace, name),
            spec: self.spec_of(request),
            me: self.user(request.volume.as_str()),
            terms: Terms { lease: self.lease, ttl },
        };
        loop {
            let by = match self.try_named(&asked, deadline).await? {
                Try::Ready(ready) => return Ok(ready),
                Try::Wait(by) => by,
            };
            if Instant::now() + POLL > deadline {
                return Err(PublishError::InUse { clone: name.clone(), by });
            }
            tracing::info!(clone = %name, by, "waiting for a named clone");
            if self.wait(deadline, sleep(POLL)).await == Err(GaveUp::Stopping) {
                return Err(PublishError::Stopping);
            }
        }
    }

    /// One look, and the rest if the clone is free. Others get their turn between two looks.
    async fn try_named(&self, asked: &Asked<'_>, deadline: Instant) -> Result<Try, PublishError> {
        // In this order, as everywhere: who waits for a turn holds nobody's guard.
        let _turn = self.turn(deadline).await?;
        let entry = match self.wait(deadline, self.guards.enter(&asked.clone)).await {
            Ok(entry) => entry,
            Err(GaveUp::TooLate) => return Ok(Try::Wait("another volume of this node".to_owned())),
            Err(GaveUp::Stopping) => return Err(PublishError::Stopping),
        };
        if let Some(pod) = self.release_unbound(&asked.spec).await? {
            return Ok(Try::Wait(format!("another pod of this node, at {}", pod.display())));
        }
        let ttl = Some(asked.terms.ttl);
        let ask = golden::CloneRequest {
            name: asked.clone.clone(),
            ..self.ask(asked.request, Purpose::PodNamed, ttl, asked.database)
        };
        let wanted = asked.wanted.clone();
        let make = move |store: &golden::Store| choose::find_or_make(store, &wanted, &ask);
        let ensured = self.step("clone", async { Ok(self.storage.run(make).await?) }).await?;
        fail_point!("csi::after-clone");
        if let Some(by) = self.take_lease(asked, &ensured).await? {
            return Ok(Try::Wait(by));
        }
        fail_point!("csi::after-lease");
        let how = How { read_only: asked.request.read_only, own_client: true };
        let of = &ensured.clone.record.golden_image;
        match self.open(asked.spec.clone(), of, how, asked.database).await {
            Ok(ready) => Ok(Try::Ready(Ready { held: Some(entry), ..ready })),
            // Somebody writes to it without a lease, e.g. by hand: that holds the image's lock.
            Err(PublishError::Volume(error)) if error.is_busy() => Ok(Try::Wait(error.to_string())),
            Err(error) if error.is_final() && ensured.made => self.undo_made(asked, &ensured, error).await,
            Err(error) => Err(error),
        }
    }

    /// Where a pod of this node has the clone; else whatever an earlier try left of it here is taken away.
    async fn release_unbound(
        &self,
        spec: &volume::ImageSpec,
    ) -> Result<Option<std::path::PathBuf>, PublishError> {
        let (node, spec) = (self.node.clone(), spec.clone());
        let found = blocking(move || -> Result<_, volume::Error> {
            let bound = elsewhere(&node, &spec)?;
            if bound.is_none() && node.find(&spec)?.is_some() {
                node.close(&spec)?;
            }
            Ok(bound)
        });
        Ok(found.await?)
    }

    /// Takes the lease if it is our turn, and writes us into the clone's record. Else says who has it.
    async fn take_lease(
        &self,
        asked: &Asked<'_>,
        ensured: &golden::Ensured,
    ) -> Result<Option<String>, PublishError> {
        let by = self.step("lease", self.look_and_take(asked, ensured)).await?;
        if by.is_none() && !ensured.made {
            let (id, used) = (ensured.clone.id.clone(), self.pod_use(asked.request, Some(asked.terms.ttl)));
            self.storage.run(move |store| store.retake_clone(&id, &used)).await?;
        }
        Ok(by)
    }

    async fn look_and_take(
        &self,
        asked: &Asked<'_>,
        ensured: &golden::Ensured,
    ) -> Result<Option<String>, PublishError> {
        let (id, me, terms) = (ensured.clone.id.clone(), asked.me.clone(), asked.terms);
        if ensured.made {
            return Ok(self.storage.run(move |store| lease_or_holder(store, &id, &me, &terms)).await?);
        }
        let before = self.alones().remove(&asked.clone).unwrap_or_default();
        let (turn, alone) = self
            .storage
            .run(move |store| {
                let mut alone = before.clone();
                store.take_turn(&id, &me, &terms, &mut alone).map(|turn| (turn, alone))
            })
            .await?;
        let by = match turn {
            Turn::Free => None,
            Turn::Wait { by } => Some(by),
            Turn::Fence { addresses } => match self.still_lives(&ensured.clone.record, &addresses).await {
                Some(by) => Some(by),
                None => self.fence_and_take(asked, ensured, addresses).await?,
            },
        };
        if by.is_some() {
            self.alones().insert(asked.clone.clone(), alone);
        }
        Ok(by)
    }

    async fn fence_and_take(
        &self,
        asked: &Asked<'_>,
        ensured: &golden::Ensured,
        addresses: Vec<String>,
    ) -> Result<Option<String>, PublishError> {
        let (id, me, terms) = (ensured.clone.id.clone(), asked.me.clone(), asked.terms);
        let taken = self.storage.run(move |store| {
            store.fence(&addresses)?;
            lease_or_holder(store, &id, &me, &terms)
        });
        Ok(taken.await?)
    }

    /// The node that had the clone last may live although its plugin is silent: then its pod is not to be cut off. Of this node,
    /// it is known that nobody has it: whoever watches the clone then is nobody of ours, and may serve other images as well.
    async fn still_lives(
        &self,
        record: &golden::record::CloneRecord,
        addresses: &[String],
    ) -> Option<String> {
        let Some(user) = record.pod.as_ref() else {
            return Some("somebody of whom nothing is known".to_owned());
        };
        if user.node == self.node_name {
            let addresses = addresses.join(", ");
            return Some(format!(
                "the Ceph client {addresses}, which is no node plugin's: detach the image there"
            ));
        }
        let why = match self.cluster.node_is_ready(&user.node).await {
            Ok(false) => return None,
            Ok(true) => "which is ready though its node plugin is silent".to_owned(),
            Err(away) => format!("of which nothing is known: {away}"),
        };
        Some(format!("pod {}/{} on node {}, {why}", user.namespace, user.pod, user.node))
    }

    fn alones(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<CloneName, Alone>> {
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A clone that was made just now and can't be used is no good to anybody.
    async fn undo_made(
        &self,
        asked: &Asked<'_>,
        ensured: &golden::Ensured,
        error: PublishError,
    ) -> Result<Try, PublishError> {
        let (id, me) = (ensured.clone.id.clone(), asked.me.clone());
        let dropped = self.storage.run(move |store| store.drop_lease(&id, &me, None)).await;
        let undone = match dropped {
            Ok(()) => self.remover.remove(&asked.clone).await.map(drop).map_err(UnpublishError::from),
            Err(error) => Err(error.into()),
        };
        Err(match undone {
            Ok(()) => error,
            Err(undo) => PublishError::NotUndone { error: Box::new(error), undo: Box::new(undo) },
        })
    }

    /// Gives up what an earlier try of this volume may have: mount, device and lease. The clone stays.
    pub(crate) async fn undo_named(&self, request: &PublishRequest) -> Result<(), UnpublishError> {
        let Ok(clone) = self.spec_of(request).image.parse::<CloneName>() else { return Ok(()) };
        self.let_go_of_named(&clone, request.volume.as_str()).await.map(drop)
    }

    /// Unmounts a named clone here, unless a pod uses it, and gives this volume's lease back. What was written stays.
    pub(crate) async fn let_go_of_named(
        &self,
        clone: &CloneName,
        volume: &str,
    ) -> Result<Removed, UnpublishError> {
        let _entry = self.guards.enter(clone).await;
        let spec = volume::ImageSpec::new(self.storage.pool().as_str(), golden::CLONE, clone.as_str());
        let (node, me, name) = (self.node.clone(), self.user(volume), clone.clone());
        let used = blocking(move || -> Result<bool, volume::Error> {
            let used = elsewhere(&node, &spec)?.is_some();
            if !used {
                node.close(&spec)?;
            }
            Ok(used)
        });
        match used.await {
            Ok(false) => {}
            Ok(true) => return Ok(Removed::Gone),
            // The pod goes all the same. The lease stays while the clone is attached: nobody else writes to it meanwhile.
            Err(error) if error.is_busy() => {
                return Ok(self.remover.quarantined(clone, error.to_string()));
            }
            Err(error) => return Err(error.into()),
        }
        fail_point!("csi::after-close");
        let dropped = self.storage.run(move |store| {
            let clone = match store.find_clone(&name) {
                Err(golden::Error::NoClone(_) | golden::Error::Foreign(_)) => return Ok(()),
                other => other?,
            };
            let ttl = clone.record.pod.and_then(|pod| pod.ttl).unwrap_or(NAMED_TTL);
            // Only who had it keeps it longer.
            match store.leases(&clone.id)?.contains(&me) {
                true => store.drop_lease(&clone.id, &me, Some(ttl)),
                false => Ok(()),
            }
        });
        dropped.await?;
        fail_point!("csi::after-drop-lease");
        Ok(Removed::Gone)
    }

    fn user(&self, volume: &str) -> Lease {
        Lease { node: self.node_name.clone(), volume: volume.to_owned() }
    }
}

/// Takes the lease; else who has it.
fn lease_or_holder(
    store: &golden::Store,
    id: &aldaas_rbd::ImageId,
    me: &Lease,
    terms: &Terms,
) -> golden::Result<Option<String>> {
    match store.take_lease(id, me, terms) {
        Ok(()) => Ok(None),
        Err(golden::Error::Leased(by)) => Ok(Some(by)),
        Err(error) => Err(error),
    }
}
