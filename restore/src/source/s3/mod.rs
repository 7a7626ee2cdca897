//! Objects in S3, or in anything that speaks it: read one, or list many.

mod http;
mod list;
mod read;

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{
    ProvideCredentials, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::{Client, config};
use tokio_util::sync::CancellationToken;

pub use http::authorities_beside;
pub use list::{Newest, Prefix};

use super::{Error, Opened, Pending, Source, or_cancelled};

/// A connection must be there within this time …
const CONNECT: Duration = Duration::from_secs(3);
/// … an answer or the next bytes within this …
const ANSWER: Duration = Duration::from_secs(10);
/// … and the first answer, retries included, within this.
const OPEN: Duration = Duration::from_secs(13);

/// How to reach the object store. The keys come from where the AWS tools have theirs: `AWS_ACCESS_KEY_ID` and
/// `AWS_SECRET_ACCESS_KEY`, a profile, a web identity token, the machine's role. Without any, requests are not signed:
/// that will do for a public bucket.
#[derive(Clone, Debug, Default)]
pub struct S3Options {
    /// A store that is not AWS; addressed with the bucket in the path.
    pub endpoint: Option<String>,
    /// The region to sign for.
    pub region: Option<String>,
    /// Take any TLS certificate.
    pub insecure: bool,
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
        let store = Store::connect(&self.options, self.location()).await?;
        read::open(store, self.bucket.clone(), self.key.clone()).await
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

/// A connection to the object store, for one location there.
struct Store {
    client: Client,
    /// Where the object store is, for people.
    endpoint: String,
    /// What is asked for, for people.
    location: String,
    /// Why requests are not signed, where they aren't.
    unsigned: Option<String>,
}

impl Store {
    async fn connect(options: &S3Options, location: String) -> Result<Store, Error> {
        let mut loader =
            aws_config::defaults(BehaviorVersion::latest()).http_client(http::client(options.insecure));
        if let Some(endpoint) = &options.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(region) = &options.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let mut shared = loader.load().await;
        let unsigned = no_keys(&shared).await;
        if unsigned.is_some() {
            // Or it would look for them again, and fail.
            let mut without = shared.into_builder();
            without.set_credentials_provider(None);
            shared = without.build();
        }
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT)
            .read_timeout(ANSWER)
            .operation_timeout(OPEN)
            .build();
        let region = shared.region().cloned().unwrap_or_else(|| Region::new("us-east-1"));
        let mut config = config::Builder::from(&shared)
            .region(region)
            .timeout_config(timeouts)
            .retry_config(
                RetryConfig::standard().with_max_attempts(3).with_max_backoff(Duration::from_secs(1)),
            )
            // Stores other than AWS know neither the newer checksums …
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // … nor buckets as host names.
            .force_path_style(options.endpoint.is_some())
            // Ours, in `read`: theirs would take a slow engine for a slow network.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if unsigned.is_some() {
            config = config.allow_no_auth();
        }
        let endpoint = match &options.endpoint {
            Some(endpoint) => format!("the object store at {endpoint}"),
            None => "Amazon S3".into(),
        };
        Ok(Store { client: Client::from_conf(config.build()), endpoint, location, unsigned })
    }

    /// What an answer of the store means.
    fn error<E>(&self, err: SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let SdkError::ServiceError(answer) = &err else {
            return match &err {
                SdkError::ConstructionFailure(_) => Error::Refused {
                    location: self.location.clone(),
                    detail: innermost(&err),
                    temporary: false,
                },
                _ => self.away(innermost(&err)),
            };
        };
        let status = answer.raw().status().as_u16();
        let code = answer.err().code().unwrap_or_default();
        let location = self.location.clone();
        match (code, status) {
            ("NoSuchBucket", _) => {
                let advice = format!("check the bucket's name; {} has no such bucket", self.endpoint);
                Error::NotFound { location, advice }
            }
            ("NoSuchKey", _) | (_, 404) => {
                let advice = format!("check the key; {} has no such object in that bucket", self.endpoint);
                Error::NotFound { location, advice }
            }
            ("PreconditionFailed", _) | (_, 412) => Error::Changed { location },
            (_, 401 | 403) => self.denied(code, status),
            _ => {
                let said = answer.err().message().unwrap_or_default();
                let detail = format!("{} says HTTP {status} {code} {said}", self.endpoint);
                let temporary = status >= 500 || status == 429;
                Error::Refused { location, detail: detail.trim_end().to_owned(), temporary }
            }
        }
    }

    fn away(&self, detail: String) -> Error {
        if !detail.contains("invalid peer certificate") {
            return Error::Away { endpoint: self.endpoint.clone(), detail };
        }
        let advice = "let this machine trust who signed it, or take any with --s3-insecure";
        let detail =
            format!("the certificate of {} is not to be trusted ({detail}): {advice}", self.endpoint);
        Error::Refused { location: self.location.clone(), detail, temporary: false }
    }

    fn denied(&self, code: &str, status: u16) -> Error {
        let said = if code.is_empty() { format!("HTTP {status}") } else { code.to_owned() };
        let (detail, advice) = match &self.unsigned {
            None => {
                (said, format!("check that the keys belong to {} and may read that bucket", self.endpoint))
            }
            Some(why) => (
                format!("{said}, asked without a key: {why}"),
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE".to_owned(),
            ),
        };
        // A clock that is wrong will be set right; nothing else here passes by itself.
        if code == "RequestTimeTooSkewed" {
            let detail = format!("{detail}: this machine's clock and that of {} differ", self.endpoint);
            return Error::Refused { location: self.location.clone(), detail, temporary: true };
        }
        Error::Denied { location: self.location.clone(), detail, advice }
    }
}

/// Looks for keys first: without them the SDK speaks of a failed dispatch. Tells why there are none.
async fn no_keys(shared: &SdkConfig) -> Option<String> {
    let Some(provider) = shared.credentials_provider() else { return Some("there is none".to_owned()) };
    match tokio::time::timeout(OPEN, provider.provide_credentials()).await {
        Ok(Ok(_)) => None,
        Ok(Err(err)) => Some(innermost(&err)),
        Err(_) => Some("looking for one took too long".to_owned()),
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
