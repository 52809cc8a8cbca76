//! What each contestant costs before it does anything, and in memory: the most that it has while a
//! shard is filled and optimized, what it has with that shard open, how long a process takes to its
//! first answer. Each is measured in a process of its own.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use edge_sync_host::{Component, Durability, Shard, ShardOptions};
use edge_sync_numbers::{bytes, grouped};
use serde::{Deserialize, Serialize};

use crate::contestants::{Contestant, ContestantKind, Contestants, Python, Result, Shape};
use crate::data::{self, Source};
use crate::engines::{LIMIT, order};
use crate::figures::{Figure, Measured};
use crate::memory::Memory;
use crate::report::{Samples, Unit, machine};
use crate::served::{Served, command};

/// Points of a write while a shard is filled.
const BATCH: u64 = 100;

/// Searches after a shard was opened, so that what they need is in memory.
const SEARCHES: usize = 100;

/// How long a served shard is left alone before its memory is looked at.
const SETTLE: Duration = Duration::from_secs(1);

const FIRST_IN_PYTHON: &str = "
import sys
from qdrant_edge import EdgeShard
print(EdgeShard.load(sys.argv[1]).info().points_count, flush=True)
";

/// What is written.
#[derive(Debug, Clone, Copy)]
pub struct Filling {
    /// Kind of the vectors.
    pub data: data::Dataset,
    /// How many points.
    pub points: usize,
    /// Dimensions of their vectors.
    pub dimensions: usize,
    /// Seed of the data.
    pub seed: u64,
}

/// What a process of its own does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// Fills a shard and flushes it, then optimizes it.
    Fill,
    /// Opens it and searches.
    Open,
    /// Opens a shard without points.
    Empty,
    /// Opens it and says how many points it has.
    First,
}

/// What a process of its own tells: its memory, at the stops of its stage.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stops {
    stops: Vec<Memory>,
    linear: Option<u64>,
}

/// One contestant's memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Whose.
    pub who: &'static str,
    /// The most while the shard was filled and flushed.
    pub filling_peak: u64,
    /// The most until it was optimized as well.
    pub optimizing_peak: u64,
    /// In another process that opened it and searched.
    pub opened: Memory,
    /// Of that, linear memory.
    pub linear: Option<u64>,
    /// Another process, with a shard without points.
    pub empty: Memory,
}

/// How long processes took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Start {
    /// What was started.
    pub what: String,
    /// Seconds from there to the first line of its answer.
    pub first: Samples,
    /// Seconds to its end.
    pub end: Samples,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Footprint {
    /// Processor and number of cores.
    pub machine: String,
    /// Points of the shard that is not empty.
    pub points: usize,
    /// Their dimensions.
    pub dimensions: usize,
    /// How often each process was started.
    pub repetitions: usize,
    /// By contestant.
    pub memory: Vec<Row>,
    /// `serve` over a shard without points.
    pub served: Memory,
    /// Processes.
    pub starts: Vec<Start>,
    /// Within a process: its name, and seconds.
    pub steps: Vec<(&'static str, Samples)>,
}

impl Measured for Footprint {
    fn figures(&self) -> Vec<Figure> {
        let memory = self.memory.iter().flat_map(|row| {
            [
                ("peak while filling", row.filling_peak),
                ("peak while optimizing", row.optimizing_peak),
                ("resident when open", row.opened.resident),
                ("own when open", row.opened.own),
                ("resident when empty", row.empty.resident),
                ("own when empty", row.empty.own),
            ]
            .map(|(what, bytes)| {
                Figure::single(format!("{}, {what}, bytes", row.who), bytes as f64)
            })
        });
        let starts = self.starts.iter().filter_map(|start| {
            let name = format!("{}, first answer, seconds", start.what);
            start.first.figure(name)
        });
        let steps = self
            .steps
            .iter()
            .filter_map(|(name, samples)| samples.figure(format!("{name}, seconds")));
        memory.chain(starts).chain(steps).collect()
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} points of {} dimensions; {}\n",
            grouped(self.points as u64),
            self.dimensions,
            self.machine
        )?;
        writeln!(
            f,
            "| memory of | most while filling | most until optimized | open, after searches: resident, of it own | linear memory | empty shard: resident, of it own |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        let two = |memory: &Memory| format!("{}, {}", bytes(memory.resident), bytes(memory.own));
        for row in &self.memory {
            writeln!(
                f,
                "| {} | {} | {} | {} | {} | {} |",
                row.who,
                bytes(row.filling_peak),
                bytes(row.optimizing_peak),
                two(&row.opened),
                row.linear.map_or_else(|| "-".to_owned(), bytes),
                two(&row.empty),
            )?;
        }
        writeln!(f, "| `edge-sync serve` | | | | | {} |\n", two(&self.served))?;
        writeln!(
            f,
            "| from the start of a process | to its first answer | to its end |"
        )?;
        writeln!(f, "| --- | --- | --- |")?;
        for start in &self.starts {
            writeln!(
                f,
                "| {} | {} | {} |",
                start.what,
                start.first.show(Unit::Milliseconds),
                start.end.show(Unit::Milliseconds)
            )?;
        }
        writeln!(f, "\n| within a process | time |")?;
        writeln!(f, "| --- | --- |")?;
        for (name, samples) in &self.steps {
            writeln!(f, "| {name} | {} |", samples.show(Unit::Milliseconds))?;
        }
        Ok(())
    }
}

