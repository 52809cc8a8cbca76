//! The library as an application uses it: events, and calls from async code on whatever executor.

use std::fs;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use edge_sync_double::{Fault, Rule};
use edge_sync_host::{
    Cancel, EdgeSync, Error, Event, Peek, Point, Progress, RestoreSource, ShardOptions,
    SnapshotSource, SyncReport, SyncerOptions,
};
use regex::Regex;

use crate::support::{CONFIG, component, device, repository, server};

/// An executor that is nobody's: it parks the thread until it is woken.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn dense(id: u64) -> Point {
    Point::dense(id, [1.0, 0.0, 0.0, id as f32])
}

#[test]
fn async_calls_need_no_runtime() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    block_on(async {
        let edge = device(&folder.path().join("a"), &server)
            .open_or_create_async(CONFIG)
            .await
            .expect("a shard");
        edge.shard()
            .upsert_async(vec![dense(1)])
            .await
            .expect("a write");
        let synced = edge.sync_async().await.and_then(SyncReport::into_result);
        assert_eq!(synced.expect("a sync").uploaded, 1);

        let other = device(&folder.path().join("b"), &server);
        let other = other.attach_async().await.expect("a directory");
        let source = RestoreSource::Server(SnapshotSource::Stream);
        let pieces = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&pieces);
        let restored = other
            .restore_async(&source, &Cancel::new(), move |_| {
                told.fetch_add(1, Ordering::Relaxed);
            })
            .await
            .expect("a restore");
        assert!(pieces.load(Ordering::Relaxed) > 0);
        assert_eq!(restored.points, 1);
        other
            .shard()
            .upsert_async(vec![dense(2)])
            .await
            .expect("a write");
        let pushed = other.push_async().await.and_then(SyncReport::into_result);
        assert_eq!(pushed.expect("a push").uploaded, 1);
        let pulled = edge.pull_async().await.expect("a pull");
        assert_eq!((pulled.points_before, pulled.points), (1, 2));
        assert_eq!(edge.shard().count_async(None).await.expect("a count"), 2);

        edge.shard()
            .upsert_async(vec![dense(3)])
            .await
            .expect("a write");
        let options = ShardOptions::default();
        let peek = Peek::open_async(&component(), folder.path().join("a"), &options).await;
        let peek = peek.expect("a look");
        let waiting = peek.waiting_async(0, 10).await.expect("what waits");
        assert_eq!(waiting.len(), 1);
        // Cancelled before it begins: nothing is sent.
        let cancel = Cancel::new();
        cancel.cancel();
        let report = edge
            .sync_with_async(&cancel, |_| {})
            .await
            .expect("a report");
        assert!(matches!(report.failure, Some(Error::Cancelled)));
        assert_eq!(report.uploaded, 0);
        let uploaded = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&uploaded);
        let report = edge
            .sync_with_async(&Cancel::new(), move |step| {
                if let Progress::Uploaded { done, .. } = step {
                    told.store(done, Ordering::Relaxed);
                }
            })
            .await
            .and_then(SyncReport::into_result);
        assert_eq!(report.expect("a sync").uploaded, 1);
        assert_eq!(uploaded.load(Ordering::Relaxed), 1);
        edge.shard().close_async().await.expect("closed");
    });
}

/// What is done at once, or is a handle's own: no thread and no disk to speak of is waited for.
const NO_TWIN: [&str; 1] = ["find"];

