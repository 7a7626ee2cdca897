//! The data directory while no server runs on it: made, looked at, proven.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::super::{Error, Place};
use super::binaries::Binaries;
use super::{complaint, user};
use crate::child;

/// Who may connect. Whoever can open the local socket or the loopback address is at home; others need a password.
const HBA: &str = "\
# Written by aldaas. TYPE DATABASE USER ADDRESS METHOD
local   all          all                trust
host    all          all  127.0.0.1/32  trust
host    all          all  ::1/128       trust
host    all          all  all           scram-sha-256
local   replication  all                trust
host    replication  all  127.0.0.1/32  trust
host    replication  all  ::1/128       trust
";

/// Makes an empty cluster with one superuser, `postgres`.
pub(super) async fn init(
    binaries: &Binaries,
    place: &Place,
    locale: &str,
    cancel: &CancellationToken,
) -> Result<(), Error> {
    make_dir(&place.data)?;
    let mut command = child::command(&binaries.program("initdb"), Signal::TERM);
    command
        .arg("--pgdata")
        .arg(&place.data)
        .args([
            "--username=postgres",
            "--encoding=UTF8",
            "--data-checksums",
            "--no-sync",
            "--no-instructions",
        ])
        .args(["--auth-local=trust", "--auth-host=scram-sha-256"])
        .arg(format!("--locale={locale}"))
        .envs(user::named(&place.work)?)
        .envs(place.extra.variables.iter());
    run("initdb", command, cancel).await.map_err(|err| complaint::explain(err, &place.data))?;
    let hba = place.data.join("pg_hba.conf");
    fs::write(&hba, HBA).map_err(Error::io(format!("write {}", hba.display())))
}

/// The directory must be empty: aldaas writes over nothing.
fn make_dir(data: &Path) -> Result<(), Error> {
    let action = || format!("make the data directory {}", data.display());
    fs::create_dir_all(data).map_err(Error::io(action()))?;
    if fs::read_dir(data).map_err(Error::io(action()))?.next().is_some() {
        let advice = "give an empty directory, or remove what is there";
        return Err(Error::Refused(format!("the data directory {} is not empty: {advice}", data.display())));
    }
    let (owner, ours) =
        (fs::metadata(data).map_err(Error::io(action()))?.uid(), rustix::process::geteuid().as_raw());
    if owner != ours {
        let advice = format!("give it to user {ours}, or run this as user {owner}");
        return Err(Error::Refused(format!(
            "the data directory {} belongs to user {owner}: {advice}",
            data.display()
        )));
    }
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).map_err(Error::io(action()))
}

/// How long what is left of a killed server may take to notice that it has lost its postmaster. It takes milliseconds.
const ORPHANS_END: Duration = Duration::from_secs(10);

/// Removes the lock file of a server that was killed, on another machine perhaps: its process id may by now be that
/// of anything, and PostgreSQL would refuse to start. Only a process that works in this directory is a reason to stop,
/// whatever the file says: a server does. What is left of a killed one does too, and is waited for, as it ends by itself.
pub(super) async fn clear_stale_lock(data: &Path) -> Result<(), Error> {
    let lock = data.join("postmaster.pid");
    if fs::symlink_metadata(&lock).is_err() {
        return Ok(());
    }
    let since = Instant::now();
    loop {
        let there = works_in(data)?;
        let Some(found) = there.iter().find(|process| !process.is_backend).or(there.first()) else { break };
        if !found.is_backend || since.elapsed() > ORPHANS_END {
            return Err(Error::Refused(format!(
                "process {} works in {}, another server perhaps: stop it first",
                found.pid,
                data.display()
            )));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tracing::info!("{} was left by a server that was killed: removed", lock.display());
    fs::remove_file(&lock).map_err(Error::io(format!("remove {}", lock.display())))
}

/// A process other than us that works in a data directory.
struct Inhabitant {
    pid: u32,
    /// A child of a postmaster: it calls itself `postgres: …`.
    is_backend: bool,
}

/// Processes whose working directory is `data`, under whatever path.
fn works_in(data: &Path) -> Result<Vec<Inhabitant>, Error> {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    let here = identity(data).map_err(Error::io(format!("look at {}", data.display())))?;
    let processes = fs::read_dir("/proc").map_err(Error::io("look for processes in /proc"))?;
    Ok(processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| identity(Path::new(&format!("/proc/{pid}/cwd"))).is_ok_and(|there| there == here))
        .map(|pid| {
            let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            // Empty: it has just ended.
            Inhabitant { pid, is_backend: title.is_empty() || title.starts_with(b"postgres: ") }
        })
        .collect())
}

/// Asks PostgreSQL's own tool whether the last stop was a clean one, and puts everything on disk.
pub(super) async fn prove(binaries: &Binaries, data: &Path, cancel: &CancellationToken) -> Result<(), Error> {
    let mut command = child::command(&binaries.program("pg_controldata"), Signal::TERM);
    command.arg(data).env("LC_ALL", "C");
    let said = run("pg_controldata", command, cancel).await?;
    let state = said
        .lines()
        .find_map(|line| line.strip_prefix("Database cluster state:"))
        .unwrap_or("unknown")
        .trim();
    if state != "shut down" {
        return Err(Error::Unclean(format!("pg_controldata says {state:?}, not \"shut down\"")));
    }
    let data = data.to_owned();
    let synced = tokio::task::spawn_blocking(move || {
        rustix::fs::syncfs(fs::File::open(&data)?).map_err(std::io::Error::from)
    });
    match synced.await {
        Ok(done) => done.map_err(Error::io("write the volume's last blocks to disk")),
        Err(err) => {
            Err(Error::Io { action: "write the volume's last blocks to disk".into(), source: err.into() })
        }
    }
}

/// Runs one of PostgreSQL's programs to its end and returns what it said.
pub(super) async fn run(
    program: &'static str,
    mut command: tokio::process::Command,
    cancel: &CancellationToken,
) -> Result<String, Error> {
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let out = tokio::select! {
        biased;
        () = cancel.cancelled() => return Err(Error::Cancelled),
        out = command.output() => out.map_err(Error::io(format!("run {program}")))?,
    };
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    let mut said = complaint::of(&String::from_utf8_lossy(&out.stderr));
    if said.is_empty() {
        said = out.status.to_string();
    }
    Err(Error::Program { program, said })
}
