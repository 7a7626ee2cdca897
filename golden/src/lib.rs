//! Golden images and clones as they exist in RBD.
//!
//! ```text
//! begin ─▶ candidate ─▶ sealed ─▶ ready ─▶ retired ─▶ gone with its last clone
//!              └──────────┴─▶ failed ──────────┘
//! ```
//!
//! One pool holds two rados namespaces: `golden` for golden images, `clone` for clones. Image metadata is the truth about what
//! an image is ([`record`]); every change of state is one atomic write of it, so that nobody sees a half-changed image.
//!
//! - [`Store`]: the pool, opened; everything begins there
//! - [`build`]: making a golden image, under a lock that says who is at it ([`lock`], [`holder`])
//! - [`images`]: what golden images there are, and which one is `latest`
//! - [`clones`]: making, listing and removing clones
//! - [`ensure`], [`listing`], [`removal`]: the same for the clones of pods ([`pod`]): found or made, listed by the thousand,
//!   removed in two steps
//! - [`lease`]: who may attach a clone that outlives its pod, and who must be fenced first
//! - [`blank`]: the image that a pod builds, and [`built`]: what becomes of it
//! - [`retire`]: taking a golden image away without breaking a clone that lives on it
//! - [`trash`]: the second step of every removal
//! - [`usage`]: how full a clone or the pool is
//! - [`leftovers`]: what a crash left behind, found from observed state
//!
//! This room knows nothing of file systems or engines: from an image to a mounted directory is `aldaas-volume`'s work, and the
//! order of the whole is `aldaas-ingest`'s.

pub mod blank;
pub mod build;
pub mod built;
pub mod clones;
pub mod ensure;
mod error;
pub mod holder;
pub mod images;
pub mod lease;
pub mod leftovers;
pub mod listing;
pub mod lock;
mod object_size;
pub mod pod;
pub mod record;
pub mod removal;
pub mod retire;
pub mod trash;
pub mod usage;

use aldaas_rbd as rbd;

pub use blank::{Blank, BlankSize};
pub use build::Candidate;
pub use clones::{CloneInfo, CloneRequest};
pub use ensure::Ensured;
pub use error::{Error, Result};
pub use holder::Holder;
pub use images::GoldenImage;
pub use lease::{Alone, Lease, Terms, Turn};
pub use leftovers::Leftover;
pub use listing::{KnownClones, ListedClone};
pub use object_size::default_object_size;
pub use pod::PodUse;
pub use record::{Purpose, State};
pub use removal::Trashed;
pub use trash::{Gone, Purged};
pub use usage::PoolUsage;

/// The rados namespace of golden images.
pub const GOLDEN: &str = "golden";
/// The rados namespace of clones.
pub const CLONE: &str = "clone";
/// The one snapshot of a golden image, and the parent of its clones.
pub const SEALED: &str = "sealed";

/// Where RBD keeps the list of its trash. It is there from the beginning, because a full pool takes no new object, not even
/// for a removal.
const TRASH_OBJECT: &str = "rbd_trash";

/// A pool that holds golden images and clones.
#[derive(Clone)]
pub struct Store {
    pool: rbd::PoolName,
    golden: rbd::Namespace,
    clones: rbd::Namespace,
}

impl Store {
    /// Opens `pool` for work, making its two rados namespaces if they are missing.
    ///
    /// When the pool is full, what would take more space fails at once with a *no space* error, and removing works.
    pub fn open(cluster: &rbd::Cluster, pool: &rbd::PoolName) -> Result<Self> {
        let handle = cluster.pool(pool)?;
        let open = |name| handle.namespace(name)?.fail_when_full();
        let store = Self { pool: pool.clone(), golden: open(GOLDEN)?, clones: open(CLONE)? };
        if !handle.namespace_exists(GOLDEN)? {
            handle.ensure_namespace(CLONE)?;
            handle.ensure_namespace(GOLDEN)?;
            store.clones.write_object(TRASH_OBJECT, b"")?;
            store.golden.write_object(TRASH_OBJECT, b"")?;
            store.golden.write_object(lock::OBJECT, b"")?;
        }
        Ok(store)
    }

    /// The cluster's id (`fsid`).
    pub fn cluster_id(&self) -> &str {
        self.golden.pool().cluster().fsid()
    }

    /// The pool's name.
    pub fn pool(&self) -> &rbd::PoolName {
        &self.pool
    }
}

/// The RBD image that carries a golden image or clone of this name.
fn image_name(name: &impl std::fmt::Display) -> Result<rbd::ImageName> {
    Ok(rbd::ImageName::new(name.to_string())?)
}
