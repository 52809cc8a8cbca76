//! The log: opening, appending, syncing, reclaiming and cutting.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::iter;
use std::mem;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use edge_sync_clock::now_ms;

use crate::error::{Error, Result};
use crate::files;
use crate::read::{Reader, Span};
use crate::record::{self, MAX_PAYLOAD_BYTES, MAX_RECORD_BYTES};
use crate::segment::{self, HEADER_BYTES, MAX_SEQUENCE, Marks};

/// When appended records reach the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Before [`Log::append`] returns, with one fsync for each call.
    #[default]
    Always,
    /// By the first append after this time since the last fsync. A power cut loses at most the
    /// calls since then.
    Interval(Duration),
    /// When the operating system sees fit, at [`Log::sync`], and when a segment is closed. A
    /// crash of the process alone loses nothing.
    Os,
}

/// Settings of an open log. None of them is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// When appended records reach the disk.
    pub durability: Durability,
    /// Size in bytes at which a segment is closed and the next begun; at least 4096. A call never
    /// spans segments, so that a larger call makes a larger segment.
    pub segment_bytes: u64,
    /// The caller knows that everything up to this sequence was durable once, for instance
    /// because a positions file that was stored after [`Log::sync`] names it. If the log ends
    /// before it, opening is [`Error::Corrupt`] and changes nothing, where it would otherwise
    /// take damage at the very end for the mark of a crash. 0: nothing is known.
    pub durable_to: u64,
}

impl Default for LogOptions {
    /// [`Durability::Always`], segments of 16 MiB.
    fn default() -> Self {
        Self {
            durability: Durability::Always,
            segment_bytes: 16 << 20,
            durable_to: 0,
        }
    }
}

/// The smallest [`LogOptions::segment_bytes`].
pub const MIN_SEGMENT_BYTES: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) first: u64,
    pub(crate) seed: u32,
    /// Length of the file as far as it holds whole calls.
    pub(crate) bytes: u64,
    /// Filled when first needed; always there for the last segment.
    pub(crate) marks: OnceLock<Marks>,
}

/// A log in a directory of its own.
///
/// One instance at a time may have it open; there are no file locks on WASI, so that is the
/// caller's to see to. Others may [`crate::follow`] it meanwhile.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    options: LogOptions,
    /// Closed segments, oldest first; durable in full.
    sealed: VecDeque<Segment>,
    /// The last segment, which records go to.
    active: Segment,
    /// Its file.
    file: File,
    /// The sequence that the next record gets.
    next: u64,
    /// How much of the active segment a finished fsync covers.
    synced_bytes: u64,
    last_sync: Instant,
    poisoned: Option<String>,
}

impl Log {
    /// Of what was found in `directory`, or made there.
    pub(crate) fn assemble(
        directory: &Path,
        options: LogOptions,
        sealed: VecDeque<Segment>,
        active: Segment,
        file: File,
        next: u64,
    ) -> Self {
        Self {
            directory: directory.to_path_buf(),
            options,
            sealed,
            synced_bytes: active.bytes,
            active,
            file,
            next,
            last_sync: Instant::now(),
            poisoned: None,
        }
    }

    /// Appends `payloads` as one call: all of them are in the log, or, on error, none is.
    /// Answers their sequences. One run of writes, and one fsync if the durability asks for it.
    ///
    /// # Errors
    /// [`Error::RecordTooLarge`]; [`Error::Io`], after which the log is as before; or, if it
    /// could not be brought back, or an fsync failed (the kernel then no longer knows what is on
    /// the disk), each later change is [`Error::Poisoned`] until the log is opened again. Whether
    /// a call whose fsync failed survives a power cut is open until then.
    pub fn append<P: AsRef<[u8]>>(&mut self, payloads: &[P]) -> Result<Range<u64>> {
        self.append_within(payloads, MAX_RECORD_BYTES, true)
    }

