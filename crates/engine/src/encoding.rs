//! Operations as bytes: the payload of a log record.
//!
//! An operation is one item of CBOR (RFC 8949): a map with a single entry, whose key is the kind
//! and whose value is a map of the fields below. Unknown kinds, unknown fields, missing fields and
//! bytes after the item are errors.
//!
//! | kind | fields |
//! | --- | --- |
//! | `upsert` | `id`, `vectors`, `payload`?; with a condition also `mode`, `condition`? |
//! | `delete` | `ids` |
//! | `update_vectors` | `id`, `vectors`, `condition`? |
//! | `delete_vectors` | `ids`, `names` |
//! | `set_payload`, `overwrite_payload` | `ids`, `payload`, `key`? |
//! | `delete_payload` | `ids`, `keys` |
//! | `clear_payload` | `ids` |
//! | `create_index` | `field`, `schema` |
//! | `delete_index` | `field` |
//! | `create_vector` | `name`, `config` |
//! | `delete_vector` | `name` |
//!
//! - An id is an unsigned integer, or a UUID: tag 37 on a byte string of 16.
//! - `vectors` maps names to vectors; the empty name is the default vector. A dense vector is a
//!   typed array of little-endian f32 (RFC 8746, tag 85 on a byte string). A sparse vector is a map
//!   of `indices`, a typed array of little-endian u32 (tag 70), and `values` (tag 85). A
//!   multivector is a row-major array (tag 40): `[[rows, columns], tag 85]`.
//! - `payload`, `condition`, `schema` and `config` are JSON as CBOR's own types. Integers stay
//!   integers (up to u64 and down to i64) and floats stay floats, to the bit.
//! - `mode` is the REST name; lists are arrays, the rest is text.

use ciborium::value::Value as Cbor;
use serde_json::{Map, Number, Value};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::operation::{Operation, UpdateMode};
use crate::point::{Payload, Point, PointId, Vector, Vectors};

const TAG_UUID: u64 = 37;
const TAG_F32: u64 = 85;
const TAG_U32: u64 = 70;
const TAG_ROWS: u64 = 40;

impl Operation {
    /// Encodes the operation for the log: one CBOR item (the format is specified at the top of
    /// this module's source).
    pub fn encode(&self) -> Vec<u8> {
        let (kind, fields) = fields_of(self);
        let mut bytes = Vec::with_capacity(64 + fields.iter().map(Field::about).sum::<usize>());
        head(&mut bytes, MAP, 1);
        write_text(&mut bytes, kind);
        head(&mut bytes, MAP, fields.len());
        for Field { key, value } in fields {
            write_text(&mut bytes, key);
            match value {
                Item::Tree(value) => write_tree(&mut bytes, &value),
                Item::Object(object) => write_object(&mut bytes, object),
                Item::Vectors(vectors) => write_vectors(&mut bytes, vectors),
            }
        }
        bytes
    }

    /// Decodes what [`Operation::encode`] wrote; refuses anything else, trailing bytes included.
    ///
    /// Errors: [`crate::Error::Corrupt`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let item: Cbor = ciborium::from_reader(&mut rest)
            .map_err(|error| corrupt(format!("not CBOR: {error}")))?;
        if !rest.is_empty() {
            return Err(corrupt(format!("{} bytes after the operation", rest.len())));
        }
        let Cbor::Map(mut entries) = item else {
            return Err(corrupt("not a map"));
        };
        match (entries.pop(), entries.pop()) {
            (Some((Cbor::Text(kind), Cbor::Map(fields))), None) => {
                operation(&kind, Fields { fields })
            }
            _ => Err(corrupt("not a map of one kind to its fields")),
        }
    }
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::Corrupt {
        file: "log record".to_owned(),
        offset: None,
        message: message.into(),
    }
}

fn text(text: &str) -> Cbor {
    Cbor::Text(text.to_owned())
}

/// Major types of CBOR, in the first three bits of an item.
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

struct Field<'a> {
    key: &'static str,
    value: Item<'a>,
}

/// What a field holds. Vectors and payloads are most of a log's bytes and are written as they are; the
/// rest is made into a tree first.
enum Item<'a> {
    Tree(Cbor),
    Object(&'a Map<String, Value>),
    Vectors(&'a Vectors),
}

impl Field<'_> {
    /// About how many bytes it takes.
    fn about(&self) -> usize {
        match self.value {
            Item::Tree(_) => 64,
            Item::Object(object) => 32 * object.len(),
            Item::Vectors(vectors) => vectors
                .iter()
                .map(|(name, vector)| 16 + name.len() + 4 * vector.len())
                .sum(),
        }
    }
}

