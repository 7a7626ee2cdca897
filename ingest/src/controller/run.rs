//! Starts everything, and stops it.

use std::sync::Arc;
use std::time::Duration;

use aldaas_daemon::election::{Election, Office};
use aldaas_daemon::kubernetes;
use aldaas_daemon::pages::{self, Pages};
use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::buckets::Buckets;
use super::config::Config;
use super::events::{self, Endpoint};
use super::logs::Logs;
use super::metrics::Metrics;
use super::notification::Place;
use super::reconcile::{Controller, Health};
use super::recorder::Tell;
use super::runner::Tools;
use super::storage::Storage;
use super::watches::Watches;

/// Runs until SIGTERM or SIGINT; a second one aborts.
///
/// # Errors
/// When something can't be started.
pub fn run(config: Config) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        aldaas_daemon::signals::watch(stop.clone())?;
        serve(config, stop).await
    })
}

/// Runs until `stop`. Jobs go on meanwhile; whoever is elected next goes on with them.
///
/// # Errors
/// When something can't be started.
pub async fn serve(config: Config, stop: CancellationToken) -> Result<()> {
    tracing::info!(namespace = config.namespace, pool = %config.pool, replica = config.identity, "starting");
    let client = kubernetes::client(config.kubeconfig.as_deref()).await?;
    let (wake, metrics) = (Arc::new(Notify::new()), Arc::new(Metrics::default()));
    let watches = Arc::new(Watches::new(client.clone(), &config.namespace));
    let election = Arc::new(Election::new(client.clone(), &config.namespace, &config.identity, office()));
    let secrets = (watches.apis.secrets.clone(), config.namespace.clone());
    let buckets = Buckets::new(config.restore_program.clone(), secrets, wake.clone(), metrics.clone());
    let pods: Api<Pod> = watches.apis.pods.clone();
    let health = Arc::new(Health::default());
    health.set_ceph(Some("Ceph was not asked yet".to_owned()));
    let controller = Arc::new(Controller {
        tools: Arc::new(Tools {
            watches: watches.clone(),
            storage: Arc::new(Storage::new(config.ceph.clone(), config.pool.clone())),
            election: election.clone(),
            tell: Tell::new(client, &config.identity),
            metrics: metrics.clone(),
            jobs: config.jobs.clone(),
        }),
        buckets: buckets.clone(),
        logs: Logs::new(pods, wake.clone()),
        wake: wake.clone(),
        resync: config.resync,
        health: health.clone(),
    });

    // Whoever ends, ends all: a controller that does half of its work is worse than one that is started again.
    let stop = stop.child_token();
    let mut beside = JoinSet::new();
    let pages = pages(watches.clone(), health, metrics.clone());
    serve_pages(&config, pages, buckets, metrics, &mut beside, &stop).await?;
    beside.spawn(watches.follow(wake.clone()));
    // The lease is given back last: nobody else acts while we still do.
    let elected_until = CancellationToken::new();
    let until = elected_until.clone();
    let in_office = tokio::spawn(async move { election.run(&until, || wake.notify_one()).await });
    let work = controller.run(stop.clone());
    tokio::pin!(work);
    tokio::select! {
        () = &mut work => {}
        Some(_) = beside.join_next() => {
            stop.cancel();
            work.await;
        }
    }
    elected_until.cancel();
    let _ = in_office.await;
    tracing::info!("stopped");
    Ok(())
}

/// The Lease of the replica that acts.
fn office() -> Office {
    let [duration, renewal, look] = [15, 4, 2].map(Duration::from_secs);
    Office { name: "aldaas-controller".to_owned(), duration, renewal, look }
}

fn pages(watches: Arc<Watches>, health: Arc<Health>, metrics: Arc<Metrics>) -> Pages {
    Pages {
        not_ready: Arc::new(move || {
            let missing = watches.missing();
            let mut reasons: Vec<String> =
                missing.iter().map(|what| format!("{what} were not listed yet")).collect();
            reasons.extend(health.ceph());
            reasons
        }),
        metrics: Arc::new(move || metrics.encode()),
    }
}

async fn serve_pages(
    config: &Config,
    pages: Pages,
    buckets: Arc<Buckets>,
    metrics: Arc<Metrics>,
    beside: &mut JoinSet<()>,
    stop: &CancellationToken,
) -> Result<()> {
    if let Some(address) = config.http {
        let (address, served) = pages::serve(address, pages, stop.clone())
            .await
            .with_context(|| format!("listen on {address}"))?;
        tracing::info!(%address, "serving health and metrics");
        beside.spawn(async { drop(served.await) });
    }
    if let Some(address) = config.events {
        let notify = Arc::new(move |place: &Place| buckets.notify(&place.bucket, &place.key));
        let endpoint = Endpoint { token: config.events_token.clone(), notify, metrics };
        let (address, served) = events::serve(address, endpoint, stop.clone())
            .await
            .with_context(|| format!("listen on {address}"))?;
        tracing::info!(%address, "taking notifications");
        beside.spawn(async { drop(served.await) });
    }
    Ok(())
}
