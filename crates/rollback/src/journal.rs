//! The journal of one checkpoint: what it held, and what has been done to it since.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write as _};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use edge_sync_log::{Durability, Log, LogOptions};

use crate::descriptor::{self, Identity, Status};
use crate::error::{Error, Result};
use crate::folder;
use crate::record::{Record, is_below};

/// Bytes are saved by pages: they tend to change together, and one bit each tells what is saved.
const PAGE: u64 = 4096;

/// Bytes in one record, at most.
const RECORD_BYTES: u64 = 1 << 20;

/// Bytes held in memory before they are written to the journal.
const BATCH_BYTES: u64 = 8 << 20;

/// Name of the folder, in that of the journal, for what was removed from the tree.
const TRASH: &str = "trash";

/// The trash's name once every file that was moved is back in its place, until the rest of the tree is.
const FOUND: &str = "found";

/// The journal's log is synced when a change needs it, and is never split.
const LOG: LogOptions = LogOptions {
    durability: Durability::Os,
    segment_bytes: u64::MAX / 2,
    durable_to: 0,
};

/// Bytes of an open file that are about to be overwritten or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The file, open for reading at least.
    pub fd: RawFd,
    /// The first byte.
    pub from: u64,
    /// The byte after the last one.
    pub to: u64,
}

/// A name that is about to change, and what is there.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Absolute, or relative to the working directory, as the tree's path is.
    pub path: &'a Path,
    /// What it is.
    pub status: Status,
}

/// A file or folder of the checkpoint.
#[derive(Debug)]
struct CheckpointEntry {
    path: String,
    is_folder: bool,
    length: u64,
    /// Of a file: from there on it is zero, as far as the checkpoint knew.
    data_length: u64,
    /// One bit a page: whether its bytes are in the journal. Empty until the first is.
    saved: Vec<u64>,
}

impl CheckpointEntry {
    fn is_saved(&self, page: u64) -> bool {
        let word = self.saved.get((page / 64) as usize);
        word.is_some_and(|word| word & 1 << (page % 64) != 0)
    }

    fn set_saved(&mut self, from: u64, to: u64) {
        if self.saved.is_empty() {
            let pages = self.length.div_ceil(PAGE);
            self.saved = vec![0; pages.div_ceil(64) as usize];
        }
        for page in from / PAGE..to.div_ceil(PAGE) {
            if let Some(word) = self.saved.get_mut((page / 64) as usize) {
                *word |= 1 << (page % 64);
            }
        }
    }
}

/// The journal of the checkpoint that is in force, or about to be.
#[derive(Debug)]
pub struct Journal {
    tree: PathBuf,
    folder: PathBuf,
    checkpoint: u64,
    log: Log,
    kept: Vec<CheckpointEntry>,
    /// The files. They are never given up while the checkpoint is in force, so that none of their
    /// identities can become another file's; those of folders can.
    by_identity: HashMap<Identity, u32>,
    /// Whether files were moved aside since that was last made durable.
    trash_changed: bool,
    /// Whether anything of the checkpoint has changed.
    changed: bool,
    /// Why the tree must not change any more.
    blocked: Option<String>,
}

fn folder_of(journals: &Path, checkpoint: u64) -> PathBuf {
    journals.join(checkpoint.to_string())
}

impl Journal {
    /// Makes a checkpoint of `tree`: syncs all of it, and begins its journal in a folder of its
    /// own in `journals`, which lies beside the tree. Durable when it returns, and in force when
    /// the caller says so, in a place of its own.
    ///
    /// # Errors
    /// The tree is not changed, and the checkpoint in force still is in force.
    pub fn begin(tree: &Path, journals: &Path, checkpoint: u64) -> Result<Self> {
        Self::begin_beside(tree, journals, checkpoint, &HashSet::new())
    }

