//! The disk: what the running system sees, what a power cut leaves of it.
//!
//! # The model
//! A file has a content in the *cache*, which reads and writes see, and a content on the *platter*.
//! Between them are its unsynced changes, in order. A directory has its names, and the disk keeps
//! a *journal* of the changes to names that are not durable yet.
//!
//! - Syncing a file makes its content and length durable, and nothing else: not its name. That is
//!   what POSIX promises; what ext4 does beyond it (its fsync commits the whole journal) is not
//!   relied on.
//! - Syncing a directory makes the creations, links, removals and renames in it durable, with the
//!   earlier changes of the same names. A rename is atomic: both names change or neither does.
//! - A file may have several names. They are durable each for itself, and none of them is when the
//!   content is; the content is one, whatever name it is written, synced or lost under.
//! - A file knows when it was last changed. That time is durable with the content, and as uncertain.
//! - A sync that fails loses the changes for good, as Linux does it (the pages are marked clean):
//!   they are still seen, but a later sync does not make them durable, unless the same sector was
//!   written again since.
//!
//! # A power cut
//! [`Disk::after_power_cut`] chooses, from a seed, one of the states that the platter may be in:
//!
//! - **Data**, by sectors of 512 bytes, each for itself: a sector holds the durable bytes with the
//!   first *n* of its unsynced changes, for any *n*. So data may be missing, reordered against other
//!   sectors and files, and a write may be torn between sectors; a sector itself is never torn, as
//!   disks promise.
//! - **Length**: any of the lengths that the file had since its last sync, independent of the data.
//!   What it holds beyond its written sectors is zeros, never other files' old bytes: every file
//!   system in use takes care of that.
//! - **Names**: with [`Names::InOrder`] a prefix of the journal, as file systems that journal
//!   metadata do it (ext4, xfs, btrfs, APFS, NTFS). With [`Names::AnySubset`] any part of it, save
//!   that a change is kept only if the earlier changes of the same names are: more than any of these
//!   file systems lose, as much as POSIX permits. So of a file's names any may survive.
//!
//! A process that is stopped loses nothing of this: the cache survives, and so do the unsynced
//! changes, which a later power cut may still lose.
//!
//! Disks are cheap to clone: contents are shared until written to. Holes cost nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const PAGE: usize = 4096;
const SECTOR: u64 = 512;

/// Identifies a file or directory for as long as the disk lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inode(pub u64);

/// The top directory.
pub const ROOT: Inode = Inode(1);

/// Why an operation on the disk is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No file of that name.
    #[error("no such file or directory")]
    NotFound,
    /// There is a file of that name.
    #[error("it exists")]
    Exists,
    /// A directory is needed.
    #[error("not a directory")]
    NotDirectory,
    /// A file is needed.
    #[error("a directory")]
    IsDirectory,
    /// The directory holds something.
    #[error("directory not empty")]
    NotEmpty,
    /// A directory cannot be moved below itself.
    #[error("a directory cannot be moved below itself")]
    BelowItself,
}

type Result<T> = std::result::Result<T, DiskError>;

/// How changes to names survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Those before some moment.
    InOrder,
    /// Any, as far as they do not depend on a lost one.
    AnySubset,
}

