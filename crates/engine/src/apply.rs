//! Operations into the engine.
//!
//! A log is replayed from an earlier position after a crash, onto a shard that may hold later
//! writes already. So an operation whose point, vector or index is gone does what it still can:
//! the later operation that took it away follows in the same replay.

use std::collections::HashSet;
use std::sync::PoisonError;

use qdrant_edge::{
    CreateIndex, CreateVectorName, DeletePayloadOp, DeleteVectorName, EdgeConfig,
    FieldIndexOperations, JsonPath, OperationError, PayloadFieldSchema, PayloadOps, PointIdsList,
    PointInsertOperations, PointOperations, PointStructPersisted, PointVectorsPersisted,
    SetPayloadOp, UpdateOperation, UpdateVectorsOp, VectorNameConfig, VectorNameOperations,
    VectorOperations, VectorStructPersisted,
};

use crate::error::{Error, Result, from_engine};
use crate::json::{Node, parse_json_path};
use crate::operation::Operation;
use crate::point::{Payload, Point, PointId, Vectors};
use crate::prepare::{ExistingVector, known_vector};
use crate::shard::Shard;
use crate::vector;
use crate::write::field_schema;

impl Shard {
    /// Applies prepared operations in order; consecutive upserts go to the engine as one update.
    /// Applying them again, or replaying a log from an earlier position, ends in the same state.
    ///
    /// Errors: storage errors; the shard must then be discarded and opened again.
    pub fn apply(&self, ops: Vec<Operation>) -> Result<()> {
        let _changing = self.begin_change();
        let mut run = Run::default();
        for op in ops {
            match op {
                Operation::UpsertPoint(point) | Operation::UpsertPointIf { point, .. } => {
                    if run.has(point.id) {
                        self.apply_upserts(run.take())?;
                    }
                    run.push(point);
                }
                op => {
                    self.apply_upserts(run.take())?;
                    self.apply_one(op)?;
                }
            }
        }
        self.apply_upserts(run.take())
    }

    fn apply_upserts(&self, points: Vec<Point>) -> Result<()> {
        if points.is_empty() {
            return Ok(());
        }
        let points = {
            let config = self.engine.config();
            points
                .into_iter()
                .map(|point| PointStructPersisted {
                    id: point.id.into(),
                    vector: fitting(&config, point.vectors),
                    payload: point.payload.map(qdrant_edge::Payload),
                })
                .collect()
        };
        self.update(UpdateOperation::PointOperation(
            PointOperations::UpsertPoints(PointInsertOperations::PointsList(points)),
        ))
    }

    fn apply_one(&self, op: Operation) -> Result<()> {
        match op {
            // Gathered by the caller.
            Operation::UpsertPoint(point) | Operation::UpsertPointIf { point, .. } => {
                self.apply_upserts(vec![point])
            }
            Operation::DeletePoints { ids } => self.update(UpdateOperation::PointOperation(
                PointOperations::DeletePoints {
                    ids: engine_ids(&ids),
                },
            )),
            Operation::UpdateVectors { id, vectors, .. } => {
                let vector = fitting(&self.engine.config(), vectors);
                if vector_count(&vector) == 0 {
                    return Ok(());
                }
                self.update_existing(&[id], |_| {
                    Ok(UpdateOperation::VectorOperation(
                        VectorOperations::UpdateVectors(UpdateVectorsOp {
                            points: vec![PointVectorsPersisted {
                                id: id.into(),
                                vector: vector.clone(),
                            }],
                            update_filter: None,
                        }),
                    ))
                })
            }
            Operation::DeleteVectors { ids, names } => {
                let names: Vec<_> = {
                    let config = self.engine.config();
                    let known = |name: &String| {
                        config.vectors.contains_key(name)
                            || config.sparse_vectors.contains_key(name)
                    };
                    names.into_iter().filter(known).collect()
                };
                if names.is_empty() {
                    return Ok(());
                }
                self.update_existing(&ids, |ids| {
                    Ok(UpdateOperation::VectorOperation(
                        VectorOperations::DeleteVectors(PointIdsList::from(ids), names.clone()),
                    ))
                })
            }
            Operation::SetPayload { ids, payload, key } => self.update_existing(&ids, |ids| {
                let op = set_payload(ids, &payload, key.as_ref())?;
                Ok(UpdateOperation::PayloadOperation(PayloadOps::SetPayload(
                    op,
                )))
            }),
            Operation::OverwritePayload { ids, payload, key } => {
                self.update_existing(&ids, |ids| {
                    let op = set_payload(ids, &payload, key.as_ref())?;
                    Ok(UpdateOperation::PayloadOperation(
                        PayloadOps::OverwritePayload(op),
                    ))
                })
            }
            Operation::DeletePayload { ids, keys } => {
                let keys = keys
                    .iter()
                    .map(|key| payload_path(key))
                    .collect::<Result<Vec<_>>>()?;
                self.update_existing(&ids, |ids| {
                    Ok(UpdateOperation::PayloadOperation(
                        PayloadOps::DeletePayload(DeletePayloadOp {
                            keys: keys.clone(),
                            points: Some(ids),
                            filter: None,
                        }),
                    ))
                })
            }
            Operation::ClearPayload { ids } => self.update_existing(&ids, |points| {
                Ok(UpdateOperation::PayloadOperation(
                    PayloadOps::ClearPayload { points },
                ))
            }),
            Operation::CreatePayloadIndex { field, schema } => {
                let field_name = payload_path(&field)?;
                let schema: PayloadFieldSchema =
                    field_schema(&Node::root("schema", &schema), &field_name)?;
                self.update(UpdateOperation::FieldIndexOperation(
                    FieldIndexOperations::CreateIndex(CreateIndex {
                        field_name,
                        field_schema: Some(schema),
                    }),
                ))
            }
            Operation::DeletePayloadIndex { field } => {
                self.update(UpdateOperation::FieldIndexOperation(
                    FieldIndexOperations::DeleteIndex(payload_path(&field)?),
                ))
            }
            Operation::CreateVectorName { name, config } => {
                let config: VectorNameConfig =
                    crate::config::vector_name_config(&Node::root("config", &config))?;
                self.create_vector(&name, config)
            }
            Operation::DeleteVectorName { name } => self.delete_vector(&name),
        }
    }

