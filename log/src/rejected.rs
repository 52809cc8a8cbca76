//! The rejected log: operations that the server refused, until a person retries or drops them.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::log::{Durability, Log, LogOptions, OpenReport};
use crate::record::{MAX_PAYLOAD_BYTES, MAX_RECORD_BYTES, Record};

/// Longest message that is kept; longer ones are cut.
const MAX_MESSAGE_BYTES: usize = 16 << 10;
const HEAD_BYTES: usize = 24;
const ENTRY: u8 = 1;
const TOMBSTONE: u8 = 2;
/// Below this size the log is not worth compacting.
const COMPACT_BYTES: u64 = 1 << 20;

/// An operation that the server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedOperation {
    /// The operation's sequence in the main log.
    pub sequence: u64,
    /// HTTP status of the refusal.
    pub status: u16,
    /// The server's words; cut to 16 KiB when stored.
    pub message: String,
    /// When it was refused, in milliseconds since 1970 (UTC).
    pub rejected_ms: u64,
    /// The operation as it stood in the main log.
    pub operation: Vec<u8>,
}

/// The rejected log, in a folder of its own. Every change is durable when it returns.
///
/// Built on [`Log`], with its crash guarantees and errors; one owner at a time.
#[derive(Debug)]
pub struct Rejected {
    log: Log,
    /// Where each operation's entry is: sequence in the main log to sequence in this one.
    entries: BTreeMap<u64, u64>,
    /// Bytes of the entries that `entries` names.
    live_bytes: u64,
    compact_bytes: u64,
}

impl Rejected {
    /// Opens the rejected log in `directory`, or begins one.
    ///
    /// # Errors
    /// As [`Log::open`]; [`Error::Corrupt`] also for a record that is no entry.
    pub fn open(directory: &Path) -> Result<(Self, OpenReport)> {
        Self::open_with(directory, COMPACT_BYTES)
    }

    pub(crate) fn open_with(directory: &Path, compact_bytes: u64) -> Result<(Self, OpenReport)> {
        let options = LogOptions {
            durability: Durability::Always,
            segment_bytes: compact_bytes.max(LogOptions::default().segment_bytes),
            durable_to: 0,
        };
        let (log, report) = Log::open(directory, options)?;
        let mut entries = BTreeMap::new();
        let mut lengths = BTreeMap::new();
        for record in log.read(0) {
            let record = record?;
            let length = record.payload.len() as u64;
            match decode(&record).ok_or_else(|| unreadable(directory, &record))? {
                Stored::Entry(entry) => {
                    entries.insert(entry.sequence, record.sequence);
                    lengths.insert(entry.sequence, length);
                }
                Stored::Tombstone(sequence) => {
                    entries.remove(&sequence);
                    lengths.remove(&sequence);
                }
            }
        }
        let rejected = Self {
            log,
            entries,
            live_bytes: lengths.values().sum(),
            compact_bytes,
        };
        Ok((rejected, report))
    }

    /// How many operations are in it.
    pub fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it holds the operation `sequence`.
    pub fn contains(&self, sequence: u64) -> bool {
        self.entries.contains_key(&sequence)
    }

