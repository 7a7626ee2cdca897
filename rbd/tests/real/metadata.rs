//! Image metadata, with and without opening the image.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aldaas_testbed::Testbed;

use crate::support::{Bed, MIB, map};

#[test]
fn metadata_written_without_opening_reads_the_same_everywhere() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    assert!(bed.golden.metadata(&id).unwrap().is_empty());
    let record =
        map(&[("aldaas.dev/state", "ready"), ("aldaas.dev/source", "s3://b/ü€.sql.gz"), ("empty", "")]);
    bed.golden.set_metadata(&id, &record).unwrap();
    bed.golden.set_metadata(&id, &map(&[("another", "1")])).unwrap();
    let mut all = record.clone();
    all.insert("another".into(), "1".into());
    assert_eq!(bed.golden.metadata(&id).unwrap(), all);

    let open = bed.golden.open(&image).unwrap();
    assert_eq!(open.metadata_list().unwrap(), all);
    assert_eq!(open.metadata_get("aldaas.dev/state").unwrap(), "ready");
    let path = format!("{}/golden/a", bed.test_pool.name());
    let seen = Testbed::get().rbd(["image-meta", "get", &path, "aldaas.dev/source"]);
    assert_eq!(seen.trim(), "s3://b/ü€.sql.gz");

    open.metadata_set("by-handle", "x").unwrap();
    assert_eq!(bed.golden.metadata(&id).unwrap()["by-handle"], "x");
    bed.golden.remove_metadata(&id, "by-handle").unwrap();
    bed.golden.remove_metadata(&id, "by-handle").unwrap();
    assert!(open.metadata_get("by-handle").unwrap_err().is_not_found());
    assert!(open.metadata_remove("by-handle").unwrap_err().is_not_found());
    open.metadata_remove("another").unwrap();
    assert_eq!(bed.golden.metadata(&id).unwrap(), record);
}

#[test]
fn large_and_many_values_come_back_whole() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    let mut all: BTreeMap<String, String> =
        (0..200).map(|n| (format!("key-{n:03}"), "v".repeat(n))).collect();
    all.insert("manifest".into(), "x".repeat(100_000));
    bed.golden.set_metadata(&id, &all).unwrap();
    assert_eq!(bed.golden.metadata(&id).unwrap(), all);
    assert_eq!(bed.golden.open(&image).unwrap().metadata_list().unwrap(), all);
}

#[test]
fn metadata_never_brings_a_removed_image_back() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    bed.golden.remove(&image).unwrap();
    let record = map(&[("k", "v")]);
    assert!(bed.golden.set_metadata(&id, &record).unwrap_err().is_not_found());
    assert!(bed.golden.set_metadata_if(&id, ("k", None), &record).unwrap_err().is_not_found());
    assert!(bed.golden.remove_metadata(&id, "k").unwrap_err().is_not_found());
    assert!(bed.golden.metadata(&id).unwrap_err().is_not_found());
    let objects = Testbed::get().rados(["-p", bed.test_pool.name(), "-N", "golden", "ls"]);
    assert!(!objects.contains("rbd_header"), "{objects}");
}

#[test]
fn metadata_of_an_image_in_the_trash_can_be_read_and_written() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    bed.golden.trash_move(&image, Duration::ZERO).unwrap();
    bed.golden.set_metadata(&id, &map(&[("state", "retired")])).unwrap();
    assert_eq!(bed.golden.metadata(&id).unwrap()["state"], "retired");
    assert!(bed.golden.watchers(&id).unwrap().is_empty());
}

#[test]
fn a_conditional_write_happens_only_from_the_expected_state() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    let set = |expect, state| {
        bed.golden.set_metadata_if(&id, ("state", expect), &map(&[("state", state)])).unwrap()
    };
    assert!(!set(Some("candidate"), "sealed"), "it is missing");
    assert!(set(None, "candidate"));
    assert!(!set(None, "candidate"), "it is set by now");
    assert!(set(Some("candidate"), "sealed"));
    assert!(!set(Some("candidate"), "failed"));
    assert!(!set(Some("seal"), "failed"), "a part of the value isn't the value");
    assert_eq!(bed.golden.metadata(&id).unwrap()["state"], "sealed");
}

#[test]
fn of_many_that_race_from_one_state_one_wins() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    let winners = AtomicUsize::new(0);
    for round in 0..10 {
        let from = (round > 0).then(|| round.to_string());
        winners.store(0, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for runner in 0..8 {
                let (golden, id, from, winners) = (&bed.golden, &id, &from, &winners);
                scope.spawn(move || {
                    let next = map(&[("round", &(round + 1).to_string()), ("winner", &runner.to_string())]);
                    if golden.set_metadata_if(id, ("round", from.as_deref()), &next).unwrap() {
                        winners.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(winners.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn keys_that_cannot_be_are_refused() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    assert!(bed.golden.set_metadata(&id, &map(&[("", "v")])).unwrap_err().is_invalid());
    assert!(bed.golden.set_metadata(&id, &map(&[("a\0b", "v")])).unwrap_err().is_invalid());
    assert!(bed.golden.open(&image).unwrap().metadata_set("a\0b", "v").unwrap_err().is_invalid());
    bed.golden.set_metadata(&id, &BTreeMap::new()).unwrap();
}
