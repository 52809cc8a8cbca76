//! The server's collection: one description, leniently read, that answers three questions. May we
//! upload, may we restore, may we create.
//!
//! Fields that a newer server adds, and settings that are no business of a device, are not looked
//! at.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::placement::names_no_key;
use crate::routing::Routing;

/// Where in a collection's metadata the identity is kept that an edge-sync made it with.
const METADATA_KEY: &str = "edge-sync";

/// How the keys begin that carry, in the metadata of a collection of others, the identities that
/// edge-syncs gave to it. Each has a key of its own: of several devices that come at once none takes
/// away what another one has written, since the server merges the top level of metadata.
const GIVEN_KEY: &str = "edge-sync:";

/// What `GET /collections/{c}` says, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerCollection {
    /// Identity of each vector by name.
    vectors: BTreeMap<String, String>,
    /// How many shards it has, over all shard keys.
    pub shards: u64,
    /// Whether writes need a shard key.
    pub shard_keys: bool,
    /// How many copies of each shard there are. Each numbers its operations by itself.
    pub replicas: u64,
    /// Points, as the server counts them.
    pub points: Option<u64>,
    /// The identity that was given at creation, if an edge-sync created it.
    pub id: Option<String>,
    /// Identities that edge-syncs gave to it later.
    given: BTreeSet<String>,
    /// Fields with a payload index.
    pub indexes: BTreeSet<String>,
}

/// What the device holds, as far as the server must agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalVectors {
    current: BTreeMap<String, String>,
    /// Names that the collection had when the log began.
    original: BTreeSet<String>,
}

impl ServerCollection {
    /// Reads the `result` of `GET /collections/{c}`.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn read(result: &Value) -> Result<Self, String> {
        let params = result
            .pointer("/config/params")
            .filter(|params| params.is_object())
            .ok_or("the description of the collection has no `config.params`")?;
        let number = |name: &str| params.get(name).and_then(Value::as_u64).unwrap_or(1);
        Ok(Self {
            vectors: identities(params),
            shards: number("shard_number"),
            shard_keys: params.get("sharding_method").and_then(Value::as_str) == Some("custom"),
            replicas: number("replication_factor"),
            points: result.get("points_count").and_then(Value::as_u64),
            id: result
                .pointer(&format!("/config/metadata/{METADATA_KEY}/id"))
                .and_then(Value::as_str)
                .map(str::to_owned),
            given: result
                .pointer("/config/metadata")
                .and_then(Value::as_object)
                .into_iter()
                .flat_map(Map::keys)
                .filter_map(|key| key.strip_prefix(GIVEN_KEY).map(str::to_owned))
                .collect(),
            indexes: result
                .get("payload_schema")
                .and_then(Value::as_object)
                .map(|schema| schema.keys().cloned().collect())
                .unwrap_or_default(),
        })
    }

    /// Whether each of its shards numbers its operations in one sequence.
    pub fn numbers_operations(&self) -> bool {
        self.replicas == 1
    }

    /// Whether there is one shard, and cannot be another.
    pub fn is_one_shard(&self) -> bool {
        self.shards == 1 && !self.shard_keys
    }

    /// What tells it from a collection of the same name that is made anew: `known`, if that is one
    /// of its identities, else the one that it has longest. None if it has none.
    pub fn identity(&self, known: Option<&str>) -> Option<String> {
        known
            .filter(|known| self.has_identity(known))
            .map(str::to_owned)
            .or_else(|| self.id.clone())
            .or_else(|| self.given.first().cloned())
    }

    /// Whether this is one of its identities.
    pub fn has_identity(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id) || self.given.contains(id)
    }

    /// Whether it has a vector of this name.
    pub fn has_vector(&self, name: &str) -> bool {
        self.vectors.contains_key(name)
    }

    /// Whether the device's writes belong here. Vectors that only one side has are fine: the queue
    /// may hold the very operation that adds or drops them, or another device may have done so.
    /// `changing` names vectors that queued operations add or drop.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn may_upload(
        &self,
        local: &LocalVectors,
        changing: &[String],
        routing: &Routing,
    ) -> Result<(), String> {
        self.has_part(routing)?;
        self.same_vectors(local, changing)
    }

    /// Whether a snapshot of it may replace the device's shard. `local`: none where there is no
    /// shard yet.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn may_restore(
        &self,
        local: Option<&LocalVectors>,
        routing: &Routing,
    ) -> Result<(), String> {
        self.has_part(routing)?;
        match local {
            Some(local) => self.same_vectors(local, &[]),
            None => Ok(()),
        }
    }

    /// Whether the part that the settings name can be one of this collection.
    fn has_part(&self, routing: &Routing) -> Result<(), String> {
        match (routing.own_key(), self.shard_keys) {
            (None, true) => Err(names_no_key()),
            // A tenant's points can be told apart in any collection.
            (Some(key), false) if routing.tenant().is_none() => Err(format!(
                "the collection has no shard keys (sharding_method: auto), and the settings name \
                 the shard key {key}"
            )),
            (None, false) => has_shard(routing, self.shards),
            _ => Ok(()),
        }
    }

    fn same_vectors(&self, local: &LocalVectors, changing: &[String]) -> Result<(), String> {
        for (name, ours) in &local.current {
            if let Some(theirs) = self.vectors.get(name)
                && ours != theirs
                && !changing.contains(name)
            {
                let vector = match name.as_str() {
                    "" => "the vector".to_owned(),
                    name => format!("vector `{name}`"),
                };
                return Err(format!(
                    "{vector} is {ours} here and {theirs} there: the server's collection is another \
                     one"
                ));
            }
        }
        let known = |name: &String| {
            local.current.contains_key(name)
                || local.original.contains(name)
                || changing.contains(name)
        };
        let nothing_in_common = !self.vectors.keys().any(known);
        if nothing_in_common && !self.vectors.is_empty() && !local.current.is_empty() {
            return Err(format!(
                "the server's collection has the vectors {}, this shard has {}: it is another one",
                listed(self.vectors.keys()),
                listed(local.current.keys())
            ));
        }
        Ok(())
    }
}

