//! A dump into a running server: through `psql`, or `pg_restore`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufWriter, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, Command};
use tokio_util::sync::CancellationToken;

use super::super::{Error, LoadError, Place};
use super::binaries::{self, Binaries};
use super::complaint;
use super::server::Postmaster;
use crate::child;
use crate::format::{
    Content, CopyError, Dump, SqlGuard, StreamError, copy_archive, copy_tar, unpack_directory,
};

/// How much is read and written at once.
const PIECE: usize = 256 << 10;
/// Lines of a program's standard error that are kept from its first error on.
const KEPT: usize = 40;
/// Longer lines are of no use to anybody.
const LINE: u64 = 4 << 10;
/// `psql`: the connection went bad, so it is the server that has something to say.
const PSQL_LOST_SERVER: i32 = 2;

/// What a load needs to know.
pub(super) struct Load<'a> {
    pub binaries: &'a Binaries,
    pub place: &'a Place,
    pub port: u16,
    pub jobs: u32,
    pub cancel: &'a CancellationToken,
}

/// Whether plain SQL makes its own database at its beginning (`pg_dump --create`).
pub(super) fn makes_database(dump: &Dump) -> bool {
    let mut guard = SqlGuard::new(None);
    // What is wrong with it will be told when it is loaded.
    dump.content == Content::PlainSql && {
        let _ = guard.push(&dump.head, &mut Vec::new());
        guard.creates_database()
    }
}

