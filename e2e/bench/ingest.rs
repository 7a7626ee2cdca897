//! How soon a dump is a golden image.

use std::process::Command;
use std::time::{Duration, Instant};

use aldaas_e2e::{Database, Site};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::clock::now;
use crate::figure::{Bound, Figure};

/// Bytes of the dump.
const SIZE: usize = 100 << 20;
/// How often each is measured: the middle counts.
const TIMES: usize = 3;
const BY_HAND: &str = "aldaas ingest of it on the same machine";

/// Seconds of one ingest, and what they were spent on.
struct Ingested {
    all: f64,
    parts: Vec<(&'static str, f64)>,
}

pub fn measure(site: &Site) -> Result<Vec<Figure>> {
    let note =
        "a hundred bytes of text that is like what people write in notes of their orders, again and again";
    let dump = aldaas_e2e::dump(SIZE / (note.len() + 8), note);
    let mut database = site.database("large");
    database.be_told();
    let (mut cluster, mut alone) = (Vec::new(), Vec::new());
    // By turns, so that what the machine does beside hits both alike.
    for nth in 0..TIMES {
        let key = format!("{nth}.sql");
        cluster.push(told(site, &database, &key, &dump)?);
        alone.push(by_hand(site, &database, &key)?);
    }
    let (cluster, alone) = (middle(cluster), middle(alone));
    let name = "100 MiB dump, told of by the store to ready";
    let mut figures = vec![Figure::new(name, "s", cluster.all, BY_HAND, alone.all, Bound::Times(1.3))];
    for (name, seconds) in &cluster.parts {
        let same = alone.parts.iter().find(|(other, _)| other == name);
        let (against, of) =
            same.map_or(("the whole", cluster.all), |(_, seconds)| ("the same by hand", *seconds));
        figures.push(Figure::new(&format!("ingest: {name}"), "s", *seconds, against, of, Bound::Said));
    }
    Ok(figures)
}

fn middle(mut all: Vec<Ingested>) -> Ingested {
    all.sort_by(|a, b| a.all.total_cmp(&b.all));
    all.swap_remove(all.len() / 2)
}

/// Uploads the dump, of which radosgw tells the controller; from the moment that it was written.
fn told(site: &Site, database: &Database, key: &str, dump: &[u8]) -> Result<Ingested> {
    let before = database.latest();
    database.upload(key, dump);
    let (start, since) = (Instant::now(), now());
    let image = loop {
        match database.latest() {
            Some(latest) if Some(&latest) != before.as_ref() => break latest,
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
        ensure!(start.elapsed() < Duration::from_secs(300), "it is not ready after five minutes");
    };
    let all = start.elapsed().as_secs_f64();
    Ok(Ingested { all, parts: parts(site, &image, since, since + all * 1000.0)? })
}

/// What the controller says of when it did what, against the times at which the pods' work began and ended.
fn parts(site: &Site, image: &str, since: f64, until: f64) -> Result<Vec<(&'static str, f64)>> {
    let log = site.kube.kubectl(&["logs", "-n", "aldaas", "deployment/aldaas-controller", "--since=10m"]);
    let log = log.map_err(anyhow::Error::msg)?;
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let said = |message: &str| {
        let found =
            lines.iter().find(|line| line["message"].as_str().is_some_and(|said| said.starts_with(message)));
        found.and_then(|line| moment(&line["timestamp"]))
    };
    let did = |what: &str| said(what).with_context(|| format!("the controller did not say {what:?}"));
    // Of a pod's work: when it began, when it ended, when the controller knew.
    let work = |what: &str| {
        let line = lines.iter().find(|line| line["message"] == what && line["image"] == image);
        let line = line.with_context(|| format!("the controller did not say {what:?}"))?;
        let ended = moment(&line["finished_at"]).context("its end")?;
        let took = line["milliseconds"].as_f64().context("its time")?;
        let known = moment(&line["timestamp"]).context("a time")?;
        Ok::<_, anyhow::Error>((ended - took, ended, known))
    };
    let begun = did(&format!("begin {image}"))?;
    let building = did(&format!("start the build of {image}"))?;
    let checking = did(&format!("start the check of {image}"))?;
    let (build, check) = (work("sealed")?, work("verified")?);
    let all = [
        ("told to begun", begun - since),
        ("begun to Job", building - begun),
        ("Job to restore (pod, blank volume, container)", build.0 - building),
        ("restore", build.1 - build.0),
        ("restored to sealed (the node lets go)", build.2 - build.1),
        ("restored to Job of the check", checking - build.1),
        ("Job to check (pod, clone, container)", check.0 - checking),
        ("sealed to check", check.0 - build.2),
        ("check", check.1 - check.0),
        ("checked to known", check.2 - check.1),
        ("known to latest", until - check.2),
    ];
    Ok(all.map(|(name, milliseconds)| (name, milliseconds / 1000.0)).to_vec())
}

/// Milliseconds since the epoch.
fn moment(text: &Value) -> Option<f64> {
    let at: k8s_openapi::jiff::Timestamp = text.as_str()?.parse().ok()?;
    Some(at.as_microsecond() as f64 / 1000.0)
}

fn by_hand(site: &Site, database: &Database, key: &str) -> Result<Ingested> {
    let programs =
        std::env::var("ALDAAS_E2E_PROGRAMS").context("ALDAAS_E2E_PROGRAMS: run e2e/run --bench")?;
    let mut aldaas = Command::new(format!("{programs}/aldaas"));
    let (name, from) = (format!("{}-by-hand", database.name), database.location(key));
    aldaas.args(["ingest", &name, "--from", &from, "--output", "json"]);
    let start = Instant::now();
    let out = aldaas.envs(site.bed.envs()).output().context("run aldaas")?;
    let all = start.elapsed().as_secs_f64();
    ensure!(out.status.success(), "aldaas ingest: {}", String::from_utf8_lossy(&out.stderr));
    let said: Value = serde_json::from_slice(&out.stdout).context("what aldaas ingest says")?;
    let sum = |steps: &Value| -> f64 {
        let all = steps.as_object().into_iter().flatten();
        all.filter_map(|(_, milliseconds)| milliseconds.as_f64()).sum::<f64>() / 1000.0
    };
    Ok(Ingested { all, parts: vec![("restore", sum(&said["steps"])), ("check", sum(&said["verification"]))] })
}
