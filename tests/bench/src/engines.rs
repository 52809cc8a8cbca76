//! All contestants at every kind of work, in one run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use edge_sync_host::{Durability, ShardOptions};

use crate::contestants::{Contestant, ContestantKind, Contestants, Engine, Result, Shape, State};
use crate::data::Data;
use crate::report::{Report, Samples, Times, Unit, machine, median};

/// Ids of the points that each query found, best first.
type Found = Vec<Vec<u64>>;

/// Results a search.
pub const LIMIT: u32 = 10;

/// How often a shard is opened in a repetition; opening is quick, and its median worth having.
const OPENINGS: usize = 3;

/// Points that are written one by one, and how many before it is another contestant's turn.
const ONES: usize = 2_000;
const ONES_A_TURN: usize = 50;

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Points in each write.
    pub batch: usize,
    /// How often everything is done.
    pub repetitions: usize,
}

/// Takes the contestants through everything, each repetition in a folder of its own.
///
/// # Errors
/// Whatever fails first; or a contestant is wrong.
pub fn measure(
    contestants: &Contestants,
    data: &Data,
    what: &str,
    amount: Amount,
    directory: Option<&Path>,
) -> Result<Report> {
    let mut measured = Measured::default();
    for repetition in 1..=amount.repetitions {
        eprintln!("repetition {repetition} of {}", amount.repetitions);
        let folder = crate::folder(directory)?;
        let turn = Turn {
            contestants,
            kinds: contestants.kinds(),
            data,
            batch: amount.batch,
            folder: folder.path(),
            // Whoever comes first warms or cools the machine for the others.
            first: repetition,
        };
        turn.run(&mut measured)?;
        folder.close()?;
    }
    Ok(measured.report(data, what, amount))
}

#[derive(Default)]
struct Measured {
    ones: Times,
    ones_always: Samples,
    upsert: Times,
    upsert_always: Samples,
    flush: Times,
    exact: Times,
    optimize: Times,
    indexed: Times,
    load: Times,
    restore: Times,
    /// One a repetition: share of the native top results that the component gave too.
    agreement: Vec<f64>,
    recall: BTreeMap<&'static str, Vec<f64>>,
    memory_bytes: u64,
    snapshot_bytes: u64,
}

impl Measured {
    fn report(self, data: &Data, what: &str, amount: Amount) -> Report {
        let batch = amount.batch;
        let always = |times: &Times, component| Times {
            engine: Samples::default(),
            component,
            ..times.clone()
        };
        let upsert_always = always(&self.upsert, self.upsert_always);
        let ones_always = always(&self.ones, self.ones_always);
        let rows = vec![
            self.upsert.row(
                format!("upsert, batches of {batch}, durability `os`"),
                Unit::PerSecond,
            ),
            upsert_always.row(
                format!("upsert, batches of {batch}, durability `always`"),
                Unit::PerSecond,
            ),
            self.ones
                .row("upsert one by one, durability `os`", Unit::PerSecond),
            ones_always.row("upsert one by one, durability `always`", Unit::PerSecond),
            self.flush.row("flush after that", Unit::Seconds),
            self.exact
                .row("exact search, top 10 with payload", Unit::Milliseconds),
            self.optimize.row("optimize (builds HNSW)", Unit::Seconds),
            self.indexed.row(
                "search after optimize, top 10 with payload",
                Unit::Milliseconds,
            ),
            self.load.row("load", Unit::Seconds),
            self.restore
                .row("restore from a snapshot file", Unit::Seconds),
        ];
        let recall = self.recall.into_iter();
        Report {
            machine: machine(),
            data: what.to_owned(),
            points: data.records.len(),
            dimensions: data.dimensions(),
            batch,
            searches: data.queries.len(),
            repetitions: amount.repetitions,
            rows,
            exact_agreement: median(&self.agreement),
            recall: recall.map(|(name, of)| (name, median(&of))).collect(),
            memory_bytes: self.memory_bytes,
            snapshot_bytes: self.snapshot_bytes,
        }
    }
}

