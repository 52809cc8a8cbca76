//! One request after the other, which together use all of the API that a local shard understands.

use serde_json::{Value, json};

/// A request that is understood.
#[derive(Debug, Clone)]
pub struct Example {
    /// What it shows, unique.
    pub name: String,
    /// HTTP method.
    pub method: &'static str,
    /// Path below the collection.
    pub path: String,
    /// JSON body; null where there is none.
    pub body: Value,
}

/// A request that is refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The schema and its part, as [`super::schema::Part`]; for a whole request its path and method.
    pub schema: &'static str,
    /// See there.
    pub part: &'static str,
    /// HTTP method.
    pub method: &'static str,
    /// Path below the collection.
    pub path: &'static str,
    /// JSON body.
    pub body: Value,
}

/// How many points [`writes`] leaves behind.
pub const POINTS: u64 = 300;

/// The collection that the requests are about.
pub fn collection() -> Value {
    json!({
        "vectors": {
            "": { "size": 4, "distance": "Dot" },
            "cos": {
                "size": 4, "distance": "Cosine",
                "hnsw_config": { "m": 8, "ef_construct": 32, "payload_m": 8 },
                "quantization_config": { "scalar": { "type": "int8", "quantile": 0.99, "always_ram": true } },
            },
            "rows": { "size": 2, "distance": "Dot", "multivector_config": { "comparator": "max_sim" } },
        },
        "sparse_vectors": { "words": { "modifier": "idf" }, "plain": {} },
        "hnsw_config": { "full_scan_threshold": 10 },
        "optimizers_config": { "indexing_threshold": 1 },
    })
}

/// Bodies of `PATCH` of that collection.
pub fn changes() -> Vec<Value> {
    vec![
        json!({
            "vectors": {
                "": {
                    "hnsw_config": { "m": 4 }, "on_disk": true, "memory": "cold",
                    "quantization_config": { "scalar": { "type": "int8" } },
                },
                "cos": { "quantization_config": { "product": { "compression": "x4" } } },
                "rows": { "quantization_config": { "turbo": { "bits": "bits4" } } },
            },
            "optimizers_config": { "indexing_threshold": 2 },
            "params": {
                "replication_factor": 1, "write_consistency_factor": 1, "read_fan_out_factor": 1,
                "read_fan_out_delay_ms": 1, "on_disk_payload": true, "payload": { "memory": "cold" },
            },
            "hnsw_config": { "m": 6 },
            "quantization_config": { "binary": { "always_ram": true } },
            "sparse_vectors": { "plain": { "index": { "on_disk": true } } },
            "strict_mode_config": { "enabled": false },
            "metadata": { "any": "thing" },
        }),
        json!({ "quantization_config": "Disabled" }),
    ]
}

const SENTENCES: [&str; 6] = [
    "the red stone lies in the river",
    "a blue stone",
    "the green river runs to the sea",
    "a red fox runs over the red stone",
    "blue sky over a green sea",
    "nothing of that kind",
];

/// The id of the n-th point: every tenth is a UUID.
pub fn id(n: u64) -> Value {
    if n.is_multiple_of(10) {
        json!(format!("00000000-0000-4000-8000-{n:012x}"))
    } else {
        json!(n)
    }
}

/// The n-th point.
pub fn point(n: u64) -> Value {
    // No two points are equally near to anything.
    let wave = |k: u64| {
        let angle = (n * (k * 131 + 17) % 9973) as f64;
        ((angle / 9973.0 - 0.5) * 100_000.0).round() / 100_000.0
    };
    let sentence = SENTENCES[(n % 6) as usize];
    let mut payload = json!({
        "n": n,
        "f": n as f64 / 4.0,
        "kw": (["alpha", "beta", "alphabet"][(n % 3) as usize]),
        "tags": (["x", "y", "z"][..(n % 3 + 1) as usize]),
        "title": sentence,
        "body": sentence,
        "when": format!("2024-{:02}-{:02}T00:00:00Z", n % 12 + 1, n % 28 + 1),
        "at": { "lon": (n % 90) as f64 - 45.0, "lat": (n % 60) as f64 - 30.0 },
        "flag": n.is_multiple_of(2),
        "u": format!("00000000-0000-4000-9000-{:012x}", n % 5),
        "tenant": format!("t{}", n % 4),
        "offers": [
            { "price": n % 7, "colour": "red", "name": "small stone" },
            { "price": n % 11, "colour": (["blue", "green"][(n % 2) as usize]), "name": "large river" },
        ],
        "o": { "x": n % 5 },
    });
    if n.is_multiple_of(9) {
        payload["kw"] = Value::Null;
    }
    if n.is_multiple_of(15) {
        payload["tags"] = json!([]);
    }
    let mut vectors = json!({
        "": [wave(1), wave(2), wave(3), 0.25],
        "cos": [wave(5), wave(7), 0.5, wave(11)],
        "words": { "text": sentence, "model": "qdrant/bm25" },
    });
    if !n.is_multiple_of(3) {
        vectors["rows"] = json!([[wave(13), wave(17)], [wave(19), 0.125]]);
    }
    if n.is_multiple_of(4) {
        vectors["plain"] = json!({ "indices": [n % 7, 7 + n % 5, 4_294_967_295_u32], "values": [1.0 + wave(3), 1.0 + wave(4), wave(2)] });
    }
    json!({ "id": id(n), "vector": vectors, "payload": payload })
}

fn example(name: &str, method: &'static str, path: &str, body: Value) -> Example {
    Example {
        name: name.to_owned(),
        method,
        path: path.to_owned(),
        body,
    }
}

