//! What nobody waits for, done beside the databases' work.

use std::sync::Arc;

use aldaas_api::GoldenImageName;
use aldaas_golden::State;

use super::read::World;
use super::reconcile::Controller;

/// What nobody waits for.
pub(super) struct Chores {
    /// Something waits in the trash.
    waste: bool,
    /// Nobody knows how much these take.
    unmeasured: Vec<GoldenImageName>,
}

impl Chores {
    pub(super) fn is_nothing(&self) -> bool {
        !self.waste && self.unmeasured.is_empty()
    }
}

impl Controller {
    /// What there is to do.
    pub(super) fn chores(&self, world: &World) -> Chores {
        let waste = world.stock.images.iter().any(|(name, found)| {
            found.trashed && world.stock.clones.get(name).is_none_or(|clones| *clones == 0)
        });
        let says = |name: &GoldenImageName| {
            let object = world.objects.get(name)?.as_ref().as_ref().ok()?;
            Some(object.status.as_ref()?.used_bytes.is_some())
        };
        let is_new =
            |name: &GoldenImageName| says(name) == Some(false) && self.tools.storage.used(name).is_none();
        let done = world.stock.images.iter().filter(|(_, found)| {
            !found.trashed && matches!(found.record.state, State::Ready | State::Failed | State::Retired)
        });
        let unmeasured = done.map(|(name, _)| name.clone()).filter(is_new).collect();
        Chores { waste, unmeasured }
    }

    /// Does what nobody waits for.
    pub(super) async fn clean(self: Arc<Self>, chores: Chores) {
        if chores.waste {
            self.purge().await;
        }
        if !chores.unmeasured.is_empty() {
            match self.tools.storage.measure(chores.unmeasured).await {
                Ok(()) => self.wake.notify_one(),
                Err(error) => tracing::warn!(%error, "how much golden images take was not measured"),
            }
        }
    }

    /// Takes what is retired and has no clones any more out of the trash.
    async fn purge(&self) {
        match self.tools.storage.run(aldaas_golden::Store::purge).await {
            Ok(purged) if purged.removed > 0 => {
                tracing::info!(removed = purged.removed, waiting = purged.waiting, "purged");
                self.wake.notify_one();
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "what is retired was not purged"),
        }
    }
}
