//! The target: the directory below kubelet's own in which a pod's volume is to appear.
//!
//! Its path comes from outside. It is looked at without following a symbolic link anywhere below kubelet's directory, and what
//! is mounted there is read from the kernel's table, so that a file system that is dead can be looked at too.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use aldaas_volume::mountinfo::{self, Mounts};
use aldaas_volume::{ImageSpec, Mounted, Node};
use fail::fail_point;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// The longest path that the kernel takes.
const PATH_LIMIT: usize = 4095;
/// What of a volume's file system is bound: see `aldaas-volume`.
const DATA: &str = "/data";
const IN_THE_WAY: &str = "a file or a symbolic link is in the way";
/// How long an unmount waits for whoever looks at the volume in passing.
const PATIENCE: Duration = Duration::from_millis(500);

/// Why a path is no target. It is wrong whatever is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// Nothing, or too much, or bytes that no path has.
    #[error("target_path is empty, longer than {PATH_LIMIT} bytes, or holds a zero byte")]
    NoPath,
    /// Not absolute.
    #[error("target_path {0:?} is not absolute")]
    Relative(String),
    /// `..`
    #[error("target_path {0:?} holds `..`")]
    Upward(String),
    /// Not kubelet's.
    #[error("target_path {path:?} is not below kubelet's directory {root:?}: see --kubelet-dir")]
    Outside {
        /// The path.
        path: String,
        /// kubelet's directory.
        root: PathBuf,
    },
}

/// Why nothing can be done at a target as it is now.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A file, a symbolic link, a directory with something in it.
    #[error("target {} can't be used: {what}", .target.display())]
    Unusable {
        /// The target.
        target: PathBuf,
        /// What is in the way.
        what: &'static str,
    },
    /// Somebody else's mount.
    #[error("target {} has a mount that is not ours ({kind} of {source}): unmount it", .target.display(), source = .of)]
    Foreign {
        /// The target.
        target: PathBuf,
        /// The kind of file system.
        kind: String,
        /// What is mounted.
        of: String,
    },
    /// The table of mounts can't be read.
    #[error(transparent)]
    Volume(#[from] aldaas_volume::Error),
    /// A system call failed.
    #[error("{doing} {}: {error}", .target.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The target.
        target: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
}

/// A path below kubelet's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    root: PathBuf,
    below: PathBuf,
}

/// What is at a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing, or an empty directory.
    Free,
    /// One of our volumes.
    Volume(ImageSpec),
    /// Something that is not ours to hide.
    Taken(&'static str),
    /// A mount of somebody else's.
    Foreign {
        /// The kind of file system.
        kind: String,
        /// What is mounted.
        of: String,
    },
}

impl Target {
    /// Checks a path by its form alone.
    ///
    /// # Errors
    /// [`BadTarget`].
    pub fn parse(path: &str, kubelet_dir: &Path) -> Result<Self, BadTarget> {
        if path.is_empty() || path.len() > PATH_LIMIT || path.contains('\0') {
            return Err(BadTarget::NoPath);
        }
        let shown = || path.chars().take(200).collect();
        if !path.starts_with('/') {
            return Err(BadTarget::Relative(shown()));
        }
        if Path::new(path).components().any(|part| part == Component::ParentDir) {
            return Err(BadTarget::Upward(shown()));
        }
        match Path::new(path).strip_prefix(kubelet_dir) {
            // Collected from its parts, so that `.`, `//` and a `/` at the end are gone.
            Ok(below) if below.components().next().is_some() => {
                Ok(Self { root: kubelet_dir.to_owned(), below: below.components().collect() })
            }
            _ => Err(BadTarget::Outside { path: shown(), root: kubelet_dir.to_owned() }),
        }
    }

    /// Its path as the kernel shows it: kubelet's directory itself may be a symbolic link.
    pub fn path(&self) -> PathBuf {
        self.root.canonicalize().unwrap_or_else(|_| self.root.clone()).join(&self.below)
    }

    /// What is there now.
    ///
    /// # Errors
    /// When the table of mounts or the directory can't be read.
    pub fn look(&self, node: &Node) -> Result<Seen, TargetError> {
        let path = self.path();
        if let Some(top) = mountinfo::top_at(&path)? {
            return Ok(match node.spec_of_mount(&path)? {
                Some(spec) if top.root == Path::new(DATA) => Seen::Volume(spec),
                _ => Seen::Foreign { kind: top.kind, of: top.source },
            });
        }
        let directory = match self.open(OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(Seen::Free),
            Err(Errno::LOOP | Errno::NOTDIR) => return Ok(Seen::Taken(IN_THE_WAY)),
            Err(error) => return Err(self.failed("open", error)),
        };
        let entries = rustix::fs::Dir::read_from(&directory).map_err(|error| self.failed("list", error))?;
        let holds_any = entries.flatten().any(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."));
        Ok(if holds_any { Seen::Taken("it holds files, which a mount would hide") } else { Seen::Free })
    }

    /// Makes the volume's data appear, in a directory that is made where it is missing. What is there must be [`Seen::Free`].
    ///
    /// # Errors
    /// When it can't be bound; nothing is bound then.
    pub fn bind(&self, volume: &Mounted) -> Result<(), TargetError> {
        self.make()?;
        fail_point!("csi::after-target");
        let path = self.path();
        rustix::mount::mount_bind(&volume.data, &path)
            .map_err(|error| self.failed("bind a volume at", error))?;
        fail_point!("csi::after-bind");
        let mounts = Mounts::read()?;
        let device = |at: &Path| mounts.top_at(at).map(|mount| (mount.device, mount.root));
        match (device(&path), device(&volume.data)) {
            // A pod must never run on the host's own disk.
            (Some(found), Some(wanted)) if found == wanted && found.1 == Path::new(DATA) => Ok(()),
            _ => {
                let _ = rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW);
                Err(self.failed("bind a volume at", Errno::STALE))
            }
        }
    }

