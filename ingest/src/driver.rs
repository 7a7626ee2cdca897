//! The order of an ingest, and its undoing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aldaas_api::event::Step;
use aldaas_api::manifest::Manifest;
use aldaas_api::{DatabaseName, GoldenImageName};
use aldaas_golden::{CLONE, Candidate, GOLDEN, Store};
use aldaas_volume::{Filesystem, ImageSpec, Marker, Mounted, NewVolume, Node, OpenVolume};
use fail::fail_point;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::progress::{Observer, Progress, Stage};
use crate::supervisor::Supervisor;
use crate::{Error, Result};

/// Everything an ingest works with.
pub struct Ingest<'a> {
    /// Where golden images live.
    pub store: &'a Store,
    /// This machine, on which they are mounted meanwhile.
    pub node: &'a Node,
    /// What fills them.
    pub supervisor: &'a Supervisor,
    /// Where sockets and logs go meanwhile; each ingest has a directory of its own below.
    pub work_dir: PathBuf,
}

/// One ingest.
#[derive(Clone, Debug)]
pub struct IngestRequest {
    /// Of which database the dump is.
    pub database: DatabaseName,
    /// The golden image's name; made from the present time if none.
    pub name: Option<GoldenImageName>,
    /// The dump: `s3://bucket/key`, a path, or `-` for standard input.
    pub from: String,
    /// The volume's size in bytes. Thin: only what is written takes space.
    pub size: u64,
    /// The file system on it.
    pub filesystem: Filesystem,
    /// Queries that must each return at least one row, none of it false or null, before the image is ready.
    pub checks: Vec<String>,
    /// More arguments for `aldaas-restore restore`.
    pub restore_arguments: Vec<OsString>,
    /// Keep an image that failed, with its reason, rather than removing it.
    pub keep_failed: bool,
}

/// A finished ingest.
#[derive(Clone, Debug)]
pub struct Report {
    /// The new golden image, ready.
    pub image: GoldenImageName,
    /// What is in it.
    pub manifest: Manifest,
    /// How long each part took.
    pub stages: BTreeMap<Stage, Duration>,
    /// How long each step of the check on a clone took, in milliseconds.
    pub verification: BTreeMap<Step, u64>,
}

