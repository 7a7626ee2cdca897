//! What the plan must do, case by case, and what it must never do, whatever is seen.

use aldaas_api::VolumeId;
use aldaas_golden::{Purpose, record::CloneRecord};
use proptest::prelude::*;

use super::super::decision::Ask;
use super::super::observed::{Facts, owner_of};
use super::*;
use crate::idle::{Idle, Seen};
use crate::ports::{Away, PodVolume};

const NOW: Duration = Duration::from_secs(1000);
const GRACE: Duration = Duration::from_secs(60);
const POOL: &str = "aldaas";
const NODES: [&str; 3] = ["here", "there", "gone"];

fn pod(uid: &str, finished: bool) -> Pod {
    let volumes = vec![PodVolume { id: VolumeId::of_pod(uid, "db"), attributes: BTreeMap::new() }];
    Pod {
        namespace: "shop".into(),
        name: format!("web-{uid}"),
        uid: uid.into(),
        finished,
        deleting: false,
        volumes,
    }
}

fn user(uid: &str, node: &str) -> PodUse {
    PodUse {
        node: node.into(),
        volume: VolumeId::of_pod(uid, "db").to_string(),
        namespace: "shop".into(),
        pod: format!("web-{uid}"),
        pod_uid: uid.into(),
        ..PodUse::default()
    }
}

fn clone(name: CloneName, purpose: Purpose, user: Option<PodUse>) -> SeenClone {
    let record = CloneRecord {
        golden_image: "orders-20261123t033000z".parse().unwrap(),
        purpose,
        holder: None,
        cloned_at: "2026-11-23T03:30:00Z".parse().unwrap(),
        pod: user,
    };
    SeenClone { name, record: Some(record), facts: None }
}

/// The clone of a pod's own volume.
fn own(uid: &str, node: &str) -> SeenClone {
    clone(VolumeId::of_pod(uid, "db").handle(), Purpose::Pod, Some(user(uid, node)))
}

fn named_name() -> CloneName {
    volume_id::named_clone("shop", &"pr-1".parse().unwrap())
}

fn named(uid: &str, node: &str) -> SeenClone {
    let user =
        PodUse { clone_name: Some("pr-1".into()), ttl: Some(Duration::from_secs(60)), ..user(uid, node) };
    clone(named_name(), Purpose::PodNamed, Some(user))
}

fn here(name: &CloneName) -> SeenVolume {
    let spec = ImageSpec::new(POOL, CLONE, name.as_str());
    SeenVolume { spec, device: Some("/dev/loop0".into()), build: None }
}

fn target(uid: &str, holds: Option<&CloneName>) -> SeenTarget {
    let path = PathBuf::from(format!("/k/pods/{uid}/volumes/kubernetes.io~csi/db/mount"));
    let holds = holds.map(|name| ImageSpec::new(POOL, CLONE, name.as_str()));
    SeenTarget { owner: owner_of(&path, "/k".as_ref()), path, holds, noted: true }
}

fn nothing() -> Observed {
    Observed {
        node: "here".into(),
        pool: POOL.into(),
        elected: true,
        pods: Ok(vec![]),
        nodes: Ok(["here", "there"].map(String::from).into()),
        clones: Ok(vec![]),
        trash: 0,
        sweep: false,
        volumes: vec![],
        targets: vec![],
        idle: BTreeMap::new(),
    }
}

/// What is decided after the grace time, when everything was seen the same all along.
fn late(observed: &Observed) -> Vec<Decision> {
    let mut memory = Memory::default();
    plan(observed, &mut memory, NOW, GRACE);
    plan(observed, &mut memory, NOW + GRACE, GRACE)
}

fn verdict(observed: &Observed) -> (&'static str, &'static str) {
    let decisions = late(observed);
    assert_eq!(decisions.len(), 1, "{decisions:?}");
    (decisions[0].state.as_str(), decisions[0].verdict())
}

fn with(clone: SeenClone, facts: Option<Facts>) -> Observed {
    Observed { clones: Ok(vec![SeenClone { facts, ..clone }]), ..nothing() }
}

