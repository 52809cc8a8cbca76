//! The command is killed while it writes; what it confirmed is there afterwards.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use edge_sync_host::{EdgeSync, SyncReport};
use serde_json::{Value, json};

use crate::support::{
    COLLECTION, CONFIG, all_points, command, component, device, point, server, server_points,
};

#[test]
fn every_confirmed_batch_survives_a_kill_and_reaches_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let data = folder.path().join("data");
    drop(
        EdgeSync::builder(component(), &data)
            .create(CONFIG)
            .expect("a shard"),
    );
    let mut confirmed = 0_u64;
    let mut first = 0_u64;
    for kill_after in [1, 3, 7] {
        let mut child = Command::new(command())
            .args(["--json", "upsert", "--batch-size", "5"])
            .env("EDGE_SYNC_DATA_DIR", &data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        let mut input = child.stdin.take().expect("its input");
        let writer = std::thread::spawn(move || {
            for id in first..first + 100_000 {
                let line = json!({ "id": id, "vector": [1, 2, 3, 4], "payload": { "n": id } });
                // Fails once the reader is killed.
                if writeln!(input, "{line}").is_err() {
                    break;
                }
            }
        });
        let mut receipts = BufReader::new(child.stdout.take().expect("its output")).lines();
        for _ in 0..kill_after {
            let line = receipts.next().expect("a receipt").expect("a line");
            let receipt: Value = serde_json::from_str(&line).expect("JSON");
            assert!(receipt["sequence"].as_u64().is_some(), "{receipt}");
            confirmed += 5;
        }
        child.kill().expect("killed");
        child.wait().expect("gone");
        writer.join().expect("no panic");

        let edge = device(&data, &server).open().expect("it opens again");
        let held = all_points(&edge);
        assert!(
            held.len() as u64 >= confirmed,
            "{} of {confirmed}",
            held.len()
        );
        // Whole batches, without holes.
        assert_eq!(held.len() % 5, 0);
        for (expected, point) in held.iter().enumerate() {
            assert_eq!(point["id"], expected);
        }
        confirmed = held.len() as u64;
        first = confirmed;
        edge.sync()
            .and_then(SyncReport::into_result)
            .expect("a report");
        assert_eq!(server_points(&server), held);
    }
}

#[test]
fn a_sync_that_is_killed_loses_nothing_and_the_next_one_finishes_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let data = folder.path().join("data");
    let edge = EdgeSync::builder(component(), &data)
        .create(CONFIG)
        .expect("a shard");
    edge.shard()
        .upsert((0..2000).map(point).collect())
        .expect("a write");
    drop(edge);
    let batch = format!("/collections/{COLLECTION}/points/batch");
    for kill_after in [1, 4, 6] {
        server.take_exchanges();
        let mut child = Command::new(command())
            .arg("sync")
            .env("EDGE_SYNC_DATA_DIR", &data)
            .env("QDRANT_URL", server.url())
            .env("EDGE_SYNC_COLLECTION", COLLECTION)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        let sent = server.wait_for(Duration::from_secs(60), |exchanges| {
            exchanges.iter().filter(|one| one.path == batch).count() >= kill_after
        });
        assert!(sent, "the sync sends no batches");
        child.kill().expect("killed");
        child.wait().expect("gone");
    }
    let edge = device(&data, &server).open().expect("it opens again");
    let held = all_points(&edge);
    assert_eq!(held.len(), 2000);
    let report = edge.sync().expect("a report");
    assert_eq!(report.remaining, 0);
    assert_eq!(server_points(&server), held);
}

/// Whatever a pull was doing, the shard is what it was or what the server holds, and what waited still
/// waits.
#[test]
fn a_pull_that_is_killed_leaves_the_old_state_or_the_new_one() {
    const STEPS: u64 = 14;
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let data = folder.path().join("data");
    let edge = device(&data, &server).create(CONFIG).expect("a shard");
    edge.shard()
        .upsert((0..400).map(point).collect())
        .expect("a write");
    edge.sync()
        .expect("a report")
        .into_result()
        .expect("a sync");
    edge.shard().upsert(vec![point(10_000)]).expect("a write");
    let mut before = all_points(&edge);
    drop(edge);
    for step in 0..STEPS {
        let path = format!("/collections/{COLLECTION}/points?wait=true");
        let body = json!({"points": [
            {"id": 1_000 + step, "vector": [1, 2, 3, 4], "payload": {"n": step}}
        ]});
        server.client().result("PUT", &path, Some(&body));
        server.take_exchanges();
        let mut child = Command::new(command())
            .args(["sync", "--pull"])
            .env("EDGE_SYNC_DATA_DIR", &data)
            .env("QDRANT_URL", server.url())
            .env("EDGE_SYNC_COLLECTION", COLLECTION)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        let asked = server.wait_for(Duration::from_secs(60), |exchanges| {
            exchanges
                .iter()
                .any(|one| one.path.ends_with("/snapshot/partial/create"))
        });
        assert!(asked, "the pull asks for nothing");
        // From the answer on, in steps over all that follows.
        std::thread::sleep(Duration::from_millis(20 * step));
        // It may have ended.
        let _ = child.kill();
        child.wait().expect("gone");

        let edge = device(&data, &server).open().expect("it opens again");
        let held = all_points(&edge);
        let mut after = server_points(&server);
        after.extend(before.iter().filter(|point| point["id"] == 10_000).cloned());
        assert!(held == before || held == after, "{step}: {}", held.len());
        assert_eq!(edge.shard().queue_status().expect("a status").queued, 1);
        let report = edge.pull().expect("a pull");
        assert_eq!(report.reasons, Vec::<String>::new());
        before = all_points(&edge);
        assert_eq!(before, after);
    }
}
