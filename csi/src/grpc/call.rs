//! One call: until when its caller waits, and the work, which goes on when the caller has gone.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tracing::Instrument as _;

use crate::publish::error::STOPPING;
use crate::run::FINISH;

/// The answer leaves so much earlier than the caller gives up, but no more than a tenth of the time.
const MARGIN: Duration = Duration::from_secs(2);
/// Work that waits for others gives up so much earlier than that, so that it can say for whom it waited.
const LAST_WORD: Duration = Duration::from_millis(500);

/// The calls that are being worked on.
#[derive(Clone)]
pub struct Calls {
    tracker: TaskTracker,
    longest: Duration,
    /// The time that is left after a stop is over.
    over: CancellationToken,
}

/// Until when.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    answer: Instant,
}

impl Deadline {
    /// When waiting for others ends.
    pub fn wait(self) -> Instant {
        self.answer.checked_sub(LAST_WORD).unwrap_or(self.answer)
    }
}

impl Calls {
    /// No call takes longer than `longest`, and none much longer than until `stop`. Within a runtime.
    pub fn new(longest: Duration, stop: CancellationToken) -> Self {
        let over = CancellationToken::new();
        let calls = Self { tracker: TaskTracker::new(), longest, over: over.clone() };
        tokio::spawn(async move {
            stop.cancelled().await;
            sleep(FINISH).await;
            over.cancel();
        });
        calls
    }

    /// Until when a call with these headers has to be answered.
    pub fn deadline(&self, metadata: &MetadataMap) -> Deadline {
        let given = metadata.get("grpc-timeout").and_then(|value| grpc_timeout(value.to_str().ok()?));
        let time = given.map_or(self.longest, |given| (given - MARGIN.min(given / 10)).min(self.longest));
        Deadline { answer: Instant::now() + time }
    }

    /// Does the work as a task of its own. A caller that goes, or whose time is over, doesn't stop it: half of a publish is
    /// worth less than a whole one.
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Deadline,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let task = self.tracker.spawn(work.in_current_span());
        let answered = tokio::select! {
            answered = timeout_at(deadline.answer, task) => answered,
            () = self.over.cancelled() => return Err(Status::unavailable(STOPPING)),
        };
        match answered {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => Err(Status::internal(format!("this is a bug in aldaas-csi: {error}"))),
            Err(_) => Err(Status::new(
                Code::DeadlineExceeded,
                "not done in time: it is still being worked on, ask again",
            )),
        }
    }

    /// Waits for the work that goes on.
    pub async fn finish(&self) {
        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => {}
            () = self.over.cancelled() => tracing::warn!(calls = self.tracker.len(), "calls are cut short"),
        }
    }
}

/// `grpc-timeout`: at most eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number * 3600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_time_is_read_and_what_is_none_ignored() {
        for (text, wanted) in [
            ("2M", Some(Duration::from_secs(120))),
            ("119999999u", None),
            ("11999999u", Some(Duration::from_micros(11_999_999))),
            ("100m", Some(Duration::from_millis(100))),
            ("1H", Some(Duration::from_secs(3600))),
            ("", None),
            ("S", None),
            ("-1S", None),
            ("5ö", None),
        ] {
            assert_eq!(grpc_timeout(text), wanted, "{text}");
        }
    }

    #[tokio::test]
    async fn a_caller_is_told_in_time_and_the_work_goes_on() {
        let calls = Calls::new(Duration::from_secs(110), CancellationToken::new());
        let metadata = |timeout: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", timeout.parse().unwrap());
            metadata
        };
        let now = Instant::now();
        let seconds = |metadata: &MetadataMap| calls.deadline(metadata).answer.duration_since(now).as_secs();
        assert_eq!(seconds(&metadata("2M")), 110, "never longer than the plugin's own");
        assert_eq!(seconds(&metadata("30S")), 28);
        assert_eq!(seconds(&MetadataMap::new()), 110);

        let (go_on, told) = tokio::sync::oneshot::channel();
        let (done, seen) = tokio::sync::oneshot::channel();
        let work = async move {
            let _ = told.await;
            let _ = done.send(());
            Ok(())
        };
        let answer = calls.run(calls.deadline(&metadata("50m")), work).await;
        assert_eq!(answer.unwrap_err().code(), Code::DeadlineExceeded);
        go_on.send(()).unwrap();
        seen.await.unwrap();
        calls.finish().await;
    }
}
