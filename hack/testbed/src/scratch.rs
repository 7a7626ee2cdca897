//! A directory for one test's mounts and sockets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{census, command, unique};

/// A directory of a test's own, with a short path because sockets go there. When dropped, whatever
/// processes, mounts and loop devices name it are ended, and it is removed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn create(base: &Path) -> Scratch {
        let path = base.join(unique(""));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Scratch { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let dir = &self.path;
        // Programs end before what they sit on, and FUSE servers after what sits on them.
        let (servers, programs): (Vec<_>, Vec<_>) = census::processes_of(dir)
            .into_iter()
            .partition(|process| process.cmdline.contains("aldaas-fuse"));
        programs.iter().for_each(|process| kill(process.pid));
        let mounts = census::mounts_below(dir);
        let (fuse, volumes): (Vec<_>, Vec<_>) =
            mounts.into_iter().rev().partition(|mount| mount.kind.starts_with("fuse"));
        volumes.iter().for_each(|mount| unmount(&mount.path));
        for (device, _) in census::loops_below(dir) {
            attempt(Command::new("losetup").arg("-d").arg(device));
        }
        servers.iter().for_each(|process| kill(process.pid));
        fuse.iter().for_each(|mount| unmount(&mount.path));
        if census::mounts_below(dir).is_empty() {
            if let Err(error) = fs::remove_dir_all(dir) {
                eprintln!("remove {}: {error}", dir.display());
            }
        } else {
            eprintln!("{} is left: something is still mounted below it", dir.display());
        }
    }
}

fn unmount(path: &Path) {
    if command::try_run(Command::new("umount").arg(path), b"").is_err() {
        attempt(Command::new("umount").arg("-l").arg(path));
    }
}

fn kill(pid: u32) {
    attempt(Command::new("kill").args(["-KILL", &pid.to_string()]));
}

/// Runs what may well fail because somebody else was faster; says so, no more.
fn attempt(command: &mut Command) {
    if let Err(error) = command::try_run(command, b"") {
        eprintln!("{error}");
    }
}
