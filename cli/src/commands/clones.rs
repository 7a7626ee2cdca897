//! `aldaas clones`: which clones there are, and how to reach those on this machine.

use std::process::ExitCode;

use aldaas_api::{CloneName, GoldenImageName};
use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::args::{Clones, Global};
use crate::context;
use crate::output::{self, Rows};
use crate::running;

#[derive(Serialize)]
struct Row {
    name: CloneName,
    image: GoldenImageName,
    purpose: &'static str,
    cloned_at: Timestamp,
    /// Where it answers, if its engine runs on this machine.
    url: Option<String>,
    /// The process with which it ends, if any.
    holder: Option<String>,
    written_bytes: Option<u64>,
}

pub fn run(global: &Global, command: Clones) -> Result<ExitCode> {
    let store = context::store(global)?;
    let work_dir = context::work_dir(&global.run_dir);
    let mut rows = Vec::new();
    for clone in store.clones()? {
        rows.push(Row {
            image: clone.record.golden_image,
            purpose: clone.record.purpose.as_str(),
            cloned_at: clone.record.cloned_at,
            url: running::address(&work_dir.join(clone.name.as_str())).map(|address| address.url),
            holder: clone.record.holder.map(|holder| holder.to_string()),
            // Gone meanwhile: nothing to say of it.
            written_bytes: command.long.then(|| store.clone_usage(&clone.name).ok()).flatten(),
            name: clone.name,
        });
    }
    output::list(global.output, &rows, "no clones: make one with `aldaas clone DATABASE:latest NAME`")?;
    Ok(ExitCode::SUCCESS)
}

impl Rows for Row {
    fn headings() -> Vec<&'static str> {
        vec!["name", "image", "for", "age", "written", "url"]
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.name.to_string(),
            self.image.to_string(),
            self.purpose.to_owned(),
            output::age(self.cloned_at),
            self.written_bytes.map_or_else(|| "-".to_owned(), output::bytes),
            self.url.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}
