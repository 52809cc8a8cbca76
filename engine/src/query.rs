//! Universal queries: the bodies of `POST /points/query` and its kin, and what the engine runs.
//!
//! Parsing needs no shard. Resolving does: points that a query names by id are replaced by their
//! stored vectors and left out of the results, as the server does it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ordered_float::OrderedFloat;
use qdrant_edge::{
    Bm25Params, Condition, ContextPair, ContextQuery, DecayKind, DiscoverQuery, EdgeConfig,
    Expression, FeedbackItem, FeedbackNaiveQuery, Filter, Formula, Fusion, HasIdCondition,
    JsonPath, Mmr, NaiveFeedbackStrategy, NamedQuery, Prefetch, QueryEnum, QueryRequest,
    RecommendQuery, Sample, ScoringQuery, SearchParams, TextQueryBuilder, TextQueryScoring,
    VectorInternal, VectorRef, WithPayloadInterface, WithVector, avg_vector_for_recommendation,
};
use serde_json::Value;

use crate::allowance::Allowance;
use crate::error::{Error, Result};
use crate::filter::{
    condition, filter, geo_point, looks_like_condition, order_by, search_params, too_deep,
    with_payload, with_vector,
};
use crate::json::{MAX_NESTING, Node, parse_json_path, weight};
use crate::point::{PointId, Vector};
use crate::vector::{self, Embed};

/// The server's defaults.
const DEFAULT_LIMIT: usize = 10;
const DEFAULT_RRF_K: usize = 2;
const DEFAULT_MMR_DIVERSITY: f32 = 0.5;
/// The server's bound on MMR candidates.
const MAX_MMR_CANDIDATES: usize = 16_384;
/// The engine keeps a table of 8 bytes for each pair of candidates, so fewer fit a component.
const MMR_CANDIDATES_IN_MEMORY: usize = 4_096;
/// The engine keeps a copy of two vectors for each pair of examples; numbers in all of them.
const MAX_FEEDBACK_NUMBERS: usize = 1 << 25;
/// Bounds that keep sums and products of limits within 32 bits; no shard holds as many points.
const MAX_LIMIT: usize = 1 << 30;
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

/// A vector, or the id of the point that has it.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Vector(Vector),
    Point(PointId),
}

#[derive(Debug, Clone)]
pub(crate) enum Strategy {
    AverageVector,
    BestScore,
    SumScores,
}

#[derive(Debug, Clone)]
pub(crate) enum Query {
    Nearest(Input),
    Mmr {
        nearest: Input,
        diversity: f32,
        candidates: Option<usize>,
    },
    Recommend {
        positive: Vec<Input>,
        negative: Vec<Input>,
        strategy: Strategy,
    },
    Discover {
        target: Input,
        context: Vec<(Input, Input)>,
    },
    Context(Vec<(Input, Input)>),
    Feedback {
        target: Input,
        feedback: Vec<(Input, f32)>,
        strategy: NaiveFeedbackStrategy,
    },
    /// BM25 over the text index of the payload field that `using` names.
    Text {
        text: String,
        scoring: Option<TextQueryScoring>,
    },
    /// Needs no vectors.
    Ready(Box<ScoringQuery>),
}

/// A query with its prefetches.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// What its parts are called in the request, for messages.
    field: StageFields,
    prefetches: Vec<Stage>,
    query: Option<Query>,
    using: String,
    filter: Option<Filter>,
    /// How many JSON values the filter is made of: what a copy of it costs.
    filter_weight: usize,
    params: Option<SearchParams>,
    score_threshold: Option<f32>,
    limit: usize,
}

/// Paths of a stage's parts.
#[derive(Debug, Clone)]
struct StageFields {
    query: String,
    using: String,
    filter: String,
    limit: String,
}

/// The body of `POST /points/query`.
#[derive(Debug, Clone)]
pub(crate) struct QueryBody {
    pub(crate) stage: Stage,
    pub(crate) offset: usize,
    pub(crate) with_payload: WithPayloadInterface,
    pub(crate) with_vector: WithVector,
}

