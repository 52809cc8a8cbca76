//! The component through the host against the native engine, as ratios. `cargo xtask bench`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Parser};
use edge_sync_bench::contestants::{ContestantKind, Contestants, Result};
use edge_sync_bench::data::{self, Data};
use edge_sync_bench::figures::{Comparison, Reportable};
use edge_sync_bench::footprint::{Filling, Stage};
use edge_sync_bench::profiled::{self, Work};
use edge_sync_bench::{
    calls, clients, engines, folder, footprint, load, optimizing, pulls, sizes, uploads, vectors,
};
use edge_sync_host::Component;

/// Points in the shard unless told otherwise.
const DEFAULT_POINTS: usize = 20_000;

/// Points of [`Arguments::pulls`] where no other number is asked for.
const PULLED_POINTS: usize = 100_000;

/// Calls of each kind in a repetition of [`Arguments::calls`].
const CALLS: usize = 1_000;

/// Sizes of [`Arguments::sizes`] where no others are named.
const SIZES: &str = "1000,10000,100000,300000";

/// Seconds of each row of [`Arguments::load`].
const LOAD_SECONDS: u64 = 60;
const QUICK_LOAD_SECONDS: u64 = 5;

/// Measures the component in its host against the native engine and its Python package, on this
/// machine, in one run.
///
/// See docs/benchmarks.md for what is measured and how.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version)]
#[command(group(ArgGroup::new("what")))]
struct Arguments {
    /// Points in the shard.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_POINTS)]
    points: usize,
    /// Dimensions of the vectors.
    #[arg(long, value_name = "N", default_value_t = 128)]
    dimensions: usize,
    /// Kind of the vectors.
    #[arg(long, value_enum, default_value_t = data::Dataset::Random)]
    data: data::Dataset,
    /// Points in each write.
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
    /// Measure instead memory, and the time from the start of a process to its first answer.
    #[arg(long, group = "what")]
    footprint: bool,
    /// Measure instead the price of a call: next to nothing is to be done.
    #[arg(long, group = "what")]
    calls: bool,
    /// Measure instead what searches and writes wait for while the shard is optimized.
    #[arg(long, group = "what")]
    optimizing: bool,
    /// Measure instead searches a second of 1, 2 and 4 clients while 1,000 points a second are written.
    #[arg(long, group = "what")]
    clients: bool,
    /// Measure instead shards of these sizes, which have no index.
    #[arg(long, group = "what", value_name = "N,...", value_delimiter = ',', num_args = 0..=1,
          default_missing_value = SIZES)]
    sizes: Option<Vec<usize>>,
    /// Measure instead searches of every kind of vector and quantization, without a graph.
    #[arg(long, group = "what")]
    vectors: bool,
    /// Measure instead what following a server costs, with 100,000 points unless --points says
    /// otherwise.
    #[arg(long, group = "what")]
    pulls: bool,
    /// Measure instead what clients of `serve` wait for, 64 at once, alone and beside slow connections
    /// and large bodies; a minute each.
    #[arg(long, group = "what")]
    load: bool,
    /// Measure instead how fast a queue is uploaded, on this machine and over a slow link, beside prepared
    /// requests and beside a loop in Python.
    #[arg(long, group = "what")]
    uploads: bool,
    /// Do one kind of work of the component's over and over, for a profiler.
    #[arg(long, group = "what", value_enum, value_name = "WORK")]
    profile: Option<Work>,
    /// Print everything measured as JSON.
    #[arg(long)]
    json: bool,
    /// Print also what changed against an earlier run: a file with what that printed with --json.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Seed of the data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the shards are put, and removed from [default: the system's temporary folder].
    #[arg(long, value_name = "FOLDER")]
    directory: Option<PathBuf>,
    /// The component [default: $EDGE_SYNC_COMPONENT].
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
    /// What a process does that this program starts: one contestant, whose memory is looked at.
    #[arg(long, value_enum, hide = true, requires_all = ["stage", "directory"])]
    alone: Option<ContestantKind>,
    #[arg(long, value_enum, hide = true)]
    stage: Option<Stage>,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        arguments.points = arguments.points.min(2_000);
        arguments.searches = arguments.searches.min(50);
        arguments.repetitions = arguments.repetitions.min(2);
    }
    match run(&arguments) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<String> {
    if arguments.points == 0
        || arguments.dimensions == 0
        || arguments.batch == 0
        || arguments.searches == 0
        || arguments.repetitions == 0
    {
        return Err(
            "points, dimensions, batch, searches and repetitions must be at least 1".into(),
        );
    }
    if let (Some(kind), Some(stage), Some(directory)) =
        (arguments.alone, arguments.stage, &arguments.directory)
    {
        let component = arguments.component.as_deref();
        return footprint::alone(kind, stage, component, directory, arguments.filling());
    }
    if let Some(work) = arguments.profile {
        let contestants =
            Contestants::only(ContestantKind::Component, arguments.component.as_deref())?;
        let place = folder(arguments.directory.as_deref())?;
        let (data, is_quick) = (arguments.data(), arguments.quick);
        let kind = ContestantKind::Component;
        return profiled::run(&contestants, kind, work, place.path(), &data, is_quick);
    }
    // Read before anything is measured: a wrong file is told at once.
    let earlier = match &arguments.compare {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| format!("{}: {error}", file.display()))?;
            Comparison::with(&text, Vec::new())?;
            Some(text)
        }
        None => None,
    };
    let measured = arguments.measure()?;
    told(&*measured, earlier.as_deref(), arguments.json)
}

