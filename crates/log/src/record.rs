//! The bytes of one record.
//!
//! `docs/log-format.md` is the specification; the constants here are its numbers.

use std::fmt;
use std::io::{self, Read};

/// Longest payload that [`crate::Log::append`] accepts: 64 MiB.
pub const MAX_RECORD_BYTES: u32 = 64 << 20;

/// Longest payload that a reader accepts. The difference is room for the rejected log, which
/// wraps an operation of any accepted length with the server's words.
pub(crate) const MAX_PAYLOAD_BYTES: u32 = MAX_RECORD_BYTES + (64 << 10);

/// Length of a record's header.
pub(crate) const HEADER_BYTES: u64 = 40;
const HEADER_LEN: usize = HEADER_BYTES as usize;

/// One record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the log; one more than that of the record before.
    pub sequence: u64,
    /// When it was appended, in milliseconds since 1970 (UTC), by the device's clock.
    pub time_ms: u64,
    /// What was appended.
    pub payload: Vec<u8>,
}

/// What precedes a payload in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Bytes of payload.
    pub length: u32,
    pub sequence: u64,
    pub time_ms: u64,
    /// Bytes of the file that a finished fsync covered when the record's call began.
    pub synced: u64,
    /// Place among the records of its call, from 0.
    pub index: u32,
    /// Records of the same call that follow.
    pub left: u32,
}

impl Header {
    /// The header's bytes for a record that begins at `offset` of the segment with `seed`.
    pub(crate) fn encode(&self, seed: u32, offset: u64, payload: &[u8]) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.time_ms.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.index.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.left.to_le_bytes());
        let crc = crc32c::crc32c_append(header_crc(&bytes, seed, offset), payload);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        Self {
            length: u32_at(bytes, 0),
            sequence: u64_at(bytes, 8),
            time_ms: u64_at(bytes, 16),
            synced: u64_at(bytes, 24),
            index: u32_at(bytes, 32),
            left: u32_at(bytes, 36),
        }
    }

    /// Length of the whole record.
    pub(crate) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES + u64::from(self.length)
    }
}

/// The checksum up to the payload: the record's offset, then its header without the checksum.
fn header_crc(bytes: &[u8; HEADER_LEN], seed: u32, offset: u64) -> u32 {
    let crc = crc32c::crc32c_append(seed, &offset.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &bytes[0..4]);
    crc32c::crc32c_append(crc, &bytes[8..])
}

fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

/// Why bytes are not the record that was expected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The file ends inside the record.
    CutOff,
    /// The length field is beyond what is ever written.
    Length(u32),
    /// The checksum does not match.
    Checksum,
    /// A whole record, but not the next one.
    Sequence { expected: u64, found: u64 },
    /// A whole record that does not continue its call.
    Call,
    /// The file ends before the last record of a call.
    CallCutOff,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CutOff => f.write_str("the file ends inside the record"),
            Self::Length(length) => write!(
                f,
                "the record claims {length} bytes of payload; no record has more than {MAX_PAYLOAD_BYTES}"
            ),
            Self::Checksum => f.write_str("the record's checksum does not match"),
            Self::Sequence { expected, found } => {
                write!(f, "found sequence {found} where {expected} belongs")
            }
            Self::Call => f.write_str("the record does not continue the call before it"),
            Self::CallCutOff => f.write_str("the last records of a call are missing"),
        }
    }
}

/// Reads a header, without its checksum: enough to hop over a record.
pub(crate) fn read_header(
    input: &mut impl Read,
    offset: u64,
    end: u64,
) -> io::Result<Result<Header, Fault>> {
    Ok(read_header_bytes(input, offset, end)?.map(|(header, _)| header))
}

type RawHeader = (Header, [u8; HEADER_LEN]);

fn read_header_bytes(
    input: &mut impl Read,
    offset: u64,
    end: u64,
) -> io::Result<Result<RawHeader, Fault>> {
    if end.saturating_sub(offset) < HEADER_BYTES {
        return Ok(Err(Fault::CutOff));
    }
    let mut bytes = [0; HEADER_LEN];
    if !fill(input, &mut bytes)? {
        return Ok(Err(Fault::CutOff));
    }
    let header = Header::decode(&bytes);
    if header.length > MAX_PAYLOAD_BYTES {
        return Ok(Err(Fault::Length(header.length)));
    }
    if end - offset < header.frame_bytes() {
        return Ok(Err(Fault::CutOff));
    }
    Ok(Ok((header, bytes)))
}

/// Reads the record at `offset`, where `input` stands, and checks its checksum. `payload` is
/// replaced. Nothing at or after `end` belongs to it.
pub(crate) fn read(
    input: &mut impl Read,
    seed: u32,
    offset: u64,
    end: u64,
    payload: &mut Vec<u8>,
) -> io::Result<Result<Header, Fault>> {
    let (header, bytes) = match read_header_bytes(input, offset, end)? {
        Ok(found) => found,
        Err(fault) => return Ok(Err(fault)),
    };
    payload.clear();
    payload.resize(header.length as usize, 0);
    if !fill(input, payload)? {
        return Ok(Err(Fault::CutOff));
    }
    let crc = crc32c::crc32c_append(header_crc(&bytes, seed, offset), payload);
    if crc != u32_at(&bytes, 4) {
        return Ok(Err(Fault::Checksum));
    }
    Ok(Ok(header))
}

/// Fills `buffer`; false if the file ends first.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Follows a run of records and tells which one must come next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    /// The next sequence.
    pub next: u64,
    /// Index and left of the record before, unless it ended its call.
    call: Option<(u32, u32)>,
}

impl Chain {
    /// A chain that begins with a new call.
    pub(crate) fn at_boundary(next: u64) -> Self {
        Self { next, call: None }
    }

    /// Whether the next record begins a call.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.call.is_none()
    }

    /// Takes the next record, or says why it is not.
    pub(crate) fn step(&mut self, header: &Header) -> Result<(), Fault> {
        if header.sequence != self.next {
            return Err(Fault::Sequence {
                expected: self.next,
                found: header.sequence,
            });
        }
        let continues = match self.call {
            None => header.index == 0,
            Some((index, left)) => {
                header.index.checked_sub(1) == Some(index)
                    && header.left.checked_add(1) == Some(left)
            }
        };
        if !continues {
            return Err(Fault::Call);
        }
        self.call = (header.left > 0).then_some((header.index, header.left));
        self.next += 1;
        Ok(())
    }
}
