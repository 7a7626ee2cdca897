//! What fio gets through our FUSE server and a loop device, against rbd-fuse and a loop device. Nothing else differs: two
//! images of the same size, both full, both loop devices with direct I/O, in turns.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use aldaas_rbd as rbd;
use anyhow::{Context as _, Result, bail};

use super::{Bench, ceiling};
use crate::figure::{Bound, Figure};

const SIZE: u64 = 1 << 30;
/// Rounds of each workload, how long one lasts, and how long before that nothing counts: until both sides' caches are full,
/// writes only go as far as there.
const ROUNDS: usize = 2;
const SECONDS: u64 = 4;
const RAMP_SECONDS: u64 = 2;
/// How many writes at once librbd is given by itself, to see what the cluster has to give.
const DEPTHS: [usize; 2] = [16, 1024];
const OURS: &str = "fio-ours";
const THEIRS: &str = "fio-theirs";

struct Workload {
    name: &'static str,
    pattern: &'static str,
    block: &'static str,
    depth: &'static str,
    unit: &'static str,
    at_least: f64,
}

const WORKLOADS: [Workload; 4] = [
    random("4 KiB random read, 16 at a time", "randread"),
    random("4 KiB random write, 16 at a time", "randwrite"),
    random("4 KiB random read and write mixed, 16 at a time", "randrw"),
    Workload {
        name: "1 MiB sequential read",
        pattern: "read",
        block: "1M",
        depth: "1",
        unit: "MiB/s",
        at_least: 1.5,
    },
];

/// Of these, the one that the cluster limits.
const RANDOM_WRITE: usize = 1;

const fn random(name: &'static str, pattern: &'static str) -> Workload {
    Workload { name, pattern, block: "4k", depth: "16", unit: "IOPS", at_least: 2.0 }
}

/// Measures this file's figures.
pub fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    for name in [OURS, THEIRS] {
        fill(bench, name)?;
    }
    let mut sums = [[0.0; 2]; WORKLOADS.len()];
    let mut alone = [0.0; DEPTHS.len()];
    for _ in 0..ROUNDS {
        ours(bench, &mut sums)?;
        theirs(bench, &mut sums)?;
        for (depth, sum) in DEPTHS.into_iter().zip(&mut alone) {
            *sum += ceiling::random_writes(bench, THEIRS, depth, (RAMP_SECONDS, SECONDS))?;
        }
    }
    for name in [OURS, THEIRS] {
        bench.clones.remove(&rbd::ImageName::new(name)?)?;
    }
    let figure = |(workload, [ours, theirs]): (&Workload, [f64; 2])| {
        let name = format!("fio {}", workload.name);
        let (ours, theirs) = (ours / ROUNDS as f64, theirs / ROUNDS as f64);
        let bound = Bound::AtLeastTimes(workload.at_least);
        Figure::new(&name, workload.unit, ours, "rbd-fuse + loop", theirs, bound)
    };
    let written = sums[RANDOM_WRITE][0] / ROUNDS as f64;
    let beside = |(depth, sum): (usize, f64)| {
        let baseline = format!("librbd alone without a cache, {depth} at a time");
        let name = format!("fio {}", WORKLOADS[RANDOM_WRITE].name);
        Figure::new(&name, "IOPS", written, &baseline, sum / ROUNDS as f64, Bound::Said)
    };
    let figures = WORKLOADS.iter().zip(sums).map(figure);
    Ok(figures.chain(DEPTHS.into_iter().zip(alone).map(beside)).collect())
}

/// An image that is written everywhere: reading what was never written costs next to nothing.
fn fill(bench: &Bench, name: &str) -> Result<()> {
    const PIECE: usize = 4 << 20;
    let name = rbd::ImageName::new(name)?;
    bench.clones.create(&name, SIZE, &Default::default())?;
    let image = bench.clones.open(&name)?;
    let content: Vec<u8> = (0..PIECE as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for at in (0..SIZE).step_by(PIECE) {
        image.write(at, content.clone()).wait()?;
    }
    Ok(image.close()?)
}

fn ours(bench: &Bench, sums: &mut [[f64; 2]]) -> Result<()> {
    let spec = bench.clone_spec(OURS);
    let device = bench.node.attach(&spec, false)?;
    for (workload, sum) in WORKLOADS.iter().zip(sums) {
        sum[0] += run(workload, &device)?;
    }
    Ok(bench.node.detach(&spec)?)
}

fn theirs(bench: &Bench, sums: &mut [[f64; 2]]) -> Result<()> {
    let mount = bench.run_dir.join("rbd-fuse");
    std::fs::create_dir_all(&mount)?;
    let mut serve = Command::new("rbd-fuse");
    serve.arg("-c").arg(&bench.ceph_conf).args(["-p", &bench.pool, "--namespace=clone", "-r", THEIRS]);
    output(serve.arg(&mount))?;
    let file = mount.join(THEIRS);
    let mut losetup = Command::new("losetup");
    let device = output(losetup.args(["--find", "--show", "--direct-io=on"]).arg(&file))?;
    let device = PathBuf::from(device.trim());
    let measured = WORKLOADS.iter().zip(sums).try_for_each(|(workload, sum)| {
        sum[1] += run(workload, &device)?;
        Ok(())
    });
    output(Command::new("losetup").arg("-d").arg(&device))?;
    patiently(|| output(Command::new("fusermount3").arg("-u").arg(&mount)))?;
    std::fs::remove_dir(&mount)?;
    measured
}

/// Operations per second, or MiB per second for large blocks.
fn run(workload: &Workload, device: &Path) -> Result<f64> {
    let mut fio = Command::new("fio");
    fio.args(["--name=x", "--direct=1", "--ioengine=libaio", "--time_based", "--output-format=json"]);
    fio.arg(format!("--filename={}", device.display())).arg(format!("--runtime={SECONDS}"));
    fio.arg(format!("--rw={}", workload.pattern)).arg(format!("--bs={}", workload.block));
    fio.arg(format!("--iodepth={}", workload.depth)).arg(format!("--ramp_time={RAMP_SECONDS}"));
    let text = output(&mut fio)?;
    let said: serde_json::Value =
        serde_json::from_str(text.get(text.find('{').unwrap_or(0)..).unwrap_or(""))?;
    let each = |field: &str| -> f64 {
        ["read", "write"].iter().filter_map(|way| said["jobs"][0][way][field].as_f64()).sum()
    };
    Ok(if workload.unit == "IOPS" { each("iops") } else { each("bw") / 1024.0 })
}

/// Standard output of a command that has to succeed.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("run {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?} ended with {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// What lets go does so a moment after it was told to.
fn patiently<T>(work: impl Fn() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match work() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            result => return result,
        }
    }
}
