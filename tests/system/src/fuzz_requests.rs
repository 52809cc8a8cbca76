//! No request makes the component trap: a trap is a failure here, though the host recovers from it.
//!
//! The examples of the API, spoilt at random, go through `shard.request` of a real instance, and
//! random values through the typed functions. A share of it runs in CI;
//! `EDGE_SYNC_FUZZ_CASES=200000` asks for more, and `EDGE_SYNC_SEED` for the round that a failure
//! names.

use std::io::{IsTerminal as _, Write as _};

use edge_sync_host::{
    Durability, EdgeSync, Error, NamedVector, Point, PointId, PointTarget, QueueLimits,
    QueueProgress as Done, ScrollRequest, SearchRequest, Selection, ShardOptions, SparseVector,
    Target, Vector,
};
use fastrand::Rng;
use serde_json::{Value, json};

use crate::api::examples;
use crate::api::mutate::{Mutant, Mutator};
use crate::support::{component, setting};

/// Requests to one shard, before the next begins anew: what they write makes it odd.
const ROUND: u64 = 1500;
const CASES_IN_CI: u64 = 1500;

fn shard(folder: &tempfile::TempDir) -> EdgeSync {
    let edge = EdgeSync::builder(component(), folder.path())
        .options(ShardOptions::default().durability(Durability::Os))
        .create(&examples::collection().to_string())
        .expect("a shard");
    for example in examples::writes() {
        if !example.name.starts_with("index p.stemmer") {
            edge.shard()
                .request(example.method, &example.path, &example.body.to_string())
                .unwrap_or_else(|error| panic!("{}: {error}", example.name));
        }
    }
    for example in examples::newer_writes() {
        edge.shard()
            .request(example.method, &example.path, &example.body.to_string())
            .unwrap_or_else(|error| panic!("{}: {error}", example.name));
    }
    edge.shard().optimize().expect("optimizes");
    edge
}

/// What no input may lead to.
fn is_finding(error: &Error) -> bool {
    matches!(
        error,
        Error::Trapped { .. }
            | Error::TimedOut { .. }
            | Error::MemoryLimit { .. }
            | Error::NeedsReopen(_)
            | Error::Corrupt(_)
            | Error::Storage(_)
            | Error::Internal(_)
    )
}

