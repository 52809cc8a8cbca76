//! Every kind of vector, quantization and payload index, with values for them and queries on them.

use std::collections::BTreeMap;

use fastrand::Rng;
use serde_json::{Map, Value, json};

/// A collection, and how to make points and queries for it.
pub struct Set {
    pub config: Value,
    /// Points of a tenant are put together when a segment is optimized, in the order of a hash that
    /// differs from processor to processor.
    pub tenants: bool,
    /// How many there are at first.
    pub points: u64,
    pub vectors: Vec<VectorKind>,
    pub fields: Vec<Field>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Dense,
    Multi,
    Sparse,
}

pub struct VectorKind {
    pub name: String,
    pub size: usize,
    pub shape: Shape,
    /// Elements are whole numbers from 0 to 255.
    pub bytes: bool,
    pub quantized: bool,
}

/// A payload field and its index.
pub struct Field {
    /// As the index names it.
    pub path: String,
    pub schema: Value,
    pub holds: Holds,
}

/// What kind of values a field holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    Word,
    Integer,
    Float,
    Bool,
    Datetime,
    Uuid,
    Geo,
    Text,
}

/// A request that reads, and when its answer must be the same.
#[derive(Clone)]
pub struct Query {
    pub name: String,
    pub path: &'static str,
    pub body: Value,
    pub depends: Depends,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Depends {
    /// On the points: whoever holds the same points gives the same answer.
    Points,
    /// On the files too: HNSW graphs and product quantization are built at random.
    Files,
}

const DISTANCES: [&str; 4] = ["Cosine", "Dot", "Euclid", "Manhattan"];

/// How many points most sets have at first.
const POINTS: u64 = 80;

/// More than a block of a packed list has, which is 128, also after some are deleted.
const POINTS_OF_LISTS: u64 = 300;

/// Dimensions below which the native engine computes without SIMD, in the order in which the
/// component does: all bits are the same.
const SCALAR_SIZE: usize = 12;

fn hnsw() -> Value {
    // One thread: the component has no more.
    json!({ "m": 8, "ef_construct": 32, "full_scan_threshold": 10, "max_indexing_threads": 1 })
}

fn optimizers() -> Value {
    json!({ "default_segment_number": 1, "indexing_threshold": 1, "vacuum_min_vector_number": 100 })
}

/// Every datatype and distance, in memory and on disk, with every kind of HNSW.
pub fn dense() -> Set {
    let graphs = [
        json!({}),
        json!({ "on_disk": true }),
        json!({ "payload_m": 6 }),
        json!({ "m": 0 }),
        json!({ "m": 0, "payload_m": 6 }),
        json!({ "memory": "cold" }),
        json!({ "memory": "cached" }),
        json!({ "memory": "pinned" }),
    ];
    let mut vectors = Vec::new();
    let mut config = Map::new();
    for datatype in ["float32", "float16", "uint8", "turbo4"] {
        for distance in DISTANCES {
            for (store, keep) in [
                ("ram", json!({ "on_disk": false })),
                ("disk", json!({ "on_disk": true })),
            ] {
                let name = format!("{datatype}-{distance}-{store}");
                let mut params = json!({
                    "size": SCALAR_SIZE,
                    "distance": distance,
                    "datatype": datatype,
                    "hnsw_config": graphs[vectors.len() * 5 % graphs.len()],
                });
                extend(&mut params, keep);
                config.insert(name.clone(), params);
                vectors.push(VectorKind {
                    name,
                    size: SCALAR_SIZE,
                    shape: Shape::Dense,
                    bytes: datatype == "uint8",
                    quantized: false,
                });
            }
        }
    }
    for memory in ["cold", "cached", "pinned"] {
        let name = format!("memory-{memory}");
        config.insert(
            name.clone(),
            json!({ "size": SCALAR_SIZE, "distance": "Dot", "memory": memory }),
        );
        vectors.push(VectorKind {
            name,
            size: SCALAR_SIZE,
            shape: Shape::Dense,
            bytes: false,
            quantized: false,
        });
    }
    Set::of_vectors(config, vectors)
}

/// Fields that HNSW graphs are built for, and queries filter by.
fn filtered() -> Vec<Field> {
    vec![
        field("group", Holds::Word, json!({ "type": "keyword" })),
        field(
            "rank",
            Holds::Integer,
            json!({ "type": "integer", "lookup": true, "range": true }),
        ),
    ]
}

/// Multivectors of every datatype and distance.
pub fn multivectors() -> Set {
    let mut vectors = Vec::new();
    let mut config = Map::new();
    for (number, datatype) in ["float32", "float16", "uint8", "turbo4"]
        .into_iter()
        .enumerate()
    {
        for (other, distance) in DISTANCES.into_iter().enumerate() {
            let on_disk = (number + other) % 2 == 1;
            let name = format!("multi-{datatype}-{distance}");
            config.insert(
                name.clone(),
                json!({
                    "size": SCALAR_SIZE,
                    "distance": distance,
                    "datatype": datatype,
                    "on_disk": on_disk,
                    "multivector_config": { "comparator": "max_sim" },
                }),
            );
            vectors.push(VectorKind {
                name,
                size: SCALAR_SIZE,
                shape: Shape::Multi,
                bytes: datatype == "uint8",
                quantized: false,
            });
        }
    }
    Set::of_vectors(config, vectors)
}

/// Sparse vectors of every datatype and modifier, in memory and on disk.
pub fn sparse() -> Set {
    let mut vectors = Vec::new();
    let mut sparse = Map::new();
    for datatype in ["float32", "float16", "uint8"] {
        for modifier in ["none", "idf"] {
            for on_disk in [false, true] {
                let place = if on_disk { "disk" } else { "ram" };
                let name = format!("sparse-{datatype}-{modifier}-{place}");
                sparse.insert(
                    name.clone(),
                    json!({
                        "modifier": modifier,
                        "index": { "datatype": datatype, "on_disk": on_disk, "full_scan_threshold": 20 },
                    }),
                );
                vectors.push(VectorKind {
                    name,
                    size: 40,
                    shape: Shape::Sparse,
                    bytes: false,
                    quantized: false,
                });
            }
        }
    }
    Set {
        config: json!({
            "sparse_vectors": sparse,
            "optimizers_config": optimizers(),
        }),
        tenants: false,
        points: POINTS,
        vectors,
        fields: filtered(),
    }
}

/// Scalar and product quantization with every parameter, over every shape and datatype.
pub fn scalar_and_product() -> Set {
    let mut kinds: Vec<(String, usize, Value)> = Vec::new();
    for (name, params) in [
        ("sq", json!({})),
        ("sq-quantile", json!({ "quantile": 0.95 })),
        ("sq-ram", json!({ "always_ram": true })),
        ("sq-disk", json!({ "always_ram": false })),
        ("sq-pinned", json!({ "memory": "pinned" })),
        ("sq-cold", json!({ "memory": "cold" })),
    ] {
        let mut scalar = json!({ "type": "int8" });
        extend(&mut scalar, params);
        kinds.push((
            name.to_owned(),
            SCALAR_SIZE + 1,
            json!({ "scalar": scalar }),
        ));
    }
    for (number, compression) in ["x4", "x8", "x16", "x32", "x64"].into_iter().enumerate() {
        kinds.push((
            format!("pq-{compression}"),
            33,
            json!({ "product": { "compression": compression, "always_ram": number % 2 == 0 } }),
        ));
    }
    let bases = [
        ("sq", json!({ "scalar": { "type": "int8" } })),
        ("pq", json!({ "product": { "compression": "x8" } })),
    ];
    quantized(&kinds, &bases)
}

/// Binary and turbo quantization with every parameter, over every shape and datatype.
pub fn binary_and_turbo() -> Set {
    let mut kinds: Vec<(String, usize, Value)> = Vec::new();
    for (number, encoding) in ["one_bit", "two_bits", "one_and_half_bits"]
        .into_iter()
        .enumerate()
    {
        for (other, query) in ["default", "binary", "scalar4bits", "scalar8bits"]
            .into_iter()
            .enumerate()
        {
            // Below and above the 128 bits from which words are wider.
            let size = if (number + other) % 2 == 0 { 40 } else { 137 };
            kinds.push((
                format!("bq-{encoding}-{query}"),
                size,
                json!({ "binary": {
                    "encoding": encoding,
                    "query_encoding": query,
                    "always_ram": (number + other) % 3 == 0,
                } }),
            ));
        }
    }
    for (number, bits) in ["bits1", "bits1_5", "bits2", "bits4"]
        .into_iter()
        .enumerate()
    {
        for always_ram in [false, true] {
            kinds.push((
                format!("tq-{bits}-{always_ram}"),
                if number % 2 == 0 { 24 } else { 70 },
                json!({ "turbo": { "bits": bits, "always_ram": always_ram } }),
            ));
        }
    }
    let bases = [
        ("bq", json!({ "binary": {} })),
        ("tq", json!({ "turbo": { "bits": "bits4" } })),
    ];
    quantized(&kinds, &bases)
}

/// Vectors of so many dimensions that both builds compute with vector instructions, with blocks of
/// 16 and of 32, and with and without a rest: every datatype and distance, and every quantization.
pub fn wide() -> Set {
    let mut vectors = Vec::new();
    let mut config = Map::new();
    let mut add = |name: String, size: usize, distance: &str, bytes: bool, more: Value| {
        let quantized = more["quantization_config"].is_object();
        let mut params = json!({ "size": size, "distance": distance });
        extend(&mut params, more);
        config.insert(name.clone(), params);
        vectors.push(VectorKind {
            name,
            size,
            shape: Shape::Dense,
            bytes,
            quantized,
        });
    };
    for (number, datatype) in ["float32", "float16", "uint8", "turbo4"]
        .into_iter()
        .enumerate()
    {
        for (other, distance) in DISTANCES.into_iter().enumerate() {
            let size = [20, 64, 100, 131][(number + other) % 4];
            let bytes = datatype == "uint8";
            add(
                format!("wide-{datatype}-{distance}"),
                size,
                distance,
                bytes,
                json!({ "datatype": datatype }),
            );
        }
    }
    let binary = |query: &str| json!({ "binary": { "query_encoding": query } });
    let turbo = |bits: &str| json!({ "turbo": { "bits": bits } });
    for (number, (name, quantization)) in [
        ("sq", json!({ "scalar": { "type": "int8" } })),
        ("pq", json!({ "product": { "compression": "x8" } })),
        ("bq", binary("binary")),
        ("bq4", binary("scalar4bits")),
        ("bq8", binary("scalar8bits")),
        ("tq1", turbo("bits1")),
        ("tq1_5", turbo("bits1_5")),
        ("tq2", turbo("bits2")),
        ("tq4", turbo("bits4")),
    ]
    .into_iter()
    .enumerate()
    {
        for (other, size) in [136, 700].into_iter().enumerate() {
            // Not with cosine: a length that differs in its last bit can change a code.
            let distance = DISTANCES[1 + (number + other) % (DISTANCES.len() - 1)];
            add(
                format!("wide-{name}-{size}-{distance}"),
                size,
                distance,
                false,
                json!({ "quantization_config": quantization }),
            );
        }
    }
    Set::of_vectors(config, vectors)
}

/// Lists of postings that are longer than a packed block.
pub fn lists() -> Set {
    let mut set = sparse();
    set.points = POINTS_OF_LISTS;
    for vector in &mut set.vectors {
        vector.size = 4;
    }
    for on_disk in [false, true] {
        for phrases in [false, true] {
            set.fields.push(field(
                &format!("text-{phrases}-{on_disk}"),
                Holds::Text,
                json!({ "type": "text", "phrase_matching": phrases, "on_disk": on_disk }),
            ));
        }
    }
    set
}

/// A set of `kinds` (name, dimensions, quantization), and of `bases` over other vectors.
fn quantized(kinds: &[(String, usize, Value)], bases: &[(&str, Value)]) -> Set {
    let mut vectors = Vec::new();
    let mut config = Map::new();
    let mut add = |name: String, size: usize, quantization: &Value, more: Value, shape, bytes| {
        // Cosine divides by a length that the native engine adds up in another order with larger sizes.
        let distances = if size < 16 {
            DISTANCES.as_slice()
        } else {
            &DISTANCES[1..]
        };
        let mut params = json!({
            "size": size,
            "distance": distances[vectors.len() % distances.len()],
            "on_disk": vectors.len() % 2 == 0,
            "quantization_config": quantization,
        });
        extend(&mut params, more);
        config.insert(name.clone(), params);
        vectors.push(VectorKind {
            name,
            size,
            shape,
            bytes,
            quantized: true,
        });
    };
    for (name, size, quantization) in kinds {
        add(
            name.clone(),
            *size,
            quantization,
            json!({}),
            Shape::Dense,
            false,
        );
    }
    for (name, quantization) in bases {
        let multi = json!({ "multivector_config": { "comparator": "max_sim" } });
        add(
            format!("{name}-multi"),
            SCALAR_SIZE,
            quantization,
            multi,
            Shape::Multi,
            false,
        );
        let half = json!({ "datatype": "float16" });
        add(
            format!("{name}-float16"),
            SCALAR_SIZE,
            quantization,
            half,
            Shape::Dense,
            false,
        );
        let byte = json!({ "datatype": "uint8" });
        add(
            format!("{name}-uint8"),
            SCALAR_SIZE,
            quantization,
            byte,
            Shape::Dense,
            true,
        );
        let inline = json!({ "hnsw_config": { "inline_storage": true } });
        add(
            format!("{name}-inline"),
            SCALAR_SIZE,
            quantization,
            inline,
            Shape::Dense,
            false,
        );
    }
    Set::of_vectors(config, vectors)
}

/// Every payload index with every parameter, in memory and on disk. `tenants` is whether there are
/// some; without, the payload itself is on disk.
pub fn payload(tenants: bool) -> Set {
    let mut fields = Vec::new();
    let mut both = |name: &str, holds: Holds, schema: Value| {
        if !tenants && schema["is_tenant"] == true {
            return;
        }
        for place in ["", "-disk"] {
            let mut schema = schema.clone();
            if !place.is_empty() {
                extend(&mut schema, json!({ "on_disk": true }));
            }
            fields.push(field(&format!("{name}{place}"), holds, schema));
        }
    };
    both("word", Holds::Word, json!({ "type": "keyword" }));
    both(
        "tenant",
        Holds::Word,
        json!({ "type": "keyword", "is_tenant": true }),
    );
    both(
        "prefix",
        Holds::Word,
        json!({ "type": "keyword", "prefix": true }),
    );
    both(
        "plain",
        Holds::Word,
        json!({ "type": "keyword", "enable_hnsw": false }),
    );
    both("integer", Holds::Integer, json!({ "type": "integer" }));
    both(
        "lookup",
        Holds::Integer,
        json!({ "type": "integer", "lookup": true, "range": false }),
    );
    both(
        "range",
        Holds::Integer,
        json!({ "type": "integer", "lookup": false, "range": true }),
    );
    both(
        "principal",
        Holds::Integer,
        json!({ "type": "integer", "lookup": true, "range": true, "is_principal": true }),
    );
    both("float", Holds::Float, json!({ "type": "float" }));
    both(
        "float-principal",
        Holds::Float,
        json!({ "type": "float", "is_principal": true }),
    );
    both("bool", Holds::Bool, json!({ "type": "bool" }));
    both("datetime", Holds::Datetime, json!({ "type": "datetime" }));
    both(
        "datetime-principal",
        Holds::Datetime,
        json!({ "type": "datetime", "is_principal": true }),
    );
    both("uuid", Holds::Uuid, json!({ "type": "uuid" }));
    both(
        "uuid-tenant",
        Holds::Uuid,
        json!({ "type": "uuid", "is_tenant": true }),
    );
    both("geo", Holds::Geo, json!({ "type": "geo" }));
    // With one value a point: of several, which one counts is left open.
    both(
        "single-integer",
        Holds::Integer,
        json!({ "type": "integer", "range": true, "lookup": false }),
    );
    both("single-float", Holds::Float, json!({ "type": "float" }));
    both(
        "single-datetime",
        Holds::Datetime,
        json!({ "type": "datetime", "is_principal": true }),
    );
    for (name, params) in [
        ("text", json!({})),
        (
            "text-prefix",
            json!({ "tokenizer": "prefix", "min_token_len": 2, "max_token_len": 5 }),
        ),
        ("text-whitespace", json!({ "tokenizer": "whitespace" })),
        (
            "text-multilingual",
            json!({ "tokenizer": "multilingual", "ascii_folding": true }),
        ),
        (
            "text-phrase",
            json!({ "tokenizer": "word", "phrase_matching": true }),
        ),
        ("text-case", json!({ "lowercase": false })),
        (
            "text-stem",
            json!({ "stemmer": { "type": "snowball", "language": "english" }, "stopwords": "english" }),
        ),
        (
            "text-stop",
            json!({
                "stopwords": { "languages": ["german"], "custom": ["river"] },
                "phrase_matching": true,
            }),
        ),
    ] {
        let mut schema = json!({ "type": "text" });
        extend(&mut schema, params);
        both(name, Holds::Text, schema);
    }
    for (path, holds, schema) in [
        ("list[].n", Holds::Integer, "integer"),
        ("list[].word", Holds::Word, "keyword"),
        ("deep.er.value", Holds::Float, "float"),
        ("tags[]", Holds::Word, "keyword"),
    ] {
        fields.push(field(path, holds, json!({ "type": schema })));
    }
    for memory in ["cold", "cached", "pinned"] {
        fields.push(field(
            &format!("memory-{memory}"),
            Holds::Word,
            json!({ "type": "keyword", "memory": memory }),
        ));
    }
    Set {
        config: json!({
            "vectors": { "size": 4, "distance": "Euclid", "hnsw_config": { "payload_m": 8 } },
            "on_disk_payload": !tenants,
            "hnsw_config": hnsw(),
            "optimizers_config": optimizers(),
        }),
        vectors: vec![VectorKind {
            name: String::new(),
            size: 4,
            shape: Shape::Dense,
            bytes: false,
            quantized: false,
        }],
        tenants,
        points: POINTS,
        fields,
    }
}

fn field(path: &str, holds: Holds, schema: Value) -> Field {
    Field {
        path: path.to_owned(),
        schema,
        holds,
    }
}

fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}

