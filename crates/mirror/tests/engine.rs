//! The engine on a working folder: it loads and answers as on the full snapshot, and writes to no
//! file that the mirror shares.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::{Parts, Room, Server, applied, fixtures, origin, recorded, unzipped, walk};
use edge_sync_engine::{Request, Shard, SnapshotLimits, parse_request, unpack_snapshot};
use edge_sync_mirror::{Links, Mirror, Offer, build, build_linking, is_never_written};
use proptest::prelude::*;
use serde_json::{Value, json};

fn read(shard: &Shard, path: &str, body: &Value) -> Value {
    match parse_request("POST", path, &body.to_string()).unwrap() {
        Request::Read(read) => shard.read(read).unwrap(),
        _ => panic!("{path} is no read"),
    }
}

/// Applies a request; one that the shard refuses changes nothing.
fn write(shard: &Shard, method: &str, path: &str, body: &Value) {
    let Ok(Request::Write(write)) = parse_request(method, path, &body.to_string()) else {
        panic!("{method} {path} {body}");
    };
    for step in write.steps() {
        match shard.prepare(step) {
            Ok(operations) => shard.apply(operations).unwrap(),
            Err(_) => return,
        }
    }
}

/// Every point, with everything that it has.
fn points(shard: &Shard) -> Vec<Value> {
    let all = json!({"limit": 10_000, "with_payload": true, "with_vector": true});
    let page = read(shard, "/points/scroll", &all);
    assert!(page["next_page_offset"].is_null());
    page["points"].as_array().unwrap().clone()
}

fn json_lines(path: &Path) -> Vec<Value> {
    let text = unzipped(path).unwrap();
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Loads what a mirror makes, and what the full snapshot of the same moment makes.
#[test]
fn the_working_shard_answers_as_the_full_snapshot() {
    let room = Room::new();
    for step in [
        "00-all",
        "04-delete-in-indexed",
        "05-overwrite-in-indexed",
        "08-index-remade",
    ] {
        let mirror = room.mirror_of(step);
        let ours = room.fresh("shard");
        build(&mirror, &ours.join("segments"), Links::Try).unwrap();
        let ours = Shard::load(&ours).unwrap();

        let archive = room.fresh("full");
        fs::write(&archive, recorded(step, "full.tar.gz").unwrap()).unwrap();
        let theirs = room.fresh("shard");
        unpack_snapshot(&archive, &theirs, SnapshotLimits::default()).unwrap();
        let theirs = Shard::load(&theirs).unwrap();

        let held = points(&ours);
        assert_eq!(held, points(&theirs), "{step}");
        let recorded = json_lines(
            &fixtures()
                .join("real-server/partial")
                .join(step)
                .join("points.jsonl.gz"),
        );
        assert_eq!(held.len(), recorded.len(), "{step}");
        let by_id = |points: &[Value]| -> BTreeMap<String, Value> {
            points
                .iter()
                .map(|point| (point["id"].to_string(), point["payload"].clone()))
                .collect()
        };
        assert_eq!(by_id(&held), by_id(&recorded), "{step}");

        let query: Vec<f64> = (0..32).map(|at| f64::from(at) - 16.0).collect();
        for (path, body) in [
            (
                "/points/query",
                json!({"query": query, "using": "v", "limit": 20}),
            ),
            (
                "/points/query",
                json!({"query": query, "using": "q", "limit": 20}),
            ),
            (
                "/points/query",
                json!({"query": {"indices": [1, 2, 3], "values": [1.0, 2.0, 3.0]}, "using": "s", "limit": 20}),
            ),
            ("/points/count", json!({"exact": true})),
            (
                "/facet",
                json!({"key": "city", "limit": 100, "exact": true}),
            ),
        ] {
            assert_eq!(
                read(&ours, path, &body),
                read(&theirs, path, &body),
                "{step}: {path} {body}"
            );
        }
        assert_eq!(
            ours.info().unwrap().payload_schema,
            theirs.info().unwrap().payload_schema
        );
    }
}

/// A mirror of a collection with every kind of vector and index, in a segment that was built by
/// the server's optimizer and one that takes points. The server's full stream has no manifests; here
/// they are as it would write them, with every file at its segment's version.
fn all_kinds(room: &Room) -> Mirror {
    let full = unzipped(&fixtures().join("qdrant-1.19-all-kinds/shard.snapshot.gz")).unwrap();
    let mut parts = Parts::of(&full);
    let mut segments: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, _) in &parts.0 {
        if let Some((segment, file)) = name
            .strip_prefix("segments/")
            .and_then(|rest| rest.split_once("/files/"))
            && !["segment.json", "version.info"].contains(&file)
        {
            let files = segments.entry(segment.to_owned()).or_default();
            files.insert(file.to_owned());
        }
    }
    assert_eq!(segments.len(), 2);
    for (segment, files) in segments {
        let folder = format!("segments/{segment}/files");
        let version = parts.json(&format!("{folder}/segment.json"))["version"]
            .as_u64()
            .unwrap_or(0);
        let files: serde_json::Map<_, _> =
            files.into_iter().map(|file| (file, Value::Null)).collect();
        parts.put_json(
            &format!("{folder}/segment_manifest.json"),
            &json!({
                "segment_id": segment, "segment_version": version, "file_versions": files
            }),
        );
    }
    applied(room.apply(&Offer::everything(), &parts.to_archive())).0
}

