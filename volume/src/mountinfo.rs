//! `/proc/self/mountinfo`: what is mounted where, as the kernel sees it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::error::{Doing, Error};

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Unique id of the mount (`fdinfo` names it too).
    pub id: u64,
    /// Device number of the file system, `major:minor`.
    pub device: (u32, u32),
    /// Which directory of the file system is mounted; `/` but for bind mounts.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Options of this mount (`rw,noatime`).
    pub options: String,
    /// File system type.
    pub kind: String,
    /// What was mounted.
    pub source: String,
    /// Options of the file system.
    pub super_options: String,
}

impl Mount {
    /// Mounted read-only, by the mount or by its file system.
    pub fn is_read_only(&self) -> bool {
        [&self.options, &self.super_options].iter().any(|o| o.split(',').any(|x| x == "ro"))
    }
}

/// The mounts of this process's mount namespace at one moment. A node has hundreds of them, and who asks wants one or two: only
/// the lines that may be meant are taken apart.
#[derive(Debug)]
pub struct Mounts {
    text: Vec<u8>,
}

impl Mounts {
    /// The kernel's table, as it is now.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn read() -> Result<Self, Error> {
        let text = std::fs::read("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo".to_owned())?;
        Ok(Self { text })
    }

    /// All of them, in the kernel's order (a mount over another comes later).
    pub fn all(&self) -> impl Iterator<Item = Mount> {
        memchr::memchr_iter(b'\n', &self.text).filter_map(|end| parse_line(self.line(end)))
    }

    /// Those at exactly `point`, the lowest first.
    pub fn at(&self, point: &Path) -> impl Iterator<Item = Mount> {
        self.with(&field(point, b" ")).into_iter().filter(move |mount| mount.point == point)
    }

    /// The topmost at exactly `point`: what is seen there.
    pub fn top_at(&self, point: &Path) -> Option<Mount> {
        self.at(point).last()
    }

    /// Those of one file system.
    pub fn of_device(&self, device: (u32, u32)) -> impl Iterator<Item = Mount> {
        let (major, minor) = device;
        self.with(format!(" {major}:{minor} ").as_bytes()).into_iter().filter(move |m| m.device == device)
    }

    /// Those at `directory` or below it.
    pub fn below(&self, directory: &Path) -> impl Iterator<Item = Mount> {
        self.with(&field(directory, b"")).into_iter().filter(move |m| m.point.starts_with(directory))
    }

    /// The lines that contain `text` somewhere.
    fn with(&self, text: &[u8]) -> Vec<Mount> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(at) = memchr::memmem::find(self.text.get(from..).unwrap_or_default(), text) {
            let at = from + at;
            let rest = self.text.get(at..).unwrap_or_default();
            let end = memchr::memchr(b'\n', rest).map_or(self.text.len(), |end| at + end);
            found.extend(parse_line(self.line(end)));
            from = end.max(at + 1);
        }
        found
    }

    /// The line that ends before `end`.
    fn line(&self, end: usize) -> &[u8] {
        let text = self.text.get(..end).unwrap_or_default();
        text.get(memchr::memrchr(b'\n', text).map_or(0, |before| before + 1)..).unwrap_or_default()
    }
}

/// The topmost mount at `point`, now.
///
/// # Errors
/// When /proc can't be read.
pub fn top_at(point: &Path) -> Result<Option<Mount>, Error> {
    Ok(Mounts::read()?.top_at(point))
}

/// Whether something is mounted at exactly `point`. Asked of the inode, where the kernel tells (5.8), and that does not look at
/// all that is mounted; nor at the disk, because the root of what is mounted is in memory.
///
/// # Errors
/// When /proc can't be read.
pub fn is_mounted(point: &Path) -> Result<bool, Error> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match rustix::fs::statx(CWD, point, flags, StatxFlags::TYPE) {
        Ok(found) if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        Err(Errno::NOENT) => Ok(false),
        // An old kernel, or a file system that is dead.
        _ => Ok(top_at(point)?.is_some()),
    }
}

