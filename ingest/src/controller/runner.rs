//! Does what was decided. Each action may be repeated, whole or in part.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aldaas_api::kinds::{Database, DatabaseStatus, GoldenImage, GoldenImageStatus, SourceObject};
use aldaas_api::manifest::Manifest;
use aldaas_api::{DatabaseName, GoldenImageName};
use aldaas_daemon::election::Election;
use aldaas_golden as golden;
use aldaas_golden::record::GoldenRecord;
use fail::fail_point;
use jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::{Resource, ResourceExt as _};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use super::config::JobSettings;
use super::database_status::source_object;
use super::jobs::{self, Order};
use super::metrics::Metrics;
use super::model::{Dump, Image, Source, Task, View};
use super::names::{DATABASE, FINALIZER, INGEST};
use super::plan::{Action, End};
use super::read::{self, Taken};
use super::recorder::Tell;
use super::status::{self, Mark};
use super::storage::Storage;
use super::watches::Watches;
use super::writes::{apply_status, exists_is_fine, missing_is_fine};

/// How long a container may run on after its last word. kubelet looks whether something of a deleted pod runs at once, and then only
/// every two seconds.
const LAST_WORD_TO_END: Duration = Duration::from_millis(80);
/// How long, and how often, a node is waited for that is about to let go of what it built.
const LETTING_GO: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(15));

