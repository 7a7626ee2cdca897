//! What goes and what is kept: a pure function of what was seen.
//!
//! | seen | becomes |
//! |---|---|
//! | Kubernetes or Ceph away | nothing goes |
//! | a pod of this node that has not finished has it, by UID, by volume id, by name or by a mount in its directory | kept; the pod is deleted if the clone was idle for its TTL |
//! | its pod has finished | goes |
//! | its pod is gone | goes after a grace time, once the API server itself says so, if nobody has it open |
//! | its node is gone | the same, by the elected node |
//! | a named one without a user | leaves this node; goes when its TTL has run out |
//! | no record, no data | goes after a grace time, by the elected node |
//! | a volume here without an image, a target of no pod | leaves this node after a grace time |
//! | in the trash | purged by the elected node |

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use aldaas_api::{CloneName, context, volume_id};
use aldaas_golden::{CLONE, GOLDEN, PodUse};
use aldaas_volume::ImageSpec;

use super::decision::{Action, Cause, Decision, Reason, State, Subject};
use super::observed::{Build, Observed, SeenClone, SeenTarget, SeenVolume};
use crate::ports::Pod;

/// What one pass remembers for the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Since when something seems to have no user, on this machine's own clock.
    pub since: BTreeMap<Subject, Duration>,
    /// What was to go and is still held by somebody.
    pub held: BTreeSet<Subject>,
}

/// Decides about everything that was seen. `now` is the time since this machine was started; what seems to have no user must
/// have seemed so for `grace` before it goes.
pub fn plan(observed: &Observed, memory: &mut Memory, now: Duration, grace: Duration) -> Vec<Decision> {
    let mut judge = Judge::new(observed, memory, now, grace);
    let mut decisions = Vec::new();
    if let Ok(clones) = &observed.clones {
        decisions.extend(clones.iter().map(|clone| judge.clone(clone)));
        decisions.extend(observed.volumes.iter().filter_map(|volume| judge.volume(volume)));
        decisions.extend(judge.trash());
        let used =
            decisions.iter().filter(|decision| matches!(decision.state, State::Published | State::Idle));
        let used: HashSet<Subject> = used.map(|decision| decision.subject.clone()).collect();
        decisions.extend(observed.targets.iter().filter_map(|target| judge.target(target, &used)));
    }
    let next = std::mem::take(&mut judge.since);
    memory.since = next;
    memory.held.retain(|subject| decisions.iter().any(|d| d.subject == *subject && d.action.is_some()));
    decisions
}

/// The living pod of this node that has this clone, or is about to.
pub fn living_user<'a>(pods: &'a [Pod], name: &CloneName, user: Option<&PodUse>) -> Option<&'a Pod> {
    pods.iter().filter(|pod| !pod.finished).find(|pod| {
        user.is_some_and(|user| user.pod_uid == pod.uid) || clones_of(pod).any(|clone| clone == *name)
    })
}

/// The names of the clones that a pod's volumes have: their own and, where they ask for one, the named one.
fn clones_of(pod: &Pod) -> impl Iterator<Item = CloneName> {
    pod.volumes.iter().flat_map(|volume| {
        let named = volume.attributes.get(context::CLONE).and_then(|name| name.parse().ok());
        let named = named.map(|name: CloneName| volume_id::named_clone(&pod.namespace, &name));
        [Some(volume.id.handle()), named].into_iter().flatten()
    })
}

/// Whether a pod itself says how long its named clone may be idle.
fn asks_for_ttl(pod: &Pod, clone: &CloneName) -> bool {
    let asking = pod.volumes.iter().filter(|volume| volume.attributes.contains_key(context::TTL));
    let named = asking.filter_map(|volume| volume.attributes.get(context::CLONE)?.parse::<CloneName>().ok());
    named.into_iter().any(|name| volume_id::named_clone(&pod.namespace, &name) == *clone)
}

struct Judge<'a> {
    observed: &'a Observed,
    memory: &'a Memory,
    now: Duration,
    grace: Duration,
    /// What seems to have no user now.
    since: BTreeMap<Subject, Duration>,
    by_uid: HashMap<&'a str, &'a Pod>,
    by_clone: HashMap<CloneName, &'a Pod>,
    names: HashSet<&'a CloneName>,
    here: HashMap<&'a str, &'a SeenVolume>,
}