#[test]
fn a_clone_goes_only_when_nobody_needs_it() {
    let unwatched = Some(Facts::default());
    let watched = Some(Facts { watchers: vec!["10.0.0.7:0/1".into()], ..Facts::default() });
    let with_pods = |observed: Observed, pods| Observed { pods: Ok(pods), ..observed };
    let cases = [
        (
            "its pod lives",
            with_pods(with(own("a", "here"), None), vec![pod("a", false)]),
            ("published", "keep"),
        ),
        (
            "its pod has finished",
            with_pods(with(own("a", "here"), unwatched.clone()), vec![pod("a", true)]),
            ("finished", "remove"),
        ),
        ("its pod is gone", with(own("a", "here"), unwatched.clone()), ("orphaned", "remove")),
        ("nobody has looked closer", with(own("a", "here"), None), ("orphaned", "look")),
        ("somebody has it open", with(own("a", "here"), watched.clone()), ("orphaned", "keep")),
        ("it is another node's", with(own("a", "there"), unwatched.clone()), ("elsewhere", "keep")),
        ("its node is gone", with(own("a", "gone"), unwatched.clone()), ("orphaned", "remove")),
        (
            "its node is gone, and we are not elected",
            Observed { elected: false, ..with(own("a", "gone"), unwatched.clone()) },
            ("elsewhere", "keep"),
        ),
        (
            "Kubernetes is away",
            Observed { pods: Err(Away("x".into())), ..with(own("a", "here"), unwatched.clone()) },
            ("unknown", "keep"),
        ),
        (
            "only the nodes are unknown",
            Observed { nodes: Err(Away("x".into())), ..with(own("a", "gone"), unwatched.clone()) },
            ("unknown", "keep"),
        ),
        (
            "its record does not name a pod that could be asked for",
            with(
                clone(
                    own("a", "").name,
                    Purpose::Pod,
                    Some(PodUse { pod_uid: "a".into(), ..PodUse::default() }),
                ),
                unwatched.clone(),
            ),
            ("orphaned", "keep"),
        ),
        (
            "it is the command's",
            with(clone("pr-1".parse().unwrap(), Purpose::Named, None), unwatched.clone()),
            ("foreign", "keep"),
        ),
    ];
    for (case, observed, expected) in cases {
        assert_eq!(verdict(&observed), expected, "{case}");
    }
}

#[test]
fn a_named_clone_outlives_its_pod_for_its_ttl() {
    let facts = |kept| Some(Facts { kept, ..Facts::default() });
    assert_eq!(verdict(&with(named("a", "here"), facts(true))), ("kept", "keep"));
    assert_eq!(verdict(&with(named("a", "here"), facts(false))), ("orphaned", "remove"));
    // Still attached here: it leaves this node first, with all that was written.
    let attached = Observed { volumes: vec![here(&named_name())], ..with(named("a", "here"), None) };
    assert_eq!(verdict(&attached), ("orphaned", "release"));
    let moved = Observed { volumes: vec![here(&named_name())], ..with(named("a", "there"), None) };
    assert_eq!(verdict(&moved), ("orphaned", "release"));
    // The next pod asks for it by name, and is not yet written into its record.
    let mut next = pod("b", false);
    next.volumes[0].attributes.insert("clone".into(), "pr-1".into());
    let asked = Observed { pods: Ok(vec![next]), ..with(named("a", "here"), facts(false)) };
    assert_eq!(verdict(&asked), ("published", "keep"));
}

#[test]
fn what_seems_unused_is_watched_for_the_whole_grace_time_without_a_break() {
    let orphan = with(own("a", "here"), Some(Facts::default()));
    let used = Observed { pods: Ok(vec![pod("a", false)]), ..orphan.clone() };
    let mut memory = Memory::default();
    let mut at = |observed: &Observed, seconds: u64| {
        plan(observed, &mut memory, NOW + Duration::from_secs(seconds), GRACE)[0].verdict()
    };
    assert_eq!([at(&orphan, 0), at(&orphan, 59), at(&used, 60)], ["keep"; 3]);
    assert_eq!([at(&orphan, 61), at(&orphan, 120)], ["keep"; 2]);
    assert_eq!(at(&orphan, 121), "remove");
    let away = Observed { pods: Err(Away("x".into())), ..orphan.clone() };
    assert_eq!([at(&away, 122), at(&orphan, 123)], ["keep"; 2]);
}

