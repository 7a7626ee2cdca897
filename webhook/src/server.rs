//! HTTP: `/mutate` for the API server, over TLS; health, readiness and metrics for others, on a port of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aldaas_daemon::pages::{self, Pages};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};

use crate::certificates::Keeper;
use crate::index::{Index, Watched};
use crate::metrics::Metrics;
use crate::review::Reviewer;

/// The longest review that is read: twice what the API server takes of one object, for there may be two in it.
pub const BODY_MAX: usize = 8 << 20;
/// Where reviews go.
pub const PATH: &str = "/mutate";

/// What the API server asks.
pub fn router(reviewer: Arc<Reviewer>) -> Router {
    Router::new().route(PATH, post(mutate)).layer(DefaultBodyLimit::max(BODY_MAX)).with_state(reviewer)
}

async fn mutate(State(reviewer): State<Arc<Reviewer>>, headers: HeaderMap, body: Bytes) -> Response {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().is_none_or(|kind| !kind.trim().eq_ignore_ascii_case("application/json")) {
        let why = "reviews are application/json\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, why).into_response();
    }
    match reviewer.answer(&body).await {
        Ok(answer) => ([(CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

/// What others ask.
pub struct Health {
    /// What is known.
    pub index: Arc<Index>,
    /// The certificate.
    pub keeper: Arc<Keeper>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// It is about to stop, and wants no new work.
    pub draining: AtomicBool,
}

impl Health {
    /// Why no reviews should come now; nothing: they may.
    pub fn not_ready(&self) -> Option<String> {
        if self.draining.load(Ordering::Acquire) {
            return Some("stopping".to_owned());
        }
        let missing: Vec<_> = self.index.missing().into_iter().map(Watched::as_str).collect();
        if !missing.is_empty() {
            return Some(format!("not read yet from the API server: {}", missing.join(", ")));
        }
        self.keeper.not_ready()
    }
}

/// `/healthz`, `/readyz` and `/metrics`.
pub fn health(health: Arc<Health>) -> Router {
    let counted = health.clone();
    pages::router(Pages {
        not_ready: Arc::new(move || health.not_ready().into_iter().collect()),
        metrics: Arc::new(move || counted.metrics.encode(&counted.index)),
    })
}
