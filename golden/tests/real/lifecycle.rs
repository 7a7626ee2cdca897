//! The life of golden images and clones, on a real Ceph.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aldaas_api::GoldenImageName;
use aldaas_golden::{CLONE, Error, GOLDEN, Gone, Leftover, SEALED, State};
use aldaas_rbd as rbd;
use jiff::Timestamp;

use crate::support::{SIZE, bed, generation, manifest, named, orders};

#[test]
fn an_image_is_latest_only_once_it_is_ready() {
    let bed = bed();
    let first = bed.build(1);
    assert_eq!(bed.latest(), Some(first.clone()));
    let second = bed.begin(2);
    assert_eq!(bed.latest(), Some(first.clone()));
    second.seal(&manifest()).unwrap();
    assert_eq!(bed.latest(), Some(first));
    second.ready().unwrap();
    let second = second.name().clone();
    assert_eq!(bed.latest(), Some(second.clone()));
    let image = bed.store.golden_image(&second).unwrap();
    assert_eq!(image.record.state, State::Ready);
    assert_eq!(image.record.manifest.unwrap().contents.rows, 2);
}

#[test]
fn an_image_that_was_not_sealed_never_becomes_ready() {
    let bed = bed();
    let candidate = bed.begin(1);
    assert!(matches!(candidate.ready(), Err(Error::WrongState { state: State::Candidate, .. })));
    assert_eq!(bed.latest(), None);
}

#[test]
fn an_image_that_is_still_open_somewhere_is_not_sealed() {
    let bed = bed();
    let candidate = bed.begin(1);
    let name = rbd::ImageName::new(candidate.name().to_string()).unwrap();
    let open = bed.namespace(GOLDEN).open(&name).unwrap();
    assert!(matches!(candidate.seal(&manifest()), Err(Error::InUse { .. })));
    drop(open);
    candidate.seal(&manifest()).unwrap();
}

#[test]
fn a_failed_image_keeps_its_reason_and_the_one_before_stays_latest() {
    let bed = bed();
    let good = bed.build(1);
    let bad = bed.begin(2);
    let name = bad.name().clone();
    bad.fail("restore: line 7: syntax error").unwrap();
    assert_eq!(bed.latest(), Some(good));
    let record = bed.store.golden_image(&name).unwrap().record;
    assert_eq!(
        (record.state, record.reason.as_deref()),
        (State::Failed, Some("restore: line 7: syntax error"))
    );
    bed.store.retire(&name, false).unwrap();
}

#[test]
fn a_discarded_build_leaves_nothing() {
    let bed = bed();
    bed.begin(1).discard().unwrap();
    let sealed = bed.begin(2);
    sealed.seal(&manifest()).unwrap();
    sealed.clone_for_verification().unwrap();
    sealed.discard().unwrap();
    assert!(bed.is_empty());
}

#[test]
fn one_database_has_one_builder_at_a_time() {
    let bed = bed();
    let first = bed.begin(1);
    match bed.store.begin(&generation(2), SIZE, "-").map(drop) {
        Err(Error::BuilderRunning { database, holder }) => {
            assert_eq!((database, holder.pid), (orders(), std::process::id()));
        }
        other => panic!("{other:?}"),
    }
    let other = GoldenImageName::new(&"other".parse().unwrap(), Timestamp::now());
    bed.store.begin(&other, SIZE, "-").unwrap().discard().unwrap();
    first.discard().unwrap();
    bed.begin(2).discard().unwrap();
}

#[test]
fn a_name_that_is_taken_is_refused_whoever_took_it() {
    let bed = bed();
    let image = bed.build(1);
    assert!(matches!(bed.store.begin(&image, SIZE, "-"), Err(Error::ImageExists(_))));
    bed.clone(&image, "pr-1");
    let golden = bed.store.golden_image(&image).unwrap();
    assert!(matches!(bed.store.clone_image(&golden, &named("pr-1")), Err(Error::CloneExists(_))));

    let foreign = rbd::ImageName::new("theirs").unwrap();
    bed.namespace(CLONE).create(&foreign, SIZE, &Default::default()).unwrap();
    assert!(matches!(bed.store.clone_image(&golden, &named("theirs")), Err(Error::Foreign(_))));
    assert!(matches!(bed.store.remove_clone(&"theirs".parse().unwrap()), Err(Error::Foreign(_))));
    let foreign = rbd::ImageName::new(generation(2).to_string()).unwrap();
    bed.namespace(GOLDEN).create(&foreign, SIZE, &Default::default()).unwrap();
    assert!(matches!(bed.store.begin(&generation(2), SIZE, "-"), Err(Error::Foreign(_))));
    assert!(matches!(bed.store.retire(&generation(2), true), Err(Error::Foreign(_))));
    assert_eq!(bed.latest(), Some(image));
}

