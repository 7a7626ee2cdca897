//! A dump into an engine's data directory: the supervisor of an ingest, and of an engine on a clone.
//!
//! ```text
//!  source ──▶ evidence ──▶ format ──▶ engine
//!  s3 file -   bytes,      gzip,      init, load, bake,
//!              sha256      sql, -Fc   serve, check, stop
//! ```
//!
//! - [`source`]: where a dump comes from; one small port, an adapter for each kind of place
//! - [`evidence`]: counts and hashes what is read, and hands it to the blocking side
//! - [`mod@format`]: what a dump is, found by its content; decompression; the guard over plain SQL
//! - [`engine`]: the port that every database engine implements, and PostgreSQL
//! - [`restore`], [`check`], [`serve`], [`inspect`], [`list`], [`install`]: what the program does
//!
//! It knows neither RBD nor Kubernetes. **A dump is code**: whoever may write it can run anything as the engine's
//! user (`COPY … TO PROGRAM` does), which is why the engine never runs as root and nobody else can connect meanwhile.

pub mod args;
pub mod check;
pub mod child;
pub mod command;
pub mod engine;
pub mod error;
pub mod evidence;
pub mod format;
pub mod init;
pub mod inspect;
pub mod install;
pub mod list;
pub mod logging;
pub mod mask;
pub mod ran;
pub mod report;
pub mod restore;
pub mod run;
pub mod serve;
pub mod shutdown;
pub mod source;
pub mod variables;

pub use error::Error;
pub use run::run;
