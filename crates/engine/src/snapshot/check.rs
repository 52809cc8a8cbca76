//! Reading a snapshot archive through before anything of it is written.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use qdrant_edge::SEGMENT_STATE_FILE;
use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};
use uuid::Uuid;

use super::content::{open_archive, sum_is_right};
use super::limits::SnapshotLimits;
use crate::error::{Error, Result};

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

/// What stands beside the shards' folders in a collection's snapshot.
const COLLECTION_LEVEL: &[&str] = &[
    "config.json",
    "version.info",
    "shard_key_mapping.json",
    "payload_index.json",
];

/// Whose an entry is: a shard's, by the folder of a collection's snapshot that it is in (none: the
/// archive is the shard's own), or the collection's. And its name within that.
pub(super) enum Place<'a> {
    Shard(Option<&'a str>, &'a str),
    Collection,
}

pub(super) fn place(name: &str) -> Place<'_> {
    if COLLECTION_LEVEL.contains(&name) {
        return Place::Collection;
    }
    let (first, rest) = name.split_once('/').unwrap_or((name, ""));
    // A shard's number.
    if !first.is_empty() && first.len() <= 10 && first.bytes().all(|byte| byte.is_ascii_digit()) {
        return Place::Shard(Some(first), rest);
    }
    Place::Shard(None, name)
}

