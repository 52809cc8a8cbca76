//! Writing out an archive that was found to be sound.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use super::check::{Place, archived_segment, checked_name, place};
use super::content::open_archive;
use super::limits::SnapshotLimits;
use crate::error::{Error, Result};

/// What servers that kept a key-value store beside a segment's files added. It has no reader any
/// more.
const FORGOTTEN: &[&str] = &["db_backup", "payload_index_db_backup"];

/// How a file of the write-ahead log begins (`wal/segment.rs` of the engine): the format's name and
/// version, then the seed of the checksums.
const WAL_FORMAT: &[u8] = b"wal\0";

/// Bytes of that.
const WAL_HEADER: usize = 8;

/// With the first entry's length, 8 bytes, and what would follow if that is 0: 4 bytes of padding and a
/// checksum of 4.
const WAL_START: usize = WAL_HEADER + 16;

/// Unpacks the shard in `file` into `target`: that of the folder `shard` of a collection's
/// snapshot, or the only one.
pub(super) fn unpack(
    file: &Path,
    target: &Path,
    limits: SnapshotLimits,
    shard: Option<&str>,
) -> Result<()> {
    let mut output = Output {
        archive: file,
        target,
        folders: HashSet::new(),
    };
    output.folder(target.to_owned())?;
    let mut archive = plain(open_archive(file, limits)?);
    for entry in archive.entries().map_err(|error| output.failed(&error))? {
        let mut entry = entry.map_err(|error| output.failed(&error))?;
        let name = entry_name(&entry)?;
        let Place::Shard(found, name) = place(&name) else {
            continue;
        };
        if found != shard || name.is_empty() {
            continue;
        }
        let parts = checked_name(name)?;
        match archived_segment(&parts) {
            Some(folder) => output.segment(&mut entry, &folder)?,
            None => output.entry(&mut entry, &parts)?,
        }
    }
    remove_empty_wal(&target.join("wal"))
}

/// Removes a write-ahead log without entries. The engine would map its file, make others as large,
/// replay nothing and remove all of them.
fn remove_empty_wal(wal: &Path) -> Result<()> {
    let failed = |error: io::Error| Error::storage("examine the write-ahead log", wal, &error);
    let files = match fs::read_dir(wal) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for file in files {
        let file = file.map_err(failed)?;
        // Says where the entries that count begin.
        if file.file_name() == "first-index" {
            continue;
        }
        if !file.file_type().map_err(failed)?.is_file() || !is_empty_wal(&file.path())? {
            return Ok(());
        }
    }
    fs::remove_dir_all(wal)
        .map_err(|error| Error::storage("remove the write-ahead log", wal, &error))
}

/// Whether a file of the log has no first entry: there is neither a length nor a checksum where they
/// would be. An entry without bytes would have a checksum.
fn is_empty_wal(file: &Path) -> Result<bool> {
    let mut start = [0; WAL_START];
    let read = fs::File::open(file).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) => {
            let (header, entry) = start.split_at(WAL_HEADER);
            Ok(header.starts_with(WAL_FORMAT) && entry.iter().all(|byte| *byte == 0))
        }
        // The engine says what it thinks of it.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::storage("read", file, &error)),
    }
}

fn plain<R: Read>(reader: R) -> Archive<R> {
    let mut archive = Archive::new(reader);
    archive.set_overwrite(false);
    archive.set_preserve_mtime(false);
    archive
}

fn entry_name<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String> {
    String::from_utf8(entry.path_bytes().into_owned())
        .map_err(|_| Error::bad_snapshot("an entry's name is not UTF-8"))
}

/// The folder that is filled.
struct Output<'a> {
    archive: &'a Path,
    target: &'a Path,
    /// Those that were made.
    folders: HashSet<PathBuf>,
}

impl Output<'_> {
    /// An archive within the archive, a segment's.
    fn segment(&mut self, entry: &mut dyn Read, folder: &str) -> Result<()> {
        let mut archive = plain(entry);
        for entry in archive.entries().map_err(|error| self.failed(&error))? {
            let mut entry = entry.map_err(|error| self.failed(&error))?;
            let name = format!("{folder}/{}", entry_name(&entry)?);
            self.entry(&mut entry, &checked_name(&name)?)?;
        }
        Ok(())
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>, parts: &[&str]) -> Result<()> {
        let Some(parts) = in_place(parts) else {
            return Ok(());
        };
        let mut path = self.target.to_owned();
        path.extend(parts);
        match entry.header().entry_type() {
            EntryType::Directory => self.folder(path),
            EntryType::Regular | EntryType::GNUSparse => {
                if let Some(parent) = path.parent() {
                    self.folder(parent.to_owned())?;
                }
                entry
                    .unpack(&path)
                    .map(drop)
                    .map_err(|error| self.failed(&error))
            }
            other => Err(Error::bad_snapshot(format!(
                "entries of type {other:?} have no place in a snapshot"
            ))),
        }
    }

    fn folder(&mut self, path: PathBuf) -> Result<()> {
        if self.folders.contains(&path) {
            return Ok(());
        }
        fs::create_dir_all(&path)
            .map_err(|error| Error::storage("create the folder", &path, &error))?;
        self.folders.insert(path);
        Ok(())
    }

    /// The archive is sound, so what fails now is the disk, unless the file was changed since.
    fn failed(&self, error: &io::Error) -> Error {
        match system_error(error) {
            Some(error) => Error::storage("unpack the snapshot into", self.target, error),
            None => Error::bad_snapshot(format!(
                "{} cannot be unpacked: {error}",
                self.archive.display()
            )),
        }
    }
}

/// The error of the operating system that an error wraps.
fn system_error(error: &io::Error) -> Option<&io::Error> {
    if error.raw_os_error().is_some() {
        return Some(error);
    }
    let mut source = error.get_ref()?.source();
    while let Some(wrapped) = source {
        if let Some(error) = wrapped.downcast_ref::<io::Error>() {
            return system_error(error);
        }
        source = wrapped.source();
    }
    None
}

/// Where the engine expects a file: a segment's are directly in its folder. None for what is not
/// wanted.
fn in_place<'a>(parts: &'a [&'a str]) -> Option<Vec<&'a str>> {
    let ["segments", id, rest @ ..] = parts else {
        return Some(parts.to_vec());
    };
    let rest = match rest {
        ["snapshot", rest @ ..] => rest,
        rest => rest,
    };
    let rest = match rest {
        ["files", rest @ ..] => rest,
        [first, ..] if FORGOTTEN.contains(first) => return None,
        rest => rest,
    };
    Some(
        ["segments", *id]
            .into_iter()
            .chain(rest.iter().copied())
            .collect(),
    )
}
