//! The trash.

use std::time::{Duration, SystemTime};

use aldaas_rbd as rbd;

use crate::support::{Bed, MIB, name};

#[test]
fn an_image_goes_to_the_trash_and_comes_back_or_goes_for_good() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    bed.golden.trash_move(&image, Duration::ZERO).unwrap();
    assert!(bed.golden.trash_move(&image, Duration::ZERO).unwrap_err().is_not_found());
    assert!(bed.golden.images().unwrap().is_empty());
    let entry = bed.golden.trash().unwrap().remove(0);
    assert_eq!((&entry.id, entry.name.as_str(), entry.source), (&id, "a", rbd::TrashSource::User));
    assert!(entry.deleted_at <= SystemTime::now() + Duration::from_secs(1));
    assert!(bed.clone.trash().unwrap().is_empty(), "each rados namespace has a trash of its own");

    let other = bed.image("a", 2 * MIB);
    assert!(bed.golden.trash_restore(&id, &other).unwrap_err().is_exists());
    bed.golden.trash_restore(&id, &name("b")).unwrap();
    assert_eq!(bed.golden.image_id(&name("b")).unwrap(), id);
    assert!(bed.golden.trash_restore(&id, &name("c")).unwrap_err().is_not_found());

    bed.golden.trash_move(&name("b"), Duration::ZERO).unwrap();
    bed.golden.trash_remove(&id, false).unwrap();
    assert!(bed.golden.trash_remove(&id, false).unwrap_err().is_not_found());
    assert!(bed.golden.trash().unwrap().is_empty());
    assert!(bed.golden.open_by_id(&id).unwrap_err().is_not_found());
}

#[test]
fn a_deferred_image_is_removed_only_by_force() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    bed.golden.trash_move(&image, Duration::from_secs(3600)).unwrap();
    let entry = bed.golden.trash().unwrap().remove(0);
    let kept = entry.deferred_until.duration_since(entry.deleted_at).unwrap();
    assert!(kept >= Duration::from_secs(3599), "{kept:?}");
    let error = bed.golden.trash_remove(&id, false).unwrap_err();
    assert!(error.is_permission(), "{error}");
    bed.golden.trash_remove(&id, true).unwrap();
}

#[test]
fn an_image_in_the_trash_stays_while_somebody_uses_it() {
    let bed = Bed::new();
    let image = bed.sealed("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    let (_cluster, golden) = bed.other_client("golden");
    bed.golden.trash_move(&image, Duration::ZERO).unwrap();
    assert!(bed.golden.trash_remove(&id, false).unwrap_err().is_not_empty());
    let theirs = golden.open_by_id(&id).unwrap();
    theirs.remove_snapshot("sealed").unwrap();
    let error = bed.golden.trash_remove(&id, false).unwrap_err();
    assert!(error.is_busy(), "{error}");
    theirs.close().unwrap();
    bed.golden.trash_remove(&id, false).unwrap();
}

#[test]
fn an_image_that_is_open_elsewhere_can_be_moved_to_the_trash_or_says_it_is_busy() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    let (_cluster, golden) = bed.other_client("golden");
    let theirs = golden.open(&image).unwrap();
    theirs.write(0, vec![1; 512]).wait().unwrap();
    match bed.golden.trash_move(&image, Duration::ZERO) {
        Ok(()) => assert_eq!(theirs.read(0, 512).wait().unwrap(), vec![1; 512]),
        Err(error) => assert!(error.is_busy(), "{error}"),
    }
    theirs.close().unwrap();
    if bed.golden.trash().unwrap().is_empty() {
        bed.golden.trash_move(&image, Duration::ZERO).unwrap();
    }
    bed.golden.trash_remove(&id, false).unwrap();
}

