//! One segment file: its name, its header, and what a scan of its records finds.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::record::{self, Chain, Fault};

/// Length of a segment's header.
pub(crate) const HEADER_BYTES: u64 = 48;
const HEADER_LEN: usize = HEADER_BYTES as usize;
const MAGIC: &[u8; 8] = b"EDGESLOG";
/// The format's version.
pub(crate) const VERSION: u32 = 1;
/// Sequences end here, so that counting on from any stored one cannot overflow.
pub(crate) const MAX_SEQUENCE: u64 = 1 << 62;
/// Distance between two entries of a segment's index in memory.
const MARK_BYTES: u64 = 256 << 10;

/// What a segment's first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Sequence of the first record, also the file's name.
    pub first: u64,
    /// Random, so that no bytes of another segment pass for bytes of this one.
    pub salt: u64,
    /// `first` of the segment before; 0 if the log begins (anew) here.
    pub previous_first: u64,
    /// Length of the file before, whole.
    pub previous_bytes: u64,
}

/// Why a header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    CutOff,
    Magic,
    Version(u32),
    Checksum,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.previous_first.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.previous_bytes.to_le_bytes());
        let crc = checksum(&bytes);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Every checksum in the segment goes on from the header's.
    pub(crate) fn seed(&self) -> u32 {
        checksum(&self.encode())
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let Some(bytes) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(HeaderFault::CutOff);
        };
        let u64_at = |at: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(value)
        };
        if &bytes[0..8] != MAGIC {
            return Err(HeaderFault::Magic);
        }
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        // 0 is no version: the rest of the header did not reach the disk.
        if version != VERSION && version != 0 {
            return Err(HeaderFault::Version(version));
        }
        let crc = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        if crc != checksum(bytes) {
            return Err(HeaderFault::Checksum);
        }
        Ok(Self {
            first: u64_at(16),
            salt: u64_at(24),
            previous_first: u64_at(32),
            previous_bytes: u64_at(40),
        })
    }
}

impl HeaderFault {
    pub(crate) fn into_error(self, file: &Path) -> Error {
        let message = match self {
            Self::Version(found) => {
                return Error::UnknownVersion {
                    file: file.to_path_buf(),
                    found,
                    supported: VERSION,
                };
            }
            Self::CutOff => "the file ends inside the segment header",
            Self::Magic => "this is not a log segment",
            Self::Checksum => "the segment header's checksum does not match",
        };
        Error::corrupt(file, 0, message)
    }
}

/// CRC32C of a header without its checksum field.
fn checksum(bytes: &[u8; HEADER_LEN]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[0..12]), &bytes[16..])
}

/// The file of the segment that begins with `first`.
pub(crate) fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}.log"))
}

/// The first sequences of all segments in a directory, in order. Other files are ignored.
pub(crate) fn list(directory: &Path) -> Result<Vec<u64>> {
    let context = |source| Error::io("list directory", directory, source);
    let mut firsts = Vec::new();
    for entry in fs::read_dir(directory).map_err(context)? {
        let name = entry.map_err(context)?.file_name();
        if let Some(first) = name.to_str().and_then(sequence_of_name) {
            firsts.push(first);
        }
    }
    firsts.sort_unstable();
    Ok(firsts)
}

fn sequence_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
        .filter(|first| (1..=MAX_SEQUENCE).contains(first))
}

/// A segment file's header, if it can be used, and the file's length.
pub(crate) fn read_header(path: &Path, first: u64) -> Result<(Result<Header, HeaderFault>, u64)> {
    let context = |source| Error::io("read header of", path, source);
    let mut file = File::open(path).map_err(context)?;
    let len = file.metadata().map_err(context)?.len();
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    (&mut file)
        .take(HEADER_BYTES)
        .read_to_end(&mut bytes)
        .map_err(context)?;
    let header = Header::decode(&bytes);
    if let Ok(header) = &header
        && header.first != first
    {
        return Err(Error::corrupt(
            path,
            0,
            format!(
                "the file's name says that it begins with {first}, its header {}",
                header.first
            ),
        ));
    }
    Ok((header, len))
}

/// A random number for [`Header::salt`].
pub(crate) fn new_salt() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

/// Some of a segment's records and where they begin, so that a reader need not start at the
/// segment's beginning.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(Vec<(u64, u64)>);

impl Marks {
    /// Notes that the record `sequence` begins at `offset`, if the last note is far enough back.
    pub(crate) fn note(&mut self, sequence: u64, offset: u64) {
        if self
            .0
            .last()
            .is_none_or(|(_, last)| offset.saturating_sub(*last) >= MARK_BYTES)
        {
            self.0.push((sequence, offset));
        }
    }

    /// The nearest noted record at or before `sequence`.
    pub(crate) fn before(&self, sequence: u64) -> Option<(u64, u64)> {
        let after = self.0.partition_point(|(marked, _)| *marked <= sequence);
        self.0.get(after.checked_sub(1)?).copied()
    }

    /// Forgets everything from `offset` on.
    pub(crate) fn cut(&mut self, offset: u64) {
        self.0.retain(|(_, marked)| *marked < offset);
    }

