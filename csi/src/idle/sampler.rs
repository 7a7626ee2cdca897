//! Looking at all published clones at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aldaas_api::CloneName;

use super::file::{File, Tracks};
use super::process::Processes;
use super::{Idle, advance, block, tcp};

/// A clone that a pod of this node has.
#[derive(Clone, Debug)]
pub struct Published {
    /// The clone.
    pub clone: CloneName,
    /// The pod's UID.
    pub pod_uid: String,
    /// Its device, `/dev/loop3`.
    pub device: PathBuf,
    /// The port on which its engine listens, or why that is not known.
    pub port: Result<u16, String>,
}

/// What all looks said.
#[derive(Clone, Debug, Default)]
pub struct Looked {
    /// Of each clone.
    pub idle: BTreeMap<CloneName, Idle>,
    /// Bytes that were written to all of them since the look before.
    pub written: u64,
}

/// Looks at clones, and remembers since when they have been idle.
pub struct Sampler {
    file: File,
    tracks: Mutex<Tracks>,
}

impl Sampler {
    /// Goes on from what an earlier plugin remembered.
    pub fn new(run_dir: &Path) -> Self {
        let file = File::new(run_dir);
        let tracks = Mutex::new(file.load());
        Self { file, tracks }
    }

    /// Looks at these clones, and forgets all others. Blocking, and quick.
    pub fn look(&self, published: &[Published], now: Duration) -> Looked {
        let mut tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        let processes = if published.is_empty() { None } else { Some(Processes::read()) };
        let (mut looked, mut next) = (Looked::default(), Tracks::new());
        for (one, processes) in published.iter().zip(processes.iter().cycle()) {
            let before = tracks.get(&one.clone).copied();
            let io = block::read(&one.device);
            if let (Some(io), Some(before)) = (io, before) {
                looked.written += io.written.saturating_sub(before.last.written);
            }
            let connections = connections(processes, one);
            let port = *one.port.as_ref().unwrap_or(&0);
            let (track, idle) = advance(before, io, &connections, port, now);
            next.extend(track.map(|track| (one.clone.clone(), track)));
            looked.idle.insert(one.clone.clone(), idle);
        }
        if *tracks != next {
            *tracks = next;
            if let Err(error) = self.file.save(&tracks) {
                tracing::warn!(%error, "since when clones are idle is forgotten at the next restart");
            }
        }
        looked
    }

    /// Whether a clone that was idle at the last look still is.
    pub fn is_idle(&self, one: &Published) -> bool {
        let tracks = self.tracks.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((track, io)) = tracks.get(&one.clone).zip(block::read(&one.device)) else { return false };
        let same = track.last.is_before(&io) && io.since(&track.last) <= block::allowed(Duration::ZERO);
        same && connections(&Processes::read(), one) == Ok(0)
    }
}

fn connections(processes: &Processes, one: &Published) -> Result<usize, String> {
    let port = one.port.clone()?;
    let mut found = processes.of_pod(&one.pod_uid);
    if found.is_empty() {
        let device = device_number(&one.device).ok_or("its device is gone")?;
        found = processes.with_mount(device);
    }
    if found.is_empty() {
        return Err("no process of its pod is seen from here".to_owned());
    }
    let counts = found.iter().map(|process| tcp::connections(process, port));
    counts.sum::<std::io::Result<usize>>().map_err(|error| format!("read its pod's connections: {error}"))
}

fn device_number(device: &Path) -> Option<(u32, u32)> {
    let number = std::fs::read_to_string(Path::new("/sys/class/block").join(device.file_name()?).join("dev"));
    aldaas_volume::mountinfo::parse_device(&number.ok()?)
}