/// Starts a process for each contestant and each stage, this program again.
///
/// # Errors
/// A process fails, or the system does not tell its memory.
pub fn measure(
    kinds: &[ContestantKind],
    component: &Path,
    folder: &Path,
    filling: Filling,
    repetitions: usize,
) -> Result<Footprint> {
    let alone = |kind: ContestantKind, stage: Stage, name: &str| -> Result<Stops> {
        let told = this_program(kind, stage, component, &folder.join(name), filling)?.output()?;
        let said = String::from_utf8_lossy(&told.stdout);
        serde_json::from_str(&said).map_err(|error| {
            let why = String::from_utf8_lossy(&told.stderr);
            format!("{kind:?}, {stage:?} said {said:?}: {error}: {why}").into()
        })
    };
    let mut memory = Vec::new();
    for &kind in kinds {
        eprintln!("memory of {}", kind.name());
        let name = format!("{kind:?}");
        let filled = alone(kind, Stage::Fill, &name)?;
        let opened = alone(kind, Stage::Open, &name)?;
        let empty = alone(kind, Stage::Empty, &format!("empty-{name}"))?;
        let at =
            |told: &Stops, stop: usize| told.stops.get(stop).copied().ok_or("a stop is missing");
        memory.push(Row {
            who: kind.name(),
            filling_peak: at(&filled, 0)?.peak,
            optimizing_peak: at(&filled, 1)?.peak,
            opened: at(&opened, 0)?,
            linear: opened.linear,
            empty: at(&empty, 0)?,
        });
    }
    let shard = |kind: ContestantKind| folder.join(format!("{kind:?}"));
    let empty = |kind: ContestantKind| folder.join(format!("empty-{kind:?}"));
    let served = Served::start(&empty(ContestantKind::Component), &[])?;
    std::thread::sleep(SETTLE);
    let of_served = Memory::of(Some(served.process())).ok_or("the system does not tell memory")?;
    drop(served);

    let mut starts: Vec<(String, ContestantKind, PathBuf)> = Vec::new();
    for &kind in kinds.iter().filter(|kind| **kind != ContestantKind::Engine) {
        let name = match kind {
            ContestantKind::Component => "`edge-sync count`".to_owned(),
            other => format!("a program with {}", other.name()),
        };
        starts.push((format!("{name}, empty shard"), kind, empty(kind)));
        let points = grouped(filling.points as u64);
        starts.push((format!("{name}, {points} points"), kind, shard(kind)));
    }
    let mut started: Vec<Start> = starts
        .iter()
        .map(|(what, ..)| Start {
            what: what.clone(),
            first: Samples::default(),
            end: Samples::default(),
        })
        .collect();
    let mut steps = Steps::default();
    for repetition in 0..repetitions.max(1) {
        for n in order(starts.len(), repetition) {
            let (_, kind, directory) = &starts[n];
            let (first, end) = start(&mut first_answer(*kind, component, directory, filling)?)?;
            started[n].first.add(first.as_secs_f64());
            started[n].end.add(end.as_secs_f64());
        }
        steps.measure(component, &folder.join(format!("step-{repetition}")))?;
    }
    Ok(Footprint {
        machine: machine(),
        points: filling.points,
        dimensions: filling.dimensions,
        repetitions,
        memory,
        served: of_served,
        starts: started,
        steps: steps.named(),
    })
}

