//! Clones of pods: found or made, removed in two steps, whatever was killed in between.

use std::time::{Duration, Instant};

use aldaas_golden::record::{CLONED_AT, PURPOSE};
use aldaas_golden::{CLONE, CloneRequest, Error, GOLDEN, Gone, Leftover, Purpose, SEALED, State};
use aldaas_testbed::Testbed;

use crate::support::{
    Bed, SIZE, bed, for_pod, for_pod_by_name, killed_at, manifest, named, pod_clone, pod_use, rbd_name,
};

fn remove(bed: &Bed, request: &CloneRequest) {
    let trashed = bed.store.trash_clone(&request.name, Duration::ZERO).unwrap().unwrap();
    assert_eq!(bed.store.purge_clone(&trashed).unwrap(), Gone::Yes);
}

#[test]
fn a_pods_clone_is_made_once_and_found_again() {
    let bed = bed();
    let (old, new) = (bed.build(1), bed.build(2));
    let (old, new) = (bed.golden(&old), bed.golden(&new));
    let made = bed.store.ensure_clone(&old, &for_pod(1)).unwrap();
    let found = bed.store.ensure_clone(&old, &for_pod(1)).unwrap();
    assert!(made.made && !found.made);
    assert_eq!((found.clone.id, &found.clone.record), (made.clone.id, &made.clone.record));
    assert_eq!(found.clone.record.pod, Some(pod_use(1)));
    assert_eq!(found.clone.record.purpose, Purpose::Pod);
    assert_eq!(found.clone.record.golden_image, old.name);

    match bed.store.ensure_clone(&new, &for_pod(1)) {
        Err(Error::OtherParent { of, wanted, .. }) => assert_eq!((of, wanted), (old.name.clone(), new.name)),
        other => panic!("{other:?}"),
    }
    // The image it is of is retired meanwhile: what is there is used, and nothing new is made of it.
    bed.store.retire(&old.name, true).unwrap();
    assert!(!bed.store.ensure_clone(&old, &for_pod(1)).unwrap().made);
    assert!(matches!(bed.store.ensure_clone(&old, &for_pod(2)), Err(Error::NoImage(_))));
    remove(&bed, &for_pod(1));
    assert!(
        bed.namespace(GOLDEN).trash().unwrap().is_empty(),
        "the last clone takes its retired image along"
    );
    assert!(bed.store.clones().unwrap().is_empty());
}

#[test]
fn only_a_candidate_clone_is_made_of_an_image_that_was_not_verified() {
    let bed = bed();
    let candidate = bed.begin(1);
    candidate.seal(&manifest()).unwrap();
    let sealed = bed.golden(candidate.name());
    match bed.store.ensure_clone(&sealed, &for_pod(1)) {
        Err(Error::WrongState { state: State::Sealed, wanted: "ready", .. }) => {}
        other => panic!("{other:?}"),
    }
    let request = CloneRequest { unverified: true, ..for_pod(1) };
    assert!(bed.store.ensure_clone(&sealed, &request).unwrap().made);
    remove(&bed, &request);
    candidate.discard().unwrap();
    assert!(bed.is_empty());
}

#[test]
fn a_publish_that_was_killed_anywhere_is_repaired_by_its_retry() {
    let bed = bed();
    let image = bed.golden(&bed.build(1));
    let child = rbd_name(&for_pod(1).name);
    let retried = |what: &str, made: bool| {
        assert_eq!(bed.store.leftovers().unwrap(), [], "{what}: it is not for others to judge");
        assert_eq!(bed.store.is_half_made(&for_pod(1).name).unwrap(), made, "{what}");
        let ensured = bed.store.ensure_clone(&image, &for_pod(1)).unwrap();
        assert_eq!((ensured.made, ensured.clone.record.pod), (made, Some(pod_use(1))), "{what}");
        assert!(!bed.store.is_half_made(&for_pod(1).name).unwrap(), "{what}");
        remove(&bed, &for_pod(1));
        assert!(bed.namespace(CLONE).images().unwrap().is_empty(), "{what}");
        assert!(bed.namespace(CLONE).trash().unwrap().is_empty(), "{what}");
    };
    let publish = || bed.store.ensure_clone(&image, &for_pod(1)).map(drop);
    killed_at("golden::after-clone", publish);
    retried("between clone and record", true);
    killed_at("golden::after-clone-record", publish);
    retried("after the record", false);

    // Killed within librbd's own call, in two places.
    bed.namespace(CLONE).create(&child, SIZE, &Default::default()).unwrap();
    retried("before it had a parent", true);
    bed.namespace(CLONE).create(&child, SIZE, &Default::default()).unwrap();
    let header = format!("rbd_header.{}", bed.namespace(CLONE).image_id(&child).unwrap());
    bed.namespace(CLONE).remove_object(&header).unwrap();
    retried("before it had a header", true);

    // And killed again in the repair.
    killed_at("golden::after-clone", publish);
    killed_at("golden::after-condemn", publish);
    assert!(bed.store.is_half_made(&for_pod(1).name).unwrap());
    killed_at("golden::after-half-made-trash", publish);
    assert_eq!(bed.store.trashed().unwrap().len(), 1);
    assert!(bed.store.ensure_clone(&image, &for_pod(1)).unwrap().made);
    remove(&bed, &for_pod(1));
    assert_eq!(bed.store.purge().unwrap().removed, 1);
    assert_eq!(bed.objects(CLONE).matches("rbd_header").count(), 0);
}

