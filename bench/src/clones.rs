//! Clones in RBD: ours against the bare librbd calls.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use aldaas_api::GoldenImageName;
use aldaas_api::manifest::{Contents, Engine, Manifest, Source};
use aldaas_golden::{CloneRequest, GOLDEN, GoldenImage, Purpose, SEALED, Store};
use aldaas_rbd as rbd;
use anyhow::Result;
use jiff::Timestamp;

use crate::figure::{Bound, Figure};
use crate::part::{Only, Part};
use crate::sample::Sample;

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
/// Single clones measured for a median.
const ROUNDS: usize = 60;
/// Clones in the storm, and how many at a time.
const STORM: usize = 100;
const AT_A_TIME: usize = 10;

/// What both sides work on: a golden image of ours, and one made by hand.
struct Images {
    golden: GoldenImage,
    bare: rbd::ImageName,
    bare_parents: rbd::Namespace,
    bare_clones: rbd::Namespace,
}

/// Measures all of this file's figures.
pub fn measure(cluster: &rbd::Cluster, store: &Store, only: &Only) -> Result<Vec<Figure>> {
    let images = Images::make(cluster, store, GIB, "small")?;
    let large = golden_image(store, "large", TIB)?;
    let mut figures = Vec::new();
    if only.wants(Part::Clone) {
        figures.extend(one_clone(store, &images)?);
        figures.extend(operations(cluster, store, &images)?);
    }
    if only.wants(Part::Size) {
        figures.extend(by_size(cluster, store, &images.golden, &large)?);
    }
    if only.wants(Part::Storm) {
        figures.push(storm(store, &images.golden)?);
    }
    for golden in [&images.golden, &large] {
        store.retire(&golden.name, true)?;
    }
    images.remove()?;
    Ok(figures)
}

impl Images {
    fn make(cluster: &rbd::Cluster, store: &Store, size: u64, database: &str) -> Result<Self> {
        let pool = cluster.pool(store.pool())?;
        for name in ["bare-parents", "bare-clones"] {
            pool.ensure_namespace(name)?;
        }
        let bare_parents = pool.namespace("bare-parents")?;
        let bare = rbd::ImageName::new("bare")?;
        bare_parents.create(&bare, size, &Default::default())?;
        bare_parents.open(&bare)?.create_snapshot(SEALED)?;
        let bare_clones = pool.namespace("bare-clones")?;
        Ok(Self { golden: golden_image(store, database, size)?, bare, bare_parents, bare_clones })
    }

    fn clone_bare(&self, child: &rbd::ImageName) -> Result<()> {
        let options = Default::default();
        Ok(self.bare_parents.clone_image(&self.bare, SEALED, &self.bare_clones, child, &options)?)
    }

    fn remove(&self) -> Result<()> {
        self.bare_parents.open(&self.bare)?.remove_snapshot(SEALED)?;
        Ok(self.bare_parents.remove(&self.bare)?)
    }
}

fn golden_image(store: &Store, database: &str, size: u64) -> Result<GoldenImage> {
    let name = GoldenImageName::new(&database.parse()?, Timestamp::now());
    let candidate = store.begin(&name, size, "nothing")?;
    candidate.seal(&manifest(database))?;
    candidate.ready()?;
    Ok(store.golden_image(&name)?)
}

/// The evidence of a golden image that holds nothing.
pub fn manifest(database: &str) -> Manifest {
    Manifest {
        database: database.to_owned(),
        source: Source {
            location: "s3://backup/orders/2026/11/23/orders.sql.gz".into(),
            etag: Some("9bb58f26192e4ba00f01e2e7b136bbd8".into()),
            size: GIB,
            sha256: "0".repeat(64),
            format: "gzip, plain SQL".into(),
        },
        engine: Engine { name: "postgres".into(), version: "15.18".into(), image_digest: None },
        contents: Contents { tables: 100, rows: 1_000_000, bytes: GIB },
        steps: Default::default(),
        ran: Vec::new(),
        finished_at: Timestamp::now(),
    }
}

fn request(name: impl std::fmt::Display) -> Result<CloneRequest> {
    Ok(CloneRequest {
        name: name.to_string().parse()?,
        purpose: Purpose::Named,
        holder: None,
        object_size: None,
        pod: None,
        unverified: false,
    })
}

/// A clone that is ready to attach, against the bare clone call.
fn one_clone(store: &Store, images: &Images) -> Result<Vec<Figure>> {
    let (mut ours, mut bare) = (Sample::default(), Sample::default());
    for n in 0..ROUNDS {
        let child = rbd::ImageName::new(format!("bare-{n}"))?;
        bare.time(|| images.clone_bare(&child))?;
        images.bare_clones.remove(&child)?;
        let request = request(format!("ours-{n}"))?;
        ours.time(|| store.clone_image(&images.golden, &request))?;
        store.remove_clone(&request.name)?;
    }
    let against = "bare librbd clone call";
    Ok(vec![Figure::new(
        "clone a golden image, p50",
        "ms",
        ours.p50(),
        against,
        bare.p50(),
        Bound::Times(1.4),
    )])
}

