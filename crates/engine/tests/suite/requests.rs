//! Reads beyond the fixture's, and that no request can make anything panic.

use std::sync::OnceLock;

use crate::common::{created, read, restored, write};
use edge_sync_engine::{
    Error, PointId, Request, ScrollRequest, SearchRequest, Selection, Shard, Strictness, Target,
    Vector, parse_request,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn ids(result: &Value) -> Vec<u64> {
    let points = result["points"].as_array().expect("points");
    points
        .iter()
        .map(|point| point["id"].as_u64().expect("a number"))
        .collect()
}

/// Points on a line, with what the queries below need.
fn line() -> (tempfile::TempDir, Shard) {
    let (dir, shard) = created(&json!({
        "vectors": {
            "": { "size": 2, "distance": "Euclid" },
            "rows": { "size": 2, "distance": "Dot", "multivector_config": { "comparator": "max_sim" } },
        },
        "sparse_vectors": { "text": { "modifier": "idf" } },
    }));
    let words = [
        "red stone",
        "blue stone",
        "green river",
        "red river",
        "blue sky",
    ];
    let points: Vec<_> = (1..=5_usize)
        .map(|id| {
            json!({
                "id": id,
                "vector": {
                    "": [id, 0],
                    "rows": [[id, 1], [1, id]],
                    "text": { "text": words[id - 1], "model": "Qdrant/bm25" },
                },
                "payload": {
                    "n": id,
                    "group": if id % 2 == 0 { "even" } else { "odd" },
                    "when": format!("2024-01-0{id}T00:00:00Z"),
                    "at": { "lon": id, "lat": 0 },
                    "kind": (["a", "b"][id % 2]),
                    "words": words[id - 1],
                    "parts": [{ "colour": "red", "price": id }, { "colour": "blue", "price": 6 - id }],
                },
            })
        })
        .collect();
    write(&shard, "PUT", "/points", &json!({ "points": points })).expect("upserts");
    for (field, schema) in [
        ("n", json!("integer")),
        ("when", json!("datetime")),
        ("at", json!("geo")),
        ("group", json!("keyword")),
        ("kind", json!("keyword")),
        ("words", json!({ "type": "text", "scoring": true })),
    ] {
        let body = json!({ "field_name": field, "field_schema": schema });
        write(&shard, "PUT", "/index", &body).expect("an index");
    }
    (dir, shard)
}

fn query(shard: &Shard, body: &Value) -> Vec<u64> {
    let result = read(shard, "POST", "/points/query", body);
    ids(&result.unwrap_or_else(|error| panic!("{body}: {error}")))
}

#[test]
fn every_kind_of_query_is_understood() {
    let (_dir, shard) = line();
    let near = json!([3.1, 0]);
    #[rustfmt::skip]
    let cases = [
        (json!({ "query": near, "limit": 2 }), vec![3, 4]),
        (json!({ "query": near, "limit": 2, "offset": 1 }), vec![4, 2]),
        (json!({ "query": near, "score_threshold": 0.5 }), vec![3]),
        (json!({ "query": 3, "limit": 1, "filter": { "must_not": { "has_id": [4] } } }), vec![2]),
        (json!({ "query": { "nearest": near }, "limit": 1 }), vec![3]),
        (json!({ "query": { "nearest": near, "mmr": {} }, "limit": 1 }), vec![3]),
        (json!({ "query": [2, 1], "using": "rows", "limit": 1 }), vec![5]),
        (json!({ "query": [[2, 1]], "using": "rows", "limit": 1 }), vec![5]),
        (json!({ "query": { "text": "red sky", "model": "qdrant/bm25" }, "using": "text", "limit": 1 }), vec![5]),
        (json!({ "query": { "recommend": { "positive": [1, 2] } }, "limit": 1 }), vec![3]),
        (json!({ "query": { "recommend": { "positive": [near], "negative": [1], "strategy": "sum_scores" } }, "limit": 1 }), vec![5]),
        (json!({ "query": { "recommend": { "negative": [1], "strategy": "best_score" } }, "limit": 1 }), vec![5]),
        (json!({ "query": { "discover": { "target": 3, "context": { "positive": 5, "negative": 1 } } }, "limit": 1 }), vec![4]),
        (json!({ "query": { "discover": { "target": near, "context": null } }, "limit": 1 }), vec![3]),
        (json!({ "query": { "relevance_feedback": {
            "target": near,
            "feedback": [{ "example": 4, "score": 1 }, { "example": 1, "score": 0 }],
            "strategy": { "naive": { "a": 1, "b": 1, "c": 1 } },
        } }, "limit": 1 }), vec![5]),
        (json!({ "query": { "order_by": "n" }, "limit": 2 }), vec![1, 2]),
        (json!({ "query": { "order_by": { "key": "n", "direction": "desc", "start_from": 4 } }, "limit": 2 }), vec![4, 3]),
        (json!({ "limit": 2 }), vec![1, 2]),
        (json!({ "prefetch": { "query": near, "limit": 2 }, "query": { "order_by": "when" } }), vec![3, 4]),
        (json!({ "prefetch": [{ "query": near, "limit": 1 }, { "query": 1, "limit": 1 }], "query": { "rrf": { "k": 1, "weights": [1, 3] } }, "limit": 1 }), vec![2]),
        (json!({ "prefetch": { "query": near, "limit": 5 }, "limit": 1, "query": { "formula": { "neg": "n" } } }), vec![1]),
        (json!({ "prefetch": { "query": near, "limit": 5 }, "limit": 1, "query": { "formula": { "mult": [{ "key": "group", "match": { "value": "even" } }, "n"] } } }), vec![4]),
        (json!({ "prefetch": { "query": near, "limit": 5 }, "limit": 1, "query": { "formula": { "neg": { "geo_distance": { "origin": { "lon": 5.2, "lat": 0 }, "to": "at" } } } } }), vec![5]),
        (json!({ "prefetch": { "query": near, "limit": 5 }, "limit": 1, "query": { "formula": { "gauss_decay": { "x": { "datetime_key": "when" }, "target": { "datetime": "2024-01-02T00:00:00Z" }, "scale": 86_400 } } } }), vec![2]),
        (json!({ "prefetch": { "query": near, "limit": 5 }, "limit": 1, "query": { "formula": { "lin_decay": { "x": "n", "target": 4, "scale": 2, "midpoint": 0.4 } } } }), vec![4]),
        (json!({ "prefetch": { "query": near, "limit": 5 }, "limit": 1, "query": { "formula": { "sum": [{ "exp_decay": { "x": "missing", "target": 4 } }, "n"] }, "defaults": { "missing": 3 } } }), vec![5]),
        (json!({ "prefetch": { "query": near, "limit": 5 }, "limit": 1, "query": { "formula": { "sum": [
            { "div": { "left": 1, "right": "n", "by_zero_default": 0 } }, { "sqrt": "n" }, { "pow": { "base": "n", "exponent": 2 } },
            { "exp": "n" }, { "log10": "n" }, { "ln": "n" }, { "abs": { "neg": "n" } } ] } } }), vec![5]),
        (json!({ "query": near, "limit": 1, "filter": { "must": [
            { "key": "n", "range": { "gt": 1, "lte": 4 } },
            { "key": "when", "range": { "gte": "2024-01-04T00:00:00Z" } },
            { "key": "at", "geo_bounding_box": { "top_left": { "lon": 0, "lat": 1 }, "bottom_right": { "lon": 9, "lat": -1 } } },
        ], "should": { "key": "kind", "match": { "prefix": "a" } }, "must_not": [{ "is_empty": { "key": "n" } }, { "is_null": { "key": "n" } }] } }), vec![4]),
        (json!({ "prefetch": { "query": near, "limit": 5 }, "limit": 1, "query": { "formula": { "neg": { "max": ["n", 1.5] } } } }), vec![1]),
        (json!({ "prefetch": { "query": near, "limit": 5 }, "limit": 1, "query": { "formula": { "min": ["n", 4.5] } } }), vec![5]),
        (json!({ "prefetch": { "query": near, "limit": 5 }, "limit": 1, "query": { "formula": { "neg": { "acosh": "n" } } } }), vec![1]),
        (json!({ "query": { "text": "red river" }, "using": "words", "limit": 1 }), vec![4]),
        (json!({ "query": { "text": { "query": "sky", "scoring": { "bm25": { "k": 1.5, "b": 0 } } } }, "using": "words" }), vec![5]),
        (json!({ "prefetch": [{ "query": { "text": "green" }, "using": "words" }, { "query": [3, 0], "limit": 1 }], "query": { "fusion": "rrf" }, "limit": 1 }), vec![3]),
        (json!({ "filter": { "must": { "key": "group", "match": { "substring": "ve" } } } }), vec![2, 4]),
        (json!({ "filter": { "must": { "nested": { "key": "parts", "filter": { "must": [
            { "key": "colour", "match": { "value": "blue" } }, { "key": "price", "match": { "value": 2 } } ] } } } } }), vec![4]),
        (json!({ "query": near, "params": { "exact": true, "hnsw_ef": 8, "indexed_only": false, "quantization": { "ignore": true, "rescore": true, "oversampling": 2 }, "acorn": { "enable": true, "max_selectivity": 0.5 } }, "limit": 1 }), vec![3]),
        (json!({ "query": { "text": "red", "model": "qdrant/bm25", "options": { "language": "english" } }, "using": "text", "limit": 1,
            "params": { "idf": { "corpus": { "must": { "key": "group", "match": { "value": "odd" } } } } }, "filter": { "must": { "key": "n", "range": { "gt": 1 } } } }), vec![4]),
    ];
    let mut failures = Vec::new();
    for (body, expected) in &cases {
        let found = query(&shard, body);
        if found != *expected {
            failures.push(format!("{body}: {found:?} for {expected:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let mut all = query(&shard, &json!({ "query": { "sample": "random" } }));
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3, 4, 5]);
    let context = json!({ "query": { "context": [{ "positive": 5, "negative": 1 }] } });
    assert_eq!(query(&shard, &context).len(), 3);

    let slices: Vec<_> = (0..3)
        .flat_map(|index| {
            let body = json!({ "filter": { "must": { "slice": { "total": 3, "index": index } } } });
            query(&shard, &body)
        })
        .collect();
    assert_eq!(slices.len(), 5);
}

#[test]
fn the_other_reads_have_the_servers_shapes() {
    let (_dir, shard) = line();
    let post = |path: &str, body: Value| {
        read(&shard, "POST", path, &body).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let batch = post(
        "/points/query/batch",
        json!({ "searches": [{ "query": [1, 0], "limit": 1 }, { "query": 5, "limit": 1, "with_payload": ["n"] }] }),
    );
    assert_eq!(ids(&batch[0]), [1]);
    assert_eq!(batch[1]["points"][0]["payload"], json!({ "n": 4 }));

    let groups = post(
        "/points/query/groups",
        json!({ "query": [5, 0], "group_by": "group", "limit": 2, "group_size": 1, "with_payload": { "exclude": ["n"] } }),
    );
    assert_eq!(groups["groups"][0]["id"], "odd");
    assert_eq!(groups["groups"][0]["hits"][0]["id"], 5);
    assert_eq!(
        groups["groups"][1]["hits"].as_array().map(Vec::len),
        Some(1)
    );
    assert!(groups["groups"][0]["hits"][0]["payload"].get("n").is_none());
    // MMR compares vectors, which are not part of the answer unless they are asked for.
    for (with_vector, there) in [(json!(false), false), (json!(["rows"]), true)] {
        let groups = post(
            "/points/query/groups",
            json!({
                "query": { "nearest": [5, 0], "mmr": {} }, "using": "", "group_by": "group",
                "limit": 5, "group_size": 5, "with_vector": with_vector,
            }),
        );
        let hits: Vec<_> = groups["groups"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|group| group["hits"].as_array().into_iter().flatten())
            .collect();
        assert_eq!(hits.len(), 5, "{groups}");
        for hit in hits {
            assert_eq!(hit["vector"].get("rows").is_some(), there, "{hit}");
            assert!(hit["vector"].get("").is_none(), "{hit}");
        }
    }

    let pairs = post(
        "/points/search/matrix/pairs",
        json!({ "sample": 5, "limit": 1 }),
    );
    let pairs = pairs["pairs"].as_array().expect("pairs").clone();
    assert_eq!(pairs.len(), 5);
    assert_eq!(pairs[0], json!({ "a": 1, "b": 2, "score": 1.0 }));
    let offsets = post(
        "/points/search/matrix/offsets",
        json!({ "sample": 5, "limit": 1 }),
    );
    assert_eq!(offsets["ids"], json!([1, 2, 3, 4, 5]));
    assert_eq!(offsets["offsets_row"], json!([0, 1, 2, 3, 4]));
    assert_eq!(offsets["offsets_col"][0], 1);
    assert_eq!(offsets["scores"][0], 1.0);

    let page = post("/points/scroll", json!({ "limit": 2 }));
    assert_eq!(ids(&page), [1, 2]);
    assert_eq!(page["next_page_offset"], 3);
    assert_eq!(page["points"][0]["payload"]["n"], 1);
    assert!(page["points"][0].get("vector").is_none());
    let page = post(
        "/points/scroll",
        json!({ "offset": 5, "with_payload": false, "with_vector": [""] }),
    );
    assert_eq!(page["next_page_offset"], Value::Null);
    assert_eq!(page["points"], json!([{ "id": 5, "vector": [5.0, 0.0] }]));
    let page = post(
        "/points/scroll",
        json!({ "order_by": "n", "limit": 1, "with_payload": false }),
    );
    assert_eq!(page["points"], json!([{ "id": 1, "order_value": 1 }]));

    let found = post(
        "/points",
        json!({ "ids": [5, 99, 1], "with_payload": ["n"], "with_vector": ["rows"] }),
    );
    assert_eq!(
        found,
        json!([
            { "id": 5, "payload": { "n": 5 }, "vector": { "rows": [[5.0, 1.0], [1.0, 5.0]] } },
            { "id": 1, "payload": { "n": 1 }, "vector": { "rows": [[1.0, 1.0], [1.0, 1.0]] } },
        ])
    );
    let one = read(&shard, "GET", "/points/2", &Value::Null).expect("a point");
    assert_eq!(one["payload"]["n"], 2);
    assert_eq!(one["vector"][""], json!([2.0, 0.0]));

    let odd = json!({ "must": [{ "key": "group", "match": { "value": "odd" } }] });
    assert_eq!(
        post("/points/count", json!({ "filter": odd })),
        json!({ "count": 3 })
    );
    assert_eq!(post("/points/count", json!({})), json!({ "count": 5 }));
    assert_eq!(
        post("/facet", json!({ "key": "group", "exact": true })),
        json!({ "hits": [{ "value": "odd", "count": 3 }, { "value": "even", "count": 2 }] })
    );
}

#[test]
fn a_request_that_asks_for_too_much_names_the_field() {
    let (_dir, shard) = line();
    let refused = |path: &str, body: Value| match read(&shard, "POST", path, &body) {
        Err(Error::InvalidInput { field, .. }) => field,
        other => panic!("{path}: {other:?}"),
    };
    let searches = vec![json!({ "limit": 1000 }); 3000];
    let field = refused("/points/query/batch", json!({ "searches": searches }));
    assert_eq!(field, "searches[2097].limit");
    let feedback = vec![json!({ "example": 1, "score": 1 }); 5000];
    let field = refused(
        "/points/query",
        json!({ "query": { "relevance_feedback": {
            "target": 2, "feedback": feedback, "strategy": { "naive": { "a": 1, "b": 1, "c": 1 } },
        } } }),
    );
    assert_eq!(field, "query.relevance_feedback.feedback");
    let ids: Vec<u32> = (0..40_000).collect();
    let prefetch = vec![json!({ "limit": 1 }); 100];
    let field = refused(
        "/points/query",
        json!({ "prefetch": prefetch, "query": { "fusion": "rrf" }, "filter": { "must": [{ "has_id": ids }] } }),
    );
    assert_eq!(field, "prefetch[52].filter");
    let field = refused(
        "/points/count",
        json!({ "filter": { "must": [{ "key": "n", "values_count": { "gt": 5_000_000_000_u64 } }] } }),
    );
    assert_eq!(field, "filter.must[0].values_count.gt");
    // All points, whatever the number says.
    for limit in [6_u64, 5_000_000_000, u64::MAX] {
        let body = json!({ "query": [1, 0], "limit": limit, "offset": 1 });
        assert_eq!(query(&shard, &body).len(), 4);
        let body = json!({ "limit": limit });
        let page = read(&shard, "POST", "/points/scroll", &body).expect("a page");
        assert_eq!(ids_of(&page), 5);
        let body =
            json!({ "query": [1, 0], "group_by": "group", "limit": limit, "group_size": limit });
        let groups = read(&shard, "POST", "/points/query/groups", &body).expect("groups");
        assert_eq!(groups["groups"].as_array().map(Vec::len), Some(2));
        let body = json!({ "sample": limit, "limit": limit });
        let matrix = read(&shard, "POST", "/points/search/matrix/pairs", &body).expect("pairs");
        assert_eq!(matrix["pairs"].as_array().map(Vec::len), Some(20));
        let body = json!({ "key": "group", "limit": limit });
        let facet = read(&shard, "POST", "/facet", &body).expect("hits");
        assert_eq!(facet["hits"].as_array().map(Vec::len), Some(2));
    }
    let body = "x".repeat((32 << 20) + 1);
    let error = parse_request("POST", "/points/query", &body).expect_err("too large");
    assert!(error.to_string().contains("larger than allowed"), "{error}");
}

fn ids_of(page: &Value) -> usize {
    page["points"].as_array().map_or(0, Vec::len)
}

#[test]
fn typed_reads_agree_with_rest() {
    let (_dir, shard) = line();
    let selection = Selection {
        payload: Some(json!(["n"])),
        vectors: Some(json!(true)),
    };
    let request = SearchRequest {
        target: Target::Vector {
            name: String::new(),
            vector: Vector::Dense(vec![3.1, 0.0]),
        },
        filter: Some(json!({ "must_not": [{ "has_id": [3] }] })),
        params: Some(json!({ "exact": true })),
        limit: 2,
        offset: 1,
        score_threshold: Some(3.0),
        selection: selection.clone(),
    };
    let found = shard.search(request.clone()).expect("finds");
    let found: Vec<_> = found.iter().map(|point| (point.id, point.score)).collect();
    assert_eq!(found[0].0, PointId::Num(2));
    assert!((found[0].1 - 1.1).abs() < 1e-5);
    let by_point = SearchRequest {
        target: Target::Point {
            name: String::new(),
            id: PointId::Num(3),
        },
        filter: None,
        offset: 0,
        ..request
    };
    let found = shard.search(by_point).expect("finds");
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|point| point.id != PointId::Num(3)));
    assert_eq!(
        found[0].payload.as_ref().map(|payload| payload.len()),
        Some(1)
    );
    assert_eq!(found[0].vectors.len(), 3);

    let page = shard
        .scroll(ScrollRequest {
            offset: Some(PointId::Num(2)),
            limit: 2,
            filter: None,
            selection: Selection::default(),
        })
        .expect("scrolls");
    let ids: Vec<_> = page.points.iter().map(|point| point.id).collect();
    assert_eq!(ids, [PointId::Num(2), PointId::Num(3)]);
    assert_eq!(page.next, Some(PointId::Num(4)));
    assert!(page.points[0].payload.is_none() && page.points[0].vectors.is_empty());

    let points = shard
        .retrieve(&[PointId::Num(4), PointId::Num(9)], &selection)
        .expect("retrieves");
    assert_eq!(points.len(), 1);
    assert_eq!(
        points[0].vectors["rows"],
        Vector::Multi(vec![vec![4.0, 1.0], vec![1.0, 4.0]])
    );
    let filter = json!({ "must": [{ "key": "n", "range": { "gt": 3 } }] });
    assert_eq!(shard.count(Some(&filter)).expect("counts"), 2);
}

fn fuzzed_shard() -> &'static Shard {
    static SHARD: OnceLock<(tempfile::TempDir, Shard)> = OnceLock::new();
    &SHARD.get_or_init(restored).1
}

/// Names and values that mean something to the parser, put together at random.
fn json_like() -> impl Strategy<Value = Value> {
    const KEYS: &[&str] = &[
        "query",
        "prefetch",
        "using",
        "filter",
        "must",
        "should",
        "must_not",
        "min_should",
        "conditions",
        "min_count",
        "key",
        "match",
        "value",
        "any",
        "range",
        "gt",
        "lt",
        "nested",
        "has_id",
        "has_vector",
        "is_empty",
        "slice",
        "total",
        "index",
        "params",
        "exact",
        "hnsw_ef",
        "quantization",
        "oversampling",
        "limit",
        "offset",
        "with_payload",
        "with_vector",
        "nearest",
        "mmr",
        "diversity",
        "candidates_limit",
        "recommend",
        "positive",
        "negative",
        "strategy",
        "discover",
        "target",
        "context",
        "order_by",
        "fusion",
        "rrf",
        "k",
        "weights",
        "formula",
        "defaults",
        "sum",
        "mult",
        "div",
        "left",
        "right",
        "ln",
        "sqrt",
        "pow",
        "base",
        "exponent",
        "exp_decay",
        "x",
        "scale",
        "sample",
        "indices",
        "values",
        "points",
        "id",
        "ids",
        "vector",
        "vectors",
        "payload",
        "batch",
        "operations",
        "upsert",
        "delete",
        "field_name",
        "field_schema",
        "type",
        "group_by",
        "group_size",
        "cos",
        "sp",
        "multi",
        "u8",
        "searches",
        "exact",
        "score_threshold",
    ];
    const WORDS: &[&str] = &[
        "cos",
        "sp",
        "spd",
        "multi",
        "u8",
        "f16",
        "i",
        "f",
        "kw",
        "t",
        "dt",
        "g",
        "tenant",
        "rrf",
        "dbsf",
        "random",
        "best_score",
        "desc",
        "$score",
        "keyword",
        "a[",
        "",
        "00000000-0000-400b-8000-000000000005",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (0..5_u64).prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(WORDS).prop_map(Value::from),
        Just(json!(vec![0.5; 16])),
        Just(json!(vec![0.5; 8])),
    ];
    leaf.prop_recursive(6, 48, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((proptest::sample::select(KEYS), inner), 0..5).prop_map(
                |entries| Value::Object(
                    entries
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect()
                )
            ),
        ]
    })
}

