//! The images that the server has open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use aldaas_rbd as rbd;
use rustix::io::Errno;

use super::clients::{Clients, OwnClient};
use super::writes::Writes;
use crate::identity::ClusterIdentity;
use crate::protocol::Attached;
use crate::spec::{How, ImageSpec};

/// How long a detach waits for the kernel to close the file: it does so a moment after the loop device is freed.
const RELEASE_PATIENCE: Duration = Duration::from_secs(5);
/// Inode 1 is the root directory.
const FIRST_INODE: u64 = 2;

/// An image as a file.
pub(super) struct OpenImage {
    /// Never used again for another image, so nothing that the kernel remembers can be mistaken.
    pub inode: u64,
    pub spec: ImageSpec,
    pub read_only: bool,
    pub size: u64,
    pub image: rbd::Image,
    pub open_files: AtomicU32,
    /// What is being written.
    pub writes: Writes,
    /// Set by the first I/O that says so; it never comes back.
    pub cut_off: AtomicBool,
    /// Declared after the image, since it has to go after it.
    own_client: Option<OwnClient>,
}

impl OpenImage {
    pub fn describe(&self) -> Attached {
        Attached {
            spec: self.spec.clone(),
            read_only: self.read_only,
            own_client: self.own_client.is_some(),
            cut_off: self.cut_off.load(Ordering::Acquire),
            size: self.size,
            open_files: self.open_files.load(Ordering::Acquire),
        }
    }
}

/// Why a request was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub message: String,
    pub errno: Option<i32>,
}

impl From<rbd::Error> for Refusal {
    fn from(e: rbd::Error) -> Self {
        Self { message: e.to_string(), errno: Some(e.errno) }
    }
}

fn refuse(errno: Errno, message: String) -> Refusal {
    Refusal { message, errno: Some(errno.raw_os_error()) }
}

/// A missing pool is not a missing image: without an errno it can't be taken for one.
fn no_pool(spec: &ImageSpec, e: rbd::Error) -> Refusal {
    if !e.is_not_found() {
        return e.into();
    }
    let message = format!("pool {} does not exist; `ceph osd pool ls` lists what does", spec.pool);
    Refusal { message, errno: None }
}

enum Slot {
    /// Being opened or closed by another request.
    Changing,
    Open(Arc<OpenImage>),
}

struct State {
    slots: HashMap<String, Slot>,
    next_inode: u64,
    stopping: bool,
}

/// All images of the server. `files` is what the FUSE threads look at; `state` decides who may change what.
pub(super) struct Images {
    clients: OnceLock<Clients>,
    state: Mutex<State>,
    changed: Condvar,
    files: RwLock<HashMap<u64, Arc<OpenImage>>>,
}

/// What attach came to.
pub(super) enum AttachOutcome {
    Attached(Attached),
    Stopping,
}

impl Images {
    pub fn new() -> Self {
        let state = State { slots: HashMap::new(), next_inode: FIRST_INODE, stopping: false };
        Self {
            clients: OnceLock::new(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            files: RwLock::default(),
        }
    }

    /// From now on images can be opened.
    pub fn connected(&self, clients: Clients) {
        let _ = self.clients.set(clients);
    }

    /// Which cluster is served.
    pub fn identity(&self) -> Option<&ClusterIdentity> {
        self.clients.get().map(Clients::identity)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The image with this inode.
    pub fn by_inode(&self, inode: u64) -> Option<Arc<OpenImage>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).get(&inode).cloned()
    }

    /// The image with this file name.
    pub fn by_name(&self, name: &str) -> Option<Arc<OpenImage>> {
        match self.state().slots.get(name) {
            Some(Slot::Open(open)) => Some(Arc::clone(open)),
            _ => None,
        }
    }

    /// All images, by inode.
    pub fn all(&self) -> Vec<Arc<OpenImage>> {
        let mut all: Vec<_> =
            self.files.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by_key(|open| open.inode);
        all
    }

    /// Counts an open of the file, unless the image is being closed.
    pub fn open_file(&self, inode: u64) -> Option<Arc<OpenImage>> {
        let _no_change_meanwhile = self.state();
        let open = self.by_inode(inode)?;
        open.open_files.fetch_add(1, Ordering::AcqRel);
        Some(open)
    }

    /// Counts a close of the file.
    pub fn release_file(&self, inode: u64) {
        let _no_change_meanwhile = self.state();
        if let Some(open) = self.by_inode(inode) {
            open.open_files.fetch_sub(1, Ordering::AcqRel);
        }
        self.changed.notify_all();
    }

    /// Opens the image and shows its file. One that was cut off is closed before: only a new client gets through again.
    pub fn attach(&self, spec: &ImageSpec, how: How) -> Result<AttachOutcome, Refusal> {
        let name = spec.file_name().map_err(|e| refuse(Errno::INVAL, e.to_string()))?;
        let is_of_no_use =
            |open: Arc<OpenImage>| open.cut_off.load(Ordering::Acquire) || open.writes.are_abandoned();
        if self.by_name(&name).is_some_and(is_of_no_use) {
            self.detach(spec, false)?;
        }
        let inode = {
            let mut state = self.state();
            if state.stopping {
                return Ok(AttachOutcome::Stopping);
            }
            match state.slots.get(&name) {
                Some(Slot::Open(open)) => return Ok(AttachOutcome::Attached(open.describe())),
                Some(Slot::Changing) => {
                    return Err(refuse(
                        Errno::BUSY,
                        format!("{spec} is being attached or detached; try again"),
                    ));
                }
                None => {}
            }
            state.slots.insert(name.clone(), Slot::Changing);
            state.next_inode += 1;
            state.next_inode
        };
        match self.open(spec, how, inode) {
            Ok(open) => {
                let attached = open.describe();
                self.files.write().unwrap_or_else(PoisonError::into_inner).insert(inode, Arc::clone(&open));
                self.state().slots.insert(name, Slot::Open(open));
                tracing::info!(image = %spec, ?how, size = attached.size, "attached");
                Ok(AttachOutcome::Attached(attached))
            }
            Err(refusal) => {
                self.state().slots.remove(&name);
                tracing::warn!(image = %spec, ?how, error = refusal.message, "attach");
                Err(refusal)
            }
        }
    }

