//! `edge-sync serve` over the component and the server double over the native engine, asked the
//! same: they answer alike, and both as Qdrant's API description says.
//!
//! The list of requests is `tests/fixtures/requests.txt`; [`random`] makes more. [`shards`] asks devices that
//! hold a part of a collection, or the whole of one that has several shards.

mod random;
mod shards;

use std::collections::BTreeSet;
use std::fmt;

use edge_sync_clients::rest::Client;
use edge_sync_double::{Options, QdrantDouble};
use edge_sync_fixtures::all_kinds;
use serde_json::{Value, json};

use crate::double_conformance::{NOT_OFFERED, NOTHING_THERE, OFFERED};
use crate::openapi::Description;
use crate::served::Served;

/// The collection that is asked about.
const COLLECTION: &str = "c";

/// What has to agree besides the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agreement {
    /// The whole result, up to what two engines may choose: see [`all_kinds::same_result`].
    Result,
    /// How much there is of it.
    Size,
}

/// One request, and what has to agree in the answers.
#[derive(Clone)]
struct Ask {
    method: String,
    /// With the query string.
    path: String,
    content_type: Option<String>,
    body: Option<Vec<u8>>,
    agreement: Agreement,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        if let Some(body) = &self.body {
            write!(f, " {}", String::from_utf8_lossy(body))?;
        }
        Ok(())
    }
}

impl Ask {
    fn json(method: &str, path: &str, body: &Value) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            content_type: Some("application/json".to_owned()),
            body: Some(body.to_string().into_bytes()),
            agreement: Agreement::Result,
        }
    }

    /// Reads a line of `requests.txt`, whose form is described there.
    fn parse(line: &str) -> Self {
        let mut rest = line;
        let mut agreement = Agreement::Result;
        let mut content_type = Some("application/json".to_owned());
        if let Some(after) = rest.strip_prefix("size: ") {
            (agreement, rest) = (Agreement::Size, after);
        }
        if let Some(after) = rest.strip_prefix("type=") {
            let (given, after) = after.split_once(": ").expect("a type");
            content_type = (given != "none").then(|| given.to_owned());
            rest = after;
        }
        let (method, rest) = rest.split_once(' ').expect("a method and a path");
        let (path, body) = match rest.split_once(' ') {
            Some((path, body)) => (path, Some(body.as_bytes().to_vec())),
            None => (rest, None),
        };
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/collections/{path}")
        };
        Self {
            method: method.to_owned(),
            path,
            content_type: content_type.filter(|_| body.is_some()),
            body,
            agreement,
        }
    }

    /// True if it changes nothing, so that it can be asked again.
    fn only_reads(&self) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        let reads = [
            "/query", "/batch", "/groups", "/pairs", "/offsets", "/scroll", "/count",
        ];
        self.method == "GET"
            || self.method == "POST" && (path.ends_with("/points") || path.ends_with("/facet"))
            || self.method == "POST"
                && reads.iter().any(|end| path.ends_with(end))
                && !path.ends_with("/points/batch")
    }
}

/// Both servers, with the same in them.
struct Pair {
    served: Served,
    component: Client,
    native: Client,
    // Stopped when dropped.
    _double: QdrantDouble,
    description: Description,
    _folder: tempfile::TempDir,
}

impl Pair {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // What is on disk when is not asked here.
        let served = Served::start(&folder.path().join("data"), &["--durability", "os"]);
        // A shard on a device takes a write as a whole or not at all.
        let double = QdrantDouble::start(Options {
            whole_writes: true,
            ..Options::default()
        })
        .expect("a server");
        Self {
            component: served.client(),
            native: double.client(),
            served,
            _double: double,
            description: Description::load(),
            _folder: folder,
        }
    }

    /// Puts a request to both. The status that they agree on, or how they differ.
    fn ask(&self, ask: &Ask) -> Result<u16, String> {
        let content_type = ask
            .content_type
            .as_deref()
            .map(|content_type| ("content-type", content_type));
        let headers: Vec<_> = content_type.into_iter().collect();
        let put = |client: &Client| {
            client
                .call_raw(&ask.method, &ask.path, &headers, ask.body.as_deref())
                .map_err(|error| format!("{ask:?}: {error}"))
        };
        let (ours, ours_answer) = put(&self.component)?;
        let (theirs, theirs_answer) = put(&self.native)?;
        let differ = |what: &str| {
            Err(format!(
                "{ask:?}: {what}\n    component: {ours} {}\n    native:    {theirs} {}",
                brief(&ours_answer),
                brief(&theirs_answer)
            ))
        };
        if ours != theirs {
            return differ("status");
        }
        if ours_answer["status"] != theirs_answer["status"] {
            return differ("words");
        }
        let (ours_result, theirs_result) = (&ours_answer["result"], &theirs_answer["result"]);
        match ask.agreement {
            Agreement::Result => {
                let (ours, theirs) = (comparable(ours_result), comparable(theirs_result));
                if let Err(difference) = all_kinds::same_result("", &theirs, &ours) {
                    return differ(&difference);
                }
            }
            Agreement::Size if size(ours_result) != size(theirs_result) => return differ("size"),
            Agreement::Size => {}
        }
        let path = ask.path.split('?').next().unwrap_or_default();
        let is_described = self.description.template(&ask.method, path).is_some();
        if is_described && !is_plain(path) && !ours_answer.is_string() {
            for answer in [&ours_answer, &theirs_answer] {
                self.description.check(&ask.method, path, ours, answer)?;
            }
        } else if ours >= 400
            && !ours_answer["status"]["error"].is_string()
            // Where a snapshot is asked for, the words are the body.
            && !ours_answer.is_string()
        {
            return differ("a refusal without words");
        }
        Ok(ours)
    }

    /// Asks everything; panics with every difference.
    fn ask_all<'a>(&self, what: &str, asks: impl IntoIterator<Item = &'a Ask>) -> Tally {
        let mut tally = Tally::default();
        let mut differences = Vec::new();
        for ask in asks {
            match self.ask(ask) {
                Ok(status) if status < 400 => {
                    tally.answered += 1;
                    let path = ask.path.split('?').next().unwrap_or_default();
                    let operation = self.description.operation(&ask.method, path);
                    tally.operations.extend(operation);
                }
                Ok(_) => tally.refused += 1,
                Err(difference) => differences.push(difference),
            }
        }
        assert!(
            differences.is_empty(),
            "{what}: {} differences, {tally:?}\n{}",
            differences.len(),
            differences.join("\n")
        );
        tally
    }
}