/// Why an action was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// This replica is not the one any more.
    #[error("another replica acts now")]
    NotElected,
    /// Kubernetes.
    #[error("{}", aldaas_daemon::kubernetes::say(.0))]
    Kube(#[from] kube::Error),
    /// Ceph.
    #[error(transparent)]
    Golden(#[from] golden::Error),
    /// What was decided upon is not what is there.
    #[error("{0} changed meanwhile")]
    Stale(&'static str),
    /// A Job can't be made of what the Database says.
    #[error("the Database makes no Job: {0}")]
    NoJob(#[from] serde_json::Error),
}

impl ActError {
    /// Whether what was to be done failed before anything of it was written on an object: Ceph always comes first.
    pub fn leaves_no_mark(&self) -> bool {
        matches!(self, Self::Golden(_) | Self::NoJob(_))
    }

    /// Whether it is only a matter of moments.
    pub fn is_soon_over(&self) -> bool {
        match self {
            Self::Golden(golden::Error::InUse { .. }) | Self::Stale(_) => true,
            Self::Kube(kube::Error::Api(status)) => status.code == 409,
            _ => false,
        }
    }
}

/// What actions work with.
pub struct Tools {
    /// Kubernetes.
    pub watches: Arc<Watches>,
    /// Ceph.
    pub storage: Arc<Storage>,
    /// Whether we may.
    pub election: Arc<Election>,
    /// Events.
    pub tell: Tell,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What Jobs are made with.
    pub jobs: JobSettings,
}

/// One database's actions.
pub struct Runner<'a> {
    /// With what.
    pub tools: &'a Tools,
    /// Its name.
    pub name: &'a DatabaseName,
    /// What was decided upon.
    pub view: &'a View,
    /// Its object.
    pub database: Option<&'a Database>,
    /// The golden images' objects, as they were last written or seen.
    pub objects: HashMap<GoldenImageName, GoldenImage>,
    /// Their records in RBD.
    pub records: &'a HashMap<GoldenImageName, GoldenRecord>,
    /// What became known to be restored since they were read.
    pub restored: Option<(GoldenImageName, Box<Manifest>)>,
    /// When all this was observed.
    pub since: Instant,
}

type Acted = Result<(), ActError>;

impl Runner<'_> {
    /// Whether this replica still is the one that acts.
    ///
    /// # Errors
    /// When it is not.
    pub fn allowed(&self) -> Acted {
        if self.tools.election.is_won() { Ok(()) } else { Err(ActError::NotElected) }
    }

    /// Does one thing.
    ///
    /// # Errors
    /// When it could not be done, or only in part.
    pub async fn act(&mut self, action: Action) -> Acted {
        self.allowed()?;
        match action {
            Action::Look => Ok(()),
            Action::Take(image, dump) => self.take(image, &dump).await,
            Action::Strike(why) => self.strike(why).await,
            Action::Begin(image, dump) => self.begin(image, &dump).await,
            Action::Rebuild(image, source) => self.rebuild(image, source).await,
            Action::Start(image, task, attempt) => self.start(image, task, attempt).await,
            Action::Restored(image, pod_uid, manifest) => {
                let (name, did) = (image.clone(), manifest.clone());
                self.tools.storage.run(move |store| store.restored(&name, &pod_uid, &did)).await?;
                fail_point!("ingest::controller-after-restored");
                self.restored = Some((image, manifest));
                Ok(())
            }
            Action::CheckAhead(image) => {
                if let Err(error) = self.start(image, Task::Check, 1).await {
                    tracing::debug!(%error, "the check begins after the seal");
                }
                Ok(())
            }
            Action::LetGo(image, pod_uid) => {
                sleep_until(self.since + LAST_WORD_TO_END).await;
                self.remove_job(&image, Task::Build).await?;
                self.remove_pod(&pod_uid).await
            }
            Action::Seal(image, pod_uid, manifest) => {
                self.seal(&image, &pod_uid, &manifest).await?;
                fail_point!("ingest::controller-after-seal");
                tell_times(&image, "sealed", &manifest);
                for (step, milliseconds) in &manifest.steps {
                    self.tools.metrics.step(&step.to_string(), seconds(*milliseconds));
                }
                Ok(())
            }
            Action::Verified(image, manifest) => self.verified(image, *manifest).await,
            Action::Retry(image, task, attempt, at, why) => {
                let again = task_word(task);
                let told = format!("{again} failed and is tried again: {why}");
                self.mark(&image, Mark::Retry(attempt, at, why)).await?;
                fail_point!("ingest::controller-after-retry");
                self.tell_image(&image, true, "Retrying", &told);
                self.tools.metrics.retried(self.name);
                self.remove_job(&image, task).await
            }
            Action::Fail(image, end, why) => self.fail(image, end, why).await,
            Action::Discard(image) => {
                self.tools.storage.run(move |store| store.discard_built(&image)).await?;
                fail_point!("ingest::controller-after-discard");
                Ok(())
            }
            Action::RemoveJob(image, task) => self.remove_job(&image, task).await,
            Action::Retire { image, force, why } => self.retire(image, force, why).await,
            Action::Forget(image) => self.forget(&image).await,
        }
    }

    /// As soon as the node has let go of it.
    async fn seal(&self, image: &GoldenImageName, pod_uid: &str, manifest: &Manifest) -> Acted {
        let until = Instant::now() + LETTING_GO.0;
        loop {
            self.allowed()?;
            let (name, uid, evidence) = (image.clone(), pod_uid.to_owned(), manifest.clone());
            match self.tools.storage.run(move |store| store.seal_built(&name, &uid, &evidence)).await {
                Err(golden::Error::InUse { .. }) if Instant::now() < until => sleep(LETTING_GO.1).await,
                sealed => return Ok(sealed?),
            }
        }
    }

    async fn take(&self, image: GoldenImageName, dump: &Dump) -> Acted {
        let taken = Taken { image, dump: source_object(dump) };
        self.annotate(&json!(serde_json::to_string(&taken)?)).await?;
        fail_point!("ingest::controller-after-take");
        Ok(())
    }

    async fn strike(&self, why: Option<String>) -> Acted {
        if let (Some(why), Some(database)) = (why, self.database) {
            self.tools.tell.warning(&database.object_ref(&()), "IngestRefused", &why);
        }
        self.annotate(&serde_json::Value::Null).await
    }

    /// Writes the request's annotation, if nobody has changed it since.
    async fn annotate(&self, value: &serde_json::Value) -> Acted {
        let Some(database) = self.database else { return Ok(()) };
        let metadata = json!({
            "resourceVersion": database.resource_version(), "annotations": { INGEST: value },
        });
        let watches = &self.tools.watches;
        let api = &watches.apis.databases;
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let written = api.patch(self.name.as_str(), &PatchParams::default(), &patch).await?;
        watches.databases.settle(&written).await;
        Ok(())
    }

    async fn begin(&mut self, image: GoldenImageName, dump: &Dump) -> Acted {
        let watches = self.tools.watches.clone();
        // Asked of the server itself: nothing may be begun twice because a watch is late.
        let of_ours = ListParams::default().labels(&format!("{DATABASE}={}", self.name));
        for object in watches.apis.images.list(&of_ours).await? {
            if !self.view.images.keys().any(|known| known.to_string() == object.name_any())
                && object.name_any() != image.to_string()
            {
                return Err(ActError::Stale("the golden images"));
            }
        }
        self.make_object(&image, source_object(dump)).await?;
        fail_point!("ingest::controller-after-begin");
        self.note_dump(dump).await?;
        fail_point!("ingest::controller-after-watermark");
        self.mark(&image, Mark::Begun).await?;
        let told = format!("{} is made of {}", image, dump.source.location);
        self.tell_image(&image, false, "IngestStarted", &told);
        self.tell_database(false, "IngestStarted", &told);
        Ok(())
    }

    /// Only newer dumps are taken from now on.
    async fn note_dump(&self, dump: &Dump) -> Acted {
        let Some(database) = self.database else { return Ok(()) };
        let mut status = database.status.clone().unwrap_or_default();
        let before = status.last_dump.as_ref().and_then(read::dump);
        status.last_source = Some(dump.source.location.clone());
        // An older one, asked for by hand, opens the door to nothing.
        if before.is_none_or(|before| before.modified <= dump.modified) {
            status.last_dump = Some(source_object(dump));
        }
        self.write_database(&status).await
    }

    /// Writes what a database says of itself.
    ///
    /// # Errors
    /// When the API server does not take it.
    pub async fn write_database(&self, status: &DatabaseStatus) -> Acted {
        let watches = &self.tools.watches;
        let kind = Database::kind(&());
        let written = apply_status(&watches.apis.any_databases, &kind, self.name.as_str(), status).await?;
        if let Some(written) = written {
            watches.databases.settle(&written).await;
        }
        Ok(())
    }

    async fn make_object(&mut self, image: &GoldenImageName, source: SourceObject) -> Acted {
        let watches = &self.tools.watches;
        let object: GoldenImage = serde_json::from_value(json!({
            "apiVersion": GoldenImage::api_version(&()), "kind": GoldenImage::kind(&()),
            "metadata": {
                "name": image.to_string(), "finalizers": [FINALIZER], "labels": { DATABASE: image.database().to_string() },
            },
            "spec": { "database": image.database().to_string(), "source": source },
        }))?;
        let made = match watches.apis.images.create(&PostParams::default(), &object).await {
            // By an earlier try that was cut short.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                watches.apis.images.get(&image.to_string()).await?
            }
            other => other?,
        };
        watches.images.settle(&made).await;
        watches.images.until(&image.to_string(), |known| known.is_some()).await;
        self.objects.insert(image.clone(), made);
        Ok(())
    }

    async fn rebuild(&mut self, image: GoldenImageName, source: Option<Source>) -> Acted {
        if self.objects.contains_key(&image) {
            return self.set_finalizers(&image, &[FINALIZER]).await;
        }
        let record = self.records.get(&image);
        let of_record = record.map(|record| match &record.manifest {
            Some(manifest) => SourceObject {
                location: manifest.source.location.clone(),
                etag: manifest.source.etag.clone(),
                size: i64::try_from(manifest.source.size).ok(),
                last_modified: None,
            },
            None => SourceObject { location: record.source.clone(), ..SourceObject::default() },
        });
        let of_source = source.map(|source| SourceObject {
            location: source.location,
            etag: source.etag,
            ..SourceObject::default()
        });
        let mut source = of_source.or(of_record).unwrap_or_default();
        if source.location.is_empty() {
            source.location = "unknown".to_owned();
        }
        self.make_object(&image, source).await
    }

    async fn start(&mut self, image: GoldenImageName, task: Task, attempt: u32) -> Acted {
        let (Some(database), Some(object)) = (self.database, self.objects.get(&image)) else { return Ok(()) };
        let order = Order { image: &image, database, task, attempt, source: &object.spec.source };
        let job = jobs::job(&order, &self.tools.jobs)?;
        let watches = &self.tools.watches;
        if task == Task::Check {
            let now = self.restored.as_ref().filter(|(of, _)| *of == image).map(|(_, manifest)| &**manifest);
            let before = || self.records.get(&image)?.manifest.as_ref();
            let Some(manifest) = now.or_else(before) else {
                let why = "what stands in Ceph of it can't be read: its manifest is missing".to_owned();
                return self.fail(image, End::Failed, why).await;
            };
            let mut evidence = jobs::evidence(&image, manifest)?;
            evidence.metadata.owner_references = object.owner_ref(&()).map(|owner| vec![owner]);
            exists_is_fine(watches.apis.config_maps.create(&PostParams::default(), &evidence).await)?;
            fail_point!("ingest::controller-after-evidence");
        }
        exists_is_fine(watches.apis.jobs.create(&PostParams::default(), &job).await)?;
        fail_point!("ingest::controller-after-start");
        watches.jobs.until(&jobs::name(&image, task), |known| known.is_some()).await;
        self.mark(&image, Mark::Started(task, attempt)).await
    }

    async fn verified(&mut self, image: GoldenImageName, manifest: Manifest) -> Acted {
        let name = image.clone();
        self.tools.storage.run(move |store| store.verified(&name)).await?;
        fail_point!("ingest::controller-after-verified");
        tell_times(&image, "verified", &manifest);
        for (step, milliseconds) in &manifest.steps {
            self.tools.metrics.step(&format!("verify-{step}"), seconds(*milliseconds));
        }
        self.mark(&image, Mark::Checked(Box::new(manifest))).await?;
        let begun = self.objects.get(&image).and_then(kube::ResourceExt::creation_timestamp);
        if let Some(begun) = begun {
            let took = Timestamp::now().duration_since(begun.0).as_secs_f64().max(0.0);
            self.tools.metrics.step("total", took);
        }
        let told = format!("{image} was verified on a clone, and is latest of {}", self.name);
        self.tell_image(&image, false, "Ready", &told);
        self.tell_database(false, "Ready", &told);
        self.tools.metrics.ended(self.name, "ready");
        Ok(())
    }

    async fn fail(&mut self, image: GoldenImageName, end: End, why: String) -> Acted {
        let known = self.view.images.get(&image);
        if known.is_some_and(|known| known.state().is_some() && known.is_built_by_a_pod()) {
            let (name, reason) = (image.clone(), why.clone());
            let done = self.tools.storage.run(move |store| match end {
                End::Failed => store.fail_built(&name, &reason),
                End::Overtaken => store.discard_built(&name),
            });
            match done.await {
                Err(golden::Error::NoImage(_)) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
            fail_point!("ingest::controller-after-fail");
        }
        let (warning, reason, outcome) = match end {
            End::Failed => (true, "IngestFailed", "failed"),
            End::Overtaken => (false, "Overtaken", "overtaken"),
        };
        self.mark(&image, Mark::Ended(end, why.clone())).await?;
        fail_point!("ingest::controller-after-ended");
        self.tell_image(&image, warning, reason, &why);
        self.tell_database(warning, reason, &format!("{image}: {why}"));
        self.tools.metrics.ended(self.name, outcome);
        Ok(())
    }

    /// The Job, its pod, and the manifest that was laid out for it. What it leaves is waited for by whoever needs it gone.
    async fn remove_job(&self, image: &GoldenImageName, task: Task) -> Acted {
        let (watches, name) = (&self.tools.watches, jobs::name(image, task));
        if task == Task::Check {
            missing_is_fine(watches.apis.config_maps.delete(&name, &DeleteParams::default()).await)?;
        }
        let Some(job) = watches.jobs.get(&name) else { return Ok(()) };
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Foreground),
            preconditions: Some(Preconditions { uid: job.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        missing_is_fine(watches.apis.jobs.delete(&name, &params).await)?;
        fail_point!("ingest::controller-after-job-removal");
        let goes = |job: Option<&k8s_openapi::api::batch::v1::Job>| {
            job.is_none_or(|job| job.metadata.deletion_timestamp.is_some())
        };
        watches.jobs.until(&name, goes).await;
        Ok(())
    }

    /// A pod that has said its last word, and whose Job is gone: at once. kubelet looks only once in a second whether a container has
    /// ended; but a pod that is gone it takes apart, and lets go of its volume, as soon as nothing of it runs.
    async fn remove_pod(&self, uid: &str) -> Acted {
        let watches = &self.tools.watches;
        let Some(pod) = watches.pods.get(uid) else { return Ok(()) };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        missing_is_fine(watches.apis.pods.delete(&pod.name_any(), &params).await)
    }

    async fn retire(&mut self, image: GoldenImageName, force: bool, why: &str) -> Acted {
        let name = image.clone();
        match self.tools.storage.run(move |store| store.retire(&name, force)).await {
            // Gone already, or the newest by now.
            Err(golden::Error::NoImage(_) | golden::Error::NewestReady(_)) => return Ok(()),
            other => drop(other?),
        }
        fail_point!("ingest::controller-after-retire");
        self.tell_image(&image, false, "Retired", &format!("it takes no new clones: {why}"));
        Ok(())
    }

    /// The object goes, and nothing of it is left in RBD.
    async fn forget(&mut self, image: &GoldenImageName) -> Acted {
        let watches = self.tools.watches.clone();
        let Some(object) = self.objects.get(image).cloned() else { return Ok(()) };
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        if object.metadata.deletion_timestamp.is_none() {
            missing_is_fine(watches.apis.images.delete(&image.to_string(), &params).await)?;
            fail_point!("ingest::controller-after-forget");
        }
        missing_is_fine(self.set_finalizers(image, &[]).await)?;
        let others = object.finalizers().iter().any(|finalizer| finalizer != FINALIZER);
        watches.images.until(&image.to_string(), |known| known.is_none() || others).await;
        self.objects.remove(image);
        Ok(())
    }

    /// Ours among the finalizers, or not; those of others stay.
    async fn set_finalizers(&mut self, image: &GoldenImageName, ours: &[&str]) -> Acted {
        let watches = &self.tools.watches;
        let now = watches.apis.images.get(&image.to_string()).await?;
        let others = now.finalizers().iter().map(String::as_str).filter(|finalizer| *finalizer != FINALIZER);
        let finalizers: Vec<&str> = others.chain(ours.iter().copied()).collect();
        let metadata = json!({ "resourceVersion": now.resource_version(), "finalizers": finalizers });
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let written = watches.apis.images.patch(&image.to_string(), &PatchParams::default(), &patch).await?;
        watches.images.settle(&written).await;
        self.objects.insert(image.clone(), written);
        Ok(())
    }

    /// Writes on an object what was decided.
    async fn mark(&mut self, image: &GoldenImageName, mark: Mark) -> Acted {
        let Some(object) = self.objects.get(image) else { return Ok(()) };
        let nothing = Image::default();
        let facts = status::Facts {
            image: self.view.images.get(image).unwrap_or(&nothing),
            record: self.records.get(image),
            clones: None,
            used: None,
            waiting: None,
            said: None,
            held: false,
            mark: Some(mark),
        };
        let old = object.status.clone().unwrap_or_default();
        let new = status::golden_image(&old, object.metadata.generation, &facts, Timestamp::now());
        self.write_image(image, &new).await
    }

    /// Writes what a golden image says of itself.
    ///
    /// # Errors
    /// When the API server does not take it.
    pub async fn write_image(&mut self, image: &GoldenImageName, status: &GoldenImageStatus) -> Acted {
        let watches = &self.tools.watches;
        let kind = GoldenImage::kind(&());
        let written = apply_status(&watches.apis.images, &kind, &image.to_string(), status).await?;
        if let Some(written) = written {
            watches.images.settle(&written).await;
            self.objects.insert(image.clone(), written);
        }
        Ok(())
    }

    fn tell_image(&self, image: &GoldenImageName, warning: bool, reason: &str, message: &str) {
        if let Some(object) = self.objects.get(image) {
            let about = object.object_ref(&());
            match warning {
                true => self.tools.tell.warning(&about, reason, message),
                false => self.tools.tell.normal(&about, reason, message),
            }
        }
    }

    fn tell_database(&self, warning: bool, reason: &str, message: &str) {
        if let Some(database) = self.database {
            let about = database.object_ref(&());
            match warning {
                true => self.tools.tell.warning(&about, reason, message),
                false => self.tools.tell.normal(&about, reason, message),
            }
        }
    }
}

fn task_word(task: Task) -> &'static str {
    match task {
        Task::Build => "the restore",
        Task::Check => "the check",
    }
}

/// When the work in a Job's pod began and ended, by its own clock: what is between that and the Job is Kubernetes' share.
fn tell_times(image: &GoldenImageName, what: &str, manifest: &aldaas_api::manifest::Manifest) {
    let milliseconds: u64 = manifest.steps.values().sum();
    tracing::info!(%image, finished_at = %manifest.finished_at, milliseconds, "{what}");
}

#[allow(clippy::cast_precision_loss)]
fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}
