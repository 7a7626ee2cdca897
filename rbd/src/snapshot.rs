//! Snapshots, and the family of an image: parent and children.

use std::ffi::{c_char, c_int};
use std::ptr;
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::ffi::{self, cstring};
use crate::image::{Image, system_time};
use crate::names::{ImageId, check_part};

/// A snapshot of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id within the pool.
    pub id: u64,
    /// Its name. In the snapshot trash it is one that librbd made up: see [`SnapshotKind::Trash`].
    pub name: String,
    /// The image's size when it was taken, in bytes.
    pub size: u64,
    /// Who made it, or whether it waits for its children to go.
    pub kind: SnapshotKind,
}

/// The snapshot namespaces of librbd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotKind {
    /// Made by a user.
    User,
    /// Part of a snapshot of a group of images.
    Group,
    /// Removed while children live on it. It vanishes with the last of them.
    Trash {
        /// What it was called.
        original_name: String,
    },
    /// Made by mirroring.
    Mirror,
    /// One that this crate doesn't know.
    Other(u32),
}

/// Where an image was cloned from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentSpec {
    /// The parent's pool.
    pub pool: String,
    /// The parent's rados namespace.
    pub namespace: String,
    /// The parent's name.
    pub image: String,
    /// The parent's id.
    pub image_id: ImageId,
    /// The snapshot's name; in the snapshot trash, the one it has there.
    pub snapshot: String,
    /// The snapshot's id.
    pub snapshot_id: u64,
    /// Whether the parent is in the trash.
    pub trash: bool,
}

/// An image that was cloned from this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildSpec {
    /// The child's pool.
    pub pool: String,
    /// The child's rados namespace.
    pub namespace: String,
    /// The child's name.
    pub image: String,
    /// The child's id.
    pub image_id: ImageId,
    /// Whether the child is in the trash.
    pub trash: bool,
}

const EMPTY_LINK: rbd_sys::rbd_linked_image_spec_t = rbd_sys::rbd_linked_image_spec_t {
    pool_id: 0,
    pool_name: ptr::null_mut(),
    pool_namespace: ptr::null_mut(),
    image_id: ptr::null_mut(),
    image_name: ptr::null_mut(),
    trash: false,
};