impl Ingest<'_> {
    /// Builds a golden image from a dump and makes it ready, or leaves everything as it was.
    pub async fn run(
        &self,
        request: &IngestRequest,
        observer: Observer<'_>,
        cancel: &CancellationToken,
    ) -> Result<Report> {
        // What can be refused at once is refused before anything is made.
        let dump = Dump::open(&request.from)?;
        let size = dump.size();
        let observer = &|progress| match progress {
            // Who reads a pipe can't know what we do: how much the file at its other end holds.
            Progress::Bytes { done, total: None } => observer(Progress::Bytes { done, total: size }),
            other => observer(other),
        };
        let mut clock = Clock::new(observer);
        clock.enter(Stage::Prepare);
        let now = || GoldenImageName::new(&request.database, Timestamp::now());
        let image = request.name.clone().unwrap_or_else(now);
        refuse_misleading(&image, &request.database)?;
        let candidate = blocking(|| self.store.begin(&image, request.size, &request.from))?;
        let built = match WorkDir::create(&self.work_dir, &image.to_string(), self.supervisor) {
            Ok(work_dir) => self.build(&candidate, request, dump, &work_dir.0, &mut clock, cancel).await,
            Err(error) => Err(error),
        };
        match built {
            Ok((manifest, verification)) => {
                Ok(Report { image, manifest, stages: clock.finish(), verification })
            }
            // Ctrl-C reaches what we run as well, whose failure is then none.
            Err(_) if cancel.is_cancelled() => Err(self.undo(candidate, Error::Cancelled, false)),
            Err(error) => Err(self.undo(candidate, error, request.keep_failed)),
        }
    }

    async fn build(
        &self,
        candidate: &Candidate,
        request: &IngestRequest,
        dump: Dump,
        work_dir: &Path,
        clock: &mut Clock<'_>,
        cancel: &CancellationToken,
    ) -> Result<(Manifest, BTreeMap<Step, u64>)> {
        let spec = self.spec(GOLDEN, &candidate.name().to_string());
        let marker = marker(candidate.name());
        let user = &self.supervisor.user;
        let new = NewVolume { filesystem: request.filesystem, marker: &marker, owner: (user.uid, user.gid) };
        let volume = blocking(|| self.node.create(&spec, &new))?;
        stop_if(cancel)?;

        clock.enter(Stage::Restore);
        let arguments = restore_arguments(request, &volume.data, work_dir);
        let manifest =
            self.supervisor.run(&arguments, work_dir, dump.into_stdin(), clock.observer, cancel).await?;
        fail_point!("ingest::after-restore");

        clock.enter(Stage::Seal);
        keep_manifest(&volume, &manifest)?;
        fail_point!("ingest::after-manifest");
        blocking(|| self.node.close_trimmed(&spec))?;
        fail_point!("ingest::after-close");
        stop_if(cancel)?;
        blocking(|| candidate.seal(&manifest))?;

        clock.enter(Stage::Verify);
        let verification = self.verify(candidate, request, &marker, work_dir, clock.observer, cancel).await?;
        stop_if(cancel)?;
        blocking(|| candidate.ready())?;
        Ok((manifest, verification))
    }

    /// Starts the engine on a clone of the sealed image, and looks.
    async fn verify(
        &self,
        candidate: &Candidate,
        request: &IngestRequest,
        marker: &Marker,
        work_dir: &Path,
        observer: Observer<'_>,
        cancel: &CancellationToken,
    ) -> Result<BTreeMap<Step, u64>> {
        let clone = blocking(|| candidate.clone_for_verification())?;
        fail_point!("ingest::after-verification-clone");
        let spec = self.spec(CLONE, &clone.name.to_string());
        let volume = blocking(|| self.node.open(&spec, &OpenVolume::writable(marker)))?;
        let mut arguments = common_arguments("check", request, &volume.data, work_dir);
        for check in &request.checks {
            arguments.extend(["--sql".into(), check.into()]);
        }
        let checked = self.supervisor.run(&arguments, work_dir, None, observer, cancel).await?;
        fail_point!("ingest::after-check");
        blocking(|| self.node.close(&spec))?;
        blocking(|| self.store.remove_clone(&clone.name))?;
        fail_point!("ingest::after-verification");
        Ok(checked.steps)
    }

    /// Takes away what a failed build made, in reverse, and returns why it failed. What can't be taken away now is told
    /// and found later.
    fn undo(&self, candidate: Candidate, error: Error, keep: bool) -> Error {
        let name = candidate.name().clone();
        let left_over = |error: &Error| {
            tracing::warn!(%error, image = %name, "left over: `aldaas doctor --clean` removes it");
        };
        for spec in [self.spec(CLONE, &format!("verify-{name}")), self.spec(GOLDEN, &name.to_string())] {
            let _ = blocking(|| self.node.close(&spec)).inspect_err(left_over);
        }
        let reason = error.to_string();
        let undone = blocking(|| if keep { candidate.fail(&reason) } else { candidate.discard() });
        match undone.inspect_err(left_over) {
            Err(Error::Golden(aldaas_golden::Error::Rbd(undo))) if undo.is_timed_out() => {
                Error::ClusterAway(Box::new(error))
            }
            _ => error,
        }
    }

    fn spec(&self, namespace: &str, image: &str) -> ImageSpec {
        ImageSpec::new(self.store.pool().to_string(), namespace, image)
    }
}

/// A name says whose image it is and how new; `latest` believes it.
fn refuse_misleading(image: &GoldenImageName, database: &DatabaseName) -> Result<()> {
    if image.database() != database {
        return Err(Error::OtherDatabase { image: image.clone(), database: database.clone() });
    }
    if image.timestamp() > Timestamp::now() {
        return Err(Error::FromTheFuture(image.clone()));
    }
    Ok(())
}

/// The marker that clones of this image must bear.
pub fn marker(name: &GoldenImageName) -> Marker {
    Marker { golden_image: name.to_string(), database: name.database().to_string() }
}

fn common_arguments(command: &str, request: &IngestRequest, data: &Path, work_dir: &Path) -> Vec<OsString> {
    let manifest = work_dir.join("manifest.json");
    vec![
        command.into(),
        "--data-dir".into(),
        data.into(),
        "--database".into(),
        request.database.to_string().into(),
        "--work-dir".into(),
        work_dir.into(),
        "--manifest".into(),
        manifest.into(),
    ]
}