/// The body of `POST /points/query/groups`.
#[derive(Debug, Clone)]
pub(crate) struct GroupsBody {
    pub(crate) query: QueryBody,
    pub(crate) group_by: JsonPath,
    pub(crate) groups: usize,
    pub(crate) group_size: usize,
}

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

/// Looks up the vector `name` of points; ids that are missing, or lack the vector, are absent.
pub(crate) trait StoredVectors {
    fn stored_vectors(
        &self,
        name: &str,
        ids: &BTreeSet<PointId>,
    ) -> Result<BTreeMap<PointId, Option<Vector>>>;
}

impl QueryBody {
    /// A nearest-neighbour search.
    pub(crate) fn nearest(
        input: Input,
        using: String,
        filter: Option<Filter>,
        params: Option<SearchParams>,
        limit: usize,
    ) -> Self {
        Self {
            stage: Stage {
                field: StageFields {
                    query: "target".to_owned(),
                    using: "target".to_owned(),
                    filter: "filter".to_owned(),
                    limit: "limit".to_owned(),
                },
                prefetches: Vec::new(),
                query: Some(Query::Nearest(input)),
                using,
                filter,
                filter_weight: 0,
                params,
                score_threshold: None,
                limit: limit.min(MAX_LIMIT),
            },
            offset: 0,
            with_payload: WithPayloadInterface::Bool(false),
            with_vector: WithVector::Bool(false),
        }
    }

    pub(crate) fn offset(self, offset: usize) -> Self {
        Self {
            offset: offset.min(MAX_LIMIT),
            ..self
        }
    }

    pub(crate) fn score_threshold(mut self, threshold: Option<f32>) -> Self {
        self.stage.score_threshold = threshold;
        self
    }

    /// The engine's form of the request.
    pub(crate) fn resolve(
        self,
        config: &EdgeConfig,
        stored: &impl StoredVectors,
        allowance: &mut Allowance<'_>,
    ) -> Result<QueryRequest> {
        let Self {
            stage,
            offset,
            with_payload,
            with_vector,
        } = self;
        let offset = allowance.results("offset", offset)?;
        let limit_field = stage.field.limit.clone();
        let resolved = stage.resolve(config, stored, allowance, 0)?;
        allowance.answer(&limit_field, resolved.limit, config, &with_vector)?;
        Ok(QueryRequest {
            prefetches: resolved.prefetches,
            query: resolved.query,
            filter: resolved.filter,
            score_threshold: resolved.score_threshold,
            limit: resolved.limit,
            offset,
            params: resolved.params,
            with_vector,
            with_payload,
        })
    }
}

impl Stage {
    /// `inherited` is the weight of the filters above, which the engine copies to every leaf.
    fn resolve(
        self,
        config: &EdgeConfig,
        stored: &impl StoredVectors,
        allowance: &mut Allowance<'_>,
        inherited: usize,
    ) -> Result<Prefetch> {
        // Before the prefetches are consumed: their points are left out here as well.
        let named = self.referenced();
        let Self {
            field,
            prefetches,
            query,
            using,
            filter,
            filter_weight,
            params,
            score_threshold,
            limit,
        } = self;
        let limit = allowance.results(&field.limit, limit)?;
        let weight = inherited + filter_weight + named.len();
        if prefetches.is_empty() && inherited > 0 {
            allowance.copied_filter(&field.filter, weight)?;
        }
        let prefetches = prefetches
            .into_iter()
            .map(|prefetch| prefetch.resolve(config, stored, allowance, weight))
            .collect::<Result<_>>()?;
        let query = match query {
            None => None,
            Some(query) => Some(
                Resolver {
                    config,
                    path: &field.query,
                    using_field: &field.using,
                    using: &using,
                    known: BTreeMap::new(),
                    allowance,
                }
                .scoring(query, limit, stored)?,
            ),
        };
        Ok(Prefetch {
            prefetches,
            query,
            limit,
            params,
            filter: without(named, filter),
            score_threshold,
        })
    }

    /// Ids of the points that this query or one of its prefetches is about.
    fn referenced(&self) -> BTreeSet<PointId> {
        let mut ids: BTreeSet<_> = self.query.iter().flat_map(Query::points).collect();
        for prefetch in &self.prefetches {
            ids.append(&mut prefetch.referenced());
        }
        ids
    }
}

