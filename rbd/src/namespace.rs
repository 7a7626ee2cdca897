//! A rados namespace: where images are listed, made, opened, cloned and removed.

use std::ffi::CString;
use std::fmt;
use std::ptr;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::error::{Error, Result, check};
use crate::ffi::{self, cstring, rados};
use crate::image::Image;
use crate::names::{ImageId, ImageName, PoolName, check_part};
use crate::options::{CloneOptions, CreateOptions, ImageOptions};
use crate::pool::Pool;

/// A librados I/O context whose rados namespace is set once, before it is shared.
pub(crate) struct IoCtx {
    raw: rados::rados_ioctx_t,
    /// The context is made from the connection and must go first.
    _cluster: Cluster,
}

// SAFETY: librados allows operations on one context from several threads; only its setters are not safe to race with,
// and the one we use (the namespace) runs before the value is shared.
unsafe impl Send for IoCtx {}
// SAFETY: as above.
unsafe impl Sync for IoCtx {}

impl IoCtx {
    pub(crate) fn open(cluster: &Cluster, pool: &PoolName, namespace: &str) -> Result<Self> {
        const OPEN: &str = "open pool";
        let name = cstring(pool.as_str(), OPEN)?;
        let space = cstring(namespace, OPEN)?;
        let mut raw = ptr::null_mut();
        // SAFETY: the connection is live; `raw` is written on success only.
        let code = unsafe { rados::rados_ioctx_create(cluster.raw(), name.as_ptr(), &mut raw) };
        check(code, OPEN, || pool.to_string())?;
        // SAFETY: the context was just made and nobody else has it; librados copies the name.
        unsafe { rados::rados_ioctx_set_namespace(raw, space.as_ptr()) };
        Ok(Self { raw, _cluster: cluster.clone() })
    }

    pub(crate) fn raw(&self) -> rados::rados_ioctx_t {
        self.raw
    }
}

impl Drop for IoCtx {
    fn drop(&mut self) {
        // SAFETY: made by `rados_ioctx_create`, destroyed once, and the connection still lives.
        unsafe { rados::rados_ioctx_destroy(self.raw) }
    }
}

/// A rados namespace of a pool. Cheap to clone.
#[derive(Clone)]
pub struct Namespace {
    io: Arc<IoCtx>,
    pool: Pool,
    name: Arc<str>,
}

/// An image as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageEntry {
    /// Its id, which stays.
    pub id: ImageId,
    /// Its name.
    pub name: ImageName,
}

/// How to open an image.
enum Mode<'a> {
    Write,
    Read,
    /// At a snapshot, and so read-only.
    At(&'a str),
}

