//! How soon a dump is a golden image.

use std::process::Command;
use std::time::Instant;

use aldaas_e2e::{Site, path};
use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::figure::{Bound, Figure};

/// Bytes of the dump.
const SIZE: usize = 100 << 20;

pub fn measure(site: &Site) -> Result<Vec<Figure>> {
    let database = site.database("large");
    // Its own bucket listing must not be what finds the dump.
    database.change(json!({"source": database.source("1h")}));
    let note =
        "a hundred bytes of text that is like what people write in notes of their orders, again and again";
    let dump = aldaas_e2e::dump(SIZE / (note.len() + 8), note);
    database.upload("1.sql", &dump);
    let start = Instant::now();
    notify(site, &database.name, dump.len())?;
    database.until_latest_other_than(None);
    let cluster = start.elapsed().as_secs_f64();
    let start = Instant::now();
    by_hand(site, &database.name)?;
    let alone = start.elapsed().as_secs_f64();
    Ok(vec![Figure::new(
        "100 MiB dump, notified to ready",
        "s",
        cluster,
        "aldaas ingest of it on the same machine",
        alone,
        Bound::Times(1.3),
    )])
}

/// Tells the controller, as a store does.
fn notify(site: &Site, database: &str, size: usize) -> Result<()> {
    let service = site
        .kube
        .get(&path("services", "aldaas", "aldaas-controller"))
        .context("the controller's Service")?;
    let address = service["spec"]["clusterIP"].as_str().context("its address")?;
    let event = json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "backup"}, "object": {"key": format!("{database}/1.sql"), "size": size}},
    }]});
    let url = format!("http://{address}:9811/events");
    let out = Command::new("curl")
        .args(["-sS", "--fail", "--max-time", "10", "-d", &event.to_string(), &url])
        .output()?;
    ensure!(out.status.success(), "{url}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

fn by_hand(site: &Site, database: &str) -> Result<()> {
    let programs =
        std::env::var("ALDAAS_E2E_PROGRAMS").context("ALDAAS_E2E_PROGRAMS: run e2e/run --bench")?;
    let mut aldaas = Command::new(format!("{programs}/aldaas"));
    aldaas.args([
        "ingest",
        &format!("{database}-by-hand"),
        "--from",
        &format!("s3://backup/{database}/1.sql"),
    ]);
    let out = aldaas.envs(site.bed.envs()).output().context("run aldaas")?;
    ensure!(out.status.success(), "aldaas ingest: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}
