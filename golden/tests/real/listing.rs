//! Listing clones.

use std::time::{Duration, Instant};

use aldaas_golden::{CLONE, GoldenImage, KnownClones, PodUse, Store};

use crate::support::{SIZE, bed, for_pod, for_pod_by_name, killed_at, named, pod_use, rbd_name};

#[test]
fn all_clones_are_listed_whoever_made_them_and_however_far_they_came() {
    let bed = bed();
    let golden = bed.golden(&bed.build(1));
    for n in 0..10 {
        bed.store.ensure_clone(&golden, &for_pod(n)).unwrap();
    }
    let kept = bed.store.ensure_clone(&golden, &for_pod_by_name(1)).unwrap().clone;
    bed.store.clone_image(&golden, &named("pr-1")).unwrap();
    killed_at("golden::after-clone", || bed.store.ensure_clone(&golden, &for_pod(99)).map(drop));
    bed.namespace(CLONE).create(&rbd_name(&"theirs"), SIZE, &Default::default()).unwrap();
    bed.namespace(CLONE).create(&rbd_name(&"_no clone's name"), SIZE, &Default::default()).unwrap();

    let known = KnownClones::default();
    let first = bed.store.list_clones(4, &known).unwrap();
    assert_eq!(first.len(), 14);
    assert!(first.is_sorted_by(|a, b| a.name < b.name));
    let unrecorded: Vec<_> = first.iter().filter(|clone| clone.record.is_none()).collect();
    assert_eq!(unrecorded.len(), 2);
    let half_made: Vec<_> =
        unrecorded.iter().filter(|clone| bed.store.is_half_made(&clone.name).unwrap()).collect();
    assert_eq!(half_made.iter().map(|clone| &clone.name).collect::<Vec<_>>(), [&for_pod(99).name]);
    for clone in first.iter().filter(|clone| clone.record.is_some()) {
        assert_eq!(clone.record, Some(bed.store.find_clone(&clone.name).unwrap().record));
    }

    // What never changes isn't read again; what does, is.
    let before = bed.cluster.objecter_ops().unwrap();
    assert_eq!(bed.store.list_clones(4, &known).unwrap(), first);
    let operations = bed.cluster.objecter_ops().unwrap() - before;
    assert!(operations <= 6, "{operations} operations, of which 10 records are none");
    let next = PodUse { node: "node-2".into(), ..pod_use(2) };
    bed.store.retake_clone(&kept.id, &next).unwrap();
    let trashed = bed.store.trash_clone(&for_pod(3).name, Duration::ZERO).unwrap().unwrap();
    let third = bed.store.list_clones(4, &known).unwrap();
    assert_eq!(third.len(), 13);
    assert!(third.iter().all(|clone| clone.id != trashed.id));
    let again = third.iter().find(|clone| clone.id == kept.id).unwrap();
    assert_eq!(again.record.as_ref().unwrap().pod, Some(next));
}

/// Makes clones until there are so many, several side by side.
fn fill(store: &Store, golden: &GoldenImage, from: u32, to: u32) {
    std::thread::scope(|scope| {
        for part in 0..8 {
            scope.spawn(move || {
                for n in (from..to).filter(|n| n % 8 == part) {
                    store.ensure_clone(golden, &for_pod(n)).unwrap();
                }
            });
        }
    });
}

/// By hand, on a cluster of one's own: it makes ten thousand clones, which takes minutes.
#[test]
#[ignore = "takes minutes: cargo nextest run -p aldaas-golden --run-ignored only --no-capture"]
fn ten_thousand_clones_are_listed_in_seconds() {
    let bed = bed();
    let golden = bed.golden(&bed.build(1));
    let mut took = Vec::new();
    for (from, to) in [(0, 1000), (1000, 10_000)] {
        let started = Instant::now();
        fill(&bed.store, &golden, from, to);
        println!("{} clones made in {:?}", to - from, started.elapsed());
        for threads in [1, 4, 8, 16, 32] {
            let known = KnownClones::default();
            let started = Instant::now();
            assert_eq!(bed.store.list_clones(threads, &known).unwrap().len(), to as usize);
            let cold = started.elapsed();
            let started = Instant::now();
            assert_eq!(bed.store.list_clones(threads, &known).unwrap().len(), to as usize);
            println!("{to} clones, {threads} threads: {cold:?}; again {:?}", started.elapsed());
            took.push((to, threads, cold));
        }
    }
    let of = |count| took.iter().find(|(to, threads, _)| *to == count && *threads == 8).unwrap().2;
    assert!(of(10_000) < of(1000) * 12 && of(10_000) < Duration::from_secs(15));
}
