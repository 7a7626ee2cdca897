//! Reviews over TLS, on connections that are kept, as the API server sends them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::sample::Sample;

/// Connections side by side.
const CONNECTIONS: u32 = 8;

/// What a pod says of databases.
#[derive(Clone, Copy)]
pub struct Asks(bool);

/// A pod that asks for one.
pub const ASKING: Asks = Asks(true);
/// The same pod, asking for none: the server reads it and answers.
pub const SILENT: Asks = Asks(false);

/// Where reviews go.
pub struct Load {
    address: SocketAddr,
    authorities: Vec<u8>,
}

impl Load {
    pub fn new(address: SocketAddr, authorities: Vec<u8>) -> Self {
        Self { address, authorities }
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.authorities)?)?;
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.address.ip());
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    /// So many requests a second, whether the last ones were answered or not; how long each took from when it was due.
    pub async fn paced(&self, asks: Asks, rate: u32, during: Duration) -> Result<Sample> {
        let request = Arc::new(request(asks));
        let every = Duration::from_secs(1) * CONNECTIONS / rate;
        let count = (during.as_secs_f64() / every.as_secs_f64()) as u32;
        let started = Instant::now() + Duration::from_millis(50);
        let mut tasks = Vec::new();
        for n in 0..CONNECTIONS {
            let (mut stream, request) = (self.connect().await?, request.clone());
            tasks.push(tokio::spawn(async move {
                let mut took = Vec::new();
                for i in 0..count {
                    let due = started + every * i + every * n / CONNECTIONS;
                    tokio::time::sleep_until(due.into()).await;
                    // The clock of a sleep has steps of a millisecond; what it adds is not the server's.
                    let sent = Instant::now().min(due + Duration::from_millis(2));
                    call(&mut stream, &request).await?;
                    took.push(sent.elapsed().as_secs_f64() * 1000.0);
                }
                Ok::<_, anyhow::Error>(took)
            }));
        }
        let mut sample = Sample::default();
        for task in tasks {
            task.await??.into_iter().for_each(|value| sample.add(value));
        }
        Ok(sample)
    }

    /// As many as are answered; how many that were.
    pub async fn fast(&self, asks: Asks, during: Duration) -> Result<f64> {
        let request = Arc::new(request(asks));
        let (started, mut tasks) = (Instant::now(), Vec::new());
        for _ in 0..CONNECTIONS {
            let (mut stream, request) = (self.connect().await?, request.clone());
            tasks.push(tokio::spawn(async move {
                let mut count = 0_u32;
                while started.elapsed() < during {
                    call(&mut stream, &request).await?;
                    count += 1;
                }
                Ok::<_, anyhow::Error>(count)
            }));
        }
        let mut count = 0;
        for task in tasks {
            count += task.await??;
        }
        Ok(f64::from(count))
    }
}

async fn call(stream: &mut TlsStream<TcpStream>, request: &[u8]) -> Result<()> {
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(4096);
    loop {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the webhook closed the connection");
        let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&answer[..head])?;
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.context("no content-length")?.trim().parse()?;
        if answer.len() >= head + 4 + length {
            let body = &answer[head + 4..];
            let allowed = body.windows(14).any(|part| part == br#""allowed":true"#);
            ensure!(allowed, "not allowed: {}", String::from_utf8_lossy(body));
            return Ok(());
        }
    }
}

/// A pod as an API server sends it: about 5 KiB, most of them about who wrote which field.
fn request(asks: Asks) -> Vec<u8> {
    let annotations =
        if asks.0 { json!({ "aldaas/db": "db7:latest" }) } else { json!({ "team/db": "db7:latest" }) };
    let variables: Vec<_> =
        (0..12).map(|n| json!({ "name": format!("SETTING_{n}"), "value": "some value" })).collect();
    let fields: serde_json::Map<_, _> =
        (0..40).map(|n| (format!("f:field{n}"), json!({ ".": {}, "f:value": {} }))).collect();
    let container = |name: &str, image: &str| {
        json!({
            "name": name, "image": image, "env": variables, "imagePullPolicy": "IfNotPresent",
            "resources": { "requests": { "cpu": "100m", "memory": "256Mi" } },
            "livenessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 10 },
            "volumeMounts": [{ "name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true }],
        })
    };
    let body = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": "ns7", "operation": "CREATE", "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller" },
            "object": {
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "generateName": "web-5d4f8c7b9-", "annotations": annotations, "labels": { "app": "web", "pod-template-hash": "5d4f8c7b9" },
                    "managedFields": [{ "manager": "kube-controller-manager", "operation": "Update", "fieldsV1": { "f:spec": fields } }],
                },
                "spec": {
                    "containers": [container("app", "corp.io/web:1.2.3"), container("db", "postgres:15.8")],
                    "volumes": [{ "name": "token", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }],
                    "serviceAccountName": "web", "tolerations": [{ "key": "node.kubernetes.io/not-ready", "operator": "Exists" }],
                },
            },
            "oldObject": null, "dryRun": false, "options": { "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1" },
        },
    })
    .to_string();
    let length = body.len();
    format!("POST /mutate?timeout=3s HTTP/1.1\r\nhost: webhook\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// An answer over plain HTTP.
pub async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text)
}
