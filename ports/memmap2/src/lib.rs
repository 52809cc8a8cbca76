//! Memory maps of files for WASI, which has none: the interface of `memmap2` 0.9 over ordinary
//! memory and ordinary file IO.
//!
//! All maps of a file share one buffer, which is filled when the file is first mapped. Pages that
//! changed are found by fingerprint and written back by `flush`, and when the last writable map is
//! dropped. What handles write to a mapped file, and what they read from it, goes by the buffer as
//! well, as it goes by the page cache on Linux. The module `table` states the invariants;
//! README.md compares this with real maps and says what it costs.
//!
//! It also compiles for Unix, where its tests compare it with the real thing.

mod advice;
mod arena;
#[cfg_attr(not(target_os = "wasi"), allow(dead_code))]
mod closing;
mod descriptor;
#[doc(hidden)]
pub mod file_io;
pub mod guard;
mod page;
#[cfg(target_os = "wasi")]
mod real;
mod region;
mod table;
#[cfg(target_os = "wasi")]
mod wrap;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, RawFd};
use std::slice;

pub use advice::{Advice, UncheckedAdvice};
pub use table::{abandon_changes, announce_changes};

use region::{Kind, Region};

/// What a map is made from.
#[derive(Debug)]
pub struct MmapRawDescriptor(RawFd);

/// Things that refer to an open file.
pub trait MmapAsRawDesc {
    /// The file's descriptor.
    fn as_raw_desc(&self) -> MmapRawDescriptor;
}

impl MmapAsRawDesc for RawFd {
    fn as_raw_desc(&self) -> MmapRawDescriptor {
        MmapRawDescriptor(*self)
    }
}

impl MmapAsRawDesc for &File {
    fn as_raw_desc(&self) -> MmapRawDescriptor {
        MmapRawDescriptor(self.as_raw_fd())
    }
}

// `fs_err::File` does not implement `AsRawFd` on WASI, so `&T where T: AsRawFd` would not do.
impl MmapAsRawDesc for &fs_err::File {
    fn as_raw_desc(&self) -> MmapRawDescriptor {
        MmapRawDescriptor(self.file().as_raw_fd())
    }
}

/// How a map is to be made.
#[derive(Clone, Debug, Default)]
pub struct MmapOptions {
    offset: u64,
    length: Option<usize>,
}

impl MmapOptions {
    /// A map of the whole file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where in the file the map starts, in bytes. The memory before it is allocated all the same.
    pub fn offset(&mut self, offset: u64) -> &mut Self {
        self.offset = offset;
        self
    }

    /// How long the map is, in bytes; up to the end of the file if not set.
    pub fn len(&mut self, length: usize) -> &mut Self {
        self.length = Some(length);
        self
    }

    /// Has no effect: the memory is there when the map has been made.
    pub fn populate(&mut self) -> &mut Self {
        self
    }

    /// Maps a file to be read.
    ///
    /// # Errors
    /// It is not a regular file, cannot be read, or does not fit into memory.
    ///
    /// # Safety
    /// As for every map: the memory may change while a slice of it is borrowed, if the file is
    /// written meanwhile, which the caller must exclude.
    pub unsafe fn map<T: MmapAsRawDesc>(&self, file: T) -> io::Result<Mmap> {
        self.region(&file, Kind::Read).map(Mmap)
    }

    /// Maps a file to be read and written.
    ///
    /// # Errors
    /// As [`Self::map`]; and if it is not open for both.
    ///
    /// # Safety
    /// As [`Self::map`].
    pub unsafe fn map_mut<T: MmapAsRawDesc>(&self, file: T) -> io::Result<MmapMut> {
        self.region(&file, Kind::Write).map(MmapMut)
    }

    /// Maps a file, to be written without changing it.
    ///
    /// # Errors
    /// As [`Self::map`].
    ///
    /// # Safety
    /// As [`Self::map`].
    pub unsafe fn map_copy<T: MmapAsRawDesc>(&self, file: T) -> io::Result<MmapMut> {
        self.region(&file, Kind::Copy).map(MmapMut)
    }

    /// As [`Self::map_copy`], not to be written.
    ///
    /// # Errors
    /// As [`Self::map`].
    ///
    /// # Safety
    /// As [`Self::map`].
    pub unsafe fn map_copy_read_only<T: MmapAsRawDesc>(&self, file: T) -> io::Result<Mmap> {
        self.region(&file, Kind::Copy).map(Mmap)
    }

    /// Memory that no file backs.
    ///
    /// # Errors
    /// It does not fit into memory.
    pub fn map_anon(&self) -> io::Result<MmapMut> {
        Region::anonymous(self.length.unwrap_or(0)).map(MmapMut)
    }

    /// Maps a file to be read and written through pointers.
    ///
    /// # Errors
    /// As [`Self::map_mut`].
    pub fn map_raw<T: MmapAsRawDesc>(&self, file: T) -> io::Result<MmapRaw> {
        self.region(&file, Kind::Write).map(MmapRaw)
    }

