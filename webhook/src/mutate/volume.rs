//! The volume that a pod gets: what `aldaas_api::context` reads.

use aldaas_api::context;
use aldaas_api::keys::Map;
use aldaas_api::{ImageRef, Ttl};
use serde::Serialize;

use super::object::Spec;
use super::{Denial, Resolved};
use crate::DRIVER;

/// What the pod has under the name of our volume.
pub enum Found {
    /// Nothing.
    Nothing,
    /// Our volume, from an earlier invocation, or written by hand.
    Ours {
        /// Which of the volumes.
        at: usize,
        /// What it has to say instead of what it says.
        attributes: Option<Map>,
        /// It can be written to, and must not.
        writable: bool,
    },
}

/// `volumeAttributes`
fn attributes(clone: &Resolved) -> Map {
    let asked = &clone.asked;
    let mut map = Map::from([
        (context::DB.to_owned(), asked.reference().to_string()),
        (context::IMAGE.to_owned(), clone.image_text.clone()),
    ]);
    map.extend(asked.ttl.map(|ttl| (context::TTL.to_owned(), ttl.to_string())));
    map.extend(asked.clone.as_ref().map(|name| (context::CLONE.to_owned(), name.to_string())));
    map
}

/// A volume, as it is written.
#[derive(Serialize)]
pub struct Written<'a> {
    name: &'a str,
    csi: WrittenCsi,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenCsi {
    driver: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
    volume_attributes: Map,
}

/// The volume.
pub fn volume(clone: &Resolved) -> Written<'_> {
    let (read_only, volume_attributes) = (clone.database.read_only, attributes(clone));
    Written { name: &clone.volume, csi: WrittenCsi { driver: DRIVER, read_only, volume_attributes } }
}

/// Looks for the volume in the pod. `again`: the pod was here before, so that the volume is our own, and what the pod asks for
/// may have been changed by others since.
pub fn find(spec: &Spec, clone: &Resolved, again: bool) -> Result<Found, Denial> {
    let name = &clone.volume;
    let found = spec.volumes.iter().flatten().enumerate().find(|(_, volume)| volume.name == *name);
    let Some((at, volume)) = found else { return Ok(Found::Nothing) };
    let Some(csi) = volume.csi.as_ref().filter(|csi| csi.driver == DRIVER) else {
        return Err(Denial::VolumeTaken { database: clone.asked.database.clone(), volume: name.clone() });
    };
    let wants = attributes(clone);
    let without_image =
        |map: &Map| Map::from_iter(map.clone().into_iter().filter(|(key, _)| key != context::IMAGE));
    let (has, asked) = (without_image(&csi.volume_attributes), without_image(&wants));
    if !again && canonical(&has) != asked {
        return Err(Denial::VolumeContradicts {
            volume: name.clone(),
            has: words(&has),
            asked: words(&asked),
        });
    }
    let attributes = Some(wants).filter(|wants| *wants != csi.volume_attributes);
    Ok(Found::Ours { at, attributes, writable: clone.database.read_only && !csi.read_only })
}

/// The same, written as [`attributes`] writes it. What can't be read stays as it is.
fn canonical(map: &Map) -> Map {
    let mut map = map.clone();
    if let Some(reference) = map.get(context::DB).and_then(|text| text.parse::<ImageRef>().ok()) {
        map.insert(context::DB.to_owned(), reference.to_string());
    }
    if let Some(ttl) = map.get(context::TTL).and_then(|text| text.parse::<Ttl>().ok()) {
        map.insert(context::TTL.to_owned(), ttl.to_string());
    }
    map
}

fn words(map: &Map) -> String {
    let text = map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
    match text.is_empty() {
        true => "nothing".to_owned(),
        false => text.chars().take(200).collect(),
    }
}
