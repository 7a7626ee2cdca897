//! Connections, pools, rados namespaces, the blocklist.

use std::time::Duration;

use aldaas_rbd as rbd;
use aldaas_testbed::Testbed;
use serde_json::json;

use crate::support::{Bed, MIB, connect, impatient, map, name, options};

#[test]
fn a_connection_tells_whom_it_reached_and_as_whom() {
    let cluster = connect(Testbed::get());
    assert_eq!(cluster.fsid().len(), 36);
    assert_eq!(cluster.user(), "admin");
    assert!(cluster.instance_id() > 0);
    assert!(cluster.addresses().unwrap()[0].starts_with("127.0.0.1:0/"), "{:?}", cluster.addresses());
    assert_eq!(cluster.config("rados_osd_op_timeout").unwrap().parse::<f64>().unwrap(), 30.0);
    assert!(rbd::librbd_version() >= (1, 16, 0));
    let answer = cluster.mon_command(&json!({"prefix": "fsid"})).unwrap();
    assert_eq!(String::from_utf8(answer).unwrap().trim(), cluster.fsid());
}

#[test]
fn wrong_connect_options_say_what_is_wrong() {
    let bed = Testbed::get();
    let missing = rbd::ConnectOptions { conf: Some("/nowhere/ceph.conf".into()), ..Default::default() };
    let error = rbd::Cluster::connect(&missing).unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("/nowhere/ceph.conf"), "{error}");

    let mut unknown = options(bed);
    unknown.overrides.push(("no_such_option".into(), "1".into()));
    let error = rbd::Cluster::connect(&unknown).unwrap_err();
    assert!(error.to_string().contains("no_such_option"), "{error}");

    let keyless = rbd::ConnectOptions { keyring: Some("/nowhere/keyring".into()), ..options(bed) };
    let error = rbd::Cluster::connect(&keyless).unwrap_err();
    assert!(error.to_string().contains("key"), "{error}");

    let stranger = rbd::ConnectOptions { user: "nobody-knows".into(), ..options(bed) };
    let error = rbd::Cluster::connect(&stranger).unwrap_err();
    assert!(error.to_string().contains("client.nobody-knows"), "{error}");

    let nul = rbd::ConnectOptions { user: "a\0b".into(), ..options(bed) };
    assert!(rbd::Cluster::connect(&nul).unwrap_err().is_invalid());
}

#[test]
fn a_wrong_key_is_a_permission_error_within_the_time_out() {
    let bed = Testbed::get();
    let dir = tempfile::tempdir().unwrap();
    let keyring = dir.path().join("keyring");
    std::fs::write(&keyring, "[client.admin]\n\tkey = AQBOwPZlAAAAABAAHzq3vEFwUDmPNdoEgtQLSw==\n").unwrap();
    let error =
        rbd::Cluster::connect(&rbd::ConnectOptions { keyring: Some(keyring), ..options(bed) }).unwrap_err();
    assert!(error.is_permission(), "{error}");
}

#[test]
fn a_monitor_command_that_fails_says_why() {
    let cluster = connect(Testbed::get());
    let error = cluster
        .mon_command(&json!({"prefix": "osd pool get", "pool": "nowhere", "var": "size"}))
        .unwrap_err();
    assert!(error.is_not_found() && error.to_string().contains("nowhere"), "{error}");
    assert!(cluster.mon_command(&json!({"prefix": "no such command"})).unwrap_err().is_invalid());
}

#[test]
fn a_pool_is_made_listed_initialised_and_deleted() {
    let cluster = connect(Testbed::get());
    let pool = rbd::PoolName::new(format!("made-{}", cluster.instance_id())).unwrap();
    assert!(cluster.pool(&pool).unwrap_err().is_not_found());
    cluster.create_pool(&pool, Some(1)).unwrap();
    assert!(cluster.create_pool(&pool, None).unwrap_err().is_exists());
    assert!(cluster.pools().unwrap().contains(&pool.to_string()));
    let open = cluster.pool(&pool).unwrap();
    open.ensure_initialised().unwrap();
    open.ensure_initialised().unwrap();
    assert_eq!(open.name(), &pool);
    drop(open);
    cluster.delete_pool(&pool).unwrap();
    assert!(!cluster.pools().unwrap().contains(&pool.to_string()));
    assert!(cluster.delete_pool(&pool).unwrap_err().is_not_found());
}

