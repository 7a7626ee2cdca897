//! A certificate in a directory that somebody else renews.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aldaas_webhook::certificates::authority::Authority;
use aldaas_webhook::certificates::plan::Policy;
use aldaas_webhook::certificates::{CertificateError, Keeper, Pair};
use aldaas_webhook::config::Certificates;
use aldaas_webhook::metrics::Metrics;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::common::program::{Webhook, config, until};
use crate::common::tls::Caller;
use crate::reviews::review;

pub const HOUR: Policy = Policy {
    authority: Duration::from_secs(7200),
    certificate: Duration::from_secs(3600),
    overlap: Duration::from_secs(60),
};

pub fn names() -> Vec<String> {
    vec!["127.0.0.1".to_owned()]
}

pub fn store(dir: &Path, pair: &Pair) {
    // The key first, as one file after the other: in between they do not go together.
    fs::write(dir.join("tls.key"), &pair.key).unwrap();
    fs::write(dir.join("tls.crt"), &pair.certificate).unwrap();
    fs::write(dir.join("ca.crt"), &pair.authorities).unwrap();
}

/// A kubeconfig of an API server that is not there.
pub fn nowhere(dir: &Path) -> std::path::PathBuf {
    let file = dir.join("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]\n\
                contexts: [{name: x, context: {cluster: x, user: x}}]\nusers: [{name: x, user: {}}]\n";
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn what_can_not_be_served_is_refused_and_what_was_served_is_kept() {
    let (metrics, now) = (Arc::new(Metrics::default()), Timestamp::now());
    let keeper = Keeper::new(metrics.clone());
    assert!(keeper.not_ready().unwrap().contains("no certificate"));
    let (one, other) = (Authority::make(now, &HOUR).unwrap(), Authority::make(now, &HOUR).unwrap());
    let good = one.sign(&names(), now, &HOUR).unwrap();
    let wrong_key = Pair { key: other.sign(&names(), now, &HOUR).unwrap().key, ..good.clone() };
    assert!(matches!(keeper.offer(wrong_key.clone(), now), Err(CertificateError::Mismatch(_))));
    assert!(keeper.served().is_none());

    assert!(keeper.offer(good.clone(), now).unwrap());
    assert!(!keeper.offer(good.clone(), now).unwrap(), "it is served already");
    assert_eq!(keeper.not_ready(), None);
    let served = keeper.served().unwrap().get_inner();
    let then = now - SignedDuration::from_hours(3);
    let expired = Authority::make(then, &HOUR).unwrap().sign(&names(), then, &HOUR).unwrap();
    assert!(matches!(keeper.offer(expired.clone(), now), Err(CertificateError::Expired(_))));
    assert!(matches!(keeper.offer(wrong_key, now), Err(CertificateError::Mismatch(_))));
    let garbage = Pair { certificate: b"garbage".to_vec(), ..good.clone() };
    assert!(matches!(keeper.offer(garbage, now), Err(CertificateError::NoCertificate(_))));
    let no_key = Pair { key: Vec::new(), ..good };
    assert!(matches!(keeper.offer(no_key, now), Err(CertificateError::NoKey(_))));
    assert!(Arc::ptr_eq(&served, &keeper.served().unwrap().get_inner()));

    let late = Keeper::new(metrics);
    late.offer(expired, now).unwrap();
    assert!(late.not_ready().unwrap().contains("expired"), "the only one there is, but nobody is sent here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_under_load_and_no_request_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::make(Timestamp::now(), &HOUR).unwrap();
    let sign = || authority.sign(&names(), Timestamp::now(), &HOUR).unwrap();
    let certificates = Certificates::Directory(dir.path().to_owned(), Duration::from_millis(20));
    let webhook = Webhook::start(|_| config(&nowhere(dir.path()), "aldaas", certificates));
    assert_eq!(webhook.get("/healthz").await.0, 200);
    assert!(webhook.get("/readyz").await.1.contains("not read yet"));
    store(dir.path(), &sign());

    let body = Arc::new(review(&json!({ "metadata": {}, "spec": {} }), "shop").to_string());
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|n| {
            let (done, answered, body, address) =
                (done.clone(), answered.clone(), body.clone(), webhook.reviews);
            let trusted = authority.certificate.clone();
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let mut caller = Caller::connect(address, trusted.as_bytes()).await.unwrap();
                    // Some connections live on, others are new.
                    for _ in 0..if n % 2 == 0 { 50 } else { 1 } {
                        let (code, answer) = caller.post(body.as_bytes()).await.unwrap();
                        let answer: Value = serde_json::from_slice(&answer).unwrap();
                        assert_eq!((code, &answer["response"]["allowed"]), (200, &json!(true)));
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for round in 2..=6 {
        let before = answered.load(Ordering::Relaxed);
        until("requests are answered", async || answered.load(Ordering::Relaxed) > before + 20).await;
        store(dir.path(), &sign());
        let line = r#"aldaas_webhook_certificate_loads_total{outcome="ok"}"#;
        until("it is replaced", async || {
            webhook.metric(line).await.is_some_and(|loads| loads >= f64::from(round))
        })
        .await;
    }
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let expiry =
        webhook.metric(r#"aldaas_webhook_certificate_expiry_timestamp_seconds{of="serving"}"#).await.unwrap();
    assert!((expiry - Timestamp::now().as_second() as f64 - 3600.0).abs() < 120.0, "{expiry}");
    webhook.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_it_stops_it_says_so_first_and_answers_what_still_comes() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::make(Timestamp::now(), &HOUR).unwrap();
    store(dir.path(), &authority.sign(&names(), Timestamp::now(), &HOUR).unwrap());
    let certificates = Certificates::Directory(dir.path().to_owned(), Duration::from_millis(20));
    let webhook = Webhook::start(|_| config(&nowhere(dir.path()), "aldaas", certificates));
    let mut caller = Caller::connect(webhook.reviews, authority.certificate.as_bytes()).await.unwrap();
    let body = review(&json!({ "metadata": {}, "spec": {} }), "shop").to_string();
    webhook.stop.cancel();
    until("it says that it stops", async || webhook.get("/readyz").await.1.contains("stopping")).await;
    assert_eq!(caller.post(body.as_bytes()).await.unwrap().0, 200, "connections that are there");
    let mut new = Caller::connect(webhook.reviews, authority.certificate.as_bytes()).await.unwrap();
    assert_eq!(new.post(body.as_bytes()).await.unwrap().0, 200, "and those of whom has not heard yet");
    webhook.ended.await.unwrap().unwrap();
    assert!(caller.post(body.as_bytes()).await.is_err());
}
