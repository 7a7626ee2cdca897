//! A stand-in for the API server: it lists databases, golden images and namespaces page by page, and nothing ever changes.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

/// How much there is.
#[derive(Clone, Copy)]
pub struct Cluster {
    /// Databases; and as many namespaces.
    pub databases: usize,
    /// Golden images of all of them together.
    pub images: usize,
}

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    watch: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default, rename = "continue")]
    from: Option<usize>,
}

impl Cluster {
    /// Serves it for as long as this process runs.
    pub async fn serve(self) -> Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/apis/aldaas.dev/v1alpha1/{kind}", get(list))
            .route("/api/v1/{kind}", get(list))
            .with_state(Arc::new(self));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(address)
    }

    fn object(&self, kind: &str, at: usize) -> Value {
        match kind {
            "databases" => json!({
                "apiVersion": "aldaas.dev/v1alpha1", "kind": "Database",
                "metadata": { "name": format!("db{at}"), "uid": format!("uid-{at}"), "resourceVersion": "1" },
                "spec": {
                    "engine": { "image": "postgres:15.8", "args": ["-c", "shared_buffers=2GB"] },
                    "source": { "s3": { "bucket": "dumps", "prefix": format!("db{at}/"), "suffix": ".sql.gz" } },
                    "storage": { "size": "100Gi" }, "clone": { "ttl": "8h" },
                    "access": { "namespaceSelector": { "matchLabels": { "stage": "dev" } }, "contact": "#data-platform" },
                },
            }),
            "goldenimages" => {
                let (database, day) = (at % self.databases, at / self.databases);
                let condition = |kind: &str| {
                    json!({
                        "type": kind, "status": "True", "reason": "Verified", "message": "3 of 3 checks hold",
                        "lastTransitionTime": "2026-11-23T03:30:00Z",
                    })
                };
                json!({
                    "apiVersion": "aldaas.dev/v1alpha1", "kind": "GoldenImage",
                    "metadata": { "name": format!("db{database}-202611{:02}t033000z", day + 1), "resourceVersion": "1" },
                    "spec": { "database": format!("db{database}"), "source": { "location": format!("s3://dumps/db{database}/{day}.sql.gz") } },
                    "status": {
                        "conditions": [condition("Restored"), condition("Sealed"), condition("Verified"), condition("Ready")],
                        "engine": { "name": "postgres", "version": "15.8" },
                        "evidence": { "sha256": "0".repeat(64), "size": 1, "format": "gzip, plain SQL", "tables": 9, "rows": 9, "bytes": 9 },
                    },
                })
            }
            _ => json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": format!("ns{at}"), "labels": { "stage": "dev", "kubernetes.io/metadata.name": format!("ns{at}") } },
            }),
        }
    }
}

async fn list(
    State(cluster): State<Arc<Cluster>>,
    Path(kind): Path<String>,
    Query(ask): Query<Ask>,
) -> Response {
    if ask.watch.is_some() {
        return Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>()).into_response();
    }
    let count = if kind == "goldenimages" { cluster.images } else { cluster.databases };
    let from = ask.from.unwrap_or(0);
    let to = count.min(from + ask.limit.unwrap_or(count));
    let next = if to < count { to.to_string() } else { String::new() };
    let items: Vec<_> = (from..to).map(|at| cluster.object(&kind, at)).collect();
    Json(json!({
        "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1", "continue": next }, "items": items,
    }))
    .into_response()
}

/// How the webhook reaches it.
pub fn kubeconfig(api: SocketAddr) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "bench",
        "clusters": [{ "name": "bench", "cluster": { "server": format!("http://{api}") } }],
        "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": "bench" } }],
        "users": [{ "name": "bench", "user": {} }],
    })
    .to_string()
}
