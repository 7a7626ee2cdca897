//! Health, readiness and metrics over HTTP, for kubelet's probes and for Prometheus.
//!
//! | path | 200 | else |
//! |---|---|---|
//! | `/healthz` | the program answers | |
//! | `/readyz` | it can do its work | 503, and why not, a line for each reason |
//! | `/metrics` | OpenMetrics | |

use std::future::IntoFuture as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is asked of the program.
#[derive(Clone)]
pub struct Pages {
    /// Why it is not ready; nothing: it is. Called on the runtime: it must answer at once.
    pub not_ready: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// All metrics as OpenMetrics text.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// The pages.
pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages)
}

async fn ready(State(pages): State<Pages>) -> Response {
    let reasons = (pages.not_ready)();
    match reasons.is_empty() {
        true => "ok\n".into_response(),
        false => {
            let lines = reasons.iter().map(|reason| format!("{reason}\n")).collect::<String>();
            (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
        }
    }
}

async fn metrics(State(pages): State<Pages>) -> Response {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], (pages.metrics)()).into_response()
}

/// Listens; what comes back serves until `stop`.
///
/// # Errors
/// When the address is taken.
pub async fn serve(
    address: SocketAddr,
    pages: Pages,
    stop: CancellationToken,
) -> io::Result<(SocketAddr, impl Future<Output = io::Result<()>>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let served = axum::serve(listener, router(pages)).with_graceful_shutdown(stop.cancelled_owned());
    Ok((address, served.into_future()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn page(router: &Router, path: &str) -> (StatusCode, String) {
        let answer = router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 16).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_program_that_is_not_ready_says_why() {
        let reasons = Arc::new(Mutex::new(vec!["Ceph does not answer".to_owned()]));
        let told = reasons.clone();
        let router = router(Pages {
            not_ready: Arc::new(move || told.lock().unwrap().clone()),
            metrics: Arc::new(|| "# EOF\n".into()),
        });
        let not_ready = (StatusCode::SERVICE_UNAVAILABLE, "Ceph does not answer\n".to_owned());
        assert_eq!(page(&router, "/readyz").await, not_ready);
        assert_eq!(page(&router, "/healthz").await.0, StatusCode::OK, "a restart would not help");
        reasons.lock().unwrap().clear();
        assert_eq!(page(&router, "/readyz").await.0, StatusCode::OK);
        assert_eq!(page(&router, "/metrics").await, (StatusCode::OK, "# EOF\n".into()));
        assert_eq!(page(&router, "/etc").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn it_stops_when_told_to() {
        let pages = Pages { not_ready: Arc::new(Vec::new), metrics: Arc::new(String::new) };
        let stop = CancellationToken::new();
        let (address, served) = serve(([127, 0, 0, 1], 0).into(), pages, stop.clone()).await.unwrap();
        let served = tokio::spawn(served);
        tokio::net::TcpStream::connect(address).await.unwrap();
        stop.cancel();
        served.await.unwrap().unwrap();
    }
}
