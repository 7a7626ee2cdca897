//! Which golden image is meant.

use aldaas_api::context::WantedClone;
use aldaas_api::{GoldenImageName, Version};
use aldaas_golden::{CloneRequest, Ensured, Error, GoldenImage, Result, State, Store};

/// How often another image is chosen because the one chosen was retired just then.
const TRIES: usize = 3;

/// Whether a clone of this image, made by an earlier try, is what is wanted. `latest` was decided by that try.
pub fn fits(of: &GoldenImageName, wanted: &WantedClone) -> bool {
    match &wanted.version {
        Version::Latest => *of.database() == wanted.database,
        Version::Image(image) => of == image,
    }
}

/// The ready image that is wanted. `latest` means what it meant when the pod was admitted, and the newest where that one is no
/// longer ready.
fn choose(store: &Store, wanted: &WantedClone) -> Result<GoldenImage> {
    let ready = |name: &GoldenImageName| {
        let image = store.golden_image(name)?;
        match image.record.state {
            State::Ready => Ok(image),
            state => Err(Error::WrongState { name: name.clone(), state, wanted: "ready" }),
        }
    };
    match (&wanted.version, &wanted.pinned) {
        (Version::Image(name), _) => ready(name),
        (Version::Latest, None) => store.latest(&wanted.database),
        (Version::Latest, Some(pinned)) => match ready(pinned) {
            Err(Error::NoImage(_) | Error::WrongState { .. } | Error::Foreign(_)) => {
                store.latest(&wanted.database)
            }
            other => other,
        },
    }
}

/// Finds the clone that an earlier try made, or makes one of the image that is wanted.
pub(crate) fn find_or_make(store: &Store, wanted: &WantedClone, request: &CloneRequest) -> Result<Ensured> {
    for _ in 1..TRIES {
        match try_find_or_make(store, wanted, request) {
            // Retired between the choice and the clone.
            Err(Error::NoImage(_) | Error::WrongState { .. }) if wanted.version == Version::Latest => {}
            other => return other,
        }
    }
    try_find_or_make(store, wanted, request)
}

fn try_find_or_make(store: &Store, wanted: &WantedClone, request: &CloneRequest) -> Result<Ensured> {
    match store.find_kept_clone(&request.name) {
        Ok(clone) if fits(&clone.record.golden_image, wanted) => return Ok(Ensured { clone, made: false }),
        Ok(clone) => {
            let wanted = choose(store, wanted)?.name;
            return Err(Error::OtherParent { name: clone.name, of: clone.record.golden_image, wanted });
        }
        // Nothing yet, or half of it: making it sees to that.
        Err(Error::NoClone(_) | Error::Foreign(_)) => {}
        Err(error) => return Err(error),
    }
    store.ensure_clone(&choose(store, wanted)?, request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_earlier_try_took_for_latest_stays_and_a_wanted_image_is_that_one() {
        let image = |name: &str| name.parse::<GoldenImageName>().unwrap();
        let (old, new) = (image("orders-20261123t033000z"), image("orders-20261124t033000z"));
        let wanted = |version| WantedClone {
            database: "orders".parse().unwrap(),
            version,
            pinned: Some(new.clone()),
            name: None,
            ttl: None,
        };
        assert!(fits(&old, &wanted(Version::Latest)));
        assert!(fits(&old, &wanted(Version::Image(old.clone()))));
        assert!(!fits(&new, &wanted(Version::Image(old.clone()))));
        assert!(!fits(&image("web-20261123t033000z"), &wanted(Version::Latest)));
    }
}
