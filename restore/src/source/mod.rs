//! Where a dump comes from: a small port, and an adapter for each kind of place.

mod file;
mod s3;

use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

pub use file::{File, Stdin};
pub use s3::{Newest, Prefix, S3, S3Options, authorities_beside};

/// A future that an adapter returns.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A place that holds one dump.
pub trait Source: Send + Sync {
    /// Where that is, as people write it: `s3://bucket/key`, a path, `-`.
    fn location(&self) -> String;

    /// Opens it for one pass from the first byte to the last.
    fn open<'a>(&'a self, cancel: &'a CancellationToken) -> Pending<'a, Opened>;
}

/// A dump that is open for reading.
pub struct Opened {
    /// Its size in bytes as stored, where the place knows it.
    pub size: Option<u64>,
    /// Its ETag, where the place has such a thing.
    pub etag: Option<String>,
    /// Its bytes.
    pub body: Box<dyn Body>,
}

/// The bytes of a dump, once, in order.
pub trait Body: Send {
    /// The next piece; `None` after the last one. An adapter that knows the size gives `None` only when all bytes came:
    /// fewer are [`Error::Short`].
    fn next<'a>(&'a mut self, cancel: &'a CancellationToken) -> Pending<'a, Option<Bytes>>;
}

/// Why a dump could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It isn't there.
    #[error("{location} does not exist: {advice}")]
    NotFound {
        /// The dump.
        location: String,
        /// What to look at.
        advice: String,
    },
    /// We may not read it.
    #[error("{location} may not be read ({detail}): {advice}")]
    Denied {
        /// The dump.
        location: String,
        /// What the other side said.
        detail: String,
        /// What to look at.
        advice: String,
    },
    /// The place did not answer.
    #[error(
        "{endpoint} does not answer ({detail}): check that it is up and that this machine can reach it, then try again"
    )]
    Away {
        /// Where we knocked.
        endpoint: String,
        /// What happened.
        detail: String,
    },
    /// The place refused for a reason of its own.
    #[error("{location} was refused: {detail}")]
    Refused {
        /// The dump.
        location: String,
        /// What the other side said.
        detail: String,
        /// Whether it said that about itself (5xx, slow down) rather than about us.
        temporary: bool,
    },
    /// Fewer bytes came than were announced, after several tries.
    #[error("{location} ended after {got} of {expected} bytes: the transfer was cut short, try again")]
    Short {
        /// The dump.
        location: String,
        /// Bytes that came.
        got: u64,
        /// Bytes that were announced.
        expected: u64,
    },
    /// It is not the object any more that we began to read.
    #[error("{location} changed while it was read: wait until the upload is complete, then try again")]
    Changed {
        /// The dump.
        location: String,
    },
    /// The system could not read it.
    #[error("read {location}: {detail}")]
    Io {
        /// The dump.
        location: String,
        /// What the system said.
        detail: String,
    },
    /// We were told to stop.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Whether trying again with the same input can only fail again.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Error::NotFound { .. } | Error::Denied { .. } | Error::Io { .. } => true,
            Error::Refused { temporary, .. } => !temporary,
            Error::Away { .. } | Error::Short { .. } | Error::Changed { .. } | Error::Cancelled => false,
        }
    }
}

/// A place, as written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `s3://bucket/key`
    S3 {
        /// The bucket.
        bucket: String,
        /// The object's key.
        key: String,
    },
    /// A path.
    File(std::path::PathBuf),
    /// `-`
    Stdin,
}

impl Location {
    /// The adapter for it.
    #[must_use]
    pub fn source(&self, s3: &S3Options) -> Box<dyn Source> {
        match self {
            Location::S3 { bucket, key } => Box::new(S3::new(bucket.clone(), key.clone(), s3.clone())),
            Location::File(path) => Box::new(File::new(path.clone())),
            Location::Stdin => Box::new(Stdin),
        }
    }
}

impl FromStr for Location {
    type Err = String;

    fn from_str(text: &str) -> Result<Location, String> {
        if text == "-" {
            return Ok(Location::Stdin);
        }
        let Some(rest) = text.strip_prefix("s3://") else {
            if let Some((scheme, _)) = text.split_once("://") {
                return Err(format!(
                    "{scheme}:// is not supported: use s3://bucket/key, a path, or - for standard input"
                ));
            }
            return if text.is_empty() {
                Err("write s3://bucket/key, a path, or -".into())
            } else {
                Ok(Location::File(text.into()))
            };
        };
        match rest.split_once('/') {
            Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() && !key.ends_with('/') => {
                Ok(Location::S3 { bucket: bucket.into(), key: key.into() })
            }
            _ => Err("an object is written s3://bucket/key, for example s3://backup/orders.sql.gz".into()),
        }
    }
}

/// Runs `work` until it is done or we are told to stop.
async fn or_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Error::Cancelled),
        done = work => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_an_object_a_path_or_a_dash() {
        let s3 = Location::S3 { bucket: "b".into(), key: "a/b c.gz".into() };
        assert_eq!("s3://b/a/b c.gz".parse(), Ok(s3));
        assert_eq!("-".parse(), Ok(Location::Stdin));
        assert_eq!("./x.sql".parse(), Ok(Location::File("./x.sql".into())));
        for bad in ["s3://", "s3://b", "s3://b/", "s3:///k", "s3://b/prefix/", "https://x/y", ""] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }
}
