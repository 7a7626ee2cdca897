//! One builder per database: a RADOS advisory lock with a lease, renewed while the builder lives.
//!
//! The lock's cookie names the builder ([`Holder`]). A builder that died on this machine is seen at once and its lock broken;
//! one that died elsewhere is waited for until its lease has run out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aldaas_api::DatabaseName;
use aldaas_rbd as rbd;

use crate::{Error, Holder, Result};

/// The object, in the golden namespace, that carries every build lock. It is made with the namespace and stays.
pub(crate) const OBJECT: &str = "aldaas.locks";
/// How long a lock outlives its holder's last sign of life.
const LEASE: Duration = Duration::from_secs(60);
/// How often the holder gives one.
const RENEWAL: Duration = Duration::from_secs(15);

/// The right to build golden images of one database; given back when dropped.
pub struct BuildLock {
    shared: Arc<Shared>,
    renewer: Option<JoinHandle<()>>,
}

struct Shared {
    namespace: rbd::Namespace,
    database: DatabaseName,
    lock_name: String,
    cookie: String,
    lost: AtomicBool,
    stop: Mutex<bool>,
    stopped: Condvar,
}

impl BuildLock {
    /// Takes the lock, or says who has it.
    pub fn take(namespace: &rbd::Namespace, database: &DatabaseName) -> Result<Self> {
        let shared = Shared {
            namespace: namespace.clone(),
            database: database.clone(),
            lock_name: lock_name(database),
            cookie: Holder::this_process().encode(),
            lost: AtomicBool::new(false),
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        };
        shared.take()?;
        let shared = Arc::new(shared);
        let renewer = std::thread::spawn({
            let shared = shared.clone();
            move || shared.renew_until_stopped()
        });
        Ok(Self { shared, renewer: Some(renewer) })
    }

    /// Whether a builder that may be alive holds the lock.
    pub fn is_held(namespace: &rbd::Namespace, database: &DatabaseName) -> Result<bool> {
        let lockers = match namespace.lockers(OBJECT, &lock_name(database)) {
            Err(error) if error.is_not_found() => return Ok(false),
            other => other?,
        };
        Ok(lockers
            .iter()
            .any(|locker| locker.cookie.parse::<Holder>().map_or(true, |holder| !holder.is_dead())))
    }

    /// An error once the lease could not be renewed in time. Asked before every change of state.
    pub fn check(&self) -> Result<()> {
        if self.shared.lost.load(Ordering::SeqCst) {
            return Err(Error::LockLost(self.shared.database.clone()));
        }
        Ok(())
    }
}

impl Drop for BuildLock {
    fn drop(&mut self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.stopped.notify_all();
        if let Some(renewer) = self.renewer.take() {
            let _ = renewer.join();
        }
        // A lock that can't be given back runs out by itself.
        if let Err(error) = self.shared.namespace.unlock(OBJECT, &self.shared.lock_name, &self.shared.cookie)
        {
            tracing::debug!(%error, database = %self.shared.database, "build lock not given back");
        }
    }
}

/// The lock of one database on the shared object.
fn lock_name(database: &DatabaseName) -> String {
    format!("build/{database}")
}

impl Shared {
    fn take(&self) -> Result<()> {
        // The second round is after a dead holder's lock was broken.
        for _ in 0..2 {
            match self.lock(false) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_busy() || error.is_exists() => {}
                Err(error) => return Err(error.into()),
            }
            for locker in self.namespace.lockers(OBJECT, &self.lock_name)? {
                let Ok(holder) = locker.cookie.parse::<Holder>() else { continue };
                if !holder.is_dead() {
                    return Err(Error::BuilderRunning {
                        database: self.database.clone(),
                        holder: Box::new(holder),
                    });
                }
                tracing::info!(database = %self.database, %holder, "breaking the build lock of an ended process");
                match self.namespace.break_lock(OBJECT, &self.lock_name, &locker) {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
        }
        Err(Error::LockTaken(self.database.clone()))
    }

    fn lock(&self, renew: bool) -> std::result::Result<(), rbd::Error> {
        let description = "aldaas: a golden image is being built";
        self.namespace.lock_exclusive(OBJECT, &self.lock_name, &self.cookie, description, Some(LEASE), renew)
    }

    fn renew_until_stopped(&self) {
        let mut renewed = Instant::now();
        let mut stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stop {
            let wait = self.stopped.wait_timeout(stop, RENEWAL);
            stop = wait.unwrap_or_else(PoisonError::into_inner).0;
            if *stop {
                return;
            }
            drop(stop);
            match self.lock(true) {
                Ok(()) => renewed = Instant::now(),
                Err(error) => {
                    tracing::warn!(%error, database = %self.database, "build lock not renewed");
                    // Somebody else may begin once the lease is over: stop trusting it a little earlier.
                    if error.is_not_found() || renewed.elapsed() + RENEWAL >= LEASE {
                        self.lost.store(true, Ordering::SeqCst);
                    }
                }
            }
            stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        }
    }
}
