//! What can be changed of a collection after its creation: the body of `PATCH /collections/{c}`.

use serde_json::{Map, Value};

use crate::config::{CollectionConfig, HNSW, OPTIMIZERS, is_single_vector};
use crate::error::{Error, Result};
use crate::json::{Node, Strictness};

/// Parts of the body. `quantization_config` is replaced as a whole; of the others, fields that are given.
const CHANGES: &[&str] = &[
    "vectors",
    "optimizers_config",
    "params",
    "hnsw_config",
    "quantization_config",
    "sparse_vectors",
    "strict_mode_config",
    "metadata",
];

/// Those that stand beside the parts in the body that creates a collection.
const PARAMS: &[&str] = &[
    "replication_factor",
    "write_consistency_factor",
    "on_disk_payload",
    "payload",
];

/// Of reads that a server passes on to others; a creation has no such fields, and a shard no use for them.
const FAN_OUT: [&str; 2] = ["read_fan_out_factor", "read_fan_out_delay_ms"];

/// Changes of a collection's parameters, with known fields only.
#[derive(Debug, Clone)]
pub struct Changes(Value);

impl Changes {
    pub(crate) fn parse(node: &Node<'_>) -> Result<Self> {
        node.fields(CHANGES)?;
        for (key, known) in [("optimizers_config", OPTIMIZERS), ("hnsw_config", HNSW)] {
            if let Some(section) = node.get(key) {
                section.fields(known)?;
            }
        }
        if let Some(params) = node.get("params") {
            params.fields(&[PARAMS, &FAN_OUT].concat())?;
        }
        if let Some(vectors) = node.get("vectors") {
            for (_, vector) in vectors.entries()? {
                vector.fields(&["hnsw_config", "quantization_config", "on_disk", "memory"])?;
                if let Some(hnsw) = vector.get("hnsw_config") {
                    hnsw.fields(HNSW)?;
                }
            }
        }
        if let Some(vectors) = node.get("sparse_vectors") {
            for (_, vector) in vectors.entries()? {
                vector.fields(&["index", "modifier"])?;
            }
        }
        for key in ["strict_mode_config", "metadata"] {
            if let Some(section) = node.get(key) {
                section.object()?;
            }
        }
        Ok(Self(node.value.clone()))
    }
}

impl CollectionConfig {
    /// This configuration after `changes`. Vectors stay what they are.
    ///
    /// # Errors
    /// [`Error::InvalidInput`] names the field; [`Error::Refused`] for a value that a server refuses as
    /// out of range, if it is to be read so.
    pub fn changed(&self, changes: &Changes, strictness: Strictness) -> Result<Self> {
        self.check_names(changes)?;
        let mut json = self.to_json();
        if let Some(config) = json.as_object_mut() {
            lay_over(config, &changes.0);
        }
        let changed = Self::from_value_as(strictness, json)?;
        self.check_same_vectors(&changed)?;
        Ok(changed)
    }

    /// A change is of vectors that are there.
    fn check_names(&self, changes: &Changes) -> Result<()> {
        for key in ["vectors", "sparse_vectors"] {
            let there = self.section(key);
            let named = changes.0.get(key).and_then(Value::as_object);
            let unknown = named
                .into_iter()
                .flatten()
                .find(|(name, _)| !there.contains_key(*name));
            let Some((name, _)) = unknown else { continue };
            // The server's words.
            return Err(Error::invalid(
                "",
                match (key, name.as_str()) {
                    ("vectors", "") => {
                        "Default vector params are not specified in config".to_owned()
                    }
                    (_, name) => format!("Vector params for {name} are not specified in config"),
                },
            ));
        }
        Ok(())
    }
}

fn lay_over(config: &mut Map<String, Value>, changes: &Value) {
    let vectors = config.get("vectors").and_then(Value::as_object);
    let is_single = vectors.is_some_and(is_single_vector);
    let given = changes.as_object().into_iter().flatten();
    for (key, value) in given.filter(|(_, value)| !value.is_null()) {
        match key.as_str() {
            "params" => {
                let params = value.as_object().into_iter().flatten();
                let params = params.filter(|(key, _)| !FAN_OUT.contains(&key.as_str()));
                merge(config, params);
            }
            "metadata" => {
                let metadata = section(config, key);
                for (key, value) in value.as_object().into_iter().flatten() {
                    // A null takes the key away, as in a payload.
                    match value {
                        Value::Null => metadata.shift_remove(key),
                        value => metadata.insert(key.clone(), value.clone()),
                    };
                }
            }
            // A single vector has no name in the body that creates a collection.
            "vectors" if is_single => {
                let change = value.get("").and_then(Value::as_object);
                merge(section(config, key), change.into_iter().flatten());
            }
            _ => merge(config, std::iter::once((key, value))),
        }
    }
}