    /// As [`Journal::begin`], of a tree of which the files in `durable` are on the disk already.
    ///
    /// # Errors
    /// As [`Journal::begin`].
    pub fn begin_beside(
        tree: &Path,
        journals: &Path,
        checkpoint: u64,
        durable: &HashSet<Identity>,
    ) -> Result<Self> {
        let mut kept = Vec::new();
        let mut by_identity = HashMap::new();
        for found in folder::list(tree)? {
            let path = tree.join(&found.path);
            let (status, data_length) = File::open(&path)
                .and_then(|file| {
                    let status = descriptor::of_file(&file)?;
                    if !durable.contains(&status.identity) {
                        file.sync_all()?;
                    }
                    let data_length = match found.is_folder {
                        true => 0,
                        false => descriptor::data_length(&file, status.length)?,
                    };
                    Ok((status, data_length))
                })
                .map_err(Error::io("sync", &path))?;
            if !found.is_folder {
                by_identity.insert(status.identity, kept.len() as u32);
            }
            kept.push(CheckpointEntry {
                path: found.path,
                is_folder: found.is_folder,
                length: if found.is_folder { 0 } else { status.length },
                data_length,
                saved: Vec::new(),
            });
        }
        folder::sync(tree)?;

        let folder = folder_of(journals, checkpoint);
        folder::remove(&folder)?;
        let trash = folder.join(TRASH);
        fs::create_dir_all(&trash).map_err(Error::io("create", &trash))?;
        let (mut log, _) = Log::open(&folder, LOG)?;
        let begin = Record::Begin {
            checkpoint,
            entries: kept.len() as u64,
        };
        let entries = kept.iter().map(|kept| {
            let path = kept.path.clone();
            match kept.is_folder {
                true => Record::Folder { path },
                false => Record::File {
                    path,
                    length: kept.length,
                    data_length: kept.data_length,
                },
            }
        });
        let records: Vec<_> = std::iter::once(begin).chain(entries).collect();
        let records: Vec<_> = records.iter().map(Record::encode).collect();
        log.append(&records)?;
        log.sync()?;
        folder::sync(journals)?;
        folder::sync(journals.parent().unwrap_or(journals))?;
        Ok(Self {
            tree: tree.to_path_buf(),
            folder,
            checkpoint,
            log,
            kept,
            by_identity,
            trash_changed: false,
            changed: false,
            blocked: None,
        })
    }

    /// Removes the journals of all checkpoints but this, which is in force.
    ///
    /// # Errors
    /// Some of them may be left, which does no harm.
    pub fn remove_others(&self) -> Result<()> {
        let journals = self.folder.parent().unwrap_or(&self.folder);
        folder::remove_others(journals, Some(self.checkpoint))
    }

    /// Which checkpoint it is of.
    pub fn checkpoint(&self) -> u64 {
        self.checkpoint
    }

    /// The folder that is watched over.
    pub fn tree(&self) -> &Path {
        &self.tree
    }

    /// Where files of the tree go that are removed.
    pub fn trash(&self) -> PathBuf {
        self.folder.join(TRASH)
    }

    /// Whether the tree may change. It may not once a failure has left open what it is.
    ///
    /// # Errors
    /// It may not until it has been brought back.
    pub fn check(&self) -> io::Result<()> {
        match &self.blocked {
            None => Ok(()),
            // By number, which is all that gets through the C library's interface.
            Some(_) => Err(io::Error::from_raw_os_error(libc::EIO)),
        }
    }

    fn entry(&self, identity: Identity) -> Option<u32> {
        self.by_identity.get(&identity).copied()
    }

    /// Whether the checkpoint has this file.
    pub fn keeps(&self, identity: Identity) -> bool {
        self.by_identity.contains_key(&identity)
    }

    /// Saves what the checkpoint has of bytes that are about to be overwritten or cut off. One
    /// sync for all of it, and none if nothing was to be saved.
    ///
    /// # Errors
    /// The bytes must not be changed.
    pub fn before_change(&mut self, changes: &[Change]) -> io::Result<()> {
        self.check()?;
        self.save(changes).map_err(Error::into_io)
    }

    fn save(&mut self, changes: &[Change]) -> Result<()> {
        let mut batch = Vec::new();
        let mut batch_bytes = 0;
        let mut saved = Vec::new();
        for change in changes {
            let context = |source| Error::io("save bytes of", &self.tree)(source);
            let status = descriptor::of_descriptor(change.fd).map_err(context)?;
            let Some(entry) = self.entry(status.identity) else {
                continue;
            };
            let kept = &self.kept[entry as usize];
            for (from, to) in runs(kept, change.from, change.to) {
                let mut bytes = vec![0; (to - from) as usize];
                descriptor::read_exact_at(change.fd, &mut bytes, from)
                    .map_err(Error::io("save bytes of", &self.tree.join(&kept.path)))?;
                let record = if bytes.iter().all(|byte| *byte == 0) {
                    Record::Zeros {
                        entry,
                        offset: from,
                        length: to - from,
                    }
                } else {
                    Record::Bytes {
                        entry,
                        offset: from,
                        bytes,
                    }
                };
                let record = record.encode();
                batch_bytes += record.len() as u64;
                batch.push(record);
                saved.push((entry, from, to));
                if batch_bytes >= BATCH_BYTES {
                    self.log.append(&batch)?;
                    batch.clear();
                    batch_bytes = 0;
                }
            }
        }
        if saved.is_empty() {
            return Ok(());
        }
        self.log.append(&batch)?;
        self.log.sync()?;
        for (entry, from, to) in saved {
            self.kept[entry as usize].set_saved(from, to);
        }
        self.changed = true;
        Ok(())
    }

