//! Who uses a clone, or builds an image, in Kubernetes: written with it as flat metadata, so that it can be found by hand
//! (`rbd image-meta list`) and by a node plugin that knows nothing else.

use std::time::Duration;

use crate::record::Metadata;

/// The pod for which an image is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PodUse {
    /// The node on which it was made.
    pub node: String,
    /// The CSI volume id.
    pub volume: String,
    /// The pod's namespace in Kubernetes.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID, which is never used again.
    pub pod_uid: String,
    /// How long it may be idle; without one it lives as long as its pod. Kept in whole seconds.
    pub ttl: Option<Duration>,
    /// What the user calls it, if it is a named clone.
    pub clone_name: Option<String>,
}

/// The keys of a clone begin with this.
pub(crate) const USE: &str = "aldaas.dev/";
/// Those of a golden image that a pod builds with this: clones inherit them, and are not used by the pod that built it.
pub(crate) const BUILD: &str = "aldaas.dev/build-";

impl PodUse {
    /// Reads the keys that begin with `prefix`; none if no pod is named. What can't be read is empty: a pod's clone stays a
    /// pod's clone.
    pub(crate) fn read(metadata: &Metadata, prefix: &str) -> Option<Self> {
        let text = |key: &str| metadata.get(&format!("{prefix}{key}")).cloned().unwrap_or_default();
        let (volume, pod_uid) = (text("volume"), text("pod-uid"));
        if volume.is_empty() && pod_uid.is_empty() {
            return None;
        }
        Some(Self {
            node: text("node"),
            volume,
            namespace: text("namespace"),
            pod: text("pod"),
            pod_uid,
            ttl: text("ttl").strip_suffix('s').and_then(|s| s.parse().ok()).map(Duration::from_secs),
            clone_name: Some(text("clone-name")).filter(|name| !name.is_empty()),
        })
    }

    /// The metadata that says this. Every key is written, an empty one for what isn't there, so that nothing of an earlier
    /// user stays.
    pub(crate) fn write(&self, prefix: &str) -> Metadata {
        let ttl = self.ttl.map(|ttl| format!("{}s", ttl.as_secs())).unwrap_or_default();
        [
            ("node", self.node.clone()),
            ("volume", self.volume.clone()),
            ("namespace", self.namespace.clone()),
            ("pod", self.pod.clone()),
            ("pod-uid", self.pod_uid.clone()),
            ("ttl", ttl),
            ("clone-name", self.clone_name.clone().unwrap_or_default()),
        ]
        .into_iter()
        .map(|(key, value)| (format!("{prefix}{key}"), value))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_use_reads_back_beside_one_of_another_prefix(
            texts in prop::array::uniform6("[a-z0-9./-]{1,12}"),
            ttl in prop::option::of(0u64..1 << 40),
            named: bool,
        ) {
            let [node, volume, namespace, pod, pod_uid, name] = texts;
            let ttl = ttl.map(Duration::from_secs);
            let used = PodUse { node, volume, namespace, pod, pod_uid, ttl, clone_name: named.then_some(name) };
            let mut metadata = used.write(USE);
            metadata.extend(PodUse { volume: "other".into(), ..Default::default() }.write(BUILD));
            prop_assert_eq!(PodUse::read(&metadata, USE), Some(used));
            prop_assert_eq!(PodUse::read(&metadata, BUILD).unwrap().volume, "other");
        }

        #[test]
        fn what_cannot_be_read_does_not_hide_the_rest(ttl in ".{0,9}") {
            let mut metadata = PodUse { volume: "v".into(), node: "n".into(), ..Default::default() }.write(USE);
            metadata.insert("aldaas.dev/ttl".into(), ttl);
            prop_assert_eq!(PodUse::read(&metadata, USE).unwrap().node, "n");
        }
    }

    #[test]
    fn the_next_user_leaves_nothing_of_the_one_before() {
        let before = PodUse {
            volume: "a".into(),
            ttl: Some(Duration::from_secs(5)),
            clone_name: Some("mine".into()),
            ..Default::default()
        };
        let next = PodUse { volume: "b".into(), ..Default::default() };
        let mut metadata = before.write(USE);
        metadata.extend(next.write(USE));
        assert_eq!(PodUse::read(&metadata, USE), Some(next));
        assert_eq!(PodUse::read(&Metadata::new(), USE), None);
    }
}
