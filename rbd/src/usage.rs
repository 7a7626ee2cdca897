//! What an image takes: written extents, differences, sparsifying, and the object map behind the figures.

use std::ffi::{c_int, c_void};
use std::ptr;

use crate::error::Result;
use crate::ffi::{self, cstring};
use crate::image::Image;

/// A piece of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// Whether there is data, or (in a difference) it became a hole.
    pub exists: bool,
}

/// What [`Image::diff`] is to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiffOptions {
    /// Count what the parent holds too.
    pub include_parent: bool,
    /// Whole objects: from the object map alone where the image has fast-diff, so cheap; else exact extents.
    pub whole_object: bool,
}

/// What librbd knows to be wrong with an image's bookkeeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// The object map can't be trusted: see [`Image::rebuild_object_map`].
    pub object_map_invalid: bool,
    /// Neither can fast-diff.
    pub fast_diff_invalid: bool,
}

/// Collects the extents of one iteration.
unsafe extern "C" fn collect(offset: u64, length: usize, exists: c_int, extents: *mut c_void) -> c_int {
    // SAFETY: `diff` passes a vector of its own that nobody else touches while librbd iterates.
    let extents = unsafe { &mut *extents.cast::<Vec<Extent>>() };
    extents.push(Extent { offset, length: length as u64, exists: exists != 0 });
    0
}

impl Image {
    /// The extents that changed since snapshot `from`, or all that hold data where none is given.
    ///
    /// Implements: `rbd_diff_iterate2`.
    pub fn diff(&self, from: Option<&str>, options: DiffOptions) -> Result<Vec<Extent>> {
        const DIFF: &str = "list extents of image";
        let snapshot = from.map(|name| cstring(name, DIFF)).transpose()?;
        let size = self.size()?;
        let mut extents: Vec<Extent> = Vec::new();
        // SAFETY: the image is open, the name lives through the call, and the vector is only touched by `collect`.
        let code = unsafe {
            rbd_sys::rbd_diff_iterate2(
                self.raw(),
                snapshot.as_ref().map_or(ptr::null(), |name| name.as_ptr()),
                0,
                size,
                options.include_parent.into(),
                options.whole_object.into(),
                Some(collect),
                (&raw mut extents).cast(),
            )
        };
        self.check(code, DIFF)?;
        Ok(extents)
    }

    /// How many bytes the image's own objects take at most, the parent's not counted: whole objects from the object map.
    ///
    /// Implements: `rbd_diff_iterate2` with `whole_object`.
    pub fn used_bytes(&self) -> Result<u64> {
        let extents = self.diff(None, DiffOptions { include_parent: false, whole_object: true })?;
        Ok(extents.iter().filter(|extent| extent.exists).map(|extent| extent.length).sum())
    }

    /// Gives back what holds only zeros, in pieces of `granularity` bytes (a power of two from 4 KiB to the object size).
    ///
    /// Implements: `rbd_sparsify`.
    pub fn sparsify(&self, granularity: usize) -> Result<()> {
        // SAFETY: the image is open.
        let code = unsafe { rbd_sys::rbd_sparsify(self.raw(), granularity) };
        self.check(code, "sparsify image").map(drop)
    }

    /// Whether librbd trusts the object map.
    ///
    /// Implements: `rbd_get_flags`.
    pub fn flags(&self) -> Result<Flags> {
        let bits = self.number("read flags of image", rbd_sys::rbd_get_flags)?;
        Ok(Flags {
            object_map_invalid: bits & u64::from(rbd_sys::RBD_FLAG_OBJECT_MAP_INVALID) != 0,
            fast_diff_invalid: bits & u64::from(rbd_sys::RBD_FLAG_FAST_DIFF_INVALID) != 0,
        })
    }

    /// Makes the object map anew by looking at every object.
    ///
    /// Implements: `rbd_rebuild_object_map`.
    pub fn rebuild_object_map(&self) -> Result<()> {
        // SAFETY: the image is open; the callback touches nothing.
        let code =
            unsafe { rbd_sys::rbd_rebuild_object_map(self.raw(), Some(ffi::no_progress), ptr::null_mut()) };
        self.check(code, "rebuild object map of image").map(drop)
    }
}
