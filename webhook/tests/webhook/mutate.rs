//! What becomes of pods that can have what they ask for.

use aldaas_api::Version;
use serde_json::{Value, json};

use crate::common::{
    DATA, LATEST, OLD, asking, catalogue, decide_in, denied, image, merged, mutated, mutated_in, wanted,
};

const VOLUME: &str = "aldaas-orders";

fn mounts(pod: &Value, container: usize) -> &Value {
    &pod["spec"]["containers"][container]["volumeMounts"]
}

#[test]
fn one_annotation_and_the_pod_has_its_database_and_nothing_else_changes() {
    let before = asking("orders:latest");
    let (after, mutation) = mutated(&before);
    let clone = wanted(&after, VOLUME);
    assert_eq!((clone.database.as_str(), clone.version), ("orders", Version::Latest));
    assert_eq!(clone.pinned.unwrap().to_string(), LATEST, "the newest ready one, not the failed one");
    assert_eq!((clone.ttl, clone.name), (None, None));
    assert_eq!(mutation.warnings, [""; 0]);

    let mut expected = before;
    expected["metadata"]["annotations"]["aldaas/image"] = json!(LATEST);
    expected["spec"]["containers"][1]["volumeMounts"] = json!([{ "name": VOLUME, "mountPath": DATA }]);
    expected["spec"]["volumes"] = json!([{ "name": VOLUME, "csi": {
        "driver": "csi.aldaas.dev", "volumeAttributes": { "db": "orders:latest", "image": LATEST },
    } }]);
    assert_eq!(after, expected);
}

#[test]
fn a_pod_that_asks_for_nothing_is_left_alone() {
    let mut pod = asking("orders:latest");
    pod["metadata"]["annotations"] = json!({ "aldaas/ttl": "nonsense" });
    let (after, mutation) = mutated(&pod);
    assert!(after == pod && mutation == Default::default());
}

#[test]
fn all_keys_reach_the_volume() {
    let keys = json!({ "metadata": { "annotations": { "aldaas/ttl": "1h30m", "aldaas/clone": "pr-1" } } });
    let clone = wanted(&mutated(&merged(asking(OLD), keys)).0, VOLUME);
    assert_eq!(clone.ttl.unwrap().to_string(), "1h30m");
    assert_eq!(clone.name.unwrap().as_str(), "pr-1");
    assert_eq!(clone.version, Version::Image(OLD.parse().unwrap()));
}

#[test]
fn a_label_in_a_ci_namespace_is_enough() {
    let mut pod = asking("x");
    pod["metadata"] = json!({ "generateName": "job-", "labels": { "aldaas/db": "latest" } });
    let (after, _) = mutated_in("ci", &pod).unwrap();
    assert_eq!(wanted(&after, VOLUME).pinned.unwrap().to_string(), LATEST);
    assert_eq!(after["metadata"]["annotations"], json!({ "aldaas/image": LATEST }));
}

#[test]
fn the_container_is_the_named_one_the_engines_or_the_only_one() {
    let slot_of = |containers: Value, name: Option<&str>| {
        let mut pod = asking("orders:latest");
        pod["spec"]["containers"] = containers;
        if let Some(name) = name {
            pod["metadata"]["annotations"]["aldaas/container"] = json!(name);
        }
        let (after, _) = mutated(&pod);
        let all = after["spec"]["containers"].as_array().unwrap().clone();
        let has = |one: &&Value| one["volumeMounts"][0]["name"] == VOLUME;
        all.iter().find(has).unwrap()["name"].as_str().unwrap().to_owned()
    };
    let of = |name: &str, image: &str| json!({ "name": name, "image": image });
    assert_eq!(slot_of(json!([of("a", "web:1"), of("b", "postgres:15.8")]), None), "b");
    assert_eq!(
        slot_of(json!([of("a", "postgres:14"), of("b", "postgres:15.8")]), None),
        "b",
        "the same image first"
    );
    assert_eq!(slot_of(json!([of("a", "web:1"), of("b", "corp.io/mirror/postgres:15")]), None), "b");
    assert_eq!(slot_of(json!([of("a", "web:1")]), None), "a");
    assert_eq!(slot_of(json!([of("a", "web:1"), of("b", "postgres:15.8")]), Some("a")), "a");
}

#[test]
fn a_sidecar_that_runs_the_engine_gets_it_and_an_ordinary_init_container_does_not() {
    let mut pod = asking("orders:latest");
    pod["spec"]["containers"] =
        json!([{ "name": "app", "image": "web:1" }, { "name": "b", "image": "web:1" }]);
    pod["spec"]["initContainers"] = json!([
        { "name": "setup", "image": "postgres:15.8" },
        { "name": "db", "image": "postgres:15.8", "restartPolicy": "Always" },
    ]);
    let (after, _) = mutated(&pod);
    assert_eq!(after["spec"]["initContainers"][1]["volumeMounts"][0]["name"], VOLUME);
    assert!(after["spec"]["initContainers"][0].get("volumeMounts").is_none());
}

