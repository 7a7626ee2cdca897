//! The file of a socket that is served: taken away at the end, if it still is ours.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A socket's file, as we made it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    made: Option<Identity>,
}

impl SocketFile {
    /// What was bound at `path` just now.
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_owned(), made: identity(path) }
    }

    /// Takes the file away, unless another plugin has put its own in its place meanwhile: kubelet takes the file for a living
    /// plugin.
    pub fn remove(&self) {
        if self.made.is_none() || identity(&self.path) != self.made {
            return;
        }
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket stays behind");
        }
    }
}

/// Device and inode, and when it was made: a file that is gone leaves its inode's number to the next one.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> Option<Identity> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
}
