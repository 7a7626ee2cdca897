//! Taking away a volume whose content is to go: nothing more of it is written, and nobody waits until the kernel has
//! forgotten what was.
//!
//! ```text
//! unbind ─▶ the server fails what it has to write ─▶ shut the file system down ─▶ unmount it ─▶ free the loop device
//!                                                                                             │ nobody can use it any more
//!                        beside whatever the caller does now:  the server closes the image  ◀─┴─▶ the kernel forgets its pages
//! ```
//!
//! The kernel forgets the pages of a file system in the call that unmounts it, a gigabyte in some tenths of a second, but only
//! if that was its last mount anywhere. So an unmount that still goes on when the mount can no longer be seen says that
//! nobody else has the volume, and that the rest needs nobody's help: the device frees itself with its last user.

use std::fs;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fail::fail_point;
use rustix::process::Pid;

use crate::attach::Held;
use crate::close::{shut_down, unmount};
use crate::error::{Doing, Error};
use crate::layout::{VolumeLock, VolumePaths};
use crate::loopdev::{self, LoopDevice};
use crate::mountinfo::{self, Mount};
use crate::node::Node;
use crate::spec::ImageSpec;

/// An unmount that has computed for so long since its mount vanished forgets pages: without any it only had to return.
const RETURNING: Duration = Duration::from_millis(1);

/// What is left of a discarded volume: an image that is about to be closed, and a device that frees itself as soon as the kernel
/// has forgotten what was on it.
#[derive(Debug)]
#[must_use = "its image stays open and its directories stay until it is finished"]
pub struct Rest {
    spec: ImageSpec,
    paths: VolumePaths,
    loops: Vec<LoopDevice>,
    unmounting: Option<Unmounting>,
    closing: Vec<String>,
    _lock: VolumeLock,
}

impl Rest {
    /// Who still has the image open: the addresses at which Ceph knows the server.
    pub fn closing(&self) -> &[String] {
        &self.closing
    }
}

/// An unmount that has only pages left to forget.
type Unmounting = JoinHandle<Result<(), Error>>;

impl Node {
    /// [`close`](Self::close) of a volume that is going to be removed: what isn't written yet is thrown away instead, so
    /// that it takes no longer the more there is. As after a power cut, the image is to be repaired before another use.
    ///
    /// # Errors
    /// As [`close`](Self::close). A volume that is busy may have been shut down: its user gets I/O errors.
    pub fn discard(&self, spec: &ImageSpec) -> Result<(), Error> {
        match self.begin_discard(spec)? {
            Some(rest) => self.finish_discard(rest),
            None => Ok(()),
        }
    }

    /// The part of [`discard`](Self::discard) after which nobody here can see, use or write the volume. What is left then takes the
    /// longer, the more was written and the more of it the kernel has in memory.
    ///
    /// # Errors
    /// As [`discard`](Self::discard).
    pub fn begin_discard(&self, spec: &ImageSpec) -> Result<Option<Rest>, Error> {
        let paths = self.layout.volume(spec)?;
        let lock = self.layout.lock_volume(&paths)?;
        let held = self.observe(spec, &paths)?;
        let dead = held.is_dead();
        if !dead && !held.elsewhere.is_empty() {
            return Err(held.used_elsewhere(spec));
        }
        unmount(&paths.data, dead)?;
        fail_point!("volume::after-unbind");
        let Some(fs) = held.fs.clone().filter(|_| !dead) else {
            unmount(&paths.fs, dead)?;
            return self.discard_detached(spec, &paths, held).map(|()| None);
        };
        // The kernel's client writes out what it has under way, and has the image open until the device is gone.
        if !held.krbd.is_empty() {
            throw_away(&fs);
            unmount(&paths.fs, dead)?;
            return self.discard_detached(spec, &paths, held).map(|()| None);
        }
        let unmounting = self.end(spec, &paths, fs, &held.loops)?;
        fail_point!("volume::after-unmount");
        let (spec, loops, closing) = (spec.clone(), held.loops, self.client.addresses());
        Ok(Some(Rest { spec, paths, loops, unmounting, closing, _lock: lock }))
    }

    fn discard_detached(&self, spec: &ImageSpec, paths: &VolumePaths, held: Held) -> Result<(), Error> {
        fail_point!("volume::after-unmount");
        self.detach_locked(spec, held)?;
        fail_point!("volume::after-detach");
        self.tidy(paths)
    }

    /// Waits for what [`begin_discard`](Self::begin_discard) left, and removes its directories.
    ///
    /// # Errors
    /// As [`discard`](Self::discard).
    pub fn finish_discard(&self, rest: Rest) -> Result<(), Error> {
        let closed = self.client.detach_though_open(&rest.spec);
        if let Some(unmounting) = rest.unmounting {
            joined(&rest.spec, unmounting)?;
            rest.loops.iter().try_for_each(loopdev::detach)?;
        }
        // A server from before an upgrade waits for the device.
        if closed.is_err() {
            self.client.detach(&rest.spec)?;
        }
        fail_point!("volume::after-detach");
        self.tidy(&rest.paths)
    }

    /// Ends a file system on the server's devices, and frees them. Where the unmount has only pages left to forget, it is returned.
    fn end(
        &self,
        spec: &ImageSpec,
        paths: &VolumePaths,
        fs: Mount,
        loops: &[LoopDevice],
    ) -> Result<Option<Unmounting>, Error> {
        // Shutting down ends the journal with a write behind all that is under way.
        if let Err(error) = self.client.abandon(spec) {
            tracing::warn!(%error, "what is being written is written");
        }
        let (point, (tell, told)) = (paths.fs.clone(), mpsc::channel());
        let work = move || {
            let _ = tell.send(rustix::thread::gettid());
            throw_away(&fs);
            unmount(&point, false)
        };
        let thread = thread::Builder::new().name("unmount".to_owned());
        let unmounting = thread.spawn(work).doing(|| format!("start a thread to unmount {spec}"))?;
        let thread = told.recv().ok();
        let mut since = None;
        while !unmounting.is_finished() {
            thread::sleep(Duration::from_millis(1));
            if mountinfo::is_mounted(&paths.fs)? {
                continue;
            }
            let computed = thread.and_then(computed_by).unwrap_or_default();
            if computed.saturating_sub(*since.get_or_insert(computed)) > RETURNING {
                // From here on the device frees itself with its last user, whatever becomes of us.
                loops.iter().try_for_each(loopdev::let_go)?;
                return Ok(Some(unmounting));
            }
        }
        joined(spec, unmounting)?;
        loops.iter().try_for_each(loopdev::detach)?;
        Ok(None)
    }
}

fn joined(spec: &ImageSpec, unmounting: Unmounting) -> Result<(), Error> {
    let panicked = |_| std::io::Error::other("its thread panicked");
    unmounting.join().map_err(panicked).doing(|| format!("unmount {spec}"))?
}

/// How long a thread of ours had a processor. Where the kernel doesn't say, never: its end is waited for.
fn computed_by(thread: Pid) -> Option<Duration> {
    let said = fs::read_to_string(format!("/proc/self/task/{}/schedstat", thread.as_raw_nonzero())).ok()?;
    said.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// What isn't written yet of this file system never is.
fn throw_away(fs: &Mount) {
    if let Err(error) = shut_down(fs) {
        tracing::warn!(%error, "unmounted as it is");
    }
    fail_point!("volume::after-shut-down");
}
