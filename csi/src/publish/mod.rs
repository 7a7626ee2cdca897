//! Publishing a volume: from what a pod asks for to its data in the pod's directory.
//!
//! ```text
//! look at the target ─▶ access ─▶ clone ─▶ attach, mount, check the marker ─▶ bind data/
//! ```
//!
//! Every step finds what an earlier try left of it, so that a call may be repeated after a failure or a crash anywhere. Where
//! the answer is final, kubelet may never call again: then everything is undone first. Where it is not, what is done stays for
//! the next try.
//!
//! - [`error`]: what can go wrong, and whether it is final
//! - [`choose`]: which golden image is meant
//! - [`clone`](mod@clone): clones that end with their pod; [`named`]: those that outlive it; [`build`]: blank images
//! - [`unpublish`]: the way back

pub mod build;
pub mod choose;
pub mod clone;
pub mod error;
pub mod named;
pub mod unpublish;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aldaas_api::context::{VolumeContext, Wanted};
use aldaas_api::{CloneName, GoldenImageName, VolumeId};
use aldaas_golden as golden;
use aldaas_volume::{self as volume, mountinfo};
use fail::fail_point;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

pub use error::{PublishError, UnpublishError};

use crate::access::{self, Own};
use crate::blocking::blocking;
use crate::guard::{Entry, Guards};
use crate::metrics::{self, Metrics, Operation};
use crate::ports::{Cluster, Database, Directory};
use crate::removal::Remover;
use crate::storage::Storage;
use crate::target::Target;

/// What is to be published where.
#[derive(Clone, Debug)]
pub struct PublishRequest {
    /// The volume.
    pub volume: VolumeId,
    /// Where it is to appear.
    pub target: Target,
    /// What it is to hold, and for which pod.
    pub context: VolumeContext,
    /// Nothing may be written to it.
    pub read_only: bool,
    /// The file system that the pod expects, if it says so.
    pub filesystem: Option<volume::Filesystem>,
}

/// Publishes volumes and takes them back.
pub struct Publisher {
    pub(crate) storage: Arc<Storage>,
    pub(crate) node: Arc<volume::Node>,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) guards: Arc<Guards>,
    pub(crate) remover: Arc<Remover>,
    pub(crate) metrics: Arc<Metrics>,
    own: Own,
    node_name: String,
    lease: Duration,
    workers: Semaphore,
    stop: CancellationToken,
    /// For how long named clones that this node wants were seen in use by nobody who says so.
    alone: Mutex<HashMap<CloneName, golden::Alone>>,
}

/// What a [`Publisher`] works with.
pub struct Parts {
    /// Ceph.
    pub storage: Arc<Storage>,
    /// Devices and mounts.
    pub node: Arc<volume::Node>,
    /// Who may clone what.
    pub directory: Arc<dyn Directory>,
    /// Which nodes live.
    pub cluster: Arc<dyn Cluster>,
    /// Shared with the reaper.
    pub guards: Arc<Guards>,
    /// Shared with the reaper.
    pub remover: Arc<Remover>,
    /// Where it is counted.
    pub metrics: Arc<Metrics>,
    /// Who we are in Kubernetes.
    pub own: Own,
    /// This node's name in Kubernetes.
    pub node_name: String,
    /// How long a node may be silent before others may take its named clones.
    pub lease: Duration,
    /// How many volumes are worked on at once.
    pub workers: usize,
    /// Cancelled when the plugin is told to stop: who waits for others is sent away then.
    pub stop: CancellationToken,
}

/// Why nobody waits any longer for somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GaveUp {
    TooLate,
    Stopping,
}

/// A mounted volume, and what else its publishing needs to know.
pub(crate) struct Ready {
    mounted: volume::Mounted,
    /// Until it is bound nothing shows that somebody has it: of what others may take meanwhile, the right to work on it.
    held: Option<Entry>,
}

impl Publisher {
    /// Works with these.
    pub fn new(parts: Parts) -> Self {
        Self {
            storage: parts.storage,
            node: parts.node,
            directory: parts.directory,
            cluster: parts.cluster,
            guards: parts.guards,
            remover: parts.remover,
            metrics: parts.metrics,
            own: parts.own,
            node_name: parts.node_name,
            lease: parts.lease,
            workers: Semaphore::new(parts.workers),
            stop: parts.stop,
            alone: Mutex::default(),
        }
    }

    /// Publishes a volume; one that is published in the same way is fine. What waits for others gives up at `deadline`; what
    /// was begun goes on.
    ///
    /// # Errors
    /// [`PublishError`]; nothing is left of what [is final](PublishError::is_final).
    pub async fn publish(&self, request: &PublishRequest, deadline: Instant) -> Result<(), PublishError> {
        let _entry = self.guards.try_enter(&request.volume.handle()).ok_or(PublishError::Pending)?;
        let request =
            &PublishRequest { read_only: request.read_only || self.is_read_only(request), ..request.clone() };
        if self.is_published(request).await? {
            return Ok(());
        }
        let made = AtomicBool::new(false);
        match self.publish_anew(request, deadline, &made).await {
            Err(error) if error.is_final() => Err(self.undo(request, error, made.into_inner()).await),
            other => other,
        }
    }

