//! The loop: observe, plan, act. One database's actions run beside those of the others, and never two of one at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aldaas_api::kinds::{Database, DatabaseStatus, GoldenImage, GoldenImageStatus};
use aldaas_api::{DatabaseName, GoldenImageName};
use aldaas_golden::State;
use aldaas_golden::record::GoldenRecord;
use jiff::Timestamp;
use kube::ResourceExt as _;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::buckets::{Buckets, Known};
use super::chores::Chores;
use super::database_status::{self, Reach};
use super::logs::{Logs, Wanted};
use super::model::{Task, View};
use super::names::INGEST;
use super::outcome;
use super::plan::{self, Action};
use super::read::{World, whose};
use super::runner::{ActError, Runner, Tools};
use super::status;

/// What happens within this time is looked at together. There are half a dozen looks between a dump and `latest`.
const TOGETHER: Duration = Duration::from_millis(10);
/// A replica that does not act looks whether it should no less often than this.
const IDLE: Duration = Duration::from_secs(2);
/// With Ceph away it is asked again after this.
const AWAY: Duration = Duration::from_secs(5);
/// What is only a matter of moments is tried again after this.
const SOON: Duration = Duration::from_millis(100);
/// Other failures: the first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// What nobody waits for is done no more often than this: what is retired is purged, what is new is measured.
const SELDOM: Duration = Duration::from_secs(10);

/// What the loop works with.
pub struct Controller {
    /// For actions.
    pub tools: Arc<Tools>,
    /// The buckets.
    pub buckets: Arc<Buckets>,
    /// The Jobs' logs.
    pub logs: Logs,
    /// Told when there is something new.
    pub wake: Arc<Notify>,
    /// How often everything is looked at.
    pub resync: Duration,
    /// How it is, for readiness.
    pub health: Arc<Health>,
}

/// How the controller is.
#[derive(Default)]
pub struct Health {
    ceph: Mutex<Option<String>>,
}

impl Health {
    /// Why Ceph can't be used; none while it can.
    pub fn ceph(&self) -> Option<String> {
        self.ceph.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ceph answers, or does not because of this.
    pub fn set_ceph(&self, away: Option<String>) {
        *self.ceph.lock().unwrap_or_else(PoisonError::into_inner) = away;
    }
}

/// Databases that are worked on, and those that are to be left alone for a while.
#[derive(Default)]
struct Turns {
    busy: HashMap<DatabaseName, ()>,
    resting: HashMap<DatabaseName, (Instant, Duration)>,
}

/// What came of one database's work.
struct Worked {
    database: DatabaseName,
    result: Result<(), ActError>,
}

impl Controller {
    /// Until `stop`; what was begun then is brought to the end of its step.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let (mut turns, mut workers) = (Turns::default(), JoinSet::new());
        let mut next = Instant::now();
        let (mut cleaned, mut beside): (Option<Instant>, JoinSet<()>) = (None, JoinSet::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.wake.notified() => {}
                Some(worked) = workers.join_next() => {
                    if let Ok(worked) = worked {
                        turns.settle(worked, &self.tools.metrics);
                    }
                }
                Some(_) = beside.join_next() => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
            tokio::time::sleep(TOGETHER).await;
            while let Some(Ok(worked)) = workers.try_join_next() {
                turns.settle(worked, &self.tools.metrics);
            }
            let leads = self.tools.election.is_won();
            self.tools.metrics.leads(leads);
            if !leads || !self.tools.watches.missing().is_empty() {
                self.buckets.watch(&HashMap::new());
                self.logs.follow(Vec::new());
                if let Some(why) = self.probe(leads).await {
                    tracing::debug!(why, "Ceph does not answer");
                }
                next = Instant::now() + IDLE;
                continue;
            }
            let (again, chores) = self.pass(&mut turns, &mut workers).await;
            if !chores.is_nothing() && beside.is_empty() && cleaned.is_none_or(|at| at.elapsed() > SELDOM) {
                cleaned = Some(Instant::now());
                beside.spawn(self.clone().clean(chores));
            }
            next = Instant::now() + again.min(self.resync);
        }
        while workers.join_next().await.is_some() {}
        while beside.join_next().await.is_some() {}
    }

