//! Named clones: they outlive their pod, come back to the next one on any node, and have one user at a time.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use aldaas_csi::proto::csi::NodeUnpublishVolumeRequest;
use aldaas_rbd as rbd;
use common::{Bed, HELLO, PATIENCE, Plugin, Writer, code, eventually, is_mounted, timed};
use tonic::{Code, Request};

const NAMED: &[(&str, &str)] = &[("db", "orders:latest"), ("clone", "pr-1"), ("ttl", "1h")];

/// A second node of the same cluster.
fn second(bed: &Bed, flags: &[&str]) -> Plugin {
    let mut plugin =
        Plugin::new(bed.scratch.path(), bed.bed.ceph_conf(), bed.pool.name(), "node-b").with(flags);
    plugin.start(&[]);
    plugin
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_clone_comes_back_on_any_node_and_others_wait_for_it_and_are_told() {
    let bed = Bed::new();
    let other = second(&bed, &[]);
    let target = bed.plugin.publish("a", NAMED).await.unwrap();
    assert_eq!(std::fs::read_to_string(target.join("hello")).unwrap(), HELLO);
    std::fs::write(target.join("kept"), "by a").unwrap();

    // Another pod of the same node, and one of another: told by whom it is used, in time.
    for (plugin, volume) in [(&bed.plugin, "b"), (&other, "c")] {
        let mut request = Request::new(plugin.request(volume, NAMED));
        request.set_timeout(Duration::from_secs(3));
        let begun = Instant::now();
        let status = plugin.client().node_publish_volume(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status:?}");
        assert!(status.message().contains("in use by"), "{status:?}");
        assert!(begun.elapsed() < Duration::from_secs(3));
        plugin.unpublish(volume).await.unwrap();
    }
    assert!(target.join("kept").exists());
    // Whoever asks with more time gets it when it is free. One of another namespace has a clone of its own.
    let waiting = {
        let (mut client, request) = (other.client(), timed(other.request("d", NAMED)));
        tokio::spawn(async move { client.node_publish_volume(request).await })
    };
    let own = [NAMED[0], NAMED[1], ("csi.storage.k8s.io/pod.namespace", "aldaas")];
    let status = other.publish("e", &own).await;
    assert_eq!(code(&status), Code::PermissionDenied, "a selector says it all");
    bed.plugin.unpublish("a").await.unwrap();
    assert!(!target.exists());
    waiting.await.unwrap().unwrap();
    let target = other.target("d");
    assert_eq!(std::fs::read_to_string(target.join("kept")).unwrap(), "by a");
    // As another image's clone it is not to be had.
    let old = common::image("orders", 1).to_string();
    let newer = bed.golden.build(2).to_string();
    other.unpublish("d").await.unwrap();
    let asked = [("db", newer.as_str()), NAMED[1]];
    assert_eq!(code(&other.publish("f", &asked).await), Code::AlreadyExists);
    bed.plugin.publish("g", &[("db", old.as_str()), NAMED[1]]).await.unwrap();
    bed.plugin.unpublish("g").await.unwrap();
    assert_eq!(bed.golden.clone_names().len(), 1, "kept for its TTL");
    let census = bed.census();
    assert_eq!((census.mounts, census.loops, census.watchers.len()), Default::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_nodes_named_clone_is_fenced_when_its_lease_is_over_and_nothing_else_of_it() {
    let mut bed = Bed::new();
    let other = second(&bed, &["--lease", "3s"]);
    bed.plugin = Plugin::new(bed.scratch.path(), bed.bed.ceph_conf(), bed.pool.name(), common::NODE)
        .with(&["--lease", "3s"]);
    let mut first = std::mem::replace(&mut bed.plugin, other);
    let other = &bed.plugin;
    // The first plugin of the bed still holds the socket: it goes, this one takes its place.
    first.start(&[]);
    let named = first.publish("a", NAMED).await.unwrap();
    let ephemeral = first.publish("b", &NAMED[..1]).await.unwrap();
    std::fs::write(named.join("synced"), "by a").unwrap();
    rustix::fs::syncfs(std::fs::File::open(&named).unwrap()).unwrap();
    let (cut_off, unharmed) = (Writer::start(&named.join("log")), Writer::start(&ephemeral.join("log")));
    // The plugin is gone, its pods write on: nobody but their lease says that they live.
    first.kill();
    let begun = Instant::now();
    // As long as the node itself is ready, its pod is not cut off even when its lease is over: whoever waits is told.
    bed.objects.set_ready(common::NODE, true);
    loop {
        let mut request = Request::new(other.request("c", NAMED));
        request.set_timeout(Duration::from_secs(4));
        let status = other.client().node_publish_volume(request).await.unwrap_err();
        assert_eq!(status.code(), Code::Aborted, "{status:?}");
        if status.message().contains("is ready though") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{status:?}");
    }
    assert!(begun.elapsed() > Duration::from_secs(3), "its lease was not over: {:?}", begun.elapsed());
    cut_off.goes_on();
    bed.objects.set_ready(common::NODE, false);
    let target = other.publish("c", NAMED).await.unwrap();
    assert_eq!(std::fs::read_to_string(target.join("synced")).unwrap(), "by a");
    cut_off.expect_cut_off();
    unharmed.goes_on();
    unharmed.stop();
    // The node comes back, and its pods go.
    first.start(&[]);
    for volume in ["a", "b"] {
        first.unpublish(volume).await.unwrap();
    }
    assert!(!is_mounted(&named) && target.join("synced").exists());
    other.unpublish("c").await.unwrap();
    eventually("only the named clone is left", || bed.golden.clone_names().len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_worker_pods_that_take_turns_on_a_clone_never_wait_for_each_other_in_a_circle() {
    let mut bed = Bed::new();
    bed.plugin.stop();
    bed.plugin.start(&[("ALDAAS_WORKERS", "1")]);
    let begun = Instant::now();
    take_turns(&bed, &["a", "b", "c", "d", "e", "f"]).await;
    // In a circle they would wait until a deadline: kubelet's two minutes.
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert_eq!(bed.golden.clone_names().len(), 1, "kept for its TTL");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_clone_that_is_mounted_and_not_bound_yet_is_taken_from_nobody() {
    let mut bed = Bed::new();
    bed.plugin.stop();
    bed.plugin.start(&[("FAILPOINTS", "csi::after-target=sleep(1000)")]);
    take_turns(&bed, &["a", "b", "c"]).await;
}

/// Publishes and unpublishes all at once. Each lets go of what the next one waits for, so that publish and unpublish always meet.
async fn take_turns(bed: &Bed, volumes: &[&str]) {
    let pods: Vec<_> = volumes
        .iter()
        .map(|volume| {
            let (mut client, request) = (bed.plugin.client(), timed(bed.plugin.request(volume, NAMED)));
            let unpublish = NodeUnpublishVolumeRequest {
                volume_id: common::id(volume),
                target_path: bed.plugin.target(volume).display().to_string(),
            };
            tokio::spawn(async move {
                client.node_publish_volume(request).await.unwrap();
                client.node_unpublish_volume(timed(unpublish)).await.unwrap();
            })
        })
        .collect();
    for pod in pods {
        pod.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_its_own_node_nobody_is_fenced_and_whoever_has_the_image_open_is_named() {
    let mut bed = Bed::new();
    bed.plugin.stop();
    bed.plugin.start(&[("ALDAAS_LEASE", "2s")]);
    bed.plugin.publish("a", NAMED).await.unwrap();
    bed.plugin.unpublish("a").await.unwrap();
    let [clone] = bed.golden.clone_names().try_into().unwrap();
    // Somebody has a look by hand, and has no lease.
    let pool = bed.golden.cluster.pool(&rbd::PoolName::new(bed.pool.name()).unwrap()).unwrap();
    let image = pool.namespace("clone").unwrap().open(&rbd::ImageName::new(clone).unwrap()).unwrap();
    let begun = Instant::now();
    let mut request = Request::new(bed.plugin.request("b", NAMED));
    request.set_timeout(Duration::from_secs(8));
    let status = bed.plugin.client().node_publish_volume(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert!(begun.elapsed() > Duration::from_secs(6), "several leases long: {:?}", begun.elapsed());
    assert!(status.message().contains("no node plugin's"), "{status:?}");
    for address in bed.golden.cluster.addresses().unwrap() {
        assert!(status.message().contains(&address), "{address} in {status:?}");
        assert!(!bed.bed.ceph(["osd", "blocklist", "ls"]).contains(&address));
    }
    drop(image);
    bed.plugin.publish("b", NAMED).await.unwrap();
    bed.plugin.unpublish("b").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_told_to_stop_sends_away_who_waits_and_ends_in_seconds() {
    let bed = Bed::new();
    let mut other = second(&bed, &["--workers", "1"]);
    bed.plugin.publish("a", NAMED).await.unwrap();
    let before = bed.census();
    let (mut client, request) = (other.client(), timed(other.request("waits", NAMED)));
    let waits = tokio::spawn(async move { client.node_publish_volume(request).await });
    eventually("it waits", || other.log().contains("waiting for a named clone"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    tokio::task::block_in_place(|| other.stop());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let status = waits.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "kubelet asks again: {status:?}");
    assert!(status.message().contains("being stopped"), "{status:?}");
    // Its successor answers.
    other.start(&[]);
    bed.assert_census(&before, "nothing of it is left half-made");
    bed.plugin.unpublish("a").await.unwrap();
    other.publish("waits", NAMED).await.unwrap();
    other.unpublish("waits").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_told_to_stop_ends_the_work_that_it_has_begun_and_begins_no_other() {
    let mut bed = Bed::new();
    let before = bed.census();
    bed.plugin.stop();
    bed.plugin.start(&[("FAILPOINTS", "csi::after-clone=sleep(1500)"), ("ALDAAS_WORKERS", "1")]);
    let publish = |volume: &'static str| {
        let (mut client, request) = (bed.plugin.client(), timed(bed.plugin.request(volume, &NAMED[..1])));
        tokio::spawn(async move { client.node_publish_volume(request).await })
    };
    let works = publish("works");
    eventually("it works", || bed.golden.clone_names().len() == 1);
    let waits = publish("waits");
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::task::block_in_place(|| bed.plugin.stop());
    works.await.unwrap().unwrap();
    assert_eq!(waits.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert!(bed.plugin.target("works").join("hello").exists());
    assert_eq!(bed.golden.clone_names(), [Plugin::handle("works")], "the other was not begun");
    bed.plugin.start(&[]);
    bed.plugin.unpublish("works").await.unwrap();
    bed.plugin.unpublish("waits").await.unwrap();
    bed.assert_census(&before, "after unpublish");
}
