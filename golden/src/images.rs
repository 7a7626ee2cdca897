//! What golden images there are, and which one is `latest`: decided here and nowhere else.

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
    /// One listing and, as a rule, one read: names sort by age, and a state changes in one write, so what this answers was
    /// true at one moment.
    pub fn latest(&self, database: &DatabaseName) -> Result<GoldenImage> {
        let mut newest = None;
        for (name, id) in self.names()?.into_iter().rev().filter(|(name, _)| name.database() == database) {
            let Some(record) = self.record(&id)? else { continue };
            if record.state == State::Ready {
                return Ok(GoldenImage { name, id, record });
            }
            newest.get_or_insert((name, record.state));
        }
        Err(Error::NoneReady { database: database.clone(), other: newest })
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
