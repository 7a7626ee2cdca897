//! Why an ingest ended without a ready golden image.

use std::io;
use std::path::PathBuf;

use aldaas_api::event::Step;
use aldaas_api::{DatabaseName, GoldenImageName};

/// The result of this room's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an ingest failed. `latest` is what it was before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// In RBD.
    #[error(transparent)]
    Golden(#[from] aldaas_golden::Error),
    /// On the way from an image to a directory.
    #[error(transparent)]
    Volume(#[from] aldaas_volume::Error),
    /// In the engine, or reading the dump.
    #[error("{step}: {reason}")]
    Restore {
        /// Where it was.
        step: Step,
        /// Why, in plain words.
        reason: String,
        /// Whether trying again may help.
        temporary: bool,
    },
    /// Ceph went away, and took the engine's file system along.
    #[error(
        "the Ceph cluster stopped answering (see `ceph -s`): try again when it is back, after `aldaas doctor --clean` has \
         removed what is left over; meanwhile {0}"
    )]
    ClusterAway(Box<Error>),
    /// `aldaas-restore` ended without a word: it was killed, or crashed.
    #[error("aldaas-restore ended unexpectedly ({status}){}: try again", stderr_tail(.stderr))]
    Died {
        /// How it ended.
        status: String,
        /// The last of what it wrote.
        stderr: String,
    },
    /// The program is not there.
    #[error("{} can't be started: {source}. Build it with `hack/build`, or say where it is with --restore-program", .program.display())]
    NoProgram {
        /// Where it was looked for.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The name given to the image is another database's.
    #[error("{image} is no name for an image of {database}: leave --name out, or begin it with {database}-")]
    OtherDatabase {
        /// The name.
        image: GoldenImageName,
        /// Whose image it would be.
        database: DatabaseName,
    },
    /// The name given to the image is dated later than now.
    #[error(
        "{0} lies in the future, and would be latest until then: leave --name out, or name a time that has passed (UTC)"
    )]
    FromTheFuture(GoldenImageName),
    /// The dump is a file that can't be read.
    #[error("the dump {} can't be read: {source}", .path.display())]
    NoDump {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory or file of ours.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The user stopped it.
    #[error("stopped: nothing was kept")]
    Cancelled,
    /// A thread of ours ended early; its panic was printed.
    #[error("an internal task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    /// For `map_err`: a file operation of ours that failed while doing `what`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

fn stderr_tail(stderr: &str) -> String {
    match stderr.trim().lines().last() {
        Some(line) => format!(": {line}"),
        None => String::new(),
    }
}
