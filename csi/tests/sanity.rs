//! What any CSI client may rely on, and what it may not get away with: the cases of csi-sanity for a driver that only has a
//! node service, and bad input.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::symlink;

use aldaas_csi::client;
use aldaas_csi::proto::csi::node_service_capability::{Type, rpc};
use aldaas_csi::proto::csi::volume_capability::access_mode::Mode;
use aldaas_csi::proto::csi::volume_capability::{AccessType, BlockVolume, MountVolume};
use aldaas_csi::proto::csi::volume_usage::Unit;
use aldaas_csi::proto::csi::{
    GetPluginCapabilitiesRequest, GetPluginInfoRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest,
    NodeGetVolumeStatsRequest, NodePublishVolumeRequest, NodePublishVolumeResponse,
    NodeUnpublishVolumeRequest, ProbeRequest,
};
use common::{Bed, HELLO, NODE, code, id, is_mounted, mount_capability};
use tonic::Code;

const LATEST: &[(&str, &str)] = &[("db", "orders:latest")];

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_and_the_node_say_who_they_are() {
    let bed = Bed::new();
    let mut identity = client::identity(&bed.plugin.socket);
    let info = identity.get_plugin_info(GetPluginInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.name, "csi.aldaas.dev");
    assert!(!info.vendor_version.is_empty());
    let capabilities = identity.get_plugin_capabilities(GetPluginCapabilitiesRequest {}).await.unwrap();
    assert!(capabilities.into_inner().capabilities.is_empty(), "no controller service");
    assert_eq!(identity.probe(ProbeRequest {}).await.unwrap().into_inner().ready, Some(true));

    let mut node = bed.plugin.client();
    let info = node.node_get_info(NodeGetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.node_id.as_str(), info.max_volumes_per_node), (NODE, 0));
    let capabilities = node.node_get_capabilities(NodeGetCapabilitiesRequest {}).await.unwrap().into_inner();
    let kinds: Vec<_> = capabilities
        .capabilities
        .into_iter()
        .map(|capability| match capability.r#type {
            Some(Type::Rpc(rpc)) => rpc.r#type(),
            None => rpc::Type::Unknown,
        })
        .collect();
    assert_eq!(kinds, [rpc::Type::GetVolumeStats, rpc::Type::VolumeCondition]);

    // A plugin that can't know who may clone what does not say that it is ready.
    bed.objects.remove();
    bed.assert_not_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_may_be_repeated_and_stats_tell_what_is_there() {
    let bed = Bed::new();
    let before = bed.census();
    // The target's directory may be there or not, and stand below one whose name is awkward.
    let awkward = bed.plugin.kubelet.join("pods/a b\\c\u{e4}");
    std::fs::create_dir(&awkward).unwrap();
    let mut request = bed.plugin.request("a", LATEST);
    request.target_path = awkward.join("mount/").display().to_string();
    std::fs::create_dir(awkward.join("mount")).unwrap();
    for _ in 0..2 {
        bed.plugin.send(request.clone()).await.unwrap();
        assert_eq!(std::fs::read_to_string(awkward.join("mount/hello")).unwrap(), HELLO);
    }
    let stats = |id: String, path: String| {
        let request = NodeGetVolumeStatsRequest { volume_id: id, volume_path: path, ..Default::default() };
        let mut client = bed.plugin.client();
        async move { client.node_get_volume_stats(request).await }
    };
    let told = stats(id("a"), request.target_path.clone()).await.unwrap().into_inner();
    assert!(!told.volume_condition.unwrap().abnormal);
    assert_eq!(told.usage.iter().map(|usage| usage.unit()).collect::<Vec<_>>(), [Unit::Bytes, Unit::Inodes]);
    for usage in &told.usage {
        assert!(usage.total > 0 && usage.used > 0 && usage.available > 0, "{usage:?}");
        assert!(usage.used + usage.available <= usage.total, "{usage:?}");
    }
    for (volume, path, wanted) in [
        (String::new(), request.target_path.clone(), Code::InvalidArgument),
        (id("a"), String::new(), Code::InvalidArgument),
        (id("other"), request.target_path.clone(), Code::NotFound),
        (id("a"), bed.plugin.kubelet.join("pods").display().to_string(), Code::NotFound),
        (id("a"), bed.plugin.kubelet.join("nowhere/at/all").display().to_string(), Code::NotFound),
        (id("a"), "/etc".to_owned(), Code::InvalidArgument),
    ] {
        assert_eq!(code(&stats(volume.clone(), path.clone()).await), wanted, "{volume} at {path}");
    }
    let unpublish = |id: &str, path: &str| {
        let request = NodeUnpublishVolumeRequest { volume_id: id.to_owned(), target_path: path.to_owned() };
        let mut client = bed.plugin.client();
        async move { client.node_unpublish_volume(request).await }
    };
    assert_eq!(code(&unpublish("", &request.target_path).await), Code::InvalidArgument);
    assert_eq!(code(&unpublish(&id("a"), "").await), Code::InvalidArgument);
    assert_eq!(code(&unpublish(&id("a"), "/etc").await), Code::InvalidArgument);
    // Another volume's call leaves this one alone.
    unpublish(&id("other"), &request.target_path).await.unwrap();
    assert!(is_mounted(&awkward.join("mount")));
    for _ in 0..2 {
        unpublish(&id("a"), &request.target_path).await.unwrap();
    }
    assert!(!awkward.join("mount").exists());
    std::fs::remove_dir(&awkward).unwrap();
    bed.assert_census(&before, "after unpublish");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_told_and_nothing_is_made() {
    let bed = Bed::new();
    let before = bed.census();
    let good = bed.plugin.request("a", LATEST);
    let refused =
        async |what: &str, change: &dyn Fn(&mut NodePublishVolumeRequest), wanted: Code, word: &str| {
            let mut request = good.clone();
            change(&mut request);
            let status = bed.plugin.send(request).await.expect_err(what);
            assert_eq!(status.code(), wanted, "{what}: {status:?}");
            assert!(status.message().contains(word), "{what}: {}", status.message());
        };
    let invalid = Code::InvalidArgument;
    refused("no id", &|r| r.volume_id.clear(), invalid, "volume_id is missing").await;
    refused("long id", &|r| r.volume_id = "x".repeat(129), invalid, "128").await;
    refused("control", &|r| r.volume_id = "a\nb".into(), invalid, "control").await;
    refused("no target", &|r| r.target_path.clear(), invalid, "target_path is missing").await;
    refused("relative", &|r| r.target_path = "pods/a".into(), invalid, "not absolute").await;
    refused("up", &|r| r.target_path.push_str("/../../../../etc"), invalid, "`..`").await;
    refused("outside", &|r| r.target_path = "/etc".into(), invalid, "kubelet's directory").await;
    refused("zero", &|r| r.target_path.push('\0'), invalid, "zero byte").await;
    refused("long path", &|r| r.target_path.push_str(&"/x".repeat(3000)), invalid, "4095").await;
    refused("no capability", &|r| r.volume_capability = None, invalid, "volume_capability is missing").await;
    let access = |kind: Option<AccessType>| {
        move |r: &mut NodePublishVolumeRequest| {
            r.volume_capability.as_mut().unwrap().access_type = kind.clone()
        }
    };
    refused("no access", &access(None), invalid, "access_type").await;
    refused("block", &access(Some(AccessType::Block(BlockVolume {}))), invalid, "block").await;
    let mount = |mount: MountVolume| access(Some(AccessType::Mount(mount)));
    let flags = MountVolume { mount_flags: vec!["suid".into()], ..Default::default() };
    refused("mount flags", &mount(flags), invalid, "spec.clone.mountOptions").await;
    let group = MountVolume { volume_mount_group: "1".into(), ..Default::default() };
    refused("group", &mount(group), invalid, "volume_mount_group").await;
    let fs = |name: &str| mount(MountVolume { fs_type: name.into(), ..Default::default() });
    refused("vfat", &fs("vfat"), invalid, "leave it out").await;
    refused("xfs", &fs("xfs"), invalid, "database has ext4").await;
    for mode in
        [Mode::MultiNodeReaderOnly, Mode::MultiNodeSingleWriter, Mode::MultiNodeMultiWriter, Mode::Unknown]
    {
        let change =
            move |r: &mut NodePublishVolumeRequest| r.volume_capability = Some(mount_capability(mode));
        refused(mode.as_str_name(), &change, invalid, "access").await;
    }
    let set = |key: &'static str, value: &str| {
        let value = value.to_owned();
        move |r: &mut NodePublishVolumeRequest| drop(r.volume_context.insert(key.to_owned(), value.clone()))
    };
    let unset =
        |key: &'static str| move |r: &mut NodePublishVolumeRequest| drop(r.volume_context.remove(key));
    refused("no context", &|r| r.volume_context.clear(), invalid, "\"db\" is missing").await;
    refused("no db", &unset("db"), invalid, "\"db\" is missing").await;
    refused("no pod", &unset("csi.storage.k8s.io/pod.uid"), invalid, "podInfoOnMount").await;
    refused("pvc", &set("csi.storage.k8s.io/ephemeral", "false"), invalid, "inline").await;
    refused("pool", &set("pool", "rbd"), invalid, "\"pool\" is not known").await;
    refused("10 KiB", &set("ttl", &"x".repeat(10 << 10)), invalid, "4096").await;
    refused("contradiction", &set("image", "web-20261123t033000z"), invalid, "not an image of database")
        .await;
    refused("kind", &set("kind", "pvc"), invalid, "clone, build or candidate").await;
    refused("build and db", &set("kind", "build"), invalid, "does not go with").await;
    refused("traversal", &set("db", "../orders:latest"), invalid, "database name").await;
    assert_ne!(code(&send_bytes(&bed, b"a", b"/x\xff").await), Code::Ok);
    assert_ne!(code(&send_bytes(&bed, b"\xc3\x28", b"/x").await), Code::Ok);
    bed.assert_census(&before, "after refusals");
}

