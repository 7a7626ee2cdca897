//! Closing a volume, with everything written.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use fail::fail_point;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::error::{Doing, Error, HELD_UNSEEN};
use crate::layout::{self, VolumePaths};
use crate::mountinfo::{self, Mount, Mounts};
use crate::node::Node;
use crate::spec::ImageSpec;
use crate::{holders, sys};

/// How long an unmount waits for whoever looks at a file system in passing.
const UNMOUNT_PATIENCE: Duration = Duration::from_millis(500);

impl Node {
    /// Unbinds, unmounts, detaches and removes the volume's directories, in that order, from whatever state it is
    /// in. One that is unknown is fine. Works when the FUSE server is dead. Ends the FUSE server when it was
    /// started on demand and this was its last image.
    ///
    /// # Errors
    /// [`Error::Busy`] names who still uses the volume, as far as it can be seen from here: a mount that somebody
    /// holds in another mount namespace keeps the device. A later call goes on where this one stopped.
    pub fn close(&self, spec: &ImageSpec) -> Result<(), Error> {
        let paths = self.layout.volume(spec)?;
        let _lock = self.layout.lock_volume(&paths)?;
        self.close_locked(spec, &paths)
    }

    /// [`trim`](Self::trim), then [`close`](Self::close). Returns the bytes that were discarded.
    ///
    /// # Errors
    /// As both.
    pub fn close_trimmed(&self, spec: &ImageSpec) -> Result<u64, Error> {
        let trimmed = self.trim(spec)?;
        self.close(spec)?;
        Ok(trimmed)
    }

    /// Gives the free space of a mounted volume back to RBD. Returns the bytes that were discarded.
    ///
    /// # Errors
    /// When the volume isn't mounted here or the discard fails.
    pub fn trim(&self, spec: &ImageSpec) -> Result<u64, Error> {
        let paths = self.layout.volume(spec)?;
        let doing = || format!("trim {spec}");
        if !mountinfo::is_mounted(&paths.fs)? {
            return Err(Errno::NOENT).doing(|| format!("trim {spec}, which isn't mounted here"));
        }
        let root = File::open(&paths.fs).doing(doing)?;
        rustix::fs::syncfs(&root).doing(doing)?;
        sys::fitrim(&root).doing(doing)
    }

    pub(crate) fn close_locked(&self, spec: &ImageSpec, paths: &VolumePaths) -> Result<(), Error> {
        let held = self.observe(spec, paths)?;
        let dead = held.is_dead();
        if !dead && !held.elsewhere.is_empty() {
            return Err(held.used_elsewhere(spec));
        }
        unmount(&paths.data, dead)?;
        fail_point!("volume::after-unbind");
        unmount(&paths.fs, dead)?;
        fail_point!("volume::after-unmount");
        self.detach_locked(spec, held)?;
        fail_point!("volume::after-detach");
        self.tidy(paths)
    }

    /// Removes the directories of a volume that is taken down, and a FUSE server that was its alone.
    pub(crate) fn tidy(&self, paths: &VolumePaths) -> Result<(), Error> {
        for directory in [&paths.data, &paths.fs, &paths.dir] {
            layout::remove_dir_if_empty(directory)?;
        }
        layout::remove_dir_if_empty(&self.layout.volumes())?;
        self.client.stop_if_idle()?;
        self.sweep_server()
    }
}

/// Has the file system of a mount end all I/O. Makes sure that it is that one and not what lies below its mount point.
pub(crate) fn shut_down(fs: &Mount) -> Result<(), Error> {
    if fs.is_read_only() {
        return Ok(());
    }
    let doing = || format!("shut down the file system at {}", fs.point.display());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = File::from(rustix::fs::open(&fs.point, flags, Mode::empty()).doing(doing)?);
    let device = root.metadata().doing(doing)?.dev();
    if (rustix::fs::major(device), rustix::fs::minor(device)) != fs.device {
        return Err(Errno::STALE).doing(doing);
    }
    sys::shut_down_filesystem(&root).doing(doing)
}

/// Unmounts all that is mounted at `point`. A file system whose server is dead is taken away even from those who
/// still look at it.
pub(crate) fn unmount(point: &Path, dead: bool) -> Result<(), Error> {
    let deadline = Instant::now() + UNMOUNT_PATIENCE;
    loop {
        let here: Vec<Mount> = Mounts::read()?.at(point).collect();
        if here.is_empty() {
            return Ok(());
        }
        match rustix::mount::unmount(point, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // INVAL: gone since we looked, or not ours to take away (a mount of another user namespace).
            Err(Errno::BUSY | Errno::INVAL) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(_) if dead => rustix::mount::unmount(point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
                .doing(|| format!("unmount {} whose server is dead", point.display()))?,
            Err(Errno::BUSY) => {
                let what = point.display().to_string();
                return Err(Error::Busy { what, because: HELD_UNSEEN, holders: holders::of_mounts(&here) });
            }
            Err(e) => return Err(e).doing(|| format!("unmount {}", point.display())),
        }
    }
}
