//! What `serve` answers below `/edge-sync`: the commands `status`, `queue` and `rejected` over REST.

use edge_sync_host::EdgeSync;
use edge_sync_rest::{Chosen, Operator, Result};
use serde_json::{Value, json};

use crate::arguments;
use crate::queue::{forget, rejected_json, retry, retry_json, waiting_json, waiting_page};
use crate::refusal::refusal;
use crate::status::{queue_json, status_json};

/// A shard, and the collection that it is served as.
pub struct ShardOperator {
    pub edge: EdgeSync,
    pub collection: Option<String>,
}

impl Operator for ShardOperator {
    fn status(&self) -> Result<Value> {
        let mut status = status_json(&self.edge).map_err(refusal)?;
        status["collection"] = json!(self.collection);
        Ok(status)
    }

    fn queue(&self, after: u64, limit: u32) -> Result<Value> {
        queue(&self.edge, after, limit).map_err(refusal)
    }

    fn skip(&self, count: u32) -> Result<Value> {
        let skipped = self.edge.skip(count).map_err(refusal)?;
        Ok(json!({ "skipped": skipped }))
    }

    fn rejected(&self, after: u64, limit: u32) -> Result<Value> {
        rejected(&self.edge, after, limit).map_err(refusal)
    }

    fn retry(&self, chosen: Chosen) -> Result<Value> {
        let report = retry(&self.edge, &chosen.into()).map_err(refusal)?;
        Ok(retry_json(&report))
    }

    fn forget(&self, chosen: Chosen) -> Result<Value> {
        let dropped = forget(&self.edge, &chosen.into()).map_err(refusal)?;
        Ok(json!({ "dropped": dropped }))
    }
}

fn queue(edge: &EdgeSync, after: u64, limit: u32) -> Result<Value, edge_sync_host::Error> {
    let shard = edge.shard();
    let waiting = waiting_page(after, limit, |after, count| shard.waiting(after, count))?;
    let mut value = queue_json(&shard.queue_status()?);
    value["operations"] = waiting.iter().map(waiting_json).collect();
    Ok(value)
}

fn rejected(edge: &EdgeSync, after: u64, limit: u32) -> Result<Value, edge_sync_host::Error> {
    let page = edge.shard().rejected(after, limit)?;
    let last = page.last().map(|last| last.sequence);
    let next = match last {
        Some(last) if !edge.shard().rejected(last, 1)?.is_empty() => Some(last),
        _ => None,
    };
    Ok(json!({
        "rejected": edge.shard().queue_status()?.rejected,
        "operations": page.iter().map(rejected_json).collect::<Vec<_>>(),
        "next_after": next,
    }))
}

impl From<Chosen> for arguments::Chosen {
    fn from(chosen: Chosen) -> Self {
        match chosen {
            Chosen::All => arguments::Chosen {
                sequences: Vec::new(),
                all: true,
            },
            Chosen::Sequences(sequences) => arguments::Chosen {
                sequences,
                all: false,
            },
        }
    }
}
