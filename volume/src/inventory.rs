//! What of aldaas is on this machine, and cleaning it up.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::client::ServerAbsent;
use crate::error::Error;
use crate::mountinfo::Mounts;
use crate::node::Node;
use crate::spec::ImageSpec;
use crate::{krbd, layout, loopdev};

/// What holds an image's device up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The kernel.
    Kernel,
    /// A FUSE server that serves it.
    Alive,
    /// A FUSE server that died, that no longer knows it, or whose client the cluster cut off: I/O fails.
    Dead,
    /// Nothing: no device.
    None,
}

/// A volume as found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Which image.
    pub spec: ImageSpec,
    /// Its block device.
    pub device: Option<PathBuf>,
    /// Where it is mounted, elsewhere included.
    pub mounts: Vec<PathBuf>,
    /// Its directory below the run directory.
    pub directory: Option<PathBuf>,
    /// Who serves its I/O.
    pub server: Server,
}

/// What [`Node::clean`] did.
#[derive(Debug, Default)]
pub struct Cleaned {
    /// Closed.
    pub closed: Vec<ImageSpec>,
    /// Still there, and why.
    pub failed: Vec<(ImageSpec, Error)>,
}

impl Node {
    /// All volumes below the run directory in any state: from mounts, loop devices, krbd devices, directories and
    /// the FUSE server's own list.
    ///
    /// # Errors
    /// When /proc or /sys can't be read.
    pub fn inventory(&self) -> Result<Vec<Observed>, Error> {
        let served = self.client.list()?.unwrap_or_default();
        let mut specs: BTreeSet<ImageSpec> = self.layout.volume_directories()?.into_iter().collect();
        specs.extend(served.iter().map(|attached| attached.spec.clone()));
        let (images, volumes) = (self.layout.images(), self.layout.volumes());
        specs.extend(loopdev::list()?.iter().filter_map(|l| below(&l.backing, &images)));
        let mounts = Mounts::read()?;
        specs.extend(mounts.below(&volumes).filter_map(|m| below(&m.point, &volumes)));
        let served: Vec<ImageSpec> =
            served.into_iter().filter(|attached| !attached.cut_off).map(|attached| attached.spec).collect();
        specs.into_iter().map(|spec| self.observed(spec, &mounts, &served)).collect()
    }

    /// One volume, as [`inventory`](Self::inventory) shows it; `None` where nothing of it is here.
    ///
    /// # Errors
    /// When /proc or /sys can't be read.
    pub fn find(&self, spec: &ImageSpec) -> Result<Option<Observed>, Error> {
        let served = self.client.find_settled(spec)?;
        let works = served.as_ref().is_some_and(|attached| !attached.cut_off);
        let works: &[ImageSpec] = if works { std::slice::from_ref(spec) } else { &[] };
        let observed = self.observed(spec.clone(), &Mounts::read()?, works)?;
        let there = served.is_some()
            || observed.device.is_some()
            || observed.directory.is_some()
            || !observed.mounts.is_empty();
        Ok(there.then_some(observed))
    }

    /// The volume of this run directory whose device has this number (`major:minor`), mounted or not.
    ///
    /// # Errors
    /// When /proc or /sys can't be read.
    pub fn spec_of_device(&self, device: (u32, u32)) -> Result<Option<ImageSpec>, Error> {
        self.spec_among(&Mounts::read()?, device)
    }

    /// The volume of this run directory that is mounted or bound at exactly `path`, which must be canonical; of several
    /// over each other, the topmost counts. Nothing of the file system is touched: it may be dead.
    ///
    /// # Errors
    /// When /proc or /sys can't be read.
    pub fn spec_of_mount(&self, path: &Path) -> Result<Option<ImageSpec>, Error> {
        let mounts = Mounts::read()?;
        let Some(top) = mounts.top_at(path) else { return Ok(None) };
        self.spec_among(&mounts, top.device)
    }

    fn spec_among(&self, mounts: &Mounts, device: (u32, u32)) -> Result<Option<ImageSpec>, Error> {
        let volumes = self.layout.volumes();
        // A volume's own mount names it even where its server, and with it the loop device's file, is gone.
        let mounted = mounts.of_device(device).find_map(|m| below(&m.point, &volumes));
        if mounted.is_some() {
            return Ok(mounted);
        }
        if let Some(found) = loopdev::of_device(device) {
            return Ok(below(&found.backing, &self.layout.images()));
        }
        let ours = |k: &krbd::KrbdDevice| {
            let cluster = self.client.cluster.as_ref();
            k.device == device && cluster.is_none_or(|cluster| k.cluster.is(cluster))
        };
        Ok(krbd::devices()?.into_iter().find(ours).map(|k| k.spec))
    }

    fn observed(&self, spec: ImageSpec, mounts: &Mounts, served: &[ImageSpec]) -> Result<Observed, Error> {
        let paths = self.layout.volume(&spec)?;
        let loops = loopdev::over(&paths.image_file)?;
        let krbd = krbd::devices_of(&spec, self.client.cluster.as_ref())?.into_iter().next();
        let numbers: Vec<_> = loops.iter().map(|l| l.device).chain(krbd.iter().map(|k| k.device)).collect();
        let of_devices = numbers.iter().flat_map(|number| mounts.of_device(*number));
        let others = mounts.below(&paths.dir).filter(|m| !numbers.contains(&m.device));
        let points: Vec<PathBuf> = of_devices.chain(others).map(|m| m.point).collect();
        let server = match (&krbd, served.contains(&spec)) {
            (Some(_), _) => Server::Kernel,
            (None, true) => Server::Alive,
            (None, false) if !loops.is_empty() || !points.is_empty() => Server::Dead,
            (None, false) => Server::None,
        };
        let device = krbd.map(|k| k.path()).or_else(|| loops.first().map(loopdev::LoopDevice::path));
        let directory = paths.dir.is_dir().then_some(paths.dir);
        Ok(Observed { spec, device, mounts: points, directory, server })
    }

    /// Closes every volume below the run directory that `keep` doesn't want kept and nobody uses, and removes what
    /// a killed FUSE server left, its log included. Goes on after failures and reports them.
    ///
    /// # Errors
    /// When the inventory can't be taken.
    pub fn clean(&self, keep: impl Fn(&Observed) -> bool) -> Result<Cleaned, Error> {
        let mut cleaned = Cleaned::default();
        for observed in self.inventory()?.into_iter().filter(|o| !keep(o)) {
            match self.close(&observed.spec) {
                Ok(()) => cleaned.closed.push(observed.spec),
                Err(error) => cleaned.failed.push((observed.spec, error)),
            }
        }
        self.client.stop_if_idle()?;
        self.sweep_server()?;
        if let Some(ServerAbsent { .. }) = self.client.lock_server()? {
            layout::remove_file_if_there(&self.layout.server_log())?;
        }
        Ok(cleaned)
    }

    /// True while the FUSE server of this run directory runs.
    ///
    /// # Errors
    /// When its lock can't be looked at.
    pub fn fuse_server_alive(&self) -> Result<bool, Error> {
        self.client.server_alive()
    }
}

/// The image that a path below `directory` is named after.
fn below(path: &Path, directory: &Path) -> Option<ImageSpec> {
    let name = path.strip_prefix(directory).ok()?.components().next()?;
    ImageSpec::from_file_name(name.as_os_str().to_str()?)
}
