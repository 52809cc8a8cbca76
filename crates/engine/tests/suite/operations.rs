//! Operations: their bytes, their uploads, and that applying them again changes nothing.

use std::collections::BTreeMap;

use crate::common::{created, read, write, write_request};
use edge_sync_engine::{
    Error, Operation, Payload, Point, PointId, Shard, UpdateMode, Upload, UploadElement, Vector,
    Vectors, merge_uploads,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Map, Number, Value, json};

#[test]
fn the_shards_points_are_counted_once_wherever_they_are() {
    let (_dir, shard) = created(&json!({
        "vectors": { "size": 2, "distance": "Dot" },
        "optimizers_config": { "default_segment_number": 2, "indexing_threshold": 1 },
    }));
    let check = |shard: &Shard, expected: u64, when: &str| {
        assert_eq!(shard.count(None).expect("counts"), expected, "{when}");
        assert_eq!(shard.info().expect("info").points, expected, "{when}");
    };
    let put = |ids: std::ops::Range<u64>| {
        let points: Vec<_> = ids
            .map(|id| json!({ "id": id, "vector": [id, 1], "payload": { "n": id } }))
            .collect();
        write(&shard, "PUT", "/points", &json!({ "points": points })).expect("upserts");
    };
    put(0..1000);
    check(&shard, 1000, "in one segment");
    shard.optimize().expect("optimizes");
    assert!(shard.info().expect("info").indexed_vectors > 0);
    check(&shard, 1000, "in an index");
    // They move to another segment.
    put(900..1100);
    check(&shard, 1100, "overwritten");
    let body = json!({ "payload": { "m": 1 }, "filter": { "must": [{ "key": "n", "range": { "lt": 100 } }] } });
    write(&shard, "POST", "/points/payload", &body).expect("sets payloads");
    let body = json!({ "points": [{ "id": 200, "vector": [7, 7] }] });
    write(&shard, "PUT", "/points/vectors", &body).expect("changes vectors");
    check(&shard, 1100, "changed");
    let body = json!({ "points": (50..950).collect::<Vec<_>>() });
    write(&shard, "POST", "/points/delete", &body).expect("deletes");
    check(&shard, 200, "deleted");
    shard.flush().expect("flushes");
    check(&shard, 200, "flushed");
    shard.optimize().expect("optimizes");
    check(&shard, 200, "optimized again");
}