/// The filter, and not these points.
fn without(ids: BTreeSet<PointId>, filter: Option<Filter>) -> Option<Filter> {
    if ids.is_empty() {
        return filter;
    }
    let ids: HasIdCondition = ids.into_iter().map(qdrant_edge::PointId::from).collect();
    let others = Filter::new_must_not(Condition::HasId(ids));
    Filter::merge_opts(Some(others), filter)
}

impl Query {
    fn inputs(&self) -> Vec<&Input> {
        match self {
            Self::Nearest(input) | Self::Mmr { nearest: input, .. } => vec![input],
            Self::Recommend {
                positive, negative, ..
            } => positive.iter().chain(negative).collect(),
            Self::Discover { target, context } => std::iter::once(target)
                .chain(pair_inputs(context))
                .collect(),
            Self::Context(context) => pair_inputs(context).collect(),
            Self::Feedback {
                target, feedback, ..
            } => std::iter::once(target)
                .chain(feedback.iter().map(|(input, _)| input))
                .collect(),
            Self::Text { .. } | Self::Ready(_) => Vec::new(),
        }
    }

    fn points(&self) -> BTreeSet<PointId> {
        self.inputs()
            .into_iter()
            .filter_map(|input| match input {
                Input::Point(id) => Some(*id),
                Input::Vector(_) => None,
            })
            .collect()
    }
}

fn pair_inputs(pairs: &[(Input, Input)]) -> impl Iterator<Item = &Input> {
    pairs
        .iter()
        .flat_map(|(positive, negative)| [positive, negative])
}

/// Turns inputs of one query into vectors.
struct Resolver<'a, 'b> {
    config: &'a EdgeConfig,
    path: &'a str,
    using_field: &'a str,
    using: &'a str,
    known: BTreeMap<PointId, Option<Vector>>,
    allowance: &'a mut Allowance<'b>,
}