#[test]
fn a_place_for_data_is_replaced_and_said_so() {
    let cases = [
        (json!({ "name": "data", "emptyDir": {} }), "emptyDir data"),
        (
            json!({ "name": "data", "persistentVolumeClaim": { "claimName": "web-0" } }),
            "PersistentVolumeClaim web-0",
        ),
        (json!({ "name": "data", "ephemeral": { "volumeClaimTemplate": {} } }), "ephemeral volume data"),
    ];
    for (volume, word) in cases {
        let mut pod = asking("orders:latest");
        pod["spec"]["volumes"] = json!([{ "name": "tmp", "emptyDir": {} }, volume]);
        pod["spec"]["containers"][1]["volumeMounts"] = json!([
            { "name": "tmp", "mountPath": "/tmp" },
            { "name": "data", "mountPath": "/var/lib/postgresql/data/", "subPath": "pgdata" },
        ]);
        let (after, mutation) = mutated(&pod);
        assert_eq!(mounts(&after, 1)[1], json!({ "name": VOLUME, "mountPath": DATA }));
        assert_eq!(mounts(&after, 1)[0], mounts(&pod, 1)[0]);
        assert_eq!(
            after["spec"]["volumes"][1], pod["spec"]["volumes"][1],
            "a claim stays in the pod: its owner looks for it"
        );
        assert!(
            mutation.warnings[0].contains(word) && mutation.warnings[0].contains("container db"),
            "{mutation:?}"
        );
    }
}

#[test]
fn the_engine_is_told_where_its_data_is_when_it_would_look_elsewhere() {
    let env_of = |image: &str, env: Value| {
        let mut pod = asking("orders:latest");
        pod["spec"]["containers"] = json!([{ "name": "db", "image": image, "env": env }]);
        if env.is_null() {
            pod["spec"]["containers"][0].as_object_mut().unwrap().remove("env");
        }
        let (after, mutation) = mutated(&pod);
        (after["spec"]["containers"][0]["env"].clone(), mutation.warnings)
    };
    let right = json!({ "name": "PGDATA", "value": DATA });
    assert_eq!(env_of("postgres:15", json!(null)), (Value::Null, vec![]));
    assert_eq!(env_of("corp/pg", json!(null)), (json!([right]), vec![]));
    let other = json!({ "name": "A", "value": "1" });
    assert_eq!(env_of("corp/pg", json!([other])), (json!([other, right]), vec![]));
    let (env, warnings) = env_of(
        "postgres:15",
        json!([{ "name": "PGDATA", "value": "/var/lib/postgresql/data/pgdata" }, other]),
    );
    assert_eq!(env, json!([right, other]));
    assert!(warnings[0].contains("pgdata"), "{warnings:?}");
    let from = json!([{ "name": "PGDATA", "valueFrom": { "configMapKeyRef": { "name": "c", "key": "k" } } }]);
    assert_eq!(env_of("postgres:15", from).0, json!([right]));
}

#[test]
fn several_databases_each_get_their_volume_and_mount() {
    let mut pod = asking("orders:latest,users:latest");
    pod["spec"]["containers"] = json!([
        { "name": "app", "image": "web:1" }, { "name": "a", "image": "postgres:15.8" }, { "name": "b", "image": "postgres:16" },
    ]);
    let (after, mutation) = mutated(&pod);
    assert_eq!(mounts(&after, 1)[0]["name"], VOLUME);
    assert_eq!(mounts(&after, 2)[0]["name"], "aldaas-users");
    assert_eq!(after["spec"]["volumes"].as_array().unwrap().len(), 2);
    assert_eq!(after["metadata"]["annotations"]["aldaas/image"], format!("{LATEST},users-20261122t033000z"));
    assert_eq!((mutation.images.len(), mutation.warnings.len()), (2, 0));
    pod["metadata"]["annotations"]["aldaas/container"] = json!("orders=b,users=a");
    let swapped = json!({ "metadata": { "annotations": { "aldaas/db": "users:latest" } } });
    let warned = mutated(&merged(
        merged(pod, swapped),
        json!({ "metadata": { "annotations": { "aldaas/container": "a" } } }),
    ))
    .1;
    assert!(warned.warnings[0].contains("postgres 15"), "users is of version 16, and warns only: {warned:?}");
}

#[test]
fn clones_that_can_not_be_written_to_say_so() {
    let (after, _) = mutated(&asking("readonly:latest"));
    assert_eq!(after["spec"]["volumes"][0]["csi"]["readOnly"], true);
    assert_eq!(mounts(&after, 1)[0]["mountPath"], "/data");
}

#[test]
fn it_is_safe_to_be_asked_again_after_others_changed_the_pod() {
    let mut pod = asking("orders:latest");
    pod["spec"]["containers"] = json!([{ "name": "app", "image": "web:1" }]);
    let (mut after, _) = mutated(&pod);
    // A mesh puts its own container in front: now there are two, and none runs the engine.
    let containers = after["spec"]["containers"].as_array_mut().unwrap();
    containers.insert(0, json!({ "name": "mesh", "image": "mesh:1" }));
    let (again, mutation) = mutated(&after);
    assert!(mutation.patch.is_empty(), "{again:#}");
    // A newer image became ready meanwhile, or the pod was copied: it gets the newest.
    after["spec"]["volumes"][0]["csi"]["volumeAttributes"]["image"] = json!(OLD);
    assert_eq!(wanted(&mutated(&after).0, VOLUME).pinned.unwrap().to_string(), LATEST);
    // Another webhook asks for more.
    after["metadata"]["annotations"]["aldaas/ttl"] = json!("60m");
    assert_eq!(wanted(&mutated(&after).0, VOLUME).ttl.unwrap().to_string(), "1h");
}

