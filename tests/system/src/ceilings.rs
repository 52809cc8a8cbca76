//! What happens where memory or disk end: writes are refused in time, and everything else goes on.

use std::path::Path;
use std::process::Output;

use edge_sync_host::{
    Cancel, EdgeSync, Error, Point, PointId, QueueLimits, RestoreProgress, RestoreSource,
    Selection, Shard, ShardOptions, SyncReport,
};
use edge_sync_log::Current;
use edge_sync_simulator::bindings::exports::edge_sync::shard::courier::SnapshotSource;
use edge_sync_simulator::bindings::exports::edge_sync::shard::types::{
    Error as GuestError, StorageKind,
};
use edge_sync_simulator::disk::{Disk, ROOT};
use edge_sync_simulator::expected::Expected;
use edge_sync_simulator::filesystem::GUEST_ROOT;
use edge_sync_simulator::guest::Ended;
use edge_sync_simulator::life::{Life, Outcome, Step, config};
use edge_sync_simulator::model::{Point as ModelPoint, Write};
use edge_sync_simulator::server::Server;
use edge_sync_simulator::snapshot;
use edge_sync_simulator::world::{Shared, World};
use serde_json::{Value, json};

use crate::served::{Served, edge_sync};
use crate::support::{
    COLLECTION, CONFIG, all_points, component, device, point, program, server, server_points,
};

/// A limit that a shard of a few ten thousand points reaches.
const SMALL_MIB: usize = 64;

/// A limit that 40,000 points of 256 dimensions do not fit.
const TINY_MIB: usize = 40;

const LIMITS: QueueLimits = QueueLimits {
    operations: 10,
    bytes: 8 << 20,
    points: 10_000,
    present_only: false,
};

const WIDE: &str = r#"{"vectors": {"size": 256, "distance": "Dot"}}"#;

fn wide_point(id: u64) -> Point {
    let vector: Vec<f32> = (0..256).map(|n| ((id * 31 + n) % 97) as f32).collect();
    Point::new(PointId::Num(id)).with_vector("", vector)
}

fn options(memory_mib: usize) -> ShardOptions {
    ShardOptions::default().memory_bytes(memory_mib << 20)
}

/// Writes points, so many at once, until there is no memory for more; answers how many there are then.
fn fill(shard: &Shard, at_once: u64) -> u64 {
    let mut written = 0;
    loop {
        let points = (written..written + at_once).map(wide_point).collect();
        match shard.upsert(points) {
            Ok(_) => written += at_once,
            Err(Error::NoMemory(shortage)) => {
                assert!(shortage.free_bytes < shortage.needed_bytes, "{shortage:?}");
                assert_eq!(shortage.limit_bytes, (SMALL_MIB as u64) << 20);
                return written;
            }
            Err(other) => panic!("after {written} points: {other:?}"),
        }
        assert!(written < 200_000, "no limit was met");
    }
}

#[test]
fn at_the_memory_limit_only_writes_that_add_are_refused() {
    // Writes of different sizes meet the growth of a file's map with more or less memory left.
    for at_once in [500, 350, 800, 1300] {
        only_writes_that_add_are_refused(at_once);
    }
}

fn only_writes_that_add_are_refused(at_once: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(SMALL_MIB);
    let shard = Shard::create(&component(), folder.path(), WIDE, options.clone()).expect("a shard");
    let written = fill(&shard, at_once);
    assert!(written > 0);
    shard.notes();
    // Every time, at once, and without an instance lost.
    for _ in 0..20 {
        let refused = shard.upsert((0..at_once).map(wide_point).collect());
        assert!(matches!(refused, Err(Error::NoMemory(_))), "{refused:?}");
    }
    assert_eq!(shard.notes(), Vec::<String>::new());
    assert_eq!(shard.count(None).expect("a count"), written);
    shard.delete(vec![PointId::Num(1)]).expect("a deletion");
    shard.flush().expect("a flush");
    let batch = shard.next_batch(LIMITS, None, None);
    assert!(batch.expect("a batch").is_some());
    shard.close().expect("closed");
    assert_eq!(shard.notes(), Vec::<String>::new());

    // And what was accepted can be opened with the same.
    let shard = Shard::open(&component(), folder.path(), options).expect("the shard");
    assert_eq!(shard.notes(), Vec::<String>::new());
    assert_eq!(shard.count(None).expect("a count"), written - 1);
    let found = shard.retrieve(vec![PointId::Num(7)], Selection::none());
    assert_eq!(found.expect("a point").len(), 1);
}

