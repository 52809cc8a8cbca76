//! The fixture `qdrant-1.19-all-kinds`: what a real Qdrant 1.19.0 server held and answered.
//!
//! `tests/fixtures/README.md` says what is in it and in what sense an answer has to agree:
//! ids and order exactly, scores to 1e-4 relative, equal scores in any order; `hnsw/*` by recall.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use flate2::read::GzDecoder;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Relative difference up to which two numbers count as equal.
pub const TOLERANCE: f64 = 1e-4;

/// Numbers smaller than this may differ as much as this one: what is left of a sum in 32 bits whose
/// terms cancel each other out is noise.
const SMALL: f64 = 1e-2;

/// How much smaller than the server's the recall of an approximate answer may be.
pub const RECALL_SLACK: f64 = 0.1;

/// One request that was put to the server, and its answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Query {
    /// Kind and subject, `exact/cos`.
    pub name: String,
    /// HTTP method.
    pub method: String,
    /// Path below `/collections/{collection}`.
    pub path: String,
    /// Request body.
    pub body: Value,
    /// The server's `result`.
    pub result: Value,
}

/// The folder of the fixture.
pub fn folder() -> PathBuf {
    crate::package_folder().join("fixtures/qdrant-1.19-all-kinds")
}

/// The points of the collection, as REST points, in the order of the file.
pub fn points() -> Vec<Value> {
    lines("points.jsonl.gz")
}

/// The recorded requests, in the order of the file.
pub fn queries() -> Vec<Query> {
    lines("queries.jsonl.gz")
}

/// `collection.json`: `create` (the body that created the collection), `indexes` (field to
/// schema), `collection` (its info), `snapshot_sha256`, ...
pub fn collection() -> Value {
    let path = folder().join("collection.json");
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("parse {}: {e}", path.display()))
}

/// Unpacks the shard snapshot into `directory` and returns the path of the tar file, whose
/// SHA-256 has been checked.
pub fn snapshot_file(directory: &Path) -> PathBuf {
    let mut bytes = Vec::new();
    open("shard.snapshot.gz")
        .read_to_end(&mut bytes)
        .unwrap_or_else(|e| panic!("unpack the fixture snapshot: {e}"));
    let expected = collection()["snapshot_sha256"].clone();
    assert_eq!(
        hex::encode(Sha256::digest(&bytes)),
        expected,
        "the fixture snapshot is damaged"
    );
    let path = directory.join("all-kinds.snapshot");
    std::fs::write(&path, bytes).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
    path
}

fn open(name: &str) -> GzDecoder<File> {
    let path = folder().join(name);
    GzDecoder::new(File::open(&path).unwrap_or_else(|e| panic!("open {}: {e}", path.display())))
}

fn lines<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    let parse = |line: std::io::Result<String>| {
        let line = line.unwrap_or_else(|e| panic!("read {name}: {e}"));
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("parse {name}: {e}"))
    };
    BufReader::new(open(name)).lines().map(parse).collect()
}

/// Panics, with the place of the first difference, unless `got` is what the server answered in the
/// sense of the fixture's README. `name` is the query's name.
pub fn assert_same_result(name: &str, expected: &Value, got: &Value) {
    if let Err(difference) = same_result(name, expected, got) {
        panic!("{name}: {difference}");
    }
}

/// As [`assert_same_result`], with the difference as an error.
///
/// `hnsw/*` has to find as many of the true neighbours (the server's `exact/*` of the same vector)
/// as the server's approximate answer did, less [`RECALL_SLACK`].
///
/// # Errors
/// The first difference, with the path to it.
pub fn same_result(name: &str, expected: &Value, got: &Value) -> Result<(), String> {
    match name.strip_prefix("hnsw/") {
        Some(vector) => same_recall(vector, expected, got),
        None => same(expected, got, "result"),
    }
}

fn same_recall(vector: &str, expected: &Value, got: &Value) -> Result<(), String> {
    static EXACT: OnceLock<HashMap<String, Value>> = OnceLock::new();
    let exact = EXACT.get_or_init(|| {
        queries()
            .into_iter()
            .map(|query| (query.name, query.result))
            .collect()
    });
    let truth = exact
        .get(&format!("exact/{vector}"))
        .ok_or_else(|| format!("the fixture has no exact/{vector}"))?;
    let (server, ours) = (recall(truth, expected), recall(truth, got));
    if ours + RECALL_SLACK < server {
        return Err(format!("recall {ours:.2}, the server's was {server:.2}"));
    }
    Ok(())
}

/// The share of `truth`'s points that `got` holds; both are results of `points/query`.
pub fn recall(truth: &Value, got: &Value) -> f64 {
    let truth = ids(truth);
    let got = ids(got);
    let found = truth.iter().filter(|id| got.contains(id)).count();
    #[allow(clippy::cast_precision_loss, reason = "a handful of points")]
    let share = found as f64 / truth.len().max(1) as f64;
    share
}

fn ids(result: &Value) -> Vec<&Value> {
    let points = result.get("points").and_then(Value::as_array);
    points
        .into_iter()
        .flatten()
        .filter_map(|point| point.get("id"))
        .collect()
}