#[test]
fn a_volume_by_hand_that_says_the_same_in_other_words_is_no_contradiction_and_what_is_stricter_stays() {
    let mut pod = asking("orders:latest");
    pod["metadata"]["annotations"]["aldaas/ttl"] = json!("60m");
    pod["spec"]["volumes"] = json!([{ "name": VOLUME, "csi": { "driver": "csi.aldaas.dev", "readOnly": true,
        "volumeAttributes": { "db": "orders:latest", "ttl": "60m" } } }]);
    let (after, _) = mutated(&pod);
    assert_eq!(after["spec"]["volumes"][0]["csi"]["readOnly"], true);
    assert_eq!(wanted(&after, VOLUME).ttl.unwrap().to_string(), "1h");
    pod["spec"]["volumes"][0]["csi"]["volumeAttributes"]["ttl"] = json!("2h");
    assert!(denied(&pod).contains("ttl=2h"));
}

#[test]
fn the_engine_gets_the_clone_even_where_others_share_it() {
    let mut pod = asking("orders:latest");
    let mount = json!([{ "name": VOLUME, "mountPath": DATA }]);
    pod["spec"]["containers"][0]["volumeMounts"] = mount.clone();
    pod["spec"]["initContainers"] =
        json!([{ "name": "prepare", "image": "busybox:1", "volumeMounts": mount.clone() }]);
    let (after, _) = mutated(&pod);
    assert_eq!(mounts(&after, 1), &mount);
}

#[test]
fn nothing_hides_a_part_of_the_clone() {
    let mut pod = asking("orders:latest");
    pod["spec"]["volumes"] =
        json!([{ "name": "wal", "emptyDir": {} }, { "name": "conf", "configMap": { "name": "c" } }]);
    pod["spec"]["containers"][1]["volumeMounts"] =
        json!([{ "name": "wal", "mountPath": format!("{DATA}/pg_wal") }]);
    let why = denied(&pod);
    assert!(why.contains("wal") && why.contains("pg_wal"), "{why}");
    // One file of its configuration is another matter, and so is a neighbour.
    pod["spec"]["containers"][1]["volumeMounts"] = json!([
        { "name": "conf", "mountPath": format!("{DATA}/postgresql.conf"), "subPath": "postgresql.conf" },
        { "name": "wal", "mountPath": format!("{DATA}-spare") },
    ]);
    mutated(&pod);
}

#[test]
fn a_named_clone_is_judged_by_the_node_plugin_which_knows_what_it_is_made_of() {
    let mut catalogue = catalogue();
    let mut retired = image(OLD, "False", "Retired", "");
    retired.retired = true;
    catalogue.set_image(OLD.parse().unwrap(), Some(retired));
    let mut pod = asking(OLD);
    assert!(decide_in(&catalogue, "shop", &pod).unwrap_err().to_string().contains("is retired"));
    pod["metadata"]["annotations"]["aldaas/clone"] = json!("pr-1");
    decide_in(&catalogue, "shop", &pod).unwrap();
    pod["spec"]["containers"][1]["image"] = json!("postgres:14");
    let mutation = decide_in(&catalogue, "shop", &pod).unwrap();
    assert!(mutation.warnings.iter().any(|warning| warning.contains("postgres 14")), "{mutation:?}");
}

#[test]
fn what_may_go_wrong_later_is_said_now() {
    let warning = |with: Value| mutated(&merged(asking("orders:latest"), with)).1.warnings.join("\n");
    let annotations = |with: Value| json!({ "metadata": { "annotations": with } });
    assert!(warning(annotations(json!({ "aldaas/tll": "1h" }))).contains("did you mean aldaas/ttl?"));
    assert!(
        warning(json!({ "metadata": { "labels": { "aldaas/db": OLD } } }))
            .contains("label aldaas/db is not heeded")
    );
    assert!(warning(json!({ "spec": { "hostNetwork": true } })).contains("node's network"));
    assert!(
        warning(json!({ "spec": { "securityContext": { "runAsUser": 1000 } } }))
            .contains("belongs to user 999")
    );
    assert_eq!(warning(json!({ "spec": { "securityContext": { "runAsUser": 999 } } })), "");
    let mut pod = asking("orders:latest");
    pod["spec"]["containers"][1]["args"] = json!(["postgres", "-D", "/else"]);
    assert!(mutated(&pod).1.warnings[0].contains("/else"));
    let mirror = merged(asking("orders:latest"), annotations(json!({ "kubernetes.io/config.mirror": "x" })));
    let (after, mutation) = mutated(&mirror);
    assert!(after == mirror && mutation.warnings[0].contains("static pod"));
}
