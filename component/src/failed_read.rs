//! A repair of the C library: when a positioned read fails, its `pread` copies and frees what was
//! never read, bytes of its stack taken for a list. (wasi-libc, 2026: `bytes_read` and `memcpy`
//! come before the check for errors.) Here that list is empty from the start.

#![allow(unsafe_code, reason = "a function of the C library's interface")]

/// `wasip2_tuple2_list_u8_bool_t` of `wasi/wasip2.h`.
#[repr(C)]
pub struct Contents {
    bytes: *mut u8,
    length: usize,
    is_end: bool,
}

// SAFETY: the linker resolves it to the C library's function, whose declaration this is.
unsafe extern "C" {
    #[link_name = "__real_filesystem_method_descriptor_read"]
    fn read(
        descriptor: i32,
        length: u64,
        offset: u64,
        contents: *mut Contents,
        error: *mut u8,
    ) -> bool;
}

/// # Safety
/// `contents` and `error` can be written to.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_filesystem_method_descriptor_read(
    descriptor: i32,
    length: u64,
    offset: u64,
    contents: *mut Contents,
    error: *mut u8,
) -> bool {
    let nothing = Contents {
        bytes: std::ptr::null_mut(),
        length: 0,
        is_end: false,
    };
    // SAFETY: as the caller promises.
    unsafe {
        contents.write(nothing);
        read(descriptor, length, offset, contents, error)
    }
}
