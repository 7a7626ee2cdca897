//! Names and types that several aldaas programs share. No I/O here.
//!
//! - [`names`]: what a database, a golden image and a clone may be called, and `orders:latest`
//! - [`manifest`]: the evidence that travels with a golden image
//! - [`event`]: what `aldaas-restore` says on its standard output while it works

pub mod event;
pub mod manifest;
pub mod names;

pub use names::{CloneName, DatabaseName, GoldenImageName, ImageRef, NameError, Version};
