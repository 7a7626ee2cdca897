//! From a dump to a ready golden image.
//!
//! ```text
//! begin ─▶ blank volume ─▶ restore ─▶ close ─▶ seal ─▶ clone ─▶ check ─▶ ready
//! golden    volume         aldaas-    volume   golden   golden   aldaas-  golden
//!                          restore             └──── verify ────┘ restore
//! ```
//!
//! - [`driver`]: that order, with everything undone in reverse when a step fails or the user stops it
//! - [`supervisor`]: runs `aldaas-restore` as an unprivileged user and follows its events
//! - [`progress`]: what a front end is told meanwhile
//! - [`controller`]: the same in a cluster, by Jobs: the program `aldaas-ingest`
//!
//! The images are `aldaas-golden`'s, the mounts `aldaas-volume`'s, the engine `aldaas-restore`'s, which runs as a program of its
//! own: here and in a cluster alike.

#[cfg(feature = "controller")]
pub mod controller;
pub mod driver;
mod error;
pub mod progress;
pub mod supervisor;

pub use driver::{Ingest, IngestRequest, Report};
pub use error::{Error, Result};
pub use progress::{Progress, Stage};
pub use supervisor::{EngineUser, Supervisor};
