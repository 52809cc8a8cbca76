//! Where the component's sources are, as its panic messages name them: on every machine the same.
//!
//! Sources in the clone have relative names, for they are below the component's workspace, by way of
//! `component/.clone` ([`crate::ports`]). What cargo takes from elsewhere gets a name by these flags. They
//! are the same for all clones that share a cache, so that none of them builds the engine again.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{cache::Cache, ports, repository::Repository, toolchain::Toolchain};

/// The compiler flags. Of several that fit, the compiler takes the last.
///
/// # Errors
/// Where the folder of cargo's downloads is not known or cannot be read.
pub fn flags(
    repository: &Repository,
    cache: &Cache,
    toolchain: &Toolchain,
) -> Result<Vec<OsString>> {
    let mut flags = vec![
        // What build scripts write.
        flag(cache.root(), "/cache"),
        // Of the toolchain's own sources, if it has them, the compiler knows the place.
        flag(&sources(&toolchain.sysroot), &toolchain.name_of_sources()),
    ];
    for registry in ports::unpacked(repository)? {
        flags.push(flag(&registry, "/registry"));
    }
    Ok(flags)
}

/// Where a toolchain has the sources of its standard library.
pub fn sources(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust")
}

/// Has the compiler name what is below `from` as if it were below `to`.
pub fn flag(from: &Path, to: &str) -> OsString {
    let mut flag = OsString::from("--remap-path-prefix=");
    flag.push(from);
    flag.push(OsStr::new("="));
    flag.push(to);
    flag
}
