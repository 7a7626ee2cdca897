//! What every program of aldaas that runs for long has, whatever it is for.
//!
//! - [`set_up`], [`ended`]: how `main` begins and ends: log, TLS, failpoints, exit code
//! - [`signals`]: a clean stop at the first, the end at the second
//! - [`pages`]: health, readiness and metrics over HTTP
//! - [`kubernetes`]: a client for the API server, and its errors in full
//! - [`election`]: of several replicas one acts
//!
//! Knows neither RBD nor databases. What a program does, is in its own room.

#[cfg(feature = "cluster")]
pub mod election;
pub mod failpoints;
#[cfg(feature = "cluster")]
pub mod kubernetes;
#[cfg(feature = "cluster")]
pub mod pages;
#[cfg(feature = "cluster")]
mod program;
#[cfg(feature = "cluster")]
pub mod signals;

#[cfg(feature = "cluster")]
pub use program::{ended, set_up};
