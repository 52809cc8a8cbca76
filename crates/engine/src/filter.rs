//! REST filters, conditions and the other parts that several requests share.

use ordered_float::OrderedFloat;
use qdrant_edge::{
    AcornSearchParams, Condition, DateTimeWrapper, FieldCondition, Filter, HasVectorCondition,
    IdfCorpusParams, IdfParams, IdfScope, IsEmptyCondition, IsNullCondition, MinShould, Nested,
    NestedCondition, OrderBy, OrderByInterface, QuantizationSearchParams, SearchParams,
    SliceCondition, WithPayloadInterface, WithVector,
};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::json::{MAX_NESTING, Node};

const CLAUSES: &[&str] = &["should", "min_should", "must", "must_not"];

const FIELD_CONDITION: &[&str] = &[
    "key",
    "match",
    "range",
    "geo_bounding_box",
    "geo_radius",
    "geo_polygon",
    "values_count",
    "is_empty",
    "is_null",
];

const CONDITION_KINDS: &[&str] = &[
    "key",
    "is_empty",
    "is_null",
    "has_id",
    "has_vector",
    "slice",
    "nested",
    "should",
    "min_should",
    "must",
    "must_not",
];

const MATCHES: &[&str] = &[
    "value",
    "text",
    "text_any",
    "phrase",
    "prefix",
    "substring",
    "any",
    "except",
];

const RANGE: &[&str] = &["lt", "gt", "gte", "lte"];

/// A REST `filter` that stands alone.
pub(crate) fn filter_value(value: &Value) -> Result<Filter> {
    filter(&Node::root("filter", value))
}

pub(crate) fn filter(node: &Node<'_>) -> Result<Filter> {
    nested_filter(node, 0)
}

fn nested_filter(node: &Node<'_>, depth: usize) -> Result<Filter> {
    if depth > MAX_NESTING {
        return Err(too_deep(node, "filters"));
    }
    // A server refuses others as well.
    node.only_fields(CLAUSES)?;
    let clause = |key| {
        node.get(key)
            .map(|clause| conditions(&clause, depth))
            .transpose()
    };
    Ok(Filter {
        should: clause("should")?,
        min_should: node
            .get("min_should")
            .map(|min_should| {
                min_should.fields(&["conditions", "min_count"])?;
                Ok::<_, Error>(MinShould {
                    conditions: conditions(&min_should.required("conditions")?, depth)?,
                    min_count: min_should.required("min_count")?.size(1)?,
                })
            })
            .transpose()?,
        must: clause("must")?,
        must_not: clause("must_not")?,
    })
}

pub(crate) fn too_deep(node: &Node<'_>, what: &str) -> Error {
    node.error(format!("{what} are nested more than {MAX_NESTING} deep"))
}

/// One condition or a list of them.
fn conditions(node: &Node<'_>, depth: usize) -> Result<Vec<Condition>> {
    if node.value.is_object() {
        return Ok(vec![condition(node, depth)?]);
    }
    node.items()?.map(|item| condition(&item, depth)).collect()
}

/// Whether an object is meant as a condition, by its keys.
pub(crate) fn looks_like_condition(node: &Node<'_>) -> bool {
    node.value
        .as_object()
        .is_some_and(|map| CONDITION_KINDS.iter().any(|kind| map.contains_key(*kind)))
}

