//! Kubernetes' objects in the plugin's own words.

use aldaas_api::{VolumeId, kinds};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::DRIVER;
use crate::ports::{ClonePolicy, Database, Expression, Pod, PodVolume, Selector, StoragePolicy};

/// What the plugin needs of a `Database`, or why that can't be told.
///
/// # Errors
/// In words for the one who wrote the object.
pub fn database(object: &kinds::Database) -> Result<Database, String> {
    let spec = &object.spec;
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let selector = spec.access.namespace_selector.as_ref().map(selector).transpose();
    Ok(Database {
        name: name.parse().map_err(|error| format!("metadata.name: {error}"))?,
        namespaces: selector.map_err(|error| format!("spec.access.namespaceSelector: {error}"))?,
        contact: spec.access.contact.clone(),
        clones: ClonePolicy {
            object_size: spec.clone.object_size.as_ref().map(kinds::ObjectSize::bytes),
            ttl: spec.clone.ttl.map(aldaas_api::Ttl::duration),
            named_ttl: spec.clone.named_ttl.map(aldaas_api::Ttl::duration),
            read_only: spec.clone.read_only,
            mount_options: spec.clone.mount_options.clone(),
        },
        storage: StoragePolicy {
            size: aldaas_golden::BlankSize {
                bytes: spec.storage.size.bytes(),
                object_size: spec.storage.object_size.as_ref().map(kinds::ObjectSize::bytes),
            },
            filesystem: match spec.storage.filesystem {
                kinds::Filesystem::Ext4 => aldaas_volume::Filesystem::Ext4,
                kinds::Filesystem::Xfs => aldaas_volume::Filesystem::Xfs,
            },
            owner: spec.engine.owner(),
        },
        port: spec.engine.port(),
    })
}

/// A label selector. What can't be understood is an error, never "everything".
fn selector(selector: &LabelSelector) -> Result<Selector, String> {
    let expressions = selector.match_expressions.iter().flatten().map(|requirement| {
        let (key, values) = (requirement.key.clone(), requirement.values.clone().unwrap_or_default());
        match (requirement.operator.as_str(), values.is_empty()) {
            ("In", false) => Ok(Expression::In(key, values)),
            ("NotIn", false) => Ok(Expression::NotIn(key, values)),
            ("Exists", true) => Ok(Expression::Exists(key)),
            ("DoesNotExist", true) => Ok(Expression::Missing(key)),
            ("In" | "NotIn", true) => Err(format!("{} of {key:?} needs values", requirement.operator)),
            ("Exists" | "DoesNotExist", false) => {
                Err(format!("{} of {key:?} takes no values", requirement.operator))
            }
            (other, _) => Err(format!("operator {other:?} is none: use In, NotIn, Exists or DoesNotExist")),
        }
    });
    Ok(Selector {
        labels: selector.match_labels.clone().unwrap_or_default(),
        expressions: expressions.collect::<Result<_, _>>()?,
    })
}

/// A pod with its volumes of our driver.
pub fn pod(object: &core::Pod) -> Pod {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let uid = text(&object.metadata.uid);
    let volumes = object.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let phase = object.status.as_ref().and_then(|status| status.phase.as_deref());
    Pod {
        namespace: text(&object.metadata.namespace),
        name: text(&object.metadata.name),
        finished: matches!(phase, Some("Succeeded" | "Failed")),
        deleting: object.metadata.deletion_timestamp.is_some(),
        volumes: volumes.filter_map(|volume| pod_volume(&uid, volume)).collect(),
        uid,
    }
}

/// Whether a node's kubelet says that it lives.
pub fn is_ready(object: &core::Node) -> bool {
    let conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn pod_volume(uid: &str, volume: &core::Volume) -> Option<PodVolume> {
    let csi = volume.csi.as_ref().filter(|csi| csi.driver == DRIVER)?;
    let attributes = csi.volume_attributes.clone().unwrap_or_default();
    Some(PodVolume { id: VolumeId::of_pod(uid, &volume.name), attributes })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn read(access: serde_json::Value) -> Result<Database, String> {
        let object = json!({
            "apiVersion": "aldaas.dev/v1alpha1", "kind": "Database", "metadata": { "name": "orders" },
            "spec": {
                "engine": { "image": "postgres:15.8", "port": 5433, "runAsUser": 70 },
                "source": { "s3": { "bucket": "backup" } },
                "storage": { "size": "10Gi", "filesystem": "xfs", "objectSize": "1Mi" },
                "clone": { "ttl": "30m", "mountOptions": ["noatime"], "objectSize": "64Ki", "namedTTL": "2d" },
                "access": access,
            },
        });
        database(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_database_says_how_its_clones_are() {
        let orders = read(json!({})).unwrap();
        assert_eq!((orders.port, orders.storage.owner, orders.namespaces), (5433, (70, 70), None));
        assert_eq!(orders.clones.ttl, Some(Duration::from_secs(1800)));
        assert_eq!(orders.clones.named_ttl, Some(Duration::from_secs(2 * 24 * 3600)));
        assert!(!orders.clones.read_only);
        assert_eq!(orders.clones.object_size, Some(64 << 10));
        assert_eq!(orders.storage.filesystem, aldaas_volume::Filesystem::Xfs);
        assert_eq!((orders.storage.size.bytes, orders.storage.size.object_size), (10 << 30, Some(1 << 20)));
    }

    #[test]
    fn a_selector_that_is_not_understood_opens_nothing() {
        let with = |operator: &str, values: serde_json::Value| {
            let requirement = json!({ "key": "team", "operator": operator, "values": values });
            read(json!({ "namespaceSelector": { "matchExpressions": [requirement] } }))
        };
        assert!(with("In", json!(["shop"])).is_ok());
        assert!(with("Exists", json!(null)).is_ok());
        for (operator, values) in
            [("In", json!([])), ("NotIn", json!(null)), ("Exists", json!(["x"])), ("Near", json!(["x"]))]
        {
            let error = with(operator, values).unwrap_err();
            assert!(error.starts_with("spec.access.namespaceSelector: "), "{error}");
        }
        assert_eq!(read(json!({ "namespaceSelector": {} })).unwrap().namespaces, Some(Selector::default()));
    }
}
