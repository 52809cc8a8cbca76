//! Vectors in requests: reading them, checking them against the configuration, and handing them
//! to the engine and back.

use std::collections::HashSet;

use qdrant_edge::bm25_embed::{EdgeBm25, EdgeBm25Config};
use qdrant_edge::{
    Distance, EdgeConfig, SparseVector, TypedMultiDenseVector, VectorInternal, VectorPersisted,
    VectorStorageDatatype, VectorStructInternal,
};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::json::{Node, finite_f32};
use crate::point::{Vector, Vectors};

/// What a text stands for when it is embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Embed {
    Document,
    Query,
}

/// The server's bound on a multivector; its rows have to fit one chunk of the engine's storage.
const MAX_MULTIVECTOR_NUMBERS: usize = 1 << 20;

/// The one model that runs without a network.
const BM25: &str = "qdrant/bm25";

const BM25_OPTIONS: &[&str] = &[
    "k",
    "b",
    "avg_len",
    "tokenizer",
    "language",
    "lowercase",
    "ascii_folding",
    "stopwords",
    "stemmer",
    "min_token_len",
    "max_token_len",
];

/// Reads one vector: an array of numbers, an array of such arrays, `{indices, values}`, or a text
/// to embed.
pub(crate) fn vector(node: &Node<'_>, embed: Embed) -> Result<Vector> {
    let vector = vector_of_any_shape(node, embed)?;
    // A server looks at the shape of what is written before it looks at the collection.
    if node.is_read_as_server() && embed == Embed::Document {
        match &vector {
            Vector::Dense(values) if values.is_empty() => {
                return Err(node.out_of_range("dense vector must not be empty"));
            }
            Vector::Dense(_) => {}
            Vector::Multi(_) | Vector::Sparse { .. } => {
                check_shape(&vector).map_err(|message| node.out_of_range(message))?;
            }
        }
    }
    Ok(vector)
}

fn vector_of_any_shape(node: &Node<'_>, embed: Embed) -> Result<Vector> {
    match node.value {
        Value::Array(items) if items.first().is_some_and(Value::is_array) => node
            .items()?
            .map(|row| floats(&row))
            .collect::<Result<_>>()
            .map(Vector::Multi),
        Value::Array(_) => floats(node).map(Vector::Dense),
        Value::Object(map) if map.contains_key("image") || map.contains_key("object") => {
            Err(no_inference(
                node,
                format!(
                    "{}: inference needs a server; embed before calling",
                    node.path()
                ),
            ))
        }
        Value::Object(map) if map.contains_key("text") || map.contains_key("model") => {
            document(node, embed)
        }
        Value::Object(_) => {
            node.fields(&["indices", "values"])?;
            let indices = node
                .required("indices")?
                .items()?
                .map(|index| {
                    index
                        .value
                        .as_u64()
                        .and_then(|index| u32::try_from(index).ok())
                        .ok_or_else(|| index.error("expected an unsigned 32-bit integer"))
                })
                .collect::<Result<_>>()?;
            let values = floats(&node.required("values")?)?;
            let vector = Vector::Sparse { indices, values };
            check_shape(&vector).map_err(|message| node.out_of_range(message))?;
            Ok(vector)
        }
        _ => Err(node.error(
            "expected a vector: an array of numbers, an array of arrays, or {indices, values}",
        )),
    }
}

/// Whether an object is meant as a vector by its keys, and not as a query or a map of names.
pub(crate) fn looks_like_vector(map: &serde_json::Map<String, Value>) -> bool {
    // A `text` without a `model` is a query over a text index.
    ["indices", "values", "model", "image", "object"]
        .iter()
        .any(|key| map.contains_key(*key))
}

/// Reads a set of vectors: a bare one for the default vector, or an object by name.
pub(crate) fn vectors(node: &Node<'_>) -> Result<Vectors> {
    match node.value {
        Value::Object(map) if is_inference(map) => Ok(Vectors::from([(
            String::new(),
            vector(node, Embed::Document)?,
        )])),
        Value::Object(_) => node
            .entries()?
            .map(|(name, node)| Ok((name.to_owned(), vector(&node, Embed::Document)?)))
            .collect(),
        _ => Ok(Vectors::from([(
            String::new(),
            vector(node, Embed::Document)?,
        )])),
    }
}

fn is_inference(map: &serde_json::Map<String, Value>) -> bool {
    map.get("model").is_some_and(Value::is_string)
}

fn floats(node: &Node<'_>) -> Result<Vec<f32>> {
    let items = node.items()?;
    let mut values = Vec::with_capacity(items.len());
    for item in items {
        match finite_f32(item.value) {
            Some(value) => values.push(value),
            None => return Err(item.error("expected a finite 32-bit number")),
        }
    }
    Ok(values)
}

