//! Every request of the fixture against its restored snapshot: the answers must be the server's.

use std::collections::BTreeSet;

use crate::common::{created, json_file, json_lines, read, restored, write};
use edge_sync_engine::{CollectionConfig, Shard};
use edge_sync_snapshots::{Layout, create};
use serde_json::{Value, json};

/// Relative difference that scores may have.
const TOLERANCE: f64 = 1e-4;

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1e-3)
}

/// Equal, with numbers compared as above.
fn same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Number(ours), Value::Number(theirs)) => {
            ours == theirs
                || matches!((ours.as_f64(), theirs.as_f64()), (Some(a), Some(b)) if close(a, b))
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same(a, b))
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            ours.len() == theirs.len()
                && ours
                    .iter()
                    .all(|(key, a)| theirs.get(key).is_some_and(|b| same(a, b)))
        }
        _ => ours == theirs,
    }
}

/// Scored lists agree if the scores agree rank by rank, and so do the points of each run of ties.
/// The last run may be cut off by the limit, with other members of it on each side.
fn same_scored(ours: &[Value], theirs: &[Value]) -> Result<(), String> {
    if ours.len() != theirs.len() {
        return Err(format!("{} points for {}", ours.len(), theirs.len()));
    }
    let score = |point: &Value| point["score"].as_f64().unwrap_or(f64::NAN);
    let mut start = 0;
    while start < theirs.len() {
        let mut end = start + 1;
        while end < theirs.len() && close(score(&theirs[end - 1]), score(&theirs[end])) {
            end += 1;
        }
        for rank in start..end {
            if !close(score(&ours[rank]), score(&theirs[rank])) {
                return Err(format!("rank {rank}: {} for {}", ours[rank], theirs[rank]));
            }
        }
        let cut_off = end == theirs.len() && end - start > 1;
        for point in &ours[start..end] {
            match theirs[start..end]
                .iter()
                .find(|other| other["id"] == point["id"])
            {
                Some(other) if same(point, other) => {}
                Some(other) => return Err(format!("{point} for {other}")),
                None if cut_off => {}
                None => return Err(format!("ranks {start}..{end}: {} is new", point["id"])),
            }
        }
        start = end;
    }
    Ok(())
}

fn check(name: &str, ours: &Value, theirs: &Value) -> Result<(), String> {
    if let (Some(ours), Some(theirs)) = (ours["points"].as_array(), theirs["points"].as_array())
        && theirs.iter().all(|point| point["score"].is_number())
        && !name.starts_with("order_by")
    {
        return same_scored(ours, theirs);
    }
    if let (Some(ours), Some(theirs)) = (ours["groups"].as_array(), theirs["groups"].as_array()) {
        if ours.len() != theirs.len() {
            return Err(format!("{} groups for {}", ours.len(), theirs.len()));
        }
        for (ours, theirs) in ours.iter().zip(theirs) {
            if ours["id"] != theirs["id"] {
                return Err(format!("group {} for {}", ours["id"], theirs["id"]));
            }
            same_scored(
                ours["hits"].as_array().expect("hits"),
                theirs["hits"].as_array().expect("hits"),
            )?;
        }
        return Ok(());
    }
    if let (Some(ours), Some(theirs)) = (ours["hits"].as_array(), theirs["hits"].as_array()) {
        // Facet values of one count come in any order.
        let set =
            |hits: &[Value]| -> BTreeSet<String> { hits.iter().map(Value::to_string).collect() };
        let counts = |hits: &[Value]| -> Vec<Value> {
            hits.iter().map(|hit| hit["count"].clone()).collect()
        };
        return if set(ours) == set(theirs) && counts(ours) == counts(theirs) {
            Ok(())
        } else {
            Err(format!("{ours:?} for {theirs:?}"))
        };
    }
    if same(ours, theirs) {
        Ok(())
    } else {
        Err(format!("{ours} for {theirs}"))
    }
}

fn ids(result: &Value) -> BTreeSet<String> {
    let points = result["points"].as_array().expect("points");
    points.iter().map(|point| point["id"].to_string()).collect()
}