    /// `made`: set when a clone is made by this call.
    async fn publish_anew(
        &self,
        request: &PublishRequest,
        deadline: Instant,
        made: &AtomicBool,
    ) -> Result<(), PublishError> {
        let database = access::decide(&request.context, &*self.directory, &self.own)?;
        if let Some(asked) = request.filesystem.filter(|asked| *asked != database.storage.filesystem) {
            return Err(PublishError::OtherFilesystem { asked, is: database.storage.filesystem });
        }
        let ready = match &request.context.wanted {
            Wanted::Clone(wanted) => match &wanted.name {
                None => self.clone_for_pod(request, wanted, &database, deadline, made).await?,
                Some(name) => self.take_named(request, wanted, name, &database, deadline).await?,
            },
            Wanted::Candidate(image) => {
                self.candidate_for_pod(request, image, &database, deadline, made).await?
            }
            Wanted::Build(image) => self.build_for_pod(request, image, &database, deadline).await?,
        };
        fail_point!("csi::after-open");
        let (target, Ready { mounted, held }) = (request.target.clone(), ready);
        let bind = move || {
            let _held = held;
            target.bind(&mounted)
        };
        self.step("bind", async { Ok(blocking(bind).await?) }).await
    }

    /// Whether the database's clones can't be written to. While nothing is known of it, nothing is published either.
    fn is_read_only(&self, request: &PublishRequest) -> bool {
        let Wanted::Clone(wanted) = &request.context.wanted else { return false };
        let database = self.directory.database(&wanted.database).ok().flatten();
        database.is_some_and(|database| database.clones.read_only)
    }

    /// Whether it is there already, as it is asked for now. An error where something else is there.
    async fn is_published(&self, request: &PublishRequest) -> Result<bool, PublishError> {
        let (target, node, request_) = (request.target.clone(), self.node.clone(), request.clone());
        let pool = self.storage.pool().to_string();
        let found = blocking(move || -> Result<_, PublishError> {
            let Some(spec) = target.refuse_taken(target.look(&node)?)? else {
                return refuse_elsewhere(&node, &pool, &request_).map(|()| None);
            };
            let read_only = mountinfo::top_at(&target.path())?.is_some_and(|mount| mount.is_read_only());
            Ok(Some((spec, read_only)))
        })
        .await?;
        let Some((spec, read_only)) = found else { return Ok(false) };
        let other = |what| PublishError::PublishedOtherwise { target: request.target.path(), what };
        if read_only != request.read_only {
            return Err(other(if read_only { "read-only" } else { "writable" }));
        }
        if spec != self.spec_of(request) {
            return Err(other("another volume"));
        }
        match &request.context.wanted {
            Wanted::Build(_) => Ok(true),
            Wanted::Candidate(image) => match self.clone_is(&spec, |of| of == image).await? {
                true => Ok(true),
                false => Err(other("a clone of another golden image")),
            },
            Wanted::Clone(wanted) => {
                let wanted = wanted.clone();
                match self.clone_is(&spec, move |of| choose::fits(of, &wanted)).await? {
                    true => Ok(true),
                    false => Err(other("a clone of another golden image")),
                }
            }
        }
    }

    async fn clone_is(
        &self,
        spec: &volume::ImageSpec,
        wanted: impl Fn(&GoldenImageName) -> bool,
    ) -> Result<bool, PublishError> {
        let Ok(name) = spec.image.parse::<CloneName>() else { return Ok(false) };
        let clone = self.storage.run(move |store| store.find_clone(&name)).await?;
        Ok(wanted(&clone.record.golden_image))
    }

    /// The image that carries what this request asks for.
    fn spec_of(&self, request: &PublishRequest) -> volume::ImageSpec {
        spec_of(self.storage.pool().as_str(), request)
    }

    /// Undoes what this call did, because nobody may come again for it. A clone that an earlier call made may hold the pod's data
    /// from before its node was restarted: it stays, and goes with its pod.
    async fn undo(&self, request: &PublishRequest, error: PublishError, made: bool) -> PublishError {
        let undone = match &request.context.wanted {
            Wanted::Clone(wanted) if wanted.name.is_some() => self.undo_named(request).await,
            Wanted::Build(image) => self.undo_build(request, image).await,
            Wanted::Clone(_) | Wanted::Candidate(_) if !made => {
                let (node, spec) = (self.node.clone(), self.spec_of(request));
                blocking(move || node.close(&spec)).await.map_err(UnpublishError::from)
            }
            Wanted::Clone(_) | Wanted::Candidate(_) => {
                self.remover.remove(&request.volume.handle()).await.map(drop).map_err(UnpublishError::from)
            }
        };
        match undone {
            Ok(()) => error,
            Err(undo) => PublishError::NotUndone { error: Box::new(error), undo: Box::new(undo) },
        }
    }

