//! Samples, medians and ratios, as a Markdown table and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use edge_sync_numbers::{bytes, grouped};
use serde::Serialize;

use crate::contestants::ContestantKind;
use crate::figures::{Figure, Measured};

/// How a time is shown. Samples are always seconds for one unit of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// As so many a second.
    PerSecond,
    /// As milliseconds.
    Milliseconds,
    /// As microseconds.
    Microseconds,
    /// As seconds, or as milliseconds below one.
    Seconds,
}

impl Unit {
    fn show(self, seconds: f64) -> String {
        match self {
            Self::PerSecond if seconds > 0.0 => {
                format!("{}/s", grouped((1.0 / seconds).round() as u64))
            }
            Self::PerSecond => "-".to_owned(),
            Self::Milliseconds => format!("{:.2} ms", seconds * 1e3),
            Self::Microseconds => format!("{:.0} µs", seconds * 1e6),
            Self::Seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1e3),
            Self::Seconds => format!("{seconds:.2} s"),
        }
    }
}

/// The times of one contestant at one kind of work, one for each repetition.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a repetition's time, in seconds for one unit of work.
    pub fn add(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    /// The middle one, or the mean of the two in the middle; 0 without samples.
    pub fn median(&self) -> f64 {
        median(&self.0)
    }

    /// The least; infinite without samples.
    pub fn fastest(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// As it is compared with another run's; none without samples.
    pub fn figure(&self, name: impl Into<String>) -> Option<Figure> {
        (!self.0.is_empty()).then(|| Figure {
            name: name.into(),
            value: self.median(),
            min: self.fastest(),
            max: self.slowest(),
        })
    }

    fn slowest(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }

    /// The median, and the least and the greatest.
    pub fn show(&self, unit: Unit) -> String {
        if self.0.is_empty() {
            return "-".to_owned();
        }
        let fastest = self.fastest();
        let slowest = self.slowest();
        // The smaller number first.
        let (low, high) = match unit {
            Unit::PerSecond => (slowest, fastest),
            _ => (fastest, slowest),
        };
        format!(
            "{} ({} to {})",
            unit.show(self.median()),
            unit.show(low),
            unit.show(high)
        )
    }
}

/// The median of some numbers; 0 for none.
pub fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (
        sorted.get(middle),
        middle.checked_sub(1).and_then(|n| sorted.get(n)),
    ) {
        (Some(&upper), Some(&lower)) if sorted.len().is_multiple_of(2) => (lower + upper) / 2.0,
        (Some(&upper), _) => upper,
        (None, _) => 0.0,
    }
}

/// How much longer the component takes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Of the medians.
    pub of_medians: f64,
    /// Of the fastest repetitions: what other work on the machine disturbed least.
    pub of_fastest: f64,
    /// Least of the repetitions' own ratios.
    pub min: f64,
    /// Greatest of them.
    pub max: f64,
}

impl Ratio {
    /// How many times as long as `native` the `component` takes. None without pairs.
    pub fn of(native: &Samples, component: &Samples) -> Option<Self> {
        let pairs: Vec<f64> = component
            .0
            .iter()
            .zip(&native.0)
            .filter(|(_, native)| **native > 0.0)
            .map(|(component, native)| component / native)
            .collect();
        if pairs.is_empty() {
            return None;
        }
        Some(Self {
            of_medians: component.median() / native.median(),
            of_fastest: component.fastest() / native.fastest(),
            min: pairs.iter().copied().fold(f64::INFINITY, f64::min),
            max: pairs.iter().copied().fold(0.0, f64::max),
        })
    }
}

impl Ratio {
    /// As it is compared with another run's.
    pub fn figure(self, name: String) -> Figure {
        Figure {
            name,
            value: self.of_medians,
            min: self.min,
            max: self.max,
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "**{:.2}** ({:.2} to {:.2}), fastest {:.2}",
            self.of_medians, self.min, self.max, self.of_fastest
        )
    }
}

/// Everybody's times at one kind of work.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Times {
    /// `qdrant-edge` as an application uses it.
    pub native: Samples,
    /// The engine behind this project's REST layer, natively.
    pub engine: Samples,
    /// The component in its host.
    pub component: Samples,
    /// `qdrant-edge-py`; none where there is no Python.
    pub python: Samples,
}

impl Times {
    /// Those of one contestant.
    pub fn of(&self, kind: ContestantKind) -> &Samples {
        match kind {
            ContestantKind::Native => &self.native,
            ContestantKind::Engine => &self.engine,
            ContestantKind::Component => &self.component,
            ContestantKind::Python => &self.python,
        }
    }

    /// Adds a repetition's seconds for one unit of work, in the order of `kinds`.
    pub fn add(&mut self, kinds: &[ContestantKind], seconds: &[f64]) {
        for (kind, seconds) in kinds.iter().zip(seconds) {
            let samples = match kind {
                ContestantKind::Native => &mut self.native,
                ContestantKind::Engine => &mut self.engine,
                ContestantKind::Component => &mut self.component,
                ContestantKind::Python => &mut self.python,
            };
            samples.add(*seconds);
        }
    }