impl Resolver<'_, '_> {
    fn scoring(
        mut self,
        query: Query,
        limit: usize,
        stored: &impl StoredVectors,
    ) -> Result<ScoringQuery> {
        let query = match query {
            Query::Ready(query) => return Ok(*query),
            Query::Text { text, scoring } => {
                let field = parse_json_path(self.using).ok_or_else(|| {
                    Error::invalid(
                        self.using_field,
                        "a text query needs the path of a payload field with a text index",
                    )
                })?;
                let query = TextQueryBuilder::new(field, text);
                return Ok(match scoring {
                    None => query.build(),
                    Some(scoring) => query.scoring(scoring).build(),
                });
            }
            query => query,
        };
        if !self.config.vectors.contains_key(self.using)
            && !self.config.sparse_vectors.contains_key(self.using)
        {
            return Err(Error::invalid(
                self.using_field,
                vector::unknown_name(self.config, self.using),
            ));
        }
        let points = query.points();
        if !points.is_empty() {
            self.known = stored.stored_vectors(self.using, &points)?;
        }
        let using = self.using.to_owned();
        Ok(match query {
            Query::Nearest(input) => vector_query(QueryEnum::Nearest(NamedQuery::new(
                self.vector(input)?,
                using,
            ))),
            Query::Mmr {
                nearest,
                diversity,
                candidates,
            } => {
                if !self.config.vectors.contains_key(self.using) {
                    return Err(Error::Unsupported(format!(
                        "{}.mmr: the engine computes MMR over dense vectors only",
                        self.path
                    )));
                }
                let field = format!("{}.mmr.candidates_limit", self.path);
                let candidates = self
                    .allowance
                    .results(&field, candidates.unwrap_or(limit))?;
                if candidates > MMR_CANDIDATES_IN_MEMORY {
                    return Err(Error::invalid(
                        field,
                        format!(
                            "MMR compares candidates pairwise, and {candidates} (the query's limit \
                             where nothing else is set) do not fit a component's memory; \
                             {MMR_CANDIDATES_IN_MEMORY} do"
                        ),
                    ));
                }
                ScoringQuery::Mmr(Mmr {
                    vector: self.vector(nearest)?,
                    using,
                    lambda: OrderedFloat(1.0 - diversity),
                    candidates_limit: candidates,
                })
            }
            Query::Recommend {
                positive,
                negative,
                strategy,
            } => {
                let positives = self.vectors(positive)?;
                let negatives = self.vectors(negative)?;
                match strategy {
                    Strategy::AverageVector => {
                        let average = avg_vector_for_recommendation(
                            positives.iter().map(VectorRef::from),
                            negatives.iter().map(VectorRef::from).peekable(),
                        )
                        .map_err(|error| Error::invalid(self.path, error.to_string()))?;
                        vector_query(QueryEnum::Nearest(NamedQuery::new(average, using)))
                    }
                    Strategy::BestScore => vector_query(QueryEnum::RecommendBestScore(
                        NamedQuery::new(RecommendQuery::new(positives, negatives), using),
                    )),
                    Strategy::SumScores => vector_query(QueryEnum::RecommendSumScores(
                        NamedQuery::new(RecommendQuery::new(positives, negatives), using),
                    )),
                }
            }
            Query::Discover { target, context } => {
                let target = self.vector(target)?;
                let pairs = self.pairs(context)?;
                vector_query(QueryEnum::Discover(NamedQuery::new(
                    DiscoverQuery::new(target, pairs),
                    using,
                )))
            }
            Query::Context(context) => {
                let pairs = self.pairs(context)?;
                vector_query(QueryEnum::Context(NamedQuery::new(
                    ContextQuery::new(pairs),
                    using,
                )))
            }
            Query::Feedback {
                target,
                feedback,
                strategy,
            } => {
                let before = self.allowance.numbers_left();
                let target = self.vector(target)?;
                let feedback: Vec<_> = feedback
                    .into_iter()
                    .map(|(example, score)| {
                        Ok(FeedbackItem {
                            vector: self.vector(example)?,
                            score: OrderedFloat(score),
                        })
                    })
                    .collect::<Result<_>>()?;
                let numbers = before - self.allowance.numbers_left();
                if feedback.len().saturating_mul(numbers) > MAX_FEEDBACK_NUMBERS {
                    return Err(Error::invalid(
                        format!("{}.relevance_feedback.feedback", self.path),
                        format!(
                            "the engine keeps the vectors of every pair of examples; \
                             {} examples with {numbers} numbers are too many",
                            feedback.len()
                        ),
                    ));
                }
                let query = FeedbackNaiveQuery {
                    target,
                    feedback,
                    coefficients: strategy,
                };
                vector_query(QueryEnum::FeedbackNaive(NamedQuery::new(query, using)))
            }
            Query::Text { .. } | Query::Ready(_) => {
                return Err(Error::Internal("a query without vectors".to_owned()));
            }
        })
    }

    fn vector(&mut self, input: Input) -> Result<VectorInternal> {
        let vector = match input {
            Input::Vector(vector) => vector,
            Input::Point(id) => match self.known.get(&id) {
                None => return Err(Error::NotFound(format!("No point with id {id} found"))),
                Some(None) => {
                    return Err(Error::NotFound(format!(
                        "point {id} has no vector `{}`",
                        self.using
                    )));
                }
                Some(Some(vector)) => vector.clone(),
            },
        };
        vector::check(self.config, self.using, &vector)
            .map_err(|message| Error::invalid(self.path, message))?;
        self.allowance.numbers(self.path, vector.len())?;
        vector::into_query(vector::canonical(self.config, self.using, vector))
    }

    fn vectors(&mut self, inputs: Vec<Input>) -> Result<Vec<VectorInternal>> {
        inputs.into_iter().map(|input| self.vector(input)).collect()
    }

    fn pairs(&mut self, pairs: Vec<(Input, Input)>) -> Result<Vec<ContextPair<VectorInternal>>> {
        pairs
            .into_iter()
            .map(|(positive, negative)| {
                Ok(ContextPair {
                    positive: self.vector(positive)?,
                    negative: self.vector(negative)?,
                })
            })
            .collect()
    }
}

fn vector_query(query: QueryEnum) -> ScoringQuery {
    ScoringQuery::Vector(query)
}