    /// A file is about to be removed. One that the checkpoint has must be moved to the answered
    /// place instead.
    ///
    /// # Errors
    /// It must not be removed.
    pub fn before_remove_file(&mut self, file: Status) -> io::Result<Option<PathBuf>> {
        self.check()?;
        let entry = self.entry(file.identity);
        self.trash_changed |= entry.is_some();
        self.changed |= entry.is_some();
        Ok(entry.map(|entry| self.trash().join(entry.to_string())))
    }

    /// A folder is about to be removed. What was in it must not go with it in a power cut.
    ///
    /// # Errors
    /// It must not be removed.
    pub fn before_remove_folder(&mut self) -> io::Result<()> {
        self.check()?;
        if self.trash_changed {
            folder::sync(&self.trash()).map_err(Error::into_io)?;
            self.trash_changed = false;
        }
        Ok(())
    }

    /// Moves something in the tree by calling `rename`. `to` is what is there, if anything is.
    ///
    /// # Errors
    /// Those of `rename`; and if a move that matters could not be noted, after which the tree must
    /// not change any more.
    pub fn rename(
        &mut self,
        from: Entry<'_>,
        to: &Path,
        replaced: Option<Status>,
        rename: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        self.check()?;
        // A folder that is new may hold what is not.
        let matters = from.status.is_folder || self.keeps(from.status.identity);
        let record = match matters {
            true => Some(Record::Rename {
                from: self.relative(from.path)?,
                to: self.relative(to)?,
            }),
            false => None,
        };
        if let Some(replaced) = replaced {
            if replaced.identity == from.status.identity {
                return rename();
            }
            // As rename(2) has it, and before anything is moved out of the way.
            let refusal = match (from.status.is_folder, replaced.is_folder) {
                (true, false) => Some(libc::ENOTDIR),
                (false, true) => Some(libc::EISDIR),
                (true, true) => {
                    let is_empty = fs::read_dir(to)?.next().is_none();
                    (!is_empty).then_some(libc::ENOTEMPTY)
                }
                (false, false) => None,
            };
            if let Some(code) = refusal {
                return Err(io::Error::from_raw_os_error(code));
            }
            if replaced.is_folder {
                self.before_remove_folder()?;
            } else if let Some(trash) = self.before_remove_file(replaced)? {
                fs::rename(to, trash)?;
            }
        }
        let Some(record) = record else {
            return rename();
        };
        self.changed = true;
        self.note(&record)
            .and_then(|()| rename())
            .and_then(|()| self.sync_names(from.path, to))
            .and_then(|()| self.note(&Record::Renamed))
            .inspect_err(|error| {
                self.blocked = Some(format!("a move could not be noted: {error}"));
            })
    }

    fn note(&mut self, record: &Record) -> io::Result<()> {
        self.log
            .append(&[record.encode()])
            .and_then(|_| self.log.sync())
            .map_err(|error| Error::from(error).into_io())
    }

    fn sync_names(&self, from: &Path, to: &Path) -> io::Result<()> {
        for path in [from, to] {
            let folder = path.parent().unwrap_or(&self.tree);
            folder::sync_up_to(&self.tree, folder).map_err(Error::into_io)?;
        }
        Ok(())
    }

