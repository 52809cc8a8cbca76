//! Cargo commands that compile for WASI.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::Command,
};

use anyhow::Result;

use crate::{chores::Chores, remap, target::WasmTarget};

/// tokio refuses WASI unless told that its support there is known to be partial. Vector instructions
/// are those that all engines have; the relaxed ones are not.
const WASM_FLAGS: [&str; 4] = ["--cfg", "tokio_unstable", "-C", "target-feature=+simd128"];

/// A cargo command for the component.
///
/// # Errors
/// As for [`flags`].
pub fn cargo(chores: &Chores, target: &WasmTarget) -> Result<Command> {
    cargo_in(chores, &chores.repository.component(), "wasm", target)
}

/// A cargo command for WASI in `folder`, with artifacts in the cache's `kind`.
///
/// # Errors
/// As for [`flags`].
pub fn cargo_in(
    chores: &Chores,
    folder: &Path,
    kind: &str,
    target: &WasmTarget,
) -> Result<Command> {
    let mut command = chores.cargo(folder, kind);
    // The form that allows blanks in paths. It goes before all other flags, so that none of the
    // person's own get in the way.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(chores, target, "\u{1f}")?);
    Ok(command)
}

/// The compiler flags for WASI.
///
/// # Errors
/// Where the folder of cargo's downloads is not known or cannot be read.
pub fn flags(chores: &Chores, target: &WasmTarget, separator: &str) -> Result<OsString> {
    let mut flags: Vec<OsString> = Vec::new();
    if let Some(sysroot) = &target.sysroot {
        flags.extend(["--sysroot".into(), sysroot.into()]);
    }
    flags.extend(WASM_FLAGS.map(OsString::from));
    flags.extend(remap::flags(
        &chores.repository,
        &chores.cache,
        &chores.toolchain,
    )?);
    Ok(flags.join(OsStr::new(separator)))
}
