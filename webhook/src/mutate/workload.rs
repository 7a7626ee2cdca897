//! Deployments, StatefulSets and Jobs: what stands on them is carried into their template, and taken out again when it is
//! removed, so that `kubectl annotate deployment web aldaas/db=latest` does what it looks like.
//!
//! Which annotations of a template were carried stands in one of its own ([`CARRIED`]): what a user wrote into the template
//! is never touched. One that was carried and now says something else was written by a user since.

use std::collections::BTreeSet;

use aldaas_api::keys::{ASKED, CARRIED, CLONE, DB, Keys, Map};
use serde::Serialize;

use super::object::{Meta, Object, Spec, Template};
use super::patch::{Patch, escape};
use super::{Denial, Mutation, Scene, pod, with_annotations};

/// Decides about what makes pods. `old` is what it was, where it was before.
///
/// What can't be read is refused here, where it was written. What only isn't there yet (a database, an image, access) may come
/// before the pods do, so it is said and not refused.
///
/// # Errors
/// When what stands on it can't be read, and that is new.
pub fn workload(object: &Object, old: Option<&Object>, scene: &Scene<'_>) -> Result<Mutation, Denial> {
    let Some(template) = &object.spec.template else { return Ok(Mutation::default()) };
    let before = old.and_then(|old| old.spec.template.as_ref());
    let carried = carry(&object.metadata, template, before.and_then(|template| template.metadata.as_ref()));
    let meta = with_annotations(template.metadata.as_ref(), carried.annotations);
    let mut mutation = Mutation { patch: carried.patch, warnings: carried.warnings, images: Vec::new() };
    match pod(&meta, &template.spec, scene) {
        Ok(pods) => {
            mutation.warnings.extend(pods.warnings);
            mutation.warnings.extend(waits_for_itself(&object.spec, &meta));
            mutation.images = pods.images;
        }
        Err(denial @ Denial::Keys(_)) if !old.is_some_and(|old| same_keys(old, object)) => {
            return Err(denial);
        }
        Err(denial) => mutation.warnings.push(format!("its pods will be refused as it is now: {denial}")),
    }
    Ok(mutation)
}

/// Where pods of one workload would wait for each other's named clone, which one pod has at a time.
fn waits_for_itself(spec: &Spec, meta: &Meta) -> Option<String> {
    let name = meta.keys().get(CLONE)?;
    let why = match (spec.replicas, spec.strategy.kind.as_deref()) {
        (Some(replicas), _) if replicas > 1 => {
            format!("of {replicas} pods one gets it, and the others wait: use one replica")
        }
        (_, Some("RollingUpdate")) => {
            "in a rolling update the new pod waits for the old one, which stays until the new one is ready: use \
             spec.strategy.type Recreate"
                .to_owned()
        }
        _ => return None,
    };
    Some(format!("a named clone ({CLONE}: {name}) belongs to one pod at a time: {why}"))
}

/// Whether what stood there before is still what stands there: a mistake of old must not get in the way of other changes.
fn same_keys(old: &Object, new: &Object) -> bool {
    let of = |object: &Object| {
        let template =
            object.spec.template.as_ref().and_then(|template| template.metadata.clone()).unwrap_or_default();
        let values = |keys: Keys<'_>| ASKED.map(|key| keys.get(key).map(str::to_owned));
        (values(object.metadata.keys()), values(template.keys()))
    };
    of(old) == of(new)
}

struct Carried {
    /// The template's annotations after it.
    annotations: Map,
    patch: Patch,
    warnings: Vec<String>,
}

fn carry(meta: &Meta, template: &Template, old: Option<&Meta>) -> Carried {
    let inner = template.metadata.as_ref();
    let had = inner.and_then(|meta| meta.annotations.clone());
    let before = had.clone().unwrap_or_default();
    let mut marked = marked_in(&before);
    if let Some(old) = old.and_then(|old| old.annotations.as_ref()) {
        let carried_then = marked_in(old);
        let changed = |key: &&str| carried_then.contains(key) && old.get(*key) != before.get(*key);
        marked.retain(|key| !changed(key));
    }
    let labels = inner.and_then(|meta| meta.labels.as_ref());
    let (mut after, mut still) = (before.clone(), BTreeSet::new());
    let (mut warnings, mut taken_out) = (Vec::new(), Vec::new());
    for key in ASKED {
        let carried = marked.contains(key);
        let theirs = match carried {
            true => labels.and_then(|labels| labels.get(key)).map(String::as_str),
            false => inner.and_then(|meta| meta.keys().get(key)),
        };
        let ours = meta.keys().get(key);
        if let (Some(value), Some(theirs)) = (ours, theirs)
            && value != theirs
        {
            warnings.push(format!(
                "{key} on the object is not heeded: its template has the same key and says something else"
            ));
        }
        match (ours, theirs) {
            (Some(value), None) => {
                after.insert(key.to_owned(), value.to_owned());
                still.insert(key);
            }
            (_, Some(_)) if !carried => {}
            _ => {
                let gone = after.remove(key).is_some();
                if gone && key == DB && theirs.is_none() {
                    taken_out.push(format!(
                        "{DB} was taken off the object, so it is taken out of its template: its pods get no clone any more"
                    ));
                }
            }
        }
    }
    match still.is_empty() {
        true => drop(after.remove(CARRIED)),
        false => drop(after.insert(CARRIED.to_owned(), still.into_iter().collect::<Vec<_>>().join(","))),
    }
    if !after.contains_key(DB) {
        warnings.clear();
    }
    warnings.extend(taken_out);
    let patch = difference(&before, &after, inner.is_some(), had.is_some());
    Carried { annotations: after, patch, warnings }
}

/// The keys that were carried into these annotations.
fn marked_in(annotations: &Map) -> BTreeSet<&str> {
    annotations.get(CARRIED).map(|text| text.split(',').collect()).unwrap_or_default()
}

/// `metadata` of a template that had none.
#[derive(Serialize)]
struct Annotated<'a> {
    annotations: &'a Map,
}

/// The patch from one set of annotations of the template to another.
fn difference(before: &Map, after: &Map, has_meta: bool, has_annotations: bool) -> Patch {
    const META: &str = "/spec/template/metadata";
    let mut patch = Patch::default();
    if before == after {
        return patch;
    }
    if !has_annotations {
        match has_meta {
            true => patch.add(&format!("{META}/annotations"), after),
            false => patch.add(META, Annotated { annotations: after }),
        }
        return patch;
    }
    let path = |key: &str| format!("{META}/annotations/{}", escape(key));
    for (key, value) in after.iter().filter(|(key, value)| before.get(*key) != Some(value)) {
        patch.add(&path(key), value);
    }
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.remove(&path(key));
    }
    patch
}
