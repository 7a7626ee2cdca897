//! The connection to Ceph: made when it is first needed, made again when it was lost for good.

use std::sync::{Mutex, PoisonError};

use aldaas_golden::{Error, Store};
use aldaas_rbd as rbd;

/// Ceph, which may be away when the plugin starts.
pub struct Storage {
    options: rbd::ConnectOptions,
    pool: rbd::PoolName,
    store: Mutex<Option<Store>>,
}

impl Storage {
    /// Connects only when it is asked for something.
    pub fn new(options: rbd::ConnectOptions, pool: rbd::PoolName) -> Self {
        Self { options, pool, store: Mutex::new(None) }
    }

    /// The pool's name.
    pub fn pool(&self) -> &rbd::PoolName {
        &self.pool
    }

    /// The pool, opened. Blocking; at most the connect time-out.
    ///
    /// # Errors
    /// When Ceph can't be reached or the pool is missing.
    pub fn store(&self) -> Result<Store, Error> {
        // Held while connecting: the others wait for the one connection rather than make their own.
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = &*store {
            return Ok(store.clone());
        }
        let cluster = rbd::Cluster::connect(&self.options)?;
        let opened = Store::open(&cluster, &self.pool)?;
        // By its address an operator knows this client, in a list of watchers or of those cut off.
        let addresses = cluster.addresses().unwrap_or_default().join(", ");
        tracing::info!(cluster = cluster.fsid(), pool = %self.pool, addresses, "connected to Ceph");
        Ok(store.insert(opened).clone())
    }

    /// Does `work` with the pool, on a thread that may block. Where somebody has cut this client off, it is done again with a new
    /// connection.
    ///
    /// # Errors
    /// As `work`, or when Ceph can't be reached.
    pub async fn run<T: Send + 'static>(
        self: &std::sync::Arc<Self>,
        work: impl Fn(&Store) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let storage = self.clone();
        let done = crate::blocking::blocking(move || match work(&storage.store()?) {
            Err(Error::Rbd(error)) if error.is_blocklisted() => {
                tracing::warn!(%error, "this client was cut off by the cluster; connecting anew");
                storage.forget();
                work(&storage.store()?)
            }
            other => other,
        });
        done.await
    }

    /// Gives the connection up, so that the next call makes a new one: somebody has blocklisted this client.
    fn forget(&self) {
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