#[test]
fn a_removal_that_was_killed_anywhere_goes_on_where_it_was() {
    let bed = bed();
    let image = bed.build(1);
    let golden = bed.golden(&image);
    let name = for_pod(1).name;
    let trash = || bed.store.trash_clone(&name, Duration::ZERO);
    assert_eq!(trash().unwrap(), None, "what was never there");

    bed.store.ensure_clone(&golden, &for_pod(1)).unwrap();
    bed.store.retire(&image, true).unwrap();
    killed_at("golden::after-trash", trash);
    assert_eq!(trash().unwrap(), None, "it is in the trash already");
    let trashed = bed.store.trashed().unwrap().remove(0);
    assert_eq!((&trashed.name, trashed.golden_image.as_ref()), (&name, Some(&image)));
    killed_at("golden::after-purge", || bed.store.purge_clone(&trashed));
    assert_eq!(bed.store.trashed().unwrap(), []);
    assert_eq!(bed.store.purge_clone(&trashed).unwrap(), Gone::Yes, "again, and the golden image too");
    assert!(bed.is_empty());

    // What was half made goes the same way.
    let golden = bed.golden(&bed.build(2));
    killed_at("golden::after-clone", || bed.store.ensure_clone(&golden, &for_pod(1)).map(drop));
    let trashed = trash().unwrap().unwrap();
    assert_eq!(trashed.golden_image, None);
    assert_eq!(bed.store.trashed().unwrap(), std::slice::from_ref(&trashed));
    assert_eq!(bed.store.purge_clone(&trashed).unwrap(), Gone::Yes);
    assert!(bed.namespace(CLONE).trash().unwrap().is_empty());
}

#[test]
fn a_clone_that_somebody_has_open_is_waited_for_and_kept() {
    let bed = bed();
    let golden = bed.golden(&bed.build(1));
    let clone = bed.store.ensure_clone(&golden, &for_pod(1)).unwrap().clone;
    let open = bed.namespace(CLONE).open(&rbd_name(&clone.name)).unwrap();
    assert_eq!(bed.store.clone_watchers(&clone.id).unwrap().len(), 1);
    let refused = bed.store.trash_clone(&clone.name, Duration::from_millis(300));
    assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
    assert!(!bed.store.ensure_clone(&golden, &for_pod(1)).unwrap().made);
    std::thread::scope(|scope| {
        let removal = scope.spawn(|| bed.store.trash_clone(&clone.name, Duration::from_secs(30)).unwrap());
        std::thread::sleep(Duration::from_millis(300));
        open.close().unwrap();
        let trashed = removal.join().unwrap().unwrap();
        assert_eq!(bed.store.purge_clone(&trashed).unwrap(), Gone::Yes);
    });
    assert!(bed.store.clone_watchers(&clone.id).unwrap().is_empty(), "nobody watches what is gone");
}

