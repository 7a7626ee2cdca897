//! How results, errors and logs look.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use aldaas_ingest::Error as IngestError;
use anyhow::Context as _;
use bytesize::ByteSize;
use comfy_table::{ContentArrangement, Table, presets};
use jiff::{SpanRound, Timestamp, Unit};
use serde::Serialize;

use crate::args::Output;

/// A command's result as rows under headings, for people.
pub trait Rows {
    /// The headings.
    fn headings() -> Vec<&'static str>;
    /// One row.
    fn row(&self) -> Vec<String>;
}

/// Says something on standard error. That nobody listens any more (a closed terminal, `2>&1 | head`) is no reason to stop.
pub fn tell(what: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// Prints a result. Whoever reads it may have seen enough (`| head`).
pub fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("write the result"),
    }
}

/// Prints a list: a table for people, an array for programs.
pub fn list<T: Rows + Serialize>(output: Output, items: &[T], when_empty: &str) -> anyhow::Result<()> {
    match output {
        Output::Json => print(&serde_json::to_string_pretty(items)?),
        Output::Table if items.is_empty() => {
            tell(format_args!("{when_empty}"));
            Ok(())
        }
        Output::Table => print(&table(T::headings(), items.iter().map(Rows::row))),
    }
}

/// Prints one thing: `text` for people, an object for programs.
pub fn one(output: Output, item: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    match output {
        Output::Json => print(&serde_json::to_string_pretty(item)?),
        Output::Table => print(&text()),
    }
}

/// A table as the ecosystem's tools print it: no lines, headings in capitals.
pub fn table(headings: Vec<&str>, rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.into_iter().map(str::to_uppercase));
    rows.for_each(|row| {
        table.add_row(row);
    });
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// `1.5 GiB`
pub fn bytes(count: u64) -> String {
    ByteSize::b(count).display().iec().to_string()
}

/// `3m 20s`, rounded to what matters.
pub fn age(since: Timestamp) -> String {
    let span = Timestamp::now().duration_since(since).unsigned_abs();
    let unit = match span.as_secs() {
        0..3600 => Unit::Second,
        3600..172_800 => Unit::Minute,
        _ => Unit::Hour,
    };
    let round = SpanRound::new().largest(Unit::Day).smallest(unit).days_are_24_hours();
    let span = jiff::Span::try_from(span).and_then(|span| span.round(round));
    span.map_or_else(|_| "?".to_owned(), |span| format!("{span:#}"))
}

/// Warnings on standard error, more of it with `-v`.
pub fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info,aldaas_restore=debug",
        _ => "debug",
    };
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        // It would say so on standard error, which is what failed.
        .log_internal_errors(false)
        .init();
}

/// An error and its causes on one line; causes that the line above says already are left out.
pub fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if line.contains(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line.replace('\n', " ")
}

/// 130 when the user stopped it, 75 when trying again may help (`EX_TEMPFAIL`), else 1.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    let ceph = error.chain().find_map(|cause| cause.downcast_ref::<aldaas_rbd::Error>());
    match error.downcast_ref::<IngestError>() {
        Some(IngestError::Cancelled) => ExitCode::from(130),
        Some(
            IngestError::Restore { temporary: true, .. }
            | IngestError::ClusterAway(_)
            | IngestError::Died { .. },
        ) => ExitCode::from(75),
        _ if ceph.is_some_and(aldaas_rbd::Error::is_timed_out) => ExitCode::from(75),
        _ => ExitCode::FAILURE,
    }
}
