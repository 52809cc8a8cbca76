//! Snapshots as a real server made them: stored, of a collection, compressed, and taken while its
//! optimizer ran.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;

use edge_sync_engine::{CollectionConfig, Error, PointId, Shard, SnapshotLimits, unpack_snapshot};
use edge_sync_snapshots::{Layout, create};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{Archive, Builder, EntryType, Header};

use crate::common::{created, fixtures, read, restored, snapshot_file, write};

/// The contents of a gzipped fixture.
fn gunzipped(name: &str) -> Vec<u8> {
    let file = File::open(fixtures().join(name)).expect("the fixture is there");
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
    bytes
}

fn unpacked(snapshot: &[u8], limits: SnapshotLimits) -> Result<(tempfile::TempDir, Shard), Error> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("snapshot");
    fs::write(&file, snapshot).expect("written");
    let target = dir.path().join("shard");
    unpack_snapshot(&file, &target, limits)?;
    let shard = Shard::load(&target)?;
    Ok((dir, shard))
}

fn refused(snapshot: &[u8]) -> String {
    match unpacked(snapshot, SnapshotLimits::default()).map(drop) {
        Err(Error::BadSnapshot(message)) => message,
        other => panic!("{other:?}"),
    }
}

/// All points of a shard by id, with what they hold.
fn points(shard: &Shard) -> BTreeMap<u64, Value> {
    let all = json!({ "limit": 100_000, "with_vector": true });
    let found = read(shard, "POST", "/points/scroll", &all).expect("scrolls");
    by_id(found["points"].as_array().expect("points").iter().cloned())
}

fn by_id(points: impl Iterator<Item = Value>) -> BTreeMap<u64, Value> {
    points
        .map(|point| (point["id"].as_u64().expect("a number"), point))
        .collect()
}

/// The points that the server held.
fn expected(name: &str) -> BTreeMap<u64, Value> {
    let lines = gunzipped(name);
    by_id(
        BufReader::new(lines.as_slice())
            .lines()
            .map(|line| serde_json::from_str(&line.expect("text")).expect("JSON")),
    )
}

fn assert_same(found: &BTreeMap<u64, Value>, expected: &BTreeMap<u64, Value>) {
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (id, point) in expected {
        assert_eq!(found[id]["payload"], point["payload"], "{id}");
        assert_eq!(found[id]["vector"], point["vector"], "{id}");
    }
}

#[test]
fn a_stored_snapshot_restores_as_the_server_held_it() {
    let snapshot = gunzipped("qdrant-1.19-stored/shard.snapshot.gz");
    let (_dir, shard) = unpacked(&snapshot, SnapshotLimits::default()).expect("restores");
    assert_same(
        &points(&shard),
        &expected("qdrant-1.19-stored/points.jsonl.gz"),
    );
    assert_eq!(shard.read_through().expect("readable"), 1017);
    assert_eq!(shard.remove_duplicates().expect("looks"), 0);
}

#[test]
fn what_a_snapshot_shows_is_what_its_shard_is_opened_with_again() {
    let stored = gunzipped("qdrant-1.19-stored/shard.snapshot.gz");
    let (_dir, stored) = unpacked(&stored, SnapshotLimits::default()).expect("restores");
    let (_other_dir, all_kinds) = restored();
    for shard in [stored, all_kinds] {
        let written = shard.config().to_json();
        let kept = CollectionConfig::from_json(&written.to_string()).expect("it can be read");
        assert!(shard.runs_as(&kept).expect("looks"), "{written}");
        let mut other = written.clone();
        other["hnsw_config"] = json!({ "m": 7 });
        let other = CollectionConfig::from_value(&other).expect("a good configuration");
        assert!(!shard.runs_as(&other).expect("looks"), "{written}");
    }
}

#[test]
fn a_cut_stored_snapshot_is_refused_wherever_it_is_cut() {
    let snapshot = gunzipped("qdrant-1.19-stored/shard.snapshot.gz");
    for keep in [
        512 * 100,
        snapshot.len() / 2 / 512 * 512,
        snapshot.len() - 1024,
    ] {
        refused(&snapshot[..keep]);
    }
    // The archive within ends inside of its last file, the outer one is whole.
    let mut outer = Builder::new(Vec::new());
    let mut archive = Archive::new(snapshot.as_slice());
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        if entry.header().entry_type() != EntryType::Regular {
            continue;
        }
        let mut data = Vec::new();
        entry.read_to_end(&mut data).expect("contents");
        if path.extension().is_some_and(|extension| extension == "tar") {
            data.truncate(data.len() - 512);
        }
        append(&mut outer, &path, &data);
    }
    let message = refused(&outer.into_inner().expect("in memory"));
    assert!(message.contains(".tar"), "{message}");
}

