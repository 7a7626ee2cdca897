//! Attach and detach: an image becomes a block device and stops being one, through krbd or the FUSE server.

use std::fs::OpenOptions;
use std::path::PathBuf;

use fail::fail_point;
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::client::Client;
use crate::error::{Doing, Error};
use crate::holders;
use crate::krbd::{self, KrbdDevice};
use crate::layout::{self, VolumePaths};
use crate::loopdev::{self, LoopDevice};
use crate::mountinfo::{self, Mount};
use crate::node::Node;
use crate::spec::{AttachMode, ImageSpec};

/// The block device of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    Loop(LoopDevice),
    Krbd(KrbdDevice),
}

impl Device {
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Loop(device) => device.path(),
            Self::Krbd(device) => device.path(),
        }
    }
}

/// What there is of one volume.
#[derive(Debug)]
pub(crate) struct Held {
    pub loops: Vec<LoopDevice>,
    pub krbd: Vec<KrbdDevice>,
    /// The FUSE server has the image open.
    pub served: bool,
    /// The file system mounted in its place.
    pub fs: Option<Mount>,
    /// The mount of `data/`.
    pub data: Option<Mount>,
    /// Mounts of the same device at places that aren't this volume's.
    pub elsewhere: Vec<Mount>,
}

impl Held {
    pub fn observe(spec: &ImageSpec, paths: &VolumePaths, client: &Client) -> Result<Self, Error> {
        let loops = loopdev::over(&paths.image_file)?;
        let krbd = krbd::devices_of(spec, client.cluster.as_ref())?;
        let mounts = mountinfo::read()?;
        let devices: Vec<_> = loops.iter().map(|l| l.device).chain(krbd.iter().map(|k| k.device)).collect();
        let elsewhere =
            mounts.iter().filter(|m| devices.contains(&m.device) && !m.point.starts_with(&paths.dir));
        // Who serves matters only where something stands on it.
        let served = !loops.is_empty()
            && client
                .list_settled()?
                .is_some_and(|images| images.iter().any(|attached| attached.spec == *spec));
        Ok(Self {
            served,
            fs: mountinfo::at(&mounts, &paths.fs).next_back().cloned(),
            data: mountinfo::at(&mounts, &paths.data).next_back().cloned(),
            elsewhere: elsewhere.cloned().collect(),
            loops,
            krbd,
        })
    }

    pub fn is_mounted(&self) -> bool {
        self.fs.is_some() || self.data.is_some()
    }

    /// A mount of the device that isn't this volume's keeps it from being mounted, unmounted or unmapped.
    pub fn used_elsewhere(&self, spec: &ImageSpec) -> Error {
        let points: Vec<String> = self.elsewhere.iter().map(|m| m.point.display().to_string()).collect();
        Error::Busy {
            what: format!("{spec}, also mounted at {},", points.join(", ")),
            because: "unmount it there first",
            holders: holders::of_mounts(&self.elsewhere.iter().collect::<Vec<_>>()),
        }
    }

    /// A device is there that works.
    pub fn is_attached(&self) -> bool {
        !self.krbd.is_empty() || self.served
    }

    /// The server below it died: all I/O fails, nothing can be saved.
    pub fn is_dead(&self) -> bool {
        self.krbd.is_empty() && !self.served && (!self.loops.is_empty() || self.is_mounted())
    }
}

impl Node {
    /// Makes the image a block device and returns its path; nothing is mounted. One that is attached is fine.
    ///
    /// # Errors
    /// As [`open`](Self::open), without the file system's.
    pub fn attach(&self, spec: &ImageSpec, read_only: bool) -> Result<PathBuf, Error> {
        let paths = self.layout.volume(spec)?;
        let _lock = self.layout.lock_volume(&paths)?;
        let before = self.observe(spec, &paths)?;
        self.undo_on_error(spec, &paths, &before, || Ok(self.attach_locked(spec, &paths, read_only)?.path()))
    }

