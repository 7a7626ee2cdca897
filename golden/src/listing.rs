//! Listing clones by the thousand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use aldaas_api::CloneName;
use aldaas_rbd as rbd;

use crate::record::CloneRecord;
use crate::{Purpose, Result, Store};

/// A clone as it is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedClone {
    /// Its name.
    pub name: CloneName,
    /// Its RBD id.
    pub id: rbd::ImageId,
    /// What its metadata says; none if that doesn't say that it is one of ours. [`Store::is_half_made`] tells what it is.
    pub record: Option<CloneRecord>,
}

/// Records that never change again, kept from one listing to the next: those of clones that one pod uses. An id is never
/// used again.
#[derive(Debug, Default)]
pub struct KnownClones(Mutex<HashMap<rbd::ImageId, CloneRecord>>);

impl KnownClones {
    fn record(&self, id: &rbd::ImageId) -> Option<CloneRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Keeps what was listed, and forgets what is gone.
    fn replace(&self, clones: &[ListedClone]) {
        let constant = clones.iter().filter_map(|clone| {
            let record = clone.record.as_ref().filter(|record| record.purpose == Purpose::Pod)?;
            Some((clone.id.clone(), record.clone()))
        });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = constant.collect();
    }
}

impl Store {
    /// Everything in the clones' rados namespace that has a clone's name, by name. Records are read by `threads` side by
    /// side, one operation each; those in `known` are not read again.
    pub fn list_clones(&self, threads: usize, known: &KnownClones) -> Result<Vec<ListedClone>> {
        let entries: Vec<(CloneName, rbd::ImageId)> = self
            .clones
            .images()?
            .into_iter()
            .filter_map(|entry| Some((entry.name.as_str().parse().ok()?, entry.id)))
            .collect();
        let next = AtomicUsize::new(0);
        let read = || -> Result<Vec<ListedClone>> {
            let mut clones = Vec::new();
            while let Some((name, id)) = entries.get(next.fetch_add(1, Ordering::Relaxed)) {
                let record = match known.record(id) {
                    Some(record) => Some(record),
                    None => self.clone_record(id)?,
                };
                clones.push(ListedClone { name: name.clone(), id: id.clone(), record });
            }
            Ok(clones)
        };
        let threads = threads.clamp(1, entries.len().max(1));
        let parts = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
            readers
                .into_iter()
                .map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect::<Result<Vec<_>>>()
        })?;
        let mut clones = parts.concat();
        clones.sort_by(|a, b| a.name.cmp(&b.name));
        known.replace(&clones);
        Ok(clones)
    }
}
