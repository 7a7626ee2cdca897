//! A cluster of one's own can be broken and mended, and leaves nothing.

use std::process::Command;
use std::time::{Duration, Instant};

use aldaas_testbed::{Daemon, Testbed};

#[test]
fn a_cluster_of_ones_own_can_be_stopped_frozen_mended_and_removed() {
    let cluster = Testbed::own_cluster();
    let dir = cluster.dir().to_owned();
    let pool = cluster.fresh_pool();
    let answers = || {
        let command = ["-p", pool.name(), "--rados-osd-op-timeout", "2", "stat", "nothing"];
        let output = Command::new("rados").arg("-c").arg(cluster.ceph_conf()).args(command).output().unwrap();
        String::from_utf8_lossy(&output.stderr).contains("No such file")
    };
    assert!(answers());
    cluster.freeze(Daemon::Osd);
    assert!(!answers());
    cluster.thaw(Daemon::Osd);
    assert!(answers());
    cluster.stop(Daemon::Rgw);
    cluster.stop(Daemon::Osd);
    assert!(!answers());
    cluster.start_again(Daemon::Osd);
    cluster.start_again(Daemon::Rgw);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !answers() {
        assert!(Instant::now() < deadline, "the OSD serves again");
    }
    cluster.bucket("again");
    drop(pool);
    drop(cluster);
    assert!(!dir.exists());
}