#[test]
fn who_is_about_to_close_a_clone_is_not_waited_for_and_anybody_else_is() {
    let bed = bed();
    let golden = bed.golden(&bed.build(1));
    let clone = bed.store.ensure_clone(&golden, &for_pod(1)).unwrap().clone;
    let open = bed.namespace(CLONE).open(&rbd_name(&clone.name)).unwrap();
    open.acquire_lock().unwrap();
    let trash = |closing: &[String]| bed.store.trash_clone_let_go(&clone.name, closing, Duration::ZERO);
    let refused = trash(&["192.0.2.1:0/1".to_owned()]);
    assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
    let address = bed.store.clone_watchers(&clone.id).unwrap().remove(0).address;
    let trashed = trash(&[address]).unwrap().unwrap();
    assert_eq!(trashed.golden_image.as_ref(), Some(&golden.name));
    assert!(bed.store.clones().unwrap().is_empty(), "it is gone for everybody");
    assert_eq!(bed.store.purge_clone(&trashed).unwrap(), Gone::NotYet);
    open.close().unwrap();
    assert_eq!(bed.store.purge_clone(&trashed).unwrap(), Gone::Yes);
}

#[test]
fn a_move_to_the_trash_that_was_cut_short_is_finished_by_whoever_meets_it() {
    let bed = bed();
    let golden = bed.golden(&bed.build(1));
    let name = for_pod(1).name;
    let (clones, id_object) = (bed.namespace(CLONE), format!("rbd_id.{name}"));
    let cut_short = || {
        let clone = bed.store.ensure_clone(&golden, &for_pod(1)).unwrap().clone;
        let named = clones.read_object(&id_object).unwrap();
        let trashed = bed.store.trash_clone(&name, Duration::ZERO).unwrap().unwrap();
        clones.write_object(&id_object, &named).unwrap();
        (clone, trashed)
    };
    let gone = |trashed| {
        assert_eq!(bed.store.purge_clone(trashed).unwrap(), Gone::Yes);
        assert!(clones.read_object(&id_object).unwrap_err().is_not_found(), "the name went too");
        assert!(clones.trash().unwrap().is_empty());
    };
    // The next removal.
    let (_, trashed) = cut_short();
    assert_eq!(bed.store.trash_clone(&name, Duration::ZERO).unwrap().as_ref(), Some(&trashed));
    gone(&trashed);
    // The pod's next publish: it gets a clone that stays.
    let (old, trashed) = cut_short();
    assert!(matches!(bed.store.find_kept_clone(&name), Err(Error::NoClone(_))));
    let made = bed.store.ensure_clone(&golden, &for_pod(1)).unwrap();
    assert!(made.made && made.clone.id != old.id);
    assert_eq!(bed.store.find_kept_clone(&name).unwrap().id, made.clone.id);
    assert_eq!(bed.store.purge_clone(&trashed).unwrap(), Gone::Yes);
    remove(&bed, &for_pod(1));
    let (_, trashed) = cut_short();
    assert!(bed.store.ensure_clone(&golden, &for_pod(1)).unwrap().made);
    assert_eq!(bed.store.purge_clone(&trashed).unwrap(), Gone::Yes);
    // One of librbd's own: the name leads nowhere, and the directory still has it.
    let old = bed.store.ensure_clone(&golden, &for_pod(1)).unwrap().clone;
    clones.trash_move_at_once(&rbd_name(&"another"), &old.id).unwrap();
    clones.remove_object(&id_object).unwrap();
    assert!(bed.store.ensure_clone(&golden, &for_pod(1)).unwrap().made);
    bed.store.purge().unwrap();
    remove(&bed, &for_pod(1));
    assert!(clones.trash().unwrap().is_empty() && bed.store.clones().unwrap().is_empty());
}