/// Payload indexes: field, and `field_schema`.
fn indexes() -> Vec<(&'static str, Value)> {
    vec![
        ("n", json!("integer")),
        ("f", json!("float")),
        (
            "kw",
            json!({ "type": "keyword", "prefix": true, "on_disk": false, "enable_hnsw": true }),
        ),
        ("tags", json!("keyword")),
        ("title", json!("text")),
        (
            "body",
            json!({
                "type": "text", "tokenizer": "word", "min_token_len": 1, "max_token_len": 30,
                "lowercase": true, "ascii_folding": true, "phrase_matching": true,
                "stopwords": { "languages": ["english"], "custom": ["kind"] },
                "stemmer": { "type": "snowball", "language": "english" },
                "memory": "cached", "on_disk": true, "enable_hnsw": false,
            }),
        ),
        ("when", json!("datetime")),
        ("at", json!("geo")),
        ("flag", json!("bool")),
        ("u", json!("uuid")),
        (
            "tenant",
            json!({ "type": "keyword", "is_tenant": true, "memory": "pinned" }),
        ),
        (
            "o.x",
            json!({ "type": "integer", "lookup": true, "range": true, "is_principal": true, "on_disk": true, "memory": "cold", "enable_hnsw": true }),
        ),
        ("offers[].price", json!("integer")),
        // The same parameters for the other kinds, on fields that no point has.
        (
            "p.float",
            json!({ "type": "float", "is_principal": true, "on_disk": true, "memory": "cold", "enable_hnsw": true }),
        ),
        (
            "p.geo",
            json!({ "type": "geo", "on_disk": true, "memory": "cold", "enable_hnsw": false }),
        ),
        (
            "p.bool",
            json!({ "type": "bool", "on_disk": true, "memory": "cold", "enable_hnsw": false }),
        ),
        (
            "p.datetime",
            json!({ "type": "datetime", "is_principal": true, "on_disk": true, "memory": "cold", "enable_hnsw": true }),
        ),
        (
            "p.uuid",
            json!({ "type": "uuid", "is_tenant": true, "on_disk": true, "memory": "cold", "enable_hnsw": true }),
        ),
        (
            "p.prefix",
            json!({ "type": "text", "tokenizer": "prefix", "min_token_len": 2, "max_token_len": 8, "stemmer": { "type": "none" } }),
        ),
        (
            "p.whitespace",
            json!({ "type": "text", "tokenizer": "whitespace", "stopwords": "german" }),
        ),
        (
            "p.multilingual",
            json!({ "type": "text", "tokenizer": "multilingual" }),
        ),
    ]
}

/// Indexes of kinds that the engine has and the server of 1.19 has not.
fn newer_indexes() -> Vec<(&'static str, Value)> {
    vec![
        ("ranked", json!({ "type": "text", "scoring": true })),
        (
            "ranked2",
            json!({ "type": "text", "scoring": { "type": "bm25" }, "tokenizer": "code" }),
        ),
        (
            "offers[].name",
            json!({ "type": "text", "nested": "offers", "scoring": true }),
        ),
        (
            "offers[].colour",
            json!({ "type": "keyword", "nested": "offers[]" }),
        ),
    ]
}

fn languages() -> Vec<(String, Value)> {
    let stopwords = [
        "arabic",
        "azerbaijani",
        "basque",
        "bengali",
        "catalan",
        "chinese",
        "danish",
        "dutch",
        "english",
        "finnish",
        "french",
        "german",
        "greek",
        "hebrew",
        "hinglish",
        "hungarian",
        "indonesian",
        "italian",
        "japanese",
        "kazakh",
        "nepali",
        "norwegian",
        "portuguese",
        "romanian",
        "russian",
        "slovene",
        "spanish",
        "swedish",
        "tajik",
        "turkish",
    ];
    let stemmers = [
        "arabic",
        "armenian",
        "danish",
        "dutch",
        "english",
        "finnish",
        "french",
        "german",
        "greek",
        "hungarian",
        "italian",
        "norwegian",
        "portuguese",
        "romanian",
        "russian",
        "spanish",
        "swedish",
        "tamil",
        "turkish",
    ];
    let stopwords = [(
        "p.stopwords".to_owned(),
        json!({ "type": "text", "stopwords": { "languages": stopwords } }),
    )];
    let stemmers = stemmers.map(|name| {
        (
            format!("p.stemmer.{name}"),
            json!({ "type": "text", "stemmer": { "type": "snowball", "language": name } }),
        )
    });
    stopwords.into_iter().chain(stemmers).collect()
}