    /// Maps a file to be read through pointers.
    ///
    /// # Errors
    /// As [`Self::map`].
    pub fn map_raw_read_only<T: MmapAsRawDesc>(&self, file: T) -> io::Result<MmapRaw> {
        self.region(&file, Kind::Read).map(MmapRaw)
    }

    fn region(&self, file: &impl MmapAsRawDesc, kind: Kind) -> io::Result<Region> {
        let MmapRawDescriptor(fd) = file.as_raw_desc();
        Region::of_file(fd, self.offset, self.length, kind)
    }
}

/// How a map may be made longer. As in `memmap2` on Linux.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemapOptions {
    may_move: bool,
}

impl RemapOptions {
    /// The map stays where it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the map may lie elsewhere afterwards.
    #[must_use]
    pub fn may_move(mut self, may_move: bool) -> Self {
        self.may_move = may_move;
        self
    }

    fn lengthen(self, region: &mut Region, length: usize) -> io::Result<()> {
        if !self.may_move {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "maps move when they are made longer",
            ));
        }
        region.lengthen(length)
    }
}

/// Bytes of a file up to its last that is not zero. A map of these holds all there is in the file,
/// and can be made longer when more is written.
///
/// Not in `memmap2`. The file is read backwards as far as it is not known to be zero. Where writable
/// maps may hold what the file does not, it is the length of the file.
///
/// # Errors
/// The file cannot be examined or read.
pub fn data_length(file: &File) -> io::Result<u64> {
    table::with(|table| table.data_length(file.as_raw_fd()))
}

/// From where on all bytes of a file are known to be zero, be it from [`data_length`] or because the
/// file was only lengthened since; `None` if that is not known. Reads nothing.
///
/// Not in `memmap2`.
///
/// # Errors
/// The file cannot be examined.
pub fn known_data_length(file: &File) -> io::Result<Option<u64>> {
    table::with(|table| table.known_data_length(file.as_raw_fd()))
}

/// Lets [`data_length`] begin at `length`: all bytes from there on are zero, as
/// [`known_data_length`] said of the same bytes, perhaps in another process. Where that is wrong,
/// maps hold zeros in the place of data.
///
/// Not in `memmap2`. No effect on a file that is mapped.
///
/// # Errors
/// The file cannot be examined.
pub fn note_data_length(file: &File, length: u64) -> io::Result<()> {
    table::with(|table| table.note_data_length(file.as_raw_fd(), length))
}

/// Bytes that maps have taken from the program's allocator, for good: what it had free, once the
/// memory could not grow any more.
///
/// Not in `memmap2`.
pub fn allocated_bytes() -> usize {
    arena::allocated_bytes()
}

/// Whether the program's allocator could give so many bytes now, in pieces. What it has to get from the
/// system for that stays with it, for later.
///
/// Not in `memmap2`.
pub fn are_free(bytes: usize) -> bool {
    arena::are_free(bytes)
}

/// A map to be read.
pub struct Mmap(Region);

impl Mmap {
    /// Maps the whole of a file.
    ///
    /// # Errors
    /// As [`MmapOptions::map`].
    ///
    /// # Safety
    /// As [`MmapOptions::map`].
    pub unsafe fn map<T: MmapAsRawDesc>(file: T) -> io::Result<Self> {
        // SAFETY: as the caller promises.
        unsafe { MmapOptions::new().map(file) }
    }

    /// Has no effect.
    ///
    /// # Errors
    /// None.
    pub fn advise(&self, _advice: Advice) -> io::Result<()> {
        Ok(())
    }

    /// Has no effect.
    ///
    /// # Errors
    /// None.
    ///
    /// # Safety
    /// Nothing is asked of the caller.
    pub unsafe fn unchecked_advise(&self, _advice: UncheckedAdvice) -> io::Result<()> {
        Ok(())
    }
}

impl Deref for Mmap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the region lives as long as `self`.
        unsafe { slice::from_raw_parts(self.0.pointer(), self.0.len()) }
    }
}

impl AsRef<[u8]> for Mmap {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Mmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("Mmap", f)
    }
}

/// A map to be read and written.
pub struct MmapMut(Region);

impl MmapMut {
    /// Maps the whole of a file.
    ///
    /// # Errors
    /// As [`MmapOptions::map_mut`].
    ///
    /// # Safety
    /// As [`MmapOptions::map`].
    pub unsafe fn map_mut<T: MmapAsRawDesc>(file: T) -> io::Result<Self> {
        // SAFETY: as the caller promises.
        unsafe { MmapOptions::new().map_mut(file) }
    }

    /// Memory that no file backs.
    ///
    /// # Errors
    /// As [`MmapOptions::map_anon`].
    pub fn map_anon(length: usize) -> io::Result<Self> {
        MmapOptions::new().len(length).map_anon()
    }

    /// Makes the map's changes durable.
    ///
    /// # Errors
    /// Writing or syncing the file failed; the changes stay in memory for another attempt.
    pub fn flush(&self) -> io::Result<()> {
        self.0.flush(0, self.0.len(), true)
    }

