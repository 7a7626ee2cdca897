//! The webhook, running.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use aldaas_webhook::Config;
use aldaas_webhook::config::Certificates;
use aldaas_webhook::run::{Listeners, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A webhook that runs in this process.
pub struct Webhook {
    pub reviews: SocketAddr,
    pub http: SocketAddr,
    pub stop: CancellationToken,
    pub ended: JoinHandle<anyhow::Result<()>>,
}

pub fn config(kubeconfig: &Path, own_namespace: &str, certificates: Certificates) -> Config {
    let any = "127.0.0.1:0".parse().unwrap();
    Config {
        listen: any,
        http: any,
        kubeconfig: Some(kubeconfig.to_owned()),
        own_namespace: own_namespace.to_owned(),
        certificates,
        drain_delay: Duration::from_millis(500),
        grace: Duration::from_secs(5),
    }
}

impl Webhook {
    pub fn start(config: impl FnOnce(SocketAddr) -> Config) -> Self {
        let bind = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let listeners = Listeners { reviews: bind(), http: bind() };
        let (reviews, http) = (listeners.reviews.local_addr().unwrap(), listeners.http.local_addr().unwrap());
        let stop = CancellationToken::new();
        let ended = tokio::spawn(serve(config(reviews), listeners, stop.clone()));
        Self { reviews, http, stop, ended }
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        get(self.http, path).await
    }

    pub async fn ready(&self) {
        until("the webhook is ready", async || self.get("/readyz").await.0 == 200).await;
    }

    /// The value of a line in the metrics.
    pub async fn metric(&self, line: &str) -> Option<f64> {
        let text = self.get("/metrics").await.1;
        text.lines().find_map(|one| one.strip_prefix(line)?.trim().parse().ok())
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.ended.await.unwrap().unwrap();
    }
}

pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return (0, String::new()) };
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let code = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (code, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// Waits until it is so.
pub async fn until(what: &str, so: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !so().await {
        assert!(started.elapsed() < Duration::from_secs(60), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}