/// Writes that build the collection up and change it, in this order.
pub fn writes() -> Vec<Example> {
    let mut list = Vec::new();
    let mut add = |name: &str, method, path: &str, body| {
        list.push(example(name, method, path, body));
    };
    let create =
        |field: &str, schema: Value| json!({ "field_name": field, "field_schema": schema });
    for (field, schema) in indexes() {
        add(
            &format!("index {field}"),
            "PUT",
            "/index?wait=true",
            create(field, schema),
        );
    }
    for (field, schema) in languages() {
        add(
            &format!("index {field}"),
            "PUT",
            "/index",
            create(&field, schema),
        );
    }
    let points: Vec<_> = (1..=POINTS - 10).map(point).collect();
    add(
        "upsert points",
        "PUT",
        "/points?wait=true",
        json!({ "points": points }),
    );
    let late: Vec<_> = (POINTS - 9..=POINTS).map(point).collect();
    let column =
        |key: &str| -> Vec<Value> { late.iter().map(|point| point[key].clone()).collect() };
    let named = |name: &str| -> Vec<Value> {
        late.iter()
            .map(|point| point["vector"][name].clone())
            .collect()
    };
    add(
        "upsert a batch by column",
        "PUT",
        "/points",
        json!({ "batch": {
            "ids": column("id"),
            "vectors": { "": named(""), "cos": named("cos"), "words": named("words") },
            "payloads": column("payload"),
        } }),
    );
    add(
        "upsert a batch of one vector",
        "PUT",
        "/points",
        json!({
            "batch": { "ids": [901], "vectors": [[1, 0, 0, 0]] },
            "update_mode": "upsert",
        }),
    );
    add(
        "upsert one default vector",
        "PUT",
        "/points",
        json!({ "points": [{ "id": 902, "vector": [0, 1, 0, 0] }], "update_mode": "upsert" }),
    );
    add(
        "insert only",
        "PUT",
        "/points",
        json!({
            "points": [{ "id": 902, "vector": [9, 9, 9, 9] }, { "id": 903, "vector": [0, 0, 1, 0], "payload": { "n": 903 } }],
            "update_mode": "insert_only",
        }),
    );
    add(
        "update only",
        "PUT",
        "/points",
        json!({
            "batch": { "ids": [903, 999], "vectors": [[0, 0, 2, 0], [0, 0, 2, 0]], "payloads": [{ "n": 903 }, null] },
            "update_mode": "update_only",
            "update_filter": { "must": [{ "key": "n", "match": { "value": 903 } }] },
        }),
    );
    add(
        "upsert if a filter matches",
        "PUT",
        "/points",
        json!({
            "points": [{ "id": 903, "vector": [0, 0, 3, 0], "payload": { "n": 903 } }],
            "update_filter": { "must": [{ "key": "n", "range": { "gte": 900 } }] },
        }),
    );
    add(
        "update vectors",
        "PUT",
        "/points/vectors",
        json!({ "points": [
            { "id": 901, "vector": { "cos": [1, 1, 0, 0], "rows": [[1, 2], [3, 4]], "plain": { "indices": [5, 1], "values": [1, 2] } } },
            { "id": 902, "vector": [0, 2, 0, 0] },
        ] }),
    );
    add(
        "update vectors if a filter matches",
        "PUT",
        "/points/vectors",
        json!({
            "points": [{ "id": 903, "vector": { "cos": [0, 1, 1, 0] } }],
            "update_filter": { "must": [{ "key": "n", "match": { "value": 903 } }] },
        }),
    );
    add(
        "delete vectors of points",
        "POST",
        "/points/vectors/delete",
        json!({ "points": [901], "vector": ["plain"] }),
    );
    add(
        "delete vectors by filter",
        "POST",
        "/points/vectors/delete",
        json!({ "filter": { "must": [{ "key": "n", "match": { "value": 903 } }] }, "vector": ["cos"] }),
    );
    add(
        "set payload of points",
        "POST",
        "/points/payload",
        json!({ "points": [901, 902], "payload": { "n": 901, "o": { "x": 1 }, "ranked": "red stone river", "ranked2": "let red = stone;" } }),
    );
    add(
        "set nested payload",
        "POST",
        "/points/payload",
        json!({ "points": [901], "payload": { "y": 2 }, "key": "o" }),
    );
    add(
        "set payload by filter",
        "POST",
        "/points/payload",
        json!({ "filter": { "must": [{ "key": "n", "match": { "any": [1, 2, 3] } }] }, "payload": { "few": true, "ranked": "a red stone" } }),
    );
    add(
        "overwrite payload",
        "PUT",
        "/points/payload",
        json!({ "points": [902], "payload": { "n": 902, "gone": 1, "gone2": { "a": 1, "b": 2 } } }),
    );
    add(
        "overwrite nested payload by filter",
        "PUT",
        "/points/payload",
        json!({ "filter": { "must": [{ "key": "n", "match": { "value": 902 } }] }, "payload": { "c": 3 }, "key": "gone2" }),
    );
    add(
        "delete payload keys",
        "POST",
        "/points/payload/delete",
        json!({ "points": [902], "keys": ["gone", "gone2.c"] }),
    );
    add(
        "delete payload keys by filter",
        "POST",
        "/points/payload/delete",
        json!({ "filter": { "must": [{ "key": "n", "match": { "value": 3 } }] }, "keys": ["few"] }),
    );
    add(
        "clear payload of points",
        "POST",
        "/points/payload/clear",
        json!({ "points": [902] }),
    );
    add(
        "clear payload by filter",
        "POST",
        "/points/payload/clear",
        json!({ "filter": { "must": [{ "key": "n", "match": { "value": 903 } }] } }),
    );
    add(
        "a batch of operations",
        "POST",
        "/points/batch?wait=true",
        json!({ "operations": [
            { "upsert": { "points": [{ "id": 904, "vector": { "": [0, 0, 0, 1] }, "payload": { "n": 904 } }] } },
            { "update_vectors": { "points": [{ "id": 904, "vector": { "cos": [1, 0, 0, 1] } }] } },
            { "delete_vectors": { "points": [904], "vector": ["cos"] } },
            { "set_payload": { "points": [904], "payload": { "a": 1, "b": 2 } } },
            { "delete_payload": { "points": [904], "keys": ["a"] } },
            { "overwrite_payload": { "points": [904], "payload": { "n": 904 } } },
            { "clear_payload": { "points": [904] } },
            { "delete": { "points": [904] } },
            { "delete": { "filter": { "must": [{ "key": "n", "match": { "value": -1 } }] } } },
        ] }),
    );
    add(
        "create a dense vector",
        "PUT",
        "/vectors/later?wait=true",
        json!({ "dense": { "size": 2, "distance": "Manhattan", "multivector_config": { "comparator": "max_sim" }, "datatype": "float16" } }),
    );
    add(
        "create a sparse vector",
        "PUT",
        "/vectors/later-sparse",
        json!({ "sparse": { "modifier": "idf", "datatype": "float16" } }),
    );
    add(
        "write the new vectors",
        "PUT",
        "/points/vectors",
        json!({ "points": [{ "id": 901, "vector": { "later": [[1, 2]], "later-sparse": { "indices": [3], "values": [1] } } }] }),
    );
    add(
        "delete a vector",
        "DELETE",
        "/vectors/later-sparse?wait=true",
        Value::Null,
    );
    add(
        "delete an index",
        "DELETE",
        "/index/p.float?wait=true",
        Value::Null,
    );
    add(
        "delete points",
        "POST",
        "/points/delete?wait=true",
        json!({ "points": [id(20), 21] }),
    );
    add(
        "delete points by filter",
        "POST",
        "/points/delete",
        json!({ "filter": { "must": [{ "key": "n", "match": { "value": 22 } }] } }),
    );
    for (distance, datatype) in [
        ("Cosine", "float32"),
        ("Euclid", "uint8"),
        ("Dot", "turbo4"),
    ] {
        add(
            &format!("create a vector of {datatype}"),
            "PUT",
            &format!("/vectors/v-{datatype}"),
            json!({ "dense": { "size": 8, "distance": distance, "datatype": datatype } }),
        );
    }
    for (modifier, datatype) in [("none", "float32"), ("idf", "uint8")] {
        add(
            &format!("create a sparse vector of {datatype}"),
            "PUT",
            &format!("/vectors/s-{datatype}"),
            json!({ "sparse": { "modifier": modifier, "datatype": datatype } }),
        );
    }
    list
}

/// Writes that the engine has and the server of 1.19 has not.
pub fn newer_writes() -> Vec<Example> {
    let mut list: Vec<_> = newer_indexes()
        .into_iter()
        .map(|(field, schema)| {
            example(
                &format!("index {field}"),
                "PUT",
                "/index",
                json!({ "field_name": field, "field_schema": schema }),
            )
        })
        .collect();
    for datatype in ["turbo8", "turbo16"] {
        list.push(example(
            &format!("create a vector of {datatype}"),
            "PUT",
            &format!("/vectors/v-{datatype}"),
            json!({ "dense": { "size": 8, "distance": "Dot", "datatype": datatype } }),
        ));
    }
    list
}