#[test]
fn every_call_that_may_take_long_has_an_async_twin() {
    let sources = repository().join("host/src");
    let text = |name: &str| fs::read_to_string(sources.join(name)).expect(name);
    let twins = text("twins.rs");
    let blocking =
        Regex::new(r"(?s)\n    pub fn (\w+)(?:<[^>]*>)?\([^{]*?-> Result<").expect("a pattern");
    let mut seen = 0;
    for name in ["edge.rs", "shard.rs", "peek.rs", "component.rs"] {
        let source = text(name);
        for call in blocking.captures_iter(&source) {
            seen += 1;
            let twin = format!("pub async fn {}_async(", &call[1]);
            let is_there = source.contains(&twin) || twins.contains(&twin);
            assert!(
                is_there || NO_TWIN.contains(&&call[1]),
                "{name}: {}",
                &call[1]
            );
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn a_sync_that_nobody_waits_for_any_more_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    server.stop().expect("down");
    let edge = device(folder.path(), &server)
        .create(CONFIG)
        .expect("a shard");
    edge.shard().upsert(vec![dense(1)]).expect("a write");
    let mut events = edge.events();
    {
        let mut sync = pin!(edge.sync_async());
        let mut context = Context::from_waker(Waker::noop());
        assert!(sync.as_mut().poll(&mut context).is_pending());
    }
    // Its thread holds the last other handle, and lets go of it.
    drop(edge);
    assert!(events.all(|event| !matches!(event, Event::Uploaded { .. })));
    let edge = device(folder.path(), &server)
        .open()
        .expect("closed by then");
    assert_eq!(edge.shard().queue_status().expect("a status").queued, 1);
}

#[test]
fn events_tell_what_happens_to_the_queue() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = device(&folder.path().join("a"), &server)
        .create(CONFIG)
        .expect("a shard");
    let mut events = edge.events();
    edge.shard()
        .upsert(vec![dense(1), dense(2)])
        .expect("a write");
    assert_eq!(events.try_next(), Some(Event::Queued));
    let synced = edge.sync().and_then(SyncReport::into_result);
    synced.expect("a sync");
    let told: Vec<Event> = std::iter::from_fn(|| events.try_next()).collect();
    assert!(
        told.contains(&Event::Uploaded { operations: 2 }),
        "{told:?}"
    );
    let pulled = |event: &Event| matches!(event, Event::Pulled { points: 2, .. });
    assert!(told.iter().any(pulled), "{told:?}");

    // One that the server refuses.
    let refused = Fault::status(422, "not this one");
    server.faults().add(
        Rule::on("POST", "/points/batch")
            .with_point(3)
            .always()
            .fault(refused),
    );
    edge.shard().upsert(vec![dense(3)]).expect("a write");
    let report = edge.push().expect("a report");
    assert_eq!(report.rejected, 1);
    let rejected = events.find(|event| matches!(event, Event::Rejected { .. }));
    let Some(Event::Rejected { sequence, message }) = rejected else {
        panic!("{rejected:?}");
    };
    assert!(
        sequence == 3 && message.contains("not this one"),
        "{message}"
    );

    // A server that refuses the key stops it, once.
    server.faults().clear();
    server
        .faults()
        .add(Rule::on("*", "").always().fault(Fault::unauthorized()));
    assert!(edge.push().expect("a report").failure.is_some());
    let told: Vec<Event> = std::iter::from_fn(|| events.try_next()).collect();
    let stops = told
        .iter()
        .filter(|event| matches!(event, Event::Stopped(_)));
    assert_eq!(stops.count(), 1, "{told:?}");
}

#[test]
fn the_workers_events_come_too_and_end_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = device(folder.path(), &server)
        .background(SyncerOptions::default().pull_interval(None))
        .create(CONFIG)
        .expect("a shard");
    let mut events = edge.events();
    edge.shard().upsert(vec![dense(1)]).expect("a write");
    assert_eq!(events.next(), Some(Event::Queued));
    let uploaded = events.find(|event| matches!(event, Event::Uploaded { .. }));
    assert_eq!(uploaded, Some(Event::Uploaded { operations: 1 }));
    // Without a clone, nothing more comes.
    let clone: EdgeSync = edge.clone();
    drop(edge);
    drop(clone);
    assert_eq!(
        events.find(|event| matches!(event, Event::Uploaded { .. })),
        None
    );
}
