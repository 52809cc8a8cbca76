//! Input that must be refused: which error, at which field, in which words.

use crate::common::{created, read, write};
use edge_sync_engine::{
    CollectionConfig, Error, Point, PointId, Shard, Strictness, Vector, Vectors, parse_request,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn shard() -> (TempDir, Shard) {
    let (dir, shard) = created(&json!({
        "vectors": {
            "image": { "size": 4, "distance": "Cosine" },
            "rows": {
                "size": 2,
                "distance": "Dot",
                "multivector_config": { "comparator": "max_sim" }
            }
        },
        "sparse_vectors": { "words": {} }
    }));
    let points: Vec<_> = (1..=3)
        .map(|id| json!({ "id": id, "vector": { "image": [id, 1, 2, 3] }, "payload": { "n": id } }))
        .collect();
    write(&shard, "PUT", "/points", &json!({ "points": points })).expect("good points");
    (dir, shard)
}

fn request(shard: &Shard, line: &str, body: &Value) -> Result<Value, Error> {
    let (method, path) = line.split_once(' ').expect("a method and a path");
    match parse_request(method, path, &body.to_string())? {
        edge_sync_engine::Request::Read(request) => shard.read(request),
        edge_sync_engine::Request::Write(write) => {
            shard.validate(&write)?;
            for step in write.steps() {
                shard.prepare(step)?;
            }
            Ok(Value::Null)
        }
        edge_sync_engine::Request::Configure(changes) => {
            let changed = shard.config().changed(&changes, Strictness::Strict)?;
            Ok(changed.to_json())
        }
    }
}

#[test]
fn bad_input_is_refused_by_name() {
    let (_dir, shard) = shard();
    let point = |vector: Value| json!({ "points": [{ "id": 1, "vector": vector }] });
    let query = |query: Value| json!({ "query": query, "using": "image" });
    let filtered = |condition: Value| json!({ "filter": { "must": [condition] } });
    let vector = json!([1, 2, 3, 4]);
    #[rustfmt::skip]
    let cases = [
        // Points.
        ("PUT /points", json!({ "points": [{ "id": 1, "vector": { "image": [1, 2, 3] } }] }),
            "points[0].vector.image", "Vector dimension error: expected dim: 4, got 3"),
        ("PUT /points", point(json!({ "image": [1, 2, 3, 1e39] })), "points[0].vector.image[3]", "finite"),
        ("PUT /points", point(json!({ "image": [1, 2, 3, "x"] })), "points[0].vector.image[3]", "finite"),
        ("PUT /points", point(json!({ "imag": [1, 2, 3, 4] })), "points[0].vector.imag",
            "Not existing vector name error: imag; the collection has `image`, `rows`, `words`"),
        ("PUT /points", point(vector.clone()), "points[0].vector", "Not existing vector name"),
        ("PUT /points", point(json!({ "image": [[1, 2, 3, 4]] })), "points[0].vector.image", "Wrong usage of multi vectors"),
        ("PUT /points", point(json!({ "image": { "indices": [1], "values": [1] } })), "points[0].vector.image", "Wrong usage of sparse vectors"),
        ("PUT /points", point(json!({ "words": [1, 2] })), "points[0].vector.words", "`words` is a sparse vector"),
        ("PUT /points", point(json!({ "words": { "indices": [1, 1], "values": [1, 2] } })), "points[0].vector.words", "unique"),
        ("PUT /points", point(json!({ "words": { "indices": [1, 2], "values": [1] } })), "points[0].vector.words", "same length"),
        ("PUT /points", point(json!({ "words": { "indices": [-1], "values": [1] } })), "points[0].vector.words.indices[0]", "unsigned 32-bit"),
        ("PUT /points", point(json!({ "words": { "indices": [1], "values": [1], "x": 1 } })), "points[0].vector.words.x", "unknown field `x`"),
        ("PUT /points", point(json!({ "rows": [[1, 2], [3]] })), "points[0].vector.rows", "of one length"),
        ("PUT /points", point(json!({ "rows": [[]] })), "points[0].vector.rows", "cannot be empty"),
        ("PUT /points", point(json!({ "rows": [[1, 2, 3]] })), "points[0].vector.rows", "expected dim: 2, got 3"),
        ("PUT /points", json!({ "points": [{ "id": -1, "vector": {} }] }), "points[0].id",
            "value -1 is not a valid point ID, valid values are either an unsigned integer or a UUID"),
        ("PUT /points", json!({ "points": [{ "id": "no-uuid", "vector": {} }] }), "points[0].id", "not a valid point ID"),
        ("PUT /points", json!({ "points": [{ "id": 1.5, "vector": {} }] }), "points[0].id", "not a valid point ID"),
        ("PUT /points", json!({ "points": [{ "vector": {} }] }), "points[0].id", "missing field `id`"),
        ("PUT /points", json!({ "points": [{ "id": 1 }] }), "points[0].vector", "missing field `vector`"),
        ("PUT /points", json!({ "points": [{ "id": 1, "vector": {}, "payload": [1] }] }), "points[0].payload", "expected an object"),
        ("PUT /points", json!({ "points": [{ "id": 1, "vector": {}, "payloads": {} }] }), "points[0].payloads", "unknown field `payloads`, expected one of `id`, `vector`, `payload`"),
        ("PUT /points", json!({ "points": [], "batch": {} }), "", "exactly one of `points`, `batch`"),
        ("PUT /points", json!({ "batch": { "ids": [1, 2], "vectors": { "image": [[1, 2, 3, 4]] } } }), "batch.vectors.image", "must be equal"),
        ("PUT /points", json!({ "batch": { "ids": [1], "vectors": { "image": [[1, 2]] } } }), "batch.vectors.image[0]", "expected dim: 4, got 2"),
        ("PUT /points", json!({ "points": [], "update_mode": "replace" }), "update_mode", "unknown mode"),
        ("PUT /points", json!({ "points": [], "update_filter": { "mus": [] } }), "update_filter.mus", "unknown field `mus`"),
        ("PUT /points/vectors", json!({ "points": [{ "id": 1, "vector": { "image": [1] } }] }), "points[0].vector.image", "got 1"),
        ("POST /points/vectors/delete", json!({ "points": [1], "vector": ["nope"] }), "vector[0]", "Not existing vector name"),
        ("POST /points/vectors/delete", json!({ "points": [1], "vector": [] }), "vector", "must specify vector names to delete"),
        ("POST /points/payload", json!({ "points": [1], "payload": 1 }), "payload", "expected an object"),
        ("POST /points/payload", json!({ "payload": {} }), "", "either list of point ids or filter"),
        ("POST /points/payload", json!({ "points": [1], "payload": {}, "key": "a[" }), "key", "payload path"),
        ("POST /points/payload/delete", json!({ "points": [1], "keys": ["a", ""] }), "keys[1]", "payload path"),
        ("POST /points/delete", json!({ "points": [1], "filter": {} }), "", "cannot be combined"),
        ("POST /points/batch", json!({ "operations": [{ "upsert": point(json!({ "image": [1] })) }] }),
            "operations[0].upsert.points[0].vector.image", "expected dim: 4, got 1"),
        ("POST /points/batch", json!({ "operations": [{ "upserts": {} }] }), "operations[0].upserts", "unknown field"),
        // Indexes and vector names.
        ("PUT /index", json!({ "field_name": "a", "field_schema": "keywords" }), "field_schema", ""),
        ("PUT /index", json!({ "field_name": "a" }), "field_schema", "missing field"),
        ("PUT /index", json!({ "field_name": "a[", "field_schema": "keyword" }), "field_name", "payload path"),
        ("PUT /index", json!({ "field_name": "a", "field_schema": { "type": "integer", "lookups": true } }), "field_schema.lookups", "unknown field"),
        ("PUT /index", json!({ "field_name": "a", "field_schema": { "type": "integer", "lookup": false, "range": false } }), "field_schema", "both disabled"),
        ("PUT /index", json!({ "field_name": "a", "field_schema": { "type": "text", "min_token_len": 5, "max_token_len": 2 } }), "field_schema", "min_token_len"),
        ("PUT /index", json!({ "field_name": "a", "field_schema": { "type": "keyword", "nested": "offers" } }), "field_schema", "must be inside"),
        ("PUT /index", json!({ "field_name": "a", "field_schema": { "type": "text", "scoring": { "kind": "bm25" } } }), "field_schema.scoring.kind", "unknown field"),
        ("PUT /vectors/new", json!({ "dense": { "size": 0, "distance": "Dot" } }), "dense.size", "1 or larger"),
        ("PUT /vectors/new", json!({ "dense": { "size": 4, "distance": "Cosinus" } }), "dense.distance", "Cosinus"),
        ("PUT /vectors/new", json!({}), "", "exactly one of"),
        // Filters.
        ("POST /points/count", filtered(json!({ "key": "n", "mach": { "value": 1 } })), "filter.must[0].mach", "unknown field `mach`"),
        ("POST /points/count", filtered(json!({ "keys": "n" })), "filter.must[0].keys", "unknown field"),
        ("POST /points/count", filtered(json!({ "key": "n" })), "filter.must[0]", "at least one"),
        ("POST /points/count", filtered(json!({ "key": "n", "match": { "valu": 1 } })), "filter.must[0].match.valu", "unknown field"),
        ("POST /points/count", filtered(json!({ "key": "n", "match": { "any": [1, "a"] } })), "filter.must[0].match.any", "array of strings or"),
        ("POST /points/count", filtered(json!({ "key": "n", "range": { "gth": 1 } })), "filter.must[0].range.gth", "unknown field"),
        ("POST /points/count", filtered(json!({ "key": "n", "range": { "gt": "yesterday" } })), "filter.must[0].range.gt", "date and time"),
        ("POST /points/count", filtered(json!({ "key": "n", "range": { "gt": 1, "lt": "2024-01-01" } })), "filter.must[0].range", "not both"),
        ("POST /points/count", filtered(json!({ "key": "n", "match": { "value": 1.5 } })), "filter.must[0].match.value", "a string, an integer or a boolean"),
        ("POST /points/count", filtered(json!({ "key": "n", "match": { "text": 1 } })), "filter.must[0].match.text", "expected a string"),
        ("POST /points/count", filtered(json!({ "key": "n", "values_count": { "gt": -1 } })), "filter.must[0].values_count.gt", "unsigned integer"),
        ("POST /points/count", filtered(json!({ "key": "n", "geo_radius": { "center": { "lon": 500, "lat": 0 }, "radius": 1 } })), "filter.must[0].geo_radius.center", "GeoPoint"),
        ("POST /points/count", filtered(json!({ "key": "n", "geo_polygon": { "exterior": { "points": [{ "lon": 0, "lat": 0 }] } } })), "filter.must[0]", "polygon"),
        ("POST /points/count", filtered(json!({ "has_id": [1, true] })), "filter.must[0].has_id[1]", "not a valid point ID"),
        ("POST /points/count", filtered(json!({ "slice": { "total": 2, "index": 2 } })), "filter.must[0].slice", "less than"),
        ("POST /points/count", filtered(json!({ "nested": { "key": "a", "filter": { "must": [{ "key": 1 }] } } })), "filter.must[0].nested.filter.must[0].key", "expected a string"),
        ("POST /points/count", json!({ "filter": { "min_should": { "conditions": [], "min_count": 0 } } }), "filter.min_should.min_count", "1 or larger"),
        ("POST /points/count", json!({ "filters": {} }), "filters", "unknown field"),
        // Queries.
        ("POST /points/query", query(json!([1, 2, 3])), "query", "expected dim: 4, got 3"),
        ("POST /points/query", json!({ "query": vector, "using": "nope" }), "using", "Not existing vector name"),
        ("POST /points/query", query(json!({ "neares": vector })), "query.neares", "unknown field"),
        ("POST /points/query", query(json!({ "indices": [1], "values": [1] })), "query", "sparse"),
        ("POST /points/query", query(json!({ "recommend": { "negative": [1] } })), "query.recommend.positive", "at least one positive"),
        ("POST /points/query", query(json!({ "recommend": { "strategy": "best_score" } })), "query.recommend", "at least one"),
        ("POST /points/query", query(json!({ "recommend": { "positive": [1], "strategy": "best" } })), "query.recommend.strategy", "unknown strategy"),
        ("POST /points/query", query(json!({ "discover": { "context": [] } })), "query.discover.target", "missing field"),
        ("POST /points/query", query(json!({ "fusion": "rff" })), "query.fusion", "unknown fusion"),
        ("POST /points/query", query(json!({ "sample": "all" })), "query.sample", "unknown sample"),
        ("POST /points/query", query(json!({ "nearest": vector, "mmr": { "diversity": 2 } })), "query.mmr.diversity", "between"),
        ("POST /points/query", query(json!({ "nearest": vector, "mmr": { "candidates_limit": 100_000 } })), "query.mmr.candidates_limit", "16384"),
        ("POST /points/query", query(json!({ "formula": { "summ": [1] } })), "query.formula.summ", "unknown field"),
        ("POST /points/query", query(json!({ "formula": { "exp_decay": { "x": "$score", "midpoint": 2 } } })), "query.formula", ""),
        ("POST /points/query", query(json!({ "order_by": { "key": "n", "direction": "up" } })), "query.order_by", ""),
        ("POST /points/query", query(json!({ "order_by": "n" })), "", "No range index"),
        ("POST /points/query", query(json!({ "text": 5 })), "query.text", "expected an object"),
        ("POST /points/query", query(json!({ "text": { "query": "a", "scoring": { "bm25": { "b": 2 } } } })), "query.text.scoring.bm25.b", "from 0.0 to 1.0"),
        ("POST /points/query", json!({ "query": { "text": "a" }, "using": "" }), "using", "payload field"),
        ("POST /points/query", json!({ "query": { "text": "a" }, "using": "n" }), "", "requires a text index"),
        ("POST /points/query", query(json!({ "formula": { "max": [] } })), "query.formula", "at least one operand"),
        ("POST /points/query", json!({ "query": vector, "using": "image", "limit": 0 }), "limit", "1 or larger"),
        ("POST /points/query", json!({ "query": vector, "using": "image", "limit": -1 }), "limit", "unsigned integer"),
        ("POST /points/query", json!({ "query": vector, "using": "image", "params": { "hnsw_efs": 1 } }), "params.hnsw_efs", "unknown field"),
        ("POST /points/query", json!({ "query": vector, "using": "image", "params": { "quantization": { "oversampling": 0.5 } } }), "params.quantization", "1.0 or larger"),
        ("POST /points/query", json!({ "query": vector, "using": "image", "with_payload": "all" }), "with_payload", ""),
        ("POST /points/query", json!({ "prefetch": [{ "query": [1], "using": "image" }], "query": { "fusion": "rrf" } }), "prefetch[0].query", "got 1"),
        ("POST /points/query", json!({ "prefetch": { "query": vector, "using": "image" } }), "", ""),
        ("POST /points/query/groups", json!({ "query": vector, "using": "image" }), "group_by", "missing field"),
        ("POST /points/search/matrix/pairs", json!({ "sample": 1, "using": "image" }), "sample", "2 or larger"),
        ("POST /points/search/matrix/pairs", json!({ "using": "nope" }), "using", "Not existing vector name"),
        ("POST /points/scroll", json!({ "offset": "x" }), "offset", "not a valid point ID"),
        ("POST /points/scroll", json!({ "order_by": "n" }), "", "No range index"),
        ("POST /facet", json!({ "key": "n" }), "", "No appropriate index"),
        ("GET /points/zero", Value::Null, "", "not a valid point ID"),
    ];
    let mut failures = Vec::new();
    for (line, body, field, words) in cases {
        match request(&shard, line, &body) {
            Err(Error::InvalidInput { field: at, message })
                if at == field && message.contains(words) => {}
            other => failures.push(format!(
                "{line} {body}\n  gives {other:?}\n  for {field:?}: {words}"
            )),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_a_local_shard_cannot_do_says_so() {
    let (_dir, shard) = shard();
    let vector = json!([1, 2, 3, 4]);
    for (line, body) in [
        (
            "POST /points/query",
            json!({ "query": 1, "lookup_from": { "collection": "other" } }),
        ),
        (
            "POST /points/query",
            json!({ "query": vector, "shard_key": "a" }),
        ),
        (
            "POST /points/query/groups",
            json!({ "group_by": "n", "with_lookup": "other" }),
        ),
        (
            "POST /points/query",
            json!({ "query": { "text": "a", "model": "minilm" } }),
        ),
        (
            "POST /points/query",
            json!({ "query": { "image": "a", "model": "clip" } }),
        ),
        (
            "POST /points/search",
            json!({ "vector": vector, "limit": 1 }),
        ),
    ] {
        let error = request(&shard, line, &body).expect_err("not supported");
        assert!(matches!(error, Error::Unsupported(_)), "{line}: {error:?}");
    }
    for line in [
        "POST /points/qery",
        "DELETE /points",
        "GET /nothing",
        "PATCH /points",
    ] {
        let error = request(&shard, line, &json!({})).expect_err("no such path");
        assert!(matches!(error, Error::NotFound(_)), "{line}: {error:?}");
    }
    for (line, body) in [
        (
            "POST /points/payload",
            json!({ "points": [1, 99], "payload": {} }),
        ),
        ("POST /points/payload/clear", json!({ "points": [99] })),
        (
            "PUT /points/vectors",
            json!({ "points": [{ "id": 99, "vector": {} }] }),
        ),
        (
            "POST /points/query",
            json!({ "query": 99, "using": "image" }),
        ),
        ("POST /points/query", json!({ "query": 1, "using": "rows" })),
        ("GET /points/99", Value::Null),
        ("DELETE /vectors/nope", Value::Null),
    ] {
        let error = request(&shard, line, &body).expect_err("not there");
        assert!(matches!(error, Error::NotFound(_)), "{line}: {error:?}");
    }
    let taken = json!({ "dense": { "size": 5, "distance": "Dot" } });
    let error = request(&shard, "PUT /vectors/image", &taken).expect_err("there already");
    assert!(matches!(error, Error::AlreadyExists(_)), "{error:?}");
}

#[test]
fn text_that_is_not_json_is_refused() {
    for body in [
        "{",
        "[1,",
        "{\"limit\": 01}",
        "nul",
        "{\"a\": NaN}",
        "\u{0}",
    ] {
        let error = parse_request("POST", "/points/query", body).expect_err("not JSON");
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
    }
    let deep = |open: &str, close: &str, depth: usize| {
        format!("{}{{}}{}", open.repeat(depth), close.repeat(depth))
    };
    for depth in [40, 60, 100, 10_000, 1_000_000] {
        let filter = deep("{\"must\":[", "]}", depth);
        let body = format!("{{\"filter\":{filter}}}");
        let error = parse_request("POST", "/points/count", &body).expect_err("too deep");
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
        let body = deep("{\"prefetch\":", "}", depth);
        let error = parse_request("POST", "/points/query", &body).expect_err("too deep");
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
        let formula = format!("{}1{}", "{\"neg\":".repeat(depth), "}".repeat(depth));
        let body = format!("{{\"query\":{{\"formula\":{formula}}}}}");
        let error = parse_request("POST", "/points/query", &body).expect_err("too deep");
        assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
    }
}

#[test]
fn typed_points_are_checked_as_rest_points_are() {
    let (_dir, shard) = shard();
    let point = |name: &str, vector: Vector| Point {
        id: PointId::Num(7),
        vectors: Vectors::from([(name.to_owned(), vector)]),
        payload: None,
    };
    let refused = |point: Point| match shard.prepare_upsert(vec![point]) {
        Err(Error::InvalidInput { field, message }) => (field, message),
        other => panic!("{other:?}"),
    };
    let (field, message) = refused(point("image", Vector::Dense(vec![1.0; 3])));
    assert_eq!(field, "points[0].vector.image");
    assert_eq!(message, "Vector dimension error: expected dim: 4, got 3");
    for bad in [f32::NAN, f32::INFINITY] {
        let (_, message) = refused(point("image", Vector::Dense(vec![0.0, bad, 0.0, 0.0])));
        assert!(message.contains("finite"), "{message}");
        refused(point("rows", Vector::Multi(vec![vec![0.0, bad]])));
        refused(point(
            "words",
            Vector::Sparse {
                indices: vec![1],
                values: vec![bad],
            },
        ));
    }
    refused(point("rows", Vector::Multi(vec![])));
    refused(point("nope", Vector::Dense(vec![])));
}

#[test]
fn configurations_are_checked() {
    let vector = json!({ "size": 4, "distance": "Dot" });
    for (config, field) in [
        (json!({ "vektors": {} }), "vektors"),
        (json!({ "vectors": { "size": 4 } }), "vectors.distance"),
        (
            json!({ "vectors": { "size": 0, "distance": "Dot" } }),
            "vectors.size",
        ),
        (
            json!({ "vectors": { "size": 70_000, "distance": "Dot" } }),
            "vectors.size",
        ),
        (
            json!({ "vectors": { "a": { "size": 4, "distance": "L3" } } }),
            "vectors.a.distance",
        ),
        (
            json!({ "vectors": { "a": { "size": 4, "distance": "Dot", "ondisk": true } } }),
            "vectors.a.ondisk",
        ),
        (
            json!({ "vectors": vector, "hnsw_config": { "ef": 1 } }),
            "hnsw_config.ef",
        ),
        (
            json!({ "vectors": vector, "hnsw_config": { "ef_construct": 1 } }),
            "hnsw_config.ef_construct",
        ),
        (
            json!({ "vectors": vector, "quantization_config": { "scalar": { "type": "int4" } } }),
            "quantization_config",
        ),
        (
            json!({ "vectors": vector, "quantization_config": { "scalar": { "type": "int8", "quantile": 0.1 } } }),
            "quantization_config.scalar.quantile",
        ),
        (
            json!({ "vectors": vector, "quantization_config": { "turbo": { "bit": "bits4" } } }),
            "quantization_config.turbo.bit",
        ),
        (
            json!({ "vectors": vector, "optimizers_config": { "deleted_threshold": 2 } }),
            "optimizers_config.deleted_threshold",
        ),
        (
            json!({ "sparse_vectors": { "s": { "modifier": "tf" } } }),
            "sparse_vectors.s.modifier",
        ),
        (
            json!({ "sparse_vectors": { "s": { "on_disk": true } } }),
            "sparse_vectors.s.on_disk",
        ),
        (json!({ "shard_number": 0 }), "shard_number"),
        (json!([]), ""),
    ] {
        match CollectionConfig::from_value(&config) {
            Err(Error::InvalidInput { field: at, .. }) => assert_eq!(at, field, "{config}"),
            other => panic!("{config}: {other:?}"),
        }
    }
}

#[test]
fn good_reads_still_work_beside_the_bad() {
    let (_dir, shard) = shard();
    let result = read(
        &shard,
        "POST",
        "/points/query",
        &json!({ "query": 1, "using": "image", "limit": 1_000_000_000_000_u64, "offset": 1_000_000_000_000_u64 }),
    )
    .expect("beyond the end");
    assert_eq!(result, json!({ "points": [] }));
    let result = read(
        &shard,
        "POST",
        "/points/query",
        &json!({ "query": 1, "using": "image", "limit": 1_000_000_000_u64, "params": { "hnsw_ef": 1_000_000_000_u64 } }),
    )
    .expect("all of them");
    assert_eq!(result["points"].as_array().map(Vec::len), Some(2));
}

#[test]
fn values_that_float16_cannot_hold_are_refused() {
    let (_dir, shard) = created(&json!({
        "vectors": {
            "half": { "size": 2, "distance": "Dot", "datatype": "float16" },
            "normalized": { "size": 2, "distance": "Cosine", "datatype": "float16" },
            "whole": { "size": 2, "distance": "Dot" }
        }
    }));
    let upsert = |name: &str, value: f64| {
        let body = json!({ "points": [{ "id": 1, "vector": { name: [1, value] } }] });
        request(&shard, "PUT /points", &body)
    };
    for value in [65_520.0, -70_000.0, 1e30] {
        let Err(Error::InvalidInput { field, message }) = upsert("half", value) else {
            panic!("{value} was taken");
        };
        assert_eq!(field, "points[0].vector.half");
        assert!(
            message.contains("float16") && message.contains("65504"),
            "{message}"
        );
        assert!(upsert("normalized", value).is_ok());
        assert!(upsert("whole", value).is_ok());
    }
    assert!(upsert("half", 65_519.0).is_ok());
}
