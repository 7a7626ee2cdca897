//! Watchers and the exclusive lock.

use std::time::Duration;

use crate::support::{Bed, MIB};

#[test]
fn whoever_has_an_image_open_for_writing_is_seen_watching_it() {
    let bed = Bed::new();
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    assert!(bed.golden.watchers(&id).unwrap().is_empty());
    let (cluster, theirs) = bed.other_client("golden");
    let first = theirs.open(&image).unwrap();
    let second = theirs.open(&image).unwrap();
    let watchers = bed.golden.watchers(&id).unwrap();
    assert_eq!(watchers.len(), 2);
    assert!(watchers.iter().all(|watcher| watcher.client_id == cluster.instance_id()), "{watchers:?}");
    assert!(watchers.iter().all(|watcher| watcher.address.contains("127.0.0.1:0/")), "{watchers:?}");
    assert_eq!(first.watchers().unwrap(), watchers);
    first.close().unwrap();
    drop(second);
    assert!(bed.golden.watchers(&id).unwrap().is_empty(), "a drop closes like close does");
}

#[test]
fn the_exclusive_lock_has_one_owner_and_follows_the_writer() {
    let bed = Bed::new();
    let image = bed.image("a", 8 * MIB);
    let ours = bed.golden.open(&image).unwrap();
    let (_cluster, golden) = bed.other_client("golden");
    let theirs = golden.open(&image).unwrap();
    assert_eq!(ours.lock_owner().unwrap(), None);
    ours.write(0, vec![1; 512]).wait().unwrap();
    assert!(ours.is_lock_owner().unwrap());
    assert!(!theirs.is_lock_owner().unwrap());
    assert!(theirs.lock_owner().unwrap().unwrap().contains("127.0.0.1:0/"));
    theirs.write(0, vec![2; 512]).wait().unwrap();
    assert!(theirs.is_lock_owner().unwrap(), "handed over on request");
    theirs.release_lock().unwrap();
    ours.acquire_lock().unwrap();
    assert!(theirs.acquire_lock().is_err(), "kept, not handed over");
    ours.release_lock().unwrap();
    theirs.acquire_lock().unwrap();
}

#[test]
fn the_lock_of_a_living_owner_is_not_broken_and_of_no_owner_neither() {
    let bed = Bed::new();
    let image = bed.image("a", 8 * MIB);
    let ours = bed.golden.open(&image).unwrap();
    ours.acquire_lock().unwrap();
    let (_cluster, golden) = bed.other_client("golden");
    let theirs = golden.open(&image).unwrap();
    let error = theirs.break_lock("127.0.0.1:0/1").unwrap_err();
    assert!(error.is_invalid() || error.is_busy(), "{error}");
    ours.write(0, vec![1; 512]).wait().unwrap();
}

#[test]
fn the_lock_of_a_dead_owner_is_broken_and_the_owner_blocklisted() {
    let bed = Bed::new();
    let image = bed.image("a", 8 * MIB);
    let (victim, golden) = bed.other_client("golden");
    let dead = golden.open(&image).unwrap();
    dead.acquire_lock().unwrap();
    let ours = bed.golden.open(&image).unwrap();
    let owner = ours.lock_owner().unwrap().unwrap();
    // Dead to the cluster is dead: its watch is cut with it.
    bed.cluster.blocklist_add(&owner, Duration::from_secs(60)).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while let Err(error) = ours.break_lock(&owner) {
        if ours.lock_owner().unwrap().is_none() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{error}");
        std::thread::sleep(Duration::from_millis(500));
    }
    ours.acquire_lock().unwrap();
    ours.write(0, vec![1; 512]).wait().unwrap();
    let error = dead.write(0, vec![2; 512]).wait().unwrap_err();
    assert!(error.is_blocklisted() || error.is_read_only(), "{error}");
    // An image whose client was cut off closes without a hang; whether that is an error is librbd's affair.
    let _ = dead.close();
    assert_eq!(ours.read(0, 512).wait().unwrap(), vec![1; 512]);
    drop(victim);
    bed.cluster.blocklist_remove(&owner).unwrap();
}
