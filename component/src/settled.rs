//! Whether a snapshot is what the server held when it was asked for.
//!
//! On Qdrant 1.19 a snapshot that is taken while an optimization runs holds what the segments under
//! optimization held at its beginning: points that were deleted since are alive in it, and points
//! that were overwritten since are there twice. So the optimizer is asked before and after, and a
//! restore knows whether to look for what the server would tell otherwise.

use edge_sync_engine::PointId;
use edge_sync_upload::Request;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::bindings::courier::OptimizerState;
use crate::bindings::types::FailureClass;
use crate::courier::{Server, failure};
use crate::error::{Error, Result};

/// Ids asked for at once.
const IDS: usize = 1000;

impl Server {
    /// What the optimizer does; see `courier.optimizer`.
    pub fn optimizer(&self) -> Result<OptimizerState> {
        let path = "/optimizations?with=completed";
        match self.call("GET", path, "") {
            Ok(told) => Ok(state(&told)),
            // A server before 1.18 has only its status (and something in front of it may let nothing
            // else pass). It is `grey` where an optimization waits for a write, and yellow also while
            // a snapshot is sent.
            Err(Error::Server(failure))
                if matches!(failure.status, Some(400 | 403 | 404 | 405 | 501)) =>
            {
                let info = self.call("GET", "", "")?;
                Ok(OptimizerState {
                    running: info.get("status").and_then(Value::as_str) == Some("yellow"),
                    queued: false,
                    mark: None,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Those of the points that the server does not hold; see `courier.absent`.
    pub fn absent(&self, ids: &[PointId]) -> Result<Vec<PointId>> {
        let mut absent = Vec::new();
        for ids in ids.chunks(IDS) {
            let listed: Vec<Value> = ids.iter().map(|id| id.to_json()).collect();
            let mut request = Request::new(
                "POST",
                "/points",
                json!({"ids": listed, "with_payload": false, "with_vector": false}).to_string(),
            );
            let of_tenant = self.target().routing.tenant().is_some();
            if of_tenant {
                // There is no place for a filter beside a list of ids.
                let filter = json!({"must": [{"has_id": listed}]});
                request.path = "/points/scroll".to_owned();
                request.body = json!({"filter": filter, "limit": ids.len()}).to_string();
            }
            let request = self.address(&request)?;
            let mut found = self.call(&request.method, &request.path, &request.body)?;
            if of_tenant {
                found = found.get_mut("points").map(Value::take).unwrap_or_default();
            }
            let Some(found) = found.as_array() else {
                let message = "the answer is no list of points".to_owned();
                let request = request.describe();
                return Err(failure(FailureClass::Retry, None, &request, message));
            };
            absent.extend(ids.iter().filter(|id| {
                let id = id.to_json();
                found.iter().all(|point| point.get("id") != Some(&id))
            }));
        }
        Ok(absent)
    }
}

fn state(told: &Value) -> OptimizerState {
    let list = |name: &str| told.get(name).and_then(Value::as_array);
    let queued = told
        .pointer("/summary/queued_optimizations")
        .and_then(Value::as_u64)
        .unwrap_or(0);
    // The list is cut at some length, the newest first.
    let mark = list("completed").map(|completed| {
        let mut hash = Sha256::new();
        for done in completed {
            hash.update(done.get("uuid").and_then(Value::as_str).unwrap_or("?"));
            hash.update("\n");
        }
        let digest = hash.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    });
    let running = list("running").is_some_and(|running| !running.is_empty());
    OptimizerState {
        running,
        queued: !running && queued > 0,
        mark,
    }
}

/// Why a snapshot that was taken between the two states may not be what the server held; none if
/// it is.
pub fn unsettled(before: &OptimizerState, after: &OptimizerState) -> Option<&'static str> {
    if before.running || after.running {
        Some("the server's optimizer ran while the snapshot was taken")
    } else if before.mark != after.mark {
        Some("an optimization ended on the server while the snapshot was taken")
    } else {
        None
    }
}
