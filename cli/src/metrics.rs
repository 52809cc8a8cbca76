//! What `serve` adds to `/metrics`: the shard's numbers, its queue, and how the exchanges with the
//! server went.

use std::time::Duration;

use edge_sync_clock::now_ms;
use edge_sync_host::{EdgeSync, SyncRecord};
use edge_sync_rest::Gauge;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long the shard is waited for. While it does something long, what needs it is left out.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of one of several collections: each number has its name.
pub fn of_collection(edge: &EdgeSync, collection: Option<&str>) -> Vec<Gauge> {
    let mut gauges = of_device(edge, collection);
    for gauge in &mut gauges {
        gauge.label = collection.map(|name| ("id", name.to_owned()));
    }
    gauges
}

/// Called where a runtime's thread may block. `collection`: its name, if there is one.
pub fn of_device(edge: &EdgeSync, collection: Option<&str>) -> Vec<Gauge> {
    let record = edge.sync_record();
    let mut gauges = vec![gauge(
        "edge_sync_has_server",
        "whether there is a server to upload to",
        f64::from(u8::from(edge.has_server())),
    )];
    if let Some(name) = collection {
        gauges.extend(of_shard(edge, name, &record));
    }
    let times = [
        (
            "edge_sync_last_sync_timestamp_seconds",
            "when the server last confirmed that nothing waits",
            record.last_sync_ms,
        ),
        (
            "edge_sync_last_pull_timestamp_seconds",
            "when the server last said what it holds",
            record.last_pull_ms,
        ),
    ];
    for (name, help, at_ms) in times {
        gauges.extend(at_ms.map(|at_ms| gauge(name, help, seconds(at_ms))));
    }
    let failed = [
        (
            "edge_sync_last_sync_failed",
            "whether the last upload failed",
            record.last_error.is_some(),
        ),
        (
            "edge_sync_last_pull_failed",
            "whether the last pull failed",
            record.last_pull_error.is_some(),
        ),
    ];
    gauges.extend(failed.map(|(name, help, is)| gauge(name, help, f64::from(u8::from(is)))));
    gauges
}

fn of_shard(edge: &EdgeSync, name: &str, record: &SyncRecord) -> Vec<Gauge> {
    let shard = edge.shard();
    let known = Handle::try_current().ok().and_then(|runtime| {
        let asked = async {
            let queue = shard.queue_status_async().await.ok();
            (queue, shard.info_async().await.ok())
        };
        runtime.block_on(async { timeout(PATIENCE, asked).await.ok() })
    });
    let (queue, info) = known.unwrap_or_default();
    let (queued, oldest_ms, rejected) = match &queue {
        Some(queue) => (queue.queued, queue.oldest_queued_ms, queue.rejected),
        None => (record.queued, record.oldest_queued_ms, record.rejected),
    };
    let age = match oldest_ms {
        Some(oldest_ms) => seconds(now_ms().saturating_sub(oldest_ms)),
        None => 0.0,
    };
    let mut gauges = vec![
        gauge(
            "edge_sync_readers",
            "instances that answer reads beside the shard's own",
            shard.running_readers() as f64,
        ),
        gauge(
            "edge_sync_queue_length",
            "operations that wait for upload",
            queued as f64,
        ),
        gauge(
            "edge_sync_queue_age_seconds",
            "age of the oldest operation that waits for upload",
            age,
        ),
        gauge(
            "edge_sync_rejected",
            "operations that were put aside",
            rejected as f64,
        ),
    ];
    if let Some(queue) = &queue {
        gauges.push(gauge(
            "edge_sync_queue_bytes",
            "bytes of the operations that wait for upload",
            queue.queued_bytes as f64,
        ));
    }
    if let Some(info) = &info {
        gauges.push(Gauge {
            label: Some(("id", name.to_owned())),
            ..gauge(
                "collection_points",
                "approximate amount of points per collection",
                info.points as f64,
            )
        });
        gauges.push(gauge(
            "edge_sync_shard_memory_bytes",
            "memory of the component's instance",
            info.memory_bytes as f64,
        ));
    }
    gauges
}

pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Gauge {
    Gauge {
        name,
        help,
        label: None,
        value,
    }
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}
