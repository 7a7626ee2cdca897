//! One work at a time on one clone, whoever asks: kubelet's calls and the reaper.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aldaas_api::CloneName;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

type Gate = AsyncMutex<()>;

/// The clones that are being worked on.
#[derive(Default)]
pub struct Guards {
    gates: Mutex<HashMap<CloneName, Weak<Gate>>>,
}

/// The right to work on one clone, until it is dropped. It may travel to another task or thread.
pub struct Entry {
    _guard: OwnedMutexGuard<()>,
}

impl Guards {
    /// Enters, unless somebody else is in.
    pub fn try_enter(&self, name: &CloneName) -> Option<Entry> {
        self.gate(name).try_lock_owned().ok().map(|guard| Entry { _guard: guard })
    }

    /// Waits until nobody else is in, and enters.
    pub async fn enter(&self, name: &CloneName) -> Entry {
        Entry { _guard: self.gate(name).lock_owned().await }
    }

    fn gate(&self, name: &CloneName) -> Arc<Gate> {
        let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(name).and_then(Weak::upgrade) {
            return gate;
        }
        // Whoever left a gate last has dropped it; what remains of it is swept here.
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Gate::default());
        gates.insert(name.clone(), Arc::downgrade(&gate));
        gate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_and_nothing_is_kept() {
        let guards = Guards::default();
        let (a, b): (CloneName, CloneName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let entry = guards.try_enter(&a).unwrap();
        assert!(guards.try_enter(&a).is_none() && guards.try_enter(&b).is_some());
        let waiting = guards.enter(&a);
        drop(entry);
        drop(waiting.await);
        let _b = guards.try_enter(&b).unwrap();
        assert_eq!(guards.gates.lock().unwrap().len(), 1);
    }
}
