//! The fixture's snapshot, restored, answers as the server did: the server double and
//! `edge-sync serve` over HTTP, and the commands.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use edge_sync_clients::rest::Client;
use edge_sync_double::{Options, QdrantDouble};
use edge_sync_fixtures::all_kinds::{self, Query};
use serde_json::{Value, json};

use crate::openapi::Description;
use crate::served::{Served, edge_sync};

/// Panics, with every difference, unless all recorded requests are answered as the server did.
fn assert_answers_as_the_server(client: &Client) {
    let description = Description::load();
    let mut differences = Vec::new();
    let queries = all_kinds::queries();
    for query in &queries {
        let path = format!("/collections/all-kinds{}", query.path);
        let (status, answer) = client
            .call(&query.method, &path, Some(&query.body))
            .expect("an answer");
        if status != 200 {
            differences.push(format!("{}: {answer}", query.name));
            continue;
        }
        if let Err(problem) = description.check(&query.method, &path, status, &answer) {
            differences.push(format!("{}: {problem}", query.name));
        }
        if let Err(difference) =
            all_kinds::same_result(&query.name, &query.result, &answer["result"])
        {
            differences.push(format!("{}: {difference}", query.name));
        }
    }
    assert_none(&differences, queries.len());
}

fn assert_none(differences: &[String], answers: usize) {
    let summary = differences.join("\n");
    assert!(differences.is_empty(), "of {answers} answers:\n{summary}");
}

/// A data directory in `folder` with the fixture, restored by the command.
fn restored(folder: &Path) -> PathBuf {
    let snapshot = all_kinds::snapshot_file(folder);
    let data = folder.join("data");
    let output = edge_sync(&data, &["restore", "--snapshot"])
        .arg(snapshot)
        .output()
        .expect("the command");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    data
}

#[test]
fn the_double_answers_all_recorded_requests_as_the_server_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let double = QdrantDouble::start(Options::default()).expect("a server");
    double
        .restore("all-kinds", &all_kinds::snapshot_file(folder.path()))
        .expect("restored");
    assert_answers_as_the_server(&double.client());
}

#[test]
fn serve_answers_all_recorded_requests_as_the_server_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = restored(folder.path());
    let served = Served::start(&data, &["--collection", "all-kinds"]);
    assert_answers_as_the_server(&served.client());
}

/// Runs the command for `method` and `path` with `body` on standard input; its result.
fn by_command(data: &Path, method: &str, path: &str, body: &Value) -> Result<Value, String> {
    let arguments: &[&str] = match (method, path) {
        ("POST", "/points/query" | "/points/query/batch") => &["query"],
        ("POST", "/points/query/groups") => &["groups"],
        ("POST", "/points/search/matrix/pairs") => &["matrix", "pairs"],
        ("POST", "/points/search/matrix/offsets") => &["matrix", "offsets"],
        ("POST", "/points/scroll") => &["scroll"],
        ("POST", "/points/count") => &["count"],
        ("POST", "/points") => &["retrieve", "--body", "-"],
        ("POST", "/facet") => &["facet"],
        _ => &["request", method, path],
    };
    let mut child = edge_sync(data, &["--json"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut input = child.stdin.take().expect("its input");
    input
        .write_all(body.to_string().as_bytes())
        .expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("its end");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

/// Requests through the command of their kind. Universal queries go in one batch, and of the
/// others one for each command, unless `EDGE_SYNC_EVERY_COMMAND` is set: a process for each of
/// them takes minutes.
#[test]
fn commands_answer_all_recorded_requests_as_the_server_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = restored(folder.path());
    let queries = all_kinds::queries();
    let every = std::env::var_os("EDGE_SYNC_EVERY_COMMAND").is_some();
    let (batched, single): (Vec<&Query>, Vec<&Query>) = queries
        .iter()
        .partition(|query| !every && query.path == "/points/query");
    let mut differences = Vec::new();
    let mut compare = |query: &Query, result: Result<Value, String>| {
        let difference =
            result.and_then(|result| all_kinds::same_result(&query.name, &query.result, &result));
        if let Err(difference) = difference {
            differences.push(format!("{}: {difference}", query.name));
        }
    };
    if !batched.is_empty() {
        let searches: Vec<&Value> = batched.iter().map(|query| &query.body).collect();
        let body = json!({ "searches": searches });
        let results = by_command(&data, "POST", "/points/query/batch", &body).expect("results");
        let results = results.as_array().expect("a list").clone();
        assert_eq!(results.len(), batched.len());
        for (query, result) in batched.iter().zip(results) {
            compare(query, Ok(result));
        }
    }
    let mut commands = BTreeSet::new();
    for query in &single {
        if !every && !commands.insert(&query.path) {
            continue;
        }
        let result = by_command(&data, &query.method, &query.path, &query.body);
        compare(query, result);
    }
    assert_none(&differences, queries.len());
}

#[test]
fn the_restored_collection_describes_itself_as_the_server_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let double = QdrantDouble::start(Options::default()).expect("a server");
    double
        .restore("all-kinds", &all_kinds::snapshot_file(folder.path()))
        .expect("restored");
    let info = double
        .client()
        .result("GET", "/collections/all-kinds", None);
    let server = &all_kinds::collection()["collection"];
    assert_eq!(info["points_count"], server["points_count"]);
    assert_eq!(info["segments_count"], server["segments_count"]);
    let indexes = |info: &serde_json::Value| {
        let schema = info["payload_schema"]
            .as_object()
            .expect("a schema")
            .clone();
        schema
            .into_iter()
            .map(|(field, index)| (field, index["data_type"].clone()))
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(indexes(&info), indexes(server));
    for (name, vector) in server["config"]["params"]["vectors"]
        .as_object()
        .expect("vectors")
    {
        let ours = &info["config"]["params"]["vectors"][name];
        for field in ["size", "distance", "datatype", "multivector_config"] {
            assert_eq!(ours.get(field), vector.get(field), "{name}.{field}");
        }
    }
}
