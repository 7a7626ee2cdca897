//! Kubernetes, watched: what is asked often is answered from what was last known, at once.
//!
//! Who may clone what is decided from what was last known even while the API server is away ([`Directory`]). What would take
//! something away is not ([`Cluster`]): that needs watches that hold and a server that answered just now.
//!
//! A watch says nothing when its server can't be reached any more, so the server is also asked every few seconds. When it did not
//! answer, or a watch failed, everything is listed anew before it counts as current.

mod cache;
pub mod convert;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aldaas_api::{DatabaseName, kinds};
use aldaas_daemon::election::{Election, Office};
use aldaas_daemon::kubernetes::say;
use anyhow::Result;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use k8s_openapi::api::core::v1 as core;
use kube::api::{DeleteParams, PartialObjectMeta, Preconditions};
use kube::core::DeserializeGuard;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::watcher;
use kube::{Api, Client, Resource as _, ResourceExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ports::{Away, Cluster, Database, Directory, Labels, Pod};
use cache::{Cache, Contact, Reader};

/// How often the API server is asked whether it is there: while it is, and while it is not.
const PROBE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));
/// An answer may take this long.
const CALL: Duration = Duration::from_secs(5);
/// An answer older than this is no proof that the server is there.
const CURRENT: Duration = Duration::from_secs(30);
/// Bytes that an Event's text may have.
const NOTE: usize = 1024;

/// The Lease by which one node among all is elected: it cleans up after nodes that are gone. There may be a thousand
/// candidates, and nothing is urgent.
fn office() -> Office {
    let [duration, renewal, look] = [20, 6, 12].map(Duration::from_secs);
    Office { name: "aldaas-reaper".to_owned(), duration, renewal, look }
}

/// The API server, watched.
pub struct Kubernetes {
    client: Client,
    node: String,
    databases: Cache<Database>,
    namespaces: Cache<Labels>,
    pods: Cache<Pod>,
    nodes: Cache<()>,
    contact: Contact,
    /// Counts the times that watches must be begun anew.
    restarts: watch::Sender<u64>,
    election: Election,
    recorder: Recorder,
}

impl Kubernetes {
    /// Reads the configuration; asks nothing of the server yet. `node` is this node's name, `namespace` aldaas' own.
    ///
    /// # Errors
    /// When the configuration is missing or can't be used.
    pub async fn new(kubeconfig: Option<&Path>, node: &str, namespace: &str) -> Result<Arc<Self>> {
        let client = aldaas_daemon::kubernetes::client(kubeconfig).await?;
        let reporter = Reporter { controller: "aldaas-csi".into(), instance: Some(node.to_owned()) };
        Ok(Arc::new(Self {
            databases: Cache::new("Databases"),
            namespaces: Cache::new("Namespaces"),
            pods: Cache::new("Pods of this node"),
            nodes: Cache::new("Nodes"),
            contact: Contact::never(),
            restarts: watch::Sender::new(0),
            election: Election::new(client.clone(), namespace, node, office()),
            recorder: Recorder::new(client.clone(), reporter),
            node: node.to_owned(),
            client,
        }))
    }

