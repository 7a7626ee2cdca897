//! What of aldaas is on this machine, and cleaning it up.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::client::ServerAbsent;
use crate::error::Error;
use crate::node::Node;
use crate::spec::ImageSpec;
use crate::{krbd, layout, loopdev, mountinfo};

/// What holds an image's device up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The kernel.
    Kernel,
    /// A FUSE server that serves it.
    Alive,
    /// A FUSE server that died, or that no longer knows it: I/O fails.
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
        let below_images = |path: &std::path::Path| {
            let name = path.strip_prefix(self.layout.images()).ok()?;
            ImageSpec::from_file_name(name.to_str()?)
        };
        specs.extend(loopdev::list()?.iter().filter_map(|l| below_images(&l.backing)));
        let volumes = self.layout.volumes();
        let mounts = mountinfo::read()?;
        let below_volumes = |point: &std::path::Path| {
            let name = point.strip_prefix(&volumes).ok()?.components().next()?;
            ImageSpec::from_file_name(name.as_os_str().to_str()?)
        };
        specs.extend(mounts.iter().filter_map(|m| below_volumes(&m.point)));
        let served: Vec<ImageSpec> = served.into_iter().map(|attached| attached.spec).collect();
        specs.into_iter().map(|spec| self.observed(spec, &mounts, &served)).collect()
    }

    fn observed(
        &self,
        spec: ImageSpec,
        mounts: &[mountinfo::Mount],
        served: &[ImageSpec],
    ) -> Result<Observed, Error> {
        let paths = self.layout.volume(&spec)?;
        let loops = loopdev::over(&paths.image_file)?;
        let krbd = krbd::devices_of(&spec, self.client.cluster.as_ref())?.into_iter().next();
        let numbers: Vec<_> = loops.iter().map(|l| l.device).chain(krbd.iter().map(|k| k.device)).collect();
        let points: Vec<PathBuf> = mounts
            .iter()
            .filter(|m| numbers.contains(&m.device) || m.point.starts_with(&paths.dir))
            .map(|m| m.point.clone())
            .collect();
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
