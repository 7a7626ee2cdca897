//! Whether a published clone is in use, measured from outside and without knowing its engine.
//!
//! Two things are seen: established TCP connections to the engine's port in the pod's network namespace ([`tcp`]), and block
//! I/O of the clone's device beyond what an engine does by itself ([`block`]). What can't be seen counts as in use. Time is
//! elapsed time of this machine since it was started, kept over restarts of the plugin in a small file ([`file`](mod@file)).
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
    /// The first look of those in a row that saw it idle; none: the last one saw it in use.
    pub since: Option<Duration>,
    /// The device's counters at that look.
    pub io: Io,
    /// The device's counters at the last look.
    pub last: Io,
}

/// Takes in one look: what is remembered, and what it means. `connections` is `Err` where they can't be counted.
///
/// It is idle from the first look on that sees it so: never for longer than it really is.
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
    let busy = |seen| (Some(Track { since: None, io, last: io }), Idle { elapsed: Duration::ZERO, seen });
    // Counters that went back are another device's, and a time to come is another boot's.
    let is_ours = |track: &Track| track.last.is_before(&io) && track.since.is_none_or(|since| since <= now);
    let before = before.filter(is_ours).unwrap_or(Track { since: None, io, last: io });
    let elapsed = before.since.map(|since| now.saturating_sub(since)).unwrap_or_default();
    let noise = io.since(&before.io);
    let lately = io.since(&before.last);
    match connections {
        Err(why) => busy(Seen::Unknown(why.clone())),
        Ok(0) if noise > block::allowed(elapsed) => busy(Seen::Io(lately)),
        Ok(0) => {
            let first = before.since.is_none();
            let track = Track {
                since: Some(before.since.unwrap_or(now)),
                io: if first { io } else { before.io },
                last: io,
            };
            (Some(track), Idle { elapsed, seen: Seen::Nothing { port, noise } })
        }
        Ok(count) => busy(Seen::Connections { count: *count, port }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn io(written: u64) -> Option<Io> {
        Some(Io { read: 0, written })
    }

    #[test]
    fn idleness_begins_with_the_first_look_that_sees_it_and_ends_with_any_use() {
        let seconds = Duration::from_secs;
        let mut track = None;
        let mut look = |connections: Result<usize, String>, written, now| {
            let (next, idle) = advance(track, io(written), &connections, 5432, seconds(now));
            track = next;
            idle.elapsed.as_secs()
        };
        assert_eq!([look(Ok(1), 0, 10), look(Ok(0), 0, 40), look(Ok(0), 1000, 70)], [0, 0, 30]);
        assert_eq!(
            [look(Ok(0), 8 << 20, 100), look(Ok(0), 8 << 20, 130), look(Ok(0), 8 << 20, 160)],
            [0, 0, 30]
        );
        assert_eq!([look(Err("gone".into()), 8 << 20, 190), look(Ok(0), 8 << 20, 220)], [0, 0]);
        // Another device: the counters went back.
        assert_eq!([look(Ok(0), 8 << 20, 250), look(Ok(0), 0, 280), look(Ok(0), 0, 310)], [30, 0, 30]);
        assert_eq!(advance(track, None, &Ok(0), 5432, seconds(400)).0, None);
    }

    proptest! {
        #[test]
        fn it_is_never_idle_for_longer_than_since_it_was_last_seen_in_use(
            looks in prop::collection::vec((0_u64..100, 0_usize..2, 0_u64..3 << 20, any::<bool>()), 1..40)
        ) {
            let (mut track, mut now, mut written, mut used) = (None, 1000, 0, 1000);
            for (pause, count, bytes, known) in looks {
                now += pause;
                written += bytes;
                let connections = if known { Ok(count) } else { Err("?".to_owned()) };
                let (next, idle) = advance(track, io(written), &connections, 1, Duration::from_secs(now));
                track = next;
                if !known || count > 0 {
                    used = now;
                    prop_assert_eq!(idle.elapsed, Duration::ZERO);
                }
                prop_assert!(idle.elapsed.as_secs() <= now - used);
            }
        }
    }
}
