//! From requests that write to operations: everything is checked and resolved here, before
//! anything is logged.

use std::collections::{HashMap, HashSet};

use qdrant_edge::{
    Condition as FilterCondition, EdgeConfig, Filter, HasIdCondition, RetrieveRequest,
    ScrollRequest, VectorNameConfig, WithPayloadInterface, WithVector,
};

use crate::config::MAX_NAMES;
use crate::error::{Error, Result, from_engine};
use crate::json::{Strictness, check_payload, parse_json_path};
use crate::operation::{Operation, UpdateMode};
use crate::point::{Point, PointId, Vectors};
use crate::shard::Shard;
use crate::vector;
use crate::write::{Condition, Part, Selector, Write, WriteKind};

/// Ids fetched at once while a filter is resolved.
const PAGE: usize = 50_000;

impl Shard {
    /// Checks a write against the shard as far as that is possible before its earlier steps are
    /// applied: names, kinds, dimensions, values, schemas.
    ///
    /// Errors: as [`Shard::prepare`].
    pub fn validate(&self, write: &Write) -> Result<()> {
        if write.strictness == Strictness::Server
            && write.parts.iter().any(|part| part.kind.is_empty())
        {
            return Err(Error::refused(400, "Bad request: Empty update request"));
        }
        let config = self.engine.config();
        write
            .parts
            .iter()
            .try_for_each(|part| validate_part(&config, part))
    }

    /// Checks a write, resolves its filters to point ids, and returns the operations to log and
    /// apply. Nothing is changed. If this succeeds, [`Shard::apply`] fails for storage reasons only.
    ///
    /// A write of several [`Write::steps`] is refused: prepare and apply them one after another
    /// (after [`Shard::validate`] of the whole).
    ///
    /// Errors: [`crate::Error::InvalidInput`], [`crate::Error::NotFound`] (a point whose payload or
    /// vectors are to be changed), [`crate::Error::AlreadyExists`] (a named vector).
    pub fn prepare(&self, write: Write) -> Result<Vec<Operation>> {
        if let Some(part) = write.second_step() {
            return Err(Error::invalid(
                part.at.trim_end_matches('.'),
                "selects points by what the operations before it leave behind; \
                 the batch must be prepared step by step",
            ));
        }
        self.validate(&write)?;
        let mut exists = HashMap::new();
        let mut operations = Vec::new();
        for part in write.parts {
            self.resolve(part, &mut exists, &mut operations)?;
        }
        Ok(operations)
    }

    /// As [`Shard::prepare`], for typed points.
    ///
    /// Errors: [`crate::Error::InvalidInput`], with paths that begin with `points[n]`.
    pub fn prepare_upsert(&self, points: Vec<Point>) -> Result<Vec<Operation>> {
        let config = self.engine.config();
        points
            .into_iter()
            .enumerate()
            .map(|(index, point)| {
                check_vectors(&config, &point.vectors, |name| vector_path("", index, name))?;
                if let Some(payload) = &point.payload {
                    check_payload(payload, 0).map_err(|message| {
                        Error::invalid(format!("points[{index}].payload"), message)
                    })?;
                }
                Ok(Operation::UpsertPoint(canonical_point(&config, point)))
            })
            .collect()
    }

