//! Snapshots that are laid out as no snapshot of ours is: of many segments, with operations that are
//! only in the write-ahead log, with files and counts beyond what 32 bits hold.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use edge_sync_fixtures::all_kinds;
use edge_sync_host::{Cancel, EdgeSync, RestoreSource};
use fastrand::Rng;
use serde_json::{Value, json};
use tar::Builder;

use super::engines::{Component, Engine, Native};
use super::kinds::{self, Set};
use crate::support::component;

/// Packs the files of a shard as a server does, whatever is in them.
fn packed(shard: &Path, snapshot: &Path) {
    let mut builder = Builder::new(File::create(snapshot).expect("a file"));
    builder.sparse(true);
    for entry in fs::read_dir(shard.join("segments")).expect("segments") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        builder
            .append_dir_all(format!("segments/{name}/files"), &path)
            .expect("a segment");
    }
    if shard.join("wal").is_dir() {
        builder
            .append_dir_all("wal", shard.join("wal"))
            .expect("the log");
    }
    builder.into_inner().expect("an archive");
}

fn write(engine: &impl Engine, method: &str, path: &str, body: &Value) {
    if let Err(error) = engine.request(method, path, body) {
        panic!("{method} {path} {body}: {error}");
    }
}

/// A shard with all indexes and no points.
fn indexed(set: &Set, folder: &Path) -> Native {
    let shard = Native::create(folder, &set.config);
    for field in &set.fields {
        let body = json!({ "field_name": field.path, "field_schema": field.schema });
        write(&shard, "PUT", "/index", &body);
    }
    shard
}

fn upsert(set: &Set, shard: &Native, ids: Range<u64>, random: &mut Rng) {
    let points: Vec<_> = ids.map(|id| set.point(id, random)).collect();
    write(shard, "PUT", "/points", &json!({ "points": points }));
}

/// What the engine answers to `queries`.
fn answers(engine: &impl Engine, queries: &[kinds::Query]) -> BTreeMap<String, Value> {
    queries
        .iter()
        .map(|query| {
            let answer = engine.request("POST", query.path, &query.body);
            let answer =
                answer.unwrap_or_else(|error| panic!("{}: {}: {error}", engine.name(), query.name));
            (format!("{} {}", query.name, query.body), answer)
        })
        .collect()
}

fn assert_same(expected: &BTreeMap<String, Value>, got: &BTreeMap<String, Value>) {
    for (query, expected) in expected {
        if let Err(why) = all_kinds::same_result(query, expected, &got[query]) {
            panic!("{query}: {why}");
        }
    }
}

/// Shards of one collection, each with its own points; every other one is optimized.
fn segments_of_many_shards(set: &Set, folder: &Path, shards: u64, random: &mut Rng) -> PathBuf {
    const POINTS: u64 = 25;
    let merged = folder.join("merged");
    for number in 0..shards {
        let path = folder.join(number.to_string());
        let shard = indexed(set, &path);
        upsert(set, &shard, number * POINTS..(number + 1) * POINTS, random);
        if number % 2 == 0 {
            shard.optimize();
        }
        shard.close();
        if number == 0 {
            fs::rename(&path, &merged).expect("a rename");
            continue;
        }
        for entry in fs::read_dir(path.join("segments")).expect("segments") {
            let segment = entry.expect("an entry").path();
            let name = segment.file_name().expect("a name");
            fs::rename(&segment, merged.join("segments").join(name)).expect("a rename");
        }
    }
    merged
}

#[test]
fn formats_of_a_snapshot_of_many_segments() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = Rng::with_seed(11);
    for (number, set) in [kinds::dense(), kinds::sparse(), kinds::payload(false)]
        .into_iter()
        .enumerate()
    {
        let set = set.share(5);
        let folder = folder.path().join(number.to_string());
        fs::create_dir(&folder).expect("a folder");
        let merged = segments_of_many_shards(&set, &folder, 6, &mut random);
        let snapshot = folder.join("snapshot");
        packed(&merged, &snapshot);
        let native = Native::restore(&folder.join("native"), &snapshot, &set.config);
        let restored = Component::restore(&folder.join("data"), &snapshot);
        let queries = set.queries(&mut random);
        assert_same(&answers(&native, &queries), &answers(&restored, &queries));
        // The appendable ones among them take writes.
        let more: Vec<_> = (100..180).map(|id| set.point(id, &mut random)).collect();
        let body = json!({ "points": more });
        write(&native, "PUT", "/points", &body);
        write(&restored, "PUT", "/points", &body);
        let all = json!({ "limit": 100_000, "with_payload": true, "with_vector": true });
        assert_eq!(
            restored.request("POST", "/points/scroll", &all),
            native.request("POST", "/points/scroll", &all)
        );
        let counted = restored.request("POST", "/points/count", &json!({ "exact": true }));
        assert_eq!(counted, Ok(json!({ "count": 180 })));
    }
}

