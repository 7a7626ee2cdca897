//! What a Job says while it works, read from its pod's log.

use std::collections::BTreeMap;
use std::time::Duration;

use aldaas_api::event::{Event, Step};
use aldaas_api::manifest::Manifest;
use jiff::Timestamp;

/// What of its last words is kept for an error's message.
const TAIL: usize = 400;
/// The rate is that of about so long.
const RATE_OVER: Duration = Duration::from_secs(5);

/// All that a pod has said so far that matters.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    /// The step at hand.
    pub step: Option<Step>,
    /// Bytes of the dump read so far.
    pub bytes: u64,
    /// Bytes of the dump, where known.
    pub total: Option<u64>,
    /// Bytes read in a second.
    pub rate: Option<u64>,
    /// It said that it has done everything.
    pub manifest: Option<Manifest>,
    /// It said that it has failed: at which step, why, and whether that may pass.
    pub failed: Option<(Step, String, bool)>,
    /// The last line that was no event: where a program dies, it is the reason.
    pub last_words: Option<String>,
    /// There is no more to come.
    pub ended: bool,
    /// A point in the past from which the rate is measured.
    since: Option<(Timestamp, u64)>,
}

impl Said {
    /// Takes in one line, with the time that the node put before it. Whether somebody should look at once.
    pub fn line(&mut self, line: &str) -> bool {
        let (at, text) = match line.split_once(' ') {
            Some((stamp, text)) => match stamp.parse::<Timestamp>() {
                Ok(at) => (Some(at), text),
                Err(_) => (None, line),
            },
            None => (None, line),
        };
        match serde_json::from_str(text) {
            Ok(event) => self.event(event, at),
            Err(_) => {
                let text = text.trim();
                if !text.is_empty() {
                    self.last_words = Some(text.chars().take(TAIL).collect());
                }
                false
            }
        }
    }

    fn event(&mut self, event: Event, at: Option<Timestamp>) -> bool {
        match event {
            Event::Step { step } => self.step = Some(step),
            Event::Progress { bytes, total } => {
                self.rate(bytes, at);
                (self.bytes, self.total) = (bytes, total);
                return false;
            }
            Event::Done { manifest } => self.manifest = Some(*manifest),
            Event::Failed { step, reason, temporary } => self.failed = Some((step, reason, temporary)),
            _ => return false,
        }
        true
    }

    /// Measured by the node's clock alone, so that a log that is read again gives the same.
    fn rate(&mut self, bytes: u64, at: Option<Timestamp>) {
        let Some(at) = at else { return };
        let Some((since, before)) = self.since else {
            self.since = Some((at, bytes));
            return;
        };
        let seconds = (at - since).total(jiff::Unit::Second).unwrap_or(0.0);
        if seconds >= 0.5 {
            #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let rate = (bytes.saturating_sub(before) as f64 / seconds) as u64;
            self.rate = Some(rate);
        }
        if seconds >= RATE_OVER.as_secs_f64() {
            self.since = Some((at, bytes));
        }
    }

    /// For people: `62 % 41 MiB/s`, or the step at hand.
    pub fn for_people(&self) -> Option<String> {
        let step = self.step?;
        if step != Step::Restore || self.bytes == 0 {
            return Some(step.to_string());
        }
        let done = match self.total.filter(|total| *total > 0) {
            Some(total) => format!("{} %", self.bytes.min(total).saturating_mul(100) / total),
            None => size(self.bytes),
        };
        Some(match self.rate {
            Some(rate) => format!("{done} {}/s", size(rate)),
            None => done,
        })
    }

    /// How long each step took, if it is done.
    pub fn steps(&self) -> Option<&BTreeMap<Step, u64>> {
        self.manifest.as_ref().map(|manifest| &manifest.steps)
    }
}

/// Bytes for people: `157.2 MiB`, `41 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    #[allow(clippy::cast_precision_loss)]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = if unit == 0 || value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.1}") };
    format!("{} {}", text.trim_end_matches(".0"), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn progress(second: u32, bytes: u64) -> String {
        format!(r#"2026-11-23T03:30:{second:02}.5Z {{"event":"progress","bytes":{bytes},"total":104857600}}"#)
    }

    #[test]
    fn progress_is_told_as_people_read_it_and_again_after_a_restart() {
        let lines = [
            r#"2026-11-23T03:30:00Z {"event":"step","step":"init"}"#.to_owned(),
            "2026-11-23T03:30:00Z creating configuration files ... ok".to_owned(),
            r#"2026-11-23T03:30:01Z {"event":"step","step":"restore"}"#.to_owned(),
            progress(2, 20 << 20),
            progress(3, 62 << 20),
        ];
        let read = || {
            let mut said = Said::default();
            for line in &lines {
                said.line(line);
            }
            said
        };
        assert_eq!(read().for_people().unwrap(), "62 % 42 MiB/s");
        assert_eq!(read(), read());
        let mut said = read();
        assert!(
            said.line(r#"{"event":"failed","step":"restore","reason":"it is cut short","temporary":false}"#)
        );
        assert_eq!(said.failed.unwrap().1, "it is cut short");
        assert_eq!(said.last_words.unwrap(), "creating configuration files ... ok");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(
            [0, 1023, 1024, 164_836_147, 41 << 20, 5 << 40].map(size),
            ["0 B", "1023 B", "1 KiB", "157.2 MiB", "41 MiB", "5 TiB"]
        );
    }

    proptest! {
        #[test]
        fn whatever_a_pod_writes_is_read(lines in prop::collection::vec(".{0,80}", 0..20), bytes: u64, total: u64) {
            let mut said = Said::default();
            for line in &lines {
                said.line(line);
            }
            said.line(r#"{"event":"step","step":"restore"}"#);
            said.line(&format!(r#"2026-11-23T03:30:00Z {{"event":"progress","bytes":{bytes},"total":{total}}}"#));
            prop_assert!(said.for_people().is_some());
        }
    }
}
