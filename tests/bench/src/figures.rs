//! What a run found, by name, so that another run can be held against it.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::contestants::Result;

/// One number of a run, and how far it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What it is of. The same work has the same name in every run.
    pub name: String,
    /// The number: of several, their median.
    pub value: f64,
    /// The least of them.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Figure {
    /// Of one measurement, which has no spread that is known.
    pub fn single(name: impl Into<String>, value: f64) -> Self {
        Self {
            name: name.into(),
            value,
            min: value,
            max: value,
        }
    }

    fn spread(&self) -> f64 {
        self.max - self.min
    }
}

/// A run, which is shown as a table.
pub trait Measured: Serialize + Display {
    /// The numbers that are worth comparing, ratios where there are some: machines differ, and
    /// what else they do.
    fn figures(&self) -> Vec<Figure>;
}

/// Any of them.
pub trait Reportable: Display {
    /// See [`Measured::figures`].
    fn numbers(&self) -> Vec<Figure>;

    /// Everything that was measured, and its figures.
    ///
    /// # Errors
    /// Where a number cannot be written.
    fn json(&self) -> Result<Value>;
}

impl<M: Measured> Reportable for M {
    fn numbers(&self) -> Vec<Figure> {
        self.figures()
    }

    fn json(&self) -> Result<Value> {
        let mut value = serde_json::to_value(self)?;
        value["figures"] = serde_json::to_value(self.figures())?;
        Ok(value)
    }
}

/// A run beside an earlier one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// In the order of this run.
    pub changes: Vec<Change>,
    /// What only the earlier run has.
    pub gone: Vec<String>,
}

/// One figure, twice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// In the earlier run, if it has it.
    pub before: Option<Figure>,
    /// In this run.
    pub now: Figure,
    /// Whether it changed by more than it went to and fro in either run.
    pub is_certain: bool,
}

impl Comparison {
    /// Of this run's figures with what `--json` printed of an earlier one.
    ///
    /// # Errors
    /// Where that is something else.
    pub fn with(earlier: &str, figures: Vec<Figure>) -> Result<Self> {
        let mut earlier: Value = serde_json::from_str(earlier)
            .map_err(|error| format!("the earlier run is not JSON: {error}"))?;
        let figures_before = earlier.get_mut("figures").map(Value::take);
        let earlier: Vec<Figure> = serde_json::from_value(figures_before.unwrap_or_default())
            .map_err(|error| format!("the earlier run has no figures: {error}"))?;
        let mut earlier: BTreeMap<String, Figure> = earlier
            .into_iter()
            .map(|figure| (figure.name.clone(), figure))
            .collect();
        let changes = figures
            .into_iter()
            .map(|now| {
                let before = earlier.remove(&now.name);
                let is_certain = before.as_ref().is_some_and(|before| {
                    let (less, more) = (
                        now.spread().min(before.spread()),
                        now.spread().max(before.spread()),
                    );
                    // One measurement tells nothing of how far the next would have gone.
                    less > 0.0 && (now.value - before.value).abs() > more
                });
                Change {
                    before,
                    now,
                    is_certain,
                }
            })
            .collect();
        Ok(Self {
            changes,
            gone: earlier.into_keys().collect(),
        })
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | before | now | change | |")?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for change in &self.changes {
            let now = &change.now;
            let shown = |figure: &Figure| match figure.spread() > 0.0 {
                true => format!(
                    "{} ({} to {})",
                    short(figure.value),
                    short(figure.min),
                    short(figure.max)
                ),
                false => short(figure.value),
            };
            let Some(before) = &change.before else {
                writeln!(f, "| {} | - | {} | new | |", now.name, shown(now))?;
                continue;
            };
            let percent = match before.value {
                0.0 => "-".to_owned(),
                value => format!("{:+.1} %", (now.value / value - 1.0) * 100.0),
            };
            let mark = if change.is_certain { "**changed**" } else { "" };
            writeln!(
                f,
                "| {} | {} | {} | {percent} | {mark} |",
                now.name,
                shown(before),
                shown(now),
            )?;
        }
        for name in &self.gone {
            writeln!(f, "| {name} | - | gone | | |")?;
        }
        Ok(())
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    let before_point = value.abs().max(1.0).log10().floor();
    let decimals = (2.0 - before_point).max(0.0);
    format!("{value:.0$}", decimals as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, value: f64, min: f64, max: f64) -> Figure {
        let name = name.to_owned();
        Figure {
            name,
            value,
            min,
            max,
        }
    }

    #[test]
    fn a_change_counts_if_it_is_larger_than_the_spread_of_both() {
        let earlier = serde_json::json!({"figures": [
            figure("load", 4.0, 3.9, 4.1),
            figure("upsert", 3.0, 2.5, 3.5),
            figure("restore", 9.0, 9.0, 9.0),
            figure("memory", 1.0, 1.0, 1.0),
        ]});
        let now = vec![
            figure("load", 2.0, 1.9, 2.1),
            figure("upsert", 2.5, 2.4, 2.6),
            figure("search", 1.2, 1.1, 1.3),
            figure("memory", 2.0, 2.0, 2.0),
        ];
        let comparison = Comparison::with(&earlier.to_string(), now).unwrap();
        let certain: Vec<_> = comparison.changes.iter().map(|it| it.is_certain).collect();
        assert_eq!(certain, [true, false, false, false]);
        assert_eq!(comparison.gone, ["restore"]);
        let table = comparison.to_string();
        let load = "| load | 4.00 (3.90 to 4.10) | 2.00 (1.90 to 2.10) | -50.0 % | **changed** |";
        assert!(table.contains(load), "{table}");
        assert!(
            table.contains("| search | - | 1.20 (1.10 to 1.30) | new | |"),
            "{table}"
        );
    }

    #[test]
    fn what_is_no_earlier_run_is_refused() {
        for text in ["", "{}", "[1]", r#"{"figures": 1}"#] {
            assert!(Comparison::with(text, Vec::new()).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_shown_with_three_digits() {
        let shown = [0.1234, 1.234, 12.34, 123.4, 1_234.0].map(short);
        assert_eq!(shown, ["0.12", "1.23", "12.3", "123", "1234"]);
    }
}
