//! How full a volume is, and whether it works.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aldaas_api::VolumeId;
use aldaas_api::volume_id::is_handle;
use aldaas_golden::CLONE;
use aldaas_volume::{ImageSpec, Node, Server, mountinfo};
use rustix::fs::StatVfs;
use tokio::time::timeout;

use crate::blocking::blocking;
use crate::target::{Seen, Target, TargetError};

/// How long a file system may take to say how full it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much there is of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All there is.
    pub total: u64,
    /// In use.
    pub used: u64,
    /// What a pod may still use.
    pub available: u64,
}

/// What is said of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Bytes; none if the volume doesn't answer.
    pub bytes: Option<Usage>,
    /// Inodes; none if the volume doesn't answer.
    pub inodes: Option<Usage>,
    /// What is wrong with it, and what to do.
    pub abnormal: Option<&'static str>,
}

/// Why there is nothing to say.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// Not there.
    #[error("volume {volume} is not published at {path}")]
    NotFound {
        /// The volume.
        volume: VolumeId,
        /// Where it was looked for.
        path: String,
    },
    /// The table of mounts can't be read.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Devices and mounts.
    #[error(transparent)]
    Volume(#[from] aldaas_volume::Error),
}

const DEAD: &str = "its connection to Ceph was lost for good (the FUSE server was killed, or this client was fenced): all I/O \
                    fails. Delete the pod; the next one gets a new clone";
const READ_ONLY: &str =
    "the file system has turned read-only after an error. Delete the pod; the next one gets a new clone";
const SILENT: &str = "the file system does not answer: see whether Ceph is healthy";

/// How full the volume at a path is.
///
/// # Errors
/// [`StatsError::NotFound`] where it is not there.
pub async fn stats(node: Arc<Node>, volume: VolumeId, target: Target) -> Result<Stats, StatsError> {
    let path = target.path();
    let not_found = || StatsError::NotFound { volume: volume.clone(), path: path.display().to_string() };
    let looked = {
        let (node, target) = (node.clone(), target.clone());
        blocking(move || target.look(&node)).await?
    };
    let Seen::Volume(spec) = looked else { return Err(not_found()) };
    if !may_be(&spec, &volume) {
        return Err(not_found());
    }
    let abnormal = {
        let (path, spec) = (path.clone(), spec.clone());
        blocking(move || condition(&node, &spec, &path)).await?
    };
    if abnormal == Some(DEAD) {
        return Ok(Stats { bytes: None, inodes: None, abnormal });
    }
    let counted = timeout(PATIENCE, blocking(move || rustix::fs::statvfs(&path))).await;
    let Ok(Ok(counted)) = counted else {
        return Ok(Stats { bytes: None, inodes: None, abnormal: abnormal.or(Some(SILENT)) });
    };
    Ok(Stats { bytes: Some(bytes(&counted)), inodes: Some(inodes(&counted)), abnormal })
}

/// A volume's own clone has the volume's handle for a name; named clones and builds have names of their own.
fn may_be(spec: &ImageSpec, volume: &VolumeId) -> bool {
    spec.namespace != CLONE || !is_handle(&spec.image) || spec.image == volume.handle().as_str()
}

fn condition(
    node: &Node,
    spec: &ImageSpec,
    path: &Path,
) -> Result<Option<&'static str>, aldaas_volume::Error> {
    let found = node.find(spec)?;
    if found.is_none_or(|found| matches!(found.server, Server::Dead | Server::None)) {
        return Ok(Some(DEAD));
    }
    let Some(mount) = mountinfo::top_at(path)? else { return Ok(None) };
    let has = |options: &str, word: &str| options.split(',').any(|option| option == word);
    // One that was mounted read-only says so in the mount's own options too.
    let turned = has(&mount.super_options, "ro") && !has(&mount.options, "ro");
    let failed = ["emergency_ro", "shutdown"].iter().any(|word| has(&mount.super_options, word));
    Ok((turned || failed).then_some(READ_ONLY))
}

fn bytes(counted: &StatVfs) -> Usage {
    let of = |blocks: u64| blocks.saturating_mul(counted.f_frsize);
    Usage {
        total: of(counted.f_blocks),
        used: of(counted.f_blocks.saturating_sub(counted.f_bfree)),
        available: of(counted.f_bavail),
    }
}

fn inodes(counted: &StatVfs) -> Usage {
    Usage {
        total: counted.f_files,
        used: counted.f_files.saturating_sub(counted.f_ffree),
        available: counted.f_favail,
    }
}
