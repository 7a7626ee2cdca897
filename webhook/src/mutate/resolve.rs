//! From what a pod asks for to the golden image and the container that it gets.

use aldaas_api::keys::Asked;
use aldaas_api::kinds::VersionMismatch;
use aldaas_api::{DatabaseName, GoldenImageName, Version};

use super::object::{Container, Spec};
use super::{Denial, Resolved, Scene, engine, place};
use crate::catalogue::{Database, Image, Namespace};

/// Most images that are named where one can't be had.
const NAMED: usize = 3;

/// Finds what one clone is made of, and where it goes.
pub fn resolve(
    asked: Asked,
    spec: &Spec,
    namespace: &Namespace,
    scene: &Scene<'_>,
) -> Result<Resolved, Denial> {
    let database = database(&asked.database, namespace, scene)?;
    let (image, major) = match &asked.version {
        Version::Latest => latest(&asked.database, &database, scene)?,
        Version::Image(image) => (image.clone(), this_one(&asked, image, scene)?),
    };
    let volume = asked.volume_name();
    let slot = place::choose(spec, &asked, &database, &volume)?;
    let major = major.or_else(|| engine::image_major(&database.image));
    let image_text = image.to_string();
    Ok(Resolved { asked, volume, database, image, image_text, major, slot })
}

fn database(
    name: &DatabaseName,
    namespace: &Namespace,
    scene: &Scene<'_>,
) -> Result<std::sync::Arc<Database>, Denial> {
    let may =
        |database: &Database| database.may_clone(scene.namespace, &namespace.labels, scene.own_namespace);
    match scene.catalogue.database(name) {
        Some(Ok(database)) if may(database) => Ok(database.clone()),
        Some(Ok(database)) => Err(Denial::NoAccess {
            database: name.clone(),
            namespace: scene.namespace.to_owned(),
            selector: database.selector.as_ref().map(ToString::to_string),
            contact: database.contact.clone(),
        }),
        Some(Err(why)) => Err(Denial::BrokenDatabase { database: name.clone(), why: why.to_string() }),
        None => {
            Err(Denial::UnknownDatabase { database: name.clone(), near: scene.catalogue.near(name, may) })
        }
    }
}

fn latest(
    name: &DatabaseName,
    database: &Database,
    scene: &Scene<'_>,
) -> Result<(GoldenImageName, Option<u32>), Denial> {
    match scene.catalogue.ready(name).next() {
        Some((image, known)) => Ok((image.clone(), known.major)),
        None => {
            let newest = scene.catalogue.images(name).find(|(_, image)| !image.retired);
            Err(Denial::NoReadyImage { database: name.clone(), doing: doing(database, newest) })
        }
    }
}

/// What the ingest of a database is doing, for those who wait for it.
fn doing(database: &Database, newest: Option<(&GoldenImageName, &Image)>) -> String {
    let mut text = match (newest, &database.state) {
        (Some((name, Image { why: Some(why), .. })), _) => format!("{name} is not ready ({why})"),
        (Some((name, _)), _) => format!("{name} is being made"),
        (None, Some(state)) => state.clone(),
        (None, None) => "no dump was found yet".to_owned(),
    };
    if database.suspended {
        text.push_str("; it is suspended, so that no new dumps are taken");
    }
    text
}

fn this_one(asked: &Asked, image: &GoldenImageName, scene: &Scene<'_>) -> Result<Option<u32>, Denial> {
    let why = match scene.catalogue.image(image) {
        Some(known) if known.ready => return Ok(known.major),
        // A named clone that was made of it comes back as it is. Whether there is one, the node plugin knows.
        Some(known) if known.retired && asked.clone.is_some() => return Ok(known.major),
        Some(known) if known.retired => "is retired".to_owned(),
        Some(Image { why: Some(why), .. }) => format!("is not ready ({why})"),
        Some(_) => "is not ready yet".to_owned(),
        None => "does not exist".to_owned(),
    };
    let database = &asked.database;
    let ready = scene.catalogue.ready(database).take(NAMED).map(|(name, _)| name.clone()).collect();
    Err(Denial::ImageNotReady { database: database.clone(), image: Box::new(image.clone()), why, ready })
}

/// Compares the engine's version in the container with the image's: a warning, or a denial, as the database wants it.
pub fn version(container: &Container, clone: &Resolved) -> Result<Option<String>, Denial> {
    let engine_image = &clone.database.image;
    let runs_it = engine::fit(&container.image, engine_image).is_some();
    let (Some(has), Some(needs)) = (engine::image_major(&container.image), clone.major) else {
        return Ok(None);
    };
    if !runs_it || has == needs || !engine::tags_are_versions(engine_image, needs) {
        return Ok(None);
    }
    let denial = Denial::OtherVersion {
        container: container.name.clone(),
        kind: clone.database.engine,
        has,
        image: container.image.clone(),
        golden: Box::new(clone.image.clone()),
        needs,
    };
    match clone.database.mismatch {
        // A named clone that is there already may be of an older image, with another version: only the node plugin knows.
        VersionMismatch::Deny if clone.asked.clone.is_none() => Err(denial),
        _ => Ok(Some(denial.to_string())),
    }
}