    fn resolve(
        &self,
        part: Part,
        exists: &mut HashMap<PointId, bool>,
        operations: &mut Vec<Operation>,
    ) -> Result<()> {
        match part.kind {
            WriteKind::Upsert {
                points,
                columns: _,
                mode,
                condition,
            } => {
                let points = self.passing_upserts(points, mode, condition.as_ref())?;
                let config = self.engine.config();
                for point in points {
                    exists.insert(point.id, true);
                    let point = canonical_point(&config, point);
                    operations.push(if mode == UpdateMode::Upsert && condition.is_none() {
                        Operation::UpsertPoint(point)
                    } else {
                        Operation::UpsertPointIf {
                            point,
                            mode,
                            condition: condition.as_ref().map(|condition| condition.json.clone()),
                        }
                    });
                }
            }
            WriteKind::Delete(selector) => {
                let ids = self.selected(selector)?;
                exists.extend(ids.iter().map(|id| (*id, false)));
                push_for(operations, ids, |ids| Operation::DeletePoints { ids });
            }
            WriteKind::UpdateVectors { points, condition } => {
                let ids: Vec<_> = points.iter().map(|(id, _)| *id).collect();
                self.require(&ids, exists)?;
                let matching = match &condition {
                    None => None,
                    Some(condition) => Some(self.matching(&ids, &condition.filter)?),
                };
                let config = self.engine.config();
                for (id, vectors) in points {
                    let passes = matching.as_ref().is_none_or(|ids| ids.contains(&id));
                    if !passes || vectors.is_empty() {
                        continue;
                    }
                    operations.push(Operation::UpdateVectors {
                        id,
                        vectors: canonical_vectors(&config, vectors),
                        condition: condition.as_ref().map(|condition| condition.json.clone()),
                    });
                }
            }
            WriteKind::DeleteVectors { selector, names } => {
                let ids = self.selected_existing(selector, exists)?;
                push_for(operations, ids, |ids| Operation::DeleteVectors {
                    ids,
                    names,
                });
            }
            WriteKind::SetPayload {
                selector,
                payload,
                key,
            } => {
                let ids = self.selected_existing(selector, exists)?;
                push_for(operations, ids, |ids| Operation::SetPayload {
                    ids,
                    payload,
                    key,
                });
            }
            WriteKind::OverwritePayload {
                selector,
                payload,
                key,
            } => {
                let ids = self.selected_existing(selector, exists)?;
                push_for(operations, ids, |ids| Operation::OverwritePayload {
                    ids,
                    payload,
                    key,
                });
            }
            WriteKind::DeletePayload { selector, keys } => {
                let ids = self.selected_existing(selector, exists)?;
                push_for(operations, ids, |ids| Operation::DeletePayload {
                    ids,
                    keys,
                });
            }
            WriteKind::ClearPayload(selector) => {
                let ids = self.selected_existing(selector, exists)?;
                push_for(operations, ids, |ids| Operation::ClearPayload { ids });
            }
            WriteKind::CreatePayloadIndex { field, schema } => {
                self.room_for_index(&field)?;
                operations.push(Operation::CreatePayloadIndex { field, schema });
            }
            WriteKind::DeletePayloadIndex { field } => {
                operations.push(Operation::DeletePayloadIndex { field });
            }
            WriteKind::CreateVectorName { name, config, json } => {
                let (known, names) = {
                    let edge = self.engine.config();
                    let names = edge.vectors.len() + edge.sparse_vectors.len();
                    (known_vector(&edge, &name, &config), names)
                };
                match known {
                    ExistingVector::No if names >= MAX_NAMES => {
                        return Err(too_many("named vectors"));
                    }
                    ExistingVector::No => {
                        operations.push(Operation::CreateVectorName { name, config: json });
                    }
                    ExistingVector::Same => {}
                    ExistingVector::Different => {
                        return Err(Error::AlreadyExists(format!(
                            "Vector `{name}` already exists with a different configuration; \
                             delete it first"
                        )));
                    }
                }
            }
            WriteKind::DeleteVectorName {
                name,
                may_be_missing,
            } => {
                let config = self.engine.config();
                if !config.vectors.contains_key(&name) && !config.sparse_vectors.contains_key(&name)
                {
                    if may_be_missing {
                        return Ok(());
                    }
                    return Err(Error::NotFound(vector::unknown_name(&config, &name)));
                }
                operations.push(Operation::DeleteVectorName { name });
            }
        }
        Ok(())
    }

    /// Fails if the shard has as many payload indexes as it can have, and none of `field`.
    fn room_for_index(&self, field: &str) -> Result<()> {
        let schema = self
            .engine
            .info()
            .map_err(|error| from_engine("inspect the shard in", &self.dir, error))?
            .payload_schema;
        let known = parse_json_path(field).is_some_and(|path| schema.contains_key(&path));
        if !known && schema.len() >= MAX_NAMES {
            return Err(too_many("payload indexes"));
        }
        Ok(())
    }

