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
    spans: VecDeque<Span>,
    /// The file of the first span, if it is open.
    input: Option<BufReader<File>>,
    from: u64,
    failure: Option<Error>,
}

impl Reader {
    pub(crate) fn new(spans: VecDeque<Span>, from: u64) -> Self {
        Self {
            spans,
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
        while let Some(span) = self.spans.front_mut() {
            if span.offset >= span.end {
                if span.sequence != span.end_sequence {
                    let message = format!(
                        "the segment ends before sequence {}, and the next begins with {}",
                        span.sequence, span.end_sequence
                    );
                    return Err(Error::corrupt(&span.path, span.offset, message));
                }
                self.spans.pop_front();
                self.input = None;
                continue;
            }
            let input = match &mut self.input {
                Some(input) => input,
                closed => closed.insert(segment::reader_at(&span.path, span.offset)?),
            };
            let header = record::read(input, span.seed, span.offset, span.end, &mut payload)
                .map_err(|source| Error::io("read", &span.path, source))?
                .and_then(|header| {
                    if header.sequence == span.sequence {
                        Ok(header)
                    } else {
                        Err(Fault::Sequence {
                            expected: span.sequence,
                            found: header.sequence,
                        })
                    }
                })
                .map_err(|fault| Error::corrupt(&span.path, span.offset, fault.to_string()))?;
            span.offset += header.frame_bytes();
            span.sequence += 1;
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
            self.spans.clear();
        }
        next
    }
}
