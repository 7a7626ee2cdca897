//! What is decided upon: one database as it was observed, in the controller's own words.

use std::collections::BTreeMap;
use std::fmt;

use aldaas_api::kinds::Retention;
use aldaas_api::manifest::Manifest;
use aldaas_api::{DatabaseName, GoldenImageName};
use aldaas_golden::State;
use jiff::Timestamp;

/// A dump, told from all others by where it is and its ETag.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// `s3://bucket/key`
    pub location: String,
    /// Without quotes.
    pub etag: Option<String>,
}

/// A dump as the bucket lists it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dump {
    /// Which one.
    pub source: Source,
    /// Bytes, as stored.
    pub size: Option<u64>,
    /// When it was last written, by the store's clock.
    pub modified: Timestamp,
}

/// One database.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Its name; none only of a view of nothing.
    pub name: Option<DatabaseName>,
    /// What its object says; none if there is no such object.
    pub database: Option<Spec>,
    /// What the bucket held when it was last looked at, the newest first. None: not looked at yet, or not to be believed.
    pub listing: Option<Vec<Dump>>,
    /// All its images, whoever knows of them.
    pub images: BTreeMap<GoldenImageName, Image>,
}

/// What of a `Database` object matters here.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Takes no new dumps.
    pub suspend: bool,
    /// Why it can't be served as it stands, in plain words.
    pub problem: Option<String>,
    /// How long images are kept.
    pub retention: Retention,
    /// The dump that was taken last.
    pub watermark: Option<Dump>,
    /// What somebody asked for by hand.
    pub request: Option<Request>,
}

/// An ingest by hand.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// It was asked for; what was found for it, once it was looked for.
    Asked(Option<Result<Dump, String>>),
    /// It was taken: this image is to be made of this dump.
    Taken(GoldenImageName, Dump),
}

/// One golden image, as its object, RBD and the Jobs know it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// Its object.
    pub object: Option<Object>,
    /// Its image in RBD.
    pub rbd: Option<Rbd>,
    /// The Job that builds it.
    pub build: Option<Job>,
    /// The Job that checks it.
    pub check: Option<Job>,
}

/// A `GoldenImage` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Of which dump.
    pub source: Source,
    /// Somebody deleted it: it waits for us.
    pub deleting: bool,
    /// It bears our finalizer: we made it, or know its image.
    pub ours: bool,
    /// It said once that its image was sealed.
    pub sealed: bool,
    /// How often the step at hand was begun.
    pub attempts: u32,
    /// When that is tried again.
    pub next_try: Option<Timestamp>,
    /// When it ended without an image.
    pub ended: Option<Timestamp>,
}

/// An image in RBD.
#[derive(Clone, Debug, PartialEq)]
pub struct Rbd {
    /// Its state.
    pub state: State,
    /// It is in the trash, where it waits for its last clone.
    pub trashed: bool,
    /// The UID of the pod that built it; none if a process on some machine did, who answers for it.
    pub builder: Option<String>,
    /// What was restored into it, once that is known.
    pub manifest: Option<Box<Manifest>>,
    /// Of which dump, once that is known.
    pub source: Option<Source>,
    /// When its build began.
    pub created: Timestamp,
}

/// Which Job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    /// Restores the dump into a blank volume.
    Build,
    /// Looks at the result on a clone.
    Check,
}

impl Task {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Build, Self::Check];

    /// The word in labels and in the Job's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Check => "check",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A Job of ours, with its pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Which try it is, from 1.
    pub attempt: u32,
    /// Of which dump it said it is: an object that was lost is made anew from it.
    pub source: Option<Source>,
    /// It, or a pod that it left, is on its way out.
    pub deleting: bool,
    /// How it stands.
    pub outcome: Outcome,
}

/// How a Job stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It goes on; this is the UID of its pod, if it has one.
    Running(Option<String>),
    /// It did what it should.
    Done {
        /// The pod that did.
        pod_uid: String,
        /// What it said it did.
        manifest: Box<Manifest>,
    },
    /// It failed in a way that may pass.
    MayPass(String),
    /// It would only fail again.
    Final(String),
}

impl Image {
    /// The Job of this task.
    pub fn job(&self, task: Task) -> Option<&Job> {
        match task {
            Task::Build => self.build.as_ref(),
            Task::Check => self.check.as_ref(),
        }
    }

    /// Its state in RBD, outside the trash.
    pub fn state(&self) -> Option<State> {
        self.rbd.as_ref().filter(|rbd| !rbd.trashed).map(|rbd| rbd.state)
    }

    /// Whether an ingest is under way: nothing else of the database may begin.
    pub fn is_in_progress(&self) -> bool {
        match (self.state(), &self.object) {
            (Some(State::Ready | State::Failed | State::Retired), _) => false,
            (Some(State::Candidate | State::Sealed), _) => self.is_built_by_a_pod(),
            (None, _) if self.build.is_some() || self.check.is_some() => true,
            (None, Some(object)) => {
                object.ours && object.ended.is_none() && !self.is_lost() && self.rbd.is_none()
            }
            (None, None) => false,
        }
    }

    /// Whether a pod of its Jobs runs, though it be on its way out.
    pub fn has_a_running_pod(&self) -> bool {
        let jobs = self.build.iter().chain(&self.check);
        jobs.into_iter().any(|job| matches!(job.outcome, Outcome::Running(Some(_))))
    }

    /// Whether all was restored into it by a pod that may be gone by now.
    pub fn is_restored(&self) -> bool {
        self.is_built_by_a_pod() && self.rbd.as_ref().is_some_and(|rbd| rbd.manifest.is_some())
    }

    /// Whether we answer for what is in RBD.
    pub fn is_built_by_a_pod(&self) -> bool {
        self.rbd.as_ref().is_some_and(|rbd| rbd.builder.is_some())
    }

    /// Whether it was sealed once, and is nowhere in RBD any more.
    pub fn is_lost(&self) -> bool {
        self.rbd.is_none() && self.object.as_ref().is_some_and(|object| object.sealed)
    }

    /// The dumps that it is known to be of: the one it was begun for, and the one that was read.
    pub fn sources(&self) -> impl Iterator<Item = &Source> {
        let begun = self.object.as_ref().map(|object| &object.source);
        let read = self.rbd.as_ref().and_then(|rbd| rbd.source.as_ref());
        let job = self.build.as_ref().and_then(|job| job.source.as_ref());
        begun.into_iter().chain(read).chain(job)
    }
}

impl Source {
    /// Whether both are certainly the same dump: without an ETag nobody can say.
    pub fn is(&self, other: &Self) -> bool {
        self.location == other.location && self.etag.is_some() && self.etag == other.etag
    }
}
