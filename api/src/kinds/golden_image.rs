//! `GoldenImage`: one sealed, verified image, made of one dump.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DATABASE_PATTERN;

/// Which dump of which database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "aldaas.dev",
    version = "v1alpha1",
    kind = "GoldenImage",
    plural = "goldenimages",
    shortname = "gi",
    category = "aldaas",
    status = "GoldenImageStatus",
    derive = "PartialEq",
    selectable = "spec.database",
    doc = "One dump of a database, restored, verified and sealed. Clones are made of it. The truth about it stands in its RBD image; this object mirrors it.",
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.database"),
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
        description = "Where it stands, in a word"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.progress",
        description = "How far its build is"
    ),
    printcolumn(
        name = "Size",
        type_ = "string",
        json_path = ".status.size",
        description = "How much data it holds"
    ),
    printcolumn(
        name = "Clones",
        type_ = "integer",
        json_path = ".status.clones",
        description = "How many live on it"
    ),
    printcolumn(name = "Engine", type_ = "string", json_path = ".status.engine.version", priority = "1"),
    printcolumn(name = "Rows", type_ = "integer", json_path = ".status.evidence.rows", priority = "1"),
    printcolumn(name = "Tries", type_ = "integer", json_path = ".status.attempts", priority = "1"),
    printcolumn(name = "Source", type_ = "string", json_path = ".spec.source.location", priority = "1"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = kube::core::Rule::new("self == oldSelf").message("what a golden image is made of never changes"))]
#[serde(rename_all = "camelCase")]
pub struct GoldenImageSpec {
    /// The database it is of.
    #[schemars(length(max = 40), regex(pattern = DATABASE_PATTERN))]
    pub database: String,
    /// The dump.
    pub source: SourceObject,
}

/// One dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceObject {
    /// Where it is: `s3://bucket/key`.
    #[schemars(length(min = 1, max = 2048))]
    pub location: String,
    /// The object's ETag: another one is another dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub etag: Option<String>,
    /// Bytes, as stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub size: Option<i64>,
    /// When it was last written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_modified: Option<String>,
}

/// A file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Filesystem {
    #[default]
    Ext4,
    Xfs,
}

/// What aldaas says about a golden image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GoldenImageStatus {
    /// `Restored`, `Sealed`, `Verified`: how far it came. `Ready`: it can be cloned; where it is `False`, reason and message
    /// say why in plain words. `Retired`: it is kept only for the clones that live on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How far its build is, for people: `62 % 41 MiB/s`, or the step at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// The step at hand: `restore`, `mask`, `bake`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Bytes of the dump read so far, as stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_read: Option<i64>,
    /// Bytes of the dump, as stored, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// How many of them are read in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<i64>,
    /// How often the building, or then the checking, was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<i64>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Time>,
    /// How much data it holds, for people: `157.2 MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Bytes of the volume, most of which cost nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provisioned_bytes: Option<i64>,
    /// Bytes that it takes in Ceph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_bytes: Option<i64>,
    /// How many clones live on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clones: Option<i64>,
    /// When its build began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it became ready, or had failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The engine that holds the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<EngineUsed>,
    /// What was read and what came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// What was done, and how long it took, by name of the step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub steps: BTreeMap<String, Step>,
}

/// An engine as it was met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EngineUsed {
    /// `postgres`
    pub name: String,
    /// Its full version: `15.8`.
    pub version: String,
    /// Digest of the container image that ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
}

/// What was read, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// SHA-256 of the dump as stored, hexadecimal.
    pub sha256: String,
    /// Bytes read, as stored.
    pub size: i64,
    /// What was found by content: `gzip, plain SQL`.
    pub format: String,
    /// How many user tables there are.
    pub tables: i64,
    /// Rows of all of them together, counted.
    pub rows: i64,
    /// Bytes of the database, as the engine counts them.
    pub bytes: i64,
}

/// A step of the build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// How long it took.
    pub milliseconds: i64,
}
