//! What searches and writes wait for while a shard is optimized, against the same shard left alone.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use edge_sync_host::{Component, Durability, ShardOptions};
use edge_sync_numbers::grouped;
use serde::Serialize;

use crate::contestants::{Contestant, ContestantKind, Hosted, Raw, Record, Result, Shape};
use crate::data::Data;
use crate::engines::LIMIT;
use crate::figures::{Figure, Measured};
use crate::latencies::Latencies;
use crate::report::{Samples, Unit, machine};

/// How often a search is due, and a write. One that comes late counts from when it was due.
const SEARCH_EVERY: Duration = Duration::from_millis(10);
const WRITE_EVERY: Duration = Duration::from_millis(100);

/// Points of a write.
const WRITTEN: usize = 10;

/// Of so many points one is written after the first optimization, for the second one to take up.
const ONE_NEW_IN: usize = 6;

/// How long the shard is left alone.
const ALONE: Duration = Duration::from_secs(5);
const QUICK_ALONE: Duration = Duration::from_millis(500);

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Optimizing {
    /// Processor and number of cores.
    pub machine: String,
    /// Points of the shard.
    pub points: usize,
    /// Their dimensions.
    pub dimensions: usize,
    /// Repetitions.
    pub repetitions: usize,
    /// By contestant.
    pub rows: Vec<Row>,
}

/// One contestant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Who.
    pub who: &'static str,
    /// Searches while nothing else was done.
    pub searches_alone: Latencies,
    /// Searches while it was optimized.
    pub searches_beside: Latencies,
    /// Writes while nothing else was done.
    pub writes_alone: Latencies,
    /// Writes while it was optimized.
    pub writes_beside: Latencies,
    /// p99 of searches beside an optimization against that alone, one a repetition.
    pub p99_ratio: Samples,
    /// Seconds of the optimization.
    pub optimize: Samples,
}

impl Measured for Optimizing {
    fn figures(&self) -> Vec<Figure> {
        let of = |row: &Row| {
            let who = row.who;
            let ratio = format!("{who}, p99 of searches while optimizing, × alone");
            let mut figures: Vec<Figure> = row.p99_ratio.figure(ratio).into_iter().collect();
            figures.extend(row.optimize.figure(format!("{who}, optimize, seconds")));
            figures.extend(
                row.searches_beside
                    .figures(&format!("{who}, searches while optimizing")),
            );
            figures.extend(
                row.writes_beside
                    .figures(&format!("{who}, writes while optimizing")),
            );
            figures
        };
        self.rows.iter().flat_map(of).collect()
    }
}

impl fmt::Display for Optimizing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} points of {} dimensions, one in {ONE_NEW_IN} not in the index yet; a search each {} ms, \
             a write of {WRITTEN} points each {} ms; {}; {} repetitions\n",
            grouped(self.points as u64),
            self.dimensions,
            SEARCH_EVERY.as_millis(),
            WRITE_EVERY.as_millis(),
            self.machine,
            self.repetitions,
        )?;
        writeln!(
            f,
            "| who | what | beside | how many | half | 95 % | 99 % | slowest |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            for (what, beside, latencies) in [
                ("searches", "nothing", &row.searches_alone),
                ("searches", "an optimization", &row.searches_beside),
                ("writes", "nothing", &row.writes_alone),
                ("writes", "an optimization", &row.writes_beside),
            ] {
                let (who, count) = (row.who, latencies.count);
                writeln!(f, "| {who} | {what} | {beside} | {count} | {latencies} |")?;
            }
        }
        for row in &self.rows {
            let ratio = row.p99_ratio.figure("");
            let ratio = ratio.map_or_else(String::new, |it| {
                format!("{:.1} times ({:.1} to {:.1})", it.value, it.min, it.max)
            });
            writeln!(
                f,
                "\n{}: optimizing took {}; 99 of 100 searches within {ratio} that of the shard alone.",
                row.who,
                row.optimize.show(Unit::Seconds),
            )?;
        }
        Ok(())
    }
}

/// Fills, optimizes, writes some more, and asks while that is optimized.
///
/// # Errors
/// Whatever fails first.
pub fn measure(
    component: &Component,
    directory: Option<&Path>,
    data: &Data,
    repetitions: usize,
    is_quick: bool,
) -> Result<Optimizing> {
    let shape = Shape {
        dimensions: data.dimensions(),
        indexing_threshold_kb: threshold(data),
    };
    let alone = if is_quick { QUICK_ALONE } else { ALONE };
    let (mut native, mut hosted) = (Waited::default(), Waited::default());
    for repetition in 1..=repetitions.max(1) {
        eprintln!("repetition {repetition} of {repetitions}");
        let folder = crate::folder(directory)?;
        let shard = Raw::create(&folder.path().join("native"), shape)?;
        native.ask(&shard, data, alone)?;
        drop(shard);
        let options = ShardOptions::default().durability(Durability::Os);
        let shard = Hosted::create(component, &folder.path().join("hosted"), shape, options)?;
        hosted.ask(&shard, data, alone)?;
        drop(shard);
        folder.close()?;
    }
    Ok(Optimizing {
        machine: machine(),
        points: data.records.len(),
        dimensions: data.dimensions(),
        repetitions,
        rows: vec![
            native.row(ContestantKind::Native.name()),
            hosted.row(ContestantKind::Component.name()),
        ],
    })
}

