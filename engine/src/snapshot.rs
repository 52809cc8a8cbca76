//! Shard snapshots: reading what a server streams, writing what a server would.
//!
//! A shard snapshot is a GNU tar archive, as Qdrant 1.19 streams it from
//! `GET /collections/{c}/shards/{s}/snapshot`:
//!
//! ```text
//! segments_manifest.json            {"<uuid>": "active", ...}
//! segments/<uuid>/files/...         every file of the segment
//! newest_clocks.json, oldest_clocks.json
//! wal/, wal/closed-<n>              what the segments have not flushed; <n> is the number that the
//!                                   next operation will have
//! replica_state.json, shard_config.json
//! ```
//!
//! Files with holes are GNU sparse entries: storages preallocate, 32 MiB at a time.
//!
//! A stored snapshot (`POST /collections/{c}/shards/{s}/snapshots`) has each segment as an archive
//! within the archive, `segments/<uuid>.tar`, with the files under `snapshot/files/` in it. Old
//! ones have the files there directly.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use qdrant_edge::{EdgeShard, SEGMENT_STATE_FILE, SegmentState};
use serde_json::{Map, Value, json};
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};
use uuid::Uuid;

use crate::error::{Error, Result, StorageKind, kind_in};

/// Bounds on what a snapshot may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotLimits {
    /// Archive entries.
    pub entries: u64,
    /// Bytes of all files together, holes included.
    pub total_bytes: u64,
}

impl Default for SnapshotLimits {
    /// 100,000 entries, 1 TiB.
    fn default() -> Self {
        Self {
            entries: 100_000,
            total_bytes: 1 << 40,
        }
    }
}

/// Tar's unit.
const BLOCK: usize = 512;

/// Longest entry name; the engine's are about 150 bytes.
const MAX_NAME: u64 = 1024;

/// What may stand at the top of a shard snapshot.
const TOP_LEVEL: &[&str] = &[
    "segments",
    "segments_manifest.json",
    "wal",
    "newest_clocks.json",
    "oldest_clocks.json",
    "applied_seq.json",
    "replica_state.json",
    "shard_config.json",
];

/// Unpacks a shard snapshot (the body of `GET /collections/{c}/shards/{s}/snapshot`) into `target`,
/// for [`crate::Shard::load`]. The whole archive is checked before anything is written: it must be
/// complete, hold nothing but files and directories at names that a snapshot has, no name twice,
/// and stay within `limits`.
///
/// Answers how many segments the archive lists. What a failure leaves in `target` is the caller's
/// to remove.
///
/// Errors: [`crate::Error::BadSnapshot`] names the entry; [`crate::Error::Storage`].
pub fn unpack_snapshot(file: &Path, target: &Path, limits: SnapshotLimits) -> Result<u64> {
    let segments = check_archive(file, limits)?;
    EdgeShard::unpack_snapshot(file, target).map_err(|error| {
        // The archive is sound, so what fails now is the disk.
        let message = match error {
            qdrant_edge::OperationError::ServiceError { description, .. } => description,
            other => other.to_string(),
        };
        Error::Storage {
            kind: kind_in(&message).unwrap_or(StorageKind::Io),
            operation: "unpack the snapshot into".to_owned(),
            path: target.display().to_string(),
            message,
        }
    })?;
    Ok(segments)
}

fn bad(message: impl Into<String>) -> Error {
    Error::BadSnapshot(message.into())
}

fn check_archive(path: &Path, limits: SnapshotLimits) -> Result<u64> {
    let file = File::open(path).map_err(|error| Error::storage("open", path, &error))?;
    let mut archive = Archive {
        path,
        reader: &mut BufReader::with_capacity(1 << 16, file),
        offset: 0,
    };
    let mut entries = Entries {
        limits,
        count: 0,
        bytes: 0,
        files: HashSet::new(),
        directories: HashSet::new(),
        segment_states: 0,
    };
    check_entries(&mut archive, &mut entries, None)?;
    if entries.segment_states == 0 {
        return Err(bad(
            "no segments in it; a shard snapshot is wanted, not a collection's or a storage's",
        ));
    }
    Ok(entries.segment_states)
}

