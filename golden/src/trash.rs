//! The trash: the second step of every removal, repeated until it is done.
//!
//! Only what is ours is removed for good: what an operator put there by hand, to think about it, stays.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aldaas_api::{GoldenImageName, volume_id};
use aldaas_rbd as rbd;
use fail::fail_point;

use crate::record::{CLONE_OF, GoldenRecord};
use crate::{GOLDEN, Result, SEALED, State, Store};

/// The lock of whoever removes an image for good.
const PURGE: &str = "aldaas-purge";
/// How long that keeps others away: until they see it watch the image, and no longer than the watch of a killed client lasts.
const PURGE_TIME: Duration = Duration::from_secs(30);

/// What became of an image in the trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It is removed for good.
    Yes,
    /// It waits: for its last clone, or for the end of a deferment.
    NotYet,
}

/// What became of all that is ours in the trash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Removed for good.
    pub removed: usize,
    /// Waiting, as it should.
    pub waiting: usize,
    /// Not removed though nothing speaks against it; the reason is in the log.
    pub failed: usize,
}

impl Store {
    /// Removes for good what is ours in the trash: clones, unfinished builds, and retired golden images without clones.
    pub fn purge(&self) -> Result<Purged> {
        let mut purged = Purged::default();
        let mut note = |entry: &rbd::TrashEntry, gone: Result<Gone>| match gone {
            Ok(Gone::Yes) => purged.removed += 1,
            Ok(Gone::NotYet) => purged.waiting += 1,
            Err(error) => {
                tracing::warn!(%error, image = entry.name, "not purged");
                purged.failed += 1;
            }
        };
        // Clones first: with the last of them, a retired image becomes removable.
        for (entry, _) in self.trashed_clones()? {
            note(&entry, self.remove_trashed(&self.clones, &entry.id));
        }
        for entry in self.trashed_golden_images()? {
            note(&entry, self.purge_golden(&entry.id));
        }
        Ok(purged)
    }

