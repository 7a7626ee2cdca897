//! The API server goes away, hangs, and comes back.

mod kube_support;

use std::time::{Duration, Instant};

use aldaas_api::DatabaseName;
use aldaas_csi::ports::{Cluster as _, Directory as _};
use aldaas_testbed::{KubeDaemon, Testbed};
use kube::ResourceExt as _;
use kube_support as on;
use serde_json::json;

#[tokio::test]
async fn while_the_api_server_is_away_what_was_last_known_holds_and_nothing_is_decided_from_it() {
    let kube = Testbed::own_kube();
    let config = kube.kubeconfig();
    let client = on::admin(&config).await;
    let orders: DatabaseName = "orders".parse().unwrap();
    on::database(&client, &orders, &json!({})).await;
    on::namespace(&client, "shop", "shop").await;
    let (kubernetes, _guard) = on::plugin(&config, "here", "default").await;
    let known = |kubernetes: &aldaas_csi::kubernetes::Kubernetes| {
        let labels = kubernetes.namespace("shop").ok()??;
        assert_eq!(labels["team"], "shop");
        kubernetes.database(&orders).ok()?
    };
    on::until("all is known", || known(&kubernetes)).await;
    on::until("pods are listed", || kubernetes.pods().ok()).await;
    on::until("it is elected", || kubernetes.is_elected().then_some(())).await;

    kube.stop(KubeDaemon::ApiServer);
    let away = on::until("it is noticed", || kubernetes.pods().err()).await;
    assert!(away.to_string().starts_with("the Kubernetes API server does not answer: "), "{away}");
    on::until("nodes too", || kubernetes.nodes().err()).await;
    assert!(known(&kubernetes).is_some() && kubernetes.is_ready());
    kubernetes.pod_exists("shop", "web", "1").await.unwrap_err();
    // It can't renew, so it gives up by itself before another may take it.
    on::until("it is elected no more", || (!kubernetes.is_elected()).then_some(())).await;
    assert!(kubernetes.age().unwrap() > Duration::from_secs(5));

    kube.start_again(KubeDaemon::ApiServer);
    let pod = on::pod(&client, "shop", "web", "here").await;
    let seen = on::until("what came since is seen", || kubernetes.pods().ok()?.pop()).await;
    assert_eq!(Some(seen.uid), pod.uid());

    // A server that hangs breaks no connection: only asking it shows that it is away.
    kube.freeze(KubeDaemon::ApiServer);
    let start = Instant::now();
    on::until("it is noticed", || kubernetes.pods().err()).await;
    assert!(start.elapsed() < Duration::from_secs(30), "after {:?}", start.elapsed());
    assert!(known(&kubernetes).is_some());
    kube.thaw(KubeDaemon::ApiServer);
    on::until("pods are listed", || kubernetes.pods().ok()).await;
}

#[tokio::test]
async fn a_plugin_that_starts_while_the_api_server_is_away_knows_nothing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{ "name": "here", "cluster": { "server": "https://127.0.0.1:9" } }],
        "contexts": [{ "name": "here", "context": { "cluster": "here", "user": "me" } }],
        "users": [{ "name": "me", "user": { "token": "t" } }],
    });
    std::fs::write(&config, text.to_string()).unwrap();
    let (kubernetes, _guard) = on::plugin(&config, "here", "default").await;
    let orders: DatabaseName = "orders".parse().unwrap();
    let refused = || kubernetes.database(&orders).unwrap_err().to_string();
    on::until("why is said", || refused().contains("refused").then_some(())).await;
    assert!(!kubernetes.is_ready());
    assert!(kubernetes.pods().is_err() && kubernetes.nodes().is_err() && !kubernetes.is_elected());
    assert_eq!(kubernetes.age(), None);
}
