//! Whether a published clone is in use, measured from outside and without knowing its engine.
//!
//! Two things are seen: established TCP connections to the engine's port in the pod's network namespace ([`tcp`]), and block
//! I/O of the clone's device beyond what an engine does by itself ([`block`]). What can't be seen counts as in use. Time is
//! elapsed time of this machine since it was started, kept over restarts of the plugin in a small file ([`file`]).
//!
//! [`Sampler`] looks; [`advance`] decides, and is pure.

pub mod block;
pub mod file;
pub mod process;
pub mod sampler;
pub mod tcp;

use std::fmt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

pub use sampler::{Published, Sampler};

use block::Io;

/// The time since this machine was started, sleep included: the only clock that idleness and grace times know.
pub fn boottime() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// What was last seen of a clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// For how long nobody has used it; zero: it is in use.
    pub elapsed: Duration,
    /// What was seen last, in words.
    pub seen: Seen,
}

/// One look at a clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// So many established connections to the engine's port.
    Connections {
        /// How many.
        count: usize,
        /// Which port.
        port: u16,
    },
    /// No connection, but block I/O: bytes since the last time that there was none.
    Io(u64),
    /// Neither.
    Nothing {
        /// The port that was looked at.
        port: u16,
        /// Bytes of block I/O since it has been idle: the engine's own noise.
        noise: u64,
    },
    /// It can't be told, and why: it counts as in use.
    Unknown(String),
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.seen {
            Seen::Connections { count, port } => write!(f, "{count} TCP connection(s) to port {port}"),
            Seen::Io(bytes) => write!(f, "{} KiB read or written lately", bytes / 1024),
            Seen::Nothing { port, noise } => write!(
                f,
                "for {} s no TCP connection to port {port} and no block I/O but the engine's own ({} KiB)",
                self.elapsed.as_secs(),
                noise / 1024
            ),
            Seen::Unknown(why) => write!(f, "it can't be told whether it is in use ({why}), so it is"),
        }
    }
}

/// What is remembered of a clone from one look to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// Since when it has been idle; the time of the last look that saw it in use.
    pub since: Duration,
    /// The device's counters then.
    pub io: Io,
    /// The device's counters at the last look: for what pods write.
    pub last: Io,
}

/// Takes in one look: what is remembered, and what it means. `connections` is `Err` where they can't be counted.
pub fn advance(
    before: Option<Track>,
    io: Option<Io>,
    connections: &Result<usize, String>,
    port: u16,
    now: Duration,
) -> (Option<Track>, Idle) {
    let Some(io) = io else {
        let seen = Seen::Unknown("its device has no counters".to_owned());
        return (None, Idle { elapsed: Duration::ZERO, seen });
    };
    let fresh = Track { since: now, io, last: io };
    let busy = |seen| (Some(fresh), Idle { elapsed: Duration::ZERO, seen });
    // Counters that went back are another device's.
    let before = before.filter(|track| track.last.is_before(&io) && track.since <= now).unwrap_or(fresh);
    let elapsed = now.saturating_sub(before.since);
    let noise = io.since(&before.io);
    match connections {
        Err(why) => busy(Seen::Unknown(why.clone())),
        Ok(0) if noise > block::allowed(elapsed) => busy(Seen::Io(noise)),
        Ok(0) => (Some(Track { last: io, ..before }), Idle { elapsed, seen: Seen::Nothing { port, noise } }),
        Ok(count) => busy(Seen::Connections { count: *count, port }),
    }
}
