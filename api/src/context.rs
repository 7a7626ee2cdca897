//! The volume context: what a pod's CSI volume asks for, and which pod asks.
//!
//! It comes from `volumeAttributes` in the pod, which anybody may write who may make pods, and from kubelet, which adds who the
//! pod is. So it says *what* (database, version, a name, a time) and never *how* (pool, size, mount options): those are the
//! database's.

use std::collections::BTreeMap;

use crate::{CloneName, DatabaseName, GoldenImageName, ImageRef, NameError, Ttl, Version, ttl::TtlError};

/// Most bytes of keys and values together, as CSI has it.
pub const CONTEXT_MAX: usize = 4096;
/// What kubelet's own keys begin with.
const KUBELET: &str = "csi.storage.k8s.io/";

/// Key: `orders:latest`, `orders:<golden image>` or `<golden image>`.
pub const DB: &str = "db";
/// Key: the golden image that `latest` was when the pod was admitted; for build and candidate volumes, the image itself.
pub const IMAGE: &str = "image";
/// Key: the name of a clone that outlives the pod.
pub const CLONE: &str = "clone";
/// Key: the idle time after which the clone is reaped, `30m`.
pub const TTL: &str = "ttl";
/// Key: `clone` (nothing said), `build` or `candidate`.
pub const KIND: &str = "kind";
const KEYS: [&str; 5] = [DB, IMAGE, CLONE, TTL, KIND];

/// What a volume asks for, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeContext {
    /// What.
    pub wanted: Wanted,
    /// For which pod.
    pub pod: PodRef,
}

/// What a volume is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A clone of a ready golden image.
    Clone(WantedClone),
    /// A blank image, on which a golden image is built.
    Build(GoldenImageName),
    /// A clone of a sealed, unverified image, on which it is verified.
    Candidate(GoldenImageName),
}

/// Which clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedClone {
    /// The database.
    pub database: DatabaseName,
    /// Which of its images.
    pub version: Version,
    /// What `latest` was when the pod was admitted.
    pub pinned: Option<GoldenImageName>,
    /// The name under which it outlives the pod.
    pub name: Option<CloneName>,
    /// The idle time after which it is reaped.
    pub ttl: Option<Ttl>,
}

impl Wanted {
    /// The database it is of.
    pub fn database(&self) -> &DatabaseName {
        match self {
            Self::Clone(clone) => &clone.database,
            Self::Build(image) | Self::Candidate(image) => image.database(),
        }
    }
}

/// A pod, as kubelet names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its service account.
    pub service_account: String,
}

/// Why a volume context was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// Too much of it.
    #[error("the volume's attributes have {0} bytes, more than the {CONTEXT_MAX} that CSI allows")]
    TooLong(usize),
    /// A key that means nothing here.
    #[error("volume attribute {0:?} is not known: use {known}", known = KEYS.join(", "))]
    UnknownKey(String),
    /// Nothing says which database.
    #[error(
        "volume attribute \"db\" is missing: write DATABASE:latest or DATABASE:IMAGE, e.g. orders:latest"
    )]
    NoDatabase,
    /// A build or candidate volume without its image.
    #[error("a {0} volume needs the attribute \"image\", the golden image's name")]
    NoImage(String),
    /// A key that does not go with the kind.
    #[error("volume attribute {key:?} does not go with kind {kind:?}")]
    Contradiction {
        /// The key.
        key: &'static str,
        /// The kind.
        kind: String,
    },
    /// A kind that does not exist.
    #[error("volume attribute \"kind\" is {0:?}: use clone, build or candidate")]
    UnknownKind(String),
    /// A name that is none.
    #[error("volume attribute {key:?}: {error}")]
    Name {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        error: NameError,
    },
    /// A time that is none.
    #[error("volume attribute \"ttl\": {0}")]
    Ttl(#[from] TtlError),
    /// An image of another database than the one asked for.
    #[error("volume attribute \"image\" is {image}, which is not an image of database {database}")]
    OtherDatabase {
        /// The image.
        image: GoldenImageName,
        /// The database.
        database: DatabaseName,
    },
    /// Kubelet did not say which pod it is.
    #[error(
        "kubelet did not pass {0:?}: the CSIDriver object needs podInfoOnMount: true, and the volume must be an inline (ephemeral) one"
    )]
    NoPod(&'static str),
    /// A PersistentVolume.
    #[error(
        "only inline (ephemeral) volumes are served: write the volume into the pod, not into a PersistentVolume"
    )]
    NotEphemeral,
}

impl VolumeContext {
    /// Reads a volume context. Every key that is not kubelet's own must be one of ours.
    pub fn parse(context: &BTreeMap<String, String>) -> Result<Self, ContextError> {
        let ours = context.iter().filter(|(key, _)| !key.starts_with(KUBELET));
        let bytes = ours.clone().map(|(key, value)| key.len() + value.len()).sum();
        if bytes > CONTEXT_MAX {
            return Err(ContextError::TooLong(bytes));
        }
        if let Some((unknown, _)) = ours.clone().find(|(key, _)| !KEYS.contains(&key.as_str())) {
            return Err(ContextError::UnknownKey(unknown.chars().take(80).collect()));
        }
        if context.get("csi.storage.k8s.io/ephemeral").is_some_and(|value| value != "true") {
            return Err(ContextError::NotEphemeral);
        }
        Ok(Self { wanted: wanted(context)?, pod: pod(context)? })
    }
}

