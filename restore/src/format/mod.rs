//! What a dump is, found by its content, never by its name.
//!
//! A dump is an onion: compression around compression around something an engine can read. [`open`] peels it.
//! **To add a compression**, add its magic bytes to [`detect()`] and its decoder to [`Compression`]; **to add a kind of
//! dump**, add it to [`Content`] and teach an engine to load it.

mod archive;
mod compression;
mod detect;
mod directory;
mod gzip;
mod lz4;
mod roles;
mod sql;
mod tar;

use std::io::{BufRead, BufReader, Cursor, Read};

pub use archive::{CopyError, copy_archive};
pub use compression::Compression;
pub use detect::{Found, detect};
pub use directory::unpack_directory;
pub use sql::SqlGuard;
pub use tar::copy_tar;

use crate::source;

/// How much of a layer is looked at.
pub const HEAD: usize = 64 << 10;
/// Nobody compresses more often than that.
const LAYERS: usize = 4;
/// How much is decompressed at once.
const PIECE: usize = 256 << 10;

/// A dump that is open, decompressed.
pub struct Dump {
    /// What was found, outermost first: `gzip, plain SQL`.
    pub format: String,
    /// What an engine gets to read.
    pub content: Content,
    /// The first bytes of it (they will be read again).
    pub head: Vec<u8>,
    /// All of it.
    pub reader: Box<dyn BufRead + Send>,
}

/// What is below the compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Statements, as `pg_dump` without options writes them.
    PlainSql,
    /// PostgreSQL's archive, as `pg_dump -Fc` writes it.
    PgCustom,
    /// The same things in a tar archive, as `pg_dump -Ft` writes it.
    PgTar,
    /// The directory that `pg_dump -Fd` writes, in a tar archive.
    PgDirectory,
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Content::PlainSql => "plain SQL",
            Content::PgCustom => "pg_dump custom archive",
            Content::PgTar => "pg_dump tar archive",
            Content::PgDirectory => "pg_dump directory in a tar archive",
        })
    }
}

/// Why a dump is not one that can be restored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Not a byte in it.
    #[error("the dump is empty: check that the program that wrote it succeeded")]
    Empty,
    /// Something else.
    #[error("this is not a database dump: {0}")]
    NotADump(String),
    /// A dump, but not one that we can read.
    #[error("{0}")]
    Unsupported(String),
    /// The end is missing.
    #[error("the dump is truncated: {0}; make it again and check that the upload was complete")]
    Truncated(String),
    /// Bytes were damaged.
    #[error("the dump is corrupt: {0}; make it again or fetch it again")]
    Corrupt(String),
    /// It asks `psql` for something that a dump has no business with.
    #[error("line {line} of the dump holds the psql command {command}, which is refused: {advice}")]
    Command {
        /// Where.
        line: u64,
        /// Which.
        command: String,
        /// Why, and what to do.
        advice: &'static str,
    },
}

/// What can go wrong while a dump is read: below (the source) or here (the format). Travels inside `std::io::Error`,
/// because that is what readers of readers speak.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StreamError {
    /// The bytes could not be had.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The bytes are wrong.
    #[error(transparent)]
    Format(#[from] Error),
}

impl From<StreamError> for std::io::Error {
    fn from(err: StreamError) -> std::io::Error {
        std::io::Error::other(err)
    }
}

impl From<StreamError> for crate::Error {
    fn from(err: StreamError) -> crate::Error {
        match err {
            StreamError::Source(err) => err.into(),
            StreamError::Format(err) => err.into(),
        }
    }
}

impl StreamError {
    /// Unpacks what a reader of ours said.
    #[must_use]
    pub fn unpack(err: std::io::Error) -> StreamError {
        let said = err.to_string();
        err.downcast::<StreamError>().unwrap_or(StreamError::Format(Error::Corrupt(said)))
    }
}

/// Peels `stored` until something remains that an engine can read. Blocking.
///
/// # Errors
/// When it cannot be read, or what remains is nothing we know.
pub fn open(stored: Box<dyn BufRead + Send>) -> Result<Dump, StreamError> {
    let mut reader = stored;
    let mut layers: Vec<String> = Vec::new();
    for _ in 0..LAYERS {
        let mut head = Vec::new();
        reader.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(StreamError::unpack)?;
        let whole = head.len() < HEAD;
        let again: Box<dyn BufRead + Send> =
            Box::new(BufReader::with_capacity(PIECE, Cursor::new(head.clone()).chain(reader)));
        match detect(&head, whole)? {
            Found::Compressed(compression) => {
                layers.push(compression.to_string());
                let decoder = compression.decode(again).map_err(StreamError::unpack)?;
                reader = Box::new(BufReader::with_capacity(PIECE, decoder));
            }
            Found::Content(content) => {
                layers.push(content.to_string());
                return Ok(Dump { format: layers.join(", "), content, head, reader: again });
            }
        }
    }
    Err(Error::NotADump(format!("it is compressed more than {LAYERS} times")).into())
}
