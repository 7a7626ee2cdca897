//! What lies in a bucket.

use std::str::FromStr;

use aldaas_api::event::{Listing, Object};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::super::{Error, or_cancelled};
use super::{S3Options, Store};

/// Objects whose keys begin alike: `s3://bucket/orders/`, or all of `s3://bucket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    bucket: String,
    prefix: String,
}

impl FromStr for Prefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Prefix, Self::Err> {
        let rest = text.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(
                "write s3://bucket/prefix, for example s3://backup/orders/, or s3://backup for all of it",
            );
        }
        Ok(Prefix { bucket: bucket.into(), prefix: prefix.into() })
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

impl Prefix {
    /// The newest `keep` of the objects whose keys end with `suffix`, and how many there are.
    ///
    /// # Errors
    /// When the store cannot be reached or does not let us look.
    pub async fn list(
        &self,
        options: &S3Options,
        suffix: &str,
        keep: usize,
        cancel: &CancellationToken,
    ) -> Result<Listing, Error> {
        or_cancelled(cancel, self.pages(options, suffix, keep)).await
    }

    async fn pages(&self, options: &S3Options, suffix: &str, keep: usize) -> Result<Listing, Error> {
        let store = Store::connect(options, self.to_string()).await?;
        let request = store.client.list_objects_v2().bucket(&self.bucket);
        let mut pages = request
            .set_prefix((!self.prefix.is_empty()).then(|| self.prefix.clone()))
            .into_paginator()
            .send();
        let mut newest = Newest::new(keep);
        while let Some(page) = pages.next().await {
            let page = page.map_err(|err| store.error(err))?;
            for object in page.contents.unwrap_or_default() {
                let Some(object) = dump(object) else { continue };
                if object.key.ends_with(suffix) {
                    newest.add(object);
                }
            }
        }
        Ok(newest.listing())
    }
}

/// None for what holds no dump: the empty objects by which some tools show a directory.
fn dump(object: aws_sdk_s3::types::Object) -> Option<Object> {
    let key = object.key.filter(|key| !key.is_empty() && !key.ends_with('/'))?;
    let modified = object.last_modified.and_then(|at| Timestamp::new(at.secs(), 0).ok());
    Some(Object {
        key,
        size: object.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        etag: object.e_tag.map(|etag| etag.trim_matches('"').to_owned()),
        last_modified: modified.unwrap_or_default(),
    })
}

/// Keeps the newest of many objects, and little else.
#[derive(Debug)]
pub struct Newest {
    keep: usize,
    kept: Vec<Object>,
    total: u64,
}

impl Newest {
    /// Keeps so many.
    #[must_use]
    pub fn new(keep: usize) -> Newest {
        Newest { keep, kept: Vec::new(), total: 0 }
    }

    /// One more.
    pub fn add(&mut self, object: Object) {
        self.total += 1;
        self.kept.push(object);
        if self.kept.len() >= 2 * self.keep + 1000 {
            self.tidy();
        }
    }

    /// The newest first; of those that are equally old, the one whose key comes last: it mostly ends with a date.
    #[must_use]
    pub fn listing(mut self) -> Listing {
        self.tidy();
        Listing { objects: self.kept, total: self.total }
    }

    fn tidy(&mut self) {
        self.kept.sort_by(|a, b| (b.last_modified, &b.key).cmp(&(a.last_modified, &a.key)));
        self.kept.truncate(self.keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_may_be_empty_or_end_with_a_slash() {
        for (text, shown) in [
            ("s3://b", "s3://b/"),
            ("s3://b/", "s3://b/"),
            ("s3://b/a b/", "s3://b/a b/"),
            ("s3://b/daily/x", "s3://b/daily/x"),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), shown);
        }
        for bad in ["", "s3://", "s3:///x", "b/x", "https://b/x"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_newest_are_kept_in_order_whatever_the_order_they_come_in(ages: Vec<u16>, keep in 0..40_usize) {
            let object = |(at, age): (usize, &u16)| Object {
                key: format!("k{at:05}"),
                size: 0,
                etag: None,
                last_modified: Timestamp::new(i64::from(*age), 0).unwrap(),
            };
            let mut newest = Newest::new(keep);
            ages.iter().enumerate().map(object).for_each(|object| newest.add(object));
            let mut all: Vec<Object> = ages.iter().enumerate().map(object).collect();
            all.sort_by(|a, b| (b.last_modified, &b.key).cmp(&(a.last_modified, &a.key)));
            all.truncate(keep);
            proptest::prop_assert_eq!(newest.listing(), Listing { objects: all, total: ages.len() as u64 });
        }
    }
}
