//! The webhook at a real API server.

use std::collections::BTreeMap;
use std::time::Duration;

use aldaas_api::kinds::{Database, GoldenImage};
use aldaas_testbed::Testbed;
use aldaas_webhook::certificates::own::Settings;
use aldaas_webhook::certificates::plan::Policy;
use aldaas_webhook::config::Certificates;
use aldaas_webhook::registration::{Endpoint, Registration};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::common::program::{Webhook, config, until};
use crate::common::{asking, database_object, image_object, merged, wanted};

/// A test's own corner of the shared API server.
pub struct Corner {
    pub client: Client,
    /// A word that nothing else there has: names of databases, namespaces and the registration begin with it.
    pub name: String,
    databases: Vec<String>,
}

impl Corner {
    pub async fn new(prefix: &str) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = aldaas_daemon::kubernetes::client(Some(&Testbed::kube().kubeconfig())).await.unwrap();
        let corner = Self { client, name: aldaas_testbed::unique(prefix), databases: Vec::new() };
        corner.namespace(&corner.own(), json!({})).await;
        corner
    }

    /// The namespace in which this webhook runs.
    pub fn own(&self) -> String {
        format!("{}-own", self.name)
    }

    pub async fn create<K>(&self, api: &Api<K>, object: Value) -> kube::Result<K>
    where
        K: Resource + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    {
        api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await
    }

    /// Makes a namespace in which this webhook, and no other test's, is asked.
    pub async fn namespace(&self, name: &str, labels: Value) {
        let ours =
            json!({ "aldaas/webhook": "enabled", "test": self.name, "kubernetes.io/metadata.name": name });
        let object = json!({ "metadata": { "name": name, "labels": merged(ours, labels) } });
        self.create(&Api::<Namespace>::all(self.client.clone()), object).await.unwrap();
    }

    /// Makes a database with a ready golden image.
    pub async fn database(&mut self, name: &str) -> String {
        let name = format!("{}-{name}", self.name);
        let api: Api<Database> = Api::all(self.client.clone());
        self.create(&api, database_object(&name, json!({}))).await.unwrap();
        self.databases.push(name.clone());
        self.image(&name, "20261122t033000z").await;
        name
    }

    pub async fn image(&self, database: &str, time: &str) {
        let name = format!("{database}-{time}");
        let api: Api<GoldenImage> = Api::all(self.client.clone());
        let object = image_object(&name, "True", "Verified", "all checks hold");
        self.create(&api, object.clone()).await.unwrap();
        let status = Patch::Merge(json!({ "status": object["status"] }));
        api.patch_status(&name, &PatchParams::default(), &status).await.unwrap();
    }

    /// Registers the webhook; its certificate's authority it makes known itself.
    pub async fn register(&self, webhook: std::net::SocketAddr) {
        let mut object = Registration {
            name: self.name.clone(),
            own_namespace: self.own(),
            endpoint: Endpoint::Url(format!("https://{webhook}")),
            // 1.20, which the shared one may be, has none.
            match_conditions: false,
            authorities: None,
        }
        .object();
        for one in object.webhooks.iter_mut().flatten() {
            let labels = one.namespace_selector.as_mut().unwrap().match_labels.as_mut().unwrap();
            labels.insert("test".into(), self.name.clone());
            // The machine may be busy.
            one.timeout_seconds = Some(20);
        }
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    pub fn settings(&self, identity: &str, policy: Policy, period: Duration) -> Settings {
        Settings {
            namespace: self.own(),
            secret: "tls".into(),
            identity: identity.into(),
            names: vec!["127.0.0.1".into()],
            registration: self.name.clone(),
            policy,
            period,
        }
    }

    /// A webhook with a certificate of its own, registered and trusted.
    pub async fn webhook(&self, kubeconfig: &std::path::Path) -> Webhook {
        let hours = |hours: u64| Duration::from_secs(3600 * hours);
        let policy = Policy { authority: hours(72), certificate: hours(24), overlap: hours(1) };
        let settings = self.settings("one", policy, Duration::from_millis(100));
        let certificates = Certificates::Own(Box::new(settings));
        let webhook = Webhook::start(|_| config(kubeconfig, &self.own(), certificates));
        self.register(webhook.reviews).await;
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        until("the API server knows whom to trust", async || {
            let all = api.get(&self.name).await.unwrap().webhooks.unwrap();
            all.iter().all(|one| one.client_config.ca_bundle.is_some())
        })
        .await;
        webhook.ready().await;
        webhook
    }

    pub async fn end(self) {
        let gone = DeleteParams::default();
        let registrations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        registrations.delete(&self.name, &gone).await.unwrap();
        let (databases, images): (Api<Database>, Api<GoldenImage>) =
            (Api::all(self.client.clone()), Api::all(self.client.clone()));
        for name in &self.databases {
            databases.delete(name, &gone).await.unwrap();
        }
        for image in images.list(&Default::default()).await.unwrap() {
            if self.databases.contains(&image.spec.database) {
                images.delete(&image.metadata.name.unwrap(), &gone).await.unwrap();
            }
        }
    }
}

/// What the API server says where it says no.
pub fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.message),
        other => panic!("{other}"),
    }
}

fn pod(name: &str, db: &str) -> Value {
    merged(
        asking(db),
        json!({ "metadata": { "name": name }, "spec": { "terminationGracePeriodSeconds": 0 } }),
    )
}

