//! Making, checking and mounting ext4 and xfs on a block device.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::error::{Doing, Error};
use crate::spec::{Filesystem, ImageSpec};
use crate::tool;

/// How much of a device's beginning must be zero before mkfs: beyond every signature that blkid knows.
const BLANK_HEAD: u64 = 4 << 20;
/// The same for its end, where backup tables and RAID superblocks are.
const BLANK_TAIL: u64 = 1 << 20;

/// What the superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub filesystem: Filesystem,
    /// Was not unmounted cleanly, or has errors recorded. XFS says that only in its log, so it reads `false` there.
    pub needs_check: bool,
    /// A writable mount may write more than the superblock: replay a journal, clear orphans. XFS doesn't tell.
    pub may_replay: bool,
}

const EXT4_MAGIC: u16 = 0xEF53;
const EXT4_STATE_CLEAN: u16 = 1;
const EXT4_INCOMPAT_RECOVER: u32 = 4;
const EXT4_RO_COMPAT_ORPHAN_PRESENT: u32 = 0x1_0000;

/// Reads the superblock: `None` where there is neither ext4 nor xfs.
pub(crate) fn probe(device: &Path) -> Result<Option<Superblock>, Error> {
    let doing = || format!("read the superblock of {}", device.display());
    let mut head = vec![0; 2048];
    File::open(device).and_then(|mut f| f.read_exact(&mut head)).doing(doing)?;
    Ok(parse_superblock(&head))
}

