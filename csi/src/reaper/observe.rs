//! Taking the inventories. Listing 10,000 clones takes seconds: one read for each, and none for one that is known.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldaas_api::CloneName;
use aldaas_golden::{self as golden, KnownClones, ListedClone, Store};
use aldaas_volume::mountinfo::Mounts;
use aldaas_volume::{self as volume, ImageSpec};

use super::Parts;
use super::observed::{Build, Facts, Observed, SeenClone, SeenTarget, SeenVolume, owner_of};
use super::plan::is_golden;
use crate::blocking::blocking;
use crate::idle::{Idle, Published, Sampler};
use crate::metrics::PoolFullness;
use crate::ports::Pod;

/// How many records are read at once.
const THREADS: usize = 16;
/// kubelet's note beside a target.
const NOTE: &str = "vol_data.json";

/// Looks at everything.
pub struct Observer {
    parts: Parts,
    known: std::sync::Arc<KnownClones>,
    sampler: std::sync::Arc<Sampler>,
    idle: std::sync::Mutex<BTreeMap<CloneName, Idle>>,
}

/// What RBD says.
struct Stored {
    clones: Vec<ListedClone>,
    trash: usize,
    builds: BTreeMap<ImageSpec, Build>,
}

impl Observer {
    /// Looks with these.
    pub(super) fn new(parts: Parts, sampler: Sampler) -> Self {
        Self {
            parts,
            known: Default::default(),
            sampler: std::sync::Arc::new(sampler),
            idle: Default::default(),
        }
    }

    /// What the last look said of a clone's use.
    pub(super) fn last_idle(&self, name: &CloneName) -> Option<Idle> {
        self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(name).cloned()
    }

    /// Takes all inventories. Pods come last: a pod is there before its clone, so no clone seems to be nobody's because it was
    /// made while we looked.
    ///
    /// # Errors
    /// When this machine's own state can't be read.
    pub(super) async fn observe(&self, now: Duration, sweep: bool) -> Result<Observed, volume::Error> {
        let pool = self.parts.storage.pool().to_string();
        let (node, kubelet_dir) = (self.parts.node.clone(), self.parts.kubelet_dir.clone());
        let (here, targets) = blocking(move || -> Result<_, volume::Error> {
            let here = node.inventory()?;
            let targets = targets(&here, &kubelet_dir)?;
            Ok((here, targets))
        })
        .await?;
        let stored = self
            .stored(here.iter().map(|found| found.spec.clone()).filter(|s| is_golden(s, &pool)).collect());
        let (clones, trash, mut builds) = match stored.await {
            Ok(stored) => (Ok(stored.clones), stored.trash, stored.builds),
            Err(error) => (Err(error.to_string()), 0, BTreeMap::new()),
        };
        let seen = |one: ListedClone| SeenClone { name: one.name, record: one.record, facts: None };
        let volumes = here.into_iter().map(|found| SeenVolume {
            build: builds.remove(&found.spec),
            spec: found.spec,
            device: found.device,
        });
        let mut observed = Observed {
            node: self.parts.node_name.clone(),
            pool,
            elected: self.parts.cluster.is_elected(),
            clones: clones.map(|clones| clones.into_iter().map(seen).collect()),
            trash,
            sweep,
            volumes: volumes.collect(),
            targets,
            idle: BTreeMap::new(),
            nodes: self.parts.cluster.nodes(),
            pods: self.parts.cluster.pods(),
        };
        self.look_at_use(&mut observed, now).await;
        Ok(observed)
    }

    async fn stored(&self, golden_here: Vec<ImageSpec>) -> golden::Result<Stored> {
        let known = self.known.clone();
        let work = move |store: &Store| {
            let mut builds = BTreeMap::new();
            for spec in &golden_here {
                builds.insert(spec.clone(), build(store, spec)?);
            }
            Ok(Stored { clones: store.list_clones(THREADS, &known)?, trash: store.trashed()?.len(), builds })
        };
        self.parts.storage.run(work).await
    }

    /// Looks closer at some clones.
    pub(super) async fn look_closer(&self, observed: &mut Observed, names: &BTreeSet<CloneName>) {
        let Ok(clones) = &mut observed.clones else { return };
        let names = names.clone();
        let facts = self.parts.storage.run(move |store| {
            names
                .iter()
                .map(|name| Ok((name.clone(), facts(store, name)?)))
                .collect::<golden::Result<BTreeMap<_, _>>>()
        });
        match facts.await {
            Ok(mut facts) => clones.iter_mut().for_each(|clone| clone.facts = facts.remove(&clone.name)),
            // Nothing is known closer: nothing goes.
            Err(error) => tracing::warn!(%error, "clones that seem to be unused can't be looked at"),
        }
    }

    /// Which clones are in use.
    async fn look_at_use(&self, observed: &mut Observed, now: Duration) {
        // With Kubernetes or Ceph away it is not known whose clones these are; what is remembered stays.
        let Some(published) = self.published(observed) else { return };
        let sampler = self.sampler.clone();
        let looked = blocking(move || sampler.look(&published, now)).await;
        self.parts.metrics.written(looked.written);
        observed.idle = looked.idle;
        *self.idle.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = observed.idle.clone();
    }

