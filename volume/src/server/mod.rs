//! `aldaas-fuse`: serves RBD images as files, many from one librados connection.
//!
//! It is a program of its own because its life is that of the mounts: whoever started it may end or be upgraded.
//! Requests of the kernel are handed to librbd's asynchronous I/O and answered from its callbacks, so the number
//! of requests in flight is the kernel's choice, not that of our threads.

mod clients;
mod control;
mod files;
mod images;
mod writes;

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::mm::MlockAllFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::attach::sweep_dead_mounts;
use crate::client::{READY, TAKEN, short_socket_path};
use crate::layout::{self, Layout};
use crate::loopdev;
use crate::node::FuseServer;
use clients::{Clients, sign};
use images::Images;

/// Threads that take requests from the kernel. They only hand them on, so few are enough.
const DISPATCHERS: usize = 4;
/// What one image may hold that was acknowledged and isn't written, and what it may cache: librbd's own 24 and 32 MiB
/// would be gigabytes for a hundred images. A thousand pages under way are as good as six thousand.
const CACHE_LIMITS: [(&str, u32); 3] =
    [("rbd_cache_size", 8 << 20), ("rbd_cache_max_dirty", 1 << 20), ("rbd_cache_target_dirty", 512 << 10)];
/// How long to try for the lock while no server shows itself.
const LOCK_PATIENCE: Duration = Duration::from_millis(100);
/// How long a killed server stays cut off: longer than anything it sent can be under way.
const CUT_OFF: Duration = Duration::from_secs(600);

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Run directory; one server for each.
    pub run_dir: PathBuf,
    /// How to reach Ceph.
    pub ceph: aldaas_rbd::ConnectOptions,
    /// Started by a [`Node`](crate::Node) for an image: may be told to end when it is idle.
    pub on_demand: bool,
    /// Stay in the caller's session.
    pub foreground: bool,
}

/// Why the server ends.
#[derive(Debug)]
enum Ending {
    /// Asked for on the control socket; nothing is attached, or force was used.
    Asked,
    /// A signal came.
    Signal(i32),
    /// The mount is gone.
    Unmounted,
    /// An image was detached: reason enough for a server that was told to end before.
    Detached,
}

/// Serves until told to stop. Writes `ready` to standard output when it serves, `taken` when another server already
/// does, and lets go of standard output then.
///
/// # Errors
/// When Ceph can't be reached, or the mount or the socket can't be made.
pub fn serve(options: &ServeOptions) -> anyhow::Result<()> {
    if !options.foreground {
        // Fails only where this process leads its group already: then it has a session of its own.
        let _ = rustix::process::setsid();
    }
    let layout = Layout::new(&options.run_dir)?;
    let Some(lock) = take_lock(&layout)? else {
        announce(TAKEN);
        return Ok(());
    };
    harden();
    let outcome = serve_locked(options, &layout, &lock);
    // While the lock is still held: the next server finds nothing of this one.
    let swept = sweep(&layout, outcome.is_ok() && options.on_demand);
    drop(lock);
    outcome.and(swept)
}

fn serve_locked(options: &ServeOptions, layout: &Layout, lock: &File) -> anyhow::Result<()> {
    let killed = addresses_of_killed(lock)?;
    let listener = listen(layout)?;
    let ceph = bounded(&options.ceph);
    // Connecting takes longest: do the rest meanwhile.
    let connecting = {
        let ceph = ceph.clone();
        thread::spawn(move || aldaas_rbd::Cluster::connect(&ceph))
    };
    if loopdev::over(&layout.images())?.is_empty() {
        sweep_dead_mounts(&layout.images())?;
    }
    let device = mount(layout)?;
    let (end, ended) = mpsc::channel();
    let images = Arc::new(Images::new());
    let session = files::session(Arc::clone(&images), device).context("begin the FUSE session")?;
    let unmounted = end.clone();
    thread::Builder::new().name("fuse".to_owned()).spawn(move || {
        let result = session.run();
        tracing::debug!(?result, "FUSE session ended");
        let _ = unmounted.send(Ending::Unmounted);
    })?;
    let cluster = connecting.join().map_err(|_| anyhow::anyhow!("the connecting thread panicked"));
    let cluster = match cluster.and_then(|c| c.context("connect to Ceph")) {
        Ok(cluster) => cluster,
        Err(e) => {
            unmount(&layout.images());
            return Err(e);
        }
    };
    let not_cut_off = cut_off(&cluster, &killed);
    images.connected(Clients::new(&ceph, cluster, lock, not_cut_off)?);
    signals(end.clone())?;
    control::accept(listener, Arc::clone(&images), options.on_demand, end)?;
    announce(READY);
    tracing::info!(run_dir = %layout.run_dir().display(), pid = std::process::id(), "serving");
    wait(&images, &ended);
    free_loops(layout);
    images.close_all();
    if loopdev::over(&layout.images())?.is_empty() {
        unmount(&layout.images());
    } else {
        tracing::warn!(
            "loop devices still stand on the images: the next close or clean takes the dead mount away"
        );
    }
    tracing::info!("ended");
    Ok(())
}

