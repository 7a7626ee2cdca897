//! Running mkfs, fsck and modprobe.

use std::process::{Command, Output, Stdio};

use crate::error::Error;

/// Runs the program to its end with no input. `sbin` directories are looked through too: they are often missing
/// from the PATH of a service.
pub(crate) fn run(program: &str, args: &[&str]) -> Result<Output, Error> {
    let path = std::env::var("PATH").unwrap_or_default();
    Command::new(program)
        .args(args)
        .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            let detail = match e.kind() {
                std::io::ErrorKind::NotFound => {
                    "is not installed; `apt install e2fsprogs xfsprogs kmod`".to_owned()
                }
                _ => e.to_string(),
            };
            Error::Tool { program: program.to_owned(), detail }
        })
}

/// The last lines a program wrote, for an error message.
pub(crate) fn last_words(output: &Output) -> String {
    let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join("; ")
}

/// A failed program as an error.
pub(crate) fn failed(program: &str, output: &Output) -> Error {
    Error::Tool { program: program.to_owned(), detail: format!("{}: {}", output.status, last_words(output)) }
}
