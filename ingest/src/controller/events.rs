//! `POST /events`: a store says that something is new.
//!
//! Whoever may reach the port may make us look into a bucket, once in a second, and no more. A token keeps even that from strangers.

use std::future::IntoFuture as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use super::notification::{Notification, Place, read};

/// SNS ends at 256 KiB.
const LIMIT: usize = 1 << 20;

/// What is done with notifications.
#[derive(Clone)]
pub struct Endpoint {
    /// What they must bear; none: anybody's are taken.
    pub token: Option<String>,
    /// Told where something is new; how many databases look for themselves now.
    pub notify: Arc<dyn Fn(&Place) -> usize + Send + Sync>,
    /// Counts them.
    pub metrics: Arc<Metrics>,
}

#[derive(serde::Deserialize)]
struct Asked {
    token: Option<String>,
}

/// The page.
pub fn router(endpoint: Endpoint) -> Router {
    Router::new().route("/events", post(take)).layer(DefaultBodyLimit::max(LIMIT)).with_state(endpoint)
}

async fn take(
    State(endpoint): State<Endpoint>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    if let Some(wanted) = &endpoint.token
        && !bearer.or(asked.token.as_deref()).is_some_and(|given| same(given, wanted))
    {
        endpoint.metrics.notified("denied");
        return (StatusCode::UNAUTHORIZED, "the token is missing or wrong\n").into_response();
    }
    match read(&body) {
        None => {
            endpoint.metrics.notified("bad");
            (StatusCode::BAD_REQUEST, "this is no notification of S3 that aldaas knows\n").into_response()
        }
        Some(Notification::Test) => "ok\n".into_response(),
        Some(Notification::Confirm(address)) => {
            tracing::warn!(address, "SNS asks whether it may send here: open this address if it may");
            "noted in the log\n".into_response()
        }
        Some(Notification::Objects(places)) => {
            let concerned: usize = places.iter().map(|place| (endpoint.notify)(place)).sum();
            endpoint.metrics.notified(if concerned == 0 { "unmatched" } else { "matched" });
            format!("{concerned} databases look\n").into_response()
        }
    }
}

/// Compared by digest: the time that it takes says nothing of the token.
fn same(given: &str, wanted: &str) -> bool {
    Sha256::digest(given.as_bytes()) == Sha256::digest(wanted.as_bytes())
}

/// Listens; what comes back serves until `stop`.
///
/// # Errors
/// When the address is taken.
pub async fn serve(
    address: SocketAddr,
    endpoint: Endpoint,
    stop: CancellationToken,
) -> io::Result<(SocketAddr, impl Future<Output = io::Result<()>>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let served = axum::serve(listener, router(endpoint)).with_graceful_shutdown(stop.cancelled_owned());
    Ok((address, served.into_future()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;

    const RECORD: &str = r#"{"Records":[{"s3":{"bucket":{"name":"backup"},"object":{"key":"orders/x"}}}]}"#;

    fn endpoint(token: Option<&str>) -> (Router, Arc<Mutex<Vec<Place>>>) {
        let seen = Arc::<Mutex<Vec<Place>>>::default();
        let told = seen.clone();
        let notify = Arc::new(move |place: &Place| {
            told.lock().unwrap().push(place.clone());
            1
        });
        let metrics = Arc::default();
        (router(Endpoint { token: token.map(str::to_owned), notify, metrics }), seen)
    }

    async fn send(router: &Router, path: &str, bearer: Option<&str>, body: impl Into<Body>) -> u16 {
        let mut request = Request::post(path);
        if let Some(bearer) = bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {bearer}"));
        }
        router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn only_who_bears_the_token_is_heard() {
        let (router, seen) = endpoint(Some("secret"));
        for (path, bearer) in [("/events", None), ("/events", Some("secre")), ("/events?token=other", None)] {
            assert_eq!(send(&router, path, bearer, RECORD).await, 401);
        }
        assert!(seen.lock().unwrap().is_empty());
        assert_eq!(send(&router, "/events", Some("secret"), RECORD).await, 200);
        assert_eq!(send(&router, "/events?token=secret", None, RECORD).await, 200);
        assert_eq!(seen.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_is_no_notification_is_refused_and_harms_nothing() {
        let (router, seen) = endpoint(None);
        for body in ["", "{", "[]", "null", "42", "{\"Records\":1}", &"[".repeat(100_000)] {
            assert_eq!(send(&router, "/events", None, body.to_owned()).await, 400, "{body:.20}");
        }
        assert_eq!(send(&router, "/events", None, vec![b' '; LIMIT + 1]).await, 413);
        assert_eq!(send(&router, "/events", None, "{\"Records\":[1,{},{\"s3\":[]}]}").await, 200);
        assert_eq!(send(&router, "/events", None, RECORD).await, 200);
        assert_eq!(seen.lock().unwrap().len(), 1);
    }
}
