//! Requests that nobody thought of: random writes and reads over a small collection, some of them
//! damaged in a random place.

use std::sync::Mutex;

use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use super::{Agreement, Ask, COLLECTION, Pair};
use crate::support::setting;

/// Requests a case.
const REQUESTS: std::ops::Range<usize> = 20..40;

/// Cases unless `EDGE_SYNC_DIFFERENTIAL_CASES` says otherwise.
const CASES: u64 = 24;

/// Few ids, so that requests meet.
fn id() -> impl Strategy<Value = Value> {
    prop_oneof![
        9 => (1..=9_u64).prop_map(|id| json!(id)),
        1 => Just(json!("11111111-2222-3333-4444-555555555555")),
    ]
}

fn ids() -> impl Strategy<Value = Value> {
    prop::collection::vec(id(), 1..4).prop_map(Value::Array)
}

/// Whole numbers: sums of products are exact, whatever the order that an engine adds them in.
fn numbers(count: usize) -> impl Strategy<Value = Value> {
    prop::collection::vec(1..=9_u8, count).prop_map(|numbers| json!(numbers))
}

fn sparse() -> impl Strategy<Value = Value> {
    subsequence((0..12_u32).collect::<Vec<_>>(), 1..5).prop_flat_map(|indices| {
        numbers(indices.len()).prop_map(move |values| json!({"indices": indices, "values": values}))
    })
}

fn multi() -> impl Strategy<Value = Value> {
    prop::collection::vec(numbers(2), 1..4).prop_map(Value::Array)
}

/// A name of a vector and a vector of its kind.
fn named_vector() -> impl Strategy<Value = (&'static str, Value)> {
    prop_oneof![
        (select(&["cos", "dot", "euclid", "taxi"][..]), numbers(3)),
        (Just("sparse"), sparse()),
        (Just("multi"), multi()),
    ]
}

fn vectors() -> impl Strategy<Value = Value> {
    prop::collection::vec(named_vector(), 0..5).prop_map(|vectors| {
        let vectors: Map<String, Value> = vectors
            .into_iter()
            .map(|(name, vector)| (name.to_owned(), vector))
            .collect();
        Value::Object(vectors)
    })
}

/// A payload field and a value, mostly of its kind.
fn field() -> impl Strategy<Value = (&'static str, Value)> {
    let word = || select(&["red", "green", "blue"][..]);
    let usual = prop_oneof![
        (Just("n"), (-3..4_i64).prop_map(|n| json!(n))),
        (
            Just("f"),
            (-8..8_i32).prop_map(|n| json!(f64::from(n) / 4.0))
        ),
        (Just("k"), word().prop_map(|word| json!(word))),
        (Just("b"), any::<bool>().prop_map(|flag| json!(flag))),
        (
            Just("t"),
            prop::collection::vec(word(), 1..4).prop_map(|words| json!(words.join(" ")))
        ),
        (
            Just("d"),
            (1..9_u8).prop_map(|day| json!(format!("2024-05-0{day}T00:00:00Z")))
        ),
        (
            Just("g"),
            (0..4_u8, 0..4_u8).prop_map(|(lon, lat)| json!({"lon": lon, "lat": lat}))
        ),
        (
            Just("o"),
            (0..3_u8, word()).prop_map(|(x, y)| json!([{"x": x, "y": y}, {"x": 1}]))
        ),
    ];
    let unusual = (
        select(&["n", "f", "k", "b", "t", "d", "g", "o"][..]),
        select(vec![
            Value::Null,
            json!([]),
            json!({}),
            json!([1, "red", null]),
            json!(["red", "red"]),
            json!([2, -1]),
            json!(1e300),
        ]),
    );
    prop_oneof![8 => usual, 1 => unusual]
}

fn payload() -> impl Strategy<Value = Value> {
    prop::collection::vec(field(), 0..6).prop_map(|fields| {
        let fields: Map<String, Value> = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Value::Object(fields)
    })
}

