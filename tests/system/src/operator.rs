//! What a person finds out and does about a queue that does not move, also while another process has
//! the directory.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use edge_sync_clients::rest::Client;
use edge_sync_double::{Fault, QdrantDouble, Rule};
use edge_sync_host::{
    DirectoryLock, Error, NamedVector, Peek, PointId, RestoreSource, ShardOptions, SnapshotSource,
    SyncRecord, SyncReport, SyncerOptions, Vector,
};
use serde_json::{Value, json};

use crate::commands::{result, run};
use crate::served::{Served, edge_sync};
use crate::support::{
    COLLECTION, CONFIG, PARTIAL, all_points, component, device, point, server, server_points,
};

/// Waits for what another process is about to do.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn refuse_all(server: &QdrantDouble) {
    let words = "Wrong input: not today";
    server.faults().add(
        Rule::on("POST", "/points/batch")
            .fault(Fault::status(400, words))
            .always(),
    );
}

/// A shard of which the server has refused the points 1 to `count`.
fn refused(data: &Path, server: &QdrantDouble, count: u64) {
    let edge = device(data, server).create(CONFIG).expect("a shard");
    edge.shard()
        .upsert((1..=count).map(point).collect())
        .expect("a write");
    refuse_all(server);
    let mut sequence = 0;
    while edge.shard().queue_status().expect("a status").queued > 0 {
        sequence += 1;
        edge.shard()
            .reject(sequence, 400, &format!("no point with id {sequence}"))
            .expect("a refusal");
    }
}

#[test]
fn refused_operations_are_listed_in_pages_and_retried_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, server) = (folder.path(), server());
    refused(data, &server, 30);
    let all = result(data, &["rejected", "list"], &Value::Null);
    assert_eq!(all.as_array().map(Vec::len), Some(30));
    let page = result(
        data,
        &["rejected", "list", "--after", "3", "--limit", "2"],
        &Value::Null,
    );
    assert_eq!(
        (&page[0]["sequence"], &page[1]["sequence"]),
        (&json!(4), &json!(5))
    );
    assert_eq!(page.as_array().map(Vec::len), Some(2));
    let none = result(data, &["rejected", "list", "--after", "30"], &Value::Null);
    assert_eq!(none, json!([]));
    let text = edge_sync(data, &["rejected", "list"])
        .output()
        .expect("a list");
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    assert!(text.contains("and 10 more"), "{text}");
    assert!(text.contains("--after 20"), "{text}");

    let status = result(data, &["status"], &Value::Null);
    assert_eq!(
        (&status["rejected"], &status["refused_in_a_row"]),
        (&json!(30), &json!(30))
    );
    let retried = result(data, &["rejected", "retry", "--all"], &Value::Null);
    assert_eq!(retried["retried"].as_array().map(Vec::len), Some(30));
    let status = result(data, &["status"], &Value::Null);
    assert_eq!(
        (&status["queued"], &status["rejected"]),
        (&json!(30), &json!(0))
    );
    server.faults().clear();
    let edge = device(data, &server).open().expect("a shard");
    let report = edge.push().expect("a report");
    assert_eq!((report.uploaded, report.rejected), (30, 0));
    assert_eq!(server_points(&server), all_points(&edge));
}

#[test]
fn what_was_put_aside_is_always_restated() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    // More numbers in all vectors than one answer may hold.
    let size = 60_000_u32;
    let config = json!({"vectors": {"size": size, "distance": "Dot"}}).to_string();
    let edge = device(folder.path(), &server)
        .create(&config)
        .expect("a shard");
    let shard = edge.shard();
    let count = (1 << 24) / u64::from(size) + 10;
    for first in (0..count).step_by(50) {
        let points = (first..count.min(first + 50)).map(|id| edge_sync_host::Point {
            vectors: vec![NamedVector {
                name: String::new(),
                vector: Vector::Dense(vec![id as f32; size as usize]),
            }],
            ..point(id)
        });
        shard.upsert(points.collect()).expect("a write");
    }
    shard.acknowledge(count).expect("as if uploaded");
    // One operation on all of them, and on one that goes away.
    let body = json!({"payload": {"seen": true}, "points": (0..count).collect::<Vec<_>>()});
    let set = shard.request("POST", "/points/payload", &body.to_string());
    set.expect("a write");
    shard
        .reject(count + 1, 400, "not today")
        .expect("a refusal");
    shard.delete(vec![PointId::Num(3)]).expect("a deletion");
    shard.acknowledge(count + 2).expect("as if uploaded");

    shard.retry_rejected(count + 1).expect("a retry");
    let waiting = shard.queue_status().expect("a status").queued;
    assert_eq!(waiting, count, "a write for each, and one deletion");
    assert_eq!(shard.rejected(0, 10).expect("a list").len(), 0);
}

