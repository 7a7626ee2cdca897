//! Leases of named clones: one user at a time, whoever dies.

use std::time::{Duration, Instant};

use aldaas_golden::{Alone, CLONE, CloneInfo, Error, Gone, Lease, Store, Terms, Turn};
use aldaas_rbd as rbd;

use crate::support::{Bed, bed, connect, for_pod, for_pod_by_name, pool_name, rbd_name};

/// Much longer than a test, and so short that a test may wait for its end.
const LONG: Terms = Terms { lease: Duration::from_secs(90), ttl: Duration::from_secs(600) };
const SHORT: Terms = Terms { lease: Duration::from_millis(1500), ttl: Duration::from_millis(1500) };

fn node(name: &str) -> Lease {
    Lease { node: name.into(), volume: format!("csi-{name}") }
}

fn named_clone(bed: &Bed) -> CloneInfo {
    let golden = bed.golden(&bed.build(1));
    bed.store.ensure_clone(&golden, &for_pod_by_name(1)).unwrap().clone
}

/// One question, without any history.
fn ask(store: &Store, clone: &CloneInfo, me: &Lease, terms: &Terms) -> Turn {
    store.take_turn(&clone.id, me, terms, &mut Alone::default()).unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn of_nodes_that_ask_at_once_one_is_told_that_it_is_its_turn() {
    let bed = bed();
    let clone = named_clone(&bed);
    let stores: Vec<_> = (0..4).map(|_| bed.other_store()).collect();
    for round in 0..8 {
        let free: Vec<Lease> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|n| {
                    let (store, clone) = (&stores[n % 4], &clone);
                    scope.spawn(move || {
                        let me = node(&format!("node-{n}"));
                        (ask(store, clone, &me, &LONG) == Turn::Free).then_some(me)
                    })
                })
                .collect();
            tries.into_iter().filter_map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(free.len(), 1, "round {round}: {free:?}");
        assert_eq!(bed.store.leases(&clone.id).unwrap(), free);
        match ask(&bed.store, &clone, &node("late"), &LONG) {
            Turn::Wait { by } => assert_eq!(by, free[0].to_string()),
            other => panic!("{other:?}"),
        }
        // Another plugin of the same node drops what an earlier one took.
        bed.store.drop_lease(&clone.id, &free[0], Some(Duration::from_secs(60))).unwrap();
        assert_eq!(bed.store.leases(&clone.id).unwrap(), []);
    }
}

#[test]
fn a_lease_is_renewed_taken_over_by_a_restarted_plugin_and_kept_from_others() {
    let bed = bed();
    let clone = named_clone(&bed);
    let (a, b) = (bed.other_store(), bed.other_store());
    a.take_lease(&clone.id, &node("a"), &LONG).unwrap();
    let before = bed.cluster.objecter_ops().unwrap();
    bed.store.leases(&clone.id).unwrap();
    assert_eq!(bed.cluster.objecter_ops().unwrap() - before, 1);
    a.take_lease(&clone.id, &node("a"), &LONG).unwrap();
    let refused = b.take_lease(&clone.id, &node("b"), &LONG);
    assert!(matches!(&refused, Err(Error::Leased(by)) if by.starts_with("a/")), "{refused:?}");
    // Another pod of the same node is another user.
    let second = Lease { volume: "another".into(), ..node("a") };
    assert!(matches!(a.take_lease(&clone.id, &second, &LONG), Err(Error::Leased(_))));
    // A restart: the same node and volume, another client. It may even be that both run for a while.
    let restarted = bed.other_store();
    restarted.take_lease(&clone.id, &node("a"), &LONG).unwrap();
    a.take_lease(&clone.id, &node("a"), &LONG).unwrap();
    restarted.take_lease(&clone.id, &node("a"), &LONG).unwrap();
    assert_eq!(b.leases(&clone.id).unwrap(), [node("a")]);

    restarted.drop_lease(&clone.id, &node("a"), None).unwrap();
    restarted.drop_lease(&clone.id, &node("a"), None).unwrap();
    assert_eq!(b.leases(&clone.id).unwrap(), []);
    assert_eq!(ask(&b, &clone, &node("b"), &LONG), Turn::Free);
}

