//! The webhook: what it makes of pods, what it answers to whatever comes, its certificates, and all of it at a real API server.

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