    /// How many images of ours lie in the trash for no good reason: retired ones with living clones have one.
    pub(crate) fn left_in_trash(&self) -> Result<usize> {
        let mut count = self.trashed_clones()?.len();
        for entry in self.trashed_golden_images()? {
            match self.golden.open_by_id_read_only(&entry.id).and_then(|image| image.children()) {
                Ok(children) => count += usize::from(children.is_empty()),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(count)
    }

    /// Tries to remove one golden image for good, if it is in the trash.
    pub(crate) fn purge_if_retired(&self, name: &GoldenImageName) -> Result<()> {
        let name = name.to_string();
        for entry in self.golden.trash()?.into_iter().filter(|entry| entry.name == name) {
            if self.is_trash_of_ours(&entry)? {
                self.purge_golden(&entry.id)?;
            }
        }
        Ok(())
    }

    /// Removes the snapshot, which RBD keeps aside while clones live on it, and then the image, if none does.
    pub(crate) fn purge_golden(&self, id: &rbd::ImageId) -> Result<Gone> {
        let bared = || {
            match self.golden.open_by_id(id) {
                Ok(image) => {
                    match image.remove_snapshot(SEALED) {
                        Err(error) if !(error.is_not_found() || error.is_busy()) => return Err(error.into()),
                        _ => {}
                    }
                    image.close()?;
                }
                // Another purge was faster, or the image is half removed already: removing goes on below.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
            Ok(Gone::NotYet)
        };
        alone(&self.golden, id, bared)?;
        fail_point!("golden::after-snapshot-removal");
        self.remove_trashed(&self.golden, id)
    }

    /// Removes an image in the trash for good.
    pub(crate) fn remove_trashed(&self, namespace: &rbd::Namespace, id: &rbd::ImageId) -> Result<Gone> {
        alone(namespace, id, || gone(namespace.trash_remove(id, false)))
    }

    /// Clones of ours in the trash, with the golden images they are of, as far as they say so.
    pub(crate) fn trashed_clones(&self) -> Result<Vec<(rbd::TrashEntry, Option<GoldenImageName>)>> {
        let mut ours = Vec::new();
        for entry in self.clones.trash()? {
            let (has_record, of) = match self.clones.metadata(&entry.id) {
                Ok(metadata) => match metadata.get(CLONE_OF) {
                    Some(of) => (true, of.parse().ok()),
                    None => (false, None),
                },
                // Half removed: what is left of it is in the trash's list alone.
                Err(error) if error.is_not_found() => (true, None),
                Err(error) => return Err(error.into()),
            };
            if has_record || self.is_half_made_trash(&entry)? {
                ours.push((entry, of));
            }
        }
        Ok(ours)
    }

    /// Whether something without a record was on its way to being a clone, or is a stump of one that a pod should have had.
    fn is_half_made_trash(&self, entry: &rbd::TrashEntry) -> Result<bool> {
        let open = || self.clones.open_by_id_read_only(&entry.id);
        let for_a_pod = volume_id::is_of_pods(&entry.name);
        Ok(self.is_unwritten_child(open())? || (for_a_pod && self.is_blank(open())?))
    }

    fn trashed_golden_images(&self) -> Result<Vec<rbd::TrashEntry>> {
        let mut ours = Vec::new();
        for entry in self.golden.trash()? {
            if self.is_trash_of_ours(&entry)? {
                ours.push(entry);
            }
        }
        Ok(ours)
    }

    fn is_trash_of_ours(&self, entry: &rbd::TrashEntry) -> Result<bool> {
        match self.golden.metadata(&entry.id) {
            Ok(metadata) => match GoldenRecord::read(&metadata) {
                // Nobody here puts a ready image into the trash.
                Some(record) => Ok(record.state != State::Ready),
                None => self.is_blank(self.golden.open_by_id_read_only(&entry.id)),
            },
            Err(error) if error.is_not_found() => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// A child of a golden image of this pool to which nothing was written: its maker was killed before its record, and
    /// nothing is lost with it.
    pub(crate) fn is_unwritten_child(&self, image: rbd::Result<rbd::Image>) -> Result<bool> {
        let image = match image {
            Err(error) if error.is_not_found() => return Ok(false),
            other => other?,
        };
        let of_ours = image.parent()?.is_some_and(|parent| self.is_ours(&parent));
        Ok(of_ours && image.used_bytes()? == 0)
    }

    /// Whether a parent is a golden image of this pool.
    pub(crate) fn is_ours(&self, parent: &rbd::ParentSpec) -> bool {
        parent.namespace == GOLDEN && parent.pool == self.pool.as_str()
    }

    /// An image to which nothing was ever written: nothing is lost with it.
    pub(crate) fn is_blank(&self, image: rbd::Result<rbd::Image>) -> Result<bool> {
        let image = match image {
            Err(error) if error.is_not_found() => return Ok(false),
            other => other?,
        };
        Ok(image.snapshots()?.is_empty() && image.parent()?.is_none() && image.used_bytes()? == 0)
    }
}

/// Of any number that try to remove an image at once one does it, also of threads of one client: two would take librbd's exclusive
/// lock from each other, or the header away, in the middle of it, which ends the program (`ceph_assert` in `TrimRequest.cc`).
fn alone(
    namespace: &rbd::Namespace,
    id: &rbd::ImageId,
    remove: impl FnOnce() -> Result<Gone>,
) -> Result<Gone> {
    static TRIES: AtomicU64 = AtomicU64::new(0);
    // A client that locks once more under its cookie has the lock.
    let cookie = format!("{PURGE}-{}", TRIES.fetch_add(1, Ordering::Relaxed));
    let (kind, duration) = (rbd::LockKind::Exclusive, PURGE_TIME);
    let lock =
        rbd::ImageLock { name: PURGE, kind, cookie: &cookie, description: "aldaas: it goes", duration };
    match namespace.lock_image(id, &[lock]) {
        Err(error) if error.is_busy() => return Ok(Gone::NotYet),
        // What is half removed has no header to lock; and who may not lock may not remove.
        Err(error) if !error.is_not_found() => return gone(Err(error)),
        _ => {}
    }
    // Who is at it for longer than the lock lasts, or killed in the middle of it, still watches the image.
    let removed = match namespace.watchers(id) {
        Ok(watchers) if !watchers.is_empty() => Ok(Gone::NotYet),
        Err(error) if !error.is_not_found() => gone(Err(error)),
        _ => remove(),
    };
    if !matches!(removed, Ok(Gone::Yes))
        && let Err(error) = namespace.unlock_image(id, PURGE, &cookie)
    {
        tracing::debug!(%error, "a claim for a removal runs out by itself");
    }
    removed
}

/// What the answer to a removal from the trash means.
pub(crate) fn gone(removed: rbd::Result<()>) -> Result<Gone> {
    match removed {
        Ok(()) => Ok(Gone::Yes),
        // Somebody else was faster.
        Err(error) if error.is_not_found() => Ok(Gone::Yes),
        // Somebody else is at it; it has clones; an operator deferred it.
        Err(error) if error.is_busy() || error.is_not_empty() || error.is_permission() => Ok(Gone::NotYet),
        Err(error) => Err(error.into()),
    }
}