#[test]
fn an_image_retired_under_its_clones_goes_with_the_last_of_them() {
    let bed = bed();
    let (old, new) = (bed.build(1), bed.build(2));
    let clones = [bed.clone(&old, "a"), bed.clone(&old, "b")];
    assert_eq!(bed.store.retire(&old, false).unwrap(), Gone::NotYet);
    assert_eq!(
        bed.store.leftovers().unwrap(),
        [],
        "a retired image with living clones is where it should be"
    );
    assert!(matches!(bed.store.golden_image(&old), Err(Error::NoImage(_))));
    let child = bed.namespace(CLONE).open(&rbd::ImageName::new("a").unwrap()).unwrap();
    child.create_snapshot("still-works").unwrap();
    child.remove_snapshot("still-works").unwrap();
    drop(child);
    bed.store.remove_clone(&clones[0]).unwrap();
    assert_eq!(bed.namespace(GOLDEN).trash().unwrap().len(), 1);
    bed.store.remove_clone(&clones[1]).unwrap();
    assert_eq!(bed.namespace(GOLDEN).trash().unwrap().len(), 0);
    assert_eq!(bed.latest(), Some(new));
}

#[test]
fn the_newest_ready_image_is_retired_only_by_force() {
    let bed = bed();
    let image = bed.build(1);
    assert!(matches!(bed.store.retire(&image, false), Err(Error::NewestReady(_))));
    assert_eq!(bed.latest(), Some(image.clone()));
    bed.store.retire(&image, true).unwrap();
    assert_eq!(bed.latest(), None);
    assert!(bed.is_empty());
}

#[test]
fn thirty_generations_in_a_row_each_with_a_living_clone() {
    let bed = bed();
    let mut clones = Vec::new();
    for n in 0..30 {
        let image = bed.build(n);
        clones.push(bed.clone(&image, &format!("c{n}")));
        assert_eq!(bed.latest(), Some(image));
        if n > 0 {
            bed.store.retire(&generation(n - 1), false).unwrap();
        }
    }
    assert_eq!(bed.store.golden_images().unwrap().len(), 1);
    assert_eq!(bed.store.clones().unwrap().len(), 30);
    for clone in &clones {
        let open =
            bed.namespace(CLONE).open_read_only(&rbd::ImageName::new(clone.as_str()).unwrap()).unwrap();
        assert_eq!(open.parent().unwrap().unwrap().namespace, GOLDEN);
    }
    for clone in &clones {
        bed.store.remove_clone(clone).unwrap();
    }
    bed.store.retire(&generation(29), true).unwrap();
    assert!(bed.is_empty());
}

#[test]
fn latest_is_always_one_ready_image_while_generations_change() {
    let bed = bed();
    bed.build(0);
    let done = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = Vec::new();
            while !done.load(Ordering::SeqCst) {
                let image = bed.store.latest(&orders()).unwrap();
                assert_eq!(image.record.state, State::Ready);
                assert!(image.record.manifest.is_some());
                seen.push(image.name);
            }
            seen
        });
        for n in 1..10 {
            bed.build(n);
            bed.store.retire(&generation(n - 1), false).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        watcher.join().unwrap()
    });
    assert!(seen.is_sorted(), "an older image came back");
}

