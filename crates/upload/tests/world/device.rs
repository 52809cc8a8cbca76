//! A queue as the log keeps it: operations by sequence, the acknowledged position, the rejected log,
//! the binding. It outlives every uploader.

use std::collections::BTreeMap;
use std::convert::Infallible;

use edge_sync_upload::{
    Batch, Binding, Limits, Progress, Queue, Request, Standing, refusal_fingerprint, same_words,
};
use serde_json::{Value, json};

/// A queued operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `text` goes into the payload; `LARGE` is a long one.
    Upsert {
        id: u64,
        value: u64,
        text: String,
    },
    /// A vector of a dimension that the collection has not.
    BadUpsert {
        id: u64,
    },
    Delete {
        ids: Vec<u64>,
    },
    SetPayload {
        ids: Vec<u64>,
        value: u64,
        text: String,
    },
    UpdateVectors {
        id: u64,
        value: u64,
    },
    CreateIndex {
        field: String,
    },
    DropIndex {
        field: String,
    },
    CreateVector {
        name: String,
    },
    DropVector {
        name: String,
    },
}

impl Op {
    pub fn upsert(id: u64, value: u64) -> Self {
        let text = String::new();
        Self::Upsert { id, value, text }
    }

    pub fn set(ids: &[u64], value: u64) -> Self {
        Self::SetPayload {
            ids: ids.to_vec(),
            value,
            text: String::new(),
        }
    }

    /// The points that the operation is on.
    pub fn ids(&self) -> Vec<u64> {
        match self {
            Self::Upsert { id, .. } | Self::BadUpsert { id } | Self::UpdateVectors { id, .. } => {
                vec![*id]
            }
            Self::Delete { ids } | Self::SetPayload { ids, .. } => ids.clone(),
            _ => Vec::new(),
        }
    }

    /// The element of `points/batch` on some of the points; none if it has an endpoint of its own.
    fn element(&self, sequence: u64, ids: &[u64], present_only: bool) -> Option<Value> {
        let tag = [sequence];
        Some(match self {
            Self::Upsert { id, value, text } => json!({"upsert": {"tag": tag, "points": [{
                "id": id, "vector": [value, 1], "payload": {"v": value, "text": spelt_out(text)}
            }]}}),
            Self::BadUpsert { id } => json!({"upsert": {"tag": tag, "points": [{
                "id": id, "vector": [1, 2, 3]
            }]}}),
            Self::Delete { .. } => json!({"delete": {"tag": tag, "points": ids}}),
            Self::SetPayload { value, text, .. } if present_only => {
                json!({"set_payload": {"tag": tag, "payload": {"s": value, "t": spelt_out(text)},
                    "filter": {"must": [{"has_id": ids}]}}})
            }
            Self::SetPayload { value, text, .. } => {
                json!({"set_payload": {"tag": tag, "payload": {"s": value, "t": spelt_out(text)}, "points": ids}})
            }
            Self::UpdateVectors { id, value } => {
                json!({"update_vectors": {"tag": tag, "points": [{"id": id, "vector": [value, 1]}]}})
            }
            _ => return None,
        })
    }

    fn own_request(&self, sequence: u64) -> Request {
        let path = |path: &str| format!("{path}?wait=true&ordering=strong&tag={sequence}");
        match self {
            Self::CreateIndex { field } => Request::new(
                "PUT",
                path("/index"),
                json!({"field_name": field, "field_schema": "keyword"}).to_string(),
            ),
            Self::DropIndex { field } => {
                Request::new("DELETE", path(&format!("/index/{field}")), "")
            }
            Self::CreateVector { name } => Request::new(
                "PUT",
                path(&format!("/vectors/{name}")),
                json!({"dense": {"size": 2, "distance": "Dot"}}).to_string(),
            ),
            Self::DropVector { name } => {
                Request::new("DELETE", path(&format!("/vectors/{name}")), "")
            }
            other => panic!("{other:?} is an element of a batch"),
        }
    }
}

/// The text of a payload, as it is sent.
pub fn spelt_out(text: &str) -> String {
    text.replace("LARGE", &"x".repeat(3_000))
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Acknowledged,
    Rejected { status: u16, message: String },
}

/// The durable side of a device.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// Operations from sequence 1 on.
    pub log: Vec<Op>,
    pub acknowledged: u64,
    pub fates: BTreeMap<u64, Fate>,
    /// Operations that were acknowledged or put aside in the last call of either.
    pub news: Vec<u64>,
    pub restored: bool,
    pub binding: Option<Binding>,
    pub bound: u32,
}

pub const CONFIG: &str = r#"{"vectors": {"size": 2, "distance": "Dot"}}"#;

impl Device {
    pub fn new(log: Vec<Op>) -> Self {
        Self {
            log,
            ..Self::default()
        }
    }

    pub fn op(&self, sequence: u64) -> Option<&Op> {
        self.log
            .get(usize::try_from(sequence).ok()?.checked_sub(1)?)
    }

    /// A host sends the first operations by itself and acknowledges them.
    pub fn acknowledge_by_itself(&mut self, last: u64) {
        let Ok(()) = self.acknowledge(last);
    }

    /// Moves the first operation out of the way, as a person would.
    pub fn skip(&mut self) {
        let first = self.acknowledged + 1;
        self.put(first, "skipped by hand", 0);
    }

    pub fn rejected(&self) -> Vec<u64> {
        let rejected = |fate: &Fate| matches!(fate, Fate::Rejected { .. });
        self.fates
            .iter()
            .filter(|(_, fate)| rejected(fate))
            .map(|(sequence, _)| *sequence)
            .collect()
    }

