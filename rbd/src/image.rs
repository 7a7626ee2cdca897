//! An open image: its shape, its life, and what is known of it.

use std::ffi::c_char;
use std::fmt;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::aio::InFlight;
use crate::callback;
use crate::error::{Error, Result, check};
use crate::ffi;
use crate::names::ImageId;
use crate::namespace::Namespace;

/// An open image. Several threads may use it at once; share it in an `Arc`.
///
/// [`Image::close`] says whether the last writes arrived; merely dropping it closes too, but can't tell. Both wait for
/// outstanding aio. Inside an aio callback neither waits: there a drop hands the closing to a thread of its own.
pub struct Image {
    pub(crate) handle: Arc<Handle>,
    pub(crate) in_flight: Arc<InFlight>,
}

/// The raw handle, its namespace and name. Dropping it closes the image.
pub(crate) struct Handle {
    /// Null once it was closed.
    raw: rbd_sys::rbd_image_t,
    namespace: Namespace,
    label: String,
}

// SAFETY: librbd locks an open image internally; I/O and operations may come from any thread at once. The exceptions are
// the calls that move the handle to another snapshot (`rbd_snap_set`), which this crate never makes.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// The shape of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// Its size in bytes.
    pub size: u64,
    /// Bytes per object.
    pub object_size: u64,
    /// How many objects it would have if all of it were written.
    pub num_objects: u64,
    /// The object size as a power of two.
    pub order: u32,
    /// What its data objects' names begin with, e.g. `rbd_data.10a4f3b5c1d2`.
    pub block_name_prefix: String,
    /// Bytes of one stripe unit.
    pub stripe_unit: u64,
    /// Objects to stripe over.
    pub stripe_count: u64,
}

impl Image {
    pub(crate) fn from_raw(raw: rbd_sys::rbd_image_t, namespace: Namespace, label: String) -> Self {
        Self { handle: Arc::new(Handle { raw, namespace, label }), in_flight: Arc::default() }
    }

    pub(crate) fn raw(&self) -> rbd_sys::rbd_image_t {
        self.handle.raw
    }

    pub(crate) fn label(&self) -> String {
        self.handle.label.clone()
    }

    pub(crate) fn check(&self, code: i32, operation: &'static str) -> Result<i32> {
        check(code, operation, || self.label())
    }

    /// The rados namespace it is in.
    pub fn namespace(&self) -> &Namespace {
        &self.handle.namespace
    }

    /// Waits for outstanding aio, flushes and closes, and says whether that went well.
    ///
    /// Not for aio callbacks: there it is refused (`EDEADLK`), and the image is closed by a thread of its own.
    ///
    /// Implements: `rbd_close`.
    pub fn close(mut self) -> Result<()> {
        const CLOSE: &str = "close image";
        if callback::in_callback() {
            return Err(
                Error::new(CLOSE, self.label(), libc::EDEADLK).because("don't close inside an aio callback")
            );
        }
        self.in_flight.wait();
        let label = self.label();
        match Arc::get_mut(&mut self.handle) {
            Some(handle) => check(handle.close(), CLOSE, || label).map(drop),
            // Unreachable: completions give their reference back before they count as over.
            None => Err(Error::new(CLOSE, label, libc::EBUSY)),
        }
    }

    /// Its size in bytes, at the snapshot it is opened at.
    ///
    /// Implements: `rbd_get_size`.
    pub fn size(&self) -> Result<u64> {
        self.number("read size of image", rbd_sys::rbd_get_size)
    }

    /// Grows the image to `size` bytes. A smaller size is refused: see [`Image::shrink`].
    ///
    /// Implements: `rbd_resize2`.
    pub fn resize(&self, size: u64) -> Result<()> {
        self.resize_to(size, false)
    }

    /// Resizes the image to `size` bytes, throwing away what lies beyond.
    ///
    /// Implements: `rbd_resize2`.
    pub fn shrink(&self, size: u64) -> Result<()> {
        self.resize_to(size, true)
    }

    fn resize_to(&self, size: u64, shrink: bool) -> Result<()> {
        // SAFETY: the image is open; the callback touches nothing.
        let code = unsafe {
            rbd_sys::rbd_resize2(self.raw(), size, shrink, Some(ffi::no_progress), ptr::null_mut())
        };
        self.check(code, "resize image").map(drop)
    }

    /// Waits until everything written before is on disk. See [`Image::flush`] for the future.
    ///
    /// Implements: `rbd_flush`.
    pub fn sync(&self) -> Result<()> {
        // SAFETY: the image is open.
        self.check(unsafe { rbd_sys::rbd_flush(self.raw()) }, "flush image").map(drop)
    }

