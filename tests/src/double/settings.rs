//! What can be changed of a collection after its creation, and aliases.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use edge_sync_rest::{Error, Result};
use serde_json::{Map, Value, json};

/// The changes of `PATCH /collections/{c}`, as they lie over the body that created the collection.
pub(super) const CHANGES_FILE: &str = "changes.json";

/// Lays the body of `PATCH /collections/{c}` over earlier changes.
pub(super) fn change(changes: &mut Map<String, Value>, body: &Value) {
    let Some(body) = body.as_object() else { return };
    for (name, value) in body.iter().filter(|(_, value)| !value.is_null()) {
        match name.as_str() {
            // Stands at the top of the body that creates a collection.
            "params" => lay_over(changes, value),
            "quantization_config" => {
                changes.insert(name.clone(), value.clone());
            }
            "metadata" => {
                let metadata = changes.entry(name.clone()).or_insert_with(|| json!({}));
                // A null takes the key away, as in a payload.
                for (key, value) in value.as_object().into_iter().flatten() {
                    metadata[key] = value.clone();
                }
            }
            "optimizers_config" | "hnsw_config" | "vectors" | "sparse_vectors"
            | "strict_mode_config" => {
                let section = changes.entry(name.clone()).or_insert_with(|| json!({}));
                if let Some(section) = section.as_object_mut() {
                    lay_over(section, value);
                }
            }
            // A server ignores what it does not know.
            _ => {}
        }
    }
}

/// The creation body with the changes.
pub(super) fn changed(config: &mut Value, changes: &Map<String, Value>) {
    let Some(config) = config.as_object_mut() else {
        return;
    };
    for (name, value) in changes {
        match config.get_mut(name).and_then(Value::as_object_mut) {
            // The default vector has no name in a creation body, and an empty one in a change.
            Some(section) if name == "vectors" && section.contains_key("size") => {
                lay_over(section, value.get("").unwrap_or(&Value::Null));
            }
            Some(section) => lay_over(section, value),
            None => {
                config.insert(name.clone(), value.clone());
            }
        }
    }
    if let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|_, value| !value.is_null());
    }
}

fn lay_over(below: &mut Map<String, Value>, above: &Value) {
    for (key, value) in above.as_object().into_iter().flatten() {
        match (below.get_mut(key), value) {
            (Some(Value::Object(section)), Value::Object(_)) => lay_over(section, value),
            _ => {
                below.insert(key.clone(), value.clone());
            }
        }
    }
}

/// Aliases by name, with the collection that each stands for. Kept in a file.
#[derive(Debug, Default)]
pub(super) struct Aliases(BTreeMap<String, String>);

const ALIASES_FILE: &str = "aliases.json";

impl Aliases {
    pub(super) fn load(directory: &Path) -> io::Result<Aliases> {
        match fs::read(directory.join(ALIASES_FILE)) {
            Ok(text) => Ok(Aliases(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Aliases::default()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn store(&self, directory: &Path) -> io::Result<()> {
        fs::write(directory.join(ALIASES_FILE), json!(self.0).to_string())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter()
    }

    pub(super) fn contains(&self, alias: &str) -> bool {
        self.0.contains_key(alias)
    }

    /// The collection that a name stands for: itself, unless it is an alias.
    pub(super) fn resolve<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }

    /// Drops the aliases of a collection.
    pub(super) fn forget(&mut self, collection: &str) {
        self.0.retain(|_, it| it != collection);
    }

    /// Carries out the body of `POST /collections/aliases`. Actions before one that is refused stay.
    pub(super) fn change(&mut self, body: &str, exists: impl Fn(&str) -> bool) -> Result<()> {
        let body: Value = serde_json::from_str(body).map_err(Error::body_format)?;
        let Some(actions) = body["actions"].as_array() else {
            return Err(Error::body_format("missing field `actions`"));
        };
        for action in actions {
            let text = |kind: &str, key: &str| {
                action[kind][key]
                    .as_str()
                    .map(str::to_owned)
                    .ok_or_else(|| {
                        Error::body_format(
                            "data did not match any variant of untagged enum AliasOperations",
                        )
                    })
            };
            if action.get("create_alias").is_some() {
                let collection = text("create_alias", "collection_name")?;
                let alias = text("create_alias", "alias_name")?;
                if !exists(&collection) {
                    return Err(Error::no_collection(&collection));
                }
                if exists(&alias) {
                    return Err(Error::collection_exists(&alias));
                }
                self.0.insert(alias, collection);
            } else if action.get("delete_alias").is_some() {
                self.0.remove(&text("delete_alias", "alias_name")?);
            } else {
                let old = text("rename_alias", "old_alias_name")?;
                let new = text("rename_alias", "new_alias_name")?;
                let Some(collection) = self.0.remove(&old) else {
                    return Err(Error::NotFound(format!("Alias {old} does not exists!")));
                };
                self.0.insert(new, collection);
            }
        }
        Ok(())
    }
}
