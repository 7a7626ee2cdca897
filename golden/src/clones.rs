//! Clones: writable children of a golden image's snapshot, always one level deep.

use std::time::{Duration, Instant};

use aldaas_api::{CloneName, volume_id};
use aldaas_rbd as rbd;
use fail::fail_point;
use jiff::Timestamp;

use crate::build::is_for_verification;
use crate::listing::{KnownClones, ListedClone};
use crate::record::{self, CloneRecord};
use crate::{
    Error, GoldenImage, Holder, PodUse, Purpose, Result, SEALED, State, Store, default_object_size,
    image_name,
};

/// What clone is asked for.
#[derive(Clone, Debug)]
pub struct CloneRequest {
    /// Its name.
    pub name: CloneName,
    /// What it is for.
    pub purpose: Purpose,
    /// The process with which it ends, if any.
    pub holder: Option<Holder>,
    /// Size of its RADOS objects in bytes: small ones make small writes cheap and big scans dear. None:
    /// [`default_object_size`].
    pub object_size: Option<u64>,
    /// The pod that uses it, if it is for one.
    pub pod: Option<PodUse>,
    /// Whether the golden image may also be one that is sealed and not verified yet: for its verification.
    pub unverified: bool,
}

/// A clone as it stands in RBD.
#[derive(Clone, Debug)]
pub struct CloneInfo {
    /// Its name.
    pub name: CloneName,
    /// Its RBD id.
    pub id: rbd::ImageId,
    /// What its metadata says.
    pub record: CloneRecord,
}

/// How many records are read side by side: more don't make it quicker.
const READERS: usize = 8;

impl Store {
    /// Clones a ready golden image.
    pub fn clone_image(&self, golden: &GoldenImage, request: &CloneRequest) -> Result<CloneInfo> {
        if is_for_verification(&request.name) || volume_id::is_of_pods(request.name.as_str()) {
            return Err(Error::ReservedName(request.name.clone()));
        }
        refuse_unready(golden, request)?;
        match self.make_clone(golden, request) {
            Err(Error::CloneExists(name)) => Err(self.explain_taken_clone(&name)),
            other => other,
        }
    }

    /// Clones, then writes the record. Killed in between, the clone has no record and a parent in the golden namespace,
    /// by which [`crate::leftovers`] knows it.
    pub(crate) fn make_clone(&self, golden: &GoldenImage, request: &CloneRequest) -> Result<CloneInfo> {
        let (parent, child) = (image_name(&golden.name)?, image_name(&request.name)?);
        let object_size = request.object_size.unwrap_or_else(|| default_object_size(golden.record.size));
        let options = rbd::CloneOptions { object_size: Some(object_size), ..Default::default() };
        match self.golden.clone_image(&parent, SEALED, &self.clones, &child, &options) {
            Err(error) if error.is_exists() => return Err(Error::CloneExists(request.name.clone())),
            Err(error) if error.is_not_found() => return Err(Error::NoImage(golden.name.clone())),
            other => other?,
        }
        fail_point!("golden::after-clone");
        let record = CloneRecord {
            golden_image: golden.name.clone(),
            purpose: request.purpose,
            holder: request.holder.clone(),
            cloned_at: Timestamp::now(),
            pod: request.pod.clone(),
        };
        let named = self.clones.image_id(&child).and_then(|id| {
            Ok((self.clones.set_metadata_if(&id, (record::CLONE_OF, None), &record.write())?, id))
        });
        match named {
            Ok((true, id)) => {
                fail_point!("golden::after-clone-record");
                Ok(CloneInfo { name: request.name.clone(), id, record })
            }
            // Somebody else made one of this name in between.
            Ok((false, _)) => Err(Error::CloneExists(request.name.clone())),
            // Somebody took it for what a killed maker left. The name may be another's by now.
            Err(error) if error.is_not_found() => Err(Error::CloneExists(request.name.clone())),
            Err(error) => {
                // With the cluster away, removing would only take as long again.
                if !error.is_timed_out() {
                    let _ = self.clones.remove(&child);
                }
                Err(error.into())
            }
        }
    }

