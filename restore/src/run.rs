//! From arguments to an exit code.

use std::os::unix::fs::DirBuilderExt;

use aldaas_api::Ttl;
use aldaas_api::event::{Event, exit};
use tokio_util::sync::CancellationToken;

use crate::args::{self, Args, Command, Place};
use crate::engine::postgres::Postgres;
use crate::engine::{self, Extra, Kind};
use crate::error::{Error, in_one_line};
use crate::report::{Report, say};
use crate::shutdown::Shutdown;
use crate::variables::Variables;
use crate::{check, child, inspect, install, list, restore, serve};

/// Does what the arguments say, and tells how it went: the last event before a failure says why.
pub async fn run(args: Args, shutdown: Shutdown) -> u8 {
    let report = Report::default();
    let Err(err) = dispatch(args, &report, shutdown.token()).await else { return exit::OK };
    let temporary = !err.is_permanent();
    let reason = in_one_line(&err.to_string());
    tracing::error!("{}: {reason}", report.current());
    say(&Event::Failed { step: report.current(), reason, temporary });
    match () {
        () if err.is_cancelled() => shutdown.exit_code(),
        () if temporary => exit::TEMPORARY,
        () => exit::PERMANENT,
    }
}

async fn dispatch(args: Args, report: &Report, cancel: &CancellationToken) -> Result<(), Error> {
    let variables = |prefix| Variables::below(prefix, std::env::vars_os());
    let extra = |args: &[String]| Extra {
        args: args.to_vec(),
        variables: variables(args::ENGINE_VARIABLES),
        loaders: variables(args::RESTORE_VARIABLES),
    };
    match args.command {
        Command::Restore(args) => {
            let engine = engine(&args.place, extra(&args.engine_args), Some(args.locale.clone()))?;
            let variables = restore::Environment {
                restore: variables(args::RESTORE_VARIABLES),
                mask: variables(args::MASK_VARIABLES),
            };
            let advice = "--timeout, restore.timeout in a Database";
            let limit = args.timeout;
            let work = async |cancel: &_| restore::run(&engine, args, &variables, report, cancel).await;
            within(limit, advice, cancel, work).await
        }
        Command::Check(args) => {
            let engine = engine(&args.place, extra(&args.engine_args), None)?;
            let variables = variables(args::CHECK_VARIABLES);
            let advice = "--timeout, check.timeout in a Database";
            let limit = args.timeout;
            let work = async |cancel: &_| check::run(&engine, args, &variables, report, cancel).await;
            within(limit, advice, cancel, work).await
        }
        Command::Serve(args) => {
            serve::run(&engine(&args.place, Extra::default(), None)?, args, report, cancel).await
        }
        Command::Inspect(args) => inspect::run(&args, cancel).await,
        Command::List(args) => list::run(&args, cancel).await,
        Command::Install(args) => install::run(&args),
    }
}

/// Does `work`, which is told to stop when it takes too long.
async fn within(
    limit: Ttl,
    advice: &'static str,
    cancel: &CancellationToken,
    work: impl AsyncFnOnce(&CancellationToken) -> Result<(), Error>,
) -> Result<(), Error> {
    let limited = cancel.child_token();
    let mut work = std::pin::pin!(work(&limited));
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(limit.duration()) => limited.cancel(),
    }
    match work.await {
        Err(err) if err.is_cancelled() && !cancel.is_cancelled() => Err(Error::TimedOut { limit, advice }),
        done => done,
    }
}

/// The engine that was asked for, with its directories in place.
fn engine(place: &Place, extra: Extra, locale: Option<String>) -> Result<Postgres, Error> {
    if let Some(parent) = place.with_parent {
        child::die_with_parent(parent).map_err(|err| Error::Refused(format!("--with-parent: {err}")))?;
    }
    let absolute = |path: &std::path::Path| std::path::absolute(path).map_err(Error::file("find", path));
    let data = absolute(&place.data_dir)?;
    let work = absolute(&place.work_dir)?;
    let found = engine::Place { data, work: work.clone(), database: place.database.clone(), extra };
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
