//! What can go wrong, in words that say what to do.

use aldaas_api::{CloneName, DatabaseName, GoldenImageName, NameError};
use aldaas_rbd as rbd;

use crate::{Holder, State};

/// The result of this room's operations.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on golden images or clones failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No golden image of that name.
    #[error("there is no golden image {0}: `aldaas images` lists those there are")]
    NoImage(GoldenImageName),
    /// Nothing is ready.
    #[error(
        "database {database} has no ready golden image{}: build one with `aldaas ingest {database} --from DUMP`",
        .other.as_ref().map(|(name, state)| format!(" ({name} is {state})")).unwrap_or_default()
    )]
    NoneReady {
        /// The database that was asked for.
        database: DatabaseName,
        /// Its newest image, which is not ready.
        other: Option<(GoldenImageName, State)>,
    },
    /// The image is there, but not in a state in which this can be done.
    #[error(
        "golden image {name} is {state}, not {wanted}: `aldaas images` shows what there is, `aldaas doctor` what is left over"
    )]
    WrongState {
        /// The image.
        name: GoldenImageName,
        /// What it is.
        state: State,
        /// What it would have to be.
        wanted: &'static str,
    },
    /// It is not the one who decides that is asked to decide.
    #[error("golden image {0} was built by somebody else, who answers for it")]
    OtherBuilder(GoldenImageName),
    /// The golden image's name is taken.
    #[error("an image golden/{0} exists already: give the new one another name, or remove that one first")]
    ImageExists(GoldenImageName),
    /// Somebody else made it.
    #[error(
        "image {0} was not made by aldaas and is left alone: choose another name, or remove it with `rbd rm`"
    )]
    Foreign(String),
    /// Names of clones on which images are verified, or that pods use.
    #[error("clone names like {0} are for aldaas' own use: choose another name")]
    ReservedName(CloneName),
    /// The clone's name is taken.
    #[error("a clone {0} exists already: choose another name, or remove it with `aldaas rm {0}`")]
    CloneExists(CloneName),
    /// The clone is there, of another golden image than the one asked for.
    #[error("clone {name} is one of golden image {of}, not of {wanted}: remove it first, or ask for {of}")]
    OtherParent {
        /// The clone.
        name: CloneName,
        /// The golden image it is of.
        of: GoldenImageName,
        /// The one that was asked for.
        wanted: GoldenImageName,
    },
    /// Another node, or another pod, uses a named clone.
    #[error("the clone is in use by {0}: it is free when that has ended")]
    Leased(String),
    /// No clone of that name.
    #[error("there is no clone {0}: `aldaas clones` lists those there are")]
    NoClone(CloneName),
    /// The last ready image of a database.
    #[error("{0} is the newest ready golden image of its database: build a newer one first, or say --force")]
    NewestReady(GoldenImageName),
    /// Somebody builds already.
    #[error(
        "another ingest of database {database} is running ({holder}): wait for it to end, then try again"
    )]
    BuilderRunning {
        /// The database.
        database: DatabaseName,
        /// Who is at it.
        holder: Box<Holder>,
    },
    /// Somebody has it, and nobody can say who.
    #[error("the build lock of database {0} is taken: wait a minute, then try again")]
    LockTaken(DatabaseName),
    /// The lease ran out, so that someone else may have begun.
    #[error("the build lock of database {0} was lost: the build can't be trusted any more and is given up")]
    LockLost(DatabaseName),
    /// Purging did not help.
    #[error(
        "{0} image(s) stay in the trash: `rbd trash ls --long` says what defers them, `-v` why they were not removed"
    )]
    StaysInTrash(usize),
    /// Somebody has it open.
    #[error("image {image} is still in use by {users}: end that first")]
    InUse {
        /// The image.
        image: String,
        /// Who watches it.
        users: String,
    },
    /// A name that RBD or aldaas does not take.
    #[error(transparent)]
    Name(#[from] NameError),
    /// RBD said no.
    #[error(transparent)]
    Rbd(#[from] rbd::Error),
}

impl Error {
    pub(crate) fn in_use(image: String, watchers: &[rbd::Watcher]) -> Self {
        let users = watchers.iter().map(|watcher| watcher.address.as_str()).collect::<Vec<_>>().join(", ");
        Self::InUse { image, users }
    }
}