#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    refused: usize,
    /// Operations of the API description that were answered.
    operations: BTreeSet<String>,
}

/// Endpoints that answer in plain text.
fn is_plain(path: &str) -> bool {
    ["/healthz", "/livez", "/readyz"].contains(&path)
}

/// The result without what may differ: numbers of operations, that of the server in a cluster, and the
/// order of groups of equal score.
fn comparable(result: &Value) -> Value {
    let mut result = result.clone();
    forget_operations(&mut result);
    if let Some(fields) = result.as_object_mut() {
        fields.remove("peer_id");
    }
    if let Some(Value::Array(groups)) = result.get_mut("groups") {
        groups.sort_by_key(|group| group["id"].to_string());
    }
    result
}

fn forget_operations(result: &mut Value) {
    match result {
        Value::Array(items) => items.iter_mut().for_each(forget_operations),
        Value::Object(fields) if fields.contains_key("status") => {
            fields.remove("operation_id");
        }
        _ => {}
    }
}

/// How many entries every list in the result has.
fn size(result: &Value) -> Vec<usize> {
    match result {
        Value::Array(items) => vec![items.len()],
        Value::Object(fields) => fields.values().flat_map(size).collect(),
        _ => Vec::new(),
    }
}

fn brief(answer: &Value) -> String {
    answer.to_string().chars().take(600).collect()
}

/// Every kind of vector.
fn config() -> Value {
    let three = |distance: &str| json!({"size": 3, "distance": distance});
    let mut scalar = three("Euclid");
    scalar["quantization_config"] = json!({"scalar": {"type": "int8", "always_ram": true}});
    let mut half = three("Dot");
    half["datatype"] = json!("float16");
    let mut bytes = three("Dot");
    bytes["datatype"] = json!("uint8");
    json!({
        "vectors": {
            "dense": {"size": 4, "distance": "Cosine"},
            "euclid": three("Euclid"),
            "manhattan": three("Manhattan"),
            "half": half,
            "bytes": bytes,
            "scalar": scalar,
            "multi": {
                "size": 2,
                "distance": "Dot",
                "multivector_config": {"comparator": "max_sim"},
            },
        },
        "sparse_vectors": {"sparse": {}, "idf": {"modifier": "idf"}},
        "hnsw_config": {"m": 8, "full_scan_threshold": 10},
        "optimizers_config": {"indexing_threshold": 10},
    })
}

