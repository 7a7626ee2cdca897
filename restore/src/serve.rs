//! `aldaas-restore serve`: a clone in use.

use std::path::Path;

use aldaas_api::event::{Event, Step};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, stdin};
use tokio_util::sync::CancellationToken;

use crate::args::Serve;
use crate::engine::{Engine, Mode, Server};
use crate::error::Error;
use crate::report::{Report, say};

/// A longer line tells nothing more.
const LINE: u64 = 4096;

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
    let mode = Mode::Serve { listen: args.listen, port: args.port, fsync: !args.no_fsync };
    if args.start_on_stdin && !told_to_start(cancel).await? {
        tracing::info!("not told to start: nothing was started");
        return Ok(());
    }
    report.step(Step::Serve);
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
    // Being told to stop was the beginning of this; who does not want to wait tells it once more.
    engine.stop(server, args.stop, &CancellationToken::new()).await?;
    Ok(())
}

/// Waits for a line on standard input; false when it closes before, or when we are told to stop.
async fn told_to_start(cancel: &CancellationToken) -> Result<bool, Error> {
    let mut line = Vec::new();
    let mut input = BufReader::new(stdin().take(LINE));
    tokio::select! {
        biased;
        () = cancel.cancelled() => Ok(false),
        read = input.read_until(b'\n', &mut line) => {
            read.map_err(Error::file("wait for a line on", Path::new("standard input")))?;
            Ok(line.ends_with(b"\n"))
        }
    }
}