/// Reads an archive through to its end mark; that of a segment if its folder is given.
fn check_entries(
    archive: &mut Archive<'_>,
    entries: &mut Entries,
    segment: Option<&str>,
) -> Result<()> {
    let mut long_name = None;
    while let Some(header) = archive.header()? {
        // The size of what follows in the archive; of a sparse file, without its holes.
        let stored = header
            .entry_size()
            .map_err(|_| archive.damaged("an entry's size is not a number"))?;
        if header.entry_type() == EntryType::GNULongName {
            if stored > MAX_NAME || long_name.is_some() {
                return Err(archive.damaged("an entry's name is too long"));
            }
            long_name = Some(archive.name(stored)?);
            entries.count(archive.offset)?;
            continue;
        }
        let name = match long_name.take() {
            Some(name) => name,
            None => String::from_utf8(header.path_bytes().into_owned())
                .map_err(|_| archive.damaged("an entry's name is not UTF-8"))?,
        };
        entries.count(archive.offset)?;
        let name = match segment {
            Some(segment) => format!("{segment}/{name}"),
            None => name,
        };
        let parts = checked_name(&name)?;
        match header.entry_type() {
            EntryType::Directory => {
                if stored != 0 {
                    return Err(bad(format!("{name}: a directory with contents")));
                }
                entries.directory(&name, &parts)?;
            }
            EntryType::Regular => {
                entries.file(&name, &parts, stored)?;
                match archived_segment(&parts) {
                    Some(folder) => {
                        let mut reader = Read::take(&mut *archive.reader, stored);
                        let mut inner = Archive {
                            path: archive.path,
                            reader: &mut reader,
                            offset: 0,
                        };
                        check_entries(&mut inner, entries, Some(&folder)).map_err(|error| {
                            match error {
                                Error::BadSnapshot(what) => bad(format!("in {name}: {what}")),
                                other => other,
                            }
                        })?;
                        let read = stored - reader.limit();
                        archive.offset += read;
                        archive.skip_rest(stored, read, &name)?;
                    }
                    None => archive.skip(stored, &name)?,
                }
            }
            EntryType::GNUSparse if archived_segment(&parts).is_some() => {
                return Err(bad(format!("{name}: an archive with holes")));
            }
            EntryType::GNUSparse => {
                let size = archive.sparse_map(&header, stored, &name)?;
                entries.file(&name, &parts, size)?;
                archive.skip(stored, &name)?;
            }
            other => {
                return Err(bad(format!(
                    "{name}: entries of type {other:?} have no place in a snapshot"
                )));
            }
        }
    }
    if long_name.is_some() {
        return Err(archive.damaged("a name without its entry"));
    }
    Ok(())
}

/// The folder that an archive within the archive is unpacked to.
fn archived_segment(parts: &[&str]) -> Option<String> {
    match parts {
        ["segments", name] => Some(format!("segments/{}", name.strip_suffix(".tar")?)),
        _ => None,
    }
}

/// The archive while it is read through.
struct Archive<'a> {
    path: &'a Path,
    reader: &'a mut dyn Read,
    offset: u64,
}

