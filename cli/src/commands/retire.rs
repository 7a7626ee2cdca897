//! `aldaas retire`: takes a golden image away; clones of it live on.

use std::process::ExitCode;

use aldaas_api::GoldenImageName;
use aldaas_golden::Gone;
use anyhow::Result;
use serde::Serialize;

use crate::args::{Global, Retire};
use crate::signals::Signals;
use crate::{context, output};

#[derive(Serialize)]
struct Retired {
    image: GoldenImageName,
    /// Whether its space is free already, or goes with its last clone.
    removed: bool,
}

pub fn run(global: &Global, command: Retire) -> Result<ExitCode> {
    // It takes no time; a Ctrl-C meanwhile changes nothing.
    let _signals = Signals::watch()?;
    let gone = context::store(global)?.retire(&command.image, command.force)?;
    let retired = Retired { removed: gone == Gone::Yes, image: command.image };
    output::one(global.output, &retired, || match retired.removed {
        true => format!("{} retired and removed", retired.image),
        false => format!(
            "{} retired; clones of it live on, and its space is freed with the last of them",
            retired.image
        ),
    })?;
    Ok(ExitCode::SUCCESS)
}
