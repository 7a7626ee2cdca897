//! From objects, RBD and logs to what is decided upon.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aldaas_api::kinds::{Database, GoldenImage, READY, Retention, SourceObject};
use aldaas_api::{DatabaseName, GoldenImageName};
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

use super::buckets::Known;
use super::model::{Dump, Image, Job, Object, Outcome, Rbd, Request, Source, Spec, Task, View};
use super::names::{ATTEMPT, FINALIZER, IMAGE, INGEST, SOURCE, TASK};
use super::outcome;
use super::progress::Said;
use super::storage::Stock;
use super::watches::{Broken, Understood};

/// Everything as it was at one moment; RBD was read last.
#[derive(Default)]
pub struct World {
    /// Databases.
    pub databases: BTreeMap<DatabaseName, Arc<Result<Database, Broken>>>,
    /// Golden images' objects.
    pub objects: BTreeMap<GoldenImageName, Arc<Understood<GoldenImage>>>,
    /// Jobs.
    pub jobs: BTreeMap<(GoldenImageName, Task), Arc<batch::Job>>,
    /// Their pods.
    pub pods: HashMap<(GoldenImageName, Task), Vec<Arc<Pod>>>,
    /// What is in Ceph.
    pub stock: Stock,
}

/// Of which image and task an object is that bears our labels.
pub fn whose(labels: &BTreeMap<String, String>) -> Option<(GoldenImageName, Task)> {
    let task = labels.get(TASK)?;
    let task = Task::ALL.into_iter().find(|known| known.as_str() == task)?;
    Some((labels.get(IMAGE)?.parse().ok()?, task))
}

impl World {
    /// All that is known, by database.
    pub fn views(
        &self,
        known: impl Fn(&DatabaseName) -> Known,
        said: impl Fn(&str) -> Option<Said>,
    ) -> BTreeMap<DatabaseName, View> {
        let mut views: BTreeMap<DatabaseName, View> = BTreeMap::new();
        for (name, database) in &self.databases {
            let known = known(name);
            let view = views.entry(name.clone()).or_default();
            view.database = Some(spec(database, &known));
            view.listing = known.listing;
        }
        let names = self.objects.keys().chain(self.stock.images.keys());
        let names =
            names.chain(self.jobs.keys().map(|(name, _)| name)).chain(self.pods.keys().map(|(name, _)| name));
        for name in names {
            let view = views.entry(name.database().clone()).or_default();
            if !view.images.contains_key(name) {
                view.images.insert(name.clone(), self.image(name, &said));
            }
        }
        for (name, view) in &mut views {
            // A pod that has ended, and whose Job is gone, is nobody's business any more.
            view.images.retain(|_, image| *image != Image::default());
            view.name = Some(name.clone());
        }
        views
    }

    fn image(&self, name: &GoldenImageName, said: &impl Fn(&str) -> Option<Said>) -> Image {
        let object = self.objects.get(name).and_then(|object| object.as_ref().as_ref().ok());
        let rbd = self.stock.images.get(name).map(|found| Rbd {
            state: found.record.state,
            trashed: found.trashed,
            builder: found.record.builder.as_ref().map(|builder| builder.pod_uid.clone()),
            manifest: found.record.manifest.clone().map(Box::new),
            source: found.record.manifest.as_ref().map(|manifest| Source {
                location: manifest.source.location.clone(),
                etag: manifest.source.etag.as_deref().map(unquoted),
            }),
            created: found.record.created_at,
        });
        Image {
            object: object.map(self::object),
            rbd,
            build: self.job(name, Task::Build, said),
            check: self.job(name, Task::Check, said),
        }
    }

    /// The pods of a Job.
    pub fn pods_of(&self, name: &GoldenImageName, task: Task) -> Vec<&Pod> {
        self.pods.get(&(name.clone(), task)).into_iter().flatten().map(Arc::as_ref).collect()
    }

    fn job(&self, name: &GoldenImageName, task: Task, said: &impl Fn(&str) -> Option<Said>) -> Option<Job> {
        let pods = self.pods_of(name, task);
        let Some(job) = self.jobs.get(&(name.clone(), task)) else {
            // Its Job is gone before it: nothing may begin while it runs.
            let pod = pods.iter().find(|pod| !outcome::is_over(pod))?;
            return Some(Job {
                attempt: 0,
                source: None,
                deleting: true,
                outcome: Outcome::Running(pod.uid()),
            });
        };
        let annotation = |key: &str| job.annotations().get(key);
        let source = annotation(SOURCE).and_then(|text| serde_json::from_str::<SourceObject>(text).ok());
        Some(Job {
            attempt: annotation(ATTEMPT).and_then(|text| text.parse().ok()).unwrap_or(1),
            source: source.as_ref().map(self::source),
            deleting: job.metadata.deletion_timestamp.is_some(),
            outcome: outcome::outcome(job, &pods, said),
        })
    }
}

/// What a Database says; one that can't be understood keeps everything and does nothing.
fn spec(database: &Result<Database, Broken>, known: &Known) -> Spec {
    let object = match database {
        Ok(object) => object,
        Err(broken) => {
            let error = &broken.error;
            let retention = Retention { keep: u32::MAX, ..Retention::default() };
            let problem = Some(format!("this Database can't be understood: {error}"));
            return Spec { problem, retention, ..Spec::default() };
        }
    };
    let last = object.status.as_ref().and_then(|status| status.last_dump.as_ref());
    let request = object.annotations().get(INGEST).map(|text| request(text, known));
    Spec {
        suspend: object.spec.suspend,
        problem: None,
        retention: object.spec.retention.clone(),
        watermark: last.and_then(dump),
        request,
    }
}

/// What stands in the annotation once a request was taken.
#[derive(Serialize, Deserialize)]
pub struct Taken {
    /// The golden image that it becomes.
    pub image: GoldenImageName,
    /// The dump.
    pub dump: SourceObject,
}

fn request(text: &str, known: &Known) -> Request {
    if let Some(Taken { image, dump }) = serde_json::from_str(text).ok()
        && let Some(dump) = self::dump(&dump)
    {
        return Request::Taken(image, dump);
    }
    let answer = known.answer.as_ref().filter(|(asked, _)| asked == text.trim());
    Request::Asked(answer.map(|(_, answer)| answer.clone()))
}

fn object(object: &GoldenImage) -> Object {
    let status = object.status.clone().unwrap_or_default();
    let holds = |kind: &str| status.conditions.iter().any(|c| c.type_ == kind && c.status == "True");
    let ended = status.conditions.iter().find(|c| {
        c.type_ == READY && c.status == "False" && ["Failed", "Overtaken"].contains(&c.reason.as_str())
    });
    Object {
        source: source(&object.spec.source),
        deleting: object.metadata.deletion_timestamp.is_some(),
        ours: object.finalizers().iter().any(|finalizer| finalizer == FINALIZER),
        sealed: holds("Sealed"),
        attempts: status.attempts.and_then(|attempts| u32::try_from(attempts).ok()).unwrap_or(0),
        next_try: status.next_try.map(|at| at.0),
        ended: ended.map(|c| status.finished_at.map_or(c.last_transition_time.0, |at| at.0)),
    }
}

/// A dump, from what an object says of it; none without a time: it could not be compared.
pub fn dump(object: &SourceObject) -> Option<Dump> {
    Some(Dump {
        source: source(object),
        size: object.size.and_then(|size| u64::try_from(size).ok()),
        modified: object.last_modified.as_ref()?.parse().ok()?,
    })
}

fn source(object: &SourceObject) -> Source {
    Source { location: object.location.clone(), etag: object.etag.as_deref().map(unquoted) }
}

fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}