impl Archive<'_> {
    fn damaged(&self, what: &str) -> Error {
        bad(format!(
            "damaged or cut off before byte {}: {what}",
            self.offset
        ))
    }

    fn failed(&self, error: &io::Error) -> Error {
        if error.kind() == ErrorKind::UnexpectedEof {
            self.damaged("the archive ends early")
        } else {
            Error::storage("read", self.path, error)
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.reader
            .read_exact(&mut block)
            .map_err(|error| self.failed(&error))?;
        self.offset += BLOCK as u64;
        Ok(block)
    }

    /// The next entry's header; none at the end mark, which must be there.
    fn header(&mut self) -> Result<Option<Header>> {
        let block = self.block()?;
        if block == [0; BLOCK] {
            return match self.block()? {
                [0, ..] => Ok(None),
                _ => Err(self.damaged("half an end mark")),
            };
        }
        let header = Header::from_byte_slice(&block).clone();
        let stated = header
            .cksum()
            .map_err(|_| self.damaged("an entry's checksum is not a number"))?;
        // The checksum counts itself as spaces.
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| {
                u32::from(if (148..156).contains(&at) {
                    b' '
                } else {
                    *byte
                })
            })
            .sum();
        if sum != stated {
            return Err(self.damaged("an entry's checksum is wrong"));
        }
        Ok(Some(header))
    }

    /// The contents of a long-name entry.
    fn name(&mut self, size: u64) -> Result<String> {
        let mut bytes = Vec::new();
        for _ in 0..size.div_ceil(BLOCK as u64) {
            bytes.extend(self.block()?);
        }
        bytes.truncate(usize::try_from(size).unwrap_or_default());
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        String::from_utf8(bytes).map_err(|_| self.damaged("an entry's name is not UTF-8"))
    }

    /// Reads a sparse entry's map to its end, checks it, and returns the file's full size.
    fn sparse_map(&mut self, header: &Header, stored: u64, name: &str) -> Result<u64> {
        let wrong = || bad(format!("{name}: its map of holes makes no sense"));
        let gnu = header.as_gnu().ok_or_else(wrong)?;
        let size = gnu.real_size().map_err(|_| wrong())?;
        let mut end = 0_u64;
        let mut data = 0_u64;
        let mut check = |pieces: &[GnuSparseHeader]| {
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                let offset = piece.offset().map_err(|_| wrong())?;
                let length = piece.length().map_err(|_| wrong())?;
                if offset < end {
                    return Err(wrong());
                }
                end = offset.checked_add(length).ok_or_else(wrong)?;
                data = data.checked_add(length).ok_or_else(wrong)?;
            }
            Ok(())
        };
        check(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let block = self.block()?;
            let mut extended = GnuExtSparseHeader::new();
            extended.as_mut_bytes().copy_from_slice(&block);
            check(extended.sparse())?;
            more = extended.is_extended();
        }
        if end == size && data == stored {
            Ok(size)
        } else {
            Err(wrong())
        }
    }

    /// Passes over an entry's contents, which must all be there.
    fn skip(&mut self, size: u64, name: &str) -> Result<()> {
        self.skip_rest(size, 0, name)
    }

    /// As [`Archive::skip`], of contents of which `read` bytes were read already.
    fn skip_rest(&mut self, size: u64, read: u64, name: &str) -> Result<()> {
        let padded = size
            .checked_next_multiple_of(BLOCK as u64)
            .ok_or_else(|| bad(format!("{name}: impossibly large")))?
            - read;
        let skipped = io::copy(&mut Read::take(&mut *self.reader, padded), &mut io::sink())
            .map_err(|error| self.failed(&error))?;
        self.offset += skipped;
        if skipped == padded {
            Ok(())
        } else {
            Err(self.damaged(&format!("the archive ends within {name}")))
        }
    }
}

/// The parts of a name, if it stays where a snapshot's files belong.
fn checked_name(name: &str) -> Result<Vec<&str>> {
    let wrong = |why: &str| bad(format!("{name:?}: {why}"));
    if name.len() as u64 > MAX_NAME {
        return Err(wrong("the name is too long"));
    }
    if name.starts_with('/') {
        return Err(wrong("an absolute path"));
    }
    if name.contains(['\\', ':', '\0']) {
        return Err(wrong("a character that no snapshot has in a name"));
    }
    let parts: Vec<_> = name.strip_suffix('/').unwrap_or(name).split('/').collect();
    if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
        return Err(wrong("a path that is not plain"));
    }
    match parts.as_slice() {
        [top, ..] if TOP_LEVEL.contains(top) => {}
        _ => return Err(wrong("not a part of a shard snapshot")),
    }
    if let ["segments", segment, rest @ ..] = parts.as_slice() {
        let id = match segment.strip_suffix(".tar") {
            Some(id) if rest.is_empty() => id,
            _ => segment,
        };
        // The engine makes the folder's name of what comes before the first dot.
        if id.contains('.') || Uuid::parse_str(id).is_err() {
            return Err(wrong("not the name of a segment"));
        }
    }
    Ok(parts)
}