/// As a server leaves it that was stopped before it flushed its segments.
#[test]
fn formats_of_a_snapshot_with_operations_that_are_only_in_its_log() {
    const POINTS: u64 = 200;
    let folder = tempfile::tempdir().expect("a folder");
    let written = folder.path().join("written");
    let vectors = qdrant_edge::EdgeVectorParamsBuilder::new(2, qdrant_edge::Distance::Dot);
    let config = qdrant_edge::EdgeConfigBuilder::new()
        .vector(qdrant_edge::DEFAULT_VECTOR_NAME, vectors.build())
        .wal_enabled(true)
        .build();
    let shard = qdrant_edge::EdgeShard::new(&written, config).expect("a shard");
    let upsert = |ids: Range<u64>, value: f32| {
        for id in ids {
            let point = qdrant_edge::PointStructPersisted {
                id: qdrant_edge::PointId::NumId(id),
                vector: qdrant_edge::VectorStructPersisted::Single(vec![value, id as f32]),
                payload: Some(
                    json!({ "n": id, "value": value })
                        .as_object()
                        .cloned()
                        .expect("an object")
                        .into(),
                ),
            };
            let points = qdrant_edge::PointInsertOperations::PointsList(vec![point]);
            shard
                .update(qdrant_edge::UpdateOperation::PointOperation(
                    qdrant_edge::PointOperations::UpsertPoints(points),
                ))
                .expect("a write");
        }
    };
    upsert(0..POINTS / 2, 1.0);
    shard.flush().expect("a flush");
    // New points and changed ones, none of which a segment has flushed.
    upsert(POINTS / 4..POINTS, 2.0);
    let deleted = qdrant_edge::PointOperations::DeletePoints {
        ids: vec![
            qdrant_edge::PointId::NumId(0),
            qdrant_edge::PointId::NumId(POINTS - 1),
        ],
    };
    shard
        .update(qdrant_edge::UpdateOperation::PointOperation(deleted))
        .expect("a write");
    let snapshot = folder.path().join("snapshot");
    packed(&written, &snapshot);
    fs::rename(written.join("wal"), folder.path().join("wal")).expect("a rename");
    let without = folder.path().join("without");
    packed(&written, &without);
    std::mem::forget(shard);

    let segments_only = Component::restore(&folder.path().join("other"), &without);
    let counted = segments_only.request("POST", "/points/count", &json!({ "exact": true }));
    assert_eq!(counted, Ok(json!({ "count": POINTS / 2 })));

    let restored = Component::restore(&folder.path().join("data"), &snapshot);
    let all = json!({ "limit": 1000, "with_payload": true, "with_vector": true });
    let held = restored
        .request("POST", "/points/scroll", &all)
        .expect("points");
    let expected: Vec<_> = (1..POINTS - 1)
        .map(|id| {
            let value = if id < POINTS / 4 { 1.0 } else { 2.0 };
            json!({
                "id": id,
                "payload": { "n": id, "value": value },
                "vector": [value, id as f64],
            })
        })
        .collect();
    assert_eq!(held["points"], json!(expected));
    // What the snapshot's log held is the shard's own now.
    let data = restored.close();
    assert!(!data.join("wal").exists());
}

/// Numbers of 64 bits in the headers of files: part of the path, and offset. Files of the engine
/// have no common header, so these are all that are counts or sizes.
const COUNTS: &[(&str, u64)] = &[
    ("/id_tracker.mappings", 0),
    ("/vectors/status.dat", 0),
    ("/deleted/status.dat", 0),
    ("/graph.bin", 0),
    ("/graph.bin", 8),
    ("/graph.bin", 16),
    ("/links_compressed.bin", 0),
    ("/links_compressed.bin", 16),
    ("/links_compressed.bin", 32),
];

/// The same in payload indexes, which the engine builds anew from the payloads if they do not load.
const COUNTS_OF_INDEXES: &[(&str, u64)] = &[
    ("/point_to_values.bin", 8),
    ("/values_to_points.bin", 16),
    ("/has_values/status.dat", 0),
    ("/data_block_index.bin", 24),
];

