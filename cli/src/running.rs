//! A clone, mounted on this machine, with its engine running on it.
//!
//! [`RunningClone::start`] makes one or nothing; [`end`] takes away whatever there is of one, from observed state, so that it
//! serves for `run`, for `rm`, and after a crash alike. A clone's work directory is ours, and says who supervises the engine
//! (`holder`) and how to reach it (`address.json`); `engine/` in it is the engine's, for its socket and log.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aldaas_api::event::Event;
use aldaas_api::{CloneName, GoldenImageName, ImageRef, Version};
use aldaas_golden::{self as golden, CloneRequest, GoldenImage, Holder, Purpose, Store};
use aldaas_ingest::EngineUser;
use aldaas_ingest::driver::marker;
use aldaas_ingest::supervisor::{Lifetime, Running};
use aldaas_volume::OpenVolume;
use anyhow::{Context as _, Result, bail};
use fail::fail_point;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use crate::args::Engine;
use crate::context::Context;
use crate::output;

/// How to reach a running clone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Address {
    /// Name of the clone.
    pub name: CloneName,
    /// The golden image it is of.
    pub image: GoldenImageName,
    /// `postgres://postgres@127.0.0.1:40123/orders`
    pub url: String,
    /// Address of the engine.
    pub host: IpAddr,
    /// Its port.
    pub port: u16,
    /// User with all rights.
    pub user: String,
    /// Name of the database in the engine.
    pub database: String,
    /// Directory of the engine's Unix socket.
    pub socket_dir: PathBuf,
}

impl Address {
    fn new(golden: &GoldenImage, name: &CloneName, host: IpAddr, port: u16, socket_dir: PathBuf) -> Self {
        let database = golden.name.database().to_string();
        Self {
            url: format!("postgres://{SUPERUSER}@{}/{database}", SocketAddr::new(host, port)),
            name: name.clone(),
            image: golden.name.clone(),
            host,
            port,
            user: SUPERUSER.to_owned(),
            database,
            socket_dir,
        }
    }
}

/// A clone with its engine, as this process started it.
pub struct RunningClone {
    /// How to reach it.
    pub address: Address,
    /// The engine's supervisor.
    pub engine: Running,
}

impl RunningClone {
    /// Clones, mounts, starts. On failure nothing of it is left.
    pub async fn start(
        context: &Context,
        reference: &ImageRef,
        name: &CloneName,
        purpose: Purpose,
        engine: &Engine,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        // A named clone, too, is bound to this process until it is complete: see `detach`.
        let request = CloneRequest {
            name: name.clone(),
            purpose,
            holder: Some(Holder::this_process()),
            object_size: engine.object_size.map(|size| size.as_u64()),
            pod: None,
            unverified: false,
        };
        let golden = block_in_place(|| clone_of(&context.store, reference, &request))?;
        let started = Self::start_on(context, &golden, name, purpose, engine, cancel).await;
        let Err(error) = started else { return started };
        end_or_warn(context, name).await;
        // Ctrl-C reaches what we run as well, whose failure is then none.
        Err(if cancel.is_cancelled() { aldaas_ingest::Error::Cancelled.into() } else { error })
    }

    async fn start_on(
        context: &Context,
        golden: &GoldenImage,
        name: &CloneName,
        purpose: Purpose,
        engine: &Engine,
        cancel: &CancellationToken,
    ) -> Result<Self> {
        let marker = marker(&golden.name);
        let want = OpenVolume::writable(&marker);
        let volume = block_in_place(|| context.node.open(&context.clone_spec(name), &want))?;
        fail_point!("cli::after-open");
        let work_dir = context.work_dir_of(name);
        let engine_dir = make_work_dir(&work_dir, &context.supervisor.user)?;
        let arguments = serve_arguments(golden, purpose, engine, &volume.data, &engine_dir);
        let lifetime = match purpose {
            Purpose::Named => Lifetime::Detached,
            _ => Lifetime::WithUs,
        };
        let mut running = context.supervisor.start_held(&arguments, &engine_dir, lifetime)?;
        fail_point!("cli::before-holder");
        if let Some(holder) = running.pid().and_then(Holder::of_process) {
            write_whole(&work_dir.join(HOLDER), holder.encode().as_bytes())?;
        }
        fail_point!("cli::after-holder");
        // Only now, that others can find it, may there be an engine.
        running.go().await?;
        fail_point!("cli::after-engine-start");
        let (port, socket_dir) = loop {
            match running.next(cancel).await? {
                Some(Event::Ready { port, socket_dir, .. }) => break (port, socket_dir),
                Some(_) => {}
                None => return Err(running.unexpected_end().await.into()),
            }
        };
        let address = Address::new(golden, name, engine.listen, port, socket_dir.into());
        write_whole(&work_dir.join(ADDRESS), &serde_json::to_vec(&address)?)?;
        Ok(Self { address, engine: running })
    }

    /// Lets the clone outlive us: from here on only `rm` ends it. Unless the user said stop meanwhile.
    pub async fn detach(self, context: &Context, cancel: &CancellationToken) -> Result<Address> {
        fail_point!("cli::before-detach");
        let released = match cancel.is_cancelled() {
            true => Err(aldaas_ingest::Error::Cancelled.into()),
            false => block_in_place(|| context.store.release_clone(&self.address.name))
                .map_err(anyhow::Error::from),
        };
        if let Err(error) = released {
            end_or_warn(context, &self.address.name).await;
            return Err(error);
        }
        self.engine.forget();
        Ok(self.address)
    }
}

