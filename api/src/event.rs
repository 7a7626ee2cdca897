//! What `aldaas-restore` says while it works: one JSON object per line on standard output.
//!
//! Whoever drives it (the CLI on a laptop, the controller in a cluster) reads these lines to show progress and to
//! learn the result; the exit code alone says whether to try again ([`exit`]).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::manifest::Manifest;

/// Exit codes of `aldaas-restore`, after `sysexits.h`.
pub mod exit {
    /// Everything was done.
    pub const OK: u8 = 0;
    /// Trying again will not help: a bad dump, a failing statement.
    pub const PERMANENT: u8 = 1;
    /// The arguments make no sense.
    pub const USAGE: u8 = 2;
    /// Trying again may help: the object store was away, the engine was killed (`EX_TEMPFAIL`).
    pub const TEMPORARY: u8 = 75;
}

/// A line of `aldaas-restore`'s standard output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A step began; the one before it is over.
    Step {
        /// What is being done now.
        step: Step,
    },
    /// How far the restore is in the source.
    Progress {
        /// Bytes of the source read so far, as they are stored (compressed).
        bytes: u64,
        /// Size of the source in bytes, where it is known (it is not for a pipe).
        total: Option<u64>,
    },
    /// The engine answers queries (`serve` only).
    Ready {
        /// TCP port on which the engine listens.
        port: u16,
        /// Directory of its Unix socket.
        socket_dir: String,
        /// Process id of the engine's main process.
        pid: u32,
    },
    /// All is done and the engine has stopped cleanly.
    Done {
        /// What was built or checked.
        manifest: Box<Manifest>,
    },
    /// What `inspect` found.
    Source {
        /// Size in bytes, where known.
        size: Option<u64>,
        /// The object's ETag, where there is one.
        etag: Option<String>,
        /// What the content is, e.g. `gzip, plain SQL`.
        format: String,
    },
    /// It went wrong; the last line before a non-zero exit.
    Failed {
        /// The step that went wrong.
        step: Step,
        /// Why, in plain words, and what to do.
        reason: String,
        /// Whether trying again may help.
        temporary: bool,
    },
}

/// What `aldaas-restore list` writes: one line, and no event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The newest objects, the newest first.
    pub objects: Vec<Object>,
    /// How many there are.
    pub total: u64,
}

/// An object in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its ETag, without quotes, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// When it was written.
    pub last_modified: Timestamp,
}

/// The steps of a restore and of a check, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Find the source and what it holds.
    Open,
    /// Make an empty data directory.
    Init,
    /// Start the engine in load mode.
    Start,
    /// Stream the dump in.
    Restore,
    /// Make unrecognisable what nobody may see.
    Mask,
    /// Make clones cheap: vacuum, freeze, analyse, checkpoint.
    Bake,
    /// Start the engine as users will.
    Serve,
    /// Look at what is there.
    Check,
    /// Stop the engine and prove that it stopped cleanly.
    Stop,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Open => "open",
            Step::Init => "init",
            Step::Start => "start",
            Step::Restore => "restore",
            Step::Mask => "mask",
            Step::Bake => "bake",
            Step::Serve => "serve",
            Step::Check => "check",
            Step::Stop => "stop",
        })
    }
}
