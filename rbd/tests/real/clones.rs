//! Snapshots, clones, parents and children.

use aldaas_rbd as rbd;
use aldaas_testbed::Testbed;

use crate::support::{Bed, MIB, map, name, options};

#[test]
fn a_snapshot_never_changes_and_can_be_gone_back_to() {
    let bed = Bed::new();
    let image = bed.sealed("a", 8 * MIB);
    let open = bed.golden.open(&image).unwrap();
    assert!(open.create_snapshot("sealed").unwrap_err().is_exists());
    assert!(open.create_snapshot("a@b").unwrap_err().is_invalid());
    open.write(0, b"changed after!!".to_vec()).wait().unwrap();
    let sealed = bed.golden.open_snapshot(&image, "sealed").unwrap();
    assert_eq!(sealed.read(0, 15).wait().unwrap(), b"from the parent");
    sealed.close().unwrap();
    let snapshots = open.snapshots().unwrap();
    assert_eq!(snapshots.len(), 1);
    assert_eq!((snapshots[0].name.as_str(), snapshots[0].size), ("sealed", 8 * MIB));
    assert_eq!(snapshots[0].kind, rbd::SnapshotKind::User);
    let taken = open.snapshot_created_at(snapshots[0].id).unwrap();
    assert!(taken.elapsed().unwrap().as_secs() < 60);
    open.rollback("sealed").unwrap();
    assert_eq!(open.read(0, 15).wait().unwrap(), b"from the parent");
    for n in 0..20 {
        open.create_snapshot(&format!("more-{n}")).unwrap();
    }
    assert_eq!(open.snapshots().unwrap().len(), 21);
    open.remove_snapshot_by_id(snapshots[0].id).unwrap();
    assert_eq!(open.snapshots().unwrap().len(), 20);
}

#[test]
fn a_clone_starts_as_its_parent_and_goes_its_own_way() {
    let bed = Bed::new();
    let parent = bed.sealed("parent", 16 * MIB);
    let child = name("child");
    bed.golden.clone_image(&parent, "sealed", &bed.clone, &child, &rbd::CloneOptions::default()).unwrap();
    let open = bed.clone.open(&child).unwrap();
    assert_eq!(open.read(0, 15).wait().unwrap(), b"from the parent");
    assert_eq!(open.overlap().unwrap(), 16 * MIB);
    assert_eq!(open.used_bytes().unwrap(), 0, "the parent's data isn't the clone's");
    open.write(0, b"from the child!".to_vec()).wait().unwrap();
    assert_eq!(open.used_bytes().unwrap(), 4 * MIB);
    let sealed = bed.golden.open_snapshot(&parent, "sealed").unwrap();
    assert_eq!(sealed.read(0, 15).wait().unwrap(), b"from the parent");
    let spec = open.parent().unwrap().unwrap();
    assert_eq!((spec.pool.as_str(), spec.namespace.as_str()), (bed.test_pool.name(), "golden"));
    assert_eq!((spec.image.as_str(), spec.snapshot.as_str(), spec.trash), ("parent", "sealed", false));
    assert_eq!(spec.image_id, bed.golden.image_id(&parent).unwrap());
    assert_eq!(spec.snapshot_id, sealed.snapshots().unwrap()[0].id);
    open.flatten().unwrap();
    assert!(open.parent().unwrap().is_none());
    assert_eq!(open.read(0, 15).wait().unwrap(), b"from the child!");
}

#[test]
fn a_clones_object_size_is_the_cloners_choice() {
    let bed = Bed::new();
    let parent = bed.sealed("parent", 16 * MIB);
    for (child, object_size) in [("a", 16 << 10), ("b", 64 << 10), ("c", 8 << 20)] {
        let options = rbd::CloneOptions { object_size: Some(object_size), ..Default::default() };
        bed.golden.clone_image(&parent, "sealed", &bed.clone, &name(child), &options).unwrap();
        let open = bed.clone.open(&name(child)).unwrap();
        assert_eq!(open.stat().unwrap().object_size, object_size);
        open.write(100, b"x".to_vec()).wait().unwrap();
        assert_eq!(open.used_bytes().unwrap(), object_size);
        assert_eq!(open.read(0, 15).wait().unwrap(), b"from the parent");
    }
}

#[test]
fn a_clone_that_cannot_be_is_refused() {
    let bed = Bed::new();
    let parent = bed.sealed("parent", MIB);
    let options = rbd::CloneOptions::default();
    let to = |parent: &rbd::ImageName, snapshot, child| {
        bed.golden.clone_image(parent, snapshot, &bed.clone, &name(child), &options).unwrap_err()
    };
    assert!(to(&name("missing"), "sealed", "a").is_not_found());
    assert!(to(&parent, "missing", "a").is_not_found());
    assert!(to(&parent, "", "a").is_invalid());
    bed.clone.create(&name("taken"), MIB, &rbd::CreateOptions::default()).unwrap();
    let error = to(&parent, "sealed", "taken");
    assert!(error.is_exists(), "{error}");
    assert!(error.to_string().contains("golden/parent@sealed"), "{error}");
    let odd = rbd::CloneOptions { object_size: Some(3), ..Default::default() };
    assert!(
        bed.golden.clone_image(&parent, "sealed", &bed.clone, &name("a"), &odd).unwrap_err().is_invalid()
    );
    assert_eq!(bed.clone.images().unwrap().len(), 1);
}

