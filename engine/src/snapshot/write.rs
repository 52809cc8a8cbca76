//! Writing the shard in a directory as a snapshot, as a server would.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use qdrant_edge::internal::SnapshotManifest;
use qdrant_edge::{SEGMENT_STATE_FILE, SegmentState};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};
use uuid::Uuid;

use super::check::BLOCK;
use crate::error::{Error, Result};

/// How segments lie in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As in a streamed snapshot: as folders.
    Streamed,
    /// As in a stored snapshot: each an archive in the archive, without an end mark.
    Stored,
}

/// What a shard holds and a client has: segment by segment, file by file, each with its version, as
/// in the body of `POST .../snapshot/partial/create`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Versions<'a> {
    /// What the client has.
    pub(crate) old: &'a SnapshotManifest,
    /// What the shard holds.
    pub(crate) new: &'a SnapshotManifest,
}

/// The history that a shard's operations are numbered in, and how far it has come.
#[derive(Debug, Clone, Copy)]
pub struct Lineage {
    /// The server.
    pub peer: u64,
    /// Number that the next operation will have in the server's log.
    pub next: u64,
    /// How many operations have had a tick of the server's clock.
    pub tick: u64,
    /// Drawn with the last tick.
    pub token: u64,
}

/// The size of the server's WAL files.
const WAL_BYTES: u64 = 32 << 20;

/// Start of an empty WAL file: its format, and the seed of its checksums.
const WAL_HEADER: [u8; 8] = *b"wal\0edge";

/// Writes the shard in `dir`, which must be flushed and at rest, as a snapshot archive.
///
/// Errors: storage errors.
pub fn write(dir: &Path, file: &Path, layout: Layout) -> Result<()> {
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
        match layout {
            Layout::Streamed => archive
                .directory_contents(&segment.path, &format!("segments/{}/files", segment.name))?,
            Layout::Stored => archive.segment_archive(segment)?,
        }
    }
    archive.end(&segments, &json!([]), 1, 0)
}

/// Writes what changed since `old` of the shard in `dir`, which must be flushed and at rest, as
/// [`crate::Shard::create_partial_snapshot`] does. Both are [`crate::Shard::snapshot_manifest`]s;
/// `held` is the one that the shard had when it was closed. False if they are equal: nothing changed,
/// and there is no file.
///
/// Errors: [`Error::InvalidInput`] if one is no manifest; storage errors.
pub fn write_changes(
    dir: &Path,
    held: &Value,
    old: &Value,
    file: &Path,
    lineage: Lineage,
) -> Result<bool> {
    let (held, old) = (&manifest_of(held)?, &manifest_of(old)?);
    if held == old {
        return Ok(false);
    }
    write_partial(dir, file, Versions { old, new: held }, lineage)?;
    Ok(true)
}

/// A manifest as it is in JSON.
pub(crate) fn manifest_of(text: &Value) -> Result<SnapshotManifest> {
    SnapshotManifest::deserialize(text).map_err(|error| Error::InvalidInput {
        field: String::new(),
        message: format!("no manifest: {error}"),
    })
}

/// Writes what changed of the shard in `dir`, which must be flushed and at rest, as Qdrant 1.19 does:
/// a file goes out if the client does not have it, has it in a lower version, or if both versions
/// are 0; `segment.json` and `version.info` always do.
pub(crate) fn write_partial(
    dir: &Path,
    file: &Path,
    versions: Versions<'_>,
    lineage: Lineage,
) -> Result<()> {
    let mut segments = segments(&dir.join("segments"))?;
    // Others are on their way out.
    segments.retain(|segment| versions.new.get(&segment.name).is_some());
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
        let folder = format!("segments/{}/files", segment.name);
        let Some(new) = versions.new.get(&segment.name) else {
            continue;
        };
        let old = versions.old.get(&segment.name);
        let mut manifest = serde_json::to_value(new)
            .map_err(|error| Error::Internal(format!("segment manifest: {error}")))?;
        // A server writes them in the order of a hash map; here the same shard gives the same bytes.
        manifest.sort_all_objects();
        archive.json(&format!("{folder}/segment_manifest.json"), &manifest)?;
        let mut files: Vec<_> = new.file_versions().collect();
        files.sort_unstable();
        for (file, version) in files {
            if goes_out(old.and_then(|old| old.file_version(file)), version) {
                let name = file.display();
                archive.add(&segment.path.join(file), &format!("{folder}/{name}"))?;
            }
        }
        for name in [SEGMENT_STATE_FILE, "version.info"] {
            archive.add(&segment.path.join(name), &format!("{folder}/{name}"))?;
        }
    }
    let clock = json!({
        "peer_id": lineage.peer,
        "clock_id": 0,
        "current_tick": lineage.tick,
        "token": lineage.token,
    });
    let clocks = if lineage.tick > 0 {
        json!([clock])
    } else {
        json!([])
    };
    archive.end(&segments, &clocks, lineage.peer, lineage.next)
}

