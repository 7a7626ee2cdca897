//! Who else has an image: watchers, and the owner of its exclusive lock.

use std::ptr;

use crate::error::{Error, Result};
use crate::ffi::{self, cstring};
use crate::image::Image;
use crate::names::ImageId;
use crate::namespace::Namespace;

/// Somebody who has an image open for writing, or mapped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Watcher {
    /// The client's address, e.g. `10.0.0.1:0/3210`.
    pub address: String,
    /// The client's number: `client.<id>`, see [`crate::Cluster::instance_id`].
    pub client_id: u64,
    /// Tells several watches of one client apart.
    pub cookie: u64,
}

impl Namespace {
    /// Who watches an image, without watching it oneself: it is opened read-only and closed again.
    ///
    /// Implements: `rbd_open_by_id_read_only`, `rbd_watchers_list`.
    pub fn watchers(&self, id: &ImageId) -> Result<Vec<Watcher>> {
        let image = self.open_by_id_read_only(id)?;
        let watchers = image.watchers()?;
        image.close()?;
        Ok(watchers)
    }
}

impl Image {
    /// Who watches the image, this handle included if it is open for writing.
    ///
    /// Implements: `rbd_watchers_list`.
    pub fn watchers(&self) -> Result<Vec<Watcher>> {
        let empty = rbd_sys::rbd_image_watcher_t { addr: ptr::null_mut(), id: 0, cookie: 0 };
        let mut listed = ffi::grow(empty, 8, |watchers, len| {
            // SAFETY: the array has `len` entries.
            unsafe { rbd_sys::rbd_watchers_list(self.raw(), watchers, len) }
        })
        .map_err(|code| Error::new("list watchers of image", self.label(), code))?;
        let mut watchers: Vec<_> = listed
            .iter()
            .map(|watcher| Watcher {
                // SAFETY: librbd filled the address of every entry.
                address: unsafe { ffi::owned(watcher.addr) },
                client_id: watcher.id.cast_unsigned(),
                cookie: watcher.cookie,
            })
            .collect();
        // SAFETY: the entries that librbd filled, given back once.
        unsafe { rbd_sys::rbd_watchers_list_cleanup(listed.as_mut_ptr(), listed.len()) };
        watchers.sort();
        Ok(watchers)
    }

    /// Takes the exclusive lock and keeps it: others that ask for it are refused instead of handed it.
    ///
    /// Implements: `rbd_lock_acquire`.
    pub fn acquire_lock(&self) -> Result<()> {
        let mode = rbd_sys::rbd_lock_mode_t::RBD_LOCK_MODE_EXCLUSIVE;
        // SAFETY: the image is open.
        self.check(unsafe { rbd_sys::rbd_lock_acquire(self.raw(), mode) }, "lock image").map(drop)
    }

    /// Gives the exclusive lock back.
    ///
    /// Implements: `rbd_lock_release`.
    pub fn release_lock(&self) -> Result<()> {
        // SAFETY: the image is open.
        self.check(unsafe { rbd_sys::rbd_lock_release(self.raw()) }, "unlock image").map(drop)
    }

    /// Whether this handle owns the exclusive lock.
    ///
    /// Implements: `rbd_is_exclusive_lock_owner`.
    pub fn is_lock_owner(&self) -> Result<bool> {
        let mut owner = 0;
        // SAFETY: the image is open, the answer is ours.
        let code = unsafe { rbd_sys::rbd_is_exclusive_lock_owner(self.raw(), &mut owner) };
        self.check(code, "ask for lock of image")?;
        Ok(owner != 0)
    }

    /// The address of whoever owns the exclusive lock, if anybody does.
    ///
    /// Implements: `rbd_lock_get_owners`.
    pub fn lock_owner(&self) -> Result<Option<String>> {
        let mut mode = rbd_sys::rbd_lock_mode_t::RBD_LOCK_MODE_EXCLUSIVE;
        let mut owners = ffi::grow(ptr::null_mut(), 4, |owners, len| {
            // SAFETY: the array has `len` entries.
            unsafe { rbd_sys::rbd_lock_get_owners(self.raw(), &mut mode, owners, len) }
        })
        .or_else(|code| if code == -libc::ENOENT { Ok(Vec::new()) } else { Err(code) })
        .map_err(|code| Error::new("read lock owner of image", self.label(), code))?;
        // SAFETY: librbd filled every entry.
        let owner = owners.first().map(|owner| unsafe { ffi::owned(*owner) });
        if !owners.is_empty() {
            // SAFETY: the entries that librbd filled, given back once.
            unsafe { rbd_sys::rbd_lock_get_owners_cleanup(owners.as_mut_ptr(), owners.len()) };
        }
        Ok(owner)
    }

    /// Breaks the exclusive lock of an owner that is dead, and blocklists it so that it can't write any more should it
    /// only have seemed so. An owner that is alive is [`Error::is_busy`]; one that doesn't own it is [`Error::is_invalid`]
    /// or [`Error::is_busy`].
    ///
    /// Implements: `rbd_lock_break`.
    pub fn break_lock(&self, owner: &str) -> Result<()> {
        const BREAK: &str = "break lock of image";
        let mode = rbd_sys::rbd_lock_mode_t::RBD_LOCK_MODE_EXCLUSIVE;
        let text = cstring(owner, BREAK)?;
        // SAFETY: the image is open, the owner lives through the call.
        self.check(unsafe { rbd_sys::rbd_lock_break(self.raw(), mode, text.as_ptr()) }, BREAK).map(drop)
    }
}
