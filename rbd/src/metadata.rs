//! Image metadata: key and value strings in an image's header.
//!
//! [`Namespace`] reads and writes them without opening the image, which saves the 14 operations of an open each time. It
//! calls the methods `metadata_list`, `metadata_set` and `metadata_remove` of the object class `rbd` on the header object
//! `rbd_header.<id>`: what librbd itself sends. That protocol is stable, since clients of all releases use it against OSDs
//! of all others: the methods take and give `std::string` and `std::map<string, bufferlist>`, and keep the pair in the
//! header's omap under `metadata_<key>`. Whoever watches the image isn't told (only keys that begin with `conf_` would
//! matter to a watcher).

use std::collections::BTreeMap;
use std::ffi::{CString, c_char};

use crate::error::{Error, Result, check};
use crate::ffi::{self, cstring};
use crate::image::Image;
use crate::names::ImageId;
use crate::namespace::Namespace;
use crate::object::{WriteOp, read_class};
use crate::wire;

/// What the class puts before each key in the header's omap.
const OMAP_PREFIX: &str = "metadata_";

/// Keys per answer: what the class itself reads at once.
const PAGE: u64 = 64;

const READ: &str = "read metadata of image";
const WRITE: &str = "write metadata of image";

impl Namespace {
    /// All metadata of an image, in one operation per 64 keys.
    ///
    /// Implements: class method `rbd.metadata_list`.
    pub fn metadata(&self, id: &ImageId) -> Result<BTreeMap<String, String>> {
        let target = || self.at(format_args!("(id {id})"));
        let object = header(id, READ)?;
        let mut all = BTreeMap::new();
        let mut last = String::new();
        loop {
            let mut input = Vec::new();
            wire::encode_bytes(&mut input, last.as_bytes());
            input.extend_from_slice(&PAGE.to_le_bytes());
            let answer = read_class(self, &object, c"rbd", c"metadata_list", &input)
                .map_err(|code| Error::new(READ, target(), code))?;
            let page = wire::decode_map(&answer)
                .map_err(|why| Error::new(READ, target(), libc::EBADMSG).because(why))?;
            let full = page.len() as u64 >= PAGE;
            if let Some((key, _)) = page.last_key_value() {
                last.clone_from(key);
            }
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
    }

    /// Sets all these keys, others stay: one operation, seen whole or not at all. An image that is gone stays gone.
    ///
    /// Implements: class method `rbd.metadata_set`.
    pub fn set_metadata(&self, id: &ImageId, metadata: &BTreeMap<String, String>) -> Result<()> {
        let code = self.write_metadata(id, None, metadata)?;
        check(code, WRITE, || self.at(format_args!("(id {id})"))).map(drop)
    }

    /// Sets all these keys if `expect`'s key holds its value (`None`: if it is missing or empty), in one operation, and
    /// says whether it did. Of several that race from one state, one wins.
    ///
    /// Implements: `rados_write_op_omap_cmp` and class method `rbd.metadata_set`.
    pub fn set_metadata_if(
        &self,
        id: &ImageId,
        expect: (&str, Option<&str>),
        metadata: &BTreeMap<String, String>,
    ) -> Result<bool> {
        let code = self.write_metadata(id, Some(expect), metadata)?;
        if code == -libc::ECANCELED {
            return Ok(false);
        }
        check(code, WRITE, || self.at(format_args!("(id {id})"))).map(|_| true)
    }

    fn write_metadata(
        &self,
        id: &ImageId,
        expect: Option<(&str, Option<&str>)>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<i32> {
        if let Some(key) = metadata.keys().find(|key| key.is_empty() || key.contains('\0')) {
            return Err(Error::invalid(WRITE, self.at(id), format!("{key:?} can't be a key")));
        }
        let mut op = WriteOp::new();
        op.assert_exists();
        if let Some((key, value)) = expect {
            let key = cstring(&format!("{OMAP_PREFIX}{key}"), WRITE)?;
            op.compare_omap(&key, value.unwrap_or_default().as_bytes());
        }
        op.exec(c"rbd", c"metadata_set", &wire::encode_map(metadata));
        Ok(op.run(self, &header(id, WRITE)?))
    }

    /// Removes one key. A missing one is fine.
    ///
    /// Implements: class method `rbd.metadata_remove`.
    pub fn remove_metadata(&self, id: &ImageId, key: &str) -> Result<()> {
        const REMOVE: &str = "remove metadata of image";
        let mut input = Vec::new();
        wire::encode_bytes(&mut input, key.as_bytes());
        let mut op = WriteOp::new();
        op.assert_exists();
        op.exec(c"rbd", c"metadata_remove", &input);
        let code = op.run(self, &header(id, REMOVE)?);
        check(code, REMOVE, || format!("{} key {key}", self.at(format_args!("(id {id})")))).map(drop)
    }
}

/// The name of an image's header object.
fn header(id: &ImageId, operation: &'static str) -> Result<CString> {
    cstring(&format!("rbd_header.{id}"), operation)
}

/// The same through an open image: watchers are told, and `conf_` keys take effect.
impl Image {
    /// The value of one key.
    ///
    /// Implements: `rbd_metadata_get`.
    pub fn metadata_get(&self, key: &str) -> Result<String> {
        let name = cstring(key, READ)?;
        self.text(READ, |buffer, len| {
            // SAFETY: the image is open, the key lives through the call, the buffer has `len` bytes.
            unsafe { rbd_sys::rbd_metadata_get(self.raw(), name.as_ptr(), buffer, len) }
        })
    }

    /// Sets one key.
    ///
    /// Implements: `rbd_metadata_set`.
    pub fn metadata_set(&self, key: &str, value: &str) -> Result<()> {
        let (name, text) = (cstring(key, WRITE)?, cstring(value, WRITE)?);
        // SAFETY: the image is open, both strings live through the call.
        let code = unsafe { rbd_sys::rbd_metadata_set(self.raw(), name.as_ptr(), text.as_ptr()) };
        self.check(code, WRITE).map(drop)
    }

    /// Removes one key, which must be there.
    ///
    /// Implements: `rbd_metadata_remove`.
    pub fn metadata_remove(&self, key: &str) -> Result<()> {
        let name = cstring(key, WRITE)?;
        // SAFETY: the image is open, the key lives through the call.
        let code = unsafe { rbd_sys::rbd_metadata_remove(self.raw(), name.as_ptr()) };
        self.check(code, WRITE).map(drop)
    }

    /// All keys and values.
    ///
    /// Implements: `rbd_metadata_list`.
    pub fn metadata_list(&self) -> Result<BTreeMap<String, String>> {
        let mut all = BTreeMap::new();
        let mut last = String::new();
        loop {
            let page = self.metadata_page(&last)?;
            let full = page.len() as u64 >= PAGE;
            if let Some((key, _)) = page.last() {
                last.clone_from(key);
            }
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
    }

    fn metadata_page(&self, after: &str) -> Result<Vec<(String, String)>> {
        let start = cstring(after, READ)?;
        let mut values: Vec<c_char> = vec![0; 4096];
        let keys = ffi::grow(0, 1024, |buffer: *mut c_char, key_len| {
            let mut value_len = values.len();
            // SAFETY: the image is open, and both buffers have the lengths that are passed.
            let code = unsafe {
                let data = values.as_mut_ptr();
                rbd_sys::rbd_metadata_list(
                    self.raw(),
                    start.as_ptr(),
                    PAGE,
                    buffer,
                    key_len,
                    data,
                    &mut value_len,
                )
            };
            if code == -libc::ERANGE {
                values.resize(value_len.max(values.len() * 2), 0);
            } else {
                values.truncate(value_len);
            }
            code
        })
        .map_err(|code| Error::new(READ, self.label(), code))?;
        Ok(texts(&keys).into_iter().zip(texts(&values)).collect())
    }
}

/// The strings of a buffer in which each ends with a NUL, empty ones too.
fn texts(buffer: &[c_char]) -> Vec<String> {
    let bytes: Vec<u8> = buffer.iter().map(|c| c.cast_unsigned()).collect();
    let Some(body) = bytes.strip_suffix(b"\0") else { return Vec::new() };
    body.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}
