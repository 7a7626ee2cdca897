//! Parts of a group, each of which can be measured alone while it is worked on.

use clap::{Args, ValueEnum};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// One clone, one publish: the time
    Clone,
    /// RADOS operations of a publish and an unpublish
    Operations,
    /// Clones of small and large images
    Size,
    /// A hundred at once; for the plugin also its memory
    Storm,
    /// `aldaas run`
    Run,
    /// What is written makes taking away no slower
    Unpublish,
    /// One pass of the reaper
    Reaper,
    /// Throughput
    Fio,
    /// A hundred volumes
    Many,
    /// The object size of clones
    Sizes,
}

/// Which parts of a group are wanted.
#[derive(Args)]
pub struct Only {
    /// Measure only these, to work on them
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

impl Only {
    /// Whether this part is wanted: each is where none is named.
    pub fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}
