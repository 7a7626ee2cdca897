//! `pg_dump -Fd`, a directory of files, as it comes in one piece: in a tar archive. `pg_restore` reads it from a directory only,
//! so it is unpacked, and what is no part of such a dump is refused.

use std::fs::File;
use std::io::{BufRead, BufWriter, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::tar::{BLOCK, Kind, Member, peek_end, take};
use super::{CopyError, Error, HEAD};

/// Its table of contents.
const CONTENTS: &str = "toc.dat";
/// The records of a member's longer name and size are no longer than this.
const RECORDS: u64 = 64 << 10;
/// How much is written at once.
const PIECE: usize = 256 << 10;

/// Whether the first file in a tar archive is a part of such a dump. Nothing: the archive's beginning does not tell.
pub(super) fn begins(mut head: &[u8]) -> Option<bool> {
    let whole = head.len() < HEAD;
    match Members::default().next(&mut head) {
        Ok(member) => Some(member.is_some_and(|member| part(&member.name).is_some())),
        Err(_) => whole.then_some(false),
    }
}

/// Unpacks the files of such a dump into a directory that is there and empty.
///
/// # Errors
/// When the archive can't be read, ends early, goes on behind its end, or holds something else; when a file can't be written.
pub fn unpack_directory(from: &mut dyn BufRead, into: &Path) -> Result<(), CopyError> {
    let (mut members, mut has_contents) = (Members::default(), false);
    while let Some(member) = members.next(from)? {
        let Some(name) = part(&member.name) else {
            let name = member.name.escape_debug();
            let what =
                format!("the tar archive holds \"{name}\", which is no part of a pg_dump directory (-Fd)");
            return Err(Error::Unsupported(what).into());
        };
        has_contents |= name == CONTENTS;
        let file = File::options().write(true).create_new(true).mode(0o600).open(into.join(name));
        let file = file.map_err(|err| match err.kind() {
            std::io::ErrorKind::AlreadyExists => {
                CopyError::from(Error::Corrupt(format!("the tar archive holds {name} twice")))
            }
            _ => CopyError::Write(err),
        })?;
        copy(from, member.size, file)?;
    }
    peek_end(from, &mut std::io::sink())?;
    if !has_contents {
        return Err(Error::Truncated(format!("the pg_dump directory (-Fd) has no {CONTENTS}")).into());
    }
    Ok(())
}

/// One member's content, and what fills its last block.
fn copy(from: &mut dyn BufRead, size: u64, file: File) -> Result<(), CopyError> {
    let mut file = BufWriter::with_capacity(PIECE, file);
    let mut left = size;
    let mut block = [0; BLOCK];
    while left > 0 {
        take(from, &mut std::io::sink(), &mut block)?;
        let length = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
        file.write_all(&block[..length]).map_err(CopyError::Write)?;
        left -= length as u64;
    }
    file.flush().map_err(CopyError::Write)
}

/// The file's own name, if such a dump has one of that name. It is one word of harmless characters.
fn part(path: &str) -> Option<&str> {
    let name = path.rsplit('/').next()?;
    let plain = ["", ".gz", ".lz4", ".zst"]
        .iter()
        .find_map(|end| name.strip_suffix(end).filter(|s| s.ends_with(".dat")));
    let numbered = |stem: &str| !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit());
    let is_data = plain.and_then(|name| name.strip_suffix(".dat")).is_some_and(|stem| {
        stem == "toc" || numbered(stem) || stem.strip_prefix("blob_").is_some_and(numbered)
    });
    let is_list = name
        .strip_suffix(".toc")
        .is_some_and(|stem| stem == "blobs" || stem.strip_prefix("blobs_").is_some_and(numbered));
    (is_data || is_list).then_some(name)
}

/// The files of an archive; directories, and what programs note beside, are passed over.
#[derive(Default)]
struct Members {
    /// What the records before a header say of it.
    name: Option<String>,
    size: Option<u64>,
}

impl Members {
    /// The next file, whose content is then to be read; nothing at the end.
    fn next(&mut self, from: &mut dyn BufRead) -> Result<Option<Member>, CopyError> {
        let mut block = [0; BLOCK];
        loop {
            take(from, &mut std::io::sink(), &mut block)?;
            let Some(member) = Member::read(&block)? else { return Ok(None) };
            match member.kind {
                Kind::File => {
                    let name = self.name.take().unwrap_or(member.name);
                    return Ok(Some(Member {
                        name,
                        size: self.size.take().unwrap_or(member.size),
                        ..member
                    }));
                }
                Kind::Records | Kind::LongName if member.size <= RECORDS => {
                    let text = self::text(from, member.size)?;
                    match member.kind {
                        Kind::LongName => self.name = Some(text.trim_end_matches('\0').to_owned()),
                        _ => self.records(&text),
                    }
                }
                Kind::Directory | Kind::Comment => {
                    (self.name, self.size) = (None, None);
                    let _ = self::text(from, member.size.min(RECORDS))?;
                }
                _ => {
                    let what = format!("the tar archive holds {:?}, which is no file", member.name);
                    return Err(Error::Unsupported(what).into());
                }
            }
        }
    }

    /// Lines of `length key=value`, as POSIX has them.
    fn records(&mut self, text: &str) {
        for line in text.lines() {
            match line.split_once(' ').and_then(|(_, record)| record.split_once('=')) {
                Some(("path", value)) => self.name = Some(value.to_owned()),
                Some(("size", value)) => self.size = value.parse().ok(),
                _ => {}
            }
        }
    }
}

/// A member that is short, as text.
fn text(from: &mut dyn BufRead, size: u64) -> Result<String, CopyError> {
    let mut bytes = Vec::new();
    let padded = size.div_ceil(BLOCK as u64) * BLOCK as u64;
    let read = from.take(padded).read_to_end(&mut bytes);
    read.map_err(|err| CopyError::Dump(super::StreamError::unpack(err)))?;
    if (bytes.len() as u64) < padded {
        return Err(super::tar::early().into());
    }
    bytes.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_pg_dump_writes_is_a_part_and_no_path_leads_out() {
        for good in [
            "toc.dat",
            "orders/toc.dat",
            "./3456.dat",
            "a/b/3456.dat.gz",
            "1.dat.zst",
            "blobs.toc",
            "blobs_7.toc",
            "blob_16.dat.lz4",
        ] {
            assert_eq!(part(good), good.rsplit('/').next(), "{good}");
        }
        for bad in [
            "",
            "toc.dat/",
            "../evil",
            "orders/..",
            "x.dat",
            ".dat",
            "1.dat.exe",
            "blob_.dat",
            "toc",
            "1.toc",
            "a\0.dat",
        ] {
            assert_eq!(part(bad), None, "{bad:?}");
        }
        assert_eq!(part("../../1.dat"), Some("1.dat"), "wherever it says it is, it is put beside the others");
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_bytes_are_unpacking_them_ends(bytes: Vec<u8>) {
            let room = tempfile::tempdir().unwrap();
            let _ = begins(&bytes);
            proptest::prop_assert!(unpack_directory(&mut &bytes[..], room.path()).is_err());
        }
    }
}
