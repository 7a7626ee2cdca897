//! Images that pods build.

use aldaas_golden::{BlankSize, CLONE, Error, GOLDEN, PodUse, State};

use crate::support::{SIZE, bed, generation, killed_at, manifest, pod_use, rbd_name};

const BLANK: BlankSize = BlankSize { bytes: SIZE, object_size: Some(1 << 20) };

#[test]
fn a_pods_build_is_found_by_its_retry_and_by_nobody_else() {
    let bed = bed();
    let name = generation(1);
    let ensure = |pod: &PodUse| bed.store.ensure_blank(&name, BLANK, "s3://backup/orders.sql.gz", pod);
    let made = ensure(&pod_use(1)).unwrap();
    let found = ensure(&pod_use(1)).unwrap();
    assert!(made.made && !found.made && made.id == found.id);
    let record = bed.golden(&name).record;
    assert_eq!((record.state, record.size, record.builder), (State::Candidate, SIZE, Some(pod_use(1))));
    let stat = bed.namespace(GOLDEN).open_read_only(&rbd_name(&name)).unwrap().stat().unwrap();
    assert_eq!((stat.size, stat.object_size), (SIZE, 1 << 20));

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
    let ensure = || bed.store.ensure_blank(&name, BLANK, "-", &pod_use(1));
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

#[test]
fn what_a_pod_built_becomes_ready_once_nobody_has_it_open() {
    let bed = bed();
    let (name, pod, manifest) = (generation(1), pod_use(1), manifest());
    let blank = bed.store.ensure_blank(&name, BLANK, "pod", &pod).unwrap();
    let open = bed.namespace(GOLDEN).open(&rbd_name(&name)).unwrap();
    assert!(matches!(bed.store.seal_built(&name, &pod.pod_uid, &manifest), Err(Error::InUse { .. })));
    // What it did is kept before that, so that its pod may go.
    assert!(matches!(bed.store.restored(&name, "another", &manifest), Err(Error::OtherBuilder(_))));
    for _ in 0..2 {
        bed.store.restored(&name, &pod.pod_uid, &manifest).unwrap();
        let record = bed.store.golden_image(&name).unwrap().record;
        assert_eq!((record.state, record.manifest.as_ref()), (State::Candidate, Some(&manifest)));
    }
    assert!(matches!(bed.store.discard_built(&name), Err(Error::InUse { .. })));
    assert!(matches!(bed.store.fail_built(&name, "no"), Err(Error::InUse { .. })));
    open.close().unwrap();
    assert!(matches!(bed.store.verified(&name), Err(Error::WrongState { state: State::Candidate, .. })));
    assert!(matches!(bed.store.seal_built(&name, "another", &manifest), Err(Error::OtherBuilder(_))));

    for _ in 0..2 {
        bed.store.seal_built(&name, &pod.pod_uid, &manifest).unwrap();
    }
    let record = bed.golden(&name).record;
    assert_eq!((record.state, record.manifest), (State::Sealed, Some(manifest.clone())));
    assert_eq!(record.source, manifest.source.location);
    assert!(matches!(bed.store.ensure_blank(&name, BLANK, "pod", &pod), Err(Error::WrongState { .. })));
    assert!(bed.store.latest(name.database()).is_err());
    for _ in 0..2 {
        bed.store.verified(&name).unwrap();
    }
    let latest = bed.store.latest(name.database()).unwrap();
    assert_eq!((latest.name, latest.id), (name.clone(), blank.id));
    assert!(matches!(bed.store.fail_built(&name, "no"), Err(Error::WrongState { .. })));
    assert!(matches!(bed.store.discard_built(&name), Err(Error::WrongState { .. })));
    bed.store.retire(&name, true).unwrap();
    assert!(bed.is_empty());
}

#[test]
fn what_a_pod_built_in_vain_is_kept_with_its_reason_or_thrown_away() {
    let bed = bed();
    let (name, pod) = (generation(1), pod_use(1));
    bed.store.ensure_blank(&name, BLANK, "pod", &pod).unwrap();
    bed.store.fail_built(&name, "the dump is cut short").unwrap();
    bed.store.fail_built(&name, "another reason").unwrap();
    let record = bed.golden(&name).record;
    assert_eq!((record.state, record.reason.as_deref()), (State::Failed, Some("the dump is cut short")));
    assert!(bed.store.seal_built(&name, &pod.pod_uid, &manifest()).is_err());
    for _ in 0..2 {
        bed.store.discard_built(&name).unwrap();
    }
    assert!(bed.is_empty());
    assert!(matches!(bed.store.fail_built(&name, "no"), Err(Error::NoImage(_))));

    // A sealed one goes with its snapshot; one that a process builds is that process's.
    bed.store.ensure_blank(&name, BLANK, "pod", &pod).unwrap();
    bed.store.seal_built(&name, &pod.pod_uid, &manifest()).unwrap();
    bed.store.discard_built(&name).unwrap();
    assert!(bed.is_empty());
    let candidate = bed.store.begin(&name, SIZE, "-").unwrap();
    assert!(matches!(bed.store.discard_built(&name), Err(Error::OtherBuilder(_))));
    assert!(matches!(bed.store.fail_built(&name, "no"), Err(Error::OtherBuilder(_))));
    candidate.discard().unwrap();
    assert!(bed.is_empty());
}

#[test]
fn a_controller_killed_while_it_seals_goes_on_where_it_was() {
    let bed = bed();
    let (name, pod) = (generation(1), pod_use(1));
    for failpoint in ["golden::after-snapshot", "golden::after-seal"] {
        bed.store.ensure_blank(&name, BLANK, "pod", &pod).unwrap();
        killed_at(failpoint, || bed.store.seal_built(&name, &pod.pod_uid, &manifest()));
        bed.store.seal_built(&name, &pod.pod_uid, &manifest()).unwrap();
        killed_at("golden::after-ready", || bed.store.verified(&name));
        bed.store.verified(&name).unwrap();
        bed.store.retire(&name, true).unwrap();
        assert!(bed.is_empty());
    }
}
