//! Evidence of what the user had done: [`Ran`] entries of a manifest.

use std::time::Instant;

use aldaas_api::event::Step;
use aldaas_api::manifest::{Ran, RanKind};
use sha2::{Digest, Sha256};

/// So many characters are told of a statement or a command: who wants all of it compares the checksum.
const TOLD: usize = 120;

/// Statements that began at `since` and have succeeded.
#[must_use]
pub fn sql(step: Step, sql: &str, rows: Option<u64>, since: Instant) -> Ran {
    let sha256 = hex(Sha256::digest(sql));
    Ran { step, kind: RanKind::Sql, text: beginning(sql), sha256, rows, milliseconds: milliseconds(since) }
}

/// A command that began at `since` and has succeeded.
#[must_use]
pub fn command(step: Step, words: &[String], since: Instant) -> Ran {
    let mut all = Sha256::new();
    for word in words {
        all.update(word);
        all.update([0]);
    }
    let (sha256, text) = (hex(all.finalize()), beginning(&words.join(" ")));
    Ran { step, kind: RanKind::Command, text, sha256, rows: None, milliseconds: milliseconds(since) }
}

/// The beginning of a text, in one line.
pub(crate) fn beginning(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(TOLD) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line,
    }
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_statement_is_told_by_its_beginning_and_known_by_its_checksum() {
        let long = format!("UPDATE t\n   SET x = '{}'", "ü".repeat(500));
        let told = sql(Step::Mask, &long, Some(3), Instant::now());
        assert!(told.text.starts_with("UPDATE t SET x = 'ü") && told.text.ends_with("ü …"), "{}", told.text);
        assert_eq!((told.rows, told.sha256.len()), (Some(3), 64));
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (one, two) = (words(&["a b"]), words(&["a", "b"]));
        assert_ne!(
            command(Step::Mask, &one, Instant::now()).sha256,
            command(Step::Mask, &two, Instant::now()).sha256
        );
    }
}