    /// Adds an operation; replaces it if it is there, so that a crash before the caller noted the
    /// addition does no harm.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn add(&mut self, operation: &RejectedOperation) -> Result<()> {
        // The room above the main log's limit is for the head and message, not for operations.
        if operation.operation.len() > MAX_RECORD_BYTES as usize {
            return Err(Error::RecordTooLarge {
                index: 0,
                bytes: operation.operation.len() as u64,
                limit: u64::from(MAX_RECORD_BYTES),
            });
        }
        let old = self.stored_bytes(operation.sequence)?;
        let payload = encode_entry(operation);
        let bytes = payload.len() as u64;
        let sequences = self
            .log
            .append_within(&[payload], MAX_PAYLOAD_BYTES, true)?;
        self.entries.insert(operation.sequence, sequences.start);
        self.live_bytes = self.live_bytes - old + bytes;
        Ok(())
    }

    /// The sequences above `sequence` that it holds, in order.
    pub fn after(&self, sequence: u64) -> Vec<u64> {
        let above = sequence.saturating_add(1);
        self.entries.range(above..).map(|(held, _)| *held).collect()
    }

    /// The operation `sequence`; None if it is not there.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn get(&self, sequence: u64) -> Result<Option<RejectedOperation>> {
        let Some(place) = self.entries.get(&sequence) else {
            return Ok(None);
        };
        self.entry_at(*place).map(Some)
    }

    /// All operations, in order of their sequence, one in memory at a time.
    pub fn iter(&self) -> impl Iterator<Item = Result<RejectedOperation>> {
        self.entries.values().map(|place| self.entry_at(*place))
    }

    /// All operations, in order of their sequence.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn list(&self) -> Result<Vec<RejectedOperation>> {
        self.iter().collect()
    }

    /// Removes the operation `sequence`. False if it was not there.
    ///
    /// # Errors
    /// As [`Log::append`] and [`Log::restart`]. The operation may be gone all the same if only
    /// the compaction failed.
    pub fn remove(&mut self, sequence: u64) -> Result<bool> {
        if !self.contains(sequence) {
            return Ok(false);
        }
        let bytes = self.stored_bytes(sequence)?;
        self.log.append(&[encode_tombstone(sequence)])?;
        self.entries.remove(&sequence);
        self.live_bytes -= bytes;
        self.compact()?;
        Ok(true)
    }

    /// Gives space back once most of what the log holds is not in force.
    fn compact(&mut self) -> Result<()> {
        if self.entries.is_empty() {
            return self.log.restart(self.log.next());
        }
        let bytes = self.log.disk_bytes();
        if bytes < self.compact_bytes || bytes < 4 * self.live_bytes {
            return Ok(());
        }
        // Copies first, then the originals go, oldest first: an entry is never without either,
        // and a tombstone never goes before what it removes.
        self.log.rotate()?;
        let start = self.log.next();
        let mut copied = BTreeMap::new();
        for (sequence, place) in &self.entries {
            let payload = record_at(&self.log, *place)?.payload;
            let sequences = self
                .log
                .append_within(&[payload], MAX_PAYLOAD_BYTES, false)?;
            copied.insert(*sequence, sequences.start);
        }
        self.log.sync()?;
        self.entries = copied;
        self.log.reclaim(start - 1)
    }

    fn entry_at(&self, place: u64) -> Result<RejectedOperation> {
        let record = record_at(&self.log, place)?;
        match decode(&record) {
            Some(Stored::Entry(entry)) => Ok(entry),
            _ => Err(unreadable(self.log.directory(), &record)),
        }
    }

    fn stored_bytes(&self, sequence: u64) -> Result<u64> {
        match self.entries.get(&sequence) {
            Some(place) => Ok(record_at(&self.log, *place)?.payload.len() as u64),
            None => Ok(0),
        }
    }
}

fn record_at(log: &Log, place: u64) -> Result<Record> {
    log.read(place).next().unwrap_or_else(|| {
        Err(Error::Reclaimed {
            asked: place,
            first: log.first(),
        })
    })
}

enum Stored {
    Entry(RejectedOperation),
    Tombstone(u64),
}

fn encode_head(kind: u8, status: u16, message: u32, sequence: u64, rejected_ms: u64) -> Vec<u8> {
    let mut bytes = vec![kind, 0];
    bytes.extend_from_slice(&status.to_le_bytes());
    bytes.extend_from_slice(&message.to_le_bytes());
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&rejected_ms.to_le_bytes());
    bytes
}

fn encode_entry(entry: &RejectedOperation) -> Vec<u8> {
    let message = &entry.message[..entry.message.floor_char_boundary(MAX_MESSAGE_BYTES)];
    let mut bytes = encode_head(
        ENTRY,
        entry.status,
        message.len() as u32,
        entry.sequence,
        entry.rejected_ms,
    );
    bytes.extend_from_slice(message.as_bytes());
    bytes.extend_from_slice(&entry.operation);
    bytes
}

fn encode_tombstone(sequence: u64) -> Vec<u8> {
    encode_head(TOMBSTONE, 0, 0, sequence, crate::log::now_ms())
}

fn decode(record: &Record) -> Option<Stored> {
    let (head, rest) = record.payload.split_first_chunk::<HEAD_BYTES>()?;
    let [kind, _, s0, s1, m0, m1, m2, m3, times @ ..] = head;
    let (sequence, rejected_ms) = times.split_at(8);
    let sequence = u64::from_le_bytes(sequence.try_into().ok()?);
    match *kind {
        ENTRY => {
            let length = usize::try_from(u32::from_le_bytes([*m0, *m1, *m2, *m3])).ok()?;
            let (message, operation) = rest.split_at_checked(length)?;
            Some(Stored::Entry(RejectedOperation {
                sequence,
                status: u16::from_le_bytes([*s0, *s1]),
                message: String::from_utf8(message.to_vec()).ok()?,
                rejected_ms: u64::from_le_bytes(rejected_ms.try_into().ok()?),
                operation: operation.to_vec(),
            }))
        }
        TOMBSTONE => Some(Stored::Tombstone(sequence)),
        _ => None,
    }
}

fn unreadable(directory: &Path, record: &Record) -> Error {
    Error::corrupt(
        directory,
        0,
        format!(
            "record {} of the rejected log is of no kind that this program knows",
            record.sequence
        ),
    )
}