    /// Notes of a whole segment, from its record headers alone.
    pub(crate) fn build(path: &Path, first: u64, end: u64) -> Result<Self> {
        let mut marks = Self::default();
        walk(path, (first, HEADER_BYTES), end, |header, offset| {
            marks.note(header.sequence, offset);
            true
        })?;
        Ok(marks)
    }
}

/// Hops from record to record, from the record `start` (sequence and offset) to `end` or until
/// `visit` answers false. Payloads are not read, so checksums are not checked.
pub(crate) fn walk(
    path: &Path,
    start: (u64, u64),
    end: u64,
    mut visit: impl FnMut(&record::Header, u64) -> bool,
) -> Result<()> {
    let context = |source| Error::io("read", path, source);
    let (mut sequence, mut offset) = start;
    let mut input = reader_at(path, offset)?;
    while offset < end {
        let header = record::read_header(&mut input, offset, end)
            .map_err(context)?
            .map_err(|fault| Error::corrupt(path, offset, fault.to_string()))?;
        if header.sequence != sequence {
            let fault = Fault::Sequence {
                expected: sequence,
                found: header.sequence,
            };
            return Err(Error::corrupt(path, offset, fault.to_string()));
        }
        if !visit(&header, offset) {
            return Ok(());
        }
        input
            .seek_relative(i64::from(header.length))
            .map_err(context)?;
        offset += header.frame_bytes();
        sequence += 1;
    }
    Ok(())
}

/// A buffered reader that stands at `offset`.
pub(crate) fn reader_at(path: &Path, offset: u64) -> Result<BufReader<File>> {
    let context = |source| Error::io("read", path, source);
    let mut file = File::open(path).map_err(context)?;
    file.seek(SeekFrom::Start(offset)).map_err(context)?;
    Ok(BufReader::with_capacity(64 << 10, file))
}

/// What a scan of a segment found.
#[derive(Debug)]
pub(crate) struct Scan {
    /// End of the last whole call.
    pub end: u64,
    /// The sequence after it.
    pub next: u64,
    /// Where the first fault is and what it is, if the whole calls are not all there is.
    pub fault: Option<(u64, Fault)>,
    pub marks: Marks,
}

/// Reads and checks all records of a segment of `len` bytes.
pub(crate) fn scan(path: &Path, header: &Header, len: u64) -> Result<Scan> {
    let context = |source| Error::io("read", path, source);
    let seed = header.seed();
    let mut input = reader_at(path, HEADER_BYTES)?;
    let mut payload = Vec::new();
    let mut chain = Chain::at_boundary(header.first);
    let mut offset = HEADER_BYTES;
    let mut scan = Scan {
        end: offset,
        next: header.first,
        fault: None,
        marks: Marks::default(),
    };
    while offset < len {
        let step = record::read(&mut input, seed, offset, len, &mut payload)
            .map_err(context)?
            .and_then(|header| chain.step(&header).map(|()| header));
        match step {
            Ok(header) => {
                scan.marks.note(header.sequence, offset);
                offset += header.frame_bytes();
                if chain.is_at_boundary() {
                    scan.end = offset;
                    scan.next = chain.next;
                }
            }
            Err(fault) => {
                scan.fault = Some((offset, fault));
                break;
            }
        }
    }
    if scan.fault.is_none() && !chain.is_at_boundary() {
        scan.fault = Some((len, Fault::CallCutOff));
    }
    scan.marks.cut(scan.end);
    Ok(scan)
}

/// Looks for a record after the fault which proves that the records from `scan.end` on had been
/// durable: one that was written when an fsync had covered more than `scan.end`. Answers where
/// it is.
pub(crate) fn find_proof(path: &Path, seed: u32, scan: &Scan, len: u64) -> Result<Option<u64>> {
    const CHUNK: u64 = 1 << 20;
    let Some((fault, _)) = scan.fault else {
        return Ok(None);
    };
    let context = |source: io::Error| Error::io("read", path, source);
    let mut file = File::open(path).map_err(context)?;
    let mut payload = Vec::new();
    let mut chunk = Vec::new();
    let mut start = fault;
    while len.saturating_sub(start) >= record::HEADER_BYTES {
        file.seek(SeekFrom::Start(start)).map_err(context)?;
        chunk.clear();
        (&mut file)
            .take(CHUNK + record::HEADER_BYTES - 1)
            .read_to_end(&mut chunk)
            .map_err(context)?;
        let windows = chunk.windows(record::HEADER_BYTES as usize);
        for (at, window) in (start..).zip(windows) {
            let Some(bytes) = window.first_chunk() else {
                continue;
            };
            let header = record::Header::decode(bytes);
            // Cheap and strict enough that a checksum is hardly ever computed in vain.
            let plausible = header.synced > scan.end
                && header.synced <= at
                && header.sequence > scan.next
                && header.sequence - scan.next <= (at - scan.end) / record::HEADER_BYTES
                && header.length <= record::MAX_PAYLOAD_BYTES
                && header.frame_bytes() <= len - at;
            if !plausible {
                continue;
            }
            let mut input = reader_at(path, at)?;
            let whole = record::read(&mut input, seed, at, len, &mut payload).map_err(context)?;
            if whole.is_ok() {
                return Ok(Some(at));
            }
        }
        start += CHUNK;
    }
    Ok(None)
}
