//! `aldaas doctor`: what is here, what is left over, what this machine lacks.

mod left_over;
mod machine;

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use tokio::task::block_in_place;

use crate::args::{Doctor, Global, Output};
use crate::{context, output};

/// One line of the diagnosis.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    state: Health,
    detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Health {
    Ok,
    Missing,
    LeftOver,
    Removed,
}

impl Finding {
    fn ok(what: &'static str, detail: impl Into<String>) -> Self {
        Self { what, state: Health::Ok, detail: detail.into() }
    }

    fn missing(what: &'static str, detail: impl Into<String>) -> Self {
        Self { what, state: Health::Missing, detail: detail.into() }
    }
}

pub async fn run(global: &Global, command: Doctor) -> Result<ExitCode> {
    if command.clean {
        context::require_root()?;
    }
    let mut findings = machine::look(global);
    match block_in_place(|| context::store(global)) {
        Ok(store) => {
            findings
                .push(Finding::ok("ceph", format!("{}, pool {}", global.ceph_conf.display(), store.pool())));
            findings.extend(left_over::look(global, &store, command.clean).await);
        }
        Err(error) => findings.push(Finding::missing("ceph", output::one_line(&error))),
    }
    print(global, &findings)?;
    let healthy = findings.iter().all(|finding| matches!(finding.state, Health::Ok | Health::Removed));
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(global: &Global, findings: &[Finding]) -> Result<()> {
    if global.output == Output::Json {
        return output::print(&serde_json::to_string_pretty(findings)?);
    }
    let rows = findings.iter().map(|finding| {
        let mark = match finding.state {
            Health::Ok => "ok",
            Health::Missing => "MISSING",
            Health::LeftOver => "LEFT OVER",
            Health::Removed => "removed",
        };
        vec![finding.what.to_owned(), mark.to_owned(), finding.detail.clone()]
    });
    output::print(&output::table(vec!["what", "state", "detail"], rows))?;
    if findings.iter().any(|finding| finding.state == Health::LeftOver) {
        output::tell(format_args!("`aldaas doctor --clean` removes what is left over"));
    }
    Ok(())
}
