//! The command `aldaas` on a real cluster, in a pool and a run directory of its own.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use aldaas_testbed::{Census, Scratch, TestPool, Testbed};

/// A dump of a database `orders` with a hundred customers.
pub const DUMP: &str = "\
--
-- PostgreSQL database dump
--
CREATE TABLE customer (id integer PRIMARY KEY, name text NOT NULL);
INSERT INTO customer SELECT n, 'customer ' || n FROM generate_series(1, 100) n;
--
-- PostgreSQL database dump complete
--
";

pub struct Bed<'a> {
    pub testbed: &'a Testbed,
    pub pool: TestPool,
    pub scratch: Scratch,
    files: tempfile::TempDir,
}

impl Bed<'static> {
    pub fn new() -> Self {
        Self::on(Testbed::get())
    }
}

impl<'a> Bed<'a> {
    /// On a cluster of the test's own.
    pub fn on(testbed: &'a Testbed) -> Self {
        let bed = Self {
            testbed,
            pool: testbed.fresh_pool(),
            scratch: testbed.scratch(),
            files: tempfile::tempdir().unwrap(),
        };
        // What stays for good (rados namespaces, the object of locks) is made by the first use.
        bed.ok(&["images"]);
        bed
    }

    /// A command of `aldaas`, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(Testbed::program("aldaas"));
        command
            .args(arguments)
            .envs(self.testbed.envs())
            .env("ALDAAS_POOL", self.pool.name())
            .env("ALDAAS_RUN_DIR", self.scratch.path())
            .env("ALDAAS_CEPH_TIMEOUT", "5")
            .env("ALDAAS_SIZE", "1GiB")
            .env("ALDAAS_RESTORE_PROGRAM", Testbed::program("aldaas-restore"))
            .env("ALDAAS_FUSE_PROGRAM", Testbed::program("aldaas-fuse"))
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs it, expecting success, and returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "aldaas {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs it, expecting JSON.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let mut with_json = vec!["-o", "json"];
        with_json.extend(arguments);
        serde_json::from_str(&self.ok(&with_json)).unwrap()
    }

    /// Runs it, expecting a refusal: one line that starts with `error:`.
    pub fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        refusal(&output, arguments)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.files.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(content.as_ref()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn ingest_small(&self) -> String {
        let dump = self.file("orders.sql", DUMP);
        self.json(&["ingest", "orders", "--from", &dump])["image"].as_str().unwrap().to_owned()
    }

    pub fn latest(&self, database: &str) -> Option<String> {
        let images = self.json(&["images", database]);
        let latest: Vec<_> =
            images.as_array().unwrap().iter().filter(|image| image["latest"] == true).collect();
        assert!(latest.len() <= 1, "{latest:?}");
        latest.first().map(|image| image["image"].as_str().unwrap().to_owned())
    }

    pub fn census(&self) -> Census {
        self.testbed.census(self.pool.name(), self.scratch.path())
    }

    /// The census once it has come to rest: what ends by itself gets a moment to.
    pub fn assert_census(&self, before: &Census, when: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let now = self.census();
            if now == *before {
                return;
            }
            assert!(Instant::now() < deadline, "left behind {when}:\nbefore {before:?}\nnow {now:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

pub fn refusal(output: &Output, what: impl std::fmt::Debug) -> String {
    let stderr = text(&output.stderr);
    assert!(!output.status.success(), "{what:?} succeeded: {}", text(&output.stdout));
    let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{what:?} ended with {} and said {stderr:?}", output.status);
    assert!(!stderr.contains("panicked"), "{stderr}");
    errors[0].to_owned()
}

/// One value from a database.
pub fn query(url: &str, sql: &str) -> String {
    let output =
        Command::new("psql").args(["-XAtq", "-v", "ON_ERROR_STOP=1", url, "-c", sql]).output().unwrap();
    assert!(output.status.success(), "{sql}: {}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Waits for something to become true.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Processes whose command line names this directory, with their command lines.
pub fn processes_naming(dir: &Path) -> Vec<(u32, String)> {
    let dir = dir.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = text(&line).replace('\0', " ");
        if line.contains(dir) {
            found.push((pid, line));
        }
    }
    found
}

/// An ingest that goes on until it is told otherwise: its dump is a pipe that stays open.
pub fn endless_ingest(bed: &Bed) -> std::process::Child {
    let mut ingest = bed
        .command(&["ingest", "orders", "--from", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // More than is read ahead to find out what it is.
    let head = format!(
        "CREATE TABLE customer (id integer);\n{}",
        "INSERT INTO customer VALUES (1);\n".repeat(40_000)
    );
    ingest.stdin.as_mut().unwrap().write_all(head.as_bytes()).unwrap();
    wait_until("the restore has begun", || {
        processes_naming(bed.scratch.path()).iter().any(|(_, line)| line.contains("psql"))
    });
    ingest
}

/// A dump of the shared collection, if it is there.
pub fn shared_dump(name: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let dir = std::env::var_os("ALDAAS_SHARED_DATA").map_or(default, PathBuf::from);
    let path = dir.join(name);
    path.exists().then_some(path)
}
