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
    /// What it may be at most, or has to be at least; nothing where a figure is only said.
    pub bound: Option<f64>,
    /// Whether the bound is what it has to be at least.
    pub at_least: bool,
    /// Whether it is.
    pub holds: bool,
}

/// What a figure may be, held against its baseline.
#[derive(Clone, Copy)]
pub enum Bound {
    /// So many times the baseline.
    Times(f64),
    /// So many times the baseline, or more.
    AtLeastTimes(f64),
    /// So much more than the baseline.
    More(f64),
    /// Anything: it is for reading beside others.
    Said,
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
        let times = value / baseline_value;
        let (ratio, limit, at_least) = match bound {
            Bound::Times(limit) => (times, Some(limit), false),
            Bound::AtLeastTimes(limit) => (times, Some(limit), true),
            Bound::More(limit) => (value - baseline_value, Some(limit), false),
            Bound::Said => (times, None, false),
        };
        let holds = limit.is_none_or(|limit| if at_least { ratio >= limit } else { ratio <= limit });
        let (name, baseline) = (name.to_owned(), baseline.to_owned());
        Self { name, value, unit, baseline, baseline_value, ratio, bound: limit, at_least, holds }
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
            figure.bound.map_or_else(String::new, |bound| {
                format!("{} {bound:.2}", if figure.at_least { "≥" } else { "≤" })
            }),
            match (figure.bound, figure.holds) {
                (None, _) => "",
                (_, true) => "holds",
                (_, false) => "DOES NOT HOLD",
            }
            .to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_holds_on_the_right_side_of_its_bound() {
        let holds = |value, bound| Figure::new("f", "ms", value, "b", 10.0, bound).holds;
        assert!(holds(11.0, Bound::Times(1.1)) && !holds(12.0, Bound::Times(1.1)));
        assert!(holds(20.0, Bound::AtLeastTimes(2.0)) && !holds(19.0, Bound::AtLeastTimes(2.0)));
        assert!(holds(26.0, Bound::More(16.0)) && !holds(27.0, Bound::More(16.0)));
        assert!(holds(1e9, Bound::Said) && !holds(f64::NAN, Bound::Times(1.0)));
    }
}
