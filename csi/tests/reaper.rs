//! The reaper against a real Ceph, real mounts and a Kubernetes that the tests make up.
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod common;
mod reaping;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use aldaas_api::{CloneName, GoldenImageName, volume_id};
use aldaas_csi::proto::explain::explain_server::ExplainServer;
use aldaas_csi::reaper::explain::{self, ExplainService};
use aldaas_golden::{CLONE, CloneRequest, GOLDEN, PodUse, Purpose, SEALED, State};
use aldaas_rbd as rbd;
use common::{HELLO, NODE, PATIENCE, is_mounted};
use reaping::{Rig, clone_of};
use tokio_stream::wrappers::UnixListenerStream;

/// Long enough to be seen, short enough to be waited for.
const GRACE: Duration = Duration::from_millis(600);

/// What a plugin of another node made.
fn clone_elsewhere(rig: &Rig, uid: &str, node: &str, image: &GoldenImageName) -> CloneName {
    let pod = PodUse {
        node: node.into(),
        volume: clone_of(uid).to_string(),
        namespace: "shop".into(),
        pod: uid.into(),
        pod_uid: uid.into(),
        ..PodUse::default()
    };
    make(rig, clone_of(uid), Purpose::Pod, Some(pod), image)
}

fn make(
    rig: &Rig,
    name: CloneName,
    purpose: Purpose,
    pod: Option<PodUse>,
    image: &GoldenImageName,
) -> CloneName {
    let store = &rig.golden.store;
    let request = CloneRequest { name, purpose, holder: None, object_size: None, pod, unverified: false };
    let golden = store.golden_image(image).unwrap();
    let made = match purpose {
        Purpose::Named => store.clone_image(&golden, &request).unwrap(),
        _ => store.ensure_clone(&golden, &request).unwrap().clone,
    };
    made.name
}

fn namespaces(rig: &Rig) -> (rbd::Namespace, rbd::Namespace) {
    let pool = rig.golden.cluster.pool(&rbd::PoolName::new(rig.pool.name()).unwrap()).unwrap();
    (pool.namespace(GOLDEN).unwrap(), pool.namespace(CLONE).unwrap())
}

