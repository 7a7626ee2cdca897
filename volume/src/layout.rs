//! Where things are below the run directory.
//!
//! ```text
//! <run_dir>/fuse.sock   control socket of the FUSE server        fuse.lock  held by it for as long as it lives
//! <run_dir>/fuse.log    its log                                  images/    its mount, one file per attached image
//! <run_dir>/volumes/<pool>%<ns>%<image>/     one directory per volume, locked while somebody works on it
//!                                      fs/   the image's file system
//!                                      data/ its data/, bind-mounted
//! ```

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Doing, Error};
use crate::spec::ImageSpec;

/// How long a second caller for the same image waits for the first.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);

/// Paths below one run directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    run_dir: PathBuf,
}

impl Layout {
    /// Makes the run directory where it is missing. Its path is made canonical, because the kernel reports mounts
    /// and backing files that way.
    pub fn new(run_dir: &Path) -> Result<Self, Error> {
        make_dir(run_dir, 0o711)?;
        let run_dir = run_dir.canonicalize().doing(|| format!("resolve {}", run_dir.display()))?;
        Ok(Self { run_dir })
    }

    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    pub fn images(&self) -> PathBuf {
        self.run_dir.join("images")
    }

    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("fuse.sock")
    }

    pub fn server_lock(&self) -> PathBuf {
        self.run_dir.join("fuse.lock")
    }

    pub fn server_log(&self) -> PathBuf {
        self.run_dir.join("fuse.log")
    }

    pub fn volumes(&self) -> PathBuf {
        self.run_dir.join("volumes")
    }

    pub fn volume(&self, spec: &ImageSpec) -> Result<VolumePaths, Error> {
        let name = spec.file_name()?;
        let dir = self.volumes().join(&name);
        Ok(VolumePaths {
            image_file: self.images().join(name),
            fs: dir.join("fs"),
            data: dir.join("data"),
            dir,
        })
    }

    /// Images that have a directory here.
    pub fn volume_directories(&self) -> Result<Vec<ImageSpec>, Error> {
        let entries = match std::fs::read_dir(self.volumes()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e).doing(|| format!("list {}", self.volumes().display())),
        };
        Ok(entries
            .filter_map(Result::ok)
            .filter_map(|e| ImageSpec::from_file_name(e.file_name().to_str()?))
            .collect())
    }

    /// Makes the volume's directory where it is missing and locks it. The directory itself is the lock, so nothing
    /// is left when the volume is gone.
    pub fn lock_volume(&self, paths: &VolumePaths) -> Result<VolumeLock, Error> {
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            make_dir(&self.volumes(), 0o711)?;
            match std::fs::DirBuilder::new().mode(0o711).create(&paths.dir) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                // Another caller has just removed volumes/ with its last volume.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e).doing(|| format!("create {}", paths.dir.display())),
            }
            if let Some(lock) = try_lock_directory(&paths.dir)? {
                return Ok(VolumeLock { _directory: lock });
            }
            if Instant::now() > deadline {
                let because = "another process is still opening or closing it; try again";
                let what = paths.dir.display().to_string();
                return Err(Error::Busy { what, because, holders: Vec::new() });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Paths of one volume.
#[derive(Debug, Clone)]
pub(crate) struct VolumePaths {
    /// The image as a file of the FUSE server.
    pub image_file: PathBuf,
    /// The volume's directory, and its lock.
    pub dir: PathBuf,
    /// Where its file system is mounted.
    pub fs: PathBuf,
    /// Where its `data/` is bound.
    pub data: PathBuf,
}

/// The addresses at which Ceph knows a server, of what it signed its lock file with: one a line, after its process id.
pub(crate) fn signed_addresses(signature: &str) -> Vec<String> {
    signature.lines().skip(1).map(str::to_owned).collect()
}

/// Held while somebody works on a volume.
#[derive(Debug)]
pub(crate) struct VolumeLock {
    _directory: File,
}

/// `None` while another holds the lock, or when the directory was removed in between.
fn try_lock_directory(path: &Path) -> Result<Option<File>, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(e).doing(|| format!("open {}", path.display())),
    };
    lock_if_current(directory, path)
}

/// True while somebody holds the lock file's lock. Asking keeps nobody else who asks from the right answer.
pub(crate) fn is_locked(path: &Path) -> Result<bool, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).doing(|| format!("open {}", path.display())),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(path.exists()),
        Err(e) => Err(e).doing(|| format!("lock {}", path.display())),
    }
}

/// Locks `file` if nobody holds it and if it is still what `path` names: who deletes a lock file does so while
/// holding it, so a lock on a deleted one is worth nothing.
pub(crate) fn lock_if_current(file: File, path: &Path) -> Result<Option<File>, Error> {
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK | Errno::INTR) => return Ok(None),
        Err(e) => return Err(e).doing(|| format!("lock {}", path.display())),
    }
    let ours = file.metadata().doing(|| format!("stat {}", path.display()))?;
    let current = std::fs::symlink_metadata(path).ok();
    Ok(current.filter(|m| (m.dev(), m.ino()) == (ours.dev(), ours.ino())).map(|_| file))
}

pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .doing(|| format!("create {}", path.display()))
}

/// Removes an empty directory; one that is not there or not empty is left as it is. Never recursive: a lost race
/// would erase data.
pub(crate) fn remove_dir_if_empty(path: &Path) -> Result<(), Error> {
    match rustix::fs::rmdir(path) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(e) => Err(e).doing(|| format!("remove directory {}", path.display())),
    }
}

pub(crate) fn remove_file_if_there(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).doing(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_locked_by_one_caller_at_a_time_and_its_removal_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        let paths = layout.volume(&ImageSpec::new("p", "n", "i")).unwrap();
        let lock = layout.lock_volume(&paths).unwrap();
        assert!(try_lock_directory(&paths.dir).unwrap().is_none());
        std::fs::remove_dir(&paths.dir).unwrap();
        assert!(try_lock_directory(&paths.dir).unwrap().is_none());
        drop(lock);
        let again = layout.lock_volume(&paths).unwrap();
        assert!(paths.dir.is_dir());
        drop(again);
    }

    #[test]
    fn a_directory_that_holds_something_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("precious"), "x").unwrap();
        remove_dir_if_empty(dir.path()).unwrap();
        assert!(dir.path().join("precious").exists());
    }
}
