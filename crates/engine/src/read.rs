//! Reads: requests to the engine, its answers as the REST `result`.

use std::collections::{BTreeMap, BTreeSet};

use qdrant_edge::{
    CountRequest, EdgeShardRead as _, FacetRequest, FacetValue, Filter, GroupRequest, OrderValue,
    QueryBatchRequest, Record, RetrieveRequest, SearchMatrixRequest, SearchMatrixResponse,
    VectorStructInternal, WithPayloadInterface, WithVector,
};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::allowance::Allowance;
use crate::error::{Error, Result, from_engine};
use crate::filter::{filter_value, search_params_value, with_payload, with_vector};
use crate::json::Node;
use crate::point::{Payload, PointId, ScoredPoint, StoredPoint, Vector, float_to_json};
use crate::query::{GroupsBody, Input, QueryBody, StoredVectors};
use crate::request::{MatrixForm, Read, ReadRequest};
use crate::shard::{ScrollPage, ScrollRequest, SearchRequest, Selection, Shard, Target};
use crate::vector;

impl Shard {
    /// Answers a read with the REST `result`.
    ///
    /// Errors: [`crate::Error::InvalidInput`] (vectors that do not fit, a missing index),
    /// [`crate::Error::NotFound`] (a point that a query names), storage errors.
    pub fn read(&self, request: ReadRequest) -> Result<Value> {
        match request.0 {
            Read::Query(body) => {
                let points = self.query(*body)?;
                Ok(json!({ "points": scored_list(points) }))
            }
            Read::QueryBatch(bodies) => {
                let count = || self.point_estimate();
                let mut allowance = Allowance::new(&count);
                let queries = bodies
                    .into_iter()
                    .map(|body| self.resolved(body, &mut allowance))
                    .collect::<Result<Vec<_>>>()?;
                let selections: Vec<WithVector> = queries
                    .iter()
                    .map(|query| query.with_vector.clone())
                    .collect();
                let results = self
                    .engine
                    .query_batch(QueryBatchRequest::new(queries))
                    .map_err(|error| self.failed("query", error))?;
                Ok(results
                    .into_iter()
                    .zip(&selections)
                    .map(|(points, selected)| unasked_vectors_removed(points, selected))
                    .map(|points| json!({ "points": scored_list(points) }))
                    .collect())
            }
            Read::Groups(body) => self.query_groups(*body),
            Read::Matrix {
                sample,
                limit,
                filter,
                using,
                form,
            } => self.matrix(sample, limit, filter, using, form),
            Read::Scroll {
                offset,
                limit,
                filter,
                with_payload,
                with_vector,
                order_by,
            } => {
                let limit = self.allowed("limit", limit, &with_vector)?;
                let request = qdrant_edge::ScrollRequest {
                    offset: offset.map(Into::into),
                    limit: Some(limit),
                    filter,
                    with_payload: Some(with_payload),
                    with_vector,
                    order_by: order_by.map(qdrant_edge::OrderByInterface::Struct),
                };
                let (records, next) = self
                    .engine
                    .scroll(request)
                    .map_err(|error| self.failed("scroll", error))?;
                Ok(json!({
                    "points": record_list(records),
                    "next_page_offset": next.map(|id| PointId::from(id).to_json()),
                }))
            }
            Read::Retrieve {
                ids,
                with_payload,
                with_vector,
            } => {
                self.allowed("ids", ids.len(), &with_vector)?;
                let records = self.retrieve_records(&ids, with_payload, with_vector)?;
                Ok(record_list(records))
            }
            Read::Point(id) => {
                let records = self.retrieve_records(
                    &[id],
                    WithPayloadInterface::Bool(true),
                    WithVector::Bool(true),
                )?;
                records
                    .into_iter()
                    .next()
                    .map(record)
                    .ok_or_else(|| Error::NotFound(format!("Point with id {id} does not exists!")))
            }
            Read::Count { filter, exact } => {
                Ok(json!({ "count": self.count_points(filter, exact)? }))
            }
            Read::Facet {
                key,
                limit,
                filter,
                exact,
            } => {
                let request = FacetRequest {
                    key,
                    limit,
                    filter,
                    exact,
                };
                let response = self
                    .engine
                    .facet(request)
                    .map_err(|error| self.failed("count values", error))?;
                let hits: Value = response
                    .hits
                    .into_iter()
                    .map(|hit| json!({ "value": facet_value(hit.value), "count": hit.count }))
                    .collect();
                Ok(json!({ "hits": hits }))
            }
        }
    }

