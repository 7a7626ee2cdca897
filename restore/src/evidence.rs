//! Counts and hashes the stored bytes while they pass from the source (async) to whoever decodes them (blocking).

use std::io::{BufRead, Read};

use bytes::{Buf, Bytes};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::format::StreamError;
use crate::report::Report;
use crate::source::{Error, Opened};

/// Pieces that may wait between the two sides.
const AHEAD: usize = 8;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Bytes, as stored.
    pub size: u64,
    /// Their SHA-256, hexadecimal.
    pub sha256: String,
}

/// Starts reading. The task ends when all is read, when reading fails, or when the [`Pipe`] is dropped.
#[must_use]
pub fn read(opened: Opened, report: Report, cancel: CancellationToken) -> (JoinHandle<Evidence>, Pipe) {
    let (pieces, incoming) = mpsc::channel(AHEAD);
    let task = tokio::spawn(feed(opened, pieces, report, cancel));
    (task, Pipe { incoming, piece: Bytes::new() })
}

async fn feed(
    mut opened: Opened,
    pieces: mpsc::Sender<Result<Bytes, Error>>,
    report: Report,
    cancel: CancellationToken,
) -> Evidence {
    let mut hash = Sha256::new();
    let mut size = 0;
    loop {
        let piece = match opened.body.next(&cancel).await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(err) => {
                let _ = pieces.send(Err(err)).await;
                break;
            }
        };
        hash.update(&piece);
        size += piece.len() as u64;
        report.progress(size, opened.size, false);
        if pieces.send(Ok(piece)).await.is_err() {
            break;
        }
    }
    report.progress(size, opened.size, true);
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Evidence { size, sha256 }
}

/// The blocking end.
#[derive(Debug)]
pub struct Pipe {
    incoming: mpsc::Receiver<Result<Bytes, Error>>,
    piece: Bytes,
}

impl BufRead for Pipe {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.incoming.blocking_recv() {
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(err)) => return Err(StreamError::from(err).into()),
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, amount: usize) {
        self.piece.advance(amount);
    }
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let piece = self.fill_buf()?;
        let count = piece.len().min(into.len());
        into[..count].copy_from_slice(&piece[..count]);
        self.consume(count);
        Ok(count)
    }
}
