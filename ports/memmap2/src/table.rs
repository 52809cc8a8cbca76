//! Which files are mapped, and the memory that their maps share.
//!
//! # Invariants
//! 1. All maps of a file lie in its newest buffer, except those made before the file outgrew a
//!    buffer that could not be lengthened where it lies; these stay in that *elder* buffer.
//! 2. A buffer does not move and is not freed while a map lies in it.
//! 3. A buffer holds the file's bytes from 0 to its `loaded`, as changed through maps since;
//!    zeros follow.
//! 4. While a file has a writable map it is held open, and a page of a buffer has changed since it
//!    last agreed with the file if and only if its fingerprint differs from the one in `prints`,
//!    which is none ([`UNKNOWN`]) once the file was changed under a changed page.
//! 5. What handles of this process write to the file or cut off is applied to its buffers at once,
//!    and what they read comes from the newest buffer ([`crate::file_io`]).
//! 6. [`SharedFile::write_back`] leaves the file, the newest buffer and the elders with the same
//!    bytes in the range it was asked for.
//! 7. Changes that could not be written back stay in memory, and the file stays held, until a
//!    later attempt succeeds, or they are given up ([`Table::abandon`]).
//! 8. The guard is told before a byte of a file is overwritten ([`crate::guard`]).

use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::arena::Arena;
use crate::descriptor::{self, Held, Identity, Metadata};
use crate::guard::{self, Change};
use crate::page::{self, Fingerprint, PAGE, UNKNOWN, ZERO};

/// Files are read and compared in pieces of this many bytes.
const PIECE: usize = 256 * 1024;

/// Pages in one write to a file, at most.
const RUN: usize = 256;

/// What growing buffers leave of the program's allocator, once memory cannot grow any more: reads, deletes
/// and a checkpoint have to be possible then.
const SPARED: usize = 12 << 20;

/// How many files' known zeros are remembered; they are only a way to read less.
const MOST_ZERO_TAILS: usize = 1024;

static TABLE: Mutex<Option<Table>> = Mutex::new(None);

/// Calls `use_table` with the table of this process.
pub(crate) fn with<T>(use_table: impl FnOnce(&mut Table) -> T) -> T {
    let mut table: MutexGuard<'_, Option<Table>> =
        TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    use_table(table.get_or_insert_default())
}

/// Tells the guard at once of all changes through maps that wait to be written back, so that it
/// need not act file by file when they are.
///
/// # Errors
/// The guard's.
pub fn announce_changes() -> io::Result<()> {
    guard::before_change(&with(|table| table.changes()))
}

/// Gives up what was changed through maps and not written back. Maps that there are keep their
/// memory, and nothing of it reaches a file any more; maps made from now on share nothing with
/// them.
pub fn abandon_changes() {
    with(Table::abandon);
}

/// Names a file of the table for as long as a map of it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileId(u64);

/// Names a buffer of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BufferId(u64);

/// Where a new map lies.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) file: FileId,
    pub(crate) buffer: BufferId,
    /// Address of the file's first byte.
    pub(crate) address: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Table {
    arena: Arena,
    files: HashMap<FileId, SharedFile>,
    /// Without the files that are known to have lost their inode to another.
    by_identity: HashMap<Identity, FileId>,
    /// From which offset on a file that is not mapped is known to be zero, because it was
    /// lengthened and not written since.
    zero_tails: HashMap<Identity, u64>,
    last_id: u64,
}

#[derive(Debug)]
struct SharedFile {
    identity: Identity,
    /// Elders first.
    buffers: Vec<Buffer>,
    /// Bytes in the file when it was last looked at.
    length: u64,
    /// When the file was last written, if it was not written since, and if any further write shows in
    /// that time. Known of files that are only read.
    settled_since: Option<Duration>,
    /// While there are writable maps, or changes that could not be written back.
    held: Option<Held>,
    writable_maps: usize,
    /// Whether anything may have been written to the file that was not synced since.
    unsynced: bool,
    /// From which offset on, as far as no buffer has loaded it, the file is known to be zero.
    zero_from: Option<u64>,
}

