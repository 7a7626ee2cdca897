//! What becomes of a pod that asks for a database: a patch, or a denial. Pure: it depends on what is given alone.
//!
//! The patch adds the volume, its mount in the right container, what the engine needs to find it, and an annotation that says
//! which golden image it is. It touches nothing else, and a pod that has all of it is left as it is.

pub mod denial;
pub mod engine;
pub mod object;
pub mod patch;
mod place;
mod resolve;
mod volume;
pub mod workload;

use std::collections::{BTreeMap, HashMap};

use aldaas_api::keys::{self, Asked, IMAGE, Map};
use aldaas_api::{DatabaseName, GoldenImageName};
use serde::Serialize;

use crate::catalogue::{Catalogue, Database};
pub use denial::Denial;
use engine::{DATA_VARIABLE, Data};
use object::{Container, Meta, Spec};
pub use patch::Patch;
use place::Slot;

/// The annotation with which kubelet shows a static pod to the API server.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Where an object is, and what is known.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// What is known.
    pub catalogue: &'a Catalogue,
    /// The object's namespace.
    pub namespace: &'a str,
    /// The namespace that aldaas itself runs in.
    pub own_namespace: &'a str,
}

/// What becomes of an object that is admitted.
#[derive(Debug, Default, PartialEq)]
pub struct Mutation {
    /// What is changed.
    pub patch: Patch,
    /// What its author should know.
    pub warnings: Vec<String>,
    /// The golden images that its clones are made of.
    pub images: Vec<GoldenImageName>,
}

/// One clone, as it will be.
struct Resolved {
    asked: Asked,
    /// The volume's name.
    volume: String,
    database: std::sync::Arc<Database>,
    image: GoldenImageName,
    image_text: String,
    /// The engine's major version in the image.
    major: Option<u32>,
    slot: Slot,
}

/// Decides about a pod.
///
/// # Errors
/// When it can't have what it asks for.
pub fn pod(meta: &Meta, spec: &Spec, scene: &Scene<'_>) -> Result<Mutation, Denial> {
    let keys = meta.keys();
    if keys.get(keys::DB).is_none() {
        return Ok(Mutation::default());
    }
    if meta.annotations.as_ref().is_some_and(|map| map.contains_key(MIRROR)) {
        let warnings =
            vec!["a static pod is started by kubelet as it stands in its file: it gets no clone".to_owned()];
        return Ok(Mutation { warnings, ..Mutation::default() });
    }
    let unknown = || Denial::UnknownNamespace(scene.namespace.to_owned());
    let namespace = scene.catalogue.namespace(scene.namespace).ok_or_else(unknown)?;
    let asked = keys.asked(namespace.database.as_deref())?;
    refuse_windows(spec)?;
    let mut clones = Vec::with_capacity(asked.len());
    for asked in asked {
        clones.push(resolve::resolve(asked, spec, namespace, scene)?);
    }
    refuse_one_place_for_two(&clones, spec)?;
    let mut made = Work::new(meta, spec);
    for clone in &clones {
        made.volume(clone)?;
        made.mount(clone)?;
        made.engine(clone, &clones)?;
    }
    made.note_images(clones.iter().map(|clone| clone.image.clone()).collect());
    made.warn_of_the_rest();
    Ok(made.mutation)
}

fn refuse_windows(spec: &Spec) -> Result<(), Denial> {
    let named = spec.os.as_ref().map(|os| os.name.as_str());
    let selected = spec.node_selector.get("kubernetes.io/os").map(String::as_str);
    match [named, selected].contains(&Some("windows")) {
        true => Err(Denial::Windows),
        false => Ok(()),
    }
}

fn refuse_one_place_for_two(clones: &[Resolved], spec: &Spec) -> Result<(), Denial> {
    let mut taken: HashMap<(Slot, &str), &DatabaseName> = HashMap::new();
    for clone in clones {
        if let Some(one) = taken.insert((clone.slot, &clone.database.mount), &clone.asked.database) {
            return Err(Denial::SamePlace {
                one: one.clone(),
                other: clone.asked.database.clone(),
                path: clone.database.mount.clone(),
                container: clone.slot.of(spec).name.clone(),
            });
        }
    }
    Ok(())
}

/// A mount, as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mount<'a> {
    name: &'a str,
    mount_path: &'a str,
}

/// An environment variable, as it is written.
#[derive(Serialize)]
struct Variable<'a> {
    name: &'a str,
    value: &'a str,
}

/// The patch while it is made.
struct Work<'a> {
    meta: &'a Meta,
    spec: &'a Spec,
    mutation: Mutation,
    /// Whether the pod has `volumes` by now, and each container `volumeMounts` and `env`.
    volumes: bool,
    arrays: BTreeMap<Slot, (bool, bool)>,
}

impl<'a> Work<'a> {
    fn new(meta: &'a Meta, spec: &'a Spec) -> Self {
        let volumes = spec.volumes.is_some();
        Self { meta, spec, mutation: Mutation::default(), volumes, arrays: BTreeMap::new() }
    }

    fn warn(&mut self, warning: String) {
        self.mutation.warnings.push(warning);
    }

    fn arrays(&mut self, slot: Slot) -> &mut (bool, bool) {
        let container = slot.of(self.spec);
        self.arrays.entry(slot).or_insert((container.volume_mounts.is_some(), container.env.is_some()))
    }