    /// A replica that waits for its turn says whether it could work.
    async fn probe(&self, leads: bool) -> Option<String> {
        if leads {
            return None;
        }
        let away = self.tools.storage.run(|_| Ok(())).await.err().map(|error| error.to_string());
        self.tools.metrics.ceph(away.is_none());
        self.health.set_ceph(away.clone());
        away
    }

    /// Looks at everything once, and sets to work what has something to do. When to look again at the latest, and what can be done
    /// beside.
    async fn pass(self: &Arc<Self>, turns: &mut Turns, workers: &mut JoinSet<Worked>) -> (Duration, Chores) {
        let mut world = self.objects();
        self.watch_buckets(&world);
        self.follow_logs(&world);
        // Last: what an object says of RBD was written after it was so in RBD.
        let stock = self.tools.storage.stock().await;
        let away = stock
            .as_ref()
            .err()
            .map(|error| format!("Ceph does not answer, and nothing is done until it does: {error}"));
        self.tools.metrics.ceph(away.is_none());
        if let (Some(why), None) = (&away, self.health.ceph()) {
            tracing::warn!(why, "waiting");
        }
        self.health.set_ceph(away.clone());
        world.stock = stock.unwrap_or_default();
        let views = world.views(|name| self.buckets.known(name), |uid| self.logs.said(uid));
        let world = Arc::new(world);
        let now = Timestamp::now();
        let mut again = if away.is_some() { AWAY } else { self.resync };
        if away.is_none() {
            self.measure(&world, &views);
        }
        for (name, view) in &views {
            if let Some(rest) = turns.rest(name) {
                again = again.min(rest);
                continue;
            }
            let mut work = Work::new(name, view, &world, self, away.as_deref(), now);
            if away.is_none() {
                let plan = plan::plan(view, now);
                work.actions = plan.actions;
                let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
                again = plan.again.map_or(again, |at| again.min(until(at) + SOON));
            }
            work.look(&self.buckets);
            if !work.is_nothing() {
                turns.busy.insert(name.clone(), ());
                let span = tracing::info_span!("reconcile", database = %name);
                workers.spawn(work.run(self.tools.clone()).instrument(span));
            }
        }
        (again, self.chores(&world))
    }

    /// Kubernetes' objects.
    fn objects(&self) -> World {
        let watches = &self.tools.watches;
        let mut world = World::default();
        let named = |name: &str| name.parse().ok();
        world.databases = watches
            .databases
            .all()
            .into_iter()
            .filter_map(|(name, object)| Some((named(&name)?, object)))
            .collect();
        let objects = watches.images.all().into_iter();
        world.objects = objects.filter_map(|(name, object)| Some((name.parse().ok()?, object))).collect();
        for job in watches.jobs.all().into_values() {
            if let Some(whose) = whose(job.labels()) {
                world.jobs.insert(whose, job);
            }
        }
        for pod in watches.pods.all().into_values() {
            if let Some(whose) = whose(pod.labels()) {
                world.pods.entry(whose).or_default().push(pod);
            }
        }
        world
    }

    fn watch_buckets(&self, world: &World) {
        let understood =
            world.databases.iter().filter_map(|(name, object)| Some((name, object.as_ref().as_ref().ok()?)));
        let buckets = understood.map(|(name, object)| (name.clone(), object.spec.source.clone())).collect();
        self.buckets.watch(&buckets);
    }

    fn follow_logs(&self, world: &World) {
        let pods =
            world.pods.iter().filter(|(whose, _)| world.jobs.contains_key(*whose)).flat_map(|(_, pods)| pods);
        let started = pods.filter(|pod| outcome::has_started(pod));
        let wanted = started.filter_map(|pod| {
            Some(Wanted { uid: pod.uid()?, name: pod.name_any(), over: outcome::is_over(pod) })
        });
        self.logs.follow(wanted.collect());
    }

    fn measure(&self, world: &World, views: &BTreeMap<DatabaseName, View>) {
        let running = views.values().filter(|view| database_status::in_progress(view).is_some()).count();
        let (mut images, mut latest, mut reachable) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, found) in &world.stock.images {
            *images.entry((name.database().clone(), found.record.state.as_str())).or_insert(0) += 1;
            if found.record.state == State::Ready {
                latest.insert(name.database().clone(), found.record.created_at);
            }
        }
        for name in world.databases.keys() {
            match self.buckets.known(name).reach {
                Reach::Unknown => {}
                Reach::Yes(_) => drop(reachable.insert(name.clone(), true)),
                Reach::No(..) => drop(reachable.insert(name.clone(), false)),
            }
        }
        self.tools.metrics.stock(running, &images, latest, &reachable);
    }
}

