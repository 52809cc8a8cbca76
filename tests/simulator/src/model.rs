//! What must be there: a shard as a plain map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

/// The payload field that tells every write of a point from all others.
pub const STAMP: &str = "n";

/// The payload field that is set in points that are there.
pub const MARK: &str = "mark";

/// Length of the vectors.
pub const DIMENSIONS: usize = 4;

/// A point with its default vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Dense, under the empty name.
    pub vector: Vec<f32>,
    /// A JSON object.
    pub payload: Map<String, Value>,
}

impl Point {
    /// The point that write number `stamp` makes.
    pub fn stamped(stamp: u64) -> Point {
        let vector = (0..DIMENSIONS as u64)
            .map(|dimension| ((stamp * 31 + dimension * 7) % 97) as f32 / 8.0)
            .collect();
        let Value::Object(payload) = json!({
            STAMP: stamp,
            "kind": if stamp.is_multiple_of(2) { "even" } else { "odd" },
        }) else {
            unreachable!("the macro makes an object");
        };
        Point { vector, payload }
    }
}

/// What a shard, or the server's collection, holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Points by id.
    pub points: BTreeMap<u64, Point>,
    /// Payload indexes: field name to type.
    pub indexes: BTreeMap<String, String>,
}

impl State {
    /// How `self` differs from `expected`, in a few lines; none if it does not.
    pub fn difference(&self, expected: &State) -> Option<String> {
        self.difference_but(expected, &BTreeSet::new())
    }

