//! From a query to what the engine runs: points that it names by id are replaced by their stored
//! vectors and left out of the results, as the server does it.

use std::collections::{BTreeMap, BTreeSet};

use ordered_float::OrderedFloat;
use qdrant_edge::{
    Condition, ContextPair, ContextQuery, DiscoverQuery, EdgeConfig, FeedbackItem,
    FeedbackNaiveQuery, Filter, HasIdCondition, Mmr, NamedQuery, Prefetch, QueryEnum, QueryRequest,
    RecommendQuery, ScoringQuery, TextQueryBuilder, VectorInternal, VectorRef,
    avg_vector_for_recommendation,
};

use super::body::{Input, Query, QueryBody, Stage, Strategy};
use crate::allowance::Allowance;
use crate::error::{Error, Result};
use crate::json::parse_json_path;
use crate::point::{PointId, Vector};
use crate::vector;

/// The engine keeps a table of 8 bytes for each pair of candidates, so fewer fit a component than the
/// server takes.
const MMR_CANDIDATES_IN_MEMORY: usize = 4_096;
/// The engine keeps a copy of two vectors for each pair of examples; numbers in all of them.
const MAX_FEEDBACK_NUMBERS: usize = 1 << 25;

/// Looks up the vector `name` of points; ids that are missing, or lack the vector, are absent.
pub(crate) trait StoredVectors {
    fn stored_vectors(
        &self,
        name: &str,
        ids: &BTreeSet<PointId>,
    ) -> Result<BTreeMap<PointId, Option<Vector>>>;
}

impl QueryBody {
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
