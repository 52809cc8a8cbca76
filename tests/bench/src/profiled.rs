//! One kind of work, over and over, for a profiler to look at: `perf record -g` and the like.

use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use edge_sync_host::{Durability, ShardOptions};

use crate::contestants::{ContestantKind, Contestants, Engine, Result, Shape};
use crate::data::Data;
use crate::engines::LIMIT;

/// What is done over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Upserts in batches.
    Upsert,
    /// Upserts one by one.
    Ones,
    /// Searches through the index.
    Search,
    /// Exact searches among one point: the price of a call.
    Call,
    /// Loading a shard with an index.
    Load,
    /// Restoring it from a snapshot.
    Restore,
}

/// Does it for about this long.
const TIME: Duration = Duration::from_secs(10);
const QUICK_TIME: Duration = Duration::from_millis(200);

/// Does one kind of work, and says how long one takes. When what it needs has been made, it says so, so
/// that a profiler can wait for that.
///
/// # Errors
/// Whatever fails first.
pub fn run(
    contestants: &Contestants,
    kind: ContestantKind,
    work: Work,
    folder: &Path,
    data: &Data,
    is_quick: bool,
) -> Result<String> {
    let options = ShardOptions::default().durability(Durability::Os);
    let shape = Shape::of(data.dimensions());
    let directory = folder.join("shard");
    std::fs::create_dir(&directory)?;
    let mut shard = contestants.create(kind, &directory, shape, &options)?;
    let one = data.records.get(..1).ok_or("there is no point")?;
    let mut snapshot = None;
    match work {
        Work::Upsert | Work::Ones => {}
        Work::Call => drop(shard.upsert(one)?),
        Work::Search | Work::Load | Work::Restore => {
            for batch in data.records.chunks(100) {
                shard.upsert(batch)?;
            }
            shard.optimize()?;
            shard.flush()?;
        }
    }
    if work == Work::Restore {
        let native = folder.join("native");
        std::fs::create_dir(&native)?;
        let shard = contestants.create(ContestantKind::Engine, &native, shape, &options)?;
        for batch in data.records.chunks(100) {
            shard.upsert(batch)?;
        }
        shard.optimize()?;
        drop(shard);
        let file = folder.join("shard.snapshot");
        Engine::open(&native)?.snapshot(&file)?;
        snapshot = Some(file);
    }
    eprintln!("prepared");
    let time = if is_quick { QUICK_TIME } else { TIME };
    let (started, mut count, mut within) = (Instant::now(), 0_u32, Duration::ZERO);
    let mut batches = data.records.chunks(100).cycle();
    let mut queries = data.queries.iter().cycle();
    while started.elapsed() < time {
        let batch = batches.next().unwrap_or(one);
        let query = queries.next().ok_or("there is no query")?;
        within += match work {
            Work::Upsert => shard.upsert(batch)?,
            Work::Ones => shard.upsert_each(batch)? / batch.len() as u32,
            Work::Search => shard.search(query, LIMIT, false)?.elapsed,
            Work::Call => shard.search(query, 1, true)?.elapsed,
            Work::Load => shard.reopen()?,
            Work::Restore => {
                let target = folder.join(format!("restored-{count}"));
                let snapshot = snapshot.as_deref().ok_or("there is no snapshot")?;
                let elapsed = contestants.restore(kind, snapshot, &target)?;
                std::fs::remove_dir_all(&target)?;
                elapsed
            }
        };
        count += 1;
    }
    let each = within / count.max(1);
    Ok(format!("{work:?}: {count} times, {each:?} each"))
}
