//! Samples of one quantity, and what is said of them.

use std::time::Instant;

/// Measured values, in the order in which they came.
#[derive(Default)]
pub struct Sample(Vec<f64>);

impl Sample {
    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Runs `work` and adds how many milliseconds it took.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.add(started.elapsed().as_secs_f64() * 1000.0);
        result
    }

    /// The value below which this share of the values lies (nearest rank).
    pub fn percentile(&self, percent: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
        sorted[rank.clamp(1, sorted.len()) - 1]
    }

    /// The median.
    pub fn p50(&self) -> f64 {
        self.percentile(50.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut sample = Sample::default();
        (1..=20).rev().for_each(|value| sample.add(f64::from(value)));
        assert_eq!((sample.p50(), sample.percentile(95.0), sample.percentile(100.0)), (10.0, 19.0, 20.0));
    }
}