/// A publish request whose strings are any bytes.
async fn send_bytes(
    bed: &Bed,
    volume_id: &[u8],
    target_path: &[u8],
) -> Result<tonic::Response<NodePublishVolumeResponse>, tonic::Status> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Raw {
        #[prost(bytes = "vec", tag = "1")]
        volume_id: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        target_path: Vec<u8>,
    }
    let mut client = tonic::client::Grpc::new(client::channel(&bed.plugin.socket));
    client.ready().await.unwrap();
    let raw = Raw { volume_id: volume_id.to_owned(), target_path: target_path.to_owned() };
    let path = http::uri::PathAndQuery::from_static("/csi.v1.Node/NodePublishVolume");
    client.unary(tonic::Request::new(raw), path, tonic_prost::ProstCodec::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_at_the_target_already_is_hidden_or_followed() {
    let bed = Bed::new();
    let before = bed.census();
    let outside = tempfile::tempdir().unwrap();
    let target = bed.plugin.target("a");
    let refused = async |what: &str, word: &str| {
        let status = bed.plugin.publish("a", LATEST).await.expect_err(what);
        assert_eq!(status.code(), Code::FailedPrecondition, "{what}: {status:?}");
        assert!(status.message().contains(word), "{what}: {}", status.message());
    };
    std::fs::write(&target, "a file").unwrap();
    refused("a file", "a file or").await;
    std::fs::remove_file(&target).unwrap();
    symlink(outside.path(), &target).unwrap();
    refused("a symbolic link", "symbolic link").await;
    // It stays, and is no reason to keep the pod.
    bed.plugin.unpublish("a").await.unwrap();
    std::fs::remove_file(&target).unwrap();
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("file"), "somebody's").unwrap();
    refused("a directory that holds something", "holds files").await;
    bed.plugin.unpublish("a").await.unwrap();
    assert_eq!(
        std::fs::read_to_string(target.join("file")).unwrap(),
        "somebody's",
        "never removed recursively"
    );
    std::fs::remove_file(target.join("file")).unwrap();
    rustix::mount::mount("none", &target, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    refused("another mount", "not ours (tmpfs").await;
    assert_eq!(code(&bed.plugin.unpublish("a").await), Code::FailedPrecondition);
    assert!(is_mounted(&target), "somebody else's mount stays");
    rustix::mount::unmount(&target, rustix::mount::UnmountFlags::empty()).unwrap();
    // A link on the way there.
    symlink(outside.path(), bed.plugin.kubelet.join("pods/link")).unwrap();
    let mut request = bed.plugin.request("a", LATEST);
    request.target_path = bed.plugin.kubelet.join("pods/link/mount").display().to_string();
    assert_eq!(code(&bed.plugin.send(request).await), Code::FailedPrecondition);
    std::fs::remove_file(bed.plugin.kubelet.join("pods/link")).unwrap();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    // A parent that is not there is made by nobody here.
    let mut request = bed.plugin.request("a", LATEST);
    request.target_path = bed.plugin.kubelet.join("pods/gone/mount").display().to_string();
    assert_eq!(code(&bed.plugin.send(request).await), Code::FailedPrecondition);
    // And then all is well.
    bed.plugin.publish("a", LATEST).await.unwrap();
    let mut elsewhere = bed.plugin.request("a", LATEST);
    elsewhere.target_path.push_str("-2");
    assert_eq!(code(&bed.plugin.send(elsewhere).await), Code::FailedPrecondition, "one volume, two places");
    assert!(target.join("hello").exists());
    bed.plugin.unpublish("a").await.unwrap();
    bed.assert_census(&before, "in the end");
}
