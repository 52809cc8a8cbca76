//! A log as it stands at one moment, for whoever reads beside its owner.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::read::{Reader, Span};
use crate::record;
use crate::recovery::FoundSegments;
use crate::segment::{self, HEADER_BYTES};

/// How often to look again because the owner was changing the segments.
const ATTEMPTS: u32 = 20;

/// A log as it stood when [`View::look`] was called, while another instance may have it open.
/// Changes nothing, and takes no lock.
///
/// All calls of `append` that were complete are in it. Other than a [`crate::Follower`] it has the
/// last one too, which the owner may still take back: a view is for showing, not for acting on.
#[derive(Debug)]
pub struct View {
    directory: PathBuf,
    /// Oldest first; empty for a log that is not there, or just being begun.
    segments: Vec<Seen>,
    next: u64,
}

#[derive(Debug)]
struct Seen {
    first: u64,
    seed: u32,
    /// Length as far as it held whole calls.
    bytes: u64,
}

impl View {
    /// Looks at the log in `directory`. A directory that is not there is a log without records.
    ///
    /// What is incomplete at the end is a call under way, or what a crash left of one; the owner's
    /// next [`crate::Log::open`] tells these from damage.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::UnknownVersion`], [`Error::Io`].
    pub fn look(directory: &Path) -> Result<Self> {
        let mut attempts = ATTEMPTS;
        loop {
            let before = list(directory)?;
            let error = match Self::try_look(directory, &before) {
                Ok(view) => return Ok(view),
                Err(error) => error,
            };
            attempts -= 1;
            // The owner may have begun or removed a segment meanwhile.
            if attempts == 0 || list(directory)? == before {
                return Err(error);
            }
        }
    }

    fn try_look(directory: &Path, firsts: &[u64]) -> Result<Self> {
        let mut view = Self {
            directory: directory.to_path_buf(),
            segments: Vec::new(),
            next: 1,
        };
        if firsts.is_empty() {
            return Ok(view);
        }
        let found = FoundSegments::look(directory)?;
        view.next = found.half_made.unwrap_or(1);
        let Some(last) = found.segments.back() else {
            return Ok(view);
        };
        let path = segment::path(directory, last.header.first);
        let scan = segment::scan(&path, &last.header, last.len)?;
        view.next = scan.next;
        view.segments = found
            .segments
            .iter()
            .map(|segment| Seen {
                first: segment.header.first,
                seed: segment.header.seed(),
                bytes: segment.len,
            })
            .collect();
        if let Some(last) = view.segments.last_mut() {
            last.bytes = scan.end;
        }
        Ok(view)
    }

    /// Sequence of the oldest record; [`View::next`] if there was none.
    pub fn first(&self) -> u64 {
        self.segments.first().map_or(self.next, |seen| seen.first)
    }

    /// Sequence of the newest record; one less than [`View::first`] if there was none.
    pub fn last(&self) -> u64 {
        self.next - 1
    }

    /// The sequence that the next record gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Records from sequence `from` on, as [`crate::Log::read`] gives them. If the owner has
    /// removed or cut them since, the reader ends with an error; look again then.
    pub fn read(&self, from: u64) -> Reader {
        if from != 0 && from < self.first() {
            return Reader::failed(Error::Reclaimed {
                asked: from,
                first: self.first(),
            });
        }
        let from = from.max(self.first());
        let spans = (self.place_of(from)..self.segments.len()).filter_map(|place| {
            let seen = self.segments.get(place)?;
            Some(Span {
                path: segment::path(&self.directory, seen.first),
                seed: seen.seed,
                sequence: seen.first,
                offset: HEADER_BYTES,
                end: seen.bytes,
                end_sequence: self.end_sequence(place),
            })
        });
        Reader::new(spans.collect(), from)
    }

    /// Bytes in the files of the records above `sequence`, their headers included.
    ///
    /// # Errors
    /// As [`View::read`].
    pub fn bytes_after(&self, sequence: u64) -> Result<u64> {
        let from = sequence.saturating_add(1).max(self.first());
        let Some((place, offset, _)) = self.locate(from)? else {
            return Ok(0);
        };
        let all: u64 = self
            .segments
            .iter()
            .skip(place)
            .map(|seen| seen.bytes - HEADER_BYTES)
            .sum();
        Ok(all - (offset - HEADER_BYTES))
    }

    /// When the record `sequence` was appended, in milliseconds since 1970 (UTC); None if the log
    /// did not hold it. Reads no payloads.
    ///
    /// # Errors
    /// As [`View::read`].
    pub fn time_of(&self, sequence: u64) -> Result<Option<u64>> {
        Ok(self.locate(sequence)?.map(|(_, _, header)| header.time_ms))
    }

    /// Place of the segment, offset and header of a record; None if it was not in the log.
    fn locate(&self, sequence: u64) -> Result<Option<(usize, u64, record::Header)>> {
        if sequence < self.first() || sequence >= self.next {
            return Ok(None);
        }
        let place = self.place_of(sequence);
        let Some(seen) = self.segments.get(place) else {
            return Ok(None);
        };
        let path = segment::path(&self.directory, seen.first);
        let mut found = None;
        segment::walk(
            &path,
            (seen.first, HEADER_BYTES),
            seen.bytes,
            |header, offset| {
                if header.sequence == sequence {
                    found = Some((place, offset, *header));
                }
                found.is_none()
            },
        )?;
        Ok(found)
    }

    fn place_of(&self, sequence: u64) -> usize {
        self.segments
            .partition_point(|seen| seen.first <= sequence)
            .saturating_sub(1)
    }

    fn end_sequence(&self, place: usize) -> u64 {
        self.segments
            .get(place + 1)
            .map_or(self.next, |seen| seen.first)
    }
}

/// The first sequences of a directory's segments; none if it is not there.
fn list(directory: &Path) -> Result<Vec<u64>> {
    match segment::list(directory) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        outcome => outcome,
    }
}
