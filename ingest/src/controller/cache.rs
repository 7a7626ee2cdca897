//! What is known of one kind of object, followed by a watch.
//!
//! After a write, its writer waits until the watch has brought it back: so nothing is decided twice. The API server numbers all
//! changes, and one watch brings them in that order.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, watch as channel};

/// A write is waited for no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// All objects of one kind, by a key that their reader chooses.
pub struct Cache<V> {
    what: &'static str,
    state: RwLock<State<V>>,
    /// The highest number of a change that was seen.
    seen: channel::Sender<u64>,
}

struct State<V> {
    known: BTreeMap<String, Arc<V>>,
    listing: BTreeMap<String, Arc<V>>,
    complete: bool,
}

impl<V> Cache<V> {
    /// Knows nothing yet. `what` is for messages.
    pub fn new(what: &'static str) -> Self {
        let state = State { known: BTreeMap::new(), listing: BTreeMap::new(), complete: false };
        Self { what, state: RwLock::new(state), seen: channel::Sender::new(0) }
    }

    /// What they are, in messages.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Whether all was there once.
    pub fn is_complete(&self) -> bool {
        self.state.read().unwrap_or_else(PoisonError::into_inner).complete
    }

    /// Everything that is known now.
    pub fn all(&self) -> BTreeMap<String, Arc<V>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).known.clone()
    }

    /// One of them.
    pub fn get(&self, key: &str) -> Option<Arc<V>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).known.get(key).cloned()
    }

    /// Follows the objects for ever; after a failure everything is listed again. `wake` is told of each change.
    pub async fn follow<K>(
        &self,
        api: Api<K>,
        config: watch::Config,
        read: impl Fn(&K) -> (String, V),
        wake: &Notify,
    ) where
        K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let mut events = pin!(watch(api, config).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if self.take(event, &read) {
                        wake.notify_one();
                    }
                }
                Err(error) => {
                    let error = aldaas_daemon::kubernetes::say(&error);
                    tracing::warn!(what = self.what, error, "not watched at the moment");
                }
            }
        }
    }

    /// Takes in one event; whether something changed.
    fn take<K: Resource>(&self, event: Event<K>, read: &impl Fn(&K) -> (String, V)) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let version = match &event {
            Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => number(object),
            Event::Init | Event::InitDone => 0,
        };
        let changed = !matches!(event, Event::Init | Event::InitApply(_));
        match event {
            Event::Init => state.listing.clear(),
            Event::InitApply(object) => {
                let (key, value) = read(&object);
                state.listing.insert(key, Arc::new(value));
            }
            Event::InitDone => {
                state.known = std::mem::take(&mut state.listing);
                if !std::mem::replace(&mut state.complete, true) {
                    tracing::info!(what = self.what, count = state.known.len(), "listed");
                }
            }
            Event::Apply(object) => {
                let (key, value) = read(&object);
                state.known.insert(key, Arc::new(value));
            }
            Event::Delete(object) => drop(state.known.remove(&read(&object).0)),
        }
        drop(state);
        self.seen.send_if_modified(|seen| {
            *seen = version.max(*seen);
            true
        });
        changed
    }

    /// Waits until a change that was just written has come back.
    pub async fn settle(&self, written: &impl Resource) {
        let wanted = number(written);
        let mut seen = self.seen.subscribe();
        if tokio::time::timeout(PATIENCE, seen.wait_for(|seen| *seen >= wanted)).await.is_err() {
            tracing::debug!(what = self.what, "a change did not come back in time");
        }
    }

    /// Waits until what is known under this key is so.
    pub async fn until(&self, key: &str, so: impl Fn(Option<&V>) -> bool) {
        let mut seen = self.seen.subscribe();
        let wait = seen.wait_for(|_| so(self.get(key).as_deref()));
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            tracing::debug!(what = self.what, key, "a change did not come back in time");
        }
    }
}

/// The number of the change that made an object what it is.
fn number(object: &impl Resource) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}
