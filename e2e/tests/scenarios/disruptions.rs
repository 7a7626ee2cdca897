//! Everything is killed, replaced and cut off once, under load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use aldaas_e2e::{Daemon, Database, Room, Site, dump, name_of, path, until};
use serde_json::{Value, json};

/// A database with a golden image, and a room with one pod `web` on a clone of it.
fn one_pod<'s>(site: &'s Site, name: &str) -> (Database<'s>, Room<'s>) {
    let (database, room) = (site.shared_database(), site.room(name));
    site.kube.create(&room.pod("web", latest(&database))).expect("make the pod");
    room.until_ready("web", 1);
    room.sql("web", &database.name, "CREATE TABLE beats (at timestamptz DEFAULT now())");
    (database, room)
}

fn latest(database: &Database) -> Value {
    json!({"aldaas/db": format!("{}:latest", database.name)})
}

/// Runs `disrupt` while the pod `web` writes all the time; every write has to succeed.
fn under_load(database: &Database, room: &Room, disrupt: impl FnOnce()) {
    let over = AtomicBool::new(false);
    scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = 0;
            while !over.load(Ordering::Relaxed) {
                room.sql("web", &database.name, "INSERT INTO beats DEFAULT VALUES; CHECKPOINT");
                written += 1;
            }
            written
        });
        disrupt();
        over.store(true, Ordering::Relaxed);
        let written: u32 = writer.join().expect("every write succeeds");
        assert!(written > 0);
        assert_eq!(room.sql("web", &database.name, "SELECT count(*) FROM beats"), written.to_string());
    });
}

/// A pod that starts now answers: everything works.
fn another_pod_works(site: &Site, database: &Database, room: &Room, name: &str) {
    site.kube.create(&room.pod(name, latest(database))).expect("make the pod");
    room.until_ready(name, 1);
    assert_eq!(room.sql(name, &database.name, "SELECT count(*) FROM orders"), "100");
    room.remove("pods", name);
}

/// Replaces all pods of a workload, as an upgrade does.
fn upgrade(site: &Site, workload: &str) {
    site.kube.kubectl(&["rollout", "restart", "-n", "aldaas", workload]).expect("restart it");
    site.kube
        .kubectl(&["rollout", "status", "-n", "aldaas", workload, "--timeout=120s"])
        .expect("it is replaced");
}

#[test]
fn plugin_webhook_and_controller_are_killed_and_upgraded_and_no_clone_notices() {
    let site = Site::get();
    let before = {
        site.shared_database();
        site.settled_census()
    };
    let (database, room) = one_pod(&site, "killed");
    under_load(&database, &room, || {
        if let Some(node) = &site.node {
            for program in ["aldaas-csi", "aldaas-webhook", "aldaas-ingest"] {
                node.kill(program);
            }
            until("plugin, webhook and controller are back", || {
                let back = |program: &str| !node.pids_of(program).is_empty();
                (back("aldaas-csi") && back("aldaas-webhook") && back("aldaas-ingest")).then_some(())
            });
        }
        for workload in ["daemonset/aldaas-node", "deployment/aldaas-webhook", "deployment/aldaas-controller"]
        {
            upgrade(&site, workload);
        }
    });
    another_pod_works(&site, &database, &room, "after");
    // What the plugin before had mounted, its successor takes away.
    room.remove("pods", "web");
    site.assert_nothing_left(&before);
    let fresh = site.database("after");
    fresh.ingest("1.sql", &dump(10, "after"));
}

#[test]
fn an_upgrade_of_the_io_server_touches_no_clone_and_when_it_is_killed_its_pods_can_go() {
    let site = Site::get();
    let Some(node) = &site.node else { return };
    let (database, room) = one_pod(&site, "served");
    // A new template replaces nothing: OnDelete.
    under_load(&database, &room, || {
        let annotation = json!({"spec": {"template": {"metadata": {"annotations": {"e2e": "upgraded"}}}}});
        site.kube.merge(&path("daemonsets", "aldaas", "aldaas-io"), &annotation);
        sleep(Duration::from_secs(3));
    });
    // Killed, its clones have lost their disk. What is promised then is that everything can go and be made anew.
    node.kill("aldaas-fuse");
    room.remove("pods", "web");
    until("the I/O server is back", || (!node.pids_of("aldaas-fuse").is_empty()).then_some(()));
    another_pod_works(&site, &database, &room, "after");
    until("nothing of the broken clone is left", || {
        let now = site.census();
        (!now.has_word("clone/") && node.loops() == 0).then_some(())
    });
}

