//! Advisory locks on objects.

use std::time::{Duration, Instant};

use aldaas_rbd::{ImageLock, LockKind};

use crate::support::{Bed, MIB};

const LEASE: Option<Duration> = Some(Duration::from_secs(60));

#[test]
fn a_lock_has_one_holder_at_a_time() {
    let bed = Bed::new();
    let (cluster, theirs) = bed.other_client("golden");
    bed.golden.lock_exclusive("o", "build/orders", "me", "building", LEASE, false).unwrap();
    let again = bed.golden.lock_exclusive("o", "build/orders", "me", "building", LEASE, false).unwrap_err();
    assert!(again.is_exists(), "{again}");
    let other = theirs.lock_exclusive("o", "build/orders", "them", "building", LEASE, false).unwrap_err();
    assert!(other.is_busy(), "{other}");
    let same_cookie = theirs.lock_exclusive("o", "build/orders", "me", "building", LEASE, false).unwrap_err();
    assert!(same_cookie.is_busy(), "{same_cookie}");
    theirs.lock_exclusive("o", "build/users", "them", "another lock of the object", LEASE, false).unwrap();

    let lockers = theirs.lockers("o", "build/orders").unwrap();
    assert_eq!(lockers.len(), 1);
    assert_eq!(lockers[0].cookie, "me");
    assert_eq!(lockers[0].client, format!("client.{}", bed.cluster.instance_id()));
    assert!(bed.cluster.addresses().unwrap().contains(&lockers[0].address), "{lockers:?}");

    assert!(theirs.unlock("o", "build/orders", "me").unwrap_err().is_not_found());
    bed.golden.unlock("o", "build/orders", "me").unwrap();
    assert!(bed.golden.unlock("o", "build/orders", "me").unwrap_err().is_not_found());
    assert!(theirs.lockers("o", "build/orders").unwrap().is_empty());
    theirs.lock_exclusive("o", "build/orders", "them", "building", None, false).unwrap();
    drop(cluster);
}

#[test]
fn a_lock_is_broken_by_name_of_its_holder() {
    let bed = Bed::new();
    let (_cluster, theirs) = bed.other_client("golden");
    bed.golden.lock_exclusive("o", "l", "me", "", None, false).unwrap();
    let holder = theirs.lockers("o", "l").unwrap().remove(0);
    theirs.break_lock("o", "l", &holder).unwrap();
    assert!(theirs.break_lock("o", "l", &holder).unwrap_err().is_not_found());
    theirs.lock_exclusive("o", "l", "them", "", None, false).unwrap();
}

#[test]
fn a_lease_ends_by_itself_unless_renewed() {
    let bed = Bed::new();
    let (_cluster, theirs) = bed.other_client("golden");
    let lease = Some(Duration::from_millis(1500));
    let start = Instant::now();
    bed.golden.lock_exclusive("o", "l", "me", "", lease, false).unwrap();
    while start.elapsed() < Duration::from_secs(3) {
        bed.golden.lock_exclusive("o", "l", "me", "", lease, true).unwrap();
        assert!(theirs.lock_exclusive("o", "l", "them", "", lease, false).unwrap_err().is_busy());
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_millis(2000));
    // Too late: what ran out is not taken anew, whether or not another has it by now.
    let late = bed.golden.lock_exclusive("o", "l", "me", "", lease, true).unwrap_err();
    assert!(late.is_not_found(), "{late}");
    theirs.lock_exclusive("o", "l", "them", "", Some(Duration::from_secs(60)), false).unwrap();
    let late = bed.golden.lock_exclusive("o", "l", "me", "", lease, true).unwrap_err();
    assert!(late.is_not_found(), "{late}");
    assert_eq!(theirs.lockers("o", "l").unwrap()[0].cookie, "them");
}

#[test]
fn lockers_of_an_object_that_is_not_there_are_not_found() {
    let bed = Bed::new();
    assert!(bed.golden.lockers("nothing", "l").unwrap_err().is_not_found());
    assert!(bed.golden.unlock("nothing", "l", "c").unwrap_err().is_not_found());
}

