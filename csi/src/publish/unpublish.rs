//! The way back: a pod can always go away. What is unknown, half made or already gone is fine.

use aldaas_api::volume_id::{is_handle, is_named};
use aldaas_api::{CloneName, GoldenImageName, VolumeId};
use aldaas_golden as golden;
use aldaas_volume as volume;
use tokio::time::Instant;

use super::{GaveUp, Publisher, UnpublishError, elsewhere};
use crate::blocking::blocking;
use crate::removal::Removed;
use crate::target::{Seen, Target};

impl Publisher {
    /// Takes a volume from its target, and away if it ends with its pod. Waits until `deadline` for a call that is at it; what
    /// was begun goes on.
    ///
    /// # Errors
    /// [`UnpublishError`]; the call may be repeated.
    pub async fn unpublish(
        &self,
        volume: &VolumeId,
        target: &Target,
        deadline: Instant,
    ) -> Result<(), UnpublishError> {
        let handle = volume.handle();
        let _entry = self.wait(deadline, self.guards.enter(&handle)).await?;
        let _turn = self.wait(deadline, self.workers.acquire()).await?;
        let (node, place) = (self.node.clone(), target.clone());
        let was = blocking(move || -> Result<_, UnpublishError> {
            let was = match place.look(&node)? {
                // Another pod's own clone: it is published there, and this volume is not.
                Seen::Volume(spec) if is_handle(&spec.image) && spec.image != handle.as_str() => {
                    return Ok(None);
                }
                Seen::Volume(spec) => Some(spec),
                _ => None,
            };
            place.unbind(&node)?;
            Ok(was)
        });
        match was.await? {
            Some(spec) => self.let_go(&spec, volume).await,
            None => self.let_go_of_all(volume).await,
        }
    }

    /// What was bound at the target.
    async fn let_go(&self, spec: &volume::ImageSpec, volume: &VolumeId) -> Result<(), UnpublishError> {
        match spec.image.parse::<CloneName>() {
            Ok(clone) if spec.namespace == golden::CLONE && is_named(clone.as_str()) => {
                self.let_go_of_named(&clone, volume.as_str()).await.map(drop)
            }
            _ if spec.namespace == golden::GOLDEN => self.let_go_of_build(spec).await.map(drop),
            _ => Ok(self.remover.remove(&volume.handle()).await.map(drop)?),
        }
    }

    /// Nothing is bound: what a killed publish or unpublish of this volume may have left.
    async fn let_go_of_all(&self, volume: &VolumeId) -> Result<(), UnpublishError> {
        let node = self.node.clone();
        let here = blocking(move || node.inventory()).await?;
        for observed in here.into_iter().filter(|found| found.spec.pool == self.storage.pool().as_str()) {
            self.let_go_if_of(&observed.spec, volume).await?;
        }
        self.remover.remove(&volume.handle()).await?;
        Ok(())
    }

    /// Lets go of a named clone or a build that is attached here, if this volume was its last user and no pod has it.
    async fn let_go_if_of(&self, spec: &volume::ImageSpec, volume: &VolumeId) -> Result<(), UnpublishError> {
        if spec.namespace == golden::CLONE && is_named(&spec.image) {
            let Ok(clone) = spec.image.parse::<CloneName>() else { return Ok(()) };
            let name = clone.clone();
            let used = self.storage.run(move |store| match store.find_clone(&name) {
                Ok(clone) => Ok(clone.record.pod.map(|pod| pod.volume)),
                Err(golden::Error::NoClone(_) | golden::Error::Foreign(_)) => Ok(None),
                Err(error) => Err(error),
            });
            if used.await?.as_deref() == Some(volume.as_str()) {
                self.let_go_of_named(&clone, volume.as_str()).await?;
            }
        } else if spec.namespace == golden::GOLDEN {
            let Ok(image) = spec.image.parse::<GoldenImageName>() else { return Ok(()) };
            let built = self.storage.run(move |store| match store.golden_image(&image) {
                Ok(image) => Ok(image.record.builder.map(|builder| builder.volume)),
                Err(golden::Error::NoImage(_) | golden::Error::Foreign(_)) => Ok(None),
                Err(error) => Err(error),
            });
            if built.await?.as_deref() == Some(volume.as_str()) {
                self.let_go_of_build(spec).await?;
            }
        }
        Ok(())
    }

    /// A build is unmounted with everything written, and its free space given back; the image stays.
    pub(crate) async fn let_go_of_build(&self, spec: &volume::ImageSpec) -> Result<Removed, UnpublishError> {
        let (node, image) = (self.node.clone(), spec.clone());
        let closed = blocking(move || -> Result<(), volume::Error> {
            if elsewhere(&node, &image)?.is_some() {
                return Ok(());
            }
            if let Err(error) = node.trim(&image) {
                tracing::info!(%image, %error, "not trimmed");
            }
            node.close(&image)
        });
        match closed.await {
            // The pod goes all the same; nobody seals what is still open.
            Err(error) if error.is_busy() => Ok(self.remover.quarantined(spec, error.to_string())),
            other => Ok(other.map(|()| Removed::Gone)?),
        }
    }
}

impl From<GaveUp> for UnpublishError {
    fn from(gave_up: GaveUp) -> Self {
        match gave_up {
            GaveUp::TooLate => Self::Pending,
            GaveUp::Stopping => Self::Stopping,
        }
    }
}