#[test]
fn a_maker_that_was_only_slow_makes_its_clone_anew_or_keeps_it() {
    let bed = bed();
    let golden = bed.golden(&bed.build(1));
    let name = for_pod(1).name;
    // Between clone and record, the maker is so slow that another takes it for dead.
    let store = bed.other_store();
    fail::cfg_callback("golden::after-clone", move || {
        fail::remove("golden::after-clone");
        assert!(store.is_half_made(&name).unwrap());
        let trashed = store.trash_half_made(&name).unwrap().unwrap();
        assert_eq!(store.purge_clone(&trashed).unwrap(), Gone::Yes);
    })
    .unwrap();
    let ensured = bed.store.ensure_clone(&golden, &for_pod(1)).unwrap();
    assert!(ensured.made);
    let (name, id) = (for_pod(1).name, ensured.clone.id);
    assert_eq!(bed.store.find_clone(&name).unwrap().id, id);
    // The other way round, the record was there first.
    assert_eq!(bed.store.trash_half_made(&name).unwrap(), None);
    assert_eq!(bed.store.find_clone(&name).unwrap().id, id);
    // In the trash and not purged yet, the record is refused as well.
    let store = bed.other_store();
    fail::cfg_callback("golden::after-clone", move || {
        fail::remove("golden::after-clone");
        store.trash_half_made(&for_pod(2).name).unwrap().unwrap();
    })
    .unwrap();
    assert!(bed.store.ensure_clone(&golden, &for_pod(2)).unwrap().made);
    assert_eq!(bed.store.find_clone(&for_pod(2).name).unwrap().record.pod, Some(pod_use(2)));
    assert_eq!(bed.store.purge().unwrap().removed, 1);
    assert_eq!(bed.store.clones().unwrap().len(), 2);
}

#[test]
fn what_is_not_ours_under_a_pods_name_is_left_alone() {
    let bed = bed();
    let golden = bed.golden(&bed.build(1));
    let theirs = rbd_name(&for_pod(1).name);
    bed.namespace(CLONE).create(&theirs, SIZE, &Default::default()).unwrap();
    bed.namespace(CLONE).open(&theirs).unwrap().write(0, vec![1; 4096]).wait().unwrap();
    assert!(matches!(bed.store.ensure_clone(&golden, &for_pod(1)), Err(Error::Foreign(_))));
    assert!(matches!(bed.store.trash_clone(&for_pod(1).name, Duration::ZERO), Err(Error::Foreign(_))));
    assert!(!bed.store.is_half_made(&for_pod(1).name).unwrap());

    // Nor does anybody else take a pod's name, or what a pod has.
    for kind in ["csi", "named"] {
        let request = CloneRequest { name: pod_clone(kind, 7), ..named("x") };
        assert!(matches!(bed.store.clone_image(&golden, &request), Err(Error::ReservedName(_))));
    }
    // Data without a record, and a record in another version's words.
    let parent = rbd_name(&golden.name);
    let written = rbd_name(&for_pod(2).name);
    let (images, clones) = (bed.namespace(GOLDEN), bed.namespace(CLONE));
    images.clone_image(&parent, SEALED, &clones, &written, &Default::default()).unwrap();
    clones.open(&written).unwrap().write(0, vec![1; 4096]).wait().unwrap();
    assert!(matches!(bed.store.ensure_clone(&golden, &for_pod(2)), Err(Error::Foreign(_))));
    assert!(!bed.store.is_half_made(&for_pod(2).name).unwrap());

    let clone = bed.store.ensure_clone(&golden, &for_pod(3)).unwrap().clone;
    let odd = [(PURPOSE, "branch"), (CLONED_AT, "yesterday"), ("aldaas.dev/ttl", "a while")];
    let odd = odd.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    clones.set_metadata(&clone.id, &odd).unwrap();
    let found = bed.store.find_clone(&clone.name).unwrap().record;
    assert_eq!((found.purpose, found.pod.unwrap().pod_uid.as_str()), (Purpose::Other, "uid-3"));
    assert!(!bed.store.ensure_clone(&golden, &for_pod(3)).unwrap().made);
    assert_eq!(bed.store.leftovers().unwrap(), []);
}

#[test]
fn a_clone_wanted_by_many_nodes_at_once_is_made_by_one_and_found_by_the_rest() {
    let bed = bed();
    let golden = bed.golden(&bed.build(1));
    let stores: Vec<_> = (0..3).map(|_| bed.other_store()).collect();
    let started = Instant::now();
    let ensured: Vec<_> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..9)
            .map(|n| {
                let (store, golden) = (&stores[n % 3], &golden);
                scope.spawn(move || store.ensure_clone(golden, &for_pod_by_name(1)).unwrap())
            })
            .collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(ensured.iter().filter(|one| one.made).count(), 1, "in {:?}", started.elapsed());
    assert!(ensured.iter().all(|one| one.clone.id == ensured[0].clone.id));

    // The next user leaves nothing of the one before.
    let id = &ensured[0].clone.id;
    let next = aldaas_golden::PodUse { ttl: None, ..pod_use(9) };
    bed.store.retake_clone(id, &next).unwrap();
    let record = bed.store.find_clone(&for_pod_by_name(1).name).unwrap().record;
    assert_eq!((record.pod, record.purpose), (Some(next), Purpose::PodNamed));
}

