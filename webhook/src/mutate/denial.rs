//! Why a pod is not admitted, in words for those who wrote it.

use aldaas_api::keys::{CONTAINER, KeyError};
use aldaas_api::{DatabaseName, GoldenImageName};

use crate::catalogue::Suggested;

/// Why a pod is not admitted. Its text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// What stands on it can't be read.
    #[error("{0}")]
    Keys(#[from] KeyError),
    /// The cache was never filled.
    #[error("aldaas' webhook has just started and does not know the cluster yet: try again in some seconds")]
    NotReady,
    /// The namespace is not in the cache (yet).
    #[error("aldaas' webhook does not know namespace {0} yet: try again in some seconds")]
    UnknownNamespace(String),
    /// No such database.
    #[error("there is no database {database}{}", nearest(.near))]
    UnknownDatabase {
        /// What was asked for.
        database: DatabaseName,
        /// What may have been meant.
        near: Suggested,
    },
    /// The object can't be read.
    #[error(
        "database {database} can't be used: {why}. Ask who runs aldaas to look at it: kubectl describe database {database}"
    )]
    BrokenDatabase {
        /// The database.
        database: DatabaseName,
        /// What is wrong with it.
        why: String,
    },
    /// It may not be cloned here.
    #[error("database {database} may not be cloned in namespace {namespace}{}: ask {} for access", meant(.selector), whom(.contact))]
    NoAccess {
        /// The database.
        database: DatabaseName,
        /// The pod's namespace.
        namespace: String,
        /// Labels that namespaces need for it.
        selector: Option<String>,
        /// Whom to ask.
        contact: Option<String>,
    },
    /// Nothing to clone yet.
    #[error("database {database} has no ready golden image yet: {doing}")]
    NoReadyImage {
        /// The database.
        database: DatabaseName,
        /// What its ingest is doing.
        doing: String,
    },
    /// The image asked for can't be cloned.
    #[error("golden image {image} {why}{}", instead(.database, .ready))]
    ImageNotReady {
        /// The database.
        database: DatabaseName,
        /// The image.
        image: Box<GoldenImageName>,
        /// Why not.
        why: String,
        /// The newest that can.
        ready: Vec<GoldenImageName>,
    },
    /// The named container does not exist.
    #[error("{CONTAINER} is {name:?}, but the pod has no such container: its containers are {}", have.join(", "))]
    NoSuchContainer {
        /// The name.
        name: String,
        /// Those there are.
        have: Vec<String>,
    },
    /// Several containers could be meant.
    #[error(
        "which container gets the clone of {database}? {why}: write {CONTAINER}: NAME, with one of {}",
        have.join(", ")
    )]
    WhichContainer {
        /// The database.
        database: DatabaseName,
        /// Why it is not clear.
        why: &'static str,
        /// The containers.
        have: Vec<String>,
    },
    /// Two databases at one place.
    #[error(
        "databases {one} and {other} would both be mounted at {path} in container {container}: write which container \
         gets which, {CONTAINER}: {one}=NAME,{other}=NAME"
    )]
    SamePlace {
        /// A database.
        one: DatabaseName,
        /// Another.
        other: DatabaseName,
        /// Where.
        path: String,
        /// In which container.
        container: String,
    },
    /// Something else is mounted there, which is not ours to take away.
    #[error(
        "container {container} mounts volume {volume} at {path}, where the clone of {database} has to be and nothing else: remove that mount"
    )]
    MountTaken {
        /// The database.
        database: DatabaseName,
        /// The container.
        container: String,
        /// The volume.
        volume: String,
        /// Where.
        path: String,
    },
    /// The pod has another volume of our name.
    #[error(
        "the pod has a volume {volume} already, which is the name of the clone of {database}: give it another name"
    )]
    VolumeTaken {
        /// The database.
        database: DatabaseName,
        /// The volume.
        volume: String,
    },
    /// The pod has our volume, asking for something else.
    #[error(
        "the pod's volume {volume} asks for {has}, and its annotations for {asked}: remove the volume, the webhook adds it"
    )]
    VolumeContradicts {
        /// The volume.
        volume: String,
        /// What it asks for.
        has: String,
        /// What the annotations ask for.
        asked: String,
    },
    /// Clones are for Linux.
    #[error("the pod runs on Windows, and a clone is a file system for Linux")]
    Windows,
    /// The engine could not read the data.
    #[error(
        "container {container} runs {kind} {has} (image {image}), but {golden} was made with {kind} {needs}: use an image of \
         version {needs}"
    )]
    OtherVersion {
        /// The container.
        container: String,
        /// The engine.
        kind: &'static str,
        /// The major version it runs.
        has: u32,
        /// Its image.
        image: String,
        /// The golden image.
        golden: Box<GoldenImageName>,
        /// The version that made it.
        needs: u32,
    },
}

impl Denial {
    /// The HTTP code of the API server's answer.
    pub fn code(&self) -> u16 {
        match self {
            Self::Keys(_)
            | Self::NoSuchContainer { .. }
            | Self::WhichContainer { .. }
            | Self::SamePlace { .. }
            | Self::MountTaken { .. }
            | Self::VolumeTaken { .. }
            | Self::VolumeContradicts { .. }
            | Self::Windows
            | Self::OtherVersion { .. } => 400,
            Self::NoAccess { .. } => 403,
            Self::UnknownDatabase { .. } => 404,
            Self::NoReadyImage { .. } | Self::ImageNotReady { .. } | Self::BrokenDatabase { .. } => 409,
            Self::NotReady | Self::UnknownNamespace(_) => 503,
        }
    }

    /// A word for metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys",
            Self::NotReady => "not-ready",
            Self::UnknownNamespace(_) => "unknown-namespace",
            Self::UnknownDatabase { .. } => "unknown-database",
            Self::BrokenDatabase { .. } => "broken-database",
            Self::NoAccess { .. } => "no-access",
            Self::NoReadyImage { .. } => "no-ready-image",
            Self::ImageNotReady { .. } => "image-not-ready",
            Self::NoSuchContainer { .. } => "no-such-container",
            Self::WhichContainer { .. } => "which-container",
            Self::SamePlace { .. } => "same-place",
            Self::MountTaken { .. } => "mount-taken",
            Self::VolumeTaken { .. } => "volume-taken",
            Self::VolumeContradicts { .. } => "volume-contradicts",
            Self::Windows => "windows",
            Self::OtherVersion { .. } => "other-version",
        }
    }
}

fn list<T: ToString>(names: &[T]) -> String {
    names.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

fn nearest(near: &Suggested) -> String {
    match near {
        Suggested::Near(names) if names.len() == 1 => format!(": did you mean {}?", names[0]),
        Suggested::Near(names) => format!(": did you mean one of {}?", list(names)),
        Suggested::Some(names) if names.is_empty() => {
            ", nor any other that this namespace may clone".to_owned()
        }
        Suggested::Some(names) => {
            format!("; this namespace may clone {}: kubectl get databases", list(names))
        }
    }
}

fn meant(selector: &Option<String>) -> String {
    match selector {
        Some(selector) => format!(" (only in namespaces with {selector})"),
        None => " (only in aldaas' own)".to_owned(),
    }
}

fn whom(contact: &Option<String>) -> &str {
    contact.as_deref().unwrap_or("who runs aldaas")
}

fn instead(database: &DatabaseName, ready: &[GoldenImageName]) -> String {
    match ready {
        [] => format!(", and database {database} has no other"),
        ready => format!(": use {database}:latest, or one of {}", list(ready)),
    }
}