    fn explain_taken_clone(&self, name: &CloneName) -> Error {
        match (self.find_clone(name), image_name(name)) {
            // A child of ours without a record is being made, or was half made.
            (Err(foreign @ Error::Foreign(_)), Ok(image)) => {
                match self.is_unwritten_child(self.clones.open_read_only(&image)) {
                    Ok(true) => Error::CloneExists(name.clone()),
                    _ => foreign,
                }
            }
            _ => Error::CloneExists(name.clone()),
        }
    }

    /// Every clone of ours, by name.
    pub fn clones(&self) -> Result<Vec<CloneInfo>> {
        let listed = self.list_clones(READERS, &KnownClones::default())?;
        let ours =
            |clone: ListedClone| Some(CloneInfo { name: clone.name, id: clone.id, record: clone.record? });
        Ok(listed.into_iter().filter_map(ours).collect())
    }

    /// One clone.
    pub fn find_clone(&self, name: &CloneName) -> Result<CloneInfo> {
        let id = match self.clones.image_id(&image_name(name)?) {
            Err(error) if error.is_not_found() => return Err(Error::NoClone(name.clone())),
            other => other?,
        };
        let record = self.clone_record(&id)?.ok_or_else(|| Error::Foreign(format!("clone/{name}")))?;
        Ok(CloneInfo { name: name.clone(), id, record })
    }

    /// Unties a clone from the process that made it: it stays until somebody removes it.
    pub fn release_clone(&self, name: &CloneName) -> Result<()> {
        let clone = self.find_clone(name)?;
        Ok(self.clones.remove_metadata(&clone.id, record::HOLDER)?)
    }

    /// Removes a clone that nothing has attached any more, and its golden image if that is retired and this was the last one.
    pub fn remove_clone(&self, name: &CloneName) -> Result<()> {
        let clone = self.find_clone(name)?;
        self.remove_image(&self.clones, &image_name(name)?)?;
        self.purge_if_retired(&clone.record.golden_image)
    }

    pub(crate) fn clone_record(&self, id: &rbd::ImageId) -> Result<Option<CloneRecord>> {
        match self.clones.metadata(id) {
            Ok(metadata) => Ok(CloneRecord::read(&metadata)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an image in two steps: into the trash, which is quick and takes its name away, then for good. A crash in
    /// between leaves it in the trash, where [`Store::purge`] finds it.
    pub(crate) fn remove_image(&self, namespace: &rbd::Namespace, image: &rbd::ImageName) -> Result<()> {
        let id = namespace.image_id(image)?;
        wait_until_unused(namespace, image, &id)?;
        namespace.trash_move(image, Duration::ZERO)?;
        fail_point!("golden::after-trash");
        // Not gone yet means that somebody else purges it at this moment.
        self.remove_trashed(namespace, &id).map(drop)
    }
}

/// Whether this image may be cloned for this request.
pub(crate) fn refuse_unready(golden: &GoldenImage, request: &CloneRequest) -> Result<()> {
    match golden.record.state {
        State::Ready => Ok(()),
        State::Sealed if request.unverified => Ok(()),
        state => Err(Error::WrongState { name: golden.name.clone(), state, wanted: "ready" }),
    }
}

/// How long the watch of a client that was killed stays: Ceph's `osd_client_watch_timeout`, and a little.
pub(crate) const WATCH_TIMEOUT: Duration = Duration::from_secs(35);

/// Waits until nobody has the image open. A killed client counts as one for half a minute; who is still there then, lives.
fn wait_until_unused(namespace: &rbd::Namespace, image: &rbd::ImageName, id: &rbd::ImageId) -> Result<()> {
    let started = Instant::now();
    loop {
        let watchers = namespace.watchers(id)?;
        if watchers.is_empty() {
            return Ok(());
        }
        if started.elapsed() > WATCH_TIMEOUT {
            return Err(Error::in_use(format!("{}/{image}", namespace.name()), &watchers));
        }
        tracing::info!(%image, users = watchers.len(), "waiting until nobody has the image open");
        std::thread::sleep(Duration::from_millis(250));
    }
}
