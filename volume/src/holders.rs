//! Who keeps a mount or a device busy, from /proc. Looks only at what can't block: never at the file itself, since
//! the file system below it may be dead.

use std::collections::HashSet;
use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use crate::error::Holder;
use crate::mountinfo::Mount;

/// Processes with an open file, a working directory, a root or a mapping on one of the mounts.
pub(crate) fn of_mounts(mounts: &[Mount]) -> Vec<Holder> {
    let ids: HashSet<u64> = mounts.iter().map(|m| m.id).collect();
    let devices: HashSet<String> =
        mounts.iter().map(|m| format!("{:02x}:{:02x}", m.device.0, m.device.1)).collect();
    processes(|process| {
        let proc = process.path();
        let inside = |link: &str| {
            std::fs::read_link(proc.join(link))
                .is_ok_and(|to| mounts.iter().any(|m| to.starts_with(&m.point)))
        };
        inside("cwd") || inside("root") || has_open_file(&proc, &ids) || has_mapping(&proc, &devices)
    })
}

/// Processes that have the device node open.
pub(crate) fn of_device(device: &Path) -> Vec<Holder> {
    processes(|process| {
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { return false };
        files.filter_map(Result::ok).any(|f| std::fs::read_link(f.path()).is_ok_and(|to| to == device))
    })
}

fn processes(uses: impl Fn(&DirEntry) -> bool) -> Vec<Holder> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut found: Vec<Holder> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            uses(&entry).then(|| Holder { pid, command: command(&entry.path()) })
        })
        .collect();
    found.sort_by_key(|h| h.pid);
    found
}

fn command(proc: &Path) -> String {
    std::fs::read_to_string(proc.join("comm")).map(|c| c.trim().to_owned()).unwrap_or_else(|_| "?".to_owned())
}

fn has_open_file(proc: &Path, mount_ids: &HashSet<u64>) -> bool {
    let Ok(files) = std::fs::read_dir(proc.join("fdinfo")) else { return false };
    files.filter_map(Result::ok).map(|f: DirEntry| -> PathBuf { f.path() }).any(|path| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let id = text.lines().find_map(|l| l.strip_prefix("mnt_id:")).and_then(|v| v.trim().parse().ok());
        id.is_some_and(|id| mount_ids.contains(&id))
    })
}

/// `/proc/<pid>/maps` names the device of each mapped file in hexadecimal.
fn has_mapping(proc: &Path, devices: &HashSet<String>) -> bool {
    let maps = std::fs::read_to_string(proc.join("maps")).unwrap_or_default();
    maps.lines().filter_map(|l| l.split_ascii_whitespace().nth(3)).any(|device| devices.contains(device))
}
