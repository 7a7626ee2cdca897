//! `aldaas-restore list`: what dumps there are.

use tokio_util::sync::CancellationToken;

use crate::args::List;
use crate::error::Error;
use crate::report::print;

/// Says what is there as one JSON object, an [`aldaas_api::event::Listing`].
///
/// # Errors
/// When the bucket cannot be listed.
pub async fn run(args: &List, cancel: &CancellationToken) -> Result<(), Error> {
    let listing = args.from.list(&args.s3.options(), &args.suffix, args.newest, cancel).await?;
    print(&listing);
    Ok(())
}
