//! `GET /collections/{collection}`: the creation body, filled up with the server's defaults.

use serde_json::{Map, Value, json};

use crate::CollectionState;

/// Parameters that `PUT /collections/{c}` takes at the top and the info shows under `params`.
const PARAMS: [&str; 7] = [
    "vectors",
    "sparse_vectors",
    "shard_number",
    "sharding_method",
    "replication_factor",
    "write_consistency_factor",
    "on_disk_payload",
];

/// Renders a collection's state as Qdrant's `CollectionInfo`.
///
/// Defaults are those of a Qdrant 1.19 server without a configuration file. A field that is null
/// in the configuration counts as not given.
pub fn collection_info(state: &CollectionState) -> Value {
    let mut params = Map::from_iter([
        ("vectors".to_owned(), json!({})),
        ("shard_number".to_owned(), json!(1)),
        ("replication_factor".to_owned(), json!(1)),
        ("write_consistency_factor".to_owned(), json!(1)),
        ("on_disk_payload".to_owned(), json!(true)),
    ]);
    for name in PARAMS {
        if let Some(value) = given(&state.config, name) {
            params.insert(name.to_owned(), value.clone());
        }
    }
    let mut config = json!({
        "params": params,
        "hnsw_config": with_defaults(
            json!({
                "m": 16,
                "ef_construct": 100,
                "full_scan_threshold": 10_000,
                "max_indexing_threads": 0,
                "on_disk": false,
            }),
            given(&state.config, "hnsw_config"),
        ),
        "optimizer_config": with_defaults(
            json!({
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "max_segment_size": null,
                "memmap_threshold": null,
                "indexing_threshold": 10_000,
                "flush_interval_sec": 5,
                "max_optimization_threads": null,
                "prevent_unoptimized": null,
            }),
            given(&state.config, "optimizers_config"),
        ),
        "wal_config": with_defaults(
            json!({"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}),
            given(&state.config, "wal_config"),
        ),
        "quantization_config": given(&state.config, "quantization_config"),
    });
    for name in ["strict_mode_config", "metadata"] {
        if let Some(value) = given(&state.config, name) {
            config[name] = value.clone();
        }
    }
    let payload_schema = match &state.payload_schema {
        Value::Null => json!({}),
        schema => schema.clone(),
    };
    json!({
        "status": "green",
        "optimizer_status": "ok",
        "indexed_vectors_count": state.indexed_vectors,
        "points_count": state.points,
        "segments_count": state.segments,
        "config": config,
        "payload_schema": payload_schema,
        "update_queue": {"length": 0},
    })
}

fn given<'a>(config: &'a Value, name: &str) -> Option<&'a Value> {
    config.get(name).filter(|value| !value.is_null())
}

fn with_defaults(mut defaults: Value, given: Option<&Value>) -> Value {
    if let (Some(defaults), Some(Value::Object(given))) = (defaults.as_object_mut(), given) {
        for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
            defaults.insert(name.clone(), value.clone());
        }
    }
    defaults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_wins_and_null_counts_as_not_given() {
        let info = collection_info(&CollectionState {
            config: json!({
                "vectors": {"size": 4, "distance": "Dot"},
                "hnsw_config": {"m": 7, "ef_construct": null},
                "on_disk_payload": null,
            }),
            points: 3,
            ..CollectionState::default()
        });
        assert_eq!(info["config"]["params"]["vectors"]["size"], 4);
        assert_eq!(info["config"]["hnsw_config"]["m"], 7);
        assert_eq!(info["config"]["hnsw_config"]["ef_construct"], 100);
        assert_eq!(info["config"]["params"]["on_disk_payload"], true);
        assert_eq!(info["points_count"], 3);
        assert_eq!(info["payload_schema"], json!({}));
    }
}