fn condition() -> impl Strategy<Value = Value> {
    let key = || {
        select(
            &[
                "n", "f", "k", "b", "t", "d", "g", "o", "o[].x", "o[0].y", "none",
            ][..],
        )
    };
    let value = || {
        prop_oneof![
            (-3..4_i64).prop_map(|n| json!(n)),
            select(&["red", "green", "blue"][..]).prop_map(|word| json!(word)),
            any::<bool>().prop_map(|flag| json!(flag)),
        ]
    };
    let number = || (-8..8_i32).prop_map(|n| json!(f64::from(n) / 4.0));
    let words = || prop::collection::vec(select(&["red", "green", "blue"][..]), 0..3);
    let bound = || select(&["gt", "gte", "lt", "lte"][..]);
    let matched = |key: &str, matched: Value| json!({"key": key, "match": matched});
    prop_oneof![
        (key(), value()).prop_map(move |(key, value)| matched(key, json!({"value": value}))),
        (key(), select(&["any", "except"][..]), words())
            .prop_map(move |(key, how, words)| matched(key, json!({how: words}))),
        (
            key(),
            select(&["any", "except"][..]),
            prop::collection::vec(-3..4_i64, 0..3)
        )
            .prop_map(move |(key, how, numbers)| matched(key, json!({how: numbers}))),
        (
            key(),
            select(&["text", "text_any", "phrase", "prefix"][..]),
            words()
        )
            .prop_map(move |(key, how, words)| matched(key, json!({how: words.join(" ")}))),
        (key(), bound(), number())
            .prop_map(|(key, bound, number)| json!({"key": key, "range": {bound: number}})),
        (bound(), 1..9_u8).prop_map(
            |(bound, day)| json!({"key": "d", "range": {bound: format!("2024-05-0{day}")}})
        ),
        (key(), bound(), 0..4_u8)
            .prop_map(|(key, bound, count)| json!({"key": key, "values_count": {bound: count}})),
        key().prop_map(|key| json!({"is_empty": {"key": key}})),
        key().prop_map(|key| json!({"is_null": {"key": key}})),
        ids().prop_map(|ids| json!({"has_id": ids})),
        select(&["cos", "dot", "multi", "sparse", "none"][..])
            .prop_map(|name| json!({"has_vector": name})),
        (0..4_u8, 0..4_u8, 1..500_u32).prop_map(|(lon, lat, km)| json!({
            "key": "g",
            "geo_radius": {"center": {"lon": lon, "lat": lat}, "radius": km * 1000},
        })),
        (0..3_u8, 0..3_u8).prop_map(|(lon, lat)| json!({
            "key": "g",
            "geo_bounding_box": {
                "top_left": {"lon": lon, "lat": lat + 1},
                "bottom_right": {"lon": lon + 1, "lat": lat},
            },
        })),
        (0..3_u8, select(&["red", "green", "blue"][..])).prop_map(|(x, y)| json!({
            "nested": {"key": "o", "filter": {"must": [
                {"key": "x", "range": {"gte": x}},
                {"key": "y", "match": {"value": y}},
            ]}},
        })),
    ]
}

fn filter() -> impl Strategy<Value = Value> {
    let clauses = |conditions: BoxedStrategy<Value>| {
        let clause = select(&["must", "should", "must_not"][..]);
        let list = prop::collection::vec(conditions.clone(), 0..3);
        let plain = prop::collection::vec((clause, list), 1..3).prop_map(|clauses| {
            let clauses: Map<String, Value> = clauses
                .into_iter()
                .map(|(clause, list)| (clause.to_owned(), Value::Array(list)))
                .collect();
            Value::Object(clauses)
        });
        let min_should = (prop::collection::vec(conditions, 1..4), 1..3_u8).prop_map(
            |(conditions, count)| {
                json!({"min_should": {"conditions": conditions, "min_count": count}})
            },
        );
        prop_oneof![5 => plain, 1 => min_should]
    };
    let flat = clauses(condition().boxed()).boxed();
    let deep = clauses(prop_oneof![3 => condition(), 1 => flat.clone()].boxed());
    prop_oneof![flat, deep]
}