    /// Watches until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::join!(
            self.watch_databases(&stop),
            self.watch_namespaces(&stop),
            self.watch_pods(&stop),
            self.watch_nodes(&stop),
            self.probe(&stop),
            self.election.run(&stop, || ()),
        );
    }

    /// Whether enough was seen to decide who may clone what.
    pub fn is_ready(&self) -> bool {
        self.databases.is_complete() && self.namespaces.is_complete()
    }

    /// How long ago the API server last answered; none: it never did.
    pub fn age(&self) -> Option<Duration> {
        self.contact.age()
    }

    async fn watch_databases(&self, stop: &CancellationToken) {
        let api: Api<DeserializeGuard<kinds::Database>> = Api::all(self.client.clone());
        let read = Reader { key: ResourceExt::name_any, value: understand };
        let watch = || watcher(api.clone(), watcher::Config::default());
        self.databases.follow(watch, read, self.restarts.subscribe(), stop).await;
    }

    async fn watch_namespaces(&self, stop: &CancellationToken) {
        let api: Api<PartialObjectMeta<core::Namespace>> = Api::all(self.client.clone());
        let read: Reader<PartialObjectMeta<core::Namespace>, Labels> = Reader {
            key: ResourceExt::name_any,
            value: |object| Some(object.metadata.labels.clone().unwrap_or_default()),
        };
        let watch = || watcher(api.clone(), watcher::Config::default());
        self.namespaces.follow(watch, read, self.restarts.subscribe(), stop).await;
    }

    async fn watch_pods(&self, stop: &CancellationToken) {
        let api: Api<core::Pod> = Api::all(self.client.clone());
        let ours = watcher::Config::default().fields(&format!("spec.nodeName={}", self.node));
        // By UID: a pod may have the name of one that is still going.
        let read = Reader {
            key: |object: &core::Pod| object.uid().unwrap_or_default(),
            value: |object: &core::Pod| Some(convert::pod(object)),
        };
        let watch = || watcher(api.clone(), ours.clone());
        self.pods.follow(watch, read, self.restarts.subscribe(), stop).await;
    }

    async fn watch_nodes(&self, stop: &CancellationToken) {
        let api: Api<PartialObjectMeta<core::Node>> = Api::all(self.client.clone());
        let read: Reader<PartialObjectMeta<core::Node>, ()> =
            Reader { key: ResourceExt::name_any, value: |_| Some(()) };
        let watch = || watcher(api.clone(), watcher::Config::default());
        self.nodes.follow(watch, read, self.restarts.subscribe(), stop).await;
    }

    /// Notices a server that is away although no watch has failed yet.
    async fn probe(&self, stop: &CancellationToken) {
        let mut answered = true;
        loop {
            let asked = self.ask(self.client.apiserver_version()).await;
            if let (true, Err(away)) = (answered, &asked) {
                tracing::warn!(error = %away, "nothing is reaped until the API server answers again");
            }
            // When it comes back too: a watch may still wait on a connection that is dead.
            if answered != asked.is_ok() {
                self.restarts.send_modify(|times| *times += 1);
            }
            answered = asked.is_ok();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(if answered { PROBE.0 } else { PROBE.1 }) => {}
            }
        }
    }

    /// One call to the server, which shows that it is there.
    async fn ask<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Away> {
        let answer = match tokio::time::timeout(CALL, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Away(say(&error))),
            Err(_) => Err(Away("no answer in time".into())),
        };
        if answer.is_ok() {
            self.contact.now();
        }
        answer
    }

    /// What is watched may decide only if the server answered just now.
    fn answers(&self) -> Result<(), Away> {
        match self.age() {
            Some(age) if age <= CURRENT => Ok(()),
            Some(age) => Err(Away(format!("its last answer was {} s ago", age.as_secs()))),
            None => Err(Away("it has not answered yet".into())),
        }
    }

    async fn tell(&self, pod: &Pod, reason: &str, message: &str) -> Result<(), Away> {
        let event = Event {
            type_: EventType::Normal,
            reason: reason.to_owned(),
            note: Some(shorten(message)),
            action: "DeletePod".into(),
            secondary: None,
        };
        let reference = core::ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            ..Default::default()
        };
        self.ask(self.recorder.publish(&event, &reference)).await
    }

    async fn delete(&self, pod: &Pod) -> Result<(), Away> {
        let api: Api<core::Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let only_this = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(only_this), ..Default::default() };
        let call = async {
            match api.delete(&pod.name, &params).await {
                Ok(_) => Ok(()),
                // Gone already, or the name is another pod's by now.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                Err(error) => Err(error),
            }
        };
        self.ask(call).await
    }
}

impl Directory for Kubernetes {
    fn database(&self, name: &DatabaseName) -> Result<Option<Arc<Database>>, Away> {
        self.databases.last_known(|known| known.get(name.as_str()).cloned())
    }

    fn databases(&self) -> Result<Vec<DatabaseName>, Away> {
        self.databases.last_known(|known| known.values().map(|database| database.name.clone()).collect())
    }

    fn namespace(&self, name: &str) -> Result<Option<Arc<Labels>>, Away> {
        self.namespaces.last_known(|known| known.get(name).cloned())
    }
}

impl Cluster for Kubernetes {
    fn pods(&self) -> Result<Vec<Pod>, Away> {
        self.answers()?;
        self.pods.current(|known| known.values().map(|pod| Pod::clone(pod)).collect())
    }

    fn nodes(&self) -> Result<BTreeSet<String>, Away> {
        self.answers()?;
        self.nodes.current(|known| known.keys().cloned().collect())
    }

    fn pod_exists<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
    ) -> BoxFuture<'a, Result<bool, Away>> {
        let api: Api<core::Pod> = Api::namespaced(self.client.clone(), namespace);
        async move {
            let found = self.ask(api.get_metadata_opt(name)).await?;
            Ok(found.is_some_and(|pod| pod.meta().uid.as_deref() == Some(uid)))
        }
        .boxed()
    }

    fn node_exists<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, Away>> {
        let api: Api<core::Node> = Api::all(self.client.clone());
        async move { Ok(self.ask(api.get_metadata_opt(name)).await?.is_some()) }.boxed()
    }

    fn node_is_ready<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, Away>> {
        let api: Api<core::Node> = Api::all(self.client.clone());
        async move { Ok(self.ask(api.get_opt(name)).await?.is_some_and(|node| convert::is_ready(&node))) }
            .boxed()
    }

    fn delete_pod<'a>(
        &'a self,
        pod: &'a Pod,
        reason: &'a str,
        message: &'a str,
    ) -> BoxFuture<'a, Result<(), Away>> {
        async move {
            if !self.pod_exists(&pod.namespace, &pod.name, &pod.uid).await? {
                return Ok(());
            }
            self.tell(pod, reason, message).await?;
            self.delete(pod).await
        }
        .boxed()
    }

    fn is_elected(&self) -> bool {
        self.election.is_won()
    }
}

/// A Database that can't be understood is left out: its access is unknown, so nobody gets it, and the others are not harmed.
fn understand(object: &DeserializeGuard<kinds::Database>) -> Option<Database> {
    let understood = match &object.0 {
        Ok(object) => convert::database(object),
        Err(invalid) => Err(invalid.error.clone()),
    };
    let complain = |error: &String| {
        tracing::error!(
            database = object.name_any(),
            error,
            "this Database can't be understood and is left out"
        );
    };
    understood.inspect_err(complain).ok()
}

fn shorten(text: &str) -> String {
    let end = text.floor_char_boundary(NOTE);
    text[..end].to_owned()
}
