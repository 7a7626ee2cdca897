//! The other end of the control socket: asking the FUSE server, and starting it where it isn't there.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::error::{Doing, Error};
use crate::identity::ClusterIdentity;
use crate::layout::{self, Layout};
use crate::node::FuseServer;
use crate::protocol::{Attached, Request, Response};
use crate::spec::{How, ImageSpec};

/// How long starting the server, a stop of the one before included, may take.
const START_PATIENCE: Duration = Duration::from_secs(45);
/// How often a server that somebody else starts is looked for.
const EXTERNAL_POLL: Duration = Duration::from_millis(100);
/// How long one answer may take; librbd's own time-outs are shorter.
const ANSWER_PATIENCE: Duration = Duration::from_secs(90);
/// How long a server that said it stops may take to be gone.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// What the server writes on its standard output when it serves.
pub(crate) const READY: &str = "ready";
/// The same when another server already serves this run directory.
pub(crate) const TAKEN: &str = "taken";

/// The FUSE server of one run directory.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub layout: Layout,
    pub program: PathBuf,
    pub server: FuseServer,
    pub ceph: aldaas_rbd::ConnectOptions,
    /// The cluster that is meant; without one, whichever the server serves.
    pub cluster: Option<ClusterIdentity>,
}

/// What came back, or that nobody was there (any more) to answer.
enum Answer {
    Said(Response),
    Nobody,
}

