//! Where the dumps are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Ttl;

/// Where new dumps appear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// A bucket in S3, or in anything that speaks it.
    pub s3: S3Source,
    /// How often it is looked at. Nothing: every minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Ttl>,
}

/// Objects in a bucket: the newest one that matches is the next golden image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Source {
    /// A store that is not AWS, with its port where that is not the usual one: `https://minio.storage:9000`. Nothing: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^https?://[^/?#@ ]+/?$"))]
    pub endpoint: Option<String>,
    /// The bucket.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub bucket: String,
    /// What keys begin with, e.g. `orders/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub prefix: Option<String>,
    /// What keys end with, e.g. `.sql.gz`. The format itself is found by content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub suffix: Option<String>,
    /// Region to sign requests for. Nothing: `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub region: Option<String>,
    /// Take any TLS certificate. For stores with a certificate that nobody signed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// The key. Nothing: what the service account of aldaas' ingest may do by itself, or a public bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<S3Credentials>,
}

/// A Secret in aldaas' own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Credentials {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub secret: String,
    /// Which of its entries is the access key's id.
    #[serde(default = "access_key_id")]
    #[schemars(length(min = 1, max = 253))]
    pub access_key_id: String,
    /// Which of its entries is the secret access key.
    #[serde(default = "secret_access_key")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_access_key: String,
}

fn access_key_id() -> String {
    "AWS_ACCESS_KEY_ID".into()
}

fn secret_access_key() -> String {
    "AWS_SECRET_ACCESS_KEY".into()
}