    fn make(&self) -> Result<(), TargetError> {
        let name = self.below.file_name().unwrap_or_default();
        let parent =
            Self { below: self.below.parent().map(Path::to_owned).unwrap_or_default(), ..self.clone() };
        let made = parent
            .open(OFlags::RDONLY | OFlags::DIRECTORY)
            .and_then(|parent| rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o750)));
        match made {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(Errno::NOENT) => Err(self.unusable("the directory that it is to be in does not exist")),
            Err(Errno::LOOP | Errno::NOTDIR) => Err(self.unusable(IN_THE_WAY)),
            Err(error) => Err(self.failed("make", error)),
        }
    }

    /// Takes away what we mounted there, and the directory if it is empty then. Nothing there is fine. A mount that somebody
    /// still uses goes from the directory all the same, and stays with whoever uses it.
    ///
    /// # Errors
    /// [`TargetError::Foreign`] where somebody else's mount is in the way.
    pub fn unbind(&self, node: &Node) -> Result<(), TargetError> {
        let path = self.path();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.look(node) {
                Ok(Seen::Volume(_)) => {}
                Ok(Seen::Foreign { kind, of }) => {
                    return Err(TargetError::Foreign { target: path, kind, of });
                }
                _ => break,
            }
            match rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW) {
                // INVAL: gone since we looked.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(Errno::BUSY) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10))
                }
                Err(Errno::BUSY) => {
                    rustix::mount::unmount(&path, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
                        .map_err(|error| self.failed("unmount", error))?
                }
                Err(error) => return Err(self.failed("unmount", error)),
            }
        }
        fail_point!("csi::after-unbind");
        // Never more than an empty directory: a lost race would erase data.
        match rustix::fs::rmdir(&path) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(error) => {
                tracing::warn!(target_path = %path.display(), %error, "the target's directory stays")
            }
        }
        fail_point!("csi::after-rmdir");
        Ok(())
    }

    /// Opens what is there, with no symbolic link on the way from kubelet's directory on.
    fn open(&self, flags: OFlags) -> Result<File, Errno> {
        let root = rustix::fs::openat(
            CWD,
            &self.root,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let below = if self.below.as_os_str().is_empty() { Path::new(".") } else { &self.below };
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let how = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        rustix::fs::openat2(&root, below, flags, Mode::empty(), how).map(File::from)
    }

    /// What [`Seen`] means for whoever wants to publish there.
    pub(crate) fn refuse_taken(&self, seen: Seen) -> Result<Option<ImageSpec>, TargetError> {
        match seen {
            Seen::Free => Ok(None),
            Seen::Volume(spec) => Ok(Some(spec)),
            Seen::Taken(what) => Err(self.unusable(what)),
            Seen::Foreign { kind, of } => Err(TargetError::Foreign { target: self.path(), kind, of }),
        }
    }

    fn unusable(&self, what: &'static str) -> TargetError {
        TargetError::Unusable { target: self.path(), what }
    }

    fn failed(&self, doing: &'static str, error: Errno) -> TargetError {
        TargetError::Io { doing, target: self.path(), error: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(path: &str) -> Result<Target, BadTarget> {
        Target::parse(path, Path::new("/var/lib/kubelet"))
    }

    #[test]
    fn a_target_is_an_absolute_path_below_kubelets_directory() {
        let target = parse("/var/lib/kubelet//pods/./1/mount/").unwrap();
        assert_eq!(target.path(), Path::new("/var/lib/kubelet/pods/1/mount"));
        for (bad, why) in [
            ("", BadTarget::NoPath),
            ("pods/1", BadTarget::Relative("pods/1".into())),
            ("/var/lib/kubelet/../../../etc", BadTarget::Upward("/var/lib/kubelet/../../../etc".into())),
        ] {
            assert_eq!(parse(bad), Err(why));
        }
        for outside in ["/", "/var/lib/kubelet", "/var/lib/kubelet/", "/var/lib/kubelet2/x", "/etc"] {
            assert!(matches!(parse(outside), Err(BadTarget::Outside { .. })), "{outside}");
        }
        assert!(parse("/var/lib/kubelet/\0").is_err() && parse(&format!("/{}", "x".repeat(5000))).is_err());
        assert!(Target::parse("/anywhere", Path::new("/")).is_ok());
    }

    #[test]
    fn a_symbolic_link_anywhere_below_is_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        for path in ["link", "link/mount"] {
            let target = Target { root: dir.path().into(), below: path.into() };
            assert!(target.open(OFlags::RDONLY | OFlags::DIRECTORY).is_err(), "{path}");
            assert!(path == "link" || target.make().is_err());
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
        // kubelet's directory itself may be one.
        let target = Target { root: dir.path().join("link"), below: "mount".into() };
        target.make().unwrap();
        assert_eq!(target.path(), outside.path().canonicalize().unwrap().join("mount"));
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_stays_below(path in "(/|/var/lib/kubelet)?[a./\\\\]{0,20}") {
            if let Ok(target) = parse(&path) {
                prop_assert!(target.path().starts_with("/var/lib/kubelet/"));
                prop_assert!(!target.path().to_string_lossy().contains("/../"));
            }
        }
    }
}
