//! Ceph away, slow, and back.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use aldaas_testbed::{Daemon, Testbed};
use common::{Golden, HELLO, Objects, Plugin, Writer, code, eventually};
use tonic::Code;

const LATEST: &[(&str, &str)] = &[("db", "orders:latest")];

#[tokio::test(flavor = "multi_thread")]
async fn with_ceph_away_kubelet_is_told_to_come_again_and_afterwards_all_is_well() {
    let cluster = Testbed::own_cluster_without_s3();
    let (pool, scratch) = (cluster.fresh_pool(), cluster.scratch());
    let mut objects = Objects::new(scratch.path());
    for pod in ["a", "b", "c"] {
        objects.add_pod(pod, common::NODE, LATEST);
    }
    let golden = Golden::new(cluster.ceph_conf(), pool.name(), &scratch.path().join("build"));
    golden.build(1);
    let mut plugin = Plugin::new(scratch.path(), cluster.ceph_conf(), pool.name(), common::NODE).with(&[
        "--ceph-timeout",
        "3s",
        "--reaper-period",
        "1s",
    ]);
    plugin.start(&[]);
    let before = cluster.census(pool.name(), scratch.path());
    let target = plugin.publish("a", LATEST).await.unwrap();
    let writer = Writer::start(&target.join("log"));

    // Slow: the OSD hangs for longer than one call to it may take, and a pod's write simply waits.
    cluster.freeze(Daemon::Osd);
    let begun = Instant::now();
    let slow = plugin.publish("b", LATEST).await;
    assert_eq!(code(&slow), Code::Unavailable, "{slow:?}");
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    let mut probe = aldaas_csi::client::identity(&plugin.socket);
    let ready = probe.probe(aldaas_csi::proto::csi::ProbeRequest {}).await.unwrap().into_inner().ready;
    assert_eq!(ready, Some(false));
    cluster.thaw(Daemon::Osd);
    writer.goes_on();
    plugin.publish("b", LATEST).await.unwrap();
    plugin.unpublish("b").await.unwrap();

    // Away, and the plugin starts without it.
    cluster.stop(Daemon::Osd);
    cluster.stop(Daemon::Mon);
    plugin.kill();
    plugin.start(&[]);
    for volume in ["c", "a"] {
        let answer = plugin.publish(volume, LATEST).await;
        assert_eq!(code(&answer), Code::Unavailable, "{volume}: {answer:?}");
    }
    assert_eq!(
        code(&plugin.unpublish("c").await),
        Code::Unavailable,
        "nobody knows whether there is a clone"
    );
    cluster.start_again(Daemon::Mon);
    cluster.start_again(Daemon::Osd);
    writer.goes_on();
    writer.stop();
    plugin.publish("c", LATEST).await.unwrap();
    assert_eq!(std::fs::read_to_string(plugin.target("c").join("hello")).unwrap(), HELLO);
    for volume in ["a", "b", "c"] {
        plugin.unpublish(volume).await.unwrap();
    }
    eventually("all is as before", || cluster.census(pool.name(), scratch.path()) == before);
}
