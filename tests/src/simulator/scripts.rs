//! The scripted life of the sweeps.

use serde_json::{Map, Value, json};

use super::bindings::exports::edge_sync::shard::courier::SnapshotSource;
use super::life::{OTHERS_FROM, OTHERS_STAMPS_FROM, Step};
use super::model::{Point, Write};

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
/// writes after all of them. With the options of the sweep, the log begins new segments and the
/// shard flushes by itself on the way.
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