#[derive(Debug)]
struct Buffer {
    id: BufferId,
    address: usize,
    /// Bytes, whole pages.
    capacity: usize,
    loaded: usize,
    maps: usize,
    /// One a page while the file is held, else empty.
    prints: Vec<Fingerprint>,
}

impl Table {
    /// Gives a map of the first `end` bytes of `fd`'s file its memory.
    pub(crate) fn attach(&mut self, fd: RawFd, end: u64, writable: bool) -> io::Result<Attached> {
        let end = usize::try_from(end)
            .ok()
            .filter(|&end| end <= isize::MAX as usize - PAGE)
            .ok_or_else(|| too_long(end))?;
        let metadata = descriptor::metadata(fd)?;
        if !metadata.is_file {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "only regular files can be mapped",
            ));
        }
        if writable && !descriptor::can_read_and_write(fd)? {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "a file mapped writable must be open for reading and writing",
            ));
        }
        let id = self.file_of(fd, metadata)?;
        let zero_from = self.zero_tails.remove(&metadata.identity);
        let attached = self.attach_to(id, fd, end, writable, zero_from);
        if attached.is_err() {
            self.remove_if_unused(id);
        }
        attached
    }

    fn attach_to(
        &mut self,
        id: FileId,
        fd: RawFd,
        end: usize,
        writable: bool,
        zero_from: Option<u64>,
    ) -> io::Result<Attached> {
        let Some(file) = self.files.get_mut(&id) else {
            return Err(io::Error::other("the file's entry is gone"));
        };
        if writable && file.held.is_none() {
            file.held = Some(Held::new(fd)?);
            file.settled_since = None;
            for buffer in &mut file.buffers {
                buffer.take_prints();
            }
        }
        self.last_id += 1;
        file.zero_from = zero_from.or(file.zero_from);
        let attached = file.enter(&mut self.arena, fd, end, id, BufferId(self.last_id))?;
        file.writable_maps += usize::from(writable);
        Ok(attached)
    }

    /// Makes a writable map longer, so that it covers the first `end` bytes of its file. It may lie
    /// elsewhere afterwards.
    pub(crate) fn lengthen(
        &mut self,
        id: FileId,
        buffer: BufferId,
        end: usize,
    ) -> io::Result<Attached> {
        let file = self.files.get_mut(&id);
        let Some((file, fd)) = file.and_then(|file| {
            let fd = file.held.as_ref().map(Held::fd)?;
            Some((file, fd))
        }) else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "only maps that are written can be made longer",
            ));
        };
        file.notice_length(descriptor::metadata(fd)?.length);
        if file.elders().iter().any(|elder| elder.id == buffer) {
            file.write_back(0, usize::MAX)?;
        }
        // It leaves its buffer first: if no other map lies there, there will be no elder.
        file.count_maps(buffer, |maps| maps - 1);
        self.last_id += 1;
        let entered = file.enter(&mut self.arena, fd, end, id, BufferId(self.last_id));
        if entered.is_err() {
            file.count_maps(buffer, |maps| maps + 1);
        }
        entered
    }

    /// Bytes of the file up to its last that is not zero. Reads as far back as that is, unless it is
    /// known. All of the file where maps may hold what the file does not.
    pub(crate) fn data_length(&mut self, fd: RawFd) -> io::Result<u64> {
        let Metadata {
            identity, length, ..
        } = descriptor::metadata(fd)?;
        if self.is_written_through_maps(identity) {
            return Ok(length);
        }
        let known = self.zero_tails.get(&identity).copied();
        let mut end = known.map_or(length, |from| from.min(length));
        let mut piece = vec![0; PIECE];
        while end > 0 {
            let start = (end - 1) / PIECE as u64 * PIECE as u64;
            let wanted = usize::try_from(end - start).unwrap_or(PIECE);
            let read = descriptor::read_at(fd, &mut piece[..wanted], start)?;
            if !page::is_zero(&piece[..read]) {
                let last = piece[..read].iter().rposition(|&byte| byte != 0);
                end = start + last.map_or(0, |last| last as u64 + 1);
                break;
            }
            end = start;
        }
        if !self.by_identity.contains_key(&identity) {
            self.note_zero_tail(identity, end);
        }
        Ok(end)
    }

    /// No bytes of the file from there on are other than zero, in maps nor in itself; `None` if
    /// that is not known. Reads nothing.
    pub(crate) fn known_data_length(&self, fd: RawFd) -> io::Result<Option<u64>> {
        let Metadata {
            identity, length, ..
        } = descriptor::metadata(fd)?;
        let file = self
            .by_identity
            .get(&identity)
            .and_then(|id| self.files.get(id));
        let known = match file {
            // What maps changed lies in a buffer.
            Some(file) => file.zero_from.map(|from| {
                let in_buffers = file.buffers.iter().map(|buffer| buffer.capacity as u64);
                in_buffers.fold(from, u64::max)
            }),
            None => self.zero_tails.get(&identity).copied(),
        };
        Ok(known.map(|from| from.min(length)))
    }

    /// Takes the caller's word that the file holds zeros from there on.
    pub(crate) fn note_data_length(&mut self, fd: RawFd, from: u64) -> io::Result<()> {
        let identity = descriptor::metadata(fd)?.identity;
        if !self.by_identity.contains_key(&identity) {
            self.note_zero_tail(identity, from);
        }
        Ok(())
    }

    fn note_zero_tail(&mut self, identity: Identity, from: u64) {
        if self.zero_tails.len() >= MOST_ZERO_TAILS {
            self.zero_tails.clear();
        }
        self.zero_tails.insert(identity, from);
    }

    /// The entry of the file that `fd` refers to, made if there is none.
    fn file_of(&mut self, fd: RawFd, metadata: Metadata) -> io::Result<FileId> {
        if let Some(&id) = self.by_identity.get(&metadata.identity)
            && let Some(file) = self.files.get_mut(&id)
        {
            if file.held.is_some() {
                file.notice_length(metadata.length);
                return Ok(id);
            }
            // Nothing kept the inode: it may belong to another file by now, or somebody else may
            // have written the file. Older maps then keep what they have.
            if file.still_holds(fd, metadata)? {
                return Ok(id);
            }
        }
        self.last_id += 1;
        let id = FileId(self.last_id);
        self.files.insert(
            id,
            SharedFile {
                identity: metadata.identity,
                buffers: Vec::new(),
                length: metadata.length,
                settled_since: metadata.settled_since(),
                held: None,
                writable_maps: 0,
                unsynced: true,
                zero_from: None,
            },
        );
        self.by_identity.insert(metadata.identity, id);
        Ok(id)
    }

    /// Gives a map's memory up.
    ///
    /// # Errors
    /// The file's changes could not be written. They are kept, and written with the next flush or
    /// the next last drop.
    pub(crate) fn detach(
        &mut self,
        id: FileId,
        buffer: BufferId,
        writable: bool,
    ) -> io::Result<()> {
        let Some(file) = self.files.get_mut(&id) else {
            return Ok(());
        };
        file.writable_maps -= usize::from(writable);
        file.count_maps(buffer, |maps| maps - 1);
        let elder_is_done = file.elders().iter().any(|elder| elder.maps == 0);
        let last_writer_is_done = file.writable_maps == 0;
        let written = if file.held.is_some() && (elder_is_done || last_writer_is_done) {
            file.write_back(0, usize::MAX)
        } else {
            Ok(())
        };
        if written.is_ok() {
            file.free_elders(&mut self.arena);
            if last_writer_is_done {
                file.held = None;
                for buffer in &mut file.buffers {
                    buffer.prints = Vec::new();
                }
            }
        }
        self.remove_if_unused(id);
        written
    }

    fn remove_if_unused(&mut self, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        let in_use = file.buffers.iter().any(|buffer| buffer.maps > 0);
        // Held without a writable map: changes wait for a disk that takes them.
        if in_use || (file.held.is_some() && file.has_changes()) {
            return;
        }
        for buffer in file.buffers.drain(..) {
            buffer.free(&mut self.arena);
        }
        let identity = file.identity;
        self.files.remove(&id);
        if self.by_identity.get(&identity) == Some(&id) {
            self.by_identity.remove(&identity);
        }
    }

    /// Writes the changed pages that `offset` and `length` touch; with `durable`, syncs the file.
    pub(crate) fn flush(
        &mut self,
        id: FileId,
        offset: u64,
        length: usize,
        durable: bool,
    ) -> io::Result<()> {
        let Some(file) = self.files.get_mut(&id) else {
            return Ok(());
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        file.write_back(start, start.saturating_add(length))?;
        match &file.held {
            Some(held) if durable && file.unsynced => {
                descriptor::sync_data(held.fd())?;
                file.unsynced = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What write-backs of all files would write now, in order of the files' first maps.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut files: Vec<_> = self.files.iter().collect();
        files.sort_unstable_by_key(|(id, _)| id.0);
        files
            .into_iter()
            .flat_map(|(_, file)| file.changes())
            .collect()
    }

    /// Lets no change reach a file any more, nor a map that is made later.
    pub(crate) fn abandon(&mut self) {
        for file in self.files.values_mut() {
            file.held = None;
            for buffer in &mut file.buffers {
                buffer.prints = Vec::new();
            }
        }
        self.by_identity.clear();
        self.zero_tails.clear();
    }

    /// Memory that no file backs.
    pub(crate) fn allocate(&mut self, length: usize) -> io::Result<usize> {
        if length > isize::MAX as usize - PAGE {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        self.arena
            .allocate(whole_pages(length), 0)
            .ok_or_else(|| out_of_memory(length))
    }

    /// Frees what [`Self::allocate`] gave.
    ///
    /// # Safety
    /// It is not used any more.
    pub(crate) unsafe fn free(&mut self, address: usize, length: usize) {
        // SAFETY: as the caller promises.
        unsafe { self.arena.free(address, whole_pages(length)) };
    }

    /// Whether reads and writes through handles have to be looked at.
    pub(crate) fn concerns_handles(&self) -> bool {
        !self.by_identity.is_empty() || !self.zero_tails.is_empty()
    }

    /// Whether reads of this file must come from memory.
    pub(crate) fn is_written_through_maps(&self, identity: Identity) -> bool {
        self.by_identity
            .get(&identity)
            .and_then(|id| self.files.get(id))
            .is_some_and(|file| file.held.is_some())
    }

    /// Whether writes to this file must be reported by [`Self::written`].
    pub(crate) fn knows(&self, identity: Identity) -> bool {
        self.by_identity.contains_key(&identity) || self.zero_tails.contains_key(&identity)
    }

    /// Puts what maps hold over bytes that were read from the file at `offset`.
    pub(crate) fn overlay(
        &mut self,
        identity: Identity,
        offset: u64,
        bytes: &mut [u8],
    ) -> io::Result<()> {
        let Some(file) = self
            .by_identity
            .get(&identity)
            .and_then(|id| self.files.get_mut(id))
        else {
            return Ok(());
        };
        let Ok(start) = usize::try_from(offset) else {
            return Ok(());
        };
        if !file.elders().is_empty() {
            file.write_back(start, start.saturating_add(bytes.len()))?;
        }
        if let Some(newest) = file.buffers.last() {
            let end = start.saturating_add(bytes.len()).min(newest.loaded);
            if start < end {
                bytes[..end - start].copy_from_slice(newest.bytes(start, end - start));
            }
        }
        Ok(())
    }

    /// A handle changes the file, which was `length` bytes long until then.
    pub(crate) fn before_change(&mut self, identity: Identity, length: u64) {
        if let Some(id) = self.by_identity.get(&identity)
            && let Some(file) = self.files.get_mut(id)
            && file.length != length
        {
            if file.held.is_some() {
                file.notice_length(length);
            } else {
                // Cut or replaced behind our back; its maps keep what they have.
                self.by_identity.remove(&identity);
            }
        }
    }

    /// A handle wrote `bytes` to the file at `offset`.
    pub(crate) fn written(&mut self, identity: Identity, offset: u64, bytes: &[u8]) {
        let end = offset.saturating_add(bytes.len() as u64);
        if let Some(zero_from) = self.zero_tails.get_mut(&identity) {
            *zero_from = end.max(*zero_from);
        }
        if let Some(file) = self
            .by_identity
            .get(&identity)
            .and_then(|id| self.files.get_mut(id))
        {
            let held = file.held.is_some();
            let before = file.length;
            file.length = end.max(before);
            file.settled_since = None;
            file.unsynced = true;
            file.zero_from = file.zero_from.map(|from| from.max(end));
            for buffer in &mut file.buffers {
                buffer.written(offset, bytes, before, held);
            }
        }
    }

    /// A handle set the file's length.
    pub(crate) fn length_set(&mut self, identity: Identity, before: u64, length: u64) {
        self.before_change(identity, before);
        if let Some(file) = self
            .by_identity
            .get(&identity)
            .and_then(|id| self.files.get_mut(id))
        {
            file.notice_length(length);
            file.settled_since = None;
            file.unsynced = true;
            for buffer in &mut file.buffers {
                buffer.lengthened(before, length);
            }
        } else if length > before {
            if !self.zero_tails.contains_key(&identity) {
                self.note_zero_tail(identity, before);
            }
        } else if let Some(zero_from) = self.zero_tails.get_mut(&identity) {
            *zero_from = length.min(*zero_from);
        }
    }
}

impl SharedFile {
    fn elders(&self) -> &[Buffer] {
        self.buffers.split_last().map_or(&[], |(_, elders)| elders)
    }

    fn count_maps(&mut self, buffer: BufferId, count: impl FnOnce(usize) -> usize) {
        if let Some(buffer) = self.buffers.iter_mut().find(|b| b.id == buffer) {
            buffer.maps = count(buffer.maps);
        }
    }

    /// Gives one more map of the first `end` bytes its place, and loads what it lacks there.
    fn enter(
        &mut self,
        arena: &mut Arena,
        fd: RawFd,
        end: usize,
        file: FileId,
        id: BufferId,
    ) -> io::Result<Attached> {
        let buffer = self.buffer_for(arena, end, id)?;
        let held = self.held.is_some();
        let (length, zero_from) = (self.length, self.zero_from);
        let newest = &mut self.buffers[buffer];
        newest.load(fd, length, zero_from, held)?;
        newest.maps += 1;
        Ok(Attached {
            file,
            buffer: newest.id,
            address: newest.address,
        })
    }

    /// The index of a buffer that a map of `end` bytes fits into: the newest, after this.
    fn buffer_for(&mut self, arena: &mut Arena, end: usize, id: BufferId) -> io::Result<usize> {
        let wanted = whole_pages(end);
        let held = self.held.is_some();
        if let Some(newest) = self.buffers.last_mut() {
            if newest.capacity >= wanted || newest.extend(arena, wanted, held) {
                return Ok(self.buffers.len() - 1);
            }
            // From here on the newest is an elder, which must agree with the file; if no map lies
            // in it, it goes.
            if newest.maps > 0 {
                self.write_back(0, usize::MAX)?;
            }
        }
        // A file that grows while it is mapped will do so again; a map of a part of it will be
        // lengthened as its owner sees fit.
        let slack = if self.buffers.is_empty() || (end as u64) < self.length {
            0
        } else {
            whole_pages((wanted / 4).min(16 * 1024 * 1024))
        };
        // What is opened has to fit; what grows leaves some.
        let spared = if self.buffers.is_empty() { 0 } else { SPARED };
        let (address, capacity) = match arena.allocate(wanted + slack, spared) {
            Some(address) => (address, wanted + slack),
            None => (
                arena
                    .allocate(wanted, spared)
                    .ok_or_else(|| out_of_memory(end))?,
                wanted,
            ),
        };
        let mut buffer = Buffer {
            id,
            address,
            capacity,
            loaded: 0,
            maps: 0,
            prints: Vec::new(),
        };
        if held {
            buffer.prints = vec![ZERO; capacity / PAGE];
        }
        if let Some(newest) = self.buffers.last() {
            buffer.copy_from(newest, held);
            buffer.loaded = newest.loaded;
        }
        self.buffers.push(buffer);
        self.free_elders(arena);
        Ok(self.buffers.len() - 1)
    }

    /// Frees the elders in which no map lies. They must have been written back, or copied.
    fn free_elders(&mut self, arena: &mut Arena) {
        let newest = self.buffers.pop();
        let (used, unused): (Vec<_>, Vec<_>) =
            self.buffers.drain(..).partition(|elder| elder.maps > 0);
        for elder in unused {
            elder.free(arena);
        }
        self.buffers = used;
        self.buffers.extend(newest);
    }

    /// Takes note of the length that the file has now.
    fn notice_length(&mut self, length: u64) {
        if length < self.length {
            let held = self.held.is_some();
            self.zero_from = self.zero_from.map(|from| from.min(length));
            for buffer in &mut self.buffers {
                buffer.cut(length, held);
            }
        }
        self.length = length;
    }

    /// Whether the file has the bytes that were loaded from it, and the same length. Reads them, unless
    /// the time of its last write tells.
    fn still_holds(&mut self, fd: RawFd, metadata: Metadata) -> io::Result<bool> {
        if metadata.length != self.length {
            return Ok(false);
        }
        if self.settled_since == Some(metadata.modified) {
            return Ok(true);
        }
        let holds = self.has_bytes_of(fd)?;
        if holds {
            // Taken before the bytes were read: a write since then changes the time.
            self.settled_since = metadata.settled_since();
        }
        Ok(holds)
    }

    fn has_bytes_of(&self, fd: RawFd) -> io::Result<bool> {
        let Some(newest) = self.buffers.last() else {
            return Ok(true);
        };
        let mut piece = vec![0; PIECE.min(newest.loaded)];
        let mut at = 0;
        while at < newest.loaded {
            let wanted = piece.len().min(newest.loaded - at);
            let read = descriptor::read_at(fd, &mut piece[..wanted], at as u64)?;
            if read < wanted || piece[..read] != *newest.bytes(at, read) {
                return Ok(false);
            }
            at += read;
        }
        Ok(true)
    }

    fn has_changes(&self) -> bool {
        self.buffers.iter().any(|buffer| {
            (0..buffer.prints.len()).any(|page| buffer.print(page) != buffer.prints[page])
        })
    }

    /// Brings the file, the newest buffer and the elders to the same bytes in the pages that
    /// `start..end` touches. Writes only pages that changed; does not sync.
    fn write_back(&mut self, start: usize, end: usize) -> io::Result<()> {
        let Some(fd) = self.held.as_ref().map(Held::fd) else {
            return Ok(());
        };
        self.notice_length(descriptor::metadata(fd)?.length);
        let in_file = usize::try_from(self.length).unwrap_or(usize::MAX);
        let Some((newest, elders)) = self.buffers.split_last_mut() else {
            return Ok(());
        };
        let first = start / PAGE;
        let last = end
            .div_ceil(PAGE)
            .min(newest.capacity / PAGE)
            .min(in_file.div_ceil(PAGE));
        for elder in elders.iter() {
            elder.merge_into(newest, fd, first, last)?;
        }
        let runs = newest.changed(first, last);
        let changes: Vec<Change> = runs.iter().map(|run| run.of_file(fd, in_file)).collect();
        guard::before_change(&changes)?;
        for run in runs {
            let (first, last) = (run.first, run.first + run.prints.len());
            let from = first * PAGE;
            let to = (last * PAGE).min(in_file);
            // Also when the write fails: some of it may have reached the file.
            self.unsynced = true;
            let written = descriptor::write_at(fd, newest.bytes(from, to - from), from as u64);
            guard::noted(fd, written)?;
            newest.prints[first..last].copy_from_slice(&run.prints);
            for elder in elders.iter_mut() {
                elder.take_pages(newest, first, last);
            }
        }
        Ok(())
    }

    /// What the next write-back would write, as far as the newest buffer knows.
    fn changes(&self) -> Vec<Change> {
        let (Some(held), Some(newest)) = (&self.held, self.buffers.last()) else {
            return Vec::new();
        };
        let in_file = usize::try_from(self.length).unwrap_or(usize::MAX);
        let last = (newest.capacity / PAGE).min(in_file.div_ceil(PAGE));
        let runs = newest.changed(0, last);
        runs.iter()
            .map(|run| run.of_file(held.fd(), in_file))
            .collect()
    }
}

/// Neighbouring pages that changed, with their new fingerprints; at most [`RUN`].
#[derive(Debug)]
struct Run {
    first: usize,
    prints: Vec<Fingerprint>,
}

impl Run {
    fn of_file(&self, fd: RawFd, in_file: usize) -> Change {
        let end = (self.first + self.prints.len()) * PAGE;
        Change {
            fd,
            from: (self.first * PAGE) as u64,
            to: end.min(in_file) as u64,
        }
    }
}

impl Buffer {
    /// The pages in `first..last` that changed since they last agreed with the file.
    fn changed(&self, first: usize, last: usize) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for page in first..last.min(self.prints.len()) {
            let print = self.print(page);
            if print == self.prints[page] {
                continue;
            }
            match runs.last_mut() {
                Some(run) if run.first + run.prints.len() == page && run.prints.len() < RUN => {
                    run.prints.push(print);
                }
                _ => runs.push(Run {
                    first: page,
                    prints: vec![print],
                }),
            }
        }
        runs
    }

    fn bytes(&self, from: usize, length: usize) -> &[u8] {
        debug_assert!(from + length <= self.capacity);
        // SAFETY: in the block, which is allocated while the buffer lives.
        unsafe { page::bytes(self.address + from, length) }
    }

    fn bytes_mut(&mut self, from: usize, length: usize) -> &mut [u8] {
        debug_assert!(from + length <= self.capacity);
        // SAFETY: in the block, which is allocated while the buffer lives.
        unsafe { page::bytes_mut(self.address + from, length) }
    }

    fn print(&self, page: usize) -> Fingerprint {
        page::fingerprint(self.bytes(page * PAGE, PAGE))
    }

    fn take_prints(&mut self) {
        self.prints = (0..self.capacity / PAGE)
            .map(|page| self.print(page))
            .collect();
    }

    fn extend(&mut self, arena: &mut Arena, capacity: usize, held: bool) -> bool {
        let extended = arena.extend(self.address, self.capacity, capacity);
        if extended {
            self.capacity = capacity;
            if held {
                self.prints.resize(capacity / PAGE, ZERO);
            }
        }
        extended
    }

    fn free(self, arena: &mut Arena) {
        // SAFETY: the buffer is given up, and no map lies in it (invariant 2).
        unsafe { arena.free(self.address, self.capacity) };
    }

    /// Copies all of a smaller buffer, its fingerprints as well.
    fn copy_from(&mut self, smaller: &Self, held: bool) {
        for page in 0..smaller.capacity / PAGE {
            let bytes = smaller.bytes(page * PAGE, PAGE);
            if !page::is_zero(bytes) {
                self.bytes_mut(page * PAGE, PAGE).copy_from_slice(bytes);
            }
        }
        if held {
            self.prints[..smaller.prints.len()].copy_from_slice(&smaller.prints);
        }
    }

    /// Reads what the file has beyond `loaded` and the buffer has room for.
    ///
    /// Pages of zeros are not touched, and what is known to be zero is not read.
    fn load(
        &mut self,
        fd: RawFd,
        length: u64,
        zero_from: Option<u64>,
        held: bool,
    ) -> io::Result<()> {
        let to_usize = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let end = self.capacity.min(to_usize(length));
        let end_of_data = zero_from.map_or(end, |from| end.min(to_usize(from)));
        let mut piece = vec![0; PIECE.min(end_of_data.saturating_sub(self.loaded))];
        while self.loaded < end_of_data {
            // Pieces end at page boundaries, whatever the first starts at.
            let from = self.loaded;
            let to = end_of_data.min((from + piece.len()).max(from + 1));
            let to = if to < end_of_data && to - to % PAGE > from {
                to - to % PAGE
            } else {
                to
            };
            let read = descriptor::read_at(fd, &mut piece[..to - from], from as u64)?;
            let mut at = 0;
            while at < read {
                let page_end = read.min(at + PAGE - (from + at) % PAGE);
                if !page::is_zero(&piece[at..page_end]) {
                    self.change(from + at, from + page_end, held, |buffer| {
                        buffer
                            .bytes_mut(from + at, page_end - at)
                            .copy_from_slice(&piece[at..page_end]);
                    });
                }
                at = page_end;
            }
            self.loaded += read;
            if read < to - from {
                // Shorter than it said: somebody cut it. What is left is zero, as for a map.
                break;
            }
        }
        self.loaded = self.loaded.max(end);
        Ok(())
    }

    /// Applies what a handle wrote. The file was `before` bytes long.
    fn written(&mut self, offset: u64, bytes: &[u8], before: u64, held: bool) {
        let Ok(start) = usize::try_from(offset) else {
            return;
        };
        let end = start.saturating_add(bytes.len()).min(self.capacity);
        // A write beyond the end leaves zeros between, which the buffer has there already.
        let reaches = start <= self.loaded || before <= self.loaded as u64;
        if start >= end || !reaches {
            return;
        }
        self.change(start, end, held, |buffer| {
            buffer
                .bytes_mut(start, end - start)
                .copy_from_slice(&bytes[..end - start]);
        });
        self.loaded = self.loaded.max(end);
    }

    /// Applies that a handle made the file longer: with zeros, as the buffer has there already.
    fn lengthened(&mut self, before: u64, length: u64) {
        if length > before && before <= self.loaded as u64 {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            self.loaded = self.loaded.max(length.min(self.capacity));
        }
    }

    /// Applies that the file was cut to `length` bytes.
    fn cut(&mut self, length: u64, held: bool) {
        let start = usize::try_from(length).unwrap_or(usize::MAX);
        let end = self.capacity;
        if start >= end {
            return;
        }
        self.change(start, end, held, |buffer| {
            for at in (start..end).step_by(PAGE) {
                let bytes = buffer.bytes_mut(at, PAGE.min(end - at));
                if !page::is_zero(bytes) {
                    bytes.fill(0);
                }
            }
        });
        if held {
            self.prints[start.div_ceil(PAGE)..].fill(ZERO);
        }
        self.loaded = self.loaded.min(start);
    }

    /// Makes a change that the file has as well: pages that agreed with it still do, and those that
    /// did not differ until they are written.
    fn change(&mut self, start: usize, end: usize, held: bool, change: impl FnOnce(&mut Self)) {
        if !held {
            change(self);
            return;
        }
        let pages = start / PAGE..end.div_ceil(PAGE);
        let clean: Vec<bool> = pages
            .clone()
            .map(|page| self.print(page) == self.prints[page])
            .collect();
        change(self);
        for (page, clean) in pages.zip(clean) {
            self.prints[page] = if clean { self.print(page) } else { UNKNOWN };
        }
    }

    /// Puts the bytes that changed here since the last write-back into `newest`.
    ///
    /// What they were then is read from the file, so that changes of different bytes of one page
    /// in both buffers are both kept.
    fn merge_into(
        &self,
        newest: &mut Self,
        fd: RawFd,
        first: usize,
        last: usize,
    ) -> io::Result<()> {
        for page in first..last.min(self.prints.len()) {
            if self.print(page) == self.prints[page] {
                continue;
            }
            let mut before = [0; PAGE];
            descriptor::read_at(fd, &mut before, (page * PAGE) as u64)?;
            // What follows was never the file's.
            let length = self.loaded.saturating_sub(page * PAGE).min(PAGE);
            let changed = self.bytes(page * PAGE, length);
            let bytes = newest.bytes_mut(page * PAGE, length);
            for ((byte, changed), before) in bytes.iter_mut().zip(changed).zip(before) {
                if *changed != before {
                    *byte = *changed;
                }
            }
        }
        Ok(())
    }

    /// Takes the pages `first..last` over from the newest buffer, which agrees with the file.
    fn take_pages(&mut self, newest: &Self, first: usize, last: usize) {
        for page in first..last.min(self.prints.len()) {
            self.bytes_mut(page * PAGE, PAGE)
                .copy_from_slice(newest.bytes(page * PAGE, PAGE));
            self.prints[page] = newest.prints[page];
        }
        let end = newest.loaded.min(last * PAGE).min(self.capacity);
        if first * PAGE <= self.loaded {
            self.loaded = self.loaded.max(end);
        }
    }
}

fn whole_pages(length: usize) -> usize {
    length.next_multiple_of(PAGE).max(PAGE)
}

/// The error for a map up to a byte that no address can name.
pub(crate) fn too_long(end: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::FileTooLarge,
        format!("a map up to byte {end} does not fit into the address space"),
    )
}

fn out_of_memory(length: usize) -> io::Error {
    io::Error::new(
        io::ErrorKind::OutOfMemory,
        format!("no memory for a map of {length} bytes"),
    )
}
