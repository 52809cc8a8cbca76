//! The rejected log: operations that the server refused, until a person retries or drops them.

use std::collections::BTreeMap;
use std::path::Path;

use edge_sync_clock::now_ms;

use crate::error::{Error, Result};
use crate::log::{Durability, Log, LogOptions};
use crate::read::Reader;
use crate::record::{MAX_PAYLOAD_BYTES, MAX_RECORD_BYTES, Record};
use crate::recovery::OpenReport;
use crate::view::View;

/// What an operation says that no server refused: a person moved it out of the way.
pub const SKIPPED_BY_HAND: &str = "skipped by hand";

/// Longest message that is kept; longer ones are cut.
const MAX_MESSAGE_BYTES: usize = 16 << 10;
const HEAD_BYTES: usize = 24;
const ENTRY: u8 = 1;
const TOMBSTONE: u8 = 2;
/// Below this size the log is not worth compacting.
const COMPACT_BYTES: u64 = 1 << 20;
/// So many entries are looked at for a row of refusals; further back it does not matter.
const MOST_IN_A_ROW: usize = 1000;
/// Records between two entries of a page that are read over instead of opening the file again.
const READ_OVER: u64 = 64;

/// An operation that the server refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedOperation {
    /// The operation's sequence in the main log.
    pub sequence: u64,
    /// HTTP status of the refusal; 0 if no answer said so.
    pub status: u16,
    /// The server's words; cut to 16 KiB when stored.
    pub message: String,
    /// When it was refused, in milliseconds since 1970 (UTC).
    pub rejected_ms: u64,
    /// The operation as it stood in the main log.
    pub operation: Vec<u8>,
}

/// What tells whether two refusals say the same: equal numbers for words that do. None for words that
/// say nothing of other operations; a row of refusals goes on over them. The numbers are not stored.
pub type Fingerprint = fn(&str) -> Option<u64>;

/// How many operations in a row were refused alike, up to the last one that the upload is past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Neighbours in the log that were refused in words of the last one's [`Fingerprint`]. Those in
    /// other words, or without a fingerprint, are passed over. An operation that was not refused, or
    /// that was skipped by hand, ends the row. Looked for in the last 1,000 operations.
    pub in_a_row: u32,
    /// The words of the last one that counts.
    pub words: String,
    /// Its HTTP status.
    pub status: u16,
}

/// The rejected log, in a folder of its own. Every change is durable when it returns.
///
/// Built on [`Log`], with its crash guarantees and errors; one owner at a time.
#[derive(Debug)]
pub struct Rejected {
    log: Log,
    index: Index,
    compact_bytes: u64,
}

impl Rejected {
    /// Opens the rejected log in `directory`, or begins one.
    ///
    /// # Errors
    /// As [`Log::open`]; [`Error::Corrupt`] also for a record that is no entry.
    pub fn open(directory: &Path, fingerprint: Fingerprint) -> Result<(Self, OpenReport)> {
        Self::open_with(directory, fingerprint, COMPACT_BYTES)
    }

    pub(crate) fn open_with(
        directory: &Path,
        fingerprint: Fingerprint,
        compact_bytes: u64,
    ) -> Result<(Self, OpenReport)> {
        let options = LogOptions {
            durability: Durability::Always,
            segment_bytes: compact_bytes.max(LogOptions::default().segment_bytes),
            durable_to: 0,
        };
        let (log, report) = Log::open(directory, options)?;
        let index = Index::build(directory, log.read(0), fingerprint)?;
        let rejected = Self {
            log,
            index,
            compact_bytes,
        };
        Ok((rejected, report))
    }

    /// How many operations are in it.
    pub fn len(&self) -> u64 {
        self.index.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it holds the operation `sequence`.
    pub fn contains(&self, sequence: u64) -> bool {
        self.index.entries.contains_key(&sequence)
    }

    /// How the last operations before `acknowledged`, and that one, were refused.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn refusals(&self, acknowledged: u64) -> Result<Refusals> {
        self.index
            .refusals(acknowledged, |last| self.page(last.saturating_sub(1), 1, 0))
    }

