//! Reading a known stretch of the log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::record::{self, Fault, Record};
use crate::segment;

/// A stretch of one segment that holds whole calls.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    pub path: PathBuf,
    pub seed: u32,
    /// Sequence of the record at `offset`.
    pub sequence: u64,
    pub offset: u64,
    pub end: u64,
    /// The sequence after the last record before `end`.
    pub end_sequence: u64,
}

/// Iterator over records, as [`crate::Log::read`] returns it.
#[derive(Debug)]
pub struct Reader {
    parts: VecDeque<Span>,
    /// The file of the first part, if it is open.
    input: Option<BufReader<File>>,
    from: u64,
    failure: Option<Error>,
}

impl Reader {
    pub(crate) fn new(parts: VecDeque<Span>, from: u64) -> Self {
        Self {
            parts,
            input: None,
            from,
            failure: None,
        }
    }

    /// A reader that yields one error.
    pub(crate) fn failed(error: Error) -> Self {
        Self {
            failure: Some(error),
            ..Self::new(VecDeque::new(), 0)
        }
    }

    fn advance(&mut self) -> Result<Option<Record>> {
        let mut payload = Vec::new();
        while let Some(part) = self.parts.front_mut() {
            if part.offset >= part.end {
                if part.sequence != part.end_sequence {
                    let message = format!(
                        "the segment ends before sequence {}, and the next begins with {}",
                        part.sequence, part.end_sequence
                    );
                    return Err(Error::corrupt(&part.path, part.offset, message));
                }
                self.parts.pop_front();
                self.input = None;
                continue;
            }
            let input = match &mut self.input {
                Some(input) => input,
                closed => closed.insert(segment::reader_at(&part.path, part.offset)?),
            };
            let header = record::read(input, part.seed, part.offset, part.end, &mut payload)
                .map_err(|source| Error::io("read", &part.path, source))?
                .and_then(|header| {
                    if header.sequence == part.sequence {
                        Ok(header)
                    } else {
                        Err(Fault::Sequence {
                            expected: part.sequence,
                            found: header.sequence,
                        })
                    }
                })
                .map_err(|fault| Error::corrupt(&part.path, part.offset, fault.to_string()))?;
            part.offset += header.frame_bytes();
            part.sequence += 1;
            if header.sequence >= self.from {
                return Ok(Some(Record {
                    sequence: header.sequence,
                    time_ms: header.time_ms,
                    payload,
                }));
            }
        }
        Ok(None)
    }
}

impl Iterator for Reader {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failure.take() {
            return Some(Err(error));
        }
        let next = self.advance().transpose();
        if matches!(next, Some(Err(_))) {
            self.parts.clear();
        }
        next
    }
}