    /// Points by id, in the order asked; ids that do not exist are left out.
    ///
    /// Errors: [`crate::Error::InvalidInput`] for a selection that is not understood; storage errors.
    pub fn retrieve(&self, ids: &[PointId], selection: &Selection) -> Result<Vec<StoredPoint>> {
        let (payload, vectors) = selected(selection)?;
        self.allowed("ids", ids.len(), &vectors)?;
        let records = self.retrieve_records(ids, payload, vectors)?;
        Ok(records.into_iter().map(stored_point).collect())
    }

    /// How many points one answer may hold with all their vectors; at least 1.
    pub fn points_an_answer(&self) -> usize {
        crate::allowance::points_an_answer(&self.engine.config())
    }

    /// The nearest points, best first.
    ///
    /// Errors: as [`Shard::read`].
    pub fn search(&self, request: SearchRequest) -> Result<Vec<ScoredPoint>> {
        let SearchRequest {
            target,
            filter,
            params,
            limit,
            offset,
            score_threshold,
            selection,
        } = request;
        at_least_one(limit)?;
        if score_threshold.is_some_and(|score| !score.is_finite()) {
            return Err(Error::invalid("score-threshold", "must be finite"));
        }
        let (with_payload, with_vector) = selected(&selection)?;
        let (using, input) = match target {
            Target::Vector { name, vector } => (name, Input::Vector(vector)),
            Target::Point { name, id } => (name, Input::Point(id)),
        };
        let body = QueryBody {
            with_payload,
            with_vector,
            ..QueryBody::nearest(
                input,
                using,
                filter.as_ref().map(filter_value).transpose()?,
                params.as_ref().map(search_params_value).transpose()?,
                limit,
            )
            .offset(offset)
            .score_threshold(score_threshold)
        };
        let points = self.query(body)?;
        Ok(points
            .into_iter()
            .map(|point| ScoredPoint {
                id: point.id.into(),
                version: point.version,
                score: point.score,
                vectors: vector::from_struct(point.vector),
                payload: point.payload.map(|payload| payload.0),
            })
            .collect())
    }

    /// One page of points in order of id.
    ///
    /// Errors: as [`Shard::read`].
    pub fn scroll(&self, request: ScrollRequest) -> Result<ScrollPage> {
        let ScrollRequest {
            offset,
            limit,
            filter,
            selection,
        } = request;
        at_least_one(limit)?;
        let (with_payload, with_vector) = selected(&selection)?;
        let limit = self.allowed("limit", limit, &with_vector)?;
        let request = qdrant_edge::ScrollRequest {
            offset: offset.map(Into::into),
            limit: Some(limit),
            filter: filter.as_ref().map(filter_value).transpose()?,
            with_payload: Some(with_payload),
            with_vector,
            order_by: None,
        };
        let (records, next) = self
            .engine
            .scroll(request)
            .map_err(|error| self.failed("scroll", error))?;
        Ok(ScrollPage {
            points: records.into_iter().map(stored_point).collect(),
            next: next.map(PointId::from),
        })
    }

    /// How many points match a REST `filter`, exactly; all of them without one.
    ///
    /// Errors: as [`Shard::read`].
    pub fn count(&self, filter: Option<&Value>) -> Result<u64> {
        let filter = filter.map(filter_value).transpose()?;
        Ok(self.count_points(filter, true)? as u64)
    }

    pub(crate) fn count_points(&self, filter: Option<Filter>, exact: bool) -> Result<usize> {
        self.engine
            .count(CountRequest { filter, exact })
            .map_err(|error| self.failed("count points", error))
    }

    fn failed(&self, what: &str, error: qdrant_edge::OperationError) -> Error {
        from_engine(&format!("{what} in"), &self.dir, error)
    }

    /// How many points there are: at least as many as any read returns.
    fn point_estimate(&self) -> Result<usize> {
        self.count_points(None, false)
    }

    /// How many points an answer to `wanted` of them can have.
    fn allowed(&self, field: &str, wanted: usize, with_vector: &WithVector) -> Result<usize> {
        let count = || self.point_estimate();
        let mut allowance = Allowance::new(&count);
        let granted = allowance.results(field, wanted)?;
        allowance.answer(field, granted, &self.engine.config(), with_vector)?;
        Ok(granted)
    }

    fn resolved(
        &self,
        body: QueryBody,
        allowance: &mut Allowance<'_>,
    ) -> Result<qdrant_edge::QueryRequest> {
        let config = self.engine.config().clone();
        body.resolve(&config, self, allowance)
    }

