//! The program itself.

use std::process::{Command, Stdio};
use std::time::Duration;

use aldaas_testbed::Testbed;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::certificates::{HOUR, names, nowhere, store};
use crate::common::program::{get, until};
use crate::common::tls::Caller;

fn program() -> Command {
    let mut command = Command::new(Testbed::program("aldaas-webhook"));
    command.env_remove("KUBECONFIG");
    command
}

#[test]
fn it_prints_its_registration_and_says_what_is_wrong_with_its_flags() {
    let output =
        program().args(["registration", "--by-namespace-label", "--namespace", "x"]).output().unwrap();
    let object: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(object["kind"], "MutatingWebhookConfiguration");
    assert_eq!(object["webhooks"][0]["clientConfig"]["service"]["namespace"], "x");
    let output = program().args(["serve", "--certificate-life", "300d"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("at most a third of --authority-life"));
}

#[tokio::test]
async fn a_signal_stops_it_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let now = jiff::Timestamp::now();
    let authority = aldaas_webhook::certificates::authority::Authority::make(now, &HOUR).unwrap();
    store(dir.path(), &authority.sign(&names(), now, &HOUR).unwrap());
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (reviews, http) = (free(), free());
    let mut child = program()
        .args(["serve", "--drain-delay", "1s", "--tls-period", "1s", "--listen", &reviews.to_string()])
        .args(["--http", &http.to_string()])
        .arg("--tls-dir")
        .arg(dir.path())
        .arg("--kubeconfig")
        .arg(nowhere(dir.path()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let trusted = authority.certificate.as_bytes();
    let review =
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": { "uid": "x" } });
    let review = review.to_string();
    let answers = async || match Caller::connect(reviews, trusted).await {
        Ok(mut caller) => caller.post(review.as_bytes()).await.is_ok(),
        Err(_) => false,
    };
    until("it serves", answers).await;
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    until("it says that it stops", async || get(http, "/readyz").await.1.contains("stopping")).await;
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
    assert!(tokio::time::timeout(Duration::from_secs(1), get(http, "/healthz")).await.unwrap().0 == 0);
}