#[test]
fn what_nobody_alive_answers_for_is_found_and_removed() {
    let bed = bed();
    let image = bed.build(1);
    let kept = bed.clone(&image, "kept");
    // A child without a record: its maker was killed in between.
    let (parent, child) =
        (rbd::ImageName::new(image.to_string()).unwrap(), rbd::ImageName::new("half").unwrap());
    bed.namespace(GOLDEN)
        .clone_image(&parent, SEALED, &bed.namespace(CLONE), &child, &Default::default())
        .unwrap();
    // A build whose builder let go of it.
    drop(bed.begin(2));
    // A blank one without a record.
    bed.namespace(GOLDEN)
        .create(&rbd::ImageName::new(generation(3).to_string()).unwrap(), SIZE, &Default::default())
        .unwrap();
    // Not ours.
    bed.namespace(CLONE).create(&rbd::ImageName::new("theirs").unwrap(), SIZE, &Default::default()).unwrap();
    // What an operator put into the trash, to think about it.
    bed.namespace(GOLDEN)
        .create(&rbd::ImageName::new("thought-about").unwrap(), SIZE, &Default::default())
        .unwrap();
    let thought_about = bed.namespace(GOLDEN).open(&rbd::ImageName::new("thought-about").unwrap()).unwrap();
    thought_about.write(0, vec![1; 4096]).wait().unwrap();
    drop(thought_about);
    bed.namespace(GOLDEN).trash_move(&rbd::ImageName::new("thought-about").unwrap(), Duration::ZERO).unwrap();
    // A removal that was cut short.
    bed.clone(&image, "gone");
    bed.namespace(CLONE).trash_move(&rbd::ImageName::new("gone").unwrap(), Duration::ZERO).unwrap();

    let found = bed.store.leftovers().unwrap();
    assert_eq!(
        found,
        [
            Leftover::UnfinishedBuild(generation(2)),
            Leftover::HalfMadeClone("half".parse().unwrap()),
            Leftover::BlankImage(generation(3)),
            Leftover::Trash(1),
        ]
    );
    for leftover in &found {
        bed.store.remove_leftover(leftover).unwrap();
    }
    assert_eq!(bed.store.leftovers().unwrap(), []);
    assert_eq!(bed.store.find_clone(&kept).unwrap().name, kept);
    assert_eq!(bed.namespace(CLONE).images().unwrap().len(), 2);
    assert_eq!(bed.namespace(GOLDEN).trash().unwrap().len(), 1, "what is not ours was purged");
    assert_eq!(bed.latest(), Some(image));
}

#[test]
fn what_an_operator_put_into_the_trash_is_never_purged() {
    let bed = bed();
    let ready = rbd::ImageName::new(bed.build(1).to_string()).unwrap();
    bed.namespace(GOLDEN).trash_move(&ready, Duration::ZERO).unwrap();
    let theirs = rbd::ImageName::new("theirs").unwrap();
    bed.namespace(CLONE).create(&theirs, SIZE, &Default::default()).unwrap();
    bed.namespace(CLONE).trash_move(&theirs, Duration::ZERO).unwrap();
    assert_eq!(bed.store.leftovers().unwrap(), []);
    assert_eq!(bed.store.purge().unwrap(), Default::default());
    let id = bed.namespace(GOLDEN).trash().unwrap()[0].id.clone();
    bed.namespace(GOLDEN).trash_restore(&id, &ready).unwrap();
    assert_eq!(bed.latest(), Some(generation(1)), "taken back, it is latest again");
    assert_eq!(bed.namespace(CLONE).trash().unwrap().len(), 1);
}

#[test]
fn what_stays_in_the_trash_is_not_said_to_be_removed() {
    let bed = bed();
    let image = bed.build(1);
    bed.clone(&image, "deferred");
    let deferred = rbd::ImageName::new("deferred").unwrap();
    bed.namespace(CLONE).trash_move(&deferred, Duration::from_secs(3600)).unwrap();
    let found = bed.store.leftovers().unwrap();
    assert_eq!(found, [Leftover::Trash(1)]);
    assert!(matches!(bed.store.remove_leftover(&found[0]), Err(Error::StaysInTrash(1))));
    assert_eq!(bed.namespace(CLONE).trash().unwrap().len(), 1);
}

#[test]
fn a_build_in_progress_is_not_left_over() {
    let bed = bed();
    let candidate = bed.begin(1);
    assert_eq!(bed.store.leftovers().unwrap(), []);
    drop(candidate);
    assert_eq!(bed.store.leftovers().unwrap().len(), 1);
}
