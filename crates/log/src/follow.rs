//! Reading a log that another instance is appending to.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::record::{self, Chain, Record};
use crate::segment::{self, HEADER_BYTES};

/// How far to look ahead at a time.
const LOOK_AHEAD_BYTES: u64 = 1 << 20;

/// Follows the log in `directory` from sequence `from` on (from 0: the oldest record) while
/// another instance appends to it. Changes nothing.
///
/// A call of `append` becomes visible, as a whole, once the next call has begun: only then it is
/// certain that it was not taken back, because the log takes back a failed call before it begins
/// another. So the follower stays one call behind; whoever then takes the log over with
/// [`crate::Log::open`] reads the rest there.
///
/// It ends quietly at what is not yet complete. Calling `next` again after `None` looks for what
/// was appended since, and so does a new follower `from` the last sequence plus one. Damage at
/// the very end looks like an incomplete call; the owner's next `open` tells them apart.
///
/// Errors that `next` yields: [`Error::Corrupt`], [`Error::UnknownVersion`], [`Error::Io`], and
/// [`Error::Reclaimed`] if the owner has removed what comes next. `next` may be called again. The
/// owner must not [`crate::Log::truncate_after`] what a follower may have seen: everything but the
/// last call, and that too once another `append` was tried, even if it failed.
pub fn follow(directory: &Path, from: u64) -> Follower {
    Follower {
        directory: directory.to_path_buf(),
        from,
        returned: None,
        segment: None,
    }
}

/// Iterator over records, as [`follow`] returns it.
#[derive(Debug)]
pub struct Follower {
    directory: PathBuf,
    /// The next sequence to yield.
    from: u64,
    /// Up to here the owner's calls are known to have returned.
    returned: Option<u64>,
    segment: Option<Following>,
}

/// Where a follower is.
#[derive(Debug)]
struct Following {
    path: PathBuf,
    header: segment::Header,
    seed: u32,
    /// The next record.
    chain: Chain,
    offset: u64,
    /// Up to here everything is complete and stays. The end of a call.
    visible: u64,
    /// Stands at `offset`, if it is there; opened after `visible` was last moved.
    input: Option<BufReader<File>>,
}

impl Iterator for Follower {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}

impl Follower {
    /// The owner's calls up to `sequence` have returned, and are never taken back. Once a follower has
    /// been told of one, it shows what it was told of, the last call included, and nothing else.
    pub fn has_returned(&mut self, sequence: u64) {
        self.returned = self.returned.max(Some(sequence));
    }

    fn advance(&mut self) -> Result<Option<Record>> {
        loop {
            let segment = match &mut self.segment {
                Some(segment) => segment,
                none => match locate(&self.directory, self.from)? {
                    Some(found) => none.insert(found),
                    None => return Ok(None),
                },
            };
            if segment.offset < segment.visible {
                let record = match segment.read() {
                    Ok(record) => record,
                    Err(error) => {
                        self.move_on(error)?;
                        continue;
                    }
                };
                if record.sequence >= self.from {
                    self.from = record.sequence + 1;
                    return Ok(Some(record));
                }
                continue;
            }
            let following = match segment.look_ahead(&self.directory, self.returned) {
                Ok(following) => following,
                Err(error) => {
                    self.move_on(error)?;
                    continue;
                }
            };
            if segment.offset < segment.visible {
                continue;
            }
            let Some(following) = following else {
                return Ok(None);
            };
            self.segment = Some(following);
        }
    }

    /// Leaves a segment whose file was reclaimed after its last record was yielded: the next one
    /// begins a segment of its own. Any other error stays one.
    fn move_on(&mut self, error: Error) -> Result<()> {
        let Some(segment) = &self.segment else {
            return Err(error);
        };
        let error = gone(error, &self.directory, segment.chain.next);
        if !is_not_found(&error) {
            return Err(error);
        }
        let next_begins = segment::list(&self.directory)?
            .first()
            .is_some_and(|first| *first == segment.chain.next);
        if !next_begins {
            return Err(error);
        }
        self.segment = None;
        Ok(())
    }
}

fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

