//! A running server: started, watched, stopped.

use std::fs;
use std::future::Future;
use std::net::TcpListener;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Child;
use tokio_util::sync::CancellationToken;

use super::super::{Error, Mode, Place, Server, Stop};
use super::binaries::Binaries;
use super::log::Log;
use super::{cluster, complaint, settings};
use crate::child;

/// How often we look whether it is ready. `pg_ctl` looks ten times a second; a clone is to be there sooner.
const LOOK: Duration = Duration::from_millis(1);
/// The port where nobody but us connects, through the socket.
const PRIVATE_PORT: u16 = 5432;
/// How often another free port is chosen when somebody took the first.
const PORTS: u32 = 5;
/// A path of a Unix socket must fit into the kernel's structure, with its final zero.
const SOCKET_PATH: usize = 107;

/// A running PostgreSQL. Dropping it kills it.
#[derive(Debug)]
pub struct Postmaster {
    child: Child,
    pid: u32,
    place: Place,
    port: u16,
    log: Log,
}

/// Starts it, and returns when it takes connections.
pub(super) async fn start(
    binaries: &Binaries,
    place: &Place,
    mode: &Mode,
    cancel: &CancellationToken,
) -> Result<Postmaster, Error> {
    cluster::clear_stale_lock(&place.data).await?;
    let mut tries = 0;
    loop {
        tries += 1;
        let (port, chosen) = port(mode)?;
        check_socket_path(&place.work, port)?;
        let log = Log::from_now(&place.work);
        let mut server = spawn(binaries, place, mode, port, log.clone())?;
        let started = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled),
            ready = server.ready() => ready,
        };
        match started {
            Ok(()) => return Ok(server),
            Err(Error::NotStarted { .. }) if chosen && tries < PORTS && port_was_taken(&log.end()) => {}
            Err(Error::NotStarted { how, words }) => {
                return Err(why_not_started(how, words, &log.end(), place));
            }
            Err(err) => {
                server.end(Stop::Immediate, cancel).await?;
                return Err(err);
            }
        }
    }
}

fn spawn(binaries: &Binaries, place: &Place, mode: &Mode, port: u16, log: Log) -> Result<Postmaster, Error> {
    let file = log.file()?;
    let when_we_die = match mode {
        // PostgreSQL's fast shutdown: should we be killed, it still stops cleanly.
        Mode::Serve { .. } => Signal::INT,
        // The data is thrown away then: no minutes of writing it out first.
        Mode::Load | Mode::Check => Signal::QUIT,
    };
    let mut command = child::command(&binaries.program("postgres"), when_we_die);
    // The last word counts.
    command.args(settings::tuning(mode, place).into_iter().flat_map(|setting| ["-c".into(), setting]));
    command.args(&place.extra.args).envs(place.extra.variables.iter());
    command.args(settings::fixed(mode, place, port).into_iter().flat_map(|setting| ["-c".into(), setting]));
    command.arg("-D").arg(&place.data);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    let child = command.spawn().map_err(Error::io("start the engine"))?;
    let pid = child.id().unwrap_or_default();
    Ok(Postmaster { child, pid, place: place.clone(), port, log })
}

impl Postmaster {
    /// Waits until the server says in its lock file that it is ready. It is the one place that tells without a
    /// connection, and it is right to the millisecond.
    async fn ready(&mut self) -> Result<(), Error> {
        let lock = self.place.data.join("postmaster.pid");
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                status = self.child.wait() => {
                    return Err(Error::NotStarted { how: ended(status), words: self.log.last_words() });
                }
                _ = look.tick() => {
                    if fs::read_to_string(&lock).is_ok_and(|text| says_ready(&text, self.pid)) {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Does `work`, unless the server dies meanwhile or we are told to stop.
    pub(super) async fn guard<T, E: From<Error>>(
        &mut self,
        cancel: &CancellationToken,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Error::Cancelled.into()),
            done = work => done,
            died = self.died() => Err(died.into()),
        }
    }

    /// Waits a moment for the death of a server that hung up on us, to tell its reason rather than its effect.
    pub(super) async fn autopsy(&mut self, otherwise: Error) -> Error {
        tokio::time::timeout(Duration::from_secs(5), self.died()).await.unwrap_or(otherwise)
    }

    /// Stops it and waits. A fast stop, which may write for minutes, becomes an immediate one at `cancel`.
    pub(super) async fn end(mut self, how: Stop, cancel: &CancellationToken) -> Result<(), Error> {
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        child::signal(self.child.id(), signal);
        let status = tokio::select! {
            status = self.child.wait() => status,
            () = cancel.cancelled(), if how == Stop::Fast => {
                child::signal(self.child.id(), Signal::QUIT);
                let _ = self.child.wait().await;
                return Err(Error::Cancelled);
            }
        };
        match how {
            Stop::Immediate => Ok(()),
            Stop::Fast if status.as_ref().is_ok_and(ExitStatus::success) => Ok(()),
            Stop::Fast if complaint::is_no_space(&self.log.end()) => {
                Err(Error::NoSpace { path: self.place.data.clone() })
            }
            Stop::Fast => Err(Error::Unclean(format!("{}: {}", ended(status), self.log.last_words()))),
        }
    }

    /// How to connect to `database`.
    pub(super) fn config(&self, database: &str) -> tokio_postgres::Config {
        let mut config = tokio_postgres::Config::new();
        config
            .host_path(&self.place.work)
            .port(self.port)
            .user("postgres")
            .dbname(database)
            .application_name("aldaas-restore");
        config
    }

    /// The data directory.
    pub(super) fn data(&self) -> &Path {
        &self.place.data
    }
}

impl Server for Postmaster {
    fn port(&self) -> u16 {
        self.port
    }