/// With the limits of an image's cache, as long as the caller wants no others: memory is to be reckoned with the number of
/// images, however slow the cluster is.
fn bounded(ceph: &aldaas_rbd::ConnectOptions) -> aldaas_rbd::ConnectOptions {
    let limits = CACHE_LIMITS.map(|(key, bytes)| (key.to_owned(), bytes.to_string()));
    let overrides = limits.into_iter().chain(ceph.overrides.iter().cloned()).collect();
    aldaas_rbd::ConnectOptions { overrides, ..ceph.clone() }
}

/// Returns when the server shall end. A signal that came while images were attached is obeyed when the last of them goes.
fn wait(images: &Images, ended: &mpsc::Receiver<Ending>) {
    let mut told = false;
    for ending in ended {
        match ending {
            Ending::Asked => return,
            Ending::Unmounted => {
                tracing::warn!("the mount was taken away by somebody else; ending");
                return;
            }
            Ending::Detached if told && images.begin_stop(false).is_ok() => return,
            Ending::Detached => {}
            Ending::Signal(signal) => match images.begin_stop(false) {
                Ok(()) => return,
                Err(attached) => {
                    told = true;
                    tracing::warn!(
                        signal,
                        attached,
                        "images are attached: serving until the last is detached; `aldaas-fuse stop --force` ends regardless"
                    );
                }
            },
        }
    }
}

