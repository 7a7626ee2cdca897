//! What an image's metadata says: the keys, and their values as types.
//!
//! Readable by hand with `rbd image-meta list aldaas/golden/orders-…`. A clone inherits its parent's keys (librbd copies them),
//! so a clone is told by a key of its own, [`CLONE_OF`], and by the rados namespace it lives in.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use aldaas_api::GoldenImageName;
use aldaas_api::manifest::Manifest;
use jiff::Timestamp;

use crate::Holder;
use crate::pod::{BUILD, PodUse, USE};

/// The state of a golden image.
pub const STATE: &str = "aldaas.dev/state";
/// The database it is of.
pub const DATABASE: &str = "aldaas.dev/database";
/// When it was made, RFC 3339.
pub const CREATED_AT: &str = "aldaas.dev/created-at";
/// Its size in bytes as a device.
pub const SIZE: &str = "aldaas.dev/size";
/// Where the dump came from.
pub const SOURCE: &str = "aldaas.dev/source";
/// The manifest, as JSON on one line.
pub const MANIFEST: &str = "aldaas.dev/manifest";
/// When it was verified, RFC 3339.
pub const READY_AT: &str = "aldaas.dev/ready-at";
/// Why it failed.
pub const REASON: &str = "aldaas.dev/reason";
/// On a clone: the golden image it is of. This key makes it a clone of ours.
pub const CLONE_OF: &str = "aldaas.dev/clone-of";
/// On a clone: what it is for.
pub const PURPOSE: &str = "aldaas.dev/purpose";
/// On a clone: the process with which it ends, if any.
pub const HOLDER: &str = "aldaas.dev/holder";
/// On a clone: when it was made. (Not [`CREATED_AT`], which it inherits.)
pub const CLONED_AT: &str = "aldaas.dev/cloned-at";

/// In the place of the golden image's name: the clone never had a record, and its maker, should it live, shall not write one
/// any more.
pub(crate) const CONDEMNED: &str = "-";

/// Keys and values of one image.
pub type Metadata = BTreeMap<String, String>;

/// In which part of its life a golden image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Being built.
    Candidate,
    /// Complete and never written again; not yet verified.
    Sealed,
    /// Verified on a clone.
    Ready,
    /// It could not be built or verified; the reason is kept.
    Failed,
    /// On its way out: it takes no new clones and goes with its last one.
    Retired,
}

impl State {
    const ALL: [Self; 5] = [Self::Candidate, Self::Sealed, Self::Ready, Self::Failed, Self::Retired];

    /// The word that stands in the metadata and is shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Sealed => "sealed",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Retired => "retired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(())
    }
}

/// What a clone is for, and so when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To verify a sealed image; ends with the builder.
    Verify,
    /// For one command; ends with the process that made it.
    Run,
    /// Somebody asked for it by name; stays until it is removed.
    Named,
    /// For one volume of a pod; ends with the pod.
    Pod,
    /// A pod asked for it by name; outlives it for its TTL, and comes back to the next pod that asks.
    PodNamed,
    /// One that this version doesn't know. It is never written.
    Other,
}

impl Purpose {
    const ALL: [Self; 5] = [Self::Verify, Self::Run, Self::Named, Self::Pod, Self::PodNamed];

    /// The word that stands in the metadata and is shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Run => "run",
            Self::Named => "named",
            Self::Pod => "pod",
            Self::PodNamed => "pod-named",
            Self::Other => "other",
        }
    }
}

impl FromStr for Purpose {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text).ok_or(())
    }
}

/// What a golden image's metadata says.
#[derive(Clone, Debug, PartialEq)]
pub struct GoldenRecord {
    /// Its state.
    pub state: State,
    /// When its build began.
    pub created_at: Timestamp,
    /// Its size as a device, in bytes.
    pub size: u64,
    /// Where the dump came from.
    pub source: String,
    /// What came out, once it is sealed.
    pub manifest: Option<Manifest>,
    /// When it was verified.
    pub ready_at: Option<Timestamp>,
    /// Why it failed.
    pub reason: Option<String>,
    /// The pod that builds it, where one does: what becomes of it is then decided in the cluster, not by who holds a lock.
    pub builder: Option<PodUse>,
}

