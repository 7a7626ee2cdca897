//! `aldaas run` to the first row, against the same by hand from the shell.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use aldaas_api::GoldenImageName;
use anyhow::{Context as _, Result, bail};

use crate::figure::{Bound, Figure};
use crate::sample::Sample;

/// How often each is run, in turns.
const ROUNDS: usize = 20;
/// The first row of the largest table.
const QUERY: &str = "SELECT aid FROM pgbench_accounts LIMIT 1";

/// Measures this file's figures.
pub fn measure(aldaas: &Path, by_hand: &Path, golden: &GoldenImageName) -> Result<Vec<Figure>> {
    let (mut ours, mut theirs) = (Sample::default(), Sample::default());
    let reference = format!("{}:latest", golden.database());
    for _ in 0..ROUNDS {
        let mut command = Command::new(aldaas);
        command.args(["run", &reference, "--", "psql", "-XAtqc", QUERY]);
        ours.add(until_first_row(command)?);
        let mut command = Command::new(by_hand);
        command.args([&golden.to_string(), QUERY]).env("DATABASE", golden.database().as_str());
        theirs.add(until_first_row(command)?);
    }
    let against = "rbd clone + rbd-fuse/losetup/mount + pg_ctl start";
    let figure = |name: &str, percent| {
        Figure::new(
            name,
            "ms",
            ours.percentile(percent),
            against,
            theirs.percentile(percent),
            Bound::Times(0.7),
        )
    };
    Ok(vec![
        figure("aldaas run to the first row, p50", 50.0),
        figure("aldaas run to the first row, p95", 95.0),
    ])
}

/// Milliseconds from the start of a command to the first line that it prints. It is then waited for.
fn until_first_row(mut command: Command) -> Result<f64> {
    use std::io::{BufRead, BufReader, Read};
    let started = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("run {command:?}"))?;
    let mut output = BufReader::new(child.stdout.take().context("no output")?);
    let mut row = String::new();
    output.read_line(&mut row)?;
    let took = started.elapsed().as_secs_f64() * 1000.0;
    std::io::copy(&mut output.by_ref(), &mut std::io::sink())?;
    let status = child.wait()?;
    if !status.success() || row.trim().is_empty() {
        bail!("{command:?} gave no row and ended with {status}");
    }
    Ok(took)
}