fn image_name(name: impl ToString) -> rbd::ImageName {
    rbd::ImageName::new(name.to_string()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_needs_goes_and_nothing_else() {
    let rig = Rig::new(GRACE);
    let image = rig.golden.build(1);
    let (golden, clones) = namespaces(&rig);
    let bare = rig.census();

    // To stay: a living pod's, another living node's, one that somebody has open, the command's, somebody's own.
    rig.change(|world| world.nodes.insert("node-b".into()));
    let living = rig.pod("living", &image, &[]).await;
    let others = clone_elsewhere(&rig, "others", "node-b", &image);
    let watched = clone_elsewhere(&rig, "watched", "node-gone", &image);
    let open = clones.open(&image_name(&watched)).unwrap();
    let by_hand = make(&rig, "pr-1".parse().unwrap(), Purpose::Named, None, &image);
    clones.create(&image_name("precious"), 1 << 20, &rbd::CreateOptions::default()).unwrap();
    rig.pass().await;
    let staying = rig.census();

    // To go: of a pod that finished, of pods that are gone, of a node that is gone, half-made, in the trash, directories.
    let finished = rig.pod("finished", &image, &[]).await;
    let gone = rig.pod("gone", &image, &[]).await;
    let uncached = rig.pod("uncached", &image, &[]).await;
    rig.change(|world| {
        world.pods.iter_mut().filter(|pod| pod.uid == "finished").for_each(|pod| pod.finished = true);
        world.pods.retain(|pod| pod.uid != "gone" && pod.uid != "uncached");
        // The API server itself knows better than the cache.
        world.uncached.insert("uncached".into());
    });
    let of_gone_node = clone_elsewhere(&rig, "moved", "node-gone", &image);
    let half_made = clone_of("half-made");
    let options = rbd::CloneOptions::default();
    golden.clone_image(&image_name(&image), SEALED, &clones, &image_name(&half_made), &options).unwrap();
    let trashed = clone_elsewhere(&rig, "trashed", NODE, &image);
    rig.golden.store.trash_clone(&trashed, Duration::ZERO).unwrap().unwrap();
    let run_dir = rig.parts.node.run_dir().to_owned();
    let directory = run_dir.join("volumes").join(format!("{}%clone%{}", rig.pool.name(), clone_of("never")));
    std::fs::create_dir(&directory).unwrap();
    let noted = rig.target("never");
    std::fs::create_dir_all(&noted).unwrap();
    std::fs::write(noted.with_file_name("vol_data.json"), r#"{"driverName": "csi.aldaas.dev"}"#).unwrap();

    // With Kubernetes away, and then with Ceph away, nothing goes.
    rig.change(|world| world.away = true);
    let all = rig.census();
    rig.pass_for(GRACE * 2).await;
    assert_eq!(rig.census(), all);
    assert_eq!(rig.verdict("shop/gone"), ("unknown".into(), "keep".into()));
    rig.change(|world| world.away = false);

    rig.pass().await;
    assert!(rig.has(&clone_of("gone")), "before the grace time");
    assert_eq!(rig.verdict("shop/gone"), ("orphaned".into(), "keep".into()));
    rig.pass_until("all have gone", || {
        !rig.has(&clone_of("gone"))
            && !rig.has(&clone_of("finished"))
            && !rig.has(&of_gone_node)
            && !directory.exists()
    })
    .await;
    assert!(rig.has(&clone_of("uncached")) && is_mounted(&uncached));
    rig.change(|world| world.uncached.clear());
    rig.pass_until_census(&staying).await;
    assert!(![&finished, &gone, &uncached, &noted].iter().any(|target| target.exists()));
    assert_eq!(std::fs::read_to_string(living.join("hello")).unwrap(), HELLO);
    assert!([&others, &watched, &by_hand].iter().all(|name| rig.has(name)));
    assert!(rig.reaper.explain("shop/watched").explanations[0].reason.contains("has it open"));

    // Nobody has it open any more; not elected, it is not ours to remove.
    drop(open);
    rig.change(|world| world.elected = false);
    rig.pass_for(GRACE * 2).await;
    assert!(rig.has(&watched));
    rig.change(|world| world.elected = true);
    rig.pass_until("the one of the node that is gone goes", || !rig.has(&watched)).await;
    let text = rig.parts.metrics.encode();
    for family in
        [r#"aldaas_operations_total{operation="reap",outcome="ok"}"#, r#"aldaas_clones{state="published"} 1"#]
    {
        assert!(text.contains(family), "{family}\n{text}");
    }

    rig.gone("living");
    rig.golden.store.remove_clone(&by_hand).unwrap();
    rig.golden.store.remove_clone(&others).unwrap();
    clones.remove(&image_name("precious")).unwrap();
    rig.pass_until_census(&bare).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_clone_leaves_its_node_with_its_data_and_goes_when_its_ttl_has_run_out() {
    let rig = Rig::new(GRACE);
    let image = rig.golden.build(1);
    let before = rig.census();
    let asked = [("clone", "pr-1"), ("ttl", "3s")];
    let name = volume_id::named_clone("shop", &"pr-1".parse().unwrap());
    let target = rig.pod("first", &image, &asked).await;
    std::fs::write(target.join("mine"), "written").unwrap();

    // While it is attached its lease is renewed, whether or not Kubernetes answers.
    let id = rig.golden.store.find_clone(&name).unwrap().id;
    rig.golden.store.drop_lease(&id, &rig.golden.store.leases(&id).unwrap()[0], None).unwrap();
    rig.change(|world| world.away = true);
    rig.reaper.renew_leases().await;
    assert_eq!(rig.golden.store.leases(&id).unwrap()[0].node, NODE);
    rig.change(|world| world.away = false);

    // The pod goes and kubelet says nothing.
    rig.gone("first");
    rig.pass_until("it has left", || rig.parts.node.find(&rig.spec(&name)).unwrap().is_none()).await;
    assert!(!target.exists() && rig.has(&name) && rig.golden.store.leases(&id).unwrap().is_empty());
    let target = rig.pod("second", &image, &asked).await;
    assert_eq!(std::fs::read_to_string(target.join("mine")).unwrap(), "written");
    rig.gone("second");
    rig.pass_until("it has left again", || !target.exists()).await;
    rig.pass().await;
    assert_eq!(rig.verdict("shop/second").0, "kept");
    rig.pass_until("its TTL is over", || !rig.has(&name)).await;
    rig.pass_until_census(&before).await;
}

/// A process in a mount namespace of its own, which is no slave of ours: what is mounted there stays.
fn hold_mounts() -> Child {
    let child = aldaas_testbed::own_mounts(&[]).args(["sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !std::fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap().starts_with("sleep") {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_still_holds_is_tried_again_until_it_goes() {
    let rig = Rig::new(GRACE);
    let image = rig.golden.build(1);
    let before = rig.census();
    let target = rig.pod("held", &image, &[]).await;
    let mut holder = hold_mounts();
    rig.gone("held");
    rig.pass_until("it is quarantined", || rig.verdict("shop/held").0 == "quarantined").await;
    assert!(!target.exists() && rig.has(&clone_of("held")));
    assert!(rig.parts.metrics.encode().contains(r#"aldaas_clones{state="quarantined"} 1"#));
    holder.kill().unwrap();
    holder.wait().unwrap();
    rig.pass_until_census(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_over_the_socket_why_a_clone_is_kept() {
    let rig = Rig::new(GRACE);
    let image = rig.golden.build(1);
    rig.pod("web", &image, &[("ttl", "1h")]).await;
    rig.pass().await;
    let socket = rig.scratch.path().join("csi.sock");
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let service = ExplainServer::new(ExplainService(rig.reaper.clone()));
    let server = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    for what in [clone_of("web").as_str(), "web", "shop/web"] {
        let text = explain::ask(&socket, what, false).await.unwrap();
        for part in
            ["VERDICT  keep (published)", "pod shop/web uses it", "TTL      3600 s", "no process of its pod"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
    let json: serde_json::Value =
        serde_json::from_str(&explain::ask(&socket, "", true).await.unwrap()).unwrap();
    assert_eq!(json["explanations"][0]["podUid"], "web");
    let unknown = explain::ask(&socket, "nobody", false).await.unwrap_err().to_string();
    assert!(unknown.contains("NAMESPACE/POD"), "{unknown}");
    assert!(explain::ask(Path::new("/no/socket"), "web", false).await.is_err());
    server.abort();
    rig.gone("web");
    rig.pass_until("it has gone", || !rig.has(&clone_of("web"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_is_unmounted_with_its_pod_and_its_image_stays() {
    let rig = Rig::new(GRACE);
    let image = common::image("orders", 7);
    rig.change(|world| world.pods.push(reaping::pod("builder", &[])));
    let target = rig.publish_build("builder", &image).await;
    std::fs::write(target.join("restored"), "so far").unwrap();
    rig.pass_for(GRACE * 2).await;
    assert!(is_mounted(&target));
    rig.gone("builder");
    rig.pass_until("it is unmounted", || !target.exists()).await;
    let spec = aldaas_volume::ImageSpec::new(rig.pool.name(), GOLDEN, image.to_string());
    rig.pass_until("it has left", || rig.parts.node.find(&spec).unwrap().is_none()).await;
    assert_eq!(rig.golden.store.golden_image(&image).unwrap().record.state, State::Candidate);
}