/// The object at `key`, made if it is not there.
fn section<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value
        .as_object_mut()
        .unwrap_or_else(|| unreachable!("made an object above"))
}

fn merge<'a>(below: &mut Map<String, Value>, above: impl Iterator<Item = (&'a String, &'a Value)>) {
    for (key, value) in above.filter(|(_, value)| !value.is_null()) {
        match value {
            Value::String(text) if key == "quantization_config" && text == "Disabled" => {
                below.shift_remove(key);
            }
            Value::Object(fields) if key != "quantization_config" => {
                merge(section(below, key), fields.iter());
            }
            value => {
                below.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(config: &Value, changes: &Value) -> Result<Value> {
        let changes = Changes::parse(&Node::root("", changes))?;
        let config = CollectionConfig::from_value(config).unwrap();
        Ok(config.changed(&changes, Strictness::Strict)?.to_json())
    }

    #[test]
    fn what_is_given_changes_and_the_rest_stays() {
        let config = json!({
            "vectors": {"size": 4, "distance": "Dot"},
            "hnsw_config": {"m": 8, "ef_construct": 20},
            "metadata": {"a": 1, "b": 2},
            "quantization_config": {"scalar": {"type": "int8"}},
        });
        let changes = json!({
            "vectors": {"": {"hnsw_config": {"m": 3}, "on_disk": true}},
            "hnsw_config": {"m": 9, "ef_construct": null},
            "optimizers_config": {"indexing_threshold": 5},
            "params": {"on_disk_payload": true, "read_fan_out_factor": 1},
            "quantization_config": {"binary": {"always_ram": true}},
            "metadata": {"a": null, "c": {"d": null}},
            "sparse_vectors": null,
        });
        let expected = json!({
            "vectors": {"size": 4, "distance": "Dot", "hnsw_config": {"m": 3}, "on_disk": true},
            "hnsw_config": {"m": 9, "ef_construct": 20},
            "metadata": {"b": 2, "c": {"d": null}},
            "quantization_config": {"binary": {"always_ram": true}},
            "optimizers_config": {"indexing_threshold": 5},
            "on_disk_payload": true,
        });
        let once = changed(&config, &changes).unwrap();
        assert_eq!(once, expected);
        assert_eq!(changed(&once, &changes).unwrap(), expected);
        let off = changed(&once, &json!({"quantization_config": "Disabled"})).unwrap();
        assert!(off.get("quantization_config").is_none());
    }

    #[test]
    fn vectors_are_named_and_stay_what_they_are() {
        let config = json!({
            "vectors": {"a": {"size": 4, "distance": "Dot"}},
            "sparse_vectors": {"s": {}},
        });
        let change = json!({
            "vectors": {"a": {"quantization_config": {"scalar": {"type": "int8"}}}},
            "sparse_vectors": {"s": {"index": {"on_disk": true}}},
        });
        let expected = json!({
            "vectors": {"a": {
                "size": 4, "distance": "Dot",
                "quantization_config": {"scalar": {"type": "int8"}},
            }},
            "sparse_vectors": {"s": {"index": {"on_disk": true}}},
        });
        assert_eq!(changed(&config, &change).unwrap(), expected);
        // The default vector may stand among others, or alone by its empty name.
        let config_of_one = json!({"vectors": {"": {"size": 4, "distance": "Dot"}}});
        let expected = json!({"vectors": {"": {"size": 4, "distance": "Dot", "on_disk": true}}});
        let change = json!({"vectors": {"": {"on_disk": true}}});
        assert_eq!(changed(&config_of_one, &change).unwrap(), expected);
        for (changes, words) in [
            (json!({"vectors": {"b": {}}}), "Vector params for b are not"),
            (
                json!({"vectors": {"": {}}}),
                "Default vector params are not",
            ),
            (
                json!({"sparse_vectors": {"a": {}}}),
                "Vector params for a are not",
            ),
            (json!({"vectors": {"a": {"size": 5}}}), "`size`"),
            (
                json!({"sparse_vectors": {"s": {"modifier": "idf"}}}),
                "vector `s`",
            ),
            (json!({"hnsw_config": {"m": "x"}}), "m"),
            (
                json!({"optimizers_config": {"indexing_treshold": 1}}),
                "indexing_treshold",
            ),
        ] {
            let refused = changed(&config, &changes).unwrap_err().to_string();
            assert!(refused.contains(words), "{changes}: {refused}");
        }
    }
}