impl GoldenRecord {
    /// Reads a golden image's metadata; none if it is not one of ours (or not yet: the first write is still to come).
    pub fn read(metadata: &Metadata) -> Option<Self> {
        Some(Self {
            state: metadata.get(STATE)?.parse().ok()?,
            created_at: metadata.get(CREATED_AT)?.parse().ok()?,
            size: metadata.get(SIZE)?.parse().ok()?,
            source: metadata.get(SOURCE).cloned().unwrap_or_default(),
            manifest: metadata.get(MANIFEST).and_then(|json| serde_json::from_str(json).ok()),
            ready_at: metadata.get(READY_AT).and_then(|at| at.parse().ok()),
            reason: metadata.get(REASON).cloned(),
            builder: PodUse::read(metadata, BUILD),
        })
    }
}

/// What a clone's metadata says.
#[derive(Clone, Debug, PartialEq)]
pub struct CloneRecord {
    /// The golden image it is of.
    pub golden_image: GoldenImageName,
    /// What it is for.
    pub purpose: Purpose,
    /// The process with which it ends.
    pub holder: Option<Holder>,
    /// When it was made.
    pub cloned_at: Timestamp,
    /// The pod that uses it, or used it last.
    pub pod: Option<PodUse>,
}

impl CloneRecord {
    /// Reads a clone's metadata; none if it has no record (yet). What of it can't be read doesn't make it somebody else's.
    pub fn read(metadata: &Metadata) -> Option<Self> {
        let text = |key: &str| metadata.get(key).map(String::as_str).unwrap_or_default();
        Some(Self {
            golden_image: metadata.get(CLONE_OF)?.parse().ok()?,
            purpose: text(PURPOSE).parse().unwrap_or(Purpose::Other),
            holder: text(HOLDER).parse().ok(),
            cloned_at: text(CLONED_AT).parse().unwrap_or(Timestamp::UNIX_EPOCH),
            pod: PodUse::read(metadata, USE),
        })
    }

    /// The metadata that says this.
    pub fn write(&self) -> Metadata {
        let mut metadata = BTreeMap::from([
            (CLONE_OF.to_owned(), self.golden_image.to_string()),
            (PURPOSE.to_owned(), self.purpose.as_str().to_owned()),
            (CLONED_AT.to_owned(), self.cloned_at.to_string()),
        ]);
        if let Some(holder) = &self.holder {
            metadata.insert(HOLDER.to_owned(), holder.encode());
        }
        metadata.extend(self.pod.iter().flat_map(|pod| pod.write(USE)));
        metadata
    }
}

/// Whether a clone's record was written, even if it can't be read.
pub(crate) fn has_clone_record(metadata: &Metadata) -> bool {
    metadata.get(CLONE_OF).is_some_and(|of| of != CONDEMNED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_purpose_reads_back() {
        for state in State::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        for purpose in Purpose::ALL {
            assert_eq!(purpose.as_str().parse(), Ok(purpose));
        }
    }

    #[test]
    fn a_clone_record_reads_back_beside_what_it_inherited() {
        let record = CloneRecord {
            golden_image: "orders-20261123t033000z".parse().unwrap(),
            purpose: Purpose::Run,
            holder: Some(Holder::this_process()),
            cloned_at: "2026-11-23T04:00:00Z".parse().unwrap(),
            pod: Some(PodUse { volume: "csi-1".into(), ..Default::default() }),
        };
        let mut metadata = record.write();
        metadata.insert(STATE.into(), "ready".into());
        metadata.insert(CREATED_AT.into(), "2026-11-23T03:30:00Z".into());
        assert_eq!(CloneRecord::read(&metadata), Some(record));
    }

    #[test]
    fn a_clone_whose_record_is_from_another_version_is_still_a_clone() {
        let metadata = Metadata::from([
            (CLONE_OF.into(), "orders-20261123t033000z".into()),
            (PURPOSE.into(), "branch".into()),
            (HOLDER.into(), "?".into()),
        ]);
        let record = CloneRecord::read(&metadata).unwrap();
        assert_eq!((record.purpose, record.holder, record.pod), (Purpose::Other, None, None));
    }

    #[test]
    fn an_image_without_our_keys_is_not_ours() {
        let foreign = Metadata::from([("conf_rbd_cache".into(), "false".into())]);
        assert_eq!(GoldenRecord::read(&foreign), None);
        assert_eq!(CloneRecord::read(&foreign), None);
    }
}
