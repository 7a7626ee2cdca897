//! Shows how an ingest goes: step, bytes, rate. Plain lines now and then where standard error is no terminal.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aldaas_ingest::{Progress, Stage};
use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

const WITH_TOTAL: &str =
    "{spinner} {prefix:8} {msg:8} {bar:30} {bytes:>11} of {total_bytes:11} {bytes_per_sec:>14}  {elapsed}";
const WITHOUT_TOTAL: &str = "{spinner} {prefix:8} {msg:8} {bytes:>11} {bytes_per_sec:>14}  {elapsed}";
const NO_BYTES: &str = "{spinner} {prefix:8} {msg:8} {elapsed}";

/// How often a line about bytes is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The line at the bottom of the terminal, or lines in a log.
pub struct Shown {
    front: Front,
    stage: Mutex<Option<Stage>>,
}

enum Front {
    Bar(ProgressBar),
    Lines(Mutex<Instant>),
    Nothing,
}

impl Shown {
    /// A bar on a terminal, lines elsewhere, nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let front = match (quiet, stderr().is_terminal()) {
            (true, _) => Front::Nothing,
            (false, false) => Front::Lines(Mutex::new(Instant::now())),
            (false, true) => {
                let bar = ProgressBar::no_length().with_style(style(NO_BYTES));
                bar.enable_steady_tick(Duration::from_millis(100));
                Front::Bar(bar)
            }
        };
        Self { front, stage: Mutex::new(None) }
    }

    /// Takes what the driver says.
    pub fn show(&self, progress: Progress) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Progress::Stage(new) = &progress {
            *stage = Some(*new);
        }
        let name = stage.map(|stage| stage.to_string()).unwrap_or_default();
        match &self.front {
            Front::Bar(bar) => show_on(bar, name, progress),
            Front::Lines(last) => write_line(last, &name, progress),
            Front::Nothing => {}
        }
    }
}

/// Each step, and every now and then how far it is.
fn write_line(last: &Mutex<Instant>, stage: &str, progress: Progress) {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    match progress {
        Progress::Stage(_) => output::tell(format_args!("{stage}")),
        Progress::Step(step) => output::tell(format_args!("{stage}: {step}")),
        Progress::Bytes { done, total } if last.elapsed() >= LINE_EVERY => {
            *last = Instant::now();
            let of = total.map(|total| format!(" of {}", output::bytes(total))).unwrap_or_default();
            output::tell(format_args!("{stage}: {}{of} read", output::bytes(done)));
        }
        Progress::Bytes { .. } => {}
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Front::Bar(bar) = &self.front {
            bar.finish_and_clear();
        }
    }
}

fn show_on(bar: &ProgressBar, stage: String, progress: Progress) {
    match progress {
        Progress::Stage(_) => {
            bar.set_style(style(NO_BYTES));
            bar.set_prefix(stage);
            bar.set_message("");
        }
        Progress::Step(step) => {
            bar.set_style(style(NO_BYTES));
            bar.set_message(step.to_string());
        }
        Progress::Bytes { done, total } => {
            match total {
                Some(total) => {
                    bar.set_style(style(WITH_TOTAL));
                    bar.set_length(total);
                }
                None => bar.set_style(style(WITHOUT_TOTAL)),
            }
            bar.set_position(done);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
