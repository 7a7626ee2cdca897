//! What can go wrong with a volume, and what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// A process that keeps a mount or a device busy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// Name of the program (`/proc/<pid>/comm`).
    pub command: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.command, self.pid)
    }
}

/// Everything that [`Node`](crate::Node) can report. Every message says what to do where a user can do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name that can't be used below the run directory.
    #[error("`{spec}` can't be used as a volume: {reason}")]
    InvalidName {
        /// What was asked for.
        spec: String,
        /// Why not.
        reason: &'static str,
    },
    /// The image does not exist.
    #[error("image {spec} does not exist; `rbd ls` of that pool and rados namespace lists what does")]
    ImageNotFound {
        /// Which image.
        spec: String,
    },
    /// mkfs was asked for on a device that already holds something.
    #[error(
        "{spec} is not blank (first non-zero byte at {offset}): refusing to make a file system on it; make a new image"
    )]
    NotBlank {
        /// Which image.
        spec: String,
        /// Offset of the first byte that is not zero.
        offset: u64,
    },
    /// No file system that aldaas knows.
    #[error(
        "{spec} holds no ext4 or xfs file system: it was never finished by aldaas; remove it and build it again"
    )]
    NoFilesystem {
        /// Which image.
        spec: String,
    },
    /// The file system has no `.aldaas/marker.json`.
    #[error("{spec} carries no aldaas marker: it was not made by aldaas, and is left alone")]
    NoMarker {
        /// Which image.
        spec: String,
    },
    /// The marker names another golden image or database.
    #[error("{spec} carries the marker of {found}, expected {expected}: not mounting the wrong data")]
    WrongMarker {
        /// Which image.
        spec: String,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The marker is there but can't be read.
    #[error("{spec}: the aldaas marker is unreadable: {detail}")]
    BadMarker {
        /// Which image.
        spec: String,
        /// What is wrong.
        detail: String,
    },
    /// The image is open in another way than now asked for.
    #[error("{spec} is already {found}, asked for {asked}; close it first")]
    OpenOtherwise {
        /// Which image.
        spec: String,
        /// How it is open.
        found: &'static str,
        /// How it was asked for.
        asked: &'static str,
    },
    /// The run directory belongs to another cluster.
    #[error("run directory {} serves {serves}, not {asked}: use another --run-dir", .run_dir.display())]
    OtherCluster {
        /// Which run directory.
        run_dir: PathBuf,
        /// What it serves.
        serves: String,
        /// What was asked for.
        asked: String,
    },
    /// Somebody uses it.
    #[error("{what} is busy: {}", held_by(.holders, .because))]
    Busy {
        /// Image, mount point or device.
        what: String,
        /// Why, and what to do: said where no holder can be named.
        because: &'static str,
        /// Who holds it, as far as this process may see.
        holders: Vec<Holder>,
    },
    /// The kernel has no loop device to give.
    #[error(
        "no free loop device: {detail}; detach unused ones (`losetup -l`, `losetup -d`), load the module with `modprobe loop`, \
         raise `max_loop`, or give this container /dev/loop-control and the /dev/loop* nodes"
    )]
    NoFreeLoop {
        /// What the kernel said.
        detail: String,
    },
    /// The kernel has no number for one more mapped image.
    #[error(
        "no free rbd device ({detail}): unmap what nobody uses (`rbd device list`, `rbd device unmap`); where the module was \
         loaded without `single_major`, a machine maps some 240 images at most: load it with `modprobe rbd single_major=Y`"
    )]
    NoFreeRbd {
        /// What the kernel said.
        detail: String,
    },
    /// The kernel has no RBD client.
    #[error(
        "this kernel has no rbd (no /sys/bus/rbd, and `modprobe rbd` did not bring it); use --attach fuse or auto"
    )]
    NoKrbd,
    /// fsck could not repair the file system by itself.
    #[error("{spec}: the file system is damaged and could not be repaired automatically: {output}")]
    Damaged {
        /// Which image.
        spec: String,
        /// Last lines of fsck.
        output: String,
    },
    /// The file system was not unmounted cleanly and can't be mounted read-only.
    #[error(
        "{spec} was not unmounted cleanly and is asked for read-only; open it writable once to replay its journal"
    )]
    NeedsRecovery {
        /// Which image.
        spec: String,
    },
    /// A program that is needed could not be run or failed.
    #[error("{program}: {detail}")]
    Tool {
        /// The program.
        program: String,
        /// Its status and last words.
        detail: String,
    },
    /// The FUSE server could not be started.
    #[error("start the FUSE server {}: {detail}", .program.display())]
    ServerStart {
        /// Its path.
        program: PathBuf,
        /// Its last words.
        detail: String,
    },
    /// Nobody runs the FUSE server that somebody else was to run.
    #[error(
        "no aldaas-fuse serves {}: it is to run by itself on this node (in a cluster, the pod of aldaas' I/O server)", .run_dir.display()
    )]
    NoServer {
        /// The run directory.
        run_dir: PathBuf,
    },
    /// The FUSE server refused or failed a request.
    #[error("FUSE server: {doing}: {detail}")]
    Server {
        /// What was asked.
        doing: String,
        /// What it said.
        detail: String,
        /// The errno librbd gave, where there is one.
        errno: Option<i32>,
    },
    /// ceph.conf or the keyring lacks something that krbd needs.
    #[error("{}: {detail}", .path.display())]
    CephConf {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        detail: String,
    },
    /// A system call failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Something is held open by whom this process can't see.
pub(crate) const HELD_UNSEEN: &str = "another mount namespace or the kernel still holds it; try again";

fn held_by(holders: &[Holder], because: &str) -> String {
    if holders.is_empty() {
        return because.to_owned();
    }
    let names: Vec<String> = holders.iter().take(5).map(Holder::to_string).collect();
    format!("in use by {}; stop that first", names.join(", "))
}

impl Error {
    /// Somebody uses the volume: the same call may succeed later.
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Busy { .. } => true,
            Self::Server { errno, .. } => *errno == Some(rustix::io::Errno::BUSY.raw_os_error()),
            _ => false,
        }
    }

    /// The image does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::ImageNotFound { .. })
    }

    /// The image holds something else than what was expected: asking again won't help.
    pub fn is_wrong_content(&self) -> bool {
        matches!(
            self,
            Self::NotBlank { .. }
                | Self::NoFilesystem { .. }
                | Self::NoMarker { .. }
                | Self::WrongMarker { .. }
                | Self::BadMarker { .. }
                | Self::Damaged { .. }
        )
    }
}

/// Says what was being done when a system call failed.
pub(crate) trait Doing<T> {
    /// Turns the error into [`Error::Io`] with the given context.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|e| Error::Io { doing: what(), source: e.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_busy_says_who_holds_it_or_else_why() {
        let busy = |holders| Error::Busy { what: "p//i".into(), because: "it has another writer", holders };
        assert_eq!(busy(Vec::new()).to_string(), "p//i is busy: it has another writer");
        let holder = Holder { pid: 7, command: "cat".into() };
        assert_eq!(busy(vec![holder]).to_string(), "p//i is busy: in use by cat (pid 7); stop that first");
    }
}
