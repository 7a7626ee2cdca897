//! A hundred volumes at once: what they cost in memory, and whether they wait for each other.

use std::time::Instant;

use aldaas_golden::SEALED;
use aldaas_rbd as rbd;
use aldaas_volume::{ImageSpec, Marker, OpenVolume};
use anyhow::{Context as _, Result};

use super::Bench;
use crate::figure::{Bound, Figure};
use crate::sample::Sample;

const MANY: usize = 100;
/// Single opens for a median.
const ROUNDS: usize = 30;
const SIZE: u64 = 1 << 30;
const MIB: f64 = (1 << 20) as f64;
/// What each volume writes and reads before its memory counts as that of a volume in use.
const USED: usize = 8 << 20;

/// Measures this file's figures.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let parent = rbd::ImageName::new("many-volumes")?;
    let marker = Marker { golden_image: parent.to_string(), database: "many".into() };
    bench.sealed(&parent, SIZE, &marker)?;
    let specs: Vec<ImageSpec> = (0..MANY).map(|n| bench.clone_spec(&format!("many-{n}"))).collect();
    each(&specs, &|spec| {
        let child = rbd::ImageName::new(&spec.image)?;
        Ok(bench.golden.clone_image(&parent, SEALED, &bench.clones, &child, &Default::default())?)
    })?;
    // One image that stays keeps the server, so that its start is no part of anything here.
    let keeper = rbd::ImageName::new("many-keeper")?;
    bench.clones.create(&keeper, SIZE, &Default::default())?;
    let keeper_spec = bench.clone_spec(keeper.as_str());
    bench.node.attach(&keeper_spec, false)?;
    let figures = opened(bench, &marker, &specs);
    bench.node.detach(&keeper_spec)?;
    bench.clones.remove(&keeper)?;
    each(&specs, &|spec| Ok(bench.clones.remove(&rbd::ImageName::new(&spec.image)?)?))?;
    bench.remove_sealed(&parent)?;
    figures
}

fn opened(bench: &Bench, marker: &Marker, specs: &[ImageSpec]) -> Result<Vec<Figure>> {
    let want = OpenVolume::writable(marker);
    let mut alone = Sample::default();
    for _ in 0..ROUNDS {
        alone.time(|| bench.node.open(&specs[0], &want))?;
        bench.node.close(&specs[0])?;
    }
    let before = server_memory(bench)?;
    let begun = Instant::now();
    each(specs, &|spec| Ok(bench.node.open(spec, &want).map(drop)?))?;
    let at_once = begun.elapsed().as_secs_f64();
    let mounted = server_memory(bench)?;
    each(specs, &|spec| {
        let data = bench.node.open(spec, &want)?.data;
        std::fs::write(data.join("used"), vec![1; USED])?;
        std::fs::File::open(data.join("used"))?.sync_all()?;
        Ok(())
    })?;
    let used = server_memory(bench)?;
    each(specs, &|spec| Ok(bench.node.discard(spec)?))?;
    let storm = format!("{MANY} volumes opened at once");
    let memory = |name: &str, bytes: f64| {
        let bound = Bound::More(8.0 * MANY as f64);
        Figure::new(name, "MiB", bytes / MIB, "with none", before / MIB, bound)
    };
    Ok(vec![
        Figure::new(
            &storm,
            "s",
            at_once,
            &format!("{MANY} × the p50 of one"),
            alone.p50() * MANY as f64 / 1000.0,
            Bound::Times(0.5),
        ),
        memory(&format!("memory of the FUSE server, {MANY} volumes mounted"), mounted),
        memory(
            &format!("memory of the FUSE server, {MANY} volumes after {} MiB written each", USED >> 20),
            used,
        ),
    ])
}

/// Does the work for all of them at once.
fn each(specs: &[ImageSpec], work: &(dyn Fn(&ImageSpec) -> Result<()> + Sync)) -> Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = specs.iter().map(|spec| scope.spawn(move || work(spec))).collect();
        let results: Vec<_> = threads.into_iter().map(|t| t.join().expect("no panic")).collect();
        results.into_iter().collect()
    })
}

/// Resident bytes of the server, which signs its lock file with its process id.
fn server_memory(bench: &Bench) -> Result<f64> {
    let signed = std::fs::read_to_string(bench.run_dir.join("fuse.lock"))?;
    let pid = signed.lines().next().context("the server has not signed")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = resident.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}
