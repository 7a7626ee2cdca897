//! `aldaas rm`: removes clones, stopping their databases.

use std::process::ExitCode;

use anyhow::Result;

use crate::args::{Global, Output, Remove};
use crate::context::Context;
use crate::signals::cancel_on_signal;
use crate::{output, session};

pub async fn run(global: &Global, command: Remove) -> Result<ExitCode> {
    // A removal that was begun is ended: Ctrl-C keeps the next one from beginning.
    let cancel = cancel_on_signal()?;
    let context = tokio::task::block_in_place(|| Context::open(global))?;
    let mut removed = Vec::new();
    let mut failed = false;
    for name in &command.names {
        if cancel.is_cancelled() {
            failed = true;
            break;
        }
        // One that can't go doesn't keep the others.
        let ended = match context.store.find_clone(name) {
            Ok(_) => session::end(&context, name).await,
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(()) => removed.push(name),
            Err(error) => {
                eprintln!("error: {}", output::one_line(&error));
                failed = true;
            }
        }
    }
    match global.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&removed)?),
        Output::Table => removed.iter().for_each(|name| println!("{name} removed")),
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