fn abridged(text: &str) -> String {
    match text.char_indices().nth(3000) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

#[test]
fn fuzz_requests() {
    let cases = setting("EDGE_SYNC_FUZZ_CASES").unwrap_or(CASES_IN_CI);
    let first = setting("EDGE_SYNC_SEED").unwrap_or(1);
    let mutator = Mutator::new();
    let mut findings = Vec::new();
    let rounds = cases.div_ceil(ROUND);
    let (mut understood, mut refused) = (0_u64, 0_u64);
    for seed in first..first + rounds {
        if std::io::stderr().is_terminal() {
            let _ = write!(
                std::io::stderr(),
                "\rround {} of {rounds} ",
                seed - first + 1
            );
        }
        let folder = tempfile::tempdir().expect("a folder");
        let edge = shard(&folder);
        let mut rng = Rng::with_seed(seed);
        for case in 0..ROUND {
            let (shown, outcome) = if rng.u8(0..8) == 0 {
                typed(&edge, &mutator, &mut rng)
            } else {
                let Mutant { method, path, body } = mutator.mutant(&mut rng);
                let outcome = edge.shard().request(method, &path, &body).map(drop);
                (format!("{method} {path} {}", abridged(&body)), outcome)
            };
            match outcome {
                Ok(()) => understood += 1,
                Err(error) if is_finding(&error) => {
                    findings.push(format!("seed {seed}, case {case}: {error}\n  {shown}"));
                }
                Err(_) => refused += 1,
            }
        }
        // What was written can be read, flushed and opened again.
        let after = [
            edge.shard().count(None).map(drop),
            edge.shard().optimize().map(drop),
            edge.shard().flush(),
        ];
        for error in after.into_iter().filter_map(Result::err) {
            findings.push(format!("seed {seed}, at the end: {error}"));
        }
        let points = edge.shard().count(None);
        drop(edge);
        match EdgeSync::builder(component(), folder.path()).open() {
            Ok(again) => {
                if again.shard().count(None).ok() != points.ok() {
                    findings.push(format!("seed {seed}: other points after opening again"));
                }
            }
            Err(error) => findings.push(format!("seed {seed}, opening again: {error}")),
        }
        if findings.len() > 20 {
            break;
        }
    }
    println!("{understood} requests understood, {refused} refused");
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
    // Otherwise the mutants have become too strange to reach anything.
    assert!(understood * 10 > refused, "{understood} of {refused}");
}

fn float(rng: &mut Rng) -> f32 {
    match rng.u8(0..12) {
        0 => f32::NAN,
        1 => f32::INFINITY,
        2 => f32::NEG_INFINITY,
        3 => f32::MAX,
        4 => f32::MIN_POSITIVE / 2.0,
        5 => -0.0,
        _ => rng.f32() - 0.5,
    }
}

fn floats(rng: &mut Rng) -> Vec<f32> {
    let length = match rng.u8(0..8) {
        0 => rng.usize(0..9),
        1 => rng.usize(0..100_000),
        _ => 4,
    };
    if rng.u8(0..4) == 0 {
        (0..length).map(|_| float(rng)).collect()
    } else {
        (0..length).map(|_| rng.f32()).collect()
    }
}

fn vector(rng: &mut Rng) -> Vector {
    match rng.u8(0..4) {
        0 => Vector::Sparse(SparseVector {
            indices: (0..rng.usize(0..6))
                .map(|_| [0, 7, u32::MAX, rng.u32(..)][rng.usize(..4)])
                .collect(),
            values: (0..rng.usize(0..6)).map(|_| float(rng)).collect(),
        }),
        1 => Vector::Multi(
            (0..rng.usize(0..5))
                .map(|_| {
                    let mut row = floats(rng);
                    row.truncate(if rng.bool() { 2 } else { 5 });
                    row
                })
                .collect(),
        ),
        _ => Vector::Dense(floats(rng)),
    }
}

fn named(rng: &mut Rng) -> NamedVector {
    let name = ["", "cos", "rows", "words", "plain", "nope"][rng.usize(..6)];
    NamedVector {
        name: name.to_owned(),
        vector: vector(rng),
    }
}

fn id(rng: &mut Rng) -> PointId {
    match rng.u8(0..5) {
        0 => PointId::Num(rng.u64(..)),
        1 => PointId::Uuid("00000000-0000-4000-8000-00000000000a".to_owned()),
        2 => PointId::Uuid(["", "x", "é", "{}", "urn:uuid:"][rng.usize(..5)].to_owned()),
        _ => PointId::Num(rng.u64(0..310)),
    }
}

fn json_text(mutator: &Mutator, rng: &mut Rng) -> String {
    match rng.u8(0..12) {
        0 => String::new(),
        1 => "{".repeat(rng.usize(0..300)),
        2 => "[".repeat(100_000),
        _ => mutator.part(rng).to_string(),
    }
}

fn optional(mutator: &Mutator, rng: &mut Rng) -> Option<String> {
    rng.bool().then(|| json_text(mutator, rng))
}

fn selection(mutator: &Mutator, rng: &mut Rng) -> Selection {
    let one = |rng: &mut Rng| match rng.u8(0..4) {
        0 => Some("true".to_owned()),
        1 => optional(mutator, rng),
        _ => None,
    };
    Selection {
        payload: one(rng),
        vectors: one(rng),
    }
}

fn limit(rng: &mut Rng) -> u32 {
    [0, 1, 10, 300, 1 << 20, u32::MAX][rng.usize(..6)]
}

/// A call of a typed function.
fn typed(edge: &EdgeSync, mutator: &Mutator, rng: &mut Rng) -> (String, Result<(), Error>) {
    let shard = edge.shard();
    match rng.u8(0..16) {
        0..=2 => {
            let points: Vec<_> = (0..rng.usize(0..4))
                .map(|_| Point {
                    id: id(rng),
                    vectors: (0..rng.usize(0..4)).map(|_| named(rng)).collect(),
                    payload: optional(mutator, rng),
                })
                .collect();
            let shown = abridged(&format!("{points:?}"));
            (format!("upsert {shown}"), shard.upsert(points).map(drop))
        }
        3..=5 => {
            let request = SearchRequest {
                target: if rng.u8(0..4) == 0 {
                    Target::Point(PointTarget {
                        id: id(rng),
                        name: ["", "cos", "nope"][rng.usize(..3)].to_owned(),
                    })
                } else {
                    Target::Vector(named(rng))
                },
                filter: optional(mutator, rng),
                params: optional(mutator, rng),
                limit: limit(rng),
                offset: limit(rng),
                score_threshold: rng.bool().then(|| float(rng)),
                selection: selection(mutator, rng),
            };
            let shown = abridged(&format!("{request:?}"));
            (format!("search {shown}"), shard.search(request).map(drop))
        }
        6 => {
            let request = ScrollRequest {
                offset: rng.bool().then(|| id(rng)),
                limit: limit(rng),
                filter: optional(mutator, rng),
                selection: selection(mutator, rng),
            };
            let shown = abridged(&format!("{request:?}"));
            (format!("scroll {shown}"), shard.scroll(request).map(drop))
        }
        7 => {
            let ids: Vec<_> = (0..rng.usize(0..200)).map(|_| id(rng)).collect();
            let selection = selection(mutator, rng);
            let shown = abridged(&format!("{ids:?} {selection:?}"));
            (
                format!("retrieve {shown}"),
                shard.retrieve(ids, selection).map(drop),
            )
        }
        8 => {
            let filter = json_text(mutator, rng);
            (
                format!("count {}", abridged(&filter)),
                shard.count(Some(&filter)).map(drop),
            )
        }
        9 => {
            let filter =
                json!({ "must": [mutator.part(rng), { "key": "n", "range": { "gt": 250 } }] });
            let filter = filter.to_string();
            (
                format!("delete-by-filter {}", abridged(&filter)),
                shard.delete_by_filter(&filter).map(drop),
            )
        }
        10 => {
            let ids: Vec<_> = (0..rng.usize(0..3)).map(|_| id(rng)).collect();
            (format!("delete {ids:?}"), shard.delete(ids).map(drop))
        }
        11 => {
            let body = json_text(mutator, rng);
            (
                format!("batch {}", abridged(&body)),
                shard.batch(&body).map(drop),
            )
        }
        12 => {
            let field = ["", "a[", "a[].b", "é", "new", "n"][rng.usize(..6)];
            let schema = json_text(mutator, rng);
            (
                format!("create-payload-index {field:?} {}", abridged(&schema)),
                shard.create_payload_index(field, &schema).map(drop),
            )
        }
        13 => {
            let field = ["", "a[", "a[].b", "é", "new", "%"][rng.usize(..6)];
            (
                format!("delete-payload-index {field:?}"),
                shard.delete_payload_index(field).map(drop),
            )
        }
        14 => {
            let limits = QueueLimits {
                operations: limit(rng),
                bytes: limit(rng),
                points: limit(rng),
                present_only: rng.bool(),
            };
            let until = rng.bool().then(|| rng.u64(..));
            let done = rng.bool().then(|| Done {
                sequence: rng.u64(..4),
                points: limit(rng),
            });
            (
                format!("next-batch {limits:?} {until:?} {done:?}"),
                shard.next_batch(limits, until, done).map(drop),
            )
        }
        _ => {
            let sequence = [0, 1, rng.u64(0..1000), u64::MAX][rng.usize(..4)];
            let message = json_text(mutator, rng);
            let outcome = match rng.u8(0..9) {
                0 => shard.acknowledge(sequence.min(500)),
                1 => shard.reject(sequence, rng.u16(..), &message),
                2 => shard.retry_rejected(sequence),
                3 => shard.skip(rng.u32(0..3)).map(drop),
                4 => shard.waiting(sequence, limit(rng)).map(drop),
                5 => shard.rejected(sequence, limit(rng)).map(drop),
                6 => shard.retry_all_rejected().map(drop),
                7 => shard.drop_rejected_up_to(sequence.min(500)).map(drop),
                _ => shard.drop_rejected(sequence),
            };
            (format!("queue {sequence}"), outcome)
        }
    }
}

/// A configuration spoilt at one place is refused or works.
#[test]
fn fuzz_configurations() {
    let cases = setting("EDGE_SYNC_FUZZ_CASES").unwrap_or(CASES_IN_CI) / 40;
    let first = setting("EDGE_SYNC_SEED").unwrap_or(1);
    let mutator = Mutator::new();
    let mut configs: Vec<Value> = examples::collections()
        .into_iter()
        .chain(examples::newer_collections())
        .map(|(_, config)| config)
        .collect();
    configs.truncate(12);
    let mut findings = Vec::new();
    for seed in first..first + cases {
        let mut rng = Rng::with_seed(seed);
        let mut config = configs[rng.usize(..configs.len())].clone();
        mutator.spoil_somewhere(&mut config, &mut rng);
        let folder = tempfile::tempdir().expect("a folder");
        let created = EdgeSync::builder(component(), folder.path()).create(&config.to_string());
        let outcome = created.and_then(|edge| {
            let point = json!({ "points": [{ "id": 1, "vector": {}, "payload": { "a": 1 } }] });
            edge.shard().request("PUT", "/points", &point.to_string())?;
            edge.shard().optimize()?;
            edge.shard().count(None).map(drop)
        });
        match outcome {
            Err(error) if is_finding(&error) => findings.push(format!(
                "seed {seed}: {error}\n  {}",
                abridged(&config.to_string())
            )),
            _ => {}
        }
    }
    assert!(
        findings.is_empty(),
        "{} findings:\n{}",
        findings.len(),
        findings.join("\n")
    );
}
