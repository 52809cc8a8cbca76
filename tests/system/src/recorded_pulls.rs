//! What a real server answered, pull after pull, ends in a device that answers as the server's full
//! snapshots of the same moments do.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use edge_sync_double::{Fault, QdrantDouble, Reply, Rule};
use edge_sync_host::{Cancel, EdgeSync, RestoreSource, SnapshotSource};
use serde_json::{Value, json};

use crate::support::{COLLECTION, all_points, component, device, server};

const PARTIAL: &str = "^/collections/devices/shards/0/snapshot/partial/create$";

/// In the order in which they were recorded.
const STEPS: [&str; 9] = [
    "00-all",
    "01-nothing",
    "02-append",
    "03-append-settled",
    "04-delete-in-indexed",
    "05-overwrite-in-indexed",
    "06-payload-in-indexed",
    "07-index-made",
    "08-index-remade",
];

fn recorded(step: &str, file: &str) -> Option<Vec<u8>> {
    let path = edge_sync_fixtures::folder()
        .join("real-server/partial")
        .join(step)
        .join(file);
    let packed = std::fs::File::open(path).ok()?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_end(&mut bytes)
        .expect("a gzip file");
    Some(bytes)
}

/// A server with a collection like the one that was recorded.
fn serving() -> QdrantDouble {
    let server = server();
    let dense = |size: u32, distance: &str| json!({"size": size, "distance": distance});
    let mut multi = dense(4, "Dot");
    multi["multivector_config"] = json!({"comparator": "max_sim"});
    let config = json!({
        "vectors": {"v": dense(32, "Cosine"), "q": dense(32, "Dot"), "m": multi},
        "sparse_vectors": {"s": {}},
    });
    server
        .client()
        .result("PUT", &format!("/collections/{COLLECTION}"), Some(&config));
    server
}

/// From now on, the next question for what changed gets what the real server answered.
fn answers(server: &QdrantDouble, step: &str) {
    let reply = match recorded(step, "answer.tar.gz") {
        Some(body) => Reply {
            status: 200,
            headers: Vec::new(),
            body,
        }
        .header("content-type", "application/octet-stream"),
        None => Reply {
            status: 304,
            headers: Vec::new(),
            body: Vec::new(),
        },
    };
    let rule = Rule::on("POST", PARTIAL).fault(Fault::Reply(reply));
    server.faults().add(rule.times(1));
}

fn last_question(server: &QdrantDouble) -> Value {
    let exchanges = server.exchanges();
    let mut questions = exchanges
        .iter()
        .filter(|exchange| exchange.path.ends_with("/snapshot/partial/create"));
    let last = questions.next_back().expect("a question");
    last.body.clone().expect("a manifest")
}

fn payloads<'a>(points: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, Value> {
    let payload = |point: &'a Value| (point["id"].to_string(), point["payload"].clone());
    points.into_iter().map(payload).collect()
}

/// What both must answer alike.
fn answer(edge: &EdgeSync) -> Vec<Value> {
    let query: Vec<f64> = (0..32).map(|at| f64::from(at) - 16.0).collect();
    let sparse = json!({"indices": [1, 2, 3], "values": [1.0, 2.0, 3.0]});
    let multi = json!([[1.0, 0.5, -1.0, 0.25], [0.0, 1.0, 0.0, 1.0]]);
    let exact = json!({"exact": true});
    let requests = [
        (
            "/points/query",
            json!({"query": query, "using": "v", "limit": 20, "params": exact}),
        ),
        (
            "/points/query",
            json!({"query": query, "using": "q", "limit": 20, "params": exact}),
        ),
        (
            "/points/query",
            json!({"query": multi, "using": "m", "limit": 20, "params": exact}),
        ),
        (
            "/points/query",
            json!({"query": sparse, "using": "s", "limit": 20}),
        ),
        ("/points/count", exact.clone()),
        (
            "/facet",
            json!({"key": "city", "limit": 100, "exact": true}),
        ),
    ];
    let ask = |(path, body): &(&str, Value)| {
        let result = edge.shard().request("POST", path, &body.to_string());
        serde_json::from_str(&result.expect("an answer")).expect("JSON")
    };
    requests.iter().map(ask).collect()
}

/// The device that a full snapshot of the same moment makes.
fn from_full(step: &str, folder: &Path) -> EdgeSync {
    let file: PathBuf = folder.join(format!("{step}.snapshot"));
    std::fs::write(&file, recorded(step, "full.tar.gz").expect("a snapshot")).expect("a file");
    let edge = EdgeSync::builder(component(), folder.join(step))
        .attach()
        .expect("a directory");
    edge.restore(&RestoreSource::File(file), &Cancel::new(), |_| {})
        .expect("a restore");
    edge
}

#[test]
fn each_recorded_answer_makes_what_the_full_snapshot_of_its_moment_makes() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = serving();
    let edge = device(&folder.path().join("follower"), &server)
        .attach()
        .expect("a directory");
    for step in STEPS {
        answers(&server, step);
        if step == "00-all" {
            let source = RestoreSource::Server(SnapshotSource::Stream);
            edge.restore(&source, &Cancel::new(), |_| {})
                .expect("a restore");
        } else {
            let report = edge.pull().expect("a pull");
            let new = recorded(step, "answer.tar.gz").is_some();
            assert_eq!(report.changed(), new, "{step}: {report:?}");
        }
        assert_eq!(
            server.faults().pending(),
            0,
            "{step}: the answer was asked for"
        );
        let request = recorded(step, "request.json.gz").expect("a request");
        let request: Value = serde_json::from_slice(&request).expect("JSON");
        assert_eq!(last_question(&server), request, "{step}");

        let lines = recorded(step, "points.jsonl.gz").expect("the points");
        let lines = String::from_utf8(lines).expect("text");
        let points: Vec<Value> = lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(payloads(&all_points(&edge)), payloads(&points), "{step}");
        let full = from_full(step, folder.path());
        assert_eq!(all_points(&edge), all_points(&full), "{step}");
        assert_eq!(answer(&edge), answer(&full), "{step}");
    }
}
