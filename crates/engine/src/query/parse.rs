//! From the JSON of a request to a query. Needs no shard.

use std::collections::HashMap;

use ordered_float::OrderedFloat;
use qdrant_edge::{
    Bm25Params, DecayKind, Expression, Formula, Fusion, NaiveFeedbackStrategy, Sample,
    ScoringQuery, TextQueryScoring, WithPayloadInterface, WithVector,
};
use serde_json::Value;

use super::body::{GroupsBody, Input, MAX_LIMIT, Query, QueryBody, Stage, StageFields, Strategy};
use crate::error::{Error, Result};
use crate::filter::{
    condition, filter, geo_point, looks_like_condition, order_by, search_params, too_deep,
    with_payload, with_vector,
};
use crate::json::{MAX_NESTING, Node, weight};
use crate::vector::{self, Embed};

/// The server's defaults.
const DEFAULT_LIMIT: usize = 10;
const DEFAULT_RRF_K: usize = 2;
const DEFAULT_MMR_DIVERSITY: f32 = 0.5;
/// The server's bound on MMR candidates.
const MAX_MMR_CANDIDATES: usize = 16_384;
/// A bound as [`MAX_LIMIT`] is.
const MAX_GROUPS: usize = 1 << 15;
/// More leaves than this in one request are refused, whatever the nesting.
const MAX_STAGES: usize = 1 << 10;

const STAGE: &[&str] = &[
    "prefetch",
    "query",
    "using",
    "filter",
    "params",
    "score_threshold",
    "limit",
    "lookup_from",
];

const REQUEST: &[&str] = &[
    "shard_key",
    "prefetch",
    "query",
    "using",
    "filter",
    "params",
    "score_threshold",
    "limit",
    "offset",
    "with_vector",
    "with_vectors",
    "with_payload",
    "lookup_from",
];

const GROUPS: &[&str] = &[
    "shard_key",
    "prefetch",
    "query",
    "using",
    "filter",
    "params",
    "score_threshold",
    "with_vector",
    "with_vectors",
    "with_payload",
    "lookup_from",
    "group_by",
    "group_size",
    "limit",
    "with_lookup",
];

const QUERIES: &[&str] = &[
    "nearest",
    "recommend",
    "discover",
    "context",
    "order_by",
    "fusion",
    "rrf",
    "formula",
    "sample",
    "relevance_feedback",
    "text",
];
/// What a request does, which shows in the server's words about its shard key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Refuses a shard key: a local collection has one shard.
pub(crate) fn no_shard_key(node: &Node<'_>, access: Access) -> Result<()> {
    let Some(key) = node.get("shard_key") else {
        return Ok(());
    };
    let first = match key.value {
        Value::Array(keys) => keys.first().unwrap_or(&Value::Null),
        Value::Object(target) => target.get("target").unwrap_or(&Value::Null),
        key => key,
    };
    let kind = match access {
        Access::Read => "Bad request",
        Access::Write => "Wrong input",
    };
    Err(key.unsupported(
        "shard_key: a local shard is one shard, without shard keys",
        400,
        format!("{kind}: Shard key {first} not found"),
    ))
}

/// The error for a request that looks into another collection. There is none.
fn no_other_collection(node: &Node<'_>, what: &str) -> Error {
    let name = match node.value {
        Value::Object(lookup) => lookup.get("collection").and_then(Value::as_str),
        name => name.as_str(),
    };
    node.unsupported(
        format!("{what}: a local shard has no other collections to look into"),
        404,
        format!(
            "Not found: Collection {} not found",
            name.unwrap_or_default()
        ),
    )
}

pub(crate) fn query_body(node: &Node<'_>) -> Result<QueryBody> {
    node.fields(REQUEST)?;
    no_shard_key(node, Access::Read)?;
    body(node)
}