fn restore_arguments(request: &IngestRequest, data: &Path, work_dir: &Path) -> Vec<OsString> {
    let mut arguments = common_arguments("restore", request, data, work_dir);
    if request.from.starts_with("s3://") {
        arguments.extend(["--from".into(), request.from.clone().into()]);
    } else {
        // The engine's user need not be able to read the user's files: we open them and pass them on.
        arguments.extend(["--from".into(), "-".into(), "--source-name".into(), request.from.clone().into()]);
    }
    arguments.extend(request.restore_arguments.iter().cloned());
    arguments
}

/// Puts the evidence beside the data, where the engine doesn't see it.
fn keep_manifest(volume: &Mounted, manifest: &Manifest) -> Result<()> {
    let path = volume.root.join(".aldaas/manifest.json");
    let json = serde_json::to_vec_pretty(manifest).unwrap_or_default();
    fs::write(&path, json).map_err(Error::io(format!("write {}", path.display())))
}

fn stop_if(cancel: &CancellationToken) -> Result<()> {
    if cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}

/// librbd and mounts block: the runtime is told, so that events and signals are still served.
fn blocking<T, E: Into<Error>>(work: impl FnOnce() -> std::result::Result<T, E>) -> Result<T> {
    tokio::task::block_in_place(work).map_err(Into::into)
}

/// The dump, opened by us where the engine's user might not be allowed to.
enum Dump {
    S3,
    File(File),
}

impl Dump {
    fn open(from: &str) -> Result<Self> {
        if from.starts_with("s3://") {
            return Ok(Self::S3);
        }
        let path = PathBuf::from(from);
        let no_dump = |source| Error::NoDump { path: path.clone(), source };
        let file = match from {
            "-" => std::io::stdin().as_fd().try_clone_to_owned().map(File::from),
            _ => File::open(&path),
        };
        let file = file.map_err(no_dump)?;
        if file.metadata().map_err(no_dump)?.is_dir() {
            return Err(no_dump(std::io::ErrorKind::IsADirectory.into()));
        }
        Ok(Self::File(file))
    }

    /// Its size in bytes, where it is a file.
    fn size(&self) -> Option<u64> {
        let Self::File(file) = self else { return None };
        file.metadata().ok().filter(|metadata| metadata.is_file()).map(|metadata| metadata.len())
    }

    fn into_stdin(self) -> Option<File> {
        match self {
            Self::S3 => None,
            Self::File(file) => Some(file),
        }
    }
}

/// A directory that is the engine user's, and goes when the ingest ends.
struct WorkDir(PathBuf);

impl WorkDir {
    fn create(below: &Path, name: &str, supervisor: &Supervisor) -> Result<Self> {
        let path = below.join(name);
        let failed = |path: &Path| Error::io(format!("make directory {}", path.display()));
        fs::create_dir_all(below).map_err(failed(below))?;
        fs::create_dir(&path).map_err(failed(&path))?;
        let this = Self(path);
        std::os::unix::fs::chown(&this.0, Some(supervisor.user.uid), Some(supervisor.user.gid))
            .and_then(|()| fs::set_permissions(&this.0, fs::Permissions::from_mode(0o700)))
            .map_err(failed(&this.0))?;
        Ok(this)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // No mount is ever below it, so that removing all of it is safe.
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "work directory left over");
        }
    }
}

/// Times the stages and tells the observer.
struct Clock<'a> {
    observer: Observer<'a>,
    now: Option<(Stage, Instant)>,
    stages: BTreeMap<Stage, Duration>,
}

impl<'a> Clock<'a> {
    fn new(observer: Observer<'a>) -> Self {
        Self { observer, now: None, stages: BTreeMap::new() }
    }

    fn enter(&mut self, stage: Stage) {
        self.leave();
        self.now = Some((stage, Instant::now()));
        (self.observer)(Progress::Stage(stage));
    }

    fn leave(&mut self) {
        if let Some((stage, since)) = self.now.take() {
            self.stages.insert(stage, since.elapsed());
        }
    }

    fn finish(mut self) -> BTreeMap<Stage, Duration> {
        self.leave();
        self.stages
    }
}
