//! What comes in, checked once. Behind this, every field is what its type says.

use std::path::Path;

use aldaas_api::VolumeId;
use aldaas_api::context::{ContextError, VolumeContext, Wanted};
use aldaas_volume::Filesystem;
use tonic::Status;

use crate::proto::csi::volume_capability::access_mode::Mode;
use crate::proto::csi::volume_capability::{AccessType, MountVolume};
use crate::proto::csi::{NodePublishVolumeRequest, VolumeCapability};
use crate::publish::PublishRequest;
use crate::target::{BadTarget, Target};

/// Why a request is none. All of these are `INVALID_ARGUMENT`.
#[derive(Debug, thiserror::Error)]
pub enum BadRequest {
    /// A field is empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// Not a volume id.
    #[error(transparent)]
    VolumeId(#[from] aldaas_api::volume_id::VolumeIdError),
    /// Not a target.
    #[error(transparent)]
    Target(#[from] BadTarget),
    /// Not a volume context.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A raw device.
    #[error("block volumes are not served: a database needs its file system")]
    Block,
    /// An access mode that is not one node's.
    #[error("access mode {0} is not served: a clone is for one pod on one node (SINGLE_NODE_WRITER)")]
    AccessMode(&'static str),
    /// What only the database's own definition says.
    #[error("mount flags are not taken from a volume: they are the Database's (spec.clone.mountOptions)")]
    MountFlags,
    /// A capability that is not announced.
    #[error("volume_mount_group is not served: the files keep the engine's own user and group")]
    MountGroup,
    /// A file system that aldaas doesn't make.
    #[error("fsType {0:?} is not served: leave it out")]
    Filesystem(String),
    /// A build can't be read-only.
    #[error("a build volume can't be read-only")]
    ReadOnlyBuild,
}

impl From<BadRequest> for Status {
    fn from(error: BadRequest) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Reads a publish request. What the pod's author says decides about what, never about how.
///
/// # Errors
/// [`BadRequest`], the first of them.
pub fn publish(request: NodePublishVolumeRequest, kubelet_dir: &Path) -> Result<PublishRequest, BadRequest> {
    let volume = volume_id(&request.volume_id)?;
    let target = target_path(&request.target_path, "target_path", kubelet_dir)?;
    let (mount, read_only_mode) = capability(request.volume_capability)?;
    let filesystem = match mount.fs_type.as_str() {
        "" => None,
        name => Some(name.parse::<Filesystem>().map_err(|_| BadRequest::Filesystem(short(name)))?),
    };
    let context = VolumeContext::parse(&request.volume_context.into_iter().collect())?;
    let read_only = request.readonly || read_only_mode;
    if read_only && matches!(context.wanted, Wanted::Build(_)) {
        return Err(BadRequest::ReadOnlyBuild);
    }
    Ok(PublishRequest { volume, target, context, read_only, filesystem })
}

/// Reads a volume id.
///
/// # Errors
/// When it is missing or none.
pub fn volume_id(text: &str) -> Result<VolumeId, BadRequest> {
    if text.is_empty() {
        return Err(BadRequest::Missing("volume_id"));
    }
    Ok(text.parse()?)
}

/// Reads a path below kubelet's directory.
///
/// # Errors
/// When it is missing or none.
pub fn target_path(text: &str, field: &'static str, kubelet_dir: &Path) -> Result<Target, BadRequest> {
    if text.is_empty() {
        return Err(BadRequest::Missing(field));
    }
    Ok(Target::parse(text, kubelet_dir)?)
}

fn capability(capability: Option<VolumeCapability>) -> Result<(MountVolume, bool), BadRequest> {
    let capability = capability.ok_or(BadRequest::Missing("volume_capability"))?;
    let mount = match capability.access_type {
        None => return Err(BadRequest::Missing("volume_capability.access_type")),
        Some(AccessType::Block(_)) => return Err(BadRequest::Block),
        Some(AccessType::Mount(mount)) => mount,
    };
    if !mount.mount_flags.is_empty() {
        return Err(BadRequest::MountFlags);
    }
    if !mount.volume_mount_group.is_empty() {
        return Err(BadRequest::MountGroup);
    }
    let mode = capability.access_mode.ok_or(BadRequest::Missing("volume_capability.access_mode"))?;
    match Mode::try_from(mode.mode) {
        Ok(Mode::SingleNodeWriter | Mode::SingleNodeSingleWriter | Mode::SingleNodeMultiWriter) => {
            Ok((mount, false))
        }
        Ok(Mode::SingleNodeReaderOnly) => Ok((mount, true)),
        Ok(Mode::Unknown) => Err(BadRequest::Missing("volume_capability.access_mode")),
        Ok(mode) => Err(BadRequest::AccessMode(mode.as_str_name())),
        Err(_) => Err(BadRequest::AccessMode("of a number that this version does not know")),
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}
