//! What the reaper decided, and why in words.

use std::fmt;
use std::path::PathBuf;

use aldaas_api::CloneName;
use aldaas_golden::PodUse;
use aldaas_volume::ImageSpec;

use crate::idle::Idle;
use crate::ports::Pod;

/// What a decision is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A clone in RBD, and whatever of it is on this node.
    Clone(CloneName),
    /// A volume on this node that is no clone in RBD.
    Volume(ImageSpec),
    /// A directory or mount below kubelet's directory.
    Target(PathBuf),
    /// What lies in RBD's trash.
    Trash,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clone(name) => write!(f, "clone/{name}"),
            Self::Volume(spec) => write!(f, "volume {spec}"),
            Self::Target(path) => write!(f, "target {}", path.display()),
            Self::Trash => f.write_str("trash"),
        }
    }
}

/// The state of what a decision is about, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// A living pod has it.
    Published,
    /// A living pod has it and does nothing with it.
    Idle,
    /// Its pod has ended.
    Finished,
    /// Its pod or its node is gone.
    Orphaned,
    /// Its maker was killed.
    HalfMade,
    /// A named one between two pods.
    Kept,
    /// It was to go and somebody still holds it.
    Quarantined,
    /// Nothing can be said while something is away.
    Unknown,
    /// In the trash.
    Trash,
    /// Another node's.
    Elsewhere,
    /// Not the plugin's.
    Foreign,
}

impl State {
    /// The word in the metric, the log and `explain`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Idle => "idle",
            Self::Finished => "finished",
            Self::Orphaned => "orphaned",
            Self::HalfMade => "half-made",
            Self::Kept => "kept",
            Self::Quarantined => "quarantined",
            Self::Unknown => "unknown",
            Self::Trash => "trash",
            Self::Elsewhere => "elsewhere",
            Self::Foreign => "foreign",
        }
    }

    /// Whether this node answers for it.
    pub fn is_ours(self) -> bool {
        !matches!(self, Self::Elsewhere | Self::Foreign)
    }
}

/// Why something has no user any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its pod ended by itself.
    Finished(PodUse),
    /// No pod of that UID is on this node.
    PodGone(PodUse),
    /// No node of that name is in the cluster.
    NodeGone(PodUse),
}

impl Cause {
    /// The pod that used it.
    pub fn user(&self) -> &PodUse {
        match self {
            Self::Finished(user) | Self::PodGone(user) | Self::NodeGone(user) => user,
        }
    }

    /// What is asked before anything of it goes. A pod that has finished stays finished.
    pub fn asks(&self) -> Vec<Ask> {
        let user = self.user();
        match self {
            Self::Finished(_) => vec![],
            Self::PodGone(_) => vec![Ask::PodGone(user.clone())],
            Self::NodeGone(_) if user.node.is_empty() => vec![Ask::PodGone(user.clone())],
            Self::NodeGone(_) => vec![Ask::NodeGone(user.node.clone()), Ask::PodGone(user.clone())],
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PodUse { namespace, pod, pod_uid, node, .. } = self.user();
        match self {
            Self::Finished(_) => write!(f, "its pod {namespace}/{pod} has finished"),
            Self::PodGone(_) => write!(f, "its pod {namespace}/{pod} (UID {pod_uid}) is gone"),
            Self::NodeGone(_) if node.is_empty() => write!(f, "no node answers for it"),
            Self::NodeGone(_) => write!(f, "its node {node} is gone"),
        }
    }
}

/// Why something is kept, or goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A pod of this node has it.
    UsedBy(Pod),
    /// A pod of this node has it and does nothing with it.
    Idle(Pod, Idle),
    /// It has no user any more.
    Unused(Cause),
    /// It seems to have none, for less than the grace time.
    Grace(Cause),
    /// Whether it has one can't be known.
    ApiAway(String),
    /// Another node's business.
    OtherNode(String),
    /// The elected node's business.
    NotElected,
    /// Somebody has it open.
    Watched(Vec<String>),
    /// A named clone waits for its next pod.
    Ttl(Cause),
    /// Its record does not say who could be asked.
    Unreadable,
    /// Its maker may still be at it.
    BeingMade,
    /// Its maker was killed.
    HalfMade,
    /// Not made by the plugin.
    Foreign,
    /// On this node is a volume of an image that does not exist.
    NoImage,
    /// The same, for less than the grace time.
    NoImageYet,
    /// A named clone went to another node.
    HandedOver(String),
    /// A target of a pod that is not on this node.
    TargetOfNobody,
    /// A removal's second step is still to come.
    Trash(usize),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UsedBy(pod) => write!(f, "pod {}/{} uses it", pod.namespace, pod.name),
            Self::Idle(pod, idle) => write!(f, "pod {}/{} leaves it idle: {idle}", pod.namespace, pod.name),
            Self::Unused(cause) => cause.fmt(f),
            Self::Grace(cause) => write!(f, "{cause}; it is watched for a while first"),
            Self::ApiAway(why) => write!(f, "nothing is removed while Kubernetes is away: {why}"),
            Self::OtherNode(node) => write!(f, "node {node} answers for it"),
            Self::NotElected => {
                f.write_str("its node is gone: the elected node answers for it, which is another")
            }
            Self::Watched(by) => write!(f, "it is unused, but {} has it open", by.join(", ")),
            Self::Ttl(cause) => write!(f, "{cause}, and its TTL has not run out"),
            Self::Unreadable => f.write_str(
                "its record does not say which pod it is for: look at it by hand (`rbd image-meta list`)",
            ),
            Self::BeingMade => f.write_str("it has no record (yet): it is watched for a while first"),
            Self::HalfMade => f.write_str("half made: no record and no data, its maker was killed"),
            Self::Foreign => {
                f.write_str("it was not made for a pod: `aldaas clones` and `aldaas doctor` know of it")
            }
            Self::NoImage => f.write_str("on this node is a volume whose image does not exist"),
            Self::NoImageYet => f.write_str("its image does not exist; it is watched for a while first"),
            Self::HandedOver(node) => write!(f, "node {node} has it now, and no pod of this node"),
            Self::TargetOfNobody => f.write_str("its pod is not on this node"),
            Self::Trash(0) => f.write_str("what a crash left in the trash is looked for"),
            Self::Trash(count) => write!(f, "{count} image(s) wait for the second step of their removal"),
        }
    }
}