#[test]
fn many_takers_of_one_lock_take_turns() {
    let bed = Bed::new();
    std::thread::scope(|scope| {
        for taker in 0..8 {
            let golden = &bed.golden;
            scope.spawn(move || {
                let cookie = taker.to_string();
                let mut turns = 0;
                while turns < 3 {
                    match golden.lock_exclusive("o", "l", &cookie, "", None, false) {
                        Ok(()) => {
                            assert_eq!(golden.lockers("o", "l").unwrap().len(), 1);
                            golden.unlock("o", "l", &cookie).unwrap();
                            turns += 1;
                        }
                        Err(error) => assert!(error.is_busy(), "{error}"),
                    }
                }
            });
        }
    });
}

fn image_lock<'a>(name: &'a str, kind: LockKind, cookie: &'a str, millis: u64) -> ImageLock<'a> {
    ImageLock { name, kind, cookie, description: "test", duration: Duration::from_millis(millis) }
}

#[test]
fn locks_of_an_image_are_taken_all_or_none_and_vanish_with_it() {
    let bed = Bed::new();
    let (_cluster, theirs) = bed.other_client("golden");
    let image = bed.image("a", MIB);
    let id = bed.golden.image_id(&image).unwrap();
    let (one, many) = (LockKind::Exclusive, LockKind::Shared);
    let before = bed.cluster.objecter_ops().unwrap();
    let mine = [image_lock("use", one, "me", 60_000), image_lock("keep", many, "me", 60_000)];
    bed.golden.lock_image(&id, &mine).unwrap();
    bed.golden.lock_image(&id, &mine).unwrap();
    assert_eq!(bed.cluster.objecter_ops().unwrap() - before, 2);

    let both = [image_lock("keep", many, "them", 60_000), image_lock("use", one, "them", 60_000)];
    assert!(theirs.lock_image(&id, &both).unwrap_err().is_busy());
    assert_eq!(theirs.image_lockers(&id, "keep").unwrap().len(), 1, "none of the two was taken");
    theirs.lock_image(&id, &both[..1]).unwrap();
    assert_eq!(theirs.image_lockers(&id, "keep").unwrap().len(), 2);
    let all = [image_lock("keep", one, "them", 60_000)];
    assert!(theirs.lock_image(&id, &all).unwrap_err().is_busy(), "one of many is not the only one");

    let holder = theirs.image_lockers(&id, "use").unwrap().remove(0);
    assert_eq!(
        (holder.cookie.as_str(), holder.client),
        ("me", format!("client.{}", bed.cluster.instance_id()))
    );
    let holder = theirs.image_lockers(&id, "use").unwrap().remove(0);
    theirs.break_image_lock(&id, "use", &holder).unwrap();
    theirs.lock_image(&id, &both).unwrap();
    assert!(bed.golden.unlock_image(&id, "use", "me").unwrap_err().is_not_found());
    theirs.unlock_image(&id, "use", "them").unwrap();

    // librbd's own lock is another one, and ours keep nobody from using or removing the image.
    let open = bed.golden.open(&image).unwrap();
    open.acquire_lock().unwrap();
    theirs.lock_image(&id, &both).unwrap();
    open.close().unwrap();
    bed.golden.remove(&image).unwrap();
    assert!(theirs.lock_image(&id, &both).unwrap_err().is_not_found());
    assert!(theirs.image_lockers(&id, "use").unwrap_err().is_not_found());
    assert!(theirs.unlock_image(&id, "use", "them").unwrap_err().is_not_found());
    let objects = aldaas_testbed::Testbed::get().rados(["-p", bed.test_pool.name(), "-N", "golden", "ls"]);
    assert!(!objects.contains("rbd_header"), "{objects}");
}

#[test]
fn a_lock_of_an_image_ends_by_itself() {
    let bed = Bed::new();
    let (_cluster, theirs) = bed.other_client("golden");
    let id = bed.golden.image_id(&bed.image("a", MIB)).unwrap();
    let start = Instant::now();
    bed.golden.lock_image(&id, &[image_lock("use", LockKind::Exclusive, "me", 1500)]).unwrap();
    let take = || theirs.lock_image(&id, &[image_lock("use", LockKind::Exclusive, "them", 1500)]);
    while let Err(error) = take() {
        assert!(error.is_busy() && start.elapsed() < Duration::from_secs(30), "{error}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(start.elapsed() >= Duration::from_millis(1500));
    assert_eq!(theirs.image_lockers(&id, "use").unwrap()[0].cookie, "them");
}
