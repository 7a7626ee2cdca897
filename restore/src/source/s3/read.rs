//! One object, from its first byte to its last.

use std::time::Duration;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::super::{Body, Error, Opened, Pending, or_cancelled};
use super::{ANSWER, Store, innermost};

/// How often in a row a broken body is taken up again, and after how long each time.
const RESUMES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(3)];
/// So many bytes since the last break make it a new one.
const PROGRESS: u64 = 1 << 20;

/// Opens the object `key` in `bucket`.
pub(super) async fn open(store: Store, bucket: String, key: String) -> Result<Opened, Error> {
    let mut reader =
        Reader { store, bucket, key, etag: None, size: 0, body: None, got: 0, resumed: 0, resumed_at: 0 };
    let object = reader.get().await?;
    reader.size = reader.size(&object)?;
    reader.etag = object.e_tag;
    reader.body = Some(object.body);
    let etag = reader.etag.as_deref().map(|etag| etag.trim_matches('"').to_owned());
    Ok(Opened { size: Some(reader.size), etag, body: Box::new(reader) })
}

/// The object's bytes. A connection that breaks midway is taken up where it broke, for the same object only.
struct Reader {
    store: Store,
    bucket: String,
    key: String,
    etag: Option<String>,
    size: u64,
    /// None: it broke, and is to be taken up again.
    body: Option<ByteStream>,
    got: u64,
    /// Breaks in a row …
    resumed: usize,
    /// … and how far the reading was at the last of them.
    resumed_at: u64,
}

impl Reader {
    async fn get(&self) -> Result<GetObjectOutput, Error> {
        let mut request = self.store.client.get_object().bucket(&self.bucket).key(&self.key);
        if self.got > 0 {
            request = request.range(format!("bytes={}-", self.got)).set_if_match(self.etag.clone());
        }
        request.send().await.map_err(|err| self.store.error(err))
    }

    /// Without its size, an object whose end is missing would look like a whole one.
    fn size(&self, object: &GetObjectOutput) -> Result<u64, Error> {
        let size = object.content_length.and_then(|length| u64::try_from(length).ok());
        size.ok_or_else(|| Error::Refused {
            location: self.store.location.clone(),
            detail: format!(
                "{} does not say how long it is (Content-Length): read it past whatever stands before the store",
                self.store.endpoint
            ),
            temporary: false,
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let broke = match &mut self.body {
                None => "the store was away".to_owned(),
                Some(body) => match tokio::time::timeout(ANSWER, body.next()).await {
                    Ok(Some(Ok(piece))) if piece.is_empty() => continue,
                    Ok(Some(Ok(piece))) => {
                        self.got += piece.len() as u64;
                        return Ok(Some(piece));
                    }
                    Ok(None) if self.size == self.got => return Ok(None),
                    Ok(None) => "the body ended early".to_owned(),
                    Ok(Some(Err(err))) => innermost(&err),
                    Err(_) => format!("no byte for {} s", ANSWER.as_secs()),
                },
            };
            self.body = None;
            self.resume(&broke).await?;
        }
    }

    async fn resume(&mut self, broke: &str) -> Result<(), Error> {
        if self.got >= self.resumed_at + PROGRESS {
            self.resumed = 0;
        }
        let short =
            Error::Short { location: self.store.location.clone(), got: self.got, expected: self.size };
        let Some(pause) = RESUMES.get(self.resumed) else { return Err(short) };
        // What comes next might be the rest of another object.
        let Some(etag) = self.etag.clone() else { return Err(short) };
        tracing::warn!(
            "{} broke after {} bytes ({broke}): taking it up again",
            self.store.location,
            self.got
        );
        tokio::time::sleep(*pause).await;
        self.resumed += 1;
        self.resumed_at = self.got;
        let object = match self.get().await {
            Ok(object) => object,
            // Away for a moment: it stays broken, and the next try waits longer.
            Err(Error::Away { .. } | Error::Refused { temporary: true, .. })
                if self.resumed < RESUMES.len() =>
            {
                return Ok(());
            }
            Err(err) => return Err(err),
        };
        // A store may ignore `If-Match`.
        if object.e_tag.as_ref().is_some_and(|other| *other != etag) {
            return Err(Error::Changed { location: self.store.location.clone() });
        }
        // A store that ignores the range would start over from the first byte.
        let begins = format!("bytes {}-", self.got);
        if self.got > 0 && !object.content_range.as_deref().is_some_and(|range| range.starts_with(&begins)) {
            return Err(short);
        }
        self.body = Some(object.body);
        Ok(())
    }
}

impl Body for Reader {
    fn next<'a>(&'a mut self, cancel: &'a CancellationToken) -> Pending<'a, Option<Bytes>> {
        Box::pin(or_cancelled(cancel, Reader::next(self)))
    }
}