/// Files of the mirror that are not what they were, read whole.
fn changed(mirror: &Mirror, before: &BTreeMap<String, u32>) -> Vec<String> {
    sums(mirror)
        .into_iter()
        .filter(|(file, sum)| before.get(file) != Some(sum))
        .map(|(file, _)| file)
        .collect()
}

fn sums(mirror: &Mirror) -> BTreeMap<String, u32> {
    let mut sums = BTreeMap::new();
    for (segment, record) in mirror.segments() {
        for file in record.files.keys() {
            let sum = common::checksum(&mirror.path(segment, file));
            sums.insert(format!("{segment}/{file}"), sum);
        }
    }
    sums
}

fn recorded_sums(mirror: &Mirror) -> BTreeMap<String, u32> {
    let mut sums = BTreeMap::new();
    for (segment, record) in mirror.segments() {
        for (file, record) in &record.files {
            sums.insert(format!("{segment}/{file}"), record.crc32c);
        }
    }
    sums
}

/// What may happen to a working shard.
#[derive(Debug, Clone)]
enum Step {
    Upsert(Vec<usize>),
    Delete(Vec<u64>),
    DeleteByFilter(u64),
    SetPayload(Vec<u64>, u64),
    OverwritePayload(Vec<u64>),
    ClearPayload(Vec<u64>),
    UpdateVectors(Vec<u64>, usize),
    DeleteVectors(Vec<u64>, usize),
    CreateIndex(usize),
    DeleteIndex(usize),
    CreateVector(usize),
    DeleteVector(usize),
    Optimize,
    Flush,
    Reopen,
}

const FIELDS: [&str; 8] = ["kw", "i", "f", "b", "g", "t", "u", "new"];
const VECTORS: [&str; 7] = ["cos", "dot", "multi", "sq", "sp", "spd", "extra"];

fn any_step() -> impl Strategy<Value = Step> {
    let ids = || prop::collection::vec(1..600_u64, 1..20);
    prop_oneof![
        3 => prop::collection::vec(0..570_usize, 1..20).prop_map(Step::Upsert),
        3 => ids().prop_map(Step::Delete),
        1 => (0..100_u64).prop_map(Step::DeleteByFilter),
        2 => (ids(), any::<u64>()).prop_map(|(ids, value)| Step::SetPayload(ids, value)),
        1 => ids().prop_map(Step::OverwritePayload),
        1 => ids().prop_map(Step::ClearPayload),
        2 => (ids(), 0..4_usize).prop_map(|(ids, name)| Step::UpdateVectors(ids, name)),
        2 => (ids(), 0..VECTORS.len()).prop_map(|(ids, name)| Step::DeleteVectors(ids, name)),
        1 => (0..FIELDS.len()).prop_map(Step::CreateIndex),
        1 => (0..FIELDS.len()).prop_map(Step::DeleteIndex),
        1 => (0..VECTORS.len()).prop_map(Step::CreateVector),
        1 => (0..VECTORS.len()).prop_map(Step::DeleteVector),
        1 => Just(Step::Optimize),
        2 => Just(Step::Flush),
        2 => Just(Step::Reopen),
    ]
}

