//! The API server is away: what was known holds, and how old it is can be seen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aldaas_testbed::Testbed;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::common::asking;
use crate::common::program::until;
use crate::common::tls::Caller;
use crate::kubernetes::Corner;
use crate::reviews::review;

/// The way to the API server, which can be cut.
struct Road {
    address: SocketAddr,
    open: watch::Sender<bool>,
}

impl Road {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, is_open) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let mut cut = is_open.clone();
                tokio::spawn(async move {
                    if *cut.borrow()
                        && let Ok(mut there) = TcpStream::connect(server).await
                    {
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut here, &mut there) => {}
                            _ = cut.wait_for(|open| !open) => {}
                        }
                    }
                });
            }
        });
        Self { address, open }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_api_server_is_away_it_answers_from_what_it_knows_and_says_how_old_that_is() {
    let mut corner = Corner::new("away").await;
    let orders = corner.database("orders").await;
    let shop = format!("{}-shop", corner.name);
    corner.namespace(&shop, json!({})).await;

    let text = std::fs::read_to_string(Testbed::kube().kubeconfig()).unwrap();
    let at = text.find("https://").unwrap() + "https://".len();
    let server = text[at..].split('"').next().unwrap();
    let road = Road::to(server.parse().unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, text.replace(server, &road.address.to_string())).unwrap();
    let webhook = corner.webhook(&kubeconfig).await;

    let registrations: kube::Api<k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration> =
        kube::Api::all(corner.client.clone());
    let all = registrations.get(&corner.name).await.unwrap().webhooks.unwrap();
    let trusted = Arc::new(all[0].client_config.ca_bundle.clone().unwrap().0);
    let body = review(&asking(&format!("{orders}:latest")), &shop).to_string();
    let answers = async || {
        let mut caller = Caller::connect(webhook.reviews, &trusted).await.unwrap();
        let (_, answer) = caller.post(body.as_bytes()).await.unwrap();
        serde_json::from_slice::<Value>(&answer).unwrap()["response"]["allowed"] == true
    };
    let age = async || webhook.metric(r#"aldaas_webhook_cache_age_seconds{kind="databases"}"#).await.unwrap();
    assert!(answers().await);

    road.open.send(false).unwrap();
    until("what is known gets older", async || age().await > 3.0).await;
    assert!(answers().await, "it goes on");
    assert_eq!(webhook.get("/readyz").await.0, 200);

    road.open.send(true).unwrap();
    until("it is current again", async || age().await < 2.0).await;
    let users = corner.database("users").await;
    let body = review(&asking(&format!("{users}:latest")), &shop).to_string();
    until("what is new is known", async || {
        let mut caller = Caller::connect(webhook.reviews, &trusted).await.unwrap();
        let (_, answer) = caller.post(body.as_bytes()).await.unwrap();
        serde_json::from_slice::<Value>(&answer).unwrap()["response"]["allowed"] == true
    })
    .await;
    tokio::time::timeout(Duration::from_secs(20), webhook.stop()).await.unwrap();
    corner.end().await;
}
