//! What the program says while it works: events on standard output, and how long each step took.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aldaas_api::event::{Event, Step};

/// How often progress is said.
const EVERY: Duration = Duration::from_secs(1);

/// Says events and keeps time. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Report {
    clock: Arc<Mutex<Clock>>,
    silent: bool,
}

#[derive(Debug)]
struct Clock {
    step: Step,
    since: Instant,
    took: BTreeMap<Step, u64>,
    said: Instant,
}

impl Default for Report {
    fn default() -> Report {
        let now = Instant::now();
        let clock = Clock { step: Step::Open, since: now, took: BTreeMap::new(), said: now };
        Report { clock: Arc::new(Mutex::new(clock)), silent: false }
    }
}

impl Report {
    /// One that says nothing.
    #[must_use]
    pub fn silent() -> Report {
        Report { silent: true, ..Report::default() }
    }

    /// Ends the step before and begins `step`.
    pub fn step(&self, step: Step) {
        self.with(|clock| {
            clock.close();
            clock.step = step;
        });
        tracing::info!("{step}");
        say(&Event::Step { step });
    }

    /// The step that is being done.
    #[must_use]
    pub fn current(&self) -> Step {
        self.with(|clock| clock.step)
    }

    /// Ends the current step and tells how long each took, in milliseconds.
    #[must_use]
    pub fn durations(&self) -> BTreeMap<Step, u64> {
        self.with(|clock| {
            clock.close();
            clock.took.clone()
        })
    }

    /// Says how far the reading is, once a second at most: it goes to a log that somebody keeps.
    pub fn progress(&self, bytes: u64, total: Option<u64>, last: bool) {
        let due = self.with(|clock| {
            let due = last || clock.said.elapsed() >= EVERY;
            if due {
                clock.said = Instant::now();
            }
            due
        });
        if due && !self.silent {
            say(&Event::Progress { bytes, total });
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Clock) -> T) -> T {
        f(&mut self.clock.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clock {
    fn close(&mut self) {
        let took = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        *self.took.entry(self.step).or_default() += took;
        self.since = Instant::now();
    }
}

/// Writes one event to standard output. Nobody listening is no reason to stop: the exit code still tells.
pub fn say(event: &Event) {
    print(event);
}

/// Writes one line of JSON to standard output.
pub fn print(what: &impl serde::Serialize) {
    let Ok(mut line) = serde_json::to_string(what) else { return };
    line.push('\n');
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}
