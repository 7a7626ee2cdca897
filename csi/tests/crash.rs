//! `kill -9` of the plugin between any two steps: whatever kubelet does then, nothing is left.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use aldaas_csi::proto::csi::NodePublishVolumeRequest;
use aldaas_testbed::Census;
use common::{Bed, HELLO, NODE, Plugin, eventually, image};

const LATEST: &[(&str, &str)] = &[("db", "orders:latest")];
const NAMED: &[(&str, &str)] = &[("db", "orders:latest"), ("clone", "pr-1"), ("ttl", "1s")];

/// Every step of a publish.
const PUBLISH: &[&str] = &[
    "golden::after-clone",
    "golden::after-clone-record",
    "csi::after-clone",
    "volume::after-attach",
    "volume::after-mount",
    "volume::after-bind",
    "csi::after-open",
    "csi::after-target",
    "csi::after-bind",
];
/// Every step of an unpublish. Those that leave something in the trash come last: a reaper that purges it passes them too.
const UNPUBLISH: &[&str] = &[
    "csi::after-unbind",
    "csi::after-rmdir",
    "volume::after-unbind",
    "volume::after-shut-down",
    "volume::after-unmount",
    "volume::after-detach",
    "csi::after-discard",
    "golden::after-purge",
    "csi::after-trash",
    "golden::after-trash",
];

/// What kubelet does when its call ended with the plugin.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// It publishes again, and unpublishes when the pod goes.
    Publish,
    /// The pod was deleted meanwhile.
    Unpublish,
}

fn bed() -> Bed {
    let mut bed = Bed::new();
    bed.plugin.stop();
    bed.plugin = Plugin::new(bed.scratch.path(), bed.bed.ceph_conf(), bed.pool.name(), NODE).with(&[
        "--reaper-period",
        "1s",
        "--lease",
        "2s",
    ]);
    bed.plugin.make_pod_dir("a");
    (0..UNPUBLISH.len()).for_each(|n| bed.plugin.make_pod_dir(&format!("a{n}")));
    bed
}

/// Kills the plugin at a step of a publish.
async fn die_publishing(bed: &mut Bed, point: &str, request: &NodePublishVolumeRequest) {
    bed.plugin.start_to_die_at(point);
    let answer = bed.plugin.send(request.clone()).await;
    assert!(bed.plugin.has_died(Duration::from_secs(10)), "{point} was not reached: {answer:?}");
    bed.plugin.start(&[]);
}

async fn go_on(bed: &mut Bed, then: Then, what: &str, request: &NodePublishVolumeRequest) {
    if then == Then::Publish {
        bed.plugin.send(request.clone()).await.unwrap_or_else(|status| panic!("{what}: {status:?}"));
        let hello = std::fs::read_to_string(bed.plugin.target("a").join("hello"));
        assert_eq!(hello.unwrap_or_else(|error| panic!("{what}: {error}")), HELLO);
    }
    bed.plugin.unpublish("a").await.unwrap_or_else(|status| panic!("{what}: {status:?}"));
    bed.objects.remove_pod("a");
}

/// Publishes, and kills the plugin at a step of the unpublish.
async fn die_unpublishing(bed: &mut Bed, point: &str, volume: &str, attributes: &[(&str, &str)]) {
    bed.plugin.start_to_die_at(point);
    let target = bed.plugin.publish(volume, attributes).await.unwrap();
    std::fs::write(target.join("dirty"), vec![1; 1 << 20]).unwrap();
    let answer = bed.plugin.unpublish(volume).await;
    assert!(bed.plugin.has_died(Duration::from_secs(10)), "{point} was not reached: {answer:?}");
    bed.plugin.start(&[]);
}

/// All pods are gone, and nobody calls.
fn silence(bed: &mut Bed, before: &Census) {
    for n in 0..UNPUBLISH.len() {
        bed.objects.remove_pod(&format!("a{n}"));
    }
    bed.assert_census(before, "in silence");
}