/// `{"points": ...}` or `{"filter": ...}`.
fn selector() -> impl Strategy<Value = Value> {
    prop_oneof![
        2 => ids().prop_map(|ids| json!({"points": ids})),
        1 => filter().prop_map(|filter| json!({"filter": filter})),
    ]
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

fn points() -> impl Strategy<Value = Value> {
    let point = (id(), vectors(), payload())
        .prop_map(|(id, vector, payload)| json!({"id": id, "vector": vector, "payload": payload}));
    let points = prop::collection::vec(point, 1..5).prop_map(|points| json!({"points": points}));
    let mode = select(&["upsert", "insert_only", "update_only"][..]);
    (
        points,
        prop::option::weighted(0.2, mode),
        prop::option::weighted(0.2, filter()),
    )
        .prop_map(|(mut body, mode, filter)| {
            if let Some(mode) = mode {
                body["update_mode"] = json!(mode);
            }
            if let Some(filter) = filter {
                body["update_filter"] = filter;
            }
            body
        })
}

/// A write: its name in `points/batch`, method, path and body.
fn write() -> impl Strategy<Value = (&'static str, &'static str, &'static str, Value)> {
    let key = || prop::option::weighted(0.2, select(&["o", "x.y", "o[0]"][..]));
    let set = || {
        (selector(), payload(), key()).prop_map(|(body, payload, key)| {
            let body = with(body, "payload", payload);
            match key {
                Some(key) => with(body, "key", json!(key)),
                None => body,
            }
        })
    };
    let names = || subsequence(vec!["cos", "dot", "multi", "sparse"], 1..3);
    let moved = prop::collection::vec((id(), vectors()), 1..3).prop_map(|points| {
        let points: Vec<Value> = points
            .into_iter()
            .map(|(id, vector)| json!({"id": id, "vector": vector}))
            .collect();
        json!({"points": points})
    });
    let keys = subsequence(vec!["n", "k", "o[].x", "x.y", "none"], 1..3);
    let as_write = |name, method, path| move |body| (name, method, path, body);
    prop_oneof![
        6 => points().prop_map(as_write("upsert", "PUT", "points")),
        1 => selector().prop_map(as_write("delete", "POST", "points/delete")),
        2 => set().prop_map(as_write("set_payload", "POST", "points/payload")),
        1 => set().prop_map(as_write("overwrite_payload", "PUT", "points/payload")),
        1 => (selector(), keys)
            .prop_map(|(body, keys)| with(body, "keys", json!(keys)))
            .prop_map(as_write("delete_payload", "POST", "points/payload/delete")),
        1 => selector().prop_map(as_write("clear_payload", "POST", "points/payload/clear")),
        1 => moved.prop_map(as_write("update_vectors", "PUT", "points/vectors")),
        1 => (selector(), names())
            .prop_map(|(body, names)| with(body, "vector", json!(names)))
            .prop_map(as_write("delete_vectors", "POST", "points/vectors/delete")),
    ]
}

/// A query without what a limit cuts off: among equal scores an engine may choose.
fn query() -> impl Strategy<Value = Value> {
    let dense = || select(&["cos", "dot", "euclid", "taxi"][..]);
    let example = || prop_oneof![id(), numbers(3)];
    let examples = || prop::collection::vec(example(), 0..3);
    let strategy = || select(&["average_vector", "best_score", "sum_scores"][..]);
    let pairs = || {
        prop::collection::vec((example(), example()), 1..3).prop_map(|pairs| {
            let pairs: Vec<Value> = pairs
                .into_iter()
                .map(|(positive, negative)| json!({"positive": positive, "negative": negative}))
                .collect();
            json!(pairs)
        })
    };
    let base = prop_oneof![
        4 => (example(), dense()).prop_map(|(query, using)| json!({"query": query, "using": using})),
        1 => sparse().prop_map(|query| json!({"query": query, "using": "sparse"})),
        1 => multi().prop_map(|query| json!({"query": query, "using": "multi"})),
        1 => (examples(), examples(), strategy(), dense()).prop_map(|(positive, negative, strategy, using)| json!({
            "query": {"recommend": {"positive": positive, "negative": negative, "strategy": strategy}},
            "using": using,
        })),
        1 => (example(), pairs(), dense()).prop_map(|(target, context, using)| json!({
            "query": {"discover": {"target": target, "context": context}},
            "using": using,
        })),
        1 => (pairs(), dense())
            .prop_map(|(context, using)| json!({"query": {"context": context}, "using": using})),
        1 => select(&["n", "f", "d", "k"][..])
            .prop_map(|key| json!({"query": {"order_by": key}})),
        1 => Just(json!({})),
        1 => (numbers(3), dense(), numbers(3), dense()).prop_map(|(first, by, second, then)| json!({
            "prefetch": {"query": first, "using": by, "limit": 100},
            "query": second,
            "using": then,
        })),
        1 => (numbers(3), -2..3_i32).prop_map(|(vector, factor)| json!({
            "prefetch": {"query": vector, "using": "dot", "limit": 100},
            "query": {"formula": {"sum": ["$score", {"mult": [factor, "n"]}]}, "defaults": {"n": 1}},
        })),
    ];
    let threshold = prop::option::weighted(0.1, 0..9_u8);
    (
        base,
        prop::option::weighted(0.5, filter()),
        threshold,
        any::<bool>(),
    )
        .prop_map(|(mut query, filter, threshold, everything)| {
            if let Some(filter) = filter {
                query["filter"] = filter;
            }
            if let Some(threshold) = threshold {
                // Between the whole numbers that scores are.
                query["score_threshold"] = json!(f64::from(threshold) * 9.0 + 0.4);
            }
            query["limit"] = json!(100);
            query["with_payload"] = json!(everything);
            query["with_vector"] = json!(everything);
            query
        })
}

pub(super) fn read() -> impl Strategy<Value = Ask> {
    let post = |path: &'static str| {
        move |body: Value| Ask::json("POST", &format!("/collections/{COLLECTION}/{path}"), &body)
    };
    let filtered = |body: Value| {
        prop::option::of(filter()).prop_map(move |filter| match filter {
            Some(filter) => with(body.clone(), "filter", filter),
            None => body.clone(),
        })
    };
    let by = select(&["k", "n", "o[].y", "none"][..]);
    let key = select(&["k", "n", "b", "f", "none"][..]);
    let order = select(&["n", "f", "d", "none"][..]);
    prop_oneof![
        5 => query().prop_map(post("points/query")),
        1 => prop::collection::vec(query(), 0..3)
            .prop_map(|searches| json!({"searches": searches}))
            .prop_map(post("points/query/batch")),
        1 => (numbers(3), by).prop_map(|(query, by)| json!({
            "query": query, "using": "dot", "group_by": by, "limit": 100, "group_size": 100,
        })).prop_map(post("points/query/groups")),
        2 => filtered(json!({"limit": 100, "with_vector": true})).prop_map(post("points/scroll")),
        1 => (filtered(json!({"limit": 100})), order)
            .prop_map(|(body, key)| with(body, "order_by", json!({"key": key})))
            .prop_map(post("points/scroll")),
        1 => ids().prop_map(|ids| json!({"ids": ids, "with_vector": true})).prop_map(post("points")),
        2 => filtered(json!({})).prop_map(post("points/count")),
        1 => (filtered(json!({"exact": true, "limit": 100})), key)
            .prop_map(|(body, key)| with(body, "key", json!(key)))
            .prop_map(post("facet")),
        1 => filtered(json!({"sample": 100, "limit": 100, "using": "dot"}))
            .prop_map(post("points/search/matrix/offsets"))
            .prop_map(|ask| Ask { agreement: Agreement::Size, ..ask }),
    ]
}

