//! What is to be done about one database: decided from what was observed, and from nothing else.
//!
//! Every action may be repeated, and after each of them, or half of it, the next plan goes on from what is there then. So a
//! controller that is killed anywhere needs no memory.

use std::fmt;
use std::time::Duration;

use aldaas_api::GoldenImageName;
use aldaas_api::manifest::Manifest;
use aldaas_golden::State;
use jiff::{SignedDuration, Timestamp};

use super::model::{Dump, Image, Job, Object, Outcome, Request, Source, Task, View};
use super::{dumps, retention};

/// How often a Job is tried before it has failed for good.
pub const TRIES: u32 = 6;
/// The pauses between the tries; the last one stands for all further ones.
const PAUSES: [Duration; 7] = [
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(240),
    Duration::from_secs(480),
    Duration::from_secs(600),
];
/// How long failed images are kept where nothing is said.
const FAILED_TTL: Duration = Duration::from_secs(3 * 24 * 3600);

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Look for the dump that somebody asked for.
    Look,
    /// Note on the Database that what was asked for becomes this image.
    Take(GoldenImageName, Dump),
    /// Strike the request off the Database; where it can't be granted, with the reason.
    Strike(Option<String>),
    /// Begin an ingest: make its object, note its dump as taken.
    Begin(GoldenImageName, Dump),
    /// Make the object anew that somebody lost.
    Rebuild(GoldenImageName, Option<Source>),
    /// Start a Job.
    Start(GoldenImageName, Task, u32),
    /// The build is complete: keep with the image what it did.
    Restored(GoldenImageName, String, Box<Manifest>),
    /// Start the Job of the check ahead of the seal: its pod comes while the other goes, and its volume waits for the seal.
    CheckAhead(GoldenImageName),
    /// Let the pod go that restored it, and its Job.
    LetGo(GoldenImageName, String),
    /// Seal it, as soon as nobody has it open.
    Seal(GoldenImageName, String, Box<Manifest>),
    /// The check succeeded: it is ready.
    Verified(GoldenImageName, Box<Manifest>),
    /// Try a Job again later, which this time failed for this reason.
    Retry(GoldenImageName, Task, u32, Timestamp, String),
    /// It has failed for good.
    Fail(GoldenImageName, End, String),
    /// Remove what was built so far from RBD.
    Discard(GoldenImageName),
    /// Remove a Job and its pod.
    RemoveJob(GoldenImageName, Task),
    /// Take the image out of use; even the newest ready one only if `force` is said.
    Retire {
        /// Which.
        image: GoldenImageName,
        /// Although it is the newest ready one.
        force: bool,
        /// Why, for an Event.
        why: &'static str,
    },
    /// Let the object go, of which nothing is left in RBD.
    Forget(GoldenImageName),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Look => write!(f, "look for what was asked for"),
            Self::Take(image, dump) => {
                write!(f, "take what was asked for: {image} of {}", dump.source.location)
            }
            Self::Strike(None) => write!(f, "strike off what was asked for"),
            Self::Strike(Some(why)) => write!(f, "refuse what was asked for: {why}"),
            Self::Begin(image, dump) => write!(f, "begin {image} of {}", dump.source.location),
            Self::Rebuild(image, _) => write!(f, "make the object of {image} anew"),
            Self::Start(image, task, attempt) => write!(f, "start the {task} of {image}, try {attempt}"),
            Self::Restored(image, ..) => write!(f, "{image} is restored"),
            Self::CheckAhead(image) => write!(f, "start the check of {image} ahead"),
            Self::LetGo(image, _) => write!(f, "let the pod go that restored {image}"),
            Self::Seal(image, ..) => write!(f, "seal {image}"),
            Self::Verified(image, _) => write!(f, "{image} is ready"),
            Self::Retry(image, task, attempt, at, why) => {
                write!(f, "the {task} of {image} failed at try {attempt} and is repeated at {at}: {why}")
            }
            Self::Fail(image, end, why) => write!(f, "{image}: {}: {why}", end.as_str()),
            Self::Discard(image) => write!(f, "remove what was built of {image}"),
            Self::RemoveJob(image, task) => write!(f, "remove the {task} Job of {image}"),
            Self::Retire { image, why, .. } => write!(f, "retire {image}: {why}"),
            Self::Forget(image) => write!(f, "let the object of {image} go"),
        }
    }
}

/// How an ingest ended that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It failed.
    Failed,
    /// A newer dump came before it was tried again.
    Overtaken,
}

impl End {
    /// The reason in the condition.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "Failed",
            Self::Overtaken => "Overtaken",
        }
    }
}

