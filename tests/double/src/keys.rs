//! The shards of a collection that is sharded by keys (`sharding_method: custom`): each is a
//! collection of its own behind the one that clients see, so that ids may coincide.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use edge_sync_engine::CollectionConfig;
use edge_sync_rest::{Error, Result, ShardState};
use serde_json::{Map, Value, json};

use crate::collection::{Collection, internal};

/// What keys there are, by the number of their shard.
const FILE: &str = "keys.json";

/// The shards, by number. A number is never given twice.
#[derive(Default)]
pub(super) struct Keys {
    last: u32,
    shards: BTreeMap<u32, Keyed>,
}

struct Keyed {
    /// A string or a number.
    key: Value,
    collection: Collection,
}

impl Keys {
    /// The keys of the collection in `directory`.
    pub(super) fn load(directory: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(directory.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let (last, keys): (u32, BTreeMap<u32, Value>) = serde_json::from_str(&text)?;
        let shards = keys
            .into_iter()
            .map(|(number, key)| {
                let collection = Collection::load(folder(directory, number))?;
                Ok((number, Keyed { key, collection }))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { last, shards })
    }

    fn store(&self, directory: &Path) -> Result<()> {
        let keys: BTreeMap<u32, &Value> = self.shards.iter().map(|(n, it)| (*n, &it.key)).collect();
        let path = directory.join(FILE);
        fs::write(&path, json!([self.last, keys]).to_string())
            .map_err(|error| internal("write", &path, &error))
    }

    fn number_of(&self, key: &Value) -> Option<u32> {
        let found = self.shards.iter().find(|(_, it)| &it.key == key);
        found.map(|(number, _)| *number)
    }

    /// Makes the shard of a key, with the indexes and vectors that the others have.
    pub(super) fn create(
        &mut self,
        directory: &Path,
        name: &str,
        config: &CollectionConfig,
        schema: &Value,
        body: &str,
    ) -> Result<()> {
        let key = key_of(body)?;
        if self.number_of(&key).is_some() {
            return Err(Error::BadRequest(format!(
                "Sharding key {key} already exists for collection {name}"
            )));
        }
        self.last += 1;
        let folder = folder(directory, self.last);
        let mut collection = Collection::create(folder, config)?;
        for (field, told) in schema.as_object().into_iter().flatten() {
            let kind = told.get("params").filter(|params| params.is_object());
            let body = json!({"field_name": field, "field_schema": kind.or(told.get("data_type"))});
            collection.answer("PUT", "/index", &body.to_string(), false)?;
        }
        self.shards.insert(self.last, Keyed { key, collection });
        self.store(directory)
    }

    /// Removes a key and its shard.
    pub(super) fn delete(&mut self, directory: &Path, body: &str) -> Result<()> {
        let key = key_of(body)?;
        let number = self.number_of(&key).ok_or_else(|| not_found(&key))?;
        if let Some(mut removed) = self.shards.remove(&number) {
            removed.collection.discard();
        }
        let folder = folder(directory, number);
        fs::remove_dir_all(&folder).map_err(|error| internal("remove", &folder, &error))?;
        self.store(directory)
    }

    pub(super) fn get(&mut self, number: u32) -> Option<&mut Collection> {
        Some(&mut self.shards.get_mut(&number)?.collection)
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Collection> {
        self.shards.values_mut().map(|it| &mut it.collection)
    }

    pub(super) fn states(&mut self) -> Result<Vec<ShardState>> {
        self.shards
            .iter_mut()
            .map(|(number, it)| {
                Ok(ShardState {
                    number: *number,
                    key: Some(it.key.clone()),
                    points: it.collection.points()?,
                })
            })
            .collect()
    }

    /// The number of the shards that a selector means; none where there is no selector.
    fn select(&self, selector: Option<&Value>) -> Result<Option<Vec<u32>>> {
        let one = |key: &Value| self.number_of(key).ok_or_else(|| not_found(key));
        match selector {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(keys)) => keys.iter().map(one).collect::<Result<_>>().map(Some),
            Some(Value::Object(both)) => {
                let (target, fallback) = (&both["target"], &both["fallback"]);
                let found = self.number_of(target).or_else(|| self.number_of(fallback));
                match found {
                    Some(number) => Ok(Some(vec![number])),
                    None => Err(Error::NotFound(format!(
                        "Neither target shard key {target} nor fallback shard key {fallback} exist"
                    ))),
                }
            }
            Some(key) => Ok(Some(vec![one(key)?])),
        }
    }

    /// Answers a request on points where `body` says which keys it is for; none where it is for the
    /// collection itself to answer: an operation without a key is refused there.
    pub(super) fn answer(
        &mut self,
        method: &str,
        path: &str,
        body: &str,
        whole_writes: bool,
    ) -> Result<Option<Value>> {
        let Ok(Value::Object(mut body)) = serde_json::from_str(body) else {
            return Ok(None);
        };
        let bare = path.split('?').next().unwrap_or_default();
        if bare == "/points/batch" {
            return self.batch(path, &body, whole_writes);
        }
        if bare == "/points/query/batch" {
            return self.query_batch(path, &body, whole_writes);
        }
        let selected = self.select(body.remove("shard_key").as_ref())?;
        let is_read =
            method == "POST" && matches!(bare, "/points" | "/points/scroll" | "/points/count");
        let numbers = match selected {
            Some(numbers) => numbers,
            None if is_read => self.shards.keys().copied().collect(),
            None => return Ok(None),
        };
        let limit = body.get("limit").and_then(Value::as_u64).unwrap_or(10);
        let body = Value::Object(body).to_string();
        let mut answers = Vec::new();
        for number in numbers {
            let Some(shard) = self.shards.get_mut(&number) else {
                continue;
            };
            let mut answer = shard.collection.answer(method, path, &body, whole_writes)?;
            name_shard(&mut answer, &shard.key);
            answers.push(answer);
        }
        Ok(Some(merged(bare, answers, limit)))
    }

    /// Queries that each name the key of one shard.
    fn query_batch(
        &mut self,
        path: &str,
        body: &Map<String, Value>,
        whole_writes: bool,
    ) -> Result<Option<Value>> {
        let Some(searches) = body.get("searches").and_then(Value::as_array) else {
            return Ok(None);
        };
        let mut results = Vec::new();
        for search in searches {
            let mut search = search.clone();
            let selector = search
                .as_object_mut()
                .and_then(|search| search.remove("shard_key"));
            let Some(&[number]) = self.select(selector.as_ref())?.as_deref() else {
                return Ok(None);
            };
            let Some(shard) = self.shards.get_mut(&number) else {
                return Ok(None);
            };
            let body = json!({"searches": [search]}).to_string();
            let mut answer = shard.collection.answer("POST", path, &body, whole_writes)?;
            for result in answer.as_array_mut().into_iter().flatten() {
                name_shard(result, &shard.key);
                results.push(result.take());
            }
        }
        Ok(Some(Value::Array(results)))
    }

    fn batch(
        &mut self,
        path: &str,
        body: &Map<String, Value>,
        whole_writes: bool,
    ) -> Result<Option<Value>> {
        let Some(operations) = body.get("operations").and_then(Value::as_array) else {
            return Ok(None);
        };
        let mut receipts = Vec::new();
        for operation in operations {
            let mut operation = operation.clone();
            let mut selector = None;
            for arguments in operation
                .as_object_mut()
                .into_iter()
                .flat_map(Map::values_mut)
            {
                selector = arguments
                    .as_object_mut()
                    .and_then(|arguments| arguments.remove("shard_key"));
            }
            let Some(numbers) = self.select(selector.as_ref())? else {
                return Ok(None);
            };
            let body = json!({"operations": [operation]}).to_string();
            for number in numbers {
                if let Some(shard) = self.shards.get_mut(&number)
                    && let Value::Array(done) =
                        shard.collection.answer("POST", path, &body, whole_writes)?
                {
                    receipts.extend(done);
                }
            }
        }
        Ok(Some(Value::Array(receipts)))
    }
}

/// Puts the answers of several shards together.
fn merged(path: &str, mut answers: Vec<Value>, limit: u64) -> Value {
    if answers.len() == 1 {
        return answers.remove(0);
    }
    match path {
        "/points/count" => {
            let counts = answers.iter().filter_map(|it| it["count"].as_u64());
            json!({"count": counts.sum::<u64>()})
        }
        "/points/scroll" => {
            let mut points: Vec<Value> = answers
                .iter_mut()
                .filter_map(|it| it["points"].as_array_mut())
                .flat_map(std::mem::take)
                .collect();
            points.sort_by_key(|point| (point["id"].as_u64(), point["id"].to_string()));
            // A server takes one of those with the same id.
            points.dedup_by(|later, first| later["id"] == first["id"]);
            points.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            json!({"points": points, "next_page_offset": null})
        }
        _ => answers
            .into_iter()
            .flat_map(|answer| match answer {
                Value::Array(points) => points,
                other => vec![other],
            })
            .collect(),
    }
}

/// A server says of each point from which shard it is.
fn name_shard(answer: &mut Value, key: &Value) {
    let points = match answer {
        Value::Object(answer) => answer.get_mut("points").and_then(Value::as_array_mut),
        Value::Array(points) => Some(points),
        _ => None,
    };
    for point in points
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        if point.contains_key("id") {
            point.insert("shard_key".to_owned(), key.clone());
        }
    }
}

fn folder(directory: &Path, number: u32) -> PathBuf {
    directory.join(format!("key-{number}"))
}

fn key_of(body: &str) -> Result<Value> {
    let mut body: Value = serde_json::from_str(body).map_err(Error::body_format)?;
    match body["shard_key"].take() {
        key @ (Value::String(_) | Value::Number(_)) => Ok(key),
        _ => Err(Error::invalid(
            "shard_key",
            "a string or a number is needed",
        )),
    }
}

fn not_found(key: &Value) -> Error {
    Error::invalid("", format!("Shard key {key} not found"))
}
