//! The admission webhook: a pod that asks for a database gets a volume of it, or is told why not.
//!
//! ```text
//! API server ──▶ server ──▶ review ──▶ mutate ──▶ patch, or a denial in plain words
//!                                        │
//!                                     catalogue ◀── index ◀── watches of Database, GoldenImage, Namespace
//! ```
//!
//! [`mutate`] is pure: what it says depends on the object and the [`catalogue`] alone. No handler asks the API server or Ceph
//! anything. The node plugin is what decides who may clone what; the webhook says so earlier and more kindly.

pub mod args;
pub mod catalogue;
pub mod certificates;
pub mod config;
pub mod index;
pub mod metrics;
pub mod mutate;
pub mod registration;
pub mod review;
pub mod run;
pub mod server;

pub use config::Config;
pub use run::run;

/// The CSI driver's name.
pub const DRIVER: &str = "csi.aldaas.dev";
