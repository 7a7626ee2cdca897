//! The webhook's own certificate, made and renewed by one of two replicas at a real API server.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use aldaas_testbed::Testbed;
use aldaas_webhook::certificates::plan::Policy;
use aldaas_webhook::config::Certificates;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::json;

use crate::common::program::{Webhook, config, until};
use crate::common::tls::Caller;
use crate::kubernetes::Corner;
use crate::reviews::review;

/// Short lives: in twelve seconds an authority goes, and several certificates.
const SHORT: Policy = Policy {
    authority: Duration::from_secs(15),
    certificate: Duration::from_secs(6),
    overlap: Duration::from_millis(700),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities_change_and_the_api_server_trusts_every_replica_all_the_time() {
    let corner = Corner::new("turn").await;
    let start = |identity: &str| {
        let settings = corner.settings(identity, SHORT, Duration::from_millis(100));
        Webhook::start(|_| {
            config(&Testbed::kube().kubeconfig(), &corner.own(), Certificates::Own(Box::new(settings)))
        })
    };
    let (one, two) = (start("one"), start("two"));
    corner.register(one.reviews).await;
    let registrations: Api<MutatingWebhookConfiguration> = Api::all(corner.client.clone());
    let bundle = async || {
        let mut all = registrations.get(&corner.name).await.unwrap().webhooks.unwrap().into_iter();
        let bundles: BTreeSet<_> =
            all.by_ref().map(|one| one.client_config.ca_bundle.map(|bundle| bundle.0)).collect();
        bundles.into_iter().next().flatten()
    };
    until("the API server knows whom to trust", async || bundle().await.is_some()).await;
    one.ready().await;
    two.ready().await;

    let body = review(&json!({ "metadata": {}, "spec": {} }), "shop").to_string();
    let count = |pem: &[u8]| String::from_utf8_lossy(pem).matches("BEGIN CERTIFICATE").count();
    let (started, first) = (Instant::now(), bundle().await.unwrap());
    let (mut calls, mut overlapped) = (0, false);
    // Until the first authority is forgotten.
    loop {
        let trusted = bundle().await.unwrap();
        overlapped |= count(&trusted) == 2;
        for webhook in [&one, &two] {
            let mut caller = Caller::connect(webhook.reviews, &trusted).await.unwrap();
            assert_eq!(caller.post(body.as_bytes()).await.unwrap().0, 200);
            calls += 1;
        }
        if count(&trusted) == 1 && trusted != first {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "the authority does not change");
    }
    assert!(overlapped && calls > 20, "{calls}");
    let loads = r#"aldaas_webhook_certificate_loads_total{outcome="ok"}"#;
    assert!(one.metric(loads).await.unwrap() >= 3.0 && two.metric(loads).await.unwrap() >= 3.0);
    assert!(
        one.metric(r#"aldaas_webhook_certificate_expiry_timestamp_seconds{of="authority"}"#).await.is_some()
    );
    the_other_takes_over(&corner, one, two).await;
    corner.end().await;
}

/// One writer, and another when it stops.
async fn the_other_takes_over(corner: &Corner, one: Webhook, two: Webhook) {
    let leases: Api<Lease> = Api::namespaced(corner.client.clone(), &corner.own());
    let holder = async || leases.get("tls").await.unwrap().spec.unwrap().holder_identity.unwrap_or_default();
    let (writer, other, heir) = match holder().await.as_str() {
        "one" => (one, two, "two"),
        _ => (two, one, "one"),
    };
    writer.stop().await;
    until("the other writes", async || holder().await == heir).await;
    let secrets: Api<Secret> = Api::namespaced(corner.client.clone(), &corner.own());
    let version = async || secrets.get("tls").await.unwrap().metadata.resource_version;
    let before = version().await;
    until("it renews", async || version().await != before).await;
    other.stop().await;
    assert_eq!(holder().await, "", "nobody has to wait for it");
}