fn index() -> impl Strategy<Value = Ask> {
    let field = select(vec![
        ("n", json!("integer")),
        ("f", json!("float")),
        ("k", json!("keyword")),
        ("b", json!("bool")),
        (
            "t",
            json!({"type": "text", "tokenizer": "word", "phrase_matching": true}),
        ),
        ("d", json!("datetime")),
        ("g", json!("geo")),
        ("o[].x", json!("integer")),
    ]);
    (field, prop::bool::weighted(0.8)).prop_map(|((field, schema), create)| {
        let path = format!("/collections/{COLLECTION}/index");
        if create {
            let body = json!({"field_name": field, "field_schema": schema});
            return Ask::json("PUT", &format!("{path}?wait=true"), &body);
        }
        let field = field.replace("[]", "%5B%5D");
        Ask {
            body: None,
            content_type: None,
            ..Ask::json("DELETE", &format!("{path}/{field}?wait=true"), &Value::Null)
        }
    })
}

pub(super) fn writing() -> impl Strategy<Value = Ask> {
    let path = |below: &str| format!("/collections/{COLLECTION}/{below}?wait=true");
    prop_oneof![
        6 => write().prop_map(move |(_, method, below, body)| Ask::json(method, &path(below), &body)),
        1 => prop::collection::vec(write(), 1..4).prop_map(move |writes| {
            let operations: Vec<Value> = writes
                .into_iter()
                .map(|(name, _, _, body)| json!({name: body}))
                .collect();
            Ask::json("POST", &path("points/batch"), &json!({"operations": operations}))
        }),
        1 => index(),
    ]
}

