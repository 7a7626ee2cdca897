//! An RBD image as a mounted file system on this node.
//!
//! [`Node`] attaches an image (through the kernel's rbd, or through the FUSE server `aldaas-fuse` and a loop
//! device), makes or checks its file system, mounts it below a run directory, checks its marker, and binds `data/`
//! for an engine. All calls are blocking, decided by what is observed, and may be repeated after any failure:
//!
//! ```no_run
//! use aldaas_volume::{AttachMode, ImageSpec, Marker, Node, NodeConfig, OpenVolume};
//! # fn main() -> Result<(), aldaas_volume::Error> {
//! let node = Node::new(NodeConfig {
//!     run_dir: "/run/aldaas".into(),
//!     ceph: Default::default(),
//!     attach: AttachMode::Auto,
//!     fuse_program: "/usr/bin/aldaas-fuse".into(),
//!     fuse_server: Default::default(),
//! })?;
//! let clone = ImageSpec::new("aldaas", "clone", "mine");
//! let marker = Marker { golden_image: "orders-20261123t033000z".into(), database: "orders".into() };
//! let mounted = node.open(&clone, &OpenVolume::writable(&marker))?;
//! println!("engine's data directory: {}", mounted.data.display());
//! node.close(&clone)?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants: no marker, no mount. mkfs only on what is blank. One writer: a writable image is attached under its
//! exclusive lock. Directories are removed with rmdir only. Nothing is left after [`Node::close`].

mod attach;
mod cephconf;
mod client;
mod close;
mod devnode;
mod discard;
mod error;
mod filesystem;
mod holders;
mod identity;
mod inventory;
mod krbd;
mod layout;
pub mod loopdev;
mod marker;
pub mod mountinfo;
mod node;
pub mod protocol;
pub mod server;
mod spec;
mod sys;
mod tool;

pub use discard::Rest;
pub use error::{Error, Holder};
pub use identity::ClusterIdentity;
pub use inventory::{Cleaned, Observed, Server};
pub use marker::Marker;
pub use node::{FuseServer, Node, NodeConfig};
pub use spec::{AttachMode, Filesystem, ImageSpec, Mounted, NewVolume, OpenVolume};
