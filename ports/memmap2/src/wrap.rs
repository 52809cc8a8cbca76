//! The C library's file calls on WASI, wrapped by the linker (`--wrap=NAME`).
//!
//! With that argument the linker takes every reference to `NAME`, those of the standard library
//! among them, as one to `__wrap_NAME`, and `__real_NAME` as the C library's. Without the
//! arguments the component does not link (`undefined symbol: __real_close`), so that the maps can
//! never be out of step with the handles unnoticed.

use std::io;
use std::slice;

use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};

use crate::real;
use crate::{closing, descriptor, file_io, guard};

/// What the C library's caller gets: a count, or -1 with `errno` set. It may be an error of ours,
/// or calls since may have changed `errno`.
fn to_c(result: io::Result<usize>) -> ssize_t {
    result
        .and_then(|count| {
            ssize_t::try_from(count).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
        })
        .unwrap_or_else(|error| {
            let code = error.raw_os_error().unwrap_or(libc::EIO);
            // SAFETY: the C library's `errno` is a variable of the calling thread.
            unsafe { *libc::__errno_location() = code };
            -1
        })
}

/// Tells the guard if a call that reads failed.
fn noted(fd: c_int, count: ssize_t) -> ssize_t {
    if count < 0 {
        return to_c(guard::noted(fd, Err(io::Error::last_os_error())));
    }
    count
}

fn from_c(count: ssize_t) -> io::Result<usize> {
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// # Safety
/// As `close(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_close(fd: c_int) -> c_int {
    if closing::close(fd) {
        // SAFETY: as the caller promises.
        unsafe { real::close(fd) }
    } else {
        0
    }
}

/// Bytes that one sequential write takes at most; the host copies them.
const WRITE_BYTES: size_t = 1 << 20;

/// `write(2)`, for files by position. The C library writes to files through a stream of WASI, whose
/// failure it reports as `EIO` whatever it was, a full disk too; and a stream that has failed takes
/// nothing more until the handle is moved. A positioned write has neither fault.
///
/// # Safety
/// As `write(2)`.
unsafe fn write_at_position(fd: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    let position = match file_io::is_standard_stream(fd) {
        true => None,
        false => descriptor::next_write(fd).ok(),
    };
    let Some(position) = position.and_then(|position| off_t::try_from(position).ok()) else {
        // What has no position is no file.
        // SAFETY: as the caller promises.
        return unsafe { real::write(fd, bytes, length) };
    };
    // SAFETY: as the caller promises, for fewer bytes.
    let wrote = unsafe { real::pwrite(fd, bytes, length.min(WRITE_BYTES), position) };
    if wrote > 0 {
        // SAFETY: takes no memory.
        unsafe { libc::lseek(fd, position + wrote as off_t, libc::SEEK_SET) };
    }
    wrote
}

/// # Safety
/// As `write(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_write(fd: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: as the caller promises.
    let call = || unsafe { write_at_position(fd, bytes, length) };
    if length == 0 {
        return call();
    }
    // SAFETY: as the caller promises.
    let slice = unsafe { slice::from_raw_parts(bytes.cast(), length) };
    to_c(file_io::write(fd, slice, None, || from_c(call())))
}

/// # Safety
/// As `pwrite(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_pwrite(
    fd: c_int,
    bytes: *const c_void,
    length: size_t,
    offset: off_t,
) -> ssize_t {
    // SAFETY: as the caller promises.
    let call = || unsafe { real::pwrite(fd, bytes, length, offset) };
    let Ok(at) = u64::try_from(offset) else {
        return call();
    };
    if length == 0 {
        return call();
    }
    // SAFETY: as the caller promises.
    let slice = unsafe { slice::from_raw_parts(bytes.cast(), length) };
    to_c(file_io::write(fd, slice, Some(at), || from_c(call())))
}

