//! An object in S3, or in anything that speaks it.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{
    ProvideCredentials, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::{GetObjectError, GetObjectOutput};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::{Client, config};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{Body, Error, Opened, Pending, Source, or_cancelled};

/// A connection must be there within this time …
const CONNECT: Duration = Duration::from_secs(3);
/// … an answer or the next bytes within this …
const ANSWER: Duration = Duration::from_secs(10);
/// … and the first answer, retries included, within this.
const OPEN: Duration = Duration::from_secs(13);
/// How often in a row a broken body is taken up again, and after how long each time.
const RESUMES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(3)];
/// So many bytes since the last break make it a new one.
const PROGRESS: u64 = 1 << 20;

/// How to reach the object store. The keys come from where the AWS tools have theirs: `AWS_ACCESS_KEY_ID` and
/// `AWS_SECRET_ACCESS_KEY`, a profile, a web identity token, the machine's role.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// A store that is not AWS; addressed with the bucket in the path.
    pub endpoint: Option<String>,
    /// The region to sign for.
    pub region: Option<String>,
}

/// One object.
#[derive(Clone, Debug)]
pub struct S3 {
    bucket: String,
    key: String,
    options: S3Options,
}

impl S3 {
    /// The object `key` in `bucket`.
    #[must_use]
    pub fn new(bucket: String, key: String, options: S3Options) -> S3 {
        S3 { bucket, key, options }
    }

    async fn open(&self) -> Result<Opened, Error> {
        let client = self.client().await?;
        let mut reader = Reader {
            s3: self.clone(),
            client,
            etag: None,
            size: 0,
            body: None,
            got: 0,
            resumed: 0,
            resumed_at: 0,
        };
        let object = reader.get().await?;
        reader.size = self.size(&object)?;
        reader.etag = object.e_tag;
        reader.body = Some(object.body);
        let etag = reader.etag.as_deref().map(|etag| etag.trim_matches('"').to_owned());
        Ok(Opened { size: Some(reader.size), etag, body: Box::new(reader) })
    }

    /// Without its size, an object whose end is missing would look like a whole one.
    fn size(&self, object: &GetObjectOutput) -> Result<u64, Error> {
        object.content_length.and_then(|length| u64::try_from(length).ok()).ok_or_else(|| Error::Refused {
            location: self.location(),
            detail: format!(
                "{} does not say how long it is (Content-Length): read it past whatever stands before the store",
                self.endpoint()
            ),
            temporary: false,
        })
    }

    async fn client(&self) -> Result<Client, Error> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest());
        if let Some(endpoint) = &self.options.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(region) = &self.options.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let shared = loader.load().await;
        self.credentials(&shared).await?;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .read_timeout(ANSWER)
            .operation_timeout(OPEN)
            .build();
        let region = shared.region().cloned().unwrap_or_else(|| Region::new("us-east-1"));
        let config = config::Builder::from(&shared)
            .region(region)
            .timeout_config(timeouts)
            .retry_config(
                RetryConfig::standard().with_max_attempts(3).with_max_backoff(Duration::from_secs(1)),
            )
            // Stores other than AWS know neither the newer checksums …
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // … nor buckets as host names.
            .force_path_style(self.options.endpoint.is_some())
            // Ours, in `Reader`: theirs would take a slow engine for a slow network.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Ok(Client::from_conf(config))
    }

    /// Looks for keys first: without them the SDK speaks of a failed dispatch.
    async fn credentials(&self, shared: &SdkConfig) -> Result<(), Error> {
        let found = match shared.credentials_provider() {
            Some(provider) => tokio::time::timeout(OPEN, provider.provide_credentials())
                .await
                .map_err(|_| "looking for credentials took too long".to_owned())
                .and_then(|found| found.map(|_| ()).map_err(|err| innermost(&err))),
            None => Err("no credentials".to_owned()),
        };
        found.map_err(|detail| Error::Denied {
            location: self.location(),
            detail,
            advice: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE".into(),
        })
    }

    /// Where the object store is, for people.
    fn endpoint(&self) -> String {
        match &self.options.endpoint {
            Some(endpoint) => format!("the object store at {endpoint}"),
            None => "Amazon S3".into(),
        }
    }

    fn error(&self, err: SdkError<GetObjectError>) -> Error {
        let SdkError::ServiceError(answer) = &err else {
            return match &err {
                SdkError::ConstructionFailure(_) => {
                    Error::Refused { location: self.location(), detail: innermost(&err), temporary: false }
                }
                _ => Error::Away { endpoint: self.endpoint(), detail: innermost(&err) },
            };
        };
        let status = answer.raw().status().as_u16();
        let code = answer.err().code().unwrap_or_default();
        let location = self.location();
        match (code, status) {
            ("NoSuchBucket", _) => {
                let advice = format!("check the bucket's name; {} has no {:?}", self.endpoint(), self.bucket);
                Error::NotFound { location, advice }
            }
            ("NoSuchKey", _) | (_, 404) => {
                let advice = format!("check the key; {} has no such object in that bucket", self.endpoint());
                Error::NotFound { location, advice }
            }
            ("PreconditionFailed", _) | (_, 412) => Error::Changed { location },
            (_, 401 | 403) => Error::Denied {
                location,
                detail: if code.is_empty() { format!("HTTP {status}") } else { code.to_owned() },
                advice: format!("check that the keys belong to {} and may read that bucket", self.endpoint()),
            },
            _ => {
                let said = answer.err().message().unwrap_or_default();
                let detail = format!("{} says HTTP {status} {code} {said}", self.endpoint());
                let temporary = status >= 500 || status == 429;
                Error::Refused { location, detail: detail.trim_end().to_owned(), temporary }
            }
        }
    }
}

impl Source for S3 {
    fn location(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.key)
    }

    fn open<'a>(&'a self, cancel: &'a CancellationToken) -> Pending<'a, Opened> {
        Box::pin(or_cancelled(cancel, S3::open(self)))
    }
}

/// The object's bytes. A connection that breaks midway is taken up where it broke, for the same object only.
struct Reader {
    s3: S3,
    client: Client,
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
        let mut request = self.client.get_object().bucket(&self.s3.bucket).key(&self.s3.key);
        if self.got > 0 {
            request = request.range(format!("bytes={}-", self.got)).set_if_match(self.etag.clone());
        }
        request.send().await.map_err(|err| self.s3.error(err))
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
        let short = Error::Short { location: self.s3.location(), got: self.got, expected: self.size };
        let Some(pause) = RESUMES.get(self.resumed) else { return Err(short) };
        // What comes next might be the rest of another object.
        let Some(etag) = self.etag.clone() else { return Err(short) };
        tracing::warn!("{} broke after {} bytes ({broke}): taking it up again", self.s3.location(), self.got);
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
            return Err(Error::Changed { location: self.s3.location() });
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

/// The cause at the bottom: what happened, without the layers it came through.
fn innermost(err: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = err;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
