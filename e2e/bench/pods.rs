//! How soon a pod with a clone answers.

use std::time::{Duration, Instant};

use aldaas_e2e::{ENGINE, Room, Site, dump, path, until};
use serde_json::{Value, json};

use crate::clock::now;
use crate::figure::{Bound, Figure};
use crate::shares::{Published, Scheduled};

/// How many are measured one after the other.
const SAMPLES: usize = 15;
/// And how many at once.
const CROWD: usize = 30;
/// How long the node has work with a crowd that was deleted.
const TIDYING: Duration = Duration::from_secs(8);
/// How often it is asked whether a crowd is there: a list of all costs time on the same cores.
const LOOK: Duration = Duration::from_secs(2);

/// When things happened to one pod, in milliseconds since the epoch. Node and tests have the same clock.
struct Times {
    asked: f64,
    admitted: f64,
    /// A node was chosen; known only where somebody watched.
    scheduled: Option<f64>,
    started: f64,
    connected: f64,
    answered: f64,
}

/// Seconds of `part`, middle and worst, of all.
fn quantiles(of: &[Times], part: impl Fn(&Times) -> f64) -> (f64, f64) {
    let mut all: Vec<f64> = of.iter().map(|times| part(times) / 1000.0).collect();
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
    (at(0.5), at(0.95))
}

/// A pod that says when its container began, when the engine took a connection, and when the first row came.
fn pod(room: &Room, name: &str, database: Option<&str>) -> Value {
    let annotations = database.map_or(json!({}), |name| json!({"aldaas/db": format!("{name}:latest")}));
    let mut pod = room.pod(name, annotations);
    let script = match database {
        // What the engine's own entrypoint does, and the first row. Thirty that ask without end are a load of their own, so nobody
        // asks before there is a socket.
        Some(name) => format!(
            "date +%s%3N; docker-entrypoint.sh postgres >/dev/null 2>&1 & \
             until [ -S /run/postgresql/.s.PGSQL.5432 ] && psql -qAt -U postgres -d {name} -c '\\! date +%s%3N' -c \"SELECT 'row' FROM orders LIMIT 1\" 2>/dev/null; \
             do sleep 0.01; done; date +%s%3N; wait"
        ),
        None => "date +%s%3N; date +%s%3N; date +%s%3N; sleep 1000".to_owned(),
    };
    let container = &mut pod["spec"]["containers"][0];
    container["command"] = json!(["bash", "-c", script]);
    container.as_object_mut().expect("a container").remove("readinessProbe");
    pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
    if database.is_none() {
        pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
        container_mounts(&mut pod);
    }
    pod
}

fn container_mounts(pod: &mut Value) {
    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/var/lib/postgresql/data"}]);
}

/// Makes the pod; returns when that was, and when the API server had taken it.
fn create(site: &Site, pod: &Value) -> (f64, f64) {
    let asked = now();
    site.kube.create(pod).unwrap_or_else(|error| panic!("{error}"));
    (asked, now())
}

/// What the pod said.
fn times(site: &Site, room: &Room, name: &str, (asked, admitted): (f64, f64)) -> Times {
    let said = until("the pod answers", || {
        let log = site.kube.kubectl(&["logs", "-n", &room.name, name]).ok()?;
        let said: Vec<f64> = log.lines().filter_map(|line| line.parse().ok()).collect();
        (said.len() == 3).then_some(said)
    });
    Times { asked, admitted, scheduled: None, started: said[0], connected: said[1], answered: said[2] }
}

fn one_by_one(site: &Site, room: &Room, kind: &str, database: Option<&str>) -> Vec<Times> {
    let watched = Scheduled::watch(&room.name);
    (0..SAMPLES)
        .map(|n| {
            let name = format!("{kind}-{n}");
            let created = create(site, &pod(room, &name, database));
            std::thread::sleep(Duration::from_millis(700)); // asking for its log costs time on the same cores
            let times = times(site, room, &name, created);
            room.remove("pods", &name);
            Times { scheduled: watched.when(&name), ..times }
        })
        .collect()
}

/// Seconds until all of many pods that are made at once have answered.
fn crowd(site: &Site, room: &Room, kind: &str, database: Option<&str>) -> f64 {
    let names: Vec<String> = (0..CROWD).map(|n| format!("{kind}-{n}")).collect();
    let created: Vec<(f64, f64)> =
        names.iter().map(|name| create(site, &pod(room, name, database))).collect();
    let wait = Instant::now();
    while room.ready_pods_of_all().len() < CROWD && wait.elapsed() < Duration::from_secs(110) {
        std::thread::sleep(LOOK);
    }
    let all: Vec<Times> =
        names.iter().zip(&created).map(|(name, created)| times(site, room, name, *created)).collect();
    let last = all.iter().map(|times| times.answered).fold(0.0, f64::max);
    for name in &names {
        site.kube.delete(&path("pods", &room.name, name));
    }
    until("the crowd is gone", || room.ready_pods_of_all().is_empty().then_some(()));
    std::thread::sleep(TIDYING);
    (last - created[0].0) / 1000.0
}

