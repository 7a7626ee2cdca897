//! What does not end: an unmount that waits for a file system that is silent.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;
mod reaping;

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aldaas_api::GoldenImageName;
use aldaas_testbed::Census;
use common::{Bed, code, timed};
use reaping::{Rig, clone_of};
use rustix::mount::{MountFlags, UnmountFlags};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};

const GRACE: Duration = Duration::from_millis(600);
/// How long a pass waits here.
const PATIENCE: Duration = Duration::from_secs(2);

/// A FUSE file system whose server never says a word: whoever goes through it waits until it has ended.
struct Silent {
    server: Option<File>,
    point: PathBuf,
}

impl Silent {
    /// In the way to a pod's volume: whoever unmounts that waits.
    fn over(point: &Path) -> Self {
        let server = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let options = CString::new(options).unwrap();
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        rustix::mount::mount("silent", point, "fuse", flags, Some(options.as_c_str())).unwrap();
        Self { server: Some(server), point: point.to_owned() }
    }

    /// Whoever waits for it gets an error.
    fn end(&mut self) {
        if self.server.take().is_some() {
            rustix::mount::unmount(&self.point, UnmountFlags::DETACH).unwrap();
        }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.end();
    }
}

/// The metric's value.
fn late(rig: &Rig) -> String {
    let metrics = rig.parts.metrics.encode();
    let line = metrics.lines().find(|line| line.starts_with("aldaas_reaper_late ")).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

/// How many things are being taken away.
fn in_flight(rig: &Rig) -> bool {
    rig.parts.metrics.encode().contains(r#"aldaas_operations_in_flight{operation="reap"} 1"#)
}

/// A reaper that waits [`PATIENCE`], a golden image, and what there was before a clone of it whose unmount hangs.
async fn with_one_that_hangs() -> (Rig, GoldenImageName, Census, Silent) {
    let mut rig = Rig::new(GRACE);
    rig.parts.patience = PATIENCE;
    rig.restart();
    let image = rig.golden.build(1);
    let before = rig.census();
    let hanging = rig.pod("hangs", &image, &[]).await;
    (rig, image, before, Silent::over(hanging.parent().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unmount_that_hangs_keeps_the_reaper_from_nothing_else_and_is_begun_once() {
    let (rig, image, before, mut silent) = with_one_that_hangs().await;
    for uid in ["first", "second"] {
        rig.pod(uid, &image, &[]).await;
    }
    for uid in ["hangs", "first"] {
        rig.gone(uid);
    }
    // The pass in which it hangs goes on, and takes the other one away.
    rig.pass().await;
    tokio::time::sleep(GRACE).await;
    let begun = Instant::now();
    rig.pass().await;
    assert!((PATIENCE..PATIENCE * 5).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(rig.has(&clone_of("hangs")) && !rig.has(&clone_of("first")));
    assert_eq!(late(&rig), "1");
    let explained = rig.reaper.explain("shop/hangs").explanations.remove(0);
    assert_eq!(explained.verdict, "remove");
    assert!(explained.working_seconds.unwrap() >= PATIENCE.as_secs(), "{explained:?}");

    // Later passes neither wait for it nor begin it again.
    rig.gone("second");
    rig.pass().await;
    tokio::time::sleep(GRACE).await;
    let begun = Instant::now();
    rig.pass().await;
    assert!(!rig.has(&clone_of("second")) && begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert!(in_flight(&rig) && late(&rig) == "1", "{}", rig.parts.metrics.encode());
    // kubelet's own calls for it are sent away, and those for others are not.
    assert!(rig.parts.guards.try_enter(&clone_of("hangs")).is_none());
    rig.pod("third", &image, &[]).await;
    rig.gone("third");

    // It fails in the end, and is tried again.
    silent.end();
    rig.pass_until_census(&before).await;
    assert_eq!(late(&rig), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reaper_that_is_told_to_stop_waits_for_what_hangs_only_so_long() {
    let (mut rig, _, before, mut silent) = with_one_that_hangs().await;
    rig.gone("hangs");
    let stop = CancellationToken::new();
    let running = tokio::spawn(rig.reaper.clone().run(stop.clone()));
    let begun = Instant::now();
    while late(&rig) != "1" {
        assert!(begun.elapsed() < common::PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    let begun = Instant::now();
    running.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(25), "kubelet kills after 30 s: {:?}", begun.elapsed());
    silent.end();
    rig.restart();
    rig.pass_until_census(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_with_a_call_that_hangs_ends_before_kubelet_kills_it() {
    let mut bed = Bed::new();
    let before = bed.census();
    bed.plugin.make_pod_dir("a");
    let target = bed.plugin.publish("a", &[("db", "orders:latest")]).await.unwrap();
    let unpublish = aldaas_csi::proto::csi::NodeUnpublishVolumeRequest {
        volume_id: common::id("a"),
        target_path: target.display().to_string(),
    };
    let mut silent = Silent::over(target.parent().unwrap());
    let (mut client, mut request) = (bed.plugin.client(), Request::new(unpublish.clone()));
    request.set_timeout(Duration::from_secs(2));
    assert_eq!(code(&client.node_unpublish_volume(request).await), Code::DeadlineExceeded);
    // A second one waits for the first.
    let request = timed(unpublish);
    let waits = tokio::spawn(async move { client.node_unpublish_volume(request).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    tokio::task::block_in_place(|| bed.plugin.stop_hanging());
    assert!(begun.elapsed() < Duration::from_secs(29), "{:?}", begun.elapsed());
    assert_eq!(code(&waits.await.unwrap()), Code::Unavailable);
    silent.end();
    bed.plugin.start(&[]);
    bed.plugin.unpublish("a").await.unwrap();
    std::fs::remove_dir_all(bed.plugin.kubelet.join("pods/a")).unwrap();
    bed.assert_census(&before, "after unpublish");
}