/// The beginning of an item: its type and its length, or whatever its number says, in as few bytes as
/// can be.
fn head(bytes: &mut Vec<u8>, major: u8, number: usize) {
    head_u64(bytes, major, number as u64);
}

fn head_u64(bytes: &mut Vec<u8>, major: u8, number: u64) {
    let major = major << 5;
    match number {
        0..24 => bytes.push(major | number as u8),
        24..0x100 => bytes.extend([major | 24, number as u8]),
        0x100..0x1_0000 => {
            bytes.push(major | 25);
            bytes.extend_from_slice(&(number as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            bytes.push(major | 26);
            bytes.extend_from_slice(&(number as u32).to_be_bytes());
        }
        _ => {
            bytes.push(major | 27);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
    }
}

fn write_text(bytes: &mut Vec<u8>, text: &str) {
    head(bytes, TEXT, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

fn write_tree(bytes: &mut Vec<u8>, value: &Cbor) {
    // A vector takes every byte, and a value has nothing that does not encode.
    let written = ciborium::into_writer(value, bytes);
    debug_assert!(written.is_ok());
}

fn write_object(bytes: &mut Vec<u8>, object: &Map<String, Value>) {
    head(bytes, MAP, object.len());
    for (key, value) in object {
        write_text(bytes, key);
        write_json(bytes, value);
    }
}

/// As [`write_tree`] of [`json_to_cbor`].
fn write_json(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => head_u64(bytes, UNSIGNED, number),
            // -1 is 0, -2 is 1.
            (None, Some(number)) => head_u64(bytes, NEGATIVE, (!number).unsigned_abs()),
            (None, None) => write_tree(bytes, &json_to_cbor(value)),
        },
        Value::String(string) => write_text(bytes, string),
        Value::Array(items) => {
            head(bytes, ARRAY, items.len());
            items.iter().for_each(|item| write_json(bytes, item));
        }
        Value::Object(object) => write_object(bytes, object),
        Value::Null | Value::Bool(_) => write_tree(bytes, &json_to_cbor(value)),
    }
}

fn write_vectors(bytes: &mut Vec<u8>, vectors: &Vectors) {
    head(bytes, MAP, vectors.len());
    for (name, vector) in vectors {
        write_text(bytes, name);
        match vector {
            Vector::Dense(values) => {
                head(bytes, TAG, TAG_F32 as usize);
                head(bytes, BYTES, 4 * values.len());
                let start = bytes.len();
                bytes.resize(start + 4 * values.len(), 0);
                for (bytes, value) in bytes[start..].chunks_exact_mut(4).zip(values) {
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
            }
            other => write_tree(bytes, &vector_to_cbor(other)),
        }
    }
}

type FieldList<'a> = Vec<Field<'a>>;

fn tree(key: &'static str, value: Cbor) -> Field<'static> {
    let value = Item::Tree(value);
    Field { key, value }
}

fn fields_of(operation: &Operation) -> (&'static str, FieldList<'_>) {
    let condition_of =
        |json: &Option<Value>| json.as_ref().map(|it| tree("condition", json_to_cbor(it)));
    match operation {
        Operation::UpsertPoint(point) => ("upsert", point_fields(point)),
        Operation::UpsertPointIf {
            point,
            mode,
            condition,
        } => {
            let mut fields = point_fields(point);
            fields.push(tree("mode", text(mode.name())));
            fields.extend(condition_of(condition));
            ("upsert", fields)
        }
        Operation::DeletePoints { ids } => ("delete", vec![ids_field(ids)]),
        Operation::UpdateVectors {
            id,
            vectors,
            condition,
        } => {
            let mut fields = vec![
                tree("id", id_to_cbor(id)),
                Field {
                    key: "vectors",
                    value: Item::Vectors(vectors),
                },
            ];
            fields.extend(condition_of(condition));
            ("update_vectors", fields)
        }
        Operation::DeleteVectors { ids, names } => (
            "delete_vectors",
            vec![ids_field(ids), tree("names", texts(names))],
        ),
        Operation::SetPayload { ids, payload, key } => {
            ("set_payload", payload_fields(ids, payload, key.as_ref()))
        }
        Operation::OverwritePayload { ids, payload, key } => (
            "overwrite_payload",
            payload_fields(ids, payload, key.as_ref()),
        ),
        Operation::DeletePayload { ids, keys } => (
            "delete_payload",
            vec![ids_field(ids), tree("keys", texts(keys))],
        ),
        Operation::ClearPayload { ids } => ("clear_payload", vec![ids_field(ids)]),
        Operation::CreatePayloadIndex { field, schema } => (
            "create_index",
            vec![
                tree("field", text(field)),
                tree("schema", json_to_cbor(schema)),
            ],
        ),
        Operation::DeletePayloadIndex { field } => {
            ("delete_index", vec![tree("field", text(field))])
        }
        Operation::CreateVectorName { name, config } => (
            "create_vector",
            vec![
                tree("name", text(name)),
                tree("config", json_to_cbor(config)),
            ],
        ),
        Operation::DeleteVectorName { name } => ("delete_vector", vec![tree("name", text(name))]),
    }
}

fn operation(kind: &str, mut fields: Fields) -> Result<Operation> {
    let operation = match kind {
        "upsert" => {
            let point = Point {
                id: id_from_cbor(fields.required("id")?)?,
                vectors: vectors_from_cbor(fields.required("vectors")?)?,
                payload: fields.optional("payload").map(object).transpose()?,
            };
            match fields.optional("mode") {
                None => Operation::UpsertPoint(point),
                Some(mode) => Operation::UpsertPointIf {
                    point,
                    mode: UpdateMode::from_name(&string(mode)?)
                        .ok_or_else(|| corrupt("unknown update mode"))?,
                    condition: fields.optional("condition").map(json).transpose()?,
                },
            }
        }
        "delete" => Operation::DeletePoints { ids: fields.ids()? },
        "update_vectors" => Operation::UpdateVectors {
            id: id_from_cbor(fields.required("id")?)?,
            vectors: vectors_from_cbor(fields.required("vectors")?)?,
            condition: fields.optional("condition").map(json).transpose()?,
        },
        "delete_vectors" => Operation::DeleteVectors {
            ids: fields.ids()?,
            names: strings(fields.required("names")?)?,
        },
        "set_payload" => Operation::SetPayload {
            ids: fields.ids()?,
            payload: object(fields.required("payload")?)?,
            key: fields.optional("key").map(string).transpose()?,
        },
        "overwrite_payload" => Operation::OverwritePayload {
            ids: fields.ids()?,
            payload: object(fields.required("payload")?)?,
            key: fields.optional("key").map(string).transpose()?,
        },
        "delete_payload" => Operation::DeletePayload {
            ids: fields.ids()?,
            keys: strings(fields.required("keys")?)?,
        },
        "clear_payload" => Operation::ClearPayload { ids: fields.ids()? },
        "create_index" => Operation::CreatePayloadIndex {
            field: string(fields.required("field")?)?,
            schema: json(fields.required("schema")?)?,
        },
        "delete_index" => Operation::DeletePayloadIndex {
            field: string(fields.required("field")?)?,
        },
        "create_vector" => Operation::CreateVectorName {
            name: string(fields.required("name")?)?,
            config: json(fields.required("config")?)?,
        },
        "delete_vector" => Operation::DeleteVectorName {
            name: string(fields.required("name")?)?,
        },
        other => return Err(corrupt(format!("unknown operation {other:?}"))),
    };
    match fields.fields.first() {
        None => Ok(operation),
        Some((key, _)) => Err(corrupt(format!("{kind}: unknown field {key:?}"))),
    }
}

/// The fields not taken yet.
struct Fields {
    fields: Vec<(Cbor, Cbor)>,
}

impl Fields {
    fn optional(&mut self, key: &str) -> Option<Cbor> {
        let at = self
            .fields
            .iter()
            .position(|(name, _)| name.as_text() == Some(key))?;
        Some(self.fields.remove(at).1)
    }

    fn required(&mut self, key: &str) -> Result<Cbor> {
        self.optional(key)
            .ok_or_else(|| corrupt(format!("missing field {key:?}")))
    }

    fn ids(&mut self) -> Result<Vec<PointId>> {
        array(self.required("ids")?)?
            .into_iter()
            .map(id_from_cbor)
            .collect()
    }
}

fn point_fields(point: &Point) -> FieldList<'_> {
    let mut fields = vec![
        tree("id", id_to_cbor(&point.id)),
        Field {
            key: "vectors",
            value: Item::Vectors(&point.vectors),
        },
    ];
    let payload = point.payload.as_ref();
    fields.extend(payload.map(payload_field));
    fields
}

fn payload_field(payload: &Payload) -> Field<'_> {
    Field {
        key: "payload",
        value: Item::Object(payload),
    }
}

fn payload_fields<'a>(
    ids: &[PointId],
    payload: &'a Payload,
    key: Option<&String>,
) -> FieldList<'a> {
    let mut fields = vec![ids_field(ids), payload_field(payload)];
    fields.extend(key.map(|key| tree("key", text(key))));
    fields
}

fn ids_field(ids: &[PointId]) -> Field<'static> {
    tree("ids", Cbor::Array(ids.iter().map(id_to_cbor).collect()))
}