    fn query(&self, body: QueryBody) -> Result<Vec<qdrant_edge::ScoredPoint>> {
        let count = || self.point_estimate();
        let request = self.resolved(body, &mut Allowance::new(&count))?;
        let selected = request.with_vector.clone();
        let points = self
            .engine
            .query(request)
            .map_err(|error| self.failed("query", error))?;
        Ok(unasked_vectors_removed(points, &selected))
    }

    fn query_groups(&self, body: GroupsBody) -> Result<Value> {
        let GroupsBody {
            query,
            group_by,
            groups,
            group_size,
        } = body;
        let count = || self.point_estimate();
        let mut allowance = Allowance::new(&count);
        let query = self.resolved(query, &mut allowance)?;
        let groups = allowance.results("limit", groups)?;
        let group_size = allowance.results("group_size", group_size)?;
        let selected = query.with_vector.clone();
        let config = self.engine.config().clone();
        let hits = groups
            .saturating_mul(group_size)
            .min(self.point_estimate()?);
        allowance.answer("group_size", hits, &config, &selected)?;
        let groups = self
            .engine
            .query_groups(GroupRequest::new(query, group_by, groups, group_size))
            .map_err(|error| self.failed("query groups", error))?;
        let groups = groups
            .into_iter()
            .map(|group| {
                let id = serde_json::to_value(&group.key)
                    .map_err(|error| Error::Internal(format!("group id: {error}")))?;
                let hits = scored_list(unasked_vectors_removed(group.hits, &selected));
                Ok(json!({ "hits": hits, "id": id }))
            })
            .collect::<Result<Value>>()?;
        Ok(json!({ "groups": groups }))
    }

    fn matrix(
        &self,
        sample: usize,
        limit: usize,
        filter: Option<Filter>,
        using: String,
        form: MatrixForm,
    ) -> Result<Value> {
        {
            let config = self.engine.config();
            if !config.vectors.contains_key(&using) && !config.sparse_vectors.contains_key(&using) {
                return Err(Error::invalid(
                    "using",
                    vector::unknown_name(&config, &using),
                ));
            }
        }
        let count = || self.point_estimate();
        let mut allowance = Allowance::new(&count);
        let sample = allowance.results("sample", sample)?;
        // A row has at most the rest of the sample.
        let limit = limit.min(sample);
        allowance.matrix(sample, limit)?;
        let mut request = SearchMatrixRequest::new(sample, limit, using);
        request.filter = filter;
        let SearchMatrixResponse {
            sample_ids,
            nearests,
        } = self
            .engine
            .search_matrix(request)
            .map_err(|error| self.failed("compute a distance matrix", error))?;
        let rows = sample_ids.iter().zip(&nearests);
        Ok(match form {
            MatrixForm::Pairs => {
                let pairs: Value = rows
                    .flat_map(|(a, row)| {
                        row.iter().map(|b| {
                            json!({
                                "a": PointId::from(*a).to_json(),
                                "b": PointId::from(b.id).to_json(),
                                "score": float_to_json(b.score),
                            })
                        })
                    })
                    .collect();
                json!({ "pairs": pairs })
            }
            MatrixForm::Offsets => {
                let position: BTreeMap<PointId, usize> = sample_ids
                    .iter()
                    .enumerate()
                    .map(|(index, id)| (PointId::from(*id), index))
                    .collect();
                let (mut from, mut to, mut scores) = (Vec::new(), Vec::new(), Vec::new());
                for (row, (_, nearest)) in rows.enumerate() {
                    for point in nearest {
                        if let Some(column) = position.get(&PointId::from(point.id)) {
                            from.push(row);
                            to.push(*column);
                            scores.push(float_to_json(point.score));
                        }
                    }
                }
                let ids: Value = sample_ids
                    .iter()
                    .map(|id| PointId::from(*id).to_json())
                    .collect();
                json!({ "offsets_row": from, "offsets_col": to, "scores": scores, "ids": ids })
            }
        })
    }

    fn retrieve_records(
        &self,
        ids: &[PointId],
        with_payload: WithPayloadInterface,
        with_vector: WithVector,
    ) -> Result<Vec<Record>> {
        let request = RetrieveRequest {
            point_ids: ids.iter().copied().map(Into::into).collect(),
            with_payload: Some(with_payload),
            with_vector: Some(with_vector),
        };
        self.engine
            .retrieve(request)
            .map_err(|error| self.failed("retrieve points", error))
    }
}