    /// Adds an operation; replaces it if it is there, so that a crash before the caller noted the
    /// addition does no harm.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn add(&mut self, operation: &RejectedOperation) -> Result<()> {
        self.add_all(std::slice::from_ref(operation))
    }

    /// [`Rejected::add`] for several: all of them are added, or, on error, none is.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn add_all(&mut self, operations: &[RejectedOperation]) -> Result<()> {
        let mut payloads = Vec::with_capacity(operations.len());
        for (index, operation) in operations.iter().enumerate() {
            // The room above the main log's limit is for the head and message, not for operations.
            if operation.operation.len() > MAX_RECORD_BYTES as usize {
                return Err(Error::RecordTooLarge {
                    index,
                    bytes: operation.operation.len() as u64,
                    limit: u64::from(MAX_RECORD_BYTES),
                });
            }
            payloads.push(encode_entry(operation));
        }
        let places = self.log.append_within(&payloads, MAX_PAYLOAD_BYTES, true)?;
        for ((operation, payload), place) in operations.iter().zip(&payloads).zip(places) {
            self.index.insert(
                operation.sequence,
                place,
                payload.len() as u64,
                operation.status,
                &operation.message,
            );
        }
        Ok(())
    }

    /// The sequences above `sequence` that it holds, in order.
    pub fn after(&self, sequence: u64) -> Vec<u64> {
        let above = sequence.saturating_add(1);
        self.index
            .entries
            .range(above..)
            .map(|(held, _)| *held)
            .collect()
    }

    /// The operation `sequence`; None if it is not there.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn get(&self, sequence: u64) -> Result<Option<RejectedOperation>> {
        let Some(entry) = self.index.entries.get(&sequence) else {
            return Ok(None);
        };
        let record = record_at(&self.log, entry.place)?;
        entry_of(self.log.directory(), &record).map(Some)
    }

    /// Up to `limit` operations with sequences above `after`, in order: fewer if they come to more
    /// than `bytes`, but at least one if there is one.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn page(&self, after: u64, limit: u32, bytes: u64) -> Result<Vec<RejectedOperation>> {
        let read = |place| self.log.read(place);
        self.index
            .page(self.log.directory(), after, limit, bytes, read)
    }

    /// All operations, in order of their sequence.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Io`].
    pub fn list(&self) -> Result<Vec<RejectedOperation>> {
        self.page(0, u32::MAX, u64::MAX)
    }

    /// Removes the operation `sequence`. False if it was not there.
    ///
    /// # Errors
    /// As [`Log::append`] and [`Log::restart`]. The operation may be gone all the same if only
    /// the compaction failed.
    pub fn remove(&mut self, sequence: u64) -> Result<bool> {
        Ok(self.remove_all(&[sequence])? == 1)
    }

    /// Removes operations with one write: all that are there or, on error, none. How many there
    /// were.
    ///
    /// # Errors
    /// As [`Rejected::remove`].
    pub fn remove_all(&mut self, sequences: &[u64]) -> Result<u64> {
        let held = |sequence: &&u64| self.contains(**sequence);
        let there: Vec<u64> = sequences.iter().filter(held).copied().collect();
        if there.is_empty() {
            return Ok(0);
        }
        let tombstones: Vec<_> = there.iter().map(|at| encode_tombstone(*at)).collect();
        self.log.append(&tombstones)?;
        let before = self.len();
        for sequence in there {
            self.index.remove(sequence);
        }
        let removed = before - self.len();
        self.compact()?;
        Ok(removed)
    }

    /// Gives space back once most of what the log holds is not in force.
    fn compact(&mut self) -> Result<()> {
        if self.is_empty() {
            return self.log.restart(self.log.next());
        }
        let bytes = self.log.disk_bytes();
        if bytes < self.compact_bytes || bytes < 4 * self.index.live_bytes {
            return Ok(());
        }
        // Copies first, then the originals go, oldest first: an entry is never without either,
        // and a tombstone never goes before what it removes.
        self.log.rotate()?;
        let start = self.log.next();
        let mut copied = self.index.entries.clone();
        for entry in copied.values_mut() {
            let payload = record_at(&self.log, entry.place)?.payload;
            let sequences = self
                .log
                .append_within(&[payload], MAX_PAYLOAD_BYTES, false)?;
            entry.place = sequences.start;
        }
        self.log.sync()?;
        self.index.entries = copied;
        self.log.reclaim(start - 1)
    }
}

