//! `aldaas images`: which golden images there are, and which one is latest.

use std::process::ExitCode;

use aldaas_api::{DatabaseName, GoldenImageName};
use aldaas_golden::GoldenImage;
use aldaas_golden::images::latest_of;
use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::args::{Global, Images};
use crate::context;
use crate::output::{self, Rows};

#[derive(Serialize)]
struct Row {
    database: DatabaseName,
    image: GoldenImageName,
    state: &'static str,
    latest: bool,
    created_at: Timestamp,
    volume_bytes: u64,
    data_bytes: Option<u64>,
    tables: Option<u64>,
    rows: Option<u64>,
    engine: Option<String>,
    source: String,
    reason: Option<String>,
}

pub fn run(global: &Global, command: Images) -> Result<ExitCode> {
    let mut images = context::store(global)?.golden_images()?;
    if let Some(database) = &command.database {
        images.retain(|image| image.name.database() == database);
    }
    let latest = latest_of(&images);
    let is_latest = |name: &GoldenImageName| latest.get(name.database()) == Some(name);
    let rows: Vec<Row> = images.into_iter().map(|image| Row::new(is_latest(&image.name), image)).collect();
    output::list(
        global.output,
        &rows,
        "no golden images yet: build one with `aldaas ingest DATABASE --from DUMP`",
    )?;
    Ok(ExitCode::SUCCESS)
}

impl Row {
    fn new(latest: bool, image: GoldenImage) -> Self {
        let manifest = image.record.manifest.as_ref();
        let contents = manifest.map(|manifest| &manifest.contents);
        Self {
            database: image.name.database().clone(),
            state: image.record.state.as_str(),
            latest,
            created_at: image.record.created_at,
            volume_bytes: image.record.size,
            data_bytes: contents.map(|contents| contents.bytes),
            tables: contents.map(|contents| contents.tables),
            rows: contents.map(|contents| contents.rows),
            engine: manifest.map(|manifest| format!("{} {}", manifest.engine.name, manifest.engine.version)),
            source: image.record.source,
            reason: image.record.reason,
            image: image.name,
        }
    }
}

impl Rows for Row {
    fn headings() -> Vec<&'static str> {
        vec!["database", "image", "state", "age", "data", "rows", "engine", "source"]
    }

    fn row(&self) -> Vec<String> {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let state = match (&self.reason, self.latest) {
            (Some(reason), _) => format!("{}: {reason}", self.state),
            (None, true) => format!("{}, latest", self.state),
            (None, false) => self.state.to_owned(),
        };
        vec![
            self.database.to_string(),
            self.image.to_string(),
            state,
            output::age(self.created_at),
            or_dash(self.data_bytes.map(output::bytes)),
            or_dash(self.rows.map(|rows| rows.to_string())),
            or_dash(self.engine.clone()),
            self.source.clone(),
        ]
    }
}
