//! The trash of a rados namespace: removal in two steps, the first of which is fast.

use std::ptr;
use std::time::{Duration, SystemTime};

use crate::error::{Error, Result, check};
use crate::ffi::{self, cstring};
use crate::names::{ImageId, ImageName};
use crate::namespace::Namespace;

/// An image in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashEntry {
    /// Its id: what it is restored or removed by.
    pub id: ImageId,
    /// The name it had.
    pub name: String,
    /// Who moved it there.
    pub source: TrashSource,
    /// When it was moved there, by the mover's clock.
    pub deleted_at: SystemTime,
    /// Until when it is kept from removal without force.
    pub deferred_until: SystemTime,
}

/// Who moved an image to the trash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrashSource {
    /// A user, [`Namespace::trash_move`] included.
    User,
    /// Mirroring.
    Mirroring,
    /// A migration.
    Migration,
    /// `rbd_remove`, on its way.
    Removing,
    /// A user, as the parent of clones.
    UserParent,
    /// One that this crate doesn't know.
    Other(u32),
}

impl Namespace {
    /// Moves an image to the trash: its name is free at once, its clones and whoever has it open go on. Without force it
    /// isn't removed before `delay` (whole seconds) is over.
    ///
    /// Implements: `rbd_trash_move`.
    pub fn trash_move(&self, image: &ImageName, delay: Duration) -> Result<()> {
        const MOVE: &str = "move to trash image";
        let name = cstring(image.as_str(), MOVE)?;
        // SAFETY: the context is live, the name lives through the call.
        let code = unsafe { rbd_sys::rbd_trash_move(self.raw(), name.as_ptr(), delay.as_secs()) };
        check(code, MOVE, || self.at(image)).map(drop)
    }

    /// What is in the trash.
    ///
    /// Implements: `rbd_trash_list`.
    pub fn trash(&self) -> Result<Vec<TrashEntry>> {
        let empty = rbd_sys::rbd_trash_image_info_t {
            id: ptr::null_mut(),
            name: ptr::null_mut(),
            source: rbd_sys::rbd_trash_image_source_t::RBD_TRASH_IMAGE_SOURCE_USER,
            deletion_time: 0,
            deferment_end_time: 0,
        };
        let mut infos = ffi::grow(empty, 32, |infos, len| {
            // SAFETY: the array has `len` entries.
            unsafe { rbd_sys::rbd_trash_list(self.raw(), infos, len) }
        })
        .map_err(|code| Error::new("list trash of", self.to_string(), code))?;
        // SAFETY: librbd filled every entry.
        let entries = infos.iter().map(|info| unsafe { TrashEntry::copied(info) }).collect();
        // SAFETY: the entries that librbd filled, given back once.
        unsafe { rbd_sys::rbd_trash_list_cleanup(infos.as_mut_ptr(), infos.len()) };
        entries
    }

    /// Removes an image from the trash for good. Refused while somebody has it open ([`Error::is_busy`]), while it has
    /// snapshots ([`Error::is_not_empty`]), and, without `force`, while it is deferred ([`Error::is_permission`]).
    ///
    /// Implements: `rbd_trash_remove`.
    pub fn trash_remove(&self, id: &ImageId, force: bool) -> Result<()> {
        const REMOVE: &str = "remove from trash image";
        let text = cstring(id.as_str(), REMOVE)?;
        // SAFETY: the context is live, the id lives through the call.
        let code = unsafe { rbd_sys::rbd_trash_remove(self.raw(), text.as_ptr(), force) };
        check(code, REMOVE, || self.at(format_args!("(id {id})"))).map(drop)
    }

    /// Takes an image out of the trash under a name, which must be free.
    ///
    /// Implements: `rbd_trash_restore`.
    pub fn trash_restore(&self, id: &ImageId, name: &ImageName) -> Result<()> {
        const RESTORE: &str = "restore from trash image";
        let key = cstring(id.as_str(), RESTORE)?;
        let text = cstring(name.as_str(), RESTORE)?;
        // SAFETY: the context is live, both strings live through the call.
        let code = unsafe { rbd_sys::rbd_trash_restore(self.raw(), key.as_ptr(), text.as_ptr()) };
        check(code, RESTORE, || format!("{} as {name}", self.at(format_args!("(id {id})")))).map(drop)
    }
}

impl TrashEntry {
    /// # Safety
    /// The strings of `info` are null or end with a NUL, and live for the call.
    unsafe fn copied(info: &rbd_sys::rbd_trash_image_info_t) -> Result<Self> {
        // SAFETY: passed on from the caller.
        let (id, name) = unsafe { (ffi::owned(info.id), ffi::owned(info.name)) };
        Ok(Self {
            id: ImageId::new(id)?,
            name,
            source: TrashSource::of(info.source),
            deleted_at: at_second(info.deletion_time),
            deferred_until: at_second(info.deferment_end_time),
        })
    }
}

impl TrashSource {
    fn of(source: rbd_sys::rbd_trash_image_source_t) -> Self {
        use rbd_sys::rbd_trash_image_source_t as Source;
        match source {
            Source::RBD_TRASH_IMAGE_SOURCE_USER => Self::User,
            Source::RBD_TRASH_IMAGE_SOURCE_MIRRORING => Self::Mirroring,
            Source::RBD_TRASH_IMAGE_SOURCE_MIGRATION => Self::Migration,
            Source::RBD_TRASH_IMAGE_SOURCE_REMOVING => Self::Removing,
            Source::RBD_TRASH_IMAGE_SOURCE_USER_PARENT => Self::UserParent,
            Source(other) => Self::Other(other),
        }
    }
}

fn at_second(time: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time).unwrap_or(0))
}