const WORDS: [&str; 12] = [
    "river", "Forest", "stone", "signal", "amber", "running", "the", "und", "Äpfel", "寿司",
    "window", "copper",
];

impl VectorKind {
    /// A value as REST has it; numbers with few digits, so that they are read as they were written.
    pub fn value(&self, random: &mut Rng) -> Value {
        let dense = |random: &mut Rng| -> Vec<Value> {
            (0..self.size)
                .map(|_| {
                    if self.bytes {
                        json!(random.u32(0..256))
                    } else {
                        json!(f64::from(random.i32(-1000..1000)) / 500.0)
                    }
                })
                .collect()
        };
        match self.shape {
            Shape::Dense => json!(dense(random)),
            Shape::Multi => {
                let rows: Vec<_> = (0..random.usize(1..4)).map(|_| dense(random)).collect();
                json!(rows)
            }
            Shape::Sparse => {
                let size = u32::try_from(self.size).unwrap_or(u32::MAX);
                let values: BTreeMap<u32, f64> = (0..random.usize(0..12))
                    .map(|_| {
                        let index = if random.u8(0..20) == 0 {
                            u32::MAX - random.u32(0..3)
                        } else {
                            random.u32(0..size)
                        };
                        (index, f64::from(random.i32(1..1000)) / 250.0)
                    })
                    .collect();
                json!({
                    "indices": values.keys().collect::<Vec<_>>(),
                    "values": values.values().collect::<Vec<_>>(),
                })
            }
        }
    }
}