/// The error for what only an inference service embeds. A server of its own has none either.
fn no_inference(node: &Node<'_>, message: String) -> Error {
    node.unsupported(
        message,
        500,
        "Service internal error: InferenceService URL not configured - please provide valid \
         address in config"
            .to_owned(),
    )
}

fn document(node: &Node<'_>, embed: Embed) -> Result<Vector> {
    node.fields(&["text", "model", "options"])?;
    let text = node.required("text")?.string()?;
    let model = node.required("model")?.string()?;
    if !model.eq_ignore_ascii_case(BM25) {
        return Err(no_inference(
            node,
            format!(
                "{}: embedding with model {model:?}; only {BM25:?} runs without a server, embed \
                 before calling",
                node.path()
            ),
        ));
    }
    let config: EdgeBm25Config = match node.get("options") {
        Some(options) => {
            options.fields(BM25_OPTIONS)?;
            for length in ["min_token_len", "max_token_len"] {
                if let Some(length) = options.get(length) {
                    length.size(0)?;
                }
            }
            options.parse()?
        }
        None => EdgeBm25Config::default(),
    };
    let bm25 = EdgeBm25::new(config)
        .map_err(|error| Error::invalid(format!("{}.options", node.path()), error.to_string()))?;
    let SparseVector { indices, values } = match embed {
        Embed::Document => bm25.embed_document(text),
        Embed::Query => bm25.embed_query(text),
    };
    Ok(Vector::Sparse { indices, values })
}

/// Checks what holds for a vector of its kind under any configuration.
fn check_shape(vector: &Vector) -> Result<(), String> {
    let finite = |values: &[f32]| {
        // All of them, which takes vector instructions.
        if values
            .iter()
            .fold(true, |all, value| all & value.is_finite())
        {
            return Ok(());
        }
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => Err(format!("value {at} is not a finite number")),
        }
    };
    match vector {
        Vector::Dense(values) => finite(values),
        Vector::Sparse { indices, values } => {
            if indices.len() != values.len() {
                return Err(format!(
                    "must be the same length for indices and values, got {} indices and {} values",
                    indices.len(),
                    values.len()
                ));
            }
            let mut seen = HashSet::with_capacity(indices.len());
            if let Some(twice) = indices.iter().find(|index| !seen.insert(**index)) {
                return Err(format!("indices must be unique, {twice} is there twice"));
            }
            finite(values)
        }
        Vector::Multi(rows) => {
            let Some(first) = rows.first() else {
                return Err("a multivector must have at least one row".to_owned());
            };
            if first.is_empty() {
                return Err("the rows of a multivector cannot be empty".to_owned());
            }
            let numbers: usize = rows.iter().map(Vec::len).sum();
            if numbers >= MAX_MULTIVECTOR_NUMBERS {
                return Err(format!(
                    "Total size of all vectors ({numbers}) must be less than {MAX_MULTIVECTOR_NUMBERS}"
                ));
            }
            if let Some(ragged) = rows.iter().find(|row| row.len() != first.len()) {
                return Err(format!(
                    "the rows of a multivector must be of one length, got {} and {}",
                    first.len(),
                    ragged.len()
                ));
            }
            rows.iter().try_for_each(|row| finite(row))
        }
    }
}

/// Checks a vector against what `name` is configured for. A single dense row is good for a
/// multivector, as on the server.
///
/// The error is the server's message.
pub(crate) fn check(config: &EdgeConfig, name: &str, vector: &Vector) -> Result<(), String> {
    check_shape(vector)?;
    check_place(config, name, vector)
}

/// As [`check`], of a vector that was checked before: whether there is still a place for it.
pub(crate) fn check_place(config: &EdgeConfig, name: &str, vector: &Vector) -> Result<(), String> {
    let dimension = |size: usize, got: usize| {
        if size == got {
            Ok(())
        } else {
            Err(format!(
                "Vector dimension error: expected dim: {size}, got {got}"
            ))
        }
    };
    if let Some(params) = config.vectors.get(name) {
        match vector {
            Vector::Dense(values) => dimension(params.size, values.len()),
            Vector::Sparse { .. } => Err(format!(
                "Wrong usage of sparse vectors: {} is a dense vector",
                shown(name)
            )),
            Vector::Multi(_) if params.multivector_config.is_none() => Err(format!(
                "Wrong usage of multi vectors: {} is not a multivector",
                shown(name)
            )),
            Vector::Multi(rows) => rows
                .iter()
                .try_for_each(|row| dimension(params.size, row.len())),
        }
    } else if config.sparse_vectors.contains_key(name) {
        match vector {
            Vector::Sparse { .. } => Ok(()),
            Vector::Dense(_) | Vector::Multi(_) => Err(format!(
                "Wrong usage of dense vectors: {} is a sparse vector",
                shown(name)
            )),
        }
    } else {
        Err(unknown_name(config, name))
    }
}