/// Does a step; the shard may be another instance afterwards.
fn take(step: &Step, shard: Shard, dir: &Path, points: &[Value]) -> Shard {
    let existing = |ids: &[u64]| -> Vec<Value> {
        let ids: Vec<Value> = ids.iter().map(|id| json!(id)).collect();
        let found = read(
            &shard,
            "/points",
            &json!({"ids": ids, "with_payload": false}),
        );
        found
            .as_array()
            .unwrap()
            .iter()
            .map(|point| point["id"].clone())
            .collect()
    };
    match step {
        Step::Upsert(which) => {
            let points: Vec<_> = which.iter().map(|at| points[*at].clone()).collect();
            write(&shard, "PUT", "/points", &json!({ "points": points }));
        }
        Step::Delete(ids) => {
            write(&shard, "POST", "/points/delete", &json!({ "points": ids }));
        }
        Step::DeleteByFilter(limit) => {
            let filter = json!({"must": [{"key": "i", "range": {"gt": 100 - *limit as i64}}]});
            write(
                &shard,
                "POST",
                "/points/delete",
                &json!({ "filter": filter }),
            );
        }
        Step::SetPayload(ids, value) => {
            let body = json!({"points": existing(ids), "payload": {"new": value, "i": 5}});
            write(&shard, "POST", "/points/payload", &body);
        }
        Step::OverwritePayload(ids) => {
            let body = json!({"points": existing(ids), "payload": {"kw": "other"}});
            write(&shard, "PUT", "/points/payload", &body);
        }
        Step::ClearPayload(ids) => {
            let body = json!({"points": existing(ids)});
            write(&shard, "POST", "/points/payload/clear", &body);
        }
        Step::UpdateVectors(ids, name) => {
            let name = VECTORS[*name];
            let of = points.iter().find(|point| !point["vector"][name].is_null());
            let vector = of.unwrap()["vector"][name].clone();
            let points: Vec<_> = existing(ids)
                .into_iter()
                .map(|id| json!({"id": id, "vector": {name: vector}}))
                .collect();
            write(
                &shard,
                "PUT",
                "/points/vectors",
                &json!({ "points": points }),
            );
        }
        Step::DeleteVectors(ids, name) => {
            let body = json!({"points": existing(ids), "vector": [VECTORS[*name]]});
            write(&shard, "POST", "/points/vectors/delete", &body);
        }
        Step::CreateIndex(field) => {
            let body = json!({"field_name": FIELDS[*field], "field_schema": "keyword"});
            write(&shard, "PUT", "/index", &body);
        }
        Step::DeleteIndex(field) => {
            let path = format!("/index/{}", FIELDS[*field]);
            write(&shard, "DELETE", &path, &Value::Null);
        }
        Step::CreateVector(name) => {
            let path = format!("/vectors/{}", VECTORS[*name]);
            let body = json!({"dense": {"size": 8, "distance": "Dot"}});
            write(&shard, "PUT", &path, &body);
        }
        Step::DeleteVector(name) => {
            let path = format!("/vectors/{}", VECTORS[*name]);
            write(&shard, "DELETE", &path, &Value::Null);
        }
        Step::Optimize => {
            shard.optimize().unwrap();
        }
        Step::Flush => shard.flush().unwrap(),
        Step::Reopen => {
            drop(shard);
            return Shard::load(dir).unwrap();
        }
    }
    shard
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn the_mirror_stays_as_it_came_whatever_is_done_to_the_shard(
        steps in prop::collection::vec(any_step(), 1..25),
    ) {
        let room = Room::new();
        let mirror = all_kinds(&room);
        let dir = room.fresh("shard");
        let working = build(&mirror, &dir.join("segments"), Links::Try).unwrap();
        prop_assert!(working.linked_files > 80, "{} links", working.linked_files);
        let points = json_lines(&fixtures().join("qdrant-1.19-all-kinds/points.jsonl.gz"));
        let mut shard = Shard::load(&dir).unwrap();
        for step in &steps {
            shard = take(step, shard, &dir, &points);
        }
        shard.flush().unwrap();
        drop(shard);
        prop_assert_eq!(changed(&mirror, &recorded_sums(&mirror)), Vec::<String>::new());
        // Nothing wrote even the same bytes: the times are as they were.
        prop_assert!(Offer::of(mirror, &origin()).is_whole());
    }
}