/// One thing in a body made wrong, somewhere.
#[derive(Debug, Clone)]
enum Damage {
    Remove,
    Rename,
    Replace(Value),
}

fn damage() -> impl Strategy<Value = (Index, Damage)> {
    let wrong = select(vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(4_294_967_295_u64),
        json!(1e39),
        json!("x"),
        json!(""),
        json!([]),
        json!([[]]),
        json!({}),
        json!({"x": 1}),
    ]);
    let what = prop_oneof![
        1 => Just(Damage::Remove),
        1 => Just(Damage::Rename),
        4 => wrong.prop_map(Damage::Replace),
    ];
    (any::<Index>(), what)
}

/// Does the damage to the `left`-th value inside of `value`; what is left of the count if there are
/// fewer.
fn spoil(value: &mut Value, left: usize, damage: &Damage) -> Option<usize> {
    let mut left = left;
    match value {
        Value::Array(items) => {
            for at in 0..items.len() {
                if left == 0 {
                    match damage {
                        Damage::Replace(wrong) => items[at] = wrong.clone(),
                        Damage::Remove | Damage::Rename => drop(items.remove(at)),
                    }
                    return None;
                }
                left = spoil(&mut items[at], left - 1, damage)?;
            }
        }
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            for name in names {
                if left == 0 {
                    let old = fields.remove(&name).unwrap_or_default();
                    match damage {
                        Damage::Remove => {}
                        Damage::Rename => drop(fields.insert(format!("{name}_"), old)),
                        Damage::Replace(wrong) => drop(fields.insert(name, wrong.clone())),
                    }
                    return None;
                }
                left = spoil(fields.get_mut(&name)?, left - 1, damage)?;
            }
        }
        _ => {}
    }
    Some(left)
}

fn parts(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(|item| 1 + parts(item)).sum(),
        Value::Object(fields) => fields.values().map(|field| 1 + parts(field)).sum(),
        _ => 0,
    }
}

