//! Commands that write by a REST body, and what they say of it.

use edge_sync_host::{Error, PointId, Selection, Shard};
use percent_encoding::{NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::{Value, json};

use crate::arguments::{self, Delete, Payload, PayloadOperation, Vectors};
use crate::input::{self, Body};
use crate::output::{counted, grouped};
use crate::session::Session;
use crate::shard::{receipt_json, whole_body};

/// Absent ids that are named one by one.
const NAMED: usize = 5;

/// What a write came to.
struct Outcome {
    /// Points before and after.
    points: (u64, u64),
    /// Points that the body names, by id or by filter; none where it is not that kind of body.
    named: Option<u64>,
    sequence: u64,
    /// False if there was nothing to log: no point matches.
    is_logged: bool,
}

impl Session {
    pub fn delete(&self, arguments: &Delete) -> Result<u8, Error> {
        if let Some(filter) = &arguments.filter {
            let body = Body::of(json!({ "filter": input::filter(filter)? }));
            return self.delete_body(&body);
        }
        match whole_body(&arguments.ids, arguments.body.as_deref(), "points")? {
            Some(body) => self.delete_body(&body),
            None => self.delete_ids(&arguments.ids),
        }
    }

    fn delete_body(&self, body: &Body) -> Result<u8, Error> {
        self.change("POST", "/points/delete", body, |outcome| {
            let (before, after) = outcome.points;
            match before.saturating_sub(after) {
                0 => "deleted no point".to_owned(),
                gone => format!("deleted {}", counted(gone, "point")),
            }
        })
    }

    fn delete_ids(&self, texts: &[String]) -> Result<u8, Error> {
        let mut ids: Vec<PointId> = Vec::new();
        for text in texts {
            let id = input::point_id(text)?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let edge = self.open()?;
        let said = delete_ids(edge.shard(), ids).and_then(|(value, text)| {
            self.output.say(&value, &text)?;
            Ok(0)
        });
        self.close_after(said, edge)
    }

    pub fn upsert_body(&self, body: &Body) -> Result<u8, Error> {
        let has_condition = ["update_mode", "update_filter"]
            .iter()
            .any(|field| body.json.get(field).is_some_and(|value| !value.is_null()));
        self.change("PUT", "/points", body, |outcome| {
            let (before, after) = outcome.points;
            match outcome.named {
                Some(points) if !has_condition => format!("upserted {}", counted(points, "point")),
                Some(points) => format!(
                    "upserted those of {} for which the condition holds, {} before and {} after",
                    counted(points, "point"),
                    counted(before, "point"),
                    grouped(after)
                ),
                None => format!(
                    "upserted, {} before and {} after",
                    counted(before, "point"),
                    grouped(after)
                ),
            }
        })
    }

    pub fn batch(&self, body: &arguments::Body) -> Result<u8, Error> {
        let body = Body::read(body.file.as_deref())?;
        let operations = body.json["operations"].as_array().map_or(0, Vec::len) as u64;
        self.change("POST", "/points/batch", &body, |outcome| {
            let (before, after) = outcome.points;
            format!(
                "applied {}, {} before and {} after",
                counted(operations, "operation"),
                counted(before, "point"),
                grouped(after)
            )
        })
    }

    pub fn payload(&self, arguments: &Payload) -> Result<u8, Error> {
        let (method, path) = arguments.operation.endpoint();
        let done = match arguments.operation {
            PayloadOperation::Set => "set the payload",
            PayloadOperation::Overwrite => "replaced the payload",
            PayloadOperation::Delete => "removed fields from the payload",
            PayloadOperation::Clear => "cleared the payload",
        };
        let body = Body::read(arguments.body.file.as_deref())?;
        self.change(method, path, &body, |outcome| of_points(done, outcome))
    }

    pub fn vectors(&self, command: &Vectors) -> Result<u8, Error> {
        match command {
            Vectors::Update(body) => {
                let body = Body::read(body.file.as_deref())?;
                self.change("PUT", "/points/vectors", &body, |outcome| {
                    of_points("replaced vectors", outcome)
                })
            }
            Vectors::Delete(body) => {
                let body = Body::read(body.file.as_deref())?;
                self.change("POST", "/points/vectors/delete", &body, |outcome| {
                    of_points("removed vectors", outcome)
                })
            }
            Vectors::Create { name, body } => {
                let path = format!("/vectors/{}", encoded(name));
                let body = Body::read(body.file.as_deref())?;
                self.change("PUT", &path, &body, |_| {
                    format!("added the vector `{name}`")
                })
            }
            Vectors::Drop { name } => {
                let path = format!("/vectors/{}", encoded(name));
                self.change("DELETE", &path, &Body::none(), |_| {
                    format!("dropped the vector `{name}`")
                })
            }
        }
    }

    /// Sends a request that writes, and prints what `told` makes of it; with `--json`, the REST result.
    fn change(
        &self,
        method: &str,
        path: &str,
        body: &Body,
        told: impl Fn(&Outcome) -> String,
    ) -> Result<u8, Error> {
        let edge = self.open()?;
        let said = write(edge.shard(), method, path, body).and_then(|(result, outcome)| {
            if self.output.json {
                return self.output.rest(&result);
            }
            let text = told(&outcome);
            self.output.say(
                &Value::Null,
                &if outcome.is_logged {
                    format!("{text}, up to sequence {}", outcome.sequence)
                } else {
                    format!("{text}: nothing to change")
                },
            )
        });
        self.close_after(said.map(|()| 0), edge)
    }
}

/// Sends it. Nobody else writes meanwhile: the process has the directory.
fn write(shard: &Shard, method: &str, path: &str, body: &Body) -> Result<(String, Outcome), Error> {
    let before = shard.info()?.points;
    let logged = shard.queue_status()?.logged;
    let named = named(shard, &body.json);
    let result = shard
        .request(method, path, &body.text)
        .map_err(|error| body.locate(error))?;
    let sequence = shard.queue_status()?.logged;
    let outcome = Outcome {
        points: (before, shard.info()?.points),
        named,
        sequence,
        is_logged: sequence > logged,
    };
    Ok((result, outcome))
}

/// How many points a body names. A filter that is refused here is refused again, with words, by the
/// write.
fn named(shard: &Shard, body: &Value) -> Option<u64> {
    if let Some(ids) = body["batch"]["ids"].as_array() {
        return Some(ids.len() as u64);
    }
    match (body.get("points"), body.get("filter")) {
        (Some(Value::Array(points)), None | Some(Value::Null)) => {
            let mut ids: Vec<String> = points
                .iter()
                .map(|point| point.get("id").unwrap_or(point).to_string())
                .collect();
            ids.sort_unstable();
            ids.dedup();
            Some(ids.len() as u64)
        }
        (None | Some(Value::Null), Some(filter)) if !filter.is_null() => {
            shard.count(Some(&filter.to_string())).ok()
        }
        _ => None,
    }
}

fn of_points(done: &str, outcome: &Outcome) -> String {
    match outcome.named {
        Some(points) => format!("{done} of {}", counted(points, "point")),
        None => done.to_owned(),
    }
}

/// Deletes points by id, and tells which of them were not here.
fn delete_ids(shard: &Shard, ids: Vec<PointId>) -> Result<(Value, String), Error> {
    let here = shard.retrieve(ids.clone(), Selection::none())?;
    let absent: Vec<String> = ids
        .iter()
        .filter(|id| !here.iter().any(|point| is_same(&point.id, id)))
        .map(text)
        .collect();
    let receipt = shard.delete(ids)?;
    let mut value = receipt_json(receipt);
    value["points"] = json!(here.len());
    value["absent"] = json!(absent);
    let mut words = match here.len() as u64 {
        0 => "deleted no point".to_owned(),
        points => format!("deleted {}", counted(points, "point")),
    };
    words.push_str(&format!(", up to sequence {}", receipt.sequence));
    if let Some(last) = absent.last() {
        let which = match absent.len() {
            1 => format!("there is no point {last} here"),
            count if count <= NAMED => format!("there are no points {} here", absent.join(", ")),
            count => format!("{} of the ids are not here", grouped(count as u64)),
        };
        words.push_str(&format!(
            "; {which}, and the server is told to delete all the same"
        ));
    }
    Ok((value, words))
}

/// UUIDs come in several forms.
fn is_same(stored: &PointId, asked: &PointId) -> bool {
    let plain = |uuid: &str| {
        let uuid = uuid.to_ascii_lowercase().replace('-', "");
        uuid.strip_prefix("urn:uuid:")
            .map(str::to_owned)
            .unwrap_or(uuid)
    };
    match (stored, asked) {
        (PointId::Uuid(stored), PointId::Uuid(asked)) => plain(stored) == plain(asked),
        _ => stored == asked,
    }
}

fn text(id: &PointId) -> String {
    match id {
        PointId::Num(number) => number.to_string(),
        PointId::Uuid(uuid) => uuid.clone(),
    }
}

/// As a segment of a path.
fn encoded(segment: &str) -> PercentEncode<'_> {
    utf8_percent_encode(segment, NON_ALPHANUMERIC)
}