#[test]
fn what_a_killed_maker_left_goes_unless_a_pod_here_is_about_to_use_it() {
    let half = |half_made| SeenClone {
        record: None,
        facts: Some(Facts { half_made, ..Facts::default() }),
        ..own("a", "here")
    };
    let seen = |clone: &SeenClone| Observed { clones: Ok(vec![clone.clone()]), ..nothing() };
    assert_eq!(verdict(&seen(&half(true))), ("half-made", "remove-half-made"));
    assert_eq!(verdict(&seen(&half(false))), ("foreign", "keep"));
    assert_eq!(verdict(&Observed { elected: false, ..seen(&half(true)) }), ("elsewhere", "keep"));
    assert_eq!(
        verdict(&Observed { pods: Ok(vec![pod("a", false)]), ..seen(&half(true)) }),
        ("published", "keep")
    );
}

#[test]
fn volumes_and_targets_of_nobody_leave_this_node() {
    let name = own("a", "here").name;
    let alone = Observed { volumes: vec![here(&name)], ..nothing() };
    assert_eq!(verdict(&alone), ("orphaned", "close"));
    assert_eq!(
        verdict(&Observed { pods: Ok(vec![pod("a", false)]), ..alone.clone() }),
        ("published", "keep")
    );
    // The mount at which a pod that is gone had another pod's named clone.
    let other = Observed {
        pods: Ok(vec![pod("b", false)]),
        volumes: vec![here(&named_name())],
        targets: vec![target("a", Some(&named_name())), target("b", Some(&named_name()))],
        ..with(named("b", "here"), None)
    };
    let verdicts: Vec<_> = late(&other).iter().map(|d| (d.subject.to_string(), d.verdict())).collect();
    assert_eq!(verdicts[0].1, "keep");
    assert_eq!(verdicts[1], ("target /k/pods/a/volumes/kubernetes.io~csi/db/mount".into(), "unbind"));
    // Empty directories: only those that kubelet noted as ours.
    let empty = Observed { targets: vec![target("a", None)], ..nothing() };
    assert_eq!(verdict(&empty), ("orphaned", "unbind"));
    let others = Observed { targets: vec![SeenTarget { noted: false, ..target("a", None) }], ..nothing() };
    assert_eq!(late(&others), []);
    // A clone takes its targets along.
    let both = Observed {
        targets: vec![target("a", Some(&name))],
        volumes: vec![here(&name)],
        ..with(own("a", "here"), None)
    };
    let decisions = late(&both);
    assert_eq!((decisions.len(), decisions[0].targets().unwrap().len()), (1, 1));
}

#[test]
fn a_build_is_unmounted_when_its_pod_is_gone_and_its_image_is_left_alone() {
    let spec = ImageSpec::new(POOL, GOLDEN, "orders-20261123t033000z");
    let build = |build| {
        let volume = SeenVolume { spec: spec.clone(), device: Some("/dev/loop0".into()), build: Some(build) };
        Observed { volumes: vec![volume], ..nothing() }
    };
    let of_pod = build(Build::ByPod(user("a", "here")));
    assert_eq!(verdict(&of_pod), ("orphaned", "close"));
    let Some(Action::Close { discard, ask, .. }) = &late(&of_pod)[0].action else { panic!() };
    assert!(!discard && *ask == [Ask::PodGone(user("a", "here"))]);
    assert_eq!(
        verdict(&Observed { pods: Ok(vec![pod("a", false)]), ..of_pod.clone() }),
        ("published", "keep")
    );
    assert_eq!(verdict(&Observed { pods: Ok(vec![pod("a", true)]), ..of_pod }), ("finished", "close"));
    assert_eq!(late(&build(Build::Other)), []);
    assert_eq!(verdict(&build(Build::Missing)), ("orphaned", "close"));
}

