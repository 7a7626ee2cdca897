//! The file that stands for Kubernetes.

use std::path::{Path, PathBuf};

use aldaas_api::VolumeId;
use serde_json::{Value, json};

use super::NODE;

/// The namespaces `shop` (may clone `orders`), `web` (may not) and `aldaas`, the node, the databases `orders` and `closed` (of
/// aldaas' own namespace alone), and pods as a test wants them.
pub struct Objects {
    path: PathBuf,
    pub items: Vec<Value>,
}

impl Objects {
    pub fn new(dir: &Path) -> Self {
        let items = vec![
            namespace("shop"),
            namespace("web"),
            namespace("aldaas"),
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}),
            database("orders", json!({"namespaceSelector": {"matchLabels": {"team": "shop"}}})),
            database("closed", json!({})),
        ];
        let objects = Self { path: dir.join("objects.json"), items };
        objects.write();
        objects
    }

    /// As one write, as an API server would.
    pub fn write(&self) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": self.items});
        let new = self.path.with_extension("json.new");
        std::fs::write(&new, list.to_string()).unwrap();
        std::fs::rename(&new, &self.path).unwrap();
    }

    /// Kubernetes is away.
    pub fn remove(&self) {
        std::fs::remove_file(&self.path).unwrap();
    }

    pub fn database(&mut self, name: &str) -> &mut Value {
        self.find("Database", name).unwrap()
    }

    /// Whether the node's kubelet says that it lives.
    pub fn set_ready(&mut self, node: &str, ready: bool) {
        let status = if ready { "True" } else { "Unknown" };
        self.find("Node", node).unwrap()["status"] =
            json!({"conditions": [{"type": "Ready", "status": status}]});
        self.write();
    }

    fn find(&mut self, kind: &str, name: &str) -> Option<&mut Value> {
        self.items.iter_mut().find(|item| item["kind"] == kind && item["metadata"]["name"] == name)
    }

    /// A pod whose UID is its name, with one volume `db` of these attributes, running on `node`.
    pub fn add_pod(&mut self, uid: &str, node: &str, attributes: &[(&str, &str)]) {
        let attributes: serde_json::Map<String, Value> =
            attributes.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.items.push(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": uid, "namespace": "shop", "uid": uid},
            "spec": {
                "nodeName": node,
                "containers": [{"name": "app", "image": "app"}],
                "volumes": [{
                    "name": "db",
                    "csi": {"driver": aldaas_csi::DRIVER, "volumeAttributes": attributes}
                }],
            },
            "status": {"phase": "Running"},
        }));
        self.write();
    }

    pub fn remove_pod(&mut self, uid: &str) {
        self.items.retain(|item| !(item["kind"] == "Pod" && item["metadata"]["uid"] == uid));
        self.write();
    }

    /// The volume id of that pod's volume.
    pub fn volume(uid: &str) -> VolumeId {
        VolumeId::of_pod(uid, "db")
    }
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"team": name}}})
}

fn database(name: &str, access: Value) -> Value {
    json!({
        "apiVersion": "aldaas.dev/v1alpha1",
        "kind": "Database",
        "metadata": {"name": name},
        "spec": {
            "engine": {"kind": "postgres", "image": "postgres:15"},
            "source": {"s3": {"bucket": "backup", "prefix": name}},
            "storage": {"size": "1Gi"},
            "access": access,
        },
    })
}
