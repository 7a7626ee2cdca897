//! The plan against a small world in which everything may happen in between: dumps come, Jobs fail, objects are lost, and the
//! controller is killed after any action.

use std::collections::BTreeMap;

use aldaas_api::kinds::Retention;
use aldaas_api::manifest::{Contents, Engine, Manifest, Source as ManifestSource};
use jiff::SignedDuration;
use proptest::prelude::*;

use super::*;
use crate::controller::model::{Rbd, Spec};

fn start() -> Timestamp {
    "2026-11-23T03:30:00Z".parse().unwrap()
}

fn dump(number: u32, modified: Timestamp) -> Dump {
    let source = Source { location: format!("s3://backup/{number}"), etag: Some(number.to_string()) };
    Dump { source, size: Some(1), modified }
}

fn manifest(source: &Source) -> Box<Manifest> {
    Box::new(Manifest {
        database: "orders".into(),
        source: ManifestSource {
            location: source.location.clone(),
            etag: source.etag.clone(),
            size: 1,
            sha256: String::new(),
            format: String::new(),
        },
        engine: Engine { name: "postgres".into(), version: "15.8".into(), image_digest: None },
        contents: Contents::default(),
        steps: BTreeMap::new(),
        ran: Vec::new(),
        finished_at: start(),
    })
}

/// One database's world.
struct World {
    view: View,
    now: Timestamp,
    dumps: u32,
    pods: u32,
}

impl World {
    fn new() -> Self {
        let retention = Retention { keep: 2, ..Retention::default() };
        let database = Some(Spec { retention, ..Spec::default() });
        let view = View {
            name: "orders".parse().ok(),
            database,
            listing: Some(Vec::new()),
            images: BTreeMap::new(),
        };
        Self { view, now: start(), dumps: 0, pods: 0 }
    }

    fn new_dump(&mut self) {
        self.dumps += 1;
        let dump = dump(self.dumps, self.now);
        self.view.listing.as_mut().unwrap().insert(0, dump);
    }