fn filters() -> Vec<(&'static str, Value)> {
    let one = |condition: Value| json!({ "must": [condition] });
    vec![
        (
            "match a string",
            one(json!({ "key": "kw", "match": { "value": "alpha" } })),
        ),
        (
            "match an integer",
            one(json!({ "key": "n", "match": { "value": 7 } })),
        ),
        (
            "match a boolean",
            one(json!({ "key": "flag", "match": { "value": true } })),
        ),
        (
            "match any string",
            one(json!({ "key": "tags", "match": { "any": ["x", "y"] } })),
        ),
        (
            "match any integer",
            one(json!({ "key": "n", "match": { "any": [1, 2, 3] } })),
        ),
        (
            "match except strings",
            one(json!({ "key": "kw", "match": { "except": ["alpha"] } })),
        ),
        (
            "match except integers",
            one(json!({ "key": "n", "match": { "except": [1, 2] } })),
        ),
        (
            "match text",
            one(json!({ "key": "title", "match": { "text": "red stone" } })),
        ),
        (
            "match any word",
            one(json!({ "key": "title", "match": { "text_any": "fox sky" } })),
        ),
        (
            "match a phrase",
            one(json!({ "key": "body", "match": { "phrase": "red fox" } })),
        ),
        (
            "match a prefix",
            one(json!({ "key": "kw", "match": { "prefix": "alp" } })),
        ),
        (
            "match a UUID",
            one(
                json!({ "key": "u", "match": { "value": "00000000-0000-4000-9000-000000000001" } }),
            ),
        ),
        (
            "range of numbers",
            one(json!({ "key": "n", "range": { "gt": 3, "gte": 4, "lt": 9.5, "lte": 9 } })),
        ),
        (
            "range of times",
            one(
                json!({ "key": "when", "range": { "gt": "2024-02-01T00:00:00Z", "gte": "2024-02-02T00:00:00Z", "lt": "2024-06-01T00:00:00Z", "lte": "2024-05-31" } }),
            ),
        ),
        (
            "geo box",
            one(
                json!({ "key": "at", "geo_bounding_box": { "top_left": { "lon": -20, "lat": 20 }, "bottom_right": { "lon": 20, "lat": -20 } } }),
            ),
        ),
        (
            "geo radius",
            one(
                json!({ "key": "at", "geo_radius": { "center": { "lon": 0, "lat": 0 }, "radius": 2_000_000 } }),
            ),
        ),
        (
            "geo polygon",
            one(json!({ "key": "at", "geo_polygon": {
            "exterior": { "points": [{ "lon": -40, "lat": -28 }, { "lon": 40, "lat": -28 }, { "lon": 40, "lat": 28 }, { "lon": -40, "lat": 28 }, { "lon": -40, "lat": -28 }] },
            "interiors": [{ "points": [{ "lon": -1, "lat": -1 }, { "lon": 1, "lat": -1 }, { "lon": 1, "lat": 1 }, { "lon": -1, "lat": -1 }] }],
        } })),
        ),
        (
            "values count",
            one(json!({ "key": "tags", "values_count": { "gt": 0, "gte": 1, "lt": 3, "lte": 2 } })),
        ),
        (
            "is empty, of a field",
            one(json!({ "is_empty": { "key": "tags" } })),
        ),
        (
            "is null, of a field",
            one(json!({ "is_null": { "key": "kw" } })),
        ),
        (
            "is empty, in a field condition",
            one(json!({ "key": "tags", "is_empty": true })),
        ),
        (
            "is null, in a field condition",
            one(json!({ "key": "kw", "is_null": false })),
        ),
        ("has id", one(json!({ "has_id": [1, id(10), 3] }))),
        ("has vector", one(json!({ "has_vector": "rows" }))),
        ("slice", one(json!({ "slice": { "total": 4, "index": 1 } }))),
        (
            "nested",
            one(json!({ "nested": { "key": "offers", "filter": { "must": [
            { "key": "price", "match": { "value": 3 } }, { "key": "colour", "match": { "value": "red" } },
        ] } } })),
        ),
        (
            "nested field",
            one(json!({ "key": "offers[].price", "match": { "value": 3 } })),
        ),
        (
            "min should",
            json!({ "min_should": { "conditions": [
            { "key": "flag", "match": { "value": true } },
            { "key": "kw", "match": { "value": "alpha" } },
            { "key": "n", "range": { "lt": 50 } },
        ], "min_count": 2 } }),
        ),
        (
            "should, must, must not",
            json!({
                "should": [{ "key": "kw", "match": { "value": "alpha" } }, { "key": "kw", "match": { "value": "beta" } }],
                "must": { "key": "n", "range": { "lt": 100 } },
                "must_not": [{ "key": "flag", "match": { "value": true } }],
            }),
        ),
        (
            "one should, a list of must, one must not",
            json!({
                "should": { "key": "flag", "match": { "value": true } },
                "must": [{ "key": "n", "range": { "lt": 100 } }],
                "must_not": { "has_id": [1] },
            }),
        ),
        (
            "a filter in a filter",
            json!({ "must": [{ "should": [{ "key": "n", "match": { "value": 5 } }, { "must_not": [{ "key": "n", "range": { "gt": 4 } }] }] }] }),
        ),
    ]
}

fn expressions() -> Vec<(&'static str, Value)> {
    vec![
        ("a constant", json!(0.5)),
        ("a variable", json!("$score")),
        ("a payload variable", json!("n")),
        (
            "a condition",
            json!({ "mult": [{ "key": "kw", "match": { "value": "alpha" } }, 2.0] }),
        ),
        (
            "a filter as condition",
            json!({ "must": [{ "key": "flag", "match": { "value": true } }] }),
        ),
        (
            "geo distance",
            json!({ "neg": { "geo_distance": { "origin": { "lon": 0, "lat": 0 }, "to": "at" } } }),
        ),
        (
            "a time",
            json!({ "neg": { "datetime": "2024-05-01T00:00:00Z" } }),
        ),
        ("a time of the payload", json!({ "datetime_key": "when" })),
        ("product", json!({ "mult": ["$score", 2] })),
        ("sum", json!({ "sum": ["$score", "n"] })),
        ("negation", json!({ "neg": "n" })),
        ("absolute value", json!({ "abs": { "sum": ["n", -100] } })),
        (
            "quotient",
            json!({ "div": { "left": 1, "right": { "sum": ["n", -1] }, "by_zero_default": 7 } }),
        ),
        ("square root", json!({ "sqrt": "n" })),
        ("power", json!({ "pow": { "base": "n", "exponent": 2 } })),
        (
            "exponential",
            json!({ "exp": { "div": { "left": "n", "right": 100 } } }),
        ),
        ("decimal logarithm", json!({ "log10": "n" })),
        ("natural logarithm", json!({ "ln": "n" })),
        (
            "linear decay",
            json!({ "lin_decay": { "x": "n", "target": 50, "scale": 20, "midpoint": 0.4 } }),
        ),
        (
            "exponential decay",
            json!({ "exp_decay": { "x": { "datetime_key": "when" }, "target": { "datetime": "2024-06-01" }, "scale": 864_000 } }),
        ),
        (
            "Gauss decay",
            json!({ "gauss_decay": { "x": { "geo_distance": { "origin": { "lon": 1, "lat": 1 }, "to": "at" } }, "scale": 1_000_000 } }),
        ),
    ]
}