impl LocalVectors {
    /// From the body of `PUT /collections/{c}` as the shard is now, and as it was when the log
    /// began. A body that is none has no vectors.
    pub fn read(current: &str, original: &str) -> Self {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        Self {
            current: identities(&parse(current)),
            original: identities(&parse(original)).into_keys().collect(),
        }
    }
}

/// Whether a collection of so many shards has the one that the settings name, if they name one.
///
/// # Errors
/// A sentence for people.
pub fn has_shard(routing: &Routing, shards: u64) -> Result<(), String> {
    let Some(shard) = routing.shard().filter(|shard| u64::from(*shard) >= shards) else {
        return Ok(());
    };
    let there = match shards {
        0 | 1 => "its only shard is 0".to_owned(),
        2 => "its shards are 0 and 1".to_owned(),
        _ => format!("its shards are 0 to {}", shards - 1),
    };
    Err(format!("the collection has no shard {shard}; {there}"))
}

/// The body that creates a collection with one shard, or one shard for each shard key if it is to be
/// `keyed`, and with an identity. `config` is the body of `PUT /collections/{c}` that the shard was
/// made from.
///
/// # Errors
/// `config` is no JSON object.
pub fn creation_body(config: &str, id: &str, keyed: bool) -> Result<String, String> {
    let mut body: Map<String, Value> = serde_json::from_str(config)
        .map_err(|error| format!("the shard's configuration is no JSON object: {error}"))?;
    body.insert("shard_number".to_owned(), json!(1));
    if keyed {
        body.insert("sharding_method".to_owned(), json!("custom"));
    } else {
        body.remove("sharding_method");
    }
    let metadata = body
        .entry("metadata")
        .or_insert_with(|| Value::Object(Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata[METADATA_KEY] = json!({ "id": id });
    Ok(Value::Object(body).to_string())
}

/// The body of `PATCH /collections/{c}` that gives an identity to a collection that has none.
pub fn identity_body(id: &str) -> String {
    json!({ "metadata": { format!("{GIVEN_KEY}{id}"): true } }).to_string()
}

/// What makes a vector that vector and no other: size, distance, datatype, multivector comparator;
/// for a sparse one its modifier. `params` has `vectors` and `sparse_vectors`.
fn identities(params: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    if let Some(vectors) = params.get("vectors").and_then(Value::as_object) {
        if vectors.contains_key("size") && vectors.get("size").is_some_and(Value::is_u64) {
            found.insert(String::new(), dense(&params["vectors"]));
        } else {
            found.extend(
                vectors
                    .iter()
                    .map(|(name, vector)| (name.clone(), dense(vector))),
            );
        }
    }
    if let Some(vectors) = params.get("sparse_vectors").and_then(Value::as_object) {
        found.extend(
            vectors
                .iter()
                .map(|(name, vector)| (name.clone(), sparse(vector))),
        );
    }
    found
}

fn dense(vector: &Value) -> String {
    let text = |name: &str, otherwise: &str| {
        vector
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or(otherwise)
            .to_lowercase()
    };
    let size = vector
        .get("size")
        .and_then(Value::as_u64)
        .unwrap_or_default();
    let mut identity = format!(
        "{size} x {}, {}",
        text("datatype", "float32"),
        text("distance", "?")
    );
    if let Some(comparator) = vector.pointer("/multivector_config/comparator") {
        identity.push_str(&format!(
            ", multivector {}",
            comparator.as_str().unwrap_or("?")
        ));
    }
    identity
}

fn sparse(vector: &Value) -> String {
    let modifier = vector
        .get("modifier")
        .and_then(Value::as_str)
        .unwrap_or("none")
        .to_lowercase();
    format!("sparse, modifier {modifier}")
}

fn listed<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(params: Value) -> ServerCollection {
        ServerCollection::read(&json!({"config": {"params": params}, "points_count": 3})).unwrap()
    }

    fn all() -> Routing {
        Routing::default()
    }

    fn local(current: &Value, original: &Value) -> LocalVectors {
        LocalVectors::read(&current.to_string(), &original.to_string())
    }

    #[test]
    fn unknown_fields_and_other_settings_do_not_matter() {
        let ours = json!({"vectors": {"size": 3, "distance": "Euclid"}});
        let theirs = info(json!({
            "vectors": {"size": 3, "distance": "Euclid", "on_disk": true, "new_in_2.0": {"a": 1}},
            "shard_number": 1, "something_new": [1],
        }));
        assert_eq!(theirs.may_upload(&local(&ours, &ours), &[], &all()), Ok(()));
        assert_eq!(
            theirs.may_restore(Some(&local(&ours, &ours)), &all()),
            Ok(())
        );
        assert_eq!(theirs.may_restore(None, &all()), Ok(()));
    }

    #[test]
    fn names_that_only_one_side_has_do_not_matter() {
        let a = json!({"size": 3, "distance": "Euclid"});
        let ours = json!({"vectors": {"a": a, "new": {"size": 9, "distance": "Dot"}}});
        let theirs = info(json!({"vectors": {"a": a, "others": {"size": 5, "distance": "Dot"}}}));
        assert_eq!(theirs.may_upload(&local(&ours, &ours), &[], &all()), Ok(()));
        // Its only vector was dropped here, and another made.
        let now = json!({"vectors": {"b": a}});
        let only = info(json!({"vectors": {"a": a}}));
        assert_eq!(
            only.may_upload(&local(&now, &json!({"vectors": {"a": a}})), &[], &all()),
            Ok(())
        );
        assert!(only.may_upload(&local(&now, &now), &[], &all()).is_err());
    }

    #[test]
    fn a_vector_in_common_must_be_the_same_unless_the_queue_changes_it() {
        let vector = |size: u64| json!({"vectors": {"a": {"size": size, "distance": "Dot"}}});
        let theirs = info(vector(3));
        let ours = local(&vector(4), &vector(4));
        let words = theirs.may_upload(&ours, &[], &all()).unwrap_err();
        assert!(words.contains("`a` is 4 x float32, dot here and 3 x float32, dot there"));
        assert_eq!(theirs.may_upload(&ours, &["a".to_owned()], &all()), Ok(()));
    }

    #[test]
    fn keys_are_named_where_there_are_some_and_only_there() {
        let params = |more: Value| {
            let mut params = json!({"vectors": {"size": 3, "distance": "Dot"}});
            for (name, value) in more.as_object().unwrap() {
                params[name] = value.clone();
            }
            params
        };
        let ours = local(&params(json!({})), &params(json!({})));
        let key = Routing::new(Some("a".parse().unwrap()), None, None).unwrap();
        let tenant = Routing::new(None, Some("user=a".parse().unwrap()), None).unwrap();
        let two = info(params(json!({"shard_number": 2})));
        assert_eq!(two.may_upload(&ours, &[], &all()), Ok(()));
        assert_eq!(two.may_restore(None, &all()), Ok(()));
        let words = two.may_upload(&ours, &[], &key).unwrap_err();
        assert!(words.contains("no shard keys"), "{words}");
        assert_eq!(two.may_restore(None, &tenant), Ok(()));
        let keyed = info(params(json!({"sharding_method": "custom"})));
        let words = keyed.may_upload(&ours, &[], &all()).unwrap_err();
        assert!(words.contains("sharded by keys"), "{words}");
        for part in [key, tenant] {
            assert_eq!(keyed.may_upload(&ours, &[], &part), Ok(()));
            assert_eq!(keyed.may_restore(None, &part), Ok(()));
        }
    }

    #[test]
    fn a_shard_that_is_named_is_there() {
        let of = |shard| Routing::new(None, None, Some(shard)).unwrap();
        let collection = |shards: u64| {
            info(json!({"vectors": {"size": 3, "distance": "Dot"}, "shard_number": shards}))
        };
        for (shards, there) in [
            (1, "its only shard is 0"),
            (2, "its shards are 0 and 1"),
            (3, "its shards are 0 to 2"),
        ] {
            let last = u32::try_from(shards).unwrap() - 1;
            assert_eq!(collection(shards).may_restore(None, &of(last)), Ok(()));
            let words = collection(shards).may_restore(None, &of(7)).unwrap_err();
            assert!(
                words.contains("no shard 7") && words.contains(there),
                "{words}"
            );
        }
    }

    #[test]
    fn a_collection_of_ours_is_made_with_one_shard_and_an_identity() {
        let body = creation_body(
            r#"{"vectors": {"size": 3, "distance": "Dot"}, "shard_number": 4, "metadata": {"a": 1}}"#,
            "x",
            false,
        )
        .unwrap();
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["shard_number"], 1);
        assert_eq!(body["metadata"]["a"], 1);
        let info = json!({"config": {"params": body.clone(), "metadata": body["metadata"]}});
        assert_eq!(
            ServerCollection::read(&info).unwrap().id.as_deref(),
            Some("x")
        );
    }

    #[test]
    fn a_description_without_parameters_is_none() {
        for result in [json!(null), json!([]), json!({"config": {"params": 1}})] {
            assert!(ServerCollection::read(&result).is_err());
        }
    }
}