#[test]
fn leases_end_by_the_clock_of_the_osd_and_then_the_clone_may_go() {
    let bed = bed();
    let clone = named_clone(&bed);
    let other = bed.other_store();
    let started = Instant::now();
    bed.store.take_lease(&clone.id, &node("a"), &SHORT).unwrap();
    assert!(matches!(other.trash_clone(&clone.name, Duration::ZERO), Err(Error::InUse { .. })));
    assert!(bed.store.is_kept(&clone.id).unwrap());
    until("the lease ends", || other.leases(&clone.id).unwrap().is_empty());
    assert!(started.elapsed() >= SHORT.lease, "too early: {:?}", started.elapsed());
    assert!(bed.store.is_kept(&clone.id).unwrap(), "nobody uses it, and it is still kept");
    match other.trash_clone(&clone.name, Duration::ZERO) {
        Err(Error::InUse { users, .. }) => assert!(users.starts_with("a/"), "{users}"),
        other => panic!("{other:?}"),
    }
    until("the TTL ends", || !bed.store.is_kept(&clone.id).unwrap());
    assert!(started.elapsed() >= SHORT.lease + SHORT.ttl, "too early: {:?}", started.elapsed());

    // The next user within the TTL finds it; the last one's unpublish keeps it from then on.
    assert_eq!(ask(&other, &clone, &node("b"), &SHORT), Turn::Free);
    let dropped = Instant::now();
    other.drop_lease(&clone.id, &node("b"), Some(Duration::from_millis(800))).unwrap();
    until("the TTL ends", || !bed.store.is_kept(&clone.id).unwrap());
    assert!(dropped.elapsed() >= Duration::from_millis(800));

    let trashed = bed.store.trash_clone(&clone.name, Duration::ZERO).unwrap().unwrap();
    // From here on there is nothing to take, and nothing that brings it back.
    let late = other.take_lease(&clone.id, &node("b"), &SHORT);
    assert!(matches!(late, Err(Error::Leased(_))), "{late:?}");
    assert_eq!(bed.store.purge_clone(&trashed).unwrap(), Gone::Yes);
    let late = other.take_lease(&clone.id, &node("b"), &SHORT);
    assert!(matches!(&late, Err(Error::Rbd(error)) if error.is_not_found()), "{late:?}");
    other.drop_lease(&clone.id, &node("b"), Some(Duration::from_secs(60))).unwrap();
    assert!(!bed.store.is_kept(&clone.id).unwrap() && bed.store.leases(&clone.id).unwrap().is_empty());
    assert!(!bed.objects(CLONE).contains("rbd_header"), "{}", bed.objects(CLONE));
}

#[test]
fn a_removal_that_finds_the_clone_open_gives_its_claim_back() {
    let bed = bed();
    let clone = named_clone(&bed);
    let theirs = connect().pool(&pool_name(&bed.pool)).unwrap().namespace(CLONE).unwrap();
    let open = theirs.open(&rbd_name(&clone.name)).unwrap();
    open.acquire_lock().unwrap();
    assert!(matches!(bed.store.trash_clone(&clone.name, Duration::ZERO), Err(Error::InUse { .. })));
    open.close().unwrap();
    assert_eq!(ask(&bed.store, &clone, &node("a"), &LONG), Turn::Free);
}

#[test]
fn a_dead_nodes_client_is_fenced_after_a_lease_and_its_other_clones_go_on() {
    let bed = bed();
    let clone = named_clone(&bed);
    let golden = bed.store.latest(&crate::support::orders()).unwrap();
    let neighbour = bed.store.ensure_clone(&golden, &for_pod(2)).unwrap().clone;
    // A node has each named clone open through a client of its own.
    let (alone, shared) = (connect(), connect());
    let open = |cluster: &rbd::Cluster, clone: &CloneInfo| {
        let namespace = cluster.pool(&pool_name(&bed.pool)).unwrap().namespace(CLONE).unwrap();
        let image = namespace.open(&rbd_name(&clone.name)).unwrap();
        image.acquire_lock().unwrap();
        image
    };
    let (lost, beside) = (open(&alone, &clone), open(&shared, &neighbour));
    bed.store.take_lease(&clone.id, &node("a"), &SHORT).unwrap();
    lost.write(0, vec![1; 4096]).wait().unwrap();

    let b = bed.other_store();
    let mut seen = Alone::default();
    let mut without_lease = None;
    let addresses = loop {
        let leased = !b.leases(&clone.id).unwrap().is_empty();
        match b.take_turn(&clone.id, &node("b"), &SHORT, &mut seen).unwrap() {
            Turn::Wait { .. } if leased => without_lease = None,
            Turn::Wait { .. } => drop(without_lease.get_or_insert_with(Instant::now)),
            Turn::Fence { addresses } => break addresses,
            Turn::Free => panic!("somebody has it open"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(without_lease.is_some_and(|since| since.elapsed() + Duration::from_millis(200) >= SHORT.lease));
    b.fence(&addresses).unwrap();
    until("it is the other node's turn", || ask(&b, &clone, &node("b"), &LONG) == Turn::Free);

    let mine = open(&bed.cluster, &clone);
    mine.write(0, vec![2; 4096]).wait().unwrap();
    let late = lost.write(0, vec![3; 4096]).wait().unwrap_err();
    assert!(late.is_blocklisted(), "{late}");
    assert_eq!(mine.read(0, 4096).wait().unwrap(), vec![2; 4096]);
    beside.write(0, vec![4; 4096]).wait().unwrap();
    beside.sync().unwrap();
    mine.close().unwrap();
    drop(lost);
    for address in &addresses {
        bed.cluster.blocklist_remove(address).unwrap();
    }
}
