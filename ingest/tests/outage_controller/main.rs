//! The controller from end to end: a real API server, a real Ceph, a real S3, the real program, and a machine that plays the node.
#![allow(missing_docs, clippy::unwrap_used)]

mod away;
mod bed;
mod crash;
mod kubelet;
mod machine;
mod objects;
mod path;
