//! Names and types that several aldaas programs share. No I/O here.
//!
//! - [`names`]: what a database, a golden image and a clone may be called, and `orders:latest`
//! - [`manifest`]: the evidence that travels with a golden image
//! - [`keys`]: what users write on their pods, `aldaas/db`
//! - [`context`]: what a pod's volume asks for; [`volume_id`]: what its clone is called
//! - `kinds` (feature of that name): the Kubernetes objects `Database` and `GoldenImage`
//! - [`event`]: what `aldaas-restore` says on its standard output while it works

pub mod context;
pub mod event;
pub mod keys;
#[cfg(feature = "kinds")]
pub mod kinds;
pub mod manifest;
pub mod names;
pub mod ttl;
pub mod volume_id;

pub use names::{CloneName, DatabaseName, GoldenImageName, ImageRef, NameError, Version};
pub use ttl::Ttl;
pub use volume_id::VolumeId;
