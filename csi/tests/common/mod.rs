//! The real plugin on a pool and a directory of a test's own, and a client that calls it as kubelet does.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

mod golden;
mod objects;
mod writer;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aldaas_api::VolumeId;
use aldaas_csi::client::{self, NodeClient};
use aldaas_csi::proto::csi::volume_capability::access_mode::Mode;
use aldaas_csi::proto::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use aldaas_csi::proto::csi::{
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodeUnpublishVolumeRequest, ProbeRequest, VolumeCapability,
};
use aldaas_testbed::{Census, Scratch, TestPool, Testbed};
use rustix::process::{Pid, Signal, kill_process};
use tonic::{Code, Request, Status};

pub use golden::{Golden, HELLO, image};
pub use objects::Objects;
pub use writer::Writer;

/// The plugin's node.
pub const NODE: &str = "node-a";
/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A plugin, and all that it works on.
pub struct Bed {
    // Dropped in this order: programs, what is mounted, the pool below it.
    pub plugin: Plugin,
    pub golden: Golden,
    pub objects: Objects,
    pub scratch: Scratch,
    pub pool: TestPool,
    pub bed: &'static Testbed,
}

impl Bed {
    /// A plugin that serves, and one golden image of the database `orders`.
    pub fn new() -> Self {
        let bed = Bed::without_image();
        bed.golden.build(1);
        bed
    }

    /// A plugin that serves.
    pub fn without_image() -> Self {
        let bed = Testbed::get();
        let (pool, scratch) = (bed.fresh_pool(), bed.scratch());
        let objects = Objects::new(scratch.path());
        let golden = Golden::new(bed.ceph_conf(), pool.name(), &scratch.path().join("build"));
        let plugin = Plugin::new(scratch.path(), bed.ceph_conf(), pool.name(), NODE);
        let mut bed = Self { plugin, golden, objects, scratch, pool, bed };
        bed.plugin.start(&[]);
        bed
    }