    pub(crate) fn append_within<P: AsRef<[u8]>>(
        &mut self,
        payloads: &[P],
        limit: u32,
        sync: bool,
    ) -> Result<Range<u64>> {
        self.check_usable()?;
        let limit = limit.min(MAX_PAYLOAD_BYTES);
        let mut bytes = 0;
        for (index, payload) in payloads.iter().enumerate() {
            let length = payload.as_ref().len() as u64;
            if length > u64::from(limit) {
                return Err(Error::RecordTooLarge {
                    index,
                    bytes: length,
                    limit: u64::from(limit),
                });
            }
            bytes += record::HEADER_BYTES + length;
        }
        if u32::try_from(payloads.len()).is_err() {
            return Err(Error::Invalid {
                field: "payloads",
                message: format!("a call takes at most {} records", u32::MAX),
            });
        }
        if payloads.is_empty() {
            return Ok(self.next..self.next);
        }
        if self.active.bytes > HEADER_BYTES
            && self.active.bytes + bytes > self.options.segment_bytes
        {
            self.rotate()?;
        }

        let start = self.active.bytes;
        let path = self.active_path();
        if let Err(error) = self.write_call(payloads, &path) {
            return Err(self.roll_back(error, &path, false));
        }
        let due = sync
            && match self.options.durability {
                Durability::Always => true,
                Durability::Interval(interval) => self.last_sync.elapsed() >= interval,
                Durability::Os => false,
            };
        if due {
            if let Err(error) = files::sync(&self.file, &path, "sync log segment") {
                return Err(self.roll_back(error, &path, true));
            }
            self.synced_bytes = start + bytes;
            self.last_sync = Instant::now();
        }
        let first = self.next;
        self.active.bytes = start + bytes;
        self.next += payloads.len() as u64;
        Ok(first..self.next)
    }

    /// Writes the records of one call at the end of the active segment.
    fn write_call<P: AsRef<[u8]>>(&mut self, payloads: &[P], path: &Path) -> Result<()> {
        /// Enough for few and large writes, little enough not to hold a large call twice.
        const BUFFER_BYTES: usize = 1 << 20;
        let time_ms = now_ms();
        let frames = |payload: &P| payload.as_ref().len() + record::HEADER_BYTES as usize;
        let whole: usize = payloads.iter().map(frames).sum();
        let mut buffer = Vec::with_capacity(whole.min(BUFFER_BYTES));
        let mut offset = self.active.bytes;
        let mut left = payloads.len() as u32;
        for (index, payload) in payloads.iter().enumerate() {
            let payload = payload.as_ref();
            left -= 1;
            let header = record::Header {
                length: payload.len() as u32,
                sequence: self.next + index as u64,
                time_ms,
                synced: self.synced_bytes,
                index: index as u32,
                left,
            };
            let at = offset + buffer.len() as u64;
            if let Some(marks) = self.active.marks.get_mut() {
                marks.note(header.sequence, at);
            }
            buffer.extend_from_slice(&header.encode(self.active.seed, at, payload));
            buffer.extend_from_slice(payload);
            if buffer.len() >= BUFFER_BYTES || left == 0 {
                files::write_at(&self.file, path, offset, &buffer, "append to log segment")?;
                offset += buffer.len() as u64;
                buffer.clear();
            }
        }
        Ok(())
    }

    /// Takes a failed call back out of the file. `error` is returned, and explains the poisoning
    /// if there is one.
    fn roll_back(&mut self, error: Error, path: &Path, sync_failed: bool) -> Error {
        let end = self.active.bytes;
        if let Some(marks) = self.active.marks.get_mut() {
            marks.cut(end);
        }
        // Durably, or a power cut could bring the append back, or remains of it under the next call.
        let cut = files::set_len(&self.file, path, end, "take failed append out of")
            .and_then(|()| files::sync(&self.file, path, "sync log segment"));
        match cut {
            // What was appended before may be lost with the sync that failed.
            _ if sync_failed => self.poison(error.to_string()),
            Ok(()) => self.synced_bytes = end,
            Err(second) => self.poison(format!("{error}; then {second}")),
        }
        error
    }

    /// Makes everything appended durable.
    ///
    /// # Errors
    /// [`Error::Io`], after which the log is poisoned: a failed fsync cannot be repeated.
    pub fn sync(&mut self) -> Result<()> {
        self.check_usable()?;
        if !self.is_synced() {
            let path = self.active_path();
            if let Err(error) = files::sync(&self.file, &path, "sync log segment") {
                self.poison(error.to_string());
                return Err(error);
            }
            self.synced_bytes = self.active.bytes;
        }
        self.last_sync = Instant::now();
        Ok(())
    }

    /// Closes the active segment and begins a new one, unless it is empty.
    pub(crate) fn rotate(&mut self) -> Result<()> {
        if self.active.bytes == HEADER_BYTES {
            return Ok(());
        }
        self.sync()?;
        let previous = (self.active.first, self.active.bytes);
        self.begin_segment(self.next, Some(previous))
    }

