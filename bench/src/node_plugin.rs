//! The node plugin, asked over its socket as kubelet asks it, against the bare calls that no plugin can do without.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aldaas_csi::client::{self, NodeClient};
use aldaas_csi::proto::csi::volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode};
use aldaas_csi::proto::csi::{NodePublishVolumeRequest, NodeUnpublishVolumeRequest, VolumeCapability};
use aldaas_golden::{GOLDEN, GoldenImage, SEALED, Store};
use aldaas_rbd as rbd;
use aldaas_volume::{AttachMode, Filesystem, ImageSpec, Marker, NewVolume, Node, NodeConfig};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::{Value, json};

use crate::clones::manifest;
use crate::figure::{Bound, Figure};
use crate::part::{Only, Part};
use crate::sample::Sample;

const TIB: u64 = 1 << 40;
const GIB: u64 = 1 << 30;
/// Publishes, one at a time, for the percentiles.
const ROUNDS: usize = 60;
/// Publishes at once.
const STORM: usize = 100;
/// Unpublishes of a written clone.
const WRITTEN: usize = 4;
/// When the plugin counts as being at rest: well after it let go of what its start needed, so that what it needs meanwhile is back.
const SETTLED: Duration = Duration::from_secs(30);
/// The rados namespace of clones that are made by hand.
const BARE: &str = "bare-clones";

/// Where the bench finds what it needs.
pub struct Bed<'a> {
    /// Ceph's configuration file.
    pub ceph_conf: &'a Path,
    /// The directory with our programs.
    pub programs: &'a Path,
    /// A directory of its own, on a short path.
    pub dir: &'a Path,
}

/// What this file measures.
pub const PARTS: [Part; 4] = [Part::Clone, Part::Operations, Part::Storm, Part::Unpublish];

/// Measures this file's figures, as far as they are wanted.
pub async fn measure(
    bed: &Bed<'_>,
    cluster: &rbd::Cluster,
    store: &Store,
    only: &Only,
) -> Result<Vec<Figure>> {
    let (large, small) = (golden_image(bed, store, "large", TIB)?, golden_image(bed, store, "little", GIB)?);
    cluster.pool(store.pool())?.ensure_namespace(BARE)?;
    let plugin = Plugin::start(bed, store, &[&large, &small]).await?;
    let mut figures = Vec::new();
    // What a hundred at once take is held against one.
    if only.wants(Part::Clone) || only.wants(Part::Storm) {
        let one = one_at_a_time(bed, &plugin, cluster, store, &large, &mut figures).await?;
        if only.wants(Part::Storm) {
            storm(&plugin, store, &small, one, &mut figures).await?;
        }
    }
    if only.wants(Part::Operations) {
        operations(bed, &plugin, cluster, store, &small, &mut figures).await?;
    }
    if only.wants(Part::Unpublish) {
        unpublish_written(&plugin, store, &small, &mut figures).await?;
    }
    plugin.stop()?;
    for golden in [large, small] {
        store.retire(&golden.name, true)?;
    }
    Ok(figures)
}

