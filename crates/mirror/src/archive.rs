//! An answer of the server: a streamed snapshot of a shard, checked as a whole.
//!
//! ```text
//! segments_manifest.json                           not looked at; it may name more than there is
//! segments/<segment>/files/segment_manifest.json   of every segment in a partial snapshot, of none
//!                                                  in a full one
//! segments/<segment>/files/...                     the files that changed; segment.json and
//!                                                  version.info always
//! newest_clocks.json, oldest_clocks.json
//! wal/, wal/closed-<n>                             empty; <n> is the next operation's number
//! replica_state.json, shard_config.json
//! ```
//!
//! Files with holes are GNU sparse entries. A segment that is not in a partial snapshot is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::{NewFile, PIECE, piece_of};
use crate::lineage::{self, Clock, Lineage};
use crate::manifest::{SegmentManifest, SnapshotManifest};
use crate::mirror::FileRecord;
use crate::name;
use crate::tar_stream::{Content, Piece, TarStream};

/// Bounds on what an answer may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Archive entries.
    pub entries: u64,
    /// Bytes of all files together, holes included.
    pub total_bytes: u64,
    /// Bytes of the JSON that is held in memory while the answer is applied, all together.
    pub json_bytes: u64,
}

impl Default for Limits {
    /// 100,000 entries, 1 TiB, 64 MiB of JSON (a manifest has about 70 bytes a file).
    fn default() -> Self {
        Self {
            entries: 100_000,
            total_bytes: 1 << 40,
            json_bytes: 64 << 20,
        }
    }
}

/// What kind of stream the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Every segment has its manifest: an answer to `POST .../snapshot/partial/create`. All files
    /// may be in it, if it was asked with a manifest of no segments.
    WithManifests,
    /// No segment has a manifest, all files are there: an answer to `GET .../snapshot`. No mirror
    /// can be made of it.
    Full,
}

/// What may stand at the top, besides `segments` and `wal`.
const TOP_LEVEL: [&str; 6] = [
    "segments_manifest.json",
    "newest_clocks.json",
    "oldest_clocks.json",
    "applied_seq.json",
    "replica_state.json",
    "shard_config.json",
];

/// An answer in a file, known to be complete and in order.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    bytes: u64,
    kind: StreamKind,
    segments: BTreeMap<String, ArchivedSegment>,
    lineage: Option<Lineage>,
}

/// One segment of an answer.
#[derive(Debug, Default)]
pub(crate) struct ArchivedSegment {
    pub(crate) manifest: Option<SegmentManifest>,
    pub(crate) files: BTreeMap<String, ArchivedFile>,
    /// The files whose text is compared, by name.
    pub(crate) texts: BTreeMap<&'static str, Vec<u8>>,
}

/// Where the bytes of a file are in an answer.
#[derive(Debug)]
pub(crate) struct ArchivedFile {
    length: u64,
    pieces: Vec<Piece>,
}

impl Archive {
    /// Reads through the answer in `file` and checks all of it: complete to its end mark, nothing
    /// but files and folders at names that a snapshot has, no name twice, within `limits`; each
    /// segment with its `segment.json` and `version.info`, and either each or none with a manifest,
    /// which is of that segment and lists every file that is there.
    ///
    /// # Errors
    /// [`Error::BadSnapshot`] names the entry; [`Error::Io`].
    pub fn read(file: &Path, limits: Limits) -> Result<Self> {
        let mut stream = TarStream::open(file)?;
        let mut reading = Reading {
            path: file,
            limits,
            entries: 0,
            bytes: 0,
            json: 0,
            top: BTreeMap::new(),
            wal: BTreeSet::new(),
            segments: BTreeMap::new(),
        };
        while let Some(entry) = stream.next_entry()? {
            reading.count(stream.at())?;
            match entry.content {
                Content::Folder => check_folder(&entry.name)?,
                Content::File { length, pieces } => {
                    reading.file(&entry.name, ArchivedFile { length, pieces })?;
                }
            }
        }
        reading.finish(stream.length())
    }

    /// The archive's own length in bytes: what came over the wire, if nothing compressed it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What kind of stream it is.
    pub fn kind(&self) -> StreamKind {
        self.kind
    }

    /// The replica and the moment that it is of; none if the answer does not say.
    pub fn lineage(&self) -> Option<&Lineage> {
        self.lineage.as_ref()
    }

    /// The manifests in it, as one. Empty if it is of [`StreamKind::Full`].
    pub fn manifest(&self) -> SnapshotManifest {
        self.segments
            .values()
            .filter_map(|segment| segment.manifest.clone())
            .collect()
    }

