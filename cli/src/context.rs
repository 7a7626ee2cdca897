//! Opens what a command works with: the cluster, the pool, this machine's mounts, the engine's supervisor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use aldaas_api::CloneName;
use aldaas_golden::{CLONE, Store};
use aldaas_ingest::{EngineUser, Ingest, Supervisor};
use aldaas_rbd as rbd;
use aldaas_volume::{FuseServer, ImageSpec, Node, NodeConfig};
use anyhow::{Context as _, Result, bail};

use crate::args::Global;

/// What a command works with.
pub struct Context {
    pub store: Store,
    pub node: Arc<Node>,
    pub supervisor: Supervisor,
    pub run_dir: PathBuf,
    _preparing: Preparing,
}

/// This machine gets ready to attach images while we connect and clone. In the end, what nobody came to need is ended again.
struct Preparing {
    node: Arc<Node>,
    thread: Option<JoinHandle<()>>,
}

impl Preparing {
    fn begin(node: &Arc<Node>) -> Self {
        let thread = std::thread::spawn({
            let node = node.clone();
            move || {
                // Whoever attaches tries again, and is told.
                let _ = node.prepare().inspect_err(|error| tracing::debug!(%error, "not prepared"));
            }
        });
        Self { node: node.clone(), thread: Some(thread) }
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = self.node.settle().inspect_err(|error| tracing::debug!(%error, "the FUSE server goes on"));
    }
}

impl Context {
    /// Opens everything; each refusal says what to do.
    pub fn open(global: &Global) -> Result<Self> {
        require_root()?;
        let node = Arc::new(node(global)?);
        let supervisor = supervisor(global)?;
        let _preparing = Preparing::begin(&node);
        let store = store(global)?;
        take_run_dir(&global.run_dir, &store)?;
        Ok(Self { store, node, supervisor, run_dir: global.run_dir.clone(), _preparing })
    }

    /// The image of a clone, as this machine mounts it.
    pub fn clone_spec(&self, name: &impl std::fmt::Display) -> ImageSpec {
        ImageSpec::new(self.store.pool().to_string(), CLONE, name.to_string())
    }

    /// Where sockets and logs of ingests are, one directory each.
    pub fn work_dir(&self) -> PathBuf {
        work_dir(&self.run_dir)
    }

    /// What belongs to a clone's engine on this machine.
    pub fn work_dir_of(&self, name: &CloneName) -> PathBuf {
        self.work_dir().join(name.as_str())
    }

    /// The driver of an ingest.
    pub fn ingest(&self) -> Ingest<'_> {
        Ingest {
            store: &self.store,
            node: &self.node,
            supervisor: &self.supervisor,
            work_dir: self.work_dir(),
        }
    }
}

/// See [`Context::work_dir`].
pub fn work_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("work")
}

/// A run directory serves one pool: what lies in it goes by names that mean something only there. One that is not in use
/// changes hands.
fn take_run_dir(run_dir: &Path, store: &Store) -> Result<()> {
    let note = run_dir.join("pool.lock");
    let mine = format!("{} {}", store.cluster_id(), store.pool());
    let theirs = fs::read_to_string(&note).unwrap_or_default();
    if theirs == mine {
        return Ok(());
    }
    let in_use =
        |name: &str| fs::read_dir(run_dir.join(name)).is_ok_and(|mut entries| entries.next().is_some());
    if !theirs.is_empty() && (in_use("volumes") || in_use("work")) {
        bail!(
            "{} is in use for another pool ({theirs}): give this one a directory of its own with --run-dir",
            run_dir.display()
        );
    }
    fs::write(&note, mine).with_context(|| format!("write {}", note.display()))
}

/// The pool alone, for commands that only look.
pub fn store(global: &Global) -> Result<Store> {
    let pool = rbd::PoolName::new(global.pool.clone())?;
    let cluster = rbd::Cluster::connect(&ceph(global))?;
    Store::open(&cluster, &pool).with_context(|| {
        format!("pool {pool} can't be used (`ceph osd pool create {pool} && rbd pool init {pool}` makes one)")
    })
}

/// This machine's mounts.
pub fn node(global: &Global) -> Result<Node> {
    Ok(Node::new(NodeConfig {
        run_dir: global.run_dir.clone(),
        ceph: ceph(global),
        attach: global.attach,
        fuse_program: fuse_program(global),
        fuse_server: FuseServer::OnDemand,
    })?)
}

/// What serves images where the kernel has no rbd.
pub fn fuse_program(global: &Global) -> PathBuf {
    program(global.fuse_program.as_deref(), "aldaas-fuse")
}

/// How to run the engine.
pub fn supervisor(global: &Global) -> Result<Supervisor> {
    let user = nix::unistd::User::from_name(&global.engine_user)?;
    let Some(user) = user else {
        bail!(
            "there is no user {0}: install the engine (`apt install postgresql`), or name another user with --engine-user",
            global.engine_user
        )
    };
    if user.uid.is_root() {
        bail!("the engine refuses to run as root: name another user with --engine-user");
    }
    let user = EngineUser { uid: user.uid.as_raw(), gid: user.gid.as_raw() };
    Ok(Supervisor { program: program(global.restore_program.as_deref(), "aldaas-restore"), user })
}

/// How to reach Ceph.
pub fn ceph(global: &Global) -> rbd::ConnectOptions {
    rbd::ConnectOptions {
        conf: Some(global.ceph_conf.clone()),
        user: global.ceph_user.clone(),
        connect_timeout: Duration::from_secs(global.ceph_timeout.min(10)),
        operation_timeout: Duration::from_secs(global.ceph_timeout),
        ..rbd::ConnectOptions::default()
    }
}

/// Mounting needs root; better said at once than after a clone was made.
pub fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("aldaas mounts images and so must run as root: try again with sudo -E");
    }
    Ok(())
}

/// Whether this machine's run directory is this pool's.
pub fn owns_run_dir(global: &Global, store: &Store) -> bool {
    take_run_dir(&global.run_dir, store).is_ok()
}

/// What was said, else beside this program, else in PATH.
fn program(said: Option<&Path>, name: &str) -> PathBuf {
    if let Some(path) = said {
        return path.to_owned();
    }
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join(name)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| name.into())
}

/// The first line that a program prints of its version, if it is there.
pub fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}
