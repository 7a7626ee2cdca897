//! What the webhook knows of the cluster: databases, golden images, namespaces. Only what it needs of them, so that thousands
//! fit into little memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aldaas_api::keys::{DATABASE, Map};
use aldaas_api::kinds::{self, READY, VersionMismatch};
use aldaas_api::{DatabaseName, GoldenImageName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::{Selector, SelectorExt as _};

/// Names of which more than this share of the letters differ are no help.
const NEAR: usize = 3;
/// Most names that are suggested.
const SUGGESTIONS: usize = 3;

/// All that is known.
#[derive(Debug, Default)]
pub struct Catalogue {
    databases: HashMap<DatabaseName, Known>,
    images: HashMap<DatabaseName, BTreeMap<GoldenImageName, Image>>,
    namespaces: HashMap<String, Arc<Namespace>>,
}

/// Databases to name where one does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suggested {
    /// Those with names like it.
    Near(Vec<DatabaseName>),
    /// Some that there are, for there is none like it.
    Some(Vec<DatabaseName>),
}

/// A database, or why it can't be used.
pub type Known = Result<Arc<Database>, Arc<str>>;

/// What matters of a `Database` object.
#[derive(Clone, Debug)]
pub struct Database {
    /// Where a clone is mounted in the container.
    pub mount: String,
    /// The engine's container image.
    pub image: String,
    /// The engine's name.
    pub engine: &'static str,
    /// The user that owns the data.
    pub owner: u32,
    /// Which namespaces may clone it; none: only aldaas' own.
    pub selector: Option<Selector>,
    /// Whom to ask for access.
    pub contact: Option<String>,
    /// What happens to a pod of another major version.
    pub mismatch: VersionMismatch,
    /// Clones can't be written to.
    pub read_only: bool,
    /// No new dumps are taken.
    pub suspended: bool,
    /// What its conditions say is wrong or going on.
    pub state: Option<String>,
}

/// What matters of a `GoldenImage` object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// It can be cloned.
    pub ready: bool,
    /// It is kept only for the clones that live on it.
    pub retired: bool,
    /// The engine's major version.
    pub major: Option<u32>,
    /// Why it is not ready: a word, and more of them.
    pub why: Option<Box<str>>,
}

/// What matters of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: Map,
    /// The database of pods that name none.
    pub database: Option<String>,
}

impl Catalogue {
    /// A database, as far as it is known.
    pub fn database(&self, name: &DatabaseName) -> Option<&Known> {
        self.databases.get(name)
    }

    /// A namespace.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.get(name)
    }

    /// All images of a database, the newest first.
    pub fn images(&self, database: &DatabaseName) -> impl Iterator<Item = (&GoldenImageName, &Image)> {
        self.images.get(database).into_iter().flat_map(|images| images.iter().rev())
    }

    /// The newest ready golden images of a database.
    pub fn ready(&self, database: &DatabaseName) -> impl Iterator<Item = (&GoldenImageName, &Image)> {
        self.images(database).filter(|(_, image)| image.ready)
    }

    /// One image.
    pub fn image(&self, name: &GoldenImageName) -> Option<&Image> {
        self.images.get(name.database())?.get(name)
    }

    /// Databases with names like this one, the nearest first, among those that this namespace may clone: others are none of
    /// its business. Where there is none like it, some of them all.
    pub fn near(&self, name: &DatabaseName, may: impl Fn(&Database) -> bool) -> Suggested {
        let open =
            self.databases.iter().filter(|(_, known)| known.as_ref().is_ok_and(|database| may(database)));
        let mut all: Vec<_> =
            open.map(|(other, _)| (strsim::osa_distance(name.as_str(), other.as_str()), other)).collect();
        all.sort_unstable();
        let limit = (name.as_str().len() / NEAR).max(1);
        let near = all.iter().filter(|(distance, _)| *distance <= limit).count();
        let of =
            |count: usize| all.iter().take(count.min(SUGGESTIONS)).map(|(_, name)| (*name).clone()).collect();
        match near {
            0 => Suggested::Some(of(SUGGESTIONS)),
            near => Suggested::Near(of(near)),
        }
    }

    /// How many databases, images and namespaces there are.
    pub fn sizes(&self) -> [usize; 3] {
        [self.databases.len(), self.images.values().map(BTreeMap::len).sum(), self.namespaces.len()]
    }

    /// A database is so now, or gone.
    pub fn set_database(&mut self, name: DatabaseName, known: Option<Known>) {
        match known {
            Some(known) => drop(self.databases.insert(name, known)),
            None => drop(self.databases.remove(&name)),
        }
    }

    /// An image is so now, or gone.
    pub fn set_image(&mut self, name: GoldenImageName, image: Option<Image>) {
        match image {
            Some(image) => {
                self.images.entry(name.database().clone()).or_default().insert(name, image);
            }
            None => {
                if let Some(images) = self.images.get_mut(name.database()) {
                    images.remove(&name);
                    if images.is_empty() {
                        self.images.remove(name.database());
                    }
                }
            }
        }
    }

    /// A namespace is so now, or gone.
    pub fn set_namespace(&mut self, name: String, namespace: Option<Namespace>) {
        match namespace {
            Some(namespace) => drop(self.namespaces.insert(name, Arc::new(namespace))),
            None => drop(self.namespaces.remove(&name)),
        }
    }

    /// Forgets all databases.
    pub fn clear_databases(&mut self) {
        self.databases = HashMap::new();
    }

    /// Forgets all images.
    pub fn clear_images(&mut self) {
        self.images = HashMap::new();
    }

    /// Forgets all namespaces.
    pub fn clear_namespaces(&mut self) {
        self.namespaces = HashMap::new();
    }
}

