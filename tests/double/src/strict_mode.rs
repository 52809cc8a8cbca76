//! What a collection's `strict_mode_config` refuses, in the server's words.
//!
//! Checked are the limits that a client that writes can run into: how much one request writes, how
//! much a collection holds, how large a filter is, and how much is written a minute.

use std::time::Instant;

use edge_sync_rest::{Error, Result};
use serde_json::Value;

/// One operation of a write request, as far as limits are about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct WriteSummary {
    /// Points that are listed.
    pub(super) listed: usize,
    /// Selects points by this.
    pub(super) filter: Option<Value>,
    kind: WriteKind,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum WriteKind {
    Upsert,
    UpdateVectors,
    CreateIndex,
    #[default]
    Other,
}

impl WriteSummary {
    /// The operations of a request, in order.
    pub(super) fn of(method: &str, path: &str, body: &Value) -> Vec<WriteSummary> {
        match (method, path) {
            ("POST", "/points/batch") => body["operations"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|operation| operation.as_object()?.iter().next())
                .map(|(kind, body)| {
                    let kind = match kind.as_str() {
                        "upsert" => WriteKind::Upsert,
                        "update_vectors" => WriteKind::UpdateVectors,
                        _ => WriteKind::Other,
                    };
                    WriteSummary::of_body(kind, body)
                })
                .collect(),
            ("PUT", "/points") => vec![WriteSummary::of_body(WriteKind::Upsert, body)],
            ("PUT", "/points/vectors") => {
                vec![WriteSummary::of_body(WriteKind::UpdateVectors, body)]
            }
            ("PUT", "/index") => vec![WriteSummary {
                kind: WriteKind::CreateIndex,
                ..WriteSummary::default()
            }],
            _ => vec![WriteSummary::of_body(WriteKind::Other, body)],
        }
    }

    fn of_body(kind: WriteKind, body: &Value) -> WriteSummary {
        let length = |list: &Value| list.as_array().map(Vec::len);
        WriteSummary {
            listed: length(&body["points"])
                .or_else(|| length(&body["batch"]["ids"]))
                .unwrap_or(0),
            filter: body.get("filter").filter(|it| !it.is_null()).cloned(),
            kind,
        }
    }

    /// Whether it writes whole points.
    pub(super) fn is_upsert(&self) -> bool {
        self.kind == WriteKind::Upsert
    }

    /// Whether it adds to what is stored.
    fn stores(&self) -> bool {
        matches!(self.kind, WriteKind::Upsert | WriteKind::UpdateVectors)
    }
}

/// What a collection holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct CollectionSize {
    pub(super) points: u64,
    pub(super) vector_bytes: u64,
    pub(super) payload_indexes: usize,
}

/// The part of `strict_mode_config` that is looked at; all off unless it is enabled.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct StrictMode {
    enabled: bool,
    upsert_max_batchsize: Option<usize>,
    max_points_count: Option<u64>,
    max_collection_vector_size_bytes: Option<u64>,
    max_payload_index_count: Option<usize>,
    filter_max_conditions: Option<usize>,
    condition_max_size: Option<usize>,
    write_rate_limit: Option<u32>,
}

impl StrictMode {
    pub(super) fn of(config: &Value) -> StrictMode {
        serde_json::from_value::<StrictMode>(config["strict_mode_config"].clone())
            .ok()
            .filter(|mode| mode.enabled)
            .unwrap_or_default()
    }

    /// Checks one operation before any of its request is applied.
    pub(super) fn check(
        &self,
        summary: &WriteSummary,
        size: impl Fn() -> Result<CollectionSize>,
    ) -> Result<()> {
        let batch = match summary.kind {
            WriteKind::Upsert => "upsert limit",
            _ => "update limit",
        };
        if summary.stores() {
            if let Some(limit) = self.upsert_max_batchsize
                && summary.listed > limit
            {
                return Err(strict(
                    format!(
                        "Limit exceeded {} > {limit} for \"{batch}\"",
                        summary.listed
                    ),
                    format!("Reduce the \"{batch}\" parameter to or below {limit}."),
                ));
            }
            if let Some(limit) = self.max_collection_vector_size_bytes
                && size()?.vector_bytes >= limit
            {
                let limit = limit as f32 / (1024.0 * 1024.0);
                return Err(Error::BadRequest(format!(
                    "Max vector storage size limit of {limit}MB reached!"
                )));
            }
            if let Some(limit) = self.max_points_count
                && size()?.points >= limit
            {
                return Err(Error::BadRequest(format!(
                    "Max points count limit of {limit} reached!"
                )));
            }
        }
        if summary.kind == WriteKind::CreateIndex
            && let Some(limit) = self.max_payload_index_count
            && size()?.payload_indexes >= limit
        {
            return Err(strict(
                format!("Collection already has the maximum number of payload indices ({limit})"),
                "Please delete an existing index before creating a new one.",
            ));
        }
        match &summary.filter {
            Some(filter) => self.check_filter(filter),
            None => Ok(()),
        }
    }

