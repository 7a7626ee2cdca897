//! What is broken, full, held, cut off or too much.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::{Bed, HELLO, Plugin, Writer, code, eventually, is_mounted};
use tonic::Code;

const LATEST: &[(&str, &str)] = &[("db", "orders:latest")];

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_without_the_right_marker_is_never_shown_and_its_clone_goes() {
    let bed = Bed::without_image();
    let wrong = bed.golden.build_with_wrong_marker(1).to_string();
    let before = bed.census();
    for asked in [&[("db", wrong.as_str())][..], &[("db", wrong.as_str()), ("clone", "pr-1")]] {
        let status = bed.plugin.publish("a", asked).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
        assert!(status.message().contains("marker"), "{status:?}");
        // The answer is final: kubelet may never call again.
        bed.assert_census(&before, "without any unpublish");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_a_clone_does_not_keep_its_pod_and_the_clone_goes_later() {
    let bed = Bed::new();
    let before = bed.census();
    // In another mount namespace, and in our own.
    for unshare in [true, false] {
        let target = bed.plugin.publish("a", LATEST).await.unwrap();
        let mut holder = Holder::of(&target, unshare);
        bed.plugin.unpublish("a").await.unwrap();
        assert!(!is_mounted(&target) && !target.exists(), "the pod goes");
        assert_eq!(bed.golden.clone_names(), [Plugin::handle("a")], "kept while somebody holds it");
        assert!(bed.plugin.log().contains("quarantined"));
        holder.end();
        bed.plugin.unpublish("a").await.unwrap();
        bed.assert_census(&before, "when nobody holds it any more");
    }
}

/// A process that holds what is mounted at a path.
struct Holder(Child);

impl Holder {
    fn of(target: &std::path::Path, unshare: bool) -> Self {
        let mut command = if unshare { aldaas_testbed::own_mounts(&[]) } else { Command::new("env") };
        // It sits in the volume, because the kernel takes a mount away everywhere when its directory is removed.
        command.args(["sh", "-c", r#"cd "$1" && exec sleep 1000"#, "sh"]).arg(target);
        let holder = Self(command.spawn().unwrap());
        // It holds nothing before it has come to sleep.
        let comm = format!("/proc/{}/comm", holder.0.id());
        eventually("the holder sleeps", || std::fs::read_to_string(&comm).unwrap().trim() == "sleep");
        holder
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_loop_device_to_be_had_kubelet_is_asked_to_come_again() {
    let mut bed = Bed::new();
    let before = bed.census();
    bed.plugin.stop();
    bed.plugin.start(&[("FAILPOINTS", "volume::no-free-loop=return")]);
    if bed.plugin.log().contains("krbd") {
        return;
    }
    let status = bed.plugin.publish("a", LATEST).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.message().contains("losetup"), "{status:?}");
    bed.plugin.unpublish("a").await.unwrap();
    bed.plugin.stop();
    bed.plugin.start(&[]);
    bed.assert_census(&before, "after unpublish");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_is_told_at_once_and_no_pod_is_kept_for_it() {
    let bed = Bed::new();
    let before = bed.census();
    bed.plugin.publish("a", LATEST).await.unwrap();
    let writer = Writer::start(&bed.plugin.target("a").join("log"));
    writer.goes_on();
    let quota = |objects: &str| {
        bed.bed.ceph(["osd", "pool", "set-quota", bed.pool.name(), "max_objects", objects]);
    };
    quota("1");
    // The monitors learn some seconds later how much there is.
    eventually("the pool is full", || {
        let pools = bed.bed.ceph(["osd", "pool", "ls", "detail"]);
        pools.lines().any(|line| line.contains(bed.pool.name()) && line.contains("full_quota"))
    });
    // The pod's writes fail, as on a full disk, and do not wait.
    tokio::task::block_in_place(|| writer.expect_cut_off());
    let begun = Instant::now();
    let refused = bed.plugin.publish("b", LATEST).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    bed.plugin.unpublish("b").await.unwrap();
    bed.plugin.unpublish("a").await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    quota("0");
    bed.assert_census(&before, "after unpublish in a full pool");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_the_cluster_cut_off_connects_anew_and_a_dead_server_is_told() {
    let bed = Bed::new();
    let before = bed.census();
    bed.plugin.publish("a", LATEST).await.unwrap();
    // The plugin's own connection, as `ceph osd blocklist` by a person or by another node would.
    bed.blocklist_plugin();
    bed.plugin.publish("b", LATEST).await.unwrap();
    assert_eq!(std::fs::read_to_string(bed.plugin.target("b").join("hello")).unwrap(), HELLO);
    // Whatever serves the images dies: said in the volume's condition, and the pods can go.
    if let Some(server) = bed.plugin.server() {
        let server = rustix::process::Pid::from_raw(server).unwrap();
        rustix::process::kill_process(server, rustix::process::Signal::KILL).unwrap();
        eventually("the volume is told to be broken", || {
            let stats = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(bed.plugin.stats("a")).unwrap()
            });
            stats.volume_condition.unwrap().abnormal
        });
    }
    for volume in ["a", "b"] {
        bed.plugin.unpublish(volume).await.unwrap();
    }
    bed.assert_census(&before, "after unpublish");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_at_once_are_all_served_and_all_taken_back() {
    let bed = Bed::new();
    let before = bed.census();
    let begun = Instant::now();
    let volumes: Vec<String> = (0..200).map(|n| format!("v{n}")).collect();
    let outcomes = at_once(&volumes, |volume| {
        let (mut client, request) = (bed.plugin.client(), common::timed(bed.plugin.request(volume, LATEST)));
        async move { client.node_publish_volume(request).await.map(drop) }
    });
    for (volume, outcome) in volumes.iter().zip(outcomes.await) {
        outcome.unwrap_or_else(|status| panic!("{volume}: {status:?}"));
    }
    let published = begun.elapsed();
    assert_eq!(bed.golden.clone_names().len(), 200);
    let outcomes = at_once(&volumes, |volume| {
        let plugin = &bed.plugin;
        let request = aldaas_csi::proto::csi::NodeUnpublishVolumeRequest {
            volume_id: common::id(volume),
            target_path: plugin.target(volume).display().to_string(),
        };
        let (mut client, request) = (plugin.client(), common::timed(request));
        async move { client.node_unpublish_volume(request).await.map(drop) }
    });
    for (volume, outcome) in volumes.iter().zip(outcomes.await) {
        outcome.unwrap_or_else(|status| panic!("{volume}: {status:?}"));
    }
    println!("200 published in {published:?}, taken back in {:?}", begun.elapsed() - published);
    assert!(published < Duration::from_secs(120));
    bed.assert_census(&before, "after 200 of them");
}

async fn at_once<F: Future<Output = Result<(), tonic::Status>> + Send + 'static>(
    volumes: &[String],
    call: impl Fn(&str) -> F,
) -> Vec<Result<(), tonic::Status>> {
    let calls: Vec<_> = volumes.iter().map(|volume| tokio::spawn(call(volume))).collect();
    let mut outcomes = Vec::new();
    for call in calls {
        outcomes.push(call.await.unwrap());
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_call_for_a_volume_is_sent_away_and_the_first_goes_on_without_its_caller() {
    let mut bed = Bed::new();
    let before = bed.census();
    bed.plugin.stop();
    bed.plugin.start(&[("FAILPOINTS", "csi::after-clone=sleep(1500)")]);
    let mut request = tonic::Request::new(bed.plugin.request("a", LATEST));
    request.set_timeout(Duration::from_millis(800));
    let (mut client, begun) = (bed.plugin.client(), Instant::now());
    let first = client.node_publish_volume(request).await;
    assert_eq!(code(&first), Code::DeadlineExceeded, "{first:?}");
    assert!(begun.elapsed() < Duration::from_millis(800), "told before the caller gives up");
    assert_eq!(code(&bed.plugin.publish("a", LATEST).await), Code::Aborted);
    // It waits for what goes on.
    bed.plugin.unpublish("a").await.unwrap();
    assert!(begun.elapsed() > Duration::from_millis(1500));
    bed.assert_census(&before, "after unpublish");
}
