//! Images: made, opened, listed, resized, renamed, removed, measured.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use aldaas_rbd as rbd;
use rbd::features;

use crate::support::{Bed, MIB, name};

#[test]
fn a_new_image_has_what_it_was_asked_to_have() {
    let bed = Bed::new();
    let image = name("plain");
    bed.golden.create(&image, 64 * MIB, &rbd::CreateOptions::default()).unwrap();
    let open = bed.golden.open(&image).unwrap();
    let info = open.stat().unwrap();
    assert_eq!((info.size, info.object_size, info.num_objects, info.order), (64 * MIB, 4 * MIB, 16, 22));
    assert_eq!((info.stripe_unit, info.stripe_count), (4 * MIB, 1));
    let id = open.id().unwrap();
    assert_eq!(info.block_name_prefix, format!("rbd_data.{id}"));
    assert_eq!(open.features().unwrap(), rbd::DEFAULT_FEATURES);
    assert_eq!(open.name().unwrap(), "plain");
    assert_eq!(open.namespace().name(), "golden");
    assert!(open.parent().unwrap().is_none());
    assert_eq!(open.overlap().unwrap(), 0);
    let age = SystemTime::now().duration_since(open.created_at().unwrap()).unwrap();
    assert!(age < Duration::from_secs(60), "{age:?}");
    open.close().unwrap();
    assert_eq!(bed.golden.image_id(&image).unwrap(), id);
    assert_eq!(bed.golden.images().unwrap(), [rbd::ImageEntry { id, name: image }]);
}

#[test]
fn object_size_striping_and_features_are_chosen_by_the_maker() {
    let bed = Bed::new();
    let small = rbd::CreateOptions {
        object_size: Some(64 << 10),
        features: features::LAYERING,
        ..Default::default()
    };
    bed.golden.create(&name("small"), MIB, &small).unwrap();
    let open = bed.golden.open(&name("small")).unwrap();
    assert_eq!(open.stat().unwrap().object_size, 64 << 10);
    assert_eq!(open.features().unwrap(), features::LAYERING);
    let stripe = Some(rbd::Stripe { unit: 64 << 10, count: 4 });
    let striped = rbd::CreateOptions { stripe, object_size: Some(MIB), ..Default::default() };
    bed.golden.create(&name("striped"), 8 * MIB, &striped).unwrap();
    let open = bed.golden.open(&name("striped")).unwrap();
    let info = open.stat().unwrap();
    assert_eq!((info.stripe_unit, info.stripe_count), (64 << 10, 4));
    assert_ne!(open.features().unwrap() & features::STRIPING, 0);
    let pool = Some(bed.pool.name().clone());
    let apart = rbd::CreateOptions { data_pool: pool, ..Default::default() };
    bed.golden.create(&name("data-pool"), MIB, &apart).unwrap();
}

#[test]
fn impossible_images_are_refused() {
    let bed = Bed::new();
    let odd = rbd::CreateOptions { object_size: Some(5000), ..Default::default() };
    let error = bed.golden.create(&name("a"), MIB, &odd).unwrap_err();
    assert!(error.is_invalid() && error.to_string().contains("5000"), "{error}");
    let unknown = rbd::CreateOptions { features: 1 << 60, ..Default::default() };
    assert!(bed.golden.create(&name("a"), MIB, &unknown).is_err());
    let lockless = rbd::CreateOptions { features: features::OBJECT_MAP, ..Default::default() };
    assert!(bed.golden.create(&name("a"), MIB, &lockless).unwrap_err().is_invalid());
    let nowhere = Some(rbd::PoolName::new("nowhere").unwrap());
    let apart = rbd::CreateOptions { data_pool: nowhere, ..Default::default() };
    assert!(bed.golden.create(&name("a"), MIB, &apart).unwrap_err().is_not_found());
    assert!(bed.golden.images().unwrap().is_empty());
}

#[test]
fn a_name_that_is_taken_stays_with_its_first_owner() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let error = bed.golden.create(&image, 2 * MIB, &rbd::CreateOptions::default()).unwrap_err();
    assert!(error.is_exists(), "{error}");
    assert!(error.to_string().contains(&format!("{}/golden/a", bed.test_pool.name())), "{error}");
    assert_eq!(bed.golden.open_read_only(&image).unwrap().size().unwrap(), MIB);
}

