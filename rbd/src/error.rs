//! What can go wrong: the operation, what it was done to, and Ceph's errno.

use std::fmt;

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A call into Ceph that failed.
///
/// `errno` is the positive error number that librbd or librados returned (or that this crate chose for what it refused
/// itself, e.g. `EINVAL` for a bad name). Decide by the `is_…` questions, show the whole with `Display`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {target}: {}", Reason(self))]
pub struct Error {
    /// What was being done, e.g. `clone image`.
    pub operation: &'static str,
    /// To what: `pool/rados-namespace/image@snapshot`, as far as it applies.
    pub target: String,
    /// The positive error number.
    pub errno: i32,
    /// What else Ceph, or this crate, said about it.
    pub detail: Option<String>,
}

impl Error {
    pub(crate) fn new(operation: &'static str, target: impl Into<String>, errno: i32) -> Self {
        Self { operation, target: target.into(), errno: errno.abs(), detail: None }
    }

    pub(crate) fn invalid(
        operation: &'static str,
        target: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self::new(operation, target, libc::EINVAL).because(why)
    }

    pub(crate) fn because(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into()).filter(|detail| !detail.is_empty());
        self
    }

    /// The image, snapshot, pool, object or key isn't there.
    pub fn is_not_found(&self) -> bool {
        self.errno == libc::ENOENT
    }

    /// Something of that name is there already.
    pub fn is_exists(&self) -> bool {
        self.errno == libc::EEXIST
    }

    /// Somebody uses it: a watcher, a locker, a child.
    pub fn is_busy(&self) -> bool {
        self.errno == libc::EBUSY
    }

    /// It still holds something: an image with snapshots, a namespace with images.
    pub fn is_not_empty(&self) -> bool {
        self.errno == libc::ENOTEMPTY
    }

    /// The cluster didn't answer within the time-outs of [`crate::ConnectOptions`].
    pub fn is_timed_out(&self) -> bool {
        self.errno == libc::ETIMEDOUT
    }

    /// The cluster or the quota is full.
    pub fn is_no_space(&self) -> bool {
        self.errno == libc::ENOSPC || self.errno == libc::EDQUOT
    }

    /// The key has no right to do this, or (when removing from the trash) the delay is not over.
    pub fn is_permission(&self) -> bool {
        self.errno == libc::EPERM || self.errno == libc::EACCES
    }

    /// The handle is read-only, or at a snapshot.
    pub fn is_read_only(&self) -> bool {
        self.errno == libc::EROFS
    }

    /// A name, size or option that Ceph or this crate refuses.
    pub fn is_invalid(&self) -> bool {
        self.errno == libc::EINVAL || self.errno == libc::EDOM
    }

    /// This client was blocklisted: its lock was broken by somebody who believed it dead. Only a new connection helps.
    pub fn is_blocklisted(&self) -> bool {
        self.errno == libc::ESHUTDOWN
    }
}

/// The part behind the colon: Ceph's words, then the errno's, then what to do.
struct Reason<'a>(&'a Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = self.0;
        match &error.detail {
            Some(detail) => write!(f, "{detail} ({})", errno_text(error.errno))?,
            None => write!(f, "{}", errno_text(error.errno))?,
        }
        match hint(error) {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// `No such file or directory (os error 2)`.
fn errno_text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

fn hint(error: &Error) -> Option<&'static str> {
    if error.is_timed_out() {
        return Some("is the cluster up, reachable and not full? see `ceph -s`");
    }
    if error.is_no_space() {
        return Some("free space, raise the pool's quota, or add storage: see `ceph df`");
    }
    if error.is_permission() {
        return Some("check the client's key and its caps: see `ceph auth get`");
    }
    if error.is_blocklisted() {
        return Some("this client was blocklisted; start it anew");
    }
    None
}

/// Turns a return code into an error: the one place where that happens.
pub(crate) fn check(code: i32, operation: &'static str, target: impl FnOnce() -> String) -> Result<i32> {
    if code < 0 { Err(Error::new(operation, target(), code)) } else { Ok(code) }
}

/// The same for calls that return a length.
pub(crate) fn check_len(
    code: isize,
    operation: &'static str,
    target: impl FnOnce() -> String,
) -> Result<usize> {
    usize::try_from(code)
        .map_err(|_| Error::new(operation, target(), i32::try_from(code).unwrap_or(-libc::EIO)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_operation_target_reason_and_what_to_do() {
        let error = check(-libc::ETIMEDOUT, "open image", || "p/n/i".into()).unwrap_err();
        assert!(error.is_timed_out());
        let text = error.to_string();
        assert!(text.starts_with("open image p/n/i: "), "{text}");
        assert!(text.contains("ceph -s"), "{text}");
    }

    #[test]
    fn every_question_is_about_its_own_errno() {
        let of = |errno: i32| Error::new("x", "y", -errno);
        assert!(of(libc::ENOENT).is_not_found());
        assert!(of(libc::EEXIST).is_exists());
        assert!(of(libc::EBUSY).is_busy());
        assert!(of(libc::ENOTEMPTY).is_not_empty());
        assert!(of(libc::ENOSPC).is_no_space() && of(libc::EDQUOT).is_no_space());
        assert!(of(libc::EACCES).is_permission() && of(libc::EPERM).is_permission());
        assert!(of(libc::EROFS).is_read_only());
        assert!(of(libc::ESHUTDOWN).is_blocklisted());
        assert!(!of(libc::ENOENT).is_exists());
    }

    #[test]
    fn a_length_that_is_an_error_keeps_its_errno() {
        assert_eq!(check_len(-(libc::ERANGE as isize), "a", String::new).unwrap_err().errno, libc::ERANGE);
        assert_eq!(check_len(7, "a", String::new).unwrap(), 7);
    }
}
