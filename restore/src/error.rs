//! What can go wrong, and whether trying again may help.

use std::path::{Path, PathBuf};

use aldaas_api::Ttl;

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
    /// A command of the user's did not succeed.
    #[error("the {what} ({program}) failed with {how}: {said}")]
    Command {
        /// Which, e.g. `mask command`.
        what: &'static str,
        /// The program.
        program: String,
        /// How it ended.
        how: String,
        /// Its last words.
        said: String,
        /// Whether trying again may help.
        temporary: bool,
    },
    /// It took too long.
    #[error("it took longer than {limit}, and was stopped: give it more time ({advice}), or more resources")]
    TimedOut {
        /// How long it may take.
        limit: Ttl,
        /// How to change that.
        advice: &'static str,
    },
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
            Error::Command { temporary, .. } => !temporary,
            Error::Format(_)
            | Error::File { .. }
            | Error::Refused(_)
            | Error::Differs(_)
            | Error::TimedOut { .. } => true,
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

/// A text without line breaks and other things that move a cursor: a reason is a line of our log, and no line of it may
/// begin as somebody else wants it to.
#[must_use]
pub fn in_one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