#[test]
fn a_point_is_retried_once_and_what_the_shard_refuses_by_now_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = device(folder.path(), &server)
        .create(CONFIG)
        .expect("a shard");
    let shard = edge.shard();
    shard.upsert(vec![point(1), point(2)]).expect("a write");
    shard.upsert(vec![point(1)]).expect("a write");
    let index = shard.create_payload_index("n", "\"integer\"");
    index.expect("an index");
    shard.delete(vec![PointId::Num(2)]).expect("a deletion");
    for sequence in 1..=5 {
        shard.reject(sequence, 400, "no").expect("a refusal");
    }
    let report = shard.retry_all_rejected().expect("a retry");
    assert_eq!((report.sequences.len(), report.failures.len()), (5, 0));
    let waiting = shard.waiting(0, 10).expect("a list");
    let paths: Vec<_> = waiting
        .iter()
        .map(|one| one.request.path.split('?').next().unwrap_or_default())
        .collect();
    // The index first, then each point once: one is held, one is not.
    assert_eq!(paths, ["/index", "/points/batch", "/points/batch"]);
    assert!(waiting[1].request.body.contains("upsert"), "{waiting:?}");
    assert!(waiting[2].request.body.contains("delete"), "{waiting:?}");
    let report = edge.push().expect("a report");
    assert_eq!((report.rejected, report.remaining), (0, 0));
    assert_eq!(server_points(&server), all_points(&edge));
}

