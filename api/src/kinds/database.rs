//! `Database`: a named kind of data.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Access, Check, CloneSpec, Engine, Mask, ObjectSize, Restore, Size, Source, VersionMismatch,
    golden_image::{Filesystem, SourceObject},
};
use crate::Ttl;

/// What a database is: where its dumps are, which engine holds it, how it is checked, who may clone it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "aldaas.dev",
    version = "v1alpha1",
    kind = "Database",
    plural = "databases",
    shortname = "db",
    shortname = "dbs",
    category = "aldaas",
    status = "DatabaseStatus",
    derive = "PartialEq",
    doc = "A named kind of data: where its dumps are, which engine holds it, how it is checked, and who may clone it.",
    printcolumn(
        name = "Latest",
        type_ = "string",
        json_path = ".status.latest",
        description = "The golden image that clones are made of"
    ),
    printcolumn(
        name = "Since",
        type_ = "date",
        json_path = ".status.latestSince",
        description = "When it became ready"
    ),
    printcolumn(
        name = "Size",
        type_ = "string",
        json_path = ".status.latestSize",
        description = "How much data it holds"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether it can be cloned"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why, in a word"
    ),
    printcolumn(name = "Engine", type_ = "string", json_path = ".spec.engine.image", priority = "1"),
    printcolumn(name = "Bucket", type_ = "string", json_path = ".spec.source.s3.bucket", priority = "1"),
    printcolumn(name = "Prefix", type_ = "string", json_path = ".spec.source.s3.prefix", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseSpec {
    /// The database engine.
    pub engine: Engine,
    /// Where new dumps appear.
    pub source: Source,
    /// What golden images are built on.
    pub storage: Storage,
    /// How a dump is restored.
    #[serde(default)]
    pub restore: Restore,
    /// What is made unrecognisable before anybody can clone it.
    #[serde(default)]
    pub mask: Mask,
    /// What must hold on a clone before an image becomes ready.
    #[serde(default)]
    pub check: Check,
    /// How long golden images are kept.
    #[serde(default)]
    pub retention: Retention,
    /// What clones are like.
    #[serde(default)]
    pub clone: CloneSpec,
    /// Who may clone. Nothing: pods in aldaas' own namespace only.
    #[serde(default)]
    pub access: Access,
    /// What happens to a pod whose engine has another major version than the golden image.
    #[serde(default)]
    pub version_mismatch: VersionMismatch,
    /// Take no new dumps for now. What is ready can be cloned as before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// What golden images are built on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// How large the volume is, restored data and what clones add to it; only what is written costs space. e.g. `100Gi`.
    pub size: Size,
    /// The file system.
    #[serde(default)]
    pub filesystem: Filesystem,
    /// Size of the image's objects in Ceph. Nothing: Ceph's own, 4Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_size: Option<ObjectSize>,
}

/// How long golden images are kept. The newest ready one always is; one with clones stays until the last of them is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retention {
    /// This many ready ones, the newest.
    #[serde(default = "Retention::default_keep")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep: u32,
    /// And the newest of each of this many days.
    #[serde(default)]
    #[schemars(range(max = 366))]
    pub keep_daily: u32,
    /// And the newest of each of this many weeks.
    #[serde(default)]
    #[schemars(range(max = 520))]
    pub keep_weekly: u32,
    /// How long a failed one and its reason are kept. Nothing: three days.
    #[serde(default, rename = "failedTTL", skip_serializing_if = "Option::is_none")]
    pub failed_ttl: Option<Ttl>,
}

impl Retention {
    fn default_keep() -> u32 {
        3
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: Self::default_keep(), keep_daily: 0, keep_weekly: 0, failed_ttl: None }
    }
}

/// What aldaas says about a database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The newest ready golden image: what `latest` means now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<String>,
    /// When that became ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_since: Option<Time>,
    /// How much data it holds, for people: `157.2 MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_size: Option<String>,
    /// Where the dump is that was taken last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_source: Option<String>,
    /// The dump that was taken last, whatever came of it: only newer ones are taken by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_dump: Option<SourceObject>,
    /// `Ready`: there is a golden image to clone. `Progressing`: a dump is being made into one. `Reachable`: the bucket can
    /// be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