/// A clone of 1 TiB, published and bound, against the calls that make, attach and mount one.
async fn one_at_a_time(
    bed: &Bed<'_>,
    plugin: &Plugin,
    cluster: &rbd::Cluster,
    store: &Store,
    golden: &GoldenImage,
    figures: &mut Vec<Figure>,
) -> Result<f64> {
    // On both sides one volume stays, so that neither pays for the start of its server.
    let bare_node = node(bed, "bare")?;
    let other = ImageSpec::new(store.pool().to_string(), BARE, "keep");
    let bare_clones = cluster.pool(store.pool())?.namespace(BARE)?;
    bare_clones.create(&rbd::ImageName::new("keep")?, GIB, &Default::default())?;
    bare_node.attach(&other, false)?;
    let keep_alive = plugin.volume("keep", golden);
    plugin.publish(&keep_alive).await?;
    let (mut ours, mut bare) = (Sample::default(), Sample::default());
    for n in 0..ROUNDS {
        let volume = plugin.volume(&format!("one-{n}"), golden);
        let started = Instant::now();
        plugin.publish(&volume).await?;
        ours.add(started.elapsed().as_secs_f64() * 1000.0);
        plugin.unpublish(&volume).await?;
        settled(store).await?;
        bare.add(publish_bare(bed, cluster, &bare_node, store, golden, n)?);
    }
    bare_node.detach(&other)?;
    bare_clones.remove(&rbd::ImageName::new("keep")?)?;
    plugin.unpublish(&keep_alive).await?;
    settled(store).await?;
    let against = "clone + attach + mount by bare calls";
    for (percent, bound) in [(50.0, 1.2), (99.0, 3.0)] {
        let name = format!("NodePublishVolume of a 1 TiB golden image, p{percent}");
        let (value, baseline) = (ours.percentile(percent), bare.percentile(percent));
        figures.push(Figure::new(&name, "ms", value, against, baseline, Bound::Times(bound)));
    }
    Ok(ours.p50())
}

/// Milliseconds of the bare calls: a clone by librbd, a device for it, and its file system mounted.
fn publish_bare(
    bed: &Bed<'_>,
    cluster: &rbd::Cluster,
    node: &Node,
    store: &Store,
    golden: &GoldenImage,
    n: usize,
) -> Result<f64> {
    let pool = cluster.pool(store.pool())?;
    let (parents, clones) = (pool.namespace(GOLDEN)?, pool.namespace(BARE)?);
    let (parent, child) =
        (rbd::ImageName::new(golden.name.to_string())?, rbd::ImageName::new(format!("bare-{n}"))?);
    let spec = ImageSpec::new(store.pool().to_string(), BARE, child.to_string());
    let point = bed.dir.join("bare-mount");
    fs::create_dir_all(&point)?;
    let started = Instant::now();
    parents.clone_image(&parent, SEALED, &clones, &child, &bare_options(golden))?;
    let device = node.attach(&spec, false)?;
    rustix::mount::mount(&device, &point, "ext4", MountFlags::NOATIME, None)?;
    let took = started.elapsed().as_secs_f64() * 1000.0;
    rustix::mount::unmount(&point, UnmountFlags::empty())?;
    node.detach(&spec)?;
    clones.remove(&child)?;
    Ok(took)
}

/// As ours are made: their shape, and nothing else, is the same on both sides.
fn bare_options(golden: &GoldenImage) -> rbd::CloneOptions {
    let object_size = Some(aldaas_golden::default_object_size(golden.record.size));
    rbd::CloneOptions { object_size, ..Default::default() }
}

/// The same in RADOS operations, which a busy machine does not change.
async fn operations(
    bed: &Bed<'_>,
    plugin: &Plugin,
    cluster: &rbd::Cluster,
    store: &Store,
    golden: &GoldenImage,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let pool = cluster.pool(store.pool())?;
    let (parents, clones) = (pool.namespace(GOLDEN)?, pool.namespace(BARE)?);
    let (parent, child) = (rbd::ImageName::new(golden.name.to_string())?, rbd::ImageName::new("operations")?);
    let clone = bare_options(golden);
    let mut samples: [Sample; 4] = Default::default();
    for n in 0..8 {
        let before = cluster.objecter_ops()?;
        parents.clone_image(&parent, SEALED, &clones, &child, &clone)?;
        let cloned = cluster.objecter_ops()?;
        clones.remove(&child)?;
        samples[0].add((cloned - before) as f64);
        samples[1].add((cluster.objecter_ops()? - cloned) as f64);
        let volume = plugin.volume(&format!("operations-{n}"), golden);
        let before = plugin.operations(bed)?;
        plugin.publish(&volume).await?;
        let published = plugin.operations(bed)?;
        plugin.unpublish(&volume).await?;
        settled(store).await?;
        samples[2].add((published - before) as f64);
        samples[3].add((plugin.operations(bed)? - published) as f64);
    }
    let [clone, remove, publish, unpublish] = samples.map(|sample| sample.p50());
    let unit = "operations";
    figures.push(Figure::new(
        "RADOS operations of one publish up to the attach",
        unit,
        publish,
        "bare clone call",
        clone,
        Bound::More(24.0),
    ));
    figures.push(Figure::new(
        "RADOS operations of one unpublish, purge included",
        unit,
        unpublish,
        "bare remove call",
        remove,
        Bound::More(40.0),
    ));
    Ok(())
}