/// Points without two of the same score for the list's queries, so that what the limit cuts off
/// is the same.
fn points() -> Value {
    let cities = ["Rome", "Oslo", "Bern", "Riga", "Rome"];
    let words = ["one", "two", "three", "four"];
    let points = (1..=40_u32).map(|n| {
        let x = f64::from(n);
        let id = if n == 40 {
            json!("550e8400-e29b-41d4-a716-446655440000")
        } else {
            json!(n)
        };
        let mut vector = json!({
            "dense": [x, 41.0 - x, x * x / 40.0, 1.0],
            "euclid": [x, x * x / 16.0, 3.0],
            "manhattan": [x, x * x / 16.0, 3.0],
            "half": [x, x / 4.0, 3.0],
            "bytes": [n, n / 4, 3],
            "scalar": [x, x * x / 16.0, 3.0],
            "sparse": {"indices": [n, 100], "values": [1.0, x / 8.0]},
            "idf": {"indices": [n % 7, 100 + n], "values": [1.0 + x / 64.0, 0.5]},
        });
        if n % 2 == 0 {
            vector["multi"] = json!([[x, 1.0], [1.0, x + 0.5]]);
        }
        let mut payload = json!({
            "city": cities[n as usize % 5],
            "rank": n,
            "price": x / 2.0 + 0.25,
            "open": n % 3 == 0,
            "when": format!("2024-01-{:02}T00:00:00Z", n % 28 + 1),
            "uid": format!("00000000-0000-0000-0000-{n:012}"),
            "at": {"lon": x / 4.0, "lat": x / 5.0},
            "text": format!("Number {} in words", words[n as usize % 4]),
            "unindexed": "some more words",
            "tags": (0..n % 4).collect::<Vec<_>>(),
            "parts": [{"kind": "a", "n": n}, {"kind": "b", "n": 2 * n}],
            "deep": {"er": format!("x{n}")},
        });
        match n % 4 {
            0 => payload["maybe"] = Value::Null,
            1 => payload["maybe"] = json!([]),
            2 => payload["maybe"] = json!(n),
            _ => {}
        }
        json!({"id": id, "vector": vector, "payload": payload})
    });
    json!({"points": points.collect::<Vec<_>>()})
}

fn listed() -> Vec<Ask> {
    let file = edge_sync_fixtures::folder().join("requests.txt");
    let text = std::fs::read_to_string(&file).expect("the list");
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("apart: "))
        .map(Ask::parse)
        .collect()
}

#[test]
fn the_listed_requests_are_answered_alike() {
    let pair = Pair::start();
    let path = format!("/collections/{COLLECTION}");
    let begin = [
        Ask::json(
            "PUT",
            &path,
            &json!({"vectors": {"size": 0, "distance": "Dot"}}),
        ),
        Ask::json(
            "PUT",
            &path,
            &json!({"vectors": {"size": 3, "distance": "Far"}}),
        ),
        Ask::json(
            "PUT",
            &path,
            &json!({"vectors": {"size": 70_000, "distance": "Dot"}}),
        ),
        Ask::json("PUT", &path, &json!({"vectors": {"size": 3}})),
        Ask::json("PUT", &path, &json!([])),
        Ask::json("PUT", &path, &config()),
        Ask::json("PUT", &format!("{path}/points?wait=true"), &points()),
    ];
    let begun = pair.ask_all("the beginning", &begin);
    let asks = listed();
    let tally = pair.ask_all("the list", &asks);
    eprintln!("{} and {} alike", tally.answered, tally.refused);
    // A list that is mostly refused tests little.
    assert!(tally.answered > 150 && tally.refused > 100, "{tally:?}");
    let asked_of_the_double = (OFFERED.iter().chain(&NOT_OFFERED).chain(&NOTHING_THERE)).copied();
    let nowhere: Vec<_> = (pair.description.operations().into_iter())
        .map(|(_, _, id)| id)
        .filter(|id| !begun.operations.contains(id) && !tally.operations.contains(id))
        .filter(|id| !asked_of_the_double.clone().any(|asked| asked == id))
        .collect();
    assert!(
        nowhere.is_empty(),
        "never answered with success: {nowhere:?}"
    );
    let excused: Vec<_> = asked_of_the_double
        .filter(|id| tally.operations.contains(*id))
        .collect();
    assert!(excused.is_empty(), "answered by both: {excused:?}");

    // The same data, in an index. Approximate searches may differ there.
    let optimize = Ask::json("PATCH", &path, &json!({}));
    assert_eq!(pair.ask(&optimize), Ok(200));
    let mut reads: Vec<Ask> = asks.into_iter().filter(Ask::only_reads).collect();
    reads.iter_mut().for_each(make_exact);
    let tally = pair.ask_all("after optimizing", &reads);
    eprintln!(
        "{} and {} alike after optimizing",
        tally.answered, tally.refused
    );

    let delete = Ask::json("DELETE", &path, &json!({}));
    assert_eq!(pair.ask(&delete), Ok(200));
    let gone = Ask::json("POST", &format!("{path}/points/scroll"), &json!({}));
    assert_eq!(pair.ask(&gone), Ok(404));
}

/// Asks for exact answers where the request lets the engine choose.
fn make_exact(ask: &mut Ask) {
    let Some(body) = &ask.body else { return };
    if !ask.path.contains("/points/query") {
        return;
    }
    let Ok(mut body) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    exact(&mut body);
    ask.body = Some(body.to_string().into_bytes());
}

fn exact(query: &mut Value) {
    match query {
        Value::Array(queries) => queries.iter_mut().for_each(exact),
        Value::Object(fields) => {
            for name in ["prefetch", "searches"] {
                if let Some(inner) = fields.get_mut(name) {
                    exact(inner);
                }
            }
            if !fields.contains_key("searches") && !fields.contains_key("params") {
                fields.insert("params".to_owned(), json!({"exact": true}));
            }
        }
        _ => {}
    }
}