fn take_lock(layout: &Layout) -> anyhow::Result<Option<File>> {
    let path = layout.server_lock();
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        if let Some(file) = layout::lock_if_current(file, &path)? {
            return Ok(Some(file));
        }
        // Whoever only looks whether a server runs holds the lock for a moment too. A server has a socket.
        let (_directory, socket) = short_socket_path(layout.run_dir())?;
        if Instant::now() > deadline || UnixStream::connect(socket).is_ok() {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// The addresses that a killed server left in the lock file.
fn addresses_of_killed(mut lock: &File) -> anyhow::Result<Vec<String>> {
    let mut text = String::new();
    lock.seek(SeekFrom::Start(0))?;
    lock.read_to_string(&mut text)?;
    Ok(layout::signed_addresses(&text))
}

/// Cuts a dead client off, so that nothing of it can still arrive, and its watches and locks don't hold up the next
/// one for the half minute until Ceph notices by itself. Returns those that it could not be done to.
fn cut_off(cluster: &aldaas_rbd::Cluster, addresses: &[String]) -> Vec<String> {
    let fails = |address: &&String| match cluster.blocklist_add(address, CUT_OFF) {
        Ok(()) => {
            tracing::info!(address, "cut the killed server off from the cluster");
            false
        }
        Err(error) => {
            tracing::warn!(%error, address, "cut the killed server off; its locks end by themselves");
            true
        }
    };
    addresses.iter().filter(fails).cloned().collect()
}

/// Cuts off the killed server of a run directory. Does nothing where one runs or none was killed.
///
/// # Errors
/// When the cluster can't be reached.
pub fn forget(options: &ServeOptions) -> anyhow::Result<()> {
    let layout = Layout::new(&options.run_dir)?;
    if !layout.server_lock().exists() {
        return Ok(());
    }
    let Some(lock) = take_lock(&layout)? else { return Ok(()) };
    let killed = addresses_of_killed(&lock)?;
    if !killed.is_empty() {
        let cluster = aldaas_rbd::Cluster::connect(&options.ceph).context("connect to Ceph")?;
        let not_cut_off = cut_off(&cluster, &killed);
        if not_cut_off.is_empty() {
            lock.set_len(0)?;
        } else {
            sign(&lock, &not_cut_off)?;
        }
    }
    Ok(())
}

fn listen(layout: &Layout) -> anyhow::Result<UnixListener> {
    layout::remove_file_if_there(&layout.socket())?;
    let (_directory, path) = short_socket_path(layout.run_dir())?;
    // Only root may ask: the socket is made in a directory that others may pass, but not with their rights.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path).with_context(|| format!("bind {}", layout.socket().display()));
    rustix::process::umask(before);
    listener
}

/// Mounts our FUSE file system; done here rather than by fuser so that a dead mount below is no obstacle.
fn mount(layout: &Layout) -> anyhow::Result<std::os::fd::OwnedFd> {
    let images = layout.images();
    match rustix::fs::mkdir(&images, rustix::fs::Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(e) => return Err(e).with_context(|| format!("create {}", images.display())),
    }
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    let device = device
        .context("open /dev/fuse (load the module with `modprobe fuse`, or give it to this container)")?;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&device.as_fd());
    let data = std::ffi::CString::new(format!("fd={fd},rootmode=40000,user_id=0,group_id=0"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    rustix::mount::mount("aldaas-fuse", &images, "fuse.aldaas", flags, Some(data.as_c_str()))
        .with_context(|| format!("mount {}", images.display()))?;
    Ok(device.into())
}

/// Has the loop devices over our files let go of them, as far as nobody uses them; the others do so with their last
/// user. Once the mount is taken away, their paths would no longer tell whose they are.
fn free_loops(layout: &Layout) {
    let freed = loopdev::over(&layout.images()).and_then(|loops| loops.iter().try_for_each(loopdev::let_go));
    if let Err(error) = freed {
        tracing::warn!(%error, "free the loop devices over the images");
    }
}

fn unmount(images: &Path) {
    if let Err(error) = rustix::mount::unmount(images, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        tracing::warn!(%error, "unmount {}", images.display());
    }
}

/// Removes what this server made. The log stays where the server failed: it says why.
fn sweep(layout: &Layout, log_too: bool) -> anyhow::Result<()> {
    if loopdev::over(&layout.images())?.is_empty() {
        sweep_dead_mounts(&layout.images())?;
        layout::remove_dir_if_empty(&layout.images())?;
    }
    layout::remove_file_if_there(&layout.socket())?;
    if log_too {
        layout::remove_file_if_there(&layout.server_log())?;
    }
    // Signed by another: a killed one that this server did not come to cut off.
    let signature = std::fs::read_to_string(layout.server_lock()).unwrap_or_default();
    if signature.lines().next().is_none_or(|pid| pid == std::process::id().to_string()) {
        layout::remove_file_if_there(&layout.server_lock())?;
    }
    Ok(())
}

/// Says one word to whoever started us and lets go of standard output, so that they needn't wait for its end.
fn announce(word: &str) {
    println!("{word}");
    let _ = std::io::stdout().flush();
    if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Memory that is needed to write out dirty pages must not wait for dirty pages to be written out. Each of these
/// needs a right that a container may lack; without it the server works, only less sure under memory pressure.
fn harden() {
    let _ = rustix::process::configure_io_flusher_behavior(true);
    let _ = rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT);
    let _ = std::fs::write("/proc/self/oom_score_adj", "-900");
}

fn signals(end: mpsc::Sender<Ending>) -> anyhow::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).context("watch for signals")?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            if end.send(Ending::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Tells the server of a run directory to stop; `Ok(false)` where none runs.
///
/// # Errors
/// When images are attached and `force` isn't set.
pub fn stop(run_dir: &Path, force: bool) -> anyhow::Result<bool> {
    use crate::protocol::{Request, Response};
    let client = local_client(run_dir)?;
    match client.request(&Request::Stop { force, on_demand_only: false })? {
        None => Ok(false),
        Some(Response::Stopping { pid }) => client.wait_until_gone(pid).map(|()| true).map_err(Into::into),
        Some(Response::Failed { message, .. }) => bail!(message),
        Some(_) => {
            bail!("images are attached; close them first, or use --force (their file systems will fail)")
        }
    }
}

/// What the server of a run directory has attached; `None` where none runs.
///
/// # Errors
/// When it can't be asked.
pub fn list(run_dir: &Path) -> anyhow::Result<Option<Vec<crate::protocol::Attached>>> {
    Ok(local_client(run_dir)?.list()?)
}

fn local_client(run_dir: &Path) -> anyhow::Result<crate::client::Client> {
    let layout = Layout::new(run_dir)?;
    let ceph = aldaas_rbd::ConnectOptions::default();
    Ok(crate::client::Client {
        layout,
        program: PathBuf::new(),
        server: FuseServer::External,
        ceph,
        cluster: None,
    })
}
