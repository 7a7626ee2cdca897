//! A process of a pod: in its network namespace the engine's connections are seen.
//!
//! By the pod's UID in `/proc/<pid>/cgroup`, which both of kubelet's cgroup drivers write into the path; where that tells nothing,
//! by a mount of the clone's device in another mount namespace than ours.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use aldaas_volume::mountinfo::parse_device;

/// All processes, looked at once for any number of pods.
pub struct Processes {
    proc: PathBuf,
    /// Directory below `/proc` and cgroup paths.
    all: Vec<(PathBuf, String)>,
}

impl Processes {
    /// Looks at all processes.
    pub fn read() -> Self {
        Self::below(Path::new("/proc"))
    }

    fn below(proc: &Path) -> Self {
        let mut all = Vec::new();
        for entry in fs::read_dir(proc).into_iter().flatten().flatten() {
            let is_pid = entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit());
            // One that ends while we look is no process of anybody's any more.
            if let (true, Ok(cgroup)) = (is_pid, fs::read_to_string(entry.path().join("cgroup"))) {
                all.push((entry.path(), cgroup));
            }
        }
        Self { proc: proc.to_owned(), all }
    }

    /// One process for each network namespace that the pod's processes are in.
    pub fn of_pod(&self, uid: &str) -> Vec<PathBuf> {
        let spellings = spellings(uid);
        let is_of_pod = |cgroup: &str| cgroup.lines().any(|line| mentions(line, &spellings));
        self.one_each(self.all.iter().filter(|(_, cgroup)| is_of_pod(cgroup)).map(|(path, _)| path))
    }

    /// The same of processes in which this device is mounted, in other mount namespaces than ours and the machine's own: what we
    /// mount is seen there too.
    pub fn with_mount(&self, device: (u32, u32)) -> Vec<PathBuf> {
        let of = |process: &str| fs::read_link(self.proc.join(process).join("ns/mnt")).ok();
        let not_pods = [of("self"), of("1")];
        let mut seen: HashMap<PathBuf, bool> = HashMap::new();
        let holds = |path: &&PathBuf| {
            let Ok(namespace) = fs::read_link(path.join("ns/mnt")) else { return false };
            if not_pods.iter().flatten().any(|other| *other == namespace) {
                return false;
            }
            *seen.entry(namespace).or_insert_with(|| has_mount(path, device))
        };
        self.one_each(self.all.iter().map(|(path, _)| path).filter(holds))
    }

    fn one_each<'a>(&self, processes: impl Iterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
        let mut namespaces = BTreeSet::new();
        let is_new =
            |path: &&PathBuf| fs::read_link(path.join("ns/net")).is_ok_and(|ns| namespaces.insert(ns));
        processes.filter(is_new).cloned().collect()
    }
}

fn has_mount(process: &Path, device: (u32, u32)) -> bool {
    let table = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(2).and_then(parse_device) == Some(device))
}

/// `pod<uid>` as the cgroupfs driver writes it, and as systemd, for which `-` separates slices.
fn spellings(uid: &str) -> [String; 2] {
    [format!("pod{uid}"), format!("pod{}", uid.replace('-', "_"))]
}

/// Whether a part of the path is, or ends with, one of the spellings: `kubepods-burstable-pod<uid>.slice`, `pod<uid>`.
fn mentions(line: &str, spellings: &[String; 2]) -> bool {
    let parts = line.split('/').map(|part| part.strip_suffix(".slice").unwrap_or(part));
    let names = |part: &str| {
        spellings.iter().any(|spelling| {
            part.strip_suffix(spelling.as_str())
                .is_some_and(|before| before.is_empty() || before.ends_with('-'))
        })
    };
    parts.into_iter().any(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_of_kubelets_spellings_are_known_and_no_other_pod_is_taken_for_this_one() {
        let is = |line: &str| mentions(line, &spellings("4b0e6b1e-7a4d-4c3a-9d60-0b6a2b8b5a77"));
        for line in [
            "0::/kubepods/burstable/pod4b0e6b1e-7a4d-4c3a-9d60-0b6a2b8b5a77/0123abcd",
            "0::/kubepods/pod4b0e6b1e-7a4d-4c3a-9d60-0b6a2b8b5a77/0123abcd",
            "12:cpu,cpuacct:/kubepods/besteffort/pod4b0e6b1e-7a4d-4c3a-9d60-0b6a2b8b5a77",
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod4b0e6b1e_7a4d_4c3a_9d60_0b6a2b8b5a77.slice/cri-containerd-01.scope",
            "0::/../../kubepods-pod4b0e6b1e_7a4d_4c3a_9d60_0b6a2b8b5a77.slice/crio-01.scope",
        ] {
            assert!(is(line), "{line}");
        }
        for line in [
            "0::/",
            "0::/system.slice/containerd.service",
            "0::/kubepods/pod4b0e6b1e-7a4d-4c3a-9d60-0b6a2b8b5a78/0123abcd",
            "0::/kubepods/notapod4b0e6b1e-7a4d-4c3a-9d60-0b6a2b8b5a77/01",
            "0::/user/4b0e6b1e-7a4d-4c3a-9d60-0b6a2b8b5a77",
        ] {
            assert!(!is(line), "{line}");
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_not_found() {
        let processes = Processes::read();
        assert!(processes.of_pod("00000000-0000-4000-8000-000000000000").is_empty());
        assert!(processes.with_mount((4095, 1)).is_empty());
        assert!(processes.all.iter().any(|(path, _)| path.ends_with(std::process::id().to_string())));
    }
}