fn parse_superblock(head: &[u8]) -> Option<Superblock> {
    if head.get(..4)? == b"XFSB" {
        return Some(Superblock { filesystem: Filesystem::Xfs, needs_check: false, may_replay: true });
    }
    let ext4 = head.get(1024..2048)?;
    let u16_at = |at: usize| Some(u16::from_le_bytes(ext4.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(ext4.get(at..at + 4)?.try_into().ok()?));
    if u16_at(0x38)? != EXT4_MAGIC {
        return None;
    }
    let needs_check = u16_at(0x3A)? != EXT4_STATE_CLEAN || u32_at(0x60)? & EXT4_INCOMPAT_RECOVER != 0;
    let orphans = u32_at(0xE8)? != 0 || u32_at(0x64)? & EXT4_RO_COMPAT_ORPHAN_PRESENT != 0;
    Some(Superblock { filesystem: Filesystem::Ext4, needs_check, may_replay: needs_check || orphans })
}

/// Refuses a device that holds anything at its beginning or end: mkfs never runs over data.
pub(crate) fn check_blank(spec: &ImageSpec, device: &Path) -> Result<(), Error> {
    let doing = || format!("read {}", device.display());
    let mut file = File::open(device).doing(doing)?;
    let size = file.seek(SeekFrom::End(0)).doing(doing)?;
    for (from, len) in [(0, BLANK_HEAD.min(size)), (size.saturating_sub(BLANK_TAIL), BLANK_TAIL.min(size))] {
        file.seek(SeekFrom::Start(from)).doing(doing)?;
        let mut content = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact(&mut content).doing(doing)?;
        if let Some(at) = content.iter().position(|b| *b != 0) {
            return Err(Error::NotBlank { spec: spec.to_string(), offset: from + at as u64 });
        }
    }
    Ok(())
}

/// Makes a file system on a device just found blank. RBD reads what was never written as zero, so nothing is
/// discarded, no table is zeroed (not later by the kernel either), and the image stays small. Tables of 64 block
/// groups lie together (ext4's default is 16): fewer objects are touched, and copied into a clone, by its writes.
pub(crate) fn make(filesystem: Filesystem, device: &Path) -> Result<(), Error> {
    let device = device.display().to_string();
    let (program, attempts): (_, &[&[&str]]) = match filesystem {
        Filesystem::Ext4 => (
            "mkfs.ext4",
            &[
                &["-q", "-F", "-m", "0", "-G", "64", "-E", "nodiscard,assume_storage_prezeroed=1"],
                // e2fsprogs before 1.47; the mount option noinit_itable keeps the kernel from writing the rest.
                &[
                    "-q",
                    "-F",
                    "-m",
                    "0",
                    "-G",
                    "64",
                    "-E",
                    "nodiscard,lazy_itable_init=1,lazy_journal_init=1",
                ],
            ],
        ),
        Filesystem::Xfs => ("mkfs.xfs", &[&["-q", "-K", "-s", "size=4096"]]),
    };
    let mut result = Ok(());
    for options in attempts {
        let args: Vec<&str> = options.iter().copied().chain([device.as_str()]).collect();
        let output = tool::run(program, &args)?;
        if output.status.success() {
            return Ok(());
        }
        result = Err(tool::failed(program, &output));
    }
    result
}

/// Repairs what an unclean stop left (ext4; XFS replays its log on mount). `e2fsck -p` decides nothing that needs
/// a human: then it fails.
pub(crate) fn check(spec: &ImageSpec, device: &Path) -> Result<(), Error> {
    let output = tool::run("e2fsck", &["-p", &device.display().to_string()])?;
    match output.status.code() {
        // 0: clean, 1: repaired, 2: repaired and reboot (of no meaning for what isn't mounted).
        Some(0..=3) => Ok(()),
        Some(code) if code & 4 != 0 => {
            Err(Error::Damaged { spec: spec.to_string(), output: tool::last_words(&output) })
        }
        _ => Err(tool::failed("e2fsck", &output)),
    }
}

/// The mount options that are no file system's own: `mount(2)` takes them as flags.
fn generic(option: &str) -> Option<MountFlags> {
    Some(match option {
        "noatime" => MountFlags::NOATIME,
        "relatime" => MountFlags::RELATIME,
        "strictatime" => MountFlags::STRICTATIME,
        "nodiratime" => MountFlags::NODIRATIME,
        "noexec" => MountFlags::NOEXEC,
        "sync" => MountFlags::SYNCHRONOUS,
        "dirsync" => MountFlags::DIRSYNC,
        "lazytime" => MountFlags::LAZYTIME,
        // They hold in any case, or change nothing.
        "nodev" | "nosuid" | "defaults" | "async" | "exec" | "diratime" | "nolazytime" => MountFlags::empty(),
        _ => return None,
    })
}

/// Mounts the device at `point` without the mount program.
pub(crate) fn mount(
    filesystem: Filesystem,
    device: &Path,
    point: &Path,
    read_only: bool,
    more_options: &[String],
) -> Result<(), Error> {
    let mut flags = MountFlags::NODEV | MountFlags::NOSUID;
    if read_only {
        flags |= MountFlags::RDONLY;
    }
    let (words, more_options): (Vec<&String>, Vec<&String>) =
        more_options.iter().partition(|option| generic(option).is_some());
    flags |= words.iter().filter_map(|word| generic(word)).fold(MountFlags::empty(), |all, one| all | one);
    if !flags.intersects(MountFlags::RELATIME | MountFlags::STRICTATIME) {
        flags |= MountFlags::NOATIME;
    }
    let mut options: Vec<&str> = match (filesystem, read_only) {
        (Filesystem::Ext4, false) => vec!["noinit_itable"],
        (Filesystem::Ext4, true) => vec!["noload"],
        // All clones of an image share its UUID, which XFS refuses to mount twice otherwise.
        // What has to be replayed is refused where nothing may be written.
        (Filesystem::Xfs, _) => vec!["nouuid"],
    };
    options.extend(more_options.iter().map(|option| option.as_str()));
    let doing = || {
        let source = device.display();
        format!("mount {source} ({filesystem}) at {}, options {}", point.display(), options.join(","))
    };
    let data =
        std::ffi::CString::new(options.join(",")).map_err(|_| rustix::io::Errno::INVAL).doing(doing)?;
    rustix::mount::mount(device, point, filesystem.name(), flags, Some(data.as_c_str())).doing(doing)
}

/// A file system mounted read-only at no place: only who holds this sees it, and with the holder it is gone, whatever
/// becomes of them.
#[derive(Debug)]
pub(crate) struct Look {
    _root: OwnedFd,
    path: PathBuf,
}

impl Look {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Looks at a file system without writing to its device: no journal is replayed.
pub(crate) fn look(filesystem: Filesystem, device: &Path) -> Result<Look, Error> {
    let doing = || format!("look at the {filesystem} of {}", device.display());
    let options: &[&str] = match filesystem {
        Filesystem::Ext4 => &["ro", "noload"],
        Filesystem::Xfs => &["ro", "norecovery", "nouuid"],
    };
    let context = fsopen(filesystem.name(), FsOpenFlags::FSOPEN_CLOEXEC).doing(doing)?;
    fsconfig_set_string(&context, "source", device).doing(doing)?;
    for option in options {
        fsconfig_set_flag(&context, *option).doing(doing)?;
    }
    fsconfig_create(&context).doing(doing)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).doing(doing)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
    Ok(Look { _root: root, path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    /// A blank block device. (On a plain file mkfs would ask every mounted loop device of the machine whether it is
    /// that file, and wait for those that hang.)
    struct Blank {
        device: crate::loopdev::LoopDevice,
        _file: tempfile::NamedTempFile,
    }

    impl Blank {
        fn new(size: u64) -> Self {
            let file = image(size);
            Self { device: crate::loopdev::attach(file.path(), false).unwrap(), _file: file }
        }

        fn path(&self) -> std::path::PathBuf {
            self.device.path()
        }
    }

    impl Drop for Blank {
        fn drop(&mut self) {
            crate::loopdev::detach(&self.device).unwrap();
        }
    }

    fn image(size: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        file
    }

    #[test]
    fn mkfs_leaves_a_clean_file_system_that_the_probe_knows() {
        for (filesystem, size) in [(Filesystem::Ext4, 64 << 20), (Filesystem::Xfs, 400 << 20)] {
            let file = Blank::new(size);
            assert_eq!(probe(&file.path()).unwrap(), None);
            check_blank(&ImageSpec::new("p", "", "i"), &file.path()).unwrap();
            make(filesystem, &file.path()).unwrap();
            let may_replay = filesystem == Filesystem::Xfs;
            let expect = Superblock { filesystem, needs_check: false, may_replay };
            assert_eq!(probe(&file.path()).unwrap(), Some(expect));
            let refused = check_blank(&ImageSpec::new("p", "", "i"), &file.path()).unwrap_err();
            assert!(matches!(refused, Error::NotBlank { .. }));
        }
    }

    #[test]
    fn a_single_byte_at_either_end_makes_a_device_not_blank() {
        let size = 32 << 20;
        for at in [0, 1, BLANK_HEAD - 1, size - BLANK_TAIL, size - 1] {
            let mut file = image(size);
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[1]).unwrap();
            let refused = check_blank(&ImageSpec::new("p", "", "i"), file.path()).unwrap_err();
            assert!(matches!(refused, Error::NotBlank { offset, .. } if offset == at), "{at}: {refused}");
        }
    }

    #[test]
    fn an_unclean_ext4_asks_for_a_check_and_is_repaired() {
        let file = Blank::new(64 << 20);
        make(Filesystem::Ext4, &file.path()).unwrap();
        let path = file.path().display().to_string();
        let set = tool::run("debugfs", &["-w", "-R", "set_super_value state 2", &path]).unwrap();
        assert!(set.status.success());
        assert!(probe(&file.path()).unwrap().unwrap().needs_check);
        check(&ImageSpec::new("p", "", "i"), &file.path()).unwrap();
        assert!(!probe(&file.path()).unwrap().unwrap().needs_check);
    }

    #[test]
    fn an_xfs_that_is_too_small_is_refused_with_mkfs_own_words() {
        let file = Blank::new(16 << 20);
        let error = make(Filesystem::Xfs, &file.path()).unwrap_err();
        assert!(error.to_string().contains("mkfs.xfs"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_probed_without_panic(head in proptest::collection::vec(any::<u8>(), 0..2100)) {
            let _ = parse_superblock(&head);
        }
    }
}
