//! Carrying a decision out: whoever knows best is asked once more, right before.

use std::path::PathBuf;

use aldaas_api::CloneName;
use aldaas_golden::{self as golden, PodUse};
use aldaas_volume::{self as volume, ImageSpec};
use tracing::Instrument as _;

use super::decision::{Action, Ask, Decision, Subject};
use super::plan::living_user;
use super::{Observed, Reaper};
use crate::blocking::blocking;
use crate::guard::Entry;
use crate::metrics::{self, Operation};
use crate::ports::Pod;
use crate::removal::Removed;
use crate::target::{Target, TargetError};

/// What became of an action.
enum Outcome {
    Done,
    /// It is kept after all, and why.
    Kept(String),
    /// Somebody still holds it, and how that shows.
    Held(String),
}

impl From<Removed> for Outcome {
    fn from(removed: Removed) -> Self {
        match removed {
            Removed::Gone => Self::Done,
            Removed::Quarantined { why } => Self::Held(why),
        }
    }
}

/// Why an action failed: it is tried again in the next pass.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Golden(#[from] golden::Error),
    #[error(transparent)]
    Volume(#[from] volume::Error),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    BadTarget(#[from] crate::target::BadTarget),
    #[error(transparent)]
    Remove(#[from] crate::removal::RemoveError),
    #[error(transparent)]
    Unpublish(#[from] crate::publish::UnpublishError),
    #[error(transparent)]
    Away(#[from] crate::ports::Away),
}

type Ran = Result<Outcome, RunError>;

impl RunError {
    fn is_busy(&self) -> bool {
        match self {
            Self::Volume(error) | Self::Unpublish(crate::publish::UnpublishError::Volume(error)) => {
                error.is_busy()
            }
            _ => false,
        }
    }
}

impl Reaper {
    /// Does what was decided, unless it is not so any more.
    pub(super) async fn carry_out(&self, decision: &Decision, observed: &Observed) {
        let Some(action) = decision.action.as_ref().filter(|action| **action != Action::Look) else { return };
        let user = decision.user.clone().unwrap_or_default();
        let span = tracing::info_span!(
            "reap",
            volume_id = user.volume,
            image = %decision.subject,
            pod = format!("{}/{}", user.namespace, user.pod),
            pod_uid = user.pod_uid,
            action = action.as_str(),
        );
        self.carry_out_here(decision, action, observed).instrument(span).await;
    }

    async fn carry_out_here(&self, decision: &Decision, action: &Action, observed: &Observed) {
        let running = self.parts.metrics.begin(Operation::Reap);
        let started = std::time::Instant::now();
        let ran = match self.enter(decision) {
            Some(_entries) => self.act(decision, action, observed).await,
            None => Ok(Outcome::Kept("it is being worked on".to_owned())),
        };
        let reason = &decision.reason;
        let (outcome, held) = match ran {
            Ok(Outcome::Done) => {
                let is_routine = *action == Action::Purge;
                match is_routine {
                    true => tracing::debug!(%reason, "done"),
                    false => tracing::info!(%reason, "done: {}", action.as_str()),
                }
                (metrics::OK, false)
            }
            Ok(Outcome::Kept(why)) => {
                tracing::info!(%reason, why, "kept after all");
                ("kept", false)
            }
            Ok(Outcome::Held(why)) => {
                tracing::warn!(%reason, why, "somebody still holds it; it is tried again");
                ("held", true)
            }
            Err(error) if error.is_busy() => {
                tracing::warn!(%reason, %error, "somebody still holds it; it is tried again");
                self.parts.metrics.quarantined();
                ("held", true)
            }
            Err(error) => {
                tracing::warn!(%reason, %error, "it is tried again");
                ("failed", false)
            }
        };
        self.note_held(&decision.subject, held);
        self.parts.metrics.step(Operation::Reap, action.as_str(), outcome, started.elapsed());
        running.finish(outcome);
    }

    /// Nobody else may be at it: neither at the volume, nor at the clone.
    fn enter(&self, decision: &Decision) -> Option<Vec<Entry>> {
        let mut names: Vec<CloneName> = Vec::new();
        if let Some(Ok(volume)) =
            decision.user.as_ref().map(|user| user.volume.parse::<aldaas_api::VolumeId>())
        {
            names.push(volume.handle());
        }
        match &decision.subject {
            // Letting go of a named clone enters by itself.
            Subject::Clone(_) if matches!(decision.action, Some(Action::Release { .. })) => {}
            Subject::Clone(name) => names.push(name.clone()),
            Subject::Volume(spec) => names.extend(spec.image.parse::<CloneName>()),
            Subject::Target(path) => {
                let owner = super::observed::owner_of(path, &self.parts.kubelet_dir);
                names.extend(owner.map(|(uid, volume)| aldaas_api::VolumeId::of_pod(&uid, &volume).handle()));
            }
            Subject::Trash => {}
        }
        names.sort();
        names.dedup();
        names.iter().map(|name| self.parts.guards.try_enter(name)).collect()
    }

    async fn act(&self, decision: &Decision, action: &Action, observed: &Observed) -> Ran {
        match (action, &decision.subject) {
            (Action::Remove { ask, targets }, Subject::Clone(name)) => {
                self.remove(decision, name, ask, targets).await
            }
            (Action::RemoveHalfMade, Subject::Clone(name)) => self.remove_half_made(name).await,
            (Action::Release { ask, targets, keep }, Subject::Clone(name)) => {
                self.release(decision, name, ask, targets, *keep).await
            }
            (Action::Close { ask, targets, discard }, Subject::Volume(spec)) => {
                self.close(decision, spec, ask, targets, *discard).await
            }
            (Action::Unbind, Subject::Target(path)) => self.unbind(std::slice::from_ref(path)).await,
            (Action::DeletePod(pod), Subject::Clone(name)) => {
                self.delete_pod(decision, pod, name, observed).await
            }
            (Action::Purge, Subject::Trash) => self.purge().await,
            _ => Ok(Outcome::Kept("there is nothing to do".to_owned())),
        }
    }

    async fn remove(&self, decision: &Decision, name: &CloneName, ask: &[Ask], targets: &[PathBuf]) -> Ran {
        if let Some(why) = self.speaks_against(decision.user.as_ref(), Some(name), ask).await? {
            return Ok(Outcome::Kept(why));
        }
        if let Some(why) = self.other_user(name, decision.user.as_ref()).await? {
            return Ok(Outcome::Kept(why));
        }
        self.unbind(targets).await?;
        Ok(self.parts.remover.remove(name).await?.into())
    }

    /// What a clone's record, its watchers and its TTL say now, if that speaks against removing it.
    async fn other_user(&self, name: &CloneName, user: Option<&PodUse>) -> Result<Option<String>, RunError> {
        let spec = ImageSpec::new(self.parts.storage.pool().as_str(), golden::CLONE, name.as_str());
        let node = self.parts.node.clone();
        let is_here = blocking(move || node.find(&spec)).await?.is_some();
        let (name, user) = (name.clone(), user.cloned());
        let found = self.parts.storage.run(move |store| {
            let clone = match store.find_clone(&name) {
                // It went, and only what is here is left.
                Err(golden::Error::NoClone(_)) => return Ok(None),
                other => other?,
            };
            if clone.record.pod != user {
                return Ok(Some("it has another user now".to_owned()));
            }
            if !is_here && !store.clone_watchers(&clone.id)?.is_empty() {
                return Ok(Some("somebody has it open".to_owned()));
            }
            let named = clone.record.purpose == golden::Purpose::PodNamed;
            Ok((named && store.is_kept(&clone.id)?).then(|| "its TTL has not run out".to_owned()))
        });
        Ok(found.await?)
    }

    async fn remove_half_made(&self, name: &CloneName) -> Ran {
        let pods = self.parts.cluster.pods()?;
        if let Some(pod) = living_user(&pods, name, None) {
            return Ok(Outcome::Kept(format!("pod {}/{} is about to use it", pod.namespace, pod.name)));
        }
        let name = name.clone();
        let removed = self.parts.storage.run(move |store| match store.trash_half_made(&name)? {
            Some(trashed) => store.purge_clone(&trashed).map(drop),
            None => Ok(()),
        });
        Ok(removed.await.map(|()| Outcome::Done)?)
    }

    async fn release(
        &self,
        decision: &Decision,
        name: &CloneName,
        ask: &[Ask],
        targets: &[PathBuf],
        keep: bool,
    ) -> Ran {
        // Another node's: no pod of ours is asked about, but one may have come.
        let user = decision.user.as_ref().filter(|_| keep);
        if let Some(why) = self.speaks_against(user, Some(name), ask).await? {
            return Ok(Outcome::Kept(why));
        }
        self.unbind(targets).await?;
        let volume = decision.user.as_ref().map(|user| user.volume.clone()).unwrap_or_default();
        Ok(self.parts.publisher.let_go_of_named(name, &volume).await?.into())
    }

    async fn close(
        &self,
        decision: &Decision,
        spec: &ImageSpec,
        ask: &[Ask],
        targets: &[PathBuf],
        discard: bool,
    ) -> Ran {
        let name = spec.image.parse::<CloneName>().ok();
        if let Some(why) = self.speaks_against(decision.user.as_ref(), name.as_ref(), ask).await? {
            return Ok(Outcome::Kept(why));
        }
        if !discard {
            self.unbind(targets).await?;
            return Ok(self.parts.publisher.let_go_of_build(spec).await?.into());
        }
        if self.has_image(spec).await? {
            return Ok(Outcome::Kept("its image is there after all".to_owned()));
        }
        self.unbind(targets).await?;
        let (node, spec) = (self.parts.node.clone(), spec.clone());
        blocking(move || node.discard(&spec)).await?;
        Ok(Outcome::Done)
    }

    async fn has_image(&self, spec: &ImageSpec) -> golden::Result<bool> {
        let spec = spec.clone();
        let found = self.parts.storage.run(move |store| {
            let found = match (spec.namespace.as_str(), spec.image.parse(), spec.image.parse()) {
                (golden::CLONE, Ok(name), _) => store.find_clone(&name).map(drop),
                (golden::GOLDEN, _, Ok(name)) => store.golden_image(&name).map(drop),
                _ => return Ok(true),
            };
            match found {
                Err(golden::Error::NoClone(_) | golden::Error::NoImage(_)) => Ok(false),
                Ok(()) | Err(golden::Error::Foreign(_)) => Ok(true),
                Err(error) => Err(error),
            }
        });
        found.await
    }

    async fn unbind(&self, targets: &[PathBuf]) -> Ran {
        let kubelet_dir =
            self.parts.kubelet_dir.canonicalize().unwrap_or_else(|_| self.parts.kubelet_dir.clone());
        for path in targets {
            let target = Target::parse(&path.to_string_lossy(), &kubelet_dir)?;
            let node = self.parts.node.clone();
            blocking(move || target.unbind(&node)).await?;
        }
        Ok(Outcome::Done)
    }

    async fn delete_pod(&self, decision: &Decision, pod: &Pod, name: &CloneName, observed: &Observed) -> Ran {
        if !self.observer.is_idle_still(observed, name).await {
            return Ok(Outcome::Kept("it is in use again".to_owned()));
        }
        let message = format!("aldaas deletes this pod: {}. Its TTL is over", decision.reason);
        self.parts.cluster.delete_pod(pod, "CloneIdle", &message).await?;
        Ok(Outcome::Done)
    }

    async fn purge(&self) -> Ran {
        let purged = self.parts.remover.purge_all().await?;
        if purged.removed > 0 || purged.failed > 0 {
            tracing::info!(
                removed = purged.removed,
                waiting = purged.waiting,
                failed = purged.failed,
                "trash purged"
            );
        }
        Ok(Outcome::Done)
    }

    /// What Kubernetes says now, if that speaks against it.
    async fn speaks_against(
        &self,
        user: Option<&PodUse>,
        name: Option<&CloneName>,
        ask: &[Ask],
    ) -> Result<Option<String>, RunError> {
        let cluster = &self.parts.cluster;
        let pods = cluster.pods()?;
        let living = match name {
            Some(name) => living_user(&pods, name, user),
            None => pods.iter().find(|pod| !pod.finished && user.is_some_and(|user| user.pod_uid == pod.uid)),
        };
        if let Some(pod) = living {
            return Ok(Some(format!("pod {}/{} uses it", pod.namespace, pod.name)));
        }
        for question in ask {
            let exists = match question {
                Ask::PodGone(user) => cluster.pod_exists(&user.namespace, &user.pod, &user.pod_uid).await?,
                Ask::NodeGone(node) => cluster.node_exists(node).await?,
            };
            if exists {
                return Ok(Some(match question {
                    Ask::PodGone(user) => format!("pod {}/{} still exists", user.namespace, user.pod),
                    Ask::NodeGone(node) => format!("node {node} still exists"),
                }));
            }
        }
        Ok(None)
    }
}
