//! The component through the host against the native engine, as ratios. `cargo xtask bench`.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use edge_sync_host::{Component, Durability};
use edge_sync_tests::bench::contestants::{
    Contestant, Engine, Hosted, Raw, Record, Result, Shape, State,
};
use edge_sync_tests::bench::load::{self, Load};
use edge_sync_tests::bench::pulls::{self, Pulls};
use edge_sync_tests::bench::report::{Report, Row, Samples, Unit, median};
use edge_sync_tests::bench::uploads::{self, Uploads};
use fastrand::Rng;
use serde::Serialize;
use serde_json::json;

/// Points in the shard unless told otherwise.
const DEFAULT_POINTS: usize = 20_000;

/// Ids of the points that each query found, best first.
type Found = Vec<Vec<u64>>;

/// Measures the component in its host against the native engine, on this machine, in one run.
///
/// See docs/benchmarks.md for what is measured and how.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version)]
struct Arguments {
    /// Points in the shard.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_POINTS)]
    points: usize,
    /// Dimensions of the vectors.
    #[arg(long, value_name = "N", default_value_t = 128)]
    dimensions: usize,
    /// Points a write.
    #[arg(long, value_name = "N", default_value_t = 100)]
    batch: usize,
    /// Searches a repetition, of each kind.
    #[arg(long, value_name = "N", default_value_t = 300)]
    searches: usize,
    /// How often everything is done.
    #[arg(long, value_name = "N", default_value_t = 5)]
    repetitions: usize,
    /// Fewer points, searches and repetitions, to see that it runs.
    #[arg(long)]
    quick: bool,
    /// Measure instead what following a server costs, with 100,000 points unless --points says
    /// otherwise.
    #[arg(long)]
    pulls: bool,
    /// Measure instead what clients of `serve` wait for, 64 at once, alone and beside slow connections
    /// and large bodies; a minute each.
    #[arg(long, conflicts_with = "pulls")]
    load: bool,
    /// Measure instead how fast a queue is uploaded, on this machine and over a slow link, beside prepared
    /// requests and beside a loop in Python.
    #[arg(long, conflicts_with_all = ["pulls", "load"])]
    uploads: bool,
    /// Print everything measured as JSON.
    #[arg(long)]
    json: bool,
    /// Seed of the data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the shards are put, and removed from [default: the system's temporary folder].
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// The component [default: $EDGE_SYNC_COMPONENT].
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
}

/// Results a search.
const LIMIT: u32 = 10;

/// How often a shard is opened in a repetition; opening is quick, and its median worth having.
const OPENINGS: usize = 3;

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        arguments.points = arguments.points.min(2_000);
        arguments.searches = arguments.searches.min(50);
        arguments.repetitions = arguments.repetitions.min(2);
    }
    let outcome = if arguments.pulls {
        pulls(&arguments).and_then(|pulls| told(&pulls, &arguments))
    } else if arguments.load {
        load(&arguments).and_then(|load| told(&load, &arguments))
    } else if arguments.uploads {
        uploads(&arguments).and_then(|uploads| told(&uploads, &arguments))
    } else {
        run(&arguments).and_then(|report| told(&report, &arguments))
    };
    match outcome {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&*error),
    }
}

/// What was measured, as it is asked for.
fn told(measured: &(impl Serialize + Display), arguments: &Arguments) -> Result<String> {
    Ok(match arguments.json {
        true => serde_json::to_string_pretty(measured)?,
        false => measured.to_string(),
    })
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("bench: {error}");
    ExitCode::FAILURE
}

/// Points of [`Arguments::pulls`] where no other number is asked for.
const PULLED_POINTS: usize = 100_000;

fn pulls(arguments: &Arguments) -> Result<Pulls> {
    let component = Component::load(Component::find(arguments.component.as_deref())?)?;
    let folder = match &arguments.directory {
        Some(directory) => tempfile::tempdir_in(directory)?,
        None => tempfile::tempdir()?,
    };
    let points = match (arguments.points, arguments.quick) {
        (DEFAULT_POINTS, false) => PULLED_POINTS,
        (points, _) => points,
    };
    pulls::measure(
        &component,
        folder.path(),
        points,
        arguments.dimensions,
        arguments.seed,
    )
}

