//! What kubelet asks of the plugin, one call at a time, by hand.
//!
//! ```text
//! kubelet /run/csi.sock publish POD-UID /var/lib/kubelet/pods/POD-UID/mount db=orders:latest clone=pr-1
//! kubelet /run/csi.sock unpublish POD-UID /var/lib/kubelet/pods/POD-UID/mount
//! ```
//!
//! The tests use it in a guest whose kernel has rbd.

use std::collections::HashMap;
use std::time::Duration;

use aldaas_api::VolumeId;
use aldaas_csi::client;
use aldaas_csi::proto::csi::volume_capability::access_mode::Mode;
use aldaas_csi::proto::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use aldaas_csi::proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};
use anyhow::{Context as _, Result, bail};
use tonic::Request;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [socket, call, pod_uid, target_path, attributes @ ..] = &args[..] else {
        bail!("usage: kubelet SOCKET publish|unpublish POD-UID TARGET [KEY=VALUE]...");
    };
    let (mut plugin, target_path) = (client::node(socket.as_ref()), target_path.clone());
    let volume_id = VolumeId::of_pod(pod_uid, "db").to_string();
    match call.as_str() {
        "publish" => {
            let request = NodePublishVolumeRequest {
                volume_id,
                target_path,
                volume_capability: Some(capability()),
                volume_context: context(pod_uid, attributes)?,
                ..Default::default()
            };
            plugin.node_publish_volume(timed(request)).await?;
        }
        "unpublish" => {
            let request = NodeUnpublishVolumeRequest { volume_id, target_path };
            plugin.node_unpublish_volume(timed(request)).await?;
        }
        other => bail!("{other:?} is no call: publish or unpublish"),
    }
    Ok(())
}

/// A pod of this UID in the namespace `shop`.
fn context(pod_uid: &str, attributes: &[String]) -> Result<HashMap<String, String>> {
    let mut context: HashMap<String, String> = [
        ("csi.storage.k8s.io/pod.name", pod_uid),
        ("csi.storage.k8s.io/pod.namespace", "shop"),
        ("csi.storage.k8s.io/pod.uid", pod_uid),
        ("csi.storage.k8s.io/serviceAccount.name", "default"),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    for attribute in attributes {
        let (key, value) = attribute.split_once('=').context("an attribute is KEY=VALUE")?;
        context.insert(key.to_owned(), value.to_owned());
    }
    Ok(context)
}

fn capability() -> VolumeCapability {
    VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
    }
}

/// With kubelet's two minutes.
fn timed<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(Duration::from_secs(120));
    request
}