pub(crate) fn condition(node: &Node<'_>, depth: usize) -> Result<Condition> {
    let map = node.object()?;
    let has = |key: &str| map.contains_key(key);
    if has("key") {
        field_condition(node)
    } else if has("is_empty") {
        payload_field(node, "is_empty")?;
        node.parse::<IsEmptyCondition>().map(Condition::IsEmpty)
    } else if has("is_null") {
        payload_field(node, "is_null")?;
        node.parse::<IsNullCondition>().map(Condition::IsNull)
    } else if has("has_id") {
        node.fields(&["has_id"])?;
        // Long lists are shared by the copies that the engine makes of a filter.
        let ids = node.required("has_id")?.point_ids()?;
        Ok(Condition::HasId(
            ids.into_iter().map(qdrant_edge::PointId::from).collect(),
        ))
    } else if has("has_vector") {
        node.fields(&["has_vector"])?;
        node.parse::<HasVectorCondition>().map(Condition::HasVector)
    } else if has("slice") {
        node.fields(&["slice"])?;
        let slice = node.required("slice")?;
        slice.fields(&["total", "index"])?;
        let condition: SliceCondition = node.parse()?;
        if condition.slice.index >= condition.slice.total.get() {
            return Err(slice.error("index must be less than the total number of slices"));
        }
        Ok(Condition::Slice(condition))
    } else if has("nested") {
        node.fields(&["nested"])?;
        let nested = node.required("nested")?;
        nested.fields(&["key", "filter"])?;
        Ok(Condition::Nested(NestedCondition::new(Nested {
            key: nested.required("key")?.json_path()?,
            filter: nested_filter(&nested.required("filter")?, depth + 1)?,
        })))
    } else if map.is_empty() || CLAUSES.iter().any(|clause| has(clause)) {
        nested_filter(node, depth + 1).map(Condition::Filter)
    } else {
        let unknown = map.keys().next().map(String::as_str).unwrap_or_default();
        Err(node.unknown(unknown, CONDITION_KINDS))
    }
}

fn payload_field(node: &Node<'_>, key: &'static str) -> Result<()> {
    node.fields(&[key])?;
    let field = node.required(key)?;
    field.fields(&["key"])?;
    field.required("key")?.json_path().map(drop)
}

fn field_condition(node: &Node<'_>) -> Result<Condition> {
    node.fields(FIELD_CONDITION)?;
    node.required("key")?.json_path()?;
    if let Some(matching) = node.get("match") {
        match matching.one_of(MATCHES)? {
            Some((kind, value)) => match_value(kind, &value)?,
            None => {
                return Err(matching.error(format!("expected exactly one of {}", names(MATCHES))));
            }
        }
    }
    if let Some(range) = node.get("range") {
        range_bounds(&range)?;
    }
    if let Some(count) = node.get("values_count") {
        count.fields(RANGE)?;
        for (_, bound) in count.entries()? {
            if !bound.value.is_null() {
                bound.size(0)?;
            }
        }
    }
    if let Some(area) = node.get("geo_bounding_box") {
        area.fields(&["top_left", "bottom_right"])?;
        geo_point(&area.required("top_left")?)?;
        geo_point(&area.required("bottom_right")?)?;
    }
    if let Some(area) = node.get("geo_radius") {
        area.fields(&["center", "radius"])?;
        geo_point(&area.required("center")?)?;
    }
    if let Some(area) = node.get("geo_polygon") {
        area.fields(&["exterior", "interiors"])?;
        geo_line(&area.required("exterior")?)?;
        if let Some(interiors) = area.get("interiors") {
            interiors.items()?.try_for_each(|line| geo_line(&line))?;
        }
    }
    let condition: FieldCondition = node.parse()?;
    if condition.all_fields_none() {
        return Err(node.out_of_range("at least one field condition must be specified"));
    }
    Ok(Condition::Field(condition))
}

/// Checks what `match` compares with. The engine's own type says only that nothing fits.
fn match_value(kind: &str, node: &Node<'_>) -> Result<()> {
    match kind {
        "any" | "except" => {
            let same = |check: fn(&Value) -> bool| {
                node.value
                    .as_array()
                    .is_some_and(|items| items.iter().all(check))
            };
            if same(Value::is_string) || same(Value::is_i64) {
                Ok(())
            } else {
                Err(node.error("expected an array of strings or an array of integers"))
            }
        }
        "value" => {
            if node.value.is_string() || node.value.is_i64() || node.value.is_boolean() {
                Ok(())
            } else {
                Err(node.expected("a string, an integer or a boolean"))
            }
        }
        _ => node.string().map(drop),
    }
}

