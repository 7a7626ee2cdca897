//! The few pieces of Ceph's wire encoding that the class calls need: strings and maps, lengths as little-endian `u32`.

use std::collections::BTreeMap;

type Decoded<T> = std::result::Result<T, String>;

/// `std::string` or `bufferlist`: its length, then its bytes.
pub(crate) fn encode_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    // Nothing longer than 4 GiB gets here: librados refuses objects and requests far below that.
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// A structure with its version, which is also the oldest that may read it.
pub(crate) fn encode_versioned(version: u8, body: &[u8]) -> Vec<u8> {
    encode_structure(version, version, body)
}

/// A structure with its version and the oldest that may read it: `ENCODE_START` and `ENCODE_FINISH`.
pub(crate) fn encode_structure(version: u8, oldest: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![version, oldest];
    encode_bytes(&mut out, body);
    out
}

/// `std::map<std::string, bufferlist>`: the number of entries, then key and value of each.
pub(crate) fn encode_map(map: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&u32::try_from(map.len()).unwrap_or(u32::MAX).to_le_bytes());
    for (key, value) in map {
        encode_bytes(&mut out, key.as_bytes());
        encode_bytes(&mut out, value.as_bytes());
    }
    out
}

/// A string that is all there is.
pub(crate) fn decode_string(bytes: &[u8]) -> Decoded<String> {
    let mut rest = bytes;
    let text = take_text(&mut rest)?;
    if rest.is_empty() { Ok(text) } else { Err(format!("{} bytes follow a string", rest.len())) }
}

/// A map that is all there is.
pub(crate) fn decode_map(bytes: &[u8]) -> Decoded<BTreeMap<String, String>> {
    let mut rest = bytes;
    let entries = take_u32(&mut rest)?;
    let mut map = BTreeMap::new();
    for _ in 0..entries {
        let key = take_text(&mut rest)?;
        map.insert(key, take_text(&mut rest)?);
    }
    if rest.is_empty() { Ok(map) } else { Err(format!("{} bytes follow a map", rest.len())) }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Decoded<&'a [u8]> {
    let (taken, left) =
        rest.split_at_checked(len).ok_or_else(|| format!("{len} bytes announced, {} there", rest.len()))?;
    *rest = left;
    Ok(taken)
}

fn take_u32(rest: &mut &[u8]) -> Decoded<usize> {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(take(rest, 4)?);
    Ok(u32::from_le_bytes(bytes) as usize)
}

/// Text as others may have written it: what isn't UTF-8 is replaced rather than making the whole map unreadable.
fn take_text(rest: &mut &[u8]) -> Decoded<String> {
    let len = take_u32(rest)?;
    Ok(String::from_utf8_lossy(take(rest, len)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_map_is_encoded_as_ceph_does() {
        let map = BTreeMap::from([("k".to_owned(), "vv".to_owned())]);
        assert_eq!(encode_map(&map), b"\x01\0\0\0\x01\0\0\0k\x02\0\0\0vv");
    }

    proptest! {
        #[test]
        fn a_map_reads_back_as_it_was_written(map: BTreeMap<String, String>) {
            prop_assert_eq!(decode_map(&encode_map(&map)).unwrap(), map);
        }

        #[test]
        fn a_string_reads_back_as_it_was_written(text: String) {
            let mut bytes = Vec::new();
            encode_bytes(&mut bytes, text.as_bytes());
            prop_assert_eq!(decode_string(&bytes).unwrap(), text);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_map(&bytes);
            let _ = decode_string(&bytes);
        }

        #[test]
        fn a_map_cut_short_is_an_error(map in prop::collection::btree_map(".{1,8}", ".{0,8}", 1..5), cut in 1usize..16) {
            let bytes = encode_map(&map);
            let kept = bytes.len().saturating_sub(cut);
            prop_assert!(decode_map(&bytes[..kept]).is_err());
        }
    }
}
