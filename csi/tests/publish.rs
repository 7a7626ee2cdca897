//! What kubelet does with every volume: publish, use, unpublish.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Bed, HELLO, Plugin, Writer, code, eventually, image, is_mounted};
use tonic::Code;

const LATEST: &[(&str, &str)] = &[("db", "orders:latest")];

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_a_clone_of_its_own_and_nothing_is_left_when_it_goes() {
    let bed = Bed::new();
    let before = bed.census();
    let target = bed.plugin.publish("a", LATEST).await.unwrap();
    assert_eq!(std::fs::read_to_string(target.join("hello")).unwrap(), HELLO);
    std::fs::write(target.join("mine"), "written by a").unwrap();
    let other = bed.plugin.publish("b", LATEST).await.unwrap();
    assert!(!other.join("mine").exists());
    assert_eq!(std::fs::read_dir(&other).unwrap().count(), 1, "the pod sees data/ and nothing else");
    // kubelet's retry of a call whose answer it missed.
    bed.plugin.publish("a", LATEST).await.unwrap();
    assert!(target.join("mine").exists());
    for volume in ["a", "b", "a", "never-published"] {
        bed.plugin.unpublish(volume).await.unwrap();
    }
    assert!(!is_mounted(&target) && !target.exists());
    bed.assert_census(&before, "after unpublish");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_comes_and_goes_disturbs_no_mounted_clone() {
    let mut bed = Bed::new();
    let before = bed.census();
    let target = bed.plugin.publish("a", LATEST).await.unwrap();
    let writer = Writer::start(&target.join("log"));
    let server = bed.plugin.server();
    bed.plugin.kill();
    writer.goes_on();
    bed.plugin.start(&[]);
    bed.plugin.publish("a", LATEST).await.unwrap();
    writer.goes_on();
    bed.plugin.stop();
    writer.goes_on();
    bed.plugin.start(&[]);
    bed.plugin.publish("b", LATEST).await.unwrap();
    bed.plugin.unpublish("b").await.unwrap();
    assert!(!bed.plugin.stats("a").await.unwrap().volume_condition.unwrap().abnormal);
    writer.goes_on();
    writer.stop();
    assert_eq!(bed.plugin.server(), server, "the process that serves the I/O is never the plugin's");
    bed.plugin.unpublish("a").await.unwrap();
    bed.assert_census(&before, "after unpublish");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_ends_leaves_its_successors_socket() {
    let mut bed = Bed::new();
    let before = bed.census();
    // In an upgrade the old one may still serve when the new one has come: here its socket was taken away before.
    std::fs::remove_file(&bed.plugin.socket).unwrap();
    let mut new = Plugin::new(bed.scratch.path(), bed.bed.ceph_conf(), bed.pool.name(), common::NODE);
    new.start(&[]);
    bed.plugin.stop();
    assert!(new.socket.exists(), "kubelet would take it for gone");
    new.publish("a", LATEST).await.unwrap();
    new.unpublish("a").await.unwrap();
    bed.assert_census(&before, "after unpublish");
    new.stop();
    assert!(!new.socket.exists(), "its own it takes away");
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_is_what_it_was_at_admission_and_the_newest_where_that_one_is_gone() {
    let bed = Bed::without_image();
    let [old, middle] = [1, 2].map(|second| bed.golden.build(second).to_string());
    let asked = [("db", "orders:latest"), ("image", &old)];
    bed.plugin.publish("pinned", &asked).await.unwrap();
    assert_eq!(bed.golden.parent_of("pinned"), old);
    bed.plugin.publish("newest", LATEST).await.unwrap();
    assert_eq!(bed.golden.parent_of("newest"), middle);
    // A retry of `latest` takes what the first try took.
    let new = bed.golden.build(3).to_string();
    bed.plugin.publish("newest", LATEST).await.unwrap();
    assert_eq!(bed.golden.parent_of("newest"), middle);
    // The same volume as a clone of something else is another volume.
    let other = format!("orders:{new}");
    assert_eq!(code(&bed.plugin.publish("newest", &[("db", &other)]).await), Code::AlreadyExists);
    // Retired between admission and publish: `latest` asked, the newest; an image asked, told.
    bed.golden.store.retire(&old.parse().unwrap(), false).unwrap();
    bed.plugin.publish("late", &asked).await.unwrap();
    assert_eq!(bed.golden.parent_of("late"), new);
    let status = bed.plugin.publish("gone", &[("db", &format!("orders:{old}"))]).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains(&old), "{status:?}");
    for volume in ["pinned", "newest", "late", "gone"] {
        bed.plugin.unpublish(volume).await.unwrap();
    }
    eventually("the retired image goes with its last clone", || bed.census().trash.is_empty());
    for image in [&middle, &new] {
        bed.golden.store.retire(&image.parse().unwrap(), true).unwrap();
    }
    let status = bed.plugin.publish("none", LATEST).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("no ready golden image"), "{status:?}");
    assert_eq!(bed.golden.clone_names(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_stopped_right_after_an_unpublish_leaves_nothing_to_its_successor() {
    let mut bed = Bed::new();
    tokio::task::block_in_place(|| bed.plugin.stop());
    let before = bed.census();
    bed.plugin.start(&[]);
    let target = bed.plugin.publish("a", LATEST).await.unwrap();
    std::fs::write(target.join("mine"), vec![7; 16 << 20]).unwrap();
    bed.plugin.unpublish("a").await.unwrap();
    tokio::task::block_in_place(|| bed.plugin.stop());
    bed.assert_census(&before, "the image is closed and the clone purged");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_have_it_gets_nothing_and_leaves_nothing() {
    let mut bed = Bed::new();
    let candidate = bed.golden.sealed(2);
    let (sealed, ready) = (candidate.name().to_string(), image("orders", 1).to_string());
    let before = bed.census();
    let of_web = [("db", "orders:latest"), ("csi.storage.k8s.io/pod.namespace", "web")];
    let build = [("kind", "build"), ("image", "orders-20300101t000000z")];
    let candidate_of_shop = [("kind", "candidate"), ("image", sealed.as_str())];
    for (asked, wanted) in [
        (&of_web[..], Code::PermissionDenied),
        (&[("db", "closed:latest")], Code::PermissionDenied),
        (&[("db", "unheard-of:latest")], Code::NotFound),
        (&build, Code::PermissionDenied),
        (&candidate_of_shop, Code::PermissionDenied),
        // Not verified: nobody gets it by name either.
        (&[("db", sealed.as_str())], Code::FailedPrecondition),
        (&[("db", "orders-20200101t000000z")], Code::NotFound),
    ] {
        let answer = bed.plugin.publish("a", asked).await;
        assert_eq!(code(&answer), wanted, "{asked:?}: {answer:?}");
    }
    bed.assert_census(&before, "after denials");

    // What was last known holds while Kubernetes is away: nothing was, for this one.
    bed.objects.remove();
    bed.plugin.kill();
    bed.plugin.start(&[]);
    let asked = [("db", ready.as_str())];
    assert_eq!(code(&bed.plugin.publish("a", &asked).await), Code::Unavailable, "kubelet asks again");
    bed.objects.write();
    bed.plugin.publish("a", &asked).await.unwrap();
    bed.plugin.unpublish("a").await.unwrap();
    bed.assert_census(&before, "in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_and_mount_options_are_honoured_and_come_from_where_they_should() {
    let mut bed = Bed::new();
    let before = bed.census();
    let mut request = bed.plugin.request("a", LATEST);
    request.readonly = true;
    bed.plugin.send(request.clone()).await.unwrap();
    bed.plugin.send(request.clone()).await.unwrap();
    let target = bed.plugin.target("a");
    let error = std::fs::write(target.join("x"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(!bed.plugin.stats("a").await.unwrap().volume_condition.unwrap().abnormal);
    assert_eq!(code(&bed.plugin.publish("a", LATEST).await), Code::AlreadyExists, "writable, this time");
    bed.plugin.unpublish("a").await.unwrap();

    bed.objects.database("orders")["spec"]["clone"] = serde_json::json!({"readOnly": true});
    bed.objects.write();
    let target = bed.plugin.publish("c", LATEST).await.unwrap();
    assert_eq!(bed.plugin.publish("c", LATEST).await.unwrap(), target);
    assert_eq!(
        std::fs::write(target.join("x"), "x").unwrap_err().kind(),
        std::io::ErrorKind::ReadOnlyFilesystem
    );
    bed.plugin.unpublish("c").await.unwrap();

    // A file system's own, and those that are none's own; and the two that it always has.
    for (asked, of_mount, of_filesystem) in [
        (&["commit=17", "noatime"][..], &["noatime", "nosuid", "nodev"][..], &["commit=17"][..]),
        (&["relatime", "nodiratime", "noexec", "sync"], &["relatime", "nodiratime", "noexec"], &["sync"]),
    ] {
        bed.objects.database("orders")["spec"]["clone"] = serde_json::json!({"mountOptions": asked});
        bed.objects.write();
        let target = bed.plugin.publish("b", LATEST).await.unwrap();
        let mount = aldaas_volume::mountinfo::top_at(&target).unwrap().unwrap();
        let has = |options: &str, wanted: &&str| options.split(',').any(|option| option == *wanted);
        assert!(of_mount.iter().all(|wanted| has(&mount.options, wanted)), "{of_mount:?}: {mount:?}");
        assert!(of_filesystem.iter().all(|wanted| has(&mount.super_options, wanted)), "{mount:?}");
        bed.plugin.unpublish("b").await.unwrap();
    }
    bed.assert_census(&before, "after unpublish");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_job_builds_on_a_blank_image_and_verifies_on_a_clone_of_it() {
    let bed = Bed::without_image();
    let before = bed.census();
    let name = image("orders", 7);
    let (image, ours) = (name.to_string(), |kind: &'static str, image: &str| {
        let image = image.to_owned();
        move |plugin: &common::Plugin, volume: &str| {
            let own = ("csi.storage.k8s.io/pod.namespace", "aldaas");
            let account = ("csi.storage.k8s.io/serviceAccount.name", "aldaas-ingest");
            plugin.request(volume, &[("kind", kind), ("image", &image), own, account])
        }
    });
    let (build, candidate) = (ours("build", &image), ours("candidate", &image));
    for _ in 0..2 {
        bed.plugin.send(build(&bed.plugin, "build")).await.unwrap();
    }
    let target = bed.plugin.target("build");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0, "no lost+found");
    std::fs::write(target.join("hello"), HELLO).unwrap();
    // Another Job's build of the same image, and a clone of what is not sealed in time.
    assert_eq!(code(&bed.plugin.send(build(&bed.plugin, "second")).await), Code::AlreadyExists);
    let mut early = common::timed(candidate(&bed.plugin, "early"));
    early.set_timeout(Duration::from_secs(2));
    assert_eq!(code(&bed.plugin.client().node_publish_volume(early).await), Code::Aborted);
    assert!(target.join("hello").exists());
    bed.plugin.unpublish("build").await.unwrap();
    assert!(!target.exists());
    // The pod was restarted on the node: what it wrote is still there.
    bed.plugin.send(build(&bed.plugin, "build")).await.unwrap();
    assert_eq!(std::fs::read_to_string(target.join("hello")).unwrap(), HELLO);
    bed.plugin.unpublish("build").await.unwrap();
    let golden = bed.golden.store.golden_image(&name).unwrap();
    assert_eq!(golden.record.state, aldaas_golden::State::Candidate, "sealing is the controller's");

    // It was asked for before the seal, and comes with it.
    let (mut client, verify) = (bed.plugin.client(), common::timed(candidate(&bed.plugin, "verify")));
    let waits = tokio::spawn(async move { client.node_publish_volume(verify).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waits.is_finished(), "it is not sealed yet");
    bed.golden.seal_by_hand(&name);
    waits.await.unwrap().unwrap();
    assert_eq!(code(&bed.plugin.send(build(&bed.plugin, "build")).await), Code::FailedPrecondition);
    bed.plugin.send(candidate(&bed.plugin, "verify")).await.unwrap();
    let target = bed.plugin.target("verify");
    assert_eq!(std::fs::read_to_string(target.join("hello")).unwrap(), HELLO);
    bed.plugin.unpublish("verify").await.unwrap();
    bed.golden.discard_by_hand(&name);
    bed.assert_census(&before, "in the end");
}