#[test]
fn rados_namespaces_are_made_once_listed_and_removed_when_empty() {
    let bed = Bed::new();
    assert_eq!(bed.pool.namespaces().unwrap(), ["clone", "golden"]);
    assert!(bed.pool.create_namespace("golden").unwrap_err().is_exists());
    assert!(bed.pool.create_namespace("a/b").unwrap_err().is_invalid());
    assert!(bed.pool.namespace_exists("golden").unwrap());
    assert!(!bed.pool.namespace_exists("elsewhere").unwrap());
    assert!(bed.pool.remove_namespace("elsewhere").unwrap_err().is_not_found());
    let image = bed.image("a", MIB);
    assert!(bed.pool.remove_namespace("golden").unwrap_err().is_busy());
    bed.golden.remove(&image).unwrap();
    bed.pool.remove_namespace("golden").unwrap();
    assert_eq!(bed.pool.namespaces().unwrap(), ["clone"]);
}

#[test]
fn namespaces_of_a_pool_do_not_see_each_others_images() {
    let bed = Bed::new();
    let image = bed.image("same", MIB);
    assert!(bed.clone.images().unwrap().is_empty());
    bed.clone.create(&image, 2 * MIB, &rbd::CreateOptions::default()).unwrap();
    assert_eq!(bed.golden.open_read_only(&image).unwrap().size().unwrap(), MIB);
    assert_eq!(bed.clone.open_read_only(&image).unwrap().size().unwrap(), 2 * MIB);
    let default = bed.pool.namespace("").unwrap();
    assert!(default.images().unwrap().is_empty());
    assert_eq!(default.to_string(), bed.test_pool.name());
    assert_eq!(bed.golden.to_string(), format!("{}/golden", bed.test_pool.name()));
}

#[test]
fn a_pool_tells_how_full_it_is() {
    let bed = Bed::new();
    // The figures come from the manager and lag behind.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        match bed.pool.stats() {
            Ok(stats) if stats.max_avail > MIB => break,
            other => assert!(std::time::Instant::now() < deadline, "{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_blocklisted_client_is_cut_off_until_it_is_let_in_again() {
    let bed = Bed::new();
    let (victim, golden) = bed.other_client("golden");
    golden.write_object("o", b"before").unwrap();
    let address = &victim.addresses().unwrap()[0];
    bed.cluster.blocklist_add(address, Duration::from_secs(60)).unwrap();
    assert!(bed.cluster.blocklist().unwrap().iter().any(|entry| entry == address), "{address}");
    // With this request the OSD hears of it.
    bed.golden.read_object("o").unwrap();
    let error = golden.write_object("o", b"after").unwrap_err();
    assert!(error.is_blocklisted(), "{error}");
    assert_eq!(bed.golden.read_object("o").unwrap(), b"before");
    bed.cluster.blocklist_remove(address).unwrap();
    bed.cluster.blocklist_remove(address).unwrap();
    assert!(!bed.cluster.blocklist().unwrap().iter().any(|entry| entry == address));
}

#[test]
fn objects_are_written_read_and_removed_whole() {
    let bed = Bed::new();
    assert!(bed.golden.read_object("o").unwrap_err().is_not_found());
    assert!(bed.golden.remove_object("o").unwrap_err().is_not_found());
    bed.golden.write_object("o", b"a longer first text").unwrap();
    bed.golden.write_object("o", b"short").unwrap();
    assert_eq!(bed.golden.read_object("o").unwrap(), b"short");
    let large = vec![7u8; 300 << 10];
    bed.golden.write_object("o", &large).unwrap();
    assert_eq!(bed.golden.read_object("o").unwrap(), large);
    assert!(bed.clone.read_object("o").unwrap_err().is_not_found(), "rados namespaces are apart");
    bed.golden.remove_object("o").unwrap();
    bed.golden.write_object("empty", b"").unwrap();
    assert!(bed.golden.read_object("empty").unwrap().is_empty());
}

#[test]
fn handles_may_be_dropped_in_any_order() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let open = {
        let (cluster, golden) = bed.other_client("golden");
        let open = golden.open(&image).unwrap();
        drop(cluster);
        drop(golden);
        open
    };
    // The image alone keeps the connection.
    open.write(0, vec![1; 512]).wait().unwrap();
    assert_eq!(open.read(0, 512).wait().unwrap(), vec![1; 512]);
    open.close().unwrap();
    assert!(bed.golden.open_read_only(&name("a")).unwrap().watchers().unwrap().is_empty());
}

#[test]
fn the_operations_of_one_call_can_be_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut counted = options(Testbed::get());
    let socket = dir.path().join("$pid.$cctid.asok").display().to_string();
    counted.overrides.push(("admin_socket".into(), socket));
    let bed = Bed::new();
    let cluster = rbd::Cluster::connect(&counted).unwrap();
    let golden = cluster.pool(bed.pool.name()).unwrap().namespace("golden").unwrap();
    let before = cluster.objecter_ops().unwrap();
    golden.write_object("o", b"x").unwrap();
    golden.read_object("o").unwrap();
    assert_eq!(cluster.objecter_ops().unwrap() - before, 2);

    counted.overrides.push(("admin_socket".into(), String::new()));
    let silent = rbd::Cluster::connect(&counted).unwrap();
    assert!(silent.objecter_ops().unwrap_err().to_string().contains("admin_socket"));
}

