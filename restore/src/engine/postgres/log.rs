//! The server's log: where it says why it died.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::super::Error;
use super::complaint;

/// So much of the end is looked at.
const END: u64 = 16 << 10;
/// Lines that are told.
const TOLD: usize = 4;
/// What a reason for a death looks like, the best first.
const REASONS: [&str; 4] = ["PANIC:", "was terminated by signal", "FATAL:", "ERROR:"];

/// What one server wrote to a log that others wrote to before it.
#[derive(Clone, Debug)]
pub(super) struct Log {
    path: PathBuf,
    begins: u64,
}

impl Log {
    /// The log in the work directory, from here on.
    pub(super) fn from_now(work: &Path) -> Log {
        let path = work.join("postgres.log");
        let begins = fs::metadata(&path).map_or(0, |meta| meta.len());
        Log { path, begins }
    }

    /// Where a server shall write: statements and data among it, so that nobody else may read it.
    pub(super) fn file(&self) -> Result<fs::File, Error> {
        let open = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path);
        open.map_err(Error::io(format!("write the engine's log {}", self.path.display())))
    }

    /// Its end.
    pub(super) fn end(&self) -> String {
        let read = || {
            let mut file = fs::File::open(&self.path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.begins.max(length.saturating_sub(END))))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            std::io::Result::Ok(String::from_utf8_lossy(&text).into_owned())
        };
        read().unwrap_or_default()
    }

    /// What it said last that tells a reason, in one line.
    pub(super) fn last_words(&self) -> String {
        match words(&self.end()) {
            words if words.is_empty() => format!("none (see {})", self.path.display()),
            words => words,
        }
    }
}

fn words(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(without_time).filter(|line| !line.is_empty()).collect();
    let reason = REASONS.iter().find_map(|reason| lines.iter().position(|line| line.contains(reason)));
    let from = reason.unwrap_or(lines.len().saturating_sub(TOLD));
    let mut told: Vec<_> =
        lines[from..lines.len().min(from + TOLD)].iter().map(|line| complaint::without_data(line)).collect();
    told.retain(|line| !line.is_empty());
    complaint::shorten(&told.join(" | "))
}

/// `2026-11-23 05:58:03.874 UTC [28287] LOG:  …` → `LOG:  …`
fn without_time(line: &str) -> &str {
    let rest = line.starts_with(|c: char| c.is_ascii_digit()).then(|| line.split_once("] ")).flatten();
    rest.map_or(line, |(_, rest)| rest).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_told_before_what_followed_from_it() {
        let text = "2026-11-23 05:58:03.874 UTC [1] LOG:  started\n\
                    2026-11-23 05:58:03.874 UTC [1] LOG:  server process (PID 7) was terminated by signal 9: Killed\n\
                    2026-11-23 05:58:03.874 UTC [1] DETAIL:  Failed process was running: COPY\n\
                    2026-11-23 05:58:03.874 UTC [1] LOG:  a\n2026-11-23 05:58:03.874 UTC [1] LOG:  b\n2026-11-23 05:58:03.874 UTC [1] LOG:  c\n";
        let said = words(text);
        assert!(
            said.starts_with("LOG:  server process (PID 7) was terminated by signal 9: Killed | DETAIL:"),
            "{said}"
        );
        assert!(!said.contains("LOG:  c"));
        assert_eq!(words("a\nb\nc\nd\ne\n"), "b | c | d | e");
        assert_eq!(words(""), "");
    }
}