#[test]
fn an_idle_clone_costs_its_pod_only_when_a_ttl_says_so() {
    let mut idle_clone = own("a", "here");
    let record = idle_clone.record.as_mut().unwrap();
    record.pod.as_mut().unwrap().ttl = Some(Duration::from_secs(60));
    let seen = |seconds| Idle {
        elapsed: Duration::from_secs(seconds),
        seen: Seen::Nothing { port: 5432, noise: 0 },
    };
    let observed = |clone: &SeenClone, seconds| Observed {
        pods: Ok(vec![pod("a", false)]),
        idle: BTreeMap::from([(clone.name.clone(), seen(seconds))]),
        ..with(clone.clone(), None)
    };
    assert_eq!(verdict(&observed(&idle_clone, 59)), ("published", "keep"));
    assert_eq!(verdict(&observed(&idle_clone, 60)), ("idle", "delete-pod"));
    assert_eq!(verdict(&observed(&own("a", "here"), 9999)), ("published", "keep"));
    // For how long a named clone is kept is another thing: its pod goes only where it says so itself.
    let mut asking = pod("a", false);
    asking.volumes[0].attributes.insert(context::CLONE.into(), "pr-1".into());
    let mut of_named = observed(&named("a", "here"), 60);
    of_named.pods = Ok(vec![asking.clone()]);
    assert_eq!(verdict(&of_named), ("published", "keep"));
    asking.volumes[0].attributes.insert(context::TTL.into(), "1m".into());
    of_named.pods = Ok(vec![asking]);
    assert_eq!(verdict(&of_named), ("idle", "delete-pod"));

    let mut deleting = observed(&idle_clone, 60);
    deleting.pods.as_mut().unwrap()[0].deleting = true;
    assert_eq!(verdict(&deleting), ("idle", "keep"));
}

#[test]
fn the_trash_is_the_elected_nodes() {
    let trash = Observed { trash: 3, ..nothing() };
    assert_eq!(verdict(&trash), ("trash", "purge"));
    assert_eq!(verdict(&Observed { elected: false, ..trash.clone() }), ("trash", "keep"));
    assert_eq!(verdict(&Observed { pods: Err(Away("x".into())), ..trash }), ("trash", "keep"));
    assert_eq!(late(&nothing()), []);
}

fn any_away<T: Clone + std::fmt::Debug>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Result<T, Away>> {
    (prop::bool::weighted(0.1), value)
        .prop_map(|(away, value)| if away { Err(Away("x".into())) } else { Ok(value) })
}

prop_compose! {
    fn any_pod()(uid in "[a-d]", finished: bool, deleting: bool, asks: bool) -> Pod {
        let mut pod = Pod { deleting, ..pod(&uid, finished) };
        if asks {
            pod.volumes[0].attributes.insert("clone".into(), "pr-1".into());
        }
        pod
    }
}

prop_compose! {
    fn any_clone()(
        uid in "[a-d]",
        node in prop::sample::select(&["here", "there", "gone", ""][..]),
        kind in 0..5,
        ttl in prop::option::of(0_u64..100),
        facts in prop::option::of((prop::collection::vec("x", 0..2), any::<bool>(), any::<bool>())),
    ) -> SeenClone {
        let mut clone = match kind {
            0 => named(&uid, node),
            1 => SeenClone { record: None, ..own(&uid, node) },
            2 => clone("pr-1".parse().unwrap(), Purpose::Named, None),
            _ => own(&uid, node),
        };
        if let Some(user) = clone.record.as_mut().and_then(|record| record.pod.as_mut()) {
            user.ttl = ttl.map(Duration::from_secs);
        }
        clone.facts = facts.map(|(watchers, kept, half_made)| Facts { watchers, kept, half_made });
        clone
    }
}

fn any_name() -> impl Strategy<Value = CloneName> {
    "[a-e]".prop_map(|uid| if uid == "e" { named_name() } else { own(&uid, "").name })
}

prop_compose! {
    fn any_observed()(
        elected: bool,
        pods in any_away(prop::collection::vec(any_pod(), 0..4)),
        nodes in any_away(prop::collection::btree_set(prop::sample::select(&NODES[..2]).prop_map(String::from), 0..3)),
        clones in prop::collection::vec(any_clone(), 0..6),
        ceph in prop::bool::weighted(0.9),
        volumes in prop::collection::btree_set(any_name(), 0..4),
        targets in prop::collection::btree_map("[a-d]", prop::option::of(any_name()), 0..4),
        idle in prop::collection::btree_map(any_name(), 0_u64..200, 0..3),
        trash in 0_usize..2,
    ) -> Observed {
        // A UID is one pod's.
        let pods = pods.map(|pods| {
            let by_uid: BTreeMap<String, Pod> = pods.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
            by_uid.into_values().collect()
        });
        let mut by_name: BTreeMap<CloneName, SeenClone> = BTreeMap::new();
        by_name.extend(clones.into_iter().map(|clone| (clone.name.clone(), clone)));
        let idle = idle.into_iter().map(|(name, seconds)| {
            (name, Idle { elapsed: Duration::from_secs(seconds), seen: Seen::Nothing { port: 1, noise: 0 } })
        });
        Observed {
            elected, pods, nodes, trash,
            clones: if ceph { Ok(by_name.into_values().collect()) } else { Err("away".into()) },
            volumes: volumes.iter().map(here).collect(),
            targets: targets.iter().map(|(uid, holds)| target(uid, holds.as_ref())).collect(),
            idle: idle.collect(),
            ..nothing()
        }
    }
}

