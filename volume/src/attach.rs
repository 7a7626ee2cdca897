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
use crate::mountinfo::{Mount, Mounts};
use crate::node::Node;
use crate::protocol::Attached;
use crate::spec::{AttachMode, How, ImageSpec};

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
    /// What the FUSE server says of it.
    pub served: Option<Attached>,
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
        let mounts = Mounts::read()?;
        let devices: Vec<_> = loops.iter().map(|l| l.device).chain(krbd.iter().map(|k| k.device)).collect();
        let of_devices = devices.into_iter().flat_map(|device| mounts.of_device(device));
        let elsewhere = of_devices.filter(|m| !m.point.starts_with(&paths.dir)).collect();
        // Who serves matters only where something stands on it.
        let served = if loops.is_empty() { None } else { client.find_settled(spec)? };
        Ok(Self {
            served,
            fs: mounts.top_at(&paths.fs),
            data: mounts.top_at(&paths.data),
            elsewhere,
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
            holders: holders::of_mounts(&self.elsewhere),
        }
    }

    /// A device is there that works.
    pub fn is_attached(&self) -> bool {
        !self.krbd.is_empty() || self.is_served()
    }

    fn is_served(&self) -> bool {
        self.served.as_ref().is_some_and(|attached| !attached.cut_off)
    }

    /// The server below it died, or the cluster cut it off: all I/O fails, nothing can be saved.
    pub fn is_dead(&self) -> bool {
        self.krbd.is_empty() && !self.is_served() && (!self.loops.is_empty() || self.is_mounted())
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
        let how = How { read_only, own_client: false };
        self.undo_on_error(spec, &paths, &before, || {
            Ok(self.attach_locked(spec, &paths, how, &before)?.path())
        })
    }

    /// Undoes [`attach`](Self::attach); the same as [`close`](Self::close).
    ///
    /// # Errors
    /// [`Error::Busy`] when the device is in use.
    pub fn detach(&self, spec: &ImageSpec) -> Result<(), Error> {
        self.close(spec)
    }

    /// What is `held` was observed under the same lock: looking costs more, the more volumes there are.
    pub(crate) fn attach_locked(
        &self,
        spec: &ImageSpec,
        paths: &VolumePaths,
        how: How,
        held: &Held,
    ) -> Result<Device, Error> {
        if held.fs.is_none() && !held.elsewhere.is_empty() {
            return Err(held.used_elsewhere(spec));
        }
        let device = if let Some(device) = held.krbd.first() {
            is_as_asked(spec, how, device.read_only, device.own_client)?;
            Device::Krbd(device.clone())
        } else if let (Some(device), Some(served), true) =
            (held.loops.first(), &held.served, held.is_served())
        {
            is_as_asked(spec, how, device.read_only, served.own_client)?;
            Device::Loop(device.clone())
        } else if self.attach_mode() == AttachMode::Krbd {
            Device::Krbd(krbd::attach(spec, how, &self.config.ceph, self.client.cluster.as_ref())?)
        } else {
            // Loop devices of a server that died: a new server shows the image under the same path.
            for stale in &held.loops {
                loopdev::detach(stale)?;
            }
            let served = self.client.attach(spec, how)?;
            is_as_asked(spec, how, served.read_only, served.own_client)?;
            Device::Loop(loopdev::attach(&paths.image_file, how.read_only)?)
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
        let dead_mount = Mounts::read()?.at(&images).next().is_some();
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

/// What is attached already can't be changed. A client of one's own where none is asked for does no harm.
fn is_as_asked(spec: &ImageSpec, how: How, read_only: bool, own_client: bool) -> Result<(), Error> {
    let mode = |read_only| if read_only { "attached read-only" } else { "attached writable" };
    let (found, asked) = if read_only != how.read_only {
        (mode(read_only), mode(how.read_only))
    } else if how.own_client && !own_client {
        ("attached through a client that other images share", "through a client of its own")
    } else {
        return Ok(());
    };
    Err(Error::OpenOtherwise { spec: spec.to_string(), found, asked })
}

/// Takes away the mounts at `images` of servers that died. The caller holds the server's lock and has made sure
/// that no loop device stands on them.
pub(crate) fn sweep_dead_mounts(images: &std::path::Path) -> Result<(), Error> {
    for _ in Mounts::read()?.at(images) {
        match rustix::mount::unmount(images, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(e) => return Err(e).doing(|| format!("unmount the dead {}", images.display())),
        }
    }
    Ok(())
}
