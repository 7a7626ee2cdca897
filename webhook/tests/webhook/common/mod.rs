//! What the tests share: a catalogue, pods, and what becomes of them.

pub mod program;
pub mod tls;

use std::sync::Arc;

use aldaas_api::context::{VolumeContext, Wanted, WantedClone};
use aldaas_api::kinds;
use aldaas_webhook::catalogue::{Catalogue, Database, Image, Namespace};
use aldaas_webhook::mutate::object::Object;
use aldaas_webhook::mutate::{Denial, Mutation, Scene, pod};
use serde_json::{Value, json};

pub const OLD: &str = "orders-20261121t033000z";
pub const LATEST: &str = "orders-20261122t033000z";
pub const FAILED: &str = "orders-20261123t033000z";
pub const DATA: &str = "/var/lib/postgresql/data";
/// The namespace that the webhook runs in.
pub const OWN: &str = "aldaas";

/// A `Database` object whose spec has these fields instead.
pub fn database_object(name: &str, spec: Value) -> Value {
    let mut object = json!({
        "apiVersion": "aldaas.dev/v1alpha1",
        "kind": "Database",
        "metadata": { "name": name },
        "spec": {
            "engine": { "image": "postgres:15.8" },
            "source": { "s3": { "bucket": "dumps" } },
            "storage": { "size": "10Gi" },
            "access": { "namespaceSelector": {} },
        },
    });
    json_patch::merge(&mut object["spec"], &spec);
    object
}

pub fn database(name: &str, spec: Value) -> Database {
    database_with(name, spec, json!(null))
}

fn database_with(name: &str, spec: Value, status: Value) -> Database {
    let mut object = database_object(name, spec);
    object["status"] = status;
    let object: kinds::Database = serde_json::from_value(object).unwrap();
    Database::read(object).unwrap()
}

/// A `GoldenImage` object in a state.
pub fn image_object(name: &str, ready: &str, reason: &str, message: &str) -> Value {
    let database = name.rsplit_once('-').unwrap().0;
    let version = if database == "users" { "16.1" } else { "15.8" };
    json!({
        "apiVersion": "aldaas.dev/v1alpha1",
        "kind": "GoldenImage",
        "metadata": { "name": name },
        "spec": { "database": database, "source": { "location": "s3://dumps/a.sql" } },
        "status": {
            "engine": { "name": "postgres", "version": version },
            "conditions": [{
                "type": "Ready", "status": ready, "reason": reason, "message": message,
                "lastTransitionTime": "2026-11-23T03:30:00Z",
            }],
        },
    })
}

pub fn image(name: &str, ready: &str, reason: &str, message: &str) -> Image {
    Image::read(&serde_json::from_value(image_object(name, ready, reason, message)).unwrap())
}

