//! The figures that are promised on a Kubernetes, as ratios in one run: `e2e/run --bench`.

mod clock;
// It has bounds that only other figures have.
#[allow(dead_code)]
#[path = "../../bench/src/figure.rs"]
mod figure;
mod ingest;
mod pods;
mod shares;

use std::path::PathBuf;

use aldaas_e2e::Site;
use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let usage = "usage: aldaas-e2e-bench --json FILE [pods|ingest]...";
    anyhow::ensure!(arguments.next().is_some_and(|word| word == "--json"), usage);
    let json = PathBuf::from(arguments.next().context(usage)?);
    let parts: Vec<_> = arguments.collect();
    anyhow::ensure!(parts.iter().all(|part| part == "pods" || part == "ingest"), usage);
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let (site, mut figures) = (Site::get(), Vec::new());
    if wanted("pods") {
        figures.extend(pods::measure(&site));
    }
    if wanted("ingest") {
        figures.extend(ingest::measure(&site)?);
    }
    figure::report(&figures, &json)
}
