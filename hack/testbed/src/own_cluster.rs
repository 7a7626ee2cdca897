//! A cluster that one test may break.

use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, fs, thread};

use crate::{Testbed, command, unique};

/// A daemon of a test bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// The monitor: without it nobody connects.
    Mon,
    /// The manager: statistics.
    Mgr,
    /// The one object storage daemon: without it nothing is read or written.
    Osd,
    /// The S3 gateway.
    Rgw,
}

impl Daemon {
    fn name(self) -> &'static str {
        match self {
            Daemon::Mon => "mon",
            Daemon::Mgr => "mgr",
            Daemon::Osd => "osd",
            Daemon::Rgw => "rgw",
        }
    }
}

/// A cluster for one test, removed when dropped. It is a [`Testbed`] like the shared one.
#[derive(Debug)]
pub struct OwnCluster {
    bed: Testbed,
}

impl OwnCluster {
    pub(crate) fn start(options: &[&str]) -> OwnCluster {
        // Beside the shared bed, where `hack/test` finds it if this process is killed.
        let base = env::var("ALDAAS_TESTBED").unwrap_or_else(|_| "/tmp/aldaas".to_owned());
        let dir = unique(&format!("{base}-own-"));
        let options: Vec<&str> = options.iter().copied().chain(["--no-modules"]).collect();
        dev("up", &dir, &options).unwrap_or_else(|error| panic!("start a cluster of one's own: {error}"));
        OwnCluster { bed: Testbed::at(Path::new(&dir)) }
    }

    /// Stops a daemon; its data stays.
    pub fn stop(&self, daemon: Daemon) {
        self.dev("stop", daemon);
    }

    /// Starts a daemon again and waits until it serves.
    pub fn start_again(&self, daemon: Daemon) {
        self.dev("start", daemon);
    }

    /// Makes a daemon hang: its sockets accept, and nothing answers. Thaw it before anything of it that
    /// is mounted must be synced: every `sync` on this machine waits for it.
    pub fn freeze(&self, daemon: Daemon) {
        let pid = self.signal("-STOP", daemon);
        // The signal stops one thread after the other; until the last has stopped it may still answer.
        let stopped = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        while !fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|tasks| tasks.flatten().all(stopped)) {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends what [`OwnCluster::freeze`] began.
    pub fn thaw(&self, daemon: Daemon) {
        self.signal("-CONT", daemon);
    }

    fn dev(&self, what: &str, daemon: Daemon) {
        dev(what, &self.dir().display().to_string(), &[daemon.name()])
            .unwrap_or_else(|error| panic!("{error}"));
    }

    fn signal(&self, signal: &str, daemon: Daemon) -> String {
        let file = self.dir().join(format!("run/{}.pid", daemon.name()));
        let pid = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        command::run(Command::new("kill").args([signal, pid.trim()]), b"");
        pid.trim().to_owned()
    }
}

impl Deref for OwnCluster {
    type Target = Testbed;

    fn deref(&self) -> &Testbed {
        &self.bed
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        if let Err(error) = dev("down", &self.bed.dir().display().to_string(), &[]) {
            eprintln!("{error}");
        }
    }
}

fn dev(what: &str, dir: &str, options: &[&str]) -> Result<(), String> {
    let mut dev = Command::new(command::hack().join("dev"));
    command::try_run(dev.arg(what).args(["--dir", dir]).args(options), b"").map(drop)
}