    fn begin_segment(&mut self, first: u64, previous: Option<(u64, u64)>) -> Result<()> {
        let (active, file) =
            create_segment(&self.directory, first, previous).inspect_err(|error| {
                // Records go on to the old segment, so that the new one must not turn up again.
                if let Err(second) = remove_segment_if_there(&self.directory, first) {
                    poison(
                        &mut self.poisoned,
                        &self.directory,
                        format!("{error}; then {second}"),
                    );
                }
            })?;
        self.sync_directory()?;
        self.sealed
            .push_back(mem::replace(&mut self.active, active));
        self.file = file;
        self.synced_bytes = HEADER_BYTES;
        self.next = first;
        Ok(())
    }

    /// Records from sequence `from` on, up to what is the end now; from 0, all there are.
    ///
    /// Takes memory for one record at a time. The reader is a view of its own: records appended
    /// later are not in it, and after [`Log::reclaim`], [`Log::truncate_after`] or
    /// [`Log::restart`] it may end with an error. It yields nothing after an error:
    /// [`Error::Corrupt`], [`Error::Io`], or [`Error::Reclaimed`] if `from` is below
    /// [`Log::first`].
    pub fn read(&self, from: u64) -> Reader {
        if from != 0 && from < self.first() {
            return Reader::failed(Error::Reclaimed {
                asked: from,
                first: self.first(),
            });
        }
        let from = from.max(self.first());
        let place = self.segment_of(from);
        // A failure shows again, with its place, when the segment is read.
        let start = self.start_of(place, from).ok();
        let spans = self.segments().enumerate().skip(place);
        let spans = spans.map(|(at, segment)| {
            let (sequence, offset) = start
                .filter(|_| at == place)
                .unwrap_or((segment.first, HEADER_BYTES));
            Span {
                path: segment::path(&self.directory, segment.first),
                seed: segment.seed,
                sequence,
                offset,
                end: segment.bytes,
                end_sequence: self.end_sequence(at),
            }
        });
        Reader::new(spans.collect(), from)
    }

    /// Sequence of the oldest record; [`Log::next`] if there is none.
    pub fn first(&self) -> u64 {
        self.sealed.front().unwrap_or(&self.active).first
    }

    /// Sequence of the newest record; one less than [`Log::first`] if there is none.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// The sequence that the next record gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Whether everything appended is known to be durable.
    pub fn is_synced(&self) -> bool {
        self.synced_bytes == self.active.bytes
    }

    /// How many records have a sequence above `sequence`.
    pub fn records_after(&self, sequence: u64) -> u64 {
        self.next - sequence.saturating_add(1).clamp(self.first(), self.next)
    }

    /// Bytes in the files of the records above `sequence`, their headers included.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Io`], from the segment that `sequence` is in.
    pub fn bytes_after(&self, sequence: u64) -> Result<u64> {
        let from = (sequence.saturating_add(1)).max(self.first());
        if from >= self.next {
            return Ok(0);
        }
        let place = self.segment_of(from);
        let later: u64 = self
            .segments()
            .skip(place + 1)
            .map(|segment| segment.bytes - HEADER_BYTES)
            .sum();
        let (offset, _) = self.locate(place, from)?;
        Ok(later + (self.segment(place).bytes - offset))
    }

    /// When the record `sequence` was appended, in milliseconds since 1970 (UTC); None if the log
    /// does not hold it. Reads no payloads.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Io`].
    pub fn time_of(&self, sequence: u64) -> Result<Option<u64>> {
        if sequence < self.first() || sequence >= self.next {
            return Ok(None);
        }
        let (_, header) = self.locate(self.segment_of(sequence), sequence)?;
        Ok(Some(header.time_ms))
    }

    /// Removes whole segments that hold nothing above `up_to`, oldest first. A last segment stays,
    /// so that the log always knows its next sequence; one that is worth the effort (a sixteenth of
    /// a full one) is replaced by an empty one first. A crash on the way leaves the log with some
    /// of them.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Poisoned`].
    pub fn reclaim(&mut self, up_to: u64) -> Result<()> {
        self.check_usable()?;
        if self.last() <= up_to {
            self.begin_segment_if_worth_it()?;
        }
        while !self.sealed.is_empty() && self.end_sequence(0) - 1 <= up_to {
            self.remove_oldest()?;
        }
        Ok(())
    }

    /// Replaces a last segment that holds much by an empty one, so that the next opening has less to
    /// check. To be called where the next opening has no use for the records.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Poisoned`].
    pub fn begin_segment_if_worth_it(&mut self) -> Result<()> {
        self.check_usable()?;
        if self.active.bytes - HEADER_BYTES < self.options.segment_bytes / 16 {
            return Ok(());
        }
        // On a full disk there may be no room for the empty one.
        if let Err(error) = self.rotate() {
            self.check_usable()?;
            tracing::warn!(directory = %self.directory.display(), "{error}");
        }
        Ok(())
    }

