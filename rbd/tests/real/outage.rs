//! A cluster that is away: an error in seconds, and work again when it is back.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use aldaas_rbd as rbd;
use aldaas_testbed::{Daemon, Testbed};
use rbd::{CloneOptions, CreateOptions};

use crate::support::{MIB, impatient, map, name};

/// Whatever is tried, this is long enough for the time-outs of [`impatient`].
const LONG: Duration = Duration::from_secs(30);

fn times_out<T>(what: &str, operation: impl FnOnce() -> rbd::Result<T>) {
    let start = Instant::now();
    let Err(error) = operation() else { panic!("{what} worked") };
    let took = start.elapsed();
    eprintln!("{what}: {took:?}: {error}");
    assert!(error.is_timed_out(), "{what}: {error}");
    assert!(took < LONG, "{what} took {took:?}");
}

#[test]
fn a_monitor_that_is_not_there_is_a_time_out() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody listens on the one port; on the other somebody accepts and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for port in [1, silent.local_addr().unwrap().port()] {
        let conf = dir.path().join("ceph.conf");
        let keyring = dir.path().join("keyring");
        std::fs::write(&conf, format!("[global]\nmon host = v2:127.0.0.1:{port}\n")).unwrap();
        std::fs::write(&keyring, "[client.admin]\n\tkey = AQBOwPZlAAAAABAAHzq3vEFwUDmPNdoEgtQLSw==\n")
            .unwrap();
        let options = rbd::ConnectOptions {
            conf: Some(conf),
            keyring: Some(keyring),
            connect_timeout: Duration::from_secs(2),
            ..Default::default()
        };
        let start = Instant::now();
        let error = rbd::Cluster::connect(&options).unwrap_err();
        assert!(error.is_timed_out(), "{error}");
        assert!(error.to_string().contains("ceph -s"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

#[test]
fn operations_on_a_stopped_osd_time_out_and_work_again_afterwards() {
    let bed = Testbed::own_cluster_without_s3();
    let cluster = rbd::Cluster::connect(&impatient(&bed)).unwrap();
    let pool = cluster.pool(&rbd::PoolName::new("aldaas").unwrap()).unwrap();
    pool.ensure_namespace("golden").unwrap();
    let golden = pool.namespace("golden").unwrap();
    let (parent, fresh) = (name("parent"), name("fresh"));
    golden.create(&parent, 16 * MIB, &CreateOptions::default()).unwrap();
    let open = golden.open(&parent).unwrap();
    open.write(0, vec![1; 4096]).wait().unwrap();
    open.create_snapshot("sealed").unwrap();
    let id = open.id().unwrap();

    bed.freeze(Daemon::Osd);
    let (none, record) = (CloneOptions::default(), map(&[("k", "v")]));
    let child = name("child");
    // All at once: one after the other they would take a minute.
    std::thread::scope(|scope| {
        scope.spawn(|| times_out("write", || open.write(4096, vec![2; 4096]).wait()));
        scope.spawn(|| times_out("read", || open.read(0, 4096).wait()));
        scope.spawn(|| times_out("images", || golden.images()));
        scope.spawn(|| times_out("image_id", || golden.image_id(&parent)));
        scope.spawn(|| times_out("metadata", || golden.metadata(&id)));
        scope.spawn(|| times_out("set_metadata", || golden.set_metadata(&id, &record)));
        scope.spawn(|| times_out("lock", || golden.lock_exclusive("o", "l", "c", "", None, false)));
        scope.spawn(|| times_out("open", || golden.open(&parent)));
        scope.spawn(|| times_out("create", || golden.create(&fresh, MIB, &CreateOptions::default())));
        scope.spawn(|| times_out("clone", || golden.clone_image(&parent, "sealed", &golden, &child, &none)));
        scope.spawn(|| times_out("trash_move", || golden.trash_move(&parent, Duration::ZERO)));
        scope.spawn(|| times_out("trash", || golden.trash()));
        scope.spawn(|| times_out("remove", || golden.remove(&parent)));
    });
    let start = Instant::now();
    let closed = open.close();
    eprintln!("close: {:?}: {closed:?}", start.elapsed());
    assert!(start.elapsed() < LONG, "close took {:?}", start.elapsed());

    bed.thaw(Daemon::Osd);
    let deadline = Instant::now() + LONG;
    while let Err(error) = golden.images() {
        assert!(Instant::now() < deadline, "{error}");
    }
    let open = golden.open_read_only(&parent).unwrap();
    assert_eq!(open.read(0, 4096).wait().unwrap(), vec![1; 4096]);
}

#[test]
fn commands_to_a_stopped_monitor_time_out() {
    let bed = Testbed::own_cluster_without_s3();
    let cluster = rbd::Cluster::connect(&impatient(&bed)).unwrap();
    bed.freeze(Daemon::Mon);
    times_out("mon_command", || cluster.mon_command(&serde_json::json!({"prefix": "fsid"})));
    times_out("connect", || rbd::Cluster::connect(&impatient(&bed)));
    bed.thaw(Daemon::Mon);
    cluster.mon_command(&serde_json::json!({"prefix": "fsid"})).unwrap();
}

#[test]
fn without_time_outs_an_operation_waits_until_the_cluster_is_back() {
    let bed = Testbed::own_cluster_without_s3();
    let options = rbd::ConnectOptions { operation_timeout: Duration::ZERO, ..impatient(&bed) };
    let cluster = rbd::Cluster::connect(&options).unwrap();
    let pool = cluster.pool(&rbd::PoolName::new("aldaas").unwrap()).unwrap().namespace("").unwrap();
    pool.create(&name("a"), MIB, &CreateOptions::default()).unwrap();
    let open = pool.open(&name("a")).unwrap();
    bed.freeze(Daemon::Osd);
    let write = open.write(0, vec![1; 4096]);
    std::thread::sleep(Duration::from_secs(5));
    bed.thaw(Daemon::Osd);
    write.wait().unwrap();
    open.close().unwrap();
}