/// A hundred at once, and what they cost in memory.
async fn storm(
    plugin: &Plugin,
    store: &Store,
    golden: &GoldenImage,
    one: f64,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let first = plugin.volume("first", golden);
    plugin.publish(&first).await?;
    let (plugin_before, server_before) = plugin.memory()?;
    let volumes: Vec<_> = (0..STORM).map(|n| plugin.volume(&format!("storm-{n}"), golden)).collect();
    let started = Instant::now();
    let each = volumes
        .iter()
        .map(|volume| async { plugin.publish(volume).await.map(|()| started.elapsed().as_secs_f64()) });
    let took = futures_util::future::join_all(each).await.into_iter().collect::<Result<Vec<_>>>()?;
    let total = started.elapsed().as_secs_f64();
    let slowest = took.into_iter().fold(0.0, f64::max);
    let (plugin_after, server_after) = plugin.memory()?;
    for volume in volumes.iter().chain([&first]) {
        plugin.unpublish(volume).await?;
    }
    settled(store).await?;
    let name = format!("{STORM} publishes of one image at once");
    let in_sequence = one * STORM as f64 / 1000.0;
    figures.push(Figure::new(&name, "s", total, "100 x the p50 of one", in_sequence, Bound::Times(0.5)));
    figures.push(Figure::new(
        "the slowest of them",
        "s",
        slowest,
        "kubelet's 2 minutes",
        120.0,
        Bound::Times(1.0),
    ));
    let each = |before: f64, after: f64| (after - before) / STORM as f64;
    let grown = each(plugin_before, plugin_after);
    let with_server = grown + each(server_before, server_after);
    let mib = "MiB";
    figures.push(Figure::new(
        "plugin memory with 0 clones mounted",
        mib,
        plugin.at_rest,
        "absolute",
        40.0,
        Bound::Times(1.0),
    ));
    figures.push(Figure::new(
        "plugin memory, for each clone mounted",
        mib,
        grown,
        "absolute",
        1.0,
        Bound::Times(1.0),
    ));
    figures.push(Figure::new(
        "the same with the FUSE server",
        mib,
        with_server,
        "absolute",
        8.0,
        Bound::Times(1.0),
    ));
    Ok(())
}

/// Taking away a clone costs the same, whatever was written to it.
async fn unpublish_written(
    plugin: &Plugin,
    store: &Store,
    golden: &GoldenImage,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    let (mut written, mut unwritten) = (Sample::default(), Sample::default());
    for n in 0..2 * WRITTEN {
        let volume = plugin.volume(&format!("written-{n}"), golden);
        plugin.publish(&volume).await?;
        let sample = if n % 2 == 0 { &mut unwritten } else { &mut written };
        if n % 2 == 1 {
            fill(&volume.target)?;
        }
        let started = Instant::now();
        plugin.unpublish(&volume).await?;
        sample.add(started.elapsed().as_secs_f64() * 1000.0);
        settled(store).await?;
    }
    let name = "unpublish of a clone with 1 GiB written, p50";
    figures.push(Figure::new(
        name,
        "ms",
        written.p50(),
        "of an unwritten one",
        unwritten.p50(),
        Bound::Times(1.2),
    ));
    Ok(())
}