fn body(node: &Node<'_>) -> Result<QueryBody> {
    let mut budget = MAX_STAGES;
    Ok(QueryBody {
        stage: stage(node, 0, &mut budget)?,
        offset: node
            .get("offset")
            .map_or(Ok(0), |offset| offset.limit(0, MAX_LIMIT))?,
        with_payload: node
            .get("with_payload")
            .map_or(Ok(WithPayloadInterface::Bool(false)), |node| {
                with_payload(&node)
            })?,
        with_vector: vector_selection(node)?,
    })
}

/// `with_vector`, or `with_vectors` as older clients spell it.
pub(crate) fn vector_selection(node: &Node<'_>) -> Result<WithVector> {
    node.get("with_vector")
        .or_else(|| node.get("with_vectors"))
        .map_or(Ok(WithVector::Bool(false)), |node| with_vector(&node))
}

pub(crate) fn groups_body(node: &Node<'_>) -> Result<GroupsBody> {
    node.fields(GROUPS)?;
    no_shard_key(node, Access::Read)?;
    if let Some(lookup) = node.get("with_lookup") {
        return Err(no_other_collection(&lookup, "with_lookup"));
    }
    Ok(GroupsBody {
        query: body(node)?,
        group_by: node.required("group_by")?.json_path()?,
        groups: limit(node)?.min(MAX_GROUPS),
        group_size: node
            .get("group_size")
            .map_or(Ok(3), |size| size.limit(1, MAX_GROUPS))?,
    })
}

/// `limit`, at least 1, or the server's default.
pub(crate) fn limit(node: &Node<'_>) -> Result<usize> {
    node.get("limit")
        .map_or(Ok(DEFAULT_LIMIT), |limit| limit.limit(1, MAX_LIMIT))
}

fn stage(node: &Node<'_>, depth: usize, budget: &mut usize) -> Result<Stage> {
    if depth > MAX_NESTING {
        return Err(too_deep(node, "prefetches"));
    }
    *budget = budget
        .checked_sub(1)
        .ok_or_else(|| node.error(format!("more than {MAX_STAGES} prefetches in one request")))?;
    if let Some(lookup) = node.get("lookup_from") {
        return Err(no_other_collection(&lookup, "lookup_from"));
    }
    let prefetches = match node.get("prefetch") {
        None => Vec::new(),
        Some(one) if one.value.is_object() => {
            one.fields(STAGE)?;
            vec![stage(&one, depth + 1, budget)?]
        }
        Some(list) => list
            .items()?
            .map(|item| {
                item.fields(STAGE)?;
                stage(&item, depth + 1, budget)
            })
            .collect::<Result<_>>()?,
    };
    Ok(Stage {
        field: StageFields {
            query: node.member_path("query"),
            using: node.member_path("using"),
            filter: node.member_path("filter"),
            limit: node.member_path("limit"),
        },
        prefetches,
        query: node.get("query").map(|node| query(&node)).transpose()?,
        using: node
            .get("using")
            .map_or(Ok(""), |using| using.string())?
            .to_owned(),
        filter: node.get("filter").map(|node| filter(&node)).transpose()?,
        filter_weight: node.get("filter").map_or(0, |node| weight(node.value)),
        params: node
            .get("params")
            .map(|node| search_params(&node))
            .transpose()?,
        score_threshold: node
            .get("score_threshold")
            .map(|score| score.f32())
            .transpose()?,
        limit: limit(node)?,
    })
}