/// # Safety
/// As `read(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
    if length == 0 {
        // SAFETY: as the caller promises.
        return unsafe { real::read(fd, buffer, length) };
    }
    match file_io::read_position(fd, None) {
        // SAFETY: as the caller promises.
        Ok(None) => noted(fd, unsafe { real::read(fd, buffer, length) }),
        Ok(Some(position)) => {
            // SAFETY: as the caller promises.
            let count = unsafe { read_mapped(fd, buffer, length, position) };
            if count > 0 {
                // SAFETY: moves the handle to the end of what was read.
                unsafe { libc::lseek(fd, count as off_t, libc::SEEK_CUR) };
            }
            count
        }
        Err(error) => to_c(Err(error)),
    }
}

/// # Safety
/// As `pread(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_pread(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    offset: off_t,
) -> ssize_t {
    let position = match u64::try_from(offset) {
        Ok(at) if length > 0 => file_io::read_position(fd, Some(at)),
        _ => Ok(None),
    };
    match position {
        // SAFETY: as the caller promises.
        Ok(None) => noted(fd, unsafe { real::pread(fd, buffer, length, offset) }),
        // SAFETY: as the caller promises.
        Ok(Some(position)) => unsafe { read_mapped(fd, buffer, length, position) },
        Err(error) => to_c(Err(error)),
    }
}

/// # Safety
/// As `pread(2)`.
unsafe fn read_mapped(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    position: file_io::Position,
) -> ssize_t {
    let Ok(at) = off_t::try_from(position.offset()) else {
        return -1;
    };
    // SAFETY: as the caller promises.
    let count = noted(fd, unsafe { real::pread(fd, buffer, length, at) });
    let Ok(read) = usize::try_from(count) else {
        return count;
    };
    // SAFETY: pread has just filled this much of the buffer.
    let bytes = unsafe { slice::from_raw_parts_mut(buffer.cast(), read) };
    to_c(position.overlay(bytes).map(|()| read))
}

/// # Safety
/// `vectors` points to `count` valid `iovec`s.
unsafe fn first_not_empty(vectors: *const iovec, count: c_int) -> Option<iovec> {
    let count = usize::try_from(count).ok().filter(|&count| count > 0)?;
    // SAFETY: as the caller promises.
    unsafe { slice::from_raw_parts(vectors, count) }
        .iter()
        .find(|vector| vector.iov_len > 0)
        .copied()
}

// A call may do less than it was asked to; these do the first part.

/// # Safety
/// As `readv(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_readv(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: as the caller promises.
    match unsafe { first_not_empty(vectors, count) } {
        // SAFETY: as the caller promises.
        Some(vector) => unsafe { __wrap_read(fd, vector.iov_base, vector.iov_len) },
        None => 0,
    }
}

/// # Safety
/// As `preadv(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_preadv(
    fd: c_int,
    vectors: *const iovec,
    count: c_int,
    offset: off_t,
) -> ssize_t {
    // SAFETY: as the caller promises.
    match unsafe { first_not_empty(vectors, count) } {
        // SAFETY: as the caller promises.
        Some(vector) => unsafe { __wrap_pread(fd, vector.iov_base, vector.iov_len, offset) },
        None => 0,
    }
}

/// # Safety
/// As `writev(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_writev(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: as the caller promises.
    match unsafe { first_not_empty(vectors, count) } {
        // SAFETY: as the caller promises.
        Some(vector) => unsafe { __wrap_write(fd, vector.iov_base, vector.iov_len) },
        None => 0,
    }
}

/// # Safety
/// As `pwritev(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_pwritev(
    fd: c_int,
    vectors: *const iovec,
    count: c_int,
    offset: off_t,
) -> ssize_t {
    // SAFETY: as the caller promises.
    match unsafe { first_not_empty(vectors, count) } {
        // SAFETY: as the caller promises.
        Some(vector) => unsafe { __wrap_pwrite(fd, vector.iov_base, vector.iov_len, offset) },
        None => 0,
    }
}

/// # Safety
/// As `ftruncate(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_ftruncate(fd: c_int, length: off_t) -> c_int {
    // SAFETY: takes no memory.
    let call = || unsafe { real::ftruncate(fd, length) };
    let Ok(new_length) = u64::try_from(length) else {
        return call();
    };
    let resized = file_io::set_length(fd, new_length, || match call() {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    });
    // 0, or -1 and `errno`.
    to_c(resized.map(|()| 0)) as c_int
}
