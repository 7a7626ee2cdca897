//! From dump to golden image: what is done to the data on the way.

use k8s_openapi::api::core::v1::EnvVar;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Ttl;

/// How a dump is restored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restore {
    /// How many tables and indexes are worked on at once. Nothing: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 32))]
    pub jobs: Option<u32>,
    /// Take a dump that makes no tables for a good one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_empty: bool,
    /// A command instead of aldaas' own restore: run in the engine's image with the engine started, the dump on standard
    /// input and how to connect in the environment (for postgres `PGHOST`, `PGUSER`, `PGDATABASE`). It fails the image
    /// unless it exits with 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Environment of the restore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// A restore that takes longer has failed. Nothing: a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Ttl>,
}

/// What is made unrecognisable before anybody can clone it. Runs after the restore; a failure fails the image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mask {
    /// SQL, one after the other, each in a transaction of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 65536)))]
    pub sql: Vec<String>,
    /// A command, run in the engine's image after the SQL, with how to connect in its environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Environment of the command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
}

/// What must hold on a clone before an image becomes ready.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Statements that must succeed and return a row, with no false and no NULL in it: `SELECT count(*) > 0 FROM orders`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 65536)))]
    pub sql: Vec<String>,
    /// A command, run in the engine's image after the statements, with how to connect in its environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 4096)))]
    pub command: Vec<String>,
    /// Environment of the command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<EnvVar>,
    /// A check that takes longer has failed. Nothing: an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Ttl>,
}
