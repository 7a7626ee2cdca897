//! How each watched kind goes into the catalogue.

use aldaas_api::kinds::{Database, GoldenImage};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DynamicObject};
use serde::de::DeserializeOwned;

use super::Watched;
use crate::catalogue::{self, Catalogue};

impl Watched {
    /// What to ask the API server for.
    pub(super) fn resource(self) -> ApiResource {
        match self {
            Self::Databases => ApiResource::erase::<Database>(&()),
            Self::Images => ApiResource::erase::<GoldenImage>(&()),
            Self::Namespaces => ApiResource::erase::<Namespace>(&()),
        }
    }

    /// Forgets what is known of the kind.
    pub(super) fn clear(self, catalogue: &mut Catalogue) {
        match self {
            Self::Databases => catalogue.clear_databases(),
            Self::Images => catalogue.clear_images(),
            Self::Namespaces => catalogue.clear_namespaces(),
        }
    }
}

/// One object, as far as it matters, or that it is gone. One that can't be read is known to be so, and spoils no other.
pub(super) struct Change(Box<dyn FnOnce(&mut Catalogue) + Send>);

impl Change {
    /// The object is so now.
    pub(super) fn set(kind: Watched, object: DynamicObject) -> Option<Self> {
        let name = object.metadata.name.clone()?;
        Some(Self(match kind {
            Watched::Databases => {
                let known = read::<Database>(object).and_then(catalogue::Database::read);
                if let Err(error) = &known {
                    tracing::warn!(database = name, %error, "this Database can't be used");
                }
                let known = known.map(std::sync::Arc::new).map_err(std::sync::Arc::from);
                let name = name.parse().ok()?;
                Box::new(move |catalogue| catalogue.set_database(name, Some(known)))
            }
            Watched::Images => {
                let image = match read::<GoldenImage>(object) {
                    Ok(object) => catalogue::Image::read(&object),
                    Err(error) => {
                        tracing::warn!(image = name, error, "this GoldenImage can't be read");
                        catalogue::Image { why: Some(error.into_boxed_str()), ..Default::default() }
                    }
                };
                let name = name.parse().ok()?;
                Box::new(move |catalogue| catalogue.set_image(name, Some(image)))
            }
            Watched::Namespaces => {
                let namespace =
                    catalogue::Namespace::new(object.metadata.annotations, object.metadata.labels);
                Box::new(move |catalogue| catalogue.set_namespace(name, Some(namespace)))
            }
        }))
    }

    /// The object is gone.
    pub(super) fn gone(kind: Watched, object: &DynamicObject) -> Option<Self> {
        let name = object.metadata.name.clone()?;
        Some(Self(match kind {
            Watched::Databases => {
                let name = name.parse().ok()?;
                Box::new(move |catalogue| catalogue.set_database(name, None))
            }
            Watched::Images => {
                let name = name.parse().ok()?;
                Box::new(move |catalogue| catalogue.set_image(name, None))
            }
            Watched::Namespaces => Box::new(move |catalogue| catalogue.set_namespace(name, None)),
        }))
    }

    pub(super) fn apply(self, catalogue: &mut Catalogue) {
        (self.0)(catalogue);
    }
}

fn read<K: DeserializeOwned>(object: DynamicObject) -> Result<K, String> {
    let value = serde_json::to_value(object).map_err(|error| error.to_string())?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}
