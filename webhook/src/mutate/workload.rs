//! Deployments, StatefulSets and Jobs: what stands on them is carried into their template, and taken out again when it is
//! removed, so that `kubectl annotate deployment web aldaas/db=latest` does what it looks like.
//!
//! Which annotations of a template were carried stands in one of its own ([`CARRIED`]): what a user wrote into the template
//! is never touched.

use std::collections::BTreeSet;

use aldaas_api::keys::{ASKED, CARRIED, DB, Keys, Map};
use serde::Serialize;

use super::object::{Meta, Object, Template};
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
    let carried = carry(&object.metadata, template);
    let meta = with_annotations(template.metadata.as_ref(), carried.annotations);
    let mut mutation = Mutation { patch: carried.patch, warnings: carried.warnings, images: Vec::new() };
    match pod(&meta, &template.spec, scene) {
        Ok(pods) => {
            mutation.warnings.extend(pods.warnings);
            mutation.images = pods.images;
        }
        Err(denial @ Denial::Keys(_)) if !old.is_some_and(|old| same_keys(old, object)) => {
            return Err(denial);
        }
        Err(denial) => mutation.warnings.push(format!("its pods will be refused as it is now: {denial}")),
    }
    Ok(mutation)
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

fn carry(meta: &Meta, template: &Template) -> Carried {
    let inner = template.metadata.as_ref();
    let had = inner.and_then(|meta| meta.annotations.clone());
    let before = had.clone().unwrap_or_default();
    let marked: BTreeSet<&str> =
        before.get(CARRIED).map(|text| text.split(',').collect()).unwrap_or_default();
    let (mut after, mut still, mut warnings) = (before.clone(), BTreeSet::new(), Vec::new());
    for key in ASKED {
        let theirs = inner.and_then(|meta| meta.keys().get(key)).filter(|_| !marked.contains(key));
        match (meta.keys().get(key), theirs) {
            (Some(value), Some(theirs)) if value != theirs => {
                warnings.push(format!(
                    "{key} on the object is not heeded: its template has the same key and says something else"
                ));
            }
            (Some(value), None) => {
                after.insert(key.to_owned(), value.to_owned());
                still.insert(key);
            }
            (None, None) => drop(after.remove(key)),
            (_, Some(_)) => {}
        }
    }
    match still.is_empty() {
        true => drop(after.remove(CARRIED)),
        false => drop(after.insert(CARRIED.to_owned(), still.into_iter().collect::<Vec<_>>().join(","))),
    }
    if !after.contains_key(DB) {
        warnings.clear();
    }
    let patch = difference(&before, &after, inner.is_some(), had.is_some());
    Carried { annotations: after, patch, warnings }
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
