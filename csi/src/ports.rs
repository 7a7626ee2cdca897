//! What the plugin needs of Kubernetes: who may clone what ([`Directory`]), and which pods and nodes there are ([`Cluster`]).
//!
//! Two adapters stand behind these: the API server, watched and cached (`kubernetes`), and a file (`objects`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use aldaas_api::{DatabaseName, VolumeId};
use aldaas_golden::BlankSize;
use futures_util::future::BoxFuture;

/// Labels of a namespace.
pub type Labels = BTreeMap<String, String>;

/// What the plugin needs to know of a `Database` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    /// Its name.
    pub name: DatabaseName,
    /// Which namespaces may clone it; none: only aldaas' own.
    pub namespaces: Option<Selector>,
    /// Whom to ask for access.
    pub contact: Option<String>,
    /// What its clones are like.
    pub clones: ClonePolicy,
    /// What a golden image of it is built on.
    pub storage: StoragePolicy,
    /// The port on which its engine listens.
    pub port: u16,
}

/// What the clones of a database are like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClonePolicy {
    /// Size of their RADOS objects in bytes; none: aldaas' default.
    pub object_size: Option<u64>,
    /// The idle time after which one is reaped; none: never.
    pub ttl: Option<Duration>,
    /// How long a named one outlives its pod; none: aldaas' default.
    pub named_ttl: Option<Duration>,
    /// Nothing may be written to them.
    pub read_only: bool,
    /// More mount options.
    pub mount_options: Vec<String>,
}

/// What a golden image is built on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoragePolicy {
    /// Bytes of the blank image, and of its objects where something is said.
    pub size: BlankSize,
    /// `ext4` or `xfs`.
    pub filesystem: aldaas_volume::Filesystem,
    /// Owner of `data/`: user and group id of the engine.
    pub owner: (u32, u32),
}

/// A label selector: all of it must hold. Empty: every namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels that must have this value.
    pub labels: Labels,
    /// More conditions.
    pub expressions: Vec<Expression>,
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Its value is one of these.
    In(String, Vec<String>),
    /// It is missing, or its value none of these.
    NotIn(String, Vec<String>),
    /// It is there.
    Exists(String),
    /// It is missing.
    Missing(String),
}

impl Selector {
    /// Whether a namespace with these labels is meant.
    pub fn matches(&self, labels: &Labels) -> bool {
        let holds = |expression: &Expression| match expression {
            Expression::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Expression::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Expression::Exists(key) => labels.contains_key(key),
            Expression::Missing(key) => !labels.contains_key(key),
        };
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(holds)
    }
}

/// Kubernetes does not answer, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the Kubernetes API server does not answer: {0}")]
pub struct Away(pub String);

/// Who may clone what. Answers come from what was last known, at once; [`Away`] only while nothing was ever known.
pub trait Directory: Send + Sync {
    /// One database.
    fn database(&self, name: &DatabaseName) -> Result<Option<Arc<Database>>, Away>;
    /// All databases' names, for advice.
    fn databases(&self) -> Result<Vec<DatabaseName>, Away>;
    /// The labels of a namespace; none if there is no such namespace.
    fn namespace(&self, name: &str) -> Result<Option<Arc<Labels>>, Away>;
}

/// A pod on this node, as the reaper sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// It ended by itself (phase `Succeeded` or `Failed`) and will not run again.
    pub finished: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// Its volumes of our driver.
    pub volumes: Vec<PodVolume>,
}

/// A volume of our driver in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodVolume {
    /// The CSI volume id that kubelet gives it.
    pub id: VolumeId,
    /// What it asks for: `volumeAttributes`.
    pub attributes: BTreeMap<String, String>,
}

/// Pods and nodes, for the reaper. Everything here is [`Away`] as soon as the API server is: what is old decides nothing.
pub trait Cluster: Send + Sync {
    /// The pods of this node.
    fn pods(&self) -> Result<Vec<Pod>, Away>;
    /// The names of all nodes.
    fn nodes(&self) -> Result<BTreeSet<String>, Away>;
    /// Asks the API server itself, not the cache, whether this very pod still exists.
    fn pod_exists<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
        uid: &'a str,
    ) -> BoxFuture<'a, Result<bool, Away>>;
    /// Asks the API server itself whether this node still exists.
    fn node_exists<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, Away>>;
    /// Asks the API server itself whether this node exists and is ready: its kubelet says that it lives.
    fn node_is_ready<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, Away>>;
    /// Deletes this very pod (UID precondition), having told why in an Event. One that is gone is fine.
    fn delete_pod<'a>(
        &'a self,
        pod: &'a Pod,
        reason: &'a str,
        message: &'a str,
    ) -> BoxFuture<'a, Result<(), Away>>;
    /// Whether this node is the one that cleans up after nodes that are gone.
    fn is_elected(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_holds_when_all_of_it_does() {
        let labels = Labels::from([("team".into(), "shop".into()), ("stage".into(), "ci".into())]);
        let team = |value: &str| Labels::from([("team".to_owned(), value.to_owned())]);
        let with = |expressions| Selector { labels: team("shop"), expressions };
        assert!(Selector::default().matches(&labels));
        assert!(with(vec![]).matches(&labels));
        assert!(!Selector { labels: team("web"), expressions: vec![] }.matches(&labels));
        assert!(with(vec![Expression::In("stage".into(), vec!["ci".into(), "dev".into()])]).matches(&labels));
        assert!(!with(vec![Expression::NotIn("stage".into(), vec!["ci".into()])]).matches(&labels));
        assert!(with(vec![Expression::NotIn("x".into(), vec!["ci".into()])]).matches(&labels));
        assert!(!with(vec![Expression::Missing("stage".into())]).matches(&labels));
        assert!(with(vec![Expression::Exists("stage".into())]).matches(&labels));
    }
}
