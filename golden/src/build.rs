//! Making a golden image: candidate → sealed → ready, or failed.
//!
//! A [`Candidate`] is the right to go on with one build. Dropped before it is ready, it leaves the image as it stands;
//! the caller says [`Candidate::discard`] or [`Candidate::fail`], and after a crash [`crate::leftovers`] finds it.

use std::collections::BTreeMap;

use aldaas_api::manifest::Manifest;
use aldaas_api::{CloneName, GoldenImageName};
use aldaas_rbd as rbd;
use fail::fail_point;
use jiff::Timestamp;

use crate::lock::BuildLock;
use crate::record::{CREATED_AT, DATABASE, MANIFEST, Metadata, READY_AT, REASON, SIZE, SOURCE, STATE};
use crate::{CloneInfo, CloneRequest, Error, Holder, Purpose, Result, SEALED, State, Store, image_name};

/// A golden image being built by this process.
pub struct Candidate {
    store: Store,
    name: GoldenImageName,
    id: rbd::ImageId,
    lock: BuildLock,
}

impl Store {
    /// Begins a golden image: takes the database's build lock and makes a blank image of `size` bytes.
    pub fn begin(&self, name: &GoldenImageName, size: u64, source: &str) -> Result<Candidate> {
        let lock = BuildLock::take(&self.golden, name.database())?;
        let image = image_name(name)?;
        match self.golden.create(&image, size, &rbd::CreateOptions::default()) {
            Err(error) if error.is_exists() => return Err(self.explain_taken(name)),
            other => other?,
        }
        fail_point!("golden::after-create");
        let record = candidate_record(name, size, source, Timestamp::now());
        let named =
            self.golden.image_id(&image).and_then(|id| self.golden.set_metadata(&id, &record).map(|()| id));
        let id = named.inspect_err(|_| {
            let _ = self.golden.remove(&image);
        })?;
        fail_point!("golden::after-begin");
        Ok(Candidate { store: self.clone(), name: name.clone(), id, lock })
    }

    fn explain_taken(&self, name: &GoldenImageName) -> Error {
        match self.golden_image(name) {
            Err(error @ Error::Foreign(_)) => error,
            _ => Error::ImageExists(name.clone()),
        }
    }
}

impl Candidate {
    /// The golden image's name.
    pub fn name(&self) -> &GoldenImageName {
        &self.name
    }

    /// Seals the image: it was unmounted and detached, and is never written again.
    ///
    /// The state changes after the snapshot is there, in one write, so that *sealed* always means a whole image.
    pub fn seal(&self, manifest: &Manifest) -> Result<()> {
        self.lock.check()?;
        self.store.seal_image(&self.name, &self.id, manifest, &[])
    }

    /// A clone of the sealed image, to verify it on.
    pub fn clone_for_verification(&self) -> Result<CloneInfo> {
        self.lock.check()?;
        let request = CloneRequest {
            name: verification_clone(&self.name)?,
            purpose: Purpose::Verify,
            holder: Some(Holder::this_process()),
            object_size: None,
            pod: None,
            unverified: true,
        };
        self.store.make_clone(&self.store.golden_image(&self.name)?, &request)
    }

    /// The image was verified on a clone: from this write on it is ready, and `latest` if it is the newest.
    pub fn ready(&self) -> Result<()> {
        self.lock.check()?;
        self.change(State::Sealed, State::Ready, &[(READY_AT, Timestamp::now().to_string())])?;
        fail_point!("golden::after-ready");
        Ok(())
    }

    /// The image is no good; the reason is kept with it.
    pub fn fail(self, reason: &str) -> Result<()> {
        match self.store.golden_image(&self.name)?.record.state {
            State::Ready => Ok(()),
            from => {
                self.store.discard_verification(&self.name)?;
                self.change(from, State::Failed, &[(REASON, reason.to_owned())])
            }
        }
    }

    /// Removes what was built so far. Whatever can't be removed now is found by [`Store::leftovers`] later.
    pub fn discard(self) -> Result<()> {
        match self.store.golden_image(&self.name)?.record.state {
            State::Ready => Ok(()),
            _ => self.store.discard_unfinished(&self.name),
        }
    }

    fn change(&self, from: State, to: State, more: &[(&str, String)]) -> Result<()> {
        self.store.change_state(&self.name, &self.id, from, to, more)
    }
}