/// Requests that read.
pub fn reads() -> Vec<Example> {
    let mut list = Vec::new();
    let mut add = |name: &str, path: &str, body| list.push(example(name, "POST", path, body));
    let near = json!([0.3, 0.2, -0.1, 0.5]);
    let with_idf = |idf: Value| json!({ "idf": idf });

    for (name, filter) in filters() {
        add(
            &format!("filter: {name}"),
            "/points/scroll",
            json!({ "filter": filter, "limit": 300, "with_payload": false }),
        );
        add(
            &format!("filtered query: {name}"),
            "/points/query",
            json!({ "query": near, "filter": filter, "limit": 5 }),
        );
    }
    for (name, formula) in expressions() {
        add(
            &format!("formula: {name}"),
            "/points/query",
            json!({
                "prefetch": { "query": near, "limit": 20, "filter": { "must": [{ "key": "n", "range": { "lte": 300 } }] } },
                "query": { "formula": formula, "defaults": { "n": 1, "missing": 0 } },
                "limit": 5,
            }),
        );
    }

    let mut query = |name: &str, body: Value| add(&format!("query: {name}"), "/points/query", body);
    query(
        "nearest to a dense vector",
        json!({ "query": near, "limit": 3, "offset": 1, "score_threshold": -10, "with_payload": true, "with_vector": true }),
    );
    query(
        "nearest to a point",
        json!({ "query": 7, "using": "cos", "limit": 3, "with_payload": ["n", "kw"], "with_vector": ["cos"] }),
    );
    query(
        "nearest to a UUID point",
        json!({ "query": id(30), "limit": 3, "with_payload": { "include": ["n"] } }),
    );
    query(
        "nearest to a sparse vector",
        json!({ "query": { "indices": [2, 9], "values": [1, 0.5] }, "using": "plain", "with_payload": { "exclude": ["body"] } }),
    );
    query(
        "nearest to a multivector",
        json!({ "query": [[0.1, 0.2], [0.3, -0.1]], "using": "rows", "limit": 3 }),
    );
    query(
        "nearest to a text by BM25",
        json!({ "query": { "text": "red stones", "model": "qdrant/bm25" }, "using": "words", "limit": 3 }),
    );
    query(
        "BM25 with options",
        json!({ "query": { "text": "Red stones", "model": "Qdrant/bm25", "options": {
        "k": 1.2, "b": 0.75, "avg_len": 6, "tokenizer": "word", "language": "english", "lowercase": true, "ascii_folding": true,
        "stopwords": { "languages": ["english"], "custom": [] }, "stemmer": { "type": "snowball", "language": "english" },
        "min_token_len": 1, "max_token_len": 40,
    } }, "using": "words", "limit": 3 }),
    );
    query(
        "nearest, spelt out",
        json!({ "query": { "nearest": near }, "limit": 3 }),
    );
    query(
        "MMR",
        json!({ "query": { "nearest": near, "mmr": { "diversity": 0.4, "candidates_limit": 30 } }, "limit": 4 }),
    );
    query(
        "recommend, average vector",
        json!({ "query": { "recommend": { "positive": [1, near], "negative": [4], "strategy": "average_vector" } }, "limit": 3 }),
    );
    query(
        "recommend, best score",
        json!({ "query": { "recommend": { "positive": [1], "negative": [id(40)], "strategy": "best_score" } }, "using": "cos", "limit": 3 }),
    );
    query(
        "recommend, sum of scores",
        json!({ "query": { "recommend": { "positive": [1, 2], "negative": [3], "strategy": "sum_scores" } }, "limit": 3 }),
    );
    query(
        "discover",
        json!({ "query": { "discover": { "target": near, "context": [{ "positive": 1, "negative": 2 }, { "positive": 3, "negative": 4 }] } }, "limit": 3 }),
    );
    query(
        "discover with one pair",
        json!({ "query": { "discover": { "target": 5, "context": { "positive": 1, "negative": 2 } } }, "limit": 3 }),
    );
    query(
        "context",
        json!({ "query": { "context": [{ "positive": 1, "negative": near }] }, "limit": 3 }),
    );
    query(
        "context of one pair",
        json!({ "query": { "context": { "positive": 1, "negative": 2 } }, "limit": 3 }),
    );
    query(
        "order by a field",
        json!({ "query": { "order_by": "n" }, "limit": 3 }),
    );
    query(
        "order by, down from an integer",
        json!({ "query": { "order_by": { "key": "n", "direction": "desc", "start_from": 100 } }, "limit": 3 }),
    );
    query(
        "order by, up from a number",
        json!({ "query": { "order_by": { "key": "f", "direction": "asc", "start_from": 10.5 } }, "limit": 3 }),
    );
    query(
        "order by, from a time",
        json!({ "query": { "order_by": { "key": "when", "start_from": "2024-06-01T00:00:00Z" } }, "limit": 3 }),
    );
    query(
        "sample",
        json!({ "query": { "sample": "random" }, "limit": 1000 }),
    );
    query(
        "no query: by id",
        json!({ "limit": 3, "with_payload": false, "with_vector": false }),
    );
    query(
        "fusion: RRF",
        json!({
            "prefetch": [{ "query": near, "limit": 10 }, { "query": { "indices": [2, 9], "values": [1, 0.5] }, "using": "plain", "limit": 10, "params": { "exact": true }, "score_threshold": 0.01 }],
            "query": { "fusion": "rrf" }, "limit": 5,
        }),
    );
    query(
        "fusion: DBSF",
        json!({ "prefetch": [{ "query": near, "limit": 7 }, { "query": [0.5, 0.1, 0.4, 0.2], "using": "cos", "limit": 9 }], "query": { "fusion": "dbsf" }, "limit": 5 }),
    );
    query(
        "RRF with parameters",
        json!({ "prefetch": [{ "query": near, "limit": 7 }, { "query": 3, "using": "cos", "limit": 9 }], "query": { "rrf": { "k": 5, "weights": [0.9, 0.3] } }, "limit": 5 }),
    );
    query(
        "nested prefetch and rescoring",
        json!({
            "prefetch": { "prefetch": [{ "query": near, "limit": 50 }, { "query": { "order_by": "n" }, "limit": 20 }], "query": { "fusion": "rrf" }, "limit": 30, "filter": { "must_not": [{ "has_id": [1] }] } },
            "query": [0.4, 0.1, 0.3, 0.1], "using": "cos", "limit": 5,
        }),
    );
    query(
        "a prefetch of a prefetch",
        json!({
            "prefetch": { "prefetch": { "query": near, "limit": 50 }, "query": { "sample": "random" }, "limit": 50 },
            "query": [0.4, 0.1, 0.3, 0.1], "using": "cos", "limit": 5,
        }),
    );
    query(
        "relevance feedback",
        json!({ "query": { "relevance_feedback": {
        "target": near,
        "feedback": [{ "example": 4, "score": 0.9 }, { "example": near, "score": 0.1 }],
        "strategy": { "naive": { "a": 0.5, "b": 1, "c": 0.25 } },
    } }, "limit": 3 }),
    );
    query(
        "search parameters",
        json!({
            "query": near, "using": "cos", "limit": 5,
            "params": {
                "hnsw_ef": 64, "exact": false, "indexed_only": false,
                "quantization": { "ignore": false, "rescore": true, "oversampling": 2.0 },
                "acorn": { "enable": true, "max_selectivity": 0.9 },
            },
            "filter": { "must": [{ "key": "flag", "match": { "value": true } }] },
        }),
    );
    query(
        "IDF over everything",
        json!({ "query": { "text": "red", "model": "qdrant/bm25" }, "using": "words", "params": with_idf(json!("global")) }),
    );
    query(
        "IDF over a corpus",
        json!({ "query": { "text": "red", "model": "qdrant/bm25" }, "using": "words", "params": with_idf(json!({ "corpus": { "must": [{ "key": "flag", "match": { "value": true } }] } })) }),
    );

    add(
        "batched queries",
        "/points/query/batch",
        json!({ "searches": [
        { "query": near, "limit": 2 },
        { "query": 3, "using": "cos", "limit": 2, "filter": { "must": [{ "key": "flag", "match": { "value": true } }] }, "with_payload": ["n"] },
        { "prefetch": [{ "query": near }], "query": { "fusion": "rrf" }, "limit": 2 },
    ] }),
    );
    add(
        "groups",
        "/points/query/groups",
        json!({
            "query": near, "group_by": "tenant", "group_size": 2, "limit": 3, "with_payload": ["n"], "with_vector": ["rows"],
            "filter": { "must": [{ "key": "n", "range": { "gte": 1 } }] }, "params": { "exact": true }, "score_threshold": -10,
        }),
    );
    add(
        "groups of a fusion",
        "/points/query/groups",
        json!({
            "prefetch": [
                { "query": near, "limit": 50, "params": { "exact": true } },
                { "query": 2, "using": "cos", "limit": 50, "params": { "exact": true } },
            ],
            "query": { "fusion": "rrf" }, "group_by": "kw", "limit": 2, "group_size": 1,
        }),
    );
    add(
        "groups of a prefetch",
        "/points/query/groups",
        json!({
            "prefetch": { "query": near, "limit": 60 }, "query": [0.4, 0.1, 0.3, 0.1], "using": "cos",
            "group_by": "n", "limit": 3, "group_size": 1,
        }),
    );
    add(
        "groups with MMR",
        "/points/query/groups",
        json!({
            "query": { "nearest": near, "mmr": { "diversity": 0.5, "candidates_limit": 40 } }, "using": "", "group_by": "n", "limit": 2, "group_size": 1,
        }),
    );
    for (form, path) in [
        ("pairs", "/points/search/matrix/pairs"),
        ("offsets", "/points/search/matrix/offsets"),
    ] {
        add(
            &format!("matrix as {form}"),
            path,
            json!({
                "sample": 1000, "limit": 2, "using": "cos", "filter": { "must": [{ "key": "n", "range": { "lte": 12 } }] },
            }),
        );
    }
    add(
        "scroll",
        "/points/scroll",
        json!({ "limit": 4, "offset": 5, "with_payload": { "include": ["n"] }, "with_vector": true }),
    );
    add(
        "scroll from a UUID",
        "/points/scroll",
        json!({ "limit": 4, "offset": id(30), "with_payload": ["n"], "with_vector": ["cos"] }),
    );
    add(
        "scroll in order",
        "/points/scroll",
        json!({ "limit": 4, "order_by": { "key": "n", "direction": "desc" }, "filter": { "must": [{ "key": "flag", "match": { "value": true } }] } }),
    );
    add(
        "scroll in order of a field",
        "/points/scroll",
        json!({ "limit": 4, "order_by": "f", "with_payload": true }),
    );
    add(
        "count",
        "/points/count",
        json!({ "filter": { "must": [{ "key": "kw", "match": { "value": "alpha" } }] }, "exact": true }),
    );
    add(
        "approximate count",
        "/points/count",
        json!({ "exact": false }),
    );
    add(
        "facet",
        "/facet",
        json!({ "key": "kw", "limit": 2, "filter": { "must": [{ "key": "n", "range": { "lt": 200 } }] }, "exact": true }),
    );
    add("approximate facet", "/facet", json!({ "key": "tags" }));
    add(
        "retrieve",
        "/points",
        json!({ "ids": [3, id(10), 1, 12345], "with_payload": true, "with_vector": ["", "words"] }),
    );
    list.push(example("one point", "GET", "/points/7", Value::Null));
    list.push(example(
        "one UUID point",
        "GET",
        "/points/00000000-0000-4000-8000-00000000000a",
        Value::Null,
    ));
    list
}

