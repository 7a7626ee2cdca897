//! `aldaas clone`: a database that stays until `aldaas rm`.

use std::process::ExitCode;
use std::time::Instant;

use aldaas_api::CloneName;
use aldaas_golden::Purpose;
use anyhow::Result;
use tokio::task::block_in_place;

use crate::args::{Global, MakeClone};
use crate::context::Context;
use crate::output;
use crate::running::RunningClone;
use crate::signals::Signals;

pub async fn run(global: &Global, command: MakeClone) -> Result<ExitCode> {
    let started = Instant::now();
    let signals = Signals::watch()?;
    let context = block_in_place(|| Context::open(global))?;
    let (image, engine, cancel) = (&command.image, &command.engine, &signals.cancel);
    let name = match (command.name, &image.database) {
        (Some(name), _) => name,
        (None, Some(database)) => made_up_name(database.as_str())?,
        (None, None) => made_up_name("clone")?,
    };
    let clone = RunningClone::start(&context, image, &name, Purpose::Named, engine, cancel).await?;
    let address = clone.detach(&context, cancel).await?;
    output::one(global.output, &address, || {
        format!(
            "{url}\n{image} as clone {name}, {took:.2} s; `aldaas rm {name}` removes it",
            url = address.url,
            image = address.image,
            took = started.elapsed().as_secs_f64()
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A name that nobody else makes up: `run-18f3c2a9b4d1`.
pub fn made_up_name(prefix: &str) -> Result<CloneName> {
    let mut random = [0; 6];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{prefix}-{hex}").parse()?)
}
