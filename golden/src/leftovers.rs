//! What a crash left behind, told from observed state alone.
//!
//! | seen | why it is left over |
//! |---|---|
//! | a clone whose holder has ended | the process that should have removed it was killed |
//! | a child of a golden image, without a record and never written | killed between clone and record |
//! | a candidate or sealed image whose build lock nobody living holds | the builder was killed |
//! | a retired image outside the trash | killed in the middle of a retirement |
//! | a blank image with a golden image's name and no record | killed between create and record |
//! | anything in the trash | killed between the two steps of a removal, or waiting for its last clone |
//!
//! Clones of pods and images that pods build are not judged here: a node plugin and a controller answer for them.
//!
//! When in doubt, keep: what has a watcher, and what does not look like ours, is never named here.

use std::thread::sleep;
use std::time::Duration;

use aldaas_api::{CloneName, GoldenImageName, volume_id};
use aldaas_rbd as rbd;

use crate::lock::BuildLock;
use crate::record::{CloneRecord, STATE, has_clone_record};
use crate::{Error, Result, State, Store, image_name};

/// How long something without a record is watched before it counts as left over. A living creator needs milliseconds.
pub const GRACE: Duration = Duration::from_secs(3);

/// Something that nobody alive will remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A clone whose process has ended.
    EndedClone(CloneName),
    /// A clone without a record.
    HalfMadeClone(CloneName),
    /// A build whose builder has ended.
    UnfinishedBuild(GoldenImageName),
    /// An image on its way out that never got there.
    HalfRetired(GoldenImageName),
    /// A blank image without a record.
    BlankImage(GoldenImageName),
    /// Images in the trash.
    Trash(usize),
}

impl std::fmt::Display for Leftover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EndedClone(name) => write!(f, "clone {name}: the process that made it has ended"),
            Self::HalfMadeClone(name) => write!(f, "clone {name}: half made, its maker was interrupted"),
            Self::UnfinishedBuild(name) => {
                write!(f, "golden image {name}: unfinished, its builder has ended")
            }
            Self::HalfRetired(name) => write!(f, "golden image {name}: retired, but not in the trash yet"),
            Self::BlankImage(name) => write!(f, "golden image {name}: blank and without a record"),
            Self::Trash(count) => write!(f, "{count} image(s) in the trash"),
        }
    }
}

impl Store {
    /// What is left over in this pool.
    pub fn leftovers(&self) -> Result<Vec<Leftover>> {
        let mut found = self.ended_clones()?;
        found.extend(self.unfinished_builds()?);
        let unrecorded = self.unrecorded()?;
        if !unrecorded.is_empty() {
            sleep(GRACE);
            let still = self.unrecorded()?;
            found.extend(unrecorded.into_iter().filter(|leftover| still.contains(leftover)));
        }
        match self.left_in_trash()? {
            0 => {}
            count => found.push(Leftover::Trash(count)),
        }
        Ok(found)
    }

    /// Removes one of them, having looked again that it still is what it was. Nothing of it may be attached here.
    pub fn remove_leftover(&self, leftover: &Leftover) -> Result<()> {
        match leftover {
            Leftover::EndedClone(name) => match self.find_clone(name) {
                Ok(clone) if has_ended(&clone.record) => ignore_gone(self.remove_clone(name)),
                other => ignore_gone(other.map(drop)),
            },
            Leftover::HalfMadeClone(name) => match self.find_clone(name) {
                Err(Error::Foreign(_)) => {
                    let image = image_name(name)?;
                    match self.is_unwritten_child(self.clones.open_read_only(&image))? {
                        true => self.remove_image(&self.clones, &image),
                        false => Ok(()),
                    }
                }
                other => ignore_gone(other.map(drop)),
            },
            Leftover::UnfinishedBuild(name) => {
                let _lock = BuildLock::take(&self.golden, name.database())?;
                match self.golden_image(name) {
                    Ok(image) if image.record.builder.is_some() => Ok(()),
                    Ok(image) if is_unfinished(image.record.state) => self.discard_unfinished(name),
                    other => ignore_gone(other.map(drop)),
                }
            }
            Leftover::HalfRetired(name) => ignore_gone(self.retire(name, true).map(drop)),
            Leftover::BlankImage(name) => {
                let _lock = BuildLock::take(&self.golden, name.database())?;
                let image = image_name(name)?;
                match self.golden_image(name) {
                    Err(Error::Foreign(_)) => match self.is_blank(self.golden.open_read_only(&image))? {
                        true => self.remove_image(&self.golden, &image),
                        false => Ok(()),
                    },
                    other => ignore_gone(other.map(drop)),
                }
            }
            Leftover::Trash(_) => {
                self.purge()?;
                match self.left_in_trash()? {
                    0 => Ok(()),
                    count => Err(Error::StaysInTrash(count)),
                }
            }
        }
    }

