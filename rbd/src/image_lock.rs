//! Advisory locks on an image's header, without opening the image.
//!
//! They are class calls with the assertion that the header exists: a lock never brings a removed image back, and it goes
//! with its image. Their time is the OSD's: a hold that has run out is no longer listed and hinders nobody. librbd's own
//! exclusive lock is another lock of the same object and isn't touched.

use std::time::Duration;

use crate::error::{Result, check};
use crate::ffi::cstring;
use crate::lock::Locker;
use crate::names::ImageId;
use crate::namespace::Namespace;
use crate::object::WriteOp;
use crate::wire;

/// Whether a lock has one holder or many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// One holder at a time.
    Exclusive,
    /// Any number of holders, all of whom ask for it as shared.
    Shared,
}

/// One lock that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct ImageLock<'a> {
    /// The lock's name on its image.
    pub name: &'a str,
    /// For one or for many.
    pub kind: LockKind,
    /// What the client calls its hold.
    pub cookie: &'a str,
    /// For people who list the locks.
    pub description: &'a str,
    /// After this time, by the OSD's clock, the hold ends unless it was renewed.
    pub duration: Duration,
}

/// `ClsLockType` of Ceph.
const EXCLUSIVE: u8 = 1;
const SHARED: u8 = 2;
/// `LOCK_FLAG_MAY_RENEW`: a hold of the same client and cookie begins anew; where there is none, one is taken.
const MAY_RENEW: u8 = 1;

impl Namespace {
    /// Takes or renews all these locks of an image in one operation, or none of them. [`crate::Error::is_busy`] if another
    /// client, or another cookie, holds one of them; [`crate::Error::is_not_found`] if the image is gone.
    ///
    /// Implements: class method `lock.lock`.
    pub fn lock_image(&self, id: &ImageId, locks: &[ImageLock<'_>]) -> Result<()> {
        const LOCK: &str = "lock header of image";
        let mut op = WriteOp::new();
        op.assert_exists();
        for lock in locks {
            op.exec(c"lock", c"lock", &encode_lock(lock));
        }
        let code = op.run(self, &cstring(&header(id), LOCK)?);
        let names = || locks.iter().map(|lock| lock.name).collect::<Vec<_>>().join(", ");
        check(code, LOCK, || self.at(format_args!("(id {id}) ({})", names()))).map(drop)
    }

    /// Gives a lock of an image back. One that this client doesn't hold under this cookie is
    /// [`crate::Error::is_not_found`].
    ///
    /// Implements: `rados_unlock`.
    pub fn unlock_image(&self, id: &ImageId, lock: &str, cookie: &str) -> Result<()> {
        self.unlock(&header(id), lock, cookie)
    }

    /// Takes a lock of an image away from whoever holds it.
    ///
    /// Implements: `rados_break_lock`.
    pub fn break_image_lock(&self, id: &ImageId, lock: &str, locker: &Locker) -> Result<()> {
        self.break_lock(&header(id), lock, locker)
    }

    /// Who holds a lock of an image at this moment.
    ///
    /// Implements: `rados_list_lockers`.
    pub fn image_lockers(&self, id: &ImageId, lock: &str) -> Result<Vec<Locker>> {
        self.lockers(&header(id), lock)
    }
}

fn header(id: &ImageId) -> String {
    format!("rbd_header.{id}")
}

/// `cls_lock_lock_op`, version 1.
fn encode_lock(lock: &ImageLock<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    wire::encode_bytes(&mut body, lock.name.as_bytes());
    body.push(match lock.kind {
        LockKind::Exclusive => EXCLUSIVE,
        LockKind::Shared => SHARED,
    });
    wire::encode_bytes(&mut body, lock.cookie.as_bytes());
    // The tag: holders with different ones exclude each other, so all have the same.
    wire::encode_bytes(&mut body, b"");
    wire::encode_bytes(&mut body, lock.description.as_bytes());
    // Zero would mean for ever, which nobody asks for here.
    let duration = lock.duration.max(Duration::from_millis(1));
    body.extend_from_slice(&u32::try_from(duration.as_secs()).unwrap_or(u32::MAX / 2).to_le_bytes());
    body.extend_from_slice(&duration.subsec_nanos().to_le_bytes());
    body.push(MAY_RENEW);
    wire::encode_versioned(1, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_asked_for_as_ceph_does() {
        let lock = ImageLock {
            name: "l",
            kind: LockKind::Shared,
            cookie: "c",
            description: "d",
            duration: Duration::from_millis(1500),
        };
        let mut expected = vec![1, 1, 29, 0, 0, 0];
        expected.extend(b"\x01\0\0\0l\x02\x01\0\0\0c\0\0\0\0\x01\0\0\0d");
        expected.extend(1u32.to_le_bytes());
        expected.extend(500_000_000u32.to_le_bytes());
        expected.push(MAY_RENEW);
        assert_eq!(encode_lock(&lock), expected);
    }
}