fn uploads(arguments: &Arguments) -> Result<Uploads> {
    let component = Component::load(Component::find(arguments.component.as_deref())?)?;
    let folder = match &arguments.directory {
        Some(directory) => tempfile::tempdir_in(directory)?,
        None => tempfile::tempdir()?,
    };
    uploads::measure(
        &component,
        folder.path(),
        (arguments.points, arguments.dimensions),
        arguments.repetitions,
        arguments.seed,
    )
}

/// Seconds of each row of [`Arguments::load`].
const LOAD_SECONDS: u64 = 60;
const QUICK_LOAD_SECONDS: u64 = 5;

fn load(arguments: &Arguments) -> Result<Load> {
    let folder = match &arguments.directory {
        Some(directory) => tempfile::tempdir_in(directory)?,
        None => tempfile::tempdir()?,
    };
    let seconds = match arguments.quick {
        true => QUICK_LOAD_SECONDS,
        false => LOAD_SECONDS,
    };
    load::measure(
        folder.path(),
        arguments.points as u64,
        arguments.dimensions,
        seconds,
    )
}

fn run(arguments: &Arguments) -> Result<Report> {
    if arguments.points == 0
        || arguments.batch == 0
        || arguments.searches == 0
        || arguments.repetitions == 0
    {
        return Err("points, batch, searches and repetitions must be at least 1".into());
    }
    let component = Component::load(Component::find(arguments.component.as_deref())?)?;
    let data = Data::make(arguments);
    let mut measured = Measured::default();
    for repetition in 1..=arguments.repetitions {
        eprintln!("repetition {repetition} of {}", arguments.repetitions);
        let mut builder = tempfile::Builder::new();
        builder.prefix("edge-sync-bench-");
        let folder = match &arguments.directory {
            Some(directory) => builder.tempdir_in(directory)?,
            None => builder.tempdir()?,
        };
        let turn = Turn {
            arguments,
            component: &component,
            data: &data,
            folder: folder.path(),
            // Whoever comes first warms or cools the machine for the others.
            first: repetition,
        };
        turn.run(&mut measured)?;
        folder.close()?;
    }
    Ok(measured.report(arguments))
}

/// What is written and searched for, the same in every repetition.
struct Data {
    records: Vec<Record>,
    queries: Vec<Vec<f32>>,
}

impl Data {
    fn make(arguments: &Arguments) -> Self {
        let mut random = Rng::with_seed(arguments.seed);
        let mut vector = || -> Vec<f32> {
            (0..arguments.dimensions)
                .map(|_| random.f32() - 0.5)
                .collect()
        };
        let records = (0_u64..)
            .take(arguments.points)
            .map(|id| Record {
                id,
                vector: vector(),
                payload: [
                    ("number".to_owned(), json!(id)),
                    ("color".to_owned(), json!(COLORS[(id % 4) as usize])),
                ]
                .into_iter()
                .collect(),
            })
            .collect();
        let queries = (0..arguments.searches).map(|_| vector()).collect();
        Self { records, queries }
    }
}

const COLORS: [&str; 4] = ["red", "green", "blue", "grey"];

/// The three contestants' samples at one kind of work.
#[derive(Default)]
struct Trio {
    native: Samples,
    engine: Samples,
    component: Samples,
}

impl Trio {
    fn add(&mut self, [native, engine, component]: [f64; 3]) {
        self.native.add(native);
        self.engine.add(engine);
        self.component.add(component);
    }

    fn row(self, work: String, unit: Unit) -> Row {
        Row::new(work, unit, self.native, self.engine, self.component)
    }
}

#[derive(Default)]
struct Measured {
    upsert: Trio,
    upsert_always: Samples,
    flush: Trio,
    exact: Trio,
    optimize: Trio,
    indexed: Trio,
    load: Trio,
    restore: Trio,
    /// One a repetition: share of the native top results that the component gave too.
    agreement: Vec<f64>,
    /// Recall of native and component.
    recall: [Vec<f64>; 2],
    memory_bytes: u64,
    snapshot_bytes: u64,
}