impl Client {
    /// Attaches the image, starting the server where needed.
    pub fn attach(&self, spec: &ImageSpec, how: How) -> Result<Attached, Error> {
        let How { read_only, own_client } = how;
        let cluster = self.cluster.clone();
        let request = Request::Attach { spec: spec.clone(), read_only, own_client, cluster };
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            match self.ask(&request)? {
                Answer::Said(Response::Attached(attached)) => return Ok(attached),
                Answer::Said(Response::Failed { errno: Some(libc_enoent), .. })
                    if libc_enoent == rustix::io::Errno::NOENT.raw_os_error() =>
                {
                    return Err(Error::ImageNotFound { spec: spec.to_string() });
                }
                // It is about to end: wait until it has, then start another.
                Answer::Said(Response::Stopping { pid }) => self.wait_until_gone(pid)?,
                Answer::Said(other) => return Err(unexpected(format!("attach {spec}"), other)),
                Answer::Nobody => match self.server {
                    FuseServer::OnDemand => self.start()?,
                    FuseServer::External => std::thread::sleep(EXTERNAL_POLL),
                },
            }
            if Instant::now() > deadline {
                return Err(self.nobody_serves());
            }
        }
    }

    fn nobody_serves(&self) -> Error {
        match self.server {
            FuseServer::OnDemand => Error::ServerStart {
                program: self.program.clone(),
                detail: "no server answered in time; its log is fuse.log in the run directory".to_owned(),
            },
            FuseServer::External => Error::NoServer { run_dir: self.layout.run_dir().to_owned() },
        }
    }

    /// Detaches the image; nothing to do where no server runs.
    pub fn detach(&self, spec: &ImageSpec) -> Result<(), Error> {
        self.ask_to_detach(spec, false)
    }

    /// The same, whoever has its file open: all I/O fails from now on.
    pub fn detach_though_open(&self, spec: &ImageSpec) -> Result<(), Error> {
        self.ask_to_detach(spec, true)
    }

    fn ask_to_detach(&self, spec: &ImageSpec, though_open: bool) -> Result<(), Error> {
        let cluster = self.cluster.clone();
        match self.ask(&Request::Detach { spec: spec.clone(), though_open, cluster })? {
            Answer::Said(Response::Detached | Response::Stopping { .. }) | Answer::Nobody => Ok(()),
            Answer::Said(other) => Err(unexpected(format!("detach {spec}"), other)),
        }
    }

    /// Has the server fail what it has not written yet of the image, and whatever comes. A server from before an upgrade can't:
    /// it writes all of it.
    pub fn abandon(&self, spec: &ImageSpec) -> Result<(), Error> {
        match self.ask(&Request::Abandon { spec: spec.clone(), cluster: self.cluster.clone() })? {
            Answer::Said(Response::Abandoned | Response::Stopping { .. }) | Answer::Nobody => Ok(()),
            Answer::Said(other) => Err(unexpected(format!("abandon {spec}"), other)),
        }
    }

    /// What is attached; `None` where no server runs.
    pub fn list(&self) -> Result<Option<Vec<Attached>>, Error> {
        self.ask_for_list(None)
    }

    fn ask_for_list(&self, only: Option<&ImageSpec>) -> Result<Option<Vec<Attached>>, Error> {
        match self.ask(&Request::List { spec: only.cloned(), cluster: self.cluster.clone() })? {
            Answer::Said(Response::List { images, .. }) => Ok(Some(images)),
            Answer::Said(Response::Stopping { .. }) | Answer::Nobody => Ok(None),
            Answer::Said(other) => Err(unexpected("list".to_owned(), other)),
        }
    }

    /// The image, if it is attached. A server that is just starting or ending may be met: the image counts as dead only
    /// when nobody holds the server's lock.
    pub fn find_settled(&self, spec: &ImageSpec) -> Result<Option<Attached>, Error> {
        let deadline = Instant::now() + STOP_PATIENCE;
        loop {
            let images = self.ask_for_list(Some(spec))?;
            if images.is_some() || !self.server_alive()? {
                // A server from before an upgrade lists all.
                return Ok(images.into_iter().flatten().find(|attached| attached.spec == *spec));
            }
            if Instant::now() > deadline {
                let what = format!("the FUSE server of {}", self.layout.run_dir().display());
                let because = "it is starting or ending and does not answer; try again";
                return Err(Error::Busy { what, because, holders: Vec::new() });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends a server that was started on demand and has nothing attached, and waits until it is gone.
    pub fn stop_if_idle(&self) -> Result<(), Error> {
        match self.ask(&Request::Stop { force: false, on_demand_only: true })? {
            Answer::Said(Response::Stopping { pid }) => self.wait_until_gone(pid),
            _ => Ok(()),
        }
    }

    /// The addresses at which Ceph knows the server.
    pub fn addresses(&self) -> Vec<String> {
        let signed = std::fs::read_to_string(self.layout.server_lock()).unwrap_or_default();
        layout::signed_addresses(&signed)
    }

    /// True while a server runs (or is just starting or ending).
    pub fn server_alive(&self) -> Result<bool, Error> {
        layout::is_locked(&self.layout.server_lock())
    }

    /// Has the cluster cut off a server that was killed: its watches and locks would hold up whoever comes next.
    /// The program does it, since this library speaks to Ceph through it only.
    pub fn forget_killed(&self) {
        let signed = std::fs::metadata(self.layout.server_lock()).is_ok_and(|m| m.len() > 0);
        if !signed || self.server_alive().unwrap_or(true) {
            return;
        }
        let output =
            Command::new(&self.program).arg("forget").args(self.arguments()).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                tracing::warn!(said = %String::from_utf8_lossy(&output.stderr).trim(), "forget a killed server")
            }
            Err(error) => tracing::warn!(%error, "run {} forget", self.program.display()),
        }
    }

    /// Takes the server's lock: `Some` means that no server runs and none can start while it is held, or that
    /// there is no lock file at all.
    pub fn lock_server(&self) -> Result<Option<ServerAbsent>, Error> {
        let path = self.layout.server_lock();
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Ok(layout::lock_if_current(file, &path)?.map(|f| ServerAbsent { _lock: Some(f) })),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Some(ServerAbsent { _lock: None })),
            Err(e) => Err(e).doing(|| format!("open {}", path.display())),
        }
    }

    /// Waits until the server that ends has let go of everything. One that was started after it is not waited for.
    pub fn wait_until_gone(&self, pid: u32) -> Result<(), Error> {
        let deadline = Instant::now() + STOP_PATIENCE;
        let signed = || std::fs::read_to_string(self.layout.server_lock()).unwrap_or_default();
        // It signed when it began to serve, and takes its signature away last.
        while signed().lines().next() == Some(&pid.to_string()) && self.server_alive()? {
            if Instant::now() > deadline {
                let what = format!("the FUSE server of {}", self.layout.run_dir().display());
                return Err(Error::Busy {
                    what,
                    because: "it is still ending; try again",
                    holders: Vec::new(),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Sends one request.
    pub fn request(&self, request: &Request) -> Result<Option<Response>, Error> {
        match self.ask(request)? {
            Answer::Said(response) => Ok(Some(response)),
            Answer::Nobody => Ok(None),
        }
    }

    fn ask(&self, request: &Request) -> Result<Answer, Error> {
        let Some(stream) = connect(self.layout.run_dir())? else { return Ok(Answer::Nobody) };
        match exchange(&stream, request) {
            Ok(Some(Response::OtherCluster { serves })) => Err(Error::OtherCluster {
                run_dir: self.layout.run_dir().to_owned(),
                serves: serves.to_string(),
                asked: self.cluster.clone().unwrap_or_default().to_string(),
            }),
            Ok(Some(response)) => Ok(Answer::Said(response)),
            // It ended between accepting and answering.
            Ok(None) => Ok(Answer::Nobody),
            Err(e) if is_gone(&e) => Ok(Answer::Nobody),
            Err(source) => Err(Error::Io { doing: "ask the FUSE server".to_owned(), source }),
        }
    }

    /// Starts the server in a session of its own and returns when it serves, or when another does.
    pub fn start(&self) -> Result<(), Error> {
        let failed = |detail: String| Error::ServerStart { program: self.program.clone(), detail };
        let log_path = self.layout.server_log();
        let mut log = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&log_path)
            .doing(|| format!("open {}", log_path.display()))?;
        let log_start = log.seek(SeekFrom::End(0)).unwrap_or(0);
        let stderr = log.try_clone().doing(|| "duplicate the log's handle".to_owned())?;
        let mut child = Command::new(&self.program)
            .arg("serve")
            .arg("--on-demand")
            .args(self.arguments())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .map_err(|e| failed(format!("{e}; is it installed beside this program?")))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            // The server lets go of its standard output in any case: this ends with it at the latest.
            let _ = BufReader::new(stdout).read_line(&mut line);
        }
        match line.trim() {
            READY => {
                // Whoever lives longer than the server has to collect it.
                std::thread::spawn(move || child.wait());
                Ok(())
            }
            TAKEN => {
                let _ = child.wait();
                std::thread::sleep(Duration::from_millis(2));
                Ok(())
            }
            _ => {
                let status = child.wait().map(|s| s.to_string()).unwrap_or_default();
                Err(failed(format!("{status}: {}", tail(&mut log, log_start))))
            }
        }
    }

    fn arguments(&self) -> Vec<std::ffi::OsString> {
        let mut args: Vec<std::ffi::OsString> = vec!["--run-dir".into(), self.layout.run_dir().into()];
        let mut option = |name: &str, value: std::ffi::OsString| args.extend([name.into(), value]);
        if let Some(conf) = &self.ceph.conf {
            option("--ceph-conf", conf.into());
        }
        if let Some(keyring) = &self.ceph.keyring {
            option("--keyring", keyring.into());
        }
        option("--user", (&self.ceph.user).into());
        option("--connect-timeout", seconds(self.ceph.connect_timeout).into());
        option("--operation-timeout", seconds(self.ceph.operation_timeout).into());
        for (key, value) in &self.ceph.overrides {
            option("--ceph-option", format!("{key}={value}").into());
        }
        args
    }
}

/// Proof that no server runs in the run directory for as long as it is held.
#[derive(Debug)]
pub(crate) struct ServerAbsent {
    _lock: Option<File>,
}

/// The socket's path may be longer than a socket address can hold (107 bytes), so it is reached through the
/// directory's descriptor.
pub(crate) fn short_socket_path(run_dir: &Path) -> Result<(File, PathBuf), Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        rustix::fs::open(run_dir, flags, Mode::empty()).doing(|| format!("open {}", run_dir.display()))?;
    let directory = File::from(directory);
    let path = PathBuf::from(format!("/proc/self/fd/{}/fuse.sock", directory.as_raw_fd()));
    Ok((directory, path))
}

fn connect(run_dir: &Path) -> Result<Option<UnixStream>, Error> {
    let (_directory, path) = short_socket_path(run_dir)?;
    match UnixStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(e) if is_gone(&e) => Ok(None),
        Err(e) => Err(e).doing(|| format!("connect to {}/fuse.sock", run_dir.display())),
    }
}