#[test]
fn a_clone_of_a_pod_is_no_leftover_and_one_of_a_dead_process_is() {
    let bed = bed();
    let golden = bed.golden(&bed.build(1));
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let dead = aldaas_golden::Holder::of_process(child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    bed.store.clone_image(&golden, &CloneRequest { holder: dead.clone(), ..named("ended") }).unwrap();
    bed.store.ensure_clone(&golden, &CloneRequest { holder: dead, ..for_pod(1) }).unwrap();
    bed.store.ensure_clone(&golden, &for_pod_by_name(2)).unwrap();
    assert_eq!(bed.store.leftovers().unwrap(), [Leftover::EndedClone("ended".parse().unwrap())]);
}

#[test]
fn how_full_a_pool_is_counts_its_quota() {
    let bed = bed();
    let started = Instant::now();
    // The monitors know nothing of a new pool before its first report.
    let usage = loop {
        match bed.store.pool_usage() {
            Ok(usage) => break usage,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!((0.0..0.9).contains(&usage.full_ratio()) && usage.max_avail > 1, "{usage:?}");
    Testbed::get().ceph(["osd", "pool", "set-quota", bed.pool.name(), "max_bytes", "1"]);
    let usage = bed.store.pool_usage().unwrap();
    assert!(usage.max_avail <= 1, "{usage:?}");
}

#[test]
fn in_a_full_pool_a_clone_is_refused_at_once_and_removing_works() {
    let bed = bed();
    let golden = bed.golden(&bed.build(1));
    for n in [1, 2] {
        bed.store.ensure_clone(&golden, &for_pod(n)).unwrap();
    }
    let quota = |objects: &str| {
        Testbed::get().ceph(["osd", "pool", "set-quota", bed.pool.name(), "max_objects", objects])
    };
    quota("1");
    // The monitors learn from the manager how much there is, some seconds later.
    let started = Instant::now();
    let (refused, took) = loop {
        let asked = Instant::now();
        match bed.store.ensure_clone(&golden, &for_pod(3)) {
            Ok(ensured) => assert!(ensured.made),
            Err(error) => break (error, asked.elapsed()),
        }
        remove(&bed, &for_pod(3));
        assert!(started.elapsed() < Duration::from_secs(60), "the pool never got full");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(matches!(&refused, Error::Rbd(error) if error.is_no_space()), "{refused:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    // What was there goes on being found, and can go; and nothing of the refused one stays.
    assert!(!bed.store.ensure_clone(&golden, &for_pod(1)).unwrap().made);
    for n in [1, 2] {
        remove(&bed, &for_pod(n));
    }
    assert!(bed.namespace(CLONE).images().unwrap().is_empty());
    bed.store.retire(&golden.name, true).unwrap();
    assert!(bed.is_empty());
    quota("0");
}

#[test]
fn any_number_may_purge_at_once_and_none_of_them_dies_of_it() {
    let bed = bed();
    let golden = bed.golden(&bed.build(1));
    for n in 1..=8 {
        let clone = bed.store.ensure_clone(&golden, &for_pod(n)).unwrap().clone;
        bed.namespace(CLONE).open(&rbd_name(&clone.name)).unwrap().write(0, vec![1; 4096]).wait().unwrap();
    }
    let trashed: Vec<_> =
        (1..=8).map(|n| bed.store.trash_clone(&for_pod(n).name, Duration::ZERO).unwrap().unwrap()).collect();
    // With the last clone goes what it was of, which all of them see at the same time.
    bed.store.retire(&golden.name, true).unwrap();
    std::thread::scope(|scope| {
        for store in [bed.store.clone(), bed.store.clone(), bed.other_store(), bed.other_store()] {
            let trashed = &trashed;
            scope.spawn(move || {
                for one in trashed {
                    store.purge_clone(one).unwrap();
                }
            });
            scope.spawn(|| bed.store.purge().unwrap());
        }
    });
    bed.store.purge().unwrap();
    assert_eq!(bed.store.trashed().unwrap(), []);
    assert!(bed.is_empty(), "{} {}", bed.objects(GOLDEN), bed.objects(CLONE));
}
