//! Advisory locks on objects, with an optional lease: what several processes agree by.
//!
//! A lock keeps nobody from writing; it keeps others from taking the lock.

use std::ffi::{c_char, c_int};
use std::ptr;
use std::time::Duration;

use crate::error::{Error, Result, check};
use crate::ffi::{cstring, rados, split_nul};
use crate::namespace::Namespace;

/// Whoever holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locker {
    /// The client, e.g. `client.4123`, see [`crate::Cluster::instance_id`].
    pub client: String,
    /// What the client called its hold.
    pub cookie: String,
    /// The client's address, as [`crate::Watcher`] has it.
    pub address: String,
}

/// `LIBRADOS_LOCK_FLAG_MUST_RENEW`: a hold of the same client and cookie is prolonged; one that has run out is not taken anew.
const RENEW: u8 = 2;

impl Namespace {
    /// Takes a lock on an object, making the object if it isn't there.
    ///
    /// `duration` is a lease: after it the lock is free again, measured by the OSD's clock; without one it lasts until it
    /// is given back or broken. Held by another it is [`Error::is_busy`]; held by this client under the same cookie,
    /// [`Error::is_exists`]. With `renew` the lease of a hold begins anew, and one that ran out is [`Error::is_not_found`].
    ///
    /// Implements: `rados_lock_exclusive`.
    pub fn lock_exclusive(
        &self,
        object: &str,
        lock: &str,
        cookie: &str,
        description: &str,
        duration: Option<Duration>,
        renew: bool,
    ) -> Result<()> {
        const LOCK: &str = "lock object";
        let (oid, name) = (cstring(object, LOCK)?, cstring(lock, LOCK)?);
        let (cookie, text) = (cstring(cookie, LOCK)?, cstring(description, LOCK)?);
        let mut lease = duration.map(timeval);
        let lease = lease.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        let flags = if renew { RENEW } else { 0 };
        // SAFETY: the context is live; strings and time live through the call.
        let code = unsafe {
            let (oid, name, cookie, text) = (oid.as_ptr(), name.as_ptr(), cookie.as_ptr(), text.as_ptr());
            rados::rados_lock_exclusive(self.raw(), oid, name, cookie, text, lease, flags)
        };
        check(code, LOCK, || self.lock_label(object, lock)).map(drop)
    }

    /// Gives a lock back. One that this client doesn't hold under this cookie is [`Error::is_not_found`].
    ///
    /// Implements: `rados_unlock`.
    pub fn unlock(&self, object: &str, lock: &str, cookie: &str) -> Result<()> {
        const UNLOCK: &str = "unlock object";
        let (oid, name, text) = (cstring(object, UNLOCK)?, cstring(lock, UNLOCK)?, cstring(cookie, UNLOCK)?);
        // SAFETY: the context is live, the strings live through the call.
        let code = unsafe { rados::rados_unlock(self.raw(), oid.as_ptr(), name.as_ptr(), text.as_ptr()) };
        check(code, UNLOCK, || self.lock_label(object, lock)).map(drop)
    }

    /// Takes a lock away from whoever holds it. One that isn't held any more is [`Error::is_not_found`].
    ///
    /// Implements: `rados_break_lock`.
    pub fn break_lock(&self, object: &str, lock: &str, locker: &Locker) -> Result<()> {
        const BREAK: &str = "break lock of object";
        let (oid, name) = (cstring(object, BREAK)?, cstring(lock, BREAK)?);
        let (client, cookie) = (cstring(&locker.client, BREAK)?, cstring(&locker.cookie, BREAK)?);
        // SAFETY: the context is live, the strings live through the call.
        let code = unsafe {
            let (oid, name) = (oid.as_ptr(), name.as_ptr());
            rados::rados_break_lock(self.raw(), oid, name, client.as_ptr(), cookie.as_ptr())
        };
        check(code, BREAK, || self.lock_label(object, lock)).map(drop)
    }

    /// Who holds a lock: nobody or one, as long as all take it exclusively. An object that isn't there is
    /// [`Error::is_not_found`].
    ///
    /// Implements: `rados_list_lockers`.
    pub fn lockers(&self, object: &str, lock: &str) -> Result<Vec<Locker>> {
        const LIST: &str = "list lockers of object";
        let (oid, name) = (cstring(object, LIST)?, cstring(lock, LIST)?);
        let mut capacity = 1024;
        loop {
            let mut exclusive: c_int = 0;
            let mut buffers: [Vec<c_char>; 4] = std::array::from_fn(|_| vec![0; capacity]);
            let [mut tag_len, mut clients_len, mut cookies_len, mut addresses_len] = [capacity; 4];
            let [tag, clients, cookies, addresses] = &mut buffers;
            // SAFETY: the context is live; every buffer has the length that is passed with it.
            let code = unsafe {
                rados::rados_list_lockers(
                    self.raw(),
                    oid.as_ptr(),
                    name.as_ptr(),
                    &mut exclusive,
                    tag.as_mut_ptr(),
                    &mut tag_len,
                    clients.as_mut_ptr(),
                    &mut clients_len,
                    cookies.as_mut_ptr(),
                    &mut cookies_len,
                    addresses.as_mut_ptr(),
                    &mut addresses_len,
                )
            };
            if code == -(libc::ERANGE as isize) && capacity < 1 << 24 {
                capacity *= 4;
                continue;
            }
            let code = i32::try_from(code).unwrap_or(i32::MAX);
            check(code, LIST, || self.lock_label(object, lock))?;
            let [_, clients, cookies, addresses] = &buffers;
            return zip_lockers(code, &split_nul(clients), &split_nul(cookies), &split_nul(addresses))
                .ok_or_else(|| Error::new(LIST, self.lock_label(object, lock), libc::EBADMSG));
        }
    }

    fn lock_label(&self, object: &str, lock: &str) -> String {
        format!("{} ({lock})", self.at(object))
    }
}

/// Puts the three lists together; none if they don't fit each other.
fn zip_lockers(
    count: i32,
    clients: &[String],
    cookies: &[String],
    addresses: &[String],
) -> Option<Vec<Locker>> {
    let whole = |index: usize| {
        Some(Locker {
            client: clients.get(index)?.clone(),
            cookie: cookies.get(index).cloned().unwrap_or_default(),
            address: bare(addresses.get(index)?).to_owned(),
        })
    };
    (0..usize::try_from(count).ok()?).map(whole).collect()
}

/// An address as watchers and [`crate::Cluster::addresses`] have it: locks say the messenger's version before it.
fn bare(address: &str) -> &str {
    ["v1:", "v2:", "any:"].iter().find_map(|version| address.strip_prefix(version)).unwrap_or(address)
}

fn timeval(duration: Duration) -> libc::timeval {
    libc::timeval {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_usec: i64::from(duration.subsec_micros()),
    }
}
