//! How results, errors and logs look.

use std::process::ExitCode;

use aldaas_ingest::Error as IngestError;
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

/// Prints a list: a table for people, an array for programs.
pub fn list<T: Rows + Serialize>(output: Output, items: &[T], when_empty: &str) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(items)?),
        Output::Table if items.is_empty() => eprintln!("{when_empty}"),
        Output::Table => println!("{}", table(T::headings(), items.iter().map(Rows::row))),
    }
    Ok(())
}

/// Prints one thing: `text` for people, an object for programs.
pub fn one(output: Output, item: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(item)?),
        Output::Table => println!("{}", text()),
    }
    Ok(())
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
    match error.downcast_ref::<IngestError>() {
        Some(IngestError::Cancelled) => ExitCode::from(130),
        Some(IngestError::Restore { temporary: true, .. } | IngestError::ClusterAway(_)) => {
            ExitCode::from(75)
        }
        _ => ExitCode::FAILURE,
    }
}