/// Bytes with holes.
#[derive(Clone, Debug, Default)]
pub struct Content {
    len: u64,
    // A page that is not there is zeros.
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl PartialEq for Content {
    fn eq(&self, other: &Content) -> bool {
        // Zeros that were written are as good as a hole.
        let has = |one: &Content, other: &Content| {
            one.pages.iter().all(|(number, page)| {
                let same = other.pages.get(number);
                same.map_or(page.iter().all(|byte| *byte == 0), |other| {
                    Arc::ptr_eq(page, other) || page == other
                })
            })
        };
        self.len == other.len && has(self, other) && has(other, self)
    }
}

impl Content {
    /// Bytes, holes included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let end = self.len.min(offset.saturating_add(len as u64));
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        self.each_page(offset, bytes.len(), |number, within, at, len| {
            if let Some(page) = self.pages.get(&number) {
                bytes[at..at + len].copy_from_slice(&page[within..within + len]);
            }
        });
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.len = self.len.max(offset + bytes.len() as u64);
        let mut pages = std::mem::take(&mut self.pages);
        self.each_page(offset, bytes.len(), |number, within, at, len| {
            let bytes = &bytes[at..at + len];
            if !pages.contains_key(&number) && bytes.iter().all(|byte| *byte == 0) {
                return;
            }
            let page = pages.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + len].copy_from_slice(bytes);
        });
        self.pages = pages;
    }

    pub(super) fn resize(&mut self, len: u64) {
        if len < self.len {
            let first_whole = len.div_ceil(PAGE as u64);
            self.pages.split_off(&first_whole);
            let within = (len % PAGE as u64) as usize;
            if within > 0
                && let Some(page) = self.pages.get_mut(&(len / PAGE as u64))
            {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    /// Calls back with page number, offset within the page, offset within the range, and length.
    fn each_page(&self, offset: u64, len: usize, mut run: impl FnMut(u64, usize, usize, usize)) {
        let mut at = 0;
        while at < len {
            let position = offset + at as u64;
            let within = (position % PAGE as u64) as usize;
            let part = (PAGE - within).min(len - at);
            run(position / PAGE as u64, within, at, part);
            at += part;
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, bytes } => self.write(*offset, bytes),
            Change::Resize { len } => self.resize(*len),
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    Resize { len: u64 },
}

#[derive(Clone, Debug, Default)]
struct File {
    cache: Content,
    platter: Content,
    /// Changes that a failed sync has lost; older than those in `unsynced`.
    lost: Vec<Change>,
    unsynced: Vec<Change>,
    /// When it was last changed, as the running system sees it and as it is durable.
    modified: u64,
    durable_modified: u64,
}

impl File {
    fn change(&mut self, change: Change, now: u64) {
        self.cache.apply(&change);
        self.unsynced.push(change);
        self.modified = now;
    }

    /// Makes the unsynced changes durable, with the length.
    ///
    /// Sectors are written as a whole, so what a failed sync has lost of these goes with them. Of
    /// others it stays lost. It never comes back over what was written since.
    fn sync(&mut self) {
        let changes = std::mem::take(&mut self.unsynced);
        self.durable_modified = self.modified;
        let mut written = BTreeSet::new();
        for change in &changes {
            self.platter.apply(change);
            if let Change::Write { offset, bytes } = change {
                let end = offset + bytes.len() as u64;
                written.extend(offset / SECTOR..end.div_ceil(SECTOR));
            }
        }
        if self.lost.is_empty() || changes.is_empty() {
            return;
        }
        self.platter.resize(self.cache.len);
        for sector in &written {
            let bytes = self.cache.read(sector * SECTOR, SECTOR as usize);
            self.platter.write(sector * SECTOR, &bytes);
        }
        let mut lost = Vec::new();
        for change in std::mem::take(&mut self.lost) {
            // The length is durable now.
            let Change::Write { offset, bytes } = change else {
                continue;
            };
            let end = (offset + bytes.len() as u64).min(self.cache.len);
            let sectors = offset / SECTOR..end.div_ceil(SECTOR);
            for sector in sectors.filter(|sector| !written.contains(sector)) {
                let from = offset.max(sector * SECTOR);
                let to = end.min((sector + 1) * SECTOR);
                lost.push(Change::Write {
                    offset: from,
                    bytes: bytes[(from - offset) as usize..(to - offset) as usize].into(),
                });
            }
        }
        self.lost = lost;
    }

    fn changes(&self) -> impl Iterator<Item = &Change> {
        self.lost.iter().chain(&self.unsynced)
    }

    /// One of the contents that the platter may hold.
    fn after_power_cut(&self, random: &mut fastrand::Rng) -> Content {
        if self.lost.is_empty() && self.unsynced.is_empty() {
            return self.platter.clone();
        }
        match random.u8(..4) {
            0 => self.platter.clone(),
            1 => self.cache.clone(),
            _ => self.torn(random),
        }
    }

    fn torn(&self, random: &mut fastrand::Rng) -> Content {
        let mut lengths = vec![self.platter.len];
        let mut touching: BTreeMap<u64, Vec<&Change>> = BTreeMap::new();
        let mut len = self.platter.len;
        for change in self.changes() {
            match change {
                Change::Write { offset, bytes } => {
                    let end = offset + bytes.len() as u64;
                    len = len.max(end);
                    for sector in offset / SECTOR..end.div_ceil(SECTOR) {
                        touching.entry(sector).or_default().push(change);
                    }
                }
                Change::Resize { len: to } => {
                    if *to < len {
                        let first = to / SECTOR;
                        let per_page = PAGE as u64 / SECTOR;
                        let stored = self.platter.pages.range(first / per_page..);
                        for sector in
                            stored.flat_map(|(page, _)| page * per_page..(page + 1) * per_page)
                        {
                            touching.entry(sector).or_default();
                        }
                        for (_, changes) in touching.range_mut(first..) {
                            changes.push(change);
                        }
                    }
                    len = *to;
                }
            }
            lengths.push(len);
        }
        let mut content = self.platter.clone();
        // Long enough that nothing chosen is cut off before the length is.
        content.len = u64::MAX;
        // Some cuts lose little, some lose much.
        let odds = random.f64();
        for (sector, changes) in touching {
            let kept = if random.f64() < odds {
                changes.len()
            } else {
                random.usize(..=changes.len())
            };
            let start = sector * SECTOR;
            let mut bytes = content.read(start, SECTOR as usize);
            for change in changes.into_iter().take(kept) {
                match change {
                    Change::Write {
                        offset,
                        bytes: written,
                    } => {
                        let from = start.max(*offset);
                        let to = (start + SECTOR).min(offset + written.len() as u64);
                        bytes[(from - start) as usize..(to - start) as usize].copy_from_slice(
                            &written[(from - offset) as usize..(to - offset) as usize],
                        );
                    }
                    Change::Resize { len } => {
                        bytes[len.saturating_sub(start) as usize..].fill(0);
                    }
                }
            }
            content.write(start, &bytes);
        }
        let len = lengths[random.usize(..lengths.len())];
        content.resize(len);
        content
    }
}

type Entries = BTreeMap<String, Inode>;

#[derive(Clone, Debug)]
enum Node {
    File(File),
    Directory(Entries),
}

/// A change to names, not durable yet.
#[derive(Clone, Debug)]
enum NameChange {
    Link { at: Name, inode: Inode },
    Unlink { at: Name },
    Rename { from: Name, to: Name, inode: Inode },
}

type Name = (Inode, String);

impl NameChange {
    fn names(&self) -> Vec<&Name> {
        match self {
            NameChange::Link { at, .. } | NameChange::Unlink { at } => vec![at],
            NameChange::Rename { from, to, .. } => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<Inode, Arc<Entries>>) {
        let mut entries = |at: &Name, inode: Option<Inode>| {
            let entries = Arc::make_mut(names.entry(at.0).or_default());
            match inode {
                Some(inode) => entries.insert(at.1.clone(), inode),
                None => entries.remove(&at.1),
            };
        };
        match self {
            NameChange::Link { at, inode } => entries(at, Some(*inode)),
            NameChange::Unlink { at } => entries(at, None),
            NameChange::Rename { from, to, inode } => {
                entries(from, None);
                entries(to, Some(*inode));
            }
        }
    }
}

/// A disk with one file system on it.
#[derive(Clone, Debug)]
pub struct Disk {
    nodes: BTreeMap<Inode, Arc<Node>>,
    next: u64,
    durable: BTreeMap<Inode, Arc<Entries>>,
    journal: Vec<NameChange>,
    version: u64,
    /// The time of what is changed from now on.
    now: u64,
}

impl Default for Disk {
    fn default() -> Disk {
        Disk::new()
    }
}

impl Disk {
    /// An empty disk.
    pub fn new() -> Disk {
        Disk {
            nodes: BTreeMap::from([(ROOT, Arc::new(Node::Directory(Entries::new())))]),
            next: ROOT.0 + 1,
            durable: BTreeMap::new(),
            journal: Vec::new(),
            version: 0,
            now: 0,
        }
    }

    /// From now on, what is changed was changed at this time, in nanoseconds since 1970.
    pub fn set_time(&mut self, now: u64) {
        self.now = now;
    }

    /// When a file was last changed, in nanoseconds since 1970; none for a directory.
    pub fn modified(&self, inode: Inode) -> Option<u64> {
        self.file(inode).ok().map(|file| file.modified)
    }

    /// Says of a file that it was last changed then. No change in itself: nobody minds if it is lost.
    pub fn set_modified(&mut self, inode: Inode, time: u64) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&inode).map(Arc::make_mut) {
            file.modified = time;
        }
    }

    /// What a file holds; none for a directory. Cheap: what is equal is shared.
    pub fn content(&self, inode: Inode) -> Option<&Content> {
        self.file(inode).ok().map(|file| &file.cache)
    }

    /// Grows with every change, durable or not. Two clones of one disk with the same version are
    /// in the same state.
    pub fn version(&self) -> u64 {
        self.version
    }

    fn node(&self, inode: Inode) -> Result<&Node> {
        self.nodes
            .get(&inode)
            .map(|node| &**node)
            .ok_or(DiskError::NotFound)
    }

    fn node_mut(&mut self, inode: Inode) -> Result<&mut Node> {
        self.version += 1;
        self.nodes
            .get_mut(&inode)
            .map(Arc::make_mut)
            .ok_or(DiskError::NotFound)
    }

    fn file(&self, inode: Inode) -> Result<&File> {
        match self.node(inode)? {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(DiskError::IsDirectory),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> Result<&mut File> {
        match self.node_mut(inode)? {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(DiskError::IsDirectory),
        }
    }

    /// What a directory holds.
    pub fn entries(&self, directory: Inode) -> Result<&BTreeMap<String, Inode>> {
        match self.node(directory)? {
            Node::Directory(entries) => Ok(entries),
            Node::File(_) => Err(DiskError::NotDirectory),
        }
    }

    fn entries_mut(&mut self, directory: Inode) -> Result<&mut Entries> {
        match self.node_mut(directory)? {
            Node::Directory(entries) => Ok(entries),
            Node::File(_) => Err(DiskError::NotDirectory),
        }
    }

    /// The file or directory of a name in a directory.
    pub fn lookup(&self, directory: Inode, name: &str) -> Result<Inode> {
        self.entries(directory)?
            .get(name)
            .copied()
            .ok_or(DiskError::NotFound)
    }

    /// The file or directory at a path from the top, with `/` between names.
    pub fn find(&self, path: &str) -> Result<Inode> {
        path.split('/')
            .filter(|name| !name.is_empty())
            .try_fold(ROOT, |directory, name| self.lookup(directory, name))
    }

    /// True for a directory.
    pub fn is_directory(&self, inode: Inode) -> bool {
        matches!(self.node(inode), Ok(Node::Directory(_)))
    }

    /// Length of a file in bytes; 0 for a directory.
    pub fn len(&self, inode: Inode) -> u64 {
        self.file(inode).map_or(0, |file| file.cache.len)
    }

    /// Up to `len` bytes of a file; fewer at its end.
    pub fn read(&self, inode: Inode, offset: u64, len: usize) -> Result<Vec<u8>> {
        Ok(self.file(inode)?.cache.read(offset, len))
    }

    /// Makes an empty file.
    pub fn create_file(&mut self, directory: Inode, name: &str) -> Result<Inode> {
        let file = File {
            modified: self.now,
            durable_modified: self.now,
            ..File::default()
        };
        self.add(directory, name, Node::File(file))
    }

    /// Gives a file one more name.
    pub fn link(&mut self, inode: Inode, directory: Inode, name: &str) -> Result<()> {
        self.file(inode)?;
        if self.entries(directory)?.contains_key(name) {
            return Err(DiskError::Exists);
        }
        self.name(directory, name, inode)
    }

    fn name(&mut self, directory: Inode, name: &str, inode: Inode) -> Result<()> {
        self.entries_mut(directory)?.insert(name.to_owned(), inode);
        self.journal.push(NameChange::Link {
            at: (directory, name.to_owned()),
            inode,
        });
        Ok(())
    }

    /// Makes an empty directory.
    pub fn create_directory(&mut self, directory: Inode, name: &str) -> Result<Inode> {
        self.add(directory, name, Node::Directory(Entries::new()))
    }

    fn add(&mut self, directory: Inode, name: &str, node: Node) -> Result<Inode> {
        if self.entries(directory)?.contains_key(name) {
            return Err(DiskError::Exists);
        }
        let inode = Inode(self.next);
        self.next += 1;
        self.nodes.insert(inode, Arc::new(node));
        self.name(directory, name, inode)?;
        Ok(inode)
    }

    /// Writes to a file, and makes it longer if need be.
    pub fn write(&mut self, inode: Inode, offset: u64, bytes: &[u8]) -> Result<()> {
        let now = self.now;
        let file = self.file_mut(inode)?;
        if !bytes.is_empty() {
            let bytes = bytes.into();
            file.change(Change::Write { offset, bytes }, now);
        }
        Ok(())
    }

    /// Bytes of all pages that are in use, of files that have a name.
    pub fn used(&self) -> u64 {
        let mut used = 0;
        let mut folders = vec![ROOT];
        let mut seen = BTreeSet::new();
        while let Some(folder) = folders.pop() {
            for inode in self.entries(folder).into_iter().flat_map(BTreeMap::values) {
                match self.node(*inode) {
                    Ok(Node::File(file)) if seen.insert(*inode) => {
                        used += (file.cache.pages.len() * PAGE) as u64;
                    }
                    Ok(Node::File(_)) => {}
                    Ok(Node::Directory(_)) => folders.push(*inode),
                    Err(_) => {}
                }
            }
        }
        used
    }

    /// Bytes of the pages that a write of non-zero bytes there would take into use.
    pub fn growth(&self, inode: Inode, offset: u64, len: usize) -> u64 {
        let Ok(Node::File(file)) = self.node(inode) else {
            return 0;
        };
        let end = (offset + len as u64).div_ceil(PAGE as u64);
        let pages = offset / PAGE as u64..end;
        let new = pages.filter(|page| !file.cache.pages.contains_key(page));
        (new.count() * PAGE) as u64
    }

    /// Cuts a file, or makes it longer with zeros.
    pub fn set_len(&mut self, inode: Inode, len: u64) -> Result<()> {
        let now = self.now;
        let file = self.file_mut(inode)?;
        if file.cache.len != len {
            file.change(Change::Resize { len }, now);
        }
        Ok(())
    }

    /// Removes a file. Who has it open can go on using it.
    pub fn remove_file(&mut self, directory: Inode, name: &str) -> Result<()> {
        let inode = self.lookup(directory, name)?;
        if self.is_directory(inode) {
            return Err(DiskError::IsDirectory);
        }
        self.unlink(directory, name)
    }

    /// Removes an empty directory.
    pub fn remove_directory(&mut self, directory: Inode, name: &str) -> Result<()> {
        let inode = self.lookup(directory, name)?;
        if !self.entries(inode)?.is_empty() {
            return Err(DiskError::NotEmpty);
        }
        self.unlink(directory, name)
    }

    fn unlink(&mut self, directory: Inode, name: &str) -> Result<()> {
        self.entries_mut(directory)?.remove(name);
        self.journal.push(NameChange::Unlink {
            at: (directory, name.to_owned()),
        });
        Ok(())
    }

    /// Moves a file or directory, and replaces what has the new name, atomically.
    pub fn rename(&mut self, from: (Inode, &str), to: (Inode, &str)) -> Result<()> {
        let inode = self.lookup(from.0, from.1)?;
        let replaced = self.entries(to.0)?.get(to.1).copied();
        // Two names of one file: POSIX leaves both.
        if replaced == Some(inode) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            match (self.is_directory(inode), self.is_directory(replaced)) {
                (true, true) if !self.entries(replaced)?.is_empty() => {
                    return Err(DiskError::NotEmpty);
                }
                (true, false) => return Err(DiskError::NotDirectory),
                (false, true) => return Err(DiskError::IsDirectory),
                _ => {}
            }
        }
        if self.is_directory(inode) && self.is_below(to.0, inode) {
            return Err(DiskError::BelowItself);
        }
        self.entries_mut(from.0)?.remove(from.1);
        self.entries_mut(to.0)?.insert(to.1.to_owned(), inode);
        self.journal.push(NameChange::Rename {
            from: (from.0, from.1.to_owned()),
            to: (to.0, to.1.to_owned()),
            inode,
        });
        Ok(())
    }

    fn is_below(&self, inode: Inode, top: Inode) -> bool {
        inode == top
            || self.entries(top).is_ok_and(|entries| {
                entries
                    .values()
                    .any(|entry| self.is_directory(*entry) && self.is_below(inode, *entry))
            })
    }

    /// Makes a file's content, or a directory's names, durable.
    pub fn sync(&mut self, inode: Inode) -> Result<()> {
        if let Node::File(file) = self.node(inode)? {
            if !file.unsynced.is_empty() {
                self.file_mut(inode)?.sync();
            }
            return Ok(());
        }
        // With a change of this directory go the earlier changes of the same names, of which a rename
        // has one elsewhere. Other names of the same file do not.
        let mut names = BTreeSet::new();
        let mut due = vec![false; self.journal.len()];
        for (change, due) in self.journal.iter().zip(&mut due).rev() {
            let of_change = change.names();
            let here = of_change.iter().any(|name| name.0 == inode);
            if here || of_change.iter().any(|name| names.contains(*name)) {
                *due = true;
                names.extend(of_change.into_iter().cloned());
            }
        }
        if due.contains(&true) {
            self.version += 1;
        }
        let journal = std::mem::take(&mut self.journal);
        for (change, due) in journal.into_iter().zip(due) {
            if due {
                change.apply(&mut self.durable);
            } else {
                self.journal.push(change);
            }
        }
        Ok(())
    }

    /// A sync that fails: what was to become durable may or may not be, and no later sync will
    /// make it so.
    pub fn lose_unsynced(&mut self, inode: Inode) {
        if self.file(inode).is_ok_and(|file| !file.unsynced.is_empty())
            && let Ok(file) = self.file_mut(inode)
        {
            let unsynced = std::mem::take(&mut file.unsynced);
            file.lost.extend(unsynced);
        }
    }

    /// Whether a power cut could lose anything now.
    pub fn has_unsynced(&self) -> bool {
        !self.journal.is_empty()
            || self.nodes.values().any(|node| match &**node {
                Node::File(file) => file.changes().next().is_some(),
                Node::Directory(_) => false,
            })
    }

    /// The disk as a power cut leaves it: one of the possible states, chosen by `seed`.
    pub fn after_power_cut(&self, names: Names, seed: u64) -> Disk {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut durable = self.durable.clone();
        for change in self.surviving(names, &mut random) {
            change.apply(&mut durable);
        }
        let mut left = Disk {
            nodes: BTreeMap::new(),
            next: self.next,
            durable: BTreeMap::new(),
            journal: Vec::new(),
            version: self.version + 1,
            now: self.now,
        };
        let mut waiting = vec![ROOT];
        while let Some(inode) = waiting.pop() {
            let node = match self.nodes.get(&inode).map(|node| &**node) {
                // By another of its names.
                Some(Node::File(_)) if left.nodes.contains_key(&inode) => continue,
                Some(Node::File(file)) => {
                    let content = file.after_power_cut(&mut random);
                    let modified = if file.changes().next().is_none() || random.bool() {
                        file.modified
                    } else {
                        file.durable_modified
                    };
                    Node::File(File {
                        cache: content.clone(),
                        platter: content,
                        modified,
                        durable_modified: modified,
                        ..File::default()
                    })
                }
                Some(Node::Directory(_)) => {
                    let entries = durable.remove(&inode).unwrap_or_default();
                    waiting.extend(entries.values());
                    left.durable.insert(inode, Arc::clone(&entries));
                    Node::Directory((*entries).clone())
                }
                // Nodes are kept as long as the disk lives.
                None => continue,
            };
            left.nodes.insert(inode, Arc::new(node));
        }
        left
    }

    fn surviving(&self, names: Names, random: &mut fastrand::Rng) -> Vec<&NameChange> {
        let journal = self.journal.iter();
        // All and nothing are as likely as everything between.
        match (random.u8(..4), names) {
            (0, _) => Vec::new(),
            (1, _) => journal.collect(),
            (_, Names::InOrder) => journal.take(random.usize(..=self.journal.len())).collect(),
            (_, Names::AnySubset) => {
                let mut lost = BTreeSet::new();
                journal
                    .filter(|change| {
                        let depends = change.names().iter().any(|name| lost.contains(*name));
                        let kept = !depends && random.bool();
                        if !kept {
                            lost.extend(change.names());
                        }
                        kept
                    })
                    .collect()
            }
        }
    }

    /// Every file with its path and content, for tests and messages.
    pub fn files(&self) -> Vec<(String, Inode)> {
        let mut files = Vec::new();
        let mut waiting = vec![(String::new(), ROOT)];
        while let Some((path, inode)) = waiting.pop() {
            match self.entries(inode) {
                Ok(entries) => waiting.extend(
                    entries
                        .iter()
                        .map(|(name, inode)| (format!("{path}/{name}"), *inode)),
                ),
                Err(_) => files.push((path, inode)),
            }
        }
        files.sort();
        files
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Names; 2] = [Names::InOrder, Names::AnySubset];

    #[derive(Clone, Debug)]
    enum Op {
        Write(u64, Vec<u8>),
        Resize(u64),
        Sync,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => (0..12_000_u64, prop::collection::vec(any::<u8>(), 0..3000))
                .prop_map(|(offset, bytes)| Op::Write(offset, bytes)),
            1 => (0..12_000_u64).prop_map(Op::Resize),
            1 => Just(Op::Sync),
        ];
        prop::collection::vec(op, 0..20)
    }

    /// A file as a plain vector.
    fn reference(file: &mut Vec<u8>, op: &Op) {
        match op {
            Op::Write(offset, bytes) => {
                let offset = *offset as usize;
                if !bytes.is_empty() {
                    file.resize(file.len().max(offset + bytes.len()), 0);
                    file[offset..offset + bytes.len()].copy_from_slice(bytes);
                }
            }
            Op::Resize(len) => file.resize(*len as usize, 0),
            Op::Sync => {}
        }
    }

    fn apply(disk: &mut Disk, inode: Inode, op: &Op) {
        match op {
            Op::Write(offset, bytes) => disk.write(inode, *offset, bytes).unwrap(),
            Op::Resize(len) => disk.set_len(inode, *len).unwrap(),
            Op::Sync => disk.sync(inode).unwrap(),
        }
    }

    fn all(disk: &Disk, path: &str) -> Option<Vec<u8>> {
        let inode = disk.find(path).ok()?;
        disk.read(inode, 0, usize::MAX).ok()
    }

    /// A disk with one durable, empty file.
    fn with_file() -> (Disk, Inode) {
        let mut disk = Disk::new();
        let inode = disk.create_file(ROOT, "f").unwrap();
        disk.sync(ROOT).unwrap();
        (disk, inode)
    }

    fn sector(file: &[u8], number: usize) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        let from = (number * SECTOR as usize).min(file.len());
        let to = (from + SECTOR as usize).min(file.len());
        sector[..to - from].copy_from_slice(&file[from..to]);
        sector
    }

    proptest! {
        #[test]
        fn a_file_reads_as_it_was_written(ops in ops(), from in 0..15_000_u64, len in 0..15_000_usize) {
            let (mut disk, inode) = with_file();
            let mut expected = Vec::new();
            for op in &ops {
                apply(&mut disk, inode, op);
                reference(&mut expected, op);
            }
            prop_assert_eq!(disk.len(inode), expected.len() as u64);
            let end = expected.len().min(from as usize + len);
            let part = expected.get(from as usize..end).unwrap_or_default();
            prop_assert_eq!(disk.read(inode, from, len).unwrap(), part);
        }

        #[test]
        fn what_was_synced_survives(ops in ops(), seed: u64) {
            let (mut disk, inode) = with_file();
            let mut expected = Vec::new();
            for op in &ops {
                apply(&mut disk, inode, op);
                reference(&mut expected, op);
            }
            disk.sync(inode).unwrap();
            for names in BOTH {
                prop_assert_eq!(all(&disk.after_power_cut(names, seed), "f"), Some(expected.clone()));
            }
        }

        #[test]
        fn every_sector_is_one_that_it_was_since_the_last_sync(ops in ops(), seed: u64) {
            let (mut disk, inode) = with_file();
            let mut history = vec![Vec::new()];
            for op in &ops {
                apply(&mut disk, inode, op);
                let mut next = history.last().unwrap().clone();
                reference(&mut next, op);
                if matches!(op, Op::Sync) {
                    history.clear();
                }
                history.push(next);
            }
            let left = all(&disk.after_power_cut(Names::InOrder, seed), "f").unwrap();
            prop_assert!(history.iter().any(|then| then.len() == left.len()));
            for number in 0..left.len().div_ceil(SECTOR as usize) {
                let found = sector(&left, number);
                let cut = left.len() - number * SECTOR as usize;
                let was_there_once = history.iter().any(|then| {
                    let mut then = sector(then, number);
                    then[cut.min(SECTOR as usize)..].fill(0);
                    then == found
                });
                prop_assert!(was_there_once);
            }
        }

        #[test]
        fn a_replacing_rename_leaves_one_of_both(seed: u64, synced: bool) {
            let (mut disk, inode) = with_file();
            disk.write(inode, 0, b"old").unwrap();
            disk.sync(inode).unwrap();
            let new = disk.create_file(ROOT, "new").unwrap();
            disk.write(new, 0, b"new").unwrap();
            disk.sync(new).unwrap();
            disk.rename((ROOT, "new"), (ROOT, "f")).unwrap();
            if synced {
                disk.sync(ROOT).unwrap();
            }
            for names in BOTH {
                let found = all(&disk.after_power_cut(names, seed), "f");
                let old = !synced && found.as_deref() == Some(b"old");
                prop_assert!(old || found.as_deref() == Some(b"new"), "{:?}", found);
            }
        }
    }

    fn possible<T: Ord>(disk: &Disk, names: Names, look: impl Fn(&Disk) -> T) -> BTreeSet<T> {
        (0..300)
            .map(|seed| look(&disk.after_power_cut(names, seed)))
            .collect()
    }

    #[test]
    fn unsynced_data_is_lost_kept_and_torn() {
        let (mut disk, inode) = with_file();
        disk.write(inode, 0, &[1; 1024]).unwrap();
        disk.sync(inode).unwrap();
        disk.write(inode, 0, &[2; 1024]).unwrap();
        let found = possible(&disk, Names::InOrder, |disk| all(disk, "f").unwrap());
        let of = |first, second| [vec![first; 512], vec![second; 512]].concat();
        assert_eq!(
            found,
            BTreeSet::from([of(1, 1), of(1, 2), of(2, 1), of(2, 2)])
        );
    }

    #[test]
    fn a_length_may_survive_without_its_data_and_data_without_its_length() {
        let (mut disk, inode) = with_file();
        disk.write(inode, 0, &[7; 512]).unwrap();
        let found = possible(&disk, Names::InOrder, |disk| all(disk, "f").unwrap());
        assert_eq!(found, BTreeSet::from([vec![], vec![0; 512], vec![7; 512]]));
    }

    #[test]
    fn a_renamed_file_without_a_sync_may_be_empty() {
        let (mut disk, _) = with_file();
        let new = disk.create_file(ROOT, "new").unwrap();
        disk.write(new, 0, b"new").unwrap();
        disk.rename((ROOT, "new"), (ROOT, "f")).unwrap();
        disk.sync(ROOT).unwrap();
        assert!(possible(&disk, Names::InOrder, |disk| all(disk, "f")).contains(&Some(vec![])));
    }

    #[test]
    fn names_survive_in_order_or_in_any_order() {
        let mut disk = Disk::new();
        disk.create_file(ROOT, "a").unwrap();
        disk.create_file(ROOT, "b").unwrap();
        let look = |disk: &Disk| (disk.find("a").is_ok(), disk.find("b").is_ok());
        let in_order = BTreeSet::from([(false, false), (true, false), (true, true)]);
        assert_eq!(possible(&disk, Names::InOrder, look), in_order);
        let any = possible(&disk, Names::AnySubset, look);
        assert!(any.is_superset(&in_order) && any.contains(&(false, true)));
    }

    #[test]
    fn syncing_a_file_does_not_make_its_name_durable() {
        let mut disk = Disk::new();
        let inode = disk.create_file(ROOT, "f").unwrap();
        disk.write(inode, 0, b"x").unwrap();
        disk.sync(inode).unwrap();
        let found = possible(&disk, Names::InOrder, |disk| all(disk, "f"));
        assert_eq!(found, BTreeSet::from([None, Some(b"x".to_vec())]));
        assert!(disk.has_unsynced());
        disk.sync(ROOT).unwrap();
        assert!(!disk.has_unsynced());
    }

    #[test]
    fn a_name_in_a_lost_directory_is_lost() {
        let mut disk = Disk::new();
        let directory = disk.create_directory(ROOT, "d").unwrap();
        disk.create_file(directory, "f").unwrap();
        disk.sync(directory).unwrap();
        let found = possible(&disk, Names::AnySubset, |disk| disk.find("d/f").is_ok());
        assert_eq!(found, BTreeSet::from([false, true]));
    }

    #[test]
    fn a_failed_sync_loses_what_a_later_sync_does_not_bring_back() {
        let (mut disk, inode) = with_file();
        disk.write(inode, 0, b"lost").unwrap();
        disk.lose_unsynced(inode);
        disk.sync(inode).unwrap();
        assert_eq!(all(&disk, "f"), Some(b"lost".to_vec()));
        let found = possible(&disk, Names::InOrder, |disk| all(disk, "f").unwrap());
        let is_found = |bytes: &[u8]| found.iter().any(|found| found == bytes);
        assert!(is_found(b"") && is_found(b"lost"));
    }

    #[test]
    fn a_seed_gives_the_same_disk_again() {
        let (mut disk, inode) = with_file();
        for number in 0..50 {
            disk.write(inode, number * 700, &[number as u8; 900])
                .unwrap();
            disk.create_file(ROOT, &number.to_string()).unwrap();
        }
        for seed in 0..20 {
            let again = || {
                let left = disk.after_power_cut(Names::AnySubset, seed);
                (all(&left, "f"), left.files())
            };
            assert_eq!(again(), again());
        }
    }

    /// A file in `a` with another name in `b`, whose content and first name are durable.
    fn linked() -> (Disk, Inode, Inode) {
        let mut disk = Disk::new();
        let [a, b] = ["a", "b"].map(|name| disk.create_directory(ROOT, name).unwrap());
        let inode = disk.create_file(a, "f").unwrap();
        disk.write(inode, 0, b"x").unwrap();
        for inode in [inode, a, b, ROOT] {
            disk.sync(inode).unwrap();
        }
        disk.link(inode, b, "g").unwrap();
        (disk, inode, b)
    }

    #[test]
    fn two_names_are_one_file() {
        let (mut disk, inode, b) = linked();
        disk.write(inode, 1, b"y").unwrap();
        assert_eq!(all(&disk, "a/f"), Some(b"xy".to_vec()));
        assert_eq!(all(&disk, "b/g"), Some(b"xy".to_vec()));
        assert_eq!(disk.used(), PAGE as u64);
        assert_eq!(disk.link(inode, b, "g"), Err(DiskError::Exists));
        disk.sync(b).unwrap();
        // What was not synced is lost or kept under both.
        let look = |disk: &Disk| (all(disk, "a/f"), all(disk, "b/g"));
        for (one, other) in possible(&disk, Names::AnySubset, look) {
            assert_eq!(one, other);
        }
        disk.rename((b, "g"), (disk.find("a").unwrap(), "f"))
            .unwrap();
        assert!(disk.find("b/g").is_ok() && disk.find("a/f").is_ok());
    }

    #[test]
    fn a_link_is_durable_with_its_own_directory() {
        let (mut disk, inode, b) = linked();
        let look = |disk: &Disk| (disk.find("a/f").is_ok(), disk.find("b/g").is_ok());
        // Neither the file's content nor its other name brings it to disk.
        disk.sync(inode).unwrap();
        disk.sync(disk.find("a").unwrap()).unwrap();
        let either = BTreeSet::from([(true, false), (true, true)]);
        assert_eq!(possible(&disk, Names::InOrder, look), either);
        // The first name goes, and a crash may take the second with it.
        let a = disk.find("a").unwrap();
        disk.remove_file(a, "f").unwrap();
        disk.sync(a).unwrap();
        let gone = BTreeSet::from([(false, false), (false, true)]);
        assert_eq!(possible(&disk, Names::AnySubset, look), gone);
        disk.sync(b).unwrap();
        let kept = BTreeSet::from([(false, true)]);
        assert_eq!(possible(&disk, Names::AnySubset, look), kept);
        assert_eq!(
            all(&disk.after_power_cut(Names::InOrder, 1), "b/g"),
            Some(b"x".to_vec())
        );
    }

    #[test]
    fn the_time_of_a_change_is_as_durable_as_the_change() {
        let (mut disk, inode) = with_file();
        disk.set_time(5);
        disk.write(inode, 0, b"x").unwrap();
        assert_eq!(disk.modified(inode), Some(5));
        let look = |disk: &Disk| disk.modified(disk.find("f").unwrap());
        assert_eq!(
            possible(&disk, Names::InOrder, look),
            BTreeSet::from([Some(0), Some(5)])
        );
        disk.sync(inode).unwrap();
        assert_eq!(
            possible(&disk, Names::InOrder, look),
            BTreeSet::from([Some(5)])
        );
    }

    #[test]
    fn removed_files_can_still_be_used_by_who_has_them_open() {
        let (mut disk, inode) = with_file();
        disk.remove_file(ROOT, "f").unwrap();
        disk.write(inode, 0, b"x").unwrap();
        assert_eq!(disk.read(inode, 0, 10).unwrap(), b"x");
        assert_eq!(disk.find("f"), Err(DiskError::NotFound));
    }
}
