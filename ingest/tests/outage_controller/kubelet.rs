//! The port at which the API server asks a node for the logs of its pods.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;

/// What a container wrote, line by line, and whether it has ended.
#[derive(Default)]
pub struct Log {
    pub lines: Vec<(Timestamp, String)>,
    pub ended: bool,
}

/// By the pod's name.
pub type AllLogs = Arc<Mutex<HashMap<String, Log>>>;

/// Serves them; the API server asks for no certificate that it knows.
pub async fn serve(logs: AllLogs) -> u16 {
    let own = rcgen::generate_simple_self_signed(["node".to_owned()]).unwrap();
    let (certificate, key) = (own.cert.pem().into_bytes(), own.signing_key.serialize_pem().into_bytes());
    let tls = RustlsConfig::from_pem(certificate, key).await.unwrap();
    let listener = std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let router =
        Router::new().route("/containerLogs/{namespace}/{pod}/{container}", get(log)).with_state(logs);
    let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
    tokio::spawn(server.serve(router.into_make_service()));
    port
}

async fn log(State(logs): State<AllLogs>, Path((_, pod, _)): Path<(String, String, String)>) -> Response {
    if !logs.lock().unwrap().contains_key(&pod) {
        return (StatusCode::NOT_FOUND, "no such container").into_response();
    }
    let lines = futures_util::stream::unfold(0, move |next| {
        let (logs, pod) = (logs.clone(), pod.clone());
        async move {
            loop {
                if let Some(log) = logs.lock().unwrap().get(&pod) {
                    if let Some((at, line)) = log.lines.get(next) {
                        return Some((
                            Ok::<_, std::io::Error>(Bytes::from(format!("{at} {line}\n"))),
                            next + 1,
                        ));
                    }
                    if log.ended {
                        return None;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    Body::from_stream(lines).into_response()
}
