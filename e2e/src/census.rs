//! What exists: in Ceph, in Kubernetes, and on the node where that is this machine's.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use crate::{Site, name_of, path};

/// The pool of the release under test.
const POOL: &str = "aldaas";

/// One line for each thing that aldaas may leave behind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Census(BTreeSet<String>);

impl Census {
    pub(crate) fn take(site: &Site) -> Census {
        let mut lines = BTreeSet::new();
        // The directory is not there: what is on the node, the node tells.
        let stored = site.bed.census(POOL, &site.bed.dir().join("nowhere"));
        lines.extend(stored.images.iter().map(|image| format!("image {image}")));
        lines.extend(stored.trash.iter().map(|image| format!("trash {image}")));
        lines.extend(stored.watchers.iter().map(|(image, count)| format!("{count} watchers of {image}")));
        lines.extend(
            stored
                .objects
                .iter()
                .filter(|name| !name.contains("aldaas."))
                .map(|name| format!("object {name}")),
        );
        for kind in ["databases", "goldenimages"] {
            lines.extend(
                site.kube
                    .list(&path(kind, "", ""))
                    .iter()
                    .map(|object| format!("{kind} {}", name_of(object))),
            );
        }
        for kind in ["jobs", "configmaps", "pods"] {
            let all = site.kube.list(&path(kind, "aldaas", ""));
            lines.extend(
                all.iter().filter(|object| comes_and_goes(object)).map(|o| format!("{kind} {}", name_of(o))),
            );
        }
        if let Some(node) = &site.node {
            lines.extend(node.mounts().into_iter().map(|mount| format!("mount {mount}")));
            lines.insert(format!("{} loop devices", node.loops()));
        }
        Census(lines)
    }

    /// Whether nothing is there that goes by itself: images in the trash, an ingest's Jobs and what belongs to them.
    pub fn is_at_rest(&self) -> bool {
        !self
            .0
            .iter()
            .any(|line| ["trash ", "jobs ", "pods ", "configmaps "].iter().any(|kind| line.starts_with(kind)))
    }

    /// Whether exactly this is there.
    pub fn has(&self, line: &str) -> bool {
        self.0.contains(line)
    }

    /// Whether anything is there in which this occurs.
    pub fn has_word(&self, word: &str) -> bool {
        self.0.iter().any(|line| line.contains(word))
    }

    /// What is there now and was not then, and the other way round.
    pub fn compared_with(&self, before: &Census) -> String {
        let mut text = String::new();
        for line in self.0.difference(&before.0) {
            let _ = write!(text, "\n  + {line}");
        }
        for line in before.0.difference(&self.0) {
            let _ = write!(text, "\n  - {line}");
        }
        text
    }
}

/// What belongs to one golden image, and not to the release itself.
fn comes_and_goes(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/component"] == "jobs"
}