/// Seconds for `pg_ctl start` on a local copy and the first row, in a plain pod.
fn local_start(site: &Site, room: &Room) -> f64 {
    let mut plain = pod(room, "local", None);
    plain["spec"]["containers"][0]["image"] = json!(ENGINE);
    site.kube.create(&plain).unwrap_or_else(|error| panic!("{error}"));
    room.until_ready("local", 1);
    let script = "D=/tmp/local; run() { setpriv --reuid 999 --regid 999 --clear-groups \"$@\"; }; \
        run initdb -D $D -U postgres -A trust >/dev/null 2>&1; \
        for i in 1 2 3 4 5; do s=$(date +%s%3N); run pg_ctl -D $D -l /tmp/log -o \"-k /tmp\" -w start >/dev/null; \
        run psql -qAt -h /tmp -U postgres -c 'SELECT 1' >/dev/null; e=$(date +%s%3N); echo $((e - s)); run pg_ctl -D $D -m fast -w stop >/dev/null; done";
    let said = site
        .kube
        .exec(&room.name, "local", &["bash", "-c", script])
        .unwrap_or_else(|error| panic!("{error}"));
    let mut all: Vec<f64> = said.lines().filter_map(|line| line.parse().ok()).collect();
    all.sort_by(f64::total_cmp);
    room.remove("pods", "local");
    all[all.len() / 2] / 1000.0
}

pub fn measure(site: &Site) -> Vec<Figure> {
    let database = site.database("pods");
    let room = site.room("bench");
    database.ingest("1.sql", &dump(1000, "row"));
    let plain = one_by_one(site, &room, "plain", None);
    let local = local_start(site, &room);
    let before = Published::so_far(site);
    let clones = one_by_one(site, &room, "clone", Some(&database.name));
    let published = Published::so_far(site).since(&before);
    let (plain, _) = quantiles(&plain, |times| times.answered - times.asked);
    let (p50, p95) = quantiles(&clones, |times| times.answered - times.asked);
    let against = "the same pod with an emptyDir running, and pg_ctl start on a local copy";
    let mut figures = vec![
        Figure::new(
            "annotated pod, create to first row, p50",
            "s",
            p50,
            against,
            plain + local,
            Bound::Times(2.0),
        ),
        Figure::new(
            "annotated pod, create to first row, p50, absolute",
            "s",
            p50,
            "two seconds",
            2.0,
            Bound::Times(1.0),
        ),
        Figure::new(
            "annotated pod, create to first row, p95, absolute",
            "s",
            p95,
            "four seconds",
            4.0,
            Bound::Times(1.0),
        ),
    ];
    std::thread::sleep(TIDYING);
    let plain_crowd = crowd(site, &room, "plain-crowd", None);
    let crowd = crowd(site, &room, "crowd", Some(&database.name));
    let alone = CROWD as f64 * p50;
    figures.push(Figure::new(
        "30 annotated pods at once, until all answer",
        "s",
        crowd,
        "30 times the p50 of one",
        alone,
        Bound::Times(0.5),
    ));
    figures.push(Figure::new(
        "30 annotated pods at once, until all answer",
        "s",
        crowd,
        "30 plain pods at once, until all run",
        plain_crowd,
        Bound::Said,
    ));
    figures.extend(shares(&clones, &published, p50));
    figures
}

/// Where the time of one pod goes: admission, schedule, clone, attach, mount, the rest of the node's work, engine, first row.
fn shares(clones: &[Times], published: &Published, p50: f64) -> Vec<Figure> {
    let share = |name: &str, seconds: f64| {
        Figure::new(&format!("share: {name}"), "s", seconds, "the whole, p50", p50, Bound::Said)
    };
    let middle = |part: fn(&Times) -> f64| quantiles(clones, part).0;
    let seen: Vec<f64> =
        clones.iter().filter_map(|t| Some((t.scheduled? - t.admitted).max(0.0) / 1000.0)).collect();
    let schedule = seen.iter().sum::<f64>() / seen.len().max(1) as f64;
    let node = middle(|times| times.started - times.admitted) - schedule;
    let (clone, attach, mount) = (published.mean("clone"), published.mean("attach"), published.mean("bind"));
    vec![
        share("admission", middle(|times| times.admitted - times.asked)),
        share("schedule", schedule),
        share("clone", clone),
        share("attach, and its file system mounted", attach),
        share("mount into the pod", mount),
        share("kubelet: sandbox, container", node - clone - attach - mount),
        share("engine start", middle(|times| times.connected - times.started)),
        share("first row", middle(|times| times.answered - times.connected)),
    ]
}
