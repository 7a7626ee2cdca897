//! The Kubernetes controller: from a dump in a bucket to a ready golden image, by Jobs, and back out of use.
//!
//! ```text
//! bucket ─▶ plan ─▶ Job "build" ─▶ seal ─▶ Job "check" ─▶ ready ─▶ retired
//! lists     pure    engine's image  golden   on a clone     golden
//! ```
//!
//! RBD is the truth, objects mirror it. [`reconcile`] observes everything and sets to work what has something to do; what that is
//! decides [`plan`], purely; [`runner`] does it. Nothing is remembered that could not be read again.
//!
//! - [`model`], [`read`]: what was observed, and how it is read from [`watches`], [`storage`] and [`logs`]
//! - [`plan`], [`dumps`], [`retention`]: what to do, which dump is next, which images stay
//! - [`outcome`], [`progress`]: how a Job ended, and how far it is
//! - [`jobs`]: what Jobs look like
//! - [`status`], [`database_status`]: what the objects say
//! - [`bucket`], [`buckets`], [`events`], [`notification`]: what dumps there are, by a period or when the store says so

pub mod args;
pub mod bucket;
pub mod buckets;
pub mod cache;
mod chores;
pub mod config;
pub mod database_status;
pub mod dumps;
pub mod events;
pub mod jobs;
pub mod logs;
pub mod metrics;
pub mod model;
pub mod names;
pub mod notification;
pub mod outcome;
pub mod plan;
pub mod progress;
pub mod read;
pub mod reconcile;
pub mod recorder;
pub mod retention;
pub mod run;
pub mod runner;
pub mod status;
pub mod storage;
pub mod watches;
pub mod writes;

pub use config::Config;
pub use run::{run, serve};
