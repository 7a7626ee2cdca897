//! Named clones that are attached here are kept from others: their leases are renewed for as long as they are, whatever
//! Kubernetes says.

use std::sync::Arc;

use aldaas_api::{CloneName, volume_id};
use aldaas_golden::{self as golden, Lease, Terms};
use aldaas_volume::Server;
use tokio_util::sync::CancellationToken;

use super::Reaper;
use crate::blocking::blocking;
use crate::publish::named::NAMED_TTL;

/// How often a lease is renewed before it would run out.
const RENEWALS: u32 = 4;

impl Reaper {
    /// Renews leases until `stop`.
    pub async fn keep_leases(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.parts.lease / RENEWALS);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.renew_leases().await;
        }
    }

    /// Renews the lease of every named clone that is attached here.
    pub async fn renew_leases(&self) {
        let node = self.parts.node.clone();
        let here = match blocking(move || node.inventory()).await {
            Ok(here) => here,
            Err(error) => return tracing::warn!(%error, "leases of named clones can't be renewed"),
        };
        for found in here {
            let spec = found.spec;
            let is_ours = spec.pool == self.parts.storage.pool().as_str() && spec.namespace == golden::CLONE;
            // Whoever was cut off has lost it.
            let is_attached = found.device.is_some() && found.server != Server::Dead;
            if let (true, true, Ok(name)) =
                (is_ours && volume_id::is_named(&spec.image), is_attached, spec.image.parse::<CloneName>())
            {
                self.renew(&name).await;
            }
        }
    }

    async fn renew(&self, name: &CloneName) {
        // Whoever is at it takes the lease, or drops it, by itself.
        let Some(_entry) = self.parts.guards.try_enter(name) else { return };
        let (name, here, lease) = (name.clone(), self.parts.node_name.clone(), self.parts.lease);
        let image = name.clone();
        let renewed = self.parts.storage.run(move |store| {
            let clone = match store.find_clone(&name) {
                Err(golden::Error::NoClone(_) | golden::Error::Foreign(_)) => return Ok(()),
                other => other?,
            };
            match clone.record.pod {
                Some(user) if user.node == here => {
                    let me = Lease { node: user.node, volume: user.volume };
                    store.take_lease(&clone.id, &me, &Terms { lease, ttl: user.ttl.unwrap_or(NAMED_TTL) })
                }
                _ => Ok(()),
            }
        });
        match renewed.await {
            Ok(()) => tracing::debug!(%image, "lease renewed"),
            Err(error) => tracing::warn!(%image, %error, "the lease of a named clone is not renewed"),
        }
    }
}
