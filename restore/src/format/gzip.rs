//! gzip, strictly: several members are one stream (as `pigz` and `cat a.gz b.gz` make them), and everything that is
//! not a whole member with the right checksum is an error.

use std::io::{BufRead, ErrorKind, Read};

use flate2::bufread::GzDecoder;

use super::{Error, StreamError};

/// Decompresses, and says what is wrong in plain words.
pub struct Strict<R> {
    /// The member at which we are; none when the last one is over.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Strict<R> {
    /// Decompresses `compressed`.
    pub fn new(compressed: R) -> Strict<R> {
        Strict { member: Some(GzDecoder::new(compressed)) }
    }

    /// A member is over: the next one must begin here, or the stream be at its end.
    fn next_member(&mut self) -> std::io::Result<()> {
        let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { return Ok(()) };
        let head = rest.fill_buf()?;
        if head.is_empty() {
            return Ok(());
        }
        if !head.starts_with(&b"\x1f\x8b"[..head.len().min(2)]) {
            let what = "after the end of the gzip stream there are bytes that do not belong to it";
            return Err(StreamError::from(Error::Corrupt(what.into())).into());
        }
        self.member = Some(GzDecoder::new(rest));
        Ok(())
    }
}

impl<R: BufRead> Read for Strict<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while let Some(member) = &mut self.member {
            match member.read(into).map_err(in_plain_words)? {
                0 if !into.is_empty() => self.next_member()?,
                count => return Ok(count),
            }
        }
        Ok(0)
    }
}

fn in_plain_words(err: std::io::Error) -> std::io::Error {
    if err.get_ref().is_some_and(|inner| inner.is::<StreamError>()) {
        return err; // from below
    }
    let said = err.to_string();
    let err = match err.kind() {
        ErrorKind::UnexpectedEof => Error::Truncated("the gzip stream stops in the middle".into()),
        _ if said.contains("checksum") => Error::Corrupt("the gzip checksum does not match the data".into()),
        _ => Error::Corrupt(format!("the gzip stream is damaged ({said})")),
    };
    StreamError::from(err).into()
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

        /// A few bits mean nothing (the header's time, the padding behind the last block): all others are missed.
        #[test]
        fn a_flipped_bit_is_found_or_changes_nothing(data: Vec<u8>, at: usize, bit in 0..8_u8) {
            let mut bad = gzip(&data);
            let at = at % bad.len();
            bad[at] ^= 1 << bit;
            prop_assert!(gunzip(&bad).is_err() || gunzip(&bad).as_ref() == Ok(&data), "bit {bit} of byte {at} of {}", bad.len());
        }
    }
}
