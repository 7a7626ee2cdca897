//! What both C interfaces need: strings across the border, and the loop that grows a buffer until it fits.

use std::ffi::{CStr, CString, c_char, c_int};

use crate::error::{Error, Result};

/// Calls of librados that the `ceph` crate doesn't declare.
pub(crate) mod rados {
    pub(crate) use ceph::rados::*;
    use std::ffi::{c_char, c_int};

    unsafe extern "C" {
        /// `int rados_getaddrs(rados_t cluster, char **addrs)`, since Nautilus.
        pub(crate) fn rados_getaddrs(cluster: rados_t, addrs: *mut *mut c_char) -> c_int;

        /// `void rados_set_pool_full_try(rados_ioctx_t io)`, since Octopus.
        pub(crate) fn rados_set_pool_full_try(io: rados_ioctx_t);
    }
}

/// The most bytes or entries that a growing buffer may reach: beyond it the answer isn't believed.
const GROW_LIMIT: usize = 1 << 28;

/// A string for C; one with a NUL inside is refused.
pub(crate) fn cstring(text: &str, operation: &'static str) -> Result<CString> {
    CString::new(text)
        .map_err(|_| Error::invalid(operation, format!("{text:?}"), "there is a NUL byte inside"))
}

/// Calls until the buffer is large enough: on `-ERANGE` the call says in its length what it needs.
///
/// Returns the filled part. The second call may find even more than the first said, so it is a loop.
pub(crate) fn grow<T: Copy>(
    empty: T,
    start: usize,
    mut call: impl FnMut(*mut T, &mut usize) -> c_int,
) -> std::result::Result<Vec<T>, c_int> {
    let mut capacity = start;
    loop {
        let mut buffer = vec![empty; capacity];
        let mut len = capacity;
        let code = call(buffer.as_mut_ptr(), &mut len);
        if code == -libc::ERANGE && capacity < GROW_LIMIT {
            capacity = len.max(capacity * 2);
            continue;
        }
        if code < 0 {
            return Err(code);
        }
        buffer.truncate(len);
        return Ok(buffer);
    }
}

/// The strings of a buffer in which each ends with a NUL.
pub(crate) fn split_nul(buffer: &[c_char]) -> Vec<String> {
    let bytes: Vec<u8> = buffer.iter().map(|c| c.cast_unsigned()).collect();
    bytes
        .split(|byte| *byte == 0)
        .filter(|text| !text.is_empty())
        .map(|text| String::from_utf8_lossy(text).into_owned())
        .collect()
}

/// A copy of a C string; null reads as empty.
///
/// # Safety
/// `text` is null, or points to a NUL-terminated string that lives for the call.
pub(crate) unsafe fn owned(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not null, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// A copy of memory that librados allocated, which is freed.
///
/// # Safety
/// `data` is null, or `len` bytes that librados allocated for the caller and that nobody uses after this.
pub(crate) unsafe fn take_rados_buffer(data: *mut c_char, len: usize) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: `len` bytes are readable by the caller's promise; freed once, here.
    unsafe {
        let bytes = std::slice::from_raw_parts(data.cast::<u8>(), len).to_vec();
        rados::rados_buffer_free(data);
        bytes
    }
}

/// A progress callback that lets everything go on. librbd calls it unchecked, so null won't do.
pub(crate) unsafe extern "C" fn no_progress(_: u64, _: u64, _: *mut std::ffi::c_void) -> c_int {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_until_the_answer_fits_even_if_it_grows_meanwhile() {
        let mut needed = 5;
        let got = grow(0u8, 2, |buffer, len| {
            if *len < needed {
                *len = needed;
                needed += 1;
                return -libc::ERANGE;
            }
            // SAFETY: the buffer holds at least `needed` bytes.
            unsafe { buffer.write(9) };
            *len = needed;
            0
        })
        .unwrap();
        assert_eq!(got.len(), 7);
        assert_eq!(got[0], 9);
    }

    #[test]
    fn an_answer_that_never_fits_ends_as_an_error() {
        assert_eq!(grow(0u8, 1, |_, _| -libc::ERANGE).unwrap_err(), -libc::ERANGE);
        assert_eq!(grow(0u8, 1, |_, _| -libc::EIO).unwrap_err(), -libc::EIO);
    }

    #[test]
    fn strings_are_split_at_their_nul() {
        let buffer: Vec<c_char> = b"one\0two\0\0\0".iter().map(|byte| byte.cast_signed()).collect();
        assert_eq!(split_nul(&buffer), ["one", "two"]);
    }
}
