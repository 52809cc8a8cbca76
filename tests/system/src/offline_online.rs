//! Devices that write without a server, and what happens once there is one.

use std::sync::atomic::{AtomicBool, Ordering};

use edge_sync_double::{Fault, QdrantDouble, RetryAfter, Rule};
use edge_sync_host::{Cancel, PointId, RestoreSource, SearchRequest, SnapshotSource, SyncReport};
use serde_json::{Value, json};

use crate::support::{CONFIG, PARTIAL, all_points, device, point, server, server_points, vector};

const BATCH: &str = "/collections/devices/points/batch";

/// Whatever is uploaded with this point in it is refused from now on.
fn refuse_point(server: &QdrantDouble, id: u64) {
    let words = format!("Wrong input: point {id} is not welcome");
    server.faults().add(
        Rule::on("POST", BATCH)
            .with_point(id)
            .fault(Fault::status(400, &words))
            .always(),
    );
}

#[test]
fn writes_made_offline_arrive_in_order_ten_first_and_then_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    server.stop().expect("down");
    let edge = device(folder.path(), &server)
        .create(CONFIG)
        .expect("a shard");
    let shard = edge.shard();
    for id in 0..25 {
        shard.upsert(vec![point(id)]).expect("a write");
    }
    shard.delete(vec![PointId::Num(3)]).expect("a delete");
    let nearest = shard
        .search(SearchRequest::nearest("", vector(24), 1))
        .expect("a search");
    assert_eq!(nearest[0].id, PointId::Num(24));

    let report = edge.push().expect("a report");
    assert_eq!(report.remaining, 26);
    assert!(report.failure.is_some());

    server.resume().expect("up");
    server.take_exchanges();
    let report = edge.push().expect("a report");
    assert_eq!((report.uploaded, report.remaining), (26, 0));
    assert_eq!(server_points(&server), all_points(&edge));
    let sizes: Vec<usize> = server
        .exchanges()
        .iter()
        .filter(|exchange| exchange.path == BATCH)
        .map(|exchange| writes(exchange.body.as_ref().expect("a body")))
        .collect();
    assert_eq!(sizes, [10, 16]);
}

/// How many points the operations of a `points/batch` body write or delete.
fn writes(body: &Value) -> usize {
    let operations = body["operations"].as_array().expect("operations");
    let points = |operation: &Value| {
        let upsert = operation["upsert"]["points"].as_array();
        let delete = operation["delete"]["points"].as_array();
        upsert.or(delete).map_or(1, Vec::len)
    };
    operations.iter().map(points).sum()
}

#[test]
fn a_device_restores_what_another_wrote() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let a = device(&folder.path().join("a"), &server)
        .create(CONFIG)
        .expect("a shard");
    a.shard()
        .upsert((0..50).map(point).collect())
        .expect("a write");
    a.push()
        .and_then(SyncReport::into_result)
        .expect("a report");

    for source in [SnapshotSource::Stream, SnapshotSource::Stored] {
        let path = folder.path().join(format!("{source:?}"));
        let b = device(&path, &server).attach().expect("a directory");
        b.restore(&RestoreSource::Server(source), &Cancel::new(), |_| {})
            .expect("a restore");
        assert_eq!(all_points(&b), all_points(&a), "{source:?}");
        // What was restored is not queued for upload.
        assert_eq!(b.shard().queue_status().expect("status").queued, 0);
    }
}

#[test]
fn reads_and_writes_go_on_while_a_snapshot_downloads() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let a = device(&folder.path().join("a"), &server)
        .create(CONFIG)
        .expect("a shard");
    a.shard()
        .upsert((0..200).map(point).collect())
        .expect("a write");
    a.push()
        .and_then(SyncReport::into_result)
        .expect("a report");
    server.throttle_snapshots(Some(200_000));

    let done = AtomicBool::new(false);
    let mut next = 1_000;
    let written_during = std::thread::scope(|scope| {
        let restore = scope.spawn(|| {
            let restored = a.restore(
                &RestoreSource::Server(SnapshotSource::Stream),
                &Cancel::new(),
                |_| {},
            );
            done.store(true, Ordering::Release);
            restored.expect("a restore")
        });
        let mut during = 0_u64;
        while !done.load(Ordering::Acquire) {
            a.shard().upsert(vec![point(next)]).expect("a write");
            let found = a
                .shard()
                .search(SearchRequest::nearest("", vector(next), 1));
            assert_eq!(found.expect("a search")[0].id, PointId::Num(next));
            next += 1;
            during += 1;
        }
        restore.join().expect("no panic");
        during
    });
    assert!(
        written_during > 10,
        "only {written_during} writes went through"
    );
    let held = all_points(&a).len() as u64;
    assert_eq!(held, 200 + written_during);
    a.push()
        .and_then(SyncReport::into_result)
        .expect("a report");
    assert_eq!(server_points(&server), all_points(&a));
}

