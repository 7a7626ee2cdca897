//! Removing a pod's clone in its two steps, each of which may be repeated.
//!
//! The first takes the name away and is over in some milliseconds; from then on the clone is gone for everybody. The second
//! gives the space back and can wait. What a crash leaves between them lies in the trash.

use std::thread::sleep;
use std::time::{Duration, Instant};

use aldaas_api::{CloneName, GoldenImageName};
use aldaas_rbd as rbd;
use fail::fail_point;

use crate::ensure::Seen;
use crate::{Error, Gone, Purpose, Result, Store, image_name};

/// A clone in the trash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trashed {
    /// Its RBD id, which it keeps.
    pub id: rbd::ImageId,
    /// The name it had.
    pub name: CloneName,
    /// The golden image it is of, if its record says so.
    pub golden_image: Option<GoldenImageName>,
}

/// The lock that librbd holds on an image that it has open for writing.
const WRITER: &str = "rbd_lock";
/// How often a clone that is in use is looked at again.
const POLL: Duration = Duration::from_millis(100);

impl Store {
    /// Step one: moves a clone to the trash. None: there is no such clone, or it is in the trash already.
    ///
    /// Who watches it is waited for, and after `patience` it is [`Error::InUse`]. So is a named clone for which anybody has a
    /// lease, or whose TTL has not run out: this is asked for in the same operation that keeps others from taking one.
    pub fn trash_clone(&self, name: &CloneName, patience: Duration) -> Result<Option<Trashed>> {
        self.trash_clone_let_go(name, &[], patience)
    }

    /// The same for a pod's clone that nobody can use any more, except that clients with these addresses are still about to close
    /// it: they are not waited for. [`Store::purge_clone`] waits for those that may write.
    pub fn trash_clone_let_go(
        &self,
        name: &CloneName,
        closing: &[String],
        patience: Duration,
    ) -> Result<Option<Trashed>> {
        let started = Instant::now();
        loop {
            let (id, golden_image, named) = match self.look_at(name)? {
                Seen::Nothing => return Ok(None),
                Seen::Stump => return self.discard_stump(name).map(|()| None),
                Seen::HalfMade { id, .. } => match self.condemn(&id)? {
                    true => (id, None, false),
                    false => continue,
                },
                Seen::Clone(clone) => {
                    let named = clone.record.purpose == Purpose::PodNamed;
                    (clone.id, Some(clone.record.golden_image), named)
                }
            };
            match self.try_trash(name, &id, named, closing) {
                Ok(true) => return Ok(Some(Trashed { id, name: name.clone(), golden_image })),
                Ok(false) => return Ok(None),
                Err(Error::InUse { .. }) if started.elapsed() < patience => sleep(POLL),
                Err(error) => return Err(error),
            }
        }
    }

    /// The same for what only a killed maker can have left ([`Store::is_half_made`]): what is a clone by now stays, and none
    /// is the answer.
    pub fn trash_half_made(&self, name: &CloneName) -> Result<Option<Trashed>> {
        match self.look_at(name)? {
            Seen::HalfMade { id, watchers } if watchers.is_empty() && self.condemn(&id)? => {
                let trashed = self.try_trash(name, &id, false, &[])?;
                Ok(trashed.then(|| Trashed { id, name: name.clone(), golden_image: None }))
            }
            Seen::Stump => self.discard_stump(name).map(|()| None),
            _ => Ok(None),
        }
    }

    /// Says whether it was there.
    fn try_trash(
        &self,
        name: &CloneName,
        id: &rbd::ImageId,
        named: bool,
        closing: &[String],
    ) -> Result<bool> {
        if named || closing.is_empty() || self.is_written_by_others(id, closing)? {
            let watchers = self.clone_watchers(id)?;
            if !watchers.is_empty() {
                return Err(Error::in_use(format!("clone/{name}"), &watchers));
            }
        }
        if !named {
            // A try that was cut short goes on where it was.
            self.clones.trash_move_at_once(&image_name(name)?, id)?;
            fail_point!("golden::after-trash");
            return Ok(true);
        }
        self.claim_for_removal(name, id)?;
        match self.clones.trash_move(&image_name(name)?, Duration::ZERO) {
            Ok(()) => {
                fail_point!("golden::after-trash");
                Ok(true)
            }
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => {
                self.unclaim_for_removal(id);
                match error.is_busy() {
                    // It was opened in between.
                    true => Err(Error::in_use(format!("clone/{name}"), &self.clone_watchers(id)?)),
                    false => Err(error.into()),
                }
            }
        }
    }

    /// Whether somebody has it open for writing who has another address. To list all who watch it takes ten times as long.
    fn is_written_by_others(&self, id: &rbd::ImageId, addresses: &[String]) -> Result<bool> {
        match self.clones.image_lockers(id, WRITER) {
            Err(error) if error.is_not_found() => Ok(false),
            lockers => Ok(lockers?.iter().any(|locker| !addresses.contains(&locker.address))),
        }
    }

    /// Step two: removes it for good, and its golden image if that is retired and this was its last clone. Not yet: somebody
    /// else is at it, or still has it open; it may be tried again.
    pub fn purge_clone(&self, trashed: &Trashed) -> Result<Gone> {
        let gone = self.remove_trashed(&self.clones, &trashed.id)?;
        fail_point!("golden::after-purge");
        if let (Gone::Yes, Some(golden_image)) = (gone, &trashed.golden_image)
            && let Err(error) = self.purge_if_retired(golden_image)
        {
            // A node may lack the right to do this. Whoever has it purges all retired images.
            tracing::debug!(%error, image = %golden_image, "golden image not purged");
        }
        Ok(gone)
    }

    /// Clones of ours in the trash, as step one left them.
    pub fn trashed(&self) -> Result<Vec<Trashed>> {
        let mut trashed = Vec::new();
        for (entry, golden_image) in self.trashed_clones()? {
            if let Ok(name) = entry.name.parse() {
                trashed.push(Trashed { id: entry.id, name, golden_image });
            }
        }
        Ok(trashed)
    }

    /// Who has a clone open; nobody, if it is gone.
    pub fn clone_watchers(&self, id: &rbd::ImageId) -> Result<Vec<rbd::Watcher>> {
        match self.clones.watchers(id) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            other => Ok(other?),
        }
    }
}