fn id() -> impl Strategy<Value = PointId> {
    prop_oneof![
        (0..6_u64).prop_map(PointId::Num),
        any::<u64>().prop_map(PointId::Num),
        any::<u128>().prop_map(|bits| {
            let text = format!("{bits:032x}");
            PointId::parse_uuid(&text).expect("32 hex digits")
        }),
    ]
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter_map("finite", |number| {
            Number::from_f64(number).map(Value::Number)
        }),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number(),
        ".{0,8}".prop_map(Value::String),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec((".{0,4}", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    vec((".{0,4}", value()), 0..4).prop_map(|entries| entries.into_iter().collect())
}

fn float() -> impl Strategy<Value = f32> {
    prop_oneof![
        -2.0..2.0_f32,
        any::<f32>().prop_filter("finite", |number| number.is_finite())
    ]
}

fn vector() -> impl Strategy<Value = Vector> {
    prop_oneof![
        vec(float(), 0..9).prop_map(Vector::Dense),
        vec((any::<u32>(), float()), 0..9).prop_map(|pairs| {
            let (indices, values) = pairs.into_iter().unzip();
            Vector::Sparse { indices, values }
        }),
        (1..4_usize, 1..4_usize)
            .prop_flat_map(|(rows, columns)| vec(vec(float(), columns), rows))
            .prop_map(Vector::Multi),
    ]
}

fn vectors() -> impl Strategy<Value = Vectors> {
    btree_map(".{0,4}", vector(), 0..4)
}

fn point() -> impl Strategy<Value = Point> {
    (id(), vectors(), proptest::option::of(payload())).prop_map(|(id, vectors, payload)| Point {
        id,
        vectors,
        payload,
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let ids = || vec(id(), 0..4);
    let names = || vec(".{0,4}", 0..3);
    let key = || proptest::option::of(".{0,4}");
    let mode = prop_oneof![
        Just(UpdateMode::Upsert),
        Just(UpdateMode::InsertOnly),
        Just(UpdateMode::UpdateOnly)
    ];
    // JSON null is no condition.
    let condition = || proptest::option::of(payload().prop_map(Value::Object));
    prop_oneof![
        point().prop_map(Operation::UpsertPoint),
        (point(), mode, condition()).prop_map(|(point, mode, condition)| {
            Operation::UpsertPointIf {
                point,
                mode,
                condition,
            }
        }),
        ids().prop_map(|ids| Operation::DeletePoints { ids }),
        (id(), vectors(), condition()).prop_map(|(id, vectors, condition)| {
            Operation::UpdateVectors {
                id,
                vectors,
                condition,
            }
        }),
        (ids(), names()).prop_map(|(ids, names)| Operation::DeleteVectors { ids, names }),
        (ids(), payload(), key()).prop_map(|(ids, payload, key)| Operation::SetPayload {
            ids,
            payload,
            key
        }),
        (ids(), payload(), key()).prop_map(|(ids, payload, key)| Operation::OverwritePayload {
            ids,
            payload,
            key
        }),
        (ids(), names()).prop_map(|(ids, keys)| Operation::DeletePayload { ids, keys }),
        ids().prop_map(|ids| Operation::ClearPayload { ids }),
        (".{0,4}", value())
            .prop_map(|(field, schema)| Operation::CreatePayloadIndex { field, schema }),
        ".{0,4}".prop_map(|field| Operation::DeletePayloadIndex { field }),
        (".{0,4}", value()).prop_map(|(name, config)| Operation::CreateVectorName { name, config }),
        ".{0,4}".prop_map(|name| Operation::DeleteVectorName { name }),
    ]
}

/// Value equality takes 1 and 1.0, and 0.0 and -0.0, for different; so must the bytes.
fn text(operation: &Operation) -> String {
    format!("{operation:?}")
}

proptest! {
    #[test]
    fn decoding_undoes_encoding(operation in operation()) {
        let decoded = Operation::decode(&operation.encode()).expect("decodes");
        prop_assert_eq!(text(&decoded), text(&operation));
    }

    /// As any writer of CBOR has it that takes as few bytes as can be.
    #[test]
    fn the_bytes_are_those_of_the_same_value_written_anew(operation in operation()) {
        let bytes = operation.encode();
        let value: ciborium::Value = ciborium::from_reader(bytes.as_slice()).expect("CBOR");
        let mut again = Vec::new();
        ciborium::into_writer(&value, &mut again).expect("in memory");
        prop_assert_eq!(bytes, again);
    }

    #[test]
    fn bytes_after_an_operation_are_refused(operation in operation(), tail in vec(any::<u8>(), 1..9)) {
        let mut bytes = operation.encode();
        bytes.extend(tail);
        prop_assert!(Operation::decode(&bytes).is_err());
    }

    #[test]
    fn a_cut_operation_is_refused(operation in operation(), cut in any::<prop::sample::Index>()) {
        let bytes = operation.encode();
        let keep = cut.index(bytes.len());
        prop_assert!(Operation::decode(&bytes[..keep]).is_err());
    }

    #[test]
    fn damaged_bytes_never_panic(
        operation in operation(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        let mut bytes = operation.encode();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(other) = Operation::decode(&bytes) {
            other.encode();
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..64)) {
        let _ = Operation::decode(&bytes);
    }
}

#[test]
fn the_encoding_is_what_is_written_down() {
    let operation = Operation::UpsertPoint(Point {
        id: PointId::parse_uuid("00000000-0000-400b-8000-000000000005").expect("a UUID"),
        vectors: Vectors::from([
            (String::new(), Vector::Dense(vec![1.0, -0.5])),
            (
                "s".to_owned(),
                Vector::Sparse {
                    indices: vec![7],
                    values: vec![2.0],
                },
            ),
            ("m".to_owned(), Vector::Multi(vec![vec![1.0], vec![2.0]])),
        ]),
        payload: Some(Map::from_iter([("n".to_owned(), json!(1.0))])),
    });
    let hex: String = operation
        .encode()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let expected = [
        "a1",             // {
        "66757073657274", //   "upsert":
        "a3",             //   {
        "626964",         //     "id":
        "d825",           //       37(
        "50000000000000400b8000000000000005",
        "67766563746f7273",       //     "vectors":
        "a3",                     //     {
        "60",                     //       "":
        "d855480000803f000000bf", //         85(1.0, -0.5)
        "616d",                   //       "m":
        "d828",                   //         40([
        "82",
        "820201",                 //           [2, 1],
        "d855480000803f00000040", //           85(1.0, 2.0)])
        "6173",                   //       "s":
        "a2",
        "67696e6469636573", //         "indices":
        "d8464407000000",   //           70(7)
        "6676616c756573",   //         "values":
        "d8554400000040",   //           85(2.0)
        "677061796c6f6164", //     "payload":
        "a1",
        "616e",   //       "n":
        "f93c00", //         1.0
    ]
    .concat();
    assert_eq!(hex, expected);
}

type VectorsAndPayload = (BTreeMap<String, Value>, Map<String, Value>);

/// A collection in a few lines: what the server would hold after a list of `points/batch`
/// operations.
#[derive(Debug, Clone, PartialEq, Default)]
struct Model {
    points: BTreeMap<String, VectorsAndPayload>,
}

impl Model {
    fn apply(&mut self, element: &Value) {
        let (kind, body) = element
            .as_object()
            .and_then(|map| map.iter().next())
            .expect("one operation");
        let listed = body["points"].as_array().cloned().unwrap_or_default();
        let conditional = body.get("update_mode").is_some();
        for entry in &listed {
            let key = entry.get("id").unwrap_or(entry).to_string();
            let vectors = || -> BTreeMap<String, Value> {
                match &entry["vector"] {
                    Value::Object(named) => named.clone().into_iter().collect(),
                    bare => BTreeMap::from([(String::new(), bare.clone())]),
                }
            };
            match kind.as_str() {
                "upsert" => {
                    let exists = self.points.contains_key(&key);
                    let skipped = match body.get("update_mode").and_then(Value::as_str) {
                        Some("insert_only") => exists,
                        Some("update_only") => !exists,
                        _ => false,
                    };
                    assert!(conditional || !skipped);
                    if !skipped {
                        let payload = entry.get("payload").and_then(Value::as_object).cloned();
                        self.points
                            .insert(key, (vectors(), payload.unwrap_or_default()));
                    }
                }
                "delete" => {
                    self.points.remove(&key);
                }
                other => {
                    let Some((held, payload)) = self.points.get_mut(&key) else {
                        continue;
                    };
                    let set = body["payload"].as_object().cloned().unwrap_or_default();
                    let list = |name: &str| -> Vec<String> {
                        let items = body[name].as_array().into_iter().flatten();
                        items
                            .filter_map(|item| item.as_str().map(str::to_owned))
                            .collect()
                    };
                    match other {
                        "update_vectors" => held.extend(vectors()),
                        "delete_vectors" => list("vector").iter().for_each(|name| {
                            held.remove(name);
                        }),
                        "set_payload" => payload.extend(set),
                        "overwrite_payload" => *payload = set,
                        "delete_payload" => list("keys").iter().for_each(|key| {
                            payload.remove(key);
                        }),
                        "clear_payload" => payload.clear(),
                        unknown => panic!("{unknown}"),
                    }
                }
            }
        }
    }
}

/// Point operations that collide often: few ids, few names.
fn colliding() -> impl Strategy<Value = Operation> {
    let id = || (0..4_u64).prop_map(PointId::Num);
    let ids = move || {
        proptest::collection::btree_set(id(), 1..4)
            .prop_map(|ids| ids.into_iter().collect::<Vec<_>>())
    };
    let name = || prop_oneof![Just(String::new()), Just("v".to_owned())];
    let vectors = move || {
        btree_map(
            name(),
            (0..9_u8).prop_map(|n| Vector::Dense(vec![f32::from(n), 1.0])),
            0..3,
        )
    };
    let payload = || {
        btree_map(
            prop_oneof![Just("a".to_owned()), Just("b".to_owned())],
            0..9_u8,
            0..3,
        )
        .prop_map(|map| {
            map.into_iter()
                .map(|(k, v)| (k, json!(v)))
                .collect::<Payload>()
        })
    };
    let point = move || {
        (id(), vectors(), proptest::option::of(payload())).prop_map(|(id, vectors, payload)| {
            Point {
                id,
                vectors,
                payload,
            }
        })
    };
    prop_oneof![
        4 => point().prop_map(Operation::UpsertPoint),
        1 => (point(), any::<bool>()).prop_map(|(point, insert)| Operation::UpsertPointIf {
            point,
            mode: if insert { UpdateMode::InsertOnly } else { UpdateMode::UpdateOnly },
            condition: None,
        }),
        2 => ids().prop_map(|ids| Operation::DeletePoints { ids }),
        1 => (id(), vectors()).prop_map(|(id, vectors)| Operation::UpdateVectors { id, vectors, condition: None }),
        1 => (ids(), name()).prop_map(|(ids, name)| Operation::DeleteVectors { ids, names: vec![name] }),
        2 => (ids(), payload()).prop_map(|(ids, payload)| Operation::SetPayload { ids, payload, key: None }),
        1 => (ids(), payload()).prop_map(|(ids, payload)| Operation::OverwritePayload { ids, payload, key: None }),
        1 => ids().prop_map(|ids| Operation::DeletePayload { ids, keys: vec!["a".to_owned()] }),
        1 => ids().prop_map(|ids| Operation::ClearPayload { ids }),
    ]
}

fn uploaded(model: &mut Model, operations: &[Operation]) {
    for operation in operations {
        match operation.upload().expect("JSON") {
            Upload::Batch(element) => {
                model.apply(&serde_json::from_str(&element).expect("JSON"));
            }
            Upload::Request { .. } => panic!("{operation:?}"),
        }
    }
}

/// The elements of one request that does what the operations do, and the size that each had alone.
fn merged(operations: &[Operation]) -> Vec<Value> {
    let alone = |operation: &Operation| {
        let element = UploadElement::new(operation).expect("a point operation");
        let bytes = element.bytes();
        assert_eq!(element.into_text().len(), bytes);
        let element = UploadElement::new(operation).expect("a point operation");
        (operation.clone(), element)
    };
    let text = merge_uploads(operations.iter().map(alone).collect()).expect("JSON");
    serde_json::from_str(&text).expect("JSON")
}

proptest! {
    #[test]
    fn merged_uploads_do_what_the_operations_do(
        before in vec(colliding(), 0..6),
        operations in vec(colliding(), 0..16),
    ) {
        let mut one = Model::default();
        uploaded(&mut one, &before);
        let mut other = one.clone();
        uploaded(&mut one, &operations);
        let merged = merged(&operations);
        prop_assert!(merged.len() <= operations.len());
        for element in &merged {
            other.apply(element);
        }
        prop_assert_eq!(one, other);
    }
}

#[test]
fn writes_to_one_point_are_merged_into_the_last() {
    let point = |id: u64, n: u8| {
        Operation::UpsertPoint(Point {
            id: PointId::Num(id),
            vectors: Vectors::from([(String::new(), Vector::Dense(vec![f32::from(n)]))]),
            payload: None,
        })
    };
    let ids = |ids: &[u64]| ids.iter().copied().map(PointId::Num).collect::<Vec<_>>();
    let set = |list: &[u64]| Operation::SetPayload {
        ids: ids(list),
        payload: Map::from_iter([("a".to_owned(), json!(1))]),
        key: None,
    };
    let merged = merged(&[
        point(1, 1),
        set(&[1, 2]),
        point(2, 2),
        point(1, 3),
        point(3, 4),
        set(&[3]),
        set(&[1]),
        Operation::DeletePoints { ids: ids(&[2]) },
        Operation::DeletePoints { ids: ids(&[9]) },
    ]);
    assert_eq!(
        merged,
        [
            json!({ "upsert": { "points": [
                { "id": 1, "vector": [3.0] },
                { "id": 3, "vector": [4.0] },
            ] } }),
            json!({ "set_payload": { "points": [3, 1], "payload": { "a": 1 } } }),
            json!({ "delete": { "points": [2, 9] } }),
        ]
    );
    let index = Operation::DeletePayloadIndex {
        field: "a/b c".to_owned(),
    };
    assert!(UploadElement::new(&index).is_err());
    assert_eq!(
        index.upload().expect("JSON"),
        Upload::Request {
            method: "DELETE",
            path: "/index/a%2Fb%20c".to_owned(),
            body: None
        }
    );
}

fn shard() -> (tempfile::TempDir, Shard) {
    created(&json!({
        "vectors": { "a": { "size": 2, "distance": "Dot" } },
        "sparse_vectors": { "s": {} },
    }))
}

fn everything(shard: &Shard) -> Value {
    let body = json!({ "limit": 10_000, "with_vector": true });
    read(shard, "POST", "/points/scroll", &body).expect("scrolls")
}

/// A life of a shard, every kind of operation in it.
fn life() -> Vec<(&'static str, Value)> {
    let points: Vec<_> = (1..=8)
        .map(|id| {
            json!({
                "id": id,
                "vector": { "a": [id, 1], "s": { "indices": [id], "values": [1] } },
                "payload": { "n": id, "o": { "x": 1 }, "list": [1, 2.5, "x", null] },
            })
        })
        .collect();
    let even = json!({ "must": [{ "key": "n", "match": { "any": [2, 4, 6, 8] } }] });
    vec![
        ("PUT /points", json!({ "points": points })),
        (
            "PUT /index",
            json!({ "field_name": "n", "field_schema": "integer" }),
        ),
        (
            "PUT /points",
            json!({ "batch": {
            "ids": [20, 21],
            "vectors": { "a": [[1, 2], [3, 4]] },
            "payloads": [{ "n": 20 }, null],
        } }),
        ),
        (
            "POST /points/payload",
            json!({ "filter": even, "payload": { "even": true } }),
        ),
        (
            "POST /points/payload",
            json!({ "points": [1, 2], "payload": { "y": 2 }, "key": "o" }),
        ),
        (
            "PUT /points/payload",
            json!({ "points": [3], "payload": { "only": "this" } }),
        ),
        (
            "POST /points/payload/delete",
            json!({ "points": [4], "keys": ["o.x", "list[0]"] }),
        ),
        ("POST /points/payload/clear", json!({ "points": [5] })),
        (
            "PUT /points/vectors",
            json!({ "points": [{ "id": 6, "vector": { "a": [0, 0] } }] }),
        ),
        (
            "POST /points/vectors/delete",
            json!({ "points": [7], "vector": ["s"] }),
        ),
        ("POST /points/delete", json!({ "points": [8, 99] })),
        (
            "PUT /vectors/b",
            json!({ "dense": { "size": 3, "distance": "Euclid" } }),
        ),
        (
            "PUT /points",
            json!({ "points": [{ "id": 9, "vector": { "b": [1, 2, 3] } }] }),
        ),
        ("DELETE /vectors/b", Value::Null),
        (
            "PUT /vectors/b",
            json!({ "dense": { "size": 2, "distance": "Dot" } }),
        ),
        (
            "PUT /points/vectors",
            json!({ "points": [{ "id": 9, "vector": { "b": [5, 6] } }] }),
        ),
        (
            "PUT /points",
            json!({ "update_mode": "insert_only", "points": [
            { "id": 1, "vector": { "a": [9, 9] } }, { "id": 30, "vector": { "a": [9, 9] } },
        ] }),
        ),
        (
            "PUT /points",
            json!({ "update_mode": "update_only", "update_filter": even, "points": [
            { "id": 1, "vector": { "a": [8, 8] } }, { "id": 2, "vector": { "a": [8, 8] } },
            { "id": 31, "vector": { "a": [8, 8] } },
        ] }),
        ),
        (
            "POST /points/batch",
            json!({ "operations": [
            { "upsert": { "points": [{ "id": 40, "vector": {}, "payload": { "n": 40 } }] } },
            { "set_payload": { "points": [40], "payload": { "m": 1 } } },
            { "delete": { "filter": { "must": [{ "key": "n", "match": { "value": 40 } }] } } },
            { "upsert": { "points": [{ "id": 41, "vector": { "a": [4, 1] } }] } },
        ] }),
        ),
        ("DELETE /index/n", Value::Null),
        (
            "PUT /index",
            json!({ "field_name": "o.x", "field_schema": { "type": "integer", "range": true } }),
        ),
        ("PUT /vectors/t", json!({ "sparse": { "modifier": "idf" } })),
    ]
}

#[test]
fn a_life_is_as_the_requests_say_and_replays_from_anywhere() {
    let (dir, shard) = shard();
    let mut log = Vec::new();
    for (line, body) in life() {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let operations = write(&shard, method, path, &body)
            .unwrap_or_else(|error| panic!("{line} {body}: {error}"));
        for operation in operations {
            let again = Operation::decode(&operation.encode()).expect("decodes");
            assert_eq!(text(&again), text(&operation));
            log.push(operation);
        }
    }
    let end = everything(&shard);
    let point = |id: u64| {
        let points = end["points"].as_array().expect("points");
        points.iter().find(|point| point["id"] == id).cloned()
    };
    let payload = |id: u64| point(id).expect("a point")["payload"].clone();
    let list = json!([1, 2.5, "x", null]);
    assert_eq!(
        payload(1),
        json!({ "n": 1, "o": { "x": 1, "y": 2 }, "list": list })
    );
    assert_eq!(point(1).expect("kept")["vector"]["a"], json!([1.0, 1.0]));
    assert_eq!(
        point(2).expect("replaced")["vector"],
        json!({ "a": [8.0, 8.0] })
    );
    assert_eq!(payload(3), json!({ "only": "this" }));
    assert_eq!(payload(5), json!({}));
    assert_eq!(point(6).expect("there")["vector"]["a"], json!([0.0, 0.0]));
    assert_eq!(payload(6)["even"], json!(true));
    assert_eq!(
        point(7).expect("there")["vector"],
        json!({ "a": [7.0, 1.0] })
    );
    assert_eq!(point(8), None);
    assert_eq!(
        point(9).expect("there")["vector"],
        json!({ "b": [5.0, 6.0] })
    );
    assert_eq!(payload(20), json!({ "n": 20 }));
    assert!(point(30).is_some() && point(31).is_none() && point(40).is_none());
    assert!(point(41).is_some());
    let schema = shard.info().expect("info").payload_schema;
    assert_eq!(schema.as_object().map(Map::len), Some(1), "{schema}");
    assert_eq!(shard.config().to_json()["vectors"]["b"]["size"], 2);
    assert_eq!(
        shard.config().to_json()["sparse_vectors"]["t"]["modifier"],
        "idf"
    );

    // A crash loses what was not flushed; a flush may have come at any point.
    for from in 0..log.len() {
        shard.apply(log[from..].to_vec()).expect("replays");
        assert_eq!(everything(&shard), end, "replayed from {from}");
    }
    shard.flush().expect("flushes");
    shard.discard();
    let shard = Shard::load(&dir.path().join("shard")).expect("loads");
    assert_eq!(everything(&shard), end);
    assert_eq!(shard.config().to_json()["vectors"]["b"]["size"], 2);

    // And onto nothing at all.
    let (_dir, fresh) = self::shard();
    fresh.apply(log).expect("replays");
    assert_eq!(everything(&fresh), end);
}

/// Requests of every kind that writes, on few points and names, so that they get in each other's
/// way.
fn request() -> impl Strategy<Value = (&'static str, &'static str, Value)> {
    let id = || 1..5_u64;
    let ids = move || vec(id(), 1..4);
    let path = || {
        proptest::sample::select(vec![
            "n", "o", "o.x", "o.y", "list", "list[0]", "list[]", "list[].x", "deep.a.b", "deep.a",
        ])
    };
    let leaf = || {
        prop_oneof![
            (0..4_u8).prop_map(Value::from),
            Just(json!([])),
            Just(json!([{ "x": 1 }, 2])),
            Just(json!({ "x": 3, "a": { "b": 4 } })),
            Just(Value::Null),
            Just(json!("text")),
        ]
    };
    let payload = move || {
        btree_map(
            proptest::sample::select(vec!["n", "o", "list", "deep"]),
            leaf(),
            0..3,
        )
        .prop_map(|map| Value::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()))
    };
    let vector = || {
        prop_oneof![
            (0..9_u8, 1..3_u8).prop_map(|(a, b)| json!({ "a": [a, b] })),
            (0..9_u32).prop_map(|n| json!({ "s": { "indices": [n], "values": [1] } })),
            (0..9_u8).prop_map(|n| json!({ "a": [n, n], "b": [n, 1] })),
            Just(json!({})),
        ]
    };
    let filter = || {
        prop_oneof![
            (0..4_u8).prop_map(|n| json!({ "must": [{ "key": "n", "match": { "value": n } }] })),
            Just(json!({ "must": [{ "is_empty": { "key": "o" } }] })),
            Just(json!({ "must_not": [{ "has_id": [1, 2] }] })),
        ]
    };
    let selector = move || {
        prop_oneof![
            ids().prop_map(|ids| json!({ "points": ids })),
            filter().prop_map(|filter| json!({ "filter": filter })),
        ]
    };
    let with = |mut body: Value, more: Value| {
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        body
    };
    let key = move || prop_oneof![Just(Value::Null), path().prop_map(Value::from)];
    let mode = || proptest::sample::select(vec!["upsert", "insert_only", "update_only"]);
    prop_oneof![
        3 => (id(), vector(), payload()).prop_map(|(id, vector, payload)| {
            let body = json!({ "points": [{ "id": id, "vector": vector, "payload": payload }] });
            ("PUT", "/points", body)
        }),
        1 => (id(), vector(), mode(), filter()).prop_map(|(id, vector, mode, filter)| {
            let points = json!([{ "id": id, "vector": vector }]);
            let body = json!({ "points": points, "update_mode": mode, "update_filter": filter });
            ("PUT", "/points", body)
        }),
        1 => selector().prop_map(|body| ("POST", "/points/delete", body)),
        1 => (id(), vector()).prop_map(|(id, vector)| {
            ("PUT", "/points/vectors", json!({ "points": [{ "id": id, "vector": vector }] }))
        }),
        1 => (selector(), proptest::sample::select(vec!["a", "s", "b"])).prop_map(
            move |(body, name)| ("POST", "/points/vectors/delete", with(body, json!({ "vector": [name] })))
        ),
        2 => (selector(), payload(), key()).prop_map(move |(body, mut payload, key)| {
            // The engine, the server's too, merges null differently into a payload that is empty
            // (it is kept) and into one that is not (the key is removed).
            if let Some(payload) = payload.as_object_mut() {
                payload.retain(|_, value| !value.is_null());
            }
            ("POST", "/points/payload", with(body, json!({ "payload": payload, "key": key })))
        }),
        1 => (selector(), payload(), key()).prop_map(move |(body, payload, key)| {
            ("PUT", "/points/payload", with(body, json!({ "payload": payload, "key": key })))
        }),
        2 => (selector(), vec(path(), 1..3)).prop_map(move |(body, keys)| {
            ("POST", "/points/payload/delete", with(body, json!({ "keys": keys })))
        }),
        1 => selector().prop_map(|body| ("POST", "/points/payload/clear", body)),
        1 => proptest::sample::select(vec!["integer", "keyword"]).prop_map(
            |kind| ("PUT", "/index", json!({ "field_name": "n", "field_schema": kind }))
        ),
        1 => Just(("DELETE", "/index/n", Value::Null)),
        1 => (2..4_u8).prop_map(
            |size| ("PUT", "/vectors/b", json!({ "dense": { "size": size, "distance": "Dot" } }))
        ),
        1 => Just(("DELETE", "/vectors/b", Value::Null)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// What a crash may ask for: a suffix of the log, applied to a shard that holds it already.
    #[test]
    fn any_suffix_of_a_log_can_be_applied_again(requests in vec(request(), 1..14)) {
        let (_dir, shard) = shard();
        let mut log = Vec::new();
        for (method, path, body) in &requests {
            // Many are refused: the point is not there, the vector is another one.
            if let Ok(operations) = write(&shard, method, path, body) {
                log.extend(operations);
            }
        }
        let end = everything(&shard);
        let schema = shard.info().expect("info").payload_schema.to_string();
        for from in (0..log.len()).rev() {
            shard.apply(log[from..].to_vec()).expect("applies");
            prop_assert_eq!(&everything(&shard), &end, "from {} of {:?}", from, &log);
        }
        prop_assert_eq!(shard.info().expect("info").payload_schema.to_string(), schema);
        // Each operation twice in a row is the operation.
        let (_dir, twice) = self::shard();
        for operation in &log {
            twice.apply(vec![operation.clone()]).expect("applies");
            twice.apply(vec![operation.clone()]).expect("applies");
        }
        prop_assert_eq!(&everything(&twice), &end);
    }
}

#[test]
fn what_was_not_flushed_is_gone_without_the_log() {
    let (dir, shard) = shard();
    let one = json!({ "points": [{ "id": 1, "vector": { "a": [1, 2] } }] });
    write(&shard, "PUT", "/points", &one).expect("a write");
    shard.flush().expect("flushes");
    let two = json!({ "points": [{ "id": 2, "vector": { "a": [1, 2] } }] });
    write(&shard, "PUT", "/points", &two).expect("a write");
    shard.discard();
    let shard = Shard::load(&dir.path().join("shard")).expect("loads");
    assert_eq!(shard.count(None).expect("counts"), 1);
}

#[test]
fn a_batch_that_reads_its_own_writes_is_prepared_in_steps() {
    let (_dir, shard) = shard();
    let body = json!({ "operations": [
        { "upsert": { "points": [{ "id": 1, "vector": {} }] } },
        { "set_payload": { "points": [1], "payload": { "a": 1 } } },
        { "delete": { "filter": {} } },
    ] });
    let batch = write_request("POST", "/points/batch", &body).expect("a batch");
    match shard.prepare(batch.clone()) {
        Err(Error::InvalidInput { field, .. }) => assert_eq!(field, "operations[2].delete"),
        other => panic!("{other:?}"),
    }
    let lengths: Vec<_> = batch
        .steps()
        .into_iter()
        .map(|step| {
            let operations = shard.prepare(step).expect("a step");
            let count = operations.len();
            shard.apply(operations).expect("applies");
            count
        })
        .collect();
    assert_eq!(lengths, [2, 1]);
    assert_eq!(shard.count(None).expect("counts"), 0);
}

#[test]
fn a_shard_is_created_once() {
    let (dir, shard) = shard();
    let path = dir.path().join("shard");
    let again = Shard::create(&path, &shard.config());
    assert!(matches!(again, Err(Error::AlreadyExists(_))), "{again:?}");
    let nowhere = Shard::load(&dir.path().join("nowhere"));
    assert!(matches!(nowhere, Err(Error::NotFound(_))), "{nowhere:?}");
}