fn settle(bed: &mut Bed, before: &Census, what: &str) {
    bed.assert_census(before, what);
    bed.plugin.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_killed_anywhere_is_taken_up_or_taken_back() {
    let mut bed = bed();
    bed.plugin.start(&[]);
    let before = bed.census();
    bed.plugin.stop();
    for point in PUBLISH {
        for then in [Then::Publish, Then::Unpublish] {
            let what = format!("killed at {point}, then {then:?}");
            let request = bed.plugin.request("a", LATEST);
            bed.objects.add_pod("a", NODE, LATEST);
            die_publishing(&mut bed, point, &request).await;
            go_on(&mut bed, then, &what, &request).await;
            settle(&mut bed, &before, &what);
        }
    }
    for (n, point) in PUBLISH.iter().enumerate() {
        let volume = format!("a{n}");
        bed.objects.add_pod(&volume, NODE, LATEST);
        let request = bed.plugin.request(&volume, LATEST);
        die_publishing(&mut bed, point, &request).await;
        bed.plugin.stop();
    }
    bed.plugin.start(&[]);
    silence(&mut bed, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpublish_killed_anywhere_is_finished_by_the_next_or_by_the_reaper() {
    let mut bed = bed();
    bed.plugin.start(&[]);
    let before = bed.census();
    bed.plugin.stop();
    for point in UNPUBLISH {
        let what = format!("killed at {point}");
        bed.objects.add_pod("a", NODE, LATEST);
        die_unpublishing(&mut bed, point, "a", LATEST).await;
        let request = bed.plugin.request("a", LATEST);
        go_on(&mut bed, Then::Unpublish, &what, &request).await;
        settle(&mut bed, &before, &what);
    }
    for (n, point) in UNPUBLISH.iter().enumerate() {
        let volume = format!("a{n}");
        bed.objects.add_pod(&volume, NODE, LATEST);
        die_unpublishing(&mut bed, point, &volume, LATEST).await;
        bed.plugin.stop();
    }
    bed.plugin.start(&[]);
    silence(&mut bed, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_clone_survives_a_kill_anywhere_and_goes_with_its_ttl() {
    let mut bed = bed();
    bed.plugin.start(&[]);
    let before = bed.census();
    bed.plugin.stop();
    for point in
        ["golden::after-clone", "csi::after-clone", "csi::after-lease", "csi::after-open", "csi::after-bind"]
    {
        let what = format!("killed at {point}");
        let request = bed.plugin.request("a", NAMED);
        bed.objects.add_pod("a", NODE, NAMED);
        die_publishing(&mut bed, point, &request).await;
        go_on(&mut bed, Then::Publish, &what, &request).await;
        bed.plugin.stop();
    }
    for point in ["csi::after-unbind", "volume::after-unmount", "csi::after-close", "csi::after-drop-lease"] {
        let what = format!("killed at {point}");
        bed.objects.add_pod("a", NODE, NAMED);
        die_unpublishing(&mut bed, point, "a", NAMED).await;
        let request = bed.plugin.request("a", NAMED);
        go_on(&mut bed, Then::Unpublish, &what, &request).await;
        bed.plugin.stop();
    }
    bed.plugin.start(&[]);
    settle(&mut bed, &before, "when its TTL is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_killed_while_it_is_prepared_is_taken_up_and_never_half_made() {
    let mut bed = bed();
    bed.plugin.start(&[]);
    let before = bed.census();
    bed.plugin.stop();
    let name = image("orders", 9);
    let own = ("csi.storage.k8s.io/pod.namespace", "aldaas");
    let account = ("csi.storage.k8s.io/serviceAccount.name", "aldaas-ingest");
    let text = name.to_string();
    let asked = [("kind", "build"), ("image", text.as_str()), own, account];
    for point in [
        "golden::after-create",
        "golden::after-begin",
        "volume::after-mkfs",
        "volume::after-mount",
        "csi::after-bind",
    ] {
        bed.objects.add_pod("a", NODE, &asked[..2]);
        let request = bed.plugin.request("a", &asked);
        die_publishing(&mut bed, point, &request).await;
        bed.plugin.send(request).await.unwrap_or_else(|status| panic!("{point}: {status:?}"));
        let target = bed.plugin.target("a");
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0, "{point}");
        bed.plugin.unpublish("a").await.unwrap();
        bed.objects.remove_pod("a");
        eventually("nothing of it is attached", || bed.census().watchers.is_empty());
        bed.golden.remove_candidate(&name);
        settle(&mut bed, &before, point);
    }
}