impl Measured {
    fn report(self, arguments: &Arguments) -> Report {
        let batch = arguments.batch;
        let upsert_native = self.upsert.native.clone();
        let rows = vec![
            self.upsert.row(
                format!("upsert, batches of {batch}, durability `os`"),
                Unit::PerSecond,
            ),
            Row::new(
                format!("upsert, batches of {batch}, durability `always`"),
                Unit::PerSecond,
                upsert_native,
                Samples::default(),
                self.upsert_always,
            ),
            self.flush.row("flush after that".to_owned(), Unit::Seconds),
            self.exact.row(
                "exact search, top 10 with payload".to_owned(),
                Unit::Milliseconds,
            ),
            self.optimize
                .row("optimize (builds HNSW)".to_owned(), Unit::Seconds),
            self.indexed.row(
                "search after optimize, top 10 with payload".to_owned(),
                Unit::Milliseconds,
            ),
            self.load.row("load".to_owned(), Unit::Seconds),
            self.restore
                .row("restore from a snapshot file".to_owned(), Unit::Seconds),
        ];
        let [native, component] = &self.recall;
        Report {
            machine: machine(),
            points: arguments.points,
            dimensions: arguments.dimensions,
            batch,
            searches: arguments.searches,
            repetitions: arguments.repetitions,
            rows,
            exact_agreement: median(&self.agreement),
            recall: [median(native), median(component)],
            memory_bytes: self.memory_bytes,
            snapshot_bytes: self.snapshot_bytes,
        }
    }
}

/// The kind of machine: cores and processor, where the system tells.
fn machine() -> String {
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

/// One repetition.
struct Turn<'a> {
    arguments: &'a Arguments,
    component: &'a Component,
    data: &'a Data,
    folder: &'a Path,
    first: usize,
}

