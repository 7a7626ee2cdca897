//! A directory of its own for each test, the program run in it as an unprivileged user, and a look at what is left.
#![allow(dead_code)] // each test binary uses a part of it

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use aldaas_api::event::Event;
use aldaas_api::manifest::Manifest;

pub mod bucket;
pub mod container;
pub mod liar;
pub mod tls;

/// The user that owns the data: the engine refuses to run as root.
pub const USER: &str = "postgres";

/// A scratch directory. Dropping it removes it, and fails the test when a process is left in it.
pub struct Room {
    dir: tempfile::TempDir,
    program: PathBuf,
    user: Option<(u32, u32)>,
}

/// What a run of the program said.
pub struct Outcome {
    pub code: i32,
    pub events: Vec<Event>,
    pub log: String,
}

impl Room {
    pub fn new() -> Room {
        // Short, for sockets; open to the other user.
        let base = std::env::var_os("ALDAAS_TEST_TMP").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        let dir = tempfile::Builder::new().prefix("ar-").tempdir_in(base).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let user = rustix::process::geteuid().is_root().then(engine_user);
        if let Some((uid, gid)) = user {
            chown(dir.path(), Some(uid), Some(gid)).unwrap();
        }
        // The target directory may be closed to that user.
        let program = dir.path().join("aldaas-restore");
        let built = env!("CARGO_BIN_EXE_aldaas-restore");
        fs::hard_link(built, &program).or_else(|_| fs::copy(built, &program).map(|_| ())).unwrap();
        Room { dir, program, user }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that the other user can read.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A command that runs as the unprivileged user, with nothing in its environment.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear().env("PATH", path()).env("HOME", self.dir.path()).current_dir(self.dir.path());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// `aldaas-restore restore --from …` with everything else in place.
    pub fn restore(&self, from: impl AsRef<Path>) -> Command {
        self.restore_into(from, self.path("data"))
    }

    /// As above, with the data elsewhere.
    pub fn restore_into(&self, from: impl AsRef<Path>, data: impl AsRef<Path>) -> Command {
        let mut command = self.command(&self.program);
        command.arg("restore").arg("--from").arg(from.as_ref());
        self.place(&mut command, data.as_ref());
        command.arg("--manifest").arg(self.path("manifest.json"));
        command
    }

    pub fn check(&self) -> Command {
        self.check_in(self.path("data"))
    }

    /// As above, with the data elsewhere.
    pub fn check_in(&self, data: impl AsRef<Path>) -> Command {
        let mut command = self.command(&self.program);
        command.arg("check");
        self.place(&mut command, data.as_ref());
        command.arg("--manifest").arg(self.path("manifest.json"));
        command
    }

    pub fn serve(&self) -> Command {
        let mut command = self.command(&self.program);
        command.arg("serve");
        self.place(&mut command, &self.path("data"));
        command
    }

    pub fn inspect(&self, from: impl AsRef<Path>) -> Command {
        let mut command = self.command(&self.program);
        command.arg("inspect").arg("--from").arg(from.as_ref());
        command
    }

    pub fn list(&self, from: impl AsRef<str>) -> Command {
        let mut command = self.command(&self.program);
        command.arg("list").arg("--from").arg(from.as_ref());
        command
    }

    fn place(&self, command: &mut Command, data: &Path) {
        command.args(["--database", "orders"]);
        command.arg("--data-dir").arg(data).arg("--work-dir").arg(self.path("work"));
    }

    /// Processes whose command line names this directory, or that work below it, as an engine's children do.
    pub fn processes(&self) -> Vec<String> {
        let dir = self.dir.path();
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.path());
        entries
            .filter_map(|process| {
                let line =
                    String::from_utf8_lossy(&fs::read(process.join("cmdline")).ok()?).replace('\0', " ");
                let works =
                    fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd != dir && cwd.starts_with(dir));
                (line.contains(dir.to_str().unwrap()) || works && !line.is_empty()).then_some(line)
            })
            .collect()
    }

    /// Waits until no process is left.
    pub fn wait_for_no_process(&self) {
        let since = Instant::now();
        while !self.processes().is_empty() {
            assert!(since.elapsed() < Duration::from_secs(20), "left running: {:#?}", self.processes());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The data directory is at rest: stopped cleanly, next to no WAL, nothing running.
    pub fn assert_at_rest(&self) {
        let tool = bin_dir().join("pg_controldata");
        let out = self.command(tool).arg(self.path("data")).env("LC_ALL", "C").output().unwrap();
        let state = String::from_utf8_lossy(&out.stdout).into_owned();
        let line = state.lines().find(|line| line.starts_with("Database cluster state")).unwrap_or(&state);
        assert!(line.ends_with(" shut down"), "{line}");
        assert!(!self.path("data/postmaster.pid").exists());
        let wal = fs::read_dir(self.path("data/pg_wal")).unwrap().filter_map(Result::ok);
        let segments = wal.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).count();
        assert!(segments <= 2, "{segments} WAL segments are left");
        assert_eq!(self.processes(), Vec::<String>::new());
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.wait_for_no_process();
        }
    }
}

/// A file system in memory at `path`, which is made; dropping it unmounts it.
pub fn mount_tmpfs(path: &Path, options: &str) -> Unmount {
    fs::create_dir(path).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(path).status();
    assert!(mounted.unwrap().success(), "mounting a tmpfs needs root: run make test");
    Unmount(path.to_owned())
}

