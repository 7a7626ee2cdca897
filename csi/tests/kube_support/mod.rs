//! What the tests against a real API server share: objects by hand, and waiting for what must come.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails where it may")]

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aldaas_api::{DatabaseName, kinds};
use aldaas_csi::kubernetes::Kubernetes;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Generous: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);

/// An administrator's client.
pub async fn admin(kubeconfig: &Path) -> Client {
    let file = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// The adapter of one node, running until the guard is dropped.
pub async fn plugin(kubeconfig: &Path, node: &str, namespace: &str) -> (Arc<Kubernetes>, DropGuard) {
    let kubernetes = Kubernetes::new(Some(kubeconfig), node, namespace).await.unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(kubernetes.clone().run(stop.clone()));
    (kubernetes, stop.drop_guard())
}

/// Waits until `look` answers something.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < LIMIT, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn create<K>(api: Api<K>, object: Value) -> K
where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

pub async fn namespace(client: &Client, name: &str, team: &str) {
    let object = json!({ "metadata": { "name": name, "labels": { "team": team } } });
    create::<Namespace>(Api::all(client.clone()), object).await;
}

pub async fn node(client: &Client, name: &str) {
    create::<Node>(Api::all(client.clone()), json!({ "metadata": { "name": name } })).await;
}

pub fn database_object(name: &str, access: &Value) -> Value {
    json!({
        "apiVersion": "aldaas.dev/v1alpha1", "kind": "Database", "metadata": { "name": name },
        "spec": {
            "engine": { "image": "postgres:15.8" },
            "source": { "s3": { "bucket": "backup" } },
            "storage": { "size": "10Gi" },
            "access": access,
        },
    })
}

pub async fn database(client: &Client, name: &DatabaseName, access: &Value) {
    create::<kinds::Database>(Api::all(client.clone()), database_object(name.as_str(), access)).await;
}

pub async fn change(client: &Client, name: &DatabaseName, spec: &Value) {
    let api: Api<DeserializeGuard<kinds::Database>> = Api::all(client.clone());
    let patch = Patch::Merge(json!({ "spec": spec }));
    api.patch(name.as_str(), &PatchParams::default(), &patch).await.unwrap();
}

/// A pod on `node` with one of our volumes, called `data`.
pub async fn pod(client: &Client, namespace: &str, name: &str, node: &str) -> Pod {
    let volume = json!({
        "name": "data",
        "csi": { "driver": aldaas_csi::DRIVER, "volumeAttributes": { "db": "orders:latest" } },
    });
    let object = json!({
        "metadata": { "name": name },
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": false,
            "containers": [{ "name": "web", "image": "web" }],
            "volumes": [volume, { "name": "scratch", "emptyDir": {} }],
        },
    });
    create(Api::namespaced(client.clone(), namespace), object).await
}