    fn published(&self, observed: &Observed) -> Option<Vec<Published>> {
        let (pods, clones) = (observed.pods.as_ref().ok()?, observed.clones.as_ref().ok()?);
        let living: BTreeMap<&str, &Pod> =
            pods.iter().filter(|pod| !pod.finished).map(|pod| (pod.uid.as_str(), pod)).collect();
        let devices: BTreeMap<&str, &PathBuf> = observed
            .volumes
            .iter()
            .filter(|volume| volume.spec.pool == observed.pool && volume.spec.namespace == golden::CLONE)
            .filter_map(|volume| Some((volume.spec.image.as_str(), volume.device.as_ref()?)))
            .collect();
        let one = |clone: &SeenClone| {
            let device = devices.get(clone.name.as_str())?;
            let pod = living.get(clone.user()?.pod_uid.as_str())?;
            let record = clone.record.as_ref()?;
            let port = match self.parts.directory.database(record.golden_image.database()) {
                Ok(Some(database)) => Ok(database.port),
                Ok(None) => Err("its database is gone, and with it the engine's port".to_owned()),
                Err(away) => Err(away.to_string()),
            };
            let (clone, pod_uid) = (clone.name.clone(), pod.uid.clone());
            Some(Published { clone, pod_uid, device: (*device).clone(), port })
        };
        Some(clones.iter().filter_map(one).collect())
    }

    /// Looks once more whether a clone is idle, right before its pod is deleted.
    pub(super) async fn is_idle_still(&self, observed: &Observed, clone: &CloneName) -> bool {
        let published = self.published(observed).unwrap_or_default();
        let Some(one) = published.into_iter().find(|one| one.clone == *clone) else { return false };
        let sampler = self.sampler.clone();
        blocking(move || sampler.is_idle(&one)).await
    }

    /// What the metrics say of the pool and its golden images.
    pub(super) async fn measure(&self) -> golden::Result<()> {
        let measured = self.parts.storage.run(|store| Ok((store.pool_usage()?, store.golden_images()?)));
        let (usage, images) = measured.await?;
        let ratio = usage.full_ratio();
        self.parts.metrics.pool(&PoolFullness { used: usage.stored, available: usage.max_avail, ratio });
        let now = jiff::Timestamp::now();
        let latest = golden::images::latest_of(&images);
        let age = |image: &golden::GoldenImage| {
            let seconds = now.duration_since(image.record.created_at).as_secs();
            Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        };
        let newest = images.iter().filter(|image| latest.get(image.name.database()) == Some(&image.name));
        let ages = newest.map(|image| (image.name.database().clone(), age(image)));
        self.parts.metrics.latest(&ages.collect());
        Ok(())
    }
}

/// What only a closer look tells.
fn facts(store: &Store, name: &CloneName) -> golden::Result<Facts> {
    match store.find_clone(name) {
        Ok(clone) => {
            let watchers = store.clone_watchers(&clone.id)?.into_iter().map(|watcher| watcher.address);
            let is_named = clone.record.purpose == golden::Purpose::PodNamed;
            let kept = is_named && (store.is_kept(&clone.id)? || !store.leases(&clone.id)?.is_empty());
            Ok(Facts { watchers: watchers.collect(), kept, half_made: false })
        }
        Err(golden::Error::NoClone(_)) => Ok(Facts::default()),
        Err(golden::Error::Foreign(_)) => {
            Ok(Facts { half_made: store.is_half_made(name)?, ..Facts::default() })
        }
        Err(error) => Err(error),
    }
}

fn build(store: &Store, spec: &ImageSpec) -> golden::Result<Build> {
    let Ok(name) = spec.image.parse() else { return Ok(Build::Other) };
    match store.golden_image(&name) {
        Ok(image) => Ok(image.record.builder.map_or(Build::Other, Build::ByPod)),
        Err(golden::Error::NoImage(_)) => Ok(Build::Missing),
        Err(golden::Error::Foreign(_)) => Ok(Build::Other),
        Err(error) => Err(error),
    }
}

/// Where our volumes are mounted below kubelet's directory, and the directories at which they were to be.
fn targets(here: &[volume::Observed], kubelet_dir: &Path) -> Result<Vec<SeenTarget>, volume::Error> {
    let kubelet_dir = kubelet_dir.canonicalize().unwrap_or_else(|_| kubelet_dir.to_owned());
    let mounts = Mounts::read()?;
    let mut targets = Vec::new();
    for found in here {
        for path in found.mounts.iter().filter(|path| path.starts_with(&kubelet_dir)) {
            let (path, holds) = (path.clone(), Some(found.spec.clone()));
            targets.push(SeenTarget { owner: owner_of(&path, &kubelet_dir), path, holds, noted: false });
        }
    }
    for path in directories(&kubelet_dir) {
        // What is mounted is not touched: it may be a file system that does not answer.
        if mounts.top_at(&path).is_none() && path.is_dir() {
            let noted = path.parent().is_some_and(is_noted);
            targets.push(SeenTarget { owner: owner_of(&path, &kubelet_dir), path, holds: None, noted });
        }
    }
    Ok(targets)
}

/// `pods/*/volumes/kubernetes.io~csi/*/mount`
fn directories(kubelet_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = |directory: PathBuf| std::fs::read_dir(directory).into_iter().flatten().flatten();
    let pods = entries(kubelet_dir.join("pods")).map(|pod| pod.path().join("volumes/kubernetes.io~csi"));
    pods.flat_map(entries).map(|volume| volume.path().join("mount"))
}

fn is_noted(directory: &Path) -> bool {
    let note = std::fs::read(directory.join(NOTE)).ok();
    let note = note.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    note.is_some_and(|note| note["driverName"] == crate::DRIVER)
}
