//! What the same work costs in shards of different sizes, without an index.

use std::fmt;
use std::path::Path;

use edge_sync_host::{Durability, ShardOptions};
use edge_sync_numbers::{bytes, grouped};
use serde::Serialize;

use crate::contestants::{ContestantKind, Contestants, Engine, Result, Shape};
use crate::data::{self, Data};
use crate::engines::{LIMIT, order};
use crate::figures::{Figure, Measured};
use crate::report::{Row, Table, Times, Unit, machine, median};

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sizes {
    /// Processor and number of cores.
    pub machine: String,
    /// Kind of the vectors.
    pub data: String,
    /// Their dimensions.
    pub dimensions: usize,
    /// Repetitions.
    pub repetitions: usize,
    /// By kind of work, the smallest shard first.
    pub rows: Vec<Row>,
    /// Points, and linear memory of the component's instance that has loaded them.
    pub linear_memory: Vec<(usize, u64)>,
}

impl Measured for Sizes {
    fn figures(&self) -> Vec<Figure> {
        let memory = self.linear_memory.iter().map(|(points, bytes)| {
            let name = format!("linear memory with {} points", grouped(*points as u64));
            Figure::single(name, *bytes as f64)
        });
        self.rows
            .iter()
            .flat_map(Row::figures)
            .chain(memory)
            .collect()
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} of {} dimensions, no index; {}; {} repetitions, median (min to max).\n",
            self.data, self.dimensions, self.machine, self.repetitions
        )?;
        writeln!(f, "{}", Table(&self.rows))?;
        let memory: Vec<String> = self
            .linear_memory
            .iter()
            .map(|(points, size)| {
                format!("{} with {} points", bytes(*size), grouped(*points as u64))
            })
            .collect();
        writeln!(f, "Linear memory once loaded: {}.", memory.join(", "))
    }
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Kind of the vectors.
    pub data: data::Dataset,
    /// Their dimensions.
    pub dimensions: usize,
    /// Points in each write.
    pub batch: usize,
    /// Searches a repetition.
    pub searches: usize,
    /// How often everything is done.
    pub repetitions: usize,
    /// Seed of the data.
    pub seed: u64,
}

#[derive(Default)]
struct OfSize {
    upsert: Times,
    search: Times,
    load: Times,
    restore: Times,
    linear_memory: u64,
}

/// Fills, searches, loads and restores shards of so many points each.
///
/// # Errors
/// Whatever fails first.
pub fn measure(
    contestants: &Contestants,
    directory: Option<&Path>,
    sizes: &[usize],
    amount: Amount,
) -> Result<Sizes> {
    let mut measured: Vec<OfSize> = Vec::new();
    for &points in sizes {
        let data = Data::make(
            amount.data,
            points,
            amount.dimensions,
            amount.searches,
            amount.seed,
        );
        let mut of = OfSize::default();
        for repetition in 1..=amount.repetitions.max(1) {
            eprintln!(
                "{points} points, repetition {repetition} of {}",
                amount.repetitions
            );
            let folder = crate::folder(directory)?;
            repeat(
                contestants,
                &data,
                amount.batch,
                repetition,
                folder.path(),
                &mut of,
            )?;
            folder.close()?;
        }
        measured.push(of);
    }
    let linear_memory = sizes
        .iter()
        .zip(&measured)
        .map(|(points, of)| (*points, of.linear_memory))
        .collect();
    let rows = |what: &str, unit: Unit, times: fn(&OfSize) -> &Times| {
        let row = |(points, of): (&usize, &OfSize)| {
            let work = format!("{what}, {} points", grouped(*points as u64));
            times(of).clone().row(work, unit)
        };
        sizes.iter().zip(&measured).map(row).collect::<Vec<_>>()
    };
    let upsert = format!("upsert, batches of {}", amount.batch);
    Ok(Sizes {
        machine: machine(),
        data: amount.data.to_string(),
        dimensions: amount.dimensions,
        repetitions: amount.repetitions,
        rows: [
            rows(&upsert, Unit::PerSecond, |of| &of.upsert),
            rows("exact search", Unit::Milliseconds, |of| &of.search),
            rows("load", Unit::Seconds, |of| &of.load),
            rows("restore", Unit::Seconds, |of| &of.restore),
        ]
        .concat(),
        linear_memory,
    })
}

fn repeat(
    contestants: &Contestants,
    data: &Data,
    batch: usize,
    first: usize,
    folder: &Path,
    of: &mut OfSize,
) -> Result<()> {
    let mut kinds = contestants.kinds();
    kinds.retain(|kind| *kind != ContestantKind::Engine);
    let options = ShardOptions::default().durability(Durability::Os);
    let at = |name: &str, kind: ContestantKind| folder.join(format!("{name}-{kind:?}"));
    let mut shards = Vec::new();
    for kind in &kinds {
        let folder = at("shard", *kind);
        std::fs::create_dir(&folder)?;
        shards.push(contestants.create(*kind, &folder, Shape::of(data.dimensions()), &options)?);
    }
    let mut times = vec![0.0; kinds.len()];
    for (number, records) in data.records.chunks(batch.max(1)).enumerate() {
        for n in order(kinds.len(), first + number) {
            times[n] += shards[n].upsert(records)?.as_secs_f64();
        }
    }
    let points = data.records.len().max(1) as f64;
    times.iter_mut().for_each(|time| *time /= points);
    of.upsert.add(&kinds, &times);
    for shard in &shards {
        shard.flush()?;
    }
    let mut searches = vec![Vec::new(); kinds.len()];
    for (number, query) in data.queries.iter().enumerate() {
        for n in order(kinds.len(), first + number) {
            let found = shards[n].search(query, LIMIT, true)?;
            searches[n].push(found.elapsed.as_secs_f64());
        }
    }
    let searches: Vec<f64> = searches.iter().map(|times| median(times)).collect();
    of.search.add(&kinds, &searches);
    for n in order(kinds.len(), first) {
        times[n] = shards[n].reopen()?.as_secs_f64();
        let linear = shards[n].linear_memory()?.unwrap_or_default();
        of.linear_memory = of.linear_memory.max(linear);
    }
    of.load.add(&kinds, &times);
    drop(shards);
    let snapshot = folder.join("shard.snapshot");
    Engine::open(&at("shard", ContestantKind::Native))?.snapshot(&snapshot)?;
    for n in order(kinds.len(), first) {
        let kind = kinds[n];
        let taken = contestants.restore(kind, &snapshot, &at("restored", kind))?;
        times[n] = taken.as_secs_f64();
    }
    of.restore.add(&kinds, &times);
    Ok(())
}