#[test]
fn children_are_listed_from_the_image_and_from_its_snapshot() {
    let bed = Bed::new();
    let parent = bed.sealed("parent", MIB);
    let options = rbd::CloneOptions::default();
    for n in 0..40 {
        bed.golden.clone_image(&parent, "sealed", &bed.clone, &name(&format!("c{n:02}")), &options).unwrap();
    }
    bed.clone.trash_move(&name("c00"), std::time::Duration::ZERO).unwrap();
    for open in
        [bed.golden.open_read_only(&parent).unwrap(), bed.golden.open_snapshot(&parent, "sealed").unwrap()]
    {
        let mut children = open.children().unwrap();
        children.sort_by(|a, b| a.image.cmp(&b.image));
        assert_eq!(children.len(), 40);
        assert_eq!((children[1].image.as_str(), children[1].namespace.as_str()), ("c01", "clone"));
        assert_eq!(children[1].image_id, bed.clone.image_id(&name("c01")).unwrap());
        assert_eq!(children.iter().filter(|child| child.trash).count(), 1);
    }
    let child = bed.clone.open_read_only(&name("c01")).unwrap();
    assert!(child.children().unwrap().is_empty());
}

#[test]
fn a_parent_is_retired_under_its_clones_and_goes_with_the_last() {
    let bed = Bed::new();
    let parent = bed.sealed("parent", 8 * MIB);
    let id = bed.golden.image_id(&parent).unwrap();
    let child = name("child");
    bed.golden.clone_image(&parent, "sealed", &bed.clone, &child, &rbd::CloneOptions::default()).unwrap();
    bed.golden.trash_move(&parent, std::time::Duration::ZERO).unwrap();
    let open = bed.golden.open_by_id(&id).unwrap();
    open.remove_snapshot("sealed").unwrap();
    let trashed = open.snapshots().unwrap();
    assert_eq!(trashed[0].kind, rbd::SnapshotKind::Trash { original_name: "sealed".into() });
    open.close().unwrap();
    let kept = bed.golden.trash_remove(&id, false).unwrap_err();
    assert!(kept.is_busy() || kept.is_not_empty(), "a clone lives on it: {kept}");

    let clone = bed.clone.open(&child).unwrap();
    assert_eq!(clone.read(0, 15).wait().unwrap(), b"from the parent");
    let spec = clone.parent().unwrap().unwrap();
    assert!(spec.trash && spec.image_id == id, "{spec:?}");
    clone.close().unwrap();

    bed.clone.remove(&child).unwrap();
    bed.golden.trash_remove(&id, false).unwrap();
    assert!(bed.golden.trash().unwrap().is_empty());
}

#[test]
fn a_clone_costs_few_operations_whatever_the_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut counted = options(Testbed::get());
    counted
        .overrides
        .push(("admin_socket".into(), dir.path().join("$pid.$cctid.asok").display().to_string()));
    let bed = Bed::new();
    let cluster = rbd::Cluster::connect(&counted).unwrap();
    let pool = cluster.pool(bed.pool.name()).unwrap();
    let (golden, clone) = (pool.namespace("golden").unwrap(), pool.namespace("clone").unwrap());
    let count = |what: &dyn Fn()| {
        let before = cluster.objecter_ops().unwrap();
        what();
        cluster.objecter_ops().unwrap() - before
    };
    let record = map(&[("aldaas.dev/state", "ready"), ("aldaas.dev/node", "n1"), ("aldaas.dev/ttl", "30m")]);
    let mut figures = Vec::new();
    for (text, size) in [("gib", 1 << 30), ("tib", 1 << 40)] {
        let parent = bed.sealed(text, size);
        let child = name(text);
        let options = rbd::CloneOptions::default();
        let bare = count(&|| golden.clone_image(&parent, "sealed", &clone, &child, &options).unwrap());
        let with_record = count(&|| clone.set_metadata(&clone.image_id(&child).unwrap(), &record).unwrap());
        let open = count(&|| clone.open(&child).unwrap().close().unwrap());
        let id = clone.image_id(&child).unwrap();
        let watchers = count(&|| drop(clone.watchers(&id).unwrap()));
        let trash = count(&|| clone.trash_move(&child, std::time::Duration::ZERO).unwrap());
        let remove = count(&|| clone.trash_remove(&id, false).unwrap());
        eprintln!("{text}: operations: clone {bare}, id and metadata {with_record}, open and close {open}");
        eprintln!("{text}: operations: watchers {watchers}, trash {trash}, purge {remove}");
        figures.push((bare, with_record, remove));
    }
    assert_eq!(figures[0].1, 2, "one to find the id, one to write the record");
    assert!(figures[0].0.abs_diff(figures[1].0) <= 8, "{figures:?}");
    assert!(figures[0].2.abs_diff(figures[1].2) <= 8, "{figures:?}");
    assert!(figures.iter().all(|(clone, ..)| *clone < 100), "{figures:?}");
}
