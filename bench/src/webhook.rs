//! The webhook under load: how long an answer takes, what mutating costs, and how much memory a large cluster takes.
//!
//! The program is the real one, over TLS, on one core; what it knows comes from a stand-in for the API server, because ten
//! thousand objects would take a real one minutes to take in.

mod cluster;
mod load;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aldaas_webhook::certificates::authority::Authority;
use aldaas_webhook::certificates::plan::Policy;
use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use crate::figure::{Bound, Figure};
use cluster::Cluster;
use load::{ASKING, Load, SILENT};

const SMALL: Cluster = Cluster { databases: 10, images: 100 };
const LARGE: Cluster = Cluster { databases: 1_000, images: 10_000 };
/// Requests in a second, and for how long.
const RATE: u32 = 500;
const PACED: Duration = Duration::from_secs(10);
/// How long each of two kinds of requests is sent as fast as they are answered, and how often, in turns.
const BURST: Duration = Duration::from_secs(2);
const ROUNDS: usize = 4;

/// Measures this file's figures.
pub fn measure(program: &Path) -> Result<Vec<Figure>> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let small = {
            let webhook = Webhook::start(program, SMALL).await?;
            webhook.load.paced(ASKING, RATE, Duration::from_secs(2)).await?;
            webhook.memory()?
        };
        let webhook = Webhook::start(program, LARGE).await?;
        let paced = webhook.load.paced(ASKING, RATE, PACED).await?;
        let (mut mutating, mut silent) = (Work::default(), Work::default());
        for _ in 0..ROUNDS {
            silent.add(&webhook, SILENT).await?;
            mutating.add(&webhook, ASKING).await?;
        }
        let large = webhook.memory()?;
        let what = "memory with 1,000 databases and 10,000 images";
        Ok(vec![
            Figure::new(
                "a pod mutated over TLS at 500 requests/s, p99",
                "ms",
                paced.percentile(99.0),
                "nothing",
                0.0,
                Bound::More(5.0),
            ),
            Figure::new("the same, p50", "ms", paced.p50(), "nothing", 0.0, Bound::Said),
            Figure::new(
                "requests/s on one core",
                "1/s",
                mutating.rate(),
                "the same server answering without mutating",
                silent.rate(),
                Bound::AtLeastTimes(0.7),
            ),
            Figure::new(what, "MiB", large, "with 10 and 100", small, Bound::More(64.0)),
            Figure::new("the same, all of it", "MiB", large, "nothing", 0.0, Bound::More(64.0)),
        ])
    })
}

/// Requests, and what they cost the program. Counted in its own processor time, so that others on the machine don't matter.
#[derive(Default)]
struct Work {
    requests: f64,
    seconds: f64,
}

impl Work {
    async fn add(&mut self, webhook: &Webhook, asks: load::Asks) -> Result<()> {
        let before = webhook.processor_time()?;
        self.requests += webhook.load.fast(asks, BURST).await?;
        self.seconds += webhook.processor_time()? - before;
        Ok(())
    }

    /// Requests that one core answers in a second.
    fn rate(&self) -> f64 {
        self.requests / self.seconds
    }
}

/// The program, running, and its cluster.
struct Webhook {
    child: Child,
    load: Load,
    _dir: tempfile::TempDir,
}

impl Webhook {
    async fn start(program: &Path, cluster: Cluster) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let api = cluster.serve().await?;
        let kubeconfig = dir.path().join("kubeconfig");
        fs::write(&kubeconfig, cluster::kubeconfig(api))?;
        let hours = |hours: u64| Duration::from_secs(3600 * hours);
        let policy = Policy { authority: hours(72), certificate: hours(24), overlap: hours(1) };
        let authority = Authority::make(Timestamp::now(), &policy)?;
        let pair = authority.sign(&["127.0.0.1".to_owned()], Timestamp::now(), &policy)?;
        fs::write(dir.path().join("tls.crt"), &pair.certificate)?;
        fs::write(dir.path().join("tls.key"), &pair.key)?;
        let (reviews, http) = (free_port()?, free_port()?);
        let child = Command::new("taskset")
            .args(["-c", "0"])
            .arg(program)
            .arg("serve")
            .arg("--kubeconfig")
            .arg(&kubeconfig)
            .arg("--tls-dir")
            .arg(dir.path())
            .args(["--listen", &reviews.to_string(), "--http", &http.to_string()])
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("run {}", program.display()))?;
        let load = Load::new(reviews, pair.authorities);
        let webhook = Self { child, load, _dir: dir };
        until_ready(http).await?;
        Ok(webhook)
    }

    /// Seconds for which it kept a core busy, itself and the kernel for it.
    fn processor_time(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may hold anything; behind it stands what the manual calls field 3.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
        let ticks: f64 = fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
        Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
    }

    /// What it holds in memory, in MiB.
    fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn until_ready(http: SocketAddr) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        if load::get(http, "/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the webhook is not ready after a minute: {}", load::get(http, "/readyz").await.unwrap_or_default())
}