#[test]
fn a_nodes_key_clones_golden_images_but_never_changes_them() {
    let bed = Bed::new();
    let parent = bed.sealed("parent", 8 * MIB);
    let id = bed.golden.image_id(&parent).unwrap();
    bed.golden.set_metadata(&id, &map(&[("state", "ready")])).unwrap();
    let (user, pool) = (format!("node-{}", bed.cluster.instance_id()), bed.test_pool.name());
    let osd = format!(
        "profile rbd-read-only pool={pool} namespace=golden, profile rbd pool={pool} namespace=clone"
    );
    let caps = ["mon", "profile rbd", "osd", &osd, "mgr", &format!("profile rbd pool={pool}")];
    let entity = format!("client.{user}");
    let command = json!({"prefix": "auth get-or-create", "entity": entity, "caps": caps});
    let dir = tempfile::tempdir().unwrap();
    let keyring = dir.path().join("keyring");
    std::fs::write(&keyring, bed.cluster.mon_command(&command).unwrap()).unwrap();

    let options = rbd::ConnectOptions { user, keyring: Some(keyring), ..options(Testbed::get()) };
    let node = rbd::Cluster::connect(&options).unwrap();
    let pool = node.pool(bed.pool.name()).unwrap();
    let (golden, clone) = (pool.namespace("golden").unwrap(), pool.namespace("clone").unwrap());
    assert_eq!(golden.metadata(&golden.image_id(&parent).unwrap()).unwrap()["state"], "ready");
    assert!(golden.watchers(&id).unwrap().is_empty());
    golden.clone_image(&parent, "sealed", &clone, &name("child"), &rbd::CloneOptions::default()).unwrap();
    let child = clone.image_id(&name("child")).unwrap();
    clone.set_metadata(&child, &map(&[("node", "n1")])).unwrap();
    let open = clone.open(&name("child")).unwrap();
    open.write(0, b"mine".to_vec()).wait().unwrap();
    open.close().unwrap();
    clone.trash_move(&name("child"), Duration::ZERO).unwrap();
    clone.trash_remove(&child, false).unwrap();

    let denied = golden.set_metadata(&id, &map(&[("state", "failed")])).unwrap_err();
    assert!(denied.is_permission() && denied.to_string().contains("caps"), "{denied}");
    assert!(golden.create(&name("x"), MIB, &rbd::CreateOptions::default()).unwrap_err().is_permission());
    assert!(golden.trash_move(&parent, Duration::ZERO).unwrap_err().is_permission());
    assert!(golden.write_object("o", b"x").unwrap_err().is_permission());
    drop((golden, clone, pool, node));
    bed.cluster.mon_command(&json!({"prefix": "auth del", "entity": entity})).unwrap();
}

/// Writes until the pool's quota, which takes hold with a delay, is felt.
fn write_until_refused(open: &rbd::Image) -> rbd::Error {
    // Each write to new space: overwriting is always allowed.
    for n in 0..600 {
        if let Err(error) = open.write(n * MIB, vec![1; 4096]).wait() {
            return error;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the quota never took hold");
}

#[test]
fn a_full_pool_is_an_error_at_once_for_whoever_asked_for_that_and_a_time_out_for_others() {
    let bed = Bed::new();
    let (waiting, failing) = (bed.image("waiting", 600 * MIB), bed.image("failing", 600 * MIB));
    let cluster = rbd::Cluster::connect(&impatient(Testbed::get())).unwrap();
    let golden = cluster.pool(bed.pool.name()).unwrap().namespace("golden").unwrap();
    let quota = |bytes: &str| {
        let pool = bed.test_pool.name();
        let command =
            json!({"prefix": "osd pool set-quota", "pool": pool, "field": "max_bytes", "val": bytes});
        bed.cluster.mon_command(&command).unwrap();
    };
    let patient = golden.open(&waiting).unwrap();
    let strict = golden.fail_when_full().unwrap();
    let strict_image = strict.open(&failing).unwrap();
    quota("4096");
    let error = write_until_refused(&strict_image);
    assert!(error.is_no_space() && error.to_string().contains("quota"), "{error}");
    let error = strict.write_object("o", &[1; 4096]).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(write_until_refused(&patient).is_timed_out());
    quota("0");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while patient.write(0, vec![1; 4096]).wait().is_err() {
        assert!(std::time::Instant::now() < deadline, "the quota never went");
    }
    strict_image.write(0, vec![1; 4096]).wait().unwrap();
}
