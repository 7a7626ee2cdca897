//! The guard over `pg_dump`'s custom archives on their way to `pg_restore`, which stops reading where it has all it
//! needs: whatever comes behind goes unseen. So the archive is followed block by block to its very end.
//!
//! The layout is that of PostgreSQL's `pg_backup_archiver.c` and `pg_backup_custom.c`: head, table of contents, then
//! one block of data for each entry that has some. Versions other than 1.12 to 1.16 (PostgreSQL 9.0 to 18) go through
//! unseen: `pg_restore` refuses those that it doesn't know.

use std::collections::HashSet;
use std::io::{BufRead, Write};

use super::{Error, StreamError};

/// Minor versions of the format that are understood.
const KNOWN: std::ops::RangeInclusive<u8> = 12..=16;
/// What a block of data begins with: a table's, …
const TABLE: u8 = 1;
/// … or large objects.
const LARGE_OBJECTS: u8 = 3;

/// Why an archive was not copied to its end.
#[derive(Debug)]
pub enum CopyError {
    /// It could not be read, or is not whole.
    Dump(StreamError),
    /// The other side did not take it.
    Write(std::io::Error),
}

impl From<Error> for CopyError {
    fn from(err: Error) -> CopyError {
        CopyError::Dump(err.into())
    }
}

/// Copies an archive, and sees to it that it ends where it should.
///
/// # Errors
/// When it cannot be read or written, ends early, or goes on behind its end.
pub fn copy_archive(from: &mut dyn BufRead, to: &mut dyn Write) -> Result<(), CopyError> {
    let mut walk = Walk { from, to, version: 0, int: 0, offset: 0 };
    if walk.head()? {
        let mut with_data = walk.contents()?;
        while !walk.at_end()? {
            walk.block(&mut with_data)?;
        }
    } else {
        walk.rest()?;
    }
    walk.to.flush().map_err(CopyError::Write)
}

struct Walk<'a> {
    from: &'a mut dyn BufRead,
    to: &'a mut dyn Write,
    /// The format's minor version.
    version: u8,
    /// Bytes of an integer, …
    int: u8,
    /// … and of a position in a file.
    offset: u8,
}

impl Walk<'_> {
    /// True when what follows is understood.
    fn head(&mut self) -> Result<bool, CopyError> {
        self.pass(5)?; // PGDMP, seen by `detect`
        let major = self.byte()?;
        self.version = self.byte()?;
        if major != 1 || !KNOWN.contains(&self.version) {
            return Ok(false);
        }
        let _revision = self.byte()?;
        self.int = self.byte()?;
        self.offset = self.byte()?;
        let _format = self.byte()?;
        if !(1..=8).contains(&self.int) || !(1..=8).contains(&self.offset) {
            return Err(Error::Corrupt("the archive's head makes no sense".into()).into());
        }
        if self.version >= 15 {
            self.byte()?; // compression
        } else {
            self.int()?;
        }
        for _part_of_its_date in 0..7 {
            self.int()?;
        }
        for _name_or_version in 0..3 {
            self.text()?;
        }
        Ok(true)
    }

    /// Passes the table of contents; tells the entries that have data.
    fn contents(&mut self) -> Result<HashSet<i64>, CopyError> {
        let mut with_data = HashSet::new();
        for _ in 0..self.int()? {
            let id = self.int()?;
            if self.int()? != 0 {
                with_data.insert(id);
            }
            for _catalog_oid_tag_kind in 0..4 {
                self.text()?;
            }
            self.int()?; // section
            for _make_drop_copy_schema_tablespace in 0..5 {
                self.text()?;
            }
            if self.version >= 14 {
                self.text()?; // access method
            }
            if self.version >= 16 {
                self.int()?; // kind of relation
            }
            for _owner_oids in 0..2 {
                self.text()?;
            }
            while self.text()? {} // what it depends on
            self.pass(1 + u64::from(self.offset))?;
        }
        Ok(with_data)
    }

    /// Passes one block. Its entry is not to come again.
    fn block(&mut self, with_data: &mut HashSet<i64>) -> Result<(), CopyError> {
        let foreign =
            || Error::Corrupt("after the end of the archive there are bytes that do not belong to it".into());
        let kind = self.byte()?;
        if !matches!(kind, TABLE | LARGE_OBJECTS) {
            return Err(foreign().into());
        }
        let id = self.int()?;
        if !with_data.remove(&id) {
            return Err(foreign().into());
        }
        if kind == TABLE {
            return self.chunks();
        }
        while self.int()? != 0 {
            self.chunks()?;
        }
        Ok(())
    }

    /// Passes pieces of data; one of no length is behind the last.
    fn chunks(&mut self) -> Result<(), CopyError> {
        loop {
            let length = self.int()?;
            if length < 0 {
                return Err(Error::Corrupt("the archive holds a piece of negative length".into()).into());
            }
            if length == 0 {
                return Ok(());
            }
            self.pass(length.unsigned_abs())?;
        }
    }

    /// Passes a text; false when there is none.
    fn text(&mut self) -> Result<bool, CopyError> {
        let length = self.int()?;
        self.pass(u64::try_from(length).unwrap_or_default())?;
        Ok(length >= 0)
    }

    fn int(&mut self) -> Result<i64, CopyError> {
        let negative = self.byte()? != 0;
        let mut value = 0_i64;
        for at in 0..u32::from(self.int) {
            value |= i64::from(self.byte()?) << (8 * at);
        }
        Ok(if negative { value.wrapping_neg() } else { value })
    }

    fn byte(&mut self) -> Result<u8, CopyError> {
        let byte = self.peek()?.first().copied();
        let byte = byte.ok_or_else(early)?;
        self.pass(1)?;
        Ok(byte)
    }

    fn rest(&mut self) -> Result<(), CopyError> {
        loop {
            let length = self.peek()?.len() as u64;
            if length == 0 {
                return Ok(());
            }
            self.pass(length)?;
        }
    }

    fn at_end(&mut self) -> Result<bool, CopyError> {
        Ok(self.peek()?.is_empty())
    }

    fn peek(&mut self) -> Result<&[u8], CopyError> {
        self.from.fill_buf().map_err(|err| CopyError::Dump(StreamError::unpack(err)))
    }

    fn pass(&mut self, mut count: u64) -> Result<(), CopyError> {
        while count > 0 {
            let piece = self.from.fill_buf().map_err(|err| CopyError::Dump(StreamError::unpack(err)))?;
            if piece.is_empty() {
                return Err(early().into());
            }
            let length = usize::try_from(count).map_or(piece.len(), |count| count.min(piece.len()));
            self.to.write_all(&piece[..length]).map_err(CopyError::Write)?;
            self.from.consume(length);
            count -= length as u64;
        }
        Ok(())
    }
}

fn early() -> Error {
    Error::Truncated("the archive stops in the middle".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn whatever_the_bytes_are_following_them_ends(rest: Vec<u8>, version in 10..18_u8) {
            let archive = [&b"PGDMP\x01"[..], &[version, 0, 4, 8, 1], &rest].concat();
            let mut out = Vec::new();
            let copied = copy_archive(&mut archive.as_slice(), &mut out);
            proptest::prop_assert!(archive.starts_with(&out));
            proptest::prop_assert!(copied.is_err() || out == archive);
        }
    }
}
