//! What the controller was told at its start, validated.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aldaas_rbd as rbd;
use k8s_openapi::api::core::v1::{Affinity, Toleration};

/// Everything that the controller needs to know to run.
#[derive(Clone, Debug)]
pub struct Config {
    /// How the API server is reached; none: as a pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The namespace that aldaas itself runs in: Jobs and Secrets are there.
    pub namespace: String,
    /// This replica's name in the election.
    pub identity: String,
    /// What Jobs are made with.
    pub jobs: JobSettings,
    /// How Ceph is reached.
    pub ceph: rbd::ConnectOptions,
    /// The pool.
    pub pool: rbd::PoolName,
    /// The program `aldaas-restore`, which lists buckets.
    pub restore_program: PathBuf,
    /// Where health and metrics are served; none: nowhere.
    pub http: Option<SocketAddr>,
    /// Where bucket notifications are taken; none: nowhere.
    pub events: Option<SocketAddr>,
    /// What they must bear; none: anybody's are taken.
    pub events_token: Option<String>,
    /// How often everything is looked at even if nothing seems to have happened.
    pub resync: Duration,
}

/// What Jobs are made with.
#[derive(Clone, Debug)]
pub struct JobSettings {
    /// The container image of aldaas itself: its `aldaas-restore` is laid into the engine's container.
    pub image: String,
    /// When that is pulled; none: Kubernetes' default.
    pub pull_policy: Option<String>,
    /// The directory on the nodes where `aldaas-restore` was laid; none: each pod lays it in itself, from that image.
    pub program: Option<PathBuf>,
    /// Secrets with which that is pulled.
    pub pull_secrets: Vec<String>,
    /// The service account of the Jobs' pods.
    pub account: String,
    /// On which nodes they may run, and before whom.
    pub placement: Placement,
}

/// On which nodes pods may run, and before whom: these fields of a pod's spec, as they stand there.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Placement {
    /// Labels that a node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that they bear.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// More about where they run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Their `PriorityClass`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
}

impl std::str::FromStr for Placement {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}