    fn pass_time(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// What the controller writes on the objects before it does anything else.
    fn mirror(&mut self) {
        for image in self.view.images.values_mut() {
            let (Some(object), Some(rbd)) = (&mut image.object, &image.rbd) else { continue };
            if matches!(rbd.state, State::Sealed | State::Ready | State::Retired) && !object.sealed {
                (object.sealed, object.attempts, object.next_try) = (true, 0, None);
            }
            if rbd.state == State::Failed && object.ended.is_none() {
                object.ended = Some(self.now);
            }
        }
    }

    /// Plans, and is killed after so many actions. Whether there was anything to do.
    fn act(&mut self, at_most: usize) -> bool {
        self.mirror();
        let plan = plan(&self.view, self.now);
        assert_eq!(plan, super::plan(&self.view, self.now), "the same world is answered in the same way");
        let acted = !plan.actions.is_empty();
        for action in plan.actions.into_iter().take(at_most) {
            self.apply(action);
        }
        self.forget_empty();
        acted
    }

    fn forget_empty(&mut self) {
        self.view.images.retain(|_, image| *image != Image::default());
    }

    fn image(&mut self, name: &GoldenImageName) -> &mut Image {
        self.view.images.entry(name.clone()).or_default()
    }

    fn apply(&mut self, action: Action) {
        let now = self.now;
        match action {
            Action::Begin(name, dump) => self.begin(&name, dump),
            Action::Take(name, dump) => {
                self.view.database.as_mut().unwrap().request = Some(Request::Taken(name, dump));
            }
            Action::Strike(_) => self.view.database.as_mut().unwrap().request = None,
            Action::Look => {
                let newest = self.view.listing.as_ref().unwrap().first().cloned();
                let found = newest.ok_or_else(|| "none".to_owned());
                self.view.database.as_mut().unwrap().request = Some(Request::Asked(Some(found)));
            }
            Action::Rebuild(name, source) => {
                let image = self.image(&name);
                assert!(image.rbd.is_some() || image.build.is_some(), "nothing to make it of");
                let source = source.unwrap_or(Source { location: "unknown".into(), etag: None });
                let fresh = object(source);
                image.object = Some(Object { ours: true, ..image.object.take().unwrap_or(fresh) });
            }
            Action::Start(name, task, attempt) => self.start(&name, task, attempt),
            Action::Restored(name, pod, manifest) => {
                let rbd = self.image(&name).rbd.as_mut().unwrap();
                assert_eq!((rbd.state, rbd.builder.as_ref()), (State::Candidate, Some(&pod)));
                let source = &manifest.source;
                rbd.source = Some(Source { location: source.location.clone(), etag: source.etag.clone() });
                rbd.manifest = Some(manifest);
            }
            Action::CheckAhead(name) => {
                assert!(self.image(&name).is_restored(), "there is nothing to be looked at");
                self.start(&name, Task::Check, 1);
            }
            Action::LetGo(name, pod) => {
                let build = self.image(&name).build.as_mut().unwrap();
                assert!(matches!(&build.outcome, Outcome::Done { pod_uid, .. } if *pod_uid == pod));
                build.deleting = true;
            }
            Action::Seal(name, pod, manifest) => {
                let rbd = self.image(&name).rbd.as_mut().unwrap();
                assert_eq!((rbd.state, rbd.builder.as_ref()), (State::Candidate, Some(&pod)));
                assert_eq!(rbd.manifest, Some(manifest), "what was done is kept before its pod goes");
                rbd.state = State::Sealed;
            }
            Action::Verified(name, _) => {
                let rbd = self.image(&name).rbd.as_mut().unwrap();
                assert_eq!(rbd.state, State::Sealed, "only what was sealed can be verified");
                rbd.state = State::Ready;
            }
            Action::Retry(name, task, attempt, at, _) => {
                assert!(attempt < TRIES);
                let image = self.image(&name);
                let object = image.object.as_mut().unwrap();
                (object.attempts, object.next_try) = (attempt, Some(at));
                job(image, task).as_mut().unwrap().deleting = true;
            }
            Action::Fail(name, end, _) => {
                let image = self.image(&name);
                match (&mut image.rbd, end) {
                    (Some(rbd), End::Failed) => rbd.state = State::Failed,
                    (rbd, End::Overtaken) => *rbd = None,
                    (None, _) => {}
                }
                image.object.as_mut().unwrap().ended = Some(now);
            }
            Action::Discard(name) => {
                let image = self.image(&name);
                let state = image.rbd.as_ref().unwrap().state;
                assert!(!matches!(state, State::Ready | State::Retired), "{name} is {state} and thrown away");
                let runs = image.build.as_ref().or(image.check.as_ref());
                assert!(runs.is_none(), "a Job still works on {name}");
                image.rbd = None;
            }
            Action::RemoveJob(name, task) => job(self.image(&name), task).as_mut().unwrap().deleting = true,
            Action::Retire { image, force, .. } => self.retire(&image, force),
            Action::Forget(name) => {
                let image = self.image(&name);
                assert!(image.rbd.is_none(), "{name} is in RBD and forgotten");
                image.object = None;
            }
        }
    }

    fn begin(&mut self, name: &GoldenImageName, dump: Dump) {
        assert!(!self.view.images.contains_key(name), "{name} is taken");
        assert!(self.view.images.keys().all(|other| other < name), "it would never be latest");
        let under_way: Vec<_> = self.view.images.iter().filter(|(_, image)| image.is_in_progress()).collect();
        assert!(under_way.is_empty(), "two ingests at once: {under_way:?}");
        let newest = self.view.listing.as_ref().unwrap().first();
        let spec = self.view.database.as_mut().unwrap();
        assert!(spec.request.is_some() || newest == Some(&dump), "an older one first");
        assert!(spec.request.is_some() || !spec.suspend);
        spec.watermark = Some(dump.clone());
        self.image(name).object = Some(object(dump.source));
    }

    fn start(&mut self, name: &GoldenImageName, task: Task, attempt: u32) {
        assert!(attempt <= TRIES);
        for (other, image) in &self.view.images {
            for other_task in Task::ALL {
                let same = other == name && other_task == task;
                let runs = image
                    .job(other_task)
                    .is_some_and(|job| same || matches!(job.outcome, Outcome::Running(Some(_))));
                assert!(!runs, "{name} {task}: {other_task} of {other} still runs");
            }
        }
        let image = self.image(name);
        match task {
            Task::Build => assert!(image.rbd.is_none(), "not on a blank image"),
            Task::Check => assert!(image.is_restored() || image.state() == Some(State::Sealed)),
        }
        let object = image.object.as_mut().unwrap();
        (object.attempts, object.next_try) = (attempt, None);
        let source = Some(object.source.clone());
        *job(image, task) = Some(Job { attempt, source, deleting: false, outcome: Outcome::Running(None) });
    }

    fn retire(&mut self, name: &GoldenImageName, force: bool) {
        let is_newest = newest_ready(&self.view) == Some(name);
        let database = self.view.database.is_some();
        let rbd = self.image(name).rbd.as_mut().unwrap();
        assert!(!(is_newest && database && rbd.state == State::Ready), "the newest ready one is retired");
        assert!(!is_newest || force);
        (rbd.state, rbd.trashed) = (State::Retired, true);
    }

    /// A Job that runs goes on: its pod comes, mounts, and ends.
    fn jobs(&mut self, end: u8) {
        for image in self.view.images.values_mut() {
            for task in Task::ALL {
                let known = image.sources().next().cloned();
                let waits = task == Task::Check && image.state() == Some(State::Candidate);
                let Some(running) = job(image, task).as_mut() else { continue };
                let source = running.source.clone().or(known);
                if running.deleting {
                    *job(image, task) = None;
                    continue;
                }
                match &running.outcome {
                    Outcome::Running(None) => {
                        self.pods += 1;
                        running.outcome = Outcome::Running(Some(self.pods.to_string()));
                        if task == Task::Build && image.rbd.is_none() {
                            let (state, builder) = (State::Candidate, Some(self.pods.to_string()));
                            let (manifest, source) = (None, None);
                            let (trashed, created) = (false, self.now);
                            image.rbd = Some(Rbd { state, trashed, builder, manifest, source, created });
                        }
                    }
                    // The volume is not there before the seal.
                    Outcome::Running(Some(_)) if waits && end > 1 => {}
                    Outcome::Running(Some(pod)) => {
                        running.outcome = match end {
                            0 => Outcome::MayPass("lost".into()),
                            1 => Outcome::Final("bad".into()),
                            _ => Outcome::Done { pod_uid: pod.clone(), manifest: manifest(&source.unwrap()) },
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    fn nth(&mut self, n: usize) -> Option<&mut Image> {
        let count = self.view.images.len();
        self.view.images.values_mut().nth(n.checked_rem(count)?)
    }

    /// Nothing more happens from outside, and everything goes well.
    fn settle(&mut self) {
        for _ in 0..200 {
            let acted = self.act(usize::MAX);
            self.jobs(2);
            let gone = |rbd: &mut Rbd| rbd.trashed;
            for image in self.view.images.values_mut() {
                drop(image.rbd.take_if(gone));
            }
            if !acted {
                match plan(&self.view, self.now).again {
                    Some(at) if at > self.now => self.now = at,
                    _ if plan(&self.view, self.now).actions.is_empty() && !self.has_jobs() => return,
                    _ => {}
                }
            }
        }
        panic!("it never comes to rest: {:#?}", plan(&self.view, self.now));
    }

    fn has_jobs(&self) -> bool {
        self.view.images.values().any(|image| image.build.is_some() || image.check.is_some())
    }
}

fn object(source: Source) -> Object {
    Object { source, deleting: false, ours: true, sealed: false, attempts: 0, next_try: None, ended: None }
}

fn job(image: &mut Image, task: Task) -> &mut Option<Job> {
    match task {
        Task::Build => &mut image.build,
        Task::Check => &mut image.check,
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Happening {
    Act(usize),
    Jobs(u8),
    NewDump,
    Time(i64),
    LoseObject(usize),
    DeleteObject(usize),
    LosePod(usize),
    Ask,
    Suspend(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (1usize..4).prop_map(Happening::Act),
        6 => (0u8..6).prop_map(Happening::Jobs),
        2 => Just(Happening::NewDump),
        3 => (1i64..400).prop_map(Happening::Time),
        1 => (0usize..8).prop_map(Happening::LoseObject),
        1 => (0usize..8).prop_map(Happening::DeleteObject),
        1 => (0usize..8).prop_map(Happening::LosePod),
        1 => Just(Happening::Ask),
        1 => any::<bool>().prop_map(Happening::Suspend),
    ]
}

fn happen(world: &mut World, happening: Happening) {
    match happening {
        Happening::Act(at_most) => drop(world.act(at_most)),
        Happening::Jobs(end) => world.jobs(end),
        Happening::NewDump => world.new_dump(),
        Happening::Time(seconds) => world.pass_time(seconds),
        Happening::LoseObject(n) => {
            if let Some(image) = world.nth(n) {
                image.object = None;
            }
        }
        Happening::DeleteObject(n) => {
            if let Some(object) = world.nth(n).and_then(|image| image.object.as_mut()) {
                object.deleting = true;
            }
        }
        Happening::LosePod(n) => {
            let lost = Outcome::Running(Some("another".into()));
            let building = world.nth(n).filter(|image| image.state() == Some(State::Candidate));
            if let Some(job) = building.and_then(|image| image.build.as_mut()) {
                job.outcome = lost;
            }
        }
        Happening::Ask => {
            let spec = world.view.database.as_mut().unwrap();
            spec.request.get_or_insert(Request::Asked(None));
        }
        Happening::Suspend(suspend) => world.view.database.as_mut().unwrap().suspend = suspend,
    }
    world.forget_empty();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_there_is_one_ingest_at_a_time_and_it_comes_to_rest(
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let mut world = World::new();
        for it in happenings {
            happen(&mut world, it);
        }
        world.view.database.as_mut().unwrap().suspend = false;
        world.new_dump();
        world.pass_time(1);
        world.settle();
        let newest = world.view.listing.as_ref().unwrap()[0].source.clone();
        let latest = newest_ready(&world.view).expect("something is ready");
        let image = &world.view.images[latest];
        prop_assert!(image.sources().any(|source| *source == newest), "the newest dump is latest");
        let ready = world.view.images.values().filter(|image| image.state() == Some(State::Ready)).count();
        prop_assert!(ready <= 3, "{} are kept", ready);
        prop_assert!(world.view.images.values().all(|image| image.object.is_some()), "all have objects");
    }

    #[test]
    fn without_its_database_nothing_begins_and_no_ready_image_goes(
        happenings in prop::collection::vec(happening(), 1..40),
    ) {
        let mut world = World::new();
        world.new_dump();
        for it in happenings.into_iter().filter(|it| !matches!(it, Happening::DeleteObject(_))) {
            happen(&mut world, it);
        }
        world.mirror();
        let ready = |world: &World| ready(&world.view).cloned().collect::<Vec<_>>();
        let before = ready(&world);
        world.view.database = None;
        world.settle();
        prop_assert_eq!(before, ready(&world));
        prop_assert!(!world.view.images.values().any(Image::is_in_progress));
    }
}

#[test]
fn a_waiting_ingest_is_overtaken_and_a_running_one_is_not() {
    let mut world = World::new();
    world.new_dump();
    world.act(9);
    world.act(9);
    world.jobs(2);
    world.pass_time(1);
    world.new_dump();
    assert!(!world.act(9), "it runs");
    world.jobs(0);
    world.act(9);
    world.jobs(0);
    world.act(9);
    world.act(9);
    let first = world.view.images.values().next().unwrap();
    assert!(first.object.as_ref().unwrap().ended.is_some(), "{first:?}");
    world.settle();
    let latest = newest_ready(&world.view).unwrap();
    assert_eq!(world.view.images[latest].object.as_ref().unwrap().source.location, "s3://backup/2");
}

/// Its Job goes before it is sealed, and that may take until a node lets go of it.
#[test]
fn what_was_restored_is_never_restored_again_though_its_job_and_its_object_are_gone() {
    let mut world = World::new();
    world.new_dump();
    let restored = |world: &World| world.view.images.values().any(Image::is_restored);
    while !restored(&world) {
        world.act(1);
        world.jobs(2);
    }
    let name = world.view.images.keys().next().unwrap().clone();
    (world.image(&name).build, world.image(&name).object) = (None, None);
    world.settle();
    assert_eq!(newest_ready(&world.view), Some(&name));
    assert_eq!(world.pods, 2, "one to restore it and one to check it");
}

#[test]
fn what_may_pass_is_tried_six_times_with_longer_and_longer_pauses() {
    let mut world = World::new();
    world.new_dump();
    let mut pauses = Vec::new();
    for _ in 0..200 {
        world.act(9);
        world.jobs(0);
        if let Some(again) = plan(&world.view, world.now).again
            && world.view.images.values().any(Image::is_in_progress)
        {
            pauses.push((again - world.now).get_seconds());
            world.now = again;
        }
    }
    assert_eq!(pauses, [10, 30, 60, 120, 240]);
    let image = world.view.images.values().next().unwrap();
    assert!(image.object.as_ref().unwrap().ended.is_some());
}

#[test]
fn an_object_that_somebody_wrote_by_hand_starts_nothing() {
    let mut world = World::new();
    let name: GoldenImageName = "orders-20261123t033000z".parse().unwrap();
    let source = dump(1, start()).source;
    world.image(&name).object = Some(Object { ours: false, ..object(source) });
    assert!(!world.act(9));
}

#[test]
fn the_newest_ready_image_waits_with_its_deletion_until_there_is_a_newer_one() {
    let mut world = World::new();
    world.new_dump();
    world.settle();
    let first = newest_ready(&world.view).unwrap().clone();
    world.image(&first).object.as_mut().unwrap().deleting = true;
    assert!(!world.act(9), "it stays");
    world.pass_time(5);
    world.new_dump();
    world.settle();
    assert!(!world.view.images.contains_key(&first), "it went");
}
