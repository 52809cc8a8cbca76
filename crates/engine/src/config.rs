//! A collection's configuration: the body of `PUT /collections/{c}` and what the engine makes of it.

use std::collections::HashMap;

use qdrant_edge::{
    EdgeConfig, EdgeOptimizersConfig, EdgeSparseVectorParams, EdgeVectorParams, HnswIndexConfig,
    Memory, QuantizationConfig, VectorNameConfig, VectorStorageDatatype,
};
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::json::{Ignored, Node, Strictness};

const COLLECTION: &[&str] = &[
    "vectors",
    "shard_number",
    "sharding_method",
    "replication_factor",
    "write_consistency_factor",
    "on_disk_payload",
    "payload",
    "id_tracker",
    "hnsw_config",
    "wal_config",
    "optimizers_config",
    "quantization_config",
    "sparse_vectors",
    "strict_mode_config",
    "metadata",
];

pub(crate) const HNSW: &[&str] = &[
    "m",
    "ef_construct",
    "full_scan_threshold",
    "max_indexing_threads",
    "on_disk",
    "memory",
    "payload_m",
    "inline_storage",
];

pub(crate) const OPTIMIZERS: &[&str] = &[
    "deleted_threshold",
    "vacuum_min_vector_number",
    "default_segment_number",
    "max_segment_size",
    "memmap_threshold",
    "indexing_threshold",
    "flush_interval_sec",
    "max_optimization_threads",
    "prevent_unoptimized",
];

/// The server's largest dense vector.
const MAX_DIMENSIONS: usize = 65_536;
/// Named vectors and payload indexes, of each kind: every one takes some megabytes of a component's
/// memory, however few points there are.
pub(crate) const MAX_NAMES: usize = 128;
/// Links a point of an HNSW graph, for which room is made while the graph is built. The server has
/// no bound, but more memory; usual values are 8 to 64.
const MAX_LINKS: usize = 1_024;
/// Candidates while an HNSW graph is built; usual values are 100 to 500.
const MAX_EF_CONSTRUCT: usize = 65_536;

/// The body of `PUT /collections/{c}`, checked.
///
/// Settings that only a server has (`shard_number`, `replication_factor`, `wal_config`,
/// `strict_mode_config`, `metadata`, ...) are kept for upload and have no effect here.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectionConfig {
    json: Map<String, Value>,
    edge: EdgeConfig,
}

impl CollectionConfig {
    /// Parses and checks the body of `PUT /collections/{c}`.
    ///
    /// Errors: [`crate::Error::InvalidInput`] names the field.
    pub fn from_json(json: &str) -> Result<Self> {
        Self::from_value(&crate::json::parse_json("", json)?)
    }

    /// As [`CollectionConfig::from_json`], from parsed JSON.
    pub fn from_value(json: &Value) -> Result<Self> {
        Self::from_node(&Node::root("", json))
    }

    /// As [`CollectionConfig::from_json`], read as `strictness` says. Fields that are ignored are not
    /// kept.
    ///
    /// Errors: as [`CollectionConfig::from_json`]; [`crate::Error::Refused`] for a value that a server
    /// refuses as out of range.
    pub fn from_json_as(strictness: Strictness, json: &str) -> Result<Self> {
        Self::from_value_as(strictness, crate::json::parse_json("", json)?)
    }

    /// As [`CollectionConfig::from_json_as`], from parsed JSON.
    pub(crate) fn from_value_as(strictness: Strictness, mut json: Value) -> Result<Self> {
        match strictness {
            Strictness::Strict => Self::from_value(&json),
            Strictness::Server => {
                let ignored = Ignored::default();
                let config = Self::from_node(&Node::as_server(&json, &ignored))?;
                if ignored.is_empty() {
                    return Ok(config);
                }
                ignored.remove_from(&mut json);
                Self::from_value(&json)
            }
        }
    }

    fn from_node(node: &Node<'_>) -> Result<Self> {
        Ok(Self {
            json: node.fields(COLLECTION)?.clone(),
            edge: edge_config(node)?,
        })
    }

