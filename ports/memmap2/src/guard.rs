//! Who is told before bytes of a file are overwritten or cut off.
//!
//! Files change in place here, by handles and by write-back. A program that wants to be able to
//! take changes back has to save the bytes before; this is where it learns of them, and where it
//! can refuse.

use std::cell::Cell;
use std::io;
use std::os::fd::RawFd;
use std::sync::OnceLock;

use crate::descriptor;

/// Bytes of an open file that are about to be overwritten or cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub fd: RawFd,
    /// The first byte.
    pub from: u64,
    /// The byte after the last one. May lie beyond the end of the file.
    pub to: u64,
}

/// Is told of changes to files before they are made, and of calls that failed.
///
/// It is called with the maps' table locked, so it must not make or drop maps. Its own reads and
/// writes pass by as in [`unguarded`].
pub trait Guard: Sync {
    /// Whether it wants to hear of the file that `fd` refers to.
    fn concerns(&self, fd: RawFd) -> bool;

    /// Some bytes are about to change; several at once where that is known, in no order.
    ///
    /// # Errors
    /// The change is not made, and whoever asked for it gets the error.
    fn before_change(&self, changes: &[Change]) -> io::Result<()>;

    /// Reading, writing or resizing the file of `fd` failed.
    fn failed(&self, fd: RawFd, error: &io::Error);
}

static GUARD: OnceLock<&'static dyn Guard> = OnceLock::new();

thread_local! {
    static UNGUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Sets the guard of this process, for good. False if there was one already.
pub fn set_guard(guard: &'static dyn Guard) -> bool {
    GUARD.set(guard).is_ok()
}

/// Calls `run`, during which handles read and write files as if no file were mapped and there were
/// no guard.
pub fn unguarded<T>(run: impl FnOnce() -> T) -> T {
    struct Reset(bool);
    impl Drop for Reset {
        fn drop(&mut self) {
            UNGUARDED.set(self.0);
        }
    }
    let _reset = Reset(UNGUARDED.replace(true));
    run()
}

/// Whether that is so now.
pub fn is_unguarded() -> bool {
    UNGUARDED.get()
}

/// The guard, if it is to be told of this file.
fn of(fd: RawFd) -> Option<&'static dyn Guard> {
    if is_unguarded() {
        return None;
    }
    let guard = *GUARD.get()?;
    guard.concerns(fd).then_some(guard)
}

/// Tells of changes that are about to be made.
pub(crate) fn before_change(changes: &[Change]) -> io::Result<()> {
    if changes.is_empty() || is_unguarded() {
        return Ok(());
    }
    let Some(guard) = GUARD.get() else {
        return Ok(());
    };
    let changes: Vec<Change> = changes
        .iter()
        .copied()
        .filter(|change| guard.concerns(change.fd))
        .collect();
    if changes.is_empty() {
        return Ok(());
    }
    unguarded(|| guard.before_change(&changes))
}

/// Tells that a handle is about to write `length` bytes, at its position if `offset` is `None`.
pub(crate) fn before_write(fd: RawFd, length: usize, offset: Option<u64>) -> io::Result<()> {
    if of(fd).is_none() {
        return Ok(());
    }
    let from = match offset {
        Some(offset) => offset,
        None => descriptor::write_position(fd, descriptor::metadata(fd)?.length)?,
    };
    before_change(&[Change {
        fd,
        from,
        to: from.saturating_add(length as u64),
    }])
}

/// Tells of a failure, and hands the result on.
pub(crate) fn noted<T>(fd: RawFd, result: io::Result<T>) -> io::Result<T> {
    if let Err(error) = &result
        && let Some(guard) = of(fd)
    {
        unguarded(|| guard.failed(fd, error));
    }
    result
}
