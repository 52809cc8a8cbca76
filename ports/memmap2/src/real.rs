//! The C library's own functions, behind those that the linker puts in their place (`--wrap=NAME`).

use libc::{c_int, c_void, off_t, size_t, ssize_t};

// SAFETY: the linker resolves each `__real_` name to the C library's function of that name,
// and the signatures are those of POSIX, as the `libc` crate has them.
unsafe extern "C" {
    #[link_name = "__real_close"]
    pub(crate) fn close(fd: c_int) -> c_int;
    #[link_name = "__real_read"]
    pub(crate) fn read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t;
    #[link_name = "__real_pread"]
    pub(crate) fn pread(fd: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t;
    #[link_name = "__real_write"]
    pub(crate) fn write(fd: c_int, bytes: *const c_void, length: size_t) -> ssize_t;
    #[link_name = "__real_pwrite"]
    pub(crate) fn pwrite(fd: c_int, bytes: *const c_void, length: size_t, offset: off_t)
    -> ssize_t;
    #[link_name = "__real_ftruncate"]
    pub(crate) fn ftruncate(fd: c_int, length: off_t) -> c_int;
}
