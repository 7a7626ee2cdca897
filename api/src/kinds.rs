//! The Kubernetes kinds of aldaas: [`Database`] and [`GoldenImage`], group `aldaas.dev/v1alpha1`, cluster-scoped.
//!
//! What is written here is what `kubectl explain` shows: the descriptions are for the people who write these objects. An
//! object that the schema lets pass can be read into these types; where a type is stricter, reading says what is wrong.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

mod clones;
#[allow(clippy::duplicated_attributes, reason = "every column has a type and a path")]
mod database;
mod engine;
#[allow(clippy::duplicated_attributes, reason = "every column has a type and a path")]
mod golden_image;
mod pipeline;
mod size;
mod source;

pub use clones::{Access, CloneSpec, MOUNT_OPTION, VersionMismatch};
pub use database::{Database, DatabaseSpec, DatabaseStatus, Retention, Storage};
pub use engine::{Engine, EngineKind, PullPolicy};
pub use golden_image::{
    EngineUsed, Evidence, Filesystem, GoldenImage, GoldenImageSpec, GoldenImageStatus, SourceObject, Step,
};
pub use pipeline::{Check, Mask, Restore};
pub use size::{ObjectSize, Size, SizeError};
pub use source::{S3Credentials, S3Source, Source};

/// Condition of both kinds: it can be cloned now.
pub const READY: &str = "Ready";

/// Names of databases, as the API server checks them; see [`crate::DatabaseName`].
const DATABASE_PATTERN: &str = "^[a-z]([a-z0-9-]*[a-z0-9])?$";
/// Names of golden images; see [`crate::GoldenImageName`].
const IMAGE_PATTERN: &str = "^[a-z]([a-z0-9-]*[a-z0-9])?-[0-9]{8}t[0-9]{6}z$";
/// Length of the time and its dash in a golden image's name.
const IMAGE_SUFFIX: usize = 17;

/// The definitions to install, as the chart ships them.
///
/// # Errors
/// Never, unless the types above make no schema; a test would see that first.
pub fn definitions() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    let longest = crate::names::DATABASE_NAME_MAX;
    // A database called `latest` could never be told from the word.
    let database = json!({
        "type": "string", "maxLength": longest, "pattern": DATABASE_PATTERN, "not": { "enum": ["latest"] }
    });
    let image = json!({ "type": "string", "maxLength": longest + IMAGE_SUFFIX, "pattern": IMAGE_PATTERN });
    Ok(vec![definition(Database::crd(), database)?, definition(GoldenImage::crd(), image)?])
}

/// A name that is none is refused when the object is written, not when it is used.
fn definition(
    crd: CustomResourceDefinition,
    name: Value,
) -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut crd = serde_json::to_value(crd)?;
    tidy(&mut crd);
    for version in crd["spec"]["versions"].as_array_mut().into_iter().flatten() {
        version["schema"]["openAPIV3Schema"]["properties"]["metadata"] =
            json!({ "type": "object", "properties": { "name": name } });
    }
    serde_json::from_value(crd)
}

/// Formats that Kubernetes knows, descriptions without the line breaks of the source, and no null among an enum's values:
/// Kubernetes 1.20 can't read that.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(values) = fields.get_mut("enum").and_then(Value::as_array_mut) {
                let all = values.len();
                values.retain(|value| !value.is_null());
                if values.len() < all {
                    fields.remove("nullable");
                }
            }
            for (key, value) in fields {
                match (key.as_str(), &mut *value) {
                    ("format", Value::String(format)) if format == "uint16" => *format = "int32".into(),
                    ("format", Value::String(format)) if format == "uint32" => *format = "int64".into(),
                    ("description", Value::String(text)) => *text = text.replace('\n', " "),
                    _ => tidy(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(tidy),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