#[test]
fn what_is_not_there_is_not_found() {
    let bed = Bed::new();
    let (missing, id) = (name("missing"), rbd::ImageId::new("123abc").unwrap());
    assert!(bed.golden.open(&missing).unwrap_err().is_not_found());
    assert!(bed.golden.open_read_only(&missing).unwrap_err().is_not_found());
    assert!(bed.golden.open_snapshot(&missing, "s").unwrap_err().is_not_found());
    assert!(bed.golden.open_by_id(&id).unwrap_err().is_not_found());
    assert!(bed.golden.open_by_id_read_only(&id).unwrap_err().is_not_found());
    assert!(bed.golden.remove(&missing).unwrap_err().is_not_found());
    assert!(bed.golden.rename(&missing, &name("b")).unwrap_err().is_not_found());
    assert!(bed.golden.image_id(&missing).unwrap_err().is_not_found());
    assert!(bed.golden.watchers(&id).unwrap_err().is_not_found());
    let image = bed.image("a", MIB);
    assert!(bed.golden.open_snapshot(&image, "s").unwrap_err().is_not_found());
    let open = bed.golden.open(&image).unwrap();
    assert!(open.remove_snapshot("s").unwrap_err().is_not_found());
    assert!(open.remove_snapshot_by_id(99).unwrap_err().is_not_found());
    assert!(open.rollback("s").unwrap_err().is_not_found());
    assert!(open.diff(Some("s"), rbd::DiffOptions::default()).unwrap_err().is_not_found());
}

#[test]
fn many_images_are_all_listed() {
    let bed = Bed::new();
    let options = rbd::CreateOptions { features: features::LAYERING, ..Default::default() };
    let names: Vec<_> = (0..150).map(|n| name(&format!("image-{n:03}"))).collect();
    std::thread::scope(|scope| {
        for part in names.chunks(25) {
            scope.spawn(|| part.iter().for_each(|image| bed.golden.create(image, MIB, &options).unwrap()));
        }
    });
    let listed: Vec<_> = bed.golden.images().unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(listed, names);
}

#[test]
fn an_image_is_renamed_and_keeps_its_id() {
    let bed = Bed::new();
    let (a, b) = (bed.image("a", MIB), bed.image("b", MIB));
    let id = bed.golden.image_id(&a).unwrap();
    assert!(bed.golden.rename(&a, &b).unwrap_err().is_exists());
    bed.golden.rename(&a, &name("c")).unwrap();
    assert_eq!(bed.golden.image_id(&name("c")).unwrap(), id);
    assert!(bed.golden.image_id(&a).unwrap_err().is_not_found());
}

#[test]
fn an_image_grows_on_request_and_shrinks_only_when_told_so() {
    let bed = Bed::new();
    let open = bed.golden.open(&bed.image("a", 8 * MIB)).unwrap();
    open.write(4 * MIB, vec![1; 512]).wait().unwrap();
    open.resize(16 * MIB).unwrap();
    assert_eq!(open.size().unwrap(), 16 * MIB);
    assert!(open.resize(4 * MIB).unwrap_err().is_invalid());
    open.shrink(4 * MIB).unwrap();
    open.resize(8 * MIB).unwrap();
    assert_eq!(open.read(4 * MIB, 512).wait().unwrap(), vec![0; 512], "what lay beyond is gone");
}

#[test]
fn a_read_only_handle_writes_nothing_and_watches_nothing() {
    let bed = Bed::new();
    let image = bed.sealed("a", 8 * MIB);
    for open in
        [bed.golden.open_read_only(&image).unwrap(), bed.golden.open_snapshot(&image, "sealed").unwrap()]
    {
        assert!(open.write(0, vec![1; 512]).wait().unwrap_err().is_read_only());
        assert!(open.discard(0, 4096).wait().unwrap_err().is_read_only());
        assert!(open.resize(16 * MIB).unwrap_err().is_read_only());
        assert!(open.create_snapshot("x").unwrap_err().is_read_only());
        assert!(open.remove_snapshot("sealed").unwrap_err().is_read_only());
        assert!(open.metadata_set("k", "v").unwrap_err().is_read_only());
        assert!(open.flatten().unwrap_err().is_read_only());
        assert!(open.sparsify(4096).unwrap_err().is_read_only());
        assert!(open.update_features(features::FAST_DIFF, false).unwrap_err().is_read_only());
        assert_eq!(open.read(0, 15).wait().unwrap(), b"from the parent");
        assert!(open.watchers().unwrap().is_empty());
        open.close().unwrap();
    }
}

