//! Named clones: they outlive their pod, come back to the next one on any node, and have one user at a time.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

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
