//! The marker: what proves that a file system is the one that was asked for.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error};
use crate::spec::ImageSpec;

/// Directory of the image's file system that the engine never sees.
pub(crate) const DIRECTORY: &str = ".aldaas";
/// Directory of the image's file system that the engine sees.
pub(crate) const DATA: &str = "data";
const FILE: &str = "marker.json";
/// A marker is a few hundred bytes; more is none of ours.
const MAX_SIZE: u64 = 64 * 1024;

/// `.aldaas/marker.json`: which golden image this file system belongs to. Unknown fields are ignored, so later
/// versions may add some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// The golden image that this file system was built for; clones carry their parent's.
    pub golden_image: String,
    /// The database it is an image of.
    pub database: String,
}

impl std::fmt::Display for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "golden image {} (database {})", self.golden_image, self.database)
    }
}

/// Makes `data/` for `owner` and writes the marker, durably and last: a file system without it was never finished.
pub(crate) fn write(root: &Path, marker: &Marker, owner: (u32, u32)) -> Result<(), Error> {
    let doing = || format!("write the marker below {}", root.display());
    let data = root.join(DATA);
    std::fs::DirBuilder::new().mode(0o700).create(&data).doing(doing)?;
    chown(&data, Some(owner.0), Some(owner.1)).doing(doing)?;
    let directory = root.join(DIRECTORY);
    std::fs::DirBuilder::new().mode(0o700).create(&directory).doing(doing)?;
    let text = serde_json::to_vec_pretty(marker).map_err(std::io::Error::from).doing(doing)?;
    let temporary = directory.join("marker.json.new");
    let mut file = File::create_new(&temporary).doing(doing)?;
    file.write_all(&text).and_then(|()| file.sync_all()).doing(doing)?;
    std::fs::rename(&temporary, directory.join(FILE)).doing(doing)?;
    let root = File::open(root).doing(doing)?;
    rustix::fs::syncfs(&root).doing(doing)
}

/// Reads the marker of the file system mounted at `root` and compares it. Follows no symbolic links: the file
/// system may hold anything.
pub(crate) fn check(spec: &ImageSpec, root: &Path, expect: &Marker) -> Result<(), Error> {
    let no_marker = || Error::NoMarker { spec: spec.to_string() };
    let bad = |detail: String| Error::BadMarker { spec: spec.to_string(), detail };
    let open = |at: &File, name: &str, flags| match rustix::fs::openat(
        at,
        name,
        flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    ) {
        Ok(fd) => Ok(File::from(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Err(no_marker()),
        Err(e) => Err(bad(format!("open {name}: {e}"))),
    };
    let root = File::open(root).doing(|| format!("open {}", root.display()))?;
    let directory = open(&root, DIRECTORY, OFlags::DIRECTORY)?;
    let file = open(&directory, FILE, OFlags::RDONLY)?;
    let mut text = Vec::new();
    file.take(MAX_SIZE).read_to_end(&mut text).map_err(|e| bad(format!("read: {e}")))?;
    let found: Marker = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    if found != *expect {
        let (expected, found) = (expect.to_string(), found.to_string());
        return Err(Error::WrongMarker { spec: spec.to_string(), expected, found });
    }
    open(&root, DATA, OFlags::DIRECTORY).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(image: &str) -> Marker {
        Marker { golden_image: image.into(), database: "orders".into() }
    }

    fn fixture() -> (tempfile::TempDir, ImageSpec) {
        (tempfile::tempdir().unwrap(), ImageSpec::new("p", "n", "i"))
    }

    #[test]
    fn what_was_written_is_accepted_and_nothing_else() {
        let (dir, spec) = fixture();
        assert!(matches!(check(&spec, dir.path(), &marker("a")), Err(Error::NoMarker { .. })));
        write(dir.path(), &marker("a"), (0, 0)).unwrap();
        check(&spec, dir.path(), &marker("a")).unwrap();
        let wrong = check(&spec, dir.path(), &marker("b")).unwrap_err();
        assert!(matches!(wrong, Error::WrongMarker { .. }));
        assert!(wrong.to_string().contains("golden image a"), "{wrong}");
    }

    #[test]
    fn a_marker_behind_a_symbolic_link_is_no_marker() {
        let (dir, spec) = fixture();
        let (elsewhere, _) = fixture();
        write(elsewhere.path(), &marker("a"), (0, 0)).unwrap();
        for name in [DIRECTORY, DATA] {
            std::os::unix::fs::symlink(elsewhere.path().join(name), dir.path().join(name)).unwrap();
        }
        assert!(check(&spec, dir.path(), &marker("a")).is_err());
    }

    #[test]
    fn a_marker_of_garbage_is_said_to_be_unreadable() {
        let (dir, spec) = fixture();
        std::fs::create_dir(dir.path().join(DIRECTORY)).unwrap();
        std::fs::write(dir.path().join(DIRECTORY).join(FILE), "{").unwrap();
        assert!(matches!(check(&spec, dir.path(), &marker("a")), Err(Error::BadMarker { .. })));
    }
}
