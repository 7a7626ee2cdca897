//! The way that everything is for.

use std::collections::BTreeSet;

use aldaas_e2e::{Site, dump, path};
use serde_json::json;

#[test]
fn a_dump_in_a_bucket_becomes_independent_databases_of_a_deployment_and_nothing_is_left_of_them() {
    let site = Site::get();
    let database = site.database("orders");
    let room = site.room("shop");
    database.ingest("1.sql", &dump(1000, "as it was"));
    let before = site.settled_census();

    site.kube.apply(&room.deployment("web", 1, json!({"aldaas/db": format!("{}:latest", database.name)})));
    let pod = room.until_ready("web", 1).remove(0);
    let db = database.name.as_str();
    assert_eq!(room.sql(&pod, db, "SELECT count(*), min(note) FROM orders"), "1000|as it was");
    room.sql(&pod, db, "UPDATE orders SET note = 'mine'");

    site.kube.merge(&path("deployments", &room.name, "web"), &json!({"spec": {"replicas": 3}}));
    let pods = room.until_ready("web", 3);
    for other in pods.iter().filter(|other| **other != pod) {
        assert_eq!(room.sql(other, db, "SELECT count(*), min(note) FROM orders"), "1000|as it was");
        room.sql(other, db, &format!("UPDATE orders SET note = '{other}'"));
    }
    let notes: BTreeSet<String> =
        pods.iter().map(|pod| room.sql(pod, db, "SELECT DISTINCT note FROM orders")).collect();
    assert_eq!(notes.len(), 3, "each has its own copy: {notes:?}");

    room.remove("deployments", "web");
    site.assert_nothing_left(&before);
}

#[test]
fn an_annotation_put_on_a_deployment_that_runs_does_what_it_looks_like() {
    let site = Site::get();
    let database = site.database("late");
    let room = site.room("late");
    database.ingest("1.sql", &dump(10, "late"));
    site.kube.apply(&room.deployment("web", 1, json!({})));
    let plain = room.until_ready("web", 1).remove(0);
    room.sql(&plain, "postgres", "SELECT 1");

    let annotation = format!("aldaas/db={}:latest", database.name);
    site.kube.kubectl(&["annotate", "-n", &room.name, "deployment", "web", &annotation]).unwrap();
    let pod = aldaas_e2e::until("the pod was replaced", || {
        room.ready_pods("web").into_iter().find(|pod| *pod != plain)
    });
    assert_eq!(room.sql(&pod, &database.name, "SELECT count(*) FROM orders"), "10");
}
