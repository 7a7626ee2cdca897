//! What clones of a database are like, and who may have one.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ObjectSize;
use crate::Ttl;

/// What a mount option may look like: a word, or a word and its value.
pub const MOUNT_OPTION: &str = "^[a-z0-9_]+(=[A-Za-z0-9_.-]+)?$";

/// What clones are like.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloneSpec {
    /// A pod whose clone nobody has used for this long is deleted, and its clone with it. `aldaas/ttl` on a pod overrides
    /// it. Nothing: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// How long a named clone (`aldaas/clone`) is kept for its next pod when its last one has gone. `aldaas/ttl` on that pod
    /// overrides it. Nothing: `ttl`, and where there is none, a day.
    #[serde(default, rename = "namedTTL", skip_serializing_if = "Option::is_none")]
    pub named_ttl: Option<Ttl>,
    /// More mount options, e.g. `noatime`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64), regex(pattern = MOUNT_OPTION)))]
    pub mount_options: Vec<String>,
    /// Size of a clone's objects in Ceph. Small ones cost less space when little is written here and there, large ones are
    /// read faster from end to end. Nothing: aldaas' default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_size: Option<ObjectSize>,
    /// Clones can't be written to. Most engines refuse to start on such a one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// Who may clone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// Which namespaces may clone this database, by their labels. Nothing: only aldaas' own. Empty (`{}`): every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Whom to ask for access: it is shown to those who are denied it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub contact: Option<String>,
}

/// What happens to a pod whose engine has another major version than the golden image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum VersionMismatch {
    Warn,
    #[default]
    Deny,
}