    /// Undoes [`attach`](Self::attach); the same as [`close`](Self::close).
    ///
    /// # Errors
    /// [`Error::Busy`] when the device is in use.
    pub fn detach(&self, spec: &ImageSpec) -> Result<(), Error> {
        self.close(spec)
    }

    pub(crate) fn attach_locked(
        &self,
        spec: &ImageSpec,
        paths: &VolumePaths,
        read_only: bool,
    ) -> Result<Device, Error> {
        let held = self.observe(spec, paths)?;
        if held.fs.is_none() && !held.elsewhere.is_empty() {
            return Err(held.used_elsewhere(spec));
        }
        let name = |read_only| if read_only { "attached read-only" } else { "attached writable" };
        let same = |found: bool| {
            if found == read_only {
                return Ok(());
            }
            Err(Error::OpenOtherwise { spec: spec.to_string(), found: name(found), asked: name(read_only) })
        };
        let device = if let Some(device) = held.krbd.first() {
            same(device.read_only)?;
            Device::Krbd(device.clone())
        } else if let (Some(device), true) = (held.loops.first(), held.served) {
            same(device.read_only)?;
            Device::Loop(device.clone())
        } else if self.attach_mode() == AttachMode::Krbd {
            Device::Krbd(krbd::attach(spec, read_only, &self.config.ceph, self.client.cluster.as_ref())?)
        } else {
            // Loop devices of a server that died: a new server shows the image under the same path.
            for stale in &held.loops {
                loopdev::detach(stale)?;
            }
            same(self.client.attach(spec, read_only)?.read_only)?;
            Device::Loop(loopdev::attach(&paths.image_file, read_only)?)
        };
        fail_point!("volume::after-attach");
        Ok(device)
    }

    pub(crate) fn detach_locked(&self, spec: &ImageSpec, held: Held) -> Result<(), Error> {
        for device in &held.loops {
            loopdev::detach(device)?;
        }
        for device in &held.krbd {
            krbd::detach(device)?;
        }
        match self.client.detach(spec) {
            // Another cluster's server has none of ours.
            Err(Error::OtherCluster { .. }) if held.loops.is_empty() => Ok(()),
            detached => detached,
        }
    }

    /// Removes what a FUSE server left that was killed: its dead mount, socket and lock. Does nothing while one
    /// runs, or while a loop device still stands on the dead mount (its path is how it is found).
    pub(crate) fn sweep_server(&self) -> Result<(), Error> {
        let layout = &self.layout;
        let (lock, images) = (layout.server_lock(), layout.images());
        let is_there = |path: &std::path::Path| std::fs::symlink_metadata(path).is_ok();
        let dead_mount = mountinfo::at(&mountinfo::read()?, &images).next().is_some();
        if !dead_mount && !is_there(&lock) && !is_there(&images) && !is_there(&layout.socket()) {
            return Ok(());
        }
        self.client.forget_killed();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock);
        let file = file.doing(|| format!("open {}", lock.display()))?;
        let Some(_server_absent) = layout::lock_if_current(file, &lock)? else { return Ok(()) };
        if loopdev::over(&images)?.is_empty() {
            sweep_dead_mounts(&images)?;
            layout::remove_dir_if_empty(&images)?;
            layout::remove_file_if_there(&layout.socket())?;
            layout::remove_file_if_there(&lock)?;
        }
        Ok(())
    }
}

/// Takes away the mounts at `images` of servers that died. The caller holds the server's lock and has made sure
/// that no loop device stands on them.
pub(crate) fn sweep_dead_mounts(images: &std::path::Path) -> Result<(), Error> {
    let mounts = mountinfo::read()?;
    for _ in mountinfo::at(&mounts, images) {
        match rustix::mount::unmount(images, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(e) => return Err(e).doing(|| format!("unmount the dead {}", images.display())),
        }
    }
    Ok(())
}