#[test]
fn passing_failures_are_retried_and_nothing_is_lost_or_reordered() {
    let faults = [
        ("refused before", Fault::DropRequest),
        ("applied, answer lost", Fault::DropAnswer),
        ("applied twice", Fault::Duplicate),
        ("500", Fault::status(500, "internal")),
        ("503", Fault::status(503, "busy")),
        ("429", Fault::too_many_requests(RetryAfter::Seconds(0))),
        ("cut answer", Fault::CutBody { after: 10 }),
    ];
    for (name, fault) in faults {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let edge = device(folder.path(), &server)
            .create(CONFIG)
            .expect("a shard");
        edge.shard()
            .upsert((0..15).map(point).collect())
            .expect("a write");
        server
            .faults()
            .add(Rule::on("POST", BATCH).fault(fault).times(2));
        let report = edge.push().expect("a report");
        assert!(report.failure.is_none(), "{name}: {:?}", report.failure);
        assert_eq!(report.remaining, 0, "{name}");
        assert_eq!(server_points(&server), all_points(&edge), "{name}");
    }
}

#[test]
fn wrong_settings_stop_the_upload_and_keep_the_queue() {
    for fault in [Fault::unauthorized(), Fault::forbidden()] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let edge = device(folder.path(), &server)
            .create(CONFIG)
            .expect("a shard");
        edge.shard().upsert(vec![point(1)]).expect("a write");
        server
            .faults()
            .add(Rule::on("POST", BATCH).fault(fault).always());
        let report = edge.push().expect("a report");
        assert_eq!(
            (report.uploaded, report.remaining, report.rejected),
            (0, 1, 0)
        );
        // Once: trying a wrong key again does not make it right.
        let sent = server
            .exchanges()
            .iter()
            .filter(|e| e.path == BATCH)
            .count();
        assert_eq!(sent, 1);
        server.faults().clear();
        assert_eq!(edge.push().expect("a report").uploaded, 1);
    }
}

#[test]
fn an_operation_that_the_server_refuses_is_set_aside_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = device(folder.path(), &server)
        .create(CONFIG)
        .expect("a shard");
    let shard = edge.shard();
    shard.upsert((0..20).map(point).collect()).expect("a write");
    refuse_point(&server, 7);
    let report = edge.push().expect("a report");
    assert_eq!((report.rejected, report.remaining), (1, 0));
    assert_eq!(server_points(&server).len(), 19);

    let rejected = shard.rejected(0, 100).expect("a list");
    assert_eq!(rejected.len(), 1);
    assert_eq!((rejected[0].sequence, rejected[0].status), (8, 400));
    assert!(rejected[0].message.contains("point 7 is not welcome"));

    // A newer write of the same point must not be undone by retrying the older one.
    server.faults().clear();
    shard
        .upsert(vec![edge_sync_host::Point {
            payload: Some(json!({ "n": "newer" }).to_string()),
            ..point(7)
        }])
        .expect("a write");
    shard.retry_rejected(8).expect("a retry");
    edge.push()
        .and_then(SyncReport::into_result)
        .expect("a report");
    assert_eq!(server_points(&server), all_points(&edge));
    assert!(shard.rejected(0, 100).expect("a list").is_empty());
}

#[test]
fn a_batch_that_is_too_large_is_halved() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = device(folder.path(), &server)
        .create(CONFIG)
        .expect("a shard");
    edge.shard()
        .upsert((0..40).map(point).collect())
        .expect("a write");
    server.faults().add(
        Rule::on("POST", BATCH)
            .larger_than(400)
            .fault(Fault::too_large())
            .always(),
    );
    let report = edge.push().expect("a report");
    assert_eq!((report.rejected, report.remaining), (0, 0), "{report:?}");
    assert_eq!(server_points(&server), all_points(&edge));
}

