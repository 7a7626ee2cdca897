//! Looking into a bucket: by the program `aldaas-restore list`, so that S3 is spoken in one room only.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aldaas_api::event::{Event, Listing, exit};
use aldaas_api::kinds::S3Source;
use tokio::process::Command;

use super::model::{Dump, Source};

/// A store that does not answer in this time counts as away.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many of the newest objects are asked for.
const NEWEST: &str = "20";
/// What is needed of our environment besides keys.
const PASSED_ON: [&str; 10] = [
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RUST_LOG",
];

/// Why a bucket can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreachable {
    /// In a word, for a condition.
    pub reason: &'static str,
    /// In a sentence.
    pub message: String,
}

/// The key to a bucket. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// The access key's id.
    pub id: String,
    /// The secret.
    pub secret: String,
}

/// Lists what begins with `prefix` and ends with `suffix`.
///
/// # Errors
/// When the bucket can't be read.
pub async fn list(
    program: &Path,
    s3: &S3Source,
    prefix: &str,
    suffix: &str,
    key: Option<&Key>,
) -> Result<Listing, Unreachable> {
    let mut command = Command::new(program);
    command
        .args(["list", "--from", &location(s3, prefix), "--newest", NEWEST])
        .args(if suffix.is_empty() { Vec::new() } else { vec!["--suffix", suffix] })
        .env_clear()
        .envs(environment(s3, key, std::env::vars()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let failed = |reason, message| Unreachable { reason, message };
    let output = match tokio::time::timeout(PATIENCE, command.output()).await {
        Err(_) => {
            return Err(failed("Timeout", format!("the store did not answer in {} s", PATIENCE.as_secs())));
        }
        Ok(Err(error)) => {
            let message = format!("{} can't be started: {error}", program.display());
            return Err(failed("NoProgram", message));
        }
        Ok(Ok(output)) => output,
    };
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        let listing = said.lines().find_map(|line| serde_json::from_str(line).ok());
        return listing.ok_or_else(|| failed("NoAnswer", "aldaas-restore list said nothing".to_owned()));
    }
    let events = said.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut why = events.filter_map(|event| match event {
        Event::Failed { reason, .. } => Some(reason),
        _ => None,
    });
    let last_words = || {
        let log = String::from_utf8_lossy(&output.stderr);
        log.lines().last().map_or_else(|| output.status.to_string(), str::to_owned)
    };
    let may_pass = output.status.code() == Some(i32::from(exit::TEMPORARY));
    let reason = if may_pass { "Unreachable" } else { "Refused" };
    Err(failed(reason, why.next_back().unwrap_or_else(last_words)))
}

/// `s3://bucket/prefix`
fn location(s3: &S3Source, prefix: &str) -> String {
    format!("s3://{}/{prefix}", s3.bucket)
}

/// The child's environment: where the store is, and the key. Keys of our own only where the database names none.
fn environment(
    s3: &S3Source,
    key: Option<&Key>,
    ours: impl Iterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    let mut environment: BTreeMap<_, _> = ours
        .filter(|(name, _)| PASSED_ON.contains(&name.as_str()) || (key.is_none() && name.starts_with("AWS_")))
        .collect();
    environment.extend(store(s3));
    if let Some(key) = key {
        environment.insert("AWS_ACCESS_KEY_ID".into(), key.id.clone());
        environment.insert("AWS_SECRET_ACCESS_KEY".into(), key.secret.clone());
    }
    environment
}

/// Where a database's store is, as `aldaas-restore` wants to be told: here, and in Jobs.
pub fn store(s3: &S3Source) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    if let Some(endpoint) = &s3.endpoint {
        environment.insert("AWS_ENDPOINT_URL".to_owned(), endpoint.clone());
    }
    let region = s3.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
    environment.insert("AWS_REGION".to_owned(), region);
    if s3.insecure {
        environment.insert("ALDAAS_S3_INSECURE".to_owned(), "true".to_owned());
    }
    environment
}

/// An object of the bucket as a dump.
pub fn dump(s3: &S3Source, object: &aldaas_api::event::Object) -> Dump {
    Dump {
        source: Source { location: location(s3, &object.key), etag: object.etag.clone() },
        size: Some(object.size),
        modified: object.last_modified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_with_its_own_key_never_gets_ours() {
        let ours = || {
            ["PATH", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "KUBERNETES_SERVICE_HOST"]
                .map(|name| (name.to_owned(), "ours".to_owned()))
                .into_iter()
        };
        let s3 = S3Source { endpoint: Some("http://minio:9000".into()), ..S3Source::default() };
        let key = Key { id: "theirs".into(), secret: "theirs".into() };
        let with = environment(&s3, Some(&key), ours());
        assert_eq!(with["AWS_ACCESS_KEY_ID"], "theirs");
        assert_eq!(with["AWS_ENDPOINT_URL"], "http://minio:9000");
        assert!(!with.contains_key("AWS_ROLE_ARN") && !with.contains_key("KUBERNETES_SERVICE_HOST"));
        assert_eq!(environment(&s3, None, ours())["AWS_ROLE_ARN"], "ours");
    }
}
