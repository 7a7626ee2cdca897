//! Advisory locks on objects.

use std::time::{Duration, Instant};

use crate::support::Bed;

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
    assert!(lockers[0].address.contains("127.0.0.1"), "{lockers:?}");

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
