//! What is known of one kind of object: followed by a watch, kept in the plugin's own words, and with its age.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt as _};
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ports::Away;

/// Pause after a watch that failed: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// All objects of one kind, by a key that their maker chooses.
pub struct Cache<V> {
    what: &'static str,
    state: RwLock<State<V>>,
}

/// How objects become what is kept of them.
pub struct Reader<K, V> {
    /// What tells one from all others.
    pub key: fn(&K) -> String,
    /// What is kept; nothing of an object that can't be understood.
    pub value: fn(&K) -> Option<V>,
}

struct State<V> {
    known: BTreeMap<String, Arc<V>>,
    /// What a list has brought so far; it takes the place of what is known when it is whole.
    listing: BTreeMap<String, Arc<V>>,
    /// All was there once.
    complete: bool,
    /// Why what is known may be old.
    trouble: Option<String>,
}

impl<V> Cache<V> {
    /// Knows nothing yet. `what` is for messages: `pods of this node`.
    pub fn new(what: &'static str) -> Self {
        let trouble = Some(format!("{what} were not listed yet"));
        let state = State { known: BTreeMap::new(), listing: BTreeMap::new(), complete: false, trouble };
        Self { what, state: RwLock::new(state) }
    }

    /// Answers from what was last known, however old; only while nothing was ever known there is no answer.
    pub fn last_known<T>(&self, answer: impl FnOnce(&BTreeMap<String, Arc<V>>) -> T) -> Result<T, Away> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match state.complete {
            true => Ok(answer(&state.known)),
            false => Err(Away(state.trouble.clone().unwrap_or_default())),
        }
    }

    /// Answers only while the watch holds.
    pub fn current<T>(&self, answer: impl FnOnce(&BTreeMap<String, Arc<V>>) -> T) -> Result<T, Away> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match &state.trouble {
            None => Ok(answer(&state.known)),
            Some(trouble) => Err(Away(trouble.clone())),
        }
    }

    /// Whether all was there once.
    pub fn is_complete(&self) -> bool {
        self.state.read().unwrap_or_else(PoisonError::into_inner).complete
    }

    /// Follows watches until `stop`. After a failure everything is listed again: only then is it sure that nothing was missed.
    /// `again` changes when a watch must not be trusted although it did not fail.
    pub async fn follow<K, S>(
        &self,
        watch: impl Fn() -> S,
        read: Reader<K, V>,
        mut again: watch::Receiver<u64>,
        stop: &CancellationToken,
    ) where
        S: Stream<Item = watcher::Result<Event<K>>>,
    {
        let mut pause = PAUSES.0;
        loop {
            again.mark_unchanged();
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                _ = again.changed() => "the API server did not answer".to_owned(),
                error = self.consume(watch(), &read, &mut pause) => error,
            };
            self.lost(&ended);
            tokio::select! {
                () = stop.cancelled() => return,
                _ = again.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    /// Takes in one watch until it fails; the answer is why.
    async fn consume<K>(
        &self,
        watch: impl Stream<Item = watcher::Result<Event<K>>>,
        read: &Reader<K, V>,
        pause: &mut Duration,
    ) -> String {
        let mut watch = pin!(watch);
        while let Some(event) = watch.next().await {
            match event {
                Ok(event) => {
                    if self.take(event, read) {
                        *pause = PAUSES.0;
                    }
                }
                Err(error) => return aldaas_daemon::kubernetes::say(&error),
            }
        }
        "the watch ended".to_owned()
    }

    /// Takes in one event; whether what is known is whole now.
    fn take<K>(&self, event: Event<K>, read: &Reader<K, V>) -> bool {
        // What can't be read any more is not what it was: gone is the safe side, and its reader has said why.
        let change = |map: &mut BTreeMap<String, Arc<V>>, object: &K| {
            let key = (read.key)(object);
            match (read.value)(object) {
                Some(value) => map.insert(key, Arc::new(value)),
                None => map.remove(&key),
            }
        };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => state.listing.clear(),
            Event::InitApply(object) => drop(change(&mut state.listing, &object)),
            Event::InitDone => {
                state.known = std::mem::take(&mut state.listing);
                state.complete = true;
                if state.trouble.take().is_some() {
                    tracing::info!(what = self.what, count = state.known.len(), "listed");
                }
            }
            Event::Apply(object) => drop(change(&mut state.known, &object)),
            Event::Delete(object) => drop(state.known.remove(&(read.key)(&object))),
        }
        state.trouble.is_none()
    }

    fn lost(&self, why: &str) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.trouble.is_none() {
            tracing::warn!(what = self.what, why, "not watched at the moment: what was last known holds");
        }
        state.trouble = Some(format!("{} are not watched at the moment: {why}", self.what));
    }
}

/// When the API server last answered, on this machine's own clock.
pub struct Contact(RwLock<Option<Instant>>);

impl Contact {
    /// It never did.
    pub fn never() -> Self {
        Self(RwLock::new(None))
    }

    /// It does.
    pub fn now(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long ago it did.
    pub fn age(&self) -> Option<Duration> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }
}
