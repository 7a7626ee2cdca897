//! What is known of the cluster, kept current by watches. Answers come from here alone, and stay when the API server is away;
//! how old they are is measured.

mod kinds;
mod watch;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::catalogue::Catalogue;
pub use watch::run;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watched {
    /// `Database` objects.
    Databases,
    /// `GoldenImage` objects.
    Images,
    /// Namespaces.
    Namespaces,
}

impl Watched {
    /// All of it.
    pub const ALL: [Self; 3] = [Self::Databases, Self::Images, Self::Namespaces];

    /// A word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Databases => "databases",
            Self::Images => "goldenimages",
            Self::Namespaces => "namespaces",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The catalogue, and how current it is.
#[derive(Debug, Default)]
pub struct Index {
    catalogue: RwLock<Catalogue>,
    /// Which kinds were read whole, once at least: a bit each.
    filled: AtomicU8,
    /// When the API server last proved that what is known of a kind is current.
    current: Mutex<[Option<Instant>; 3]>,
    changed: Notify,
}

impl Index {
    /// An index that knows this, for tests and measurements.
    pub fn known(catalogue: Catalogue) -> Self {
        let index = Self { catalogue: RwLock::new(catalogue), ..Self::default() };
        Watched::ALL.into_iter().for_each(|kind| index.filled(kind));
        index
    }

    /// What is known now. To be held for no longer than it takes to decide.
    pub fn catalogue(&self) -> RwLockReadGuard<'_, Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Catalogue)) {
        change(&mut self.catalogue.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
    }

    /// A kind was read whole.
    fn filled(&self, kind: Watched) {
        self.filled.fetch_or(kind.bit(), Ordering::AcqRel);
        self.is_current(kind);
    }

    fn is_current(&self, kind: Watched) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize] = Some(Instant::now());
    }

    /// The kinds of which nothing is known yet: while there is one, nothing can be decided.
    pub fn missing(&self) -> Vec<Watched> {
        let filled = self.filled.load(Ordering::Acquire);
        Watched::ALL.into_iter().filter(|kind| filled & kind.bit() == 0).collect()
    }

    /// How long ago the API server last proved that what is known of a kind is current. While a watch runs it is no more than
    /// 45 seconds; none: it was never known.
    pub fn age(&self, kind: Watched) -> Option<Duration> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize];
        current.map(|at| at.elapsed())
    }

    /// Waits until a namespace is known, at most so long: it may have been made a moment before its first pod.
    pub async fn namespace_known(&self, name: &str, patience: Duration) {
        let known = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.catalogue().namespace(name).is_some() {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(patience, known).await;
    }
}