fn texts(list: &[String]) -> Cbor {
    Cbor::Array(list.iter().map(|item| text(item)).collect())
}

fn id_to_cbor(id: &PointId) -> Cbor {
    match id {
        PointId::Num(num) => Cbor::Integer((*num).into()),
        PointId::Uuid(uuid) => Cbor::Tag(TAG_UUID, Box::new(Cbor::Bytes(uuid.as_bytes().to_vec()))),
    }
}

fn id_from_cbor(value: Cbor) -> Result<PointId> {
    match value {
        Cbor::Integer(num) => u64::try_from(num)
            .map(PointId::Num)
            .map_err(|_| corrupt("a point id is not an unsigned 64-bit integer")),
        tagged => Uuid::from_slice(&tagged_bytes(tagged, TAG_UUID)?)
            .map(PointId::Uuid)
            .map_err(|_| corrupt("a UUID is not of 16 bytes")),
    }
}

fn tagged_bytes(value: Cbor, expected: u64) -> Result<Vec<u8>> {
    match value {
        Cbor::Tag(tag, inner) if tag == expected => match *inner {
            Cbor::Bytes(bytes) => Ok(bytes),
            _ => Err(corrupt(format!("tag {tag} is not on a byte string"))),
        },
        _ => Err(corrupt(format!("expected tag {expected}"))),
    }
}

