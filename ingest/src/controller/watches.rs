//! Kubernetes' objects, watched.

use std::sync::Arc;

use aldaas_api::kinds::{Database, DatabaseStatus, GoldenImage};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::core::{ApiResource, DeserializeGuard, DynamicObject};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Notify;

use super::cache::Cache;
use super::names::TASK;

/// An object, or why it can't be understood.
pub type Understood<K> = Result<K, String>;

/// A Database that means nothing to us, though the API server let it pass.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What is wrong with it.
    pub error: String,
    /// What stands in its status.
    pub status: DatabaseStatus,
    /// The generation of its spec.
    pub generation: Option<i64>,
}

/// The objects, and how to reach them.
pub struct Watches {
    /// All databases, by name.
    pub databases: Cache<Result<Database, Broken>>,
    /// All golden images, by name.
    pub images: Cache<Understood<GoldenImage>>,
    /// Our Jobs, by name.
    pub jobs: Cache<Job>,
    /// Their pods, by UID.
    pub pods: Cache<Pod>,
    /// To reach them.
    pub apis: Apis,
}

/// The API server's doors.
#[derive(Clone)]
pub struct Apis {
    /// Databases.
    pub databases: Api<Database>,
    /// The same, also those that can't be understood.
    pub any_databases: Api<DynamicObject>,
    /// Golden images.
    pub images: Api<GoldenImage>,
    /// Jobs in our namespace.
    pub jobs: Api<Job>,
    /// Pods in our namespace.
    pub pods: Api<Pod>,
    /// Manifests in our namespace.
    pub config_maps: Api<ConfigMap>,
    /// Keys to buckets, in our namespace.
    pub secrets: Api<Secret>,
    client: Client,
}

impl Watches {
    /// Knows nothing yet.
    pub fn new(client: Client, namespace: &str) -> Self {
        let apis = Apis {
            databases: Api::all(client.clone()),
            any_databases: Api::all_with(client.clone(), &ApiResource::erase::<Database>(&())),
            images: Api::all(client.clone()),
            jobs: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client.clone(), namespace),
            config_maps: Api::namespaced(client.clone(), namespace),
            secrets: Api::namespaced(client.clone(), namespace),
            client,
        };
        Self {
            databases: Cache::new("Databases"),
            images: Cache::new("GoldenImages"),
            jobs: Cache::new("Jobs"),
            pods: Cache::new("pods of Jobs"),
            apis,
        }
    }

    /// Follows all of them for ever; `wake` is told of changes.
    pub async fn follow(self: Arc<Self>, wake: Arc<Notify>) {
        let all = watcher::Config::default;
        let ours = || watcher::Config::default().labels(TASK);
        let images: Api<DeserializeGuard<GoldenImage>> = Api::all(self.apis.client.clone());
        tokio::join!(
            self.databases.follow(self.apis.any_databases.clone(), all(), database, &wake),
            self.images.follow(images, all(), guarded, &wake),
            self.jobs.follow(self.apis.jobs.clone(), ours(), |job| (job.name_any(), job.clone()), &wake),
            self.pods.follow(
                self.apis.pods.clone(),
                ours(),
                |pod| (pod.uid().unwrap_or_default(), pod.clone()),
                &wake,
            ),
        );
    }

    /// What was not listed yet.
    pub fn missing(&self) -> Vec<&'static str> {
        let listed = [
            (self.databases.is_complete(), self.databases.what()),
            (self.images.is_complete(), self.images.what()),
            (self.jobs.is_complete(), self.jobs.what()),
            (self.pods.is_complete(), self.pods.what()),
        ];
        listed.iter().filter(|(complete, _)| !complete).map(|(_, what)| *what).collect()
    }
}

fn database(object: &DynamicObject) -> (String, Result<Database, Broken>) {
    let read = serde_json::to_value(object).and_then(serde_json::from_value::<Database>);
    let read = read.map_err(|error| Broken {
        error: error.to_string(),
        status: object
            .data
            .get("status")
            .and_then(|s| serde_json::from_value(s.clone()).ok())
            .unwrap_or_default(),
        generation: object.metadata.generation,
    });
    (object.name_any(), read)
}

fn guarded<K: kube::Resource + Clone>(object: &DeserializeGuard<K>) -> (String, Understood<K>) {
    let understood = match &object.0 {
        Ok(object) => Ok(object.clone()),
        Err(invalid) => {
            tracing::warn!(
                object = object.name_any(),
                error = invalid.error,
                "can't be understood: nothing is done for it"
            );
            Err(invalid.error.clone())
        }
    };
    (object.name_any(), understood)
}