/// An index over payloads takes about the memory that they take; its request says nothing of that.
#[test]
fn a_write_that_runs_out_of_memory_does_not_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = options(128);
    let shard =
        Shard::create(&component(), folder.path(), CONFIG, options.clone()).expect("a shard");
    let text = |id: u64| {
        let words: Vec<String> = (0..40).map(|n| format!("word{}", id * 40 + n)).collect();
        json!({ "text": words.join(" ") }).to_string()
    };
    for batch in 0..30_u64 {
        let points = (batch * 1000..(batch + 1) * 1000)
            .map(|id| Point {
                payload: Some(text(id)),
                ..point(id)
            })
            .collect();
        shard.upsert(points).expect("a write");
    }
    let before = shard.queue_status().expect("the queue").logged;
    let schema =
        r#"{"type": "text", "tokenizer": "prefix", "min_token_len": 1, "max_token_len": 20}"#;
    match shard.create_payload_index("text", schema) {
        Err(Error::MemoryLimit { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(shard.queue_status().expect("the queue").logged, before);
    assert_eq!(shard.count(None).expect("a count"), 30_000);
    drop(shard);
    let shard = Shard::open(&component(), folder.path(), options).expect("the shard");
    assert_eq!(shard.notes(), Vec::<String>::new());
    assert_eq!(shard.queue_status().expect("the queue").logged, before);
    assert_eq!(shard.info().expect("info").payload_schema, "{}");
    assert_eq!(shard.count(None).expect("a count"), 30_000);
}

#[test]
fn a_shard_that_does_not_fit_the_memory_uploads_what_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    let edge = device(data, &server).create(WIDE).expect("a shard");
    assert!(edge.push().expect("a sync").created_collection);
    for batch in 0..40_u64 {
        let points = (batch * 1000..(batch + 1) * 1000).map(wide_point);
        edge.shard().upsert(points.collect()).expect("a write");
    }
    edge.shard().flush().expect("a flush");
    edge.shard()
        .delete(vec![PointId::Num(1)])
        .expect("a deletion");
    let last = edge.shard().queue_status().expect("the queue").logged;
    // All but the last few are at the server.
    edge.shard().acknowledge(last - 3).expect("acknowledged");
    drop(edge);

    let small = device(data, &server).options(options(TINY_MIB)).open();
    let small = small.expect("the queue");
    let notes = small.shard().notes();
    assert!(
        notes.iter().any(|note| note.contains("cannot be loaded")),
        "{notes:?}"
    );
    match small.shard().count(None) {
        Err(error @ Error::NotLoaded(_)) => {
            assert!(error.is_no_memory(), "{error}");
            assert!(error.to_string().contains("40 MiB"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    let refused = small.shard().upsert(vec![wide_point(1)]);
    assert!(matches!(refused, Err(Error::NotLoaded(_))), "{refused:?}");
    assert_eq!(small.shard().queue_status().expect("the queue").queued, 3);
    assert!(small.shard().rejected(0, 1).expect("the log").is_empty());
    let report = small.push().expect("a sync");
    assert!(report.failure.is_none(), "{report:?}");
    assert_eq!((report.uploaded, report.remaining), (3, 0));
    assert_eq!(server_points(&server).len(), 2);
    drop(small);

    // The command says the same.
    let memory = format!("--memory-mib={TINY_MIB}");
    let status = printed(data, &[&memory, "status"]);
    assert_eq!(status["queued"], 0, "{status}");
    assert_eq!(status["not_loaded"]["kind"], "memory-limit", "{status}");
    let output = run(data, &[&memory, "retrieve", "7"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("memory limit of 40 MiB"), "{text}");

    let edge = EdgeSync::builder(component(), data)
        .open()
        .expect("a shard");
    assert_eq!(edge.shard().count(None).expect("a count"), 39_999);
}

#[test]
fn a_restore_into_too_little_memory_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = device(&folder.path().join("one"), &server);
    let edge = edge.create(WIDE).expect("a shard");
    for batch in 0..40_u64 {
        let points = (batch * 1000..(batch + 1) * 1000).map(wide_point);
        edge.shard().upsert(points.collect()).expect("a write");
    }
    let file = folder.path().join("shard.snapshot");
    snapshot_of(&server, &edge, &file);
    let small = EdgeSync::builder(component(), folder.path().join("two"))
        .options(options(SMALL_MIB))
        .attach()
        .expect("a directory");
    let restored = small.restore(&RestoreSource::File(file), &Cancel::new(), |_| {});
    match restored {
        Err(error) => assert!(error.is_no_memory(), "{error:?}"),
        Ok(report) => panic!("{report:?}"),
    }
    assert!(!small.shard().is_present().expect("a directory"));
}

#[test]
fn one_restore_at_a_time_and_nothing_made_or_removed_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = device(&folder.path().join("one"), &server);
    let edge = edge.create(CONFIG).expect("a shard");
    edge.shard()
        .upsert((1..=9).map(point).collect())
        .expect("a write");
    let file = folder.path().join("shard.snapshot");
    snapshot_of(&server, &edge, &file);
    let source = RestoreSource::File(file);

    let two = EdgeSync::builder(component(), folder.path().join("two"))
        .attach()
        .expect("a directory");
    let mut tried = 0;
    let report = two.restore(&source, &Cancel::new(), |step| {
        if let RestoreProgress::Staging | RestoreProgress::Switching = step {
            tried += 1;
            let again = two.restore(&source, &Cancel::new(), |_| {}).map(drop);
            let made = two.shard().create_here(CONFIG).map(drop);
            for outcome in [again, made, two.remove(true)] {
                assert!(matches!(outcome, Err(Error::Restoring(_))), "{outcome:?}");
            }
        }
    });
    assert_eq!(report.expect("a restore").points, 9);
    assert_eq!(tried, 2);
    assert_eq!(all_points(&two).len(), 9);
}

/// A position that lies before the log's first record, as an earlier version could leave it.
#[test]
fn a_queue_whose_operations_are_lost_says_what_that_means() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let options = ShardOptions::default().log_segment_bytes(Some(4096));
    let start = || device(folder.path(), &server).options(options.clone());
    let edge = start().create(CONFIG).expect("a shard");
    for id in 1..=100 {
        edge.shard().upsert(vec![point(id)]).expect("a write");
    }
    assert_eq!(edge.push().expect("a sync").uploaded, 100);
    edge.shard().flush().expect("a flush");
    drop(edge);
    let mut current = Current::load(folder.path()).expect("read").expect("one");
    current.acknowledged = 10;
    current.store(folder.path()).expect("written");

    let edge = start().open().expect("a shard");
    for _ in 0..2 {
        match edge.push() {
            Err(Error::LostOperations(lost)) => assert_eq!(lost.first, 11),
            other => panic!("{other:?}"),
        }
    }
    drop(edge);
    let output = run(
        folder.path(),
        &["sync", "--url", &server.url(), "--collection", COLLECTION],
    );
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(error["error"]["kind"], "lost-operations", "{error}");
    let edge = start().open().expect("a shard");
    assert_eq!(edge.shard().resend().expect("queued again"), 100);
    edge.shard().upsert(vec![point(101)]).expect("a write");
    let report = edge.push().expect("a sync");
    assert!(report.failure.is_none(), "{report:?}");
    assert_eq!(server_points(&server).len(), 101);
}

#[test]
fn serve_at_the_memory_limit_answers_507_and_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = SMALL_MIB.to_string();
    let served = Served::start(folder.path(), &["--memory-mib", &memory]);
    let client = served.client();
    let config: Value = serde_json::from_str(WIDE).expect("JSON");
    client.result("PUT", "/collections/c", Some(&config));
    let points = |from: u64| {
        let points: Vec<Value> = (from..from + 500)
            .map(|id| json!({"id": id, "vector": vec![id % 97; 256]}))
            .collect();
        json!({ "points": points })
    };
    let mut written = 0;
    let (status, words) = loop {
        let path = "/collections/c/points?wait=true";
        let (status, answer) = client
            .call("PUT", path, Some(&points(written)))
            .expect("an answer");
        if status != 200 {
            break (status, answer["status"]["error"].to_string());
        }
        written += 500;
        assert!(written < 200_000, "no limit was met");
    };
    assert_eq!(status, 507, "{words}");
    assert!(words.contains("too little memory"), "{words}");
    for _ in 0..5 {
        let (status, _) = client.refusal("PUT", "/collections/c/points", Some(&points(0)));
        assert_eq!(status, 507);
    }
    let count = |client: &edge_sync_clients::rest::Client| {
        client.result("POST", "/collections/c/points/count", Some(&json!({})))["count"].clone()
    };
    assert_eq!(count(&client), written);
    let body = json!({ "points": [0, 1] });
    client.result(
        "POST",
        "/collections/c/points/delete?wait=true",
        Some(&body),
    );
    assert_eq!(count(&client), written - 2);
    assert!(served.stop().status.success());
}

#[test]
fn a_full_disk_keeps_reads_deletes_and_uploads() {
    let program = program();
    let server = Server::new(snapshot::maker());
    let world = Shared::new(World::new(Disk::new(), server, 1));
    let mut life = Life::new(&program, world.clone(), Expected::default());
    let done = |outcome: Outcome, what: &str| match outcome {
        Outcome::Done => {}
        other => panic!("{what}: {other:?}"),
    };
    let points = |ids: std::ops::RangeInclusive<u64>| -> Vec<(u64, ModelPoint)> {
        ids.map(|id| (id, ModelPoint::stamped(id))).collect()
    };
    let upsert = |ids| Step::Write(Write::Upsert(points(ids)));
    done(life.create().expect("right"), "create");
    let take = |life: &mut Life, step: Step| {
        let outcome = life
            .step(&step)
            .unwrap_or_else(|wrong| panic!("{step:?}: {wrong}"));
        done(outcome, &format!("{step:?}"));
    };
    take(&mut life, upsert(1..=30));
    take(&mut life, Step::Sync);
    take(&mut life, upsert(31..=40));
    let full = |world: &Shared| {
        let mut world = world.lock();
        world.capacity = Some(world.disk.used());
    };
    full(&world);
    // Another program has taken the rest.
    take(&mut life, Step::Write(Write::Delete(vec![1, 2])));
    full(&world);
    for _ in 0..3 {
        match life.step(&upsert(100..=200)).expect("right") {
            Outcome::Refused(GuestError::Storage(failure)) => {
                assert_eq!(failure.kind, StorageKind::NoSpace, "{failure:?}");
            }
            other => panic!("an upsert on a full disk: {other:?}"),
        }
    }
    take(&mut life, Step::Sync);
    take(&mut life, Step::Reopen);
    take(&mut life, Step::Write(Write::Delete(vec![3])));
    take(&mut life, Step::Sync);
    take(&mut life, Step::Reopen);
    world.lock().capacity = None;
    take(&mut life, upsert(300..=310));
    life.finish().expect("everything is there");
}

/// Below the host, which keeps the two apart: a shard is created where a restore is being staged.
#[test]
fn a_staged_generation_does_not_replace_another_shard_than_the_one_it_was_staged_upon() {
    let program = program();
    let server = Server::new(snapshot::maker());
    let world = Shared::new(World::new(Disk::new(), server, 1));
    let mut life = Life::new(&program, world.clone(), Expected::default());
    let done = |outcome| matches!(outcome, Ok(Outcome::Done));
    assert!(done(life.create()));
    let points = (1..=5).map(|id| (id, ModelPoint::stamped(id))).collect();
    assert!(done(life.step(&Step::Write(Write::Upsert(points)))));
    assert!(done(life.step(&Step::Download(SnapshotSource::Stream))));
    life.kill();
    // Without its `CURRENT`, there is no shard; the snapshot lies where it was downloaded to.
    let removed = world.lock().disk.remove_file(ROOT, "CURRENT");
    removed.expect("it was there");

    let start = || program.start(&world).expect("an instance");
    let (mut staging, mut creating) = (start(), start());
    let options = life.options;
    let staged = staging.call(|guest, store| {
        let restore = guest.edge_sync_shard_restore();
        let snapshot = format!("{GUEST_ROOT}/staging/shard.snapshot");
        restore.call_stage(
            store,
            GUEST_ROOT,
            std::slice::from_ref(&snapshot),
            0,
            options,
        )
    });
    assert_eq!(staged.expect("staged").points, 5);
    let created = creating.call(|guest, store| {
        let shard = guest.edge_sync_shard_shard();
        shard.call_create(store, GUEST_ROOT, &config(), options)
    });
    created.expect("created");
    let promoted =
        staging.call(|guest, store| guest.edge_sync_shard_restore().call_promote(store, None));
    match promoted {
        Err(Ended::Error(GuestError::AlreadyExists(_))) => {}
        other => panic!("{other:?}"),
    }
    drop(staging);
    let closed = creating.call(|guest, store| guest.edge_sync_shard_shard().call_close(store));
    assert_eq!(closed.expect("closed"), Vec::<String>::new());
    let mut again = start();
    let opened = again.call(|guest, store| {
        let shard = guest.edge_sync_shard_shard();
        shard.call_open(store, GUEST_ROOT, options)
    });
    opened.expect("opened");
    let count = again.call(|guest, store| guest.edge_sync_shard_shard().call_count(store, None));
    assert_eq!(count.expect("a count"), 0);
}

fn snapshot_of(server: &edge_sync_double::QdrantDouble, edge: &EdgeSync, file: &Path) {
    edge.push()
        .and_then(SyncReport::into_result)
        .expect("a sync");
    let path = format!("/collections/{COLLECTION}/shards/0/snapshot");
    let mut answer = server
        .client()
        .send("GET", &path, &[], None)
        .expect("an answer");
    let bytes = answer.body_mut().with_config().limit(1 << 30).read_to_vec();
    std::fs::write(file, bytes.expect("a snapshot")).expect("written");
}

fn run(data: &Path, arguments: &[&str]) -> Output {
    edge_sync(data, &["--json"])
        .args(arguments)
        .output()
        .expect("the command")
}

/// What a command prints that has to succeed.
fn printed(data: &Path, arguments: &[&str]) -> Value {
    let output = run(data, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}
