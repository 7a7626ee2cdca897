//! What can go wrong, and whether trying again may help.

use std::path::{Path, PathBuf};

use crate::{engine, format, source};

/// Why a restore, a check or a served engine ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The dump could not be read.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The dump is not what it should be.
    #[error(transparent)]
    Format(#[from] format::Error),
    /// The engine refused, failed or died.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// A file of ours could not be read or written.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The arguments cannot be carried out here.
    #[error("{0}")]
    Refused(String),
    /// What is in the data directory is not what the manifest says.
    #[error("{0}")]
    Differs(String),
    /// We were told to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Wraps an error of the file system; for use with `map_err`.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { action, path, source }
    }

    /// Whether trying again with the same input can only fail again.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Error::Source(err) => err.is_permanent(),
            Error::Engine(err) => err.is_permanent(),
            Error::Format(_) | Error::File { .. } | Error::Refused(_) | Error::Differs(_) => true,
            Error::Cancelled => false,
        }
    }

    /// Whether it ended because we were told to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Error::Cancelled
                | Error::Source(source::Error::Cancelled)
                | Error::Engine(engine::Error::Cancelled)
        )
    }
}