    /// Writes the map's changes to the file, without syncing it.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn flush_async(&self) -> io::Result<()> {
        self.0.flush(0, self.0.len(), false)
    }

    /// As [`Self::flush`], for the pages that a part of the map touches.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn flush_range(&self, offset: usize, length: usize) -> io::Result<()> {
        self.0.flush(offset, length, true)
    }

    /// As [`Self::flush_async`], for the pages that a part of the map touches.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub fn flush_async_range(&self, offset: usize, length: usize) -> io::Result<()> {
        self.0.flush(offset, length, false)
    }

    /// As [`MmapRaw::remap`].
    ///
    /// # Errors
    /// As [`MmapRaw::remap`].
    ///
    /// # Safety
    /// None beyond what borrowing sees to.
    pub unsafe fn remap(&mut self, length: usize, options: RemapOptions) -> io::Result<()> {
        options.lengthen(&mut self.0, length)
    }

    /// Gives up writing. Changes are written back as before.
    ///
    /// # Errors
    /// None.
    pub fn make_read_only(self) -> io::Result<Mmap> {
        Ok(Mmap(self.0))
    }

    /// Has no effect.
    ///
    /// # Errors
    /// None.
    pub fn advise(&self, _advice: Advice) -> io::Result<()> {
        Ok(())
    }

    /// Has no effect.
    ///
    /// # Errors
    /// None.
    ///
    /// # Safety
    /// Nothing is asked of the caller.
    pub unsafe fn unchecked_advise(&self, _advice: UncheckedAdvice) -> io::Result<()> {
        Ok(())
    }
}

impl Deref for MmapMut {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the region lives as long as `self`.
        unsafe { slice::from_raw_parts(self.0.pointer(), self.0.len()) }
    }
}

impl DerefMut for MmapMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the region lives as long as `self`, and was made to be written.
        unsafe { slice::from_raw_parts_mut(self.0.pointer(), self.0.len()) }
    }
}

impl AsRef<[u8]> for MmapMut {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for MmapMut {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for MmapMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("MmapMut", f)
    }
}

/// A map to be accessed through pointers.
pub struct MmapRaw(Region);

#[allow(
    clippy::len_without_is_empty,
    reason = "the interface that this stands in for has none"
)]
impl MmapRaw {
    /// Maps the whole of a file to be read and written.
    ///
    /// # Errors
    /// As [`MmapOptions::map_raw`].
    pub fn map_raw<T: MmapAsRawDesc>(file: T) -> io::Result<Self> {
        MmapOptions::new().map_raw(file)
    }

    /// The first byte. Never null, and aligned to 4096 bytes if the map's offset is.
    pub fn as_ptr(&self) -> *const u8 {
        self.0.pointer()
    }

    /// The first byte. Writing is undefined behaviour unless the map was made to be written.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.0.pointer()
    }

    /// Bytes in the map.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Makes the map longer.
    ///
    /// # Errors
    /// It would become shorter, is not writable, may not move, or does not fit into memory. It is as
    /// it was then.
    ///
    /// # Safety
    /// Nothing refers to the map's memory any more.
    pub unsafe fn remap(&mut self, length: usize, options: RemapOptions) -> io::Result<()> {
        options.lengthen(&mut self.0, length)
    }

    /// As [`MmapMut::flush`].
    ///
    /// # Errors
    /// As [`MmapMut::flush`].
    pub fn flush(&self) -> io::Result<()> {
        self.0.flush(0, self.0.len(), true)
    }

    /// As [`MmapMut::flush_async`].
    ///
    /// # Errors
    /// As [`MmapMut::flush`].
    pub fn flush_async(&self) -> io::Result<()> {
        self.0.flush(0, self.0.len(), false)
    }

    /// As [`MmapMut::flush_range`].
    ///
    /// # Errors
    /// As [`MmapMut::flush`].
    pub fn flush_range(&self, offset: usize, length: usize) -> io::Result<()> {
        self.0.flush(offset, length, true)
    }

    /// As [`MmapMut::flush_async_range`].
    ///
    /// # Errors
    /// As [`MmapMut::flush`].
    pub fn flush_async_range(&self, offset: usize, length: usize) -> io::Result<()> {
        self.0.flush(offset, length, false)
    }

    /// Has no effect.
    ///
    /// # Errors
    /// None.
    pub fn advise(&self, _advice: Advice) -> io::Result<()> {
        Ok(())
    }

    /// Has no effect.
    ///
    /// # Errors
    /// None.
    ///
    /// # Safety
    /// Nothing is asked of the caller.
    pub unsafe fn unchecked_advise(&self, _advice: UncheckedAdvice) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for MmapRaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("MmapRaw", f)
    }
}

impl From<Mmap> for MmapRaw {
    fn from(map: Mmap) -> Self {
        Self(map.0)
    }
}

impl From<MmapMut> for MmapRaw {
    fn from(map: MmapMut) -> Self {
        Self(map.0)
    }
}