/// The segment that holds `from`, or will.
fn locate(directory: &Path, from: u64) -> Result<Option<Following>> {
    let firsts = match segment::list(directory) {
        Ok(firsts) => firsts,
        Err(error) if is_not_found(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    if let Some(first) = firsts.first()
        && from != 0
        && from < *first
    {
        return Err(Error::Reclaimed {
            asked: from,
            first: *first,
        });
    }
    let from = from.max(firsts.first().copied().unwrap_or_default());
    for (place, first) in firsts.iter().enumerate().rev() {
        if *first > from {
            continue;
        }
        let path = segment::path(directory, *first);
        let (header, len) = match segment::read_header(&path, *first) {
            Ok(found) => found,
            Err(error) => return Err(gone(error, directory, from)),
        };
        match header {
            Ok(header) => return Ok(Some(Following::new(path, header))),
            // Being created.
            Err(_) if place + 1 == firsts.len() && len <= HEADER_BYTES => {}
            Err(fault) => return Err(fault.into_error(&path)),
        }
    }
    Ok(None)
}

/// A file that is not there any more was reclaimed.
fn gone(error: Error, directory: &Path, asked: u64) -> Error {
    if !is_not_found(&error) {
        return error;
    }
    match segment::list(directory).as_deref() {
        Ok([first, ..]) if *first > asked => Error::Reclaimed {
            asked,
            first: *first,
        },
        _ => error,
    }
}

impl Following {
    fn new(path: PathBuf, header: segment::Header) -> Self {
        Self {
            path,
            seed: header.seed(),
            chain: Chain::at_boundary(header.first),
            offset: HEADER_BYTES,
            visible: HEADER_BYTES,
            input: None,
            header,
        }
    }

    /// Reads the next visible record.
    fn read(&mut self) -> Result<Record> {
        let mut payload = Vec::new();
        let input = match &mut self.input {
            Some(input) => input,
            closed => closed.insert(segment::reader_at(&self.path, self.offset)?),
        };
        let mut chain = self.chain;
        let step = record::read(input, self.seed, self.offset, self.visible, &mut payload)
            .map_err(|source| Error::io("read", &self.path, source))
            .and_then(|step| {
                step.and_then(|header| chain.step(&header).map(|()| header))
                    .map_err(|fault| Error::corrupt(&self.path, self.offset, fault.to_string()))
            });
        let header = match step {
            Ok(header) => header,
            Err(error) => {
                self.input = None;
                return Err(error);
            }
        };
        self.chain = chain;
        self.offset += header.frame_bytes();
        Ok(Record {
            sequence: header.sequence,
            time_ms: header.time_ms,
            payload,
        })
    }

    /// Moves `visible` on if it can be. Answers the segment that follows this one, if there is
    /// one and this one ends at `visible`.
    fn look_ahead(&mut self, directory: &Path, returned: Option<u64>) -> Result<Option<Self>> {
        // What is yielded must be read after the proof that it stays was seen.
        self.input = None;
        // Looked for first: once it is there, nothing in this segment changes any more.
        let following = self.following(directory)?;
        let context = |source| Error::io("read", &self.path, source);
        let mut input = segment::reader_at(&self.path, self.offset)?;
        let end = match &following {
            Some(following) => following.header.previous_bytes,
            None => input.get_ref().metadata().map_err(context)?.len(),
        };
        let mut payload = Vec::new();
        let mut chain = self.chain;
        let mut offset = self.offset;
        while offset < end {
            let begins_call = chain.is_at_boundary();
            let step = record::read(&mut input, self.seed, offset, end, &mut payload)
                .map_err(context)?
                .and_then(|header| chain.step(&header).map(|()| header));
            let header = match step {
                Ok(header) => header,
                Err(_) if following.is_none() => return Ok(None),
                Err(fault) => return Err(Error::corrupt(&self.path, offset, fault.to_string())),
            };
            if begins_call {
                if returned.is_some_and(|returned| header.sequence > returned) {
                    return Ok(None);
                }
                self.visible = offset;
                if offset - self.offset >= LOOK_AHEAD_BYTES {
                    return Ok(None);
                }
            }
            offset += header.frame_bytes();
            if chain.is_at_boundary() && returned.is_some_and(|it| header.sequence <= it) {
                self.visible = offset;
            }
        }
        if let Some(following) = &following {
            if !chain.is_at_boundary() || chain.next != following.header.first {
                let message = format!(
                    "the segment ends before sequence {}, and the next begins with {}",
                    chain.next, following.header.first
                );
                return Err(Error::corrupt(&self.path, offset, message));
            }
            // A segment begins only after all calls of the one before are done and durable.
            self.visible = offset;
        }
        Ok(following)
    }

    /// The segment after this one, if it has been begun.
    fn following(&self, directory: &Path) -> Result<Option<Self>> {
        let firsts = segment::list(directory)?;
        let place = firsts.partition_point(|first| *first <= self.header.first);
        let Some(first) = firsts.get(place) else {
            return Ok(None);
        };
        let path = segment::path(directory, *first);
        let (header, len) = segment::read_header(&path, *first)?;
        match header {
            Ok(header) if header.previous_first == self.header.first => {
                Ok(Some(Self::new(path, header)))
            }
            // The log was restarted, or this segment and more have been reclaimed.
            Ok(_) => Err(Error::Reclaimed {
                asked: self.chain.next,
                first: *first,
            }),
            // Being created.
            Err(_) if place + 1 == firsts.len() && len <= HEADER_BYTES => Ok(None),
            Err(fault) => Err(fault.into_error(&path)),
        }
    }
}
