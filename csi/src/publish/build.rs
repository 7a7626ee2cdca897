//! Blank images in which an ingest Job builds a golden image. They are never removed with their pod: what becomes of them is
//! the controller's to decide.

use aldaas_api::GoldenImageName;
use aldaas_golden as golden;
use aldaas_volume as volume;
use fail::fail_point;
use tokio::time::Instant;

use super::{PublishError, PublishRequest, Publisher, Ready, UnpublishError, elsewhere, marker};
use crate::blocking::blocking;
use crate::ports::Database;

impl Publisher {
    /// The candidate that this pod builds, mounted; with a new file system on it if it was made just now.
    pub(crate) async fn build_for_pod(
        &self,
        request: &PublishRequest,
        image: &GoldenImageName,
        database: &Database,
        deadline: Instant,
    ) -> Result<Ready, PublishError> {
        let _turn = self.turn(deadline).await?;
        let blank = self.ensure_blank(request, image, database).await?;
        fail_point!("csi::after-clone");
        if !blank.made {
            let (node, spec) = (self.node.clone(), self.spec_of(request));
            if let Some(target) = blocking(move || elsewhere(&node, &spec)).await? {
                return Err(PublishError::PublishedElsewhere { target });
            }
            match self.open_built(request, image).await {
                Err(PublishError::Volume(
                    volume::Error::NoFilesystem { .. }
                    | volume::Error::NoMarker { .. }
                    | volume::Error::BadMarker { .. },
                )) => {}
                other => return other,
            }
            // The marker is written last: an earlier try was killed while it made the file system. mkfs is for what is blank.
            let (node, spec) = (self.node.clone(), self.spec_of(request));
            blocking(move || node.close(&spec)).await?;
            let (name, used) = (image.clone(), self.pod_use(request, None));
            self.storage.run(move |store| store.discard_blank(&name, &used)).await?;
            self.ensure_blank(request, image, database).await?;
        }
        let (node, spec, marker) = (self.node.clone(), self.spec_of(request), marker(image));
        let (filesystem, owner) = (database.storage.filesystem, database.storage.owner);
        let made =
            blocking(move || node.create(&spec, &volume::NewVolume { filesystem, marker: &marker, owner }));
        let made = self.step("attach", async { Ok(Ready { mounted: made.await?, held: None }) }).await;
        if made.as_ref().is_err_and(PublishError::is_final) {
            let (name, used) = (image.clone(), self.pod_use(request, None));
            self.storage.run(move |store| store.discard_blank(&name, &used)).await?;
        }
        made
    }

    async fn ensure_blank(
        &self,
        request: &PublishRequest,
        image: &GoldenImageName,
        database: &Database,
    ) -> Result<golden::Blank, PublishError> {
        let pod = &request.context.pod;
        let source = format!("pod {}/{}", pod.namespace, pod.name);
        let (name, size, used) = (image.clone(), database.storage.size, self.pod_use(request, None));
        let made = self.storage.run(move |store| store.ensure_blank(&name, size, &source, &used));
        self.step("clone", async { Ok(made.await?) }).await
    }

    async fn open_built(
        &self,
        request: &PublishRequest,
        image: &GoldenImageName,
    ) -> Result<Ready, PublishError> {
        let (node, spec, marker) = (self.node.clone(), self.spec_of(request), marker(image));
        let opened = blocking(move || node.open(&spec, &volume::OpenVolume::writable(&marker)));
        self.step("attach", async { Ok(Ready { mounted: opened.await?, held: None }) }).await
    }

    /// Takes the mount away, if it is of this pod's build.
    pub(crate) async fn undo_build(
        &self,
        request: &PublishRequest,
        image: &GoldenImageName,
    ) -> Result<(), UnpublishError> {
        let (name, volume) = (image.clone(), request.volume.to_string());
        let ours = self.storage.run(move |store| match store.golden_image(&name) {
            Ok(image) => Ok(image.record.builder.is_some_and(|builder| builder.volume == volume)),
            Err(golden::Error::NoImage(_) | golden::Error::Foreign(_)) => Ok(false),
            Err(error) => Err(error),
        });
        if ours.await? {
            let (node, spec) = (self.node.clone(), self.spec_of(request));
            blocking(move || match elsewhere(&node, &spec)? {
                Some(_) => Ok(()),
                None => node.close(&spec),
            })
            .await?;
        }
        Ok(())
    }
}
