//! What exists: the proof that nothing is left behind.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::json;

use crate::command;
use crate::keeper::Keeper;

/// All that aldaas may leave behind, at one moment. Two are compared with `assert_eq!`.
///
/// Only what lasts is in it: no process ids, device numbers, addresses or data, so that a census
/// stays the same while nothing leaks.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// Images of all rados namespaces, with their snapshots: `golden/orders-1@sealed`.
    pub images: Vec<String>,
    /// Images in the trash: `clone/a`.
    pub trash: Vec<String>,
    /// How many clients watch each image that is open somewhere.
    pub watchers: BTreeMap<String, usize>,
    /// Objects in the pool that belong to none of these images, e.g. what a cut-short removal left.
    pub objects: Vec<String>,
    /// Images of the pool that this kernel's RBD has attached.
    pub krbd: Vec<String>,
    /// Mount points below the run directory, relative to it, with the kind of file system.
    pub mounts: Vec<String>,
    /// Backing files of loop devices, relative to the run directory that they are below.
    pub loops: Vec<String>,
    /// Command lines of processes that name the run directory or sit in it.
    pub processes: Vec<String>,
    /// Files below the run directory, except its first level of directories, logs and locks, which stay.
    pub files: Vec<String>,
}

impl Census {
    pub(crate) fn take(conf: &Path, pool: &str, run_dir: &Path) -> Census {
        let stored = stored(conf, pool);
        let mounts = mounts_below(run_dir);
        let mut census = Census {
            images: stored.images,
            trash: stored.trash,
            watchers: stored.watchers,
            objects: stored.objects,
            krbd: krbd_of(pool),
            files: files_below(run_dir, &mounts),
            mounts: mounts.iter().map(|m| format!("{} ({})", relative(&m.path, run_dir), m.kind)).collect(),
            loops: loops_below(run_dir).into_iter().map(|(_, file)| relative(&file, run_dir)).collect(),
            processes: lasting(processes_of(run_dir)).map(|process| process.cmdline).collect(),
        };
        census.loops.sort();
        census.processes.sort();
        census
    }

    fn lines(&self) -> Vec<String> {
        let watchers = self.watchers.iter().map(|(image, n)| format!("{image} by {n}")).collect::<Vec<_>>();
        [
            ("image", &self.images),
            ("trash", &self.trash),
            ("watched", &watchers),
            ("object", &self.objects),
            ("krbd", &self.krbd),
            ("mount", &self.mounts),
            ("loop", &self.loops),
            ("process", &self.processes),
            ("file", &self.files),
        ]
        .into_iter()
        .flat_map(|(kind, found)| found.iter().map(move |what| format!("  {kind:<8} {what}")))
        .collect()
    }
}

/// One line for each thing, so that what differs is seen at once.
impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lines() {
            lines if lines.is_empty() => f.write_str("nothing"),
            lines => write!(f, "\n{}", lines.join("\n")),
        }
    }
}

/// What `hack/lib/census.py` prints.
#[derive(Deserialize)]
struct Stored {
    images: Vec<String>,
    trash: Vec<String>,
    watchers: BTreeMap<String, usize>,
    objects: Vec<String>,
}

fn stored(conf: &Path, pool: &str) -> Stored {
    let stored = match Keeper::of(conf) {
        Some(mut keeper) => serde_json::from_value(keeper.ask(&json!({"census": pool}))),
        None => {
            let mut script = Command::new("/usr/bin/python3");
            script.arg(command::hack().join("lib/census.py")).arg(conf).arg(pool);
            serde_json::from_slice(&command::run(&mut script, b""))
        }
    };
    stored.unwrap_or_else(|error| panic!("the census of pool {pool}: {error}"))
}

pub(crate) struct Mount {
    pub path: PathBuf,
    pub kind: String,
}

pub(crate) struct Process {
    pub pid: u32,
    pub cmdline: String,
}