impl Holds {
    /// A single value.
    pub fn value(self, random: &mut Rng) -> Value {
        match self {
            Self::Word => json!(WORDS[random.usize(0..WORDS.len())]),
            Self::Integer => match random.u8(0..30) {
                0 => json!(i64::MAX),
                1 => json!(i64::MIN),
                2 => json!(1_i64 << 40),
                _ => json!(random.i32(-20..20)),
            },
            Self::Float => match random.u8(0..30) {
                0 => json!(1e300),
                1 => json!(-0.0),
                2 => json!(random.i32(-3..3)),
                _ => json!(f64::from(random.i32(-4000..4000)) / 1000.0),
            },
            Self::Bool => json!(random.bool()),
            Self::Datetime => json!(format!(
                "20{:02}-{:02}-{:02}T{:02}:30:00{}",
                random.u8(0..40),
                random.u8(1..13),
                random.u8(1..29),
                random.u8(0..24),
                ["Z", ".123456Z", "+05:30"][random.usize(0..3)],
            )),
            Self::Uuid => json!(uuid(random.u8(0..40))),
            Self::Geo => json!({
                "lon": f64::from(random.i32(-1800..1800)) / 10.0,
                "lat": f64::from(random.i32(-900..900)) / 10.0,
            }),
            Self::Text => {
                let words: Vec<_> = (0..random.usize(1..9))
                    .map(|_| WORDS[random.usize(0..WORDS.len())])
                    .collect();
                json!(words.join(if random.bool() { " " } else { ", " }))
            }
        }
    }