/// Whether the values fit the numbers that they are stored as. A larger one would be stored as an
/// infinity: no search finds it, it is read back as `null`, and so it could not be sent again.
pub(crate) fn check_fits(config: &EdgeConfig, name: &str, vector: &Vector) -> Result<(), String> {
    let Some(params) = config.vectors.get(name) else {
        return Ok(());
    };
    // Cosine vectors are normalized before they are stored.
    let half = params.datatype == Some(VectorStorageDatatype::Float16);
    if !half || params.distance == Distance::Cosine {
        return Ok(());
    }
    let fits = |values: &[f32]| match values.iter().find(|value| value.abs() >= FLOAT16_INFINITE) {
        Some(value) => Err(format!(
            "{value} does not fit the datatype float16 of {}, whose values go up to 65504",
            shown(name)
        )),
        None => Ok(()),
    };
    match vector {
        Vector::Dense(values) => fits(values),
        Vector::Multi(rows) => rows.iter().try_for_each(|row| fits(row)),
        Vector::Sparse { .. } => Ok(()),
    }
}

/// The smallest number that rounds to an infinity as a float16 (IEEE 754 binary16).
const FLOAT16_INFINITE: f32 = 65_520.0;

fn shown(name: &str) -> String {
    if name.is_empty() {
        "the default vector".to_owned()
    } else {
        format!("`{name}`")
    }
}

/// The server's message for a name that is not configured, and the names that are.
pub(crate) fn unknown_name(config: &EdgeConfig, name: &str) -> String {
    let mut known: Vec<_> = config
        .vectors
        .keys()
        .chain(config.sparse_vectors.keys())
        .map(|name| shown(name))
        .collect();
    known.sort();
    format!(
        "Not existing vector name error: {name}; the collection has {}",
        if known.is_empty() {
            "no vectors".to_owned()
        } else {
            known.join(", ")
        }
    )
}

/// The one form in which a checked vector is logged: a multivector as rows.
pub(crate) fn canonical(config: &EdgeConfig, name: &str, vector: Vector) -> Vector {
    let is_multi = config
        .vectors
        .get(name)
        .is_some_and(|params| params.multivector_config.is_some());
    match vector {
        Vector::Dense(values) if is_multi => Vector::Multi(vec![values]),
        other => other,
    }
}

/// For the engine's queries, which want sparse dimensions in order.
pub(crate) fn into_query(vector: Vector) -> Result<VectorInternal> {
    Ok(match vector {
        Vector::Dense(values) => VectorInternal::Dense(values),
        Vector::Sparse { indices, values } => {
            let mut pairs: Vec<_> = indices.into_iter().zip(values).collect();
            pairs.sort_unstable_by_key(|(index, _)| *index);
            let (indices, values) = pairs.into_iter().unzip();
            VectorInternal::Sparse(SparseVector { indices, values })
        }
        Vector::Multi(rows) => VectorInternal::MultiDense(
            TypedMultiDenseVector::try_from_matrix(rows)
                .map_err(|error| Error::invalid("", error.to_string()))?,
        ),
    })
}

/// For the engine's writes.
pub(crate) fn into_stored(vector: Vector) -> VectorPersisted {
    match vector {
        Vector::Dense(values) => VectorPersisted::Dense(values),
        Vector::Sparse { indices, values } => {
            VectorPersisted::Sparse(SparseVector { indices, values })
        }
        Vector::Multi(rows) => VectorPersisted::MultiDense(rows),
    }
}

/// What the engine returned for a point.
pub(crate) fn from_struct(vectors: Option<VectorStructInternal>) -> Vectors {
    match vectors {
        None => Vectors::new(),
        Some(VectorStructInternal::Single(values)) => {
            Vectors::from([(String::new(), Vector::Dense(values))])
        }
        Some(VectorStructInternal::MultiDense(rows)) => {
            Vectors::from([(String::new(), from_rows(&rows))])
        }
        Some(VectorStructInternal::Named(named)) => named
            .into_iter()
            .map(|(name, vector)| (name, from_internal(vector)))
            .collect(),
    }
}

fn from_internal(vector: VectorInternal) -> Vector {
    match vector {
        VectorInternal::Dense(values) => Vector::Dense(values),
        VectorInternal::Sparse(SparseVector { indices, values }) => {
            Vector::Sparse { indices, values }
        }
        VectorInternal::MultiDense(rows) => from_rows(&rows),
    }
}

fn from_rows(rows: &TypedMultiDenseVector<f32>) -> Vector {
    Vector::Multi(
        rows.flattened_vectors
            .chunks(rows.dim.max(1))
            .map(<[f32]>::to_vec)
            .collect(),
    )
}