fn annotations(object: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(object["spec"]["template"]["metadata"]["annotations"].clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn annotated_pods_and_what_makes_them_get_their_database_at_a_real_api_server() {
    let mut corner = Corner::new("real").await;
    let orders = corner.database("orders").await;
    let webhook = corner.webhook(&Testbed::kube().kubeconfig()).await;
    let shop = format!("{}-shop", corner.name);
    corner.namespace(&shop, json!({ "aldaas/database": orders })).await;
    pods(&corner, &shop, &orders).await;
    deployments(&corner, &shop, &orders).await;
    let untouched: Api<Pod> = Api::namespaced(corner.client.clone(), &corner.own());
    let own = corner.create(&untouched, pod("own", "nothing:latest")).await.unwrap();
    assert!(own.spec.unwrap().volumes.is_none_or(|volumes| volumes.is_empty()));
    webhook.stop().await;
    corner.end().await;
}

async fn pods(corner: &Corner, shop: &str, orders: &str) {
    let api: Api<Pod> = Api::namespaced(corner.client.clone(), shop);
    let volume = format!("aldaas-{orders}");
    let latest = format!("{orders}-20261122t033000z");
    let made = corner.create(&api, pod("web", &format!("{orders}:latest"))).await.unwrap();
    let made = serde_json::to_value(made).unwrap();
    assert_eq!(wanted(&made, &volume).pinned.unwrap().to_string(), latest);
    assert_eq!(made["metadata"]["annotations"]["aldaas/image"], latest);
    assert_eq!(made["spec"]["containers"][1]["volumeMounts"][0]["name"], volume);

    let labelled = merged(
        pod("ci", "x"),
        json!({ "metadata": { "annotations": null, "labels": { "aldaas/db": "latest" } } }),
    );
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let made = api.create(&dry, &serde_json::from_value(labelled.clone()).unwrap()).await.unwrap();
    assert_eq!(wanted(&serde_json::to_value(made).unwrap(), &volume).database.as_str(), orders);
    corner.create(&api, labelled).await.unwrap();

    let denied = message(corner.create(&api, pod("no", "nothing-like-it:latest")).await.unwrap_err());
    assert!(
        denied.starts_with("404 ") && denied.contains("aldaas: there is no database nothing-like-it"),
        "{denied}"
    );
    // What was copied from a running pod is as good as what was written.
    let mut copy = serde_json::to_value(api.get("web").await.unwrap()).unwrap();
    copy["metadata"] = json!({ "name": "copy", "annotations": copy["metadata"]["annotations"] });
    copy["spec"].as_object_mut().unwrap().remove("nodeName");
    corner.image(orders, "20261123t033000z").await;
    until("the newest image is pinned", async || {
        let made = api.create(&dry, &serde_json::from_value(copy.clone()).unwrap()).await.unwrap();
        let made = serde_json::to_value(made).unwrap();
        wanted(&made, &volume).pinned.unwrap().to_string() == format!("{orders}-20261123t033000z")
    })
    .await;
    // Namespaces and their first pods come at once.
    for n in 0..5 {
        let new = format!("{shop}-{n}");
        corner.namespace(&new, json!({ "aldaas/database": orders })).await;
        let api: Api<Pod> = Api::namespaced(corner.client.clone(), &new);
        corner.create(&api, pod("first", "latest")).await.unwrap();
    }
}

async fn deployments(corner: &Corner, shop: &str, orders: &str) {
    let api: Api<Deployment> = Api::namespaced(corner.client.clone(), shop);
    let labels = json!({ "app": "web" });
    let template = json!({ "metadata": { "labels": labels }, "spec": asking("x")["spec"] });
    let object = json!({
        "metadata": { "name": "web" }, "spec": { "selector": { "matchLabels": labels }, "template": template },
    });
    corner.create(&api, object).await.unwrap();
    let annotate = async |value: Value| {
        let patch = Patch::Merge(json!({ "metadata": { "annotations": { "aldaas/db": value } } }));
        api.patch("web", &PatchParams::default(), &patch)
            .await
            .map(|made| serde_json::to_value(made).unwrap())
    };
    let made = annotations(&annotate(json!("latest")).await.unwrap());
    assert_eq!((made["aldaas/db"].as_str(), made["aldaas/carried"].as_str()), ("latest", "aldaas/db"));
    let wrong = message(annotate(json!("latests")).await.unwrap_err());
    assert!(wrong.contains("orders:latest"), "{wrong}");
    let made = annotations(&annotate(json!(format!("{orders}:latest"))).await.unwrap());
    assert_eq!(made["aldaas/db"], format!("{orders}:latest"));
    assert_eq!(annotations(&annotate(json!(null)).await.unwrap()), BTreeMap::new());

    let jobs: Api<Job> = Api::namespaced(corner.client.clone(), shop);
    let mut spec = asking("x")["spec"].clone();
    spec["restartPolicy"] = json!("Never");
    let job = json!({ "metadata": { "name": "ci", "annotations": { "aldaas/db": "latest" } }, "spec": { "template": { "spec": spec } } });
    let made = serde_json::to_value(corner.create(&jobs, job).await.unwrap()).unwrap();
    assert_eq!(annotations(&made)["aldaas/db"], "latest");
}