fn append(archive: &mut Builder<Vec<u8>>, path: &Path, data: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    archive
        .append_data(&mut header, path, data)
        .expect("in memory");
}

/// A collection's snapshot with the stored snapshot of a shard in each of these folders.
fn collection_snapshot(shards: &[&str]) -> Vec<u8> {
    let mut outer = Builder::new(Vec::new());
    for shard in shards {
        let snapshot = gunzipped("qdrant-1.19-stored/shard.snapshot.gz");
        let mut archive = Archive::new(snapshot.as_slice());
        for entry in archive.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let path = Path::new(shard).join(entry.path().expect("a path"));
            let mut data = Vec::new();
            match entry.header().entry_type() {
                EntryType::Regular => entry.read_to_end(&mut data).expect("contents"),
                // A real one has the write-ahead log in it; one that is empty is as good as none.
                _ => continue,
            };
            append(&mut outer, &path, &data);
        }
    }
    append(&mut outer, Path::new("version.info"), b"1.19.0");
    append(&mut outer, Path::new("config.json"), b"{}");
    append(&mut outer, Path::new("payload_index.json"), b"{}");
    outer.into_inner().expect("in memory")
}

#[test]
fn a_collection_snapshot_of_one_shard_restores_and_of_several_says_what_to_make() {
    for shard in ["0", "7"] {
        let snapshot = collection_snapshot(&[shard]);
        let (_dir, shard) = unpacked(&snapshot, SnapshotLimits::default()).expect("restores");
        assert_same(
            &points(&shard),
            &expected("qdrant-1.19-stored/points.jsonl.gz"),
        );
    }
    let message = refused(&collection_snapshot(&["0", "1", "2"]));
    assert!(
        message.contains("a collection snapshot of 3 shards (0, 1, 2)")
            && message.contains("/shards/{shard}/snapshots"),
        "{message}"
    );
    let message = refused(&collection_snapshot(&[]));
    assert!(message.contains("without a shard"), "{message}");
    // A server's own snapshot holds those of its collections.
    let mut storage = Builder::new(Vec::new());
    append(&mut storage, Path::new("devices-1.snapshot"), b"x");
    append(&mut storage, Path::new("config.json"), b"{}");
    let message = refused(&storage.into_inner().expect("in memory"));
    assert!(message.contains("whole server"), "{message}");
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

#[test]
fn compressed_snapshots_are_decoded() {
    let snapshot = gunzipped("qdrant-1.19-stored/shard.snapshot.gz");
    let mut zstd = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    zstd.include_checksum(true).expect("a setting");
    zstd.write_all(&snapshot).expect("in memory");
    for compressed in [gzipped(&snapshot), zstd.finish().expect("in memory")] {
        let (_dir, shard) = unpacked(&compressed, SnapshotLimits::default()).expect("restores");
        assert_eq!(shard.read_through().expect("readable"), 1017);
        // Cut, and with a byte changed.
        refused(&compressed[..compressed.len() / 2]);
        let mut damaged = compressed.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        refused(&damaged);
    }
    let message = refused(&gzipped(&gzipped(&snapshot)));
    assert!(message.contains("gzip, and in that"), "{message}");
    let message = refused(&gzipped(b"<html>502</html>"));
    assert!(message.contains("an HTML page"), "{message}");
}

#[test]
fn what_decodes_to_too_much_is_not_read_to_its_end() {
    // A plain file of zeros is as good in gzip as an attacker gets.
    let mut bomb = Builder::new(Vec::new());
    append(&mut bomb, Path::new("wal/closed-1"), &vec![0; 8 << 20]);
    let bomb = gzipped(&bomb.into_inner().expect("in memory"));
    let limits = SnapshotLimits {
        decoded_bytes: 1 << 20,
        ..SnapshotLimits::default()
    };
    match unpacked(&bomb, limits).map(drop) {
        Err(Error::BadSnapshot(message)) => {
            assert!(message.contains("more than 1048576 bytes"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_snapshot_taken_while_the_optimizer_ran_has_its_copies_joined() {
    let snapshot = gunzipped("qdrant-1.19-unsettled/full.tar.gz");
    let (dir, shard) = unpacked(&snapshot, SnapshotLimits::default()).expect("restores");
    let server = expected("qdrant-1.19-unsettled/points.jsonl.gz");
    assert_eq!(shard.remove_duplicates().expect("repairs"), 100);
    assert_eq!(shard.remove_duplicates().expect("looks"), 0);
    assert_eq!(shard.read_through().expect("readable"), 8000);
    assert_eq!(shard.info().expect("info").points, 8000);

    // What was deleted meanwhile is alive; nothing in the shard tells that. All else is the server's.
    let mut found = points(&shard);
    let deleted: Vec<PointId> = (0..100).map(PointId::Num).collect();
    assert_eq!(shard.held(&deleted).expect("looks"), deleted);
    for id in 0..100 {
        found.remove(&id);
    }
    assert_same(&found, &server);
    // Old copies are no hits any more, by vector or by payload.
    for id in [2000, 2050, 2099] {
        let query = json!({
            "query": server[&id]["vector"],
            "filter": { "must_not": [{ "has_id": (0..100).collect::<Vec<_>>() }] },
            "params": { "exact": true },
            "limit": 100,
            "with_vector": true,
        });
        let hits = read(&shard, "POST", "/points/query", &query).expect("a search");
        for hit in hits["points"].as_array().expect("hits") {
            let id = hit["id"].as_u64().expect("a number");
            assert_eq!(hit["vector"], server[&id]["vector"], "{id}");
        }
    }
    let filter = |n: &Value| json!({ "filter": { "must": [{ "key": "n", "match": { "value": n } }] }, "exact": true });
    for id in 2000..2100_u64 {
        let count = |n: &Value| {
            read(&shard, "POST", "/points/count", &filter(n)).expect("a count")["count"].clone()
        };
        assert_eq!(count(&server[&id]["payload"]["n"]), 1, "{id}");
        assert_eq!(
            count(&json!(id)),
            json!(u64::from(server[&id]["payload"]["n"] == id))
        );
    }
    drop(shard);
    // It stays so.
    let again = Shard::load(&dir.path().join("shard")).expect("loads");
    assert_eq!(again.remove_duplicates().expect("looks"), 0);
    assert_eq!(again.info().expect("info").points, 8000);
}

#[test]
fn copies_of_one_version_are_joined_too() {
    let (dir, shard) = created(&json!({ "vectors": { "size": 2, "distance": "Dot" } }));
    let body = json!({ "points": (0..50).map(|id| {
        json!({ "id": id, "vector": [id, 1], "payload": { "n": id } })
    }).collect::<Vec<_>>() });
    write(&shard, "PUT", "/points", &body).expect("upserts");
    shard.flush().expect("flushes");
    let before = points(&shard);
    drop(shard);
    let segments = dir.path().join("shard/segments");
    let names: Vec<_> = fs::read_dir(&segments)
        .expect("segments")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_dir())
        .collect();
    copy(
        &names[0],
        &segments.join("00000000-0000-4000-8000-000000000001"),
    );
    let shard = Shard::load(&dir.path().join("shard")).expect("loads");
    assert_eq!(shard.remove_duplicates().expect("repairs"), 50);
    assert_eq!(points(&shard), before);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}

#[test]
fn points_with_very_many_numbers_are_read_through() {
    // More dimensions than one answer may hold of 256 points, in more names than one group has.
    let mut vectors = serde_json::Map::new();
    for number in 0..20 {
        vectors.insert(
            format!("v{number}"),
            json!({ "size": 65_536, "distance": "Dot" }),
        );
    }
    let (_dir, shard) = created(&json!({ "vectors": vectors }));
    let vector = json!(vec![0.5; 65_536]);
    for id in 0..3 {
        let body = json!({ "points": [{ "id": id, "vector": { "v3": vector, "v17": vector } }] });
        write(&shard, "PUT", "/points", &body).expect("upserts");
    }
    assert_eq!(shard.read_through().expect("readable"), 3);
}

#[test]
fn our_stored_snapshots_are_as_the_servers() {
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("shard");
    unpack_snapshot(
        &snapshot_file(dir.path()),
        &target,
        SnapshotLimits::default(),
    )
    .expect("unpacks");
    let shard = Shard::load(&target).expect("loads");
    let file = dir.path().join("stored.snapshot");
    create(&shard, &file, Layout::Stored).expect("a snapshot");
    let bytes = fs::read(&file).expect("a file");
    let mut inner = 0;
    let mut archive = Archive::new(bytes.as_slice());
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        if path.extension().is_some_and(|extension| extension == "tar") {
            let mut data = Vec::new();
            entry.read_to_end(&mut data).expect("contents");
            assert!(
                data[data.len() - 1024..].iter().any(|byte| *byte != 0),
                "{} has an end mark",
                path.display()
            );
            inner += 1;
        }
    }
    assert!(inner > 0);
    let (_kept, again) = unpacked(&bytes, SnapshotLimits::default()).expect("restores");
    let all = json!({ "limit": 1000, "with_vector": true });
    assert_eq!(
        read(&again, "POST", "/points/scroll", &all).expect("scrolls"),
        read(&shard, "POST", "/points/scroll", &all).expect("scrolls")
    );
}
