//! What golden images there are, and which one is `latest`: decided here and nowhere else.

use std::collections::BTreeMap;

use aldaas_api::{DatabaseName, GoldenImageName, ImageRef, Version};
use aldaas_rbd as rbd;

use crate::record::GoldenRecord;
use crate::{Error, Result, State, Store, image_name};

/// A golden image as it stands in RBD.
#[derive(Clone, Debug)]
pub struct GoldenImage {
    /// Its name.
    pub name: GoldenImageName,
    /// Its RBD id, which it keeps in the trash too.
    pub id: rbd::ImageId,
    /// What its metadata says.
    pub record: GoldenRecord,
}

/// Images that are newer than the newest ready one, the newest first, with their states.
type Newer = Vec<(GoldenImageName, State)>;

/// Which of these images are latest: of each database the newest ready one. They come in the order of [`Store::golden_images`].
pub fn latest_of(images: &[GoldenImage]) -> BTreeMap<DatabaseName, GoldenImageName> {
    let ready = images.iter().filter(|image| image.record.state == State::Ready);
    ready.map(|image| (image.name.database().clone(), image.name.clone())).collect()
}

impl Store {
    /// Every golden image of ours, by name; those of one database by age, the newest last.
    pub fn golden_images(&self) -> Result<Vec<GoldenImage>> {
        let mut images = Vec::new();
        for (name, id) in self.names()? {
            if let Some(record) = self.record(&id)? {
                images.push(GoldenImage { name, id, record });
            }
        }
        Ok(images)
    }

    /// One golden image, whatever its state.
    pub fn golden_image(&self, name: &GoldenImageName) -> Result<GoldenImage> {
        let id = match self.golden.image_id(&image_name(name)?) {
            Err(error) if error.is_not_found() => return Err(Error::NoImage(name.clone())),
            other => other?,
        };
        let metadata = match self.golden.metadata(&id) {
            Err(error) if error.is_not_found() => return Err(Error::NoImage(name.clone())),
            other => other?,
        };
        let record = GoldenRecord::read(&metadata).ok_or_else(|| Error::Foreign(format!("golden/{name}")))?;
        Ok(GoldenImage { name: name.clone(), id, record })
    }

    /// The newest ready golden image of a database.
    ///
    /// One listing and, as a rule, one read: names sort by age, and a state changes in one write. Where nothing is ready, the
    /// answer may be old by the time that the last image was read: it is asked again until two answers agree.
    pub fn latest(&self, database: &DatabaseName) -> Result<GoldenImage> {
        let mut before = None;
        loop {
            let (ready, seen) = self.newest_ready(database)?;
            if let Some(image) = ready {
                return Ok(image);
            }
            if before.as_ref() == Some(&seen) {
                return Err(Error::NoneReady { database: database.clone(), other: seen.into_iter().next() });
            }
            before = Some(seen);
        }
    }

    /// The newest ready image, and the states of those that are newer.
    fn newest_ready(&self, database: &DatabaseName) -> Result<(Option<GoldenImage>, Newer)> {
        let mut newer = Vec::new();
        for (name, id) in self.names()?.into_iter().rev().filter(|(name, _)| name.database() == database) {
            let Some(record) = self.record(&id)? else { continue };
            if record.state == State::Ready {
                return Ok((Some(GoldenImage { name, id, record }), newer));
            }
            newer.push((name, record.state));
        }
        Ok((None, newer))
    }

    /// The ready golden image that a reference means. `default` is the database where the reference names none.
    pub fn resolve(&self, reference: &ImageRef, default: Option<&DatabaseName>) -> Result<GoldenImage> {
        match &reference.version {
            Version::Image(name) => {
                let image = self.golden_image(name)?;
                match image.record.state {
                    State::Ready => Ok(image),
                    state => Err(Error::WrongState { name: name.clone(), state, wanted: "ready" }),
                }
            }
            Version::Latest => match reference.database.as_ref().or(default) {
                Some(database) => self.latest(database),
                None => Err(aldaas_api::NameError::Reference(reference.to_string()).into()),
            },
        }
    }

    /// Names and ids of what is called like a golden image, sorted.
    pub(crate) fn names(&self) -> Result<Vec<(GoldenImageName, rbd::ImageId)>> {
        let mut names: Vec<_> = self
            .golden
            .images()?
            .into_iter()
            .filter_map(|entry| Some((entry.name.to_string().parse().ok()?, entry.id)))
            .collect();
        names.sort();
        Ok(names)
    }

    /// What an image's metadata says; none if the image is not ours or has just gone.
    pub(crate) fn record(&self, id: &rbd::ImageId) -> Result<Option<GoldenRecord>> {
        match self.golden.metadata(id) {
            Ok(metadata) => Ok(GoldenRecord::read(&metadata)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
