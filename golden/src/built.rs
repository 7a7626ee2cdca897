//! What becomes of an image that a pod built ([`Store::ensure_blank`]): it is sealed, becomes ready, fails, or is thrown away.
//!
//! The controller decides, and may be killed at any step: each of these may be said again. None of them touches an image that a
//! process of this machine builds, and none the content of one that somebody still has open.

use aldaas_api::GoldenImageName;
use aldaas_api::manifest::Manifest;
use fail::fail_point;
use jiff::Timestamp;

use crate::record::{MANIFEST, READY_AT, REASON, SOURCE};
use crate::{Error, GoldenImage, Result, State, Store};

impl Store {
    /// Seals what this pod built: its engine has stopped, and the volume was unmounted and detached ([`Error::InUse`] until
    /// then). One that is sealed or ready already is fine.
    ///
    /// # Errors
    /// [`Error::WrongState`] when it is no candidate of this pod's.
    pub fn seal_built(&self, name: &GoldenImageName, pod_uid: &str, manifest: &Manifest) -> Result<()> {
        let image = self.built(name)?;
        match image.record.state {
            _ if image.record.builder.as_ref().is_none_or(|builder| builder.pod_uid != pod_uid) => {
                Err(Error::OtherBuilder(name.clone()))
            }
            State::Candidate => {
                self.seal_image(name, &image.id, manifest, &[(SOURCE, manifest.source.location.clone())])
            }
            State::Sealed | State::Ready => Ok(()),
            state => Err(Error::WrongState { name: name.clone(), state, wanted: "candidate" }),
        }
    }

    /// The pod that builds it is done: what it did is kept with the image, so that the pod need not stay until nobody has the image
    /// open. One that is sealed already is fine.
    ///
    /// # Errors
    /// [`Error::OtherBuilder`] when it is not this pod that builds it; [`Error::WrongState`] when it is no candidate any more.
    pub fn restored(&self, name: &GoldenImageName, pod_uid: &str, manifest: &Manifest) -> Result<()> {
        let image = self.built(name)?;
        if image.record.builder.as_ref().is_none_or(|builder| builder.pod_uid != pod_uid) {
            return Err(Error::OtherBuilder(name.clone()));
        }
        match image.record.state {
            State::Candidate => {
                let kept = (MANIFEST, serde_json::to_string(manifest).unwrap_or_default());
                self.change_state(name, &image.id, State::Candidate, State::Candidate, &[kept])
            }
            State::Sealed | State::Ready => Ok(()),
            state => Err(Error::WrongState { name: name.clone(), state, wanted: "candidate" }),
        }
    }

    /// A sealed image was verified on a clone: from this write on it is ready. One that is ready already is fine.
    ///
    /// # Errors
    /// [`Error::WrongState`] in any other state.
    pub fn verified(&self, name: &GoldenImageName) -> Result<()> {
        let image = self.built(name)?;
        if image.record.state == State::Ready {
            return Ok(());
        }
        let now = Timestamp::now().to_string();
        self.change_state(name, &image.id, State::Sealed, State::Ready, &[(READY_AT, now)])?;
        fail_point!("golden::after-ready");
        Ok(())
    }

    /// The image is no good; the reason is kept with it. One that has failed already keeps its first reason.
    ///
    /// # Errors
    /// [`Error::InUse`] while it is attached; [`Error::WrongState`] when it is ready or retired.
    pub fn fail_built(&self, name: &GoldenImageName, reason: &str) -> Result<()> {
        let image = self.built(name)?;
        match image.record.state {
            State::Failed => Ok(()),
            from @ (State::Candidate | State::Sealed) => {
                self.refuse_if_in_use(name, &image.id)?;
                self.change_state(name, &image.id, from, State::Failed, &[(REASON, reason.to_owned())])
            }
            state => Err(Error::WrongState { name: name.clone(), state, wanted: "candidate or sealed" }),
        }
    }

    /// Removes an image that never became ready, so that it can be built again. One that is not there is fine.
    ///
    /// # Errors
    /// [`Error::InUse`] while it is attached; [`Error::WrongState`] when it is ready or retired.
    pub fn discard_built(&self, name: &GoldenImageName) -> Result<()> {
        let image = match self.built(name) {
            Err(Error::NoImage(_)) => return Ok(()),
            other => other?,
        };
        match image.record.state {
            State::Candidate | State::Sealed | State::Failed => {
                self.refuse_if_in_use(name, &image.id)?;
                self.discard_unfinished(name)
            }
            state => Err(Error::WrongState { name: name.clone(), state, wanted: "unfinished or failed" }),
        }
    }

    fn built(&self, name: &GoldenImageName) -> Result<GoldenImage> {
        let image = self.golden_image(name)?;
        match image.record.builder {
            Some(_) => Ok(image),
            None => Err(Error::OtherBuilder(name.clone())),
        }
    }
}
