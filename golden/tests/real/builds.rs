//! Images that pods build.

use aldaas_golden::{CLONE, Error, GOLDEN, PodUse, State};

use crate::support::{SIZE, bed, generation, killed_at, pod_use, rbd_name};

#[test]
fn a_pods_build_is_found_by_its_retry_and_by_nobody_else() {
    let bed = bed();
    let name = generation(1);
    let ensure = |pod: &PodUse| bed.store.ensure_blank(&name, SIZE, "s3://backup/orders.sql.gz", pod);
    let made = ensure(&pod_use(1)).unwrap();
    let found = ensure(&pod_use(1)).unwrap();
    assert!(made.made && !found.made && made.id == found.id);
    let record = bed.golden(&name).record;
    assert_eq!((record.state, record.size, record.builder), (State::Candidate, SIZE, Some(pod_use(1))));

    assert!(matches!(ensure(&pod_use(2)), Err(Error::ImageExists(_))));
    let again = PodUse { pod_uid: "another".into(), ..pod_use(1) };
    assert!(matches!(ensure(&again), Err(Error::ImageExists(_))));
    assert!(matches!(bed.store.discard_blank(&name, &again), Err(Error::WrongState { .. })));
    assert!(matches!(bed.store.begin(&name, SIZE, "-"), Err(Error::ImageExists(_))));

    // It has no lock, and is none the less being built.
    assert!(bed.store.is_being_built(&name).unwrap());
    assert_eq!(bed.store.leftovers().unwrap(), []);
    let unfinished = aldaas_golden::Leftover::UnfinishedBuild(name.clone());
    bed.store.remove_leftover(&unfinished).unwrap();
    assert_eq!(bed.golden(&name).id, made.id, "not even who has seen it without its record removes it");

    bed.store.discard_blank(&name, &pod_use(1)).unwrap();
    bed.store.discard_blank(&name, &pod_use(1)).unwrap();
    assert!(bed.is_empty());
    assert!(!bed.store.is_being_built(&name).unwrap());
}

#[test]
fn a_build_that_was_killed_before_its_record_begins_anew() {
    let bed = bed();
    let name = generation(1);
    let ensure = || bed.store.ensure_blank(&name, SIZE, "-", &pod_use(1));
    killed_at("golden::after-create", || ensure().map(drop));
    assert!(ensure().unwrap().made);
    bed.store.discard_blank(&name, &pod_use(1)).unwrap();
    killed_at("golden::after-begin", || ensure().map(drop));
    assert!(!ensure().unwrap().made);
    bed.store.discard_blank(&name, &pod_use(1)).unwrap();

    // Somebody's data, and an image that is further already.
    bed.namespace(GOLDEN).create(&rbd_name(&name), SIZE, &Default::default()).unwrap();
    bed.namespace(GOLDEN).open(&rbd_name(&name)).unwrap().write(0, vec![1; 4096]).wait().unwrap();
    assert!(matches!(ensure(), Err(Error::Foreign(_))));
    bed.namespace(GOLDEN).remove(&rbd_name(&name)).unwrap();
    bed.build(1);
    assert!(matches!(ensure(), Err(Error::WrongState { state: State::Ready, .. })));
    assert!(bed.namespace(CLONE).images().unwrap().is_empty());
}