fn query(node: &Node<'_>) -> Result<Query> {
    let map = match node.value {
        Value::Object(map) if !vector::looks_like_vector(map) => map,
        _ => return input(node).map(Query::Nearest),
    };
    let Some(kind) = QUERIES.iter().find(|kind| map.contains_key(**kind)) else {
        let unknown = map.keys().next().map(String::as_str).unwrap_or_default();
        return Err(node.unknown(unknown, QUERIES));
    };
    let extra: &[&str] = match *kind {
        "nearest" => &["nearest", "mmr"],
        "formula" => &["formula", "defaults"],
        _ => &[],
    };
    node.fields(if extra.is_empty() {
        std::slice::from_ref(kind)
    } else {
        extra
    })?;
    let inner = match *kind {
        // `{"context": null}` and `{"sample": "random"}` alike must name something.
        "context" => node.child("context", map.get("context").unwrap_or(&Value::Null)),
        kind => node.required(kind)?,
    };
    match *kind {
        "nearest" => {
            let nearest = input(&inner)?;
            match node.get("mmr") {
                None => Ok(Query::Nearest(nearest)),
                Some(mmr) => mmr_query(nearest, &mmr),
            }
        }
        "recommend" => recommend(&inner),
        "discover" => {
            inner.fields(&["target", "context"])?;
            Ok(Query::Discover {
                target: input(&inner.required("target")?)?,
                context: inner
                    .get("context")
                    .map_or(Ok(Vec::new()), |node| context(&node))?,
            })
        }
        "context" => context(&inner).map(Query::Context),
        "order_by" => order_by(&inner).map(|order| ready(ScoringQuery::OrderBy(order))),
        "fusion" => match inner.string()? {
            "rrf" => Ok(ready(ScoringQuery::Fusion(Fusion::Rrf {
                k: DEFAULT_RRF_K,
                weights: None,
            }))),
            "dbsf" => Ok(ready(ScoringQuery::Fusion(Fusion::Dbsf))),
            _ => Err(inner.error("unknown fusion, expected `rrf` or `dbsf`")),
        },
        "rrf" => rrf(&inner),
        "formula" => formula(node, &inner),
        "sample" => match inner.string()? {
            "random" => Ok(ready(ScoringQuery::Sample(Sample::Random))),
            _ => Err(inner.error("unknown sample, expected `random`")),
        },
        "text" => text(&inner),
        _ => feedback(&inner),
    }
}

/// The `text` query of Qdrant 1.20, which the engine has and the server of 1.19 has not: a string,
/// or an object with the scorer's parameters. `using` names the payload field.
fn text(node: &Node<'_>) -> Result<Query> {
    if node.value.is_string() {
        return Ok(Query::Text {
            text: node.string()?.to_owned(),
            scoring: None,
        });
    }
    node.fields(&["query", "scoring"])?;
    let scoring = node
        .get("scoring")
        .map(|scoring| {
            scoring.fields(&["bm25"])?;
            let bm25 = scoring.required("bm25")?;
            bm25.fields(&["k", "b"])?;
            let within = |key, range: std::ops::RangeInclusive<f32>| {
                bm25.get(key)
                    .map(|node| match node.f32()? {
                        number if range.contains(&number) => Ok(number),
                        _ => Err(node.error(format!(
                            "must be from {:?} to {:?}",
                            range.start(),
                            range.end()
                        ))),
                    })
                    .transpose()
            };
            Ok::<_, Error>(TextQueryScoring::Bm25(Bm25Params {
                k: within("k", 0.0..=f32::MAX)?,
                b: within("b", 0.0..=1.0)?,
            }))
        })
        .transpose()?;
    Ok(Query::Text {
        text: node.required("query")?.string()?.to_owned(),
        scoring,
    })
}

fn ready(query: ScoringQuery) -> Query {
    Query::Ready(Box::new(query))
}

fn input(node: &Node<'_>) -> Result<Input> {
    match node.value {
        Value::Number(_) | Value::String(_) => node.point_id().map(Input::Point),
        _ => vector::vector(node, Embed::Query).map(Input::Vector),
    }
}

fn inputs(node: &Node<'_>, key: &str) -> Result<Vec<Input>> {
    match node.get(key) {
        None => Ok(Vec::new()),
        Some(list) => list.items()?.map(|item| input(&item)).collect(),
    }
}