    /// What a payload may hold: a value, several, none, null, or something of another type.
    fn stored(self, random: &mut Rng) -> Option<Value> {
        match random.u8(0..20) {
            0..2 => None,
            2 => Some(Value::Null),
            3 => Some(json!([])),
            4..8 => {
                let values: Vec<_> = (0..random.usize(1..4))
                    .map(|_| self.value(random))
                    .collect();
                Some(json!(values))
            }
            8 => Some(json!([null, self.value(random)])),
            9 => Some(json!({ "other": "type" })),
            _ => Some(self.value(random)),
        }
    }

    /// Conditions on a field of this kind.
    fn conditions(self, key: &str, random: &mut Rng) -> Vec<(&'static str, Value)> {
        let mut value = || self.value(random);
        let matching = |matching: Value| json!({ "key": key, "match": matching });
        let range = |range: Value| json!({ "key": key, "range": range });
        let mut conditions = match self {
            Self::Word | Self::Uuid => vec![
                ("value", matching(json!({ "value": value() }))),
                ("any", matching(json!({ "any": [value(), value()] }))),
                ("except", matching(json!({ "except": [value(), value()] }))),
            ],
            Self::Integer => vec![
                ("value", matching(json!({ "value": value() }))),
                ("any", matching(json!({ "any": [value(), value(), 7] }))),
                ("except", matching(json!({ "except": [value(), 3] }))),
                ("range", range(json!({ "gte": -7, "lt": 12.5 }))),
                ("beyond", range(json!({ "gt": 1_u64 << 33 }))),
            ],
            Self::Float => vec![
                ("range", range(json!({ "gt": -1.25, "lte": 2.5 }))),
                ("beyond", range(json!({ "gte": 1e100 }))),
            ],
            Self::Bool => vec![
                ("true", matching(json!({ "value": true }))),
                ("false", matching(json!({ "value": false }))),
            ],
            Self::Datetime => vec![(
                "range",
                range(json!({ "gte": "2010-01-01T00:00:00Z", "lt": "2029-06-01T12:00:00Z" })),
            )],
            Self::Geo => {
                let corner = |lon: i32, lat: i32| json!({ "lon": lon, "lat": lat });
                vec![
                    (
                        "box",
                        json!({ "key": key, "geo_bounding_box": {
                            "top_left": corner(-60, 50), "bottom_right": corner(70, -40),
                        } }),
                    ),
                    (
                        "dateline",
                        json!({ "key": key, "geo_bounding_box": {
                            "top_left": corner(150, 60), "bottom_right": corner(-120, -60),
                        } }),
                    ),
                    (
                        "radius",
                        json!({ "key": key, "geo_radius": {
                            "center": corner(10, 20), "radius": 6_000_000.0,
                        } }),
                    ),
                    (
                        "polygon",
                        json!({ "key": key, "geo_polygon": { "exterior": { "points": [
                            corner(-50, -50), corner(60, -40), corner(30, 60), corner(-50, -50),
                        ] } } }),
                    ),
                ]
            }
            Self::Text => vec![
                ("text", matching(json!({ "text": "river stone" }))),
                ("one", matching(json!({ "text": "FOREST" }))),
                ("stem", matching(json!({ "text": "runs" }))),
                ("start", matching(json!({ "text": "sig" }))),
                ("any", matching(json!({ "text_any": "amber 寿司" }))),
                ("folded", matching(json!({ "text": "apfel" }))),
            ],
        };
        conditions.extend([
            ("empty", json!({ "is_empty": { "key": key } })),
            ("null", json!({ "is_null": { "key": key } })),
            ("count", json!({ "key": key, "values_count": { "gte": 2 } })),
        ]);
        conditions
    }
}