    /// A path relative to the tree. What would be moved out of it is as if on another file system.
    fn relative(&self, path: &Path) -> io::Result<String> {
        path.strip_prefix(&self.tree)
            .ok()
            .and_then(Path::to_str)
            .filter(|path| is_below(path))
            .map(str::to_owned)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EXDEV))
    }

    /// Brings `tree` back to what it was at `checkpoint`, the one in force, whatever was done since
    /// and wherever that, or an earlier attempt of this, was stopped. Answers its journal, and
    /// whether anything had to be done. Removes what is left of other checkpoints.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the tree or the journal is not what any crash leaves.
    pub fn roll_back(tree: &Path, journals: &Path, checkpoint: u64) -> Result<(Self, bool)> {
        let folder = folder_of(journals, checkpoint);
        if !exists(&folder)? {
            let message = format!("the journal of checkpoint {checkpoint}, in force, is missing");
            return Err(Error::corrupt(&folder, message));
        }
        let (log, _) = Log::open(&folder, LOG)?;
        let past = JournalContents::read(&log, &folder, checkpoint)?;
        let mut journal = Self {
            tree: tree.to_path_buf(),
            folder,
            checkpoint,
            log,
            kept: past.kept,
            by_identity: HashMap::new(),
            trash_changed: false,
            changed: false,
            blocked: None,
        };
        let undone = past.changed || journal.differs()?;
        if undone {
            journal.undo(&past.moves)?;
        }
        journal.identify()?;
        journal.remove_others()?;
        Ok((journal, undone))
    }

    /// Each part can be done again, whole or from where it was stopped. It takes no room on the
    /// disk to speak of, for that may be full.
    fn undo(&mut self, moves: &[Move]) -> Result<()> {
        let (trash, found) = (self.trash(), self.folder.join(FOUND));
        if !exists(&found)? {
            self.move_back(moves)?;
            self.sync_tree()?;
            folder::sync(&trash)?;
            // From here on no place in the tree is taken for that of something else.
            fs::rename(&trash, &found).map_err(Error::io("rename", &trash))?;
            folder::sync(&self.folder)?;
        } else {
            // Folders that an attempt before this one made: nothing is moved into a folder that a
            // power cut may take away with it.
            self.sync_tree()?;
        }
        self.restore_names(&found)?;
        self.restore_bytes()?;
        self.sync_tree()?;
        folder::sync(&found)?;
        self.log.truncate_after(self.first_of_changes() - 1)?;
        fs::rename(&found, &trash).map_err(Error::io("rename", &found))?;
        folder::sync(&self.folder)
    }

    /// The sequence, in the journal, of the first record after those of the checkpoint.
    fn first_of_changes(&self) -> u64 {
        self.kept.len() as u64 + 2
    }

    fn sync_tree(&self) -> Result<()> {
        for found in folder::list(&self.tree)? {
            folder::sync(&self.tree.join(found.path))?;
        }
        folder::sync(&self.tree)
    }

    /// Whether the next opening would have something to take back.
    ///
    /// # Errors
    /// The tree cannot be listed.
    pub fn has_changed(&self) -> Result<bool> {
        Ok(self.changed || self.differs()?)
    }

    /// Whether names or lengths are not those of the checkpoint.
    fn differs(&self) -> Result<bool> {
        let trash = self.trash();
        if !exists(&trash)? {
            return Ok(true);
        }
        let mut removed = fs::read_dir(&trash).map_err(Error::io("list", &trash))?;
        if removed.next().is_some() {
            return Ok(true);
        }
        let found = folder::list(&self.tree)?;
        if found.len() != self.kept.len() {
            return Ok(true);
        }
        for (kept, found) in self.kept.iter().zip(found) {
            if kept.path != found.path || kept.is_folder != found.is_folder {
                return Ok(true);
            }
            if !kept.is_folder {
                let path = self.tree.join(&kept.path);
                let metadata = fs::metadata(&path).map_err(Error::io("examine", &path))?;
                if metadata.len() != kept.length {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Moves what was moved to where removed files are, from where it goes back to its place.
    fn move_back(&self, moves: &[Move]) -> Result<()> {
        if moves.is_empty() {
            return Ok(());
        }
        // Where each is now, by the name it had; only what is not at its place.
        let mut places: BTreeMap<usize, String> = BTreeMap::new();
        for (number, moved) in moves.iter().enumerate() {
            // The crash may have come before the last one. It had no chance to happen later.
            let happened =
                moved.done || (number + 1 == moves.len() && !exists(&self.tree.join(&moved.from))?);
            if !happened {
                continue;
            }
            for (entry, kept) in self.kept.iter().enumerate() {
                let place = places.get(&entry).unwrap_or(&kept.path);
                if let Some(place) = moved.applied_to(place) {
                    places.insert(entry, place);
                }
            }
        }
        for (entry, place) in places {
            let from = self.tree.join(&place);
            let to = self.trash().join(entry.to_string());
            // What was removed after it was moved is there already, and another may have its name.
            // What was in a folder that was moved has gone with that.
            if place != self.kept[entry].path && !exists(&to)? && exists(&from)? {
                fs::rename(&from, &to).map_err(Error::io("move back", &from))?;
            }
        }
        Ok(())
    }

    /// Brings back what was removed, and removes what is new.
    fn restore_names(&self, removed: &Path) -> Result<()> {
        for (entry, kept) in self.kept.iter().enumerate() {
            let path = self.tree.join(&kept.path);
            let removed = removed.join(entry.to_string());
            if exists(&removed)? {
                folder::remove(&path)?;
                fs::rename(&removed, &path).map_err(Error::io("bring back", &path))?;
                continue;
            }
            // An error must not pass for an answer here.
            let found = kind(&path)?;
            if found == Some(kept.is_folder) {
                continue;
            }
            if !kept.is_folder {
                return Err(self.differently(&path));
            }
            folder::remove(&path)?;
            fs::create_dir(&path).map_err(Error::io("bring back", &path))?;
            folder::sync(path.parent().unwrap_or(&self.tree))?;
        }
        let kept: HashMap<&str, bool> = self
            .kept
            .iter()
            .map(|kept| (kept.path.as_str(), kept.is_folder))
            .collect();
        for found in folder::list(&self.tree)? {
            if kept.get(found.path.as_str()) != Some(&found.is_folder) {
                folder::remove(&self.tree.join(&found.path))?;
            }
        }
        Ok(())
    }

    /// Brings back lengths and bytes.
    fn restore_bytes(&self) -> Result<()> {
        for kept in self.kept.iter().filter(|kept| !kept.is_folder) {
            let path = self.tree.join(&kept.path);
            let metadata = fs::metadata(&path).map_err(Error::io("examine", &path))?;
            if metadata.len() != kept.length {
                OpenOptions::new()
                    .write(true)
                    .open(&path)
                    .and_then(|file| file.set_len(kept.length))
                    .map_err(Error::io("bring the length back of", &path))?;
            }
        }
        let mut open: Option<(u32, File)> = None;
        for record in self.log.read(self.first_of_changes()) {
            let record = record?;
            let (entry, offset, bytes) = match Record::decode(&record.payload) {
                Some(Record::Bytes {
                    entry,
                    offset,
                    bytes,
                }) => (entry, offset, bytes),
                Some(Record::Zeros {
                    entry,
                    offset,
                    length,
                }) => (entry, offset, vec![0; length as usize]),
                _ => continue,
            };
            let path = self.tree.join(&self.kept[entry as usize].path);
            let context = Error::io("bring bytes back of", &path);
            let mut file = match open.take() {
                Some((last, file)) if last == entry => file,
                _ => match OpenOptions::new().write(true).open(&path) {
                    Ok(file) => file,
                    Err(error) => return Err(context(error)),
                },
            };
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| file.write_all(&bytes))
                .map_err(context)?;
            open = Some((entry, file));
        }
        Ok(())
    }

    /// Learns which files the tree's are, and that they are as the checkpoint has them.
    fn identify(&mut self) -> Result<()> {
        for (entry, kept) in self.kept.iter().enumerate() {
            let path = self.tree.join(&kept.path);
            let context = Error::io("examine", &path);
            let found = match descriptor::open_with_status(&path) {
                Ok(found) => found,
                Err(error) => return Err(context(error)),
            };
            let found = found.filter(|(_, status)| {
                status.is_folder == kept.is_folder
                    && (kept.is_folder || status.length == kept.length)
            });
            let Some((file, status)) = found else {
                return Err(self.differently(&path));
            };
            if !kept.is_folder {
                if kept.data_length < kept.length {
                    descriptor::note_data_length(&file, kept.data_length).map_err(context)?;
                }
                self.by_identity.insert(status.identity, entry as u32);
            }
        }
        Ok(())
    }

    fn differently(&self, path: &Path) -> Error {
        let message = format!("checkpoint {} has it differently", self.checkpoint);
        Error::corrupt(path, message)
    }
}

/// The pages of `from..to` that are not saved, joined to runs of at most [`RECORD_BYTES`].
fn runs(kept: &CheckpointEntry, from: u64, to: u64) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let end = to.min(kept.length);
    for page in from / PAGE..end.div_ceil(PAGE) {
        if kept.is_folder || kept.is_saved(page) {
            continue;
        }
        let (start, stop) = (page * PAGE, ((page + 1) * PAGE).min(kept.length));
        match runs.last_mut() {
            Some((first, last)) if *last == start && stop - *first <= RECORD_BYTES => *last = stop,
            _ => runs.push((start, stop)),
        }
    }
    runs
}

fn exists(path: &Path) -> Result<bool> {
    Ok(kind(path)?.is_some())
}

/// Whether what is there is a folder; None if nothing is.
fn kind(path: &Path) -> Result<Option<bool>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(metadata.is_dir())),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::io("examine", path)(error)),
    }
}