fn mmr_query(nearest: Input, node: &Node<'_>) -> Result<Query> {
    node.fields(&["diversity", "candidates_limit"])?;
    let diversity = match node.get("diversity") {
        None => DEFAULT_MMR_DIVERSITY,
        Some(node) => match node.f32()? {
            diversity if (0.0..=1.0).contains(&diversity) => diversity,
            _ => return Err(node.out_of_range("diversity must be between 0.0 and 1.0")),
        },
    };
    let candidates = match node.get("candidates_limit") {
        None => None,
        Some(node) => Some(node.size_within(1, MAX_MMR_CANDIDATES)?),
    };
    Ok(Query::Mmr {
        nearest,
        diversity,
        candidates,
    })
}

fn recommend(node: &Node<'_>) -> Result<Query> {
    node.fields(&["positive", "negative", "strategy"])?;
    let positive = inputs(node, "positive")?;
    let negative = inputs(node, "negative")?;
    let strategy = match node.get("strategy") {
        None => Strategy::AverageVector,
        Some(name) => match name.string()? {
            "average_vector" => Strategy::AverageVector,
            "best_score" => Strategy::BestScore,
            "sum_scores" => Strategy::SumScores,
            _ => {
                return Err(name.error(
                    "unknown strategy, expected `average_vector`, `best_score` or `sum_scores`",
                ));
            }
        },
    };
    match strategy {
        Strategy::AverageVector if positive.is_empty() => Err(Error::invalid(
            format!("{}.positive", node.path()),
            "the average_vector strategy needs at least one positive example",
        )),
        Strategy::BestScore | Strategy::SumScores if positive.is_empty() && negative.is_empty() => {
            Err(node.error("needs at least one positive or negative example"))
        }
        _ => Ok(Query::Recommend {
            positive,
            negative,
            strategy,
        }),
    }
}

fn context(node: &Node<'_>) -> Result<Vec<(Input, Input)>> {
    let pair = |node: &Node<'_>| {
        node.fields(&["positive", "negative"])?;
        Ok((
            input(&node.required("positive")?)?,
            input(&node.required("negative")?)?,
        ))
    };
    match node.value {
        Value::Null => Ok(Vec::new()),
        Value::Object(_) => Ok(vec![pair(node)?]),
        _ => node.items()?.map(|item| pair(&item)).collect(),
    }
}

fn rrf(node: &Node<'_>) -> Result<Query> {
    node.fields(&["k", "weights"])?;
    let weights = match node.get("weights") {
        None => None,
        Some(list) => Some(
            list.items()?
                .map(|weight| weight.f32().map(OrderedFloat))
                .collect::<Result<_>>()?,
        ),
    };
    let k = node.get("k").map_or(Ok(DEFAULT_RRF_K), |k| k.size(1))?;
    Ok(ready(ScoringQuery::Fusion(Fusion::Rrf { k, weights })))
}

fn feedback(node: &Node<'_>) -> Result<Query> {
    node.fields(&["target", "feedback", "strategy"])?;
    let feedback = node
        .required("feedback")?
        .items()?
        .map(|item| {
            item.fields(&["example", "score"])?;
            Ok((
                input(&item.required("example")?)?,
                item.required("score")?.f32()?,
            ))
        })
        .collect::<Result<_>>()?;
    let strategy = node.required("strategy")?;
    strategy.fields(&["naive"])?;
    let naive = strategy.required("naive")?;
    naive.fields(&["a", "b", "c"])?;
    let coefficient = |key| naive.required(key)?.f32().map(OrderedFloat);
    let strategy = NaiveFeedbackStrategy {
        a: coefficient("a")?,
        b: coefficient("b")?,
        c: coefficient("c")?,
    };
    if strategy.b < OrderedFloat(0.0) {
        return Err(Error::invalid(
            format!("{}.b", naive.path()),
            "must be 0.0 or larger",
        ));
    }
    Ok(Query::Feedback {
        target: input(&node.required("target")?)?,
        feedback,
        strategy,
    })
}

fn formula(query: &Node<'_>, node: &Node<'_>) -> Result<Query> {
    let defaults = match query.get("defaults") {
        None => HashMap::new(),
        Some(defaults) => defaults
            .object()?
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
    };
    let formula = Formula {
        formula: expression(node, 0)?,
        defaults,
    };
    let parsed = formula
        .try_into()
        .map_err(|error: qdrant_edge::OperationError| node.error(error.to_string()))?;
    Ok(ready(ScoringQuery::Formula(parsed)))
}