fn uuid(number: u8) -> String {
    format!(
        "00000000-0000-4000-8000-{:012x}",
        u64::from(number) * 0x0101
    )
}

/// An id of every kind.
pub fn id(number: u64) -> Value {
    match number % 7 {
        0 => json!(uuid_id(number)),
        1 => json!(u64::MAX - number),
        _ => json!(number),
    }
}

fn uuid_id(number: u64) -> String {
    format!("{number:08x}-1111-4222-b333-444455556666")
}

impl Set {
    /// Vectors that are not sparse, with `config` for them, and fields to filter by.
    fn of_vectors(config: Map<String, Value>, vectors: Vec<VectorKind>) -> Self {
        Self {
            config: json!({
                "vectors": config,
                "hnsw_config": hnsw(),
                "optimizers_config": optimizers(),
            }),
            tenants: false,
            points: POINTS,
            vectors,
            fields: filtered(),
        }
    }

    /// Every `step`-th of the vectors and fields.
    pub fn share(mut self, step: usize) -> Self {
        let mut number = 0;
        self.vectors.retain(|_| {
            number += 1;
            (number - 1) % step == 0
        });
        let kept = |name: &String| self.vectors.iter().any(|vector| vector.name == *name);
        for section in ["vectors", "sparse_vectors"] {
            if let Some(map) = self.config[section].as_object_mut()
                && !map.contains_key("size")
            {
                map.retain(|name, _| kept(name));
            }
        }
        // Queries filter by the first two.
        let mut number = 0;
        self.fields.retain(|_| {
            number += 1;
            number <= 2 || (number - 1) % step == 0
        });
        self
    }

