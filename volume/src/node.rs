//! The node: create, open and close volumes. Every step is decided by what is observed, so a call may be repeated
//! after any failure or crash.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fail::fail_point;
use rustix::io::Errno;

use crate::attach::{Device, Held};
use crate::client::Client;
use crate::close::unmount;
use crate::error::{Doing, Error};
use crate::identity::ClusterIdentity;
use crate::layout::{self, Layout, VolumePaths};
use crate::mountinfo::{Mount, Mounts};
use crate::spec::{AttachMode, How, ImageSpec, Mounted, NewVolume, OpenVolume};
use crate::{filesystem, krbd, marker};

/// Where and how volumes are kept on this machine.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Directory for sockets and mounts; `/run/aldaas` by default. Made where it is missing.
    pub run_dir: PathBuf,
    /// How to reach Ceph.
    pub ceph: aldaas_rbd::ConnectOptions,
    /// How images become block devices.
    pub attach: AttachMode,
    /// Path of `aldaas-fuse`.
    pub fuse_program: PathBuf,
    /// Who starts it.
    pub fuse_server: FuseServer,
}

/// Who starts the FUSE server of a run directory, and ends it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FuseServer {
    /// We, for the first image; it ends with the last.
    #[default]
    OnDemand,
    /// Somebody else, e.g. a container of its own, so that it goes on when ours ends. Until it is there it is waited for.
    External,
}

/// The volumes of one run directory on this machine. Cheap to make; keeps no state but what the kernel shows, so
/// several processes may each have one.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: NodeConfig,
    pub(crate) layout: Layout,
    pub(crate) client: Client,
    krbd: OnceLock<bool>,
}

