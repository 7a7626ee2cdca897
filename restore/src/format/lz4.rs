//! lz4 frames, strictly: the decoder takes the end of its input for the end of a frame, and ends with each frame.

use std::io::{self, BufRead, ErrorKind, Read};

use lz4_flex::frame::FrameDecoder;

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// What a frame's flags say, in the byte behind the magic one.
const BLOCK_CHECKSUMS: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_CHECKSUM: u8 = 0x04;
const DICTIONARY: u8 = 0x01;

/// Decompresses frame after frame.
pub(super) struct Frames<R: BufRead> {
    decoder: FrameDecoder<Whole<R>>,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(compressed: R) -> Frames<R> {
        Frames { decoder: FrameDecoder::new(Whole { inner: compressed, at: At::Between, seen: Vec::new() }) }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.decoder.read(into)?;
            if count > 0 || into.is_empty() {
                return Ok(count);
            }
            let stored = self.decoder.get_mut();
            if stored.inner.fill_buf()?.is_empty() {
                // Asked here: the decoder passes over an error that says so.
                return if stored.at == At::Between { Ok(0) } else { Err(ErrorKind::UnexpectedEof.into()) };
            }
        }
    }
}

/// Passes frames on, and knows whether the last one has ended.
struct Whole<R> {
    inner: R,
    at: At,
    /// What there is of a header, or of a block's length.
    seen: Vec<u8>,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// Nothing yet.
    Between,
    /// Magic bytes and flags, …
    Header,
    /// … so many bytes more of it, …
    RestOfHeader { flags: u8, left: u64 },
    /// … the length of a block, …
    Length { flags: u8 },
    /// … its data and checksum, …
    Block { flags: u8, left: u64 },
    /// … what all data adds up to, behind the last.
    Checksum { left: u64 },
}

impl<R: BufRead> Read for Whole<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.follow(&into[..count]);
        Ok(count)
    }
}

impl<R> Whole<R> {
    fn follow(&mut self, mut bytes: &[u8]) {
        while let Some(byte) = bytes.first() {
            match self.at {
                At::Between | At::Header | At::Length { .. } => {
                    self.seen.push(*byte);
                    bytes = &bytes[1..];
                    self.small();
                }
                At::RestOfHeader { left, .. } | At::Block { left, .. } | At::Checksum { left } => {
                    let count = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    bytes = &bytes[count..];
                    self.passed(left - count as u64);
                }
            }
        }
    }

    /// One more byte of a header or a length.
    fn small(&mut self) {
        match self.at {
            At::Between => self.at = At::Header,
            At::Header if self.seen.len() == MAGIC.len() + 1 => {
                let flags = self.seen[MAGIC.len()];
                let size = if flags & CONTENT_SIZE != 0 { 8 } else { 0 };
                let dictionary = if flags & DICTIONARY != 0 { 4 } else { 0 };
                // Beside them a byte about blocks, and a checksum.
                self.at = At::RestOfHeader { flags, left: 2 + size + dictionary };
            }
            At::Length { flags } if self.seen.len() == 4 => {
                let length = self.seen.iter().rev().fold(0, |length, byte| length << 8 | u64::from(*byte));
                let checksum = if flags & BLOCK_CHECKSUMS != 0 { 4 } else { 0 };
                self.at = match length {
                    0 if flags & CONTENT_CHECKSUM != 0 => At::Checksum { left: 4 },
                    0 => At::Between,
                    // The highest bit says that it is not compressed.
                    length => At::Block { flags, left: (length & 0x7fff_ffff) + checksum },
                };
            }
            _ => return,
        }
        if self.at != At::Header {
            self.seen.clear();
        }
    }

    /// So many bytes are left of what we pass.
    fn passed(&mut self, now: u64) {
        self.at = match self.at {
            At::RestOfHeader { flags, .. } if now == 0 => At::Length { flags },
            At::Block { flags, .. } if now == 0 => At::Length { flags },
            At::Checksum { .. } if now == 0 => At::Between,
            At::RestOfHeader { flags, .. } => At::RestOfHeader { flags, left: now },
            At::Block { flags, .. } => At::Block { flags, left: now },
            At::Checksum { .. } => At::Checksum { left: now },
            other => other,
        };
    }
}