/// What was measured, as it is asked for.
fn told(measured: &dyn Reportable, earlier: Option<&str>, as_json: bool) -> Result<String> {
    let comparison = match earlier {
        Some(earlier) => Some(Comparison::with(earlier, measured.numbers())?),
        None => None,
    };
    if !as_json {
        let comparison = comparison.map_or_else(String::new, |it| format!("\n{it}"));
        return Ok(format!("{measured}{comparison}"));
    }
    let mut json = measured.json()?;
    if let Some(comparison) = comparison {
        json["compared"] = serde_json::to_value(comparison)?;
    }
    Ok(serde_json::to_string_pretty(&json)?)
}

impl Arguments {
    fn measure(&self) -> Result<Box<dyn Reportable>> {
        let directory = self.directory.as_deref();
        let place = folder(directory)?;
        let (folder, shape) = (place.path(), (self.points, self.dimensions));
        let component_file = Component::find(self.component.as_deref())?;
        if self.footprint {
            let kinds = Contestants::find_kinds();
            let repetitions = 2 * self.repetitions;
            let filling = self.filling();
            let measured =
                footprint::measure(&kinds, &component_file, folder, filling, repetitions)?;
            return Ok(Box::new(measured));
        }
        let component = Component::load(component_file)?;
        if self.pulls {
            let points = match (self.points, self.quick) {
                (DEFAULT_POINTS, false) => PULLED_POINTS,
                (points, _) => points,
            };
            let (dimensions, seed) = (self.dimensions, self.seed);
            return Ok(Box::new(pulls::measure(
                &component, folder, points, dimensions, seed,
            )?));
        }
        if self.load {
            let seconds = match self.quick {
                true => QUICK_LOAD_SECONDS,
                false => LOAD_SECONDS,
            };
            let points = self.points as u64;
            return Ok(Box::new(load::measure(
                folder,
                points,
                self.dimensions,
                seconds,
            )?));
        }
        if self.uploads {
            let (repetitions, seed) = (self.repetitions, self.seed);
            let measured = uploads::measure(&component, folder, shape, repetitions, seed)?;
            return Ok(Box::new(measured));
        }
        if self.optimizing {
            let (data, repetitions) = (self.data(), self.repetitions);
            let measured =
                optimizing::measure(&component, directory, &data, repetitions, self.quick)?;
            return Ok(Box::new(measured));
        }
        if self.clients {
            let (data, repetitions) = (self.data(), self.repetitions);
            let variants = clients::variants();
            let measured = clients::measure(
                &component,
                folder,
                &data,
                &variants,
                repetitions,
                self.quick,
            )?;
            return Ok(Box::new(measured));
        }
        if self.vectors {
            let amount = vectors::Amount {
                points: self.points as u64,
                dimensions: self.dimensions,
                searches: self.searches,
                repetitions: self.repetitions,
                seed: self.seed,
            };
            return Ok(Box::new(vectors::measure(&component, folder, amount)?));
        }
        let contestants = Contestants::find(component);
        if self.calls {
            let calls = if self.quick { CALLS / 20 } else { CALLS };
            let asked = (self.dimensions, calls);
            let measured = calls::measure(&contestants, folder, asked, self.repetitions)?;
            return Ok(Box::new(measured));
        }
        if let Some(sizes) = &self.sizes {
            return Ok(Box::new(self.sizes(&contestants, directory, sizes)?));
        }
        let amount = engines::Amount {
            batch: self.batch,
            repetitions: self.repetitions,
        };
        let (data, what) = (self.data(), self.data.to_string());
        let report = engines::measure(&contestants, &data, &what, amount, directory)?;
        Ok(Box::new(report))
    }

    fn sizes(
        &self,
        contestants: &Contestants,
        directory: Option<&Path>,
        sizes: &[usize],
    ) -> Result<sizes::Sizes> {
        let amount = sizes::Amount {
            data: self.data,
            dimensions: self.dimensions,
            batch: self.batch,
            searches: self.searches,
            repetitions: self.repetitions,
            seed: self.seed,
        };
        sizes::measure(contestants, directory, sizes, amount)
    }

    fn data(&self) -> Data {
        Data::make(
            self.data,
            self.points,
            self.dimensions,
            self.searches,
            self.seed,
        )
    }

    fn filling(&self) -> Filling {
        Filling {
            data: self.data,
            points: self.points,
            dimensions: self.dimensions,
            seed: self.seed,
        }
    }
}