impl StoredVectors for Shard {
    fn stored_vectors(
        &self,
        name: &str,
        ids: &BTreeSet<PointId>,
    ) -> Result<BTreeMap<PointId, Option<Vector>>> {
        let ids: Vec<_> = ids.iter().copied().collect();
        let records = self.retrieve_records(
            &ids,
            WithPayloadInterface::Bool(false),
            WithVector::Selector(vec![name.to_owned()]),
        )?;
        Ok(records
            .into_iter()
            .map(|record| {
                let vector = vector::from_struct(record.vector).remove(name);
                (PointId::from(record.id), vector)
            })
            .collect())
    }
}

fn at_least_one(limit: usize) -> Result<()> {
    if limit == 0 {
        return Err(Error::invalid(
            "limit",
            "value 0 invalid, must be 1 or larger",
        ));
    }
    Ok(())
}

/// A typed call's selection: nothing unless it is asked for.
fn selected(selection: &Selection) -> Result<(WithPayloadInterface, WithVector)> {
    let payload = match &selection.payload {
        None => WithPayloadInterface::Bool(false),
        Some(value) => with_payload(&Node::root("with_payload", value))?,
    };
    let vectors = match &selection.vectors {
        None => WithVector::Bool(false),
        Some(value) => with_vector(&Node::root("with_vector", value))?,
    };
    Ok((payload, vectors))
}

fn stored_point(record: Record) -> StoredPoint {
    StoredPoint {
        id: record.id.into(),
        vectors: vector::from_struct(record.vector),
        payload: record.payload.map(|payload| payload.0),
    }
}

/// The engine returns the vectors that it compared for MMR whether they were asked for or not; the
/// server does not.
fn unasked_vectors_removed(
    mut points: Vec<qdrant_edge::ScoredPoint>,
    selected: &WithVector,
) -> Vec<qdrant_edge::ScoredPoint> {
    for point in &mut points {
        match selected {
            WithVector::Bool(true) => {}
            WithVector::Bool(false) => point.vector = None,
            WithVector::Selector(names) => {
                if let Some(VectorStructInternal::Named(vectors)) = &mut point.vector {
                    vectors.retain(|name, _| names.contains(name));
                }
            }
        }
    }
    points
}

fn scored_list(points: Vec<qdrant_edge::ScoredPoint>) -> Value {
    points
        .into_iter()
        .map(|point| {
            let mut map = Map::new();
            map.insert("id".to_owned(), PointId::from(point.id).to_json());
            map.insert("version".to_owned(), point.version.into());
            map.insert("score".to_owned(), float_to_json(point.score));
            add_details(
                &mut map,
                point.payload.map(|payload| payload.0),
                point.vector,
                point.order_value,
            );
            Value::Object(map)
        })
        .collect()
}

fn record_list(records: Vec<Record>) -> Value {
    records.into_iter().map(record).collect()
}

fn record(record: Record) -> Value {
    let mut map = Map::new();
    map.insert("id".to_owned(), PointId::from(record.id).to_json());
    add_details(
        &mut map,
        record.payload.map(|payload| payload.0),
        record.vector,
        record.order_value,
    );
    Value::Object(map)
}

fn add_details(
    map: &mut Map<String, Value>,
    payload: Option<Payload>,
    vector: Option<VectorStructInternal>,
    order_value: Option<OrderValue>,
) {
    if let Some(payload) = payload {
        map.insert("payload".to_owned(), Value::Object(payload));
    }
    if let Some(vector) = vector {
        map.insert("vector".to_owned(), vector_to_json(vector));
    }
    if let Some(order_value) = order_value {
        map.insert("order_value".to_owned(), order_value.into());
    }
}

/// As the server prints it: bare for the default vector alone, by name otherwise.
fn vector_to_json(vector: VectorStructInternal) -> Value {
    let named = matches!(vector, VectorStructInternal::Named(_));
    let mut vectors = vector::from_struct(Some(vector));
    match vectors.remove("") {
        Some(default) if !named => default.to_json(),
        default => vectors
            .into_iter()
            .chain(default.map(|vector| (String::new(), vector)))
            .map(|(name, vector)| (name, vector.to_json()))
            .collect(),
    }
}

fn facet_value(value: FacetValue) -> Value {
    match value {
        FacetValue::Keyword(text) => Value::String(text),
        FacetValue::Int(number) => number.into(),
        FacetValue::Uuid(bits) => Value::String(Uuid::from_u128(bits).to_string()),
        FacetValue::Bool(flag) => Value::Bool(flag),
    }
}
