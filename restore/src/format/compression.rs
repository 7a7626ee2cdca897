//! Compressions, each read strictly: several streams one after the other are one (as parallel compressors and `cat` make
//! them), and everything that is not whole, with the right checksum, is an error.

use std::fmt;
use std::io::{self, BufRead, ErrorKind, Read};

use super::{Error, StreamError, gzip, lz4};

/// Around a dump, or around another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // their names say it
pub enum Compression {
    Gzip,
    Zstd,
    Xz,
    Lz4,
    Bzip2,
}

/// How much memory a zstd window may take, as a power of two: 2 GiB, what `zstd --long=31` makes.
const WINDOW_LOG: u32 = 31;

impl Compression {
    /// The one that begins so.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Compression> {
        match head {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            // The second: a frame to be skipped, which parallel compressors put first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Compression::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Compression::Lz4),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Compression::Bzip2),
            _ => None,
        }
    }

    /// Decompresses.
    ///
    /// # Errors
    /// When the decoder has no memory.
    pub fn decode(self, compressed: Box<dyn BufRead + Send>) -> io::Result<Box<dyn Read + Send>> {
        let decoder: Box<dyn Read + Send> = match self {
            Compression::Gzip => return Ok(Box::new(gzip::Strict::new(compressed))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
                decoder.window_log_max(WINDOW_LOG)?;
                Box::new(decoder)
            }
            Compression::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(compressed)),
            Compression::Lz4 => Box::new(lz4::Frames::new(compressed)),
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(compressed)),
        };
        Ok(Box::new(InPlainWords { name: self, decoder }))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Xz => "xz",
            Compression::Lz4 => "lz4",
            Compression::Bzip2 => "bzip2",
        })
    }
}

/// Says what is wrong so that people understand it.
struct InPlainWords<R> {
    name: Compression,
    decoder: R,
}

impl<R: Read> Read for InPlainWords<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(into).map_err(|err| explain(self.name, err))
    }
}

fn explain(name: Compression, err: io::Error) -> io::Error {
    if err.get_ref().is_some_and(|inner| inner.is::<StreamError>()) {
        return err; // from below
    }
    let said = err.to_string();
    let err = match err.kind() {
        ErrorKind::UnexpectedEof => Error::Truncated(format!("the {name} stream stops in the middle")),
        ErrorKind::OutOfMemory => {
            Error::Unsupported(format!("the {name} stream needs too much memory: {said}"))
        }
        _ => Error::Corrupt(format!("the {name} stream is damaged, or something follows it ({said})")),
    };
    StreamError::from(err).into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const ALL: [Compression; 4] = [Compression::Zstd, Compression::Xz, Compression::Lz4, Compression::Bzip2];

    /// As their programs do by themselves, with a checksum.
    fn compress(with: Compression, data: &[u8]) -> Vec<u8> {
        match with {
            Compression::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
                encoder.include_checksum(true).unwrap();
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Lz4 => {
                let info = lz4_flex::frame::FrameInfo::new().content_checksum(true);
                let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Gzip => unreachable!("tested by itself"),
        }
    }

    fn decompress(with: Compression, data: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        let read = with
            .decode(Box::new(io::Cursor::new(data.to_vec())))
            .and_then(|mut decoder| decoder.read_to_end(&mut out));
        match read.map_err(StreamError::unpack) {
            Ok(_) => Ok(out),
            Err(StreamError::Format(err)) => Err(err),
            Err(StreamError::Source(err)) => panic!("{err}"),
        }
    }

    #[test]
    fn each_is_known_by_its_first_bytes_and_several_streams_are_one() {
        for with in ALL {
            let (one, none, two) = (compress(with, b"one, "), compress(with, b""), compress(with, b"two"));
            assert_eq!(Compression::of(&one), Some(with));
            assert_eq!(decompress(with, &[one, none, two].concat()).unwrap(), b"one, two", "{with}");
            let large = vec![7; 5 << 20];
            assert!(decompress(with, &compress(with, &large)).unwrap() == large, "{with}");
        }
    }

    #[test]
    fn bytes_after_the_end_are_an_error() {
        for with in ALL {
            for garbage in
                [&b"garbage that is long enough for any header"[..], b"\n", b"\0", b"--", b"\0\0\0\0\0"]
            {
                let bad = [compress(with, b"one"), garbage.to_vec()].concat();
                assert!(decompress(with, &bad).is_err(), "{with}: {garbage:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn every_truncation_is_found(data: Vec<u8>, cut in 1..usize::MAX, which in 0..ALL.len()) {
            let with = ALL[which];
            let whole = compress(with, &data);
            let cut = 1 + cut % (whole.len() - 1);
            let told = decompress(with, &whole[..whole.len() - cut]);
            prop_assert!(matches!(told, Err(Error::Truncated(_))), "{with}: cut {cut} of {}: {told:?}", whole.len());
        }

        #[test]
        fn a_flipped_bit_is_found_or_changes_nothing(data: Vec<u8>, at: usize, bit in 0..8_u8, which in 0..ALL.len()) {
            let with = ALL[which];
            let mut bad = compress(with, &data);
            let at = at % bad.len();
            bad[at] ^= 1 << bit;
            let told = decompress(with, &bad);
            prop_assert!(told.is_err() || told.as_ref() == Ok(&data), "{with}: bit {bit} of byte {at} of {}", bad.len());
        }
    }
}
