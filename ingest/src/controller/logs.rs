//! The logs of our Jobs' pods, followed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{AsyncBufReadExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::names::CONTAINER;
use super::progress::Said;

/// Pause before a log is asked for again.
const AGAIN: Duration = Duration::from_millis(100);
/// The log of a pod that has ended and can't be read for so long is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Progress wakes the controller no more often than this.
const QUIET: Duration = Duration::from_secs(2);

/// Who follows which pod, by UID.
pub struct Logs {
    pods: Api<Pod>,
    wake: Arc<Notify>,
    followed: Mutex<HashMap<String, Followed>>,
}

struct Followed {
    said: Arc<Mutex<Said>>,
    over: Arc<AtomicBool>,
    task: AbortHandle,
}

/// A pod whose log is to be followed.
pub struct Wanted {
    /// Its UID.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Its container has ended.
    pub over: bool,
}

impl Logs {
    /// Follows nobody yet. `wake` is told when something was said that matters.
    pub fn new(pods: Api<Pod>, wake: Arc<Notify>) -> Self {
        Self { pods, wake, followed: Mutex::new(HashMap::new()) }
    }

    /// Follows these pods, and no others.
    pub fn follow(&self, wanted: Vec<Wanted>) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|uid, pod| {
            let stays = wanted.iter().any(|wanted| wanted.uid == *uid);
            if !stays {
                pod.task.abort();
            }
            stays
        });
        for pod in wanted {
            let over = pod.over;
            let entry = followed.entry(pod.uid).or_insert_with(|| {
                let (said, over) = (Arc::<Mutex<Said>>::default(), Arc::new(AtomicBool::new(over)));
                let reader = Reader {
                    pods: self.pods.clone(),
                    wake: self.wake.clone(),
                    pod: pod.name,
                    said: said.clone(),
                    over: over.clone(),
                };
                Followed { said, over, task: tokio::spawn(reader.run()).abort_handle() }
            });
            entry.over.store(over, Ordering::Release);
        }
    }

    /// What this pod has said so far.
    pub fn said(&self, uid: &str) -> Option<Said> {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.get(uid).map(|pod| pod.said.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

struct Reader {
    pods: Api<Pod>,
    wake: Arc<Notify>,
    pod: String,
    said: Arc<Mutex<Said>>,
    over: Arc<AtomicBool>,
}

impl Reader {
    /// Until all was read, from the beginning each time.
    async fn run(self) {
        let mut over_since = None;
        loop {
            let over = self.over.load(Ordering::Acquire);
            let read = self.read().await;
            let has_end = self.with(|said| said.manifest.is_some() || said.failed.is_some());
            let given_up = over && over_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE;
            if has_end || given_up || (over && read.is_ok()) {
                break;
            }
            if let Err(error) = read {
                tracing::debug!(
                    pod = self.pod,
                    error = aldaas_daemon::kubernetes::say(&error),
                    "its log can't be read now"
                );
            }
            tokio::time::sleep(AGAIN).await;
        }
        self.with(|said| said.ended = true);
        self.wake.notify_one();
    }

    async fn read(&self) -> Result<(), kube::Error> {
        let params = LogParams {
            container: Some(CONTAINER.to_owned()),
            follow: true,
            timestamps: true,
            ..LogParams::default()
        };
        let mut lines = self.pods.log_stream(&self.pod, &params).await?.lines();
        self.with(|said| *said = Said::default());
        let mut told = Instant::now();
        while let Some(line) = lines.next().await {
            let line = line.map_err(kube::Error::ReadEvents)?;
            let matters = self.with(|said| said.line(&line));
            if matters || told.elapsed() >= QUIET {
                told = Instant::now();
                self.wake.notify_one();
            }
        }
        Ok(())
    }

    fn with<T>(&self, change: impl FnOnce(&mut Said) -> T) -> T {
        change(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
