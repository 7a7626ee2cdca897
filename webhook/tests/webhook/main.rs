//! The webhook: what it makes of pods, what it answers to whatever comes, its certificates, and all of it at a real API server.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;

mod away;
mod certificates;
mod denials;
mod kubernetes;
mod mutate;
mod program;
mod property;
mod registration;
mod reviews;
mod rotation;
mod workloads;
