//! Lists a kind, then watches it, for ever.
//!
//! kube's own watcher hides bookmarks and the quiet renewal of a watch, and with them the proof that what is known is current;
//! so this is a watch of our own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};

use super::kinds::Change;
use super::{Index, Watched};

/// A watch is renewed after this time, so that a quiet one proves itself too.
pub const PROOF: Duration = Duration::from_secs(45);
/// An answer that is later than this never comes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Objects in one answer.
const PAGE: u32 = 500;
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("{0}")]
    Kube(#[from] kube::Error),
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the API server ended the watch: {0}")]
    Ended(String),
    /// What we know is too old to be continued.
    #[error("the API server forgot where we were")]
    Expired,
}

impl From<tokio::time::error::Elapsed> for WatchError {
    fn from(_: tokio::time::error::Elapsed) -> Self {
        Self::Silent(PATIENCE)
    }
}

/// Keeps what is known of a kind current. Never returns.
pub async fn run(client: Client, kind: Watched, index: Arc<Index>) {
    let api: Api<DynamicObject> = Api::all_with(client, &kind.resource());
    let (mut version, mut pause) = (None, SHORTEST_PAUSE);
    loop {
        let done = match version.take() {
            None => list(&api, kind, &index).await,
            Some(from) => watch(&api, kind, &index, from).await,
        };
        match done {
            Ok(next) => {
                version = Some(next);
                pause = SHORTEST_PAUSE;
            }
            Err((WatchError::Expired, _)) => {}
            Err((error, from)) => {
                tracing::warn!(kind = kind.as_str(), %error, "the API server does not tell what is new; asking again");
                version = from;
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// An error, and from which version on a watch may be tried again.
type Failed = (WatchError, Option<String>);

/// Reads all objects. Only when the last page is there does it replace what was known.
async fn list(api: &Api<DynamicObject>, kind: Watched, index: &Index) -> Result<String, Failed> {
    let mut changes = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page =
            tokio::time::timeout(PATIENCE, api.list(&params)).await.map_err(|error| (error.into(), None))?;
        let page = page.map_err(|error| (expired(error), None))?;
        changes.extend(page.items.into_iter().filter_map(|object| Change::set(kind, object)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => {
                tracing::info!(kind = kind.as_str(), objects = changes.len(), "read");
                index.change(|catalogue| {
                    kind.clear(catalogue);
                    changes.into_iter().for_each(|change| change.apply(catalogue));
                });
                index.filled(kind);
                return Ok(page.metadata.resource_version.unwrap_or_default());
            }
        }
    }
}

/// Follows what changes, until the watch ends; returns where to go on.
async fn watch(
    api: &Api<DynamicObject>,
    kind: Watched,
    index: &Index,
    mut version: String,
) -> Result<String, Failed> {
    let params = WatchParams::default().timeout(u32::try_from(PROOF.as_secs()).unwrap_or(60));
    let again = |error, version: &str| (error, Some(version.to_owned()));
    let started = tokio::time::timeout(PATIENCE, api.watch(&params, &version)).await;
    let stream = match started {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(again(expired(error), &version)),
        Err(late) => return Err(again(late.into(), &version)),
    };
    index.is_current(kind);
    let mut stream = std::pin::pin!(stream);
    let begun = tokio::time::Instant::now();
    loop {
        let Ok(event) = tokio::time::timeout(PROOF + PATIENCE, stream.next()).await else {
            return Err(again(WatchError::Silent(PROOF + PATIENCE), &version));
        };
        match event {
            None => break,
            Some(Err(error)) => return Err(again(error.into(), &version)),
            Some(Ok(WatchEvent::Error(status))) if status.code == 410 => {
                return Err((WatchError::Expired, None));
            }
            Some(Ok(WatchEvent::Error(status))) => {
                return Err((WatchError::Ended(status.message.clone()), None));
            }
            Some(Ok(event)) => version = take(kind, index, event).unwrap_or(version),
        }
        index.is_current(kind);
    }
    // One that ends at once, again and again, must not keep us busy.
    if begun.elapsed() < SHORTEST_PAUSE {
        return Err(again(WatchError::Ended("at once".to_owned()), &version));
    }
    Ok(version)
}

/// Takes an event over; returns the version that it is of.
fn take(kind: Watched, index: &Index, event: WatchEvent<DynamicObject>) -> Option<String> {
    let (change, version) = match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) => {
            let version = object.metadata.resource_version.clone();
            (Change::set(kind, object), version)
        }
        WatchEvent::Deleted(object) => (Change::gone(kind, &object), object.metadata.resource_version),
        WatchEvent::Bookmark(bookmark) => (None, Some(bookmark.metadata.resource_version)),
        WatchEvent::Error(_) => (None, None),
    };
    if let Some(change) = change {
        index.change(|catalogue| change.apply(catalogue));
    }
    version
}

fn expired(error: kube::Error) -> WatchError {
    match error {
        kube::Error::Api(status) if status.code == 410 => WatchError::Expired,
        error => WatchError::Kube(error),
    }
}
