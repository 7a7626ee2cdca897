//! Kubernetes' objects from a file, for machines without Kubernetes: a `List` as JSON, as `kubectl get … -o json` prints it.
//!
//! It is read whenever something is asked, so whoever changes it replaces it in one step (`mv`). `Database`, `Namespace`, `Node`
//! and `Pod` objects mean what they mean in Kubernetes. A file without a `Node` object says nothing of pods: then the reaper
//! leaves every clone alone. A file that is missing or broken is an API server that is away.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use aldaas_api::{DatabaseName, kinds};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1 as core;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::kubernetes::convert;
use crate::ports::{Away, Cluster, Database, Directory, Labels, Pod};

/// The file.
pub struct Objects {
    path: PathBuf,
    node: String,
    /// Held by whoever changes the file.
    change: Mutex<()>,
}

impl Objects {
    /// The objects in the file `path`, as this `node` sees them.
    pub fn new(path: PathBuf, node: String) -> Self {
        Self { path, node, change: Mutex::new(()) }
    }

    fn list(&self) -> Result<Vec<Value>, Away> {
        let away = |error: String| Away(format!("{}: {error}", self.path.display()));
        let text = std::fs::read(&self.path).map_err(|error| away(error.to_string()))?;
        let mut list: Value = serde_json::from_slice(&text).map_err(|error| away(error.to_string()))?;
        match list["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Err(away("no List: it has no items".into())),
        }
    }

    /// Objects of one kind. One that can't be understood is left out, and said.
    fn objects<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, Away> {
        let of_kind = self.list()?.into_iter().filter(|item| item["kind"] == kind);
        let read = |item: Value| {
            let name = item["metadata"]["name"].clone();
            serde_json::from_value(item)
                .inspect_err(|error| tracing::warn!(%error, kind, %name, "object left out"))
                .ok()
        };
        Ok(of_kind.filter_map(read).collect())
    }

    fn all_pods(&self) -> Result<Vec<core::Pod>, Away> {
        if self.nodes()?.is_empty() {
            return Err(Away(format!(
                "{} has no Node objects, and so says nothing of pods",
                self.path.display()
            )));
        }
        self.objects("Pod")
    }

    /// Takes a pod out of the file and puts an Event in, in one step.
    fn delete(&self, pod: &Pod, reason: &str, message: &str) -> Result<(), Away> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut items = self.list()?;
        let before = items.len();
        items.retain(|item| item["kind"] != "Pod" || item["metadata"]["uid"] != pod.uid.as_str());
        if items.len() == before {
            return Ok(());
        }
        items.push(json!({
            "apiVersion": "v1", "kind": "Event", "type": "Normal", "reason": reason, "message": message,
            "metadata": {"name": format!("{}.{reason}", pod.name), "namespace": pod.namespace},
            "involvedObject": {"kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
        }));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        let new = self.path.with_extension("new");
        std::fs::write(&new, list.to_string())
            .and_then(|()| std::fs::rename(&new, &self.path))
            .map_err(|error| Away(format!("{}: {error}", self.path.display())))
    }
}

impl Directory for Objects {
    fn database(&self, name: &DatabaseName) -> Result<Option<Arc<Database>>, Away> {
        let wanted = |object: &kinds::Database| object.metadata.name.as_deref() == Some(name.as_str());
        let found = self.objects::<kinds::Database>("Database")?.into_iter().find(wanted);
        let read = |object| {
            convert::database(&object)
                .inspect_err(|error| tracing::warn!(%error, database = %name, "object left out"))
                .ok()
        };
        Ok(found.and_then(read).map(Arc::new))
    }

    fn databases(&self) -> Result<Vec<DatabaseName>, Away> {
        let objects = self.objects::<kinds::Database>("Database")?;
        Ok(objects.iter().filter_map(|object| object.metadata.name.as_ref()?.parse().ok()).collect())
    }

    fn namespace(&self, name: &str) -> Result<Option<Arc<Labels>>, Away> {
        let objects = self.objects::<core::Namespace>("Namespace")?;
        let found = objects.into_iter().find(|object| object.metadata.name.as_deref() == Some(name));
        Ok(found.map(|object| Arc::new(object.metadata.labels.unwrap_or_default())))
    }
}

