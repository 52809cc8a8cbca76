//! What is promised of large amounts, with an amount that the environment sets; see
//! `docs/testing-faults.md`.

use std::collections::BTreeMap;

use edge_sync_double::RandomFaults;
use edge_sync_host::{
    BatchLimits, Cancel, Durability, EdgeSync, PointId, RestoreSource, ShardOptions,
    SnapshotSource, SyncOptions, SyncReport,
};

use crate::support::{COLLECTION, CONFIG, all_points, device, impatient, point, server, setting};

/// Writes that CI makes; in full, `EDGE_SYNC_FLEET_WRITES=100000`.
const FLEET_WRITES: u64 = 600;

/// Writes that CI queues; in full, `EDGE_SYNC_QUEUE_WRITES=1000000`.
const QUEUE_WRITES: u64 = 3_000;

/// By how much an instance's memory may grow while it hands its queue out, however long that is.
const DRAIN_BYTES: u64 = 16 << 20;

fn large_batches() -> SyncOptions {
    impatient().batch(BatchLimits::default().operations(200))
}

/// Uploads everything. A run of failures may outlast the attempts of one call.
fn drain(edge: &EdgeSync) {
    for _ in 0..1_000 {
        if edge.sync().expect("a report").remaining == 0 {
            return;
        }
    }
    panic!("the queue does not drain");
}

#[test]
fn writes_of_three_devices_arrive_though_exchanges_fail() {
    const DEVICES: u64 = 3;
    const IDS: u64 = 5_000;
    let writes = setting("EDGE_SYNC_FLEET_WRITES").unwrap_or(FLEET_WRITES);
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let devices: Vec<_> = (0..DEVICES)
        .map(|number| {
            device(&folder.path().join(number.to_string()), &server)
                .sync_options(large_batches())
                .open_or_create(CONFIG)
                .expect("a shard")
        })
        .collect();
    server.faults().random(Some(RandomFaults::passing(5, 0.3)));

    // The model: which version of which point was written last. Each device has ids of its own,
    // for between devices the last upload wins, not the last write.
    let mut model = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(7);
    let mut written = 0;
    let mut round = 0_u64;
    while written < writes {
        round += 1;
        for (number, edge) in (0..DEVICES).zip(&devices) {
            let first = number * 1_000_000 + random.u64(..IDS);
            if round.is_multiple_of(5) {
                let ids: Vec<_> = (first..first + 3).collect();
                edge.shard()
                    .delete(ids.iter().copied().map(PointId::Num).collect())
                    .expect("a delete");
                model.retain(|id, _| !ids.contains(id));
                written += 1;
                continue;
            }
            let count = random
                .u64(1..=50)
                .min(writes.saturating_sub(written).max(1));
            let points = (first..first + count)
                .map(|id| {
                    let mut point = point(id);
                    point.payload = Some(format!("{{\"version\":{round}}}"));
                    model.insert(id, round);
                    point
                })
                .collect();
            edge.shard().upsert(points).expect("a write");
            written += count;
        }
        if round.is_multiple_of(20) {
            // As far as it goes; the rest waits.
            devices[random.usize(..devices.len())]
                .sync()
                .and_then(SyncReport::into_result)
                .expect("a report");
        }
    }
    devices.iter().for_each(drain);
    server.faults().random(None);

    let fourth = device(&folder.path().join("fourth"), &server)
        .attach()
        .expect("a directory");
    fourth
        .restore(
            &RestoreSource::Server(SnapshotSource::Stored),
            &Cancel::new(),
            |_| {},
        )
        .expect("a restore");
    let held: BTreeMap<u64, u64> = all_points(&fourth)
        .iter()
        .map(|point| {
            let id = point["id"].as_u64().expect("an id");
            (id, point["payload"]["version"].as_u64().expect("a version"))
        })
        .collect();
    println!("{written} writes, {} points", model.len());
    assert!(
        held == model,
        "{} points, expected {}",
        held.len(),
        model.len()
    );
    assert_eq!(
        server.count(COLLECTION).expect("a count"),
        model.len() as u64
    );
}

#[test]
fn a_long_queue_drains_in_bounded_memory() {
    const CALL: u64 = 1_000;
    const IDS: u64 = 10_000;
    let writes = setting("EDGE_SYNC_QUEUE_WRITES").unwrap_or(QUEUE_WRITES);
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    server.stop().expect("down");
    let edge = device(folder.path(), &server)
        .sync_options(large_batches())
        .options(ShardOptions::default().durability(Durability::Os))
        .open_or_create(CONFIG)
        .expect("a shard");
    for first in (0..writes).step_by(CALL as usize) {
        let points = (first..writes.min(first + CALL))
            .map(|number| point(number % IDS))
            .collect();
        edge.shard().upsert(points).expect("a write");
    }
    drop(edge);

    // A fresh instance, so that what writing took does not hide what draining takes.
    let edge = device(folder.path(), &server)
        .sync_options(large_batches())
        .open_or_create(CONFIG)
        .expect("a shard");
    let status = edge.shard().queue_status().expect("status");
    assert_eq!(status.queued, writes);
    let memory = || edge.shard().info().expect("info").memory_bytes;
    let before = memory();
    server.resume().expect("up");
    drain(&edge);
    let after = memory();
    println!(
        "{writes} operations, {} bytes of log; memory before {before}, after {after}",
        status.queued_bytes
    );
    assert_eq!(edge.shard().queue_status().expect("status").queued, 0);
    assert_eq!(server.count(COLLECTION).expect("a count"), writes.min(IDS));
    assert!(
        after.saturating_sub(before) <= DRAIN_BYTES,
        "memory grew by {} bytes",
        after.saturating_sub(before)
    );
}
