//! What the scenarios on a real Kubernetes are written with.
//!
//! `e2e/run` brings up Ceph, S3 and a cluster, installs the chart and names all of it in the environment. The scenarios then do
//! what users and platform engineers do, through the API server and S3 alone, and look at what comes of it: in Kubernetes, in Ceph
//! and, where the node is this machine's, on the node.
//!
//! Everything here blocks and panics with what to do about it: it is for tests.

mod census;
mod dump;
mod kube;
mod node;
mod objects;
mod site;

pub use census::Census;
pub use dump::dump;
pub use kube::{Kube, path};
pub use node::{Daemon, Node};
pub use objects::{Database, ENGINE, Room, labels_of, name_of};
pub use site::{Site, until};