    pub(crate) fn segments(&self) -> &BTreeMap<String, ArchivedSegment> {
        &self.segments
    }

    /// Takes files out of the archive, one after another.
    pub(crate) fn unpacking(&self) -> Result<Unpacking<'_>> {
        let file =
            File::open(&self.path).map_err(|source| Error::io("open", &self.path, source))?;
        Ok(Unpacking {
            path: &self.path,
            file,
            buffer: vec![0; PIECE],
        })
    }
}

/// Takes files out of an archive.
pub(crate) struct Unpacking<'a> {
    path: &'a Path,
    file: File,
    buffer: Vec<u8>,
}

impl Unpacking<'_> {
    /// Writes a file to `target`, which must not be there, holes left out.
    pub(crate) fn unpack(&mut self, entry: &ArchivedFile, target: &Path) -> Result<FileRecord> {
        let mut out = NewFile::create(target)?;
        for piece in &entry.pieces {
            self.file
                .seek(SeekFrom::Start(piece.stored_at))
                .map_err(|source| Error::io("read", self.path, source))?;
            let mut at = piece.at;
            let mut left = piece.length;
            while left > 0 {
                let bytes = piece_of(&mut self.buffer, left);
                self.file
                    .read_exact(bytes)
                    .map_err(|source| Error::io("read", self.path, source))?;
                out.write(at, bytes)?;
                at += bytes.len() as u64;
                left -= bytes.len() as u64;
            }
        }
        let (_, record) = out.finish(entry.length)?;
        Ok(record)
    }
}

/// What was seen so far.
struct Reading<'a> {
    path: &'a Path,
    limits: Limits,
    entries: u64,
    bytes: u64,
    json: u64,
    top: BTreeMap<&'static str, ArchivedFile>,
    wal: BTreeSet<String>,
    segments: BTreeMap<String, BTreeMap<String, ArchivedFile>>,
}