/// What was seen so far.
struct Entries {
    limits: SnapshotLimits,
    count: u64,
    bytes: u64,
    files: HashSet<String>,
    directories: HashSet<String>,
    segment_states: u64,
}

impl Entries {
    fn count(&mut self, offset: u64) -> Result<()> {
        self.count += 1;
        if self.count > self.limits.entries {
            return Err(bad(format!(
                "more than {} entries before byte {offset}",
                self.limits.entries
            )));
        }
        Ok(())
    }

    fn directory(&mut self, name: &str, parts: &[&str]) -> Result<()> {
        let path = parts.join("/");
        self.parents(name, parts)?;
        if self.files.contains(&path) {
            return Err(bad(format!("{name}: a file and a directory")));
        }
        if !["segments", "wal"].contains(&parts.first().copied().unwrap_or_default()) {
            return Err(bad(format!("{name}: a directory where a file belongs")));
        }
        // A directory may be made by the files in it before its own entry comes.
        self.directories.insert(path);
        Ok(())
    }

    fn file(&mut self, name: &str, parts: &[&str], size: u64) -> Result<()> {
        let path = parts.join("/");
        self.parents(name, parts)?;
        if self.directories.contains(&path) {
            return Err(bad(format!("{name}: a file and a directory")));
        }
        if !self.files.insert(path) {
            return Err(bad(format!("{name}: twice in the archive")));
        }
        self.bytes = self
            .bytes
            .checked_add(size)
            .filter(|bytes| *bytes <= self.limits.total_bytes)
            .ok_or_else(|| {
                bad(format!(
                    "{name}: the files are larger than {} bytes together",
                    self.limits.total_bytes
                ))
            })?;
        if matches!(parts, ["segments", _, .., last] if *last == SEGMENT_STATE_FILE) {
            self.segment_states += 1;
        }
        Ok(())
    }

    /// Every directory above must not be a file.
    fn parents(&mut self, name: &str, parts: &[&str]) -> Result<()> {
        let mut path = String::new();
        for part in parts.iter().take(parts.len().saturating_sub(1)) {
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(part);
            if self.files.contains(&path) {
                return Err(bad(format!("{name}: below a file")));
            }
            if !self.directories.contains(&path) {
                self.directories.insert(path.clone());
            }
        }
        Ok(())
    }
}

/// The size of the server's WAL files.
const WAL_BYTES: u64 = 32 << 20;

/// Start of an empty WAL file: its format, and the seed of its checksums.
const WAL_HEADER: [u8; 8] = *b"wal\0edge";

/// Writes the shard in `dir`, which must be flushed and at rest, as a snapshot archive.
pub(crate) fn write(dir: &Path, file: &Path) -> Result<()> {
    let segments = segments(&dir.join("segments"))?;
    let output = File::create(file).map_err(|error| Error::storage("create", file, &error))?;
    let mut archive = Writer {
        path: file,
        output: BufWriter::new(output),
    };
    let mut manifest = Map::new();
    for segment in &segments {
        manifest.insert(segment.name.clone(), json!("active"));
    }
    archive.json("segments_manifest.json", &Value::Object(manifest))?;
    for segment in &segments {
        archive.directory_contents(&segment.path, &format!("segments/{}/files", segment.name))?;
    }
    archive.json("newest_clocks.json", &json!({ "clocks": [] }))?;
    archive.json("oldest_clocks.json", &json!({ "clocks": [] }))?;
    let next_operation = segments
        .iter()
        .filter_map(|segment| segment.version)
        .max()
        .map_or(0, |version| version.saturating_add(1));
    archive.directory("wal/")?;
    archive.file(
        &format!("wal/closed-{next_operation}"),
        WAL_BYTES,
        &[(0, WAL_HEADER.len() as u64)],
        &mut WAL_HEADER.as_slice(),
    )?;
    archive.json(
        "replica_state.json",
        &json!({ "is_local": true, "this_peer_id": 1, "peers": { "1": "Active" } }),
    )?;
    archive.json("shard_config.json", &json!({ "type": "ReplicaSet" }))?;
    archive.finish()
}

struct Segment {
    name: String,
    path: PathBuf,
    version: Option<u64>,
}