/// Reads the whole archive. Answers the folder of the shard if it is a collection's snapshot, and how
/// many segments it lists.
pub(super) fn check_archive(path: &Path, limits: SnapshotLimits) -> Result<(Option<String>, u64)> {
    let mut archive = Archive {
        path,
        reader: &mut open_archive(path, limits)?,
        offset: 0,
        ends: Ends::AtMark,
    };
    let mut entries = Entries {
        limits,
        count: 0,
        bytes: 0,
        files: HashSet::new(),
        directories: HashSet::new(),
        segment_states: 0,
        shards: BTreeSet::new(),
        collection: false,
    };
    check_entries(&mut archive, &mut entries, None)?;
    // What follows is padding; but only at its end does a compressed file tell whether it is sound.
    io::copy(archive.reader, &mut io::sink()).map_err(|error| archive.failed(&error))?;
    let mut shards = entries.shards.into_iter();
    let shard = match (shards.next(), shards.next()) {
        (Some(first), Some(second)) => {
            let all: Vec<String> = [first, second]
                .into_iter()
                .chain(shards)
                .map(|shard| shard.unwrap_or_else(|| "one without a number".to_owned()))
                .collect();
            return Err(Error::bad_snapshot(format!(
                "it is a collection snapshot of {} shards ({}), and a device holds one shard; make \
                 a snapshot of the shard that is wanted instead: \
                 POST /collections/{{collection}}/shards/{{shard}}/snapshots",
                all.len(),
                all.join(", ")
            )));
        }
        (Some(shard), None) => shard,
        (None, _) => None,
    };
    if entries.segment_states == 0 {
        return Err(Error::bad_snapshot(if entries.collection {
            "it is a collection snapshot without a shard in it"
        } else {
            "there are no segments in it"
        }));
    }
    Ok((shard, entries.segment_states))
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
        let shown = match segment {
            Some(segment) => format!("{segment}/{name}"),
            None => name,
        };
        let name = match place(&shown) {
            Place::Shard(shard, name) => {
                // The folder's own entry.
                if shard.is_some() && name.is_empty() && stored == 0 {
                    continue;
                }
                if segment.is_none() && entries.is_of_another(shard) {
                    // Only how many there are matters now.
                    if header.entry_type() == EntryType::GNUSparse {
                        archive.sparse_map(&header, stored, &shown)?;
                    }
                    archive.skip(stored, &shown)?;
                    continue;
                }
                name
            }
            Place::Collection => {
                entries.collection = true;
                if header.entry_type() != EntryType::Regular {
                    return Err(Error::bad_snapshot(format!("{shown}: not a plain file")));
                }
                archive.skip(stored, &shown)?;
                continue;
            }
        };
        let parts = checked_name(name)?;
        let name = &shown;
        match header.entry_type() {
            EntryType::Directory => {
                if stored != 0 {
                    return Err(Error::bad_snapshot(format!(
                        "{name}: a directory with contents"
                    )));
                }
                entries.directory(name, &parts)?;
            }
            EntryType::Regular => {
                entries.file(name, &parts, stored)?;
                match archived_segment(&parts) {
                    Some(folder) => {
                        let mut reader = Read::take(&mut *archive.reader, stored);
                        let mut inner = Archive {
                            path: archive.path,
                            reader: &mut reader,
                            offset: 0,
                            ends: Ends::WithItsBytes,
                        };
                        check_entries(&mut inner, entries, Some(&folder)).map_err(|error| {
                            match error {
                                Error::BadSnapshot(what) => {
                                    Error::bad_snapshot(format!("in {name}: {what}"))
                                }
                                other => other,
                            }
                        })?;
                        let read = stored - reader.limit();
                        archive.offset += read;
                        archive.skip_rest(stored, read, name)?;
                    }
                    None => archive.skip(stored, name)?,
                }
            }
            EntryType::GNUSparse if archived_segment(&parts).is_some() => {
                return Err(Error::bad_snapshot(format!(
                    "{name}: an archive with holes"
                )));
            }
            EntryType::GNUSparse => {
                let size = archive.sparse_map(&header, stored, name)?;
                entries.file(name, &parts, size)?;
                archive.skip(stored, name)?;
            }
            other => {
                return Err(Error::bad_snapshot(format!(
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
pub(super) fn archived_segment(parts: &[&str]) -> Option<String> {
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
    ends: Ends,
}

/// What says that an archive is complete.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Its end mark, two blocks of zeros: a download that was cut has none.
    AtMark,
    /// Also that it fills the entry which it is in: a server writes no end mark there.
    WithItsBytes,
}

impl Archive<'_> {
    fn damaged(&self, what: &str) -> Error {
        Error::bad_snapshot(format!(
            "damaged or cut off before byte {}: {what}",
            self.offset
        ))
    }

    fn failed(&self, error: &io::Error) -> Error {
        if error.kind() == ErrorKind::UnexpectedEof {
            self.damaged("the archive ends early")
        } else if error.raw_os_error().is_none() {
            // Of the decoder: what is compressed is damaged.
            self.damaged(&error.to_string())
        } else {
            Error::storage("read", self.path, error)
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK]> {
        self.block_or_end()?
            .ok_or_else(|| self.damaged("the archive ends early"))
    }

    /// The next block; none where nothing follows.
    fn block_or_end(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..)
            && !rest.is_empty()
        {
            match self.reader.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.damaged("the archive ends early")),
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    /// The next entry's header; none at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>> {
        let block = match self.block_or_end()? {
            Some(block) => block,
            None if self.ends == Ends::WithItsBytes => return Ok(None),
            None => return Err(self.damaged("the archive ends early")),
        };
        if block == [0; BLOCK] {
            return match self.block()? {
                [0, ..] => Ok(None),
                _ => Err(self.damaged("half an end mark")),
            };
        }
        if !sum_is_right(&block) {
            return Err(self.damaged("an entry's checksum is wrong"));
        }
        Ok(Some(Header::from_byte_slice(&block).clone()))
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
        let wrong = || Error::bad_snapshot(format!("{name}: its map of holes makes no sense"));
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
            .ok_or_else(|| Error::bad_snapshot(format!("{name}: impossibly large")))?
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
pub(super) fn checked_name(name: &str) -> Result<Vec<&str>> {
    let wrong = |why: &str| Error::bad_snapshot(format!("{name:?}: {why}"));
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
        [other] if other.ends_with(".snapshot") => {
            return Err(Error::bad_snapshot(format!(
                "it is a snapshot of a whole server, with {other} in it; make one of the collection \
                 or of its shard instead"
            )));
        }
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
    /// Folders of shards that were seen; none for a shard at the top of the archive.
    shards: BTreeSet<Option<String>>,
    /// Whether there is something of a collection beside them.
    collection: bool,
}

impl Entries {
    /// Notes the shard of an entry. True if it is not the one that came first.
    fn is_of_another(&mut self, shard: Option<&str>) -> bool {
        self.shards.insert(shard.map(str::to_owned));
        self.shards.len() > 1
    }

    fn count(&mut self, offset: u64) -> Result<()> {
        self.count += 1;
        if self.count > self.limits.entries {
            return Err(Error::bad_snapshot(format!(
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
            return Err(Error::bad_snapshot(format!(
                "{name}: a file and a directory"
            )));
        }
        if !["segments", "wal"].contains(&parts.first().copied().unwrap_or_default()) {
            return Err(Error::bad_snapshot(format!(
                "{name}: a directory where a file belongs"
            )));
        }
        // A directory may be made by the files in it before its own entry comes.
        self.directories.insert(path);
        Ok(())
    }

    fn file(&mut self, name: &str, parts: &[&str], size: u64) -> Result<()> {
        let path = parts.join("/");
        self.parents(name, parts)?;
        if self.directories.contains(&path) {
            return Err(Error::bad_snapshot(format!(
                "{name}: a file and a directory"
            )));
        }
        if !self.files.insert(path) {
            return Err(Error::bad_snapshot(format!("{name}: twice in the archive")));
        }
        self.bytes = self
            .bytes
            .checked_add(size)
            .filter(|bytes| *bytes <= self.limits.total_bytes)
            .ok_or_else(|| {
                Error::bad_snapshot(format!(
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
                return Err(Error::bad_snapshot(format!("{name}: below a file")));
            }
            if !self.directories.contains(&path) {
                self.directories.insert(path.clone());
            }
        }
        Ok(())
    }
}