/// Takes away data, or a pod's access to it.
fn is_harmful(action: &Action) -> bool {
    !matches!(action, Action::Look | Action::Purge | Action::DeletePod(_))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_is_seen_nothing_goes_that_somebody_may_need(observed in any_observed(), waited: bool) {
        let mut memory = Memory::default();
        plan(&observed, &mut memory, NOW, GRACE);
        let now = if waited { NOW + GRACE } else { NOW + GRACE / 2 };
        let decisions = plan(&observed, &mut memory, now, GRACE);
        let acting: Vec<_> = decisions.iter().filter(|decision| decision.action.is_some()).collect();
        let Ok(clones) = &observed.clones else { prop_assert!(decisions.is_empty()); return Ok(()) };
        let Ok(pods) = &observed.pods else { prop_assert!(acting.is_empty(), "{acting:?}"); return Ok(()) };
        let subjects: BTreeSet<_> = decisions.iter().map(|decision| &decision.subject).collect();
        prop_assert_eq!(subjects.len(), decisions.len());
        // The last one of a UID counts, in a list that should hold it once.
        let by_uid: HashMap<&str, &Pod> = pods.iter().map(|pod| (pod.uid.as_str(), pod)).collect();
        let lives = |uid: &str| by_uid.get(uid).is_some_and(|pod| !pod.finished);
        for decision in acting {
            let action = decision.action.as_ref().unwrap();
            prop_assert!(decision.state.is_ours(), "{decision:?}");
            for path in decision.targets().into_iter().flatten() {
                let (uid, _) = owner_of(path, "/k".as_ref()).unwrap();
                prop_assert!(!lives(&uid), "{decision:?}");
            }
            let Subject::Clone(name) = &decision.subject else { continue };
            let clone = clones.iter().find(|clone| clone.name == *name).unwrap();
            if let Action::DeletePod(pod) = action {
                let ttl = clone.user().unwrap().ttl.unwrap();
                prop_assert!(lives(&pod.uid) && !pod.deleting && observed.idle[name].elapsed >= ttl);
                continue;
            }
            if !is_harmful(action) {
                continue;
            }
            let finished = clone.user().is_some_and(|user| by_uid.get(user.pod_uid.as_str()).is_some_and(|pod| pod.finished));
            prop_assert!(!clone.user().is_some_and(|user| lives(&user.pod_uid)));
            prop_assert!(!pods.iter().any(|pod| lives(&pod.uid) && !pod.finished && clones_of(pod).any(|other| other == *name)));
            prop_assert!(waited || finished, "too early: {decision:?}");
            let is_here = observed.volumes.iter().any(|volume| volume.spec.image == name.as_str());
            if let Action::Remove { ask, .. } = action {
                let facts = clone.facts.clone().unwrap_or_default();
                prop_assert!(is_here || clone.facts.is_some() && facts.watchers.is_empty());
                prop_assert!(!clone.is_named() || !is_here && !facts.kept);
                let node = &clone.user().unwrap().node;
                let node_lives = observed.nodes.as_ref().is_ok_and(|nodes| nodes.contains(node));
                prop_assert!(finished || node == "here" || observed.elected && !node_lives && observed.nodes.is_ok());
                prop_assert!(finished || ask.iter().any(|ask| matches!(ask, Ask::PodGone(_))));
            }
        }
    }

    #[test]
    fn the_clones_of_pods_that_are_gone_do_go(uid in "[a-d]", is_here: bool, node in prop::sample::select(&["here", "gone"][..])) {
        let facts = (!is_here).then(Facts::default);
        let clone = own(&uid, node);
        let volumes = if is_here { vec![here(&clone.name)] } else { vec![] };
        let observed = Observed { volumes, ..with(clone, facts) };
        prop_assert_eq!(late(&observed)[0].verdict(), "remove");
    }
}
