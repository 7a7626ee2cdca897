//! A pool, and the rados namespaces in it.

use std::ffi::c_char;
use std::fmt;
use std::sync::Arc;

use serde_json::json;

use crate::cluster::Cluster;
use crate::error::{Error, Result, check};
use crate::ffi::{self, cstring};
use crate::names::{PoolName, check_part};
use crate::namespace::{IoCtx, Namespace};

/// A pool of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    cluster: Cluster,
    name: PoolName,
    /// In the pool's default rados namespace, where librbd keeps the list of the others.
    io: Arc<IoCtx>,
}

/// How full a pool is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStats {
    /// What its users wrote.
    pub stored: u64,
    /// What that takes on disks, copies included.
    pub bytes_used: u64,
    /// What its users can still write.
    pub max_avail: u64,
    /// The number of objects.
    pub objects: u64,
}

impl Pool {
    pub(crate) fn open(cluster: &Cluster, name: &PoolName) -> Result<Self> {
        let io = Arc::new(IoCtx::open(cluster, name, "")?);
        Ok(Self { cluster: cluster.clone(), name: name.clone(), io })
    }

    /// The pool's name.
    pub fn name(&self) -> &PoolName {
        &self.name
    }

    /// The connection it was opened from.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Makes the pool one for RBD images, if it isn't one yet.
    ///
    /// Implements: `rbd_pool_init`.
    pub fn ensure_initialised(&self) -> Result<()> {
        // SAFETY: the context is live.
        let code = unsafe { rbd_sys::rbd_pool_init(self.io.raw(), false) };
        check(code, "initialise pool", || self.to_string()).map(drop)
    }

    /// Makes a rados namespace; one that exists is an error.
    ///
    /// Implements: `rbd_namespace_create`.
    pub fn create_namespace(&self, name: &str) -> Result<()> {
        const CREATE: &str = "create rados namespace";
        check_part(CREATE, name)?;
        let text = cstring(name, CREATE)?;
        // SAFETY: the context is live, the name lives through the call.
        let code = unsafe { rbd_sys::rbd_namespace_create(self.io.raw(), text.as_ptr()) };
        check(code, CREATE, || format!("{self}/{name}")).map(drop)
    }

    /// Makes a rados namespace unless it is there.
    pub fn ensure_namespace(&self, name: &str) -> Result<()> {
        match self.create_namespace(name) {
            Err(error) if error.is_exists() => Ok(()),
            other => other,
        }
    }

    /// Whether a rados namespace is there.
    ///
    /// Implements: `rbd_namespace_exists`.
    pub fn namespace_exists(&self, name: &str) -> Result<bool> {
        const LOOK: &str = "look for rados namespace";
        check_part(LOOK, name)?;
        let text = cstring(name, LOOK)?;
        let mut exists = false;
        // SAFETY: the context is live, the name lives through the call, the answer goes into a bool of ours.
        let code = unsafe { rbd_sys::rbd_namespace_exists(self.io.raw(), text.as_ptr(), &mut exists) };
        check(code, LOOK, || format!("{self}/{name}"))?;
        Ok(exists)
    }

    /// The rados namespaces that were made for RBD. The default one, without a name, isn't listed.
    ///
    /// Implements: `rbd_namespace_list`.
    pub fn namespaces(&self) -> Result<Vec<String>> {
        let names = ffi::grow(0, 1024, |buffer: *mut c_char, len| {
            // SAFETY: the buffer has `len` bytes.
            unsafe { rbd_sys::rbd_namespace_list(self.io.raw(), buffer, len) }
        });
        names
            .map(|names| ffi::split_nul(&names))
            .map_err(|code| Error::new("list rados namespaces of pool", self.to_string(), code))
    }

    /// Removes an empty rados namespace; one with images or trash is refused ([`Error::is_busy`]).
    ///
    /// Implements: `rbd_namespace_remove`.
    pub fn remove_namespace(&self, name: &str) -> Result<()> {
        const REMOVE: &str = "remove rados namespace";
        check_part(REMOVE, name)?;
        let text = cstring(name, REMOVE)?;
        // SAFETY: the context is live, the name lives through the call.
        let code = unsafe { rbd_sys::rbd_namespace_remove(self.io.raw(), text.as_ptr()) };
        check(code, REMOVE, || format!("{self}/{name}")).map(drop)
    }

    /// Opens a rados namespace, `""` being the pool's default one. It isn't looked for: see [`Pool::namespace_exists`].
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        if !name.is_empty() {
            check_part("open rados namespace", name)?;
        }
        Namespace::of(self, name)
    }

    /// How full the pool is.
    ///
    /// Implements: monitor command `df`. The figures lag some seconds behind.
    pub fn stats(&self) -> Result<PoolStats> {
        let df = self.cluster.mon_command_json(&json!({"prefix": "df"}))?;
        let pool =
            df["pools"].as_array().into_iter().flatten().find(|pool| pool["name"] == self.name.as_str());
        let stats = pool
            .map(|pool| &pool["stats"])
            .ok_or_else(|| Error::new("read statistics of pool", self.to_string(), libc::ENOENT))?;
        let number = |key: &str| stats[key].as_u64().unwrap_or(0);
        Ok(PoolStats {
            stored: number("stored"),
            bytes_used: number("bytes_used"),
            max_avail: number("max_avail"),
            objects: number("objects"),
        })
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({self})")
    }
}