impl Load<'_> {
    /// Feeds plain SQL to `psql`, connected to `database`. True when some of it may have gone to another one.
    ///
    /// Not in a single transaction, which would be a tenth faster and write no WAL for the rows: dumps hold statements
    /// that refuse one, and it would hold a lock for every table and index at once.
    pub(super) async fn psql(
        &self,
        server: &mut Postmaster,
        dump: Dump,
        database: &str,
    ) -> Result<bool, LoadError> {
        let key = binaries::can_restrict(&self.binaries.version()?)
            .then(key)
            .transpose()
            .map_err(Error::io("read random bytes"))?;
        let mut command = self.client("psql", database);
        command.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]);
        if let Some(key) = &key {
            command.arg(format!("--command=\\restrict {key}"));
        }
        command.args(["--file=-"]).stdin(Stdio::piped());
        let guard = SqlGuard::new(key);
        let run = self.run(server, command, move |into| pump_sql(dump.reader, guard, into)).await?;
        if run.status.success() && run.fed {
            return Ok(run.kept.may_have_left());
        }
        if leaves_transaction(&run) {
            let what = "the dump leaves a transaction open (no COMMIT): it was probably cut short";
            return Err(Error::Statement(format!("{what}; make it again and check the upload")).into());
        }
        let err = self.complaint(&run, |line| run.kept.line_in_dump(line));
        let lost = run.status.code() == Some(PSQL_LOST_SERVER) || hung_up(&run.said);
        Err(if lost { server.autopsy(err).await } else { err }.into())
    }

    /// Feeds an archive to `pg_restore`; with more than one job from a file, because jobs jump about in it. A directory it reads
    /// from the disk only.
    pub(super) async fn pg_restore(
        &self,
        server: &mut Postmaster,
        dump: Dump,
        database: &str,
    ) -> Result<(), LoadError> {
        let mut command = self.client("pg_restore", database);
        command.args(["--exit-on-error", "--no-owner", "--no-acl"]);
        let spool = self.place.work.join("spool.dump");
        let _removed = RemoveOnDrop(&spool);
        let is_directory = dump.content == Content::PgDirectory;
        // Out of a tar archive pg_restore has no way to work on several things at once.
        let run = if is_directory || (self.jobs > 1 && dump.content == Content::PgCustom) {
            remove(&spool); // of a restore that was killed
            server.guard(self.cancel, spool_to(dump, &spool)).await?;
            if is_directory {
                command.arg("--format=directory");
            }
            command.arg(format!("--jobs={}", self.jobs)).arg(&spool).stdin(Stdio::piped());
            self.run(server, command, |_| ((), Ok(()))).await?
        } else {
            command.stdin(Stdio::piped());
            let copy = if dump.content == Content::PgTar { copy_tar } else { copy_archive };
            self.run(server, command, move |into| ((), pump_archive(dump.reader, copy, into))).await?
        };
        if run.status.success() {
            return Ok(());
        }
        let err = self.complaint(&run, |line| line);
        Err(if hung_up(&run.said) { server.autopsy(err).await } else { err }.into())
    }

    fn client(&self, program: &str, database: &str) -> Command {
        let mut command = child::command(&self.binaries.program(program), Signal::KILL);
        command.arg("--host").arg(&self.place.work).arg(format!("--port={}", self.port));
        command.args(["--username=postgres", "--no-password", "--dbname", database]);
        command.envs(self.place.extra.loaders.iter());
        command.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a program and feeds it from another thread. When the feeding fails, the program is killed before it can
    /// take the end of its input for the end of the dump.
    async fn run<T: Send + 'static>(
        &self,
        server: &mut Postmaster,
        mut command: Command,
        pump: impl FnOnce(&mut File) -> (T, Result<(), Broken>) + Send + 'static,
    ) -> Result<Run<T>, LoadError> {
        let mut child = command.spawn().map_err(Error::io("start the loader"))?;
        let into = child
            .stdin
            .take()
            .map(ChildStdin::into_owned_fd)
            .transpose()
            .map_err(Error::io("feed the loader"))?;
        let mut into =
            into.map(File::from).ok_or_else(|| Error::Refused("the loader has no input".into()))?;
        let said = tokio::spawn(listen(child.stderr.take()));
        let feed = tokio::task::spawn_blocking(move || {
            let (kept, fed) = pump(&mut into);
            (into, kept, fed)
        });
        server
            .guard(self.cancel, async {
                let gone = |err: tokio::task::JoinError| Error::Io {
                    action: "feed the loader".into(),
                    source: err.into(),
                };
                let (into, kept, fed) = feed.await.map_err(gone)?;
                if let Err(Broken::Dump(err)) = fed {
                    let _ = child.kill().await;
                    return Err(err.into());
                }
                drop(into);
                let status = child.wait().await.map_err(Error::io("wait for the loader"))?;
                Ok(Run { kept, fed: fed.is_ok(), status, said: said.await.unwrap_or_default() })
            })
            .await
    }

    fn complaint<T>(&self, run: &Run<T>, line_in_dump: impl Fn(u64) -> u64) -> Error {
        if complaint::is_no_space(&run.said) {
            return Error::NoSpace { path: self.place.data.clone() };
        }
        let short = complaint::of(&run.said);
        let told = match complaint::split_line_number(&short) {
            Some((line, rest)) => format!("the dump fails at line {}: {rest}", line_in_dump(line)),
            None if short.is_empty() => format!("the loader stopped early ({})", run.status),
            None => format!("the dump fails: {short}"),
        };
        Error::Statement(complaint::with_advice(told))
    }
}

/// How a program ended.
struct Run<T> {
    /// What the feeding side kept.
    kept: T,
    /// Whether the program took all of the dump.
    fed: bool,
    status: ExitStatus,
    said: String,
}

/// Why feeding stopped.
enum Broken {
    /// The dump broke.
    Dump(StreamError),
    /// The program closed its end: it has something to say.
    Pipe,
}

impl From<crate::format::Error> for Broken {
    fn from(err: crate::format::Error) -> Broken {
        Broken::Dump(err.into())
    }
}

fn pump_sql(
    mut dump: Box<dyn BufRead + Send>,
    mut guard: SqlGuard,
    into: &mut File,
) -> (SqlGuard, Result<(), Broken>) {
    let mut out = Vec::with_capacity(2 * PIECE);
    let mut feed = || {
        loop {
            let piece = dump.fill_buf().map_err(|err| Broken::Dump(StreamError::unpack(err)))?;
            let (length, over) = (piece.len(), piece.is_empty());
            // What came before an error still goes to psql, which may know an earlier one.
            if over {
                guard.finish(&mut out)?
            } else {
                guard.push(piece, &mut out)?
            }
            dump.consume(length);
            into.write_all(&out).map_err(|_| Broken::Pipe)?;
            out.clear();
            if over {
                return Ok(());
            }
        }
    };
    let fed = feed();
    (guard, fed)
}

