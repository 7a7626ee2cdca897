//! Clones that are found or made: what a publish that may be repeated needs.
//!
//! A maker that is killed leaves one of three things under the name: a name without an image, a child that librbd had not
//! finished, or a whole child without our record. None of them can be told from a good clone later on, so none is used: what
//! has no record, no watcher and no data goes, and the clone is made anew. Should its maker only have been slow, then either
//! its record is first and the clone stays, or it is told that there is another.

use std::thread::sleep;
use std::time::{Duration, Instant};

use aldaas_api::{CloneName, volume_id};
use aldaas_rbd as rbd;
use fail::fail_point;

use crate::clones::{WATCH_TIMEOUT, refuse_unready};
use crate::leftovers::GRACE;
use crate::pod::USE;
use crate::record::{CLONE_OF, CONDEMNED, CloneRecord, Metadata, has_clone_record};
use crate::{CloneInfo, CloneRequest, Error, GoldenImage, PodUse, Purpose, Result, Store, image_name};

/// A clone that is there now.
#[derive(Clone, Debug)]
pub struct Ensured {
    /// The clone.
    pub clone: CloneInfo,
    /// Whether this call made it.
    pub made: bool,
}

/// What is there under a clone's name.
#[derive(Debug)]
pub(crate) enum Seen {
    Nothing,
    Clone(Box<CloneInfo>),
    /// Without a record and without data: its maker is at it, or was killed.
    HalfMade {
        id: rbd::ImageId,
        watchers: Vec<rbd::Watcher>,
    },
    /// A name without an image: its maker is at it, or was killed.
    Stump,
}

/// How often what another is at is looked at again.
const POLL: Duration = Duration::from_millis(250);

impl Store {
    /// Finds or makes a clone. One of the same golden image is used as it is, whatever became of that image since; one of
    /// another is [`Error::OtherParent`]; what a killed maker left is removed first.
    ///
    /// A named clone may be made on two nodes at once: who may attach it is decided by its lease ([`crate::lease`]).
    pub fn ensure_clone(&self, golden: &GoldenImage, request: &CloneRequest) -> Result<Ensured> {
        // The name of a pod's own clone is known to one node alone, which guards it: nobody else can be at it.
        let grace = if request.purpose == Purpose::Pod { Duration::ZERO } else { GRACE };
        let (mut unfinished, mut refused): (Option<Instant>, Option<Instant>) = (None, None);
        loop {
            let seen = self.look_at(&request.name)?;
            if !matches!(seen, Seen::Nothing) {
                refused = None;
            }
            match seen {
                Seen::Clone(clone) if self.is_on_its_way_out(&clone)? => {}
                Seen::Clone(clone) if clone.record.golden_image == golden.name => {
                    return Ok(Ensured { clone: *clone, made: false });
                }
                Seen::Clone(clone) => {
                    let (name, wanted) = (clone.name, golden.name.clone());
                    return Err(Error::OtherParent { name, of: clone.record.golden_image, wanted });
                }
                Seen::Nothing => {
                    refuse_unready(golden, request)?;
                    match self.make_clone(golden, request) {
                        Err(Error::CloneExists(_))
                            if self.clones.finish_trash_move(&image_name(&request.name)?)? => {}
                        // Another was faster, or not: look again, though not for ever at what nobody can see.
                        Err(Error::CloneExists(name)) => match refused {
                            None => refused = Some(Instant::now()),
                            Some(since) if since.elapsed() > WATCH_TIMEOUT => {
                                return Err(Error::CloneExists(name));
                            }
                            Some(_) => sleep(POLL),
                        },
                        made => return Ok(Ensured { clone: made?, made: true }),
                    }
                }
                Seen::HalfMade { watchers, .. } if !watchers.is_empty() => {
                    if unfinished.get_or_insert_with(Instant::now).elapsed() > WATCH_TIMEOUT {
                        return Err(Error::in_use(format!("clone/{}", request.name), &watchers));
                    }
                    sleep(POLL);
                }
                _ if unfinished.get_or_insert_with(Instant::now).elapsed() < grace => sleep(POLL),
                Seen::HalfMade { id, .. } => self.discard_half_made(&request.name, &id)?,
                Seen::Stump => self.discard_stump(&request.name)?,
            }
        }
    }

    /// The clone of this name, unless it is one that a removal, cut short, had put into the trash: that is brought to its end.
    pub fn find_kept_clone(&self, name: &CloneName) -> Result<CloneInfo> {
        let clone = self.find_clone(name)?;
        if self.is_on_its_way_out(&clone)? { Err(Error::NoClone(name.clone())) } else { Ok(clone) }
    }

