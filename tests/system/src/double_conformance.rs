//! Operations of Qdrant's API description that the server double has and `edge-sync serve` has not, or that
//! neither has: what the double answers, successes and refusals, has the shape that the description gives.
//! Of all others `differential` asks both.

use std::collections::BTreeSet;

use edge_sync_double::QdrantDouble;
use serde_json::{Value, json};

use crate::openapi::Description;
use crate::support::cluster;

/// What only the double offers.
pub(crate) const OFFERED: [&str; 7] = [
    "create_shard_key",
    "create_shard_snapshot",
    "delete_shard_key",
    "delete_shard_snapshot",
    "get_shard_snapshot",
    "list_shard_snapshots",
    "stream_shard_snapshot",
];

/// Endpoints of a cluster, a whole server, or its administration. They are refused, in the error
/// shape, with 501.
pub(crate) const NOT_OFFERED: [&str; 16] = [
    "cluster_telemetry",
    "create_full_snapshot",
    "create_snapshot",
    "delete_full_snapshot",
    "get_full_snapshot",
    "get_quotas",
    "list_full_snapshots",
    "recover_current_peer",
    "recover_from_snapshot",
    "recover_from_uploaded_snapshot",
    "recover_shard_from_snapshot",
    "recover_shard_from_uploaded_snapshot",
    "remove_peer",
    "telemetry",
    "update_collection_cluster",
    "update_quotas",
];

/// Offered in part: there is nothing that these could find.
pub(crate) const NOTHING_THERE: [&str; 2] = ["get_snapshot", "delete_snapshot"];

struct Run {
    double: QdrantDouble,
    description: Description,
    succeeded: BTreeSet<String>,
    refused: BTreeSet<String>,
    problems: Vec<String>,
}

