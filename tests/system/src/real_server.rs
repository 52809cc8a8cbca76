//! What a real Qdrant 1.19.0 answered, put to the server double again: the double answers the same.
//!
//! Status and result have to agree; the words too where a client decides by them. The rest is listed
//! in `docs/differences.md`, and here request by request.

use std::io::{BufRead as _, BufReader};

use edge_sync_double::{Options, QdrantDouble};
use edge_sync_fixtures::all_kinds;
use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::{Value, json};

/// One exchange with a real server.
#[derive(Debug, Deserialize)]
struct Recorded {
    method: String,
    path: String,
    /// Text as it was sent, or the JSON that was.
    body: Value,
    #[serde(rename = "type")]
    content_type: Option<String>,
    status: u16,
    answer: Value,
}

/// Why an answer of the double may be another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Differs from run to run on a real server as well: only the status agrees.
    Varies,
    /// An endpoint that the double does not have.
    NotOffered,
    /// A server refuses or answers what is said here, by its own mistake or by what it was set to.
    ServersOwn,
}

/// The exchanges of `requests.jsonl.gz`, counted from 0, that are answered otherwise.
const DIFFERENCES: &[(usize, Why)] = &[
    (7, Why::Varies),       // the commit that a server was built of
    (14, Why::NotOffered),  // telemetry
    (15, Why::Varies),      // metrics
    (38, Why::NotOffered),  // a collection restored from a snapshot over REST
    (216, Why::ServersOwn), // refuses a multivector for a multivector
    (257, Why::ServersOwn), // searches for a number that is none in 32 bits
    (299, Why::Varies),     // a random sample
    (300, Why::Varies),     // a random sample
    (305, Why::Varies),     // all points, those as near as each other in any order
    (323, Why::ServersOwn), // stores such a number, which is read back as null
];

/// Beginnings of what a client decides by.
const DECISIVE: &[&str] = &[
    "Not found: No point with id",
    "Not found: Collection",
    "Not found: shard",
    "Wrong input: Collection `",
    "Wrong input: Shard key",
    "Bad request: Shard key",
    "Bad request: Empty update request",
    "Bad request: Can't auto-detect",
    "Not found: Snapshot directory",
];

fn recorded(name: &str) -> Vec<Recorded> {
    let path = edge_sync_fixtures::folder().join(format!("real-server/{name}"));
    let file = std::fs::File::open(&path).expect("the recording");
    BufReader::new(GzDecoder::new(file))
        .lines()
        .map(|line| serde_json::from_str(&line.expect("a line")).expect("an exchange"))
        .collect()
}

impl Recorded {
    /// What the double answers: status and body, which is a JSON string where it is not JSON.
    fn ask(&self, double: &QdrantDouble) -> (u16, Value) {
        let content_type = self
            .content_type
            .as_deref()
            .map(|content_type| ("content-type", content_type));
        let headers: Vec<_> = content_type.into_iter().collect();
        let text = match &self.body {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            body => Some(body.to_string()),
        };
        double
            .client()
            .call_raw(
                &self.method,
                &self.path,
                &headers,
                text.as_deref().map(str::as_bytes),
            )
            .expect("an answer")
    }

    /// How the double's answer differs from the server's, whose operations have numbers that are
    /// `ahead` of the double's.
    fn difference(&self, (status, answer): &(u16, Value), ahead: u64) -> Option<String> {
        if *status != self.status {
            return Some(format!("status {status} instead of {}", self.status));
        }
        if let Value::String(words) = &self.answer {
            return (*answer != self.answer).then(|| format!("{answer} instead of {words:?}"));
        }
        if let Some(words) = self.answer["status"]["error"].as_str() {
            let ours = answer["status"]["error"].as_str().unwrap_or_default();
            if ours.is_empty() {
                return Some(format!("a refusal without words: {answer}"));
            }
            let decisive = DECISIVE.iter().any(|begin| words.starts_with(begin));
            return (decisive && ours != words)
                .then(|| format!("the words {ours:?} instead of {words:?}"));
        }
        let mut ours = forgetful(answer["result"].clone());
        count_from(&mut ours, ahead);
        let theirs = forgetful(self.answer["result"].clone());
        all_kinds::same_result("", &theirs, &ours).err()
    }

    fn brief(&self) -> String {
        let answer: String = self.answer.to_string().chars().take(200).collect();
        let body: String = self.body.to_string().chars().take(300).collect();
        format!(
            "{} {} {body}\n    the server: {} {answer}",
            self.method, self.path, self.status
        )
    }
}

/// Adds to the numbers of operations in a result.
fn count_from(result: &mut Value, ahead: u64) {
    match result {
        Value::Array(results) => results.iter_mut().for_each(|it| count_from(it, ahead)),
        Value::Object(update) => {
            if let Some(number) = update.get("operation_id").and_then(Value::as_u64) {
                update.insert("operation_id".to_owned(), json!(number + ahead));
            }
        }
        _ => {}
    }
}

/// A result without what no two servers have alike: ids of peers, how many segments the optimizers
/// have made and are set to make, and what they have indexed.
fn forgetful(mut result: Value) -> Value {
    if let Some(optimizers) = result
        .pointer_mut("/config/optimizer_config")
        .and_then(Value::as_object_mut)
    {
        optimizers.remove("default_segment_number");
    }
    if let Some(fields) = result.as_object_mut() {
        for name in ["peer_id", "segments_count", "indexed_vectors_count"] {
            fields.remove(name);
        }
        if let Some(summary) = fields.get_mut("summary").and_then(Value::as_object_mut) {
            summary.remove("idle_segments");
        }
    }
    result
}