/// What a process of its own does, which is this program with a stage to do.
///
/// # Errors
/// Whatever the contestant says, or the system does not tell the process's memory.
pub fn alone(
    kind: ContestantKind,
    stage: Stage,
    component: Option<&Path>,
    directory: &Path,
    filling: Filling,
) -> Result<String> {
    let contestants = Contestants::only(kind, component)?;
    let options = ShardOptions::default().durability(Durability::Os);
    let shape = Shape::of(filling.dimensions);
    let mut source = Source::new(filling.data, filling.dimensions, filling.seed);
    let mut told = Stops::default();
    let stop = |told: &mut Stops, shard: &dyn Contestant| -> Result<()> {
        let memory = Memory::of(shard.process()).ok_or("the system does not tell memory")?;
        told.stops.push(memory);
        told.linear = shard.linear_memory()?;
        Ok(())
    };
    let create = || -> Result<Box<dyn Contestant>> {
        std::fs::create_dir_all(directory)?;
        contestants.create(kind, directory, shape, &options)
    };
    match stage {
        Stage::Fill => {
            let shard = create()?;
            let points = filling.points as u64;
            for from in (0..points).step_by(BATCH as usize) {
                // Made as they are written, so that they are not counted.
                shard.upsert(&source.records(from..points.min(from + BATCH)))?;
            }
            shard.flush()?;
            stop(&mut told, &*shard)?;
            shard.optimize()?;
            stop(&mut told, &*shard)?;
            shard.flush()?;
        }
        Stage::Open => {
            let shard = contestants.open(kind, directory, &options)?;
            for _ in 0..SEARCHES {
                let query = source.vector().ok_or("there are no vectors")?;
                shard.search(&query, LIMIT, false)?;
            }
            stop(&mut told, &*shard)?;
        }
        Stage::Empty => {
            let shard = create()?;
            shard.flush()?;
            drop(shard);
            let shard = contestants.open(kind, directory, &options)?;
            stop(&mut told, &*shard)?;
        }
        Stage::First => {
            let shard = contestants.open(kind, directory, &options)?;
            return Ok(shard.state()?.points.to_string());
        }
    }
    Ok(serde_json::to_string(&told)?)
}

fn this_program(
    kind: ContestantKind,
    stage: Stage,
    component: &Path,
    directory: &Path,
    filling: Filling,
) -> Result<Command> {
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    };
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["--alone", &name(kind.to_possible_value())])
        .args(["--stage", &name(stage.to_possible_value())])
        .args(["--data", &name(filling.data.to_possible_value())])
        .args(["--points", &filling.points.to_string()])
        .args(["--dimensions", &filling.dimensions.to_string()])
        .args(["--seed", &filling.seed.to_string()])
        .arg("--component")
        .arg(component)
        .arg("--directory")
        .arg(directory);
    Ok(command)
}

fn first_answer(
    kind: ContestantKind,
    component: &Path,
    directory: &Path,
    filling: Filling,
) -> Result<Command> {
    Ok(match kind {
        ContestantKind::Component => {
            let mut command = Command::new(command()?);
            command.arg("--data-dir").arg(directory).arg("count");
            command
        }
        ContestantKind::Python => {
            let mut command = Command::new(Python::find()?);
            command.args(["-c", FIRST_IN_PYTHON]).arg(directory);
            command
        }
        ContestantKind::Native | ContestantKind::Engine => {
            this_program(kind, Stage::First, component, directory, filling)?
        }
    })
}

/// From its start to the first line that a program prints, and to its end.
fn start(program: &mut Command) -> Result<(Duration, Duration)> {
    program.stdin(Stdio::null()).stdout(Stdio::piped());
    let started = Instant::now();
    let mut child = program.spawn()?;
    let mut output = BufReader::new(child.stdout.take().ok_or("a program has no output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let first = started.elapsed();
    output.read_to_string(&mut line)?;
    let status = child.wait()?;
    if !status.success() {
        return Err(format!("{program:?}: {status}").into());
    }
    Ok((first, started.elapsed()))
}

/// What a first answer is made of.
#[derive(Default)]
struct Steps {
    component: Samples,
    create: Samples,
    open: Samples,
    close: Samples,
}

impl Steps {
    fn measure(&mut self, component: &Path, directory: &Path) -> Result<()> {
        let time = |samples: &mut Samples, started: Instant| {
            samples.add(started.elapsed().as_secs_f64());
        };
        let started = Instant::now();
        let component = Component::load(component)?;
        time(&mut self.component, started);
        let config = Shape::of(4).config().to_string();
        let options = ShardOptions::default();
        let started = Instant::now();
        let shard = Shard::create(&component, directory, &config, options.clone())?;
        time(&mut self.create, started);
        shard.close()?;
        let started = Instant::now();
        let shard = Shard::open(&component, directory, options)?;
        time(&mut self.open, started);
        let started = Instant::now();
        shard.close()?;
        time(&mut self.close, started);
        Ok(())
    }

    fn named(self) -> Vec<(&'static str, Samples)> {
        vec![
            ("mapping the compiled component", self.component),
            ("creating a shard, instance included", self.create),
            ("opening an empty shard, instance included", self.open),
            ("closing it", self.close),
        ]
    }
}