/// Whether a file goes to a client that has it in version `old`, or does not have it: the rule of
/// Qdrant 1.19 (`lib/segment/src/segment/snapshot.rs`). Version 0 is that of a file before the first
/// operation and after it.
fn goes_out(old: Option<u64>, new: u64) -> bool {
    old.is_none_or(|old| old < new || (old == 0 && new == 0))
}

fn next_operation(segments: &[Segment]) -> u64 {
    segments
        .iter()
        .filter_map(|segment| segment.version)
        .max()
        .map_or(0, |version| version.saturating_add(1))
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
struct Writer<'a, W> {
    path: &'a Path,
    output: W,
}

impl Writer<'_, BufWriter<File>> {
    /// Adds a segment as an archive without end mark. Its size goes before it, so it is made beside
    /// the snapshot first.
    fn segment_archive(&mut self, segment: &Segment) -> Result<()> {
        let mut beside = self.path.as_os_str().to_owned();
        beside.push(".segment");
        let beside = PathBuf::from(beside);
        let failed = |error: io::Error| Error::storage("write", &beside, &error);
        let file = File::create_new(&beside).map_err(failed)?;
        let mut inner = Writer {
            path: &beside,
            output: BufWriter::new(file),
        };
        inner.directory_contents(&segment.path, "snapshot/files")?;
        inner.output.flush().map_err(failed)?;
        let mut file = File::open(&beside).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let name = format!("segments/{}.tar", segment.name);
        self.file(&name, size, &[(0, size)], &mut file)?;
        fs::remove_file(&beside).map_err(failed)
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

impl Writer<'_, BufWriter<File>> {
    /// What comes after the segments. `next` is the number of the next operation, unless the segments
    /// have seen a later one.
    fn end(mut self, segments: &[Segment], clocks: &Value, peer: u64, next: u64) -> Result<()> {
        self.json("newest_clocks.json", &json!({ "clocks": clocks }))?;
        self.json("oldest_clocks.json", &json!({ "clocks": [] }))?;
        self.directory("wal/")?;
        self.file(
            &format!("wal/closed-{}", next_operation(segments).max(next)),
            WAL_BYTES,
            &[(0, WAL_HEADER.len() as u64)],
            &mut WAL_HEADER.as_slice(),
        )?;
        self.json(
            "replica_state.json",
            &json!({
                "is_local": true,
                "this_peer_id": peer,
                "peers": { peer.to_string(): "Active" },
            }),
        )?;
        self.json("shard_config.json", &json!({ "type": "ReplicaSet" }))?;
        self.finish()
    }
}

impl<W: Write> Writer<'_, W> {
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
                self.add(&path, &name)?;
            }
        }
        Ok(())
    }

    /// Adds the file at `path`.
    fn add(&mut self, path: &Path, name: &str) -> Result<()> {
        let mut file = File::open(path).map_err(|error| Error::storage("open", path, &error))?;
        let (size, pieces) =
            pieces(&mut file).map_err(|error| Error::storage("read", path, &error))?;
        let mut data = PieceReader::new(file, &pieces);
        self.file(name, size, &pieces, &mut data)
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