    /// A point with some of the vectors and some payload.
    pub fn point(&self, number: u64, random: &mut Rng) -> Value {
        let mut point = Map::new();
        point.insert("id".to_owned(), id(number));
        point.insert("vector".to_owned(), self.some_vectors(random));
        if random.u8(0..15) > 0 {
            point.insert("payload".to_owned(), self.payload(random));
        }
        Value::Object(point)
    }

    pub fn some_vectors(&self, random: &mut Rng) -> Value {
        let mut vectors = Map::new();
        for vector in &self.vectors {
            if vector.name.is_empty() || random.u8(0..12) > 0 {
                vectors.insert(vector.name.clone(), vector.value(random));
            }
        }
        Value::Object(vectors)
    }

    pub fn payload(&self, random: &mut Rng) -> Value {
        let mut payload = Map::new();
        for field in &self.fields {
            match field.path.as_str() {
                "list[].n" => {
                    let items: Vec<_> = (0..random.usize(0..4))
                        .map(|_| {
                            json!({
                                "n": Holds::Integer.stored(random),
                                "word": Holds::Word.value(random),
                            })
                        })
                        .collect();
                    payload.insert("list".to_owned(), json!(items));
                }
                "list[].word" => {}
                "deep.er.value" => {
                    if random.u8(0..4) > 0 {
                        let value = field.holds.stored(random);
                        payload.insert("deep".to_owned(), json!({ "er": { "value": value } }));
                    }
                }
                "tags[]" => {
                    if let Some(value) = field.holds.stored(random) {
                        payload.insert("tags".to_owned(), value);
                    }
                }
                path if path.starts_with("single") => {
                    payload.insert(path.to_owned(), field.holds.value(random));
                }
                path => {
                    if let Some(value) = field.holds.stored(random) {
                        payload.insert(path.to_owned(), value);
                    }
                }
            }
        }
        payload.insert(
            "other".to_owned(),
            json!({ "é": [1, -0.0, 1e-7, null, true], "long": "x".repeat(random.usize(0..400)) }),
        );
        Value::Object(payload)
    }