/// What to open.
enum Which<'a> {
    Name(&'a ImageName),
    Id(&'a ImageId),
}

impl Namespace {
    pub(crate) fn of(pool: &Pool, name: &str) -> Result<Self> {
        let io = Arc::new(IoCtx::open(pool.cluster(), pool.name(), name)?);
        Ok(Self { io, pool: pool.clone(), name: name.into() })
    }

    pub(crate) fn raw(&self) -> rados::rados_ioctx_t {
        self.io.raw()
    }

    /// A path for messages: `pool/namespace/what`.
    pub(crate) fn at(&self, what: impl fmt::Display) -> String {
        format!("{self}/{what}")
    }

    /// The rados namespace's name, empty for the pool's default one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pool it is in.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The same rados namespace, for work that must fail with [`Error::is_no_space`] when the pool is full. Without this
    /// a write waits for space, until the operation time-out if there is one. It holds for images opened from it, too.
    ///
    /// Implements: `rados_set_pool_full_try`.
    pub fn fail_when_full(&self) -> Result<Self> {
        let io = IoCtx::open(self.pool.cluster(), self.pool.name(), &self.name)?;
        // SAFETY: the context was just made and nobody else has it.
        unsafe { rados::rados_set_pool_full_try(io.raw()) };
        Ok(Self { io: Arc::new(io), pool: self.pool.clone(), name: self.name.clone() })
    }

    /// All images, trash not included, by name.
    ///
    /// Implements: `rbd_list2`.
    pub fn images(&self) -> Result<Vec<ImageEntry>> {
        let empty = rbd_sys::rbd_image_spec_t { id: ptr::null_mut(), name: ptr::null_mut() };
        let mut specs = ffi::grow(empty, 64, |specs, len| {
            // SAFETY: the array has `len` entries.
            unsafe { rbd_sys::rbd_list2(self.raw(), specs, len) }
        })
        .map_err(|code| Error::new("list images of", self.to_string(), code))?;
        let listed = specs
            .iter()
            // SAFETY: librbd filled both strings of every entry.
            .map(|spec| unsafe { (ffi::owned(spec.id), ffi::owned(spec.name)) })
            .collect::<Vec<_>>();
        // SAFETY: the entries that librbd filled, given back once.
        unsafe { rbd_sys::rbd_image_spec_list_cleanup(specs.as_mut_ptr(), specs.len()) };
        // Format 1 images have no id. Nothing here makes one, and no other call of this crate could work on it.
        let named = listed.into_iter().filter(|(id, _)| !id.is_empty());
        let mut entries = named
            .map(|(id, name)| Ok(ImageEntry { id: ImageId::new(id)?, name: ImageName::new(name)? }))
            .collect::<Result<Vec<_>>>()?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Makes a blank image of `size` bytes.
    ///
    /// Implements: `rbd_create4`.
    pub fn create(&self, image: &ImageName, size: u64, options: &CreateOptions) -> Result<()> {
        const CREATE: &str = "create image";
        let native =
            ImageOptions::for_create(options).map_err(|why| Error::invalid(CREATE, self.at(image), why))?;
        let name = cstring(image.as_str(), CREATE)?;
        // SAFETY: context and options are live, the name lives through the call.
        let code = unsafe { rbd_sys::rbd_create4(self.raw(), name.as_ptr(), size, native.raw()) };
        check(code, CREATE, || self.at(image)).map(drop)
    }

    /// Makes `child` in `child_namespace` a writable child of `parent@snapshot` here. It costs the same whatever the size.
    ///
    /// Clone format 2: the snapshot is never protected, and its removal while children live moves it to a snapshot trash.
    /// Needs `ceph osd set-require-min-compat-client mimic` or newer.
    ///
    /// Implements: `rbd_clone3`.
    pub fn clone_image(
        &self,
        parent: &ImageName,
        snapshot: &str,
        child_namespace: &Namespace,
        child: &ImageName,
        options: &CloneOptions,
    ) -> Result<()> {
        const CLONE: &str = "clone image";
        let target = || format!("{}@{snapshot} to {}", self.at(parent), child_namespace.at(child));
        check_part("name snapshot", snapshot)?;
        let native = ImageOptions::for_clone(options).map_err(|why| Error::invalid(CLONE, target(), why))?;
        let from = cstring(parent.as_str(), CLONE)?;
        let at = cstring(snapshot, CLONE)?;
        let to = cstring(child.as_str(), CLONE)?;
        // SAFETY: both contexts and the options are live, all strings live through the call.
        let code = unsafe {
            let (parent_io, child_io) = (self.raw(), child_namespace.raw());
            rbd_sys::rbd_clone3(parent_io, from.as_ptr(), at.as_ptr(), child_io, to.as_ptr(), native.raw())
        };
        check(code, CLONE, target).map(drop)
    }

    /// Opens an image for reading and writing. It stays watched by us until it is closed.
    ///
    /// Implements: `rbd_open`.
    pub fn open(&self, image: &ImageName) -> Result<Image> {
        self.open_as(&Which::Name(image), &Mode::Write)
    }

    /// Opens an image for reading only: no watch, so what is known of it may grow old.
    ///
    /// Implements: `rbd_open_read_only`.
    pub fn open_read_only(&self, image: &ImageName) -> Result<Image> {
        self.open_as(&Which::Name(image), &Mode::Read)
    }

    /// Opens an image at a snapshot, read-only.
    ///
    /// Implements: `rbd_open_read_only`.
    pub fn open_snapshot(&self, image: &ImageName, snapshot: &str) -> Result<Image> {
        self.open_as(&Which::Name(image), &Mode::At(snapshot))
    }

    /// Opens an image by its id for reading and writing, in the trash or not.
    ///
    /// Implements: `rbd_open_by_id`.
    pub fn open_by_id(&self, id: &ImageId) -> Result<Image> {
        self.open_as(&Which::Id(id), &Mode::Write)
    }

    /// Opens an image by its id for reading only.
    ///
    /// Implements: `rbd_open_by_id_read_only`.
    pub fn open_by_id_read_only(&self, id: &ImageId) -> Result<Image> {
        self.open_as(&Which::Id(id), &Mode::Read)
    }

    fn open_as(&self, which: &Which<'_>, mode: &Mode<'_>) -> Result<Image> {
        const OPEN: &str = "open image";
        let (key, label) = match which {
            Which::Name(name) => (cstring(name.as_str(), OPEN)?, self.at(name)),
            Which::Id(id) => (cstring(id.as_str(), OPEN)?, self.at(format_args!("(id {id})"))),
        };
        let (snapshot, label) = match mode {
            Mode::At(snapshot) => (Some(cstring(snapshot, OPEN)?), format!("{label}@{snapshot}")),
            _ => (None, label),
        };
        let at = snapshot.as_ref().map_or(ptr::null(), |name: &CString| name.as_ptr());
        let mut raw = ptr::null_mut();
        let (io, key) = (self.raw(), key.as_ptr());
        // SAFETY: the context is live, the strings live through the call, `raw` is written on success only.
        let code = unsafe {
            match (which, mode) {
                (Which::Name(_), Mode::Write) => rbd_sys::rbd_open(io, key, &mut raw, at),
                (Which::Name(_), _) => rbd_sys::rbd_open_read_only(io, key, &mut raw, at),
                (Which::Id(_), Mode::Write) => rbd_sys::rbd_open_by_id(io, key, &mut raw, at),
                (Which::Id(_), _) => rbd_sys::rbd_open_by_id_read_only(io, key, &mut raw, at),
            }
        };
        check(code, OPEN, || label.clone())?;
        Ok(Image::from_raw(raw, self.clone(), label))
    }

    /// Removes an image and all its data. One with snapshots is refused ([`Error::is_not_empty`]), so is one in use
    /// ([`Error::is_busy`]).
    ///
    /// Implements: `rbd_remove`.
    pub fn remove(&self, image: &ImageName) -> Result<()> {
        let name = cstring(image.as_str(), "remove image")?;
        // SAFETY: the context is live, the name lives through the call.
        let code = unsafe { rbd_sys::rbd_remove(self.raw(), name.as_ptr()) };
        check(code, "remove image", || self.at(image)).map(drop)
    }

    /// Gives an image another name in the same rados namespace.
    ///
    /// Implements: `rbd_rename`.
    pub fn rename(&self, from: &ImageName, to: &ImageName) -> Result<()> {
        let old = cstring(from.as_str(), "rename image")?;
        let new = cstring(to.as_str(), "rename image")?;
        // SAFETY: the context is live, the names live through the call.
        let code = unsafe { rbd_sys::rbd_rename(self.raw(), old.as_ptr(), new.as_ptr()) };
        check(code, "rename image", || format!("{} to {to}", self.at(from))).map(drop)
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.is_empty() {
            write!(f, "{}", self.pool)
        } else {
            write!(f, "{}/{}", self.pool, self.name)
        }
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespace({self})")
    }
}
