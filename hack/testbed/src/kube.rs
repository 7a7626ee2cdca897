//! A real Kubernetes API server, as `hack/kube` starts it.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::{command, unique};

/// An API server that runs.
#[derive(Debug)]
pub struct Kube {
    dir: PathBuf,
}

/// A program of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubeDaemon {
    /// Where it keeps everything.
    Etcd,
    /// What answers.
    ApiServer,
}

impl KubeDaemon {
    fn name(self) -> &'static str {
        match self {
            KubeDaemon::Etcd => "etcd",
            KubeDaemon::ApiServer => "apiserver",
        }
    }
}

impl Kube {
    pub(crate) fn shared() -> Kube {
        let config = env::var_os("ALDAAS_KUBECONFIG").unwrap_or_else(|| {
            panic!(
                "no Kubernetes: run `make test`, or `hack/kube up --dir /tmp/kube` and set ALDAAS_KUBECONFIG=/tmp/kube/kubeconfig"
            )
        });
        let config = Path::new(&config);
        assert!(config.exists(), "{} is not there: run `hack/kube up`", config.display());
        Kube { dir: config.parent().expect("a file is in a directory").to_owned() }
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }
}

/// An API server for one test.
#[derive(Debug)]
pub struct OwnKube {
    kube: Kube,
    then: Then,
}

/// What becomes of it when the test is over.
#[derive(Debug)]
enum Then {
    Remove,
    /// The next test gets it, without what this one made. `File` is locked for as long.
    Lend(#[expect(dead_code, reason = "what counts is when it is closed")] File),
}

impl OwnKube {
    pub(crate) fn start() -> OwnKube {
        // Beside the shared one, where `hack/test` finds it if this process is killed.
        let shared =
            env::var("ALDAAS_KUBECONFIG").unwrap_or_else(|_| "/tmp/aldaas-kube/kubeconfig".to_owned());
        let base = Path::new(&shared).parent().unwrap_or(Path::new("/tmp/aldaas-kube"));
        let dir = PathBuf::from(unique(&format!("{}-own-", base.display())));
        up(&dir);
        OwnKube { kube: Kube { dir }, then: Then::Remove }
    }

    /// One that another test has done with: starting one takes seconds, emptying it does not.
    pub(crate) fn lent() -> OwnKube {
        // Who removes the shared one removes those beside it.
        let Ok(shared) = env::var("ALDAAS_KUBECONFIG") else { return OwnKube::start() };
        let base = Path::new(&shared).parent().unwrap_or(Path::new("/tmp/aldaas-kube"));
        let free = |n: u32| {
            let dir = PathBuf::from(format!("{}-lent-{n}", base.display()));
            let lock = File::create(format!("{}.lent", dir.display())).expect("make a lock");
            lock.try_lock().is_ok().then_some((dir, lock))
        };
        let (dir, lock) = (0..64).find_map(free).expect("one in 64 is free");
        // Who had it died over it.
        if in_use(&dir).exists() {
            kube("down", &dir, None).unwrap_or_else(|error| panic!("{error}"));
        }
        up(&dir);
        fs::write(in_use(&dir), "").expect("mark it as in use");
        OwnKube { kube: Kube { dir }, then: Then::Lend(lock) }
    }

    /// Stops a program; its data stays.
    pub fn stop(&self, daemon: KubeDaemon) {
        kube("stop", &self.dir, Some(daemon)).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts a program again and waits until it serves.
    pub fn start_again(&self, daemon: KubeDaemon) {
        kube("start", &self.dir, Some(daemon)).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Makes a program hang: its sockets accept, and nothing answers.
    pub fn freeze(&self, daemon: KubeDaemon) {
        self.signal("-STOP", daemon);
    }

    /// Ends what [`OwnKube::freeze`] began.
    pub fn thaw(&self, daemon: KubeDaemon) {
        self.signal("-CONT", daemon);
    }

    fn signal(&self, signal: &str, daemon: KubeDaemon) {
        let file = self.dir.join(format!("run/{}.pid", daemon.name()));
        let pid = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        command::run(Command::new("kill").args([signal, pid.trim()]), b"");
    }
}

impl Deref for OwnKube {
    type Target = Kube;

    fn deref(&self) -> &Kube {
        &self.kube
    }
}

impl Drop for OwnKube {
    fn drop(&mut self) {
        let done = match self.then {
            Then::Remove => kube("down", &self.dir, None),
            Then::Lend(_) => kube("empty", &self.dir, None),
        };
        match (done, &self.then) {
            (Err(error), _) => eprintln!("{error}"),
            (Ok(()), Then::Lend(_)) => {
                let _ = fs::remove_file(in_use(&self.dir));
            }
            (Ok(()), Then::Remove) => {}
        }
    }
}

fn in_use(dir: &Path) -> PathBuf {
    dir.join("in-use")
}

fn up(dir: &Path) {
    kube("up", dir, None).unwrap_or_else(|error| panic!("start a Kubernetes of one's own: {error}"));
}

fn kube(what: &str, dir: &Path, daemon: Option<KubeDaemon>) -> Result<(), String> {
    let mut kube = Command::new(command::hack().join("kube"));
    let command = kube.arg(what).arg("--dir").arg(dir).args(daemon.map(KubeDaemon::name));
    command::try_run(command, b"").map(drop)
}
