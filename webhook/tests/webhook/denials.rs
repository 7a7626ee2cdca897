//! What pods are told that can't have what they ask for.

use aldaas_webhook::mutate::Denial;
use serde_json::{Value, json};

use crate::common::{FAILED, LATEST, OLD, asking, denied, merged, mutated_in};

fn annotated(db: &str, with: Value) -> Value {
    merged(asking(db), json!({ "metadata": { "annotations": with } }))
}

fn says(pod: &Value, parts: &[&str]) {
    let text = denied(pod);
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
}

#[test]
fn an_unknown_database_is_told_with_the_nearest_names_that_the_namespace_may_clone() {
    says(&asking("oders:latest"), &["no database oders", "did you mean orders?"]);
    says(&asking("secrets:latest"), &["no database secrets"]);
    assert!(
        !denied(&asking("secrets:latest")).contains("mean secret?"),
        "what it may not clone is none of its business"
    );
    says(&asking("warehouse:latest"), &["this namespace may clone"]);
    let pay = mutated_in("pay", &asking("secrets:latest")).unwrap_err().to_string();
    assert!(pay.contains("did you mean secret?"), "{pay}");
}

#[test]
fn where_nothing_is_ready_it_is_told_what_the_ingest_is_doing() {
    says(&asking("building:latest"), &["no ready golden image yet", "Restoring: 40 of 120 GiB", "suspended"]);
    says(&asking("empty:latest"), &["no ready golden image yet", "bucket dumps does not exist"]);
    says(&asking(FAILED), &[FAILED, "not ready", "middle of a statement", "orders:latest", LATEST, OLD]);
    says(&asking("orders-20200101t000000z"), &["does not exist", LATEST]);
    says(&asking("broken:latest"), &["broken can't be used", "storage.size", "kubectl describe"]);
}

#[test]
fn who_may_not_is_told_whom_to_ask() {
    says(&asking("secret:latest"), &["may not be cloned in namespace shop", "team=pay", "ask #pay-team"]);
    says(&asking("own:latest"), &["only in aldaas' own", "who runs aldaas"]);
    let pay = mutated_in("pay", &annotated("latest", json!({}))).unwrap_err();
    assert!(matches!(pay, Denial::NoReadyImage { .. }), "the label may: {pay}");
}

#[test]
fn where_no_container_is_clear_all_of_them_are_named() {
    let with = |containers: Value| {
        let mut pod = asking("orders:latest");
        pod["spec"]["containers"] = containers;
        pod
    };
    let of = |name: &str, image: &str| json!({ "name": name, "image": image });
    says(&with(json!([of("a", "web:1"), of("b", "web:2")])), &["aldaas/container: NAME", "a, b"]);
    says(&with(json!([of("a", "postgres:15"), of("b", "postgres:15")])), &["several run the engine", "a, b"]);
    says(&with(json!([])), &["the pod has none"]);
    says(
        &annotated("orders:latest", json!({ "aldaas/container": "dbb" })),
        &["no such container", "app, db"],
    );
    let mut ephemeral = annotated("orders:latest", json!({ "aldaas/container": "debug" }));
    ephemeral["spec"]["ephemeralContainers"] = json!([of("debug", "postgres:15.8")]);
    says(&ephemeral, &["no such container", "app, db"]);
    let both = annotated("orders:latest,users:latest", json!({ "aldaas/container": "db" }));
    says(&both, &["both be mounted", "aldaas/container: orders=NAME,users=NAME"]);
}

#[test]
fn what_is_in_the_way_is_named() {
    let mut pod = asking("orders:latest");
    pod["spec"]["volumes"] = json!([{ "name": "conf", "configMap": { "name": "c" } }]);
    pod["spec"]["containers"][1]["volumeMounts"] =
        json!([{ "name": "conf", "mountPath": "/var/lib/postgresql/../postgresql/data" }]);
    says(&pod, &["mounts volume conf", "remove that mount"]);
    let mut pod = asking("orders:latest");
    pod["spec"]["volumes"] = json!([{ "name": "aldaas-orders", "emptyDir": {} }]);
    says(&pod, &["a volume aldaas-orders already", "another name"]);
    let csi =
        json!({ "driver": "csi.aldaas.dev", "volumeAttributes": { "db": "orders:latest", "clone": "mine" } });
    pod["spec"]["volumes"] = json!([{ "name": "aldaas-orders", "csi": csi }]);
    says(&pod, &["clone=mine", "remove the volume"]);
    pod["spec"]["volumes"][0]["csi"]["driver"] = json!("other.csi.dev");
    says(&pod, &["another name"]);
}

#[test]
fn another_major_version_and_windows_are_refused() {
    let mut pod = asking("orders:latest");
    pod["spec"]["containers"][1]["image"] = json!("corp.io/postgres:16.1");
    says(&pod, &["runs postgres 16", "version 15", "corp.io/postgres:16.1"]);
    says(&merged(asking("orders:latest"), json!({ "spec": { "os": { "name": "windows" } } })), &["Windows"]);
    let selected = json!({ "spec": { "nodeSelector": { "kubernetes.io/os": "windows" } } });
    says(&merged(asking("orders:latest"), selected), &["Windows"]);
}

#[test]
fn what_can_not_be_read_is_told_the_right_form() {
    says(&asking("latest"), &["aldaas/db: DATABASE:latest", "aldaas/database"]);
    says(&asking("../../etc:latest"), &["not a database name"]);
    says(&asking("ördérs:latest"), &["not a database name"]);
    says(&asking(&"x".repeat(10 * 1024)), &["10240 bytes"]);
    says(&annotated("orders:latest", json!({ "aldaas/clone": "../other" })), &["not a clone name"]);
    let unknown = mutated_in("nowhere", &asking("orders:latest")).unwrap_err();
    assert_eq!((unknown.code(), unknown.label()), (503, "unknown-namespace"));
}
