//! Writing out an archive that was found to be sound.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tar::{Archive, EntryType};

use super::check::{Place, archived_segment, checked_name, place};
use super::content::open_archive;
use super::{SnapshotLimits, bad};
use crate::error::{Error, Result};

/// What servers that kept a key-value store beside a segment's files added. It has no reader any
/// more.
const FORGOTTEN: &[&str] = &["db_backup", "payload_index_db_backup"];

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
    Ok(())
}

fn plain<R: Read>(reader: R) -> Archive<R> {
    let mut archive = Archive::new(reader);
    archive.set_overwrite(false);
    archive.set_preserve_mtime(false);
    archive
}

fn entry_name<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String> {
    String::from_utf8(entry.path_bytes().into_owned())
        .map_err(|_| bad("an entry's name is not UTF-8"))
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
            other => Err(bad(format!(
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
            None => bad(format!(
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