impl<'a> Judge<'a> {
    fn new(observed: &'a Observed, memory: &'a Memory, now: Duration, grace: Duration) -> Self {
        let pods = observed.pods.as_deref().unwrap_or_default();
        let living = pods.iter().filter(|pod| !pod.finished);
        let clones = observed.clones.as_deref().unwrap_or_default();
        let ours = observed.volumes.iter().filter(|volume| is_clone(&volume.spec, &observed.pool));
        Self {
            observed,
            memory,
            now,
            grace,
            since: BTreeMap::new(),
            by_uid: pods.iter().map(|pod| (pod.uid.as_str(), pod)).collect(),
            by_clone: living.flat_map(|pod| clones_of(pod).map(move |name| (name, pod))).collect(),
            names: clones.iter().map(|clone| &clone.name).collect(),
            here: ours.map(|volume| (volume.spec.image.as_str(), volume)).collect(),
        }
    }

    fn clone(&mut self, clone: &SeenClone) -> Decision {
        let (state, reason, action) = self.judge_clone(clone);
        let subject = Subject::Clone(clone.name.clone());
        let state = match self.memory.held.contains(&subject) && action.is_some() {
            true => State::Quarantined,
            false => state,
        };
        Decision { subject, state, reason, action, user: clone.user().cloned() }
    }

    fn judge_clone(&mut self, clone: &SeenClone) -> (State, Reason, Option<Action>) {
        if !clone.is_for_pods() {
            return (State::Foreign, Reason::Foreign, None);
        }
        if let Err(away) = &self.observed.pods {
            return (State::Unknown, Reason::ApiAway(away.0.clone()), None);
        }
        if let Some(pod) = self.living(clone) {
            return self.in_use(clone, pod);
        }
        match (&clone.record, clone.user()) {
            (None, _) => self.half_made(clone),
            (Some(_), None) => (State::Orphaned, Reason::Unreadable, None),
            (Some(_), Some(user)) => self.without_pod(clone, user),
        }
    }

