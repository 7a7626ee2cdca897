//! The buckets of all databases, each looked at by a task of its own: by a period, and at once when somebody says that something
//! is new.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aldaas_api::DatabaseName;
use aldaas_api::kinds::{S3Source, Source};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::bucket::{self, Key, Unreachable};
use super::database_status::Reach;
use super::metrics::Metrics;
use super::model::Dump;

/// How often where nothing is said.
const INTERVAL: Duration = Duration::from_secs(60);
/// However many notifications come, a bucket is looked at for them no more often than this.
const GAP: Duration = Duration::from_secs(1);
/// After a failure it is soon tried again, and then less and less often.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// What is known of one database's bucket.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Whether it can be read.
    pub reach: Reach,
    /// Its dumps, the newest first; none while it can't be read.
    pub listing: Option<Vec<Dump>>,
    /// What was asked for by hand, and what was found.
    pub answer: Option<(String, Result<Dump, String>)>,
}

/// All buckets.
pub struct Buckets {
    program: PathBuf,
    secrets: Api<Secret>,
    namespace: String,
    wake: Arc<Notify>,
    metrics: Arc<Metrics>,
    watched: Mutex<HashMap<DatabaseName, Watched>>,
}

struct Watched {
    source: Source,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    look: Notify,
    asked: Mutex<Option<String>>,
    known: Mutex<Known>,
}

impl Buckets {
    /// Looks at none yet. `wake` is told of what is found.
    pub fn new(
        program: PathBuf,
        (secrets, namespace): (Api<Secret>, String),
        wake: Arc<Notify>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self { program, secrets, namespace, wake, metrics, watched: Mutex::new(HashMap::new()) })
    }

    /// Looks at the buckets of these databases and no others; at once where one is new or has changed.
    pub fn watch(self: &Arc<Self>, databases: &HashMap<DatabaseName, Source>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|name, bucket| {
            let stays = databases.get(name) == Some(&bucket.source);
            if !stays {
                bucket.task.abort();
            }
            stays
        });
        for (name, source) in databases {
            watched.entry(name.clone()).or_insert_with(|| {
                let shared = Arc::<Shared>::default();
                let task = self.clone().follow(name.clone(), source.clone(), shared.clone());
                Watched { source: source.clone(), shared, task: tokio::spawn(task).abort_handle() }
            });
        }
    }

    /// What is known of a database's bucket.
    pub fn known(&self, database: &DatabaseName) -> Known {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let known = watched.get(database).map(|bucket| bucket.shared.known());
        known.unwrap_or_default()
    }

    /// Somebody asks for a dump by hand.
    pub fn ask(&self, database: &DatabaseName, what: &str) {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = watched.get(database) {
            let mut asked = bucket.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.as_deref() != Some(what) {
                *asked = Some(what.to_owned());
                bucket.shared.look.notify_one();
            }
        }
    }

    /// Somebody says that there is something new at this place; how many databases look for themselves now.
    pub fn notify(&self, in_bucket: &str, key: &str) -> usize {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let concerned = watched.values().filter(|bucket| concerns(&bucket.source.s3, in_bucket, key));
        concerned.map(|bucket| bucket.shared.look.notify_one()).count()
    }

    async fn follow(self: Arc<Self>, database: DatabaseName, source: Source, shared: Arc<Shared>) {
        let interval = source.interval.map_or(INTERVAL, |interval| interval.duration());
        let (mut pause, mut pace) = (FIRST_PAUSE, Pace::default());
        loop {
            let listed = self.look(&source.s3, &shared).await;
            let wait = match &listed {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    jittered(interval)
                }
                Err(why) => {
                    self.metrics.probe_failed(&database);
                    let news = shared.refused(why);
                    if news {
                        tracing::warn!(%database, reason = why.reason, why = why.message, "the bucket can't be read");
                    }
                    let wait = pause.min(interval);
                    pause = (pause * 2).min(interval.max(FIRST_PAUSE));
                    jittered(wait)
                }
            };
            self.wake.notify_one();
            tokio::select! {
                () = tokio::time::sleep(wait.max(GAP)) => {}
                () = shared.look.notified() => tokio::time::sleep(pace.rest(Instant::now())).await,
            }
        }
    }

    async fn look(&self, s3: &S3Source, shared: &Shared) -> Result<(), Unreachable> {
        let asked = shared.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let key = self.key(s3).await?;
        let (prefix, suffix) = (s3.prefix.as_deref().unwrap_or(""), s3.suffix.as_deref().unwrap_or(""));
        let listing = bucket::list(&self.program, s3, prefix, suffix, key.as_ref()).await?;
        let dumps: Vec<Dump> = listing.objects.iter().map(|object| bucket::dump(s3, object)).collect();
        let answer = match asked {
            None => None,
            Some(what) => Some((what.clone(), self.find(s3, &what, &dumps, key.as_ref()).await?)),
        };
        let mut known = shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Known { reach: Reach::Yes(listing.total), listing: Some(dumps), answer };
        Ok(())
    }

    /// The dump that somebody asked for: the newest, or the one with this key.
    async fn find(
        &self,
        s3: &S3Source,
        what: &str,
        dumps: &[Dump],
        key: Option<&Key>,
    ) -> Result<Result<Dump, String>, Unreachable> {
        if what == "now" {
            let none = "there is no dump in the bucket that matches";
            return Ok(dumps.first().cloned().ok_or_else(|| none.to_owned()));
        }
        let own = format!("s3://{}/", s3.bucket);
        let wanted = what.strip_prefix(&own).unwrap_or(what);
        let listing = bucket::list(&self.program, s3, wanted, "", key).await?;
        let found = listing.objects.iter().find(|object| object.key == wanted);
        Ok(found.map(|object| bucket::dump(s3, object)).ok_or_else(|| {
            format!(
                "there is no object {wanted} in bucket {}: write now, or the whole key of a dump",
                s3.bucket
            )
        }))
    }

    /// The key to the bucket, from its Secret.
    async fn key(&self, s3: &S3Source) -> Result<Option<Key>, Unreachable> {
        let Some(wanted) = &s3.credentials else { return Ok(None) };
        let refused = |reason, message| Unreachable { reason, message };
        let secret = match self.secrets.get_opt(&wanted.secret).await {
            Ok(Some(secret)) => secret,
            Ok(None) => {
                let (secret, namespace) = (&wanted.secret, &self.namespace);
                return Err(refused(
                    "NoSecret",
                    format!(
                        "there is no Secret {secret} in namespace {namespace}: make it, with the keys {} and {}",
                        wanted.access_key_id, wanted.secret_access_key
                    ),
                ));
            }
            Err(error) => {
                let error = aldaas_daemon::kubernetes::say(&error);
                return Err(refused("NoSecret", format!("Secret {} can't be read: {error}", wanted.secret)));
            }
        };
        let entry = |name: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(name));
            let text = bytes.and_then(|bytes| String::from_utf8(bytes.0.clone()).ok());
            let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
            text.ok_or_else(|| refused("NoSecret", format!("Secret {} has no entry {name}", wanted.secret)))
        };
        Ok(Some(Key { id: entry(&wanted.access_key_id)?, secret: entry(&wanted.secret_access_key)? }))
    }
}