/// What to do now, and when to look again even if nothing happens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// In this order; the first that can't be done ends it.
    pub actions: Vec<Action>,
    /// When time alone changes the answer.
    pub again: Option<Timestamp>,
}

impl Plan {
    fn wait_until(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}

/// When a try that failed is repeated: `attempt` counts from 1.
pub fn pause(attempt: u32) -> Duration {
    let nth = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    PAUSES[nth.min(PAUSES.len() - 1)]
}

/// What is to be done now.
pub fn plan(view: &View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    for (name, image) in &view.images {
        Step { view, name, image, now, plan: &mut plan }.decide();
    }
    retire(view, now, &mut plan);
    begin(view, now, &mut plan);
    plan
}

/// One image.
struct Step<'a> {
    view: &'a View,
    name: &'a GoldenImageName,
    image: &'a Image,
    now: Timestamp,
    plan: &'a mut Plan,
}

impl Step<'_> {
    fn decide(&mut self) {
        let Some(object) = &self.image.object else { return self.without_object() };
        if object.deleting {
            return self.deleting();
        }
        if !object.ours && self.image.rbd.is_some() {
            // Without its finalizer nobody would tell us that it goes.
            self.plan.act(Action::Rebuild(self.name.clone(), None));
        }
        match self.image.state() {
            Some(State::Ready | State::Failed) => self.remove_jobs(),
            Some(State::Retired) => self.retire_wholly(),
            // A process on some machine builds it, and answers for it.
            Some(State::Candidate | State::Sealed) if !self.image.is_built_by_a_pod() => {}
            _ if self.image.rbd.as_ref().is_some_and(|rbd| rbd.trashed) => self.remove_jobs(),
            _ if self.image.is_lost() => self.forget(),
            _ if object.ended.is_some() => self.clear_away(),
            // The API server let somebody write it by hand: it is told what it is, and nothing is done for it.
            None if !object.ours && self.image.build.is_none() => {}
            _ if self.view.database.is_none() => self.forget(),
            Some(State::Sealed) => self.check(object),
            _ => self.build(object),
        }
    }

    /// What RBD knows has an object; what is being built has one.
    fn without_object(&mut self) {
        let rbd = self.image.rbd.as_ref();
        let source = self.image.sources().next().cloned();
        match rbd.map(|rbd| rbd.state) {
            // A process on some machine builds it, and answers for it.
            Some(State::Candidate | State::Sealed) if !self.image.is_built_by_a_pod() => {}
            Some(State::Candidate) if self.image.build.is_none() && !self.image.is_restored() => {
                self.plan.act(Action::Discard(self.name.clone()));
            }
            Some(_) => self.plan.act(Action::Rebuild(self.name.clone(), source)),
            None if self.image.build.as_ref().is_some_and(|job| !job.deleting && source.is_some()) => {
                self.plan.act(Action::Rebuild(self.name.clone(), source));
            }
            None => drop(self.remove_jobs_first()),
        }
    }

    /// Somebody deleted the object.
    fn deleting(&mut self) {
        if self.remove_jobs_first() {
            return;
        }
        let Some(rbd) = &self.image.rbd else { return self.plan.act(Action::Forget(self.name.clone())) };
        let image = self.name.clone();
        match rbd.state {
            // It waits for its last clone; the purge ends it.
            _ if rbd.trashed => {}
            State::Retired => self.retire_wholly(),
            State::Candidate | State::Sealed if rbd.builder.is_some() => {
                self.plan.act(Action::Discard(image))
            }
            State::Candidate | State::Sealed => {}
            State::Ready if self.is_newest_ready() && self.view.database.is_some() => {}
            State::Ready | State::Failed => {
                let force = self.view.database.is_none();
                self.plan.act(Action::Retire { image, force, why: "its object was deleted" });
            }
        }
    }

    /// The dump is to be restored.
    fn build(&mut self, object: &Object) {
        let candidate = self.image.rbd.as_ref();
        if let Some((pod, manifest)) =
            candidate.and_then(|rbd| rbd.builder.as_ref().zip(rbd.manifest.as_ref()))
        {
            // Not for as long as the node takes to let go: after the seal it is started in any case.
            let builds = self.image.build.as_ref().is_some_and(|job| !job.deleting);
            self.remove_job(Task::Build);
            if builds {
                self.check_ahead();
            }
            return self.plan.act(Action::Seal(self.name.clone(), pod.clone(), manifest.clone()));
        }
        let Some(job) = &self.image.build else {
            if candidate.is_some() {
                return self.plan.act(Action::Discard(self.name.clone()));
            }
            if self.remove_jobs_first() {
                return;
            }
            if let Some(newer) = dumps::next(self.view).filter(|dump| dump.source != object.source) {
                let why =
                    format!("a newer dump came before this one was tried again: {}", newer.source.location);
                return self.plan.act(Action::Fail(self.name.clone(), End::Overtaken, why));
            }
            return self.start(object, Task::Build);
        };
        let builder = candidate.and_then(|rbd| rbd.builder.as_deref());
        match &job.outcome {
            _ if job.deleting => {}
            Outcome::Running(Some(pod)) if builder.is_some_and(|builder| builder != pod) => {
                let why = "the pod that restored it is gone, and another came in its place".to_owned();
                self.failed(Task::Build, job, why, true);
            }
            Outcome::Running(_) => {}
            Outcome::Done { pod_uid, manifest } if builder == Some(pod_uid) => {
                self.plan.act(Action::Restored(self.name.clone(), pod_uid.clone(), manifest.clone()));
                self.plan.act(Action::LetGo(self.name.clone(), pod_uid.clone()));
                self.check_ahead();
            }
            Outcome::Done { .. } => {
                let why = "its image in Ceph is gone, or not the one that was restored into".to_owned();
                self.failed(Task::Build, job, why, true);
            }
            Outcome::MayPass(why) => self.failed(Task::Build, job, why.clone(), true),
            Outcome::Final(why) => self.failed(Task::Build, job, why.clone(), false),
        }
    }

    /// It is sealed and to be looked at.
    fn check(&mut self, object: &Object) {
        self.remove_job(Task::Build);
        let Some(job) = &self.image.check else {
            // Where the pod that restored it was lost before its Job was removed, another came in its place.
            if !self.image.has_a_running_pod() {
                self.start(object, Task::Check);
            }
            return;
        };
        match &job.outcome {
            _ if job.deleting => {}
            Outcome::Running(_) => {}
            Outcome::Done { manifest, .. } => {
                self.plan.act(Action::Verified(self.name.clone(), manifest.clone()));
            }
            Outcome::MayPass(why) => self.failed(Task::Check, job, why.clone(), true),
            Outcome::Final(why) => self.failed(Task::Check, job, why.clone(), false),
        }
    }

    /// Where the pod that restored it was lost before its Job was removed, another came in its place: that goes first.
    fn check_ahead(&mut self) {
        let problem = self.view.database.as_ref().is_some_and(|spec| spec.problem.is_some());
        if !problem && self.image.check.is_none() && !self.image.has_a_running_pod() {
            self.plan.act(Action::CheckAhead(self.name.clone()));
        }
    }

    fn start(&mut self, object: &Object, task: Task) {
        if self.view.database.as_ref().is_some_and(|spec| spec.problem.is_some()) {
            return;
        }
        match object.next_try {
            Some(at) if at > self.now => self.plan.wait_until(at),
            _ => {
                // What it says before it says that it is sealed is about the build.
                let before = if task == Task::Check && !object.sealed { 0 } else { object.attempts };
                self.plan.act(Action::Start(self.name.clone(), task, before + 1));
            }
        }
    }

    fn failed(&mut self, task: Task, job: &Job, why: String, may_pass: bool) {
        let name = self.name.clone();
        if may_pass && job.attempt < TRIES {
            // A repetition of this very step must not push the time away.
            let noted = self.image.object.as_ref().filter(|object| object.attempts >= job.attempt);
            let at = noted.and_then(|object| object.next_try);
            let at = at.unwrap_or_else(|| later(self.now, pause(job.attempt)));
            return self.plan.act(Action::Retry(name, task, job.attempt, at, why));
        }
        let why = if may_pass { format!("{why} (tried {} times)", job.attempt) } else { why };
        self.plan.act(Action::Fail(name, End::Failed, why));
    }

    /// The database is gone, or the image is: nothing is left to be done for.
    fn forget(&mut self) {
        if self.remove_jobs_first() {
            return;
        }
        let name = self.name.clone();
        self.plan.act(match self.image.rbd {
            Some(_) => Action::Discard(name),
            None => Action::Forget(name),
        });
    }

    /// It has failed, and what it left goes.
    fn clear_away(&mut self) {
        if !self.remove_jobs_first() && self.image.rbd.is_some() {
            self.plan.act(Action::Discard(self.name.clone()));
        }
    }

    fn remove_jobs(&mut self) {
        self.remove_jobs_first();
    }

    /// Whether there still are Jobs; they are told to go.
    fn remove_jobs_first(&mut self) -> bool {
        let left = Task::ALL.map(|task| self.remove_job(task));
        left.contains(&true)
    }

    /// Whether there still is this Job; it is told to go.
    fn remove_job(&mut self, task: Task) -> bool {
        let Some(job) = self.image.job(task) else { return false };
        if !job.deleting {
            self.plan.act(Action::RemoveJob(self.name.clone(), task));
        }
        true
    }

    /// Retiring it was cut short.
    fn retire_wholly(&mut self) {
        let image = self.name.clone();
        self.plan.act(Action::Retire { image, force: true, why: "it was on its way out" });
    }

    fn is_newest_ready(&self) -> bool {
        newest_ready(self.view) == Some(self.name)
    }
}

