//! `aldaas rm`: removes clones, stopping their databases.

use std::process::ExitCode;

use anyhow::Result;
use tokio::task::block_in_place;

use crate::args::{Global, Output, Remove};
use crate::context::Context;
use crate::signals::Signals;
use crate::{output, running};

pub async fn run(global: &Global, command: Remove) -> Result<ExitCode> {
    // A removal that was begun is ended: Ctrl-C keeps the next one from beginning.
    let signals = Signals::watch()?;
    let context = block_in_place(|| Context::open(global))?;
    let mut removed = Vec::new();
    let mut failed = false;
    for name in &command.names {
        if signals.cancel.is_cancelled() {
            failed = true;
            break;
        }
        // One that can't go doesn't keep the others.
        let ended = match block_in_place(|| context.store.find_clone(name)) {
            Ok(_) => running::end(&context, name).await,
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(()) => removed.push(name),
            Err(error) => {
                output::tell(format_args!("error: {}", output::one_line(&error)));
                failed = true;
            }
        }
    }
    match global.output {
        Output::Json => output::print(&serde_json::to_string_pretty(&removed)?)?,
        Output::Table => {
            for name in removed {
                output::print(&format!("{name} removed"))?;
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
