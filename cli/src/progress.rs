//! Shows how an ingest goes: step, bytes, rate. Plain lines where standard error is no terminal.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};

use aldaas_ingest::{Progress, Stage};
use indicatif::{ProgressBar, ProgressStyle};

const WITH_TOTAL: &str =
    "{spinner} {prefix:8} {msg:8} {bar:30} {bytes:>11} of {total_bytes:11} {bytes_per_sec:>14}  {elapsed}";
const WITHOUT_TOTAL: &str = "{spinner} {prefix:8} {msg:8} {bytes:>11} {bytes_per_sec:>14}  {elapsed}";
const NO_BYTES: &str = "{spinner} {prefix:8} {msg:8} {elapsed}";

/// The line at the bottom of the terminal.
pub struct Shown {
    bar: Option<ProgressBar>,
    stage: Mutex<Option<Stage>>,
}

impl Shown {
    /// A bar on a terminal, lines elsewhere, nothing if `quiet`.
    pub fn new(quiet: bool) -> Self {
        let bar = (!quiet && stderr().is_terminal()).then(ProgressBar::no_length);
        if let Some(bar) = &bar {
            bar.set_style(style(NO_BYTES));
            bar.enable_steady_tick(std::time::Duration::from_millis(100));
        }
        Self { bar, stage: Mutex::new(None) }
    }

    /// Takes what the driver says.
    pub fn show(&self, progress: Progress) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if let Progress::Stage(new) = &progress {
            *stage = Some(*new);
        }
        let name = stage.map(|stage| stage.to_string()).unwrap_or_default();
        match &self.bar {
            Some(bar) => show_on(bar, name, progress),
            None => tracing::info!(stage = name, ?progress),
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
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