/// What `latest` means.
pub fn newest_ready(view: &View) -> Option<&GoldenImageName> {
    ready(view).last()
}

fn ready(view: &View) -> impl DoubleEndedIterator<Item = &GoldenImageName> {
    view.images.iter().filter(|(_, image)| image.state() == Some(State::Ready)).map(|(name, _)| name)
}

/// What the rule does not keep is retired. Without a Database there is no rule: all is kept.
fn retire(view: &View, now: Timestamp, plan: &mut Plan) {
    let Some(spec) = &view.database else { return };
    let kept = retention::kept(&spec.retention, ready(view));
    for name in ready(view).filter(|name| !kept.contains(*name)) {
        if view.images[name].object.as_ref().is_none_or(|object| !object.deleting) {
            let why = "newer ones take its place";
            plan.act(Action::Retire { image: name.clone(), force: false, why });
        }
    }
    let ttl = spec.retention.failed_ttl.map_or(FAILED_TTL, |ttl| ttl.duration());
    for (name, image) in &view.images {
        let Some(object) = image.object.as_ref().filter(|object| !object.deleting) else { continue };
        let Some(ended) = object.ended.filter(|_| image.build.is_none() && image.check.is_none()) else {
            continue;
        };
        let goes = later(ended, ttl);
        match (image.state(), &image.rbd) {
            (Some(State::Failed), _) if goes <= now => {
                plan.act(Action::Retire {
                    image: name.clone(),
                    force: false,
                    why: "it failed long enough ago",
                });
            }
            (None, None) if goes <= now => plan.act(Action::Forget(name.clone())),
            (Some(State::Failed), _) | (None, None) => plan.wait_until(goes),
            _ => {}
        }
    }
}

