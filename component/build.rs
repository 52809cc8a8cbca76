//! Arguments for the linker.

/// What `ports/memmap2` has to see of the C library's file calls, its README says why, and what
/// `rollback` has to see; its module `wasi` says why. The last is repaired by `src/failed_read.rs`.
const WRAPPED: [&str; 21] = [
    "close",
    "read",
    "readv",
    "pread",
    "preadv",
    "write",
    "writev",
    "pwrite",
    "pwritev",
    "ftruncate",
    "fsync",
    "fdatasync",
    "__wasilibc_nocwd_openat_nomode",
    "__wasilibc_nocwd_mkdirat_nomode",
    "__wasilibc_nocwd___wasilibc_unlinkat",
    "__wasilibc_nocwd___wasilibc_rmdirat",
    "__wasilibc_nocwd_renameat",
    "__wasilibc_nocwd_fstatat",
    "__wasilibc_nocwd_opendirat",
    "fstat",
    "filesystem_method_descriptor_read",
];

/// Filters and formulas nest, and the engine recurses; 1 MiB, the default, is what it overflows.
const STACK_BYTES: u32 = 8 << 20;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for function in WRAPPED {
        println!("cargo:rustc-link-arg-cdylib=--wrap={function}");
    }
    println!("cargo:rustc-link-arg-cdylib=-zstack-size={STACK_BYTES}");
}
