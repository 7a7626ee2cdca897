//! Block I/O of a device, and how much of it an engine does by itself.
//!
//! Measured on clones of a golden image of 82 MiB (Postgres 15 with its default settings, ext4 on a loop device on FUSE), nobody
//! connected, read every 5 s:
//!
//! | clone | read and written |
//! |---|---|
//! | started, never used | 3 KiB/s on the average of six minutes; 660 KiB in the worst half minute (autovacuum looks around) |
//! | after 10 s of pgbench (2,400 transactions) | the same, then, from 3 to 8 minutes later, 105 KiB/s: the checkpoint |
//!
//! So what an engine does by itself is told from use by its amount ([`allowed`]). The checkpoint after the last use counts as use:
//! a clone is idle some minutes later than its user thinks, never earlier.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a device has read and written since it was made, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Read.
    pub read: u64,
    /// Written.
    pub written: u64,
}

/// The unit in which the kernel counts, whatever the device's own block size.
const SECTOR: u64 = 512;

impl Io {
    /// What was read and written since an earlier look at the same device.
    pub fn since(&self, earlier: &Self) -> u64 {
        let read = self.read.saturating_sub(earlier.read);
        read.saturating_add(self.written.saturating_sub(earlier.written))
    }

    /// Whether these may be earlier counters of the same device: they only grow.
    pub fn is_before(&self, later: &Self) -> bool {
        self.read <= later.read && self.written <= later.written
    }
}

/// What may come at any time: six times the worst half minute.
const BURST: u64 = 4 << 20;
/// What may come in each second: more than twice the average.
const NOISE: u64 = 8 << 10;

/// How many bytes an engine may read and write by itself in this time.
pub fn allowed(elapsed: Duration) -> u64 {
    BURST.saturating_add(NOISE.saturating_mul(elapsed.as_secs()))
}

/// The counters of a device, `/dev/loop3`; none if there is no such device.
pub fn read(device: &Path) -> Option<Io> {
    let name = device.file_name()?;
    parse(&std::fs::read_to_string(Path::new("/sys/class/block").join(name).join("stat")).ok()?)
}

/// `stat` in sysfs: read I/Os, merges, sectors and milliseconds, then the same of writes.
fn parse(stat: &str) -> Option<Io> {
    let mut fields = stat.split_ascii_whitespace().map(str::parse::<u64>);
    let read = fields.nth(2)?.ok()?.checked_mul(SECTOR)?;
    let written = fields.nth(3)?.ok()?.checked_mul(SECTOR)?;
    Some(Io { read, written })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_counters_are_read() {
        let loop_of_6_18 = "   49937  0 1024 100 800 7 2048 300 0 500 400 0 0 0 0 10 20\n";
        assert_eq!(parse(loop_of_6_18), Some(Io { read: 1024 * 512, written: 2048 * 512 }));
        assert_eq!(parse("1 2 x"), None);
        assert_eq!(parse(""), None);
        assert_eq!(read(Path::new("/dev/no-such-device")), None);
    }

    #[test]
    fn an_engine_that_nobody_uses_is_not_taken_for_one_in_use_and_a_checkpoint_is() {
        let seconds = Duration::from_secs;
        assert!(660 << 10 < allowed(seconds(30)) && 3 * (1 << 10) * 3600 < allowed(seconds(3600)));
        assert!(105 * (1 << 10) * 60 > allowed(seconds(60)));
    }
}
