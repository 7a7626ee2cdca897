//! What a publish and an unpublish cost the cluster, in RADOS operations: unlike time, they are the same on every machine.

use std::time::Duration;

use aldaas_golden::{CLONE, GOLDEN, Gone, SEALED};

use crate::support::{bed, for_pod, orders, rbd_name};

#[test]
fn a_pods_clone_costs_little_more_than_the_bare_calls() {
    let bed = bed();
    let image = bed.build(1);
    let count = |what: &str, call: &mut dyn FnMut()| {
        let before = bed.cluster.objecter_ops().unwrap();
        call();
        let operations = bed.cluster.objecter_ops().unwrap() - before;
        println!("{what}: {operations} operations");
        operations
    };
    let (images, clones) = (bed.namespace(GOLDEN), bed.namespace(CLONE));
    let (parent, child) = (rbd_name(&image), rbd_name(&"bare"));
    let bare_clone = count("bare clone", &mut || {
        images.clone_image(&parent, SEALED, &clones, &child, &Default::default()).unwrap();
    });
    let bare_remove = count("bare remove", &mut || clones.remove(&child).unwrap());

    let mut golden = None;
    let resolve = count("what is latest", &mut || golden = Some(bed.store.latest(&orders()).unwrap()));
    let golden = golden.unwrap();
    let made = count("ensure a clone", &mut || {
        assert!(bed.store.ensure_clone(&golden, &for_pod(1)).unwrap().made);
    });
    let found = count("ensure it again", &mut || {
        assert!(!bed.store.ensure_clone(&golden, &for_pod(1)).unwrap().made);
    });
    let mut trashed = None;
    let trash = count("trash it", &mut || {
        trashed = bed.store.trash_clone(&for_pod(1).name, Duration::ZERO).unwrap();
    });
    let purge = count("purge it", &mut || {
        assert_eq!(bed.store.purge_clone(&trashed.take().unwrap()).unwrap(), Gone::Yes);
    });
    let again = count("trash what is gone", &mut || {
        assert_eq!(bed.store.trash_clone(&for_pod(1).name, Duration::ZERO).unwrap(), None);
    });
    assert!(made <= bare_clone + 6, "{made} > {bare_clone} + 6");
    assert!(resolve + made <= bare_clone + 24, "{resolve} + {made} > {bare_clone} + 24");
    assert!(trash + purge <= bare_remove + 40, "{trash} + {purge} > {bare_remove} + 40");
    // Its name, its record, and that it does not lie in the trash.
    assert!(found <= 3 && again <= 1, "{found}, {again}");
}