/// The rejected log as it stood when [`RejectedView::look`] was called, while another instance may
/// have it open. Changes nothing.
#[derive(Debug)]
pub struct RejectedView {
    view: View,
    directory: std::path::PathBuf,
    index: Index,
}

impl RejectedView {
    /// Looks at the rejected log in `directory`; one that is not there is empty. Operations above
    /// `acknowledged` are left out: the upload is not past them, and decides again.
    ///
    /// # Errors
    /// As [`View::look`] and [`View::read`].
    pub fn look(directory: &Path, acknowledged: u64, fingerprint: Fingerprint) -> Result<Self> {
        let view = View::look(directory)?;
        let mut index = Index::build(directory, view.read(0), fingerprint)?;
        for undecided in index
            .entries
            .split_off(&acknowledged.saturating_add(1))
            .into_values()
        {
            index.live_bytes -= undecided.bytes;
        }
        Ok(Self {
            view,
            directory: directory.to_path_buf(),
            index,
        })
    }

    /// How many operations were in it.
    pub fn len(&self) -> u64 {
        self.index.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// As [`Rejected::refusals`].
    ///
    /// # Errors
    /// As [`View::read`].
    pub fn refusals(&self, acknowledged: u64) -> Result<Refusals> {
        self.index
            .refusals(acknowledged, |last| self.page(last.saturating_sub(1), 1, 0))
    }

    /// As [`Rejected::page`].
    ///
    /// # Errors
    /// As [`View::read`].
    pub fn page(&self, after: u64, limit: u32, bytes: u64) -> Result<Vec<RejectedOperation>> {
        let read = |place| self.view.read(place);
        self.index.page(&self.directory, after, limit, bytes, read)
    }
}

/// Where the entries are, and what is known of them without reading them again.
#[derive(Debug)]
struct Index {
    /// By sequence in the main log.
    entries: BTreeMap<u64, Entry>,
    /// Bytes of all of them.
    live_bytes: u64,
    fingerprint: Fingerprint,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Sequence in the rejected log.
    place: u64,
    /// Length of the payload there.
    bytes: u64,
    says: Says,
}

/// What an entry is to a row of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// A refusal in words of this fingerprint.
    Words(u64),
    /// A refusal that a row goes on over.
    Nothing,
    /// It was skipped by hand, which says nothing of the server.
    Skipped,
}

impl Index {
    fn build(directory: &Path, records: Reader, fingerprint: Fingerprint) -> Result<Self> {
        let mut index = Self {
            entries: BTreeMap::new(),
            live_bytes: 0,
            fingerprint,
        };
        for record in records {
            let record = record?;
            let bytes = record.payload.len() as u64;
            match decode(&record).ok_or_else(|| unreadable(directory, &record))? {
                RejectedRecord::Entry(entry) => index.insert(
                    entry.sequence,
                    record.sequence,
                    bytes,
                    entry.status,
                    &entry.message,
                ),
                RejectedRecord::Tombstone(sequence) => index.remove(sequence),
            }
        }
        Ok(index)
    }

    fn insert(&mut self, sequence: u64, place: u64, bytes: u64, status: u16, message: &str) {
        self.remove(sequence);
        let skipped = status == 0 && message == SKIPPED_BY_HAND;
        let says = if skipped {
            Says::Skipped
        } else {
            (self.fingerprint)(stored_message(message)).map_or(Says::Nothing, Says::Words)
        };
        let entry = Entry { place, bytes, says };
        self.entries.insert(sequence, entry);
        self.live_bytes += bytes;
    }

    fn remove(&mut self, sequence: u64) {
        if let Some(entry) = self.entries.remove(&sequence) {
            self.live_bytes -= entry.bytes;
        }
    }

    fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    /// See [`Rejected::refusals`]; `read` gives the entry of a sequence, if it is there.
    fn refusals(
        &self,
        acknowledged: u64,
        read: impl FnOnce(u64) -> Result<Vec<RejectedOperation>>,
    ) -> Result<Refusals> {
        let mut in_a_row = 0;
        // The last one that counts, and what all that count say.
        let mut row = None;
        let neighbours = (0..=acknowledged)
            .rev()
            .zip(self.entries.range(..=acknowledged).rev());
        for (expected, (sequence, entry)) in neighbours.take(MOST_IN_A_ROW) {
            if *sequence != expected {
                break;
            }
            match entry.says {
                Says::Words(words) if row.is_none_or(|(_, says)| says == words) => {
                    row.get_or_insert((*sequence, words));
                    in_a_row += 1;
                }
                // Words may take turns, where two things are wrong.
                Says::Words(_) | Says::Nothing => {}
                Says::Skipped => break,
            }
        }
        let Some((sequence, _)) = row else {
            return Ok(Refusals::default());
        };
        let last = read(sequence)?;
        Ok(last
            .into_iter()
            .find(|last| last.sequence == sequence)
            .map(|last| Refusals {
                in_a_row,
                words: last.message,
                status: last.status,
            })
            .unwrap_or_default())
    }

    /// See [`Rejected::page`]; `read` gives the records from a place on.
    fn page(
        &self,
        directory: &Path,
        after: u64,
        limit: u32,
        bytes: u64,
        read: impl Fn(u64) -> Reader,
    ) -> Result<Vec<RejectedOperation>> {
        let mut places = Vec::new();
        let mut sum = 0_u64;
        for entry in self
            .entries
            .range(after.saturating_add(1)..)
            .map(|(_, entry)| entry)
        {
            sum = sum.saturating_add(entry.bytes);
            if places.len() as u64 >= u64::from(limit) || (sum > bytes && !places.is_empty()) {
                break;
            }
            places.push(entry.place);
        }
        // In the order of the file, so that neighbours are read with one reader.
        places.sort_unstable();
        let mut page = Vec::with_capacity(places.len());
        let mut reading: Option<(u64, Reader)> = None;
        for place in places {
            let (mut at, mut reader) = reading
                .take()
                .filter(|(at, _)| place - *at < READ_OVER)
                .unwrap_or_else(|| (place, read(place)));
            let record = loop {
                let record = reader.next().unwrap_or({
                    Err(Error::Reclaimed {
                        asked: place,
                        first: at,
                    })
                })?;
                at += 1;
                if record.sequence == place {
                    break record;
                }
            };
            page.push(entry_of(directory, &record)?);
            reading = Some((at, reader));
        }
        page.sort_unstable_by_key(|entry| entry.sequence);
        Ok(page)
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

fn entry_of(directory: &Path, record: &Record) -> Result<RejectedOperation> {
    match decode(record) {
        Some(RejectedRecord::Entry(entry)) => Ok(entry),
        _ => Err(unreadable(directory, record)),
    }
}

/// As much of a message as is stored.
fn stored_message(message: &str) -> &str {
    &message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)]
}

enum RejectedRecord {
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
    let message = stored_message(&entry.message);
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
    encode_head(TOMBSTONE, 0, 0, sequence, now_ms())
}

fn decode(record: &Record) -> Option<RejectedRecord> {
    let (head, rest) = record.payload.split_first_chunk::<HEAD_BYTES>()?;
    let [kind, _, s0, s1, m0, m1, m2, m3, times @ ..] = head;
    let (sequence, rejected_ms) = times.split_at(8);
    let sequence = u64::from_le_bytes(sequence.try_into().ok()?);
    match *kind {
        ENTRY => {
            let length = usize::try_from(u32::from_le_bytes([*m0, *m1, *m2, *m3])).ok()?;
            let (message, operation) = rest.split_at_checked(length)?;
            Some(RejectedRecord::Entry(RejectedOperation {
                sequence,
                status: u16::from_le_bytes([*s0, *s1]),
                message: String::from_utf8(message.to_vec()).ok()?,
                rejected_ms: u64::from_le_bytes(rejected_ms.try_into().ok()?),
                operation: operation.to_vec(),
            }))
        }
        TOMBSTONE => Some(RejectedRecord::Tombstone(sequence)),
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