impl Reading<'_> {
    fn count(&mut self, at: u64) -> Result<()> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::bad(format!(
                "more than {} entries before byte {at}",
                self.limits.entries
            )));
        }
        Ok(())
    }

    fn file(&mut self, entry: &str, file: ArchivedFile) -> Result<()> {
        let wrong = |why: &str| Error::bad(format!("{entry:?}: {why}"));
        name::check_path(entry).map_err(wrong)?;
        self.bytes = self
            .bytes
            .checked_add(file.length)
            .filter(|bytes| *bytes <= self.limits.total_bytes)
            .ok_or_else(|| {
                wrong(&format!(
                    "the files are larger than {} bytes together",
                    self.limits.total_bytes
                ))
            })?;
        let first = if let Some(name) = TOP_LEVEL.iter().find(|name| **name == entry) {
            self.top.insert(*name, file).is_none()
        } else if let Some(wal) = entry.strip_prefix("wal/") {
            if wal.contains('/') {
                return Err(wrong("not a part of a shard snapshot"));
            }
            self.wal.insert(wal.to_owned())
        } else if let Some((segment, below)) = entry
            .strip_prefix("segments/")
            .and_then(|rest| rest.split_once('/'))
        {
            if !name::is_segment(segment) {
                return Err(wrong("not the name of a segment"));
            }
            let inside = below
                .strip_prefix("files/")
                .ok_or_else(|| wrong("not among the files of its segment"))?;
            self.segments
                .entry(segment.to_owned())
                .or_default()
                .insert(inside.to_owned(), file)
                .is_none()
        } else {
            return Err(wrong("not a part of a streamed shard snapshot"));
        };
        if first {
            Ok(())
        } else {
            Err(wrong("twice in the archive"))
        }
    }

    fn finish(mut self, bytes: u64) -> Result<Archive> {
        if self.segments.is_empty() {
            return Err(Error::bad(
                "no segments in it; a shard snapshot is wanted, not a collection's or a storage's",
            ));
        }
        let mut segments = BTreeMap::new();
        for (segment, files) in std::mem::take(&mut self.segments) {
            let archived = self.segment(&segment, files)?;
            segments.insert(segment, archived);
        }
        let with_manifests = segments
            .values()
            .filter(|segment| segment.manifest.is_some())
            .count();
        let kind = match with_manifests {
            0 => StreamKind::Full,
            _ if with_manifests == segments.len() => StreamKind::WithManifests,
            _ => return Err(Error::bad("some segments have a manifest and some do not")),
        };
        let lineage = self.lineage()?;
        Ok(Archive {
            path: self.path.to_path_buf(),
            bytes,
            kind,
            segments,
            lineage,
        })
    }

    fn segment(
        &mut self,
        segment: &str,
        mut files: BTreeMap<String, ArchivedFile>,
    ) -> Result<ArchivedSegment> {
        if let Some(file) = name::file_and_folder(&files) {
            return Err(Error::bad(format!(
                "segments/{segment}/files/{file}: a file and a folder"
            )));
        }
        let manifest = match files.remove(name::MANIFEST) {
            Some(entry) => {
                let json = self.text(&entry, name::MANIFEST)?;
                Some(SegmentManifest::parse(&json, segment)?)
            }
            None => None,
        };
        if let Some(manifest) = &manifest {
            for file in files.keys() {
                if !manifest.lists(file) && !name::ALWAYS_SENT.contains(&file.as_str()) {
                    return Err(Error::bad(format!(
                        "segments/{segment}/files/{file}: the segment's manifest does not list it"
                    )));
                }
            }
        }
        let mut texts = BTreeMap::new();
        for file in name::ALWAYS_SENT {
            let entry = files.get(file).ok_or_else(|| {
                Error::bad(format!("segments/{segment}/files/{file} is not there"))
            })?;
            texts.insert(file, self.text(entry, file)?);
        }
        if let Some(entry) = files.get(name::PAYLOAD_CONFIG) {
            let text = self.text(entry, name::PAYLOAD_CONFIG)?;
            texts.insert(name::PAYLOAD_CONFIG, text);
        }
        Ok(ArchivedSegment {
            manifest,
            files,
            texts,
        })
    }

    /// Reads a small file into memory.
    fn text(&mut self, entry: &ArchivedFile, file: &str) -> Result<Vec<u8>> {
        self.json = self
            .json
            .checked_add(entry.length)
            .filter(|json| *json <= self.limits.json_bytes)
            .ok_or_else(|| {
                Error::bad(format!(
                    "{file}: the segments' descriptions are larger than {} bytes together",
                    self.limits.json_bytes
                ))
            })?;
        let failed = |source| Error::io("read", self.path, source);
        let mut text = vec![0; usize::try_from(entry.length).unwrap_or_default()];
        let mut archive = File::open(self.path).map_err(failed)?;
        for piece in &entry.pieces {
            let range = usize::try_from(piece.at)
                .ok()
                .zip(usize::try_from(piece.length).ok())
                .and_then(|(at, length)| text.get_mut(at..at.checked_add(length)?))
                .ok_or_else(|| Error::bad(format!("{file}: data beyond its end")))?;
            archive
                .seek(SeekFrom::Start(piece.stored_at))
                .and_then(|_| archive.read_exact(range))
                .map_err(failed)?;
        }
        Ok(text)
    }

    /// Where the answer is from, if it says all of it.
    fn lineage(&mut self) -> Result<Option<Lineage>> {
        let wal_next = self
            .wal
            .iter()
            .filter_map(|name| lineage::wal_number(name))
            .max();
        let peer = match self.top.remove("replica_state.json") {
            Some(entry) => Some(lineage::parse_peer(
                &self.text(&entry, "replica_state.json")?,
            )?),
            None => None,
        };
        let clocks: Option<Vec<Clock>> = match self.top.remove("newest_clocks.json") {
            Some(entry) => Some(lineage::parse_clocks(
                &self.text(&entry, "newest_clocks.json")?,
            )?),
            None => None,
        };
        Ok(match (peer, wal_next, clocks) {
            (Some(peer), Some(wal_next), Some(clocks)) => Some(Lineage {
                peer,
                wal_next,
                clocks,
            }),
            _ => None,
        })
    }
}

/// Folders say nothing that their files do not; they only must be where folders are.
fn check_folder(entry: &str) -> Result<()> {
    let wrong = |why: &str| Error::bad(format!("{entry:?}: {why}"));
    let plain = entry.strip_suffix('/').unwrap_or(entry);
    name::check_path(plain).map_err(wrong)?;
    let mut parts = plain.split('/');
    let fits = match parts.next() {
        Some("wal") => parts.next().is_none(),
        Some("segments") => match (parts.next(), parts.next()) {
            (None, _) => true,
            (Some(segment), below) => {
                name::is_segment(segment) && below.is_none_or(|below| below == "files")
            }
        },
        _ => false,
    };
    if fits {
        Ok(())
    } else {
        Err(wrong("a folder where a shard snapshot has none"))
    }
}