/// The same in RADOS operations, which a busy machine does not change.
fn operations(cluster: &rbd::Cluster, store: &Store, images: &Images) -> Result<Vec<Figure>> {
    let (mut ours, mut bare) = (Sample::default(), Sample::default());
    for n in 0..10 {
        let child = rbd::ImageName::new(format!("bare-{n}"))?;
        let before = cluster.objecter_ops()?;
        images.clone_bare(&child)?;
        bare.add((cluster.objecter_ops()? - before) as f64);
        images.bare_clones.remove(&child)?;
        let request = request(format!("ours-{n}"))?;
        let before = cluster.objecter_ops()?;
        store.clone_image(&images.golden, &request)?;
        ours.add((cluster.objecter_ops()? - before) as f64);
        store.remove_clone(&request.name)?;
    }
    let (name, against) =
        ("RADOS operations of one clone, metadata included", "bare librbd clone call, same features");
    Ok(vec![Figure::new(name, "operations", ours.p50(), against, bare.p50(), Bound::More(16.0))])
}

/// A clone costs the same whatever its parent's size. The bare calls beside it, with objects of the same size, say what of
/// that is librbd's: its object map has an entry for each object, is made with the clone and walked at its removal.
fn by_size(
    cluster: &rbd::Cluster,
    store: &Store,
    small: &GoldenImage,
    large: &GoldenImage,
) -> Result<Vec<Figure>> {
    let pool = cluster.pool(store.pool())?;
    let (parents, bare_clones) = (pool.namespace(GOLDEN)?, pool.namespace("bare-clones")?);
    let [mut ours, mut bare]: [[BySize; 2]; 2] = Default::default();
    for n in 0..ROUNDS {
        // Who comes first changes: what one leaves for the cluster to do slows the other.
        let order = if n % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let golden = [small, large][which];
            let request = request(format!("{}-{n}", golden.name.database()))?;
            ours[which].clone.time(|| store.clone_image(golden, &request))?;
            ours[which].remove.time(|| store.remove_clone(&request.name))?;
            let (parent, child) =
                (rbd::ImageName::new(golden.name.to_string())?, rbd::ImageName::new(format!("sized-{n}"))?);
            let object_size = Some(aldaas_golden::default_object_size(golden.record.size));
            let options = rbd::CloneOptions { object_size, ..Default::default() };
            bare[which]
                .clone
                .time(|| parents.clone_image(&parent, SEALED, &bare_clones, &child, &options))?;
            bare[which].remove.time(|| bare_clones.remove(&child))?;
        }
    }
    let figure = |name: &str, [small, large]: [&Sample; 2], bound| {
        Figure::new(name, "ms", large.p50(), "of 1 GiB", small.p50(), bound)
    };
    let ([ours_small, ours_large], [bare_small, bare_large]) = (&ours, &bare);
    let (bound, clone, remove) =
        (Bound::Times(1.1), "clone of a 1 TiB image, p50", "remove a clone of 1 TiB, p50");
    Ok(vec![
        figure(clone, [&ours_small.clone, &ours_large.clone], bound),
        figure(&format!("{clone}, by the bare calls"), [&bare_small.clone, &bare_large.clone], Bound::Said),
        figure(remove, [&ours_small.remove, &ours_large.remove], bound),
        figure(
            &format!("{remove}, by the bare calls"),
            [&bare_small.remove, &bare_large.remove],
            Bound::Said,
        ),
    ])
}

/// What clones of one size take to make and to remove.
#[derive(Default)]
struct BySize {
    clone: Sample,
    remove: Sample,
}

/// A hundred clones of one image, ten at a time, against one after the other.
fn storm(store: &Store, golden: &GoldenImage) -> Result<Figure> {
    let in_sequence = clone_many(store, golden, 1)?;
    let at_once = clone_many(store, golden, AT_A_TIME)?;
    let name = format!("{STORM} clones of one image, {AT_A_TIME} at a time");
    Ok(Figure::new(&name, "s", at_once, "in sequence", in_sequence, Bound::Times(0.5)))
}

/// Seconds that `STORM` clones take, `threads` at a time.
fn clone_many(store: &Store, golden: &GoldenImage, threads: usize) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let each = |work: &(dyn Fn(usize) -> Result<()> + Sync)| {
        next.store(0, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::SeqCst);
                        if n >= STORM {
                            return;
                        }
                        if let Err(error) = work(n) {
                            *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                        }
                    }
                });
            }
        });
    };
    let started = Instant::now();
    each(&|n| {
        store.clone_image(golden, &request(format!("storm-{n}"))?)?;
        Ok(())
    });
    let took = started.elapsed().as_secs_f64();
    each(&|n| Ok(store.remove_clone(&format!("storm-{n}").parse()?)?));
    match failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(took),
    }
}