    /// Size, objects, striping.
    ///
    /// Implements: `rbd_stat`, `rbd_get_block_name_prefix`, `rbd_get_stripe_unit`, `rbd_get_stripe_count`.
    pub fn stat(&self) -> Result<ImageInfo> {
        const STAT: &str = "stat image";
        // SAFETY: plain numbers and character arrays, for which zeros are values.
        let mut info: rbd_sys::rbd_image_info_t = unsafe { std::mem::zeroed() };
        // SAFETY: the image is open, and the length is the structure's.
        self.check(unsafe { rbd_sys::rbd_stat(self.raw(), &mut info, size_of_val(&info)) }, STAT)?;
        let prefix = self.text(STAT, |buffer, len| {
            // SAFETY: the buffer has `len` bytes.
            unsafe { rbd_sys::rbd_get_block_name_prefix(self.raw(), buffer, *len) }
        })?;
        Ok(ImageInfo {
            size: info.size,
            object_size: info.obj_size,
            num_objects: info.num_objs,
            order: u32::try_from(info.order).unwrap_or(0),
            block_name_prefix: prefix,
            stripe_unit: self.number(STAT, rbd_sys::rbd_get_stripe_unit)?,
            stripe_count: self.number(STAT, rbd_sys::rbd_get_stripe_count)?,
        })
    }

    /// Its feature bits, see [`crate::features`].
    ///
    /// Implements: `rbd_get_features`.
    pub fn features(&self) -> Result<u64> {
        self.number("read features of image", rbd_sys::rbd_get_features)
    }

    /// Switches features on or off.
    ///
    /// Implements: `rbd_update_features`.
    pub fn update_features(&self, features: u64, enabled: bool) -> Result<()> {
        // SAFETY: the image is open.
        let code = unsafe { rbd_sys::rbd_update_features(self.raw(), features, enabled.into()) };
        self.check(code, "change features of image").map(drop)
    }

    /// Its id, which stays when it is renamed or moved to the trash.
    ///
    /// Implements: `rbd_get_id`.
    pub fn id(&self) -> Result<ImageId> {
        let id = self.text("read id of image", |buffer, len| {
            // SAFETY: the buffer has `len` bytes.
            unsafe { rbd_sys::rbd_get_id(self.raw(), buffer, *len) }
        })?;
        ImageId::new(id)
    }

    /// Its name; an image in the trash still has the one it had.
    ///
    /// Implements: `rbd_get_name`.
    pub fn name(&self) -> Result<String> {
        self.text("read name of image", |buffer, len| {
            // SAFETY: the buffer has `len` bytes.
            unsafe { rbd_sys::rbd_get_name(self.raw(), buffer, len) }
        })
    }

    /// When it was made, by the clock of an OSD.
    ///
    /// Implements: `rbd_get_create_timestamp`.
    pub fn created_at(&self) -> Result<SystemTime> {
        let mut time = rbd_sys::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the image is open, the time is ours.
        let code = unsafe { rbd_sys::rbd_get_create_timestamp(self.raw(), &mut time) };
        self.check(code, "read creation time of image")?;
        Ok(system_time(&time))
    }

    /// How much of the parent still shows through, in bytes.
    ///
    /// Implements: `rbd_get_overlap`.
    pub fn overlap(&self) -> Result<u64> {
        self.number("read overlap of image", rbd_sys::rbd_get_overlap)
    }

    pub(crate) fn number(
        &self,
        operation: &'static str,
        call: unsafe extern "C" fn(rbd_sys::rbd_image_t, *mut u64) -> i32,
    ) -> Result<u64> {
        let mut value = 0;
        // SAFETY: the image is open, and all callers pass a librbd getter that writes one number.
        self.check(unsafe { call(self.raw(), &mut value) }, operation)?;
        Ok(value)
    }

    pub(crate) fn text(
        &self,
        operation: &'static str,
        call: impl FnMut(*mut c_char, &mut usize) -> i32,
    ) -> Result<String> {
        let buffer = ffi::grow(0, 128, call).map_err(|code| Error::new(operation, self.label(), code))?;
        Ok(ffi::split_nul(&buffer).into_iter().next().unwrap_or_default())
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({})", self.handle.label)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Waiting here means that the last reference is this one, so that the closing below happens on this thread.
        // Inside a callback it would wait for itself; then the last completion's reference closes.
        if !callback::in_callback() {
            self.in_flight.wait();
        }
    }
}

impl Handle {
    pub(crate) fn raw(&self) -> rbd_sys::rbd_image_t {
        self.raw
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    fn close(&mut self) -> i32 {
        let raw = std::mem::replace(&mut self.raw, ptr::null_mut());
        // SAFETY: opened by librbd, closed once (the pointer is gone), no aio outstanding, and the connection lives:
        // `namespace` holds it. librbd frees the handle even when it returns an error.
        unsafe { rbd_sys::rbd_close(raw) }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.raw.is_null() {
            return;
        }
        let label = std::mem::take(&mut self.label);
        let raw = std::mem::replace(&mut self.raw, ptr::null_mut());
        let mut moved = Closing { raw, namespace: self.namespace.clone(), label };
        callback::release(move || moved.run());
    }
}

/// A handle on its way out, with what must outlive it.
struct Closing {
    raw: rbd_sys::rbd_image_t,
    namespace: Namespace,
    label: String,
}

// SAFETY: an image may be closed by any thread, see `Handle`.
unsafe impl Send for Closing {}

impl Closing {
    fn run(&mut self) {
        // SAFETY: as in `Handle::close`.
        let code = unsafe { rbd_sys::rbd_close(self.raw) };
        // Nobody is left to be told; a lost write would have failed the flush before.
        let _ = (code, &self.namespace, &self.label);
    }
}

pub(crate) fn system_time(time: &rbd_sys::timespec) -> SystemTime {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos.min(999_999_999))
}
