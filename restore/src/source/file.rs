//! A file on this machine, and standard input.

use std::io::ErrorKind;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::sync::CancellationToken;

use super::{Body, Error, Opened, Pending, Source, or_cancelled};

/// How much is read at once.
const PIECE: usize = 256 << 10;

/// A file.
#[derive(Clone, Debug)]
pub struct File {
    path: PathBuf,
}

impl File {
    /// The dump at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> File {
        File { path }
    }

    fn error(&self, err: &std::io::Error) -> Error {
        let location = self.location();
        match err.kind() {
            ErrorKind::NotFound => Error::NotFound { location, advice: "check the path".into() },
            ErrorKind::PermissionDenied => {
                let advice = "make it readable for the user that runs this program".into();
                Error::Denied { location, detail: "permission denied".into(), advice }
            }
            _ => Error::Io { location, detail: err.to_string() },
        }
    }

    async fn open(&self) -> Result<Opened, Error> {
        let file = tokio::fs::File::open(&self.path).await.map_err(|err| self.error(&err))?;
        let meta = file.metadata().await.map_err(|err| self.error(&err))?;
        if meta.is_dir() {
            let detail =
                "it is a directory: of one that pg_dump -Fd wrote make a tar archive, tar -C DIR -cf DUMP.tar ."
                    .into();
            return Err(Error::Io { location: self.location(), detail });
        }
        let size = meta.is_file().then_some(meta.len()); // a named pipe has none
        Ok(Opened { size, etag: None, body: Box::new(Reader::new(file, self.location(), size)) })
    }
}

impl Source for File {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn open<'a>(&'a self, cancel: &'a CancellationToken) -> Pending<'a, Opened> {
        Box::pin(or_cancelled(cancel, File::open(self)))
    }
}

/// Standard input.
#[derive(Clone, Copy, Debug)]
pub struct Stdin;

impl Source for Stdin {
    fn location(&self) -> String {
        "-".into()
    }

    fn open<'a>(&'a self, _cancel: &'a CancellationToken) -> Pending<'a, Opened> {
        let body = Box::new(Reader::new(tokio::io::stdin(), self.location(), None));
        Box::pin(std::future::ready(Ok(Opened { size: None, etag: None, body })))
    }
}

/// Pieces of whatever can be read.
struct Reader<R> {
    inner: R,
    location: String,
    expected: Option<u64>,
    got: u64,
}

impl<R: AsyncRead + Send + Unpin> Reader<R> {
    fn new(inner: R, location: String, expected: Option<u64>) -> Reader<R> {
        Reader { inner, location, expected, got: 0 }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = self.inner.read_buf(&mut piece).await;
        let read =
            read.map_err(|err| Error::Io { location: self.location.clone(), detail: err.to_string() })?;
        self.got += read as u64;
        match self.expected {
            _ if read > 0 => Ok(Some(piece.freeze())),
            Some(expected) if expected != self.got => Err(Error::Changed { location: self.location.clone() }),
            _ => Ok(None),
        }
    }
}

impl<R: AsyncRead + Send + Unpin> Body for Reader<R> {
    fn next<'a>(&'a mut self, cancel: &'a CancellationToken) -> Pending<'a, Option<Bytes>> {
        Box::pin(or_cancelled(cancel, Reader::next(self)))
    }
}
