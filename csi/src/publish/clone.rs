//! Clones that end with their pod: the usual ones, and those on which a sealed image is verified.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aldaas_api::GoldenImageName;
use aldaas_api::context::WantedClone;
use aldaas_golden as golden;
use fail::fail_point;
use tokio::time::Instant;

use super::{How, PublishError, PublishRequest, Publisher, Ready, choose};
use crate::blocking::blocking;
use crate::ports::Database;

impl Publisher {
    /// A clone of a ready image for this pod alone, mounted.
    pub(crate) async fn clone_for_pod(
        &self,
        request: &PublishRequest,
        wanted: &WantedClone,
        database: &Database,
        deadline: Instant,
        made: &AtomicBool,
    ) -> Result<Ready, PublishError> {
        let ttl = wanted.ttl.map(aldaas_api::Ttl::duration).or(database.clones.ttl);
        let ask = self.ask(request, golden::Purpose::Pod, ttl, database);
        let wanted = wanted.clone();
        self.make_and_open(request, database, deadline, made, move |store| {
            choose::find_or_make(store, &wanted, &ask)
        })
        .await
    }

    /// A clone of a sealed image that is not verified yet, mounted.
    pub(crate) async fn candidate_for_pod(
        &self,
        request: &PublishRequest,
        image: &GoldenImageName,
        database: &Database,
        deadline: Instant,
        made: &AtomicBool,
    ) -> Result<Ready, PublishError> {
        let ask = golden::CloneRequest {
            unverified: true,
            ..self.ask(request, golden::Purpose::Pod, None, database)
        };
        let image = image.clone();
        self.make_and_open(request, database, deadline, made, move |store| {
            store.ensure_clone(&store.golden_image(&image)?, &ask)
        })
        .await
    }

    async fn make_and_open(
        &self,
        request: &PublishRequest,
        database: &Database,
        deadline: Instant,
        made: &AtomicBool,
        make: impl Fn(&golden::Store) -> golden::Result<golden::Ensured> + Send + Sync + 'static,
    ) -> Result<Ready, PublishError> {
        let _turn = self.turn(deadline).await?;
        // What serves images here may have to be started: beside the clone that takes no time.
        let node = self.node.clone();
        let prepared = tokio::spawn(blocking(move || node.prepare()));
        let ensured = self.step("clone", async { Ok(self.storage.run(make).await?) }).await;
        if let Ok(Err(error)) = prepared.await {
            tracing::debug!(%error, "attaching tries again");
        }
        let clone = match ensured {
            Ok(ensured) => {
                made.store(ensured.made, Ordering::Relaxed);
                ensured.clone
            }
            Err(error) => {
                self.tidy();
                return Err(error);
            }
        };
        fail_point!("csi::after-clone");
        let how = How { read_only: request.read_only, own_client: false };
        self.open(self.spec_of(request), &clone.record.golden_image, how, database).await
    }

    /// Ends what was started for an attach that did not come, by this process or by one that was killed.
    pub fn tidy(&self) {
        let node = self.node.clone();
        tokio::spawn(blocking(move || {
            if let Err(error) = node.settle() {
                tracing::debug!(%error, "the FUSE server goes on");
            }
        }));
    }

    pub(crate) fn ask(
        &self,
        request: &PublishRequest,
        purpose: golden::Purpose,
        ttl: Option<Duration>,
        database: &Database,
    ) -> golden::CloneRequest {
        golden::CloneRequest {
            name: request.volume.handle(),
            purpose,
            holder: None,
            object_size: database.clones.object_size,
            pod: Some(self.pod_use(request, ttl)),
            unverified: false,
        }
    }
}
