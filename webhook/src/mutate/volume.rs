//! The volume that a pod gets: what `aldaas_api::context` reads.

use aldaas_api::context;
use aldaas_api::keys::Map;
use serde_json::{Value, json};

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
        /// It names the right image.
        image: bool,
        /// It can be written to, or not, as the database wants it.
        read_only: bool,
    },
}

/// `volumeAttributes`
fn attributes(clone: &Resolved) -> Map {
    let asked = &clone.asked;
    let mut map = Map::from([
        (context::DB.to_owned(), asked.reference().to_string()),
        (context::IMAGE.to_owned(), clone.image.to_string()),
    ]);
    map.extend(asked.ttl.map(|ttl| (context::TTL.to_owned(), ttl.to_string())));
    map.extend(asked.clone.as_ref().map(|name| (context::CLONE.to_owned(), name.to_string())));
    map
}

/// The volume.
pub fn volume(clone: &Resolved) -> Value {
    let mut csi = json!({ "driver": DRIVER, "volumeAttributes": attributes(clone) });
    if clone.database.read_only {
        csi["readOnly"] = json!(true);
    }
    json!({ "name": clone.asked.volume_name(), "csi": csi })
}

/// Looks for the volume in the pod.
pub fn find(spec: &Spec, clone: &Resolved) -> Result<Found, Denial> {
    let name = clone.asked.volume_name();
    let found = spec.volumes.iter().flatten().enumerate().find(|(_, volume)| volume.name == name);
    let Some((at, volume)) = found else { return Ok(Found::Nothing) };
    let Some(csi) = volume.csi.as_ref().filter(|csi| csi.driver == DRIVER) else {
        return Err(Denial::VolumeTaken { database: clone.asked.database.clone(), volume: name });
    };
    let (mut has, mut wants) = (csi.volume_attributes.clone(), attributes(clone));
    let image = has.remove(context::IMAGE) == wants.remove(context::IMAGE);
    if has != wants {
        return Err(Denial::VolumeContradicts { volume: name, has: words(&has), asked: words(&wants) });
    }
    Ok(Found::Ours { at, image, read_only: csi.read_only == clone.database.read_only })
}

fn words(map: &Map) -> String {
    let text = map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
    match text.is_empty() {
        true => "nothing".to_owned(),
        false => text.chars().take(200).collect(),
    }
}