    /// As [`State::difference`], whatever there is of the points `but`.
    pub fn difference_but(&self, expected: &State, but: &BTreeSet<u64>) -> Option<String> {
        let mut lines = Vec::new();
        for (id, point) in expected.points.iter().filter(|(id, _)| !but.contains(id)) {
            match self.points.get(id) {
                None => lines.push(format!("point {id} is missing: {point:?}")),
                Some(found) if found != point => {
                    lines.push(format!("point {id} is {found:?}, expected {point:?}"));
                }
                Some(_) => {}
            }
        }
        for (id, point) in &self.points {
            if !expected.points.contains_key(id) && !but.contains(id) {
                lines.push(format!("point {id} should not be there: {point:?}"));
            }
        }
        if self.indexes != expected.indexes {
            lines.push(format!(
                "payload indexes are {:?}, expected {:?}",
                self.indexes, expected.indexes
            ));
        }
        lines.truncate(8);
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// What a write does to one point.
#[derive(Clone, Debug, PartialEq)]
pub enum PointChange {
    /// It is this point.
    Upsert(Arc<Point>),
    /// It is gone.
    Delete,
    /// These keys of the payload are set.
    Set(Map<String, Value>),
    /// The payload is this.
    Overwrite(Map<String, Value>),
    /// These keys of the payload are gone.
    Remove(Vec<String>),
}

impl PointChange {
    /// Does it to the point `id`; changes of a payload need one.
    pub fn apply(&self, points: &mut BTreeMap<u64, Point>, id: u64) {
        match self {
            PointChange::Upsert(point) => {
                points.insert(id, (**point).clone());
            }
            PointChange::Delete => {
                points.remove(&id);
            }
            change => {
                if let Some(point) = points.get_mut(&id) {
                    change.apply_to_payload(&mut point.payload);
                }
            }
        }
    }

    fn apply_to_payload(&self, payload: &mut Map<String, Value>) {
        match self {
            PointChange::Upsert(_) | PointChange::Delete => {}
            PointChange::Set(changes) => payload.extend(changes.clone()),
            PointChange::Overwrite(whole) => *payload = whole.clone(),
            PointChange::Remove(keys) => {
                for key in keys {
                    payload.shift_remove(key);
                }
            }
        }
    }
}

/// What a device's writes come to for one point, whatever it was before and whatever others do to it
/// meanwhile. Writes that are repeated from somewhere to the end come to the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fate {
    base: Base,
    /// Changes of the payload since: none for a key that was removed.
    changes: BTreeMap<String, Option<Value>>,
    /// The payload before the changes does not matter.
    overwritten: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
enum Base {
    /// Whatever it was.
    #[default]
    Before,
    /// It was deleted.
    Deleted,
    /// It was written.
    Written(Point),
}

impl Fate {
    /// One more write.
    pub fn then(&mut self, effect: &PointChange) {
        match effect {
            PointChange::Upsert(point) => {
                *self = Fate {
                    base: Base::Written((**point).clone()),
                    ..Fate::default()
                };
            }
            PointChange::Delete => {
                *self = Fate {
                    base: Base::Deleted,
                    ..Fate::default()
                };
            }
            change => {
                if let Base::Written(point) = &mut self.base {
                    change.apply_to_payload(&mut point.payload);
                    return;
                }
                match change {
                    PointChange::Set(changes) => {
                        let changes = changes.iter();
                        let changes =
                            changes.map(|(key, value)| (key.clone(), Some(value.clone())));
                        self.changes.extend(changes);
                    }
                    PointChange::Overwrite(whole) => {
                        self.overwritten = true;
                        let whole = whole.iter();
                        let whole = whole.map(|(key, value)| (key.clone(), Some(value.clone())));
                        self.changes = whole.collect();
                    }
                    PointChange::Remove(keys) => {
                        let keys = keys.iter().map(|key| (key.clone(), None));
                        self.changes.extend(keys);
                    }
                    PointChange::Upsert(_) | PointChange::Delete => {}
                }
            }
        }
    }

    /// Without what changes of the payload came to, for a point that was not there when one came.
    #[must_use]
    pub fn without_marks(mut self) -> Fate {
        if let Base::Written(point) = &mut self.base {
            point.payload.shift_remove(MARK);
        }
        self.changes.remove(MARK);
        self
    }
}

/// One write, as the component is asked for it.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// `shard.upsert`.
    Upsert(Vec<(u64, Point)>),
    /// `shard.delete`.
    Delete(Vec<u64>),
    /// `shard.request`, `POST /points/payload`, of points that exist.
    SetPayload(Vec<u64>, Map<String, Value>),
    /// `shard.batch`: upserts, then deletes, in one call that is all or nothing.
    Batch(Vec<(u64, Point)>, Vec<u64>),
    /// `shard.create-payload-index`.
    CreateIndex(String, String),
    /// `shard.delete-payload-index`.
    DeleteIndex(String),
}

impl Write {
    /// Does to `state` what the write does to a shard.
    pub fn apply(&self, state: &mut State) {
        match self {
            Write::Upsert(points) => state.points.extend(points.iter().cloned()),
            Write::Delete(ids) => state.points.retain(|id, _| !ids.contains(id)),
            Write::SetPayload(ids, payload) => {
                for id in ids {
                    if let Some(point) = state.points.get_mut(id) {
                        point.payload.extend(payload.clone());
                    }
                }
            }
            Write::Batch(points, ids) => {
                state.points.extend(points.iter().cloned());
                state.points.retain(|id, _| !ids.contains(id));
            }
            Write::CreateIndex(field, schema) => {
                state.indexes.insert(field.clone(), schema.clone());
            }
            Write::DeleteIndex(field) => {
                state.indexes.remove(field);
            }
        }
    }

    /// Does to `state` what is left of it after the sequence `barrier`, if its last operation has the
    /// sequence `last`: one operation for each point that is upserted, and one for all else.
    pub fn apply_after(&self, barrier: u64, last: u64, state: &mut State) {
        let rest = |points: &[(u64, Point)], others: u64| {
            let first = (last + 1).saturating_sub(points.len() as u64 + others);
            let done = usize::try_from((barrier + 1).saturating_sub(first)).unwrap_or(usize::MAX);
            points[done.min(points.len())..].to_vec()
        };
        match self {
            Write::Upsert(points) => Write::Upsert(rest(points, 0)).apply(state),
            Write::Batch(points, ids) => {
                let deletions = u64::from(!ids.is_empty());
                Write::Batch(rest(points, deletions), ids.clone()).apply(state);
            }
            whole => whole.apply(state),
        }
    }