/// Reads that the engine has and the server of 1.19 has not.
pub fn newer_reads() -> Vec<Example> {
    let query = |name: &str, body| example(name, "POST", "/points/query", body);
    let formula = |name: &str, formula: Value| {
        query(
            name,
            json!({
                "prefetch": { "query": [0.3, 0.2, -0.1, 0.5], "limit": 20, "filter": { "must": [{ "key": "n", "range": { "lte": 300 } }] } },
                "query": { "formula": formula },
                "limit": 5,
            }),
        )
    };
    vec![
        query(
            "text query",
            json!({ "query": { "text": "red stone" }, "using": "ranked", "limit": 3 }),
        ),
        query(
            "text query with BM25 parameters",
            json!({ "query": { "text": { "query": "red", "scoring": { "bm25": { "k": 1.5, "b": 0.5 } } } }, "using": "ranked", "limit": 3, "score_threshold": 0.0 }),
        ),
        query(
            "text query over the elements of an array",
            json!({ "query": { "text": { "query": "river" } }, "using": "offers[].name", "limit": 3 }),
        ),
        query(
            "text query in a fusion",
            json!({ "prefetch": [{ "query": { "text": "stone" }, "using": "ranked2" }, { "query": [1, 0, 0, 0] }], "query": { "fusion": "rrf" }, "limit": 3 }),
        ),
        query(
            "match a substring",
            json!({ "filter": { "must": [{ "key": "kw", "match": { "substring": "phab" } }] }, "limit": 3 }),
        ),
        query(
            "match an element by its own index",
            json!({ "filter": { "must": [{ "key": "offers[].colour", "match": { "value": "green" } }] }, "limit": 3 }),
        ),
        formula("formula: largest", json!({ "max": ["n", 100] })),
        formula("formula: smallest", json!({ "min": ["n", 100] })),
        formula(
            "formula: inverse hyperbolic cosine",
            json!({ "acosh": "n" }),
        ),
    ]
}