/// The live segments: directories named by UUID that have been flushed once.
fn segments(dir: &Path) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for (name, path) in listed(dir)? {
        if Uuid::parse_str(&name).is_err() || !path.join("version.info").is_file() {
            continue;
        }
        let state = path.join(SEGMENT_STATE_FILE);
        let text =
            fs::read_to_string(&state).map_err(|error| Error::storage("read", &state, &error))?;
        let state: SegmentState = serde_json::from_str(&text).map_err(|error| Error::Corrupt {
            file: state.display().to_string(),
            offset: None,
            message: error.to_string(),
        })?;
        segments.push(Segment {
            name,
            path,
            version: state.version,
        });
    }
    Ok(segments)
}

/// The entries of a directory in order of name.
fn listed(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |error: io::Error| Error::storage("list", dir, &error);
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|name| Error::Internal(format!("{}: {name:?} is not UTF-8", dir.display())))?;
        entries.push((name, entry.path()));
    }
    entries.sort();
    Ok(entries)
}

/// A tar archive that is being written.
struct Writer<'a> {
    path: &'a Path,
    output: BufWriter<File>,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.output
            .write_all(bytes)
            .map_err(|error| Error::storage("write", self.path, &error))
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
        match [0; BLOCK].get(over..) {
            Some(padding) if over > 0 => self.put(padding),
            _ => Ok(()),
        }
    }

    fn header(&mut self, name: &str, kind: EntryType, stored: u64) -> Result<Header> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(stored);
        header.set_mode(if kind == EntryType::Directory {
            0o755
        } else {
            0o644
        });
        if header.set_path(name).is_err() {
            self.long_name(name)?;
            // Readers that know long names take no notice of this one.
            let mut end = name.len().min(99);
            while !name.is_char_boundary(end) {
                end -= 1;
            }
            header
                .set_path(name.get(..end).unwrap_or_default())
                .map_err(|error| Error::Internal(format!("{name}: {error}")))?;
        }
        Ok(header)
    }

    fn long_name(&mut self, name: &str) -> Result<()> {
        let size = name.len() as u64 + 1;
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(size);
        header.set_mode(0o644);
        header
            .set_path("././@LongLink")
            .map_err(|error| Error::Internal(format!("{name}: {error}")))?;
        header.set_cksum();
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad(size)
    }

    fn json(&mut self, name: &str, value: &Value) -> Result<()> {
        let text = value.to_string();
        let size = text.len() as u64;
        self.file(name, size, &[(0, size)], &mut text.as_bytes())
    }

    fn directory(&mut self, name: &str) -> Result<()> {
        let mut header = self.header(name, EntryType::Directory, 0)?;
        header.set_cksum();
        self.put(header.as_bytes())
    }

    fn directory_contents(&mut self, dir: &Path, name: &str) -> Result<()> {
        for (entry, path) in listed(dir)? {
            let name = format!("{name}/{entry}");
            if path.is_dir() {
                self.directory_contents(&path, &name)?;
            } else {
                let mut file =
                    File::open(&path).map_err(|error| Error::storage("open", &path, &error))?;
                let (size, pieces) =
                    pieces(&mut file).map_err(|error| Error::storage("read", &path, &error))?;
                let mut data = PieceReader::new(file, &pieces);
                self.file(&name, size, &pieces, &mut data)?;
            }
        }
        Ok(())
    }

    /// Writes a file of `size` bytes that has data at `pieces` (offset and length) and holes
    /// elsewhere; `data` gives the pieces one after another.
    fn file(
        &mut self,
        name: &str,
        size: u64,
        pieces: &[(u64, u64)],
        data: &mut dyn Read,
    ) -> Result<()> {
        let stored = pieces.iter().map(|(_, length)| length).sum();
        if stored == size {
            let mut header = self.header(name, EntryType::Regular, stored)?;
            header.set_cksum();
            self.put(header.as_bytes())?;
        } else {
            self.sparse_header(name, size, stored, pieces)?;
        }
        let copied = io::copy(data, &mut self.output)
            .map_err(|error| Error::storage("write", self.path, &error))?;
        if copied != stored {
            return Err(Error::Internal(format!(
                "{name} changed while it was added to a snapshot"
            )));
        }
        self.pad(stored)
    }

    fn sparse_header(
        &mut self,
        name: &str,
        size: u64,
        stored: u64,
        pieces: &[(u64, u64)],
    ) -> Result<()> {
        let mut header = self.header(name, EntryType::GNUSparse, stored)?;
        // The map must reach the end of the file.
        let mut map = pieces.to_vec();
        if map.last().is_none_or(|(at, length)| at + length < size) {
            map.push((size, 0));
        }
        let gnu = header
            .as_gnu_mut()
            .ok_or_else(|| Error::Internal("not a GNU header".to_owned()))?;
        octal(&mut gnu.realsize, size);
        let (inline, beyond) = map.split_at(map.len().min(gnu.sparse.len()));
        for (slot, piece) in gnu.sparse.iter_mut().zip(inline) {
            fill(slot, *piece);
        }
        gnu.isextended = [u8::from(!beyond.is_empty())];
        header.set_cksum();
        self.put(header.as_bytes())?;
        let mut blocks = beyond
            .chunks(GnuExtSparseHeader::new().sparse.len())
            .peekable();
        while let Some(chunk) = blocks.next() {
            let mut block = GnuExtSparseHeader::new();
            for (slot, piece) in block.sparse.iter_mut().zip(chunk) {
                fill(slot, *piece);
            }
            block.isextended = [u8::from(blocks.peek().is_some())];
            self.put(block.as_bytes())?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.put(&[0; 2 * BLOCK])?;
        self.output
            .into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(|error| Error::storage("write", self.path, &error))
    }
}

