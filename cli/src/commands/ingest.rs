//! `aldaas ingest`: from a dump to a ready golden image.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use aldaas_api::GoldenImageName;
use aldaas_api::event::Step;
use aldaas_api::manifest::Manifest;
use aldaas_ingest::{IngestRequest, Report, Stage};
use anyhow::Result;
use serde::Serialize;

use crate::args::{Global, Ingest, Output};
use crate::context::Context;
use crate::output;
use crate::progress::Shown;
use crate::signals::Signals;

#[derive(Serialize)]
struct Ingested {
    image: GoldenImageName,
    seconds: f64,
    stages: Vec<Timed>,
    /// How long each step of the check on a clone took, in milliseconds.
    verification: BTreeMap<Step, u64>,
    #[serde(flatten)]
    manifest: Manifest,
}

#[derive(Serialize)]
struct Timed {
    name: String,
    seconds: f64,
}

pub async fn run(global: &Global, command: Ingest) -> Result<ExitCode> {
    let started = Instant::now();
    let signals = Signals::watch()?;
    let context = tokio::task::block_in_place(|| Context::open(global))?;
    let mut restore_arguments = Vec::new();
    if let Some(jobs) = command.jobs {
        restore_arguments.extend(["--jobs".into(), jobs.to_string().into()]);
    }
    if command.allow_empty {
        restore_arguments.push("--allow-empty".into());
    }
    let request = IngestRequest {
        database: command.database,
        name: command.name,
        from: command.from,
        size: command.size.as_u64(),
        filesystem: command.filesystem,
        checks: command.check,
        restore_arguments,
        keep_failed: command.keep_failed,
    };
    let shown = Shown::new(global.output == Output::Json);
    let report = context.ingest().run(&request, &|progress| shown.show(progress), &signals.cancel).await;
    drop(shown);
    let ingested = Ingested::new(report?, started);
    output::one(global.output, &ingested, || ingested.text())?;
    Ok(ExitCode::SUCCESS)
}

impl Ingested {
    fn new(report: Report, started: Instant) -> Self {
        let stage = |stage: Stage| {
            let seconds = report.stages.get(&stage).map_or(0.0, std::time::Duration::as_secs_f64);
            Timed { name: stage.to_string(), seconds }
        };
        Self {
            stages: Stage::ALL.map(stage).into(),
            verification: report.verification,
            image: report.image,
            seconds: started.elapsed().as_secs_f64(),
            manifest: report.manifest,
        }
    }

    fn text(&self) -> String {
        let Manifest { database, source, engine, contents, .. } = &self.manifest;
        let stages: Vec<String> =
            self.stages.iter().map(|timed| format!("{} {:.1} s", timed.name, timed.seconds)).collect();
        format!(
            "{image} is ready in {seconds:.1} s ({stages})\n\
             {tables} tables, {rows} rows, {bytes} in {engine} {version}, from {source} ({size}, {format})\n\
             next: aldaas run {database}:latest",
            image = self.image,
            seconds = self.seconds,
            stages = stages.join(", "),
            tables = contents.tables,
            rows = contents.rows,
            bytes = output::bytes(contents.bytes),
            engine = engine.name,
            version = engine.version,
            source = source.location,
            size = output::bytes(source.size),
            format = source.format,
        )
    }
}