    /// Reads the configuration out of the `result` of `GET /collections/{c}`.
    ///
    /// Errors: [`crate::Error::InvalidInput`] names the field that is missing or not understood.
    pub fn from_collection_info(result: &Value) -> Result<Self> {
        let node = Node::root("", result);
        let config = node.required("config")?;
        let params = config.required("params")?;
        let mut body = Map::new();
        let mut take = |node: &Node<'_>, from: &str, to: &str| {
            if let Some(value) = node.get(from) {
                body.insert(to.to_owned(), value.value.clone());
            }
        };
        for key in [
            "vectors",
            "sparse_vectors",
            "shard_number",
            "sharding_method",
            "replication_factor",
            "write_consistency_factor",
            "on_disk_payload",
            "payload",
            "id_tracker",
        ] {
            take(&params, key, key);
        }
        for key in [
            "hnsw_config",
            "wal_config",
            "quantization_config",
            "strict_mode_config",
            "metadata",
        ] {
            take(&config, key, key);
        }
        take(&config, "optimizer_config", "optimizers_config");
        Self::from_value(&Value::Object(body))
    }

    /// The body of `PUT /collections/{c}` that creates such a collection.
    pub fn to_json(&self) -> Value {
        Value::Object(self.json.clone())
    }

    /// Checks that `other` stores the same vectors: names, sizes, distances, datatypes,
    /// multivectors and sparse modifiers. Indexing and memory settings may differ.
    ///
    /// Errors: [`crate::Error::InvalidInput`] names the vector and both sides.
    pub fn check_same_vectors(&self, other: &Self) -> Result<()> {
        let ours = vector_identities(&self.edge);
        let theirs = vector_identities(&other.edge);
        let mut names: Vec<_> = ours.keys().chain(theirs.keys()).collect();
        names.sort();
        let shown = |identity: Option<&String>| {
            identity.map_or_else(|| "not there".to_owned(), Clone::clone)
        };
        for name in names {
            let (our, their) = (ours.get(name), theirs.get(name));
            if our != their {
                return Err(Error::invalid(
                    "vectors",
                    format!(
                        "vector `{name}` is {} here and {} there",
                        shown(our),
                        shown(their)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// Checks that `other` may be the same collection at another time, when named vectors have been
    /// created or deleted: that they have a vector in common, and every one that they have in
    /// common is the same.
    ///
    /// Errors: [`crate::Error::InvalidInput`] names the vector and both sides.
    pub fn check_same_collection(&self, other: &Self) -> Result<()> {
        let ours = vector_identities(&self.edge);
        let theirs = vector_identities(&other.edge);
        let mut common: Vec<_> = ours
            .iter()
            .filter_map(|(name, our)| Some((name, our, theirs.get(name)?)))
            .collect();
        common.sort();
        for (name, our, their) in &common {
            if our != their {
                return Err(Error::invalid(
                    "vectors",
                    format!("vector `{name}` is {our} here and {their} there"),
                ));
            }
        }
        if common.is_empty() && !(ours.is_empty() && theirs.is_empty()) {
            // Says which is missing.
            return self.check_same_vectors(other);
        }
        Ok(())
    }

    /// This configuration for a shard that stores the vectors of `found`. Named vectors may have
    /// been created and deleted since this one was stated; what it says of a vector holds as long
    /// as that is the same vector.
    pub(crate) fn with_vectors_of(mut self, found: &EdgeConfig) -> Result<Self> {
        let stated = vector_identities(&self.edge);
        let stored = vector_identities(found);
        if stated == stored {
            return Ok(self);
        }
        let same = |name: &String| stated.get(name) == stored.get(name);
        let (mut dense, mut sparse) = (self.section("vectors"), self.section("sparse_vectors"));
        dense.retain(|name, _| found.vectors.contains_key(name));
        sparse.retain(|name, _| found.sparse_vectors.contains_key(name));
        self.edge
            .vectors
            .retain(|name, _| found.vectors.contains_key(name));
        self.edge
            .sparse_vectors
            .retain(|name, _| found.sparse_vectors.contains_key(name));
        let internal = |error| Error::Internal(format!("configuration: {error}"));
        for (name, params) in sorted(&found.vectors)
            .into_iter()
            .filter(|(name, _)| !same(name))
        {
            dense.insert(name.clone(), as_written(params).map_err(internal)?);
            self.edge.vectors.insert(name.clone(), params.clone());
        }
        for (name, params) in sorted(&found.sparse_vectors)
            .into_iter()
            .filter(|(name, _)| !same(name))
        {
            sparse.insert(name.clone(), sparse_to_json(params)?);
            self.edge
                .sparse_vectors
                .insert(name.clone(), params.clone());
        }
        let only_default = dense.len() == 1 && dense.contains_key("");
        let dense = if only_default {
            dense.shift_remove("").unwrap_or_default()
        } else {
            Value::Object(dense)
        };
        self.json.insert("vectors".to_owned(), dense);
        if sparse.is_empty() {
            self.json.shift_remove("sparse_vectors");
        } else {
            self.json
                .insert("sparse_vectors".to_owned(), Value::Object(sparse));
        }
        Ok(self)
    }

    /// `vectors` or `sparse_vectors` by name.
    pub(crate) fn section(&self, key: &str) -> Map<String, Value> {
        match self.json.get(key) {
            Some(Value::Object(map)) if key == "vectors" && is_single_vector(map) => {
                Map::from_iter([(String::new(), Value::Object(map.clone()))])
            }
            Some(Value::Object(map)) => map.clone(),
            _ => Map::new(),
        }
    }

    /// The engine's form.
    pub(crate) fn edge(&self) -> &EdgeConfig {
        &self.edge
    }

    /// What a shard was found to be, written as the body that would create it.
    #[allow(deprecated, reason = "older shards say on_disk, not memory")]
    pub(crate) fn from_edge(edge: EdgeConfig) -> Result<Self> {
        let to_value = |value: serde_json::Result<Value>| {
            value.map_err(|error| Error::Internal(format!("configuration: {error}")))
        };
        let mut json = Map::new();
        let mut vectors = Map::new();
        for (name, params) in sorted(&edge.vectors) {
            vectors.insert(name.clone(), to_value(as_written(params))?);
        }
        let only_default = vectors.len() == 1 && vectors.contains_key("");
        json.insert(
            "vectors".to_owned(),
            if only_default {
                vectors.remove("").unwrap_or_default()
            } else {
                Value::Object(vectors)
            },
        );
        if !edge.sparse_vectors.is_empty() {
            let mut sparse = Map::new();
            for (name, params) in sorted(&edge.sparse_vectors) {
                sparse.insert(name.clone(), sparse_to_json(params)?);
            }
            json.insert("sparse_vectors".to_owned(), Value::Object(sparse));
        }
        if let Some(on_disk) = edge.on_disk_payload {
            json.insert("on_disk_payload".to_owned(), Value::Bool(on_disk));
        }
        if let Some(memory) = edge.payload_memory {
            json.insert("payload".to_owned(), json!({ "memory": memory }));
        }
        if let Some(memory) = edge.id_tracker_memory {
            json.insert("id_tracker".to_owned(), json!({ "memory": memory }));
        }
        if let Some(hnsw) = edge.hnsw_config {
            json.insert("hnsw_config".to_owned(), to_value(as_written(hnsw))?);
        }
        if let Some(quantization) = &edge.quantization_config {
            json.insert(
                "quantization_config".to_owned(),
                to_value(as_written(quantization))?,
            );
        }
        if let Some(optimizers) = &edge.optimizers {
            let mut value = to_value(as_written(optimizers))?;
            if let Some(map) = value.as_object_mut() {
                map.retain(|_, value| !value.is_null());
            }
            json.insert("optimizers_config".to_owned(), value);
        }
        Ok(Self { json, edge })
    }

    /// The configuration after a named vector was added; `edge` is the engine's by then.
    pub(crate) fn with_vector(
        mut self,
        name: &str,
        config: &VectorNameConfig,
        edge: EdgeConfig,
    ) -> Result<Self> {
        let (key, value) = match config {
            VectorNameConfig::Dense(config) => ("vectors", as_written(&config.dense)),
            VectorNameConfig::Sparse(config) => (
                "sparse_vectors",
                as_written(config.sparse).map(sparse_from_name_config),
            ),
        };
        let value = value.map_err(|error| Error::Internal(format!("configuration: {error}")))?;
        let mut section = self.section(key);
        section.insert(name.to_owned(), value);
        self.json.insert(key.to_owned(), Value::Object(section));
        self.edge = edge;
        Ok(self)
    }

    /// The configuration after a named vector was removed; `edge` is the engine's by then.
    pub(crate) fn without_vector(mut self, name: &str, edge: EdgeConfig) -> Self {
        for key in ["vectors", "sparse_vectors"] {
            if let Some(map) = self.json.get_mut(key).and_then(Value::as_object_mut)
                && !(key == "vectors" && is_single_vector(map))
            {
                map.shift_remove(name);
            }
        }
        self.edge = edge;
        self
    }
}

/// As JSON text has it: a direct conversion would widen `f32` to digits that nobody wrote.
fn as_written(value: impl serde::Serialize) -> serde_json::Result<Value> {
    serde_json::from_str(&serde_json::to_string(&value)?)
}

fn sparse_from_name_config(value: Value) -> Value {
    let Value::Object(mut map) = value else {
        return value;
    };
    match map.shift_remove("datatype") {
        Some(datatype) => {
            map.insert("index".to_owned(), json!({ "datatype": datatype }));
            Value::Object(map)
        }
        None => Value::Object(map),
    }
}

#[allow(deprecated, reason = "older shards say on_disk, not memory")]
fn sparse_to_json(params: &EdgeSparseVectorParams) -> Result<Value> {
    let EdgeSparseVectorParams {
        full_scan_threshold,
        on_disk,
        memory,
        modifier,
        datatype,
    } = params;
    let index = json!({
        "full_scan_threshold": full_scan_threshold,
        "on_disk": on_disk,
        "memory": memory,
        "datatype": datatype,
    });
    let mut value = json!({ "index": index, "modifier": modifier });
    if let Some(map) = value.as_object_mut() {
        for value in map.values_mut() {
            if let Some(inner) = value.as_object_mut() {
                inner.retain(|_, value| !value.is_null());
            }
        }
        map.retain(|_, value| !value.is_null());
    }
    Ok(value)
}

fn sorted<T>(map: &HashMap<String, T>) -> Vec<(&String, &T)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
}

/// `vectors` is one vector's parameters, and not a map of names (one of which may be "size").
pub(crate) fn is_single_vector(map: &Map<String, Value>) -> bool {
    map.get("size").is_some_and(|size| !size.is_object())
}

/// What a vector is, whatever its indexes are.
fn vector_identities(edge: &EdgeConfig) -> HashMap<String, String> {
    let dense = edge.vectors.iter().map(|(name, params)| {
        let datatype = params.datatype.unwrap_or(VectorStorageDatatype::Float32);
        let kind = match params.multivector_config {
            Some(multi) => format!("multivector ({:?})", multi.comparator),
            None => "dense vector".to_owned(),
        };
        let identity = format!(
            "a {kind} of {} dimensions, {:?}, {datatype:?}",
            params.size, params.distance
        );
        (name.clone(), identity)
    });
    let sparse = edge.sparse_vectors.iter().map(|(name, params)| {
        let modifier = params.modifier.unwrap_or_default();
        let datatype = params.datatype.unwrap_or(VectorStorageDatatype::Float32);
        (
            name.clone(),
            format!("a sparse vector, modifier {modifier:?}, {datatype:?}"),
        )
    });
    dense.chain(sparse).collect()
}

#[allow(deprecated, reason = "the REST schema still has on_disk")]
fn edge_config(node: &Node<'_>) -> Result<EdgeConfig> {
    let hnsw = match node.get("hnsw_config") {
        None => None,
        Some(diff) => Some(merge_hnsw(HnswIndexConfig::default(), &diff)?),
    };
    let quantization_config = node
        .get("quantization_config")
        .map(|node| quantization(&node))
        .transpose()?
        .flatten();
    let base = hnsw.unwrap_or_default();
    let mut vectors = HashMap::new();
    if let Some(config) = node.get("vectors") {
        if is_single_vector(config.object()?) {
            vectors.insert(String::new(), dense_params(&config, base)?);
        } else {
            for (name, config) in config.entries()? {
                vectors.insert(name.to_owned(), dense_params(&config, base)?);
            }
        }
    }
    let mut sparse_vectors = HashMap::new();
    if let Some(config) = node.get("sparse_vectors") {
        for (name, config) in config.entries()? {
            if vectors.contains_key(name) {
                return Err(config.error(format!("`{name}` is a dense vector already")));
            }
            sparse_vectors.insert(name.to_owned(), sparse_params(&config)?);
        }
    }
    let count = vectors.len() + sparse_vectors.len();
    if count > MAX_NAMES {
        return Err(Error::invalid(
            "vectors",
            format!("{count} named vectors; a local shard has at most {MAX_NAMES}"),
        ));
    }
    for key in [
        "shard_number",
        "replication_factor",
        "write_consistency_factor",
    ] {
        if let Some(number) = node.get(key) {
            if number.value.as_u64() == Some(0) {
                return Err(number.error("value 0 invalid, must be 1 or larger"));
            }
            number.size(1)?;
        }
    }
    if let Some(method) = node.get("sharding_method")
        && !matches!(method.string()?, "auto" | "custom")
    {
        return Err(method.error("unknown sharding method, expected `auto` or `custom`"));
    }
    for key in ["wal_config", "strict_mode_config", "metadata"] {
        if let Some(object) = node.get(key) {
            object.object()?;
        }
    }
    let placement = |key| match node.get(key) {
        None => Ok(None),
        Some(section) => {
            section.fields(&["memory"])?;
            memory(&section)
        }
    };
    let payload_memory = placement("payload")?;
    // Of Qdrant 1.20: the engine has it, a server of 1.19 leaves it out.
    let id_tracker_memory = placement("id_tracker")?;
    Ok(EdgeConfig {
        on_disk_payload: flag(node, "on_disk_payload")?,
        payload_memory,
        id_tracker_memory,
        vectors,
        sparse_vectors,
        hnsw_config: hnsw,
        quantization_config,
        optimizers: node
            .get("optimizers_config")
            .map(|node| optimizers(&node))
            .transpose()?,
        wal_options: None,
        ..runtime()
    })
}

/// The settings that hold for every shard here: the log above the engine replaces the engine's
/// own, and WebAssembly has no threads.
pub(crate) fn runtime() -> EdgeConfig {
    EdgeConfig {
        wal_enabled: Some(false),
        // 0 is as many as there are processors.
        max_search_threads: Some(usize::from(cfg!(target_family = "wasm"))),
        ..EdgeConfig::default()
    }
}

fn flag(node: &Node<'_>, key: &str) -> Result<Option<bool>> {
    node.get(key).map(|flag| flag.bool()).transpose()
}

fn size(node: &Node<'_>, key: &str, min: usize) -> Result<Option<usize>> {
    node.get(key).map(|size| size.size(min)).transpose()
}

fn memory(node: &Node<'_>) -> Result<Option<Memory>> {
    node.get("memory").map(|memory| memory.parse()).transpose()
}

#[allow(deprecated, reason = "the REST schema still has on_disk")]
fn dense_params(node: &Node<'_>, hnsw: HnswIndexConfig) -> Result<EdgeVectorParams> {
    node.fields(&[
        "size",
        "distance",
        "hnsw_config",
        "quantization_config",
        "on_disk",
        "memory",
        "datatype",
        "multivector_config",
    ])?;
    let dimensions = node.required("size")?;
    // A server cannot even parse 0 here.
    if dimensions.value.as_u64() == Some(0) {
        return Err(dimensions.error("value 0 invalid, must be 1 or larger"));
    }
    let size = dimensions.size_within(1, MAX_DIMENSIONS)?;
    Ok(EdgeVectorParams {
        size,
        distance: node.required("distance")?.parse()?,
        on_disk: flag(node, "on_disk")?,
        memory: memory(node)?,
        multivector_config: node
            .get("multivector_config")
            .map(|node| {
                node.fields(&["comparator"])?;
                node.parse()
            })
            .transpose()?,
        datatype: datatype(node)?,
        quantization_config: node
            .get("quantization_config")
            .map(|node| quantization(&node))
            .transpose()?
            .flatten(),
        hnsw_config: node
            .get("hnsw_config")
            .map(|diff| merge_hnsw(hnsw, &diff))
            .transpose()?,
    })
}

fn datatype(node: &Node<'_>) -> Result<Option<VectorStorageDatatype>> {
    node.get("datatype").map(|node| node.parse()).transpose()
}

#[allow(deprecated, reason = "the REST schema still has on_disk")]
fn sparse_params(node: &Node<'_>) -> Result<EdgeSparseVectorParams> {
    if node.value.is_null() {
        return Ok(EdgeSparseVectorParams::default());
    }
    node.fields(&["index", "modifier"])?;
    let mut params = EdgeSparseVectorParams {
        modifier: node
            .get("modifier")
            .map(|modifier| modifier.parse())
            .transpose()?,
        ..EdgeSparseVectorParams::default()
    };
    if let Some(index) = node.get("index") {
        index.fields(&["full_scan_threshold", "on_disk", "memory", "datatype"])?;
        params.full_scan_threshold = size(&index, "full_scan_threshold", 0)?;
        params.on_disk = flag(&index, "on_disk")?;
        params.memory = memory(&index)?;
        params.datatype = datatype(&index)?;
    }
    Ok(params)
}

#[allow(deprecated, reason = "the REST schema still has on_disk")]
fn merge_hnsw(base: HnswIndexConfig, diff: &Node<'_>) -> Result<HnswIndexConfig> {
    diff.fields(HNSW)?;
    let links = |key| {
        diff.get(key)
            .map(|links| links.size_within(0, MAX_LINKS))
            .transpose()
    };
    Ok(HnswIndexConfig {
        m: links("m")?.unwrap_or(base.m),
        ef_construct: diff
            .get("ef_construct")
            .map(|ef| ef.size_within(4, MAX_EF_CONSTRUCT))
            .transpose()?
            .unwrap_or(base.ef_construct),
        full_scan_threshold: size(diff, "full_scan_threshold", 10)?
            .unwrap_or(base.full_scan_threshold),
        max_indexing_threads: size(diff, "max_indexing_threads", 0)?
            .unwrap_or(base.max_indexing_threads),
        on_disk: flag(diff, "on_disk")?.or(base.on_disk),
        memory: memory(diff)?.or(base.memory),
        payload_m: links("payload_m")?.or(base.payload_m),
        inline_storage: flag(diff, "inline_storage")?.or(base.inline_storage),
    })
}

/// REST `quantization_config`; `"Disabled"`, as an update may say it, is none.
fn quantization(node: &Node<'_>) -> Result<Option<QuantizationConfig>> {
    if node.value.as_str() == Some("Disabled") {
        return Ok(None);
    }
    let kinds: &[(&str, &[&str])] = &[
        ("scalar", &["type", "quantile", "always_ram", "memory"]),
        ("product", &["compression", "always_ram", "memory"]),
        (
            "binary",
            &["always_ram", "memory", "encoding", "query_encoding"],
        ),
        ("turbo", &["always_ram", "memory", "bits"]),
    ];
    let names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
    let Some((kind, inner)) = node.one_of(&names)? else {
        return Err(node.error("expected exactly one of `scalar`, `product`, `binary`, `turbo`"));
    };
    for (_, fields) in kinds.iter().filter(|(name, _)| *name == kind) {
        inner.fields(fields)?;
        if let Some(quantile) = inner.get("quantile")
            && !(0.5..=1.0).contains(&quantile.f32()?)
        {
            return Err(quantile.out_of_range("must be from 0.5 to 1.0"));
        }
    }
    node.parse().map(Some)
}

fn optimizers(node: &Node<'_>) -> Result<EdgeOptimizersConfig> {
    node.fields(OPTIMIZERS)?;
    let deleted_threshold = match node.get("deleted_threshold") {
        None => None,
        Some(node) => match node.value.as_f64() {
            Some(share) if (0.0..=1.0).contains(&share) => Some(share),
            Some(_) => return Err(node.out_of_range("must be a number from 0.0 to 1.0")),
            None => return Err(node.expected("a number from 0.0 to 1.0")),
        },
    };
    size(node, "memmap_threshold", 0)?;
    size(node, "flush_interval_sec", 0)?;
    Ok(EdgeOptimizersConfig {
        deleted_threshold,
        vacuum_min_vector_number: size(node, "vacuum_min_vector_number", 100)?,
        default_segment_number: size(node, "default_segment_number", 0)?,
        max_segment_size: size(node, "max_segment_size", 1)?,
        indexing_threshold: size(node, "indexing_threshold", 0)?,
        prevent_unoptimized: flag(node, "prevent_unoptimized")?,
    })
}

/// REST `VectorNameConfig`: `{"dense": {...}}` or `{"sparse": {...}}`.
pub(crate) fn vector_name_config(node: &Node<'_>) -> Result<VectorNameConfig> {
    match node.one_of(&["dense", "sparse"])? {
        Some(("dense", dense)) => {
            dense.fields(&["size", "distance", "multivector_config", "datatype"])?;
            dense.required("size")?.size_within(1, MAX_DIMENSIONS)?;
            dense_params(&dense, HnswIndexConfig::default())?;
        }
        Some((_, sparse)) => {
            sparse.fields(&["modifier", "datatype"])?;
        }
        None => return Err(node.error("expected exactly one of `dense`, `sparse`")),
    }
    node.parse()
}