pub struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Runs the program to its end.
pub fn run(command: &mut Command) -> Outcome {
    outcome(command.stdin(Stdio::null()).output().unwrap())
}

/// Runs the program with `input` on its standard input.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Outcome {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    outcome(child.wait_with_output().unwrap())
}

fn outcome(out: Output) -> Outcome {
    let said = String::from_utf8(out.stdout).unwrap();
    Outcome {
        code: out.status.code().unwrap_or(-1),
        events: said.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        log: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

impl Outcome {
    /// It worked: the manifest.
    #[track_caller]
    pub fn done(&self) -> &Manifest {
        assert_eq!(self.code, 0, "{:#?}\n{}", self.events, self.log);
        match self.events.last() {
            Some(Event::Done { manifest }) => manifest,
            other => panic!("{other:?}\n{}", self.log),
        }
    }

    /// It failed with `code`: the reason, which is one line of a bearable length.
    #[track_caller]
    pub fn failed(&self, code: i32) -> &str {
        let Some(Event::Failed { reason, temporary, .. }) = self.events.last() else {
            panic!("{:#?}\n{}", self.events, self.log);
        };
        assert_eq!(self.code, code, "{reason}");
        assert_eq!(*temporary, !matches!(code, 1 | 2), "{reason}");
        assert!(!reason.contains('\n') && reason.len() < 1200, "{reason}");
        reason
    }
}

/// A program that is running, with its events.
pub struct Running {
    pub child: Child,
    lines: Option<std::io::Lines<BufReader<std::process::ChildStdout>>>,
}

impl Running {
    pub fn start(command: &mut Command) -> Running {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Running::adopt(command.spawn().unwrap())
    }

    /// One that was started with its standard output piped.
    pub fn adopt(mut child: Child) -> Running {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines: Some(lines) }
    }

    /// Closes our end of its standard output.
    pub fn deafen(&mut self) {
        self.lines = None;
    }

    /// The next event for which `wanted` holds.
    #[track_caller]
    pub fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        for line in self.lines.as_mut().unwrap() {
            let event: Event = serde_json::from_str(&line.unwrap()).unwrap();
            if wanted(&event) {
                return event;
            }
        }
        panic!("it ended without that event: {:?}", self.child.wait());
    }

    /// Waits until it is served; port and process.
    #[track_caller]
    pub fn ready(&mut self) -> (u16, u32) {
        match self.until(|event| matches!(event, Event::Ready { .. } | Event::Failed { .. })) {
            Event::Ready { port, pid, .. } => (port, pid),
            other => panic!("{other:?}"),
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        signal_pid(self.child.id(), signal);
    }

    /// Its exit code; -1 for a signal.
    pub fn code(&mut self) -> i32 {
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

pub fn signal_pid(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Asks a served database.
#[track_caller]
pub fn psql(port: u16, database: &str, sql: &str) -> String {
    let out = Command::new("psql")
        .args(["-X", "-At", "-h", "127.0.0.1", "-U", "postgres", "-d", database, "-v", "ON_ERROR_STOP=1"])
        .args(["-p", &port.to_string(), "-c", sql])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

/// Where programs are found: first those of Postgres as `hack/test` has laid them out.
fn path() -> String {
    let laid_out = std::env::var("ALDAAS_TEST_POSTGRES").map(|dir| dir + ":").unwrap_or_default();
    laid_out + "/usr/bin:/bin"
}

/// The newest PostgreSQL of this machine.
pub fn bin_dir() -> PathBuf {
    let versions =
        fs::read_dir("/usr/lib/postgresql").expect("no PostgreSQL here: run hack/deps, or make test");
    let newest = versions.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok()).max();
    Path::new("/usr/lib/postgresql").join(newest.unwrap().to_string()).join("bin")
}

fn engine_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with(&format!("{USER}:")));
    let line = line.expect("there is no user postgres: run hack/deps, or make test");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().unwrap());
    (fields.next().unwrap(), fields.next().unwrap())
}

/// A dump that ships with nothing: from `ALDAAS_SHARED_DATA`, or `../shared/data` beside the checkout.
pub fn shared_dump(name: &str) -> Option<PathBuf> {
    let dir = std::env::var_os("ALDAAS_SHARED_DATA").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"));
    let path = dir.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!(
        "ABSENT: {name} is not in {}: this test looked at nothing (set ALDAAS_SHARED_DATA)",
        dir.display()
    );
    None
}

/// gzip, one member.
pub fn gzip(data: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data.as_ref()).unwrap();
    encoder.finish().unwrap()
}

/// A dump as `pg_dump` writes it: `rows` rows in two tables, an index, a function.
pub fn dump(rows: usize) -> String {
    let data: String = (0..rows).map(|i| format!("{i}\tcustomer {i} \\\\ ' $$ --\n")).collect();
    format!(
        "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n\
         CREATE TABLE public.customer (\n    id integer NOT NULL,\n    name text\n);\n\n\
         CREATE TABLE public.empty (\n    id integer\n);\n\n\
         CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $_$ SELECT '; \\! $$ --'; $_$;\n\n\
         COPY public.customer (id, name) FROM stdin;\n{data}\\.\n\n\n\
         ALTER TABLE ONLY public.customer ADD CONSTRAINT customer_pkey PRIMARY KEY (id);\n\n\
         --\n-- PostgreSQL database dump complete\n--\n\n"
    )
}