impl Cluster for Objects {
    fn pods(&self) -> Result<Vec<Pod>, Away> {
        let here = |pod: &core::Pod| {
            pod.spec
                .as_ref()
                .is_some_and(|spec| spec.node_name.as_ref().is_none_or(|node| *node == self.node))
        };
        Ok(self.all_pods()?.iter().filter(|pod| here(pod)).map(convert::pod).collect())
    }

    fn nodes(&self) -> Result<BTreeSet<String>, Away> {
        Ok(self.objects::<core::Node>("Node")?.into_iter().filter_map(|node| node.metadata.name).collect())
    }

    fn pod_exists<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
    ) -> BoxFuture<'a, Result<bool, Away>> {
        let is_it = move |pod: &core::Pod| {
            let meta = &pod.metadata;
            let texts =
                [&meta.namespace, &meta.name, &meta.uid].map(|text| text.as_deref().unwrap_or_default());
            texts == [namespace, name, uid]
        };
        async move { Ok(self.all_pods()?.iter().any(is_it)) }.boxed()
    }

    fn node_exists<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, Away>> {
        async move {
            match self.nodes()? {
                nodes if nodes.is_empty() => {
                    Err(Away(format!("{} has no Node objects", self.path.display())))
                }
                nodes => Ok(nodes.contains(name)),
            }
        }
        .boxed()
    }

    fn node_is_ready<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, Away>> {
        async move {
            if !self.node_exists(name).await? {
                return Ok(false);
            }
            let nodes = self.objects::<core::Node>("Node")?;
            Ok(nodes
                .iter()
                .any(|node| node.metadata.name.as_deref() == Some(name) && convert::is_ready(node)))
        }
        .boxed()
    }

    fn delete_pod<'a>(
        &'a self,
        pod: &'a Pod,
        reason: &'a str,
        message: &'a str,
    ) -> BoxFuture<'a, Result<(), Away>> {
        async move { self.delete(pod, reason, message) }.boxed()
    }

    fn is_elected(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir, items: Value) -> Objects {
        let path = dir.path().join("objects.json");
        std::fs::write(&path, json!({"kind": "List", "items": items}).to_string()).unwrap();
        Objects::new(path, "here".into())
    }

    fn pod(uid: &str, node: &str) -> Value {
        json!({
            "kind": "Pod", "metadata": {"name": "web", "namespace": "shop", "uid": uid},
            "spec": {"nodeName": node, "containers": []},
        })
    }

    #[tokio::test]
    async fn pods_are_those_of_this_node_and_go_with_an_event() {
        let dir = tempfile::tempdir().unwrap();
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        let node = json!({"kind": "Node", "metadata": {"name": "here"}, "status": ready});
        let objects = file(&dir, json!([node, pod("a", "here"), pod("b", "there")]));
        let pods = objects.pods().unwrap();
        assert_eq!(pods.iter().map(|pod| pod.uid.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(objects.pod_exists("shop", "web", "b").await, Ok(true));
        assert_eq!(objects.pod_exists("shop", "web", "c").await, Ok(false));
        objects.delete_pod(&pods[0], "Idle", "nobody was there").await.unwrap();
        assert_eq!(objects.pods(), Ok(vec![]));
        assert!(objects.list().unwrap().iter().any(|item| item["message"] == "nobody was there"));
        assert_eq!(objects.node_exists("gone").await, Ok(false));
        assert_eq!(
            (objects.node_is_ready("here").await, objects.node_is_ready("gone").await),
            (Ok(true), Ok(false))
        );
    }

    #[tokio::test]
    async fn what_the_file_does_not_say_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let objects = file(&dir, json!([{"kind": "Database", "metadata": {"name": "orders"}, "spec": {}}]));
        assert!(objects.pods().is_err() && objects.node_exists("here").await.is_err());
        assert_eq!(objects.database(&"orders".parse().unwrap()), Ok(None), "it can't be understood");
        assert_eq!(objects.databases(), Ok(vec![]));
        let missing = Objects::new(dir.path().join("none"), "here".into());
        assert!(missing.namespace("shop").is_err() && missing.pods().is_err());
    }
}