fn damaged(ask: Ask, place: Index, damage: &Damage) -> Ask {
    let Some(Ok(mut body)) = ask.body.as_deref().map(serde_json::from_slice::<Value>) else {
        return ask;
    };
    let count = parts(&body);
    if count > 0 {
        spoil(&mut body, place.index(count), damage);
    }
    // A limit that is damaged may cut through equal scores, and a filter that is gone takes more.
    Ask {
        body: Some(body.to_string().into_bytes()),
        agreement: Agreement::Size,
        ..ask
    }
}

fn any_ask() -> impl Strategy<Value = Ask> {
    let whole = || prop_oneof![writing(), read()];
    let spoilt =
        (whole(), damage()).prop_map(|(ask, (place, damage))| damaged(ask, place, &damage));
    prop_oneof![4 => whole(), 1 => spoilt]
}

pub(super) fn config() -> Value {
    let three = |distance: &str| json!({"size": 3, "distance": distance});
    json!({
        "vectors": {
            "cos": three("Cosine"),
            "dot": three("Dot"),
            "euclid": three("Euclid"),
            "taxi": three("Manhattan"),
            "multi": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
        },
        "sparse_vectors": {"sparse": {}},
    })
}

/// The same cases in every run of a seed, so that a change is to blame for a difference that is new.
pub(super) fn runner(seed: u64, cases: u64, max_shrink_iters: u32) -> TestRunner {
    let config = Config {
        cases: u32::try_from(cases).expect("not that many"),
        failure_persistence: None,
        max_shrink_iters,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

#[test]
fn random_requests_are_answered_alike() {
    let cases = setting("EDGE_SYNC_DIFFERENTIAL_CASES").unwrap_or(CASES);
    let seed = setting("EDGE_SYNC_SEED").unwrap_or(1);
    let pair = Pair::start();
    let path = format!("/collections/{COLLECTION}");
    let create = Ask::json("PUT", &path, &config());
    let start = Ask::json("PUT", &format!("{path}/points?wait=true"), &beginning());
    let drop_it = Ask {
        body: None,
        content_type: None,
        ..Ask::json("DELETE", &path, &Value::Null)
    };
    let everything = json!({"limit": 1000, "with_payload": true, "with_vector": true});
    let everything = Ask::json("POST", &format!("{path}/points/scroll"), &everything);
    let tally = Mutex::new((0_u64, 0_u64));
    let mut runner = runner(seed, cases, 200);
    let outcome = runner.run(&prop::collection::vec(any_ask(), REQUESTS), |asks| {
        let told = |ask: &Ask| pair.ask(ask).map_err(TestCaseError::fail);
        told(&drop_it)?;
        told(&create)?;
        told(&start)?;
        for ask in &asks {
            let status = told(ask)?;
            let mut tally = tally.lock().expect("no panic");
            if status < 400 {
                tally.0 += 1;
            } else {
                tally.1 += 1;
            }
        }
        // Whatever was not asked about.
        told(&everything).map(drop)
    });
    let (answered, refused) = *tally.lock().expect("no panic");
    eprintln!("{answered} answered and {refused} refused alike");
    if let Err(error) = outcome {
        panic!("seed {seed}: {error}\n{}", pair.served.errors());
    }
    assert!(answered > refused, "most requests are wrong");
}

/// Points to begin with.
pub(super) fn beginning() -> Value {
    let points: Vec<Value> = (1..=6_u64)
        .map(|n| {
            let vector = json!({
                "cos": [n, 1, 2], "dot": [n, 2, 1], "euclid": [n, n, 1], "taxi": [1, n, n],
                "multi": [[n, 1], [1, n]], "sparse": {"indices": [n, n + 1], "values": [1, 2]},
            });
            let payload = json!({"n": n, "k": "red", "t": "red green", "b": n % 2 == 0});
            json!({"id": n, "vector": vector, "payload": payload})
        })
        .collect();
    json!({ "points": points })
}
