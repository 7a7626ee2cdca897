//! A clone, mounted on this machine, with its engine running on it.
//!
//! [`Session::start`] makes one or nothing; [`end`] takes away whatever there is of one, from observed state, so that it serves for
//! `run`, for `rm`, and after a crash alike. In the clone's work directory are the engine's socket and log, and, for an engine that
//! outlives us, `holder` (its supervisor's process) and `events` (what that said).

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldaas_api::event::Event;
use aldaas_api::{CloneName, GoldenImageName};
use aldaas_golden::{CloneRequest, GoldenImage, Holder, Purpose};
use aldaas_ingest::driver::marker;
use aldaas_ingest::supervisor::{Lifetime, Running};
use aldaas_volume::OpenVolume;
use anyhow::{Context as _, Result};
use fail::fail_point;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::args::Engine;
use crate::context::Context;

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
pub struct Session {
    /// How to reach it.
    pub address: Address,
    /// The engine's supervisor.
    pub engine: Running,
}

impl Session {
    /// Clones, mounts, starts. On failure nothing of it is left.
    pub async fn start(
        context: &Context,
        golden: &GoldenImage,
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
        };
        context.store.clone_image(golden, &request)?;
        let started = Self::start_on(context, golden, name, purpose, engine, cancel).await;
        let Err(error) = started else { return started };
        if let Err(error) = end(context, name).await {
            tracing::warn!(%error, "clone {name} is left over: `aldaas doctor --clean` removes it");
        }
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
        let spec = context.clone_spec(name);
        let volume = context.node.open(&spec, &OpenVolume::writable(&marker(&golden.name)))?;
        fail_point!("cli::after-open");
        let work_dir = make_work_dir(context, name)?;
        let arguments = serve_arguments(golden, purpose, engine, &volume.data, &work_dir);
        let lifetime = match purpose {
            Purpose::Named => Lifetime::Detached,
            Purpose::Run | Purpose::Verify => Lifetime::WithUs,
        };
        let mut running = context.supervisor.start(&arguments, &work_dir, None, lifetime)?;
        if let Some(holder) = running.pid().and_then(Holder::of_process) {
            fs::write(work_dir.join(HOLDER), holder.encode())?;
        }
        fail_point!("cli::after-engine-start");
        let (port, socket_dir) = loop {
            match running.next(cancel).await? {
                Some(Event::Ready { port, socket_dir, .. }) => break (port, socket_dir),
                Some(_) => {}
                None => return Err(running.unexpected_end().await.into()),
            }
        };
        let address = Address::new(golden, name, engine.listen, port, socket_dir.into());
        fs::write(work_dir.join(ADDRESS), serde_json::to_vec(&address)?)?;
        Ok(Self { address, engine: running })
    }

    /// Lets the clone outlive us: from here on only `rm` ends it. Unless the user said stop meanwhile.
    pub async fn detach(self, context: &Context, cancel: &CancellationToken) -> Result<Address> {
        fail_point!("cli::before-detach");
        if cancel.is_cancelled() {
            end(context, &self.address.name).await?;
            return Err(aldaas_ingest::Error::Cancelled.into());
        }
        context.store.release_clone(&self.address.name)?;
        self.engine.forget();
        Ok(self.address)
    }
}

fn serve_arguments(
    golden: &GoldenImage,
    purpose: Purpose,
    engine: &Engine,
    data: &Path,
    work_dir: &Path,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![
        "serve".into(),
        "--data-dir".into(),
        data.into(),
        "--database".into(),
        golden.name.database().to_string().into(),
        "--work-dir".into(),
        work_dir.into(),
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
/// How long an engine that was told to stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// Takes away a clone with all that belongs to it on this machine: engine, mount, device, image, directory.
pub async fn end(context: &Context, name: &CloneName) -> Result<()> {
    let work_dir = context.work_dir().join(name.as_str());
    stop_engine(&work_dir).await?;
    fail_point!("cli::after-engine-stop");
    context.node.close(&context.clone_spec(name))?;
    fail_point!("cli::after-close");
    let removed = context.store.remove_clone(name);
    remove_work_dir(&work_dir)?;
    Ok(removed?)
}

/// How to reach a clone that runs on this machine.
pub fn address(work_dir: &Path, name: &CloneName) -> Option<Address> {
    let dir = work_dir.join(name.as_str());
    let holder: Holder = fs::read_to_string(dir.join(HOLDER)).ok()?.parse().ok()?;
    let address = serde_json::from_slice(&fs::read(dir.join(ADDRESS)).ok()?).ok()?;
    (!holder.is_dead()).then_some(address)
}

/// Stops the engine whose supervisor is noted in a work directory, if it still runs.
pub async fn stop_engine(work_dir: &Path) -> Result<()> {
    let Ok(text) = fs::read_to_string(work_dir.join(HOLDER)) else { return Ok(()) };
    let Ok(holder) = text.parse::<Holder>() else { return Ok(()) };
    let deadline = tokio::time::Instant::now() + STOP_TIMEOUT;
    let mut signal = rustix::process::Signal::TERM;
    while !holder.is_dead() {
        if let Some(pid) = rustix::process::Pid::from_raw(holder.pid.cast_signed()) {
            let _ = rustix::process::kill_process(pid, signal);
        }
        // The first signal is enough; what follows only waits, until patience ends.
        while !holder.is_dead() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        signal = rustix::process::Signal::KILL;
    }
    Ok(())
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

fn make_work_dir(context: &Context, name: &CloneName) -> Result<PathBuf> {
    let work_dir = context.work_dir().join(name.as_str());
    let user = &context.supervisor.user;
    fs::create_dir_all(&work_dir)
        .and_then(|()| std::os::unix::fs::chown(&work_dir, Some(user.uid), Some(user.gid)))
        .with_context(|| format!("make directory {}", work_dir.display()))?;
    Ok(work_dir)
}
