//! Taking a clone away, in two steps: into the trash at once, purged in the background.
//!
//! Used when a pod's volume is unpublished and by the reaper, which also purges whatever a crash left in the trash. Whoever
//! calls holds the clone's [`guard::Entry`](crate::guard::Entry).

use std::sync::Arc;
use std::time::Duration;

use aldaas_api::CloneName;
use aldaas_golden as golden;
use aldaas_volume as volume;
use fail::fail_point;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::blocking::blocking;
use crate::metrics::{self, Metrics, Operation};
use crate::storage::Storage;

/// How long a removal waits for a client that watches the image: one that was killed does so for half a minute.
const PATIENCE: Duration = Duration::from_secs(40);
/// How many clones are purged at once: enough to keep up, few enough to leave Ceph to the pods.
const PURGES: usize = 4;

/// What became of a clone that was to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone, or in the trash and as good as gone.
    Gone,
    /// Somebody still holds it: it is kept until a later try.
    Quarantined {
        /// Who, or what.
        why: String,
    },
}

/// Why a clone could not be taken away now.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Its mount or device can't be taken away.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// Ceph said no.
    #[error(transparent)]
    Golden(#[from] golden::Error),
}

/// Takes clones away.
pub struct Remover {
    storage: Arc<Storage>,
    node: Arc<volume::Node>,
    metrics: Arc<Metrics>,
    purges: Arc<Semaphore>,
    later: TaskTracker,
}

impl Remover {
    /// For one pool and this node.
    pub fn new(storage: Arc<Storage>, node: Arc<volume::Node>, metrics: Arc<Metrics>) -> Self {
        Self { storage, node, metrics, purges: Arc::new(Semaphore::new(PURGES)), later: TaskTracker::new() }
    }

    /// Takes a clone away: its mount and device on this node, then the clone itself. One that is not there is gone. What it
    /// holds is lost.
    ///
    /// # Errors
    /// When it can be said neither that it is gone nor that somebody holds it: try again.
    pub async fn remove(&self, clone: &CloneName) -> Result<Removed, RemoveError> {
        let spec = volume::ImageSpec::new(self.storage.pool().as_str(), golden::CLONE, clone.as_str());
        let node = self.node.clone();
        let rest = match blocking(move || node.begin_discard(&spec)).await {
            Err(error) if error.is_busy() => return Ok(self.quarantined(clone, error.to_string())),
            other => other?,
        };
        fail_point!("csi::after-discard");
        let closing = rest.as_ref().map_or_else(Vec::new, |rest| rest.closing().to_vec());
        let trash = |closing: Vec<String>, patience| {
            let name = clone.clone();
            self.storage.run(move |store| store.trash_clone_let_go(&name, &closing, patience))
        };
        let (mut rest, mut trashed) = (rest, trash(closing, Duration::ZERO).await);
        if let Err(golden::Error::InUse { .. }) = trashed {
            // Somebody else has it too: that takes time, if it ends at all.
            finish(&self.node, rest.take()).await;
            trashed = trash(Vec::new(), PATIENCE).await;
        }
        fail_point!("csi::after-trash");
        let (trashed, removed) = match trashed {
            Ok(trashed) => (trashed, Ok(Removed::Gone)),
            Err(error @ (golden::Error::InUse { .. } | golden::Error::Leased(_))) => {
                (None, Ok(self.quarantined(clone, error.to_string())))
            }
            Err(error) => (None, Err(error.into())),
        };
        self.finish_later(rest, trashed);
        removed
    }

    /// What nobody waits for: the image is closed and the kernel forgets what was on it, then the clone is purged. What is not done
    /// before this process ends, the reaper finds: attached, as a directory, or in the trash.
    fn finish_later(&self, rest: Option<volume::Rest>, trashed: Option<golden::Trashed>) {
        if rest.is_none() && trashed.is_none() {
            return;
        }
        let (storage, metrics, purges) = (self.storage.clone(), self.metrics.clone(), self.purges.clone());
        let node = self.node.clone();
        self.later.spawn(async move {
            finish(&node, rest).await;
            let Some(trashed) = trashed else { return };
            let Ok(_permit) = purges.acquire_owned().await else { return };
            let running = metrics.begin(Operation::Purge);
            let name = trashed.name.clone();
            match storage.run(move |store| store.purge_clone(&trashed)).await {
                Ok(golden::Gone::Yes) => running.finish(metrics::OK),
                Ok(golden::Gone::NotYet) => running.finish("later"),
                Err(error) => {
                    tracing::warn!(image = %name, %error, "not purged; the reaper tries again");
                    running.finish("failed");
                }
            }
        });
    }

    /// Waits until all that was left for later is done.
    pub async fn finished(&self) {
        self.later.close();
        self.later.wait().await;
    }

    /// Notes that an image could not be let go because somebody holds it.
    pub(crate) fn quarantined(&self, image: &impl std::fmt::Display, why: String) -> Removed {
        tracing::warn!(image = %image, why, "quarantined: somebody still holds a volume that is to go; it is tried again");
        self.metrics.quarantined();
        Removed::Quarantined { why }
    }

    /// Purges all that is ours in the trash.
    ///
    /// # Errors
    /// When the trash can't be listed.
    pub async fn purge_all(&self) -> Result<golden::Purged, golden::Error> {
        self.storage.run(golden::Store::purge).await
    }
}

async fn finish(node: &Arc<volume::Node>, rest: Option<volume::Rest>) {
    let (node, Some(rest)) = (node.clone(), rest) else { return };
    if let Err(error) = blocking(move || node.finish_discard(rest)).await {
        tracing::warn!(%error, "a device that is to go is not gone yet; the reaper tries again");
    }
}
