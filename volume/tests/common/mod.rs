//! A pool and a run directory for one test, and images in it.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that fails panics")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aldaas_rbd::ConnectOptions;
use aldaas_testbed::{Census, Scratch, TestPool, Testbed};
use aldaas_volume::{
    AttachMode, Filesystem, FuseServer, ImageSpec, Marker, Mounted, NewVolume, Node, NodeConfig, OpenVolume,
};

pub struct Fixture {
    // Dropped in this order: what is mounted goes before the pool below it.
    pub scratch: Scratch,
    pub pool: TestPool,
    pub bed: &'static Testbed,
    pub before: Census,
}

impl Fixture {
    pub fn new() -> Self {
        let bed = Testbed::get();
        let pool = bed.fresh_pool();
        let scratch = bed.scratch();
        for namespace in ["golden", "clone"] {
            bed.rbd(["namespace", "create", &format!("{}/{namespace}", pool.name())]);
        }
        let before = bed.census(pool.name(), scratch.path());
        Self { scratch, pool, bed, before }
    }

    pub fn run_dir(&self) -> &Path {
        self.scratch.path()
    }

    pub fn node(&self) -> Node {
        Node::new(self.config()).unwrap()
    }

    pub fn config(&self) -> NodeConfig {
        let ceph = ConnectOptions { conf: Some(self.bed.ceph_conf().to_owned()), ..Default::default() };
        let run_dir = self.run_dir().to_owned();
        NodeConfig {
            run_dir,
            ceph,
            attach: AttachMode::Fuse,
            fuse_program: fuse_program(),
            fuse_server: FuseServer::OnDemand,
        }
    }

    /// A blank image.
    pub fn blank(&self, name: &str, mib: u32) -> ImageSpec {
        let spec = ImageSpec::new(self.pool.name(), "golden", name);
        self.bed.rbd(["create", "--size", &format!("{mib}M"), &spec.to_string()]);
        spec
    }

    /// A sealed image with a file `data/hello`.
    pub fn sealed(&self, name: &str, mib: u32, filesystem: Filesystem) -> ImageSpec {
        let (node, spec) = (self.node(), self.blank(name, mib));
        let mounted =
            node.create(&spec, &NewVolume { filesystem, marker: &marker(name), owner: (65534, 65534) });
        std::fs::write(mounted.unwrap().data.join("hello"), "from the golden image").unwrap();
        node.close_trimmed(&spec).unwrap();
        self.bed.rbd(["snap", "create", &format!("{spec}@sealed")]);
        spec
    }

    pub fn clone_of(&self, golden: &ImageSpec, name: &str) -> ImageSpec {
        let clone = ImageSpec::new(self.pool.name(), "clone", name);
        let (parent, child) = (format!("{golden}@sealed"), clone.to_string());
        self.bed.rbd(["clone", "--rbd-default-clone-format", "2", &parent, &child]);
        clone
    }

    /// A mounted, writable image of its own.
    pub fn open(&self, name: &str) -> (Node, ImageSpec, Mounted) {
        let (node, spec) = (self.node(), self.blank(name, 64));
        let new = NewVolume { filesystem: Filesystem::Ext4, marker: &marker(name), owner: (0, 0) };
        let mounted = node.create(&spec, &new).unwrap();
        (node, spec, mounted)
    }

    pub fn remove(&self, spec: &ImageSpec) {
        let _ = Command::new("rbd")
            .arg("-c")
            .arg(self.bed.ceph_conf())
            .args(["snap", "purge", &spec.to_string()])
            .output();
        self.bed.rbd(["rm", "--no-progress", &spec.to_string()]);
    }

    /// Nothing is mounted, attached, running or left as a file.
    pub fn assert_nothing_left_on_the_node(&self) {
        let now = self.bed.census(self.pool.name(), self.run_dir());
        assert_eq!((&now.mounts, &now.loops), (&self.before.mounts, &self.before.loops));
        assert_eq!(self.loops_over_images(), Vec::<String>::new());
        assert_eq!((&now.processes, &now.files), (&self.before.processes, &self.before.files));
        assert_eq!(now.watchers, self.before.watchers);
    }

    /// Backing files of all loop devices over images of the pool, also where the mount below them was taken away: then
    /// the kernel shows another path, but with the same name.
    pub fn loops_over_images(&self) -> Vec<String> {
        let devices = std::fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path());
        devices
            .filter_map(|device| std::fs::read_to_string(device.join("loop/backing_file")).ok())
            .filter(|file| file.contains(&format!("/{}%", self.pool.name())))
            .collect()
    }

    pub fn server_pid(&self) -> Option<i32> {
        std::fs::read_to_string(self.run_dir().join("fuse.lock")).ok()?.lines().next()?.parse().ok()
    }

    /// The killed server's lock on its images would hold a removal up until it is forgotten.
    pub fn kill_server(&self) {
        let pid = self.server_pid().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let node = self.node();
        while node.fuse_server_alive().unwrap() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }

    /// A server in the foreground, once it serves.
    pub fn serve(&self, args: &[&str]) -> std::process::Child {
        let mut command = Command::new(fuse_program());
        command.args(["serve", "--foreground", "--run-dir"]).arg(self.run_dir());
        command.arg("--ceph-conf").arg(self.bed.ceph_conf()).args(args).stdout(std::process::Stdio::piped());
        let mut server = command.spawn().unwrap();
        let mut said = String::new();
        let stdout = server.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut said).unwrap();
        assert_eq!(said, "ready\n");
        server
    }

    /// The example program `by_hand` on this run directory.
    pub fn by_hand(&self, args: &[&str], failpoint: Option<&str>) -> Output {
        let mut command = Command::new(by_hand());
        command.arg("--run-dir").arg(self.run_dir()).arg("--ceph-conf").arg(self.bed.ceph_conf());
        command.args(["--attach", "fuse"]).arg("--fuse-program").arg(fuse_program()).args(args);
        if let Some(point) = failpoint {
            command.env("FAILPOINTS", format!("{point}=panic"));
        }
        command.output().unwrap()
    }
}

pub fn marker(image: &str) -> Marker {
    Marker { golden_image: image.to_owned(), database: "orders".to_owned() }
}

pub fn writable(marker: &Marker) -> OpenVolume<'_> {
    OpenVolume::writable(marker)
}

pub fn fuse_program() -> PathBuf {
    env!("CARGO_BIN_EXE_aldaas-fuse").into()
}

pub fn by_hand() -> PathBuf {
    let path = fuse_program().with_file_name("examples").join("by_hand");
    assert!(path.exists(), "{} is not built: `cargo build -p aldaas-volume --examples`", path.display());
    path
}
