//! How long somebody waited, who asked many times.

use std::fmt;

use serde::Serialize;

use crate::figures::Figure;

/// Milliseconds from a request to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latencies {
    /// Requests that were answered.
    pub count: usize,
    /// Of them, half were faster.
    pub median: f64,
    /// 95 of 100 were faster.
    pub p95: f64,
    /// 99 of 100 were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

impl Latencies {
    /// Of what was measured, in any order.
    pub fn of(mut milliseconds: Vec<f64>) -> Self {
        milliseconds.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let index = (milliseconds.len() * percent / 100).min(milliseconds.len().max(1) - 1);
            milliseconds.get(index).copied().unwrap_or_default()
        };
        Self {
            count: milliseconds.len(),
            median: at(50),
            p95: at(95),
            p99: at(99),
            max: at(100),
        }
    }

    /// Half, and 99 of 100.
    pub fn figures(&self, name: &str) -> [Figure; 2] {
        [
            Figure::single(format!("{name}, median ms"), self.median),
            Figure::single(format!("{name}, p99 ms"), self.p99),
        ]
    }
}

/// As four cells of a table: p50, p95, p99 and the slowest.
impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} ms | {:.2} ms | {:.2} ms | {:.1} ms",
            self.median, self.p95, self.p99, self.max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let latencies = Latencies::of((1..=200).rev().map(f64::from).collect());
        let expected = Latencies {
            count: 200,
            median: 101.0,
            p95: 191.0,
            p99: 199.0,
            max: 200.0,
        };
        assert_eq!(latencies, expected);
        assert_eq!(Latencies::of(Vec::new()).max, 0.0);
    }
}
