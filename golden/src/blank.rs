//! The blank image in which a pod builds a golden image.
//!
//! There is no process that holds a lock for it: who builds it stands in its record, and what becomes of it is decided by
//! whoever knows the pod. Sealing is not the pod's business.

use aldaas_api::GoldenImageName;
use aldaas_rbd as rbd;
use fail::fail_point;
use jiff::Timestamp;

use crate::build::candidate_record;
use crate::lock::BuildLock;
use crate::pod::BUILD;
use crate::record::STATE;
use crate::{Error, PodUse, Result, State, Store, image_name};

/// How large a blank image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlankSize {
    /// As a device, in bytes.
    pub bytes: u64,
    /// Bytes of its objects in RADOS; Ceph's default without one.
    pub object_size: Option<u64>,
}

/// An image for a pod to build in.
#[derive(Clone, Debug)]
pub struct Blank {
    /// Its RBD id.
    pub id: rbd::ImageId,
    /// Whether this call made it: it is then blank. If not, an earlier try of the same pod may have written to it.
    pub made: bool,
}

impl Store {
    /// Finds the candidate that this pod builds, or makes a blank one. Anything else of that name is refused.
    pub fn ensure_blank(
        &self,
        name: &GoldenImageName,
        size: BlankSize,
        source: &str,
        pod: &PodUse,
    ) -> Result<Blank> {
        let image = image_name(name)?;
        loop {
            match self.golden.image_id(&image) {
                Ok(id) => match self.take_blank(name, &id, pod)? {
                    true => return Ok(Blank { id, made: false }),
                    false => self.remove_image(&self.golden, &image)?,
                },
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
            let options = rbd::CreateOptions { object_size: size.object_size, ..Default::default() };
            match self.golden.create(&image, size.bytes, &options) {
                Err(error) if error.is_exists() => continue,
                other => other?,
            }
            fail_point!("golden::after-create");
            let mut record = candidate_record(name, size.bytes, source, Timestamp::now());
            record.extend(pod.write(BUILD));
            let id = self.golden.image_id(&image)?;
            if self.golden.set_metadata_if(&id, (STATE, None), &record)? {
                fail_point!("golden::after-begin");
                return Ok(Blank { id, made: true });
            }
        }
    }

    /// Whether the image that is there is this pod's candidate. False: a killed maker left it blank and without a record.
    fn take_blank(&self, name: &GoldenImageName, id: &rbd::ImageId, pod: &PodUse) -> Result<bool> {
        match self.golden_image(name) {
            Ok(image) => match (image.record.state, &image.record.builder) {
                (State::Candidate, Some(builder))
                    if builder.pod_uid == pod.pod_uid && builder.volume == pod.volume =>
                {
                    Ok(true)
                }
                (State::Candidate, _) => Err(Error::ImageExists(name.clone())),
                (state, _) => Err(Error::WrongState { name: name.clone(), state, wanted: "candidate" }),
            },
            Err(Error::Foreign(_)) if self.is_blank(self.golden.open_by_id_read_only(id))? => {
                match BuildLock::is_held(&self.golden, name.database())? {
                    // A builder that is no pod has just made it.
                    true => Err(Error::ImageExists(name.clone())),
                    false => Ok(false),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the candidate that this pod builds, e.g. because it could not be mounted. Nothing of it may be attached any
    /// more. Whatever else has that name stays.
    pub fn discard_blank(&self, name: &GoldenImageName, pod: &PodUse) -> Result<()> {
        let image = match self.golden_image(name) {
            Err(Error::NoImage(_)) => return Ok(()),
            other => other?,
        };
        let is_ours = image.record.builder.is_some_and(|builder| builder.pod_uid == pod.pod_uid);
        match (is_ours, image.record.state) {
            (true, State::Candidate) => self.remove_image(&self.golden, &image_name(name)?),
            (_, state) => {
                Err(Error::WrongState { name: name.clone(), state, wanted: "this pod's candidate" })
            }
        }
    }
}