#[test]
fn every_recorded_request_is_answered_as_the_server_did() {
    let double = QdrantDouble::start(Options::default()).expect("a server");
    let mut problems = Vec::new();
    // Writes that the server took and the double did not.
    let mut ahead = 0;
    for (number, exchange) in recorded("requests.jsonl.gz").iter().enumerate() {
        let answer = exchange.ask(&double);
        let excuse = DIFFERENCES.iter().find(|(listed, _)| *listed == number);
        let difference = exchange.difference(&answer, ahead);
        if excuse.is_some() && exchange.answer["result"]["operation_id"].is_u64() {
            ahead += 1;
        }
        match (excuse, difference) {
            (None, None) => {}
            (Some((_, Why::Varies)), _) => {
                assert_eq!(answer.0, exchange.status, "{}", exchange.brief());
            }
            (Some(_), Some(_)) => {}
            // A list that is longer than it has to be hides what comes.
            (Some((_, why)), None) => {
                problems.push(format!("{number} is listed as {why:?} and agrees"));
            }
            (None, Some(difference)) => {
                let ours: String = answer.1.to_string().chars().take(300).collect();
                problems.push(format!(
                    "{number}: {difference}\n    {}\n    the double: {} {ours}",
                    exchange.brief(),
                    answer.0
                ));
            }
        }
    }
    assert!(
        problems.is_empty(),
        "{} differences\n{}",
        problems.len(),
        problems.join("\n")
    );
}

#[test]
fn shard_keys_and_several_shards_are_answered_as_the_server_did() {
    let options = Options {
        cluster: true,
        ..Options::default()
    };
    let double = QdrantDouble::start(options).expect("a server");
    let mut problems = Vec::new();
    for (number, mut exchange) in recorded("sharding.jsonl.gz").into_iter().enumerate() {
        exchange.content_type = Some("application/json".to_owned());
        let mut answer = exchange.ask(&double);
        if exchange.path.ends_with("/shards") && exchange.method == "GET" {
            // In any order.
            for answer in [&mut answer.1, &mut exchange.answer] {
                if let Some(keys) = answer["result"]["shard_keys"].as_array_mut() {
                    keys.sort_by_key(|key| key["key"].to_string());
                }
            }
        }
        if exchange.path.ends_with("/index?wait=true") {
            // The number that one of the shards gave it; which one is the server's own business.
            for answer in [&mut answer.1, &mut exchange.answer] {
                answer["result"]["operation_id"] = Value::Null;
            }
        }
        if number == 36 {
            // How points are spread over shards is the server's own business.
            let total = |answer: &mut Value| {
                let shards = answer["result"]["local_shards"].as_array_mut();
                let counts = shards.into_iter().flatten().map(|shard| {
                    let count = shard["points_count"].take();
                    count.as_u64().expect("a count")
                });
                counts.sum::<u64>()
            };
            let (ours, theirs) = (total(&mut answer.1), total(&mut exchange.answer));
            assert_eq!(ours, theirs);
        }
        if let Some(difference) = exchange.difference(&answer, 0) {
            problems.push(format!("{number}: {difference}\n    {}", exchange.brief()));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Without its envelope: a client must not take that for somebody else's answer.
#[test]
fn a_shard_that_is_not_there_is_told_in_plain_text() {
    let double = QdrantDouble::start(Options::default()).expect("a server");
    let client = double.client();
    let config = json!({"vectors": {"size": 3, "distance": "Dot"}});
    client.result("PUT", "/collections/keyed", Some(&config));
    let recorded = recorded("sharding.jsonl.gz");
    let exchange = &recorded[27];
    assert_eq!(exchange.path, "/collections/keyed/shards/99/snapshot");
    let answer = exchange.ask(&double);
    assert_eq!(exchange.difference(&answer, 0), None);
}

/// The answer to the creation of a stored snapshot, and the headers with which it is sent.
#[test]
fn a_stored_snapshot_is_described_and_sent_as_by_the_server() {
    let path = edge_sync_fixtures::folder().join("real-server/stored.json");
    let text = std::fs::read(path).expect("the recording");
    let recorded: Value = serde_json::from_slice(&text).expect("JSON");
    let double = QdrantDouble::start(Options::default()).expect("a server");
    let client = double.client();
    let config = json!({"vectors": {"size": 3, "distance": "Dot"}});
    client.result("PUT", "/collections/pull", Some(&config));
    let path = "/collections/pull/shards/0/snapshots";
    let made = client.result("POST", &format!("{path}?wait=true"), None);
    let fields = |value: &Value| -> Vec<String> {
        let fields = value.as_object().expect("an object");
        fields.keys().cloned().collect()
    };
    assert_eq!(fields(&made), fields(&recorded["created"]["result"]));
    let name = made["name"].as_str().expect("a name");
    assert!(name.starts_with("pull-shard-0-") && name.ends_with(".snapshot"));
    let answer = client
        .send("GET", &format!("{path}/{name}"), &[], None)
        .expect("an answer");
    for (header, value) in recorded["download"]["headers"]
        .as_object()
        .expect("headers")
    {
        // What a cross-origin layer and a cache would say is not part of the exchange.
        if ["vary", "etag", "date"].contains(&header.as_str()) {
            continue;
        }
        let ours = answer.headers().get(header.as_str());
        let ours = ours.and_then(|value| value.to_str().ok());
        match header.as_str() {
            "content-length" => assert_eq!(ours, Some(made["size"].to_string().as_str())),
            "content-disposition" => {
                assert_eq!(
                    ours,
                    Some(format!("attachment; filename=\"{name}\"").as_str())
                );
            }
            "last-modified" => assert!(ours.is_some()),
            _ => assert_eq!(ours, value.as_str(), "{header}"),
        }
    }
}
