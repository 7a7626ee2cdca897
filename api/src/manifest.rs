//! The evidence that travels with a golden image: in its file system as `.aldaas/manifest.json`, and (summed up) in
//! the image's metadata.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::Step;

/// What a golden image was made of, by what, and what came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The database, as aldaas and the engine call it.
    pub database: String,
    /// Where the data came from.
    pub source: Source,
    /// The engine that holds it now.
    pub engine: Engine,
    /// What the engine says it holds.
    pub contents: Contents,
    /// How long each step took, in milliseconds.
    pub steps: BTreeMap<Step, u64>,
    /// What the user had done to the data or proved of it, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ran: Vec<Ran>,
    /// When the engine had stopped: after the restore, or in what a check says, after that.
    pub finished_at: Timestamp,
}

/// A statement or a command of the user's that ran, and succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// In which step.
    pub step: Step,
    /// What it is.
    pub kind: RanKind,
    /// Its beginning, in one line, for people.
    pub text: String,
    /// SHA-256 of all of it, hexadecimal; of a command's words with a zero byte behind each.
    pub sha256: String,
    /// Rows that a statement touched or returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// How long it took.
    pub milliseconds: u64,
}

/// What was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RanKind {
    /// Statements for the engine.
    Sql,
    /// A program.
    Command,
}

/// The dump.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Where it was read from: `s3://bucket/key`, a file's path, or `-`.
    pub location: String,
    /// The object's ETag, where there is one.
    pub etag: Option<String>,
    /// Bytes read, as stored.
    pub size: u64,
    /// SHA-256 of those bytes, hexadecimal.
    pub sha256: String,
    /// What was found by content, e.g. `gzip, plain SQL`.
    pub format: String,
}

/// The engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// Its name: `postgres`.
    pub name: String,
    /// Its full version: `15.18`.
    pub version: String,
    /// Digest of the container image that it ran in, where it ran in one: `sha256:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
}

/// What is in the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Number of user tables.
    pub tables: u64,
    /// Rows of all of them together, counted.
    pub rows: u64,
    /// Size of the database in bytes, as the engine counts it.
    pub bytes: u64,
}