/// Checks the bounds of a `range`: numbers, or times.
fn range_bounds(range: &Node<'_>) -> Result<()> {
    range.fields(RANGE)?;
    let mut number = None;
    for (_, bound) in range.entries()? {
        let is_number = match bound.value {
            Value::Null => continue,
            Value::Number(_) => true,
            Value::String(_) => {
                bound.parse::<DateTimeWrapper>().map_err(|_| {
                    bound.error("expected a number, or a date and time of RFC 3339")
                })?;
                false
            }
            _ => return Err(bound.expected("a number, or a date and time")),
        };
        if *number.get_or_insert(is_number) != is_number {
            return Err(range.error("expected numbers or times, not both"));
        }
    }
    Ok(())
}

fn names(list: &[&str]) -> String {
    let quoted: Vec<_> = list.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

pub(crate) fn geo_point(node: &Node<'_>) -> Result<()> {
    node.fields(&["lon", "lat"])?;
    node.parse::<qdrant_edge::GeoPoint>().map(drop)
}

fn geo_line(node: &Node<'_>) -> Result<()> {
    node.fields(&["points"])?;
    node.required("points")?
        .items()?
        .try_for_each(|point| geo_point(&point))
}

/// REST `params` that stand alone.
pub(crate) fn search_params_value(value: &Value) -> Result<SearchParams> {
    search_params(&Node::root("params", value))
}

pub(crate) fn search_params(node: &Node<'_>) -> Result<SearchParams> {
    node.fields(&[
        "hnsw_ef",
        "exact",
        "quantization",
        "indexed_only",
        "acorn",
        "idf",
    ])?;
    let flag = |key| node.get(key).map_or(Ok(false), |flag| flag.bool());
    Ok(SearchParams {
        hnsw_ef: node.get("hnsw_ef").map(|ef| ef.size(1)).transpose()?,
        exact: flag("exact")?,
        quantization: node
            .get("quantization")
            .map(|node| {
                node.fields(&["ignore", "rescore", "oversampling"])?;
                let params: QuantizationSearchParams = node.parse()?;
                if params
                    .oversampling
                    .is_some_and(|factor| factor.is_nan() || factor < 1.0)
                {
                    return Err(node.error("oversampling must be 1.0 or larger"));
                }
                Ok(params)
            })
            .transpose()?,
        indexed_only: flag("indexed_only")?,
        acorn: node
            .get("acorn")
            .map(|node| {
                node.fields(&["enable", "max_selectivity"])?;
                let params: AcornSearchParams = node.parse()?;
                let unit = OrderedFloat(0.0)..=OrderedFloat(1.0);
                if params
                    .max_selectivity
                    .is_some_and(|share| !unit.contains(&share))
                {
                    return Err(node.error("max_selectivity must be between 0.0 and 1.0"));
                }
                Ok(params)
            })
            .transpose()?,
        idf: node.get("idf").map(|node| idf(&node)).transpose()?,
    })
}

fn idf(node: &Node<'_>) -> Result<IdfParams> {
    if node.value.is_object() {
        node.fields(&["corpus"])?;
        let corpus = filter(&node.required("corpus")?)?;
        return Ok(IdfParams::Corpus(IdfCorpusParams { corpus }));
    }
    node.parse::<IdfScope>().map(IdfParams::Scope)
}

/// REST `with_payload`.
pub(crate) fn with_payload(node: &Node<'_>) -> Result<WithPayloadInterface> {
    if node.value.is_object() {
        node.fields(&["include", "exclude"])?;
    }
    node.parse()
}

/// REST `with_vector`.
pub(crate) fn with_vector(node: &Node<'_>) -> Result<WithVector> {
    node.parse()
}

/// REST `order_by`: a path, or an object.
pub(crate) fn order_by(node: &Node<'_>) -> Result<OrderBy> {
    if node.value.is_object() {
        node.fields(&["key", "direction", "start_from"])?;
        node.required("key")?.json_path()?;
        return node.parse();
    }
    node.parse::<OrderByInterface>().map(OrderBy::from)
}