/// orders: two ready images and a failed one that is newer. users: a ready one, another version. secret: not for everybody.
/// empty and building: nothing to clone yet. broken: can't be read.
pub fn catalogue() -> Catalogue {
    let mut catalogue = Catalogue::default();
    let mut add = |name: &str, database: Database| {
        catalogue.set_database(name.parse().unwrap(), Some(Ok(Arc::new(database))));
    };
    add("orders", database("orders", json!({})));
    add(
        "users",
        database("users", json!({ "engine": { "image": "postgres:16" }, "versionMismatch": "warn" })),
    );
    add(
        "readonly",
        database("readonly", json!({ "clone": { "readOnly": true }, "engine": { "mount": "/data" } })),
    );
    let selector = json!({ "matchLabels": { "team": "pay" } });
    add(
        "secret",
        database("secret", json!({ "access": { "namespaceSelector": selector, "contact": "#pay-team" } })),
    );
    let mut own = database("own", json!({}));
    own.selector = None;
    add("own", own);
    let unreachable = json!({ "conditions": [{
        "type": "Reachable", "status": "False", "reason": "NoSuchBucket", "message": "bucket dumps does not exist",
        "lastTransitionTime": "2026-11-23T03:30:00Z",
    }] });
    add("empty", database_with("empty", json!({}), unreachable));
    add("building", database("building", json!({ "suspend": true })));
    catalogue.set_database("broken".parse().unwrap(), Some(Err("storage.size is no size".into())));
    for (name, ready, reason, message) in [
        (OLD, "True", "Verified", ""),
        (LATEST, "True", "Verified", ""),
        (FAILED, "False", "RestoreFailed", "the dump ends in the middle of a statement"),
        ("users-20261122t033000z", "True", "Verified", ""),
        ("readonly-20261122t033000z", "True", "Verified", ""),
        ("building-20261122t033000z", "False", "Restoring", "40 of 120 GiB"),
    ] {
        catalogue.set_image(name.parse().unwrap(), Some(image(name, ready, reason, message)));
    }
    let namespace = |annotations: Value, labels: Value| {
        Namespace::new(serde_json::from_value(annotations).unwrap(), serde_json::from_value(labels).unwrap())
    };
    catalogue.set_namespace("shop".into(), Some(namespace(json!({}), json!({ "team": "shop" }))));
    catalogue.set_namespace("ci".into(), Some(namespace(json!({ "aldaas/database": "orders" }), json!({}))));
    catalogue.set_namespace(
        "pay".into(),
        Some(namespace(json!({}), json!({ "team": "pay", "aldaas/database": "secret" }))),
    );
    catalogue
}

/// A pod with an engine and an app that asks for this.
pub fn asking(db: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "web", "annotations": { "aldaas/db": db, "other": "x" }, "labels": { "app": "web" } },
        "spec": {
            "containers": [
                { "name": "app", "image": "web:1", "env": [{ "name": "A", "value": "1" }] },
                { "name": "db", "image": "postgres:15.8", "resources": { "limits": { "cpu": "1" } } },
            ],
            "restartPolicy": "Always",
        },
    })
}

pub fn merged(mut object: Value, with: Value) -> Value {
    json_patch::merge(&mut object, &with);
    object
}

pub fn decide_in(catalogue: &Catalogue, namespace: &str, pod_object: &Value) -> Result<Mutation, Denial> {
    let object: Object = serde_json::from_value(pod_object.clone()).unwrap();
    pod(&object.metadata, &object.spec, &Scene { catalogue, namespace, own_namespace: OWN })
}

pub fn patched(object: &Value, mutation: &Mutation) -> Value {
    let patch: json_patch::Patch = serde_json::from_slice(&mutation.patch.json()).unwrap();
    let mut after = object.clone();
    json_patch::patch(&mut after, &patch).unwrap();
    after
}

/// What becomes of a pod. Asking again must change nothing.
pub fn mutated_in(namespace: &str, object: &Value) -> Result<(Value, Mutation), Denial> {
    let catalogue = catalogue();
    let mutation = decide_in(&catalogue, namespace, object)?;
    let after = patched(object, &mutation);
    let again = decide_in(&catalogue, namespace, &after).unwrap();
    assert!(again.patch.is_empty(), "asked again it changes more: {:?}\n{after:#}", again.patch);
    Ok((after, mutation))
}

pub fn mutated(object: &Value) -> (Value, Mutation) {
    mutated_in("shop", object).unwrap()
}

pub fn denied(object: &Value) -> String {
    mutated_in("shop", object).unwrap_err().to_string()
}

/// What the node plugin reads from a pod's volume.
pub fn wanted(pod: &Value, volume: &str) -> WantedClone {
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    let csi = &volumes.iter().find(|one| one["name"] == volume).unwrap()["csi"];
    assert_eq!(csi["driver"], "csi.aldaas.dev");
    let mut context: std::collections::BTreeMap<String, String> =
        serde_json::from_value(csi["volumeAttributes"].clone()).unwrap();
    for key in ["pod.name", "pod.namespace", "pod.uid", "serviceAccount.name"] {
        context.insert(format!("csi.storage.k8s.io/{key}"), "x".into());
    }
    match VolumeContext::parse(&context).unwrap().wanted {
        Wanted::Clone(clone) => clone,
        other => panic!("{other:?}"),
    }
}
