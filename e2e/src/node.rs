//! The node, where it is this machine's: `e2e/cluster` made it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kube::run;

/// A daemon of the node.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Daemon {
    ApiServer,
    Kubelet,
}

/// A node made of namespaces of this machine.
pub struct Node {
    dir: PathBuf,
    first: u32,
}

impl Node {
    pub(crate) fn of_environment() -> Option<Node> {
        let dir = PathBuf::from(std::env::var_os("ALDAAS_E2E_DIR")?);
        let first = fs::read_to_string(dir.join("run/machine.pid")).ok()?.trim().parse().ok()?;
        Some(Node { dir, first })
    }

    fn cluster(&self, command: &str, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster");
        run(Command::new(script).arg(command).arg("--dir").arg(&self.dir).arg("--").args(arguments))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Stops a daemon.
    pub fn stop(&self, daemon: Daemon) {
        self.cluster("stop", &[daemon.name()]);
    }

    /// Starts it again.
    pub fn start(&self, daemon: Daemon) {
        self.cluster("start", &[daemon.name()]);
    }

    /// Runs a command on the node, as root.
    pub fn run(&self, command: &[&str]) -> String {
        self.cluster("enter", command)
    }

    /// Process ids on the node, as it sees them, of the program with this name.
    pub fn pids_of(&self, program: &str) -> Vec<String> {
        self.run(&["sh", "-c", &format!("pidof {program} || true")])
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    /// Kills a program with SIGKILL, all processes of it.
    pub fn kill(&self, program: &str) {
        let pids = self.pids_of(program);
        assert!(!pids.is_empty(), "{program} does not run on the node");
        let mut command = vec!["kill", "-KILL"];
        command.extend(pids.iter().map(String::as_str));
        self.run(&command);
    }

    /// Mounts on the node that aldaas made, and FUSE file systems.
    pub fn mounts(&self) -> Vec<String> {
        let mut found: Vec<String> = self
            .mountinfo()
            .iter()
            .filter(|mount| {
                mount.path.contains("/run/aldaas") || mount.path.contains("csi.aldaas.dev") || mount.is_data()
            })
            .map(|mount| format!("{} ({})", mount.path, mount.kind))
            .collect();
        found.sort();
        found
    }

    /// Loop devices whose file is served on the node.
    pub fn loops(&self) -> usize {
        let fuse: Vec<String> =
            self.mountinfo().into_iter().filter(|m| m.kind.starts_with("fuse")).map(|m| m.device).collect();
        let list =
            run(Command::new("losetup").args(["--list", "--noheadings", "--raw", "-O", "NAME,BACK-MAJ:MIN"]));
        list.unwrap_or_default()
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1))
            .filter(|device| fuse.iter().any(|d| d == device))
            .count()
    }

    fn mountinfo(&self) -> Vec<Mount> {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", self.first)).expect("the node runs");
        text.lines().filter_map(Mount::read).collect()
    }
}

impl Daemon {
    fn name(self) -> &'static str {
        match self {
            Daemon::ApiServer => "apiserver",
            Daemon::Kubelet => "kubelet",
        }
    }
}

struct Mount {
    device: String,
    path: String,
    kind: String,
}

impl Mount {
    fn read(line: &str) -> Option<Mount> {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(2);
        let (device, _root, path) = (fields.next()?, fields.next()?, fields.next()?);
        let kind = after.split(' ').next()?;
        Some(Mount { device: device.to_owned(), path: path.to_owned(), kind: kind.to_owned() })
    }

    /// A clone in a pod: a loop or rbd device below kubelet's directory.
    fn is_data(&self) -> bool {
        self.path.starts_with("/var/lib/kubelet/pods/") && self.path.contains("kubernetes.io~csi")
    }
}
