//! One life of a shard for each set of kinds: the same requests to both builds of the engine, which
//! then exchange their files, and a snapshot.

use edge_sync_fixtures::all_kinds;
use fastrand::Rng;
use serde_json::{Value, json};

use super::engines::{Component, Engine, Native, engine_folder};
use super::exchange;
use super::files::{Equal, Exception, differences};
use super::kinds::{self, Depends, Query, Set, id};

#[test]
fn formats_of_dense_vectors_and_hnsw() {
    life(kinds::dense());
}

#[test]
fn formats_of_multivectors() {
    life(kinds::multivectors());
}

#[test]
fn formats_of_sparse_vectors() {
    life(kinds::sparse());
}

#[test]
fn formats_of_scalar_and_product_quantization() {
    life(kinds::scalar_and_product());
}

#[test]
fn formats_of_binary_and_turbo_quantization() {
    life(kinds::binary_and_turbo());
}

#[test]
fn formats_of_vectors_that_take_vector_instructions() {
    life(kinds::wide());
}

#[test]
fn formats_of_lists_of_several_blocks() {
    life(kinds::lists());
}

#[test]
fn formats_of_payload_indexes_of_tenants() {
    life(kinds::payload(true));
}

#[test]
fn formats_of_payload_indexes() {
    life(kinds::payload(false));
}

/// Files that two shards with the same operations may write differently.
const EXCEPTIONS: &[Exception] = &[
    // The component searches with one thread.
    Exception {
        path: "edge_config.json",
        equal: Equal::Not,
    },
    // Segments have random names.
    Exception {
        path: "manifest.json",
        equal: Equal::Not,
    },
    // The length that vectors are divided by is a sum, which the builds add up in different ways.
    Exception {
        path: "wide-*-Cosine",
        equal: Equal::Not,
    },
    // Maps are written in the order of a hash map with a random seed.
    Exception {
        path: ".json",
        equal: Equal::Json,
    },
    // So are the records of a journal, whose last bytes are their checksum. The component writes none:
    // a checkpoint has a journal of all files.
    Exception {
        path: "tracker_journal.dat",
        equal: Equal::LengthIfThere,
    },
];

/// In addition, of segments that were optimized.
const OPTIMIZED: &[Exception] = &[
    // Hash maps on disk, whose entries lie in the order of one in memory with a random seed.
    Exception {
        path: "/values_to_points.bin",
        equal: Equal::Not,
    },
    Exception {
        path: "/vocab.dat",
        equal: Equal::Not,
    },
    // Padding holds whatever was in memory. Elements of less than 32 bits have it too.
    Exception {
        path: "sparse-float32*/inverted_index.dat",
        equal: Equal::PostingLists,
    },
    Exception {
        path: "/inverted_index.dat",
        equal: Equal::Length,
    },
    // The levels of HNSW are drawn at random.
    Exception {
        path: "/graph.bin",
        equal: Equal::Not,
    },
    Exception {
        path: "/links",
        equal: Equal::Not,
    },
];

/// A part of every set is enough for CI: every how many-th kind is taken.
const SHARE: usize = 6;

