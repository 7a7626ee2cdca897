//! `aldaas clone`: a database that stays until `aldaas rm`.

use std::process::ExitCode;
use std::time::Instant;

use aldaas_api::CloneName;
use aldaas_golden::Purpose;
use anyhow::Result;

use crate::args::{Global, MakeClone};
use crate::context::Context;
use crate::output;
use crate::session::Session;
use crate::signals::cancel_on_signal;

pub async fn run(global: &Global, command: MakeClone) -> Result<ExitCode> {
    let started = Instant::now();
    let cancel = cancel_on_signal()?;
    let context = tokio::task::block_in_place(|| Context::open(global))?;
    let golden = tokio::task::block_in_place(|| context.store.resolve(&command.image, None))?;
    let name = match command.name {
        Some(name) => name,
        None => made_up_name(golden.name.database().as_str())?,
    };
    let session = Session::start(&context, &golden, &name, Purpose::Named, &command.engine, &cancel).await?;
    let address = session.detach(&context, &cancel).await?;
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