fn pump_archive(
    mut dump: Box<dyn BufRead + Send>,
    copy: fn(&mut dyn BufRead, &mut dyn Write) -> Result<(), CopyError>,
    into: &mut File,
) -> Result<(), Broken> {
    let mut into = BufWriter::with_capacity(PIECE, WhileOpen { into, closed: false });
    match copy(&mut dump, &mut into) {
        Ok(()) => Ok(()),
        Err(CopyError::Dump(err)) => Err(Broken::Dump(err)),
        Err(CopyError::Write(_)) => Err(Broken::Pipe),
    }
}

/// pg_restore may have all it needs before the end; the rest must still be whole, and counts as evidence.
struct WhileOpen<'a> {
    into: &'a mut File,
    closed: bool,
}

impl Write for WhileOpen<'_> {
    fn write(&mut self, piece: &[u8]) -> std::io::Result<usize> {
        self.closed = self.closed || self.into.write_all(piece).is_err();
        Ok(piece.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Writes the archive to a file, or a directory's files into a directory, beside the sockets and logs; nobody else may read it.
async fn spool_to(mut dump: Dump, path: &Path) -> Result<(), LoadError> {
    let to = path.to_owned();
    let spooled = tokio::task::spawn_blocking(move || {
        let action = || format!("keep the archive in {}", to.display());
        let kept = |err| match err {
            CopyError::Dump(err) => LoadError::from(err),
            CopyError::Write(err) => Error::io(action())(err).into(),
        };
        if dump.content == Content::PgDirectory {
            let made = std::fs::DirBuilder::new().mode(0o700).create(&to);
            made.map_err(Error::io(action()))?;
            return unpack_directory(&mut dump.reader, &to).map_err(kept);
        }
        let file = File::options().write(true).create_new(true).mode(0o600).open(&to);
        let mut file = BufWriter::with_capacity(PIECE, file.map_err(Error::io(action()))?);
        copy_archive(&mut dump.reader, &mut file).map_err(kept)
    });
    spooled.await.map_err(|err| Error::Io { action: "keep the archive".into(), source: err.into() })?
}

struct RemoveOnDrop<'a>(&'a Path);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        remove(self.0);
    }
}

fn remove(spool: &Path) {
    let _ = std::fs::remove_file(spool);
    let _ = std::fs::remove_dir_all(spool);
}

/// Keeps what matters of a program's standard error: from its first error on, or else the last lines.
async fn listen(stderr: Option<ChildStderr>) -> String {
    let Some(stderr) = stderr else { return String::new() };
    let mut kept: VecDeque<String> = VecDeque::new();
    let mut reader = BufReader::new(stderr);
    let mut found = false;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(LINE).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            break;
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        found |= ["ERROR:", "FATAL:", "PANIC:", "error:"].iter().any(|word| text.contains(word));
        if kept.len() >= KEPT {
            if found {
                continue; // still read, or the program would wait for us
            }
            kept.pop_front();
        }
        kept.push_back(text);
    }
    kept.into_iter().collect()
}

/// Whether it was our own statement at the dump's end that failed, for the reason it is there for.
fn leaves_transaction(run: &Run<SqlGuard>) -> bool {
    let short = complaint::of(&run.said);
    complaint::split_line_number(&short).is_some_and(|(line, said)| {
        run.kept.is_end(line) && said.contains("cannot run inside a transaction block")
    })
}

fn hung_up(said: &str) -> bool {
    ["closed the connection", "terminating connection", "connection to server was lost", "is shutting down"]
        .iter()
        .any(|words| said.contains(words))
}

/// A key that no dump can know.
fn key() -> std::io::Result<String> {
    let mut random = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