#[test]
fn a_pod_that_was_force_deleted_while_kubelet_was_away_leaves_nothing() {
    let site = Site::get();
    let node = site.own_node();
    let database = site.shared_database();
    let room = site.room("orphan");
    let before = site.settled_census();
    site.kube.create(&room.pod("web", latest(&database))).unwrap();
    room.until_ready("web", 1);
    node.stop(Daemon::Kubelet);
    site.kube.force_delete(&room.name, "web");
    until("the pod is gone from the API", || {
        site.kube.get(&path("pods", &room.name, "web")).is_none().then_some(())
    });
    node.start(Daemon::Kubelet);
    site.assert_nothing_left(&before);
    another_pod_works(&site, &database, &room, "after");
}

#[test]
fn with_the_api_server_away_clones_live_on_and_nothing_is_reaped() {
    let site = Site::get();
    let node = site.own_node();
    let (database, room) = one_pod(&site, "outage");
    let before = site.settled_census();
    let images = || site.bed.census("aldaas", &site.bed.dir().join("nowhere")).images;
    let there = images();
    let container = node.run(&["sh", "-c", "pidof -s postgres"]);
    node.stop(Daemon::ApiServer);
    sleep(site.outage());
    assert_eq!(images(), there, "nothing is reaped while nobody can be asked");
    assert!(
        !node.run(&["sh", "-c", &format!("ls -d /proc/{container}")]).is_empty(),
        "and the engine runs on"
    );
    node.start(Daemon::ApiServer);
    until("the API server is back", || {
        site.kube.get("/readyz/ping").or_else(|| site.kube.get(&path("nodes", "", "e2e")))
    });
    assert_eq!(room.sql("web", &database.name, "SELECT count(*) FROM orders"), "100");
    another_pod_works(&site, &database, &room, "after");
    site.assert_nothing_left(&before);
}

#[test]
fn a_drained_node_holds_no_clone() {
    let site = Site::get();
    let database = site.shared_database();
    let room = site.room("drain");
    let before = site.settled_census();
    site.kube.apply(&room.deployment("web", 2, latest(&database)));
    room.until_ready("web", 2);
    let nodes = site.kube.list(&path("nodes", "", ""));
    for node in &nodes {
        let selector = "--pod-selector=app=web";
        site.kube
            .kubectl(&[
                "drain",
                name_of(node),
                "--ignore-daemonsets",
                "--force",
                "--delete-emptydir-data",
                selector,
                "--timeout=60s",
            ])
            .unwrap();
    }
    site.assert_nothing_left(&before);
    for node in &nodes {
        site.kube.kubectl(&["uncordon", name_of(node)]).unwrap();
    }
    let pods = room.until_ready("web", 2);
    assert_eq!(room.sql(&pods[0], &database.name, "SELECT count(*) FROM orders"), "100");
}

#[test]
fn with_the_webhook_away_plain_pods_start_and_those_that_asked_for_a_database_wait() {
    let site = Site::get();
    let database = site.shared_database();
    let room = site.room("closed");
    let webhook = path("deployments", "aldaas", "aldaas-webhook");
    let replicas = site.kube.get(&webhook).expect("the webhook")["spec"]["replicas"].clone();
    site.kube.merge(&webhook, &json!({"spec": {"replicas": 0}}));
    until("the webhook is away", || {
        let labels = "?labelSelector=app.kubernetes.io%2Fcomponent%3Dwebhook";
        site.kube.list(&(path("pods", "aldaas", "") + labels)).is_empty().then_some(())
    });
    // A namespace that never heard of aldaas, and a pod of ours that asks for nothing.
    let elsewhere = site.plain_room("plain");
    site.kube.create(&elsewhere.pod("plain", json!({}))).unwrap();
    elsewhere.until_ready("plain", 1);

    let mut deployment = room.deployment("web", 1, json!({}));
    deployment["spec"]["template"]["metadata"]["annotations"] = latest(&database);
    let refused = site.kube.create(&room.pod("now", latest(&database))).unwrap_err();
    assert!(refused.contains("webhook"), "{refused}");

    site.kube.merge(&webhook, &json!({"spec": {"replicas": replicas}}));
    until("the webhook is back", || site.kube.try_apply(&deployment).ok());
    let pod = room.until_ready("web", 1).remove(0);
    assert_eq!(room.sql(&pod, &database.name, "SELECT count(*) FROM orders"), "100");
}