/// Mounts below `dir`, in the order in which they were made.
pub(crate) fn mounts_below(dir: &Path) -> Vec<Mount> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("/proc/self/mountinfo");
    table
        .lines()
        .filter_map(|line| {
            // id parent major:minor root mountpoint options [tags…] - kind source options
            let (left, right) = line.split_once(" - ")?;
            let path = PathBuf::from(unescape(left.split(' ').nth(4)?));
            let kind = right.split(' ').next()?.to_owned();
            (path.starts_with(dir) && path != dir).then_some(Mount { path, kind })
        })
        .collect()
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// Loop devices whose backing file is below `dir`: the device and the file.
pub(crate) fn loops_below(dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    entries("/sys/block")
        .into_iter()
        .filter_map(|device| {
            let file = fs::read_to_string(device.join("loop/backing_file")).ok()?;
            let file = PathBuf::from(file.trim_end_matches('\n'));
            file.starts_with(dir)
                .then(|| (Path::new("/dev").join(device.file_name().unwrap_or_default()), file))
        })
        .collect()
}

fn krbd_of(pool: &str) -> Vec<String> {
    let read =
        |device: &Path, name| fs::read_to_string(device.join(name)).unwrap_or_default().trim().to_owned();
    let mut found: Vec<_> = entries("/sys/bus/rbd/devices")
        .iter()
        .filter(|device| read(device, "pool") == pool)
        .map(|device| format!("{}/{}", read(device, "pool_ns"), read(device, "name")))
        .collect();
    found.sort();
    found
}

/// Processes whose command line names `dir` or whose working directory is below it; not this one.
pub(crate) fn processes_of(dir: &Path) -> Vec<Process> {
    let name = dir.to_string_lossy();
    entries("/proc")
        .into_iter()
        .filter_map(|process| {
            let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
            // Empty for a kernel thread, a zombie, and one that is just being executed.
            let cmdline = fs::read(process.join("cmdline")).ok()?;
            let cmdline = String::from_utf8_lossy(&cmdline).trim_end_matches('\0').replace('\0', " ");
            let sits_in = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
            let ours = pid != std::process::id() && (sits_in || names(&cmdline, &name));
            ours.then_some(Process { pid, cmdline })
        })
        .collect()
}

/// Without what comes and goes: the children of engines that are there themselves, whose titles say what they do, and other tests
/// that take their copies of our mounts out of a namespace of their own ([`crate::own_mounts()`]).
fn lasting(processes: Vec<Process>) -> impl Iterator<Item = Process> {
    let pids: Vec<u32> = processes.iter().map(|process| process.pid).collect();
    processes.into_iter().filter(move |process| {
        let of_an_engine = || parent(process.pid).is_none_or(|parent| pids.contains(&parent));
        !(process.cmdline.starts_with("umount -l ")
            || process.cmdline.starts_with("postgres: ") && of_an_engine())
    })
}

/// The parent of a process; none when it has ended.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name in brackets may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether `text` holds the path `dir` or one below it, and not merely one that begins alike.
fn names(text: &str, dir: &str) -> bool {
    text.match_indices(dir).any(|(at, _)| {
        !text[at + dir.len()..].starts_with(|c: char| c.is_alphanumeric() || "-_.".contains(c))
    })
}

fn files_below(dir: &Path, mounts: &[Mount]) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(next) = todo.pop() {
        for path in entries(&next) {
            let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            let mounted = mounts.iter().any(|mount| mount.path == path);
            let lasting = match path.extension().and_then(|e| e.to_str()) {
                _ if is_dir => next == dir,
                extension => matches!(extension, Some("log" | "lock")),
            };
            if is_dir && !mounted {
                todo.push(path.clone());
            }
            if !lasting {
                found.push(relative(&path, dir));
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path, dir: &Path) -> String {
    path.strip_prefix(dir).unwrap_or(path).display().to_string()
}

/// The entries of a directory that may vanish any moment.
fn entries(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    fs::read_dir(dir).map(|dir| dir.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_not_named_by_one_that_begins_alike() {
        assert!(names("postgres -D /bed/s/1/data", "/bed/s/1"));
        assert!(names("aldaas-fuse --run-dir=/bed/s/1", "/bed/s/1"));
        assert!(!names("postgres -D /bed/s/12/data", "/bed/s/1"));
        assert!(!names("postgres -D /bed/s/1-x", "/bed/s/1"));
    }

    #[test]
    fn a_census_reads_as_one_line_for_each_thing() {
        let mut census = Census::default();
        assert_eq!(format!("{census:?}"), "nothing");
        census.images.push("golden/orders-1@sealed".into());
        census.watchers.insert("clone/a".into(), 1);
        assert_eq!(format!("{census:?}"), "\n  image    golden/orders-1@sealed\n  watched  clone/a by 1");
    }
}
