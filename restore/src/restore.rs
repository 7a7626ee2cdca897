//! `aldaas-restore restore`: from a dump to a data directory that is at rest.

use std::path::Path;

use aldaas_api::event::{Event, Step};
use aldaas_api::manifest::{self, Manifest};
use tokio_util::sync::CancellationToken;

use crate::args::Restore;
use crate::engine::{Engine, Mode, Stop};
use crate::error::Error;
use crate::evidence;
use crate::format;
use crate::report::{Report, say};

/// Restores, bakes, checks, stops, proves.
///
/// # Errors
/// When any of that fails; what is in the data directory is then of no use.
pub async fn run<E: Engine>(
    engine: &E,
    args: Restore,
    report: &Report,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    report.step(Step::Open);
    let source = args.from.from.source(&args.from.s3.options());
    let opened = source.open(cancel).await?;
    let etag = opened.etag.clone();
    let (evidence, pipe) = evidence::read(opened, report.clone(), cancel.clone());
    let dump = peel(pipe).await?;
    let format = dump.format.clone();
    tracing::info!("{} is {format}", source.location());
    fail::fail_point!("restore::after-open");

    let version = engine.version()?;
    fill(engine, dump, args.jobs, report, cancel).await?;
    let contents = look(engine, &[], report, cancel).await?;
    if contents.tables == 0 && !args.allow_empty {
        return Err(Error::Refused(format!(
            "the dump made no tables in database {:?}: check that it is the right one, or take it with --allow-empty",
            args.place.database
        )));
    }
    fail::fail_point!("restore::after-stop");

    let evidence = evidence.await.map_err(|err| Error::Refused(format!("the reader ended early: {err}")))?;
    let manifest = Manifest {
        database: args.place.database,
        source: manifest::Source {
            location: args.source_name.unwrap_or_else(|| source.location()),
            etag,
            size: evidence.size,
            sha256: evidence.sha256,
            format,
        },
        engine: manifest::Engine { name: engine.name().into(), version },
        contents,
        steps: report.durations(),
        finished_at: jiff::Timestamp::now(),
    };
    write(&args.manifest, &manifest)?;
    fail::fail_point!("restore::after-manifest");
    say(&Event::Done { manifest: Box::new(manifest) });
    Ok(())
}

/// Makes an empty database, loads `dump` and bakes it; the engine is stopped in the end, whatever happens.
async fn fill<E: Engine>(
    engine: &E,
    dump: format::Dump,
    jobs: u32,
    report: &Report,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    report.step(Step::Init);
    engine.init(cancel).await?;
    fail::fail_point!("restore::after-init");

    report.step(Step::Start);
    let mut server = engine.start(&Mode::Load, cancel).await?;
    fail::fail_point!("restore::after-start");

    let loaded = async {
        report.step(Step::Restore);
        engine.load(&mut server, dump, jobs, cancel).await?;
        fail::fail_point!("restore::after-restore", |_| Ok::<_, Error>(()));
        report.step(Step::Bake);
        engine.bake(&mut server, jobs, cancel).await?;
        Ok::<_, Error>(())
    };
    if let Err(err) = loaded.await {
        let _ = engine.stop(server, Stop::Immediate, cancel).await;
        return Err(err);
    }
    // Still a part of the bake: this is where the large checkpoint happens.
    engine.stop(server, Stop::Fast, cancel).await?;
    fail::fail_point!("restore::after-bake");
    Ok(())
}

/// Starts the engine as users will, counts what is there, runs `checks`, stops it and proves that it stopped.
pub(crate) async fn look<E: Engine>(
    engine: &E,
    checks: &[String],
    report: &Report,
    cancel: &CancellationToken,
) -> Result<manifest::Contents, Error> {
    report.step(Step::Serve);
    let mut server = engine.start(&Mode::Check, cancel).await?;
    fail::fail_point!("restore::after-serve");
    report.step(Step::Check);
    let looked = async {
        for sql in checks {
            engine.check(&mut server, sql, cancel).await?;
        }
        engine.contents(&mut server, cancel).await
    };
    let contents = match looked.await {
        Ok(contents) => contents,
        Err(err) => {
            // A check that fails is no reason to leave a mess.
            let how = if cancel.is_cancelled() { Stop::Immediate } else { Stop::Fast };
            let _ = engine.stop(server, how, cancel).await;
            return Err(err.into());
        }
    };
    fail::fail_point!("restore::after-check");
    report.step(Step::Stop);
    engine.stop(server, Stop::Fast, cancel).await?;
    engine.prove(cancel).await?;
    Ok(contents)
}

/// Finds the format, on a thread that may block.
pub(crate) async fn peel(pipe: evidence::Pipe) -> Result<format::Dump, Error> {
    let opened = tokio::task::spawn_blocking(move || format::open(Box::new(pipe))).await;
    opened.map_err(|err| Error::Refused(format!("look at the dump: {err}")))?.map_err(Error::from)
}

/// Writes the manifest so that it is whole or not there.
fn write(path: &Path, manifest: &Manifest) -> Result<(), Error> {
    let failed = || Error::file("write the manifest", path);
    let mut text = serde_json::to_vec_pretty(manifest).map_err(|err| failed()(err.into()))?;
    text.push(b'\n');
    let draft = path.with_extension("tmp");
    let write = || {
        std::fs::write(&draft, &text)?;
        std::fs::File::open(&draft)?.sync_all()?;
        std::fs::rename(&draft, path)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::File::open(dir)?.sync_all()
    };
    write().map_err(failed())
}
