//! gzip, strictly: several members are one stream (as `pigz` and `cat a.gz b.gz` make them), and everything that is
//! not a whole member with the right checksum is an error.

use std::io::{BufRead, ErrorKind, Read};

use flate2::bufread::MultiGzDecoder;

use super::{Error, StreamError};

/// Decompresses, and says what is wrong in plain words.
pub struct Strict<R> {
    inner: MultiGzDecoder<R>,
}

impl<R: BufRead> Strict<R> {
    /// Decompresses `compressed`.
    pub fn new(compressed: R) -> Strict<R> {
        Strict { inner: MultiGzDecoder::new(compressed) }
    }
}

impl<R: BufRead> Read for Strict<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(into).map_err(|err| {
            if err.get_ref().is_some_and(|inner| inner.is::<StreamError>()) {
                return err; // from below
            }
            let said = err.to_string();
            let err = match err.kind() {
                ErrorKind::UnexpectedEof => Error::Truncated("the gzip stream stops in the middle".into()),
                _ if said.contains("header") => Error::Corrupt(
                    "after the end of the gzip stream there are bytes that do not belong to it".into(),
                ),
                _ if said.contains("checksum") => {
                    Error::Corrupt("the gzip checksum does not match the data".into())
                }
                _ => Error::Corrupt(format!("the gzip stream is damaged ({said})")),
            };
            StreamError::from(err).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn gunzip(data: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        match Strict::new(data).read_to_end(&mut out) {
            Ok(_) => Ok(out),
            Err(err) => match StreamError::unpack(err) {
                StreamError::Format(err) => Err(err),
                StreamError::Source(err) => panic!("{err}"),
            },
        }
    }

    #[test]
    fn several_members_are_one_stream() {
        assert_eq!(gunzip(&[gzip(b"one, "), gzip(b""), gzip(b"two")].concat()).unwrap(), b"one, two");
    }

    #[test]
    fn bytes_after_the_end_are_an_error() {
        for garbage in [&b"garbage"[..], b"\0", b"\0\0\0\0\0\0\0\0\0\0\0\0", b"\x1f", b"\x1f\x8bxx"] {
            assert!(gunzip(&[gzip(b"one"), garbage.to_vec()].concat()).is_err(), "{garbage:?}");
        }
    }

    proptest! {
        #[test]
        fn every_truncation_is_found(data: Vec<u8>, cut in 1..usize::MAX) {
            let whole = gzip(&data);
            let cut = 1 + cut % (whole.len() - 1);
            prop_assert!(matches!(gunzip(&whole[..whole.len() - cut]), Err(Error::Truncated(_))), "cut {cut} of {}", whole.len());
        }

        /// A flipped bit in the header's flags, time or origin changes no data: from the tenth byte on it is found.
        #[test]
        fn every_flipped_bit_behind_the_header_is_found(data: Vec<u8>, at: usize, bit in 0..8_u8) {
            let mut bad = gzip(&data);
            let at = 10 + at % (bad.len() - 10);
            bad[at] ^= 1 << bit;
            prop_assert!(gunzip(&bad).is_err(), "bit {bit} of byte {at} of {}", bad.len());
        }
    }
}
