//! What the demo measured.

use std::fmt;

use edge_sync_numbers::{bytes, grouped, percent, rate, seconds};
use serde::Serialize;

/// What was measured on one device. None: that device did not do it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Device {
    /// Points at the end.
    pub points: u64,
    /// Points written a second, each batch on disk before its call returned.
    pub upserts_per_second: Option<f64>,
    /// Exact searches a second, one after the other.
    pub searches_per_second: f64,
    /// Operations that the server confirmed, a second.
    pub uploads_per_second: Option<f64>,
    /// Seconds that it took to fetch what others had written, up to the new generation in force.
    pub fetch_seconds: f64,
    /// Bytes downloaded for that.
    pub fetched_bytes: u64,
    /// Share of digits that their neighbours name rightly.
    pub accuracy: f64,
}

/// The closing table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// Digits in the data set, each searched for once on each device.
    pub digits: usize,
    /// Neighbours that vote.
    pub neighbours: usize,
    /// Points that the server holds at the end.
    pub server_points: u64,
    /// Whether both devices answered every search alike, and hold what the server holds.
    pub agree: bool,
    /// The device that was first.
    pub device_a: Device,
    /// The device that was restored from the server.
    pub device_b: Device,
    /// Seconds that the whole took.
    pub seconds: f64,
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b) = (&self.device_a, &self.device_b);
        let row = |f: &mut fmt::Formatter<'_>, name: &str, a: String, b: String| {
            writeln!(f, "  {name:<38}{a:>12}{b:>12}")
        };
        row(f, "", "device A".into(), "device B".into())?;
        row(f, "points", grouped(a.points), grouped(b.points))?;
        row(
            f,
            "upserts a second, durable",
            rate(a.upserts_per_second),
            rate(b.upserts_per_second),
        )?;
        row(
            f,
            "searches a second, exact",
            rate(Some(a.searches_per_second)),
            rate(Some(b.searches_per_second)),
        )?;
        row(
            f,
            "uploads a second",
            rate(a.uploads_per_second),
            rate(b.uploads_per_second),
        )?;
        row(
            f,
            "fetching from the server",
            seconds(a.fetch_seconds),
            seconds(b.fetch_seconds),
        )?;
        row(
            f,
            "downloaded for it",
            bytes(a.fetched_bytes),
            bytes(b.fetched_bytes),
        )?;
        row(
            f,
            &format!("leave-one-out accuracy, k = {}", self.neighbours),
            percent(a.accuracy),
            percent(b.accuracy),
        )?;
        writeln!(
            f,
            "  points on the server: {}; same answers on both devices: {}",
            grouped(self.server_points),
            if self.agree { "yes" } else { "NO" },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disagreement_cannot_be_overlooked() {
        let table = |agree| Table {
            digits: 3,
            neighbours: 1,
            server_points: 3,
            agree,
            device_a: Device::default(),
            device_b: Device::default(),
            seconds: 0.0,
        };
        assert!(table(true).to_string().contains("devices: yes"));
        assert!(table(false).to_string().contains("devices: NO"));
    }
}
