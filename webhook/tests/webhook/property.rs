//! What holds for every pod.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::{DATA, asking, catalogue, decide_in, mutated_in, patched, wanted};

fn container(index: usize) -> impl Strategy<Value = Value> {
    let image =
        prop::sample::select(vec!["web:1", "postgres:15.8", "postgres:16", "corp.io/x/postgres", "pg"]);
    let path =
        prop::sample::select(vec![DATA, "/var/lib/postgresql/data/", "/var/lib/postgresql", "/tmp", "/"]);
    let volume = prop::sample::select(vec!["data", "conf", "claim", "aldaas-orders", "none"]);
    let mounts = prop::option::of(prop::collection::vec((volume, path), 0..3));
    let pgdata = prop::option::of(prop::sample::select(vec![DATA, "/else", "$(X)"]));
    (image, mounts, pgdata).prop_map(move |(image, mounts, pgdata)| {
        let mut container = json!({ "name": format!("c{index}"), "image": image, "tty": true });
        if let Some(mounts) = mounts {
            let mount = |(name, path)| json!({ "name": name, "mountPath": path, "readOnly": true });
            container["volumeMounts"] = mounts.into_iter().map(mount).collect();
        }
        if let Some(value) = pgdata {
            container["env"] = json!([{ "name": "PGDATA", "value": value }, { "name": "B", "value": "2" }]);
        }
        container
    })
}

prop_compose! {
    fn pod()(
        containers in (container(0), container(1), container(2), 0usize..4),
        init in prop::option::of(container(9)),
        volumes in prop::option::of(prop::collection::vec(0usize..5, 0..4)),
        db in prop::sample::select(vec!["orders:latest", "orders:latest,users:latest", "readonly:latest", "latest", "x"]),
        extra in prop::option::of(("aldaas/(ttl|clone|container|datbase)", "[a-z0-9=,]{0,12}")),
        other in prop::collection::btree_map("[a-z]{1,5}/?[~a-z]{1,5}", ".{0,8}", 0..3),
        host: bool,
    ) -> Value {
        let mut pod = asking(db);
        let (a, b, c, count) = containers;
        pod["spec"]["containers"] = [a, b, c].into_iter().take(count).collect();
        if let Some(init) = init {
            pod["spec"]["initContainers"] = json!([init]);
        }
        if let Some(volumes) = volumes {
            let all = [
                json!({ "name": "data", "emptyDir": {} }), json!({ "name": "conf", "configMap": { "name": "c" } }),
                json!({ "name": "claim", "persistentVolumeClaim": { "claimName": "c" } }),
                json!({ "name": "aldaas-orders", "csi": { "driver": "csi.aldaas.dev", "volumeAttributes": { "db": "orders:latest" } } }),
                json!({ "name": "aldaas-orders", "emptyDir": {} }),
            ];
            pod["spec"]["volumes"] = volumes.into_iter().map(|at| all[at].clone()).collect();
        }
        for (key, value) in extra.into_iter().chain(other) {
            pod["metadata"]["annotations"][key] = json!(value);
        }
        pod["spec"]["hostNetwork"] = json!(host);
        pod
    }
}

/// Takes away everything that the webhook may add or change.
fn without_ours(pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["metadata"]["annotations"].as_object_mut().unwrap().remove("aldaas/image");
    let spec = pod["spec"].as_object_mut().unwrap();
    if let Some(Value::Array(volumes)) = spec.get_mut("volumes") {
        volumes.retain(|volume| !volume["name"].as_str().unwrap().starts_with("aldaas-"));
    }
    if spec.get("volumes").is_none_or(|volumes| volumes == &json!([])) {
        spec.remove("volumes");
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let container = container.as_object_mut().unwrap();
            for (key, ours) in [("volumeMounts", "mountPath"), ("env", "name")] {
                if let Some(Value::Array(all)) = container.get_mut(key) {
                    all.retain(|one| {
                        !one[ours].as_str().unwrap().starts_with("/var/lib/postgresql/data")
                            && one[ours] != "PGDATA"
                            && one[ours] != "/data"
                    });
                }
                if container.get(key).is_none_or(|all| all == &json!([])) {
                    container.remove(key);
                }
            }
        }
    }
    pod
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Asked again it changes nothing (`mutated_in`), everything else stays, and the node plugin can read what it wrote.
    #[test]
    fn a_pod_gets_all_that_it_asks_for_and_no_other_change_or_is_denied(pod in pod()) {
        if let Ok((after, mutation)) = mutated_in("ci", &pod) {
            prop_assert_eq!(without_ours(&after), without_ours(&pod));
            for image in &mutation.images {
                let volume = format!("aldaas-{}", image.database());
                prop_assert_eq!(wanted(&after, &volume).pinned, Some(image.clone()));
                let spec = &after["spec"];
                let lists = ["containers", "initContainers"].map(|list| spec[list].as_array().cloned().unwrap_or_default());
                let mounts = |container: &&Value| {
                    container["volumeMounts"].as_array().is_some_and(|all| all.iter().any(|m| m["name"] == volume.as_str()))
                };
                let mounted = lists.iter().flatten().filter(mounts);
                prop_assert!(mounted.count() >= 1, "{:#}", after);
            }
        }
    }

    /// Whatever stands in the annotations.
    #[test]
    fn no_text_makes_it_panic(db in ".{0,40}", keys in prop::collection::btree_map("aldaas/.{0,12}", ".{0,20}", 0..5)) {
        let mut pod = asking(&db);
        for (key, value) in keys {
            pod["metadata"]["annotations"][key] = json!(value);
        }
        if let Ok(mutation) = decide_in(&catalogue(), "ci", &pod) {
            patched(&pod, &mutation);
        }
    }
}