/// Clones what the reference means. What was `latest` may be retired before it is cloned: then the next one is.
fn clone_of(
    store: &Store,
    reference: &ImageRef,
    request: &CloneRequest,
) -> Result<GoldenImage, golden::Error> {
    loop {
        let golden = store.resolve(reference, None)?;
        match store.clone_image(&golden, request) {
            Err(golden::Error::NoImage(_)) if reference.version == Version::Latest => {}
            other => return other.map(|_| golden),
        }
    }
}

fn serve_arguments(
    golden: &GoldenImage,
    purpose: Purpose,
    engine: &Engine,
    data: &Path,
    engine_dir: &Path,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "serve".into(),
        "--data-dir".into(),
        data.into(),
        "--database".into(),
        golden.name.database().to_string().into(),
        "--work-dir".into(),
        engine_dir.into(),
        "--listen".into(),
        engine.listen.to_string().into(),
        "--port".into(),
        engine.port.to_string().into(),
    ];
    if purpose == Purpose::Run {
        // It goes with this process whatever happens: nothing of it has to survive a crash of the machine.
        arguments.extend(["--no-fsync".into(), "--stop".into(), "immediate".into()]);
    }
    arguments
}

/// The superuser of every clone's engine.
const SUPERUSER: &str = "postgres";
/// In a clone's work directory: its engine's supervisor.
const HOLDER: &str = "holder";
/// In a clone's work directory: how to reach it.
const ADDRESS: &str = "address.json";
/// In a clone's work directory: what is the engine's.
const ENGINE: &str = "engine";
/// How long an engine that was told to stop may take, and then how long it may take to die.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes away a clone with all that belongs to it on this machine: engine, mount, device, image, directory. What is gone
/// already is fine.
pub async fn end(context: &Context, name: &CloneName) -> Result<()> {
    let work_dir = context.work_dir_of(name);
    stop_engine(&work_dir).await?;
    fail_point!("cli::after-engine-stop");
    block_in_place(|| context.node.close(&context.clone_spec(name)))?;
    fail_point!("cli::after-close");
    let removed = block_in_place(|| context.store.remove_clone(name));
    remove_work_dir(&work_dir)?;
    match removed {
        Ok(()) | Err(golden::Error::NoClone(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The same where something else is to be told.
pub async fn end_or_warn(context: &Context, name: &CloneName) {
    if let Err(error) = end(context, name).await {
        output::tell(format_args!(
            "clone {name} could not be removed ({}): `aldaas rm {name}` tries again",
            output::one_line(&error)
        ));
    }
}

/// How to reach a clone that runs on this machine.
pub fn address(work_dir: &Path) -> Option<Address> {
    let holder = read_holder(work_dir)?;
    let address = serde_json::from_slice(&fs::read(work_dir.join(ADDRESS)).ok()?).ok()?;
    holder.is_alive_here().then_some(address)
}

/// The supervisor noted in a work directory. Only what we wrote ourselves is believed: processes are ended on its word.
fn read_holder(work_dir: &Path) -> Option<Holder> {
    let path = work_dir.join(HOLDER);
    let metadata = fs::symlink_metadata(&path).ok()?;
    let ours = metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw();
    fs::read_to_string(path).ok().filter(|_| ours)?.parse().ok()
}

/// Stops the engine whose supervisor is noted in a work directory, if it still runs here.
pub async fn stop_engine(work_dir: &Path) -> Result<()> {
    let Some(holder) = read_holder(work_dir) else { return Ok(()) };
    for (signal, patience) in [(Signal::TERM, STOP_TIMEOUT), (Signal::KILL, KILL_TIMEOUT)] {
        let deadline = Instant::now() + patience;
        // A process id means something only where and while its process lives.
        if let (true, Some(pid)) = (holder.is_alive_here(), Pid::from_raw(holder.pid.cast_signed())) {
            let _ = rustix::process::kill_process(pid, signal);
        }
        while holder.is_alive_here() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if !holder.is_alive_here() {
            return Ok(());
        }
    }
    bail!("the engine's supervisor ({holder}) does not end: the disk under it may hang, see `ceph -s`")
}

/// Removes a clone's work directory. Only files of ours and the engine's are in it, and never a mount.
pub fn remove_work_dir(work_dir: &Path) -> Result<()> {
    match fs::remove_dir_all(work_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", work_dir.display()))
        }
        _ => Ok(()),
    }
}

/// Makes a clone's work directory, and in it the engine's, which is returned.
fn make_work_dir(work_dir: &Path, user: &EngineUser) -> Result<PathBuf> {
    let engine_dir = work_dir.join(ENGINE);
    fs::create_dir_all(&engine_dir)
        .and_then(|()| std::os::unix::fs::chown(&engine_dir, Some(user.uid), Some(user.gid)))
        .and_then(|()| fs::set_permissions(&engine_dir, fs::Permissions::from_mode(0o700)))
        .with_context(|| format!("make directory {}", engine_dir.display()))?;
    Ok(engine_dir)
}

/// Writes a file so that whoever reads it sees all of it or nothing.
fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("write {}", path.display()))
}