impl Turns {
    /// How long this database must still wait for its turn; none: it is its turn.
    fn rest(&self, database: &DatabaseName) -> Option<Duration> {
        if self.busy.contains_key(database) {
            return Some(PAUSES.1);
        }
        let (until, _) = self.resting.get(database)?;
        let rest = until.saturating_duration_since(Instant::now());
        (!rest.is_zero()).then_some(rest)
    }

    fn settle(&mut self, worked: Worked, metrics: &super::metrics::Metrics) {
        let Worked { database, result } = worked;
        self.busy.remove(&database);
        match result {
            Ok(()) => drop(self.resting.remove(&database)),
            Err(ActError::NotElected) => {}
            Err(error) if error.is_soon_over() => {
                tracing::debug!(%database, %error, "again in a moment");
                self.resting.insert(database, (Instant::now() + SOON, SOON));
            }
            Err(error) => {
                metrics.failed();
                let last =
                    self.resting.get(&database).map(|(_, pause)| *pause).filter(|pause| *pause >= PAUSES.0);
                let pause = last.map_or(PAUSES.0, |last| (last * 2).min(PAUSES.1));
                tracing::warn!(%database, %error, again_in = ?pause, "not done");
                self.resting.insert(database, (Instant::now() + pause, pause));
            }
        }
    }
}

/// One database's work of one pass.
struct Work {
    database: DatabaseName,
    view: View,
    object: Option<Database>,
    /// What its object says now, and of which generation it is, also where it can't be understood.
    said: Option<(DatabaseStatus, Option<i64>)>,
    objects: HashMap<GoldenImageName, GoldenImage>,
    records: HashMap<GoldenImageName, GoldenRecord>,
    statuses: Vec<(GoldenImageName, GoldenImageStatus)>,
    status: Option<DatabaseStatus>,
    actions: Vec<Action>,
}

impl Work {
    fn new(
        name: &DatabaseName,
        view: &View,
        world: &World,
        controller: &Controller,
        away: Option<&str>,
        now: Timestamp,
    ) -> Self {
        let of_ours = |image: &GoldenImageName| image.database() == name;
        let objects = world.objects.iter().filter(|(image, _)| of_ours(image));
        let objects =
            objects.filter_map(|(image, object)| Some((image.clone(), object.as_ref().clone().ok()?)));
        let records = world.stock.images.iter().filter(|(image, _)| of_ours(image));
        let records = records.map(|(image, found)| (image.clone(), found.record.clone()));
        let database = world.databases.get(name).map(Arc::as_ref);
        let object = database.and_then(|object| object.as_ref().ok()).cloned();
        let said = database.map(|object| match object {
            Ok(object) => (object.status.clone().unwrap_or_default(), object.metadata.generation),
            Err(broken) => (broken.status.clone(), broken.generation),
        });
        let mut work = Self {
            database: name.clone(),
            view: view.clone(),
            object,
            said,
            objects: objects.collect(),
            records: records.collect(),
            statuses: Vec::new(),
            status: None,
            actions: Vec::new(),
        };
        if away.is_none() {
            work.statuses = work.image_statuses(world, controller, now);
        }
        work.status = work.database_status(&controller.buckets.known(name), away, now);
        work
    }