/// Writes close to 1 GiB, half of it synced, half of it still on its way.
fn fill(target: &Path) -> Result<()> {
    use std::io::Write as _;
    let block = vec![0x5a_u8; 1 << 20];
    for part in ["synced", "dirty"] {
        let mut file = fs::File::create(target.join(part))?;
        (0..440).try_for_each(|_| file.write_all(&block))?;
        if part == "synced" {
            file.sync_all()?;
        }
    }
    Ok(())
}

/// Waits until everything that was taken away is purged, so that it slows nobody.
async fn settled(store: &Store) -> Result<()> {
    let since = Instant::now();
    while !store.trashed()?.is_empty() {
        ensure!(since.elapsed() < Duration::from_secs(120), "the trash is not emptied");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A golden image with an empty file system of this size.
fn golden_image(bed: &Bed<'_>, store: &Store, database: &str, size: u64) -> Result<GoldenImage> {
    let name = aldaas_api::GoldenImageName::new(&database.parse()?, jiff::Timestamp::now());
    let candidate = store.begin(&name, size, "nothing")?;
    let spec = ImageSpec::new(store.pool().to_string(), GOLDEN, name.to_string());
    let marker = Marker { golden_image: name.to_string(), database: database.to_owned() };
    let node = node(bed, "build")?;
    node.create(&spec, &NewVolume { filesystem: Filesystem::Ext4, marker: &marker, owner: (0, 0) })?;
    node.close(&spec)?;
    candidate.seal(&manifest(database))?;
    candidate.ready()?;
    Ok(store.golden_image(&name)?)
}

fn node(bed: &Bed<'_>, name: &str) -> Result<Node> {
    Ok(Node::new(NodeConfig {
        run_dir: bed.dir.join(name),
        ceph: options(bed),
        attach: AttachMode::Auto,
        fuse_program: bed.programs.join("aldaas-fuse"),
        fuse_server: Default::default(),
    })?)
}

fn options(bed: &Bed<'_>) -> rbd::ConnectOptions {
    rbd::ConnectOptions { conf: Some(bed.ceph_conf.to_owned()), ..Default::default() }
}

/// A volume as kubelet asks for it.
struct Volume {
    id: String,
    target: PathBuf,
    context: HashMap<String, String>,
}

/// The plugin's process, and a connection to it.
struct Plugin {
    child: Child,
    client: NodeClient,
    kubelet: PathBuf,
    run_dir: PathBuf,
    at_rest: f64,
}

impl Plugin {
    async fn start(bed: &Bed<'_>, store: &Store, images: &[&GoldenImage]) -> Result<Self> {
        let (kubelet, run_dir, socket) =
            (bed.dir.join("kubelet"), bed.dir.join("run"), bed.dir.join("csi.sock"));
        fs::create_dir_all(&kubelet)?;
        let objects = bed.dir.join("objects.json");
        fs::write(&objects, serde_json::to_vec(&objects_of(images))?)?;
        let child = Command::new(bed.programs.join("aldaas-csi"))
            .args(["serve", "--node", "bench", "--reaper-period", "1d", "--pool", store.pool().as_ref()])
            .arg("--endpoint")
            .arg(format!("unix://{}", socket.display()))
            .arg("--objects")
            .arg(&objects)
            .arg("--kubelet-dir")
            .arg(&kubelet)
            .arg("--run-dir")
            .arg(&run_dir)
            .arg("--ceph-conf")
            .arg(bed.ceph_conf)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()
            .context("start aldaas-csi")?;
        let mut plugin = Self { client: client::node(&socket), child, kubelet, run_dir, at_rest: 0.0 };
        let since = Instant::now();
        while plugin
            .client
            .clone()
            .node_get_info(aldaas_csi::proto::csi::NodeGetInfoRequest {})
            .await
            .is_err()
        {
            ensure!(since.elapsed() < Duration::from_secs(20), "the plugin does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // At rest means connected, and that nothing happens for a while: one clone comes and goes first.
        let volume = plugin.volume("warm-up", images[0]);
        plugin.publish(&volume).await?;
        plugin.unpublish(&volume).await?;
        tokio::time::sleep(SETTLED).await;
        plugin.at_rest = memory_of(plugin.child.id())?;
        Ok(plugin)
    }

    fn volume(&self, name: &str, golden: &GoldenImage) -> Volume {
        let target = self.kubelet.join("pods").join(name).join("volumes/kubernetes.io~csi/db/mount");
        let context = [
            ("db", format!("{}:latest", golden.name.database())),
            ("image", golden.name.to_string()),
            ("csi.storage.k8s.io/pod.name", name.to_owned()),
            ("csi.storage.k8s.io/pod.namespace", "bench".to_owned()),
            ("csi.storage.k8s.io/pod.uid", name.to_owned()),
            ("csi.storage.k8s.io/serviceAccount.name", "default".to_owned()),
            ("csi.storage.k8s.io/ephemeral", "true".to_owned()),
        ];
        Volume {
            id: aldaas_api::VolumeId::of_pod(name, "db").to_string(),
            target,
            context: context.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        }
    }

    async fn publish(&self, volume: &Volume) -> Result<()> {
        let parent = volume.target.parent().context("a target has a parent")?;
        fs::create_dir_all(parent)?;
        let capability = VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter.into() }),
        };
        let request = NodePublishVolumeRequest {
            volume_id: volume.id.clone(),
            target_path: volume.target.display().to_string(),
            volume_capability: Some(capability),
            volume_context: volume.context.clone(),
            ..Default::default()
        };
        self.client.clone().node_publish_volume(request).await.context("publish")?;
        Ok(())
    }

    async fn unpublish(&self, volume: &Volume) -> Result<()> {
        let request = NodeUnpublishVolumeRequest {
            volume_id: volume.id.clone(),
            target_path: volume.target.display().to_string(),
        };
        self.client.clone().node_unpublish_volume(request).await.context("unpublish")?;
        Ok(())
    }

    /// RADOS operations of the plugin's client so far, from its admin socket.
    fn operations(&self, bed: &Bed<'_>) -> Result<u64> {
        let sockets = bed.ceph_conf.with_file_name("run");
        let ours = format!(".{}.", self.child.id());
        for entry in fs::read_dir(&sockets)? {
            let path = entry?.path();
            if !path.file_name().is_some_and(|name| name.to_string_lossy().contains(&ours)) {
                continue;
            }
            let output = Command::new("ceph")
                .arg("--admin-daemon")
                .arg(&path)
                .args(["perf", "dump", "objecter"])
                .output()?;
            let counters: Value = serde_json::from_slice(&output.stdout).context("the plugin's counters")?;
            return counters["objecter"]["op"].as_u64().context("no counter of operations");
        }
        bail!("the plugin has no admin socket in {}", sockets.display())
    }

    /// MiB of memory of the plugin and of the server of its volumes.
    fn memory(&self) -> Result<(f64, f64)> {
        let lock = fs::read_to_string(self.run_dir.join("fuse.lock")).unwrap_or_default();
        let server = lock.split_whitespace().next().and_then(|pid| pid.parse().ok());
        Ok((memory_of(self.child.id())?, server.map_or(Ok(0.0), memory_of)?))
    }

    fn stop(mut self) -> Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the plugin ended with {status}");
        Ok(())
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn memory_of(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Databases that the namespace `bench` may clone.
fn objects_of(images: &[&GoldenImage]) -> Value {
    let database = |image: &&GoldenImage| {
        json!({
            "apiVersion": "aldaas.dev/v1alpha1", "kind": "Database", "metadata": {"name": image.name.database()},
            "spec": {
                "engine": {"image": "postgres:15"},
                "source": {"s3": {"bucket": "backup"}},
                "storage": {"size": "1Gi"},
                "access": {"namespaceSelector": {}},
            },
        })
    };
    let mut items: Vec<Value> = images.iter().map(database).collect();
    items.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}}));
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}
