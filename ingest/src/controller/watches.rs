//! Kubernetes' objects, watched.

use std::sync::Arc;

use aldaas_api::kinds::{Database, GoldenImage};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::Notify;

use super::cache::Cache;
use super::names::TASK;

/// An object, or why it can't be understood.
pub type Understood<K> = Result<K, String>;

/// The objects, and how to reach them.
pub struct Watches {
    /// All databases, by name.
    pub databases: Cache<Understood<Database>>,
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
        let databases: Api<DeserializeGuard<Database>> = Api::all(self.apis.client.clone());
        let images: Api<DeserializeGuard<GoldenImage>> = Api::all(self.apis.client.clone());
        tokio::join!(
            self.databases.follow(databases, all(), guarded, &wake),
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

fn guarded<K: kube::Resource + Clone>(object: &DeserializeGuard<K>) -> (String, Understood<K>) {
    let understood = match &object.0 {
        Ok(object) => Ok(object.clone()),
        Err(invalid) => Err(invalid.error.clone()),
    };
    (object.name_any(), understood)
}