    /// The points that a conditional upsert writes, judged by what the shard holds now.
    fn passing_upserts(
        &self,
        points: Vec<Point>,
        mode: UpdateMode,
        condition: Option<&Condition>,
    ) -> Result<Vec<Point>> {
        if mode == UpdateMode::Upsert && condition.is_none() {
            return Ok(points);
        }
        let ids: Vec<_> = points.iter().map(|point| point.id).collect();
        let existing = self.existing(&ids)?;
        let matching = match condition {
            // An insertion looks at nothing but existence.
            Some(condition) if mode != UpdateMode::InsertOnly => {
                self.matching(&ids, &condition.filter)?
            }
            _ => existing.clone(),
        };
        Ok(points
            .into_iter()
            .filter(|point| {
                if existing.contains(&point.id) {
                    mode != UpdateMode::InsertOnly && matching.contains(&point.id)
                } else {
                    mode != UpdateMode::UpdateOnly
                }
            })
            .collect())
    }

    /// Ids by list, or by filter.
    fn selected(&self, selector: Selector) -> Result<Vec<PointId>> {
        match selector.filter {
            None => Ok(unique(selector.ids)),
            Some(filter) => self.ids_by_filter(filter),
        }
    }

    /// As [`Shard::selected`]; listed points must exist.
    fn selected_existing(
        &self,
        selector: Selector,
        exists: &mut HashMap<PointId, bool>,
    ) -> Result<Vec<PointId>> {
        let by_list = selector.filter.is_none();
        let ids = self.selected(selector)?;
        if by_list {
            self.require(&ids, exists)?;
        }
        Ok(ids)
    }

    /// Fails for the first point that neither the shard nor the operations before hold.
    fn require(&self, ids: &[PointId], exists: &mut HashMap<PointId, bool>) -> Result<()> {
        let unknown: Vec<_> = ids
            .iter()
            .filter(|id| !exists.contains_key(id))
            .copied()
            .collect();
        let found = self.existing(&unknown)?;
        exists.extend(unknown.iter().map(|id| (*id, found.contains(id))));
        match ids.iter().find(|id| exists.get(id) != Some(&true)) {
            None => Ok(()),
            Some(id) => Err(Error::NotFound(format!("No point with id {id} found"))),
        }
    }

    /// Which of these points the shard holds.
    pub(crate) fn existing(&self, ids: &[PointId]) -> Result<HashSet<PointId>> {
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let request = RetrieveRequest {
            point_ids: ids.iter().copied().map(Into::into).collect(),
            with_payload: Some(WithPayloadInterface::Bool(false)),
            with_vector: Some(WithVector::Bool(false)),
        };
        let records = self
            .engine
            .retrieve(request)
            .map_err(|error| from_engine("look up points in", &self.dir, error))?;
        Ok(records.into_iter().map(|record| record.id.into()).collect())
    }

    /// Which of these points match a filter.
    fn matching(&self, ids: &[PointId], filter: &Filter) -> Result<HashSet<PointId>> {
        let listed: HasIdCondition = ids
            .iter()
            .copied()
            .map(qdrant_edge::PointId::from)
            .collect();
        let both = Filter {
            must: Some(vec![
                FilterCondition::HasId(listed),
                FilterCondition::Filter(filter.clone()),
            ]),
            ..Filter::default()
        };
        Ok(self.ids_by_filter(both)?.into_iter().collect())
    }

    /// Ids of all points that match a filter, in order.
    fn ids_by_filter(&self, filter: Filter) -> Result<Vec<PointId>> {
        let mut ids = Vec::new();
        let mut offset = None;
        loop {
            let request = ScrollRequest {
                offset,
                limit: Some(PAGE),
                filter: Some(filter.clone()),
                with_payload: Some(WithPayloadInterface::Bool(false)),
                with_vector: WithVector::Bool(false),
                order_by: None,
            };
            let (records, next) = self
                .engine
                .scroll(request)
                .map_err(|error| from_engine("resolve a filter in", &self.dir, error))?;
            ids.extend(records.into_iter().map(|record| PointId::from(record.id)));
            match next {
                None => return Ok(ids),
                next => offset = next,
            }
        }
    }
}

fn too_many(what: &str) -> Error {
    Error::Unsupported(format!(
        "a local shard has at most {MAX_NAMES} {what}: each takes some megabytes of memory"
    ))
}

