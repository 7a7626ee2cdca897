//! `aldaas-restore inspect`: what a dump is, from its first bytes.

use aldaas_api::event::Event;
use tokio_util::sync::CancellationToken;

use crate::args::Inspect;
use crate::error::Error;
use crate::evidence;
use crate::report::{Report, say};
use crate::restore::peel;

/// Says size, ETag and format.
///
/// # Errors
/// When the dump cannot be read or is nothing that could be restored.
pub async fn run(args: &Inspect, cancel: &CancellationToken) -> Result<(), Error> {
    let opened = args.from.from.source(&args.from.s3.options()).open(cancel).await?;
    let (size, etag) = (opened.size, opened.etag.clone());
    let (reading, pipe) = evidence::read(opened, Report::silent(), cancel.clone());
    let dump = peel(pipe).await?;
    reading.abort();
    say(&Event::Source { size, etag, format: dump.format });
    Ok(())
}