    /// Whether somebody who may be alive builds images of this one's database.
    pub fn is_being_built(&self, name: &GoldenImageName) -> Result<bool> {
        let in_a_pod = match self.golden_image(name) {
            Ok(image) => is_unfinished(image.record.state) && image.record.builder.is_some(),
            Err(Error::NoImage(_) | Error::Foreign(_)) => false,
            Err(error) => return Err(error),
        };
        Ok(in_a_pod || BuildLock::is_held(&self.golden, name.database())?)
    }

    fn ended_clones(&self) -> Result<Vec<Leftover>> {
        let clones = self.clones()?.into_iter().filter(|clone| has_ended(&clone.record));
        Ok(clones.map(|clone| Leftover::EndedClone(clone.name)).collect())
    }

    fn unfinished_builds(&self) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        for image in self.golden_images()? {
            let state = image.record.state;
            if state == State::Retired {
                found.push(Leftover::HalfRetired(image.name));
            } else if is_unfinished(state)
                && image.record.builder.is_none()
                && !BuildLock::is_held(&self.golden, image.name.database())?
            {
                found.push(Leftover::UnfinishedBuild(image.name));
            }
        }
        Ok(found)
    }

    fn unrecorded(&self) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        for entry in self.clones.images()? {
            let Ok(name) = entry.name.to_string().parse::<CloneName>() else { continue };
            if volume_id::is_of_pods(name.as_str()) {
                continue;
            }
            if self.lacks_record(&self.clones, &entry.id, has_clone_record)?
                && self.is_unwritten_child(self.clones.open_read_only(&entry.name))?
            {
                found.push(Leftover::HalfMadeClone(name));
            }
        }
        for (name, id) in self.names()? {
            if self.lacks_record(&self.golden, &id, |metadata| metadata.contains_key(STATE))?
                && self.is_blank(self.golden.open_read_only(&image_name(&name)?))?
                && !BuildLock::is_held(&self.golden, name.database())?
            {
                found.push(Leftover::BlankImage(name));
            }
        }
        Ok(found)
    }

    /// There, without a record, and nobody has it open.
    fn lacks_record(
        &self,
        namespace: &rbd::Namespace,
        id: &rbd::ImageId,
        has_record: impl Fn(&crate::record::Metadata) -> bool,
    ) -> Result<bool> {
        match namespace.metadata(id) {
            Ok(metadata) if has_record(&metadata) => Ok(false),
            Ok(_) => match namespace.watchers(id) {
                Ok(watchers) => Ok(watchers.is_empty()),
                Err(error) if error.is_not_found() => Ok(false),
                Err(error) => Err(error.into()),
            },
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn has_ended(record: &CloneRecord) -> bool {
    record.pod.is_none() && record.holder.as_ref().is_some_and(crate::Holder::is_dead)
}

fn is_unfinished(state: State) -> bool {
    matches!(state, State::Candidate | State::Sealed)
}

/// Somebody else was faster.
fn ignore_gone(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::NoClone(_) | Error::NoImage(_)) => Ok(()),
        other => other,
    }
}
