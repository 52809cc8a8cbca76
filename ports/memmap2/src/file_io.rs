//! What handles do to files that are mapped.
//!
//! On Linux a file's handles and maps share the page cache. Here the calls of the C library by
//! which handles read, write and resize files go through these functions (see [`crate::wrap`]), so
//! that a map sees what a handle writes and a handle reads what a map has changed. Each takes the
//! call itself as a function, and costs one `fstat` for as long as any file is mapped.
//!
//! Public for tests only, which run natively.

use std::io;
use std::os::fd::RawFd;

use crate::descriptor::{self, Identity, Metadata};
use crate::guard::{self, Change};
use crate::table;

/// The standard streams, which are never mapped and may be written while the table is locked.
const STANDARD_STREAMS: std::ops::RangeInclusive<RawFd> = 0..=2;

/// Whether `fd` is one of the standard streams.
#[cfg_attr(not(target_os = "wasi"), allow(dead_code))]
pub(crate) fn is_standard_stream(fd: RawFd) -> bool {
    STANDARD_STREAMS.contains(&fd)
}

fn known(fd: RawFd) -> Option<Metadata> {
    // The guard is called with the table locked, and its files are never mapped.
    if is_standard_stream(fd)
        || guard::is_unguarded()
        || !table::with(|table| table.concerns_handles())
    {
        return None;
    }
    let metadata = descriptor::metadata(fd).ok()?;
    table::with(|table| table.knows(metadata.identity)).then_some(metadata)
}

/// Writes `bytes` by calling `write`, which says how many it wrote.
///
/// `offset` is `None` for a write at the handle's position.
///
/// # Errors
/// Those of `write` and of the guard.
pub fn write(
    fd: RawFd,
    bytes: &[u8],
    offset: Option<u64>,
    write: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    guard::before_write(fd, bytes.len(), offset)?;
    let Some(metadata) = known(fd) else {
        return guard::noted(fd, write());
    };
    let at = match offset {
        Some(offset) => offset,
        None => descriptor::write_position(fd, metadata.length)?,
    };
    table::with(|table| table.before_change(metadata.identity, metadata.length));
    let wrote = guard::noted(fd, write())?;
    let bytes = bytes.get(..wrote).unwrap_or(bytes);
    table::with(|table| table.written(metadata.identity, at, bytes));
    Ok(wrote)
}

/// Where a read of a file that maps have changed starts, and which file it is; `None` if `fd`
/// refers to no such file, and can be read as it is.
///
/// # Errors
/// The position cannot be found out.
pub fn read_position(fd: RawFd, offset: Option<u64>) -> io::Result<Option<Position>> {
    let Some(metadata) = known(fd) else {
        return Ok(None);
    };
    if !table::with(|table| table.is_written_through_maps(metadata.identity)) {
        return Ok(None);
    }
    Ok(Some(Position {
        identity: metadata.identity,
        offset: match offset {
            Some(offset) => offset,
            None => descriptor::position(fd)?,
        },
    }))
}

/// Where a read starts.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    identity: Identity,
    offset: u64,
}

impl Position {
    /// Bytes from the start of the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Puts what maps hold over what was read from here.
    ///
    /// # Errors
    /// Bringing several buffers of the file together failed.
    pub fn overlay(&self, bytes: &mut [u8]) -> io::Result<()> {
        table::with(|table| table.overlay(self.identity, self.offset, bytes))
    }
}

/// Sets the file's length by calling `resize`.
///
/// # Errors
/// Those of `resize` and of the guard.
pub fn set_length(
    fd: RawFd,
    length: u64,
    resize: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    if guard::is_unguarded() {
        return resize();
    }
    let before = descriptor::metadata(fd).ok();
    if let Some(before) = before
        && length < before.length
    {
        guard::before_change(&[Change {
            fd,
            from: length,
            to: before.length,
        }])?;
    }
    guard::noted(fd, resize())?;
    if let Some(before) = before
        && before.is_file
    {
        table::with(|table| table.length_set(before.identity, before.length, length));
    }
    Ok(())
}