    fn check_filter(&self, filter: &Value) -> Result<()> {
        let sizes = condition_sizes(filter);
        if let Some(limit) = self.filter_max_conditions
            && sizes.len() > limit
        {
            return Err(strict(
                format!("Filter condition limit reached ({} > {limit})", sizes.len()),
                "Reduce the amount of conditions of your filter.",
            ));
        }
        let largest = sizes.into_iter().max().unwrap_or(0);
        if let Some(limit) = self.condition_max_size
            && largest > limit
        {
            return Err(strict(
                format!("Condition size limit reached ({largest} > {limit})"),
                "Reduce the size of your condition.",
            ));
        }
        Ok(())
    }
}

fn strict(what: impl AsRef<str>, help: impl AsRef<str>) -> Error {
    Error::BadRequest(format!("{}. Help: {}", what.as_ref(), help.as_ref()))
}

/// How many values each condition of a filter compares with.
fn condition_sizes(filter: &Value) -> Vec<usize> {
    let mut sizes = Vec::new();
    for clause in ["should", "must", "must_not"] {
        let conditions = match &filter[clause] {
            Value::Array(conditions) => conditions.as_slice(),
            Value::Null => &[],
            one => std::slice::from_ref(one),
        };
        for condition in conditions {
            let length = |value: &Value| value.as_array().map(Vec::len);
            match length(&condition["has_id"])
                .or_else(|| length(&condition["match"]["any"]))
                .or_else(|| length(&condition["match"]["except"]))
            {
                Some(length) => sizes.push(length),
                None if condition.get("key").is_some() => sizes.push(1),
                None => sizes.extend(condition_sizes(condition)),
            }
        }
    }
    sizes
}

/// `write_rate_limit`: so many points a minute, of which all may be written at once.
#[derive(Debug)]
pub(super) struct WriteRate {
    tokens: f64,
    capacity: u32,
    checked: Instant,
}

impl WriteRate {
    /// A full bucket, if there is a limit.
    pub(super) fn of(mode: &StrictMode) -> Option<WriteRate> {
        mode.write_rate_limit.map(|capacity| WriteRate {
            tokens: f64::from(capacity),
            capacity,
            checked: Instant::now(),
        })
    }

    /// Fills the bucket, as a minute does.
    pub(super) fn refill(&mut self) {
        self.tokens = f64::from(self.capacity);
    }

    /// Takes what an operation on so many points costs.
    pub(super) fn take(&mut self, points: u64) -> Result<()> {
        let cost = points.max(1) as f64;
        let capacity = f64::from(self.capacity);
        if cost > capacity {
            // It is no use to wait, and so there is no `Retry-After`.
            return Err(Error::RateLimited {
                message: "Write rate limit exceeded, request larger than rate limiter capacity, \
                          please try to split your request"
                    .to_owned(),
                retry_after: None,
            });
        }
        let per_second = capacity / 60.0;
        let now = Instant::now();
        let passed = now.duration_since(self.checked).as_secs_f64();
        self.checked = now;
        self.tokens = (self.tokens + per_second * passed).min(capacity);
        if self.tokens >= cost {
            self.tokens -= cost;
            return Ok(());
        }
        let seconds = ((cost - self.tokens) / per_second).ceil() as u64;
        Err(Error::RateLimited {
            message: format!(
                "Write rate limit exceeded: Operation requires {cost} tokens but only {:.1} were \
                 available. Retry after {seconds}s",
                self.tokens
            ),
            retry_after: Some(seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations_are_counted_by_points() {
        let body = json!({"operations": [
            {"upsert": {"points": [{"id": 1}, {"id": 2}]}},
            {"delete": {"points": [1, 2, 3]}},
            {"set_payload": {"payload": {}, "filter": {"must": [{"has_id": [1, 2]}]}}},
        ]});
        let summaries = WriteSummary::of("POST", "/points/batch", &body);
        let listed: Vec<_> = summaries.iter().map(|summary| summary.listed).collect();
        assert_eq!(listed, [2, 3, 0]);
        assert!(summaries[0].stores() && !summaries[1].stores());
        assert_eq!(condition_sizes(summaries[2].filter.as_ref().unwrap()), [2]);
    }

    #[test]
    fn a_rate_limit_tells_too_much_at_once_from_too_much() {
        let mode = StrictMode::of(
            &json!({"strict_mode_config": {"enabled": true, "write_rate_limit": 5}}),
        );
        let mut rate = WriteRate::of(&mode).expect("a limit");
        let too_much = rate.take(6).unwrap_err().to_string();
        assert_eq!(
            too_much,
            "Rate limiting exceeded: Write rate limit exceeded, request larger than rate limiter \
             capacity, please try to split your request"
        );
        rate.take(5).expect("a full bucket");
        match rate.take(5) {
            Err(Error::RateLimited { retry_after, .. }) => assert!(retry_after >= Some(1)),
            other => panic!("{other:?}"),
        }
        rate.refill();
        rate.take(5).expect("a full bucket");
    }

    #[test]
    fn a_mode_that_is_not_enabled_refuses_nothing() {
        let mode = StrictMode::of(&json!({"strict_mode_config": {"max_points_count": 1}}));
        assert!(WriteRate::of(&mode).is_none());
        let summary = WriteSummary::of("PUT", "/points", &json!({"points": [{"id": 1}]})).remove(0);
        mode.check(&summary, || unreachable!("nothing to compare with"))
            .expect("no limit");
    }
}