/// How soon a notification is followed: the first at once, also right after a look that nobody asked for.
#[derive(Default)]
struct Pace(Option<Instant>);

impl Pace {
    /// How long to wait before the look that is due `now`.
    fn rest(&mut self, now: Instant) -> Duration {
        let rest = self.0.map_or(Duration::ZERO, |last| GAP.saturating_sub(now.duration_since(last)));
        self.0 = Some(now + rest);
        rest
    }
}

impl Shared {
    fn known(&self) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether that is news.
    fn refused(&self, why: &Unreachable) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let reach = Reach::No(why.reason.to_owned(), why.message.clone());
        let news = known.reach != reach;
        *known = Known { reach, listing: None, answer: None };
        news
    }
}

/// Whether a key in a bucket is one that this database looks at.
fn concerns(s3: &S3Source, bucket: &str, key: &str) -> bool {
    s3.bucket == bucket && key.starts_with(s3.prefix.as_deref().unwrap_or(""))
}

/// Within a tenth: many databases that were made together do not ask together for ever.
fn jittered(time: Duration) -> Duration {
    use std::hash::{BuildHasher as _, RandomState};
    let random = u32::try_from(RandomState::new().hash_one(0) % 200).unwrap_or(100);
    time * (900 + random) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_notification_is_followed_at_once_and_a_storm_of_them_once_in_a_second() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut rest = |ms| pace.rest(start + Duration::from_millis(ms)).as_millis();
        assert_eq!((rest(0), rest(10)), (0, 990));
        // Which is when the look before was made.
        assert_eq!((rest(1000), rest(2700), rest(4000)), (1000, 300, 0));
    }
}