fn wanted(context: &BTreeMap<String, String>) -> Result<Wanted, ContextError> {
    let kind = context.get(KIND).map_or("clone", String::as_str);
    match kind {
        "clone" => Ok(Wanted::Clone(clone(context)?)),
        "build" | "candidate" => {
            if let Some(key) = [DB, CLONE, TTL].into_iter().find(|key| context.contains_key(*key)) {
                return Err(ContextError::Contradiction { key, kind: kind.to_owned() });
            }
            let image = name(context, IMAGE)?.ok_or_else(|| ContextError::NoImage(kind.to_owned()))?;
            Ok(if kind == "build" { Wanted::Build(image) } else { Wanted::Candidate(image) })
        }
        unknown => Err(ContextError::UnknownKind(unknown.chars().take(40).collect())),
    }
}

fn clone(context: &BTreeMap<String, String>) -> Result<WantedClone, ContextError> {
    let reference: ImageRef = name(context, DB)?.ok_or(ContextError::NoDatabase)?;
    let database = reference.database.ok_or(ContextError::NoDatabase)?;
    let pinned: Option<GoldenImageName> = name(context, IMAGE)?;
    if let Some(image) = pinned.as_ref().filter(|image| *image.database() != database) {
        return Err(ContextError::OtherDatabase { image: image.clone(), database });
    }
    let ttl = context.get(TTL).map(|text| text.parse()).transpose()?;
    Ok(WantedClone { database, version: reference.version, pinned, name: name(context, CLONE)?, ttl })
}

fn name<T: std::str::FromStr<Err = NameError>>(
    context: &BTreeMap<String, String>,
    key: &'static str,
) -> Result<Option<T>, ContextError> {
    let parsed = context.get(key).map(|text| text.parse()).transpose();
    parsed.map_err(|error| ContextError::Name { key, error })
}

fn pod(context: &BTreeMap<String, String>) -> Result<PodRef, ContextError> {
    let field = |key: &'static str| match context.get(key) {
        Some(value) if !value.is_empty() => Ok(value.clone()),
        _ => Err(ContextError::NoPod(key)),
    };
    Ok(PodRef {
        namespace: field("csi.storage.k8s.io/pod.namespace")?,
        name: field("csi.storage.k8s.io/pod.name")?,
        uid: field("csi.storage.k8s.io/pod.uid")?,
        service_account: field("csi.storage.k8s.io/serviceAccount.name")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<VolumeContext, ContextError> {
        let kubelet = [
            ("csi.storage.k8s.io/pod.name", "web-1"),
            ("csi.storage.k8s.io/pod.namespace", "shop"),
            ("csi.storage.k8s.io/pod.uid", "4b0e6b1e"),
            ("csi.storage.k8s.io/serviceAccount.name", "default"),
            ("csi.storage.k8s.io/ephemeral", "true"),
        ];
        let all = kubelet.iter().chain(pairs).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        VolumeContext::parse(&all.collect())
    }

    const IMAGE_NAME: &str = "orders-20261123t033000z";

    #[test]
    fn a_clone_is_asked_for_by_database_and_version() {
        let context =
            parse(&[("db", "orders:latest"), ("image", IMAGE_NAME), ("ttl", "30m"), ("clone", "pr-1")])
                .unwrap();
        let Wanted::Clone(clone) = context.wanted else { panic!() };
        assert_eq!((clone.database.as_str(), clone.version), ("orders", Version::Latest));
        assert_eq!(clone.pinned.unwrap().to_string(), IMAGE_NAME);
        assert_eq!((clone.name.unwrap().as_str(), clone.ttl.unwrap().to_string().as_str()), ("pr-1", "30m"));
        assert_eq!(
            (context.pod.namespace.as_str(), context.pod.service_account.as_str()),
            ("shop", "default")
        );
        assert!(
            parse(&[("db", IMAGE_NAME)]).is_ok()
                && parse(&[("db", "orders:orders-20261123t033000z")]).is_ok()
        );
    }

    #[test]
    fn build_and_candidate_volumes_name_their_image_and_nothing_else() {
        let image = || IMAGE_NAME.parse().unwrap();
        assert_eq!(
            parse(&[("kind", "build"), ("image", IMAGE_NAME)]).unwrap().wanted,
            Wanted::Build(image())
        );
        assert_eq!(
            parse(&[("kind", "candidate"), ("image", IMAGE_NAME)]).unwrap().wanted,
            Wanted::Candidate(image())
        );
        assert_eq!(parse(&[("kind", "build")]), Err(ContextError::NoImage("build".into())));
        assert!(matches!(
            parse(&[("kind", "build"), ("image", IMAGE_NAME), ("ttl", "1h")]),
            Err(ContextError::Contradiction { key: "ttl", .. })
        ));
    }

    #[test]
    fn what_is_wrong_is_said_with_the_right_form() {
        let message = |pairs: &[(&str, &str)]| parse(pairs).unwrap_err().to_string();
        assert!(message(&[]).contains("orders:latest"));
        assert!(message(&[("db", "latest")]).contains("\"db\" is missing"));
        assert!(message(&[("db", "../etc:latest")]).contains("not a database name"));
        assert!(message(&[("db", "orders:latest"), ("pool", "other")]).contains("\"pool\" is not known"));
        assert!(
            message(&[("db", "orders:latest"), ("image", "web-20261123t033000z")])
                .contains("not an image of database orders")
        );
        assert!(message(&[("db", "orders:latest"), ("ttl", "soon")]).contains("30m"));
        assert!(message(&[("db", "orders:latest"), ("kind", "pvc")]).contains("clone, build or candidate"));
        assert!(message(&[("db", &"x".repeat(5000))]).contains("4096"));
        assert!(
            message(&[("db", "orders:latest"), ("csi.storage.k8s.io/ephemeral", "false")]).contains("inline")
        );
        let no_pod = BTreeMap::from([("db".to_owned(), "orders:latest".to_owned())]);
        assert!(VolumeContext::parse(&no_pod).unwrap_err().to_string().contains("podInfoOnMount"));
    }
}