fn push_for(
    operations: &mut Vec<Operation>,
    ids: Vec<PointId>,
    operation: impl FnOnce(Vec<PointId>) -> Operation,
) {
    if !ids.is_empty() {
        operations.push(operation(ids));
    }
}

fn unique(ids: Vec<PointId>) -> Vec<PointId> {
    let mut seen = HashSet::with_capacity(ids.len());
    ids.into_iter().filter(|id| seen.insert(*id)).collect()
}

fn validate_part(config: &EdgeConfig, part: &Part) -> Result<()> {
    let at = &part.at;
    match &part.kind {
        WriteKind::Upsert {
            points, columns, ..
        } => points.iter().enumerate().try_for_each(|(index, point)| {
            check_vectors(config, &point.vectors, |name| {
                if *columns && name.is_empty() {
                    format!("{at}batch.vectors[{index}]")
                } else if *columns {
                    format!("{at}batch.vectors.{name}[{index}]")
                } else {
                    vector_path(at, index, name)
                }
            })
        }),
        WriteKind::UpdateVectors { points, .. } => {
            points
                .iter()
                .enumerate()
                .try_for_each(|(index, (_, vectors))| {
                    check_vectors(config, vectors, |name| vector_path(at, index, name))
                })
        }
        WriteKind::DeleteVectors { names, .. } => {
            names.iter().enumerate().try_for_each(|(index, name)| {
                if config.vectors.contains_key(name) || config.sparse_vectors.contains_key(name) {
                    Ok(())
                } else {
                    Err(Error::invalid(
                        format!("{at}vector[{index}]"),
                        vector::unknown_name(config, name),
                    ))
                }
            })
        }
        // Parsing has checked these as far as they can be.
        WriteKind::Delete(_)
        | WriteKind::SetPayload { .. }
        | WriteKind::OverwritePayload { .. }
        | WriteKind::DeletePayload { .. }
        | WriteKind::ClearPayload(_)
        | WriteKind::CreatePayloadIndex { .. }
        | WriteKind::DeletePayloadIndex { .. }
        | WriteKind::CreateVectorName { .. }
        | WriteKind::DeleteVectorName { .. } => Ok(()),
    }
}

fn vector_path(at: &str, index: usize, name: &str) -> String {
    if name.is_empty() {
        format!("{at}points[{index}].vector")
    } else {
        format!("{at}points[{index}].vector.{name}")
    }
}

fn check_vectors(
    config: &EdgeConfig,
    vectors: &Vectors,
    path: impl Fn(&str) -> String,
) -> Result<()> {
    vectors.iter().try_for_each(|(name, vector)| {
        vector::check(config, name, vector)
            .and_then(|()| vector::check_fits(config, name, vector))
            .map_err(|message| Error::invalid(path(name), message))
    })
}

fn canonical_vectors(config: &EdgeConfig, vectors: Vectors) -> Vectors {
    vectors
        .into_iter()
        .map(|(name, vector)| {
            let vector = vector::canonical(config, &name, vector);
            (name, vector)
        })
        .collect()
}

fn canonical_point(config: &EdgeConfig, point: Point) -> Point {
    Point {
        vectors: canonical_vectors(config, point.vectors),
        ..point
    }
}

/// How a named vector to be created compares with what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExistingVector {
    No,
    Same,
    Different,
}

pub(crate) fn known_vector(
    config: &EdgeConfig,
    name: &str,
    wanted: &VectorNameConfig,
) -> ExistingVector {
    let dense = config.vectors.get(name);
    let sparse = config.sparse_vectors.get(name);
    let same = match (wanted, dense, sparse) {
        (_, None, None) => return ExistingVector::No,
        (VectorNameConfig::Dense(wanted), Some(known), _) => {
            known.size == wanted.dense.size
                && known.distance == wanted.dense.distance
                && known.multivector_config == wanted.dense.multivector_config
                && known.datatype == wanted.dense.datatype
        }
        (VectorNameConfig::Sparse(wanted), _, Some(known)) => {
            known.modifier == wanted.sparse.modifier && known.datatype == wanted.sparse.datatype
        }
        _ => false,
    };
    if same {
        ExistingVector::Same
    } else {
        ExistingVector::Different
    }
}