/// A path as the kernel writes it into a line, between a space and `end`.
fn field(path: &Path, end: &[u8]) -> Vec<u8> {
    let mut field = vec![b' '];
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => field.extend(format!("\\{byte:03o}").as_bytes()),
            other => field.push(*other),
        }
    }
    field.extend(end);
    field
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().position(|f| *f == b"-")?;
    if dash < 6 || fields.len() < dash + 4 {
        return None;
    }
    let text = |i: usize| fields.get(i).map(|f| String::from_utf8_lossy(&unescape(f)).into_owned());
    let path = |i: usize| fields.get(i).map(|f| PathBuf::from(OsString::from_vec(unescape(f))));
    Some(Mount {
        id: text(0)?.parse().ok()?,
        device: parse_device(&text(2)?)?,
        root: path(3)?,
        point: path(4)?,
        options: text(5)?,
        kind: text(dash + 1)?,
        source: text(dash + 2)?,
        super_options: text(dash + 3)?,
    })
}

/// `major:minor`, as in mountinfo and in sysfs `dev` files.
pub fn parse_device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The kernel writes space, tab, newline and backslash as `\ooo`.
fn unescape(field: &[u8]) -> Vec<u8> {
    if memchr::memchr(b'\\', field).is_none() {
        return field.to_vec();
    }
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] = rest {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_read() {
        let line = b"36 35 98:0 /mnt1 /mnt\\0402/a\\134b rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw,errors=continue";
        let mount = parse_line(line).unwrap();
        assert_eq!(mount.id, 36);
        assert_eq!(mount.device, (98, 0));
        assert_eq!(mount.root, Path::new("/mnt1"));
        assert_eq!(mount.point, Path::new("/mnt 2/a\\b"));
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("ext3", "/dev/root"));
        assert!(!mount.is_read_only());
    }

    #[test]
    fn read_only_is_seen_on_the_mount_and_on_the_file_system() {
        for (mount, superblock, expect) in
            [("rw", "rw", false), ("ro,noatime", "rw", true), ("rw", "ro", true)]
        {
            let line = format!("1 2 7:1 / /x {mount} - ext4 /dev/loop1 {superblock}");
            assert_eq!(parse_line(line.as_bytes()).unwrap().is_read_only(), expect);
        }
    }

    #[test]
    fn the_running_kernels_own_table_is_read() {
        let mounts = Mounts::read().unwrap();
        let proc = mounts.top_at(Path::new("/proc")).unwrap();
        assert_eq!(proc.kind, "proc");
        assert!(mounts.all().any(|m| m == proc));
        assert!(mounts.of_device(proc.device).any(|m| m == proc));
        for (path, mounted) in
            [("/proc", true), ("/proc/self", false), ("/proc/sys", false), ("/nowhere", false)]
        {
            assert_eq!(is_mounted(Path::new(path)).unwrap(), mounted, "{path}");
        }
    }

    fn table(points: &[String]) -> Mounts {
        let line = |(id, point): (usize, &String)| {
            let point = String::from_utf8(field(Path::new(point), b"")).unwrap();
            format!("{id} 2 7:{} /{point} rw - ext4 /dev/loop1 rw\n", id % 12)
        };
        Mounts { text: points.iter().enumerate().map(line).collect::<String>().into_bytes() }
    }

    proptest! {
        #[test]
        fn what_is_looked_for_is_what_a_look_at_all_finds(
            points in proptest::collection::vec("(/[ab \\\\]{1,2}){1,3}", 1..9),
            at in "(/[ab \\\\]{1,2}){1,2}",
            minor in 0u32..12,
        ) {
            let (mounts, at) = (table(&points), Path::new(&at));
            let among = |wanted: &dyn Fn(&Mount) -> bool| mounts.all().filter(wanted).collect::<Vec<_>>();
            prop_assert_eq!(mounts.all().count(), points.len());
            prop_assert_eq!(mounts.at(at).collect::<Vec<_>>(), among(&|m| m.point == at));
            prop_assert_eq!(mounts.below(at).collect::<Vec<_>>(), among(&|m| m.point.starts_with(at)));
            prop_assert_eq!(mounts.of_device((7, minor)).collect::<Vec<_>>(), among(&|m| m.device == (7, minor)));
            prop_assert_eq!(mounts.top_at(at), among(&|m| m.point == at).pop());
        }

        #[test]
        fn any_bytes_are_parsed_without_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_line(&line);
        }

        #[test]
        fn an_escaped_path_is_the_path_again(path in "[a-z \\\\\t\n]{1,30}") {
            let escaped: String = path.chars().map(|c| match c {
                ' ' | '\\' | '\t' | '\n' => format!("\\{:03o}", c as u32),
                c => c.to_string(),
            }).collect();
            prop_assert_eq!(unescape(escaped.as_bytes()), path.as_bytes());
        }
    }
}
