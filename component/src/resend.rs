//! Queueing again everything that the shard holds, for a server that has lost it.

use std::collections::{BTreeMap, BTreeSet};

use edge_sync_engine::{Operation, Point, PointId, ScrollRequest, Selection};
use serde_json::{Map, Value, json};

use crate::error::Result;
use crate::store::Store;

/// Points that are read and logged at a time.
const PAGE: usize = 64;
/// Points that one deletion names.
const DELETIONS: usize = 10_000;

/// Queues all of it; see `queue.resend`. What was queued before is part of what the shard holds, but
/// for its deletions, which are queued again.
pub fn resend(store: &mut Store) -> Result<u64> {
    let deleted = deleted_by_queue(store)?;
    let before = store.log().last();
    let mut queued = 0;
    let mut commit = |store: &mut Store, operations: Vec<Operation>| -> Result<()> {
        queued += u64::from(store.commit(operations)?.operations);
        Ok(())
    };
    let description = describing_operations(store)?;
    commit(store, description)?;
    for ids in deleted.chunks(DELETIONS) {
        let ids = ids.to_vec();
        commit(store, vec![Operation::DeletePoints { ids }])?;
    }
    let mut offset = None;
    loop {
        let page = store.shard()?.scroll(ScrollRequest {
            offset,
            limit: PAGE,
            filter: None,
            selection: everything(),
        })?;
        let points = page
            .points
            .into_iter()
            .map(|point| Point {
                id: point.id,
                vectors: point.vectors,
                payload: point.payload,
            })
            .collect();
        let upserts = store.shard()?.prepare_upsert(points)?;
        commit(store, upserts)?;
        offset = page.next;
        if offset.is_none() {
            break;
        }
    }
    // The one step after which the old queue is gone; until here both are in the log, which is the
    // same in the end.
    store.acknowledge_before_resend(before)?;
    Ok(queued)
}

fn everything() -> Selection {
    Selection {
        payload: Some(Value::Bool(true)),
        vectors: Some(Value::Bool(true)),
    }
}

/// Points that queued operations name and that the shard does not hold any more.
fn deleted_by_queue(store: &Store) -> Result<Vec<PointId>> {
    let mut named: BTreeMap<String, PointId> = BTreeMap::new();
    let first = store.current().acknowledged + 1;
    for record in store.log().read(first.max(store.log().first())) {
        for id in Operation::decode(&record?.payload)?.point_ids() {
            named.insert(id.to_json().to_string(), *id);
        }
    }
    let ids: Vec<PointId> = named.into_values().collect();
    let mut gone = Vec::new();
    let nothing = Selection {
        payload: None,
        vectors: None,
    };
    for ids in ids.chunks(DELETIONS) {
        let held: BTreeSet<String> = store
            .shard()?
            .retrieve(ids, &nothing)?
            .into_iter()
            .map(|point| point.id.to_json().to_string())
            .collect();
        gone.extend(
            ids.iter()
                .filter(|id| !held.contains(&id.to_json().to_string())),
        );
    }
    Ok(gone)
}

/// Vectors that were added since the shard was made, and payload indexes.
fn describing_operations(store: &Store) -> Result<Vec<Operation>> {
    let shard = store.shard()?;
    let config = shard.config().to_json();
    let creation: Value = serde_json::from_str(&store.creation_config()?).unwrap_or_default();
    let mut operations = Vec::new();
    for (section, kind, fields) in [
        (
            "vectors",
            "dense",
            ["size", "distance", "multivector_config", "datatype"].as_slice(),
        ),
        (
            "sparse_vectors",
            "sparse",
            ["modifier", "datatype"].as_slice(),
        ),
    ] {
        let Some(vectors) = config.get(section).and_then(Value::as_object) else {
            continue;
        };
        // A single default vector, which no operation can add.
        if vectors.get("size").is_some_and(Value::is_u64) {
            continue;
        }
        for (name, vector) in vectors {
            if creation.get(section).and_then(|it| it.get(name)).is_some() {
                continue;
            }
            let known: Map<String, Value> = vector
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(field, value)| fields.contains(&field.as_str()) && !value.is_null())
                .map(|(field, value)| (field.clone(), value.clone()))
                .collect();
            operations.push(Operation::CreateVectorName {
                name: name.clone(),
                config: json!({ kind: known }),
            });
        }
    }
    for (field, schema) in shard
        .info()?
        .payload_schema
        .as_object()
        .into_iter()
        .flatten()
    {
        let schema = match schema.get("params") {
            Some(params) if !params.is_null() => params.clone(),
            _ => schema.get("data_type").cloned().unwrap_or_default(),
        };
        operations.push(Operation::CreatePayloadIndex {
            field: field.clone(),
            schema,
        });
    }
    Ok(operations)
}
