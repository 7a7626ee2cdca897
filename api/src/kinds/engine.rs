//! Which engine holds the data, and how it runs.

use k8s_openapi::api::core::v1::{EnvVar, ResourceRequirements};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The database engine: what a dump is restored into, and what pods run on their clones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// Which engine it is.
    #[serde(default)]
    pub kind: EngineKind,
    /// Container image that restores and verifies, e.g. `postgres:15.8`. A container of a pod that runs the same image is
    /// the one that gets the clone. Its major version is the version of the golden images.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// When that image is pulled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secrets in aldaas' own namespace with which that image is pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 253)))]
    pub image_pull_secrets: Vec<String>,
    /// Port on which the engine listens; connections to it tell a clone in use from an idle one. Nothing: the engine's
    /// usual one, 5432 for postgres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
    /// The engine's data directory in the container, where a clone is mounted. Nothing: `/var/lib/postgresql/data` for
    /// postgres.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 256), regex(pattern = r"^/[^:]*[^:/]$"))]
    pub mount: Option<String>,
    /// Name of the database inside the engine. Nothing: the name of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub database: Option<String>,
    /// Locale of the restored database: it decides how text is sorted. Nothing: `C.UTF-8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub locale: Option<String>,
    /// User id that owns the data. Nothing: 999, as in the official postgres image. It is 70 in its Alpine flavour, and 26
    /// or 1001 in others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483647))]
    pub run_as_user: Option<u32>,
    /// Group id that owns the data. Nothing: the same number as the user's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483647))]
    pub run_as_group: Option<u32>,
    /// Environment of the engine while it restores and verifies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// More arguments for the engine while it restores and verifies, e.g. `-c`, `shared_buffers=2GB`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 1024)))]
    pub args: Vec<String>,
    /// Memory and CPU of the Jobs that restore and verify; where nothing is said, requests of 250m and 256Mi without limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}

/// A database engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    #[default]
    #[allow(missing_docs)]
    Postgres,
}

/// When a container image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

impl Engine {
    /// Port on which it listens.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.kind {
            EngineKind::Postgres => 5432,
        })
    }

    /// Where a clone is mounted in the container.
    pub fn mount(&self) -> &str {
        self.mount.as_deref().unwrap_or(match self.kind {
            EngineKind::Postgres => "/var/lib/postgresql/data",
        })
    }

    /// User and group id that own the data.
    pub fn owner(&self) -> (u32, u32) {
        let user = self.run_as_user.unwrap_or(match self.kind {
            EngineKind::Postgres => 999,
        });
        (user, self.run_as_group.unwrap_or(user))
    }
}
