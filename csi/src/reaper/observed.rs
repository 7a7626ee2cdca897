//! What the reaper has seen: five inventories, taken one after the other, and what is known of idleness.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use aldaas_api::{CloneName, VolumeId};
use aldaas_golden::{PodUse, Purpose, record::CloneRecord};
use aldaas_volume::ImageSpec;

use crate::idle::Idle;
use crate::ports::{Away, Pod};

/// Everything that a decision rests on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// This node's name.
    pub node: String,
    /// The pool.
    pub pool: String,
    /// Whether this node cleans up after nodes that are gone.
    pub elected: bool,
    /// The pods of this node.
    pub pods: Result<Vec<Pod>, Away>,
    /// All nodes.
    pub nodes: Result<BTreeSet<String>, Away>,
    /// The clones in RBD, or why they can't be listed.
    pub clones: Result<Vec<SeenClone>, String>,
    /// Clones of ours in the trash.
    pub trash: usize,
    /// Whether the whole trash is to be looked through, golden images too: at the start, and now and then.
    pub sweep: bool,
    /// Volumes on this node: devices, mounts, directories below the run directory.
    pub volumes: Vec<SeenVolume>,
    /// Mounts of ours and directories below kubelet's directory.
    pub targets: Vec<SeenTarget>,
    /// Published clones that have a TTL.
    pub idle: BTreeMap<CloneName, Idle>,
}

/// A clone in RBD.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenClone {
    /// Its name.
    pub name: CloneName,
    /// What its metadata says; none: no record (yet).
    pub record: Option<CloneRecord>,
    /// What only a closer look tells: taken only of what is about to go.
    pub facts: Option<Facts>,
}

/// What a closer look at a clone told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Addresses of clients that have it open, wherever they are.
    pub watchers: Vec<String>,
    /// A named clone whose TTL has not run out.
    pub kept: bool,
    /// It is nothing but what a killed maker leaves: no record, no data.
    pub half_made: bool,
}

/// A volume on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenVolume {
    /// Which image.
    pub spec: ImageSpec,
    /// Its device, if it is attached.
    pub device: Option<PathBuf>,
    /// For an image in the golden namespace: what it is.
    pub build: Option<Build>,
}

/// What an image in the golden namespace is that is attached here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Build {
    /// One that this pod builds.
    ByPod(PodUse),
    /// One that somebody else builds or looks at.
    Other,
    /// There is no such image.
    Missing,
}

/// Something below kubelet's directory at which a volume is, or was to be, mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenTarget {
    /// Where.
    pub path: PathBuf,
    /// Our volume that is mounted there; none: an empty directory.
    pub holds: Option<ImageSpec>,
    /// The pod's UID and the volume's name, where the path says them as kubelet does.
    pub owner: Option<(String, String)>,
    /// kubelet noted there that the volume is our driver's.
    pub noted: bool,
}

impl SeenTarget {
    /// The clone's name that belongs at such a target.
    pub fn handle(&self) -> Option<CloneName> {
        let (uid, volume) = self.owner.as_ref()?;
        Some(VolumeId::of_pod(uid, volume).handle())
    }

    /// The UID of the pod whose directory it is in.
    pub fn pod_uid(&self) -> Option<&str> {
        self.owner.as_ref().map(|(uid, _)| uid.as_str())
    }
}

/// `<kubelet>/pods/<uid>/volumes/kubernetes.io~csi/<volume>/mount`: the pod's UID, and the volume's name.
pub fn owner_of(path: &Path, kubelet_dir: &Path) -> Option<(String, String)> {
    let below = path.strip_prefix(kubelet_dir).ok()?;
    let parts: Vec<&str> = below.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    match parts.as_slice() {
        ["pods", uid, "volumes", "kubernetes.io~csi", volume, "mount"] => {
            Some(((*uid).to_owned(), (*volume).to_owned()))
        }
        _ => None,
    }
}

impl SeenClone {
    /// The pod that uses it, or used it last.
    pub fn user(&self) -> Option<&PodUse> {
        self.record.as_ref()?.pod.as_ref()
    }

    /// Whether it outlives its pod.
    pub fn is_named(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.purpose == Purpose::PodNamed)
    }

    /// Whether the node plugin made it; other clones are the command's.
    pub fn is_for_pods(&self) -> bool {
        let purpose = self.record.as_ref().map(|record| record.purpose);
        aldaas_api::volume_id::is_of_pods(self.name.as_str())
            && matches!(purpose, None | Some(Purpose::Pod | Purpose::PodNamed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_a_target_is_told_from_kubelets_own_path_only() {
        let owner = |path: &str| owner_of(Path::new(path), Path::new("/k"));
        assert_eq!(
            owner("/k/pods/u-1/volumes/kubernetes.io~csi/db/mount"),
            Some(("u-1".to_owned(), "db".to_owned()))
        );
        for other in
            ["/k/x/mount", "/k/pods/u-1/volumes/kubernetes.io~nfs/db/mount", "/pods/u/volumes/x", "/k"]
        {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
