//! Opening a log: what a crash left of it is told from damage, and repaired.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::files;
use crate::log::{Log, LogOptions, MIN_SEGMENT_BYTES, Segment, create_segment, remove_segment};
use crate::segment::{self, HEADER_BYTES};

/// What [`Log::open`] found and repaired. All empty after a clean end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// An append that a crash interrupted, and that was cut off.
    pub torn: Option<TornTail>,
    /// Segments whose creation or removal a crash had interrupted, and that were removed, or
    /// given their header in the case of a log's only segment. They held no records in force.
    pub leftovers: Vec<PathBuf>,
}

/// The end of a log that a crash left incomplete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub file: PathBuf,
    /// Its length since: the end of the last whole call.
    pub offset: u64,
    /// Bytes cut off.
    pub bytes: u64,
    /// What showed that they are incomplete.
    pub message: String,
}

impl OpenReport {
    /// One sentence a finding, for people.
    pub fn notes(&self) -> Vec<String> {
        let torn = self.torn.iter().map(|torn| {
            format!(
                "{}: cut off {} bytes at byte {} that a crash left incomplete ({})",
                torn.file.display(),
                torn.bytes,
                torn.offset,
                torn.message
            )
        });
        let leftovers = self.leftovers.iter().map(|file| {
            format!(
                "{}: cleared a segment that a crash left half made or half removed",
                file.display()
            )
        });
        torn.chain(leftovers).collect()
    }
}

impl Log {
    /// Opens the log in `directory`, or begins one there with sequence 1.
    ///
    /// What a crash left incomplete at the end is cut off and reported. Records of the last
    /// segment and the connection of all segments are checked now, records of earlier segments
    /// when they are read. What was found is durable when this returns.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for damage that is not the mark of a crash; nothing is changed then.
    /// [`Error::UnknownVersion`], [`Error::Io`], and [`Error::Invalid`] for an option.
    pub fn open(directory: &Path, options: LogOptions) -> Result<(Self, OpenReport)> {
        if options.segment_bytes < MIN_SEGMENT_BYTES {
            return Err(Error::Invalid {
                field: "segment_bytes",
                message: format!("{} is less than {MIN_SEGMENT_BYTES}", options.segment_bytes),
            });
        }
        files::create_directory(directory)?;
        let mut report = OpenReport::default();
        let mut found = FoundSegments::look(directory)?;

        let Some(last) = found.segments.pop_back() else {
            // A log without a header in any segment is one that was being begun.
            let first = found.half_made.unwrap_or(1);
            check_durable(directory, 0, first - 1, &options)?;
            let (active, file) = create_segment(directory, first, None)?;
            files::sync_directory(directory)?;
            report
                .leftovers
                .extend(found.half_made.map(|first| segment::path(directory, first)));
            report.log(directory);
            let log = Self::assemble(directory, options, VecDeque::new(), active, file, first);
            return Ok((log, report));
        };

        let path = segment::path(directory, last.header.first);
        let scan = segment::scan(&path, &last.header, last.len)?;
        if let Some((offset, fault)) = &scan.fault {
            let proof = if found.half_made.is_some() {
                Some("the next segment had been begun".to_owned())
            } else {
                segment::find_proof(&path, last.header.seed(), &scan, last.len)?
                    .map(|at| format!("the record at byte {at} was written after an fsync of it"))
            };
            if let Some(proof) = proof {
                return Err(Error::corrupt(&path, *offset, format!("{fault}; {proof}")));
            }
        }
        check_durable(&path, scan.end, scan.next - 1, &options)?;

        // Only now is anything changed. Oldest first, so that what is left stays connected.
        for first in &found.replaced {
            remove_segment(directory, *first)?;
            report.leftovers.push(segment::path(directory, *first));
        }
        if let Some(first) = found.half_made {
            remove_segment(directory, first)?;
            report.leftovers.push(segment::path(directory, first));
        }
        let file = files::open_to_write(&path, "open log segment")?;
        if let Some((_, fault)) = scan.fault {
            files::set_len(&file, &path, scan.end, "cut torn tail off")?;
            report.torn = Some(TornTail {
                file: path.clone(),
                offset: scan.end,
                bytes: last.len - scan.end,
                message: fault.to_string(),
            });
        }
        // Whoever wrote this may have been stopped before its fsync, or after one that failed. In the
        // latter case what was read just now need not be on the disk, and no fsync puts it there any
        // more. So what is not known to be durable is written once more.
        let first_unsure = options.durable_to.saturating_add(1);
        if first_unsure < scan.next {
            let from = scan.marks.before(first_unsure);
            let from = from.map_or(0, |(_, offset)| offset);
            files::write_again(&file, &path, from, scan.end)?;
        }
        files::sync(&file, &path, "sync log segment")?;
        files::sync_directory(directory)?;

        let sealed = found
            .segments
            .iter()
            .map(FoundSegment::to_segment)
            .collect();
        let active = Segment {
            bytes: scan.end,
            marks: OnceLock::from(scan.marks),
            ..last.to_segment()
        };
        report.log(directory);
        let log = Self::assemble(directory, options, sealed, active, file, scan.next);
        Ok((log, report))
    }
}