fn words(tag: u64, words: impl Iterator<Item = [u8; 4]>) -> Cbor {
    // Word by word: bytes one by one would be counted and grown one by one.
    let mut bytes = Vec::with_capacity(4 * words.size_hint().0);
    words.for_each(|word| bytes.extend_from_slice(&word));
    Cbor::Tag(tag, Box::new(Cbor::Bytes(bytes)))
}

fn floats_to_cbor<'a>(values: impl Iterator<Item = &'a f32>) -> Cbor {
    words(TAG_F32, values.map(|value| value.to_le_bytes()))
}

fn from_words<T>(value: Cbor, tag: u64, read: fn([u8; 4]) -> T) -> Result<Vec<T>> {
    let bytes = tagged_bytes(value, tag)?;
    let (words, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() {
        Ok(words.iter().map(|word| read(*word)).collect())
    } else {
        Err(corrupt("a typed array is not of whole elements"))
    }
}

fn vector_to_cbor(vector: &Vector) -> Cbor {
    match vector {
        Vector::Dense(values) => floats_to_cbor(values.iter()),
        Vector::Sparse { indices, values } => Cbor::Map(vec![
            (
                text("indices"),
                words(TAG_U32, indices.iter().map(|index| index.to_le_bytes())),
            ),
            (text("values"), floats_to_cbor(values.iter())),
        ]),
        Vector::Multi(rows) => {
            let columns = rows.first().map_or(0, Vec::len);
            let shape = [rows.len(), columns].map(|side| Cbor::Integer((side as u64).into()));
            Cbor::Tag(
                TAG_ROWS,
                Box::new(Cbor::Array(vec![
                    Cbor::Array(shape.to_vec()),
                    floats_to_cbor(rows.iter().flatten()),
                ])),
            )
        }
    }
}

fn vectors_from_cbor(value: Cbor) -> Result<Vectors> {
    let Cbor::Map(entries) = value else {
        return Err(corrupt("vectors are not a map"));
    };
    entries
        .into_iter()
        .map(|(name, vector)| Ok((string(name)?, vector_from_cbor(vector)?)))
        .collect()
}

fn vector_from_cbor(value: Cbor) -> Result<Vector> {
    match value {
        Cbor::Map(fields) => {
            let mut fields = Fields { fields };
            let indices = from_words(fields.required("indices")?, TAG_U32, u32::from_le_bytes)?;
            let values = from_words(fields.required("values")?, TAG_F32, f32::from_le_bytes)?;
            if fields.fields.is_empty() {
                Ok(Vector::Sparse { indices, values })
            } else {
                Err(corrupt("unknown field of a sparse vector"))
            }
        }
        Cbor::Tag(TAG_ROWS, inner) => {
            let mut parts = array(*inner)?;
            let (Some(values), Some(shape), None) = (parts.pop(), parts.pop(), parts.pop()) else {
                return Err(corrupt("a multivector is not a shape and its values"));
            };
            let sides: Vec<_> = array(shape)?
                .into_iter()
                .map(|side| {
                    side.as_integer()
                        .and_then(|side| usize::try_from(side).ok())
                })
                .collect();
            let [Some(rows), Some(columns)] = sides.as_slice() else {
                return Err(corrupt("a multivector's shape is not of two sides"));
            };
            let values = from_words(values, TAG_F32, f32::from_le_bytes)?;
            if *columns == 0 || rows.checked_mul(*columns) != Some(values.len()) {
                return Err(corrupt("a multivector's values do not fill its shape"));
            }
            Ok(Vector::Multi(
                values.chunks(*columns).map(<[f32]>::to_vec).collect(),
            ))
        }
        dense => from_words(dense, TAG_F32, f32::from_le_bytes).map(Vector::Dense),
    }
}

fn array(value: Cbor) -> Result<Vec<Cbor>> {
    match value {
        Cbor::Array(items) => Ok(items),
        _ => Err(corrupt("expected an array")),
    }
}

fn string(value: Cbor) -> Result<String> {
    match value {
        Cbor::Text(text) => Ok(text),
        _ => Err(corrupt("expected text")),
    }
}

fn strings(value: Cbor) -> Result<Vec<String>> {
    array(value)?.into_iter().map(string).collect()
}

fn object_to_cbor(map: &Map<String, Value>) -> Cbor {
    Cbor::Map(
        map.iter()
            .map(|(key, value)| (text(key), json_to_cbor(value)))
            .collect(),
    )
}

fn json_to_cbor(value: &Value) -> Cbor {
    match value {
        Value::Null => Cbor::Null,
        Value::Bool(flag) => Cbor::Bool(*flag),
        Value::Number(number) => {
            if let Some(number) = number.as_u64() {
                Cbor::Integer(number.into())
            } else if let Some(number) = number.as_i64() {
                Cbor::Integer(number.into())
            } else {
                Cbor::Float(number.as_f64().unwrap_or_default())
            }
        }
        Value::String(string) => text(string),
        Value::Array(items) => Cbor::Array(items.iter().map(json_to_cbor).collect()),
        Value::Object(map) => object_to_cbor(map),
    }
}

fn object(value: Cbor) -> Result<Map<String, Value>> {
    match json(value)? {
        Value::Object(map) => Ok(map),
        _ => Err(corrupt("expected an object")),
    }
}

fn json(value: Cbor) -> Result<Value> {
    Ok(match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(flag) => Value::Bool(flag),
        Cbor::Integer(number) => {
            if let Ok(number) = u64::try_from(number) {
                Value::Number(number.into())
            } else if let Ok(number) = i64::try_from(number) {
                Value::Number(number.into())
            } else {
                return Err(corrupt("an integer is beyond 64 bits"));
            }
        }
        Cbor::Float(number) => Number::from_f64(number)
            .map(Value::Number)
            .ok_or_else(|| corrupt("a number is not finite"))?,
        Cbor::Text(text) => Value::String(text),
        Cbor::Array(items) => Value::Array(items.into_iter().map(json).collect::<Result<_>>()?),
        Cbor::Map(entries) => Value::Object(
            entries
                .into_iter()
                .map(|(key, value)| Ok((string(key)?, json(value)?)))
                .collect::<Result<_>>()?,
        ),
        _ => return Err(corrupt("a value has no JSON form")),
    })
}
