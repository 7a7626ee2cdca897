//! Which dump is the next one.

use super::model::{Dump, View};

/// The newest dump in the bucket, if nothing was done about it yet. Older ones are passed over: whoever comes for data wants the
/// newest.
///
/// A dump was dealt with when an image was begun for it, whatever came of that, or when one that is newer was taken. Of two that
/// were written in the same second the order in the listing decides, which is always the same.
pub fn next(view: &View) -> Option<&Dump> {
    let newest = view.listing.as_ref()?.first()?;
    let spec = view.database.as_ref()?;
    if let Some(taken) = &spec.watermark
        && (newest.modified < taken.modified || newest.source == taken.source)
    {
        return None;
    }
    let known = view.images.values().flat_map(|image| image.sources());
    let mut known = known.filter(|source| source.is(&newest.source));
    known.next().is_none().then_some(newest)
}
