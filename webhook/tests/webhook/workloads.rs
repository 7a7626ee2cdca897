//! Deployments, StatefulSets and Jobs.

use aldaas_webhook::mutate::object::Object;
use aldaas_webhook::mutate::workload::workload;
use aldaas_webhook::mutate::{Denial, Mutation, Scene};
use serde_json::{Value, json};

use crate::common::{OWN, asking, catalogue, merged, patched};

fn deployment(annotations: Value) -> Value {
    let spec = asking("x")["spec"].clone();
    json!({
        "metadata": { "name": "web", "annotations": annotations },
        "spec": { "replicas": 2, "template": { "metadata": { "labels": { "app": "web" } }, "spec": spec } },
    })
}

fn decide(new: &Value, old: Option<&Value>) -> Result<Mutation, Denial> {
    let read = |value: &Value| serde_json::from_value::<Object>(value.clone()).unwrap();
    let catalogue = catalogue();
    workload(
        &read(new),
        old.map(read).as_ref(),
        &Scene { catalogue: &catalogue, namespace: "shop", own_namespace: OWN },
    )
}

fn after(new: &Value) -> Value {
    let after = patched(new, &decide(new, None).unwrap());
    assert!(decide(&after, None).unwrap().patch.is_empty(), "asked again it changes more");
    after
}

fn template(object: &Value) -> &Value {
    &object["spec"]["template"]["metadata"]["annotations"]
}

#[test]
fn what_stands_on_it_is_carried_into_the_template_and_taken_out_again() {
    let mut web = after(&deployment(json!({ "aldaas/db": "orders:latest", "aldaas/ttl": "1h", "x": "y" })));
    let carried =
        json!({ "aldaas/db": "orders:latest", "aldaas/ttl": "1h", "aldaas/carried": "aldaas/db,aldaas/ttl" });
    assert_eq!(template(&web), &carried);
    web["metadata"]["annotations"]["aldaas/ttl"] = json!("2h");
    web = after(&web);
    assert_eq!(template(&web)["aldaas/ttl"], "2h");
    web["metadata"]["annotations"].as_object_mut().unwrap().remove("aldaas/ttl");
    web = after(&web);
    assert_eq!(template(&web), &json!({ "aldaas/db": "orders:latest", "aldaas/carried": "aldaas/db" }));
    web["metadata"]["annotations"].as_object_mut().unwrap().remove("aldaas/db");
    assert_eq!(template(&after(&web)), &json!({}));
}

#[test]
fn what_a_user_wrote_into_the_template_is_never_touched() {
    let own =
        json!({ "spec": { "template": { "metadata": { "annotations": { "aldaas/db": "users:latest" } } } } });
    let web = merged(deployment(json!({ "aldaas/db": "orders:latest" })), own.clone());
    let mutation = decide(&web, None).unwrap();
    assert!(mutation.patch.is_empty());
    assert!(mutation.warnings[0].contains("not heeded"), "{mutation:?}");
    let only = merged(deployment(json!({})), own);
    assert!(decide(&only, None).unwrap().patch.is_empty());
    let same = json!({ "spec": { "template": { "metadata": { "annotations": { "aldaas/db": "orders:latest" } } } } });
    let mut web = merged(deployment(json!({ "aldaas/db": "orders:latest" })), same);
    web["metadata"]["annotations"] = json!({});
    assert_eq!(template(&after(&web))["aldaas/db"], "orders:latest", "written by hand, so it stays");
}

#[test]
fn what_a_user_writes_over_a_carried_key_is_the_users_from_then_on() {
    let web = after(&deployment(json!({ "aldaas/db": "orders:latest" })));
    let mut applied = web.clone();
    applied["spec"]["template"]["metadata"]["annotations"]["aldaas/db"] = json!("users:latest");
    let mutation = decide(&applied, Some(&web)).unwrap();
    assert!(mutation.warnings[0].contains("not heeded"), "{mutation:?}");
    let next = patched(&applied, &mutation);
    assert_eq!(template(&next), &json!({ "aldaas/db": "users:latest" }));
    let mut bare = next.clone();
    bare["metadata"]["annotations"] = json!({});
    assert!(decide(&bare, Some(&next)).unwrap().patch.is_empty(), "and stays without the object's");
    // A label that comes to a carried annotation wins as well.
    let mut labelled = web.clone();
    labelled["spec"]["template"]["metadata"]["labels"]["aldaas/db"] = json!("latest");
    let next = patched(&labelled, &decide(&labelled, Some(&web)).unwrap());
    assert_eq!(template(&next), &json!({}));
}

#[test]
fn that_a_carried_key_goes_is_said() {
    let web = after(&deployment(json!({ "aldaas/db": "orders:latest" })));
    let mut bare = web.clone();
    bare["metadata"]["annotations"] = json!({});
    assert!(decide(&bare, Some(&web)).unwrap().warnings[0].contains("no clone any more"));
}

#[test]
fn pods_that_would_wait_for_each_others_named_clone_are_told_of() {
    let named = || deployment(json!({ "aldaas/db": "orders:latest", "aldaas/clone": "pr-1" }));
    let warnings = |replicas: u32, strategy: &str| {
        let mut web = named();
        web["spec"]["replicas"] = json!(replicas);
        web["spec"]["strategy"] = json!({ "type": strategy });
        decide(&web, None).unwrap().warnings.join(" ")
    };
    assert!(warnings(2, "Recreate").contains("one replica"));
    assert!(warnings(1, "RollingUpdate").contains("Recreate"));
    assert_eq!(warnings(1, "Recreate"), "");
}

#[test]
fn labels_are_carried_as_annotations_and_a_template_without_metadata_gets_some() {
    let mut web = deployment(json!({}));
    web["metadata"]["labels"] = json!({ "aldaas/db": "latest", "aldaas/database": "orders" });
    web["spec"]["template"].as_object_mut().unwrap().remove("metadata");
    assert_eq!(template(&after(&web))["aldaas/db"], "latest");
    web["spec"]["template"]["metadata"] = json!({ "annotations": null });
    assert_eq!(template(&after(&web))["aldaas/database"], "orders");
}

#[test]
fn a_mistake_is_refused_where_it_is_written_and_what_is_not_there_yet_is_only_said() {
    let wrong = deployment(json!({ "aldaas/db": "orders:newest" }));
    assert!(decide(&wrong, None).unwrap_err().to_string().contains("orders:latest"));
    let mutation = decide(&wrong, Some(&wrong)).unwrap();
    assert!(
        mutation.warnings[0].contains("orders:latest"),
        "a mistake of old does not stop other changes: {mutation:?}"
    );
    assert!(decide(&wrong, Some(&deployment(json!({})))).is_err());
    for db in ["nothing:latest", "empty:latest", "secret:latest"] {
        let mutation = decide(&deployment(json!({ "aldaas/db": db })), None).unwrap();
        assert!(mutation.warnings[0].contains("its pods will be refused"), "{mutation:?}");
        assert!(!mutation.patch.is_empty());
    }
}