fn check_all(shard: &Shard, versions: bool) {
    let queries = json_lines("queries.jsonl.gz");
    assert_eq!(queries.len(), 139);
    let mut failures = Vec::new();
    for query in &queries {
        let name = query["name"].as_str().expect("a name");
        // Without the server's files, graphs and quantization are made anew, from points in
        // another order, and what is approximate comes out differently.
        if !versions && (name.starts_with("hnsw/") || name == "rescore") {
            continue;
        }
        let (method, path) = (
            query["method"].as_str().expect("a method"),
            query["path"].as_str().expect("a path"),
        );
        let mut ours = match read(shard, method, path, &query["body"]) {
            Ok(ours) => ours,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let mut theirs = query["result"].clone();
        if !versions {
            forget_versions(&mut ours);
            forget_versions(&mut theirs);
        }
        if let Some(vector) = name.strip_prefix("hnsw/") {
            let exact = queries
                .iter()
                .find(|other| other["name"] == format!("exact/{vector}"))
                .expect("an exact query for each");
            let exact = ids(&exact["result"]);
            let recall = |result: &Value| ids(result).intersection(&exact).count();
            if recall(&ours) + 1 < recall(&theirs) {
                failures.push(format!(
                    "{name}: {} of {} found, the server found {}",
                    recall(&ours),
                    exact.len(),
                    recall(&theirs)
                ));
            }
        } else if let Err(difference) = check(name, &ours, &theirs) {
            failures.push(format!("{name}: {difference}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} differ:\n{}",
        failures.len(),
        queries.len(),
        failures.join("\n")
    );
}

fn forget_versions(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(forget_versions),
        Value::Object(map) => {
            map.shift_remove("version");
            map.values_mut().for_each(forget_versions);
        }
        _ => {}
    }
}

#[test]
fn a_restored_snapshot_answers_as_the_server_did() {
    let (_dir, shard) = restored();
    check_all(&shard, true);

    let info = shard.info().expect("info");
    assert_eq!(info.points, 570);
    let indexes = json_file("collection.json")["indexes"].clone();
    let indexes = indexes.as_object().expect("indexes");
    for (field, schema) in indexes {
        assert_eq!(
            info.payload_schema[field]["data_type"], schema["type"],
            "{field}"
        );
    }
}

#[test]
fn a_snapshot_of_ours_answers_as_the_server_did() {
    let (dir, shard) = restored();
    let file = dir.path().join("ours.snapshot");
    create(&shard, &file, Layout::Streamed).expect("a snapshot");
    let size = std::fs::metadata(&file).expect("written").len();
    assert!(size < 16 << 20, "{size} bytes, holes were written out");
    drop(shard);

    let again = dir.path().join("again");
    edge_sync_engine::unpack_snapshot(&file, &again, Default::default()).expect("unpacks");
    let shard = Shard::load(&again).expect("loads");
    check_all(&shard, true);
}

#[test]
fn points_that_are_upserted_answer_as_the_server_did() {
    let collection = json_file("collection.json");
    let (dir, shard) = created(&collection["create"]);
    for (field, schema) in collection["indexes"].as_object().expect("indexes") {
        let body = json!({ "field_name": field, "field_schema": schema });
        write(&shard, "PUT", "/index", &body).expect("an index");
    }
    let points = json_lines("points.jsonl.gz");
    assert_eq!(points.len(), 570);
    for points in points.chunks(100) {
        write(
            &shard,
            "PUT",
            "/points?wait=true",
            &json!({ "points": points }),
        )
        .expect("upserts");
    }
    check_all(&shard, false);
    shard.optimize().expect("optimizes");
    check_all(&shard, false);
    shard.flush().expect("flushes");
    drop(shard);
    let shard = Shard::load(&dir.path().join("shard")).expect("loads");
    check_all(&shard, false);
}

#[test]
fn the_configuration_of_a_restored_shard_is_the_collections() {
    let (_dir, shard) = restored();
    let collection = json_file("collection.json");
    let created = CollectionConfig::from_value(&collection["create"]).expect("as created");
    let listed = CollectionConfig::from_collection_info(&collection["collection"]).expect("listed");
    created.check_same_vectors(&listed).expect("the same");
    created
        .check_same_vectors(&shard.config())
        .expect("the same");

    let found = shard.config().to_json();
    let again = CollectionConfig::from_value(&found).expect("good as a body");
    again.check_same_vectors(&created).expect("the same");
    for (vector, key) in [
        ("sq", "quantization_config"),
        ("pq", "quantization_config"),
        ("bq", "quantization_config"),
        ("tq", "quantization_config"),
    ] {
        assert_eq!(
            found["vectors"][vector][key], collection["create"]["vectors"][vector][key],
            "{vector}"
        );
    }
    assert_eq!(found["vectors"]["dot"]["hnsw_config"]["m"], 8);
    assert_eq!(found["vectors"]["cos"]["hnsw_config"]["m"], 12);

    let mut other = collection["create"].clone();
    other["vectors"]["cos"]["size"] = json!(17);
    let other = CollectionConfig::from_value(&other).expect("a configuration");
    let error = created
        .check_same_vectors(&other)
        .expect_err("another size");
    assert!(error.to_string().contains("`cos`"), "{error}");
}