impl Image {
    /// All snapshots, those in the snapshot trash included.
    ///
    /// Implements: `rbd_snap_list`, `rbd_snap_get_namespace_type`, `rbd_snap_get_trash_namespace`.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        const LIST: &str = "list snapshots of image";
        let empty = rbd_sys::rbd_snap_info_t { id: 0, size: 0, name: ptr::null() };
        let mut infos = ffi::grow(empty, 8, |infos, len| {
            let mut count = c_int::try_from(*len).unwrap_or(c_int::MAX);
            // SAFETY: the array has `count` entries, and one more isn't touched: librbd ends the list within it.
            let code = unsafe { rbd_sys::rbd_snap_list(self.raw(), infos, &mut count) };
            // On success librbd returns how many there are; else it says how many fit.
            *len = usize::try_from(if code < 0 { count } else { code }).unwrap_or(0);
            code
        })
        .map_err(|code| Error::new(LIST, self.label(), code))?;
        // SAFETY: librbd filled the name of every entry.
        let listed: Vec<_> =
            infos.iter().map(|info| unsafe { (info.id, info.size, ffi::owned(info.name)) }).collect();
        // `rbd_snap_list_end` walks to the first entry without a name.
        infos.push(empty);
        // SAFETY: the entries that librbd filled, then an empty one, given back once.
        unsafe { rbd_sys::rbd_snap_list_end(infos.as_mut_ptr()) };
        let whole = |(id, size, name)| self.snapshot_kind(id).map(|kind| Snapshot { id, name, size, kind });
        listed.into_iter().map(whole).collect()
    }

    fn snapshot_kind(&self, id: u64) -> Result<SnapshotKind> {
        use rbd_sys::rbd_snap_namespace_type_t as Type;
        const READ: &str = "read kind of snapshot of image";
        let mut kind = Type::RBD_SNAP_NAMESPACE_TYPE_USER;
        // SAFETY: the image is open, the answer is ours.
        self.check(unsafe { rbd_sys::rbd_snap_get_namespace_type(self.raw(), id, &mut kind) }, READ)?;
        Ok(match kind {
            Type::RBD_SNAP_NAMESPACE_TYPE_USER => SnapshotKind::User,
            Type::RBD_SNAP_NAMESPACE_TYPE_GROUP => SnapshotKind::Group,
            Type::RBD_SNAP_NAMESPACE_TYPE_MIRROR => SnapshotKind::Mirror,
            Type::RBD_SNAP_NAMESPACE_TYPE_TRASH => {
                let original_name = self.text(READ, |buffer, len| {
                    // SAFETY: the buffer has `len` bytes.
                    unsafe { rbd_sys::rbd_snap_get_trash_namespace(self.raw(), id, buffer, *len) }
                })?;
                SnapshotKind::Trash { original_name }
            }
            Type(other) => SnapshotKind::Other(other),
        })
    }

    /// When a snapshot was taken, by the clock of an OSD.
    ///
    /// Implements: `rbd_snap_get_timestamp`.
    pub fn snapshot_created_at(&self, id: u64) -> Result<SystemTime> {
        let mut time = rbd_sys::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the image is open, the time is ours.
        let code = unsafe { rbd_sys::rbd_snap_get_timestamp(self.raw(), id, &mut time) };
        self.check(code, "read time of snapshot of image")?;
        Ok(system_time(&time))
    }

    /// Takes a snapshot. Writes that were completed before are in it.
    ///
    /// Implements: `rbd_snap_create`.
    pub fn create_snapshot(&self, name: &str) -> Result<()> {
        self.with_snapshot(name, "create snapshot of image", rbd_sys::rbd_snap_create)
    }

    /// Removes a snapshot. With children (clone format 2) it moves to the snapshot trash instead, and vanishes with the
    /// last of them.
    ///
    /// Implements: `rbd_snap_remove`.
    pub fn remove_snapshot(&self, name: &str) -> Result<()> {
        self.with_snapshot(name, "remove snapshot of image", rbd_sys::rbd_snap_remove)
    }

    /// Removes a snapshot by its id: the way to one in the snapshot trash.
    ///
    /// Implements: `rbd_snap_remove_by_id`.
    pub fn remove_snapshot_by_id(&self, id: u64) -> Result<()> {
        // SAFETY: the image is open.
        let code = unsafe { rbd_sys::rbd_snap_remove_by_id(self.raw(), id) };
        self.check(code, "remove snapshot of image").map(drop)
    }

    /// Sets the image back to what it was at a snapshot.
    ///
    /// Implements: `rbd_snap_rollback`.
    pub fn rollback(&self, snapshot: &str) -> Result<()> {
        self.with_snapshot(snapshot, "roll back image", rbd_sys::rbd_snap_rollback)
    }

    fn with_snapshot(
        &self,
        name: &str,
        operation: &'static str,
        call: unsafe extern "C" fn(rbd_sys::rbd_image_t, *const c_char) -> c_int,
    ) -> Result<()> {
        check_part(operation, name)?;
        let text = cstring(name, operation)?;
        // SAFETY: the image is open, the name lives through the call, and all callers pass a librbd function that takes
        // just these.
        let code = unsafe { call(self.raw(), text.as_ptr()) };
        crate::error::check(code, operation, || format!("{}@{name}", self.label())).map(drop)
    }

    /// Where the image was cloned from, or none.
    ///
    /// Implements: `rbd_get_parent`.
    pub fn parent(&self) -> Result<Option<ParentSpec>> {
        use rbd_sys::rbd_snap_namespace_type_t as Type;
        let mut link = EMPTY_LINK;
        let mut snap = rbd_sys::rbd_snap_spec_t {
            id: 0,
            namespace_type: Type::RBD_SNAP_NAMESPACE_TYPE_USER,
            name: ptr::null_mut(),
        };
        // SAFETY: the image is open, both structures are ours.
        let code = unsafe { rbd_sys::rbd_get_parent(self.raw(), &mut link, &mut snap) };
        if code == -libc::ENOENT {
            return Ok(None);
        }
        self.check(code, "read parent of image")?;
        // SAFETY: librbd filled both; their strings are copied and then given back once.
        unsafe {
            let child = ChildSpec::copied(&link);
            let snapshot = ffi::owned(snap.name);
            rbd_sys::rbd_linked_image_spec_cleanup(&mut link);
            rbd_sys::rbd_snap_spec_cleanup(&mut snap);
            let ChildSpec { pool, namespace, image, image_id, trash } = child?;
            Ok(Some(ParentSpec { pool, namespace, image, image_id, snapshot, snapshot_id: snap.id, trash }))
        }
    }

    /// The images cloned from this one: from any of its snapshots, or from the one it is opened at. Needs the right to
    /// read every pool that holds one.
    ///
    /// Implements: `rbd_list_children3`.
    pub fn children(&self) -> Result<Vec<ChildSpec>> {
        let mut links = ffi::grow(EMPTY_LINK, 32, |links, len| {
            // SAFETY: the array has `len` entries.
            unsafe { rbd_sys::rbd_list_children3(self.raw(), links, len) }
        })
        .map_err(|code| Error::new("list children of image", self.label(), code))?;
        // SAFETY: librbd filled every entry.
        let children = links.iter().map(|link| unsafe { ChildSpec::copied(link) }).collect();
        // SAFETY: the entries that librbd filled, given back once.
        unsafe { rbd_sys::rbd_linked_image_spec_list_cleanup(links.as_mut_ptr(), links.len()) };
        children
    }

    /// Copies what still comes from the parent, so that the image stands alone. Costs time and space like a full copy.
    ///
    /// Implements: `rbd_flatten`.
    pub fn flatten(&self) -> Result<()> {
        // SAFETY: the image is open.
        self.check(unsafe { rbd_sys::rbd_flatten(self.raw()) }, "flatten image").map(drop)
    }
}

impl ChildSpec {
    /// # Safety
    /// The strings of `link` are null or end with a NUL, and live for the call.
    unsafe fn copied(link: &rbd_sys::rbd_linked_image_spec_t) -> Result<Self> {
        // SAFETY: passed on from the caller.
        unsafe {
            Ok(Self {
                pool: ffi::owned(link.pool_name),
                namespace: ffi::owned(link.pool_namespace),
                image: ffi::owned(link.image_name),
                image_id: ImageId::new(ffi::owned(link.image_id))?,
                trash: link.trash,
            })
        }
    }
}