    fn socket_dir(&self) -> &Path {
        &self.place.work
    }

    fn pid(&self) -> u32 {
        self.pid
    }

    async fn died(&mut self) -> Error {
        let status = self.child.wait().await;
        if complaint::is_no_space(&self.log.end()) {
            return Error::NoSpace { path: self.place.data.clone() };
        }
        Error::Died { how: ended(status), words: self.log.last_words() }
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        // Quit, not kill: its own children go with it. `id` is none once it has been waited for.
        child::signal(self.child.id(), Signal::QUIT);
    }
}

/// `postmaster.pid`: the process id on line 1, the status on line 8.
fn says_ready(lock: &str, pid: u32) -> bool {
    let mut lines = lock.lines();
    lines.next().and_then(|line| line.trim().parse().ok()) == Some(pid)
        && lines.nth(6).is_some_and(|line| line.trim() == "ready")
}

fn port(mode: &Mode) -> Result<(u16, bool), Error> {
    let Mode::Serve { listen, port, .. } = mode else { return Ok((PRIVATE_PORT, false)) };
    if *port != 0 {
        return Ok((*port, false));
    }
    let address = listen
        .split(',')
        .next()
        .map(str::trim)
        .filter(|address| !matches!(*address, "" | "*"))
        .unwrap_or("0.0.0.0");
    let bound = TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr());
    bound.map(|bound| (bound.port(), true)).map_err(Error::io(format!("find a free port on {address}")))
}

fn port_was_taken(log: &str) -> bool {
    log.contains("Address already in use")
}

fn check_socket_path(work: &Path, port: u16) -> Result<(), Error> {
    let path = work.join(format!(".s.PGSQL.{port}"));
    if path.as_os_str().len() > SOCKET_PATH {
        let problem = format!("the socket's path {} is longer than {SOCKET_PATH} bytes", path.display());
        return Err(Error::Refused(format!(
            "{problem}: give a shorter --work-dir, or choose a shorter clone name or run directory"
        )));
    }
    Ok(())
}

fn why_not_started(how: String, words: String, log: &str, place: &Place) -> Error {
    if complaint::is_no_space(log) {
        return Error::NoSpace { path: place.data.clone() };
    }
    let refused = [
        ("Address already in use", "the port is taken: choose another with --port, or 0 for a free one"),
        ("has wrong ownership", "the data directory belongs to another user: run as its owner"),
        ("has invalid permissions", "the data directory must be closed to others: chmod 0700"),
        ("is not a valid data directory", "the data directory holds no PostgreSQL data"),
        ("could not access the server configuration file", "the data directory holds no PostgreSQL data"),
        ("could not access directory", "the data directory holds no PostgreSQL data"),
        (
            "database files are incompatible with server",
            "use an engine of the version that made the data (--bin-dir)",
        ),
    ];
    match refused.iter().find(|(said, _)| log.contains(said)) {
        Some((_, advice)) => Error::Refused(format!("{advice} ({words})")),
        None => Error::NotStarted { how, words },
    }
}

fn ended(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|err| err.to_string(), |status| status.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lock_file_of_our_own_server_says_ready() {
        let lock = "42\n/data\n1700000000\n5432\n/w\n127.0.0.1\n  1234 5678\nready   \n";
        assert!(says_ready(lock, 42));
        assert!(!says_ready(lock, 43));
        assert!(!says_ready(&lock.replace("ready   ", "starting"), 42));
        assert!(!says_ready("42\n/data\n", 42));
    }
}