    /// The words under which an operation was put aside.
    pub fn words(&self, sequence: u64) -> String {
        match self.fates.get(&sequence) {
            Some(Fate::Rejected { message, .. }) => message.clone(),
            other => panic!("{sequence} is {other:?}"),
        }
    }

    fn put(&mut self, sequence: u64, message: &str, status: u16) {
        assert_eq!(
            sequence,
            self.acknowledged + 1,
            "only the first is put aside"
        );
        let message = message.to_owned();
        self.fates
            .insert(sequence, Fate::Rejected { status, message });
        self.acknowledged = sequence;
        self.news.push(sequence);
    }
}

impl Queue for Device {
    type Error = Infallible;

    fn next_batch(
        &mut self,
        limits: Limits,
        until: Option<u64>,
        done: Option<Progress>,
    ) -> Result<Option<Batch>, Infallible> {
        let first = self.acknowledged + 1;
        let until = until.unwrap_or(u64::MAX);
        let done = done
            .filter(|done| done.sequence == first)
            .map_or(0, |done| done.points as usize);
        let mut elements: Vec<Value> = Vec::new();
        let (mut count, mut points, mut bytes) = (0, 0, 0);
        let mut sequence = first;
        while sequence <= until && count < limits.operations {
            let Some(op) = self.op(sequence) else { break };
            let ids = op.ids();
            // Of many, only the size counts.
            let many = ids.len() > 10_000;
            let some = &ids[..ids.len().min(10_000)];
            let Some(element) = op.element(sequence, some, false) else {
                if count == 0 {
                    return Ok(Some(Batch {
                        first,
                        last: first,
                        operations: 1,
                        points: 0,
                        rest: 0,
                        request: op.own_request(sequence),
                    }));
                }
                break;
            };
            let size = if many {
                8 * ids.len()
            } else {
                element.to_string().len() + 1
            };
            let too_much = ids.len() > limits.points as usize || size > limits.bytes as usize;
            let in_pieces = sequence == first && (done > 0 || limits.present_only);
            if in_pieces || (ids.len() > 1 && too_much) {
                if count > 0 {
                    break;
                }
                let each = (size / ids.len().max(1)).max(1);
                let fit = (limits.bytes as usize / each).max(1);
                let left = ids.len() - done.min(ids.len());
                let take = left.min(limits.points as usize).min(fit);
                let piece = &ids[ids.len() - left..][..take];
                let element = op.element(sequence, piece, limits.present_only);
                return Ok(Some(Batch {
                    first,
                    last: first,
                    operations: 1,
                    points: u32::try_from(take).unwrap(),
                    rest: u32::try_from(left - take).unwrap(),
                    request: batch_of(&[element.unwrap()]),
                }));
            }
            bytes += size;
            if count > 0 && bytes > limits.bytes as usize {
                break;
            }
            if count == 0 {
                points = ids.len();
            }
            count += 1;
            sequence += 1;
            join(&mut elements, element);
        }
        if count == 0 {
            return Ok(None);
        }
        Ok(Some(Batch {
            first,
            last: first + u64::from(count) - 1,
            operations: count,
            points: u32::try_from(points).unwrap(),
            rest: 0,
            request: batch_of(&elements),
        }))
    }

    fn acknowledge(&mut self, last: u64) -> Result<(), Infallible> {
        for sequence in self.acknowledged + 1..=last {
            self.fates.insert(sequence, Fate::Acknowledged);
            self.news.push(sequence);
        }
        self.acknowledged = self.acknowledged.max(last);
        // Nobody has said where.
        self.binding.get_or_insert_default();
        Ok(())
    }

    fn reject(&mut self, sequence: u64, status: u16, message: &str) -> Result<(), Infallible> {
        self.put(sequence, message, status);
        Ok(())
    }

    fn standing(&mut self) -> Result<Standing, Infallible> {
        let mut standing = Standing {
            acknowledged: self.acknowledged,
            restored: self.restored,
            binding: self.binding.clone(),
            config: CONFIG.to_owned(),
            creation: CONFIG.to_owned(),
            ..Standing::default()
        };
        for sequence in (1..=self.acknowledged).rev() {
            let Some(Fate::Rejected { status, message }) = self.fates.get(&sequence) else {
                break;
            };
            if refusal_fingerprint(message).is_none() {
                continue;
            }
            if standing.refused_in_a_row == 0 {
                (standing.refused_words, standing.refused_status) = (message.clone(), *status);
            } else if !same_words(&standing.refused_words, message) {
                continue;
            }
            standing.refused_in_a_row += 1;
        }
        Ok(standing)
    }

    fn changing_vectors(&mut self) -> Result<Vec<String>, Infallible> {
        Ok(Vec::new())
    }

    fn bind(&mut self, binding: &Binding) -> Result<(), Infallible> {
        self.binding = Some(binding.clone());
        self.bound += 1;
        Ok(())
    }
}

fn batch_of(elements: &[Value]) -> Request {
    let body = json!({ "operations": elements }).to_string();
    Request::new("POST", "/points/batch?wait=true&ordering=strong", body)
}

/// Upserts that follow one another become one element; the last write of a point wins.
fn join(elements: &mut Vec<Value>, element: Value) {
    if let (Some(last), Some(new)) = (
        elements.last_mut().and_then(|last| last.get_mut("upsert")),
        element.get("upsert"),
    ) {
        let tag = new["tag"][0].clone();
        last["tag"].as_array_mut().unwrap().push(tag);
        let point = new["points"][0].clone();
        let points = last["points"].as_array_mut().unwrap();
        points.retain(|other| other["id"] != point["id"]);
        points.push(point);
    } else {
        elements.push(element);
    }
}
