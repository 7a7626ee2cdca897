//! What a front end is told while an ingest runs.

use std::fmt;

use aldaas_api::event::Step;

/// Called as the work goes on, from whatever thread does it.
pub type Observer<'a> = &'a (dyn Fn(Progress) + Send + Sync);

/// Something happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The next part began.
    Stage(Stage),
    /// Inside the restore or the check, the next step began.
    Step(Step),
    /// Bytes of the dump read so far, of how many.
    Bytes {
        /// Read so far, as stored.
        done: u64,
        /// The dump's size, where known.
        total: Option<u64>,
    },
}

/// The parts of an ingest, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Look at the dump and make a blank volume.
    Prepare,
    /// Restore the dump into it.
    Restore,
    /// Unmount it and take the snapshot.
    Seal,
    /// Try it out on a clone.
    Verify,
}

impl Stage {
    /// In the order in which they happen.
    pub const ALL: [Self; 4] = [Self::Prepare, Self::Restore, Self::Seal, Self::Verify];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Restore => "restore",
            Self::Seal => "seal",
            Self::Verify => "verify",
        })
    }
}