impl Run {
    fn start() -> Self {
        Self {
            double: cluster(),
            description: Description::load(),
            succeeded: BTreeSet::new(),
            refused: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// Where a snapshot itself is asked for, the server refuses with 404 and words, without the
    /// envelope that its description states.
    fn refused_plainly(&mut self, path: &str, id: &str, words: &str) {
        let mut answer = self
            .double
            .client()
            .send("GET", path, &[], None)
            .expect("an answer");
        let body = answer.body_mut().read_to_string().expect("text");
        if answer.status().as_u16() != 404 || !body.starts_with(words) {
            self.problems
                .push(format!("GET {path}: {} {body}", answer.status()));
        }
        self.refused.insert(id.to_owned());
    }

    fn put(&mut self, method: &str, path: &str, body: Value, expected: u16) -> Value {
        let body = (!body.is_null()).then_some(body);
        let (status, answer) = self
            .double
            .client()
            .call(method, path, body.as_ref())
            .expect("an answer");
        if status != expected {
            self.problems.push(format!(
                "{method} {path}: {status} instead of {expected}: {answer}"
            ));
        }
        // Plain text, as the server sends it where a success would be a file; and metrics.
        if !answer.is_string()
            && let Err(problem) = self.description.check(method, path, status, &answer)
        {
            self.problems.push(problem);
        }
        let bare = path.split('?').next().unwrap_or_default();
        let id = self
            .description
            .operation(method, bare)
            .expect("an operation");
        if status < 400 {
            self.succeeded.insert(id);
        } else {
            self.refused.insert(id);
        }
        answer["result"].clone()
    }

    fn ok(&mut self, method: &str, path: &str, body: Value) -> Value {
        self.put(method, path, body, 200)
    }
}

#[test]
fn every_operation_of_its_own_answers_in_the_described_shape() {
    let mut run = Run::start();
    let config = json!({"vectors": {"size": 3, "distance": "Dot"}});
    run.ok("PUT", "/collections/c", config);
    run.ok("GET", "/cluster", Value::Null);
    writes(&mut run);
    shard_keys(&mut run);
    snapshots(&mut run);
    not_offered(&mut run);
    run.refused_plainly(
        "/collections/nope/shards/0/snapshot",
        "stream_shard_snapshot",
        "Not found: ",
    );
    for path in ["/snapshots", "/shards/0/snapshots"] {
        run.put("GET", &format!("/collections/nope{path}"), Value::Null, 404);
    }
    assert!(run.problems.is_empty(), "{}", run.problems.join("\n"));

    let missing = |asked: &[&str], done: &BTreeSet<String>| -> Vec<String> {
        let asked = asked.iter().map(|id| (*id).to_owned());
        asked.filter(|id| !done.contains(id)).collect()
    };
    let never_succeeded = missing(&OFFERED, &run.succeeded);
    assert!(never_succeeded.is_empty(), "{never_succeeded:?}");
    for refused in [&NOT_OFFERED[..], &NOTHING_THERE] {
        let never_asked = missing(refused, &run.refused);
        assert!(never_asked.is_empty(), "{never_asked:?}");
    }
}

/// As a server applies them: point by point, unlike a device.
fn writes(run: &mut Run) {
    let points =
        json!({"points": [{"id": 1, "vector": [1, 2, 3]}, {"id": 2, "vector": [3, 2, 1]}]});
    run.ok("PUT", "/collections/c/points?wait=true", points);
    let operations = json!({"operations": [
        {"set_payload": {"payload": {"a": 1}, "points": [1]}},
        {"delete": {"points": [2]}},
    ]});
    run.ok("POST", "/collections/c/points/batch?wait=true", operations);
    let filter = json!({"filter": {"must": [{"has_id": [1]}]}});
    run.ok("POST", "/collections/c/points/delete?wait=true", filter);
    // What a server does not know it ignores.
    run.ok("PUT", "/collections/d", json!({"vectros": {}}));
    run.ok("DELETE", "/collections/d", Value::Null);
}

fn shard_keys(run: &mut Run) {
    let keyed = json!({"vectors": {"size": 3, "distance": "Dot"}, "sharding_method": "custom"});
    run.ok("PUT", "/collections/keyed", keyed);
    let key = json!({"shard_key": "a"});
    for (method, path) in [("PUT", "shards"), ("POST", "shards/delete")] {
        let path = format!("/collections/keyed/{path}");
        run.ok(method, &path, key.clone());
        run.ok("GET", "/collections/keyed/cluster", Value::Null);
        run.put(method, &path, key.clone(), 400);
    }
    run.ok("DELETE", "/collections/keyed", Value::Null);
}

fn snapshots(run: &mut Run) {
    let shard = "/collections/c/shards/0";
    let made = run.ok("POST", &format!("{shard}/snapshots"), Value::Null);
    let name = made["name"].as_str().expect("a name").to_owned();
    assert!(made["checksum"].is_string());
    run.put(
        "POST",
        &format!("{shard}/snapshots?wait=false"),
        Value::Null,
        202,
    );
    let listed = run.ok("GET", &format!("{shard}/snapshots"), Value::Null);
    assert_eq!(listed.as_array().map(Vec::len), Some(2));
    assert_eq!(listed[0], made);
    for path in [
        format!("{shard}/snapshots/{name}"),
        format!("{shard}/snapshot"),
    ] {
        let answer = run
            .double
            .client()
            .send("GET", &path, &[], None)
            .expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.headers()["content-type"], "application/octet-stream");
    }
    run.succeeded
        .extend(["get_shard_snapshot", "stream_shard_snapshot"].map(str::to_owned));
    run.ok("DELETE", &format!("{shard}/snapshots/{name}"), Value::Null);
    run.refused_plainly(
        &format!("{shard}/snapshots/{name}"),
        "get_shard_snapshot",
        "Not found: ",
    );
    run.put(
        "DELETE",
        &format!("{shard}/snapshots/{name}"),
        Value::Null,
        404,
    );
    run.refused_plainly(
        "/collections/c/shards/7/snapshot",
        "stream_shard_snapshot",
        "Not found: shard 7 not found",
    );
    run.ok("GET", "/collections/c/snapshots", Value::Null);
    let none = "/collections/c/snapshots/none.snapshot";
    run.refused_plainly(none, "get_snapshot", "Not found: ");
    run.put("DELETE", none, Value::Null, 404);
}

fn not_offered(run: &mut Run) {
    let operations = run.description.operations();
    for (method, template, id) in operations {
        if !NOT_OFFERED.contains(&id.as_str()) {
            continue;
        }
        let path = template
            .replace("{collection_name}", "c")
            .replace("{shard_id}", "0")
            .replace("{snapshot_name}", "s")
            .replace("{peer_id}", "1");
        run.put(&method, &path, Value::Null, 501);
    }
}
