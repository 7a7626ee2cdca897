//! What identifies a volume: the CSI volume id, and the name of its clone in RBD.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::CloneName;

/// Longest string that CSI allows in a field.
pub const CSI_STRING_MAX: usize = 128;
/// What the handles of pods' volumes begin with; kubelet's own form.
const PREFIX: &str = "csi-";
/// What the names of named clones begin with.
const NAMED_PREFIX: &str = "named-";

/// A CSI volume id, as the container orchestrator says it.
///
/// kubelet's are `csi-` and 64 hexadecimal digits, made from the pod's UID and the volume's name ([`VolumeId::of_pod`]); others
/// are allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(String);

/// Why a volume id was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a volume id has 1 to {CSI_STRING_MAX} characters, none of them a control character")]
pub struct VolumeIdError;

impl VolumeId {
    /// The id that kubelet gives to the inline volume `volume` of a pod.
    pub fn of_pod(pod_uid: &str, volume: &str) -> Self {
        Self(format!("{PREFIX}{}", sha256(&[pod_uid, volume])))
    }

    /// The name of this volume's clone in RBD: the id itself where it has kubelet's form, and one made from it elsewhere.
    pub fn handle(&self) -> CloneName {
        let name = match is_handle(&self.0) {
            true => self.0.clone(),
            false => format!("{PREFIX}{}", sha256(&[&self.0])),
        };
        CloneName::from_checked(name)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name in RBD of the clone that the pods of `namespace` share under `name`.
pub fn named_clone(namespace: &str, name: &CloneName) -> CloneName {
    CloneName::from_checked(format!("{NAMED_PREFIX}{}", sha256(&[namespace, "/", name.as_str()])))
}

/// Whether a clone in RBD has the name of a pod's volume.
pub fn is_handle(name: &str) -> bool {
    is_hash(name.strip_prefix(PREFIX))
}

/// Whether a clone in RBD has the name of a named clone of pods.
pub fn is_named(name: &str) -> bool {
    is_hash(name.strip_prefix(NAMED_PREFIX))
}

/// Whether a clone in RBD has a name that only the node plugin gives.
pub fn is_of_pods(name: &str) -> bool {
    is_handle(name) || is_named(name)
}

fn is_hash(hash: Option<&str>) -> bool {
    hash.is_some_and(|hash| {
        hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn sha256(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part.as_bytes()));
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl FromStr for VolumeId {
    type Err = VolumeIdError;

    fn from_str(text: &str) -> Result<Self, VolumeIdError> {
        let fits = (1..=CSI_STRING_MAX).contains(&text.len());
        match fits && !text.chars().any(char::is_control) {
            true => Ok(Self(text.to_owned())),
            false => Err(VolumeIdError),
        }
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_of_kubelet_is_the_name_of_its_clone() {
        let id = VolumeId::of_pod("4b0e6b1e-7a4d-4c3a-9d60-0b6a2b8b5a77", "db");
        assert!(is_handle(id.as_str()));
        assert_eq!(id.handle().as_str(), id.as_str());
        assert_eq!(id.as_str().parse::<VolumeId>(), Ok(id));
    }

    #[test]
    fn any_other_id_leads_to_a_safe_name_of_its_own() {
        let handles: Vec<_> = ["a", "../x", "csi-1", "Ünï", "a/b@c"]
            .into_iter()
            .map(|id| id.parse::<VolumeId>().unwrap().handle())
            .collect();
        assert!(handles.iter().all(|handle| is_handle(handle.as_str())));
        assert!(handles.iter().enumerate().all(|(n, handle)| !handles[..n].contains(handle)));
        for bad in ["", "a\0b", "\n", &"x".repeat(129)] {
            assert!(bad.parse::<VolumeId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_name_in_two_namespaces_means_two_clones() {
        let name = "pr-1".parse().unwrap();
        assert_ne!(named_clone("a", &name), named_clone("b", &name));
        assert!(is_named(named_clone("a", &name).as_str()) && !is_handle(named_clone("a", &name).as_str()));
    }

    #[test]
    fn only_the_node_plugins_names_are_pods() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(is_of_pods(&format!("csi-{hex}")) && is_of_pods(&format!("named-{hex}")));
        for name in ["csi-1", "pr-123", &format!("verify-{hex}"), &format!("csi-{hex}0")] {
            assert!(!is_of_pods(name), "{name}");
        }
    }
}
