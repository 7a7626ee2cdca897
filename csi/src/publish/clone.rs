//! Clones that end with their pod: the usual ones, and those on which a sealed image is verified.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aldaas_api::GoldenImageName;
use aldaas_api::context::WantedClone;
use aldaas_golden::{self as golden, State};
use fail::fail_point;
use tokio::time::{Instant, sleep};

use super::{GaveUp, How, PublishError, PublishRequest, Publisher, Ready, choose};
use crate::blocking::blocking;
use crate::ports::Database;

/// How long one call waits for a seal: an ingest that is given up meanwhile waits for that call.
const SEAL: Duration = Duration::from_secs(20);
/// How often is looked whether an image is sealed.
const POLL: Duration = Duration::from_millis(20);

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

    /// A clone of a sealed image that is not verified yet, mounted. Its pod may have been made ahead of the seal, which is waited for.
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
        self.until_sealed(image, deadline).await?;
        let image = image.clone();
        self.make_and_open(request, database, deadline, made, move |store| {
            store.ensure_clone(&store.golden_image(&image)?, &ask)
        })
        .await
    }

    /// As long as there is time. Whatever else it is by then is for the clone to say.
    async fn until_sealed(&self, image: &GoldenImageName, deadline: Instant) -> Result<(), PublishError> {
        let deadline = deadline.min(Instant::now() + SEAL);
        loop {
            let name = image.clone();
            let looked = self.storage.run(move |store| Ok(store.golden_image(&name)?.record.state)).await?;
            if looked != State::Candidate {
                return Ok(());
            }
            if Instant::now() + POLL > deadline {
                return Err(PublishError::NotSealed { image: image.clone() });
            }
            if self.wait(deadline, sleep(POLL)).await == Err(GaveUp::Stopping) {
                return Err(PublishError::Stopping);
            }
        }
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
