//! A safe layer over librbd and librados: everything aldaas does to Ceph goes through here.
//!
//! This room knows pools, rados namespaces, images, snapshots, clones, trash, watchers and locks. It knows nothing of
//! databases, golden images or mounts: `golden` gives images a meaning, `volume` makes file systems of them.
//!
//! # Files, in the order in which a caller meets them
//!
//! | file | what |
//! |---|---|
//! | `cluster` | [`Cluster`]: connect with time-outs, monitor commands, pools, blocklist, operation counter |
//! | `pool` | [`Pool`]: rados namespaces, how full it is |
//! | `namespace` | [`Namespace`]: list, create, clone, open, remove and rename images |
//! | `options` | [`CreateOptions`], [`CloneOptions`], [`features`] |
//! | `trash` | move to the trash, list, restore, remove for good |
//! | `metadata` | image metadata without opening the image, with compare-and-set; and with |
//! | `lock`, `image_lock`, `object` | advisory locks with a lease, on objects and on images; small objects; an image's id |
//! | `image` | [`Image`]: shape, resize, close |
//! | `snapshot` | snapshots, parent, children, flatten |
//! | `usage` | written extents, differences, sparsify, object map |
//! | `sharing` | watchers, the exclusive lock's owner |
//! | `aio` | read, write, discard, zero, flush: as futures ([`Aio`]) or with callbacks |
//! | `ending` | the end of a program that may still have threads of librados |
//! | `memory` | what librados and librbd leave in the memory of a program at rest |
//! | `error`, `names` | [`Error`] with operation, target and errno; checked names |
//! | `ffi`, `callback`, `wire`, `admin_socket` | inside: the border to C, Ceph's threads, its encoding, its counters |
//!
//! # What holds
//!
//! - Calls block, except aio. From async code call them on a thread that may block.
//! - A handle owns what keeps it alive: an [`Image`] its [`Namespace`], that its [`Cluster`]. The order of drops doesn't
//!   matter, and the last one disconnects.
//! - A cluster that is away is an error within the time-outs of [`ConnectOptions`], which [`Error::is_timed_out`] knows.
//! - An [`Aio`] future may be dropped at any time.
//! - `Implements:` in the docs names the C calls behind a function. librbd 1.16 (Ceph 16, Debian 12) or newer.
//!
//! ```no_run
//! use aldaas_rbd as rbd;
//! # fn main() -> rbd::Result<()> {
//! let cluster = rbd::Cluster::connect(&rbd::ConnectOptions::default())?;
//! let pool = cluster.pool(&rbd::PoolName::new("aldaas")?)?;
//! let golden = pool.namespace("golden")?;
//! let name = rbd::ImageName::new("orders")?;
//! golden.create(&name, 1 << 30, &rbd::CreateOptions::default())?;
//! let image = golden.open(&name)?;
//! image.write(0, b"hello".to_vec()).wait()?;
//! image.create_snapshot("sealed")?;
//! image.close()?;
//! # Ok(())
//! # }
//! ```

// The room that may: every block says why it is sound.
#![allow(unsafe_code)]

mod admin_socket;
mod aio;
mod callback;
mod cluster;
mod ending;
mod error;
mod ffi;
mod image;
mod image_lock;
mod lock;
mod memory;
mod metadata;
mod names;
mod namespace;
mod object;
mod options;
mod pool;
mod sharing;
mod snapshot;
mod trash;
mod usage;
mod wire;

pub use aio::{Aio, MAX_IO};
pub use cluster::{Cluster, ConnectOptions};
pub use ending::exit_at_once;
pub use error::{Error, Result};
pub use image::{Image, ImageInfo};
pub use image_lock::{ImageLock, LockKind};
pub use lock::Locker;
pub use memory::forget_the_start;
pub use names::{ImageId, ImageName, PoolName};
pub use namespace::{ImageEntry, Namespace};
pub use options::{CloneOptions, CreateOptions, DEFAULT_FEATURES, Stripe, features};
pub use pool::{Pool, PoolStats};
pub use sharing::Watcher;
pub use snapshot::{ChildSpec, ParentSpec, Snapshot, SnapshotKind};
pub use trash::{TrashEntry, TrashSource};
pub use usage::{DiffOptions, Extent, Flags};

/// The version of librbd this program runs with, e.g. `(1, 16, 0)`.
///
/// Implements: `rbd_version`.
pub fn librbd_version() -> (i32, i32, i32) {
    let (mut major, mut minor, mut extra) = (0, 0, 0);
    // SAFETY: three integers of ours.
    unsafe { rbd_sys::rbd_version(&mut major, &mut minor, &mut extra) };
    (major, minor, extra)
}
