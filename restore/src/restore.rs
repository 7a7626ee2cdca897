//! `aldaas-restore restore`: from a dump to a data directory that is at rest.

use std::path::Path;
use std::time::Instant;

use aldaas_api::event::{Event, Step};
use aldaas_api::manifest::{self, Manifest, Ran};
use tokio_util::sync::CancellationToken;

use crate::args::Restore;
use crate::command::UserCommand;
use crate::engine::{Engine, Mode, Stop};
use crate::error::Error;
use crate::evidence;
use crate::format;
use crate::mask::Mask;
use crate::ran;
use crate::report::{Report, say};
use crate::variables::Variables;

/// The environment of the user's commands.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Of the one that restores.
    pub restore: Variables,
    /// Of the one that masks.
    pub mask: Variables,
}

/// Restores, masks, bakes, checks, stops, proves.
///
/// # Errors
/// When any of that fails; what is in the data directory is then of no use.
pub async fn run<E: Engine>(
    engine: &E,
    args: Restore,
    environment: &Environment,
    report: &Report,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    report.step(Step::Open);
    let source = args.from.from.source(&args.from.s3.options());
    let opened = source.open(cancel).await?;
    let etag = opened.etag.clone();
    let (evidence, pipe) = evidence::read(opened, report.clone(), cancel.clone());
    let command =
        UserCommand { what: "restore command", words: &args.command, variables: &environment.restore };
    let dump = if command.words.is_empty() { Load::Ours(peel(pipe).await?) } else { Load::By(command, pipe) };
    let format = dump.format();
    tracing::info!("{} is {format}", source.location());
    fail::fail_point!("restore::after-open");

    let version = engine.version()?;
    let command =
        UserCommand { what: "mask command", words: &args.mask_command, variables: &environment.mask };
    let mask = Mask { sql: &args.mask_sql, command };
    let ran = fill(engine, dump, &mask, args.jobs, report, cancel).await?;
    let (contents, _) = look(engine, &Checks::default(), report, cancel).await?;
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
        engine: manifest::Engine { name: engine.name().into(), version, image_digest: None },
        contents,
        steps: report.durations(),
        ran,
        finished_at: jiff::Timestamp::now(),
    };
    write(&args.manifest, &manifest)?;
    fail::fail_point!("restore::after-manifest");
    say(&Event::Done { manifest: Box::new(manifest) });
    Ok(())
}

/// How a dump is loaded.
enum Load<'a> {
    /// By the engine's own programs, as we know them.
    Ours(format::Dump),
    /// By the user's command.
    By(UserCommand<'a>, evidence::Pipe),
}

impl Load<'_> {
    fn format(&self) -> String {
        match self {
            Load::Ours(dump) => dump.format.clone(),
            Load::By(..) => "what the restore command takes".into(),
        }
    }

    async fn run<E: Engine>(
        self,
        engine: &E,
        server: &mut E::Server,
        jobs: u32,
        cancel: &CancellationToken,
    ) -> Result<Vec<Ran>, Error> {
        match self {
            Load::Ours(dump) => {
                engine.load(server, dump, jobs, cancel).await?;
                Ok(Vec::new())
            }
            Load::By(command, dump) => {
                let since = Instant::now();
                engine.load_by(server, &command, dump, cancel).await?;
                Ok(vec![ran::command(Step::Restore, command.words, since)])
            }
        }
    }
}

/// Makes an empty database, loads `dump`, masks and bakes it; the engine is stopped in the end, whatever happens.
async fn fill<E: Engine>(
    engine: &E,
    dump: Load<'_>,
    mask: &Mask<'_>,
    jobs: u32,
    report: &Report,
    cancel: &CancellationToken,
) -> Result<Vec<Ran>, Error> {
    report.step(Step::Init);
    engine.init(cancel).await?;
    fail::fail_point!("restore::after-init");

    report.step(Step::Start);
    let mut server = engine.start(&Mode::Load, cancel).await?;
    fail::fail_point!("restore::after-start");

    let loaded = async {
        report.step(Step::Restore);
        let mut ran = dump.run(engine, &mut server, jobs, cancel).await?;
        fail::fail_point!("restore::after-restore", |_| Ok::<_, Error>(Vec::new()));
        if !mask.is_empty() {
            report.step(Step::Mask);
            ran.extend(mask.run(engine, &mut server, cancel).await?);
            fail::fail_point!("restore::after-mask", |_| Ok::<_, Error>(Vec::new()));
        }
        report.step(Step::Bake);
        engine.bake(&mut server, jobs, cancel).await?;
        Ok::<_, Error>(ran)
    };
    let ran = match loaded.await {
        Ok(ran) => ran,
        Err(err) => {
            let _ = engine.stop(server, Stop::Immediate, cancel).await;
            return Err(err);
        }
    };
    // Still a part of the bake: this is where the large checkpoint happens.
    engine.stop(server, Stop::Fast, cancel).await?;
    fail::fail_point!("restore::after-bake");
    Ok(ran)
}

/// What the user wants proved.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checks<'a> {
    /// Statements that must hold.
    pub sql: &'a [String],
    /// A command that must succeed.
    pub command: Option<UserCommand<'a>>,
}

impl Checks<'_> {
    async fn run<E: Engine>(
        &self,
        engine: &E,
        server: &mut E::Server,
        cancel: &CancellationToken,
    ) -> Result<Vec<Ran>, Error> {
        let mut ran = Vec::new();
        for sql in self.sql {
            let since = Instant::now();
            engine.check(server, sql, cancel).await?;
            ran.push(ran::sql(Step::Check, sql, None, since));
        }
        if let Some(command) = self.command.filter(|command| !command.words.is_empty()) {
            let since = Instant::now();
            engine.run(server, &command, cancel).await?;
            ran.push(ran::command(Step::Check, command.words, since));
        }
        Ok(ran)
    }
}

/// Starts the engine as users will, counts what is there, runs `checks`, stops it and proves that it stopped.
pub(crate) async fn look<E: Engine>(
    engine: &E,
    checks: &Checks<'_>,
    report: &Report,
    cancel: &CancellationToken,
) -> Result<(manifest::Contents, Vec<Ran>), Error> {
    report.step(Step::Serve);
    let mut server = engine.start(&Mode::Check, cancel).await?;
    fail::fail_point!("restore::after-serve");
    report.step(Step::Check);
    let looked = async {
        // What was restored is counted before anybody's command could change it.
        let contents = engine.contents(&mut server, cancel).await?;
        Ok::<_, Error>((contents, checks.run(engine, &mut server, cancel).await?))
    };
    let found = match looked.await {
        Ok(found) => found,
        Err(err) => {
            // A check that fails is no reason to leave a mess.
            let how = if cancel.is_cancelled() { Stop::Immediate } else { Stop::Fast };
            let _ = engine.stop(server, how, cancel).await;
            return Err(err);
        }
    };
    fail::fail_point!("restore::after-check");
    report.step(Step::Stop);
    engine.stop(server, Stop::Fast, cancel).await?;
    engine.prove(cancel).await?;
    Ok(found)
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