impl OpenReport {
    fn log(&self, directory: &Path) {
        for note in self.notes() {
            tracing::warn!(directory = %directory.display(), "{note}");
        }
    }
}

/// The segments of a directory, before anything is changed.
pub(crate) struct FoundSegments {
    /// Connected, oldest first.
    pub(crate) segments: VecDeque<FoundSegment>,
    /// Older segments that a restart of the log replaced.
    replaced: Vec<u64>,
    /// A newest segment whose header was not finished.
    pub(crate) half_made: Option<u64>,
}

pub(crate) struct FoundSegment {
    pub(crate) header: segment::Header,
    pub(crate) len: u64,
}

impl FoundSegment {
    fn to_segment(&self) -> Segment {
        Segment {
            first: self.header.first,
            seed: self.header.seed(),
            bytes: self.len,
            marks: OnceLock::new(),
        }
    }
}

impl FoundSegments {
    pub(crate) fn look(directory: &Path) -> Result<Self> {
        let firsts = segment::list(directory)?;
        let mut found = Self {
            segments: VecDeque::new(),
            replaced: Vec::new(),
            half_made: None,
        };
        // Newest first: what a restart replaced need not be readable.
        for (place, first) in firsts.iter().enumerate().rev() {
            let path = segment::path(directory, *first);
            let (header, len) = segment::read_header(&path, *first)?;
            let header = match header {
                Ok(header) => header,
                // Records are written only after the header is durable. So a file without a
                // header that has nothing else was being created, and had no records.
                Err(fault)
                    if place + 1 == firsts.len()
                        && len <= HEADER_BYTES
                        && !matches!(fault, segment::HeaderFault::Version(_)) =>
                {
                    found.half_made = Some(*first);
                    continue;
                }
                Err(fault) => return Err(fault.into_error(&path)),
            };
            if let Some(following) = found.segments.front() {
                following.check_follows(directory, &header, len)?;
            }
            found.segments.push_front(FoundSegment { header, len });
            if header.previous_first == 0 {
                found.replaced = firsts.get(..place).unwrap_or_default().to_vec();
                break;
            }
        }
        Ok(found)
    }
}

impl FoundSegment {
    /// Checks that the segment before is the one that this one was made to follow, in full.
    fn check_follows(&self, directory: &Path, before: &segment::Header, len: u64) -> Result<()> {
        if self.header.previous_first != before.first {
            return Err(Error::corrupt(
                &segment::path(directory, self.header.previous_first),
                0,
                "the segment is missing, and others before and after it are there",
            ));
        }
        if self.header.previous_bytes != len {
            return Err(Error::corrupt(
                &segment::path(directory, before.first),
                len.min(self.header.previous_bytes),
                format!(
                    "the segment has {len} bytes; it was closed with {}",
                    self.header.previous_bytes
                ),
            ));
        }
        Ok(())
    }
}

fn check_durable(path: &Path, end: u64, last: u64, options: &LogOptions) -> Result<()> {
    if last < options.durable_to {
        return Err(Error::corrupt(
            path,
            end,
            format!(
                "the log ends with sequence {last}, but {} is known to have been durable",
                options.durable_to
            ),
        ));
    }
    Ok(())
}