    fn remove_oldest(&mut self) -> Result<()> {
        let path = segment::path(&self.directory, self.first());
        files::remove(&path, "remove log segment")?;
        self.sealed.pop_front();
        self.sync_directory()
    }

    /// Removes every record above `sequence`, durably; their sequences will be given again. A
    /// crash on the way leaves the log to end there, or at the end of some later call.
    ///
    /// # Errors
    /// [`Error::InsideCall`] if `sequence` is not the last of a call, [`Error::Reclaimed`] if it
    /// is below what the log holds; [`Error::Io`], [`Error::Corrupt`], [`Error::Poisoned`].
    pub fn truncate_after(&mut self, sequence: u64) -> Result<()> {
        self.check_usable()?;
        if sequence >= self.last() {
            return Ok(());
        }
        if sequence + 1 < self.first() {
            return Err(Error::Reclaimed {
                asked: sequence,
                first: self.first(),
            });
        }
        let place = self.segment_of(sequence + 1);
        let (end, header) = self.locate(place, sequence + 1)?;
        if header.index > 0 {
            let first = header.sequence - u64::from(header.index);
            return Err(Error::InsideCall {
                sequence,
                first,
                last: header.sequence + u64::from(header.left),
            });
        }
        // For the case that the segment was closed: the active one always has its marks.
        self.marks(place)?;
        self.cut(place, end, sequence + 1).inspect_err(|error| {
            poison(&mut self.poisoned, &self.directory, error.to_string());
        })
    }

    /// Makes the segment at `place` the active one, `end` its length and `next` the next sequence.
    fn cut(&mut self, place: usize, end: u64, next: u64) -> Result<()> {
        // Newest first, so that what is left stays connected.
        while self.sealed.len() > place {
            files::remove(&self.active_path(), "remove log segment")?;
            self.next = self.active.first;
            if let Some(previous) = self.sealed.pop_back() {
                self.active = previous;
            }
            files::sync_directory(&self.directory)?;
        }
        let path = self.active_path();
        self.file = files::open_to_write(&path, "open log segment")?;
        // A power cut may leave zeros after the place of a cut, and the old length. What is cut off
        // at once must not hold proof that the records before it had been durable.
        let mut cuts = self.synced_beyond(end, next)?;
        cuts.insert(end, next);
        for (end, next) in cuts.into_iter().rev() {
            files::set_len(&self.file, &path, end, "cut")?;
            self.active.bytes = end;
            self.next = next;
            if let Some(marks) = self.active.marks.get_mut() {
                marks.cut(end);
            }
            files::sync(&self.file, &path, "sync log segment")?;
            self.synced_bytes = end;
        }
        Ok(())
    }

    /// Up to where the active segment had been synced, as its records from `next` on say, the first
    /// of which is at `start`; with the sequence of the record there.
    fn synced_beyond(&self, start: u64, next: u64) -> Result<BTreeMap<u64, u64>> {
        let (path, end) = (self.active_path(), self.active.bytes);
        let mut synced = BTreeSet::new();
        segment::walk(&path, (next, start), end, |header, _| {
            synced.insert(header.synced);
            true
        })?;
        let mut found = BTreeMap::new();
        segment::walk(&path, (next, start), end, |header, offset| {
            if offset > start && synced.contains(&offset) {
                found.insert(offset, header.sequence);
            }
            true
        })?;
        Ok(found)
    }

    /// Empties the log and lets it go on with sequence `next`, which is not below
    /// [`Log::next`]. A crash on the way leaves the log as it was, or emptied in part or whole.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Io`], [`Error::Poisoned`].
    pub fn restart(&mut self, next: u64) -> Result<()> {
        self.check_usable()?;
        if !(self.next..=MAX_SEQUENCE).contains(&next) {
            return Err(Error::Invalid {
                field: "next",
                message: format!("{next} is not within {} to {MAX_SEQUENCE}", self.next),
            });
        }
        if self.active.first == next {
            while !self.sealed.is_empty() {
                self.remove_oldest()?;
            }
            return Ok(());
        }
        self.sync()?;
        self.begin_segment(next, None)?;
        // These do not count any more, and must be gone before the new segment may be reclaimed.
        for replaced in mem::take(&mut self.sealed) {
            remove_segment(&self.directory, replaced.first).inspect_err(|error| {
                poison(&mut self.poisoned, &self.directory, error.to_string());
            })?;
        }
        Ok(())
    }

