//! Searches a second of one and of several clients while 1,000 points a second are written: natively,
//! through the host library, and through `serve`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use edge_sync_host::{Component, Durability, ShardOptions};
use edge_sync_numbers::grouped;
use serde::Serialize;
use serde_json::{Value, json};

use crate::contestants::{Contestant, Hosted, Raw, Record, Result, Shape};
use crate::data::Data;
use crate::engines::{LIMIT, order};
use crate::figures::{Figure, Measured};
use crate::latencies::Latencies;
use crate::report::{Ratio, Samples, Unit, machine};
use crate::served::{COLLECTION, Served};

/// How many search at once.
const CLIENTS: [usize; 3] = [1, 2, 4];

/// A write, and how often one is due: 1,000 points a second.
const WRITTEN: usize = 100;
const WRITE_EVERY: Duration = Duration::from_millis(100);

/// Points that are written over and over, so that the shard does not grow: those of a second.
const NEW: usize = 1_000;

const TIME: Duration = Duration::from_secs(5);
const QUICK_TIME: Duration = Duration::from_millis(500);

/// A way to set the component up.
#[derive(Debug, Clone)]
pub struct Variant {
    /// As the table calls it; nothing for the usual one.
    pub name: String,
    /// For the host library.
    pub options: ShardOptions,
    /// The same for `serve`.
    pub flags: Vec<String>,
}

/// What is measured unless told otherwise.
pub fn variants() -> Vec<Variant> {
    let options = ShardOptions::default().durability(Durability::Os);
    [(0, ""), (1, "1 reader")]
        .map(|(readers, name)| Variant {
            name: name.to_owned(),
            options: options.clone().readers(readers),
            flags: vec!["--readers".to_owned(), readers.to_string()],
        })
        .into()
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Throughput {
    /// Processor and number of cores.
    pub machine: String,
    /// Points of the shard, of which all but 1,000 are in the index.
    pub points: usize,
    /// Their dimensions.
    pub dimensions: usize,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// Repetitions.
    pub repetitions: usize,
    /// By door, and number of clients.
    pub rows: Vec<Row>,
}

/// So many clients at one door.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Where they asked.
    pub door: String,
    /// How many.
    pub clients: usize,
    /// Seconds for each search, all clients together; one number for each repetition.
    pub search: Samples,
    /// What a client waited for.
    pub waited: Latencies,
    /// Seconds for each written point; one number for each repetition.
    pub written: Samples,
    /// What the writer waited for, from when a write was due.
    pub writes: Latencies,
    /// How many times as long as natively a search takes, with as many clients.
    pub ratio: Option<Ratio>,
}

impl Measured for Throughput {
    fn figures(&self) -> Vec<Figure> {
        let of = |row: &Row| {
            let name = format!("{}, {} clients", row.door, row.clients);
            let mut figures: Vec<Figure> = Vec::new();
            figures.extend(row.ratio.map(|it| it.figure(format!("{name}, × native"))));
            figures.extend(row.search.figure(format!("{name}, seconds a search")));
            figures.push(Figure::single(format!("{name}, p99 ms"), row.waited.p99));
            figures
        };
        self.rows.iter().flat_map(of).collect()
    }
}

impl fmt::Display for Throughput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} points of {} dimensions, a write of {WRITTEN} each {} ms; {}; {} repetitions of {} s\n",
            grouped(self.points as u64),
            self.dimensions,
            WRITE_EVERY.as_millis(),
            self.machine,
            self.repetitions,
            self.seconds,
        )?;
        writeln!(
            f,
            "| by | clients | searches | half within | 99 % | points written | a write, 99 % | a search, × native |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            writeln!(
                f,
                "| {} | {} | {} | {:.2} ms | {:.2} ms | {} | {:.1} ms | {} |",
                row.door,
                row.clients,
                row.search.show(Unit::PerSecond),
                row.waited.median,
                row.waited.p99,
                row.written.show(Unit::PerSecond),
                row.writes.p99,
                row.ratio
                    .map_or_else(|| "-".to_owned(), |it| it.to_string()),
            )?;
        }
        Ok(())
    }
}

/// Errors that go from one thread to another.
type Answered<T> = std::result::Result<T, String>;

/// A client: what it searches with, or writes with.
type Search<'a> = Box<dyn FnMut(&[f32]) -> Answered<()> + 'a>;
type Write<'a> = Box<dyn FnMut(&[Record]) -> Answered<()> + 'a>;

