//! Golden images and clones on a real Ceph.

// Helpers beside the tests unwrap like the tests do.
#![allow(clippy::unwrap_used)]

mod builds;
mod cost;
mod leases;
mod lifecycle;
mod listing;
mod pods;
mod support;
