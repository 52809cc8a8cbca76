//! From which history an answer is: whether what it left out can be what the mirror holds.
//!
//! Versions are numbers of operations of one replica. They mean something only between two moments
//! of the same history; a replica that was recovered from an older snapshot gives the same numbers
//! to other operations.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// The replica and the moment that a snapshot was taken at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The peer that holds the replica (`replica_state.json`).
    pub peer: u64,
    /// The number that its next operation will have (`wal/closed-<n>`).
    pub wal_next: u64,
    /// How far each source of operations has come (`newest_clocks.json`).
    pub clocks: Vec<Clock>,
}

/// How far one source of operations has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// The peer that gave the operations their ticks.
    pub peer_id: u64,
    /// One of its clocks.
    pub clock_id: u64,
    /// The last tick.
    pub current_tick: u64,
    /// A random number that came with that tick; tells apart two histories that reached the same
    /// tick.
    #[serde(default)]
    pub token: u64,
}

impl Lineage {
    /// Whether this can be a later moment of the history of `earlier`, or why not.
    pub(crate) fn continues(&self, earlier: &Self) -> Result<(), String> {
        if self.peer != earlier.peer {
            return Err(format!(
                "peer {} answered, the mirror is of peer {}",
                self.peer, earlier.peer
            ));
        }
        if self.wal_next < earlier.wal_next {
            return Err(format!(
                "the server went back: its next operation is {}, it was {}",
                self.wal_next, earlier.wal_next
            ));
        }
        for clock in &earlier.clocks {
            let name = || format!("clock {} of peer {}", clock.clock_id, clock.peer_id);
            let Some(now) = self
                .clocks
                .iter()
                .find(|now| (now.peer_id, now.clock_id) == (clock.peer_id, clock.clock_id))
            else {
                return Err(format!("the server went back: {} is gone", name()));
            };
            if now.current_tick < clock.current_tick {
                return Err(format!(
                    "the server went back: {} is at {}, it was at {}",
                    name(),
                    now.current_tick,
                    clock.current_tick
                ));
            }
            if now.current_tick == clock.current_tick && now.token != clock.token {
                return Err(format!(
                    "the server has another history: {} came to {} another way",
                    name(),
                    now.current_tick
                ));
            }
        }
        Ok(())
    }
}

/// The clocks in `newest_clocks.json`.
pub(crate) fn parse_clocks(json: &[u8]) -> Result<Vec<Clock>> {
    #[derive(Deserialize)]
    struct Clocks {
        clocks: Vec<Clock>,
    }
    let Clocks { clocks } = serde_json::from_slice(json)
        .map_err(|error| Error::bad(format!("newest_clocks.json: {error}")))?;
    Ok(clocks)
}

/// The peer in `replica_state.json`.
pub(crate) fn parse_peer(json: &[u8]) -> Result<u64> {
    let state: Value = serde_json::from_slice(json)
        .map_err(|error| Error::bad(format!("replica_state.json: {error}")))?;
    state
        .get("this_peer_id")
        .and_then(Value::as_u64)
        .ok_or_else(|| Error::bad("replica_state.json: it does not say which peer it is of"))
}

/// The number in the name of a closed WAL file: that of the first operation in it. In a snapshot
/// there is one such file, and it is empty.
pub(crate) fn wal_number(name: &str) -> Option<u64> {
    name.strip_prefix("closed-")?.parse().ok()
}
