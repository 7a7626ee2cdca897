//! Nodes of block devices: devtmpfs makes them, but a container's /dev may lack one, or have a stale one.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;

/// How often another may change the node meanwhile.
const RACES: u32 = 5;

/// Makes sure that `path` is the node of this device (`major:minor`) and of no other: one with another number would
/// have the wrong disk read and written.
pub(crate) fn ensure(path: &Path, device: (u32, u32)) -> io::Result<()> {
    let number = makedev(device.0, device.1);
    for _ in 0..RACES {
        match std::fs::metadata(path) {
            Ok(found) if found.file_type().is_block_device() && found.rdev() == number => return Ok(()),
            Ok(_) => std::fs::remove_file(path)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        match mknodat(CWD, path, FileType::BlockDevice, Mode::RUSR | Mode::WUSR, number) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(Errno::EXIST.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_of_another_device_is_replaced_and_a_right_one_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rbd0");
        ensure(&path, (7, 5)).unwrap();
        let first = std::fs::metadata(&path).unwrap();
        ensure(&path, (7, 5)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), first.ino());
        ensure(&path, (7, 6)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().rdev(), makedev(7, 6));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "no device").unwrap();
        ensure(&path, (7, 6)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().rdev(), makedev(7, 6));
    }
}