    /// The living pod that has it, told from everything that may tell.
    fn living(&self, clone: &SeenClone) -> Option<&'a Pod> {
        let by_uid = clone.user().and_then(|user| self.by_uid.get(user.pod_uid.as_str()));
        let by_target = || {
            let uids = self.targets(&clone.name).filter_map(SeenTarget::pod_uid);
            uids.filter_map(|uid| self.by_uid.get(uid)).find(|pod| !pod.finished)
        };
        let found = by_uid.filter(|pod| !pod.finished).or_else(|| self.by_clone.get(&clone.name));
        found.or_else(by_target).copied()
    }

    fn in_use(&self, clone: &SeenClone, pod: &Pod) -> (State, Reason, Option<Action>) {
        let ttl = clone.user().filter(|user| user.pod_uid == pod.uid).and_then(|user| user.ttl);
        // How long a named clone is kept for its next pod is no reason to end this one: only what the pod itself says is.
        let ttl = ttl.filter(|_| !clone.is_named() || asks_for_ttl(pod, &clone.name));
        match (self.observed.idle.get(&clone.name), ttl) {
            (Some(idle), Some(ttl)) if idle.elapsed > Duration::ZERO && idle.elapsed >= ttl => {
                let delete = (!pod.deleting).then(|| Action::DeletePod(pod.clone()));
                (State::Idle, Reason::Idle(pod.clone(), idle.clone()), delete)
            }
            _ => (State::Published, Reason::UsedBy(pod.clone()), None),
        }
    }

    /// No living pod of this node has it: who answers for it?
    fn without_pod(&mut self, clone: &SeenClone, user: &PodUse) -> (State, Reason, Option<Action>) {
        let finished = self.by_uid.contains_key(user.pod_uid.as_str());
        if finished || user.node == self.observed.node {
            let cause = if finished { Cause::Finished } else { Cause::PodGone };
            return self.unused(clone, cause(user.clone()));
        }
        let nodes = match &self.observed.nodes {
            Err(away) => return (State::Unknown, Reason::ApiAway(away.0.clone()), None),
            Ok(nodes) => nodes,
        };
        if nodes.contains(&user.node) {
            return self.elsewhere(clone, user);
        }
        match self.observed.elected {
            true => self.unused(clone, Cause::NodeGone(user.clone())),
            false => (State::Elsewhere, Reason::NotElected, None),
        }
    }

    /// Another node's, which is alive. What of it is on this node is left from before.
    fn elsewhere(&mut self, clone: &SeenClone, user: &PodUse) -> (State, Reason, Option<Action>) {
        let reason = Reason::HandedOver(user.node.clone());
        if !self.here.contains_key(clone.name.as_str()) {
            return (State::Elsewhere, Reason::OtherNode(user.node.clone()), None);
        }
        match self.is_due(Subject::Clone(clone.name.clone())) {
            true => {
                let targets = self.target_paths(&clone.name);
                (State::Orphaned, reason, Some(Action::Release { ask: vec![], targets, keep: false }))
            }
            false => (State::Orphaned, reason, None),
        }
    }

    /// It has no user, and this node answers for it.
    fn unused(&mut self, clone: &SeenClone, cause: Cause) -> (State, Reason, Option<Action>) {
        let user = cause.user();
        let state = if matches!(cause, Cause::Finished(_)) { State::Finished } else { State::Orphaned };
        if [&user.namespace, &user.pod, &user.pod_uid].iter().any(|part| part.is_empty()) {
            return (State::Orphaned, Reason::Unreadable, None);
        }
        let due = self.is_due(Subject::Clone(clone.name.clone()));
        if !due && state == State::Orphaned {
            return (state, Reason::Grace(cause), None);
        }
        let (ask, targets) = (cause.asks(), self.target_paths(&clone.name));
        let here = self.here.contains_key(clone.name.as_str());
        if here && clone.is_named() {
            return (state, Reason::Unused(cause), Some(Action::Release { ask, targets, keep: true }));
        }
        match &clone.facts {
            // Who has it open is this node, which lets go of it first.
            _ if here => {}
            None => return (state, Reason::Unused(cause), Some(Action::Look)),
            Some(facts) if !facts.watchers.is_empty() => {
                return (state, Reason::Watched(facts.watchers.clone()), None);
            }
            Some(facts) if clone.is_named() && facts.kept => return (State::Kept, Reason::Ttl(cause), None),
            Some(_) => {}
        }
        (state, Reason::Unused(cause), Some(Action::Remove { ask, targets }))
    }

    fn half_made(&mut self, clone: &SeenClone) -> (State, Reason, Option<Action>) {
        if !self.observed.elected {
            return (State::Elsewhere, Reason::NotElected, None);
        }
        if !self.is_due(Subject::Clone(clone.name.clone())) {
            return (State::HalfMade, Reason::BeingMade, None);
        }
        match &clone.facts {
            None => (State::HalfMade, Reason::HalfMade, Some(Action::Look)),
            Some(facts) if !facts.watchers.is_empty() => {
                (State::HalfMade, Reason::Watched(facts.watchers.clone()), None)
            }
            Some(facts) if facts.half_made => {
                (State::HalfMade, Reason::HalfMade, Some(Action::RemoveHalfMade))
            }
            Some(_) => (State::Foreign, Reason::Foreign, None),
        }
    }

    /// A volume on this node that is not a clone in RBD; those are judged with their clones.
    fn volume(&mut self, volume: &SeenVolume) -> Option<Decision> {
        let subject = Subject::Volume(volume.spec.clone());
        let (state, reason, action) = match self.observed.pods.is_ok() {
            true => self.judge_volume(volume, &subject)?,
            false => return None,
        };
        let user = match &volume.build {
            Some(Build::ByPod(user)) => Some(user.clone()),
            _ => None,
        };
        Some(Decision { subject, state, reason, action, user })
    }

    fn judge_volume(
        &mut self,
        volume: &SeenVolume,
        subject: &Subject,
    ) -> Option<(State, Reason, Option<Action>)> {
        let spec = &volume.spec;
        let missing = match &volume.build {
            _ if spec.pool != self.observed.pool => return None,
            _ if spec.namespace == CLONE => {
                let name: CloneName = spec.image.parse().ok()?;
                if self.names.contains(&name) || !volume_id::is_of_pods(name.as_str()) {
                    return None;
                }
                if let Some(pod) = self.by_clone.get(&name) {
                    return Some((State::Published, Reason::UsedBy((*pod).clone()), None));
                }
                true
            }
            Some(Build::Missing) => true,
            Some(Build::ByPod(user)) => return Some(self.build(volume, user, subject)),
            _ => return None,
        };
        let mine = || self.observed.targets.iter().filter(|target| target.holds.as_ref() == Some(spec));
        let living = mine().filter_map(SeenTarget::pod_uid).filter_map(|uid| self.by_uid.get(uid));
        if let Some(pod) = living.copied().find(|pod| !pod.finished) {
            return Some((State::Published, Reason::UsedBy(pod.clone()), None));
        }
        let targets = mine().map(|target| target.path.clone()).collect();
        Some(match self.is_due(subject.clone()) && missing {
            true => {
                let close = Action::Close { ask: vec![], targets, discard: true };
                (State::Orphaned, Reason::NoImage, Some(close))
            }
            false => (State::Orphaned, Reason::NoImageYet, None),
        })
    }

    /// A golden image in the making: its image is the controller's, its mount goes with its pod.
    fn build(
        &mut self,
        volume: &SeenVolume,
        user: &PodUse,
        subject: &Subject,
    ) -> (State, Reason, Option<Action>) {
        let mine =
            || self.observed.targets.iter().filter(|target| target.holds.as_ref() == Some(&volume.spec));
        let mut uids = mine().filter_map(SeenTarget::pod_uid).chain([user.pod_uid.as_str()]);
        if let Some(pod) = uids.find_map(|uid| self.by_uid.get(uid).filter(|pod| !pod.finished)) {
            return (State::Published, Reason::UsedBy((*pod).clone()), None);
        }
        let targets = mine().map(|target| target.path.clone()).collect();
        let finished = self.by_uid.contains_key(user.pod_uid.as_str());
        let cause = if finished { Cause::Finished(user.clone()) } else { Cause::PodGone(user.clone()) };
        let state = if finished { State::Finished } else { State::Orphaned };
        match self.is_due(subject.clone()) || finished {
            true => {
                let close = Action::Close { ask: cause.asks(), targets, discard: false };
                (state, Reason::Unused(cause), Some(close))
            }
            false => (state, Reason::Grace(cause), None),
        }
    }

    /// A target of a pod that is gone. It goes with its clone or volume, unless that is another pod's by now, or is gone.
    fn target(&mut self, target: &SeenTarget, used: &HashSet<Subject>) -> Option<Decision> {
        let (uid, handle) = (target.pod_uid()?, target.handle()?);
        if self.observed.pods.is_err() || self.by_uid.contains_key(uid) {
            return None;
        }
        let is_alone = match &target.holds {
            // An empty directory is ours if kubelet noted it so.
            None => target.noted && !self.names.contains(&handle),
            Some(spec) => match spec.image.parse() {
                Ok(name) if self.names.contains(&name) => used.contains(&Subject::Clone(name)),
                _ => used.contains(&Subject::Volume(spec.clone())),
            },
        };
        if !is_alone {
            return None;
        }
        let subject = Subject::Target(target.path.clone());
        let action = self.is_due(subject.clone()).then_some(Action::Unbind);
        let (state, reason) = (State::Orphaned, Reason::TargetOfNobody);
        Some(Decision { subject, state, reason, action, user: None })
    }

    fn trash(&self) -> Option<Decision> {
        let Observed { trash, sweep, elected, pods, .. } = self.observed;
        let action = (*elected && pods.is_ok()).then_some(Action::Purge);
        let reason = Reason::Trash(*trash);
        (*trash > 0 || *sweep).then_some(Decision {
            subject: Subject::Trash,
            state: State::Trash,
            reason,
            action,
            user: None,
        })
    }

    /// Notes that it seems to have no user, and says whether it has seemed so for long enough.
    fn is_due(&mut self, subject: Subject) -> bool {
        let since = self.memory.since.get(&subject).copied().unwrap_or(self.now);
        let due = self.now.saturating_sub(since) >= self.grace && since < self.now;
        self.since.insert(subject, since);
        due
    }

    /// Where a clone is, or was to be, mounted for pods.
    fn targets(&self, name: &CloneName) -> impl Iterator<Item = &'a SeenTarget> {
        let (pool, targets) = (self.observed.pool.as_str(), &self.observed.targets);
        let name = name.clone();
        targets.iter().filter(move |target| match &target.holds {
            Some(spec) => is_clone(spec, pool) && spec.image == name.as_str(),
            None => target.handle().as_ref() == Some(&name),
        })
    }

    fn target_paths(&self, name: &CloneName) -> Vec<PathBuf> {
        self.targets(name).map(|target| target.path.clone()).collect()
    }
}

fn is_clone(spec: &ImageSpec, pool: &str) -> bool {
    spec.pool == pool && spec.namespace == CLONE
}

/// Whether a volume is an image in the golden namespace.
pub fn is_golden(spec: &ImageSpec, pool: &str) -> bool {
    spec.pool == pool && spec.namespace == GOLDEN
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