/// What is written meanwhile must not be reason enough for another round: the native engine goes on until
/// nothing is left to do.
fn threshold(data: &Data) -> usize {
    let new = data.records.len() / ONE_NEW_IN;
    (new * data.dimensions() * size_of::<f32>() / 1024 / 4).max(1)
}

/// Milliseconds of one contestant.
#[derive(Default)]
struct Waited {
    searches: [Vec<f64>; 2],
    writes: [Vec<f64>; 2],
    p99_ratio: Samples,
    optimize: Samples,
}

impl Waited {
    fn ask<C: Contestant + Sync>(&mut self, shard: &C, data: &Data, alone: Duration) -> Result<()> {
        let new = data.records.len() / ONE_NEW_IN;
        let (built, new) = data.records.split_at(data.records.len() - new);
        for batch in built.chunks(100) {
            shard.upsert(batch)?;
        }
        shard.optimize()?;
        for batch in new.chunks(100) {
            shard.upsert(batch)?;
        }
        // What is written meanwhile is written already, so that no optimization meets more.
        let written = new.get(..WRITTEN).unwrap_or(new);
        let [before, beside] = [false, true].map(|optimizes| {
            asked(shard, &data.queries, written, || match optimizes {
                true => Ok(Some(shard.optimize().map_err(|error| error.to_string())?)),
                false => {
                    std::thread::sleep(alone);
                    Ok(None)
                }
            })
        });
        let (before, beside) = (before?, beside?);
        let p99 = |asked: &Timings| Latencies::of(asked.searches.clone()).p99;
        self.p99_ratio.add(p99(&beside) / p99(&before));
        let elapsed = beside.elapsed.ok_or("nothing was optimized")?;
        self.optimize.add(elapsed.as_secs_f64());
        for (at, asked) in [before, beside].into_iter().enumerate() {
            self.searches[at].extend(asked.searches);
            self.writes[at].extend(asked.writes);
        }
        Ok(())
    }

    fn row(self, who: &'static str) -> Row {
        let [searches_alone, searches_beside] = self.searches.map(Latencies::of);
        let [writes_alone, writes_beside] = self.writes.map(Latencies::of);
        Row {
            who,
            searches_alone,
            searches_beside,
            writes_alone,
            writes_beside,
            p99_ratio: self.p99_ratio,
            optimize: self.optimize,
        }
    }
}

struct Timings {
    searches: Vec<f64>,
    writes: Vec<f64>,
    elapsed: Option<Duration>,
}

/// Searches and writes while `work` goes on.
fn asked<C: Contestant + Sync>(
    shard: &C,
    queries: &[Vec<f32>],
    written: &[Record],
    work: impl FnOnce() -> std::result::Result<Option<Duration>, String>,
) -> Result<Timings> {
    let end = AtomicBool::new(false);
    let (searches, writes, elapsed) = std::thread::scope(|scope| {
        let ended = &end;
        let searches = scope.spawn(move || {
            let mut next = queries.iter().cycle();
            when_due(SEARCH_EVERY, ended, || match next.next() {
                Some(query) => shard.search(query, LIMIT, false).map(drop),
                None => Ok(()),
            })
        });
        let writes =
            scope.spawn(|| when_due(WRITE_EVERY, &end, || shard.upsert(written).map(drop)));
        let elapsed = work();
        end.store(true, Ordering::Relaxed);
        (searches.join(), writes.join(), elapsed)
    });
    let panicked = |_| "a client panicked";
    Ok(Timings {
        searches: searches.map_err(panicked)??,
        writes: writes.map_err(panicked)??,
        elapsed: elapsed?,
    })
}

/// Milliseconds from when each call was due to its end.
fn when_due(
    every: Duration,
    end: &AtomicBool,
    mut call: impl FnMut() -> Result<()>,
) -> std::result::Result<Vec<f64>, String> {
    let mut waited = Vec::new();
    let mut due = Instant::now();
    while !end.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        call().map_err(|error| error.to_string())?;
        waited.push(due.elapsed().as_secs_f64() * 1000.0);
        due += every;
    }
    Ok(waited)
}