#[test]
fn usage_counts_whole_objects_and_differences_are_exact() {
    let bed = Bed::new();
    let open = bed.golden.open(&bed.image("a", 64 * MIB)).unwrap();
    assert_eq!(open.used_bytes().unwrap(), 0);
    open.write(0, vec![1; 4096]).wait().unwrap();
    open.write(20 * MIB, vec![1; 4096]).wait().unwrap();
    assert_eq!(open.used_bytes().unwrap(), 8 * MIB);
    let exact = open.diff(None, rbd::DiffOptions::default()).unwrap();
    let exact: Vec<_> = exact.iter().map(|extent| (extent.offset, extent.length, extent.exists)).collect();
    assert_eq!(exact, [(0, 4096, true), (20 * MIB, 4096, true)]);
    open.create_snapshot("s").unwrap();
    open.write(40 * MIB, vec![1; 4096]).wait().unwrap();
    open.discard(20 * MIB, 4 * MIB).wait().unwrap();
    let whole = rbd::DiffOptions { whole_object: true, ..Default::default() };
    let since = open.diff(Some("s"), whole).unwrap();
    let since: Vec<_> = since.iter().map(|extent| (extent.offset, extent.exists)).collect();
    assert_eq!(since, [(20 * MIB, false), (40 * MIB, true)]);
}

#[test]
fn sparsify_gives_back_what_holds_only_zeros() {
    let bed = Bed::new();
    let open = bed.golden.open(&bed.image("a", 16 * MIB)).unwrap();
    open.write(0, vec![0; 8 << 20]).wait().unwrap();
    open.write(8 * MIB, vec![1; 4096]).wait().unwrap();
    assert_eq!(open.used_bytes().unwrap(), 12 * MIB);
    open.sparsify(4096).unwrap();
    assert_eq!(open.used_bytes().unwrap(), 4 * MIB);
    assert_eq!(open.read(0, 4096).wait().unwrap(), vec![0; 4096]);
    assert!(open.sparsify(5000).unwrap_err().is_invalid());
}

#[test]
fn the_object_map_can_be_switched_off_on_and_rebuilt() {
    let bed = Bed::new();
    let open = bed.golden.open(&bed.image("a", 16 * MIB)).unwrap();
    open.write(0, vec![1; 4096]).wait().unwrap();
    open.update_features(features::OBJECT_MAP | features::FAST_DIFF, false).unwrap();
    assert!(open.rebuild_object_map().unwrap_err().is_invalid());
    open.update_features(features::OBJECT_MAP | features::FAST_DIFF, true).unwrap();
    open.rebuild_object_map().unwrap();
    let flags = open.flags().unwrap();
    assert!(!flags.object_map_invalid && !flags.fast_diff_invalid);
    assert_eq!(open.used_bytes().unwrap(), 4 * MIB);
}

#[test]
fn an_image_with_snapshots_or_users_is_not_removed() {
    let bed = Bed::new();
    let image = bed.sealed("a", MIB);
    assert!(bed.golden.remove(&image).unwrap_err().is_not_empty());
    let (_cluster, golden) = bed.other_client("golden");
    let theirs = golden.open(&image).unwrap();
    theirs.remove_snapshot("sealed").unwrap();
    let error = bed.golden.remove(&image).unwrap_err();
    assert!(error.is_busy(), "{error}");
    theirs.close().unwrap();
    bed.golden.remove(&image).unwrap();
    assert!(bed.golden.images().unwrap().is_empty());
}

/// librbd goes on with the state of an image after it has woken who opened it. What is freed is overwritten in the child, so that
/// whoever still uses it ends with a signal.
#[test]
fn an_image_may_be_closed_as_soon_as_it_is_open() {
    const CHILD: &str = "ALDAAS_TEST_CHILD";
    const CLIENTS: usize = 4;
    const THREADS: usize = 4;
    if std::env::var_os(CHILD).is_none() {
        let this = "images::an_image_may_be_closed_as_soon_as_it_is_open";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", this]).env(CHILD, "").env("MALLOC_PERTURB_", "170");
        let status = child.status().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let bed = Bed::new();
    let (parent, clone) = (bed.sealed("parent", MIB), name("clone"));
    bed.golden.clone_image(&parent, "sealed", &bed.clone, &clone, &rbd::CloneOptions::default()).unwrap();
    let until = Instant::now() + Duration::from_secs(4);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let (_cluster, clones) = bed.other_client("clone");
            for _ in 0..THREADS {
                let (clones, clone) = (clones.clone(), &clone);
                scope.spawn(move || {
                    while Instant::now() < until {
                        clones.open_read_only(clone).unwrap().close().unwrap();
                    }
                });
            }
        }
    });
}