/// Compares two results in depth: numbers within [`TOLERANCE`]; lists of scored or ordered points,
/// and facet hits, in any order among equals; everything else as it is. The version of a point is
/// not compared, it counts operations of the engine and not of the API. A missing field and null
/// are the same.
fn same(expected: &Value, got: &Value, at: &str) -> Result<(), String> {
    match (expected, got) {
        (Value::Number(a), Value::Number(b)) => {
            let close =
                a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if close(a, b));
            close
                .then_some(())
                .ok_or_else(|| format!("{at}: expected {a}, got {b}"))
        }
        (Value::Array(a), Value::Array(b)) if a.iter().chain(b).all(|v| rank(v).is_some()) => {
            same_ranking(a, b, at)
        }
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                return Err(format!(
                    "{at}: expected {} entries, got {}",
                    a.len(),
                    b.len()
                ));
            }
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.try_for_each(|(n, (a, b))| same(a, b, &format!("{at}[{n}]")))
        }
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            names
                .into_iter()
                .filter(|name| *name != "version")
                .try_for_each(|name| {
                    let field = |side: &serde_json::Map<String, Value>| {
                        side.get(name).cloned().unwrap_or_default()
                    };
                    same(&field(a), &field(b), &format!("{at}.{name}"))
                })
        }
        (a, b) if a == b => Ok(()),
        (a, b) => Err(format!("{at}: expected {}, got {}", brief(a), brief(b))),
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(SMALL)
}

/// What a list of such entries is ordered by: `order_value` or score of a point, count of a facet
/// hit.
fn rank(entry: &Value) -> Option<f64> {
    let entry = entry.as_object()?;
    if entry.contains_key("id") {
        let by = entry.get("order_value").or_else(|| entry.get("score"))?;
        by.as_f64()
    } else if entry.contains_key("value") {
        entry.get("count")?.as_f64()
    } else {
        None
    }
}

/// Lists ordered by rank agree when the ranks agree place by place and every entry of the one has
/// its like in the other. Points that tie with the last may be others: the limit cut through them.
fn same_ranking(expected: &[Value], got: &[Value], at: &str) -> Result<(), String> {
    if expected.len() != got.len() {
        return Err(format!(
            "{at}: expected {} entries, got {}",
            expected.len(),
            got.len()
        ));
    }
    for (n, (a, b)) in expected.iter().zip(got).enumerate() {
        let (Some(a), Some(b)) = (rank(a), rank(b)) else {
            continue;
        };
        if !close(a, b) {
            return Err(format!("{at}[{n}]: expected rank {a}, got {b}"));
        }
    }
    let key = |entry: &Value| entry.get("id").or_else(|| entry.get("value")).cloned();
    let last = expected.last().and_then(rank);
    for (n, entry) in expected.iter().enumerate() {
        let Some(found) = got.iter().find(|other| key(other) == key(entry)) else {
            let cut_by_limit = entry.get("id").is_some()
                && matches!((rank(entry), last), (Some(a), Some(b)) if close(a, b));
            if cut_by_limit {
                continue;
            }
            return Err(format!(
                "{at}[{n}]: {} is missing",
                brief(&key(entry).unwrap_or_default())
            ));
        };
        same(entry, found, &format!("{at}[{n}]"))?;
    }
    Ok(())
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scored(points: &[(u64, f64)]) -> Value {
        let points: Vec<_> = points
            .iter()
            .map(|(id, s)| json!({"id": id, "score": s}))
            .collect();
        json!({"points": points})
    }

    #[test]
    fn every_recorded_answer_agrees_with_itself() {
        let queries = queries();
        assert_eq!(queries.len(), 139);
        for query in queries {
            assert_same_result(&query.name, &query.result, &query.result);
        }
    }

    #[test]
    fn equal_scores_may_swap_and_others_may_not() {
        let expected = scored(&[(1, 0.9), (2, 0.5), (3, 0.5), (4, 0.1)]);
        let swapped = scored(&[(1, 0.9), (3, 0.5), (2, 0.500_001), (4, 0.1)]);
        assert_eq!(same_result("x", &expected, &swapped), Ok(()));
        let wrong_order = scored(&[(2, 0.9), (1, 0.5), (3, 0.5), (4, 0.1)]);
        assert!(same_result("x", &expected, &wrong_order).is_err());
        let wrong_score = scored(&[(1, 0.9), (2, 0.5), (3, 0.5), (4, 0.11)]);
        assert!(same_result("x", &expected, &wrong_score).is_err());
        let wrong_id = scored(&[(1, 0.9), (2, 0.5), (7, 0.5), (4, 0.1)]);
        assert!(same_result("x", &expected, &wrong_id).is_err());
        let short = scored(&[(1, 0.9), (2, 0.5), (3, 0.5)]);
        assert!(same_result("x", &expected, &short).is_err());
    }

    #[test]
    fn the_limit_may_cut_through_a_tie() {
        let expected = scored(&[(1, 0.9), (2, 0.5), (3, 0.5)]);
        assert_eq!(
            same_result("x", &expected, &scored(&[(1, 0.9), (2, 0.5), (8, 0.5)])),
            Ok(())
        );
        let facet =
            |last: &str| json!({"hits": [{"value": "a", "count": 2}, {"value": last, "count": 1}]});
        assert!(same_result("facet/x", &facet("b"), &facet("c")).is_err());
    }

    #[test]
    fn approximate_answers_are_judged_by_recall() {
        let query = queries()
            .into_iter()
            .find(|q| q.name == "hnsw/cos")
            .expect("a query");
        let mut got = query.result.clone();
        let points = got["points"].as_array_mut().expect("points");
        points.pop();
        assert_eq!(same_result(&query.name, &query.result, &got), Ok(()));
        let empty = json!({"points": []});
        assert!(same_result(&query.name, &query.result, &empty).is_err());
    }
}
