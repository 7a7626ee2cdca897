//! What can go wrong, which gRPC code says so, and whether that is the last word.

use std::io::ErrorKind;
use std::path::PathBuf;

use aldaas_api::{CloneName, GoldenImageName};
use aldaas_golden as golden;
use aldaas_rbd as rbd;
use aldaas_volume as volume;
use tonic::Code;

use crate::access::Denied;
use crate::removal::RemoveError;
use crate::target::TargetError;

/// What waits for others is told when the plugin is stopped.
pub(crate) const STOPPING: &str = "the node plugin is being stopped: ask again, its successor answers";

/// Why a volume was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Another call for the same volume is at it.
    #[error("another call for this volume is being worked on: ask again when it has ended")]
    Pending,
    /// The time was over before it was this call's turn.
    #[error("too much is being published here at the moment: it was not this volume's turn in time")]
    TooLate,
    /// The plugin is told to stop, and this call has not begun its work.
    #[error("{STOPPING}")]
    Stopping,
    /// The pod may not have it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The pod expects another file system.
    #[error("the volume asks for fsType {asked}, the database has {is}: leave fsType out")]
    OtherFilesystem {
        /// What the pod expects.
        asked: volume::Filesystem,
        /// What it would get.
        is: volume::Filesystem,
    },
    /// The named clone is somebody else's at the moment.
    #[error("clone {clone:?} is in use by {by}: a named clone has one user at a time, and is free when that one has ended", clone = .clone.as_str())]
    InUse {
        /// What the user calls it.
        clone: CloneName,
        /// Who has it.
        by: String,
    },
    /// The image that is to be looked at is still being built.
    #[error("golden image {image} is not sealed yet: the volume comes with the seal")]
    NotSealed {
        /// Which image.
        image: GoldenImageName,
    },
    /// The volume is there, but not as it is asked for now.
    #[error("{} is published already: {what}", .target.display())]
    PublishedOtherwise {
        /// Where.
        target: PathBuf,
        /// As what.
        what: &'static str,
    },
    /// The volume is there, somewhere else.
    #[error("this volume is published at {} already, and a volume of one pod is at one place", .target.display())]
    PublishedElsewhere {
        /// Where.
        target: PathBuf,
    },
    /// Nothing can be mounted at the target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Golden images and clones.
    #[error(transparent)]
    Golden(#[from] golden::Error),
    /// Devices and mounts.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// It failed for good, and what it had done could not be taken back yet.
    #[error("{error}; what was done so far is still there ({undo}) and is taken away at the next try")]
    NotUndone {
        /// Why it failed.
        error: Box<PublishError>,
        /// Why it could not be undone.
        undo: Box<UnpublishError>,
    },
}

impl PublishError {
    /// The gRPC code that says so.
    pub fn code(&self) -> Code {
        match self {
            Self::Pending | Self::InUse { .. } | Self::NotSealed { .. } => Code::Aborted,
            Self::TooLate => Code::DeadlineExceeded,
            Self::Stopping => Code::Unavailable,
            Self::Denied(denied) => denied.code(),
            Self::OtherFilesystem { .. } => Code::InvalidArgument,
            Self::PublishedOtherwise { .. } => Code::AlreadyExists,
            Self::PublishedElsewhere { .. } => Code::FailedPrecondition,
            Self::Target(error) => code_of_target(error),
            Self::Golden(error) => code_of_golden(error),
            Self::Volume(error) => code_of_volume(error),
            Self::NotUndone { .. } => Code::Unavailable,
        }
    }

    /// Whether kubelet takes this for the last word: it may never ask again.
    pub fn is_final(&self) -> bool {
        is_final(self.code())
    }
}

/// Why a volume was not taken back.
#[derive(Debug, thiserror::Error)]
pub enum UnpublishError {
    /// Another call for the same volume is at it.
    #[error("another call for this volume is still being worked on: ask again")]
    Pending,
    /// The plugin is told to stop, and this call has not begun its work.
    #[error("{STOPPING}")]
    Stopping,
    /// The target can't be freed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Golden images and clones.
    #[error(transparent)]
    Golden(#[from] golden::Error),
    /// Devices and mounts.
    #[error(transparent)]
    Volume(#[from] volume::Error),
}

impl UnpublishError {
    /// The gRPC code that says so.
    pub fn code(&self) -> Code {
        match self {
            Self::Pending => Code::DeadlineExceeded,
            Self::Stopping => Code::Unavailable,
            Self::Target(error) => code_of_target(error),
            Self::Golden(error) => code_of_golden(error),
            Self::Volume(error) => code_of_volume(error),
        }
    }
}

impl From<RemoveError> for UnpublishError {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::Volume(error) => Self::Volume(error),
            RemoveError::Golden(error) => Self::Golden(error),
        }
    }
}

/// Whether kubelet may never ask again after this code.
pub fn is_final(code: Code) -> bool {
    !matches!(
        code,
        Code::Ok
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Unavailable
            | Code::ResourceExhausted
            | Code::Aborted
    )
}

fn code_of_target(error: &TargetError) -> Code {
    match error {
        TargetError::Unusable { .. } | TargetError::Foreign { .. } => Code::FailedPrecondition,
        TargetError::Volume(error) => code_of_volume(error),
        TargetError::Io { .. } => Code::Internal,
    }
}

fn code_of_golden(error: &golden::Error) -> Code {
    use golden::Error as E;
    match error {
        E::NoImage(_) | E::NoClone(_) => Code::NotFound,
        E::NoneReady { .. }
        | E::WrongState { .. }
        | E::Foreign(_)
        | E::NewestReady(_)
        | E::OtherBuilder(_) => Code::FailedPrecondition,
        E::ImageExists(_) | E::CloneExists(_) | E::OtherParent { .. } => Code::AlreadyExists,
        E::ReservedName(_) | E::Name(_) => Code::InvalidArgument,
        E::Leased(_) | E::InUse { .. } | E::BuilderRunning { .. } | E::LockTaken(_) => Code::Aborted,
        E::LockLost(_) | E::StaysInTrash(_) => Code::Unavailable,
        E::Rbd(error) => code_of_rbd(error),
    }
}

fn code_of_rbd(error: &rbd::Error) -> Code {
    if error.is_no_space() {
        Code::ResourceExhausted
    } else if error.is_permission() || error.is_invalid() {
        // The plugin's own rights or settings: no try will change them.
        Code::Internal
    } else {
        // What Ceph says while it is away, comes back or cuts somebody off passes.
        Code::Unavailable
    }
}

fn code_of_volume(error: &volume::Error) -> Code {
    use volume::Error as E;
    match error {
        _ if error.is_busy() => Code::Aborted,
        E::NoFreeLoop { .. } | E::NoFreeRbd { .. } => Code::ResourceExhausted,
        E::ServerStart { .. } | E::NoServer { .. } | E::ImageNotFound { .. } => Code::Unavailable,
        E::Server { errno: Some(errno), .. } => match rustix::io::Errno::from_raw_os_error(*errno) {
            rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT => Code::ResourceExhausted,
            _ => Code::Unavailable,
        },
        E::Server { errno: None, .. } => Code::Unavailable,
        // Of the two, a socket's time-out is the second.
        E::Io { source, .. } if matches!(source.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
            Code::Unavailable
        }
        E::OpenOtherwise { .. } => Code::AlreadyExists,
        _ if error.is_wrong_content() => Code::FailedPrecondition,
        _ => Code::Internal,
    }
}