/// Where clients come in.
trait Door: Sync {
    /// Another client.
    fn searcher(&self) -> Search<'_>;
    /// A client that writes.
    fn writer(&self) -> Write<'_>;
}

struct Within<C>(C);

impl<C: Contestant + Sync> Door for Within<C> {
    fn searcher(&self) -> Search<'_> {
        Box::new(|query| told(self.0.search(query, LIMIT, false)))
    }

    fn writer(&self) -> Write<'_> {
        Box::new(|records| told(self.0.upsert(records)))
    }
}

fn told<T>(outcome: Result<T>) -> Answered<()> {
    outcome.map(drop).map_err(|error| error.to_string())
}

impl Door for Served {
    fn searcher(&self) -> Search<'_> {
        let client = self.client();
        let path = format!("{COLLECTION}/points/query");
        Box::new(move |query| {
            let body = json!({"query": query, "limit": LIMIT, "with_payload": true});
            answered(client.call("POST", &path, Some(&body)))
        })
    }

    fn writer(&self) -> Write<'_> {
        let client = self.client();
        let path = format!("{COLLECTION}/points?wait=true");
        Box::new(move |records| {
            let point =
                |it: &Record| json!({"id": it.id, "vector": it.vector, "payload": it.payload});
            let points: Vec<Value> = records.iter().map(point).collect();
            answered(client.call("PUT", &path, Some(&json!({ "points": points }))))
        })
    }
}

fn answered(
    outcome: std::result::Result<(u16, Value), edge_sync_clients::rest::NoAnswer>,
) -> Answered<()> {
    match outcome.map_err(|error| error.to_string())? {
        (200, _) => Ok(()),
        (status, answer) => Err(format!("{status}: {answer}")),
    }
}

/// Lets 1, 2 and 4 clients search at every door, in turns.
///
/// # Errors
/// Whatever fails first.
pub fn measure(
    component: &Component,
    folder: &Path,
    data: &Data,
    variants: &[Variant],
    repetitions: usize,
    is_quick: bool,
) -> Result<Throughput> {
    let new = NEW.min(data.records.len() / 2);
    let (built, new) = data.records.split_at(data.records.len() - new);
    let doors = doors(component, folder, built, new, variants)?;
    let time = if is_quick { QUICK_TIME } else { TIME };
    let mut rows: Vec<(usize, usize, Gathered)> = Vec::new();
    for door in 0..doors.len() {
        rows.extend(CLIENTS.map(|clients| (door, clients, Gathered::default())));
    }
    for repetition in 0..repetitions.max(1) {
        eprintln!("repetition {} of {repetitions}", repetition + 1);
        // All doors with as many clients come close to each other.
        for clients in CLIENTS {
            for door in order(doors.len(), repetition) {
                let outcome = ask(&*doors[door].1, clients, &data.queries, new, time)?;
                let row = rows
                    .iter_mut()
                    .find(|row| (row.0, row.1) == (door, clients));
                if let Some((_, _, gathered)) = row {
                    gathered.add(outcome);
                }
            }
        }
    }
    let natively: Vec<(usize, Samples)> = rows
        .iter()
        .filter(|(door, ..)| *door == 0)
        .map(|(_, clients, gathered)| (*clients, gathered.search.clone()))
        .collect();
    let row = |(door, clients, gathered): (usize, usize, Gathered)| {
        let native = natively.iter().find(|(of, _)| *of == clients);
        let native = native.filter(|_| door > 0);
        Row {
            door: doors[door].0.clone(),
            clients,
            ratio: native.and_then(|(_, native)| Ratio::of(native, &gathered.search)),
            search: gathered.search,
            waited: Latencies::of(gathered.waited),
            written: gathered.written,
            writes: Latencies::of(gathered.writes),
        }
    };
    Ok(Throughput {
        machine: machine(),
        points: data.records.len(),
        dimensions: data.dimensions(),
        seconds: time.as_secs_f64(),
        repetitions,
        rows: rows.into_iter().map(row).collect(),
    })
}