/// A move that was noted.
struct Move {
    from: String,
    to: String,
    /// Whether it is known to have happened.
    done: bool,
}

impl Move {
    /// The name after the move of what was called `path` before it; None if that stays.
    fn applied_to(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix(&self.from)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", self.to))
    }
}

/// What a journal tells.
struct JournalContents {
    kept: Vec<CheckpointEntry>,
    moves: Vec<Move>,
    /// Whether there is more than what the checkpoint holds.
    changed: bool,
}

impl JournalContents {
    fn read(log: &Log, folder: &Path, checkpoint: u64) -> Result<Self> {
        let mut past = Self {
            kept: Vec::new(),
            moves: Vec::new(),
            changed: false,
        };
        let mut entries = None;
        for record in log.read(0) {
            let stored = record?;
            let number = stored.sequence;
            let unreadable = |message: &str| {
                Error::corrupt(folder, format!("record {number} of the journal: {message}"))
            };
            let Some(record) = Record::decode(&stored.payload) else {
                return Err(unreadable("it is of no kind that this program knows"));
            };
            let begun = past.kept.len() as u64 == entries.unwrap_or(u64::MAX);
            match record {
                Record::Begin {
                    checkpoint: found,
                    entries: count,
                } if entries.is_none() && found == checkpoint => entries = Some(count),
                Record::Folder { path } if entries.is_some() && !begun => past.keep(path, None),
                Record::File {
                    path,
                    length,
                    data_length,
                } if entries.is_some() && !begun => past.keep(path, Some((length, data_length))),
                _ if !begun => return Err(unreadable("it is not where it may be")),
                Record::Bytes {
                    entry,
                    offset,
                    bytes,
                } => past
                    .change(entry, offset, bytes.len() as u64)
                    .ok_or_else(|| unreadable("bytes of no file of the checkpoint"))?,
                Record::Zeros {
                    entry,
                    offset,
                    length,
                } => past
                    .change(entry, offset, length)
                    .ok_or_else(|| unreadable("bytes of no file of the checkpoint"))?,
                Record::Rename { from, to } => {
                    past.changed = true;
                    past.moves.push(Move {
                        from,
                        to,
                        done: false,
                    });
                }
                Record::Renamed => match past.moves.last_mut() {
                    Some(last) => last.done = true,
                    None => return Err(unreadable("it is not where it may be")),
                },
                Record::Begin { .. } | Record::Folder { .. } | Record::File { .. } => {
                    return Err(unreadable("it is not where it may be"));
                }
            }
        }
        match entries {
            Some(count) if past.kept.len() as u64 == count => Ok(past),
            _ => Err(Error::corrupt(
                folder,
                "the journal does not say what the checkpoint holds",
            )),
        }
    }

    /// `lengths`: those of a file, whole and without the zeros that it ends in.
    fn keep(&mut self, path: String, lengths: Option<(u64, u64)>) {
        let (length, data_length) = lengths.unwrap_or_default();
        self.kept.push(CheckpointEntry {
            path,
            is_folder: lengths.is_none(),
            length,
            data_length,
            saved: Vec::new(),
        });
    }

    fn change(&mut self, entry: u32, offset: u64, length: u64) -> Option<()> {
        let kept = self.kept.get_mut(entry as usize)?;
        let end = offset.checked_add(length)?;
        if kept.is_folder || end > kept.length || length > RECORD_BYTES {
            return None;
        }
        self.changed = true;
        Some(())
    }
}
