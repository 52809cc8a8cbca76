//! Commands that take a whole REST body, and print the REST result.

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use edge_sync_host::{SyncRecord, SyncerOptions};
use serde_json::{Value, json};

use crate::first_hour;
use crate::served::edge_sync;
use crate::support::{COLLECTION, CONFIG, device, point, push, server};

/// Runs a command with `body` on standard input; its exit code, and what it prints as JSON.
pub fn run(data: &Path, arguments: &[&str], body: &Value) -> (i32, Value) {
    let mut child = edge_sync(data, &["--json"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut input = child.stdin.take().expect("its input");
    if !body.is_null() {
        input
            .write_all(body.to_string().as_bytes())
            .expect("it reads");
    }
    drop(input);
    let output = child.wait_with_output().expect("its end");
    let code = output.status.code().expect("an exit code");
    let text = if code == 0 {
        output.stdout
    } else {
        output.stderr
    };
    let text = String::from_utf8(text).expect("UTF-8");
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (code, value)
}

/// The result of a command that has to succeed.
pub fn result(data: &Path, arguments: &[&str], body: &Value) -> Value {
    let (code, value) = run(data, arguments, body);
    assert_eq!(code, 0, "{arguments:?}: {value}");
    value
}

#[test]
fn whole_bodies_go_in_and_results_come_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let config = json!({"vectors": {"a": {"size": 2, "distance": "Dot"}}});
    result(data, &["create", "--config", "-"], &config);
    let points = |mode: &str| {
        json!({
            "points": [
                {"id": 1, "vector": {"a": [1, 0]}, "payload": {"mode": mode}},
                {"id": 2, "vector": {"a": [0, 1]}, "payload": {"mode": mode}},
            ],
            "update_mode": mode,
        })
    };
    let receipt = result(data, &["upsert", "--body", "-"], &points("upsert"));
    assert_eq!(receipt["status"], "completed");
    result(data, &["upsert", "--body", "-"], &points("insert_only"));
    let body = json!({"ids": [2, 1], "with_payload": ["mode"]});
    let found = result(data, &["retrieve", "--body", "-"], &body);
    assert_eq!(
        found,
        json!([
            {"id": 2, "payload": {"mode": "upsert"}},
            {"id": 1, "payload": {"mode": "upsert"}},
        ])
    );

    let moved = json!({"points": [{"id": 1, "vector": {"a": [7, 7]}}]});
    result(data, &["vectors", "update"], &moved);
    let searches = json!({"searches": [
        {"query": [1, 0], "using": "a"},
        {"query": 1, "using": "a", "limit": 1},
    ]});
    let answers = result(data, &["query"], &searches);
    assert_eq!(answers[0]["points"][0]["id"], 1);
    assert_eq!(answers[1]["points"][0]["id"], 2);

    let body = json!({"filter": {"must": [{"has_id": [2, 3]}]}});
    result(data, &["delete", "--body", "-"], &body);
    assert_eq!(result(data, &["count"], &json!({})), json!({"count": 1}));
    // What the API had before says what took its place.
    let (code, error) = run(data, &["search"], &json!({"vector": [1, 0], "limit": 1}));
    assert_eq!(code, 3, "{error}");
    assert!(error.to_string().contains("/points/query"), "{error}");
    let (code, error) = run(data, &["delete", "--body", "-"], &json!({"pionts": [1]}));
    assert_eq!(code, 3, "{error}");
    assert!(error.to_string().contains("pionts"), "{error}");
}

#[test]
fn named_vectors_come_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let config = json!({"vectors": {"a": {"size": 2, "distance": "Dot"}}});
    result(data, &["create", "--config", "-"], &config);
    // Characters that a path has to encode.
    let name = "b/c %";
    let vector = json!({"dense": {"size": 1, "distance": "Dot"}});
    result(data, &["vectors", "create", name], &vector);
    let mut point = json!({"points": [{"id": 1, "vector": {}}]});
    point["points"][0]["vector"][name] = json!([7]);
    result(data, &["upsert", "--body", "-"], &point);
    let query = json!({"query": [1], "using": name});
    assert_eq!(result(data, &["query"], &query)["points"][0]["score"], 7.0);
    result(data, &["vectors", "drop", name], &Value::Null);
    let (code, error) = run(data, &["query"], &query);
    assert_eq!(code, 3, "{error}");
}

#[test]
fn the_status_of_a_shard_in_use_says_what_its_process_does_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    server.stop().expect("down");
    let edge = device(data, &server)
        .background(SyncerOptions::default())
        .create(CONFIG)
        .expect("a shard");
    edge.shard().upsert(vec![point(1)]).expect("a write");
    while SyncRecord::load(data).last_error.is_none() {
        std::thread::yield_now();
    }
    let status = result(data, &["status"], &Value::Null);
    assert_eq!(status["locked"]["kind"], "locked", "{status}");
    assert_eq!(status["queued"], 1, "{status}");
    let next = status["next"].as_str().expect("words");
    assert!(next.contains("tries again"), "{status}");
    let why = status["last_error"]["message"].as_str().expect("words");
    assert!(why.contains("refuses connections"), "{status}");
    let place = format!("{}/collections/{COLLECTION}", server.url());
    let url = server.url();
    let bound = ["--url", &url, "--collection", COLLECTION, "status"];
    assert_eq!(result(data, &bound, &Value::Null)["server"], place.as_str());
    let text = first_hour::out(data, &bound, b"");
    assert!(text.contains(&format!("server      {place}")), "{text}");
}

#[test]
fn a_setting_that_is_refused_is_no_failure_of_the_sync() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    let edge = device(data, &server).create(CONFIG).expect("a shard");
    edge.shard().upsert(vec![point(1)]).expect("a write");
    let _ = push(&edge);
    drop(edge);
    let (code, error) = run(data, &["--collection", "another", "sync"], &Value::Null);
    assert_eq!(code, 7, "{error}");
    let status = result(data, &["status"], &Value::Null);
    assert_eq!(status["last_error"], Value::Null, "{status}");
    assert_eq!(status["next"], "nothing to do", "{status}");
}