#[test]
fn an_interrupted_download_of_a_stored_snapshot_is_taken_up_where_it_was_cut() {
    const CUT: u64 = 9_000;
    let ask_again = |cut: Fault, second: Option<Fault>| {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let edge = device(folder.path(), &server)
            .create(CONFIG)
            .expect("a shard");
        edge.shard()
            .upsert((0..30).map(point).collect())
            .expect("a write");
        edge.push()
            .and_then(SyncReport::into_result)
            .expect("a report");
        let stored = "/shards/0/snapshots/";
        for fault in [Some(cut), second].into_iter().flatten() {
            server.faults().add(Rule::on("GET", stored).fault(fault));
        }
        edge.restore(
            &RestoreSource::Server(SnapshotSource::Stored),
            &Cancel::new(),
            |_| {},
        )
        .expect("a restore");
        assert_eq!(all_points(&edge).len(), 30);
        assert_eq!(edge.shard().info().expect("info").generation, 2);
        assert_eq!(server.faults().pending(), 0);
        let asked = server.exchanges().into_iter();
        asked
            .filter(|exchange| exchange.method == "GET" && exchange.path.contains(stored))
            .map(|exchange| (exchange.headers.get("range").cloned(), exchange.status))
            .collect::<Vec<_>>()
    };
    let rest = Some(format!("bytes={CUT}-"));
    let cut = || Fault::CutBody { after: CUT };
    assert_eq!(
        ask_again(cut(), None),
        [(None, Some(200)), (rest.clone(), Some(206))]
    );
    // A server that answers with another part: all of it again.
    assert_eq!(
        ask_again(cut(), Some(Fault::OtherRange { from: 100 })),
        [(None, Some(200)), (rest, Some(206)), (None, Some(200))]
    );
    // After its last byte, where no range is left to ask for.
    let at_end = Fault::CutBody { after: u64::MAX };
    assert_eq!(ask_again(at_end, None), [(None, Some(200))]);
}

#[test]
fn bad_snapshots_and_cut_downloads_leave_the_generation_in_force() {
    let faults = [
        ("cut", Fault::CutBody { after: 5_000 }),
        ("truncated", Fault::TruncateBody { to: 5_000 }),
        (
            "corrupt",
            Fault::CorruptBody {
                at: 0,
                bytes: 4_000,
            },
        ),
        ("401", Fault::unauthorized()),
    ];
    for (name, fault) in faults {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let edge = device(folder.path(), &server)
            .create(CONFIG)
            .expect("a shard");
        edge.shard()
            .upsert((0..30).map(point).collect())
            .expect("a write");
        edge.push()
            .and_then(SyncReport::into_result)
            .expect("a report");
        server
            .faults()
            .add(Rule::on("POST", PARTIAL).fault(fault).always());
        let source = RestoreSource::Server(SnapshotSource::Stream);
        let failed = edge.restore(&source, &Cancel::new(), |_| {});
        assert!(failed.is_err(), "{name}: {failed:?}");
        assert_eq!(all_points(&edge).len(), 30, "{name}");
        assert_eq!(edge.shard().info().expect("info").generation, 1, "{name}");
        let staged = std::fs::read_dir(folder.path().join("staging")).map_or(0, Iterator::count);
        assert_eq!(staged, 0, "{name}");
        // It works as before once the server does.
        server.faults().clear();
        edge.restore(&source, &Cancel::new(), |_| {}).expect(name);
        assert_eq!(all_points(&edge).len(), 30, "{name}");
    }
}

#[test]
fn what_was_refused_before_a_restore_can_be_retried_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = device(folder.path(), &server)
        .create(CONFIG)
        .expect("a shard");
    let shard = edge.shard();
    shard.upsert((1..11).map(point).collect()).expect("a write");
    refuse_point(&server, 2);
    assert_eq!(edge.push().expect("a report").rejected, 1);
    let report = edge
        .restore(
            &RestoreSource::Server(SnapshotSource::Stream),
            &Cancel::new(),
            |_| {},
        )
        .expect("a restore");
    assert_eq!(shard.count(None).expect("a count"), 9);
    let told = "1 refused point is only in the rejected log now";
    assert!(
        report.opened.notes.iter().any(|note| note == told),
        "{:?}",
        report.opened.notes
    );

    server.faults().clear();
    shard.retry_rejected(2).expect("a retry");
    edge.push()
        .and_then(SyncReport::into_result)
        .expect("a report");
    assert_eq!(shard.count(None).expect("a count"), 10);
    assert_eq!(server_points(&server), all_points(&edge));
    assert!(shard.rejected(0, 100).expect("a list").is_empty());
}