    fn open(&self, spec: &ImageSpec, how: How, inode: u64) -> Result<Arc<OpenImage>, Refusal> {
        let How { read_only, own_client } = how;
        let clients =
            self.clients.get().ok_or_else(|| refuse(Errno::NOTCONN, "not connected yet".to_owned()))?;
        let own_client = own_client.then(|| clients.own()).transpose()?;
        let cluster = own_client.as_ref().map_or(clients.shared(), |own| &own.cluster);
        let pool = cluster.pool(&rbd::PoolName::new(&spec.pool)?).map_err(|e| no_pool(spec, e))?;
        // A full pool is an error, as a full disk is: a write that waited for space would hold up its unmount, too.
        let namespace = pool.namespace(&spec.namespace)?.fail_when_full()?;
        let name = rbd::ImageName::new(&spec.image)?;
        let image = if read_only { namespace.open_read_only(&name)? } else { namespace.open(&name)? };
        if !read_only && image.features()? & rbd::features::EXCLUSIVE_LOCK != 0 {
            // Held until the image is closed: a second writer is refused, not taken turns with.
            image.acquire_lock().map_err(|e| {
                let message = format!("{spec} has another writer ({e}); close it there first");
                Refusal {
                    message,
                    errno: Some(if e.is_read_only() { Errno::BUSY.raw_os_error() } else { e.errno }),
                }
            })?;
        }
        let size = image.size()?;
        Ok(Arc::new(OpenImage {
            inode,
            spec: spec.clone(),
            read_only,
            size,
            image,
            open_files: AtomicU32::new(0),
            writes: Writes::default(),
            cut_off: AtomicBool::new(false),
            own_client,
        }))
    }

    /// Fails what waits to be written to the image, and whatever comes. One that isn't attached is fine.
    pub fn abandon(&self, spec: &ImageSpec) {
        if let Some(open) = spec.file_name().ok().and_then(|name| self.by_name(&name)) {
            open.writes.abandon();
        }
    }

    /// Hides the file, flushes and closes the image. One that isn't attached is fine. It is waited for a while until its file is
    /// closed, unless it is to go `though_open`.
    pub fn detach(&self, spec: &ImageSpec, though_open: bool) -> Result<(), Refusal> {
        let name = spec.file_name().map_err(|e| refuse(Errno::INVAL, e.to_string()))?;
        let mut state = self.state();
        let open = match state.slots.get(&name) {
            Some(Slot::Open(open)) => Arc::clone(open),
            Some(Slot::Changing) => {
                return Err(refuse(Errno::BUSY, format!("{spec} is being attached or detached; try again")));
            }
            None => return Ok(()),
        };
        let deadline = Instant::now() + RELEASE_PATIENCE;
        while !though_open && open.open_files.load(Ordering::Acquire) > 0 {
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                return Err(refuse(
                    Errno::BUSY,
                    format!("{spec} is in use: its file is open; close the volume first"),
                ));
            }
            state = self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.slots.insert(name.clone(), Slot::Changing);
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&open.inode);
        drop(state);
        let result = close(open);
        self.state().slots.remove(&name);
        tracing::info!(image = %spec, though_open, ?result, "detached");
        result
    }

    /// From now on nothing is attached any more, if nothing is attached (or `force`). Else the number of images.
    pub fn begin_stop(&self, force: bool) -> Result<(), usize> {
        let mut state = self.state();
        if !state.slots.is_empty() && !force {
            return Err(state.slots.len());
        }
        state.stopping = true;
        Ok(())
    }

    /// Flushes and closes all images.
    pub fn close_all(&self) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).clear();
        let slots = std::mem::take(&mut self.state().slots);
        for slot in slots.into_values() {
            if let Slot::Open(open) = slot {
                let spec = open.spec.clone();
                if let Err(refusal) = close(open) {
                    tracing::error!(image = %spec, error = refusal.message, "close at the end");
                }
            }
        }
    }
}

/// Closes once nobody but us refers to it: requests in flight hold a reference each. Closing flushes.
fn close(mut open: Arc<OpenImage>) -> Result<(), Refusal> {
    let deadline = Instant::now() + RELEASE_PATIENCE;
    loop {
        match Arc::try_unwrap(open) {
            Ok(last) => return closed(&last.spec, last.image.close()),
            // Its last request closes it; what was written is made safe now.
            Err(shared) if Instant::now() > deadline => return closed(&shared.spec, shared.image.sync()),
            Err(shared) => open = shared,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Of an image that was cut off, what wasn't written yet is lost: that is what cutting off is for.
fn closed(spec: &ImageSpec, result: rbd::Result<()>) -> Result<(), Refusal> {
    match result {
        Err(error) if error.is_blocklisted() => {
            tracing::warn!(image = %spec, %error, "closed after it was cut off");
            Ok(())
        }
        result => Ok(result?),
    }
}