/// A collection whose default vector is a multivector, for the forms that only such a one takes.
pub fn multivector_collection() -> Value {
    json!({ "vectors": { "size": 2, "distance": "Dot", "multivector_config": { "comparator": "max_sim" } } })
}

/// Writes to [`multivector_collection`].
pub fn multivector_writes() -> Vec<Example> {
    vec![
        example(
            "upsert one default multivector",
            "PUT",
            "/points",
            json!({ "points": [{ "id": 1, "vector": [[1, 2], [3, 4]] }] }),
        ),
        example(
            "upsert a batch of multivectors",
            "PUT",
            "/points",
            json!({ "batch": { "ids": [2, 3], "vectors": [[[1, 2], [3, 4]], [[5, 6]]] } }),
        ),
    ]
}

/// What is refused, with the request that shows it.
pub fn refusals() -> Vec<Refusal> {
    let near = || json!([1, 0, 0, 0]);
    let mut list = Vec::new();
    let mut add = |schema, part, method, path, body| {
        list.push(Refusal {
            schema,
            part,
            method,
            path,
            body,
        });
    };
    let image = || json!({ "image": "a.png", "model": "clip" });
    let object = || json!({ "object": { "a": 1 }, "model": "any" });
    let upsert = |vector: Value| json!({ "points": [{ "id": 1, "vector": vector }] });
    let columns = |vectors: Value| json!({ "batch": { "ids": [1], "vectors": vectors } });
    add(
        "VectorInput",
        "Image",
        "POST",
        "/points/query",
        json!({ "query": image() }),
    );
    add(
        "VectorInput",
        "InferenceObject",
        "POST",
        "/points/query",
        json!({ "query": object() }),
    );
    add(
        "Vector",
        "Image",
        "PUT",
        "/points",
        upsert(json!({ "cos": image() })),
    );
    add(
        "Vector",
        "InferenceObject",
        "PUT",
        "/points",
        upsert(json!({ "cos": object() })),
    );
    let document = || json!({ "text": "a", "model": "minilm" });
    add(
        "VectorStruct",
        "Document",
        "PUT",
        "/points",
        upsert(document()),
    );
    add(
        "BatchVectorStruct",
        "list of Document",
        "PUT",
        "/points",
        columns(json!([document()])),
    );
    add("VectorStruct", "Image", "PUT", "/points", upsert(image()));
    add(
        "VectorStruct",
        "InferenceObject",
        "PUT",
        "/points",
        upsert(object()),
    );
    add(
        "BatchVectorStruct",
        "list of Image",
        "PUT",
        "/points",
        columns(json!([image()])),
    );
    add(
        "BatchVectorStruct",
        "list of InferenceObject",
        "PUT",
        "/points",
        columns(json!([object()])),
    );
    add(
        "DocumentOptions",
        "any object",
        "POST",
        "/points/query",
        json!({ "query": { "text": "a", "model": "minilm", "options": { "size": 7 } }, "using": "words" }),
    );

    add(
        "QueryRequest",
        "lookup_from",
        "POST",
        "/points/query",
        json!({ "query": 1, "lookup_from": { "collection": "other", "vector": "v", "shard_key": "a" } }),
    );
    add(
        "Prefetch",
        "lookup_from",
        "POST",
        "/points/query",
        json!({ "prefetch": { "query": 1, "lookup_from": { "collection": "other" } }, "query": { "fusion": "rrf" } }),
    );
    add(
        "QueryGroupsRequest",
        "lookup_from",
        "POST",
        "/points/query/groups",
        json!({ "query": 1, "group_by": "kw", "lookup_from": { "collection": "other" } }),
    );
    add(
        "QueryGroupsRequest",
        "with_lookup",
        "POST",
        "/points/query/groups",
        json!({ "query": 1, "group_by": "kw", "with_lookup": { "collection": "other", "with_payload": true, "with_vectors": true } }),
    );

    add(
        "QueryRequest",
        "shard_key",
        "POST",
        "/points/query",
        json!({ "query": near(), "shard_key": "a" }),
    );
    add(
        "QueryGroupsRequest",
        "shard_key",
        "POST",
        "/points/query/groups",
        json!({ "query": near(), "group_by": "kw", "shard_key": 1 }),
    );
    add(
        "ScrollRequest",
        "shard_key",
        "POST",
        "/points/scroll",
        json!({ "shard_key": ["a"] }),
    );
    add(
        "PointRequest",
        "shard_key",
        "POST",
        "/points",
        json!({ "ids": [1], "shard_key": { "target": "a", "fallback": "b" } }),
    );
    add(
        "CountRequest",
        "shard_key",
        "POST",
        "/points/count",
        json!({ "shard_key": "a" }),
    );
    add(
        "FacetRequest",
        "shard_key",
        "POST",
        "/facet",
        json!({ "key": "kw", "shard_key": "a" }),
    );
    add(
        "SearchMatrixRequest",
        "shard_key",
        "POST",
        "/points/search/matrix/pairs",
        json!({ "shard_key": "a" }),
    );
    add(
        "PointsList",
        "shard_key",
        "PUT",
        "/points",
        json!({ "points": [{ "id": 1, "vector": near() }], "shard_key": "a" }),
    );
    add(
        "PointsBatch",
        "shard_key",
        "PUT",
        "/points",
        json!({ "batch": { "ids": [1], "vectors": [near()] }, "shard_key": "a" }),
    );
    add(
        "PointIdsList",
        "shard_key",
        "POST",
        "/points/delete",
        json!({ "points": [1], "shard_key": "a" }),
    );
    add(
        "FilterSelector",
        "shard_key",
        "POST",
        "/points/delete",
        json!({ "filter": {}, "shard_key": "a" }),
    );
    add(
        "UpdateVectors",
        "shard_key",
        "PUT",
        "/points/vectors",
        json!({ "points": [{ "id": 1, "vector": near() }], "shard_key": "a" }),
    );
    add(
        "DeleteVectors",
        "shard_key",
        "POST",
        "/points/vectors/delete",
        json!({ "points": [1], "vector": ["cos"], "shard_key": "a" }),
    );
    add(
        "SetPayload",
        "shard_key",
        "POST",
        "/points/payload",
        json!({ "points": [1], "payload": {}, "shard_key": "a" }),
    );
    add(
        "DeletePayload",
        "shard_key",
        "POST",
        "/points/payload/delete",
        json!({ "points": [1], "keys": ["a"], "shard_key": "a" }),
    );
    list
}