fn life(set: Set) {
    let full = std::env::var("EDGE_SYNC_FORMATS").is_ok_and(|value| value == "full");
    let set = &set.share(if full { 1 } else { SHARE });
    let folder = tempfile::tempdir().expect("a folder");
    let (native_folder, data) = (folder.path().join("native"), folder.path().join("data"));
    let native = Native::create(&native_folder, &set.config);
    let component = Component::create(&data, &set.config);
    let mut random = Rng::with_seed(1);
    let mut found = Findings::default();

    // Half of the indexes are there before the points, half are built from them.
    index(set, 0, &native, &component);
    upsert(set, 0..set.points, &mut random, &native, &component);
    index(set, 1, &native, &component);
    edit(set, &mut random, &native, &component);
    let queries = set.queries(&mut random);
    let of_points: Vec<Query> = queries
        .iter()
        .filter(|query| query.depends == Depends::Points)
        .cloned()
        .collect();
    let same_points = |when: &str, found: &mut Findings, native: &Native, component: &Component| {
        let (expected, got) = (answers(&of_points, native), answers(&of_points, component));
        found.compare(when, &of_points, &expected, &got);
    };
    same_points("after the writes", &mut found, &native, &component);
    native.flush();
    component.flush();
    let files = differences(&native_folder, &engine_folder(&data), EXCEPTIONS);
    found.add("files after the writes", files);

    native.optimize();
    component.optimize();
    same_points("after optimize", &mut found, &native, &component);
    if !set.tenants {
        let exceptions = [OPTIMIZED, EXCEPTIONS].concat();
        let files = differences(&native_folder, &engine_folder(&data), &exceptions);
        found.add("files after optimize", files);
    }

    // Points in optimized segments are replaced and deleted.
    let more = set.points - 30..set.points + 30;
    upsert(set, more, &mut random, &native, &component);
    edit(set, &mut random, &native, &component);
    same_points("after more writes", &mut found, &native, &component);

    // Some statistics (how many documents IDF counts) forget removed values when a shard is opened.
    drop(native.close());
    drop(component.close());
    let native = Native::open(&native_folder, &set.config);
    let component = Component::open(&data);
    // Each goes on with the files of the other.
    let of_native = answers(&queries, &native);
    let of_component = answers(&queries, &component);
    let (ours, theirs) = (native.close(), component.close());
    exchange(&ours, &theirs);
    let native = Native::open(&native_folder, &set.config);
    let component = Component::open(&data);
    let got = answers(&queries, &native);
    found.compare(
        "native reads the component's files",
        &queries,
        &of_component,
        &got,
    );
    let got = answers(&queries, &component);
    found.compare(
        "the component reads native files",
        &queries,
        &of_native,
        &got,
    );
    upsert(set, 60..100, &mut random, &native, &component);
    edit(set, &mut random, &native, &component);
    same_points(
        "after writes to each other's files",
        &mut found,
        &native,
        &component,
    );
    native.optimize();
    component.optimize();
    same_points(
        "after optimize of each other's files",
        &mut found,
        &native,
        &component,
    );

    // A snapshot, without telling the reader what is in it.
    let snapshot = folder.path().join("shard.snapshot");
    native.snapshot(&snapshot);
    let of_native = answers(&queries, &native);
    drop(native);
    drop(component);
    let restored = Component::restore(&folder.path().join("restored"), &snapshot);
    let got = answers(&queries, &restored);
    found.compare(
        "the component restores a snapshot",
        &queries,
        &of_native,
        &got,
    );
    let restored = Native::open(&restored.close(), &set.config);
    let got = answers(&queries, &restored);
    found.compare(
        "native reads the restored files",
        &queries,
        &of_native,
        &got,
    );
    found.none();
}

/// Named vectors that came and went since the shard was created: the shard is opened again, and
/// restored from a snapshot that has them.
#[test]
fn formats_named_vectors_of_a_shard_that_is_opened_and_restored() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let config = json!({ "vectors": { "size": 2, "distance": "Dot" } });
    let component = Component::create(&data, &config);
    let native_folder = folder.path().join("native");
    let native = Native::create(&native_folder, &config);
    for (method, path, body) in [
        (
            "PUT",
            "/vectors/added",
            json!({ "dense": { "size": 3, "distance": "Dot" } }),
        ),
        ("PUT", "/vectors/words", json!({ "sparse": {} })),
        (
            "PUT",
            "/vectors/gone",
            json!({ "dense": { "size": 4, "distance": "Dot" } }),
        ),
        (
            "PUT",
            "/points",
            json!({ "points": [{ "id": 1, "vector": {
            "": [1, 2], "added": [1, 2, 3], "words": { "indices": [7], "values": [1] },
        } }] }),
        ),
        ("DELETE", "/vectors/gone", Value::Null),
    ] {
        both(method, path, &body, &native, &component);
    }
    let all = json!({ "limit": 10, "with_vector": true, "with_payload": true });
    let expected = native
        .request("POST", "/points/scroll", &all)
        .expect("points");
    component.close();
    let component = Component::open(&data);
    let opened = component
        .request("POST", "/points/scroll", &all)
        .expect("points");
    assert_eq!(opened, expected);
    let snapshot = folder.path().join("shard.snapshot");
    native.snapshot(&snapshot);
    component.close();
    let component = Component::restore(&data, &snapshot);
    let restored = component
        .request("POST", "/points/scroll", &all)
        .expect("points");
    assert_eq!(restored, expected);
    let more = json!({ "points": [{ "id": 2, "vector": { "added": [3, 2, 1] } }] });
    component.request("PUT", "/points", &more).expect("a write");
}

