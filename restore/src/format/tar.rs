//! `pg_dump -Ft` on its way to `pg_restore`, which stops reading where it has all it needs: so the tar archive around it is
//! followed to its end.

use std::io::{BufRead, Write};

use super::{Content, CopyError, Error, StreamError, directory};

pub(super) const BLOCK: usize = 512;
/// Where a header says what the member is called, …
const NAME: std::ops::Range<usize> = 0..100;
/// … of what kind it is, …
const KIND: usize = 156;
/// … how long it is, …
const SIZE: std::ops::Range<usize> = 124..136;
/// … what its own bytes add up to, …
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// … and that it is a header.
const MAGIC: std::ops::Range<usize> = 257..262;
/// The first member of a dump: its table of contents. `pg_dump -Ft` says so in it, in its eleventh byte.
const CONTENTS: &[u8] = b"toc.dat\0";
const FORMAT: usize = BLOCK + 10;
const TAR: u8 = 3;

/// Whether it looks like a tar archive.
pub(super) fn is_one(head: &[u8]) -> bool {
    head.get(MAGIC) == Some(b"ustar")
}

/// What dump is in it.
pub(super) fn content(head: &[u8]) -> Result<Content, Error> {
    let is_dump = head.starts_with(CONTENTS) && head.get(BLOCK..BLOCK + 5) == Some(b"PGDMP");
    if is_dump && head.get(FORMAT) == Some(&TAR) {
        return Ok(Content::PgTar);
    }
    if directory::begins(head) == Some(true) {
        return Ok(Content::PgDirectory);
    }
    let advice = "use pg_dump -Fc or -Ft, a tar archive of nothing but the directory of pg_dump -Fd, plain SQL, or a restore command";
    Err(Error::Unsupported(format!("the dump is a tar archive of something that is no dump: {advice}")))
}

/// Copies an archive, and sees to it that it ends where it should.
///
/// # Errors
/// When it cannot be read or written, ends early, or goes on behind its end.
pub fn copy_tar(from: &mut dyn BufRead, to: &mut dyn Write) -> Result<(), CopyError> {
    let mut block = [0; BLOCK];
    loop {
        take(from, to, &mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let mut blocks = size(&block)?.div_ceil(BLOCK as u64);
        while blocks > 0 {
            take(from, to, &mut block)?;
            blocks -= 1;
        }
    }
    peek_end(from, to)
}

/// What stands behind the first of the empty blocks at the end.
pub(super) fn peek_end(from: &mut dyn BufRead, to: &mut dyn Write) -> Result<(), CopyError> {
    let mut block = [0; BLOCK];
    // A second empty block; more of them are filling.
    take(from, to, &mut block)?;
    loop {
        if block.iter().any(|byte| *byte != 0) {
            let what = "after the end of the tar archive there are bytes that do not belong to it";
            return Err(Error::Corrupt(what.into()).into());
        }
        if peek(from)?.is_empty() {
            return to.flush().map_err(CopyError::Write);
        }
        take(from, to, &mut block)?;
    }
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// More about the next member, as POSIX has it.
    Records,
    /// The next member's name, as GNU has it.
    LongName,
    /// About the whole archive.
    Comment,
    /// A link, a device.
    Other,
}

/// A member, as its header says.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Its name, or the end of that.
    pub name: String,
    /// Bytes of its content.
    pub size: u64,
    /// What it is.
    pub kind: Kind,
}

impl Member {
    /// Reads a header; nothing where the end of the archive is.
    pub(super) fn read(header: &[u8; BLOCK]) -> Result<Option<Self>, Error> {
        if header.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let name = &header[NAME];
        let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())];
        let kind = match header[KIND] {
            b'0' | 0 => Kind::File,
            b'5' => Kind::Directory,
            b'x' => Kind::Records,
            b'L' => Kind::LongName,
            b'g' => Kind::Comment,
            _ => Kind::Other,
        };
        Ok(Some(Self { name: String::from_utf8_lossy(name).into_owned(), size: size(header)?, kind }))
    }
}