impl Store {
    /// Makes the snapshot and says so in the record, unless somebody has the image open.
    pub(crate) fn seal_image(
        &self,
        name: &GoldenImageName,
        id: &rbd::ImageId,
        manifest: &Manifest,
        more: &[(&str, String)],
    ) -> Result<()> {
        self.refuse_if_in_use(name, id)?;
        let image = self.golden.open(&image_name(name)?)?;
        match image.create_snapshot(SEALED) {
            Err(error) if error.is_exists() => {}
            other => other?,
        }
        image.close()?;
        fail_point!("golden::after-snapshot");
        let mut changes = vec![(MANIFEST, serde_json::to_string(manifest).unwrap_or_default())];
        changes.extend_from_slice(more);
        self.change_state(name, id, State::Candidate, State::Sealed, &changes)?;
        fail_point!("golden::after-seal");
        Ok(())
    }

    pub(crate) fn refuse_if_in_use(&self, name: &GoldenImageName, id: &rbd::ImageId) -> Result<()> {
        let watchers = self.golden.watchers(id)?;
        if watchers.is_empty() {
            return Ok(());
        }
        Err(Error::in_use(format!("golden/{name}"), &watchers))
    }

    /// Changes an image's state, with whatever belongs to the change, in one write that takes place only if
    /// the state is still what the caller saw.
    pub(crate) fn change_state(
        &self,
        name: &GoldenImageName,
        id: &rbd::ImageId,
        from: State,
        to: State,
        more: &[(&str, String)],
    ) -> Result<()> {
        let mut record: Metadata = BTreeMap::from([(STATE.to_owned(), to.to_string())]);
        record.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        if self.golden.set_metadata_if(id, (STATE, Some(from.as_str())), &record)? {
            tracing::info!(image = %name, %from, %to, "golden image changed");
            return Ok(());
        }
        let state = self.golden_image(name)?.record.state;
        Err(Error::WrongState { name: name.clone(), state, wanted: from.as_str() })
    }

    /// Removes an image that never became ready, with its snapshot and the clone on which it was verified.
    pub(crate) fn discard_unfinished(&self, name: &GoldenImageName) -> Result<()> {
        self.discard_verification(name)?;
        let image = image_name(name)?;
        match self.golden.open(&image) {
            Ok(open) => match open.remove_snapshot(SEALED) {
                Err(error) if !error.is_not_found() => return Err(error.into()),
                _ => open.close()?,
            },
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        fail_point!("golden::after-unseal");
        self.remove_image(&self.golden, &image)
    }
}

impl Store {
    fn discard_verification(&self, name: &GoldenImageName) -> Result<()> {
        let clone = verification_clone(name)?;
        match self.remove_clone(&clone) {
            Ok(()) | Err(Error::NoClone(_)) => {}
            // Without a record when its maker was killed in between; nobody else may use such a name.
            Err(Error::Foreign(_)) => self.remove_image(&self.clones, &image_name(&clone)?)?,
            Err(error) => return Err(error),
        }
        // An earlier removal of it may have been cut short.
        for entry in self.clones.trash()?.into_iter().filter(|entry| entry.name == clone.as_str()) {
            self.remove_trashed(&self.clones, &entry.id)?;
        }
        Ok(())
    }
}

/// What the metadata of an image says whose build begins.
pub(crate) fn candidate_record(
    name: &GoldenImageName,
    size: u64,
    source: &str,
    created_at: Timestamp,
) -> Metadata {
    [
        (STATE, State::Candidate.to_string()),
        (DATABASE, name.database().to_string()),
        (CREATED_AT, created_at.to_string()),
        (SIZE, size.to_string()),
        (SOURCE, source.to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// What the names of clones for verification begin with.
const VERIFY: &str = "verify-";

/// The clone on which a golden image is verified: its name alone tells whose it is.
fn verification_clone(name: &GoldenImageName) -> Result<CloneName> {
    Ok(format!("{VERIFY}{name}").parse()?)
}

/// Whether only a build may use this name.
pub(crate) fn is_for_verification(name: &CloneName) -> bool {
    name.as_str().strip_prefix(VERIFY).is_some_and(|image| image.parse::<GoldenImageName>().is_ok())
}