#[test]
fn the_head_of_the_queue_is_shown_and_skipped() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, server) = (folder.path(), server());
    let edge = device(data, &server).create(CONFIG).expect("a shard");
    edge.shard()
        .upsert((1..=3).map(point).collect())
        .expect("a write");
    drop(edge);
    let shown = result(data, &["queue", "show"], &Value::Null);
    assert_eq!(shown["queued"], 3);
    let head = &shown["operations"][0];
    assert_eq!(shown["operations"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&head["sequence"], &head["method"]),
        (&json!(1), &json!("POST"))
    );
    assert_eq!(
        head["body"]["operations"][0]["upsert"]["points"][0]["id"], 1,
        "{head}"
    );
    assert!(head["bytes"].as_u64() > Some(0) && head["logged_ms"].as_u64() > Some(0));
    let two = result(
        data,
        &["queue", "show", "--limit", "9", "--after", "1"],
        &Value::Null,
    );
    assert_eq!(two["operations"].as_array().map(Vec::len), Some(2));

    // A script has to say that it is meant.
    let (code, error) = run(data, &["queue", "skip"], &Value::Null);
    assert_eq!(code, 2, "{error}");
    assert!(error.to_string().contains("--yes"), "{error}");
    let skipped = result(
        data,
        &["queue", "skip", "--yes", "--count", "2"],
        &Value::Null,
    );
    assert_eq!(skipped["skipped"], 2);
    let rejected = result(data, &["rejected", "list"], &Value::Null);
    assert_eq!(
        (&rejected[1]["sequence"], &rejected[1]["status"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(rejected[0]["message"], "skipped by hand");
    // It counts as no refusal of the server.
    assert_eq!(
        result(data, &["status"], &Value::Null)["refused_in_a_row"],
        0
    );
    let edge = device(data, &server).open().expect("a shard");
    assert_eq!(edge.push().expect("a report").uploaded, 1);
    assert_eq!(server_points(&server).len(), 1);
    drop(edge);
    let rest = result(data, &["queue", "skip", "--yes"], &Value::Null);
    assert_eq!(rest["skipped"], 0);
    result(data, &["rejected", "drop", "--all"], &Value::Null);
    let rejected = result(data, &["rejected", "list"], &Value::Null);
    assert_eq!(rejected, json!([]));
}

#[test]
fn whoever_looks_in_beside_serve_sees_what_is_so_and_who_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, server) = (folder.path(), server());
    refused(data, &server, 3);
    server.stop().expect("down");
    let url = server.url();
    let served = Served::start(data, &["--url", &url, "--collection", COLLECTION]);
    let client = served.client();
    let points = |ids: [u64; 2]| {
        let points = ids.map(|id| json!({"id": id, "vector": [1, id, 0, 1]}));
        json!({ "points": points })
    };
    let path = format!("/collections/{COLLECTION}/points?wait=true");
    client.result("PUT", &path, Some(&points([10, 11])));
    // At that moment, not as of some report.
    for (queued, ids) in [(2, [12, 13]), (4, [14, 15]), (6, [16, 17])] {
        let status = result(data, &["status"], &Value::Null);
        assert_eq!(status["queued"], queued, "{status}");
        assert_eq!(
            (&status["rejected"], &status["logged"]),
            (&json!(3), &json!(3 + queued))
        );
        assert_eq!(status["locked"]["command"], "edge-sync serve", "{status}");
        assert!(status["locked"]["process"].is_u64() && status["locked"]["since_ms"].is_u64());
        client.result("PUT", &path, Some(&points(ids)));
    }
    let rejected = result(data, &["rejected", "list"], &Value::Null);
    assert_eq!(rejected.as_array().map(Vec::len), Some(3));
    let shown = result(data, &["queue", "show"], &Value::Null);
    assert_eq!(shown["operations"][0]["sequence"], 4);
    let text = edge_sync(data, &["queue", "show"])
        .output()
        .expect("output");
    let note = String::from_utf8(text.stderr).expect("UTF-8");
    assert!(note.contains("`edge-sync serve`"), "{note}");

    // What needs the directory says who has it.
    for arguments in [
        &["queue", "skip", "--yes"][..],
        &["rejected", "retry", "--all"],
    ] {
        let (code, error) = run(data, arguments, &Value::Null);
        assert_eq!(code, 8, "{error}");
        assert!(error.to_string().contains("edge-sync serve"), "{error}");
    }

    // The same over REST, where the process itself answers.
    let status = client.result("GET", "/edge-sync/status", None);
    assert_eq!(
        (&status["queued"], &status["points"]),
        (&json!(8), &json!(11))
    );
    assert_eq!(status["collection"], COLLECTION);
    let page = client.result("GET", "/edge-sync/rejected?limit=2", None);
    assert_eq!(
        (&page["rejected"], &page["next_after"]),
        (&json!(3), &json!(2))
    );
    let page = client.result("GET", "/edge-sync/rejected?limit=2&after=2", None);
    assert_eq!(
        (&page["operations"][0]["sequence"], &page["next_after"]),
        (&json!(3), &Value::Null)
    );
    let shown = client.result("GET", "/edge-sync/queue?limit=3", None);
    assert_eq!(shown["operations"][2]["sequence"], 6);
    let skipped = client.result("POST", "/edge-sync/queue/skip", Some(&json!({"count": 2})));
    assert_eq!(skipped, json!({"skipped": 2}));
    let status = result(data, &["status"], &Value::Null);
    assert_eq!(
        (&status["queued"], &status["rejected"]),
        (&json!(6), &json!(5))
    );
    let one = json!({"sequences": [1]});
    let retried = client.result("POST", "/edge-sync/rejected/retry", Some(&one));
    assert_eq!(retried["retried"], json!([1]));
    assert_eq!(
        client
            .refusal("POST", "/edge-sync/rejected/retry", Some(&one))
            .0,
        404
    );
    for wrong in [
        json!({}),
        json!({"all": true, "sequences": []}),
        json!({"al": true}),
    ] {
        let refused = client.refusal("POST", "/edge-sync/rejected/retry", Some(&wrong));
        assert_eq!(refused.0, 400, "{wrong}");
    }
    let dropped = client.result(
        "POST",
        "/edge-sync/rejected/drop",
        Some(&json!({"sequences": [4]})),
    );
    assert_eq!(dropped, json!({"dropped": 1}));
    let retried = client.result(
        "POST",
        "/edge-sync/rejected/retry",
        Some(&json!({"all": true})),
    );
    assert_eq!(retried["retried"].as_array().map(Vec::len), Some(3));
    assert_eq!(
        client.refusal("GET", "/edge-sync/queue?limit=x", None).0,
        400
    );

    // Beside it all is uploaded, and what is told is that.
    server.faults().clear();
    server.resume().expect("up");
    client.result("PUT", &path, Some(&points([18, 19])));
    eventually("the queue is empty", || {
        result(data, &["status"], &Value::Null)["queued"] == 0
    });
    eventually("the worker says so", || {
        let status = result(data, &["status"], &Value::Null);
        status["last_error"].is_null() && status["worker"] == "idle"
    });
    assert!(served.stop().status.success());
}