    fn create_vector(&self, name: &str, config: VectorNameConfig) -> Result<()> {
        if known_vector(&self.engine.config(), name, &config) != ExistingVector::No {
            return Ok(());
        }
        self.update(UpdateOperation::VectorNameOperation(
            VectorNameOperations::CreateVectorName(CreateVectorName {
                vector_name: name.to_owned(),
                config: config.clone(),
            }),
        ))?;
        let edge = self.engine.config().clone();
        let stated = self.config().with_vector(name, &config, edge)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = stated;
        Ok(())
    }

    fn delete_vector(&self, name: &str) -> Result<()> {
        self.update(UpdateOperation::VectorNameOperation(
            VectorNameOperations::DeleteVectorName(DeleteVectorName {
                vector_name: name.to_owned(),
            }),
        ))?;
        let edge = self.engine.config().clone();
        let stated = self.config().without_vector(name, edge);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = stated;
        Ok(())
    }

    pub(crate) fn update(&self, operation: UpdateOperation) -> Result<()> {
        self.engine
            .update(operation)
            .map_err(|error| from_engine("write to the shard in", &self.dir, error))
    }

    /// Updates points; those that do not exist are left out. The engine stops at the first one
    /// missing, with those after it undone.
    fn update_existing(
        &self,
        ids: &[PointId],
        operation: impl Fn(Vec<qdrant_edge::PointId>) -> Result<UpdateOperation>,
    ) -> Result<()> {
        match self.engine.update(operation(engine_ids(ids))?) {
            Ok(()) => Ok(()),
            Err(OperationError::PointIdError { .. }) => {
                let existing = self.existing(ids)?;
                let ids: Vec<_> = ids
                    .iter()
                    .filter(|id| existing.contains(id))
                    .copied()
                    .collect();
                if ids.is_empty() {
                    return Ok(());
                }
                self.update(operation(engine_ids(&ids))?)
            }
            Err(error) => Err(from_engine("write to the shard in", &self.dir, error)),
        }
    }
}

/// Points of different ids.
#[derive(Default)]
struct Run {
    points: Vec<Point>,
    greatest: Option<PointId>,
    /// Of the first points. Made when it is needed: most runs are in order of id.
    ids: HashSet<PointId>,
}

impl Run {
    fn has(&mut self, id: PointId) -> bool {
        if self.greatest.is_none_or(|greatest| greatest < id) {
            return false;
        }
        let new = self.points.get(self.ids.len()..).unwrap_or_default();
        self.ids.extend(new.iter().map(|point| point.id));
        self.ids.contains(&id)
    }

    fn push(&mut self, point: Point) {
        self.greatest = self.greatest.max(Some(point.id));
        self.points.push(point);
    }

    /// All of them; it is empty then.
    fn take(&mut self) -> Vec<Point> {
        std::mem::take(self).points
    }
}

fn engine_ids(ids: &[PointId]) -> Vec<qdrant_edge::PointId> {
    ids.iter().copied().map(Into::into).collect()
}

/// The vectors that the configuration has a place for now.
fn fitting(config: &EdgeConfig, vectors: Vectors) -> VectorStructPersisted {
    VectorStructPersisted::Named(
        vectors
            .into_iter()
            .filter(|(name, vector)| vector::check_place(config, name, vector).is_ok())
            .map(|(name, vector)| (name, vector::into_stored(vector)))
            .collect(),
    )
}

fn vector_count(vectors: &VectorStructPersisted) -> usize {
    match vectors {
        VectorStructPersisted::Named(named) => named.len(),
        VectorStructPersisted::Single(_) | VectorStructPersisted::MultiDense(_) => 1,
    }
}

fn set_payload(
    ids: Vec<qdrant_edge::PointId>,
    payload: &Payload,
    key: Option<&String>,
) -> Result<SetPayloadOp> {
    Ok(SetPayloadOp {
        payload: qdrant_edge::Payload(payload.clone()),
        points: Some(ids),
        filter: None,
        key: key.map(|key| payload_path(key)).transpose()?,
    })
}

fn payload_path(text: &str) -> Result<JsonPath> {
    parse_json_path(text).ok_or_else(|| Error::Corrupt {
        file: "log record".to_owned(),
        offset: None,
        message: format!("{text:?} is not a payload path"),
    })
}
