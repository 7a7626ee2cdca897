//! `aldaas-restore serve`: a clone in use.

use aldaas_api::event::{Event, Step};
use tokio_util::sync::CancellationToken;

use crate::args::Serve;
use crate::engine::{Engine, Mode, Server};
use crate::error::Error;
use crate::report::{Report, say};

/// Starts the engine, says where, and stops it when told to: that is the good end of it.
///
/// # Errors
/// When the engine does not start, ends by itself, or does not stop cleanly.
pub async fn run<E: Engine>(
    engine: &E,
    args: Serve,
    report: &Report,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    report.step(Step::Serve);
    let mode = Mode::Serve { listen: args.listen, port: args.port, fsync: !args.no_fsync };
    let mut server = engine.start(&mode, cancel).await?;
    say(&Event::Ready {
        port: server.port(),
        socket_dir: server.socket_dir().display().to_string(),
        pid: server.pid(),
    });
    tokio::select! {
        () = cancel.cancelled() => {}
        died = server.died() => return Err(died.into()),
    }
    report.step(Step::Stop);
    engine.stop(server, args.stop).await?;
    Ok(())
}
