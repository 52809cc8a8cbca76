//! Every operation of Qdrant's API description, put to the server double: what it answers,
//! successes and refusals, has the shape that the description gives.

use std::collections::BTreeSet;

use edge_sync_double::QdrantDouble;
use serde_json::{Value, json};

use crate::openapi::Description;
use crate::support::cluster;

/// Endpoints of a cluster, a whole server, or its administration. They are refused, in the error
/// shape, with 501.
const NOT_OFFERED: [&str; 16] = [
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
const NOTHING_THERE: [&str; 2] = ["get_snapshot", "delete_snapshot"];

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
        let template = self
            .description
            .template(method, bare)
            .expect("an operation")
            .to_owned();
        let operations = self.description.operations();
        let id = operations
            .into_iter()
            .find(|(m, t, _)| m == method && *t == template);
        let id = id.map(|(_, _, id)| id).expect("an operation");
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
fn every_operation_answers_in_the_described_shape() {
    let mut run = Run::start();
    service(&mut run);
    collections(&mut run);
    writes(&mut run);
    reads(&mut run);
    snapshots(&mut run);
    refusals(&mut run);
    not_offered(&mut run);
    run.ok("DELETE", "/collections/c/index/city", Value::Null);
    run.ok("DELETE", "/collections/c", Value::Null);
    assert!(run.problems.is_empty(), "{}", run.problems.join("\n"));

    let excused: BTreeSet<_> = NOT_OFFERED.iter().chain(&NOTHING_THERE).copied().collect();
    let operations = run.description.operations();
    let all: BTreeSet<_> = operations.iter().map(|(_, _, id)| id.as_str()).collect();
    let succeeded: BTreeSet<_> = run.succeeded.iter().map(String::as_str).collect();
    let never: Vec<_> = all
        .iter()
        .filter(|id| !succeeded.contains(*id) && !excused.contains(*id))
        .collect();
    assert!(never.is_empty(), "never succeeded: {never:?}");
    let asked: BTreeSet<_> = run
        .refused
        .iter()
        .map(String::as_str)
        .chain(succeeded)
        .collect();
    let unasked: Vec<_> = all.difference(&asked).collect();
    assert!(unasked.is_empty(), "never asked: {unasked:?}");
}

fn service(run: &mut Run) {
    for path in [
        "/",
        "/healthz",
        "/livez",
        "/readyz",
        "/cluster",
        "/aliases",
        "/collections",
        "/issues",
        "/metrics",
    ] {
        run.ok("GET", path, Value::Null);
    }
    run.ok("DELETE", "/issues", Value::Null);
}

fn collections(run: &mut Run) {
    let config = json!({
        "vectors": {
            "dense": {"size": 3, "distance": "Cosine"},
            "multi": {
                "size": 2,
                "distance": "Dot",
                "multivector_config": {"comparator": "max_sim"},
            },
        },
        "sparse_vectors": {"sparse": {}},
        "hnsw_config": {"m": 8},
        "optimizers_config": {"indexing_threshold": 20000},
    });
    run.ok("PUT", "/collections/c", config.clone());
    run.put("PUT", "/collections/c", config, 409);
    run.ok("GET", "/collections/c", Value::Null);
    run.ok("GET", "/collections", Value::Null);
    run.ok("GET", "/collections/c/exists", Value::Null);
    run.ok("GET", "/collections/nope/exists", Value::Null);
    run.ok("GET", "/collections/c/aliases", Value::Null);
    run.ok("POST", "/collections/aliases", json!({"actions": []}));
    for below in ["cluster", "optimizations", "shards"] {
        run.ok("GET", &format!("/collections/c/{below}"), Value::Null);
    }
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
    run.ok("DELETE", "/collections/nope", Value::Null);
}

fn writes(run: &mut Run) {
    let c = "/collections/c";
    for (field, schema) in [
        ("city", json!("keyword")),
        (
            "rank",
            json!({"type": "integer", "lookup": true, "range": true}),
        ),
        ("text", json!({"type": "text", "tokenizer": "word"})),
    ] {
        let body = json!({"field_name": field, "field_schema": schema});
        run.ok("PUT", &format!("{c}/index?wait=true"), body);
    }
    let points: Vec<_> = (1..=20)
        .map(|n| {
            let city = if n % 3 == 0 { "Berlin" } else { "Rome" };
            json!({
                "id": n,
                "vector": {
                    "dense": [n, 1, 20 - n],
                    "multi": [[n, 1], [1, n]],
                    "sparse": {"indices": [n, n + 1], "values": [1.0, 0.5]},
                },
                "payload": {"city": city, "rank": n, "text": "a few words", "nested": {"a": n}},
            })
        })
        .collect();
    run.ok(
        "PUT",
        &format!("{c}/points?wait=true"),
        json!({"points": points}),
    );
    let uuid = json!({"id": "550e8400-e29b-41d4-a716-446655440000", "vector": {}});
    run.ok(
        "PUT",
        &format!("{c}/points?wait=false"),
        json!({"points": [uuid]}),
    );
    let filter = json!({"must": [{"key": "city", "match": {"value": "Berlin"}}]});
    let vectors = json!({"points": [{"id": 1, "vector": {"dense": [1, 1, 1]}}]});
    run.ok("PUT", &format!("{c}/points/vectors?wait=true"), vectors);
    let names = json!({"points": [20], "vector": ["multi"]});
    run.ok(
        "POST",
        &format!("{c}/points/vectors/delete?wait=true"),
        names,
    );
    let payload = json!({"payload": {"seen": true}, "filter": filter});
    run.ok("POST", &format!("{c}/points/payload?wait=true"), payload);
    let payload = json!({"payload": {"city": "Oslo"}, "points": [19]});
    run.ok("PUT", &format!("{c}/points/payload?wait=true"), payload);
    let keys = json!({"keys": ["text"], "points": [1, 2]});
    run.ok(
        "POST",
        &format!("{c}/points/payload/delete?wait=true"),
        keys,
    );
    run.ok(
        "POST",
        &format!("{c}/points/payload/clear?wait=true"),
        json!({"points": [18]}),
    );
    run.ok(
        "POST",
        &format!("{c}/points/delete?wait=true"),
        json!({"points": [17, 1000]}),
    );
    run.ok(
        "POST",
        &format!("{c}/points/delete?wait=true"),
        json!({"filter": {"must": [{"key": "rank", "match": {"value": 16}}]}}),
    );
    let operations = json!({"operations": [
        {"upsert": {"points": [{"id": 50, "vector": {"dense": [1, 2, 3]}}]}},
        {"set_payload": {"payload": {"city": "Kyiv"}, "points": [50]}},
        {"delete": {"points": [50]}},
    ]});
    let receipts = run.ok("POST", &format!("{c}/points/batch?wait=true"), operations);
    assert_eq!(receipts.as_array().map(Vec::len), Some(3));
    let vector = json!({"dense": {"size": 4, "distance": "Dot"}});
    run.ok("PUT", &format!("{c}/vectors/extra"), vector);
    run.ok("DELETE", &format!("{c}/vectors/extra"), Value::Null);
}

fn reads(run: &mut Run) {
    let c = "/collections/c";
    run.ok("GET", &format!("{c}/points/1"), Value::Null);
    let ids = json!({"ids": [1, 2, 3, 999], "with_vector": true, "with_payload": ["city"]});
    run.ok("POST", &format!("{c}/points"), ids);
    let mut page = json!({"limit": 7, "with_payload": true});
    loop {
        let result = run.ok("POST", &format!("{c}/points/scroll"), page.clone());
        match &result["next_page_offset"] {
            Value::Null => break,
            next => page["offset"] = next.clone(),
        }
    }
    let by_rank = json!({"order_by": {"key": "rank", "direction": "desc"}, "limit": 3});
    run.ok("POST", &format!("{c}/points/scroll"), by_rank);
    let filter = json!({"must": [{"key": "rank", "range": {"gt": 5}}]});
    run.ok(
        "POST",
        &format!("{c}/points/count"),
        json!({"filter": filter, "exact": true}),
    );
    run.ok(
        "POST",
        &format!("{c}/facet"),
        json!({"key": "city", "exact": true}),
    );
    let queries = [
        json!({"query": [1, 2, 3], "using": "dense", "with_payload": true, "with_vector": true}),
        json!({"query": 1, "using": "dense", "limit": 2}),
        json!({"query": [[1, 2]], "using": "multi"}),
        json!({"query": {"indices": [3], "values": [1.0]}, "using": "sparse"}),
        json!({"query": {"recommend": {"positive": [1], "negative": [2]}}, "using": "dense"}),
        json!({"query": {"order_by": "rank"}}),
        json!({"query": {"sample": "random"}, "limit": 3}),
        json!({
            "prefetch": [
                {"query": [1, 2, 3], "using": "dense"},
                {"query": {"indices": [3], "values": [1.0]}, "using": "sparse"},
            ],
            "query": {"fusion": "rrf"},
        }),
    ];
    for query in &queries {
        run.ok("POST", &format!("{c}/points/query"), query.clone());
    }
    run.ok(
        "POST",
        &format!("{c}/points/query/batch"),
        json!({"searches": queries}),
    );
    let groups = json!({"query": [1, 2, 3], "using": "dense", "group_by": "city", "group_size": 2});
    run.ok("POST", &format!("{c}/points/query/groups"), groups);
    let matrix = json!({"sample": 5, "limit": 2, "using": "dense"});
    run.ok(
        "POST",
        &format!("{c}/points/search/matrix/pairs"),
        matrix.clone(),
    );
    run.ok("POST", &format!("{c}/points/search/matrix/offsets"), matrix);
    run.ok("GET", c, Value::Null);
    // What the server takes as the wish to be optimized now.
    run.ok("PATCH", c, json!({"optimizers_config": {}}));
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

/// Each of these is a request on a collection that is there; the same on one that is not is 404.
fn refusals(run: &mut Run) {
    let cases = [
        (
            "PUT",
            "/points",
            json!({"points": [{"id": 1, "vector": {"dense": [1, 2]}}]}),
            400,
        ),
        (
            "PUT",
            "/points",
            json!({"points": [{"id": 1, "vector": {"nope": [1, 2]}}]}),
            400,
        ),
        (
            "PUT",
            "/points",
            json!({"points": [{"id": "no-uuid", "vector": {}}]}),
            400,
        ),
        ("PUT", "/points", json!({"pionts": []}), 400),
        ("PUT", "/points", json!({"points": []}), 400),
        ("POST", "/points/scroll", json!({"limit": 0}), 422),
        ("POST", "/points", json!({"ids": "all"}), 400),
        ("GET", "/points/999", Value::Null, 404),
        ("GET", "/points/no-uuid", Value::Null, 400),
        ("POST", "/points/delete", json!({}), 400),
        (
            "PUT",
            "/points/vectors",
            json!({"points": [{"id": 1, "vector": {"dense": [1]}}]}),
            400,
        ),
        (
            "POST",
            "/points/vectors/delete",
            json!({"points": [1]}),
            400,
        ),
        ("POST", "/points/payload", json!({"points": [1]}), 400),
        (
            "PUT",
            "/points/payload",
            json!({"payload": 3, "points": [1]}),
            400,
        ),
        (
            "POST",
            "/points/payload/delete",
            json!({"points": [1]}),
            400,
        ),
        ("POST", "/points/payload/clear", json!({}), 400),
        (
            "POST",
            "/points/batch",
            json!({"operations": [{"frobnicate": {}}]}),
            400,
        ),
        ("POST", "/points/scroll", json!({"limit": -1}), 400),
        (
            "POST",
            "/points/count",
            json!({"filter": {"must": [{"key": "x"}]}}),
            422,
        ),
        ("POST", "/facet", json!({}), 400),
        (
            "POST",
            "/points/query",
            json!({"query": [1, 2], "using": "dense"}),
            400,
        ),
        (
            "POST",
            "/points/query",
            json!({"query": [1, 2, 3], "using": "nope"}),
            400,
        ),
        ("POST", "/points/query/batch", json!({"searches": 1}), 400),
        (
            "POST",
            "/points/query/groups",
            json!({"query": [1, 2, 3], "using": "dense"}),
            400,
        ),
        (
            "POST",
            "/points/search/matrix/pairs",
            json!({"sample": "all"}),
            400,
        ),
        (
            "POST",
            "/points/search/matrix/offsets",
            json!({"sample": "all"}),
            400,
        ),
        (
            "PUT",
            "/index",
            json!({"field_name": "x", "field_schema": "nope"}),
            400,
        ),
        (
            "PUT",
            "/vectors/extra",
            json!({"dense": {"size": "large"}}),
            400,
        ),
    ];
    for (method, path, body, status) in cases {
        run.put(
            method,
            &format!("/collections/c{path}"),
            body.clone(),
            status,
        );
        run.put(method, &format!("/collections/nope{path}"), body, 404);
    }
    for path in ["", "/snapshots", "/shards/0/snapshots"] {
        run.put("GET", &format!("/collections/nope{path}"), Value::Null, 404);
    }
    run.refused_plainly(
        "/collections/nope/shards/0/snapshot",
        "stream_shard_snapshot",
        "Not found: ",
    );
    run.put("DELETE", "/collections/nope/index/city", Value::Null, 404);
    run.put(
        "DELETE",
        "/collections/nope/vectors/extra",
        Value::Null,
        404,
    );
    run.put(
        "PUT",
        "/collections/d",
        json!({"vectors": {"size": 0, "distance": "Dot"}}),
        400,
    );
    run.put(
        "PUT",
        "/collections/d",
        json!({"vectors": {"size": 3, "distance": "Far"}}),
        400,
    );
    // What it does not know it ignores.
    run.ok("PUT", "/collections/d", json!({"vectros": {}}));
    run.ok("DELETE", "/collections/d", Value::Null);
    for body in [
        json!({"optimizers_config": {"indexing_threshold": 5}}),
        json!({"optimisers_config": {}}),
    ] {
        run.ok("PATCH", "/collections/c", body);
    }
    run.put("PATCH", "/collections/nope", json!({}), 404);
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
