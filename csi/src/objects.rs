//! Kubernetes' objects from a file, for machines without Kubernetes: a `List` as JSON.

use std::path::PathBuf;
use std::sync::Arc;

use aldaas_api::DatabaseName;
use serde_json::Value;

use crate::ports::{Away, ClonePolicy, Database, Directory, Labels, Selector, StoragePolicy};

/// The file.
pub struct Objects {
    path: PathBuf,
}

impl Objects {
    /// Reads it whenever it is asked.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn items(&self, kind: &str) -> Result<Vec<Value>, Away> {
        let away = |error: String| Away(format!("{}: {error}", self.path.display()));
        let text = std::fs::read(&self.path).map_err(|error| away(error.to_string()))?;
        let list: Value = serde_json::from_slice(&text).map_err(|error| away(error.to_string()))?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items.into_iter().filter(|item| item["kind"] == kind).collect())
    }
}

impl Directory for Objects {
    fn database(&self, name: &DatabaseName) -> Result<Option<Arc<Database>>, Away> {
        let found =
            self.items("Database")?.into_iter().find(|item| item["metadata"]["name"] == name.as_str());
        Ok(found.map(|item| {
            let spec = &item["spec"];
            let options = spec["clone"]["mountOptions"].as_array().cloned().unwrap_or_default();
            Arc::new(Database {
                name: name.clone(),
                namespaces: spec["access"]["namespaceSelector"].as_object().map(|_| Selector::default()),
                contact: None,
                clones: ClonePolicy {
                    object_size: None,
                    ttl: None,
                    mount_options: options.iter().filter_map(|o| o.as_str().map(ToOwned::to_owned)).collect(),
                },
                storage: StoragePolicy {
                    size: 1 << 28,
                    filesystem: aldaas_volume::Filesystem::Ext4,
                    owner: (999, 999),
                },
                port: 5432,
            })
        }))
    }

    fn databases(&self) -> Result<Vec<DatabaseName>, Away> {
        let names = self.items("Database")?;
        Ok(names.iter().filter_map(|item| item["metadata"]["name"].as_str()?.parse().ok()).collect())
    }

    fn namespace(&self, name: &str) -> Result<Option<Arc<Labels>>, Away> {
        let found = self.items("Namespace")?.into_iter().find(|item| item["metadata"]["name"] == name);
        Ok(found.map(|item| {
            let labels = item["metadata"]["labels"].as_object().cloned().unwrap_or_default();
            Arc::new(labels.into_iter().filter_map(|(k, v)| Some((k, v.as_str()?.to_owned()))).collect())
        }))
    }
}