    fn is_on_its_way_out(&self, clone: &CloneInfo) -> Result<bool> {
        let goes = self.clones.is_in_trash(&clone.id)?;
        if goes {
            self.clones.trash_move_at_once(&image_name(&clone.name)?, &clone.id)?;
        }
        Ok(goes)
    }

    /// Writes the next user into a named clone's record, in one write.
    pub fn retake_clone(&self, id: &rbd::ImageId, pod: &PodUse) -> Result<()> {
        Ok(self.clones.set_metadata(id, &pod.write(USE))?)
    }

    /// Whether only a killed maker can have left what is there under this name: no record, no data, no watcher. It may also
    /// be that its maker is at it at this moment: who removes such a thing looks twice, some seconds apart.
    pub fn is_half_made(&self, name: &CloneName) -> Result<bool> {
        match self.look_at(name) {
            Ok(Seen::HalfMade { watchers, .. }) => Ok(watchers.is_empty()),
            Ok(Seen::Stump) => Ok(true),
            Ok(Seen::Nothing | Seen::Clone(_)) | Err(Error::Foreign(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What there is under a clone's name; what is not ours is [`Error::Foreign`].
    pub(crate) fn look_at(&self, name: &CloneName) -> Result<Seen> {
        let id = match self.clones.image_id(&image_name(name)?) {
            Err(error) if error.is_not_found() => return Ok(Seen::Nothing),
            other => other?,
        };
        let metadata = match self.clones.metadata(&id) {
            Err(error) if error.is_not_found() => return self.stump(name, &id),
            other => other?,
        };
        match CloneRecord::read(&metadata) {
            Some(record) => Ok(Seen::Clone(Box::new(CloneInfo { name: name.clone(), id, record }))),
            None if has_clone_record(&metadata) => Err(Error::Foreign(format!("clone/{name}"))),
            None => self.look_at_unrecorded(name, id),
        }
    }

    /// A name whose image is not there: unless the image went in between, and the name with it.
    fn stump(&self, name: &CloneName, id: &rbd::ImageId) -> Result<Seen> {
        match self.clones.image_id(&image_name(name)?) {
            Ok(again) if again == *id => Ok(Seen::Stump),
            Ok(_) => self.look_at(name),
            Err(error) if error.is_not_found() => Ok(Seen::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    fn look_at_unrecorded(&self, name: &CloneName, id: rbd::ImageId) -> Result<Seen> {
        let image = match self.clones.open_by_id_read_only(&id) {
            Err(error) if error.is_not_found() => return self.stump(name, &id),
            other => other?,
        };
        let watchers = image.watchers()?;
        let bare = match image.parent()? {
            Some(parent) => self.is_ours(&parent),
            // librbd had not come as far as the parent. Only we use such names.
            None => volume_id::is_of_pods(name.as_str()) && image.snapshots()?.is_empty(),
        };
        if bare && image.used_bytes()? == 0 {
            return Ok(Seen::HalfMade { id, watchers });
        }
        Err(Error::Foreign(format!("clone/{name}")))
    }

    /// Removes a half-made clone, unless its maker writes its record at this moment.
    pub(crate) fn discard_half_made(&self, name: &CloneName, id: &rbd::ImageId) -> Result<()> {
        if !self.condemn(id)? {
            return Ok(());
        }
        tracing::info!(clone = %name, "a half-made clone is removed");
        match self.clones.trash_move(&image_name(name)?, Duration::ZERO) {
            Err(error) if error.is_not_found() => return self.discard_stump(name),
            other => other?,
        }
        fail_point!("golden::after-half-made-trash");
        self.remove_trashed(&self.clones, id).map(drop)
    }

    /// Keeps a clone's maker from writing its record, or says that it was faster. What is gone is condemned.
    pub(crate) fn condemn(&self, id: &rbd::ImageId) -> Result<bool> {
        let condemned = Metadata::from([(CLONE_OF.to_owned(), CONDEMNED.to_owned())]);
        let written = self.clones.set_metadata_if(id, (CLONE_OF, None), &condemned).and_then(|written| {
            fail_point!("golden::after-condemn");
            Ok(written || !has_clone_record(&self.clones.metadata(id)?))
        });
        match written {
            Err(error) if error.is_not_found() => Ok(true),
            other => Ok(other?),
        }
    }

    pub(crate) fn discard_stump(&self, name: &CloneName) -> Result<()> {
        match self.clones.remove(&image_name(name)?) {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