impl Turn<'_> {
    fn run(&self, measured: &mut Measured) -> Result<()> {
        let shape = Shape {
            dimensions: self.arguments.dimensions,
            // Whatever the number of points, there is something to optimize.
            indexing_threshold_kb: 1,
        };
        let mut native = Raw::create(&self.folder.join("native"), shape)?;
        let mut engine = Engine::create(&self.folder.join("engine"), shape)?;
        let mut hosted = self.hosted("component", shape, Durability::Os)?;

        // A device of its own; its fsyncs would hold up the others' writes to the same disk.
        let mut always = self.hosted("always", shape, Durability::Always)?;
        let [seconds] = self.upsert([&mut always as &mut dyn Contestant])?;
        measured.upsert_always.add(seconds);
        drop(always);

        let mut three: [&mut dyn Contestant; 3] = [&mut native, &mut engine, &mut hosted];
        measured.upsert.add(self.upsert(reborrow(&mut three))?);
        measured
            .flush
            .add(self.once(&mut three, |one| one.flush())?);

        let (exact, exact_ids) = self.search(&mut three, true)?;
        measured.exact.add(exact);
        let [native_ids, _, component_ids] = &exact_ids;
        let agreement = overlap(native_ids, component_ids);
        // Scores differ in their last digits, so close neighbours may swap; not more.
        if agreement < 0.99 {
            return Err(format!(
                "the component's exact results are not the engine's: {agreement:.4} in common"
            )
            .into());
        }
        measured.agreement.push(agreement);

        measured
            .optimize
            .add(self.once(&mut three, |one| one.optimize())?);
        for one in &mut three {
            let state = one.state()?;
            check(state, self.arguments.points)?;
        }
        let (indexed, indexed_ids) = self.search(&mut three, false)?;
        measured.indexed.add(indexed);
        let [of_native, _, of_component] = &indexed_ids;
        measured.recall[0].push(overlap(native_ids, of_native));
        measured.recall[1].push(overlap(native_ids, of_component));

        let mut openings: [Vec<f64>; 3] = Default::default();
        for _ in 0..OPENINGS {
            let once = self.once(&mut three, |one| one.reopen())?;
            for (times, time) in openings.iter_mut().zip(once) {
                times.push(time);
            }
        }
        measured.load.add(openings.map(|times| median(&times)));
        measured.memory_bytes = measured.memory_bytes.max(hosted.memory_bytes()?);

        let snapshot = self.folder.join("shard.snapshot");
        engine.snapshot(&snapshot)?;
        measured.snapshot_bytes = std::fs::metadata(&snapshot)?.len();
        drop((native, engine, hosted));
        measured.restore.add(self.restore(&snapshot)?);
        Ok(())
    }

    fn hosted(&self, name: &str, shape: Shape, durability: Durability) -> Result<Hosted> {
        Hosted::create(self.component, &self.folder.join(name), shape, durability)
    }

    /// Seconds a point, the contestants taking turns by batches.
    fn upsert<const N: usize>(&self, mut all: [&mut dyn Contestant; N]) -> Result<[f64; N]> {
        let mut times = [Duration::ZERO; N];
        for (number, batch) in self.data.records.chunks(self.arguments.batch).enumerate() {
            for n in order::<N>(self.first + number) {
                if let (Some(one), Some(time)) = (all.get_mut(n), times.get_mut(n)) {
                    *time += one.upsert(batch)?;
                }
            }
        }
        let points = self.data.records.len() as f64;
        Ok(times.map(|time| time.as_secs_f64() / points))
    }

    /// The median seconds of a search, the contestants taking turns by queries, and what they
    /// found.
    fn search(
        &self,
        all: &mut [&mut dyn Contestant; 3],
        exact: bool,
    ) -> Result<([f64; 3], [Found; 3])> {
        let mut times: [Vec<f64>; 3] = Default::default();
        let mut ids: [Found; 3] = Default::default();
        for (number, query) in self.data.queries.iter().enumerate() {
            for n in order::<3>(self.first + number) {
                let found = all[n].search(query, LIMIT, exact)?;
                times[n].push(found.elapsed.as_secs_f64());
                ids[n].push(found.ids);
            }
        }
        Ok((times.map(|times| median(&times)), ids))
    }

    fn once(
        &self,
        all: &mut [&mut dyn Contestant; 3],
        work: impl Fn(&mut dyn Contestant) -> Result<Duration>,
    ) -> Result<[f64; 3]> {
        let mut times = [0.0; 3];
        for n in order::<3>(self.first) {
            times[n] = work(&mut *all[n])?.as_secs_f64();
        }
        Ok(times)
    }

    fn restore(&self, snapshot: &Path) -> Result<[f64; 3]> {
        let mut times = [0.0; 3];
        for n in order::<3>(self.first) {
            let directory = self.folder.join(format!("restored-{n}"));
            let time = match n {
                0 => Raw::restore(snapshot, &directory)?,
                1 => Engine::restore(snapshot, &directory)?,
                _ => Hosted::restore(self.component, snapshot, &directory)?,
            };
            times[n] = time.as_secs_f64();
        }
        Ok(times)
    }
}

/// Who comes when: each of `N` in turn, another first each time.
fn order<const N: usize>(turn: usize) -> impl Iterator<Item = usize> {
    (0..N).map(move |n| (n + turn) % N)
}

fn reborrow<'b>(all: &'b mut [&mut dyn Contestant; 3]) -> [&'b mut dyn Contestant; 3] {
    let [a, b, c] = all;
    [&mut **a, &mut **b, &mut **c]
}

/// Share of `reference` that is also in `ids`, query by query.
fn overlap(reference: &[Vec<u64>], ids: &[Vec<u64>]) -> f64 {
    let wanted: usize = reference.iter().map(Vec::len).sum();
    let common: usize = reference
        .iter()
        .zip(ids)
        .map(|(wanted, found)| wanted.iter().filter(|id| found.contains(id)).count())
        .sum();
    common as f64 / (wanted.max(1)) as f64
}

/// A shard that lost points, or has no index, would be quick.
fn check(state: State, points: usize) -> Result<()> {
    if state.points != points as u64 || state.indexed < state.points {
        return Err(format!("expected {points} points, all indexed; found {state:?}").into());
    }
    Ok(())
}