/// Configurations of collections that are understood, each one whole.
pub fn collections() -> Vec<(String, Value)> {
    let vector = json!({ "size": 4, "distance": "Dot" });
    let mut list = vec![("the collection of these requests".to_owned(), collection())];
    let mut add = |name: &str, config: Value| list.push((name.to_owned(), config));
    add(
        "one vector",
        json!({
            "vectors": {
                "size": 4, "distance": "Cosine", "on_disk": true, "memory": "cold", "datatype": "float32",
                "hnsw_config": { "m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "max_indexing_threads": 1, "on_disk": false, "memory": "cached", "payload_m": 4, "inline_storage": false },
                "quantization_config": { "scalar": { "type": "int8", "quantile": 0.9, "always_ram": true, "memory": "pinned" } },
            },
            "shard_number": 1, "sharding_method": "auto", "replication_factor": 1, "write_consistency_factor": 1,
            "on_disk_payload": true, "payload": { "memory": "cold" },
            "hnsw_config": { "m": 8 },
            "wal_config": { "wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1 },
            "optimizers_config": {
                "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000, "default_segment_number": 1, "max_segment_size": 100_000,
                "memmap_threshold": 10_000, "indexing_threshold": 20_000, "flush_interval_sec": 5, "max_optimization_threads": 1, "prevent_unoptimized": false,
            },
            "quantization_config": { "product": { "compression": "x4", "always_ram": true, "memory": "cached" } },
            "strict_mode_config": {
                "enabled": false, "max_query_limit": 100, "max_timeout": 60, "unindexed_filtering_retrieve": true, "unindexed_filtering_update": true,
                "search_max_hnsw_ef": 100, "search_allow_exact": true, "search_max_oversampling": 4.0, "upsert_max_batchsize": 100, "search_max_batchsize": 100,
                "max_collection_vector_size_bytes": 1_000_000, "read_rate_limit": 10, "write_rate_limit": 10, "max_collection_payload_size_bytes": 1_000_000,
                "max_points_count": 1000, "filter_max_conditions": 10, "condition_max_size": 10, "max_payload_index_count": 10, "max_resident_memory_percent": 90,
                "multivector_config": { "a": { "max_vectors": 10 } }, "sparse_config": { "b": { "max_length": 10 } },
            },
            "metadata": { "any": "thing" },
        }),
    );
    add(
        "sharding by key",
        json!({ "vectors": vector, "sharding_method": "custom", "optimizers_config": { "max_optimization_threads": "auto" } }),
    );
    let mut vectors = serde_json::Map::new();
    let mut quantized = |name: String, quantization: Value| {
        let vector = json!({ "size": 4, "distance": "Dot", "quantization_config": quantization });
        vectors.insert(name, vector);
    };
    for compression in ["x4", "x8", "x16", "x32", "x64"] {
        quantized(
            format!("product-{compression}"),
            json!({ "product": { "compression": compression } }),
        );
    }
    for encoding in ["one_bit", "two_bits", "one_and_half_bits"] {
        quantized(
            format!("binary-{encoding}"),
            json!({ "binary": { "encoding": encoding, "always_ram": true, "memory": "cached" } }),
        );
    }
    for encoding in ["default", "binary", "scalar4bits", "scalar8bits"] {
        quantized(
            format!("queries-{encoding}"),
            json!({ "binary": { "query_encoding": encoding } }),
        );
    }
    for bits in ["bits1", "bits1_5", "bits2", "bits4"] {
        quantized(
            format!("turbo-{bits}"),
            json!({ "turbo": { "bits": bits, "always_ram": true, "memory": "cached" } }),
        );
    }
    for distance in ["Cosine", "Euclid", "Dot", "Manhattan"] {
        for datatype in ["float32", "float16", "uint8", "turbo4"] {
            let vector = json!({ "size": 4, "distance": distance, "datatype": datatype });
            vectors.insert(format!("{distance}-{datatype}"), vector);
        }
    }
    add(
        "every quantization, distance and datatype",
        json!({
            "vectors": vectors,
            "quantization_config": { "binary": {} },
            "sparse_vectors": { "s": { "modifier": "none", "index": { "full_scan_threshold": 100, "on_disk": false, "memory": "cached", "datatype": "float32" } } },
        }),
    );
    for quantization in [
        json!({ "turbo": {} }),
        json!({ "scalar": { "type": "int8" } }),
    ] {
        add(
            "a quantization for all vectors",
            json!({ "vectors": vector, "quantization_config": quantization }),
        );
    }
    for (datatype, memory) in [("float16", "cold"), ("uint8", "pinned")] {
        add(
            &format!("sparse vectors of {datatype}"),
            json!({
                "vectors": {}, "sparse_vectors": { "s": { "modifier": "idf", "index": { "datatype": datatype, "memory": memory } } },
            }),
        );
    }
    list
}

/// Configurations that the engine has and the server of 1.19 has not.
pub fn newer_collections() -> Vec<(String, Value)> {
    let mut list = vec![(
        "memory of the id tracker".to_owned(),
        json!({ "vectors": { "size": 4, "distance": "Dot" }, "id_tracker": { "memory": "cached" } }),
    )];
    for datatype in ["turbo8", "turbo16"] {
        list.push((
            format!("vectors of {datatype}"),
            json!({ "vectors": { "size": 4, "distance": "Dot", "datatype": datatype } }),
        ));
    }
    list.push((
        "turbo quantization, bits8".to_owned(),
        json!({ "vectors": { "size": 4, "distance": "Dot" }, "quantization_config": { "turbo": { "bits": "bits8" } } }),
    ));
    list
}