/// A query that is nearly right, so that the fuzz reaches the engine.
fn query_like() -> impl Strategy<Value = Value> {
    (json_like(), json_like(), proptest::sample::select(&["cos", "sp", "multi", "u8", "tq"][..]))
        .prop_map(|(query, filter, using)| {
            json!({ "query": query, "using": using, "filter": { "should": [filter] } })
        })
}

const ROUTES: &[(&str, &str)] = &[
    ("POST", "/points/query"),
    ("POST", "/points/query/batch"),
    ("POST", "/points/query/groups"),
    ("POST", "/points/search/matrix/pairs"),
    ("POST", "/points/search/matrix/offsets"),
    ("POST", "/points/scroll"),
    ("POST", "/points"),
    ("GET", "/points/1"),
    ("POST", "/points/count"),
    ("POST", "/facet"),
    ("PUT", "/points?wait=true"),
    ("POST", "/points/delete"),
    ("PUT", "/points/vectors"),
    ("POST", "/points/vectors/delete"),
    ("POST", "/points/payload"),
    ("PUT", "/points/payload"),
    ("POST", "/points/payload/delete"),
    ("POST", "/points/payload/clear"),
    ("POST", "/points/batch"),
    ("PUT", "/index"),
    ("DELETE", "/index/i"),
    ("PUT", "/vectors/x"),
    ("DELETE", "/vectors/cos"),
    ("PATCH", ""),
];

fn run(method: &str, path: &str, body: &str) {
    match parse_request(method, path, body) {
        Ok(Request::Read(request)) => drop(fuzzed_shard().read(request)),
        Ok(Request::Write(write)) => {
            let shard = fuzzed_shard();
            if shard.validate(&write).is_ok() {
                for step in write.steps() {
                    drop(shard.prepare(step));
                }
            }
        }
        Ok(Request::Configure(changes)) => {
            drop(
                fuzzed_shard()
                    .config()
                    .changed(&changes, Strictness::Strict),
            );
        }
        Err(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_json_makes_a_request_panic(
        route in proptest::sample::select(ROUTES),
        body in json_like(),
    ) {
        run(route.0, route.1, &body.to_string());
    }

    #[test]
    fn no_query_makes_the_engine_panic(body in query_like()) {
        run("POST", "/points/query", &body.to_string());
    }

    #[test]
    fn no_text_makes_a_request_panic(
        route in proptest::sample::select(ROUTES),
        path in "(/[a-z%0-9é]{0,6}){0,4}",
        body in ".{0,40}",
    ) {
        run(route.0, route.1, &body);
        run(route.0, &path, &body);
    }
}
