//! What a restored shard is looked through for, and what is put right in it.

use std::collections::HashSet;

use qdrant_edge::{
    Condition, EdgeConfig, Filter, HasIdCondition, PayloadOps, PointOperations, SetPayloadOp,
    UpdateOperation, WithPayloadInterface, WithVector,
};
use serde_json::Value;

use crate::error::{Error, Result, from_engine};
use crate::operation::Operation;
use crate::point::{Payload, Point, PointId, Vectors};
use crate::shard::{Selection, Shard};
use crate::vector;

/// Ids looked at together.
const IDS: usize = 4096;

/// Ids in one change.
const CHANGED_IDS: usize = 256;

/// Numbers (4 bytes each) that a page of points should come to, in vectors and payloads.
const PAGE_NUMBERS: usize = 1 << 20;

/// Most points in a page.
const PAGE_POINTS: usize = 256;

impl Shard {
    /// How many points the segments hold together, where one that two of them hold counts twice. Looks at no
    /// id.
    ///
    /// Errors: storage errors.
    pub fn copies(&self) -> Result<u64> {
        Ok(self.engine_info()?.points_count as u64)
    }

    /// Makes one point of each id that several segments hold. The copy of the highest version
    /// stays, as it is. A server's snapshot has such points if it was taken while an optimization
    /// ran. Returns how many copies were removed.
    ///
    /// Errors: storage errors.
    pub fn remove_duplicates(&self) -> Result<u64> {
        let copies = self.copies()?;
        if copies == self.count(None)? {
            return Ok(0);
        }
        let mut after = None;
        loop {
            let (ids, next) = self.ids_from(after, IDS)?;
            let mut doubled = Vec::new();
            self.find_doubled(&ids, &mut doubled)?;
            for ids in doubled.chunks(CHANGED_IDS) {
                self.join_copies(ids)?;
            }
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let left = self.copies()?;
        if left != self.count(None)? {
            return Err(Error::Internal(
                "some points are in several segments still".to_owned(),
            ));
        }
        Ok(copies.saturating_sub(left))
    }

    /// A page of ids, and where the next begins.
    fn ids_from(
        &self,
        from: Option<PointId>,
        limit: usize,
    ) -> Result<(Vec<PointId>, Option<PointId>)> {
        let (records, next) = self
            .engine
            .scroll(qdrant_edge::ScrollRequest {
                offset: from.map(Into::into),
                limit: Some(limit),
                filter: None,
                with_payload: Some(WithPayloadInterface::Bool(false)),
                with_vector: WithVector::Bool(false),
                order_by: None,
            })
            .map_err(|error| from_engine("list the points in", &self.dir, error))?;
        let ids = records.into_iter().map(|record| record.id.into()).collect();
        Ok((ids, next.map(Into::into)))
    }

    /// How many copies of these points there are in all segments together: an estimate from the ids
    /// alone is exact in each segment, and estimates are added up.
    fn copies_of(&self, ids: &[PointId]) -> Result<usize> {
        let ids: HasIdCondition = ids.iter().map(|id| (*id).into()).collect();
        self.count_points(Some(Filter::new_must(Condition::HasId(ids))), false)
    }

    fn find_doubled(&self, ids: &[PointId], doubled: &mut Vec<PointId>) -> Result<()> {
        if ids.is_empty() || self.copies_of(ids)? <= ids.len() {
            return Ok(());
        }
        if let [id] = ids {
            doubled.push(*id);
            return Ok(());
        }
        let (one, other) = ids.split_at(ids.len() / 2);
        self.find_doubled(one, doubled)?;
        self.find_doubled(other, doubled)
    }

    /// A change that changes nothing: before it changes a point, the engine removes all copies but
    /// the newest.
    fn join_copies(&self, ids: &[PointId]) -> Result<()> {
        self.update(UpdateOperation::PayloadOperation(PayloadOps::SetPayload(
            SetPayloadOp {
                payload: qdrant_edge::Payload::default(),
                points: Some(ids.iter().map(|id| (*id).into()).collect()),
                filter: None,
                key: None,
            },
        )))?;
        let mut equal = Vec::new();
        self.find_doubled(ids, &mut equal)?;
        if equal.is_empty() {
            return Ok(());
        }
        // Copies of one version, which the engine takes for equally new: written anew.
        let everything = Selection {
            payload: Some(Value::Bool(true)),
            vectors: Some(Value::Bool(true)),
        };
        for ids in equal.chunks(CHANGED_IDS.min(page_points(&self.engine.config()))) {
            let points = self.retrieve(ids, &everything)?;
            self.update(UpdateOperation::PointOperation(
                PointOperations::DeletePoints {
                    ids: ids.iter().map(|id| (*id).into()).collect(),
                },
            ))?;
            let points: Vec<Operation> = points
                .into_iter()
                .map(|point| {
                    Operation::UpsertPoint(Point {
                        id: point.id,
                        vectors: point.vectors,
                        payload: point.payload,
                    })
                })
                .collect();
            self.apply(points)?;
        }
        Ok(())
    }

    /// Which of these points the shard holds, in the order asked.
    ///
    /// Errors: storage errors.
    pub fn held(&self, ids: &[PointId]) -> Result<Vec<PointId>> {
        let mut held = Vec::new();
        for ids in ids.chunks(IDS) {
            let found: HashSet<PointId> = self
                .retrieve(ids, &Selection::default())?
                .into_iter()
                .map(|point| point.id)
                .collect();
            held.extend(ids.iter().filter(|id| found.contains(id)));
        }
        Ok(held)
    }

    /// Reads every point with its payload and vectors, so that damage shows. Memory is bounded
    /// whatever a point holds: pages follow the size of the points, and vectors that are too many
    /// for one answer are read in groups. Returns how many points there are.
    ///
    /// Errors: what reading fails with; [`Error::Corrupt`] if not all points that are counted can
    /// be read.
    pub fn read_through(&self) -> Result<u64> {
        let expected = self.count_points(None, true)?;
        let config = self.engine.config().clone();
        for (number, names) in groups(&config).into_iter().enumerate() {
            let read = self.read_group(&names, number == 0, page_points(&config))?;
            if read != expected {
                return Err(Error::Corrupt {
                    file: self.dir.display().to_string(),
                    offset: None,
                    message: format!("it counts {expected} points, but {read} can be read"),
                });
            }
        }
        Ok(expected as u64)
    }

    fn read_group(&self, names: &[String], payload: bool, page: usize) -> Result<usize> {
        let mut read = 0;
        let mut page = page;
        let mut offset = None;
        loop {
            let (records, next) = self
                .engine
                .scroll(qdrant_edge::ScrollRequest {
                    offset,
                    limit: Some(page),
                    filter: None,
                    with_payload: Some(WithPayloadInterface::Bool(payload)),
                    with_vector: WithVector::Selector(names.to_vec()),
                    order_by: None,
                })
                .map_err(|error| from_engine("read the points in", &self.dir, error))?;
            read += records.len();
            let numbers: usize = records
                .into_iter()
                .map(|record| {
                    let payload = record.payload.map(|payload| payload.0);
                    payload_numbers(payload) + vector_numbers(&vector::from_struct(record.vector))
                })
                .sum();
            page = next_page(page, numbers);
            match next {
                Some(next) => offset = Some(next),
                None => return Ok(read),
            }
        }
    }
}

/// Vector names in groups that one answer can hold of a page.
fn groups(config: &EdgeConfig) -> Vec<Vec<String>> {
    let mut groups = vec![Vec::new()];
    let mut numbers = 0;
    let mut names: Vec<(&String, usize)> = config
        .vectors
        .iter()
        .map(|(name, params)| (name, params.size))
        // How long they are shows only when they are read.
        .chain(config.sparse_vectors.keys().map(|name| (name, 0)))
        .collect();
    names.sort();
    for (name, size) in names {
        if numbers > 0 && numbers + size > PAGE_NUMBERS {
            groups.push(Vec::new());
            numbers = 0;
        }
        numbers += size;
        if let Some(group) = groups.last_mut() {
            group.push(name.clone());
        }
    }
    groups
}

/// How many points to begin with.
fn page_points(config: &EdgeConfig) -> usize {
    let size: usize = config.vectors.values().map(|params| params.size).sum();
    // Multivectors have any number of rows.
    (PAGE_NUMBERS / size.max(1)).clamp(1, PAGE_POINTS / 16)
}

/// The size of the next page, when one of `page` points came to so many numbers.
fn next_page(page: usize, numbers: usize) -> usize {
    let fitting = page.saturating_mul(PAGE_NUMBERS) / numbers.max(1);
    fitting.clamp(1, page.saturating_mul(2)).min(PAGE_POINTS)
}

fn vector_numbers(vectors: &Vectors) -> usize {
    vectors.values().map(|vector| vector.len()).sum()
}

/// What a payload takes in memory, in numbers of 4 bytes.
fn payload_numbers(payload: Option<Payload>) -> usize {
    fn weight(value: &Value) -> usize {
        // Some 32 bytes for the value itself.
        8 + match value {
            Value::String(text) => text.len() / 4,
            Value::Array(values) => values.iter().map(weight).sum(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| name.len() / 4 + weight(value))
                .sum(),
            _ => 0,
        }
    }
    payload.map_or(0, |payload| weight(&Value::Object(payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_the_size_of_the_points() {
        assert_eq!(next_page(16, 16 * 10), 32);
        assert_eq!(next_page(256, 256 * 10), PAGE_POINTS);
        assert_eq!(next_page(16, 16 * PAGE_NUMBERS), 1);
        assert_eq!(next_page(1, 100 * PAGE_NUMBERS), 1);
        assert_eq!(next_page(1, 0), 2);
    }
}
