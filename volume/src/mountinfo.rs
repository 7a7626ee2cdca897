//! `/proc/self/mountinfo`: what is mounted where, as the kernel sees it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

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

/// All mounts of this process's mount namespace, in the kernel's order (a mount over another comes later).
pub fn read() -> Result<Vec<Mount>, Error> {
    let text = std::fs::read("/proc/self/mountinfo").doing(|| "read /proc/self/mountinfo".to_owned())?;
    Ok(text.split(|b| *b == b'\n').filter_map(parse_line).collect())
}

/// The mounts at exactly `point`, the lowest first.
pub fn at<'a>(mounts: &'a [Mount], point: &'a Path) -> impl DoubleEndedIterator<Item = &'a Mount> {
    mounts.iter().filter(move |m| m.point == point)
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
        let mounts = read().unwrap();
        assert!(mounts.iter().any(|m| m.point == Path::new("/proc") && m.kind == "proc"));
    }

    proptest! {
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
