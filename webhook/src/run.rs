//! Starts everything, and stops it: the watches, the certificate, health, and the reviews.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum_server::Handle;
use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::certificates::{Keeper, files, own};
use crate::config::{Certificates, Config};
use crate::index::{self, Index, Watched};
use crate::metrics::Metrics;
use crate::review::Reviewer;
use crate::server::{self, Health};

/// The sockets, bound.
pub struct Listeners {
    /// For reviews.
    pub reviews: TcpListener,
    /// For health and metrics.
    pub http: TcpListener,
}

impl Listeners {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// When an address is taken.
    pub fn bind(config: &Config) -> Result<Self> {
        let bind = |address| {
            let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
            listener.set_nonblocking(true)?;
            Ok::<_, anyhow::Error>(listener)
        };
        Ok(Self { reviews: bind(config.listen)?, http: bind(config.http)? })
    }
}

/// Runs until SIGTERM or SIGINT; a second one aborts.
///
/// # Errors
/// When something can't be started.
pub fn run(config: Config) -> Result<()> {
    // An answer takes microseconds: more threads would only take memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("start the runtime")?.block_on(async {
        let stop = CancellationToken::new();
        aldaas_daemon::signals::watch(stop.clone())?;
        let listeners = Listeners::bind(&config)?;
        serve(config, listeners, stop).await
    })
}

/// Runs until `stop`.
///
/// # Errors
/// When something can't be started.
pub async fn serve(config: Config, listeners: Listeners, stop: CancellationToken) -> Result<()> {
    // It is there already where several run in one process.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = aldaas_daemon::kubernetes::client(config.kubeconfig.as_deref()).await?;
    let (index, metrics) = (Arc::new(Index::default()), Arc::new(Metrics::default()));
    let keeper = Arc::new(Keeper::new(metrics.clone()));
    let reviewer = Arc::new(Reviewer::new(index.clone(), metrics.clone(), config.own_namespace.clone()));
    let (health_end, certificates_end) = (CancellationToken::new(), CancellationToken::new());

    // What runs beside ends with this function.
    let mut beside = JoinSet::new();
    for kind in Watched::ALL {
        beside.spawn(index::run(client.clone(), kind, index.clone()));
    }
    let certificates = keep(&config.certificates, client, keeper.clone(), certificates_end.clone());
    let health =
        Arc::new(Health { index, keeper: keeper.clone(), metrics, draining: AtomicBool::new(false) });
    let health_server = serve_health(listeners.http, health.clone(), health_end.clone())?;

    serve_reviews(&config, listeners.reviews, &keeper, &health, reviewer, stop).await?;
    certificates_end.cancel();
    let _ = certificates.await;
    health_end.cancel();
    let _ = health_server.await;
    Ok(())
}

fn keep(
    certificates: &Certificates,
    client: Client,
    keeper: Arc<Keeper>,
    end: CancellationToken,
) -> tokio::task::JoinHandle<()> {
    match certificates.clone() {
        Certificates::Directory(dir, period) => tokio::spawn(async move {
            let _ = end.run_until_cancelled(files::keep(dir, keeper, period)).await;
        }),
        Certificates::Own(settings) => tokio::spawn(own::keep(client, *settings, keeper, end)),
    }
}

fn serve_health(
    listener: TcpListener,
    health: Arc<Health>,
    end: CancellationToken,
) -> Result<tokio::task::JoinHandle<std::io::Result<()>>> {
    let listener = tokio::net::TcpListener::from_std(listener).context("listen for health")?;
    let router = server::health(health);
    Ok(tokio::spawn(async move {
        axum::serve(listener, router).with_graceful_shutdown(end.cancelled_owned()).await
    }))
}

/// Serves reviews as soon as there is a certificate, until `stop`; then says so, goes on for a while, and ends what is left.
async fn serve_reviews(
    config: &Config,
    listener: TcpListener,
    keeper: &Keeper,
    health: &Health,
    reviewer: Arc<Reviewer>,
    stop: CancellationToken,
) -> Result<()> {
    let Some(served) = stop.run_until_cancelled(first_certificate(keeper)).await else { return Ok(()) };
    let handle = Handle::new();
    let server = axum_server::from_tcp_rustls(listener, served)?
        .handle(handle.clone())
        .serve(server::router(reviewer).into_make_service());
    tracing::info!(listen = %config.listen, http = %config.http, "serving");
    let (drain, grace) = (config.drain_delay, config.grace);
    let ending = async {
        stop.cancelled().await;
        health.draining.store(true, Ordering::Release);
        tokio::time::sleep(drain).await;
        handle.graceful_shutdown(Some(grace));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = server => ended.context("serve reviews"),
        () = ending => Ok(()),
    }
}

async fn first_certificate(keeper: &Keeper) -> axum_server::tls_rustls::RustlsConfig {
    loop {
        if let Some(served) = keeper.served() {
            return served.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
