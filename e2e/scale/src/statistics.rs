//! Percentiles and rates. Pure.

use serde::{Deserialize, Serialize};

/// Middle and tail of durations, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Maximum.
    pub max: f64,
}

impl Percentiles {
    /// Percentiles by nearest rank; zeros without values.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100);
            values.get(rank.saturating_sub(1)).copied().unwrap_or_default()
        };
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

/// Completions per second: over all, and in the first and the last quarter, which show whether the rate falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Over all completions.
    pub overall: f64,
    /// Over the first quarter.
    pub first_quarter: f64,
    /// Over the last quarter.
    pub last_quarter: f64,
}

impl Rates {
    /// Rates from the times of completions, in seconds since the start.
    pub fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        let quarter = times.len() / 4;
        let rate = |from: usize, to: usize| {
            let at = |index: usize| if index == 0 { 0.0 } else { times[index - 1] };
            per_second(to - from, at(to) - at(from))
        };
        Self {
            overall: rate(0, times.len()),
            first_quarter: rate(0, quarter),
            last_quarter: rate(times.len() - quarter, times.len()),
        }
    }
}

/// A rate; zero for no time.
pub fn per_second(count: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values() {
        let all = Percentiles::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(all, Percentiles { p50: 100.0, p99: 198.0, max: 200.0 });
        assert_eq!(Percentiles::of(vec![3.0]), Percentiles { p50: 3.0, p99: 3.0, max: 3.0 });
        assert_eq!(Percentiles::of(Vec::new()), Percentiles::default());
    }

    #[test]
    fn rates_of_quarters() {
        // Four in the first second, then one a second.
        let times = vec![0.25, 0.5, 0.75, 1.0, 2.0, 3.0, 4.0, 5.0];
        let rates = Rates::of(times);
        assert_eq!(rates, Rates { overall: 1.6, first_quarter: 4.0, last_quarter: 1.0 });
        assert_eq!(Rates::of(Vec::new()), Rates::default());
    }
}