impl Node {
    /// Makes the run directory where it is missing.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn new(config: NodeConfig) -> Result<Self, Error> {
        let layout = Layout::new(&config.run_dir)?;
        let client = Client {
            cluster: Some(ClusterIdentity::of(&config.ceph)),
            layout: layout.clone(),
            program: config.fuse_program.clone(),
            server: config.fuse_server,
            ceph: config.ceph.clone(),
        };
        Ok(Self { config, layout, client, krbd: OnceLock::new() })
    }

    /// The run directory, canonical.
    pub fn run_dir(&self) -> &Path {
        self.layout.run_dir()
    }

    /// How images are attached here: what `auto` came to.
    pub fn attach_mode(&self) -> AttachMode {
        match self.config.attach {
            AttachMode::Auto if *self.krbd.get_or_init(krbd::available) => AttachMode::Krbd,
            AttachMode::Auto => AttachMode::Fuse,
            fixed => fixed,
        }
    }

    /// Gets ready to attach: starts the FUSE server where images need one and none runs. Whoever has other work to do first
    /// calls this beside it, and [`Node::settle`] in the end; without it, an attach does the same when it comes to it.
    ///
    /// # Errors
    /// When the server can't be started.
    pub fn prepare(&self) -> Result<(), Error> {
        let external = self.config.fuse_server == FuseServer::External;
        if external || self.attach_mode() == AttachMode::Krbd || self.client.server_alive()? {
            return Ok(());
        }
        self.client.start()
    }

    /// Ends a FUSE server that was started on demand and has nothing attached.
    ///
    /// # Errors
    /// When it does not end.
    pub fn settle(&self) -> Result<(), Error> {
        self.client.stop_if_idle()
    }

    /// Makes a file system with `data/` and marker on an image that the caller made blank just before, and mounts
    /// it. A failure undoes everything; the image may then hold half a file system and has to be removed.
    ///
    /// # Errors
    /// [`Error::NotBlank`] where the image holds anything, [`Error::ImageNotFound`], [`Error::NoFreeLoop`],
    /// [`Error::Tool`] when mkfs fails.
    pub fn create(&self, spec: &ImageSpec, new: &NewVolume<'_>) -> Result<Mounted, Error> {
        let paths = self.layout.volume(spec)?;
        let _lock = self.layout.lock_volume(&paths)?;
        let before = self.observe(spec, &paths)?;
        if before.is_mounted() {
            return Err(Error::OpenOtherwise {
                spec: spec.to_string(),
                found: "mounted",
                asked: "to be made new",
            });
        }
        self.undo_on_error(spec, &paths, &before, || {
            let device = self.attach_locked(spec, &paths, How::writable(), &before)?;
            filesystem::check_blank(spec, &device.path())?;
            filesystem::make(new.filesystem, &device.path())?;
            fail_point!("volume::after-mkfs");
            self.mount(&device, new.filesystem, &paths, false, &[])?;
            marker::write(&paths.fs, new.marker, new.owner)?;
            self.bind(&paths)?;
            Ok(mounted(spec, &device, &paths))
        })
    }

    /// Attaches and mounts an image, checks its marker, and binds its `data/`. One that is already open in the same
    /// way is fine. A failure undoes what this call did.
    ///
    /// # Errors
    /// [`Error::NoMarker`], [`Error::WrongMarker`], [`Error::NoFilesystem`], [`Error::ImageNotFound`],
    /// [`Error::OpenOtherwise`], [`Error::Damaged`], [`Error::NoFreeLoop`].
    pub fn open(&self, spec: &ImageSpec, want: &OpenVolume<'_>) -> Result<Mounted, Error> {
        let paths = self.layout.volume(spec)?;
        let lock = self.layout.lock_volume(&paths)?;
        let before = self.observe(spec, &paths)?;
        if before.is_dead() {
            self.close_locked(spec, &paths)?;
            drop(lock);
            return self.open(spec, want);
        }
        if let Some(fs) = &before.fs {
            return self.open_mounted(spec, &paths, want, &before, fs);
        }
        self.undo_on_error(spec, &paths, &before, || {
            let device = self.attach_locked(spec, &paths, want.into(), &before)?;
            let superblock = filesystem::probe(&device.path())?
                .ok_or_else(|| Error::NoFilesystem { spec: spec.to_string() })?;
            if superblock.needs_check && want.read_only {
                return Err(Error::NeedsRecovery { spec: spec.to_string() });
            }
            if superblock.may_replay && !want.read_only {
                // Before anything but the superblock is written: it may be somebody else's. Where nothing is to be
                // repaired or replayed, mounting writes no more than that, and a look of its own would cost 13 ms.
                let look = filesystem::look(superblock.filesystem, &device.path())?;
                marker::check(spec, look.path(), want.expect)?;
            }
            if superblock.needs_check {
                filesystem::check(spec, &device.path())?;
            }
            match self.mount(&device, superblock.filesystem, &paths, want.read_only, &want.mount_options) {
                // XFS with a log to replay, which only now is seen.
                Err(Error::Io { source, .. })
                    if want.read_only && source.kind() == std::io::ErrorKind::ReadOnlyFilesystem =>
                {
                    return Err(Error::NeedsRecovery { spec: spec.to_string() });
                }
                other => other?,
            };
            marker::check(spec, &paths.fs, want.expect)?;
            self.bind(&paths)?;
            Ok(mounted(spec, &device, &paths))
        })
    }

    /// An open of what is already mounted: nothing is undone when it isn't what was asked for.
    fn open_mounted(
        &self,
        spec: &ImageSpec,
        paths: &VolumePaths,
        want: &OpenVolume<'_>,
        held: &Held,
        fs: &Mount,
    ) -> Result<Mounted, Error> {
        if fs.is_read_only() != want.read_only {
            let name = |read_only| if read_only { "read-only" } else { "writable" };
            let (found, asked) = (name(fs.is_read_only()), name(want.read_only));
            return Err(Error::OpenOtherwise { spec: spec.to_string(), found, asked });
        }
        marker::check(spec, &paths.fs, want.expect)?;
        self.bind(paths)?;
        let device = self.attach_locked(spec, paths, want.into(), held)?;
        Ok(mounted(spec, &device, paths))
    }

    /// Undoes what `work` did when it fails; a device that was attached `before` stays.
    pub(crate) fn undo_on_error<T>(
        &self,
        spec: &ImageSpec,
        paths: &VolumePaths,
        before: &Held,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let result = work();
        if let Err(error) = &result {
            let undone = if before.is_mounted() {
                Ok(())
            } else if before.is_attached() {
                unmount(&paths.data, false).and_then(|()| unmount(&paths.fs, false))
            } else {
                self.close_locked(spec, paths)
            };
            if let Err(undo) = undone {
                tracing::warn!(image = %spec, %error, %undo, "could not undo a failed open; close it again");
            }
        }
        result
    }

    fn mount(
        &self,
        device: &Device,
        filesystem: crate::Filesystem,
        paths: &VolumePaths,
        read_only: bool,
        options: &[String],
    ) -> Result<(), Error> {
        layout::make_dir(&paths.fs, 0o711)?;
        filesystem::mount(filesystem, &device.path(), &paths.fs, read_only, options)?;
        fail_point!("volume::after-mount");
        Ok(())
    }

    /// Binds `data/` of the mounted file system, and makes sure that it is that and nothing else: an engine must
    /// never start on the host's own disk.
    fn bind(&self, paths: &VolumePaths) -> Result<(), Error> {
        let mounts = Mounts::read()?;
        let fs = mounts.top_at(&paths.fs).ok_or(Errno::NODEV);
        let fs = fs.doing(|| format!("bind data of {}, which isn't mounted", paths.fs.display()))?;
        let bound = |mounts: &Mounts| {
            mounts
                .top_at(&paths.data)
                .is_some_and(|m| m.device == fs.device && m.root == Path::new("/").join(marker::DATA))
        };
        if bound(&mounts) {
            return Ok(());
        }
        layout::make_dir(&paths.data, 0o711)?;
        let source = paths.fs.join(marker::DATA);
        let doing = || format!("bind {} at {}", source.display(), paths.data.display());
        rustix::mount::mount_bind(&source, &paths.data).doing(doing)?;
        fail_point!("volume::after-bind");
        if bound(&Mounts::read()?) { Ok(()) } else { Err(Errno::STALE).doing(doing) }
    }

    /// What there is of a volume right now.
    pub(crate) fn observe(&self, spec: &ImageSpec, paths: &VolumePaths) -> Result<Held, Error> {
        Held::observe(spec, paths, &self.client)
    }
}

fn mounted(spec: &ImageSpec, device: &Device, paths: &VolumePaths) -> Mounted {
    Mounted { spec: spec.clone(), device: device.path(), data: paths.data.clone(), root: paths.fs.clone() }
}