fn fill(slot: &mut GnuSparseHeader, (offset, length): (u64, u64)) {
    octal(&mut slot.offset, offset);
    octal(&mut slot.numbytes, length);
}

/// A number as tar has it: octal digits, or big-endian with the top bit set when they do not
/// suffice (8 GiB and more).
fn octal(field: &mut [u8; 12], number: u64) {
    let digits = format!("{number:011o}\0");
    if digits.len() == field.len() {
        field.copy_from_slice(digits.as_bytes());
    } else {
        *field = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let (_, low) = field.split_at_mut(4);
        low.copy_from_slice(&number.to_be_bytes());
    }
}

/// Holes are sought in steps of this size.
const PIECE: usize = 4096;

/// A file's size, and where it has anything but zeros.
fn pieces(file: &mut File) -> io::Result<(u64, Vec<(u64, u64)>)> {
    let mut pieces: Vec<(u64, u64)> = Vec::new();
    let mut reader = BufReader::with_capacity(1 << 20, &mut *file);
    let mut buffer = [0; PIECE];
    let mut at = 0;
    loop {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..)
            && !rest.is_empty()
        {
            match reader.read(rest)? {
                0 => break,
                read => filled += read,
            }
        }
        let Some(data) = buffer.get(..filled) else {
            break;
        };
        if data.is_empty() {
            break;
        }
        let length = data.len() as u64;
        if data.iter().any(|byte| *byte != 0) {
            match pieces.last_mut() {
                Some((start, held)) if *start + *held == at => *held += length,
                _ => pieces.push((at, length)),
            }
        }
        at += length;
    }
    file.rewind()?;
    // A small file is not worth a map.
    if at <= PIECE as u64 {
        pieces = vec![(0, at)];
    }
    Ok((at, pieces))
}

/// Reads the pieces of a file as if they were all of it.
struct PieceReader<'a> {
    file: File,
    pieces: std::slice::Iter<'a, (u64, u64)>,
    left: u64,
}

impl<'a> PieceReader<'a> {
    fn new(file: File, pieces: &'a [(u64, u64)]) -> Self {
        Self {
            file,
            pieces: pieces.iter(),
            left: 0,
        }
    }
}

impl Read for PieceReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let Some((offset, length)) = self.pieces.next() else {
                return Ok(0);
            };
            self.file.seek(SeekFrom::Start(*offset))?;
            self.left = *length;
        }
        let read = (&mut self.file).take(self.left).read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}
