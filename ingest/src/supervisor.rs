//! Runs `aldaas-restore` as an unprivileged user, follows its events, and sees to it that it ends.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use aldaas_api::event::Event;
use aldaas_api::manifest::Manifest;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::progress::{Observer, Progress};
use crate::{Error, Result};

/// How long a supervisor that was told to stop may take to stop its engine cleanly.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of its log is kept for an error message.
const LOG_TAIL: usize = 4096;

/// The user as whom the engine runs: engines refuse to run as root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineUser {
    /// Its user id.
    pub uid: u32,
    /// Its group id.
    pub gid: u32,
}

/// How to start `aldaas-restore`.
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// The program.
    pub program: PathBuf,
    /// As whom.
    pub user: EngineUser,
}

/// How long a started `aldaas-restore` lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It ends when we do, even if we are killed.
    WithUs,
    /// It may outlive us ([`Running::forget`]); what it says then goes nowhere.
    Detached,
}

/// A running `aldaas-restore`.
pub struct Running {
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
    log: JoinHandle<String>,
}

impl Supervisor {
    /// Starts it in `work_dir`, with a dump as its standard input if there is one.
    ///
    /// It must be called from a thread that lives as long as the child may: the kernel ends the child with that *thread*.
    pub fn start(&self, arguments: &[OsString], work_dir: &Path, stdin: Option<File>) -> Result<Running> {
        let stdin = stdin.map_or_else(Stdio::null, Stdio::from);
        self.spawn(arguments, work_dir, stdin, Lifetime::WithUs)
    }

    /// Starts it so that it does nothing until [`Running::go`], and nothing at all if we end before.
    pub fn start_held(&self, arguments: &[OsString], work_dir: &Path, lifetime: Lifetime) -> Result<Running> {
        let mut arguments = arguments.to_vec();
        arguments.push("--start-on-stdin".into());
        self.spawn(&arguments, work_dir, Stdio::piped(), lifetime)
    }

    fn spawn(
        &self,
        arguments: &[OsString],
        work_dir: &Path,
        stdin: Stdio,
        lifetime: Lifetime,
    ) -> Result<Running> {
        let mut command = Command::new(&self.program);
        command.args(arguments);
        if lifetime == Lifetime::WithUs {
            command.arg(format!("--with-parent={}", std::process::id()));
        }
        command
            .current_dir(work_dir)
            // The engine runs what is in the dump: it gets to see of our environment what it needs and no more.
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_passed_on(name, arguments)))
            .env("HOME", work_dir)
            .uid(self.user.uid)
            .gid(self.user.gid)
            // A group of its own: Ctrl-C is ours to pass on, after which it stops its engine in good order.
            .process_group(0)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(lifetime == Lifetime::WithUs);
        let no_program = |source| Error::NoProgram { program: self.program.clone(), source };
        let mut child = command.spawn().map_err(no_program)?;
        let piped = || no_program(std::io::ErrorKind::BrokenPipe.into());
        let events = BufReader::new(child.stdout.take().ok_or_else(piped)?).lines();
        let log = tokio::spawn(tail(child.stderr.take().ok_or_else(piped)?));
        Ok(Running { child, events, log })
    }

    /// Runs it to its end, telling the observer, and returns the manifest of what was built or checked.
    pub async fn run(
        &self,
        arguments: &[OsString],
        work_dir: &Path,
        stdin: Option<File>,
        observer: Observer<'_>,
        cancel: &CancellationToken,
    ) -> Result<Manifest> {
        let mut running = self.start(arguments, work_dir, stdin)?;
        let mut manifest = None;
        loop {
            match running.next(cancel).await? {
                Some(Event::Step { step }) => observer(Progress::Step(step)),
                Some(Event::Progress { bytes, total }) => observer(Progress::Bytes { done: bytes, total }),
                Some(Event::Done { manifest: done }) => manifest = Some(*done),
                Some(_) => {}
                None => break,
            }
        }
        match manifest {
            Some(manifest) if running.wait().await?.success() => Ok(manifest),
            _ => Err(running.unexpected_end().await),
        }
    }
}

/// Whether a variable of our environment is one for `aldaas-restore` as well. Keys to the object store only when it reads there.
fn is_passed_on(name: &OsStr, arguments: &[OsString]) -> bool {
    const ALWAYS: [&str; 6] = ["PATH", "LANG", "TZ", "RUST_BACKTRACE", "FAILPOINTS", "ALDAAS_LOG"];
    const FOR_S3: [&str; 7] =
        ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE"];
    let Some(name) = name.to_str() else { return false };
    let reads_s3 = arguments.iter().any(|argument| argument.as_encoded_bytes().starts_with(b"s3://"));
    ALWAYS.contains(&name)
        || ["LC_", "ALDAAS_"].iter().any(|prefix| name.starts_with(prefix))
        || (reads_s3 && (name.starts_with("AWS_") || FOR_S3.contains(&name)))
}

impl Running {
    /// Lets one that was started held begin.
    pub async fn go(&mut self) -> Result<()> {
        match self.child.stdin.take() {
            // If it has ended already, its events and its end say why.
            Some(mut stdin) => match stdin.write_all(b"\n").await {
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    Err(Error::io("start the engine")(error))
                }
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    /// Its next event; none when there are no more. That it failed is an error, and so is being cancelled meanwhile:
    /// in both cases it has ended when this returns.
    pub async fn next(&mut self, cancel: &CancellationToken) -> Result<Option<Event>> {
        loop {
            let line = tokio::select! {
                line = self.events.next_line() => line.map_err(Error::io("read from aldaas-restore"))?,
                () = cancel.cancelled() => {
                    self.stop().await?;
                    return Err(Error::Cancelled);
                }
            };
            let Some(line) = line else { return Ok(None) };
            match serde_json::from_str(&line) {
                Ok(Event::Failed { step, reason, temporary }) => {
                    self.child.wait().await.map_err(Error::io("wait for aldaas-restore"))?;
                    return Err(Error::Restore { step, reason, temporary });
                }
                Ok(event) => return Ok(Some(event)),
                Err(error) => tracing::debug!(%error, line, "not an event"),
            }
        }
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it ends by itself.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().await.map_err(Error::io("wait for aldaas-restore"))
    }

    /// Has it stop its engine, and waits until it has.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            tracing::warn!("aldaas-restore did not stop in time and is killed");
            self.child.kill().await.map_err(Error::io("kill aldaas-restore"))?;
        }
        Ok(())
    }

    /// The error that says how it ended, when it should not have.
    pub async fn unexpected_end(mut self) -> Error {
        let status = match self.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => return error,
        };
        Error::Died { status, stderr: self.log.await.unwrap_or_default() }
    }

    /// Leaves a detached one to itself.
    pub fn forget(self) {
        self.log.abort();
    }
}

/// Passes a log on to ours, keeping its end.
async fn tail(stderr: ChildStderr) -> String {
    let mut kept = String::new();
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    while matches!((&mut reader).take(LOG_TAIL as u64).read_until(b'\n', &mut line).await, Ok(n) if n > 0) {
        let text = String::from_utf8_lossy(&line).into_owned();
        tracing::debug!(target: "aldaas_restore", "{}", text.trim_end());
        kept.push_str(&text);
        if kept.len() > LOG_TAIL {
            let cut = kept.len() - LOG_TAIL;
            let cut = (cut..kept.len()).find(|&at| kept.is_char_boundary(at)).unwrap_or(0);
            kept.drain(..cut);
        }
        line.clear();
    }
    kept
}