    /// Queries of every kind that the set can answer.
    pub fn queries(&self, random: &mut Rng) -> Vec<Query> {
        let mut queries = Vec::new();
        let mut add = |name: String, path: &'static str, body: Value, depends: Depends| {
            queries.push(Query {
                name,
                path,
                body,
                depends,
            });
        };
        let everything = json!({ "limit": 100_000, "with_payload": true, "with_vector": true });
        add(
            "all points".to_owned(),
            "/points/scroll",
            everything,
            Depends::Points,
        );
        for vector in &self.vectors {
            let name = &vector.name;
            let mut nearest = |body: Value, kind: &str, depends: Depends| {
                let mut query = json!({
                    "query": vector.value(random), "using": name, "limit": 10,
                });
                extend(&mut query, body);
                add(
                    format!("{kind} of {name:?}"),
                    "/points/query",
                    query,
                    depends,
                );
            };
            let some = json!({ "must": [{ "key": "rank", "range": { "gte": -5 } }] });
            let few = json!({ "must": [{ "key": "group", "match": { "value": "stone" } }] });
            if vector.shape == Shape::Sparse {
                nearest(json!({}), "nearest", Depends::Points);
                nearest(json!({ "filter": some }), "filtered", Depends::Points);
                nearest(json!({ "filter": few }), "few", Depends::Points);
                continue;
            }
            let exact = json!({ "exact": true });
            nearest(json!({ "params": exact }), "exact", Depends::Points);
            nearest(
                json!({ "params": exact, "filter": some, "score_threshold": 0.5 }),
                "threshold",
                Depends::Points,
            );
            nearest(
                json!({ "params": { "hnsw_ef": 32 } }),
                "hnsw",
                Depends::Files,
            );
            nearest(
                json!({ "params": { "hnsw_ef": 32 }, "filter": some }),
                "filtered hnsw",
                Depends::Files,
            );
            nearest(
                json!({ "params": { "hnsw_ef": 32 }, "filter": few }),
                "grouped hnsw",
                Depends::Files,
            );
            if vector.quantized {
                nearest(
                    json!({ "params": { "quantization": { "rescore": false } } }),
                    "quantized",
                    Depends::Files,
                );
                nearest(
                    json!({ "params": { "quantization": { "ignore": true }, "exact": true } }),
                    "unquantized",
                    Depends::Points,
                );
                nearest(
                    json!({ "params": { "quantization": { "rescore": true, "oversampling": 3.0 } } }),
                    "rescored",
                    Depends::Files,
                );
            }
        }
        for field in &self.fields {
            let (key, holds) = (field.path.as_str(), field.holds);
            let mut conditions = holds.conditions(key, random);
            if field.schema["prefix"] == true {
                conditions.push(("prefix", json!({ "key": key, "match": { "prefix": "ri" } })));
            }
            if field.schema["phrase_matching"] == true {
                conditions.push((
                    "phrase",
                    json!({ "key": key, "match": { "phrase": "stone signal" } }),
                ));
            }
            for (what, condition) in conditions {
                let body = json!({ "filter": { "must": [condition] }, "limit": 1000 });
                add(
                    format!("{what} in {key}"),
                    "/points/scroll",
                    body,
                    Depends::Points,
                );
            }
            if matches!(
                holds,
                Holds::Word | Holds::Integer | Holds::Bool | Holds::Uuid
            ) && field.schema["lookup"] != false
            {
                let body = json!({ "key": key, "limit": 1000, "exact": true });
                add(format!("facet of {key}"), "/facet", body, Depends::Points);
            }
            if key.starts_with("single") {
                let body = json!({ "order_by": { "key": key }, "limit": 50 });
                add(
                    format!("order by {key}"),
                    "/points/scroll",
                    body,
                    Depends::Points,
                );
            }
        }
        queries
    }
}
