//! The scripted life of the sweeps.

use serde_json::{Map, Value, json};

use crate::bindings::exports::edge_sync::shard::courier::SnapshotSource;
use crate::life::{OTHERS_FROM, OTHERS_STAMPS_FROM, Step};
use crate::model::{Point, Write};
use crate::server::Happening;

fn upsert(ids: impl IntoIterator<Item = u64>, stamp: &mut u64) -> Step {
    Step::Write(Write::Upsert(points(ids, stamp)))
}

fn points(ids: impl IntoIterator<Item = u64>, stamp: &mut u64) -> Vec<(u64, Point)> {
    ids.into_iter()
        .map(|id| {
            *stamp += 1;
            (id, Point::stamped(*stamp))
        })
        .collect()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// Creation, every kind of write, flush, both ways of upload, optimize, both ways of restore, and
/// writes after all of them, and a change of the collection's parameters. With the options of the sweep,
/// the log begins new segments and the shard flushes by itself on the way.
pub fn life() -> Vec<Step> {
    let stamp = &mut 0;
    let others = &mut { OTHERS_STAMPS_FROM };
    vec![
        upsert(1..=3, stamp),
        upsert([2, 4], stamp),
        Step::Write(Write::CreateIndex("kind".into(), "keyword".into())),
        Step::Write(Write::Delete(vec![1, 99])),
        Step::Flush,
        Step::Write(Write::Batch(points([1, 5, 6], stamp), vec![3])),
        Step::Sync,
        Step::Write(Write::SetPayload(vec![2, 4], object(json!({"mark": 1})))),
        upsert(10..=24, stamp),
        Step::Optimize,
        Step::Write(Write::CreateIndex("n".into(), "integer".into())),
        upsert([4, 10], stamp),
        Step::Configure(20_000),
        upsert([4], stamp),
        Step::Reopen,
        Step::Carry,
        Step::Others(points(OTHERS_FROM..OTHERS_FROM + 4, others), vec![]),
        upsert([5], stamp),
        Step::Restore(SnapshotSource::Stream),
        upsert([6, 7], stamp),
        Step::Others(points([OTHERS_FROM + 1], others), vec![OTHERS_FROM]),
        Step::Download(SnapshotSource::Stored),
        upsert([7, 8], stamp),
        Step::Stage,
        Step::Write(Write::Delete(vec![11])),
        Step::Promote,
        upsert([11, 12], stamp),
        Step::Write(Write::DeleteIndex("n".into())),
        Step::Flush,
        upsert([12], stamp),
        Step::Sync,
    ]
}

/// Ids of what is on the server from the beginning: enough that the optimizer builds a segment of it.
const BASE: std::ops::Range<u64> = 2000..2080;

/// An optimization on the server, from its beginning to its end.
fn optimization() -> Step {
    let (begins, ends) = (Happening::OptimizationBegins, Happening::OptimizationEnds);
    Step::Happen(vec![(0, begins), (0, ends)])
}

fn happens(happening: Happening) -> Step {
    Step::Happen(vec![(0, happening)])
}

/// A restore that leaves a mirror, and every kind of pull: with nothing new, with changes, while writes
/// wait above the barrier, in one instance and in two, after an optimization on the server, while one
/// runs, after the server was started again, over a way that loses 304, and after the device has done
/// to its shard what it can.
pub fn pulls() -> Vec<Step> {
    let stamp = &mut 0;
    let others = &mut { OTHERS_STAMPS_FROM };
    let deleted = || Step::Write(Write::Delete(vec![3, 2004]));
    vec![
        upsert(1..=6, stamp),
        Step::Write(Write::CreateIndex("kind".into(), "keyword".into())),
        Step::Sync,
        Step::Others(points(BASE, others), vec![]),
        optimization(),
        Step::Restore(SnapshotSource::Stream),
        Step::Pull,
        upsert([2, 7], stamp),
        Step::Others(points([2001, 3000], others), vec![2000]),
        Step::Pull,
        upsert([8], stamp),
        deleted(),
        Step::Others(points([2002, 3001], others), vec![2003]),
        Step::Fetch,
        upsert([9], stamp),
        Step::Stage,
        Step::Write(Write::SetPayload(vec![4], object(json!({"mark": 1})))),
        Step::Promote,
        Step::Both,
        optimization(),
        Step::Pull,
        // What is deleted now comes later.
        happens(Happening::OptimizationBegins),
        Step::Others(vec![], vec![2005]),
        Step::Write(Write::Delete(vec![2006])),
        Step::Both,
        Step::Others(points([2007], others), vec![]),
        Step::Both,
        happens(Happening::OptimizationEnds),
        Step::Both,
        upsert([5, 10], stamp),
        Step::Write(Write::Delete(vec![2010])),
        Step::Optimize,
        Step::Write(Write::Delete(vec![2011])),
        Step::Reopen,
        Step::Others(points([2012], others), vec![]),
        happens(Happening::Restart),
        Step::Both,
        happens(Happening::Loses304(true)),
        Step::Pull,
    ]
}

/// Optimizations beside the work: of a shard that has a mirror, with writes, an upload, a flush and the
/// loss of the instance meanwhile; a pull after it; one that is given up; one more. A reader follows.
pub fn optimizations() -> Vec<Step> {
    let stamp = &mut 0;
    let others = &mut { OTHERS_STAMPS_FROM };
    vec![
        upsert(1..=6, stamp),
        Step::Sync,
        Step::Others(points(BASE, others), vec![]),
        optimization(),
        Step::Restore(SnapshotSource::Stream),
        upsert(100..180, stamp),
        Step::Lend,
        upsert([100, 101], stamp),
        Step::Follow,
        Step::StageOptimized,
        upsert([2, 101, 200], stamp),
        Step::Follow,
        Step::Write(Write::Delete(vec![3, 102, 2004])),
        Step::Sync,
        upsert(201..=212, stamp),
        Step::Flush,
        Step::Lose,
        Step::Write(Write::SetPayload(vec![4, 103], object(json!({"mark": 1})))),
        Step::Follow,
        Step::Promote,
        upsert([104], stamp),
        Step::Write(Write::Delete(vec![105])),
        Step::Reopen,
        Step::Others(points([2001, 3000], others), vec![2000]),
        Step::Both,
        upsert(300..=310, stamp),
        Step::Lend,
        Step::StageOptimized,
        upsert([106], stamp),
        Step::EndOptimize,
        Step::Write(Write::Delete(vec![107])),
        Step::Follow,
        Step::StageOptimized,
        Step::Promote,
        Step::Flush,
        Step::Others(points([2002], others), vec![]),
        Step::Both,
    ]
}

/// Ranges of [`optimizations`] that optimize, each from what is on the disk alone.
pub fn optimization_sections() -> Vec<std::ops::Range<usize>> {
    let mut sections = Vec::new();
    let mut begun = None;
    for (number, step) in optimizations().iter().enumerate() {
        match step {
            Step::StageOptimized => begun = Some(number),
            Step::Promote | Step::EndOptimize => {
                sections.extend(begun.take().map(|first| first..number + 1));
            }
            _ => {}
        }
    }
    sections
}

/// The same in short, for the mutations: up to a pull while writes wait, in two instances, and a look
/// at what came of it.
pub fn short_pulls() -> Vec<Step> {
    let mut steps = pulls();
    let end = steps.iter().position(|step| matches!(step, Step::Promote));
    steps.truncate(end.map_or(0, |end| end + 1));
    steps.push(Step::Reopen);
    steps
}

/// Ranges of [`pulls`] that pull, each from what is on the disk alone.
pub fn pull_sections() -> Vec<std::ops::Range<usize>> {
    let mut sections = Vec::new();
    let mut fetched = None;
    for (number, step) in pulls().iter().enumerate() {
        match step {
            Step::Restore(_) | Step::Pull | Step::Both => sections.push(number..number + 1),
            Step::Fetch => fetched = Some(number),
            Step::Promote => sections.extend(fetched.take().map(|first| first..number + 1)),
            _ => {}
        }
    }
    sections
}

/// The same in short, for the mutations: writes, an upload, a restore, writes.
pub fn short_life() -> Vec<Step> {
    let stamp = &mut 0;
    let others = &mut { OTHERS_STAMPS_FROM };
    vec![
        upsert(1..=3, stamp),
        Step::Write(Write::Delete(vec![2])),
        Step::Sync,
        upsert([2, 3, 4], stamp),
        Step::Flush,
        Step::Others(points([OTHERS_FROM], others), vec![]),
        upsert([3], stamp),
        Step::Download(SnapshotSource::Stream),
        upsert([4], stamp),
        Step::Stage,
        Step::Promote,
        upsert([5], stamp),
    ]
}

/// Flushes with nothing to flush, and after each of them changes of files that a checkpoint has.
pub fn idle_flushes() -> Vec<Step> {
    let stamp = &mut 0;
    vec![
        upsert(1..=12, stamp),
        Step::Flush,
        Step::Flush,
        upsert([2, 3, 13], stamp),
        Step::Write(Write::Delete(vec![1, 4])),
        Step::Write(Write::SetPayload(vec![5], object(json!({"mark": 1})))),
        Step::Write(Write::CreateIndex("kind".into(), "keyword".into())),
        Step::Flush,
        Step::Flush,
        Step::Optimize,
        upsert([6, 14], stamp),
        Step::Reopen,
        // Opening has left nothing to do.
        Step::Flush,
        Step::Write(Write::Delete(vec![7])),
        upsert([2, 15], stamp),
    ]
}

/// Writes that the server refuses, between others, tried again and dropped.
pub fn refusals() -> Vec<Step> {
    let stamp = &mut 0;
    vec![
        upsert(1..=3, stamp),
        Step::Sync,
        Step::Refuse(vec![20, 21, 22, 23]),
        upsert([4, 20, 5], stamp),
        upsert([21], stamp),
        Step::Write(Write::Delete(vec![1])),
        upsert([22, 23, 6], stamp),
        Step::Sync,
        upsert([2], stamp),
        Step::DropRejected(21),
        Step::Refuse(vec![]),
        Step::RetryRejected(20),
        upsert([7], stamp),
        Step::Sync,
        Step::Restore(SnapshotSource::Stream),
        // The shard no longer holds it.
        Step::RetryRejected(22),
        Step::Flush,
        upsert([8], stamp),
        Step::DropRejected(23),
    ]
}

/// Writes that the server refuses, one point more than once, and all tried again together.
pub fn refusals_retried_together() -> Vec<Step> {
    let stamp = &mut 0;
    vec![
        upsert(1..=3, stamp),
        Step::Refuse(vec![20, 21, 22]),
        upsert([4, 20, 5], stamp),
        upsert([21], stamp),
        upsert([20, 22, 6], stamp),
        Step::Sync,
        Step::Refuse(vec![]),
        Step::RetryAll,
        upsert([7], stamp),
        Step::Sync,
    ]
}

/// Writes with nothing that would bring them to disk but the uploads after them, and a restore.
pub fn uploads() -> Vec<Step> {
    let stamp = &mut 0;
    let others = &mut { OTHERS_STAMPS_FROM };
    vec![
        upsert(1..=6, stamp),
        upsert([2, 7, 8], stamp),
        Step::Write(Write::Delete(vec![1])),
        Step::Carry,
        upsert([3, 9], stamp),
        upsert(10..=16, stamp),
        Step::Sync,
        upsert([4], stamp),
        Step::Others(points(OTHERS_FROM..OTHERS_FROM + 4, others), vec![]),
        upsert([17], stamp),
        Step::Download(SnapshotSource::Stored),
        upsert([4, 18], stamp),
        Step::Stage,
        Step::Write(Write::Delete(vec![5])),
        Step::Lose,
        Step::Promote,
        upsert([5, 6], stamp),
        Step::Restore(SnapshotSource::Stream),
        upsert([19], stamp),
        Step::DownloadAmidWrites(
            SnapshotSource::Stream,
            Write::Upsert(points(20..=40, stamp)),
        ),
        Step::Stage,
        upsert([20], stamp),
        Step::Promote,
        upsert([21], stamp),
    ]
}