/// What is asked once more right before something goes, of whoever knows best.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The API server: this very pod does not exist.
    PodGone(PodUse),
    /// The API server: this node does not exist.
    NodeGone(String),
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The facts of a clone are taken, and it is judged again.
    Look,
    /// A clone goes, with whatever of it is on this node.
    Remove {
        /// What is asked first.
        ask: Vec<Ask>,
        /// What is unbound first.
        targets: Vec<PathBuf>,
    },
    /// What a killed maker left goes.
    RemoveHalfMade,
    /// A named clone leaves this node, and is kept.
    Release {
        /// What is asked first.
        ask: Vec<Ask>,
        /// What is unbound first.
        targets: Vec<PathBuf>,
        /// Whether its TTL begins now; not, if it has another user.
        keep: bool,
    },
    /// A volume leaves this node; its image, if there is one, stays.
    Close {
        /// What is asked first.
        ask: Vec<Ask>,
        /// What is unbound first.
        targets: Vec<PathBuf>,
        /// What it holds is lost anyway.
        discard: bool,
    },
    /// A target is unmounted, and its directory removed if it is empty.
    Unbind,
    /// The pod is deleted.
    DeletePod(Pod),
    /// The trash is emptied.
    Purge,
}

impl Action {
    /// The word in the metric, the log and `explain`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Remove { .. } => "remove",
            Self::RemoveHalfMade => "remove-half-made",
            Self::Release { .. } => "release",
            Self::Close { .. } => "close",
            Self::Unbind => "unbind",
            Self::DeletePod(_) => "delete-pod",
            Self::Purge => "purge",
        }
    }
}

/// What becomes of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Of what.
    pub subject: Subject,
    /// What it is.
    pub state: State,
    /// Why.
    pub reason: Reason,
    /// What is done; nothing: it is kept.
    pub action: Option<Action>,
    /// The pod for which it was made, as its record says.
    pub user: Option<PodUse>,
}

impl Decision {
    /// The word for what is done.
    pub fn verdict(&self) -> &'static str {
        self.action.as_ref().map_or("keep", Action::as_str)
    }

    /// What is unbound with it.
    pub fn targets(&self) -> Option<&Vec<PathBuf>> {
        match self.action.as_ref()? {
            Action::Remove { targets, .. }
            | Action::Release { targets, .. }
            | Action::Close { targets, .. } => Some(targets),
            _ => None,
        }
    }

    /// Whether it says something else than an earlier one about the same subject.
    pub fn differs_from(&self, earlier: &Self) -> bool {
        let kind =
            |decision: &Self| (decision.state, decision.verdict(), std::mem::discriminant(&decision.reason));
        kind(self) != kind(earlier)
    }
}