    /// Waits for somebody else, until `deadline` or until the plugin is told to stop: nothing was begun yet, and kubelet asks again.
    pub(crate) async fn wait<T>(
        &self,
        deadline: Instant,
        what: impl Future<Output = T>,
    ) -> Result<T, GaveUp> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(GaveUp::Stopping),
            done = timeout_at(deadline, what) => done.map_err(|_| GaveUp::TooLate),
        }
    }

    /// Waits for its turn to work.
    pub(crate) async fn turn(
        &self,
        deadline: Instant,
    ) -> Result<tokio::sync::SemaphorePermit<'_>, PublishError> {
        match self.wait(deadline, self.workers.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(GaveUp::TooLate) => Err(PublishError::TooLate),
            Err(GaveUp::Stopping) => Err(PublishError::Stopping),
        }
    }

    /// One step of a publish, timed.
    pub(crate) async fn step<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, PublishError>>,
    ) -> Result<T, PublishError> {
        let started = std::time::Instant::now();
        let done = work.await;
        let outcome = if done.is_ok() { metrics::OK } else { "failed" };
        self.metrics.step(Operation::Publish, name, outcome, started.elapsed());
        done
    }

    /// Who uses a clone, for its record.
    pub(crate) fn pod_use(&self, request: &PublishRequest, ttl: Option<Duration>) -> golden::PodUse {
        let pod = &request.context.pod;
        let clone_name = match &request.context.wanted {
            Wanted::Clone(wanted) => wanted.name.as_ref().map(ToString::to_string),
            _ => None,
        };
        golden::PodUse {
            node: self.node_name.clone(),
            volume: request.volume.to_string(),
            namespace: pod.namespace.clone(),
            pod: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            ttl,
            clone_name,
        }
    }

    /// Attaches and mounts an image that is a golden image's clone.
    pub(crate) async fn open(
        &self,
        spec: volume::ImageSpec,
        of: &GoldenImageName,
        how: How,
        database: &Database,
    ) -> Result<Ready, PublishError> {
        let (node, marker) = (self.node.clone(), marker(of));
        let mount_options = database.clones.mount_options.clone();
        let opened = blocking(move || {
            let want = volume::OpenVolume {
                expect: &marker,
                read_only: how.read_only,
                own_client: how.own_client,
                mount_options,
            };
            match node.open(&spec, &want) {
                // Its last user did not unmount it, and a file system is repaired by mounting it writable.
                Err(volume::Error::NeedsRecovery { .. }) => {
                    node.open(&spec, &volume::OpenVolume { read_only: false, ..want.clone() })?;
                    node.close(&spec)?;
                    node.open(&spec, &want)
                }
                other => other,
            }
        });
        self.step("attach", async { Ok(Ready { mounted: opened.await?, held: None }) }).await
    }
}

/// How a clone is attached.
#[derive(Clone, Copy)]
pub(crate) struct How {
    pub read_only: bool,
    pub own_client: bool,
}

/// What proves that a file system is of this golden image.
pub(crate) fn marker(image: &GoldenImageName) -> volume::Marker {
    volume::Marker { golden_image: image.to_string(), database: image.database().to_string() }
}

fn spec_of(pool: &str, request: &PublishRequest) -> volume::ImageSpec {
    match &request.context.wanted {
        Wanted::Build(image) => volume::ImageSpec::new(pool, golden::GOLDEN, image.to_string()),
        Wanted::Clone(aldaas_api::context::WantedClone { name: Some(name), .. }) => {
            let clone = aldaas_api::volume_id::named_clone(&request.context.pod.namespace, name);
            volume::ImageSpec::new(pool, golden::CLONE, clone.as_str())
        }
        Wanted::Clone(_) | Wanted::Candidate(_) => {
            volume::ImageSpec::new(pool, golden::CLONE, request.volume.handle().as_str())
        }
    }
}

/// A volume of one pod is published at one place. (A named clone, or a build, may be in use by another pod: that comes later.)
fn refuse_elsewhere(node: &volume::Node, pool: &str, request: &PublishRequest) -> Result<(), PublishError> {
    match &request.context.wanted {
        Wanted::Build(_) => return Ok(()),
        Wanted::Clone(wanted) if wanted.name.is_some() => return Ok(()),
        Wanted::Clone(_) | Wanted::Candidate(_) => {}
    }
    match elsewhere(node, &spec_of(pool, request))? {
        Some(target) => Err(PublishError::PublishedElsewhere { target }),
        None => Ok(()),
    }
}

/// Where a volume is bound for a pod.
pub(crate) fn elsewhere(
    node: &volume::Node,
    spec: &volume::ImageSpec,
) -> Result<Option<std::path::PathBuf>, volume::Error> {
    let found = node.find(spec)?;
    Ok(found.and_then(|found| found.mounts.into_iter().find(|mount| !mount.starts_with(node.run_dir()))))
}