/// A fixed run over everything, for the mutation below and against it.
fn run_over_everything(never_written: impl Fn(&str, bool) -> bool) -> Vec<String> {
    let room = Room::new();
    let mirror = all_kinds(&room);
    let dir = room.fresh("shard");
    build_linking(&mirror, &dir.join("segments"), Links::Try, never_written).unwrap();
    let points = json_lines(&fixtures().join("qdrant-1.19-all-kinds/points.jsonl.gz"));
    let mut shard = Shard::load(&dir).unwrap();
    for step in [
        Step::Delete((1..50).collect()),
        Step::Upsert((100..150).collect()),
        Step::SetPayload((150..200).collect(), 7),
        Step::ClearPayload((200..250).collect()),
        Step::UpdateVectors((250..300).collect(), 2),
        Step::DeleteVectors((300..350).collect(), 0),
        Step::Flush,
        Step::CreateIndex(7),
        Step::DeleteIndex(0),
        Step::DeleteVector(1),
        Step::Reopen,
        Step::DeleteByFilter(0),
        Step::Optimize,
        Step::Flush,
    ] {
        shard = take(&step, shard, &dir, &points);
    }
    drop(shard);
    changed(&mirror, &recorded_sums(&mirror))
}

#[test]
fn a_run_over_everything_changes_nothing_shared() {
    assert_eq!(run_over_everything(is_never_written), Vec::<String>::new());
}

/// With the payload storage's own bookkeeping shared as well, deleting a point reaches the mirror.
#[test]
fn sharing_what_is_written_would_show() {
    let changed = run_over_everything(|file, immutable| {
        is_never_written(file, immutable) || (immutable && file.starts_with("payload_storage/"))
    });
    assert!(
        changed
            .iter()
            .any(|file| file.contains("/payload_storage/")),
        "{changed:?}"
    );
    let changed = run_over_everything(|file, immutable| {
        is_never_written(file, immutable) || file.starts_with("id_tracker.")
    });
    assert!(
        changed.iter().any(|file| file.contains("/id_tracker.")),
        "{changed:?}"
    );
}

/// A mirror can be told about a moment that the server of the tests is at; then it follows.
#[test]
fn a_shard_is_pulled_from_one_moment_to_another() {
    let room = Room::new();
    let (_, before) = Server::at("02-append").pull(&room, Offer::everything());
    let shard = room.fresh("shard");
    build(&before, &shard.join("segments"), Links::Try).unwrap();
    let shard = Shard::load(&shard).unwrap();
    write(
        &shard,
        "POST",
        "/points/delete",
        &json!({"points": [1, 2, 3]}),
    );
    shard.flush().unwrap();

    let server = Server::at("07-index-made");
    let (_, after) = server.pull(&room, Offer::of(before, &origin()));
    let pulled = room.fresh("shard");
    build(&after, &pulled.join("segments"), Links::Try).unwrap();
    let pulled = Shard::load(&pulled).unwrap();
    let recorded = fixtures().join("real-server/partial/07-index-made/points.jsonl.gz");
    assert_eq!(points(&pulled).len(), json_lines(&recorded).len());
    assert!(!walk(after.folder()).is_empty());
}