#[test]
fn a_full_trash_is_listed_whole() {
    let bed = Bed::new();
    let options = rbd::CreateOptions { features: rbd::features::LAYERING, ..Default::default() };
    for n in 0..70 {
        let image = name(&format!("i{n}"));
        bed.golden.create(&image, MIB, &options).unwrap();
        bed.golden.trash_move(&image, Duration::ZERO).unwrap();
    }
    let trash = bed.golden.trash().unwrap();
    assert_eq!(trash.len(), 70);
    std::thread::scope(|scope| {
        for part in trash.chunks(18) {
            scope.spawn(|| part.iter().for_each(|entry| bed.golden.trash_remove(&entry.id, false).unwrap()));
        }
    });
    assert!(bed.golden.trash().unwrap().is_empty());
}

#[test]
fn an_image_that_is_open_elsewhere_goes_to_the_trash_at_once_and_whoever_has_it_goes_on() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    let named = bed.golden.read_object("rbd_id.a").unwrap();
    let (_cluster, golden) = bed.other_client("golden");
    let theirs = golden.open(&image).unwrap();
    theirs.write(0, vec![1; 512]).wait().unwrap();
    bed.golden.trash_move_at_once(&image, &id).unwrap();
    assert!(bed.golden.images().unwrap().is_empty() && bed.golden.image_id(&image).is_err());
    // The last step was not reached.
    bed.golden.write_object("rbd_id.a", &named).unwrap();
    bed.golden.trash_move_at_once(&image, &id).unwrap();
    assert!(bed.golden.image_id(&image).unwrap_err().is_not_found());

    assert_eq!(theirs.read(0, 512).wait().unwrap(), vec![1; 512]);
    theirs.write(512, vec![2; 512]).wait().unwrap();
    assert!(bed.golden.trash_remove(&id, false).unwrap_err().is_busy());
    theirs.close().unwrap();
    let at_once = bed.golden.trash().unwrap();
    // All that it was is there, and librbd takes it for its own.
    bed.golden.trash_restore(&id, &image).unwrap();
    let open = bed.golden.open_read_only(&image).unwrap();
    assert_eq!(open.read(512, 512).wait().unwrap(), vec![2; 512]);
    open.close().unwrap();
    bed.golden.trash_move(&image, Duration::ZERO).unwrap();
    let by_librbd = bed.golden.trash().unwrap();
    let said = |entries: &[rbd::TrashEntry]| -> Vec<_> {
        let kept = |entry: &rbd::TrashEntry| entry.deferred_until.duration_since(entry.deleted_at).unwrap();
        entries
            .iter()
            .map(|entry| (entry.id.clone(), entry.name.clone(), entry.source, kept(entry)))
            .collect()
    };
    assert_eq!(said(&at_once), said(&by_librbd));
    let age = SystemTime::now().duration_since(at_once[0].deleted_at).unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{age:?}");
    bed.golden.trash_remove(&id, false).unwrap();
    assert!(bed.golden.trash().unwrap().is_empty());
}

#[test]
fn a_move_that_librbd_did_not_finish_is_finished() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    assert!(!bed.golden.finish_trash_move(&image).unwrap(), "one that is there is left alone");
    assert!(!bed.golden.finish_trash_move(&name("b")).unwrap());
    // Its steps so far: into the trash, the name away.
    bed.golden.trash_move_at_once(&name("b"), &id).unwrap();
    bed.golden.remove_object("rbd_id.a").unwrap();
    assert!(bed.golden.create(&image, MIB, &Default::default()).unwrap_err().is_exists());
    assert!(bed.golden.finish_trash_move(&image).unwrap());
    assert_eq!(bed.golden.trash().unwrap()[0].id, id);
    assert!(!bed.golden.finish_trash_move(&image).unwrap());
    bed.golden.create(&image, MIB, &Default::default()).unwrap();
    bed.golden.trash_remove(&id, false).unwrap();
}

#[test]
fn a_name_that_leads_to_another_image_stays() {
    let bed = Bed::new();
    let (one, other) = (bed.image("a", MIB), bed.image("b", MIB));
    let id = bed.golden.image_id(&other).unwrap();
    bed.golden.trash_move_at_once(&one, &id).unwrap_err();
    assert_eq!(bed.golden.images().unwrap().len(), 2);
    assert_ne!(bed.golden.image_id(&one).unwrap(), id);
}