/// The size of the member whose header this is.
fn size(header: &[u8; BLOCK]) -> Result<u64, Error> {
    let damaged = || Error::Corrupt("a header in the tar archive makes no sense".into());
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| u64::from(if CHECKSUM.contains(&at) { b' ' } else { *byte }))
        .sum();
    if header[MAGIC] != *b"ustar" || number(&header[CHECKSUM]) != Some(sum) {
        return Err(damaged());
    }
    number(&header[SIZE]).ok_or_else(damaged)
}

/// In octal digits, or for large ones in bytes.
fn number(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let (first, rest) = field.split_first()?;
        return rest.iter().try_fold(u64::from(first & 0x7f), |value, byte| {
            value.checked_mul(256)?.checked_add(u64::from(*byte))
        });
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

pub(super) fn take(
    from: &mut dyn BufRead,
    to: &mut dyn Write,
    block: &mut [u8; BLOCK],
) -> Result<(), CopyError> {
    let mut filled = 0;
    while filled < BLOCK {
        let piece = peek(from)?;
        if piece.is_empty() {
            return Err(early().into());
        }
        let count = piece.len().min(BLOCK - filled);
        block[filled..filled + count].copy_from_slice(&piece[..count]);
        from.consume(count);
        filled += count;
    }
    to.write_all(block).map_err(CopyError::Write)
}

pub(super) fn early() -> Error {
    Error::Truncated("the tar archive stops in the middle".into())
}

fn peek(from: &mut dyn BufRead) -> Result<&[u8], CopyError> {
    from.fill_buf().map_err(|err| CopyError::Dump(StreamError::unpack(err)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(size: &[u8]) -> Vec<u8> {
        let mut header = vec![0; BLOCK];
        header[..8].copy_from_slice(CONTENTS);
        header[SIZE][..size.len()].copy_from_slice(size);
        header[MAGIC].copy_from_slice(b"ustar");
        header[CHECKSUM].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }

    fn archive() -> Vec<u8> {
        [header(b"00000001001\0"), vec![b'x'; 2 * BLOCK], header(b"0\0"), vec![0; 4 * BLOCK]].concat()
    }

    fn copied(archive: &[u8]) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        match copy_tar(&mut &archive[..], &mut out) {
            Ok(()) => Ok(out),
            Err(CopyError::Dump(err)) => Err(err.to_string()),
            Err(CopyError::Write(err)) => panic!("{err}"),
        }
    }

    #[test]
    fn a_tar_archive_is_followed_to_its_end() {
        let whole = archive();
        assert_eq!(copied(&whole).unwrap(), whole);
        for cut in [1, BLOCK, 2 * BLOCK, 3 * BLOCK, 4 * BLOCK, whole.len() - 1] {
            let said = copied(&whole[..whole.len() - cut]);
            // Two of the four empty blocks are enough.
            assert_eq!(said.is_ok(), matches!(cut, BLOCK | 1024), "{cut}: {said:?}");
            assert!(said.is_ok() || said.unwrap_err().contains("truncated"), "{cut}");
        }
        assert!(copied(&[whole.clone(), vec![1; BLOCK]].concat()).unwrap_err().contains("do not belong"));
        let mut damaged = whole.clone();
        damaged[130] ^= 1;
        assert!(copied(&damaged).unwrap_err().contains("makes no sense"));
    }

    #[test]
    fn sizes_are_octal_or_for_large_members_binary() {
        assert_eq!(number(b"00000001001\0"), Some(513));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\x02\0\0\0\0"), Some(2 << 32));
        assert_eq!((number(b"9\0"), number(b""), number(&[0xff; 12])), (None, None, None));
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_bytes_are_following_them_ends(rest: Vec<u8>) {
            let bytes = [header(b"0\0"), rest].concat();
            let _ = copied(&bytes);
        }
    }
}