#[test]
fn the_operators_paths_ask_for_the_key_and_exist_on_devices_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = edge_sync(
        folder.path(),
        &["--json", "serve", "--listen", "127.0.0.1:0"],
    );
    command.env("EDGE_SYNC_SERVE_API_KEY", "secret");
    let served = Served::spawn(command);
    let paths = [
        ("GET", "/edge-sync/status"),
        ("GET", "/edge-sync/queue"),
        ("POST", "/edge-sync/queue/skip"),
        ("GET", "/edge-sync/rejected"),
        ("POST", "/edge-sync/rejected/retry"),
        ("POST", "/edge-sync/rejected/drop"),
    ];
    let double = server();
    for (method, path) in paths {
        let body = (method == "POST").then(|| json!({"all": true}));
        assert_eq!(
            served.client().refusal(method, path, body.as_ref()).0,
            401,
            "{path}"
        );
        let refused = double.client().refusal(method, path, body.as_ref());
        assert_eq!(refused.0, 404, "{path}");
    }
    // There is no shard yet.
    let client = Client::new(served.url(), Some("secret"));
    assert_eq!(client.refusal("GET", "/edge-sync/status", None).0, 404);
}

#[test]
fn a_lock_is_gone_with_its_process_and_what_was_killed_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, server) = (folder.path(), server());
    let edge = device(data, &server).create(CONFIG).expect("a shard");
    edge.shard().upsert(vec![point(1)]).expect("a write");
    edge.push()
        .and_then(SyncReport::into_result)
        .expect("a report");
    drop(edge);
    // The server answers nothing for as long as anybody waits.
    server.faults().add(
        Rule::on("POST", PARTIAL)
            .fault(Fault::Delay(Duration::from_secs(20)))
            .always(),
    );
    let mut command = edge_sync(
        data,
        &[
            "restore",
            "--url",
            &server.url(),
            "--collection",
            COLLECTION,
        ],
    );
    let mut restore = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    eventually("the restore has begun", || {
        SyncRecord::load(data).under_way.is_some()
    });
    let status = result(data, &["status"], &Value::Null);
    assert_eq!(status["under_way"]["what"], "restore", "{status}");
    assert_eq!(status["locked"]["process"], restore.id(), "{status}");
    let killed = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -KILL {}", restore.id()))
        .status();
    assert!(killed.expect("sh").success());
    restore.wait().expect("its end");
    DirectoryLock::check(data).expect("nobody has it");
    let status = result(data, &["status"], &Value::Null);
    assert!(status.get("locked").is_none(), "{status}");
    assert_eq!(status["last_restore_error"]["kind"], "killed", "{status}");
    assert_eq!(
        (&status["under_way"], &status["last_error"]),
        (&Value::Null, &Value::Null)
    );
    // A failure is remembered, and a success after it is what counts.
    server.faults().clear();
    for (method, path) in [("POST", PARTIAL), ("GET", "/snapshot")] {
        server.faults().add(
            Rule::on(method, path)
                .fault(Fault::status(403, "no"))
                .always(),
        );
    }
    let edge = device(data, &server).open().expect("a shard");
    let source = RestoreSource::Server(SnapshotSource::Stream);
    let cancel = edge_sync_host::Cancel::new();
    edge.restore(&source, &cancel, |_| {}).expect_err("refused");
    let why = edge.sync_record().last_restore_error.expect("remembered");
    assert_eq!(why.kind, "server");
    server.faults().clear();
    edge.restore(&source, &cancel, |_| {}).expect("a restore");
    assert_eq!(edge.sync_record().last_restore_error, None);
}

#[test]
fn a_look_in_needs_nothing_but_reading_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, server) = (folder.path(), server());
    let options = ShardOptions::default();
    let nothing = Peek::open(&component(), data.join("none"), &options);
    assert!(matches!(nothing, Err(Error::NotFound(_))));
    let edge = device(data, &server)
        .background(SyncerOptions::default())
        .create(CONFIG)
        .expect("a shard");
    let peek = Peek::open(&component(), data, &options).expect("a look");
    // Each look is at one state of what another thread changes all the time.
    let shard = edge.shard().clone();
    let writing = std::thread::spawn(move || {
        for id in 0..400 {
            shard.upsert(vec![point(id)]).expect("a write");
        }
    });
    let mut last = 0;
    while !writing.is_finished() {
        let status = peek.status().expect("a status").queue;
        assert!(
            status.logged >= last && status.acknowledged <= status.logged,
            "{status:?}"
        );
        assert_eq!(status.queued, status.logged - status.acknowledged);
        last = status.logged;
        let waiting = peek.waiting(0, 5).expect("a list");
        for (one, next) in waiting.iter().zip(waiting.iter().skip(1)) {
            assert_eq!(next.sequence, one.sequence + 1);
        }
    }
    writing.join().expect("no panic");
    edge.push()
        .and_then(SyncReport::into_result)
        .expect("a report");
    let status = peek.status().expect("a status").queue;
    assert_eq!((status.logged, status.queued), (400, 0));
    assert_eq!(status, edge.shard().queue_status().expect("a status"));
}
