//! Every function of the crate against a real cluster, its errors included.
//!
//! One program, so that `../valgrind.sh` can run all of it at once.

// Helpers beside the tests unwrap like the tests do.
#![allow(clippy::unwrap_used)]

mod aio;
mod clones;
mod cluster;
mod images;
mod locks;
mod metadata;
mod outage;
mod sharing;
mod support;
mod trash;