    fn volume(&mut self, clone: &Resolved) -> Result<(), Denial> {
        let again = self.meta.annotations.as_ref().is_some_and(|map| map.contains_key(IMAGE));
        match volume::find(self.spec, clone, again)? {
            volume::Found::Nothing => {
                let value = volume::volume(clone);
                self.mutation.patch.append("/spec/volumes", &mut self.volumes, value);
            }
            volume::Found::Ours { at, attributes, writable } => {
                let csi = format!("/spec/volumes/{at}/csi");
                if let Some(attributes) = attributes {
                    self.mutation.patch.add(&format!("{csi}/volumeAttributes"), attributes);
                }
                if writable {
                    self.mutation.patch.add(&format!("{csi}/readOnly"), true);
                }
            }
        }
        Ok(())
    }

    fn mount(&mut self, clone: &Resolved) -> Result<(), Denial> {
        let path = format!("{}/volumeMounts", clone.slot.path());
        let value = Mount { name: &clone.volume, mount_path: &clone.database.mount };
        match place::find_mount(self.spec, clone)? {
            place::Found::Nothing => {
                let mut exists = self.arrays(clone.slot).0;
                self.mutation.patch.append(&path, &mut exists, value);
                self.arrays(clone.slot).0 = exists;
            }
            place::Found::Ours => {}
            place::Found::Instead { at, what } => {
                let (container, database) = (&clone.slot.of(self.spec).name, &clone.asked.database);
                self.warn(format!(
                    "container {container} gets the clone of {database} at {} instead of {what}, which it no longer mounts there",
                    clone.database.mount
                ));
                self.mutation.patch.replace(&format!("{path}/{at}"), value);
            }
        }
        Ok(())
    }

    /// What the engine needs to find and to be able to read its data.
    fn engine(&mut self, clone: &Resolved, all: &[Resolved]) -> Result<(), Denial> {
        let container = clone.slot.of(self.spec);
        if let Some(warning) = resolve::version(container, clone)? {
            self.warn(warning);
        }
        let user = container.security_context.run_as_user.or(self.spec.security_context.run_as_user);
        if user.is_some_and(|user| user != 0 && user != i64::from(clone.database.owner)) {
            let (user, owner) = (user.unwrap_or_default(), clone.database.owner);
            self.warn(format!(
                "container {} runs as user {user}, but the data of {} belongs to user {owner}: {} will refuse it",
                container.name, clone.asked.database, clone.database.engine
            ));
        }
        match all.iter().filter(|other| other.slot == clone.slot).count() {
            1 => self.data_directory(container, clone),
            _ => {
                // One engine can't run on two of them, so this container is something else.
            }
        }
        Ok(())
    }

    fn data_directory(&mut self, container: &Container, clone: &Resolved) {
        let variable = Variable { name: DATA_VARIABLE, value: &clone.database.mount };
        let path = format!("{}/env", clone.slot.path());
        match engine::data(container, &clone.database.mount) {
            Data::Right => {}
            Data::Missing => {
                let mut exists = self.arrays(clone.slot).1;
                self.mutation.patch.append(&path, &mut exists, variable);
                self.arrays(clone.slot).1 = exists;
            }
            Data::Wrong(at, value) => {
                let said = value.map_or_else(|| "from elsewhere".to_owned(), |value| format!("{value:?}"));
                self.warn(format!(
                    "{DATA_VARIABLE} of container {} was {said}, and is {} now, where the clone of {} is",
                    container.name, clone.database.mount, clone.asked.database
                ));
                self.mutation.patch.replace(&format!("{path}/{at}"), variable);
            }
        }
        if let Some(other) = engine::other_data(container, &clone.database.mount) {
            self.warn(format!(
                "the arguments of container {} name the data directory {other}, but the clone of {} is at {}",
                container.name, clone.asked.database, clone.database.mount
            ));
        }
    }

    /// Writes where people can see it which images the clones are made of.
    fn note_images(&mut self, images: Vec<GoldenImageName>) {
        let text = images.iter().map(GoldenImageName::to_string).collect::<Vec<_>>().join(",");
        self.mutation.images = images;
        match &self.meta.annotations {
            Some(map) if map.get(IMAGE) == Some(&text) => {}
            Some(_) => {
                self.mutation.patch.add(&format!("/metadata/annotations/{}", patch::escape(IMAGE)), text);
            }
            None => {
                self.mutation.patch.add("/metadata/annotations", BTreeMap::from([(IMAGE, text)]));
            }
        }
    }

    fn warn_of_the_rest(&mut self) {
        let keys = self.meta.keys();
        for unknown in keys.unknown().take(4) {
            self.warn(unknown_key(unknown));
        }
        if let Some(key) = keys.contradiction() {
            self.warn(format!(
                "label {key} is not heeded: the annotation of the same key says something else"
            ));
        }
        if self.spec.host_network {
            self.warn(
                "the pod shares its node's network: whether its clone is idle is judged by what it reads and writes alone"
                    .to_owned(),
            );
        }
    }
}

/// What to say of a key that means nothing.
fn unknown_key(unknown: &str) -> String {
    let shown: String = unknown.chars().take(60).collect();
    let near = keys::ASKED.into_iter().min_by_key(|key| strsim::osa_distance(key, &shown));
    format!("{shown:?} means nothing to aldaas: did you mean {}?", near.unwrap_or(keys::DB))
}

/// Annotations of a pod made from a template.
fn with_annotations(meta: Option<&Meta>, annotations: Map) -> Meta {
    Meta { annotations: Some(annotations), ..meta.cloned().unwrap_or_default() }
}
