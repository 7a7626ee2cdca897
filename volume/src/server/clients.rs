//! The server's connections to Ceph: one that the images share, and one each for those that want a client of their own.
//!
//! All their addresses stand in the lock file, so that whoever finds the server killed can have them all cut off.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use aldaas_rbd as rbd;

use crate::identity::ClusterIdentity;

/// Connections, and how to make more.
pub(super) struct Clients {
    options: rbd::ConnectOptions,
    shared: rbd::Cluster,
    identity: ClusterIdentity,
    signature: Arc<Signature>,
}

impl Clients {
    /// Signs with the shared connection's addresses and those that are still to be cut off.
    pub fn new(
        options: &rbd::ConnectOptions,
        shared: rbd::Cluster,
        lock: &File,
        not_cut_off: Vec<String>,
    ) -> anyhow::Result<Self> {
        // Of its identity, the cluster itself knows the id best.
        let fsid = Some(shared.fsid().to_lowercase());
        let identity = ClusterIdentity { fsid, ..ClusterIdentity::of(options) };
        let signature = Arc::new(Signature { lock: lock.try_clone()?, addresses: Mutex::default() });
        signature.add(&[shared.addresses()?, not_cut_off].concat())?;
        Ok(Self { options: options.clone(), shared, identity, signature })
    }

    /// The connection that images share.
    pub fn shared(&self) -> &rbd::Cluster {
        &self.shared
    }

    /// Which cluster is served.
    pub fn identity(&self) -> &ClusterIdentity {
        &self.identity
    }

    /// Connects once more, for one image.
    pub fn own(&self) -> rbd::Result<OwnClient> {
        let cluster = rbd::Cluster::connect(&self.options)?;
        let addresses = cluster.addresses()?;
        if let Err(error) = self.signature.add(&addresses) {
            tracing::warn!(%error, "note a client's address: after a kill its locks end by themselves");
        }
        Ok(OwnClient { cluster, addresses, signature: Arc::clone(&self.signature) })
    }
}

/// A connection for one image. To be dropped after the image, so that nothing is left of it when its address is
/// forgotten.
pub(super) struct OwnClient {
    pub cluster: rbd::Cluster,
    addresses: Vec<String>,
    signature: Arc<Signature>,
}

impl Drop for OwnClient {
    fn drop(&mut self) {
        if let Err(error) = self.signature.remove(&self.addresses) {
            tracing::warn!(%error, "forget a client's address");
        }
    }
}

/// What the lock file says.
struct Signature {
    lock: File,
    addresses: Mutex<Vec<String>>,
}

impl Signature {
    fn add(&self, more: &[String]) -> std::io::Result<()> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.extend_from_slice(more);
        sign(&self.lock, &addresses)
    }

    fn remove(&self, gone: &[String]) -> std::io::Result<()> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        addresses.retain(|address| !gone.contains(address));
        sign(&self.lock, &addresses)
    }
}

/// Says in the lock file who serves, for whoever finds it after a kill. A shorter text is cut to its length last: at no
/// moment is an address missing that was there before and stays.
pub(super) fn sign(mut lock: &File, addresses: &[String]) -> std::io::Result<()> {
    let text = format!("{}\n{}\n", std::process::id(), addresses.join("\n"));
    lock.seek(SeekFrom::Start(0))?;
    lock.write_all(text.as_bytes())?;
    lock.set_len(text.len() as u64)
}