    /// Waits until the plugin says that it can't publish.
    pub async fn assert_not_ready(&self) {
        let begun = Instant::now();
        loop {
            let probe = client::identity(&self.plugin.socket).probe(ProbeRequest {}).await.unwrap();
            if probe.into_inner().ready == Some(false) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{}", self.plugin.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Cuts the plugin's own connection to Ceph off: it watches nothing, so its address is in its log.
    pub fn blocklist_plugin(&self) {
        let log = self.plugin.log();
        let connected = log.lines().rev().find(|line| line.contains("connected to Ceph")).unwrap();
        let connected: serde_json::Value = serde_json::from_str(connected).unwrap();
        let addresses = connected["addresses"].as_str().unwrap();
        for address in addresses.split(", ") {
            self.bed.ceph(["osd", "blocklist", "add", address]);
        }
    }

    pub fn census(&self) -> Census {
        self.bed.census(self.pool.name(), self.scratch.path())
    }

    /// Waits until all that exists is what `before` says: purging goes on when a call has ended.
    pub fn assert_census(&self, before: &Census, when: &str) {
        let begun = Instant::now();
        loop {
            let now = self.census();
            if now == *before {
                return;
            }
            if begun.elapsed() > PATIENCE {
                panic!("{when}: before {before:?}\nnow {now:?}\n{}", self.plugin.log());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A running plugin of one node.
pub struct Plugin {
    child: Option<Child>,
    command: Vec<String>,
    pub dir: PathBuf,
    pub kubelet: PathBuf,
    pub socket: PathBuf,
    pub run_dir: PathBuf,
    log: PathBuf,
}

impl Plugin {
    /// Not started yet. `dir` also holds `objects.json`.
    pub fn new(dir: &Path, conf: &Path, pool: &str, node: &str) -> Self {
        let kubelet = dir.join(format!("kubelet-{node}"));
        std::fs::create_dir_all(kubelet.join("pods")).unwrap();
        let (socket, run_dir) = (dir.join(format!("{node}.sock")), dir.join(format!("run-{node}")));
        let text = |path: &Path| path.display().to_string();
        let command = [
            "serve",
            "--endpoint",
            &format!("unix://{}", text(&socket)),
            "--kubelet-dir",
            &text(&kubelet),
            "--node",
            node,
            "--objects",
            &text(&dir.join("objects.json")),
            "--ceph-conf",
            &text(conf),
            "--pool",
            pool,
            "--run-dir",
            &text(&run_dir),
        ];
        let log = dir.join(format!("{node}.log"));
        let command = command.map(ToOwned::to_owned).to_vec();
        Self { child: None, command, dir: dir.to_owned(), kubelet, socket, run_dir, log }
    }

    /// More flags.
    pub fn with(mut self, flags: &[&str]) -> Self {
        self.command.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// Starts it, and waits until it serves.
    pub fn start(&mut self, envs: &[(&str, &str)]) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(Testbed::program("aldaas-csi"));
        if !self.command.iter().any(|flag| flag == "--reaper-period") {
            // Most tests make no pods: the reaper would take their volumes for what nobody needs.
            command.env("ALDAAS_REAPER_PERIOD", "1h");
        }
        command.args(&self.command).envs(envs.iter().copied()).stdin(Stdio::null());
        self.child = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(&self.socket).is_err() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts it so that it kills itself at a failpoint.
    pub fn start_to_die_at(&mut self, failpoint: &str) {
        self.start(&[("FAILPOINTS", &format!("{failpoint}=panic"))]);
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        let _ = kill_process(pid, signal);
    }

    /// As the kernel would.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.take().unwrap().wait().unwrap();
    }

    /// As kubelet does when it is upgraded.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.child.take().unwrap().wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
    }

    /// As kubelet does, of one that something holds up: it ends, however.
    pub fn stop_hanging(&mut self) {
        self.signal(Signal::TERM);
        self.child.take().unwrap().wait().unwrap();
    }

    /// Waits until it has killed itself; false if it still lives after `patience`.
    pub fn has_died(&mut self, patience: Duration) -> bool {
        let begun = Instant::now();
        loop {
            if self.child.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.child = None;
                return true;
            }
            if begun.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process that serves its images, where the kernel doesn't.
    pub fn server(&self) -> Option<i32> {
        std::fs::read_to_string(self.run_dir.join("fuse.lock")).ok()?.lines().next()?.parse().ok()
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn client(&self) -> NodeClient {
        client::node(&self.socket)
    }

    /// Where kubelet would want a volume of this id.
    pub fn target(&self, volume: &str) -> PathBuf {
        match self.volume_dir(volume) {
            dir if dir.exists() => dir.join("mount"),
            _ => self.kubelet.join("pods").join(format!("{volume}-mount")),
        }
    }

    /// Makes the directories that kubelet itself makes for a pod's volume; its targets are there from then on.
    pub fn make_pod_dir(&self, volume: &str) {
        std::fs::create_dir_all(self.volume_dir(volume)).unwrap();
    }

    fn volume_dir(&self, volume: &str) -> PathBuf {
        self.kubelet.join("pods").join(volume).join("volumes/kubernetes.io~csi/db")
    }

    /// What kubelet would ask for: `attributes` are the volume's own, in the pod `pod` of the namespace `shop`.
    pub fn request(&self, volume: &str, attributes: &[(&str, &str)]) -> NodePublishVolumeRequest {
        let kubelet = [
            ("csi.storage.k8s.io/pod.name", "web-1"),
            ("csi.storage.k8s.io/pod.namespace", "shop"),
            ("csi.storage.k8s.io/pod.uid", volume),
            ("csi.storage.k8s.io/serviceAccount.name", "default"),
            ("csi.storage.k8s.io/ephemeral", "true"),
        ];
        let context: HashMap<String, String> = kubelet
            .iter()
            .chain(attributes)
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        NodePublishVolumeRequest {
            volume_id: id(volume),
            target_path: self.target(volume).display().to_string(),
            volume_capability: Some(mount_capability(Mode::SingleNodeWriter)),
            volume_context: context,
            ..Default::default()
        }
    }

    pub async fn publish(&self, volume: &str, attributes: &[(&str, &str)]) -> Result<PathBuf, Status> {
        self.send(self.request(volume, attributes)).await.map(|()| self.target(volume))
    }

    pub async fn send(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.client().node_publish_volume(timed(request)).await.map(drop)
    }

    pub async fn unpublish(&self, volume: &str) -> Result<(), Status> {
        let target_path = self.target(volume).display().to_string();
        let request = NodeUnpublishVolumeRequest { volume_id: id(volume), target_path };
        self.client().node_unpublish_volume(timed(request)).await.map(drop)
    }

    pub async fn stats(&self, volume: &str) -> Result<NodeGetVolumeStatsResponse, Status> {
        let request = NodeGetVolumeStatsRequest {
            volume_id: id(volume),
            volume_path: self.target(volume).display().to_string(),
            ..Default::default()
        };
        self.client().node_get_volume_stats(timed(request)).await.map(tonic::Response::into_inner)
    }

    /// The RBD image of a pod's volume.
    pub fn handle(volume: &str) -> String {
        id(volume)
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
    }
}

/// The id that kubelet gives the volume `db` of the pod with this UID.
pub fn id(pod_uid: &str) -> String {
    VolumeId::of_pod(pod_uid, "db").to_string()
}

/// Waits until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        // To look may cost more than what is waited for.
        std::thread::sleep((begun.elapsed() / 10).clamp(Duration::from_millis(20), Duration::from_secs(1)));
    }
}

/// With kubelet's two minutes.
pub fn timed<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(Duration::from_secs(120));
    request
}

pub fn mount_capability(mode: Mode) -> VolumeCapability {
    VolumeCapability {
        access_type: Some(AccessType::Mount(MountVolume::default())),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

/// The code that a call ended with.
pub fn code<T>(result: &Result<T, Status>) -> Code {
    result.as_ref().map_or_else(Status::code, |_| Code::Ok)
}

/// Whether anything is mounted at exactly this path.
pub fn is_mounted(path: &Path) -> bool {
    aldaas_volume::mountinfo::is_mounted(path).unwrap()
}
