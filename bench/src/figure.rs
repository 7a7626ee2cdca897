//! A figure: what was measured, what it is held against, and whether it holds.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use comfy_table::{Table, presets};
use serde::Serialize;

/// One line of the result.
#[derive(Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// How much it was.
    pub value: f64,
    /// In what unit.
    pub unit: &'static str,
    /// What it is held against.
    pub baseline: String,
    /// How much that was, in the same run.
    pub baseline_value: f64,
    /// The one over the other; for a difference, the value less the baseline.
    pub ratio: f64,
    /// What it may be at most.
    pub bound: f64,
    /// Whether it is.
    pub holds: bool,
}

/// What a figure may be at most, held against its baseline.
pub enum Bound {
    /// So many times the baseline.
    Times(f64),
    /// So much more than the baseline.
    More(f64),
}

impl Figure {
    /// Holds `value` against `baseline_value`, which `baseline` names.
    pub fn new(
        name: &str,
        unit: &'static str,
        value: f64,
        baseline: &str,
        baseline_value: f64,
        bound: Bound,
    ) -> Self {
        let (ratio, bound) = match bound {
            Bound::Times(bound) => (value / baseline_value, bound),
            Bound::More(bound) => (value - baseline_value, bound),
        };
        let (name, baseline, holds) = (name.to_owned(), baseline.to_owned(), ratio <= bound);
        Self { name, value, unit, baseline, baseline_value, ratio, bound, holds }
    }
}

/// Prints the figures and writes them as JSON.
pub fn report(figures: &[Figure], json: &Path) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["FIGURE", "VALUE", "UNIT", "AGAINST", "ITS VALUE", "RATIO", "BOUND", ""]);
    for figure in figures {
        table.add_row([
            figure.name.clone(),
            format!("{:.2}", figure.value),
            figure.unit.to_owned(),
            figure.baseline.clone(),
            format!("{:.2}", figure.baseline_value),
            format!("{:.2}", figure.ratio),
            format!("{:.2}", figure.bound),
            if figure.holds { "holds" } else { "DOES NOT HOLD" }.to_owned(),
        ]);
    }
    println!("{table}");
    if let Some(parent) = json.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(json, serde_json::to_vec_pretty(figures)?)
        .with_context(|| format!("write {}", json.display()))?;
    println!("written to {}", json.display());
    Ok(())
}
