//! `aldaas-restore check`: proves that a clone holds what its golden image was made of.

use aldaas_api::event::{Event, Step};
use aldaas_api::manifest::Manifest;
use tokio_util::sync::CancellationToken;

use crate::args::Check;
use crate::command::UserCommand;
use crate::engine::Engine;
use crate::error::Error;
use crate::report::{Report, say};
use crate::restore::{Checks, look};
use crate::variables::Variables;

/// Starts, counts, compares, runs the user's own checks, stops.
///
/// # Errors
/// When the clone differs from the manifest, a check does not hold, or the engine does not start or stop cleanly.
pub async fn run<E: Engine>(
    engine: &E,
    args: Check,
    variables: &Variables,
    report: &Report,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    let text = std::fs::read(&args.manifest).map_err(Error::file("read the manifest", &args.manifest))?;
    let mut manifest: Manifest = serde_json::from_slice(&text).map_err(|err| {
        Error::Refused(format!("the manifest {} is not one: {err}", args.manifest.display()))
    })?;
    let command = UserCommand { what: "check command", words: &args.command, variables };
    let checks = Checks { sql: &args.sql, command: Some(command) };
    let (found, ran) = look(engine, &checks, report, cancel).await?;
    let expected = &manifest.contents;
    // Bytes may differ: the engine's own files come and go.
    if (found.tables, found.rows) != (expected.tables, expected.rows) {
        return Err(Error::Differs(format!(
            "the clone holds {} tables and {} rows, but {} tables and {} rows were restored: restore it again",
            found.tables, found.rows, expected.tables, expected.rows
        )));
    }
    manifest.steps = report.durations();
    manifest.finished_at = jiff::Timestamp::now();
    manifest.contents = found;
    manifest.ran.retain(|ran| ran.step != Step::Check);
    manifest.ran.extend(ran);
    say(&Event::Done { manifest: Box::new(manifest) });
    Ok(())
}