const EXPRESSIONS: &[&str] = &[
    "geo_distance",
    "datetime",
    "datetime_key",
    "mult",
    "sum",
    "max",
    "min",
    "neg",
    "abs",
    "div",
    "sqrt",
    "pow",
    "exp",
    "log10",
    "ln",
    "acosh",
    "lin_decay",
    "exp_decay",
    "gauss_decay",
];

fn expression(node: &Node<'_>, depth: usize) -> Result<Expression> {
    if depth > MAX_NESTING {
        return Err(too_deep(node, "expressions"));
    }
    let map = match node.value {
        Value::Number(_) => return node.f32().map(Expression::Constant),
        Value::String(name) => return Ok(Expression::Variable(name.clone())),
        Value::Object(map) => map,
        _ => return Err(node.error("expected a number, a variable or an expression")),
    };
    if looks_like_condition(node) {
        return Ok(Expression::Condition(Box::new(condition(node, depth)?)));
    }
    let Some(kind) = EXPRESSIONS.iter().find(|kind| map.contains_key(**kind)) else {
        let unknown = map.keys().next().map(String::as_str).unwrap_or_default();
        return Err(node.unknown(unknown, EXPRESSIONS));
    };
    node.fields(std::slice::from_ref(kind))?;
    let inner = node.required(kind)?;
    let operand = |node: &Node<'_>| expression(node, depth + 1).map(Box::new);
    let operands = || {
        inner
            .items()?
            .map(|item| expression(&item, depth + 1))
            .collect::<Result<Vec<_>>>()
    };
    Ok(match *kind {
        "geo_distance" => {
            inner.fields(&["origin", "to"])?;
            let origin = inner.required("origin")?;
            geo_point(&origin)?;
            Expression::GeoDistance {
                origin: origin.parse()?,
                to: inner.required("to")?.json_path()?,
            }
        }
        "datetime" => Expression::Datetime(inner.string()?.to_owned()),
        "datetime_key" => Expression::DatetimeKey(inner.json_path()?),
        "mult" => Expression::Mult(operands()?),
        "sum" => Expression::Sum(operands()?),
        "max" => Expression::Max(operands()?),
        "min" => Expression::Min(operands()?),
        "neg" => Expression::Neg(operand(&inner)?),
        "abs" => Expression::Abs(operand(&inner)?),
        "div" => {
            inner.fields(&["left", "right", "by_zero_default"])?;
            Expression::Div {
                left: operand(&inner.required("left")?)?,
                right: operand(&inner.required("right")?)?,
                by_zero_default: inner
                    .get("by_zero_default")
                    .map(|default| default.f32())
                    .transpose()?,
            }
        }
        "sqrt" => Expression::Sqrt(operand(&inner)?),
        "pow" => {
            inner.fields(&["base", "exponent"])?;
            Expression::Pow {
                base: operand(&inner.required("base")?)?,
                exponent: operand(&inner.required("exponent")?)?,
            }
        }
        "exp" => Expression::Exp(operand(&inner)?),
        "log10" => Expression::Log10(operand(&inner)?),
        "ln" => Expression::Ln(operand(&inner)?),
        "acosh" => Expression::Acosh(operand(&inner)?),
        decay => {
            inner.fields(&["x", "target", "scale", "midpoint"])?;
            let number = |key| inner.get(key).map(|number| number.f32()).transpose();
            Expression::Decay {
                kind: match decay {
                    "lin_decay" => DecayKind::Lin,
                    "exp_decay" => DecayKind::Exp,
                    _ => DecayKind::Gauss,
                },
                x: operand(&inner.required("x")?)?,
                target: inner
                    .get("target")
                    .map(|target| operand(&target))
                    .transpose()?,
                midpoint: number("midpoint")?,
                scale: number("scale")?,
            }
        }
    })
}
