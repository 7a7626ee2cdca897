//! Small objects, read and written whole; the write and read operations that other files build on.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use crate::error::{Error, Result, check, check_len};
use crate::ffi::{self, cstring, rados};
use crate::names::{ImageId, ImageName};
use crate::namespace::Namespace;
use crate::wire;

/// The largest object that [`Namespace::read_object`] reads.
const MAX_OBJECT: usize = 16 << 20;

impl Namespace {
    /// Reads a small object whole (up to 16 MiB; a larger one is an error).
    ///
    /// Implements: `rados_read`.
    pub fn read_object(&self, object: &str) -> Result<Vec<u8>> {
        const READ: &str = "read object";
        let name = cstring(object, READ)?;
        let mut capacity = 64 << 10;
        loop {
            let mut buffer = vec![0u8; capacity];
            let data = buffer.as_mut_ptr().cast();
            // SAFETY: the context is live, the buffer has the length that is passed.
            let code = unsafe { rados::rados_read(self.raw(), name.as_ptr(), data, buffer.len(), 0) };
            let len = check(code, READ, || self.at(object))?.unsigned_abs() as usize;
            if len < capacity {
                buffer.truncate(len);
                return Ok(buffer);
            }
            if capacity >= MAX_OBJECT {
                return Err(Error::new(READ, self.at(object), libc::EFBIG));
            }
            capacity *= 16;
        }
    }

    /// Writes a small object whole, making or replacing it.
    ///
    /// Implements: `rados_write_full`.
    pub fn write_object(&self, object: &str, data: &[u8]) -> Result<()> {
        let name = cstring(object, "write object")?;
        // SAFETY: the context is live, name and data live through the call.
        let code =
            unsafe { rados::rados_write_full(self.raw(), name.as_ptr(), data.as_ptr().cast(), data.len()) };
        check(code, "write object", || self.at(object)).map(drop)
    }

    /// Removes an object.
    ///
    /// Implements: `rados_remove`.
    pub fn remove_object(&self, object: &str) -> Result<()> {
        let name = cstring(object, "remove object")?;
        // SAFETY: the context is live, the name lives through the call.
        let code = unsafe { rados::rados_remove(self.raw(), name.as_ptr()) };
        check(code, "remove object", || self.at(object)).map(drop)
    }

    /// An image's id by its name, in one operation: it is what the object `rbd_id.<name>` holds.
    ///
    /// Implements: `rados_read`.
    pub fn image_id(&self, image: &ImageName) -> Result<ImageId> {
        const READ: &str = "read id of image";
        let name = cstring(&format!("rbd_id.{image}"), READ)?;
        let mut buffer = [0u8; 512];
        // SAFETY: the context is live, the buffer has the length that is passed.
        let code = unsafe {
            rados::rados_read(self.raw(), name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
        };
        let len = check_len(code as isize, READ, || self.at(image))?;
        let id = wire::decode_string(&buffer[..len])
            .map_err(|why| Error::new(READ, self.at(image), libc::EBADMSG).because(why))?;
        ImageId::new(id)
    }
}

/// Several changes of one object that happen together or not at all.
pub(crate) struct WriteOp(rados::rados_write_op_t);

impl WriteOp {
    pub(crate) fn new() -> Self {
        // SAFETY: librados allocates it.
        Self(unsafe { rados::rados_create_write_op() })
    }

    /// The object must be there; nothing makes it.
    pub(crate) fn assert_exists(&mut self) {
        // SAFETY: the operation is live.
        unsafe { rados::rados_write_op_assert_exists(self.0) }
    }

    /// An omap key must hold just this value. A missing key compares like an empty value.
    pub(crate) fn compare_omap(&mut self, key: &CString, value: &[u8]) {
        /// `LIBRADOS_CMPXATTR_OP_EQ`
        const EQUAL: u8 = 1;
        // SAFETY: the operation is live; librados copies key and value. No result is asked for.
        unsafe {
            let (data, len) = (value.as_ptr().cast(), value.len());
            rados::rados_write_op_omap_cmp(self.0, key.as_ptr(), EQUAL, data, len, ptr::null_mut());
        }
    }

    /// Calls a method of an object class.
    pub(crate) fn exec(&mut self, class: &CStr, method: &CStr, input: &[u8]) {
        // SAFETY: the operation is live; librados copies names and input. No result is asked for.
        unsafe {
            let (data, len) = (input.as_ptr().cast(), input.len());
            rados::rados_write_op_exec(self.0, class.as_ptr(), method.as_ptr(), data, len, ptr::null_mut());
        }
    }

    /// Runs it; the return code of librados.
    pub(crate) fn run(self, namespace: &Namespace, object: &CString) -> c_int {
        // SAFETY: operation and context are live, the name lives through the call; null time means now.
        unsafe { rados::rados_write_op_operate(self.0, namespace.raw(), object.as_ptr(), ptr::null_mut(), 0) }
    }
}

impl Drop for WriteOp {
    fn drop(&mut self) {
        // SAFETY: made by `rados_create_write_op`, released once.
        unsafe { rados::rados_release_write_op(self.0) }
    }
}

/// Calls a reading method of an object class on an object that must be there.
pub(crate) fn read_class(
    namespace: &Namespace,
    object: &CString,
    class: &CStr,
    method: &CStr,
    input: &[u8],
) -> std::result::Result<Vec<u8>, c_int> {
    let mut out: *mut c_char = ptr::null_mut();
    let mut len = 0usize;
    let mut result: c_int = 0;
    // SAFETY: the operation lives from its creation to its release below. Names and input are copied when the method is
    // added; the three out parameters outlive the operation.
    let code = unsafe {
        let op = rados::rados_create_read_op();
        rados::rados_read_op_assert_exists(op);
        let (data, size) = (input.as_ptr().cast(), input.len());
        rados::rados_read_op_exec(
            op,
            class.as_ptr(),
            method.as_ptr(),
            data,
            size,
            &mut out,
            &mut len,
            &mut result,
        );
        let code = rados::rados_read_op_operate(op, namespace.raw(), object.as_ptr(), 0);
        rados::rados_release_read_op(op);
        code
    };
    // SAFETY: librados allocated the answer for us, or left it null.
    let answer = unsafe { ffi::take_rados_buffer(out, len) };
    match (code, result) {
        (code, _) if code < 0 => Err(code),
        (_, result) if result < 0 => Err(result),
        _ => Ok(answer),
    }
}