    /// What it does to each point, in order.
    pub fn effects(&self) -> Vec<(u64, PointChange)> {
        let upserts = |points: &[(u64, Point)]| -> Vec<_> {
            let points = points.iter();
            points
                .map(|(id, point)| (*id, PointChange::Upsert(Arc::new(point.clone()))))
                .collect()
        };
        let deletions = |ids: &[u64]| ids.iter().map(|id| (*id, PointChange::Delete)).collect();
        match self {
            Write::Upsert(points) => upserts(points),
            Write::Delete(ids) => deletions(ids),
            Write::SetPayload(ids, payload) => ids
                .iter()
                .map(|id| (*id, PointChange::Set(payload.clone())))
                .collect(),
            Write::Batch(points, ids) => {
                let deletions: Vec<_> = deletions(ids);
                [upserts(points), deletions].concat()
            }
            Write::CreateIndex(..) | Write::DeleteIndex(_) => Vec::new(),
        }
    }

    /// The points that it upserts, by stamp.
    pub fn stamps(&self) -> Vec<(u64, u64)> {
        match self {
            Write::Upsert(points) | Write::Batch(points, _) => points
                .iter()
                .filter_map(|(id, point)| Some((*id, point.payload.get(STAMP)?.as_u64()?)))
                .collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_a_barrier_is_done_and_nothing_else() {
        let points: Vec<_> = (1..=3).map(|id| (id, Point::stamped(id))).collect();
        let done = |write: &Write, barrier| {
            let mut state = State::default();
            state.points.insert(9, Point::stamped(9));
            write.apply_after(barrier, 13, &mut state);
            state.points.into_keys().collect::<Vec<_>>()
        };
        let upsert = Write::Upsert(points.clone());
        assert_eq!(done(&upsert, 10), [1, 2, 3, 9]);
        assert_eq!(done(&upsert, 12), [3, 9]);
        let batch = Write::Batch(points, vec![9]);
        assert_eq!(done(&batch, 9), [1, 2, 3]);
        assert_eq!(done(&batch, 11), [3]);
        assert_eq!(done(&batch, 12), [0; 0]);
    }

    fn fate(effects: &[&PointChange]) -> Fate {
        let mut fate = Fate::default();
        effects.iter().for_each(|effect| fate.then(effect));
        fate
    }

    #[test]
    fn writes_that_are_repeated_to_their_end_come_to_the_same() {
        let mark = |mark: u64| {
            let payload = json!({ MARK: mark });
            PointChange::Set(payload.as_object().cloned().unwrap_or_default())
        };
        let (one, two) = (mark(1), mark(2));
        let upsert = PointChange::Upsert(Arc::new(Point::stamped(7)));
        for writes in [
            vec![&upsert, &one, &PointChange::Delete, &two],
            vec![&one, &two],
            vec![&PointChange::Delete, &one],
            vec![&one, &upsert],
        ] {
            for from in 0..writes.len() {
                let repeated = [&writes[..], &writes[from..]].concat();
                assert_eq!(fate(&repeated), fate(&writes), "{writes:?} from {from}");
            }
        }
        // A write that is left out, or out of order, is noticed.
        assert_ne!(fate(&[&one, &two]), fate(&[&one]));
        assert_ne!(fate(&[&one, &two]), fate(&[&two, &one]));
        assert_ne!(
            fate(&[&upsert, &PointChange::Delete]),
            fate(&[&PointChange::Delete, &upsert])
        );
        assert_ne!(fate(&[&PointChange::Delete]), fate(&[]));
        assert_eq!(fate(&[&upsert, &one]).without_marks(), fate(&[&upsert]));
    }
}
