//! From arguments to an exit code.

use std::os::unix::fs::DirBuilderExt;

use aldaas_api::event::{Event, exit};

use crate::args::{Args, Command, Place};
use crate::engine::postgres::Postgres;
use crate::engine::{self, Kind};
use crate::error::Error;
use crate::report::{Report, say};
use crate::shutdown::Shutdown;
use crate::{check, child, inspect, install, list, restore, serve};

/// Does what the arguments say, and tells how it went: the last event before a failure says why.
pub async fn run(args: Args, shutdown: Shutdown) -> u8 {
    let report = Report::default();
    let Err(err) = dispatch(args, &report, &shutdown).await else { return exit::OK };
    let temporary = !err.is_permanent();
    say(&Event::Failed { step: report.current(), reason: err.to_string(), temporary });
    tracing::error!("{}: {err}", report.current());
    match () {
        () if err.is_cancelled() => shutdown.exit_code(),
        () if temporary => exit::TEMPORARY,
        () => exit::PERMANENT,
    }
}

async fn dispatch(args: Args, report: &Report, shutdown: &Shutdown) -> Result<(), Error> {
    let cancel = shutdown.token();
    match args.command {
        Command::Restore(args) => {
            restore::run(&engine(&args.place, Some(args.locale.clone()))?, args, report, cancel).await
        }
        Command::Check(args) => check::run(&engine(&args.place, None)?, args, report, cancel).await,
        Command::Serve(args) => serve::run(&engine(&args.place, None)?, args, report, cancel).await,
        Command::Inspect(args) => inspect::run(&args, cancel).await,
        Command::List(args) => list::run(&args, cancel).await,
        Command::Install(args) => install::run(&args),
    }
}

/// The engine that was asked for, with its directories in place.
fn engine(place: &Place, locale: Option<String>) -> Result<Postgres, Error> {
    if let Some(parent) = place.with_parent {
        child::die_with_parent(parent).map_err(|err| Error::Refused(format!("--with-parent: {err}")))?;
    }
    let absolute = |path: &std::path::Path| std::path::absolute(path).map_err(Error::file("find", path));
    let data = absolute(&place.data_dir)?;
    let work = absolute(&place.work_dir)?;
    let found = engine::Place { data, work: work.clone(), database: place.database.clone() };
    match place.engine {
        Kind::Postgres => {
            let engine = Postgres::new(place.bin_dir.as_deref(), found, locale.unwrap_or_default())?;
            // Sockets, logs, a spooled dump: nothing for others. A directory that is there stays as it is.
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&work);
            made.map_err(Error::file("make the work directory", &work))?;
            Ok(engine)
        }
    }
}