fn exchange(mut stream: &UnixStream, request: &Request) -> std::io::Result<Option<Response>> {
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    if BufReader::new(stream).read_line(&mut answer)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&answer)?))
}

fn is_gone(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    matches!(e.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe)
}

fn unexpected(doing: String, response: Response) -> Error {
    match response {
        Response::Failed { message, errno } => Error::Server { doing, detail: message, errno },
        other => Error::Server { doing, detail: format!("unexpected answer {other:?}"), errno: None },
    }
}

/// Whole seconds, rounded up: zero waits forever, and nothing else must come to mean that.
fn seconds(time: Duration) -> String {
    (time.as_secs() + u64::from(time.subsec_nanos() > 0)).to_string()
}

fn tail(log: &mut File, from: u64) -> String {
    let mut text = Vec::new();
    let _ = log.seek(SeekFrom::Start(from)).and_then(|_| log.read_to_end(&mut text));
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client_of(layout: Layout) -> Client {
        let (program, server, ceph) = (PathBuf::new(), FuseServer::OnDemand, Default::default());
        Client { layout, program, server, ceph, cluster: None }
    }

    #[test]
    fn the_server_waits_as_long_as_its_starter_would_and_zero_stays_forever() {
        let dir = tempfile::tempdir().unwrap();
        let arguments = |connect_timeout, operation_timeout| {
            let ceph =
                aldaas_rbd::ConnectOptions { connect_timeout, operation_timeout, ..Default::default() };
            let args = Client { ceph, ..client_of(Layout::new(dir.path()).unwrap()) }.arguments();
            let value = |name: &str| args[args.iter().position(|a| a == name).unwrap() + 1].clone();
            (value("--connect-timeout"), value("--operation-timeout"))
        };
        assert_eq!(arguments(Duration::from_millis(1500), Duration::ZERO), ("2".into(), "0".into()));
        assert_eq!(arguments(Duration::ZERO, Duration::from_millis(1)), ("0".into(), "1".into()));
    }

    #[test]
    fn a_server_that_came_after_the_ending_one_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        let client = client_of(layout);
        let lock = File::create_new(client.layout.server_lock()).unwrap();
        let lock = layout::lock_if_current(lock, &client.layout.server_lock()).unwrap().unwrap();
        let begun = Instant::now();
        // One that just took the lock and has not signed yet, then one that has.
        client.wait_until_gone(7).unwrap();
        std::fs::write(client.layout.server_lock(), "8\n127.0.0.1:0/1\n").unwrap();
        client.wait_until_gone(7).unwrap();
        assert!(begun.elapsed() < STOP_PATIENCE / 2);
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| client.wait_until_gone(8));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!ending.is_finished());
            drop(lock);
            ending.join().unwrap().unwrap();
        });
    }
}