/// Everything that differed in a life, so that one run tells all.
#[derive(Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, when: &str, found: Vec<String>) {
        if !found.is_empty() {
            let count = found.len();
            let shown: Vec<String> = found
                .into_iter()
                .take(20)
                .map(|text| text.chars().take(400).collect())
                .collect();
            self.0.push(format!(
                "{when}: {count} differences:\n  {}",
                shown.join("\n  ")
            ));
        }
    }

    fn compare(&mut self, when: &str, queries: &[Query], expected: &[Value], got: &[Value]) {
        let wrong = queries
            .iter()
            .zip(expected.iter().zip(got))
            .filter_map(|(query, (expected, got))| {
                let why = all_kinds::same_result("", expected, got).err()?;
                Some(format!("{}: {why}", query.name))
            })
            .collect();
        self.add(when, wrong);
    }

    fn none(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

/// Every second index, from `first` on.
fn index(set: &Set, first: usize, native: &Native, component: &Component) {
    for field in set.fields.iter().skip(first).step_by(2) {
        let body = json!({ "field_name": field.path, "field_schema": field.schema });
        both("PUT", "/index", &body, native, component);
    }
}

/// One point a request: the engine goes through those of one request in the order of a hash map.
fn upsert(
    set: &Set,
    numbers: std::ops::Range<u64>,
    random: &mut Rng,
    native: &Native,
    component: &Component,
) {
    for number in numbers {
        let body = json!({ "points": [set.point(number, random)] });
        both("PUT", "/points", &body, native, component);
    }
}

/// Every other kind of write, for one point a request as well.
fn edit(set: &Set, random: &mut Rng, native: &Native, component: &Component) {
    // Of ids that are there: numbers whose remainder by 13 is not 4 are never deleted.
    let some = |random: &mut Rng| -> Vec<Value> {
        (0..12)
            .map(|_| random.u64(0..set.points))
            .filter(|n| n % 13 != 4)
            .map(id)
            .collect()
    };
    for id in some(random) {
        let vectors = json!({ "points": [{ "id": id, "vector": set.some_vectors(random) }] });
        both("PUT", "/points/vectors", &vectors, native, component);
    }
    for id in some(random) {
        let names: Vec<_> = set
            .vectors
            .iter()
            .filter(|_| random.u8(0..3) == 0)
            .map(|vector| &vector.name)
            .collect();
        if !names.is_empty() {
            let body = json!({ "points": [id], "vector": names });
            both("POST", "/points/vectors/delete", &body, native, component);
        }
    }
    for id in some(random) {
        let body = json!({ "points": [id], "payload": set.payload(random) });
        both("POST", "/points/payload", &body, native, component);
    }
    for id in some(random) {
        let nested = json!({ "x": null, "y": [1] });
        let body = json!({ "points": [id], "payload": nested, "key": "other.inner" });
        both("POST", "/points/payload", &body, native, component);
    }
    for id in some(random) {
        let body = json!({ "points": [id], "payload": set.payload(random) });
        both("PUT", "/points/payload", &body, native, component);
    }
    let key = set
        .fields
        .first()
        .map_or("none", |field| field.path.as_str());
    for id in some(random) {
        let body = json!({ "points": [id], "keys": [key, "other.long"] });
        both("POST", "/points/payload/delete", &body, native, component);
    }
    for id in some(random) {
        let body = json!({ "points": [id] });
        both("POST", "/points/payload/clear", &body, native, component);
    }
    for number in (0..set.points + 30).filter(|n| n % 13 == 4) {
        if random.bool() {
            let body = json!({ "points": [id(number)] });
            both("POST", "/points/delete", &body, native, component);
        }
    }
    let batch = json!({ "operations": [
        { "upsert": { "points": [set.point(5, random)] } },
        { "delete": { "points": [id(4)] } },
        { "upsert": { "points": [set.point(4, random)], "update_mode": "insert_only" } },
        { "set_payload": { "points": [id(5)], "payload": { "other": null } } },
    ] });
    both("POST", "/points/batch", &batch, native, component);
}

fn both(method: &str, path: &str, body: &Value, native: &Native, component: &Component) {
    let answers = [
        native.request(method, path, body),
        component.request(method, path, body),
    ];
    if let [Ok(_), Ok(_)] = answers {
        return;
    }
    let shown: String = body.to_string().chars().take(300).collect();
    panic!("{method} {path} {shown}: {answers:?}");
}

fn answers(queries: &[Query], engine: &impl Engine) -> Vec<Value> {
    queries
        .iter()
        .map(|query| {
            let mut answer = engine
                .request("POST", query.path, &query.body)
                .unwrap_or_else(|error| panic!("{}: {}: {error}", engine.name(), query.name));
            // Values of points that are gone may still be known, with a count of none.
            if let Some(hits) = answer["hits"].as_array_mut() {
                hits.retain(|hit| hit["count"] != 0);
            }
            answer
        })
        .collect()
}