    /// What golden images are to say that they don't say yet.
    fn image_statuses(
        &self,
        world: &World,
        controller: &Controller,
        now: Timestamp,
    ) -> Vec<(GoldenImageName, GoldenImageStatus)> {
        let mut statuses = Vec::new();
        for (image, object) in &self.objects {
            let Some(known) = self.view.images.get(image) else { continue };
            let task = if known.state() == Some(State::Sealed) { Task::Check } else { Task::Build };
            let pods = world.pods_of(image, task);
            let pod = outcome::newest(&pods);
            let waiting = pod.and_then(outcome::waiting);
            let said = pod.and_then(|pod| controller.logs.said(&pod.uid()?));
            let held = object.metadata.deletion_timestamp.is_some()
                && self.view.database.is_some()
                && plan::newest_ready(&self.view) == Some(image);
            let facts = status::Facts {
                image: known,
                record: self.records.get(image),
                clones: Some(world.stock.clones.get(image).copied().unwrap_or(0)),
                used: controller.tools.storage.used(image),
                waiting: waiting.as_deref(),
                said: said.as_ref(),
                held,
                mark: None,
            };
            let old = object.status.clone().unwrap_or_default();
            let new = status::golden_image(&old, object.metadata.generation, &facts, now);
            if new != old {
                statuses.push((image.clone(), new));
            }
        }
        statuses
    }

    fn database_status(&self, known: &Known, away: Option<&str>, now: Timestamp) -> Option<DatabaseStatus> {
        let (old, generation) = self.said.as_ref()?;
        let latest = plan::newest_ready(&self.view);
        let going_on = database_status::in_progress(&self.view).map(|(image, _)| {
            let written = self.statuses.iter().find(|(name, _)| name == image).map(|(_, status)| status);
            let status = written.or_else(|| self.objects.get(image)?.status.as_ref());
            let ready = status.and_then(|status| status.conditions.iter().find(|c| c.type_ == "Ready"));
            let (reason, message) = ready
                .map_or(("Pending", "it is about to begin"), |c| (c.reason.as_str(), c.message.as_str()));
            (image.clone(), reason.to_owned(), message.to_owned())
        });
        let facts = database_status::Facts {
            view: &self.view,
            generation: *generation,
            latest: latest.and_then(|name| Some((name, self.records.get(name)?))),
            reach: &known.reach,
            going_on,
            away,
        };
        let new = database_status::database(old, &facts, now);
        (new != *old).then_some(new)
    }

    /// Looking into a bucket is not this database's turn's work: the answer comes by itself.
    fn look(&mut self, buckets: &Buckets) {
        let before = self.actions.len();
        self.actions.retain(|action| *action != Action::Look);
        let asked = self.object.as_ref().and_then(|object| object.annotations().get(INGEST));
        if let Some(asked) = asked.filter(|_| self.actions.len() < before) {
            buckets.ask(&self.database, asked.trim());
        }
    }

    fn is_nothing(&self) -> bool {
        self.actions.is_empty() && self.statuses.is_empty() && self.status.is_none()
    }

    async fn run(self, tools: Arc<Tools>) -> Worked {
        let mut runner = Runner {
            tools: &tools,
            name: &self.database,
            view: &self.view,
            database: self.object.as_ref(),
            objects: self.objects,
            records: &self.records,
            restored: None,
            since: tokio::time::Instant::now(),
        };
        // Who waits, waits for what is done, not for what is said. After it everything is looked at anew, so that nothing is said of
        // what was before; but what can't be done for a while says why.
        let at_once = self.actions.iter().any(Action::is_waited_for);
        let (mut result, mut done) = (Ok(()), 0);
        if !at_once {
            result = say(&mut runner, &self.statuses, self.status.as_ref()).await;
        }
        for action in self.actions {
            if result.is_err() {
                break;
            }
            match &action {
                // Many times a second, until the node has let go of it.
                Action::Seal(..) => tracing::debug!("{action}"),
                action => tracing::info!("{action}"),
            }
            let ahead = matches!(action, Action::CheckAhead(_));
            result = runner.act(action).await;
            done += u32::from(result.is_ok() && !ahead);
        }
        if at_once && done == 0 && result.as_ref().is_err_and(ActError::leaves_no_mark) {
            let said = say(&mut runner, &self.statuses, self.status.as_ref()).await;
            result = result.and(said);
        }
        Worked { result, database: self.database.clone() }
    }
}

/// Writes what golden images and their database say of themselves.
async fn say(
    runner: &mut Runner<'_>,
    images: &[(GoldenImageName, GoldenImageStatus)],
    database: Option<&DatabaseStatus>,
) -> Result<(), ActError> {
    for (image, status) in images {
        runner.allowed()?;
        runner.write_image(image, status).await?;
    }
    if let Some(status) = database {
        runner.allowed()?;
        runner.write_database(status).await?;
    }
    Ok(())
}