/// Files that are mapped as a whole.
const MAPPED: &[&str] = &[
    "/matrix.dat",
    "/chunk_0.mmap",
    "/payload_storage/page_0.dat",
];

/// A shard with an optimized segment and an appendable one.
fn two_segments(set: &Set, shard: &Path, random: &mut Rng) {
    let native = indexed(set, shard);
    upsert(set, &native, 0..60, random);
    native.optimize();
    upsert(set, &native, 60..90, random);
    native.close();
}

/// The first file below `folder` whose path has `part` in it, and that `fits`.
fn find(folder: &Path, part: &str, fits: &dyn Fn(&Path) -> bool) -> Option<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths.into_iter().find_map(|path| {
        if path.is_dir() {
            find(&path, part, fits)
        } else {
            (path.to_string_lossy().contains(part) && fits(&path)).then_some(path)
        }
    })
}

/// The number at an offset of a file, if it is a count of something.
fn number_at(file: &Path, offset: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    let file = File::open(file).expect("a file");
    file.read_exact_at(&mut bytes, offset).ok()?;
    let number = u64::from_le_bytes(bytes);
    (number > 0 && u32::try_from(number).is_ok()).then_some(number)
}

fn set_number(file: &Path, offset: u64, number: u64) {
    let file = File::options().write(true).open(file).expect("a file");
    file.write_all_at(&number.to_le_bytes(), offset)
        .expect("written");
}

/// A count of 2^32 + n must not pass for n, and a file of more than 4 GiB not for what is left of
/// its length.
#[test]
fn formats_of_a_snapshot_that_32_bits_do_not_hold() {
    const BEYOND: u64 = 1 << 32;
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = Rng::with_seed(11);
    let set = kinds::dense().share(5);
    let shard = folder.path().join("shard");
    two_segments(&set, &shard, &mut random);
    let queries = set.queries(&mut random);
    let native = Native::open(&shard, &set.config);
    let expected = answers(&native, &queries);
    native.close();

    let data = folder.path().join("data");
    let snapshot = folder.path().join("snapshot");
    let edge = EdgeSync::builder(component(), &data)
        .create(&set.config.to_string())
        .expect("a shard");
    let point = set.point(1, &mut random);
    let body = json!({ "points": [point] }).to_string();
    edge.shard()
        .request("PUT", "/points", &body)
        .expect("a write");
    let refused = |what: &str| {
        packed(&shard, &snapshot);
        let source = RestoreSource::File(snapshot.clone());
        let error = edge
            .restore(&source, &Cancel::new(), |_| {})
            .expect_err(what);
        assert_eq!(error.kind(), "bad-snapshot", "{what}: {error}");
        assert_eq!(edge.shard().info().expect("info").generation, 1, "{what}");
        assert_eq!(edge.shard().count(None).expect("a count"), 1, "{what}");
        error.to_string()
    };
    let with_number = |part: &str, offset: u64| {
        let file = find(&shard, part, &|file| number_at(file, offset).is_some());
        let file = file.unwrap_or_else(|| panic!("no {part} with a number at {offset}"));
        let number = number_at(&file, offset).expect("a number");
        (file, number)
    };
    for (part, offset) in COUNTS {
        let (file, number) = with_number(part, *offset);
        set_number(&file, *offset, BEYOND + number);
        refused(&format!("{part} at {offset}"));
        set_number(&file, *offset, number);
    }
    for part in MAPPED {
        let file = find(&shard, part, &|_| true).unwrap_or_else(|| panic!("no {part}"));
        let length = fs::metadata(&file).expect("a file").len();
        let resize = |length: u64| {
            let file = File::options().write(true).open(&file).expect("a file");
            file.set_len(length).expect("a length");
        };
        resize(BEYOND + length);
        let said = refused(part);
        assert!(said.contains("too large"), "{part}: {said}");
        resize(length);
    }

    // One less, so that it would show if the number was cut.
    for (part, offset) in COUNTS_OF_INDEXES {
        let (file, number) = with_number(part, *offset);
        set_number(&file, *offset, BEYOND + number - 1);
        packed(&shard, &snapshot);
        let restored = Component::restore(&folder.path().join("other"), &snapshot);
        assert_same(&expected, &answers(&restored, &queries));
        restored.close();
        set_number(&file, *offset, number);
    }
}
