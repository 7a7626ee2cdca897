//! Which container gets the clone, and what its mount replaces.

use aldaas_api::keys::Asked;

use super::engine::{Fit, fit, is, normal};
use super::object::{Container, Mount, Spec, Volume};
use super::{Denial, Resolved};
use crate::catalogue::Database;

/// A container of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// One of `containers`.
    Container(usize),
    /// One of `initContainers`.
    Init(usize),
}

impl Slot {
    /// The container itself.
    pub fn of(self, spec: &Spec) -> &Container {
        match self {
            Self::Container(at) => &spec.containers[at],
            Self::Init(at) => &spec.init_containers[at],
        }
    }

    /// Its path in the pod.
    pub fn path(self) -> String {
        match self {
            Self::Container(at) => format!("/spec/containers/{at}"),
            Self::Init(at) => format!("/spec/initContainers/{at}"),
        }
    }
}

fn all(spec: &Spec) -> impl Iterator<Item = (Slot, &Container)> {
    let containers =
        spec.containers.iter().enumerate().map(|(at, container)| (Slot::Container(at), container));
    let init = spec.init_containers.iter().enumerate().map(|(at, container)| (Slot::Init(at), container));
    containers.chain(init)
}

/// The container that is named; else the one that runs the engine, then the one that has the clone already, then the only one.
pub fn choose(spec: &Spec, asked: &Asked, database: &Database, volume: &str) -> Result<Slot, Denial> {
    if let Some(name) = &asked.container {
        let found = all(spec).find(|(_, container)| container.name == *name);
        let have = || all(spec).map(|(_, container)| container.name.clone()).collect();
        return found
            .map(|(slot, _)| slot)
            .ok_or_else(|| Denial::NoSuchContainer { name: name.clone(), have: have() });
    }
    let runs = |(slot, container): &(Slot, &Container)| {
        matches!(slot, Slot::Container(_)) || container.restart_policy.as_deref() == Some("Always")
    };
    let fits: Vec<(Fit, Slot)> = all(spec)
        .filter(runs)
        .filter_map(|(slot, c)| Some((fit(&c.image, &database.image)?, slot)))
        .collect();
    let best = fits.iter().map(|(fit, _)| *fit).max();
    let fitting: Vec<Slot> =
        fits.iter().filter(|(fit, _)| Some(*fit) == best).map(|(_, slot)| *slot).collect();
    let which = |why| Denial::WhichContainer {
        database: asked.database.clone(),
        why,
        have: all(spec).filter(runs).map(|(_, container)| container.name.clone()).collect(),
    };
    let has = |mount_of: &&Mount| mount_of.name == volume && is(&mount_of.mount_path, &database.mount);
    let mut having = all(spec).filter(runs).filter(|(_, container)| mounts(container).find(has).is_some());
    let already = having.find(|(slot, _)| fitting.is_empty() || fitting.contains(slot));
    match (&fitting[..], spec.containers.len()) {
        ([one], _) => Ok(*one),
        _ if already.is_some() => Ok(already.map_or(Slot::Container(0), |(slot, _)| slot)),
        ([], 1) => Ok(Slot::Container(0)),
        ([], 0) => Err(which("the pod has none")),
        ([], _) => Err(which("the pod has several, and none runs the engine's image")),
        (_, _) => Err(which("several run the engine's image")),
    }
}

fn mounts(container: &Container) -> impl Iterator<Item = &Mount> {
    container.volume_mounts.iter().flatten()
}

/// What is mounted where the clone has to be.
pub enum Found {
    /// Nothing.
    Nothing,
    /// The clone.
    Ours,
    /// Something that the clone replaces.
    Instead {
        /// Which of the mounts.
        at: usize,
        /// What it is, in words.
        what: String,
    },
}

/// Looks for what is mounted where the clone has to be. Nothing may hide a part of it.
pub fn find_mount(spec: &Spec, clone: &Resolved) -> Result<Found, Denial> {
    let container = clone.slot.of(spec);
    let taken = |mount: &Mount| Denial::MountTaken {
        database: clone.asked.database.clone(),
        container: container.name.clone(),
        volume: mount.name.clone(),
        path: mount.mount_path.clone(),
    };
    let of = |mount: &Mount| spec.volumes.iter().flatten().find(|volume| volume.name == mount.name);
    let below = |mount: &&Mount| is_below(&mount.mount_path, &clone.database.mount);
    if let Some(mount) =
        mounts(container).filter(below).find(|mount| replaceable(of(mount), &mount.name).is_some())
    {
        return Err(taken(mount));
    }
    let at_our_path = |(_, mount): &(usize, &Mount)| is(&mount.mount_path, &clone.database.mount);
    let Some((at, mount)) = mounts(container).enumerate().find(at_our_path) else {
        return Ok(Found::Nothing);
    };
    let whole = |part: &Option<String>| part.as_deref().is_none_or(str::is_empty);
    if mount.name == clone.volume {
        return Ok(match whole(&mount.sub_path) && whole(&mount.sub_path_expr) {
            true => Found::Ours,
            false => Found::Instead { at, what: "only a part of it".to_owned() },
        });
    }
    match replaceable(of(mount), &mount.name) {
        Some(what) => Ok(Found::Instead { at, what }),
        None => Err(taken(mount)),
    }
}

fn is_below(path: &str, mount: &str) -> bool {
    normal(path).strip_prefix(mount).is_some_and(|rest| rest.starts_with('/'))
}

/// Places for data are replaced; what a pod mounts for another reason is not.
fn replaceable(volume: Option<&Volume>, name: &str) -> Option<String> {
    match volume {
        Some(Volume { empty_dir: Some(_), .. }) => Some(format!("emptyDir {name}")),
        Some(Volume { persistent_volume_claim: Some(claim), .. }) => {
            Some(format!("PersistentVolumeClaim {}", claim.claim_name))
        }
        Some(Volume { ephemeral: Some(_), .. }) => Some(format!("ephemeral volume {name}")),
        Some(_) => None,
        // A StatefulSet's template mounts what stands among its claims.
        None => Some(format!("volume {name}")),
    }
}
