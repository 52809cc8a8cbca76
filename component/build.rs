//! Arguments for the linker.

/// What `ports/memmap2` has to see of the C library's file calls; its README says why.
const WRAPPED: [&str; 10] = [
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