/// The native engine first, then the component in each of its ways.
fn doors(
    component: &Component,
    folder: &Path,
    built: &[Record],
    new: &[Record],
    variants: &[Variant],
) -> Result<Vec<(String, Box<dyn Door>)>> {
    let shape = Shape::of(built.first().map_or(1, |record| record.vector.len()));
    let native = Raw::create(&folder.join("native"), shape)?;
    fill(&native, built, new)?;
    // Built once, and copied: the same graph for all.
    let first = folder.join("component");
    let options = ShardOptions::default().durability(Durability::Os);
    let hosted = Hosted::create(component, &first, shape, options)?;
    fill(&hosted, built, new)?;
    hosted.shard()?.close()?;
    drop(hosted);
    let mut doors: Vec<(String, Box<dyn Door>)> =
        vec![("native qdrant-edge".to_owned(), Box::new(Within(native)))];
    for (number, variant) in variants.iter().enumerate() {
        let copy = |name: &str| -> Result<PathBuf> {
            let target = folder.join(format!("{name}-{number}"));
            copy_folder(&first, &target)?;
            Ok(target)
        };
        let named = |door: &str| match variant.name.as_str() {
            "" => door.to_owned(),
            name => format!("{door}, {name}"),
        };
        let hosted = Hosted::open(component, &copy("hosted")?, variant.options.clone())?;
        doors.push((named("the host library"), Box::new(Within(hosted))));
        let mut flags = vec!["--durability".to_owned(), "os".to_owned()];
        flags.extend(variant.flags.clone());
        let served = Served::start(&copy("served")?, &flags)?;
        doors.push((named("`serve`"), Box::new(served)));
    }
    Ok(doors)
}

fn fill(shard: &dyn Contestant, built: &[Record], new: &[Record]) -> Result<()> {
    for batch in built.chunks(WRITTEN) {
        shard.upsert(batch)?;
    }
    shard.optimize()?;
    for batch in new.chunks(WRITTEN) {
        shard.upsert(batch)?;
    }
    shard.flush()?;
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => fs::copy(entry.path(), target).map(drop)?,
        }
    }
    Ok(())
}

/// Of one door with so many clients.
#[derive(Default)]
struct Gathered {
    search: Samples,
    waited: Vec<f64>,
    written: Samples,
    writes: Vec<f64>,
}

impl Gathered {
    fn add(&mut self, outcome: Outcome) {
        let seconds = outcome.elapsed.as_secs_f64();
        let each = |count: usize| seconds / count.max(1) as f64;
        self.search.add(each(outcome.waited.len()));
        self.written.add(each(outcome.writes.len() * WRITTEN));
        self.waited.extend(outcome.waited);
        self.writes.extend(outcome.writes);
    }
}

struct Outcome {
    waited: Vec<f64>,
    writes: Vec<f64>,
    elapsed: Duration,
}

fn ask(
    door: &dyn Door,
    clients: usize,
    queries: &[Vec<f32>],
    new: &[Record],
    time: Duration,
) -> Result<Outcome> {
    let end = AtomicBool::new(false);
    let started = Instant::now();
    let (waited, writes, elapsed) = thread::scope(|scope| {
        let searching: Vec<_> = (0..clients)
            .map(|number| {
                let end = &end;
                scope.spawn(move || search(door.searcher(), queries, number, end))
            })
            .collect();
        let writing = scope.spawn(|| write(door.writer(), new, &end));
        thread::sleep(time);
        end.store(true, Ordering::Relaxed);
        let waited: Vec<_> = searching.into_iter().map(|client| client.join()).collect();
        let elapsed = started.elapsed();
        (waited, writing.join(), elapsed)
    });
    let panicked = |_| "a client panicked";
    let mut all = Vec::new();
    for client in waited {
        all.extend(client.map_err(panicked)??);
    }
    Ok(Outcome {
        waited: all,
        writes: writes.map_err(panicked)??,
        elapsed,
    })
}

fn search(
    mut client: Search<'_>,
    queries: &[Vec<f32>],
    number: usize,
    end: &AtomicBool,
) -> Answered<Vec<f64>> {
    let mut waited = Vec::new();
    for query in queries.iter().cycle().skip(number) {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let started = Instant::now();
        client(query)?;
        waited.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(waited)
}

fn write(mut client: Write<'_>, new: &[Record], end: &AtomicBool) -> Answered<Vec<f64>> {
    let mut waited = Vec::new();
    let mut due = Instant::now();
    for batch in new.chunks(WRITTEN).cycle() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if end.load(Ordering::Relaxed) {
            break;
        }
        client(batch)?;
        waited.push(due.elapsed().as_secs_f64() * 1000.0);
        due += WRITE_EVERY;
    }
    Ok(waited)
}