    /// As a row of a table.
    pub fn row(self, work: impl Into<String>, unit: Unit) -> Row {
        Row {
            work: work.into(),
            unit,
            ratio: Ratio::of(&self.native, &self.component),
            ratio_to_python: Ratio::of(&self.python, &self.component),
            times: self,
        }
    }
}

/// One kind of work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was done.
    pub work: String,
    /// How it is shown.
    pub unit: Unit,
    /// Who took how long.
    #[serde(flatten)]
    pub times: Times,
    /// How many times as long as `native` the component takes.
    pub ratio: Option<Ratio>,
    /// The same for `python`.
    pub ratio_to_python: Option<Ratio>,
}

impl Row {
    /// The ratios, and the component's own time where there is none.
    pub fn figures(&self) -> Vec<Figure> {
        let work = &self.work;
        let mut figures = Vec::new();
        figures.extend(self.ratio.map(|it| it.figure(format!("{work}, × native"))));
        figures.extend(
            self.ratio_to_python
                .map(|it| it.figure(format!("{work}, × qdrant-edge-py"))),
        );
        if figures.is_empty() {
            figures.extend(self.times.component.figure(format!("{work}, seconds")));
        }
        figures
    }
}

/// Rows as a table.
pub struct Table<'a>(pub &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KINDS: [ContestantKind; 4] = [
            ContestantKind::Native,
            ContestantKind::Engine,
            ContestantKind::Component,
            ContestantKind::Python,
        ];
        let names = KINDS.map(ContestantKind::name).join(" | ");
        writeln!(
            f,
            "| work | {names} | component takes, × native | × {} |",
            ContestantKind::Python.name()
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for row in self.0 {
            let times = KINDS
                .map(|kind| row.times.of(kind).show(row.unit))
                .join(" | ");
            let ratio =
                |ratio: Option<Ratio>| ratio.map_or_else(|| "-".to_owned(), |it| it.to_string());
            writeln!(
                f,
                "| {} | {times} | {} | {} |",
                row.work,
                ratio(row.ratio),
                ratio(row.ratio_to_python)
            )?;
        }
        Ok(())
    }
}

/// Everything that a run measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Processor and number of cores.
    pub machine: String,
    /// Kind of the vectors.
    pub data: String,
    /// What was measured on.
    pub points: usize,
    /// Dimensions of the vectors.
    pub dimensions: usize,
    /// Points in each write.
    pub batch: usize,
    /// Searches a repetition.
    pub searches: usize,
    /// Repetitions.
    pub repetitions: usize,
    /// The measurements.
    pub rows: Vec<Row>,
    /// Share of the native engine's exact top results that the component answered too.
    pub exact_agreement: f64,
    /// Recall of searches after optimize, against the exact ones, by contestant.
    pub recall: BTreeMap<&'static str, f64>,
    /// Linear memory of the component's instance at the end of a repetition, in bytes.
    pub memory_bytes: u64,
    /// Size of the restored snapshot, in bytes.
    pub snapshot_bytes: u64,
}

impl Measured for Report {
    fn figures(&self) -> Vec<Figure> {
        let recall = self.recall.get(ContestantKind::Component.name());
        let mut figures: Vec<Figure> = self.rows.iter().flat_map(Row::figures).collect();
        figures.extend(recall.map(|recall| Figure::single("recall after optimize", *recall)));
        figures.push(Figure::single(
            "linear memory, bytes",
            self.memory_bytes as f64,
        ));
        figures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} points of {} dimensions, {}, cosine; {}; {} repetitions, median (min to max).\n",
            grouped(self.points as u64),
            self.dimensions,
            self.data,
            self.machine,
            self.repetitions,
        )?;
        write!(f, "{}", Table(&self.rows))?;
        let recall: Vec<String> = self
            .recall
            .iter()
            .map(|(name, recall)| format!("{name} {recall:.3}"))
            .collect();
        writeln!(
            f,
            "\nSame ids in exact top 10: {:.2} %. Recall after optimize: {}.",
            self.exact_agreement * 100.0,
            recall.join(", "),
        )?;
        writeln!(
            f,
            "Snapshot: {}. Linear memory of the component's instance: {}.",
            bytes(self.snapshot_bytes),
            bytes(self.memory_bytes),
        )
    }
}

/// The kind of machine: cores and processor, where the system tells.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    format!("{cores} cores, {processor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(seconds: &[f64]) -> Samples {
        Samples(seconds.to_vec())
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn ratios_are_of_medians_and_span_the_pairs() {
        let ratio = Ratio::of(&samples(&[1.0, 2.0, 4.0]), &samples(&[3.0, 4.0, 4.0]));
        assert_eq!(
            ratio,
            Some(Ratio {
                of_medians: 2.0,
                of_fastest: 3.0,
                min: 1.0,
                max: 3.0
            })
        );
        assert_eq!(Ratio::of(&samples(&[]), &samples(&[1.0])), None);
    }

    #[test]
    fn rates_are_shown_with_the_smaller_first() {
        let shown = samples(&[0.001, 0.002, 0.004]).show(Unit::PerSecond);
        assert_eq!(shown, "500/s (250/s to 1,000/s)");
        let shown = samples(&[0.001, 0.002, 0.004]).show(Unit::Milliseconds);
        assert_eq!(shown, "2.00 ms (1.00 ms to 4.00 ms)");
    }
}