/// One repetition.
struct Turn<'a> {
    contestants: &'a Contestants,
    kinds: Vec<ContestantKind>,
    data: &'a Data,
    batch: usize,
    folder: &'a Path,
    first: usize,
}

type Shards = Vec<Box<dyn Contestant>>;

impl Turn<'_> {
    fn run(&self, measured: &mut Measured) -> Result<()> {
        self.always(measured)?;
        let mut shards = self.create("ones")?;
        measured.ones.add(&self.kinds, &self.ones(&shards)?);
        drop(shards);

        shards = self.create("shard")?;
        measured.upsert.add(&self.kinds, &self.upsert(&shards)?);
        let flush = self.once(&mut shards, |one| one.flush())?;
        measured.flush.add(&self.kinds, &flush);

        let (exact, exact_ids) = self.search(&shards, true)?;
        measured.exact.add(&self.kinds, &exact);
        let reference = self.found_by(ContestantKind::Native, &exact_ids)?;
        for (kind, ids) in self.kinds.iter().zip(&exact_ids) {
            let agreement = overlap(reference, ids);
            // Scores differ in their last digits, so close neighbours may swap; not more.
            if agreement < 0.99 {
                let name = kind.name();
                return Err(format!(
                    "the exact results of {name} are not the engine's: {agreement:.4} in common"
                )
                .into());
            }
            if *kind == ContestantKind::Component {
                measured.agreement.push(agreement);
            }
        }

        let optimize = self.once(&mut shards, |one| one.optimize())?;
        measured.optimize.add(&self.kinds, &optimize);
        for one in &shards {
            check(one.state()?, self.data.records.len())?;
        }
        let (indexed, indexed_ids) = self.search(&shards, false)?;
        measured.indexed.add(&self.kinds, &indexed);
        for (kind, ids) in self.kinds.iter().zip(&indexed_ids) {
            let of = measured.recall.entry(kind.name()).or_default();
            of.push(overlap(reference, ids));
        }

        let mut openings = vec![Vec::new(); shards.len()];
        for _ in 0..OPENINGS {
            let once = self.once(&mut shards, |one| one.reopen())?;
            for (times, time) in openings.iter_mut().zip(once) {
                times.push(time);
            }
        }
        let load: Vec<f64> = openings.iter().map(|times| median(times)).collect();
        measured.load.add(&self.kinds, &load);
        for one in &shards {
            let memory = one.linear_memory()?.unwrap_or_default();
            measured.memory_bytes = measured.memory_bytes.max(memory);
        }
        drop(shards);

        let snapshot = self.folder.join("shard.snapshot");
        Engine::open(&self.at("shard", ContestantKind::Engine))?.snapshot(&snapshot)?;
        measured.snapshot_bytes = std::fs::metadata(&snapshot)?.len();
        measured.restore.add(&self.kinds, &self.restore(&snapshot)?);
        Ok(())
    }

    /// A device by itself: its fsyncs would hold up the others' writes to the same disk.
    fn always(&self, measured: &mut Measured) -> Result<()> {
        let options = ShardOptions::default().durability(Durability::Always);
        let create = |name: &str| {
            let folder = self.folder.join(name);
            let shape = self.shape();
            self.contestants
                .create(ContestantKind::Component, &folder, shape, &options)
        };
        let one = vec![create("always-ones")?];
        let seconds = self.ones(&one)?;
        seconds.iter().for_each(|it| measured.ones_always.add(*it));
        drop(one);
        let one = vec![create("always")?];
        let seconds = self.upsert(&one)?;
        seconds
            .iter()
            .for_each(|it| measured.upsert_always.add(*it));
        Ok(())
    }

    fn shape(&self) -> Shape {
        Shape::of(self.data.dimensions())
    }

    fn at(&self, name: &str, kind: ContestantKind) -> std::path::PathBuf {
        self.folder.join(format!("{name}-{kind:?}"))
    }

    fn create(&self, name: &str) -> Result<Shards> {
        let options = ShardOptions::default().durability(Durability::Os);
        let create = |kind: &ContestantKind| {
            let folder = self.at(name, *kind);
            std::fs::create_dir(&folder)?;
            self.contestants
                .create(*kind, &folder, self.shape(), &options)
        };
        self.kinds.iter().map(create).collect()
    }

    fn found_by<'b>(&self, kind: ContestantKind, found: &'b [Found]) -> Result<&'b Found> {
        let at = self.kinds.iter().position(|it| *it == kind);
        at.and_then(|at| found.get(at))
            .ok_or_else(|| format!("{} is not there", kind.name()).into())
    }

    /// Seconds a point, the contestants taking turns by batches.
    fn upsert(&self, shards: &[Box<dyn Contestant>]) -> Result<Vec<f64>> {
        let batches = self.data.records.chunks(self.batch);
        self.write(shards, batches, |one, batch| one.upsert(batch))
    }

    /// The same, one by one.
    fn ones(&self, shards: &[Box<dyn Contestant>]) -> Result<Vec<f64>> {
        let batches = self
            .data
            .records
            .chunks(ONES_A_TURN)
            .take(ONES / ONES_A_TURN);
        self.write(shards, batches, |one, batch| one.upsert_each(batch))
    }

    fn write<'b>(
        &self,
        shards: &[Box<dyn Contestant>],
        batches: impl Iterator<Item = &'b [crate::contestants::Record]>,
        write: impl Fn(&dyn Contestant, &[crate::contestants::Record]) -> Result<Duration>,
    ) -> Result<Vec<f64>> {
        let mut times = vec![Duration::ZERO; shards.len()];
        let mut points = 0;
        for (number, batch) in batches.enumerate() {
            for n in order(shards.len(), self.first + number) {
                times[n] += write(&*shards[n], batch)?;
            }
            points += batch.len();
        }
        let a_point = |time: Duration| time.as_secs_f64() / points.max(1) as f64;
        Ok(times.into_iter().map(a_point).collect())
    }

    /// The median seconds of a search, the contestants taking turns by queries, and what they
    /// found.
    fn search(
        &self,
        shards: &[Box<dyn Contestant>],
        exact: bool,
    ) -> Result<(Vec<f64>, Vec<Found>)> {
        let mut times = vec![Vec::new(); shards.len()];
        let mut ids = vec![Found::new(); shards.len()];
        for (number, query) in self.data.queries.iter().enumerate() {
            for n in order(shards.len(), self.first + number) {
                let found = shards[n].search(query, LIMIT, exact)?;
                times[n].push(found.elapsed.as_secs_f64());
                ids[n].push(found.ids);
            }
        }
        Ok((times.iter().map(|times| median(times)).collect(), ids))
    }

    fn once(
        &self,
        shards: &mut [Box<dyn Contestant>],
        work: impl Fn(&mut dyn Contestant) -> Result<Duration>,
    ) -> Result<Vec<f64>> {
        let mut times = vec![0.0; shards.len()];
        for n in order(shards.len(), self.first) {
            times[n] = work(&mut *shards[n])?.as_secs_f64();
        }
        Ok(times)
    }

    fn restore(&self, snapshot: &Path) -> Result<Vec<f64>> {
        let mut times = vec![0.0; self.kinds.len()];
        for n in order(self.kinds.len(), self.first) {
            let kind = self.kinds[n];
            let folder = self.at("restored", kind);
            let time = self.contestants.restore(kind, snapshot, &folder)?;
            times[n] = time.as_secs_f64();
        }
        Ok(times)
    }
}

/// Who comes when: each of `count` in turn, another first each time.
pub fn order(count: usize, turn: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |n| (n + turn) % count)
}

/// Share of `reference` that is also in `ids`, query by query.
pub fn overlap(reference: &[Vec<u64>], ids: &[Vec<u64>]) -> f64 {
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