/// The next ingest, if none is under way: first what was asked for by hand, then what is new in the bucket.
fn begin(view: &View, now: Timestamp, plan: &mut Plan) {
    let Some(spec) = &view.database else { return };
    if let Some(Request::Taken(image, dump)) = &spec.request {
        let action = match view.images.contains_key(image) {
            true => Action::Strike(None),
            false => Action::Begin(image.clone(), dump.clone()),
        };
        return plan.act(action);
    }
    let busy = view.images.values().any(|image| image.is_in_progress() || image.has_a_running_pod());
    if busy || spec.problem.is_some() || plan.actions.iter().any(Action::makes_work) {
        return;
    }
    match &spec.request {
        Some(Request::Asked(None)) => plan.act(Action::Look),
        Some(Request::Asked(Some(Err(why)))) => plan.act(Action::Strike(Some(why.clone()))),
        Some(Request::Asked(Some(Ok(dump)))) => {
            if let Some(name) = free_name(view, now) {
                plan.act(Action::Take(name, dump.clone()));
            }
        }
        Some(Request::Taken(..)) => {}
        None if spec.suspend => {}
        None => {
            if let (Some(dump), Some(name)) = (dumps::next(view), free_name(view, now)) {
                plan.act(Action::Begin(name, dump.clone()));
            }
        }
    }
}

impl Action {
    /// Whether somebody waits for what comes after it; all else has time.
    pub fn is_waited_for(&self) -> bool {
        matches!(
            self,
            Self::Begin(..) | Self::Start(..) | Self::Restored(..) | Self::Seal(..) | Self::Verified(..)
        )
    }

    /// Whether something is under way after it.
    fn makes_work(&self) -> bool {
        matches!(self, Self::Rebuild(..) | Self::Discard(_) | Self::RemoveJob(..) | Self::LetGo(..))
    }
}

/// A name that nobody has, and later than all there are: `latest` goes by it.
fn free_name(view: &View, now: Timestamp) -> Option<GoldenImageName> {
    let database = view.name.as_ref()?;
    let newest = view.images.keys().next_back().map(GoldenImageName::timestamp);
    let at = newest.map_or(now, |newest| now.max(later(newest, Duration::from_secs(1))));
    Some(GoldenImageName::new(database, at))
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
