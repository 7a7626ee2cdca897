//! How long a clone lives.

use aldaas_e2e::{Site, dump, path, until};
use serde_json::json;

#[test]
fn a_named_clone_is_the_same_for_the_next_pod_that_asks_for_it() {
    let site = Site::get();
    let database = site.database("named");
    let room = site.room("named");
    database.change(json!({"clone": {"namedTTL": "30s"}}));
    database.ingest("1.sql", &dump(10, "as it was"));
    let before = site.settled_census();
    let annotations = json!({"aldaas/db": format!("{}:latest", database.name), "aldaas/clone": "anna"});
    site.kube.create(&room.pod("first", annotations.clone())).unwrap();
    room.until_ready("first", 1);
    room.sql("first", &database.name, "UPDATE orders SET note = 'anna was here'");
    room.remove("pods", "first");
    site.kube.create(&room.pod("second", annotations)).unwrap();
    room.until_ready("second", 1);
    assert_eq!(room.sql("second", &database.name, "SELECT DISTINCT note FROM orders"), "anna was here");
    room.remove("pods", "second");
    // And it goes when its time is over.
    site.assert_nothing_left(&before);
}

#[test]
fn an_idle_pod_is_reaped_with_an_event_that_says_why() {
    let site = Site::get();
    let database = site.shared_database();
    let room = site.room("idle");
    let before = site.settled_census();
    let annotations = json!({"aldaas/db": format!("{}:latest", database.name), "aldaas/ttl": "15s"});
    let mut pod = room.pod("idle", annotations);
    // Nobody but us asks it anything, and a probe would be a use of it.
    pod["spec"]["containers"][0].as_object_mut().unwrap().remove("readinessProbe");
    site.kube.create(&pod).unwrap();
    room.until_ready("idle", 1);
    let said = room.until_event("idle", "CloneIdle");
    until("the idle pod is gone", || {
        site.kube.get(&path("pods", &room.name, "idle")).is_none().then_some(())
    });
    assert!(said.contains("TTL"), "{said}");
    site.assert_nothing_left(&before);
}