    /// The log's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Bytes that the log's segments take, headers included.
    pub fn disk_bytes(&self) -> u64 {
        self.segments().map(|segment| segment.bytes).sum()
    }

    /// All segments, oldest first.
    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.sealed.iter().chain(iter::once(&self.active))
    }

    fn segment(&self, place: usize) -> &Segment {
        self.sealed.get(place).unwrap_or(&self.active)
    }

    fn active_path(&self) -> PathBuf {
        segment::path(&self.directory, self.active.first)
    }

    /// Place of the segment that holds `sequence`, or would hold it next.
    fn segment_of(&self, sequence: u64) -> usize {
        if sequence >= self.active.first {
            return self.sealed.len();
        }
        self.sealed
            .partition_point(|segment| segment.first <= sequence)
            .saturating_sub(1)
    }

    /// The sequence after the last record of a segment.
    fn end_sequence(&self, place: usize) -> u64 {
        if place >= self.sealed.len() {
            return self.next;
        }
        self.segment(place + 1).first
    }

    fn marks(&self, place: usize) -> Result<&Marks> {
        let segment = self.segment(place);
        if let Some(marks) = segment.marks.get() {
            return Ok(marks);
        }
        let path = segment::path(&self.directory, segment.first);
        let marks = Marks::build(&path, segment.first, segment.bytes)?;
        Ok(segment.marks.get_or_init(|| marks))
    }

    /// A record (sequence and offset) of the segment at `place` from which `sequence` is near.
    fn start_of(&self, place: usize, sequence: u64) -> Result<(u64, u64)> {
        let first = self.segment(place).first;
        if sequence <= first {
            return Ok((first, HEADER_BYTES));
        }
        let near = self.marks(place)?.before(sequence);
        Ok(near.unwrap_or((first, HEADER_BYTES)))
    }

    /// Offset and header of a record that the segment at `place` holds.
    fn locate(&self, place: usize, sequence: u64) -> Result<(u64, record::Header)> {
        let segment = self.segment(place);
        let path = segment::path(&self.directory, segment.first);
        let start = self.start_of(place, sequence)?;
        let mut found = None;
        segment::walk(&path, start, segment.bytes, |header, offset| {
            if header.sequence == sequence {
                found = Some((offset, *header));
            }
            found.is_none()
        })?;
        found.ok_or_else(|| {
            Error::corrupt(
                &path,
                segment.bytes,
                format!("the segment ends before sequence {sequence}"),
            )
        })
    }

    fn sync_directory(&mut self) -> Result<()> {
        files::sync_directory(&self.directory).inspect_err(|error| {
            poison(&mut self.poisoned, &self.directory, error.to_string());
        })
    }

    fn poison(&mut self, reason: String) {
        poison(&mut self.poisoned, &self.directory, reason);
    }

    fn check_usable(&self) -> Result<()> {
        match &self.poisoned {
            None => Ok(()),
            Some(reason) => Err(Error::Poisoned {
                directory: self.directory.clone(),
                reason: reason.clone(),
            }),
        }
    }
}

fn poison(poisoned: &mut Option<String>, directory: &Path, reason: String) {
    tracing::error!(directory = %directory.display(), reason, "the log must be reopened");
    poisoned.get_or_insert(reason);
}

/// Makes a segment without records, durable but for its name in the directory.
pub(crate) fn create_segment(
    directory: &Path,
    first: u64,
    previous: Option<(u64, u64)>,
) -> Result<(Segment, File)> {
    let path = segment::path(directory, first);
    let (previous_first, previous_bytes) = previous.unwrap_or((0, 0));
    let header = segment::Header {
        first,
        salt: segment::new_salt(),
        previous_first,
        previous_bytes,
    };
    let file = files::create(&path, "create log segment")?;
    files::write_at(&file, &path, 0, &header.encode(), "write header of")?;
    files::sync(&file, &path, "sync log segment")?;
    let segment = Segment {
        first,
        seed: header.seed(),
        bytes: HEADER_BYTES,
        marks: OnceLock::from(Marks::default()),
    };
    Ok((segment, file))
}

pub(crate) fn remove_segment(directory: &Path, first: u64) -> Result<()> {
    files::remove(&segment::path(directory, first), "remove log segment")?;
    files::sync_directory(directory)
}

fn remove_segment_if_there(directory: &Path, first: u64) -> Result<()> {
    if segment::path(directory, first).exists() {
        remove_segment(directory, first)
    } else {
        Ok(())
    }
}
