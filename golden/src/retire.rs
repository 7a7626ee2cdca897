//! Taking a golden image away without breaking a clone that lives on it.
//!
//! 1. the state becomes *retired*, and with that the image is no longer `latest` and takes no new clones;
//! 2. it moves to the trash: its name is free, its clones go on;
//! 3. its snapshot is removed: while clones live on it, RBD keeps it aside and drops it with the last of them;
//! 4. the image is removed. While clones live this is refused, and [`Store::purge`] tries again later.
//!
//! Every step may be repeated, so a crash anywhere is repaired by the next purge.

use aldaas_api::GoldenImageName;
use aldaas_rbd as rbd;
use fail::fail_point;

use crate::{Error, Result, SEALED, State, Store, image_name};

/// What became of the images in the trash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Removed for good.
    pub removed: usize,
    /// Retired golden images on which clones still live.
    pub waiting: usize,
}

impl Store {
    /// Retires a golden image. The newest ready one of its database only if `force` is said.
    pub fn retire(&self, name: &GoldenImageName, force: bool) -> Result<Purged> {
        let image = self.golden_image(name)?;
        let state = image.record.state;
        if matches!(state, State::Candidate | State::Sealed) {
            return Err(Error::WrongState { name: name.clone(), state, wanted: "ready or failed" });
        }
        if state == State::Ready && !force && self.latest(name.database())?.name == *name {
            return Err(Error::NewestReady(name.clone()));
        }
        if state != State::Retired {
            self.change_state(name, &image.id, state, State::Retired, &[])?;
        }
        fail_point!("golden::after-retire");
        self.golden.trash_move(&image_name(name)?, std::time::Duration::ZERO)?;
        fail_point!("golden::after-retire-trash");
        let mut purged = Purged::default();
        self.purge_retired(&image.id, &mut purged)?;
        Ok(purged)
    }

    /// Removes for good what is in the trash: clones, unfinished builds, and retired golden images without clones.
    pub fn purge(&self) -> Result<Purged> {
        let mut purged = Purged::default();
        self.purge_clones(&mut purged)?;
        for entry in self.golden.trash()? {
            self.purge_retired(&entry.id, &mut purged)?;
        }
        Ok(purged)
    }

    /// Clones go first: with the last of them, a golden image becomes removable.
    pub(crate) fn purge_clones(&self, purged: &mut Purged) -> Result<()> {
        for entry in self.clones.trash()? {
            match self.clones.trash_remove(&entry.id, false) {
                Ok(()) => purged.removed += 1,
                Err(error) if error.is_not_found() => {}
                Err(error) if error.is_busy() => purged.waiting += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Tries to remove one golden image for good, if it is in the trash.
    pub(crate) fn purge_if_retired(&self, name: &GoldenImageName) -> Result<()> {
        let name = name.to_string();
        for entry in self.golden.trash()?.into_iter().filter(|entry| entry.name == name) {
            self.purge_retired(&entry.id, &mut Purged::default())?;
        }
        Ok(())
    }

    fn purge_retired(&self, id: &rbd::ImageId, purged: &mut Purged) -> Result<()> {
        match self.golden.open_by_id(id) {
            Ok(image) => {
                match image.remove_snapshot(SEALED) {
                    Err(error) if !(error.is_not_found() || error.is_busy()) => return Err(error.into()),
                    _ => {}
                }
                image.close()?;
            }
            // Another purge was faster, or the image is half removed already: removing goes on below.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        fail_point!("golden::after-snapshot-removal");
        match self.golden.trash_remove(id, false) {
            Ok(()) => purged.removed += 1,
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_busy() || error.is_not_empty() => purged.waiting += 1,
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
