//! Which object size a clone should have: what it grows by, how fast it is and how fast it is read and removed, after the
//! same random writes. The first write to an object copies all of it from the parent.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use aldaas_api::GoldenImageName;
use aldaas_golden::SEALED;
use aldaas_rbd as rbd;
use aldaas_volume::{Marker, OpenVolume};
use anyhow::{Context as _, Result};

use super::Bench;
use super::fio::output;
use crate::figure::{Bound, Figure};

/// The first is what the others are held against: RBD's own default.
const SIZES: [u64; 5] = [4 << 20, 1 << 20, 256 << 10, 64 << 10, 16 << 10];
const ROUNDS: usize = 2;
/// A session that writes little beside what there is, as most do: each transaction meets data that no other touched.
const FIRST: &[&str] = &["-t", "50"];
/// One that writes all over a database as small as a bench's has to be: soon everything is copied.
const LONG: &[&str] = &["-T", "10"];
const SCAN: &str = "SELECT sum(abalance) FROM pgbench_accounts";
const MIB: f64 = (1 << 20) as f64;

/// What one size came to, summed over the rounds.
#[derive(Default, Clone, Copy)]
struct Cost {
    clone: f64,
    first_tps: f64,
    first_grown: f64,
    tps: f64,
    grown: f64,
    grown_per_transaction: f64,
    scan: f64,
    remove: f64,
}

/// One quantity of a cost.
type Column = fn(&Cost) -> f64;

/// Measures this file's figures.
pub fn measure(bench: &Bench, golden: &GoldenImageName) -> Result<Vec<Figure>> {
    let mut costs = [Cost::default(); SIZES.len()];
    for _ in 0..ROUNDS {
        for (size, cost) in SIZES.iter().zip(&mut costs) {
            one(bench, golden, *size, cost)?;
        }
    }
    let columns: [(&str, &str, Column); 8] = [
        ("clone", "ms", |c| c.clone),
        ("the first 200 transactions", "1/s", |c| c.first_tps),
        ("growth by the first 200 transactions", "MiB", |c| c.first_grown),
        ("transactions for 10 s", "1/s", |c| c.tps),
        ("growth in 10 s", "MiB", |c| c.grown),
        ("growth of a transaction", "KiB", |c| c.grown_per_transaction),
        ("full scan", "s", |c| c.scan),
        ("removal", "ms", |c| c.remove),
    ];
    let figures = columns.iter().flat_map(|(what, unit, column)| {
        let mean = |cost: &Cost| column(cost) / ROUNDS as f64;
        SIZES.iter().zip(&costs).map(move |(size, cost)| {
            let name = format!("{what} at object size {} KiB", size >> 10);
            Figure::new(&name, unit, mean(cost), "4 MiB", mean(&costs[0]), Bound::Said)
        })
    });
    Ok(figures.collect())
}

fn one(bench: &Bench, golden: &GoldenImageName, size: u64, cost: &mut Cost) -> Result<()> {
    let parent = rbd::ImageName::new(golden.to_string())?;
    let child = rbd::ImageName::new(format!("size-{size}"))?;
    let options = rbd::CloneOptions { object_size: Some(size), ..Default::default() };
    cost.clone +=
        timed(|| Ok(bench.golden.clone_image(&parent, SEALED, &bench.clones, &child, &options)?))?.1;
    let spec = bench.clone_spec(child.as_str());
    let database = golden.database();
    let marker = Marker { golden_image: golden.to_string(), database: database.to_string() };
    let data = bench.node.open(&spec, &OpenVolume::writable(&marker))?.data;
    let engine = Engine::start(&data, database.as_str())?;
    let used = || -> Result<f64> { Ok(bench.clones.open_read_only(&child)?.used_bytes()? as f64) };
    engine.psql("CHECKPOINT")?;
    let at_first = used()?;
    let (tps, first) = engine.pgbench(FIRST)?;
    engine.psql("CHECKPOINT")?;
    cost.first_tps += tps;
    cost.first_grown += (used()? - at_first) / MIB;
    let (tps, transactions) = engine.pgbench(LONG)?;
    engine.psql("CHECKPOINT")?;
    engine.stop()?;
    // From the cluster, and not from what the kernel remembers.
    std::fs::write("/proc/sys/vm/drop_caches", "3")?;
    let engine = Engine::start(&data, database.as_str())?;
    cost.scan += timed(|| engine.psql(SCAN))?.1 / 1000.0;
    engine.stop()?;
    bench.node.close(&spec)?;
    let grown = used()?;
    cost.tps += tps;
    cost.grown += grown / MIB;
    cost.grown_per_transaction += grown / 1024.0 / (first + transactions);
    cost.remove += timed(|| Ok(bench.clones.remove(&child)?))?.1;
    Ok(())
}

/// The result, and how many milliseconds it took.
fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let begun = Instant::now();
    let result = work()?;
    Ok((result, begun.elapsed().as_secs_f64() * 1000.0))
}

/// A Postgres on a clone, as the user `postgres`, on a socket alone.
struct Engine<'a> {
    data: &'a Path,
    database: &'a str,
    sockets: tempfile::TempDir,
}

impl<'a> Engine<'a> {
    fn start(data: &'a Path, database: &'a str) -> Result<Self> {
        let sockets = tempfile::Builder::new().prefix("aldaas-bench.").tempdir_in("/tmp")?;
        output(Command::new("chown").arg("postgres").arg(sockets.path()))?;
        let engine = Self { data, database, sockets };
        let options = format!("-k {} -c listen_addresses=''", engine.sockets.path().display());
        let log = engine.sockets.path().join("log");
        output(engine.pg_ctl().args(["-s", "-w", "-o", &options, "-l"]).arg(log).arg("start"))?;
        Ok(engine)
    }

    fn as_engine(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", program]);
        command.env("PGHOST", self.sockets.path()).env("PGUSER", "postgres").current_dir("/");
        command
    }

    fn pg_ctl(&self) -> Command {
        let mut command = self.as_engine("pg_ctl");
        command.arg("-D").arg(self.data);
        command
    }

    fn psql(&self, query: &str) -> Result<()> {
        output(self.as_engine("psql").args(["-XAtqc", query, self.database])).map(drop)
    }

    /// Transactions per second, and how many there were.
    fn pgbench(&self, length: &[&str]) -> Result<(f64, f64)> {
        let mut pgbench = self.as_engine("pgbench");
        pgbench.args(["-n", "-M", "prepared", "-c", "4", "-j", "2"]).args(length).arg(self.database);
        let said = output(&mut pgbench)?;
        let number = |prefix: &str| -> Result<f64> {
            let line =
                said.lines().find_map(|line| line.strip_prefix(prefix)).context("pgbench says less")?;
            // `200/200` where their number was given.
            Ok(line.split([' ', '/']).next().unwrap_or_default().parse()?)
        };
        Ok((number("tps = ")?, number("number of transactions actually processed: ")?))
    }

    fn stop(self) -> Result<()> {
        output(self.pg_ctl().args(["-s", "-w", "-m", "fast", "stop"])).map(drop)
    }
}
