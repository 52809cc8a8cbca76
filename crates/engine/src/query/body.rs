//! What a query is, once parsed: a stage with its prefetches.

use std::collections::BTreeSet;

use qdrant_edge::{
    Filter, JsonPath, NaiveFeedbackStrategy, ScoringQuery, SearchParams, TextQueryScoring,
    WithPayloadInterface, WithVector,
};

use crate::point::{PointId, Vector};

/// A bound that keeps sums and products of limits within 32 bits; no shard holds as many points.
pub(super) const MAX_LIMIT: usize = 1 << 30;

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
    pub(super) field: StageFields,
    pub(super) prefetches: Vec<Stage>,
    pub(super) query: Option<Query>,
    pub(super) using: String,
    pub(super) filter: Option<Filter>,
    /// How many JSON values the filter is made of: what a copy of it costs.
    pub(super) filter_weight: usize,
    pub(super) params: Option<SearchParams>,
    pub(super) score_threshold: Option<f32>,
    pub(super) limit: usize,
}

/// Paths of a stage's parts.
#[derive(Debug, Clone)]
pub(super) struct StageFields {
    pub(super) query: String,
    pub(super) using: String,
    pub(super) filter: String,
    pub(super) limit: String,
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
}

impl Stage {
    /// Ids of the points that this query or one of its prefetches is about.
    pub(super) fn referenced(&self) -> BTreeSet<PointId> {
        let mut ids: BTreeSet<_> = self.query.iter().flat_map(Query::points).collect();
        for prefetch in &self.prefetches {
            ids.append(&mut prefetch.referenced());
        }
        ids
    }
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

    pub(super) fn points(&self) -> BTreeSet<PointId> {
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
