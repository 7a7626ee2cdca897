//! The port that every database engine implements, and the engines.
//!
//! **To add an engine**, implement [`Engine`] in a module beside [`postgres`] and name it in [`Kind`].

pub mod postgres;

use std::future::Future;
use std::path::PathBuf;

use aldaas_api::manifest::Contents;
use tokio_util::sync::CancellationToken;

use crate::command::UserCommand;
use crate::evidence::Pipe;
use crate::format::{Dump, StreamError};
use crate::variables::Variables;

/// The engines there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// PostgreSQL, 13 or newer.
    Postgres,
}

/// Where an engine finds its data, and where it may put the rest.
#[derive(Clone, Debug)]
pub struct Place {
    /// The data directory: what ends up in the golden image.
    pub data: PathBuf,
    /// Sockets and logs; never part of the image.
    pub work: PathBuf,
    /// The database, as aldaas and the engine call it.
    pub database: String,
    /// What the user wants it to have beside that.
    pub extra: Extra,
}

/// What the user adds to how an engine is started.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// Arguments.
    pub args: Vec<String>,
    /// Environment.
    pub variables: Variables,
    /// Environment of its programs that load a dump.
    pub loaders: Variables,
}

/// How an engine is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To load: as fast as it can, with nothing to lose, and nobody else can connect.
    Load,
    /// As users will have it, but nobody else can connect: to look at what is there.
    Check,
    /// As users have it.
    Serve {
        /// Addresses to listen on.
        listen: String,
        /// TCP port; 0 chooses a free one.
        port: u16,
        /// Wait for the disk, so that the data survives a crash of the machine.
        fsync: bool,
    },
}

/// How a running engine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stop {
    /// Everything is written out: the next start needs no recovery.
    Fast,
    /// At once: for data that nobody needs any more.
    Immediate,
}

/// A database engine over one [`Place`]. All futures end soon after `cancel`.
pub trait Engine {
    /// A started engine. Dropping it ends it, uncleanly.
    type Server: Server;

    /// Its name in manifests.
    fn name(&self) -> &'static str;

    /// Its full version.
    fn version(&self) -> Result<String, Error>;

    /// Makes an empty data directory.
    fn init(&self, cancel: &CancellationToken) -> impl Future<Output = Result<(), Error>>;

    /// Starts it, and returns when it answers.
    fn start(
        &self,
        mode: &Mode,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<Self::Server, Error>>;

    /// Reads `dump` into it to the last byte. In [`Mode::Load`].
    fn load(
        &self,
        server: &mut Self::Server,
        dump: Dump,
        jobs: u32,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<(), LoadError>>;

    /// As [`load`](Self::load), with a command of the user's.
    fn load_by(
        &self,
        server: &mut Self::Server,
        command: &UserCommand<'_>,
        dump: Pipe,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<(), crate::Error>>;

    /// Runs statements that mask data, in a transaction of their own. Tells how many rows they touched. In
    /// [`Mode::Load`].
    fn mask(
        &self,
        server: &mut Self::Server,
        sql: &str,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<u64, Error>>;

    /// Leaves nothing in the files of what was masked. In [`Mode::Load`], with no command running any more.
    fn forget(
        &self,
        server: &mut Self::Server,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<(), Error>>;

    /// Runs a command of the user's beside it.
    fn run(
        &self,
        server: &mut Self::Server,
        command: &UserCommand<'_>,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<(), crate::Error>>;

    /// Makes clones cheap: whatever a first reader or writer would have to tidy up is done here. In [`Mode::Load`].
    fn bake(
        &self,
        server: &mut Self::Server,
        jobs: u32,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<(), Error>>;

    /// Counts what is there, exactly.
    fn contents(
        &self,
        server: &mut Self::Server,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<Contents, Error>>;

    /// Runs one check of the user's: a statement that must succeed and return a row, and no value of which may be
    /// `false` or NULL.
    fn check(
        &self,
        server: &mut Self::Server,
        sql: &str,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<(), Error>>;

    /// Stops it and waits until it has; at once when `cancel` comes meanwhile.
    fn stop(
        &self,
        server: Self::Server,
        how: Stop,
        cancel: &CancellationToken,
    ) -> impl Future<Output = Result<(), Error>>;

    /// Proves, from the data directory alone, that it stopped cleanly; and that all of it is on disk.
    fn prove(&self, cancel: &CancellationToken) -> impl Future<Output = Result<(), Error>>;
}

/// A started engine.
pub trait Server {
    /// Where it listens, when it does.
    fn port(&self) -> u16;

    /// The directory of its Unix socket.
    fn socket_dir(&self) -> &std::path::Path;

    /// Its main process.
    fn pid(&self) -> u32;

    /// Waits until it ends by itself, which it never should.
    fn died(&mut self) -> impl Future<Output = Error>;
}

/// Why an engine did not do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It isn't installed.
    #[error("{program} was not found in {}: install the engine, or say where it is with --bin-dir", looked.join(", "))]
    NotFound {
        /// What was looked for.
        program: &'static str,
        /// Where.
        looked: Vec<String>,
    },
    /// It cannot work here.
    #[error("{0}")]
    Refused(String),
    /// The file system that holds the data is full.
    #[error("the volume is too small for this database (no space left on device at {}): make it larger (--size)", path.display())]
    NoSpace {
        /// What is full.
        path: PathBuf,
    },
    /// A statement of the dump failed.
    #[error("{0}")]
    Statement(String),
    /// A statement that masks data failed.
    #[error("the mask {sql:?} failed: {said}")]
    Mask {
        /// The statement.
        sql: String,
        /// What the engine said.
        said: String,
    },
    /// A check of the user's did not hold.
    #[error("the check {sql:?} does not hold: {said}")]
    Check {
        /// The statement.
        sql: String,
        /// What came out.
        said: String,
    },
    /// It stopped while it was needed.
    #[error("the engine died while it was needed ({how}); its last words: {words}")]
    Died {
        /// How it ended.
        how: String,
        /// The end of its log.
        words: String,
    },
    /// It did not start.
    #[error("the engine did not start ({how}); its last words: {words}")]
    NotStarted {
        /// How it ended.
        how: String,
        /// The end of its log.
        words: String,
    },
    /// It stopped, but not cleanly.
    #[error("the engine did not stop cleanly ({0})")]
    Unclean(String),
    /// One of its programs failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Which.
        program: &'static str,
        /// What it said.
        said: String,
    },
    /// The system refused something.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// We were told to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Wraps an error of the system; for use with `map_err`.
    pub fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
        let action = action.into();
        move |source| Error::Io { action, source }
    }

    /// Whether trying again with the same input can only fail again.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Error::Died { .. } | Error::NotStarted { .. } | Error::Unclean(_) | Error::Cancelled)
    }
}

/// Why a dump was not loaded: the dump's fault, or the engine's.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read to its end.
    #[error(transparent)]
    Dump(#[from] StreamError),
    /// The engine did not take it.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl From<LoadError> for crate::Error {
    fn from(err: LoadError) -> crate::Error {
        match err {
            LoadError::Dump(err) => err.into(),
            LoadError::Engine(err) => err.into(),
        }
    }
}