impl Database {
    /// Reads the object.
    ///
    /// # Errors
    /// When its selector means nothing.
    pub fn read(object: kinds::Database) -> Result<Self, String> {
        let state = object.status.as_ref().and_then(|status| said(&status.conditions));
        let spec = object.spec;
        let selector = spec.access.namespace_selector.map(Selector::try_from).transpose();
        Ok(Self {
            mount: crate::mutate::engine::normal(spec.engine.mount()),
            engine: match spec.engine.kind {
                kinds::EngineKind::Postgres => "postgres",
            },
            owner: spec.engine.owner().0,
            image: spec.engine.image,
            selector: selector.map_err(|error| format!("spec.access.namespaceSelector: {error}"))?,
            contact: spec.access.contact.filter(|contact| !contact.trim().is_empty()),
            mismatch: spec.version_mismatch,
            read_only: spec.clone.read_only,
            suspended: spec.suspend,
            state,
        })
    }

    /// Whether pods of this namespace may clone it.
    pub fn may_clone(&self, namespace: &str, labels: &Map, own: &str) -> bool {
        match &self.selector {
            None => namespace == own,
            Some(selector) => selector.matches(labels),
        }
    }
}

/// What conditions say is wrong, or going on.
fn said(conditions: &[Condition]) -> Option<String> {
    let of = |kind: &str, status: &str| {
        conditions.iter().find(|condition| condition.type_ == kind && condition.status == status)
    };
    let condition =
        of("Reachable", "False").or_else(|| of("Progressing", "True")).or_else(|| of(READY, "False"))?;
    Some(words(condition))
}

fn words(condition: &Condition) -> String {
    match condition.message.trim() {
        "" => condition.reason.clone(),
        message => format!("{}: {}", condition.reason, message.chars().take(400).collect::<String>()),
    }
}

impl Image {
    /// Reads the object.
    pub fn read(object: &kinds::GoldenImage) -> Self {
        let status = object.status.as_ref();
        let conditions = status.map_or(&[][..], |status| &status.conditions);
        let holds = |kind: &str| conditions.iter().any(|c| c.type_ == kind && c.status == "True");
        let retired = holds("Retired") || object.metadata.deletion_timestamp.is_some();
        let why = conditions.iter().find(|c| c.type_ == READY && c.status != "True").map(words);
        let version = status.and_then(|status| status.engine.as_ref()).map(|engine| engine.version.as_str());
        Self {
            ready: holds(READY) && !retired,
            retired,
            major: version.and_then(crate::mutate::engine::major),
            why: why.map(String::into_boxed_str),
        }
    }
}

impl Namespace {
    /// From what stands on the object.
    pub fn new(annotations: Option<Map>, labels: Option<Map>) -> Self {
        let labels = labels.unwrap_or_default();
        let database =
            annotations.and_then(|mut map| map.remove(DATABASE)).or_else(|| labels.get(DATABASE).cloned());
        Self { labels, database }
    }
}
