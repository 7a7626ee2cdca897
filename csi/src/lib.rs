//! The node plugin: kubelet asks, a clone appears in the pod; the pod goes, the clone goes.
//!
//! ```text
//! kubelet ──▶ grpc ──▶ publish ──▶ access      who may clone what (ports::Directory)
//!                         │  ├────▶ storage     the clone, in RBD (aldaas-golden)
//!                         │  └────▶ target      attach, mount, bind (aldaas-volume)
//!                         └──▶ removal ◀── reaper: observe ─▶ plan ─▶ run
//! ```
//!
//! Every step is decided from what is observed (RBD, `/proc`, `/sys`, Kubernetes), never from memory, so that each may be
//! repeated after a crash. [`ports`] is what the plugin needs of Kubernetes; `objects` reads it from a file where there is
//! none.

pub mod access;
pub mod args;
mod authority;
mod blocking;
pub mod client;
pub mod config;
pub mod grpc;
pub mod guard;
pub mod idle;
pub mod kubernetes;
pub mod metrics;
pub mod objects;
pub mod ports;
pub mod publish;
pub mod reaper;
pub mod registration;
pub mod removal;
pub mod run;
mod socket;
pub mod stats;
pub mod storage;
pub mod target;

pub use config::Config;
pub use run::run;

/// The generated gRPC messages and services.
#[allow(missing_docs, clippy::all, clippy::unwrap_used, clippy::todo)]
pub mod proto {
    /// Container Storage Interface, version 1.
    pub mod csi {
        tonic::include_proto!("csi.v1");
    }
    /// kubelet's plugin registration, version 1.
    pub mod registration {
        tonic::include_proto!("pluginregistration");
    }
    /// Our own: why a clone is kept or goes.
    pub mod explain {
        tonic::include_proto!("aldaas.v1");
    }
}

/// The CSI driver's name.
pub const DRIVER: &str = "csi.aldaas.dev";
