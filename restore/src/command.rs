//! A command of the user's: run beside the engine, with how to connect in its environment, and ended with all that it
//! started.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, in_one_line};
use crate::evidence::Pipe;
use crate::format::StreamError;
use crate::variables::Variables;
use crate::{child, engine};

/// How much is read and written at once.
const PIECE: usize = 256 << 10;
/// Longer lines are cut in pieces.
const LINE: u64 = 4 << 10;
/// Lines of what it said that are kept, the last ones.
const KEPT: usize = 40;
/// How long it may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(2);
/// A command says with this exit code that trying again may help (`EX_TEMPFAIL`).
const TEMPORARY: i32 = aldaas_api::event::exit::TEMPORARY as i32;

/// What an engine makes of what is said about it: by its programs, and by commands that use them.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// The reason in a longer text, in one line.
    pub reason: fn(&str) -> String,
    /// A line without what may be somebody's data.
    pub without_data: fn(&str) -> String,
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct UserCommand<'a> {
    /// What it is for, e.g. `mask command`.
    pub what: &'static str,
    /// Program and arguments.
    pub words: &'a [String],
    /// Its environment, beside what it needs to connect.
    pub variables: &'a Variables,
}

impl UserCommand<'_> {
    /// Runs it to its end.
    ///
    /// # Errors
    /// When it does not exit with 0, when `input` cannot be read to its end, or at `cancel`.
    pub async fn run(
        &self,
        connection: &[(&'static str, OsString)],
        input: Option<Pipe>,
        words: Words,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let Some((program, args)) = self.words.split_first() else { return Ok(()) };
        let mut command = child::command(Path::new(program), Signal::KILL);
        command
            .args(args)
            .envs(connection.iter().map(|(name, value)| (name, value)))
            .envs(self.variables.iter());
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|err| self.io("start", err))?;
        let listening = Listening::start(self.what, &mut child, words.without_data);
        let mut group = Group::of(child);
        let done = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            done = self.follow(&mut group, input) => done,
        };
        let status = group.end(done.is_err()).await.map_err(|err| self.io("wait for", err))?;
        done?;
        let said = listening.last_words().await;
        if status.success() { Ok(()) } else { Err(self.failed(status, &(words.reason)(&said))) }
    }

    /// Feeds it until it has ended.
    async fn follow(&self, group: &mut Group, input: Option<Pipe>) -> Result<(), Error> {
        let into = group.child.stdin.take().map(ChildStdin::into_owned_fd).transpose();
        let into = into.map_err(|err| self.io("feed", err))?.map(File::from);
        if let (Some(mut into), Some(input)) = (into, input) {
            let feed = tokio::task::spawn_blocking(move || pump(input, &mut into).map(|()| into));
            // Its end of the pipe closes only when all was read: it must not take half a dump for a whole one.
            drop(feed.await.map_err(|err| self.io("feed", err.into()))??);
        }
        ended(group.leader).await.map_err(|err| self.io("wait for", err))
    }

    fn failed(&self, status: ExitStatus, said: &str) -> Error {
        let program = self.words.first().map_or("", String::as_str);
        let said = match (status.code(), said) {
            (Some(127), "") => "there is no such program in the engine's image".to_owned(),
            (_, "") => "it said nothing".to_owned(),
            (_, said) => said.to_owned(),
        };
        // Who is killed has run out of memory, most of the time; that may pass.
        let temporary = status.code().is_none_or(|code| code == TEMPORARY);
        Error::Command {
            what: self.what,
            program: program.to_owned(),
            how: status.to_string(),
            said,
            temporary,
        }
    }

    fn io(&self, doing: &str, err: std::io::Error) -> Error {
        Error::Engine(engine::Error::Io { action: format!("{doing} the {}", self.what), source: err })
    }
}

/// Copies the dump to `into`. Who closes its end early has all it needs; the rest must still be whole, and counts as
/// evidence.
fn pump(mut dump: Pipe, into: &mut File) -> Result<(), Error> {
    let mut piece = vec![0; PIECE];
    let mut closed = false;
    loop {
        let count = dump.read(&mut piece).map_err(|err| Error::from(StreamError::unpack(err)))?;
        if count == 0 {
            return Ok(());
        }
        closed = closed || into.write_all(&piece[..count]).is_err();
    }
}

/// A child with the group of processes that it leads. It is waited for last, so that the group's id is surely its own
/// when it is signalled. Dropping it kills it.
struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Group {
    fn of(child: Child) -> Group {
        let leader = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        Group { child, leader }
    }

    /// Nothing that it started in its group outlives it.
    async fn end(mut self, gently: bool) -> std::io::Result<ExitStatus> {
        if gently {
            self.signal(Signal::TERM);
            let _ = tokio::time::timeout(GRACE, ended(self.leader)).await;
        }
        self.signal(Signal::KILL);
        self.leader = None;
        self.child.wait().await
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            let _ = rustix::process::kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Waits until a child has ended, and leaves it to be waited for.
async fn ended(child: Option<Pid>) -> std::io::Result<()> {
    let Some(child) = child else { return Ok(()) };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let waited = tokio::task::spawn_blocking(move || {
        retry_on_intr(|| rustix::process::waitid(WaitId::Pid(child), options)).map(|_| ())
    });
    waited.await?.map_err(std::io::Error::from)
}

/// What a command says: to our log, line by line, and its end kept. Never as a line of its own: whoever reads the log
/// finds our events in it.
struct Listening(Vec<JoinHandle<()>>, Arc<Mutex<VecDeque<String>>>);

impl Listening {
    fn start(what: &'static str, child: &mut Child, without_data: fn(&str) -> String) -> Listening {
        let kept = Arc::default();
        let out =
            child.stdout.take().map(|out| tokio::spawn(listen(what, out, without_data, Arc::clone(&kept))));
        let err =
            child.stderr.take().map(|err| tokio::spawn(listen(what, err, without_data, Arc::clone(&kept))));
        Listening(out.into_iter().chain(err).collect(), kept)
    }

    /// Called when all of the group has ended; who left it may still hold the pipes.
    async fn last_words(self) -> String {
        for task in self.0 {
            let aborted = task.abort_handle();
            if tokio::time::timeout(GRACE, task).await.is_err() {
                aborted.abort();
            }
        }
        let kept = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|line| format!("{line}\n")).collect()
    }
}

async fn listen(
    what: &'static str,
    from: impl AsyncRead + Unpin,
    without_data: fn(&str) -> String,
    kept: Arc<Mutex<VecDeque<String>>>,
) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        if !matches!((&mut reader).take(LINE).read_until(b'\n', &mut line).await, Ok(1..)) {
            return;
        }
        let text = in_one_line(String::from_utf8_lossy(&line).trim_end());
        let shown = without_data(&text);
        if !shown.is_empty() {
            tracing::info!("{what}: {shown}");
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(text);
    }
}
