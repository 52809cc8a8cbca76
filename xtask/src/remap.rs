//! Where the component's sources are, as its panic messages name them: on every machine the same.
//!
//! Sources in the clone have relative names, for they are below the component's workspace, by way of
//! `component/.clone` ([`crate::ports`]). What cargo takes from elsewhere gets a name by these flags. They
//! are the same for all clones that share a cache, so that none of them builds the engine again.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::{cache::Cache, chores::Chores, ports, repository::Repository, toolchain::Toolchain};

/// What of the clone is compiled into the component.
const OURS: [&str; 2] = ["component", "crates"];

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

/// The folders with sources of this machine that `component` tells of.
///
/// # Errors
/// As [`flags`].
pub fn left(chores: &Chores, component: &[u8]) -> Result<Vec<PathBuf>> {
    let (root, cache) = (chores.repository.root(), chores.cache.root());
    let mut folders: Vec<PathBuf> = OURS.iter().map(|name| root.join(name)).collect();
    folders.extend(["target", "ports"].map(|name| cache.join(name)));
    folders.push(sources(&chores.toolchain.sysroot));
    folders.extend(ports::unpacked(&chores.repository)?);
    let starts: Vec<Vec<u8>> = folders
        .iter()
        .map(|folder| [folder.as_os_str().as_encoded_bytes(), b"/"].concat())
        .collect();
    let mut told = BTreeSet::new();
    for (at, _) in component
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
    {
        let rest = component.get(at..).unwrap_or_default();
        let found = folders.iter().zip(&starts);
        told.extend(
            found
                .filter(|(_, start)| rest.starts_with(start))
                .map(|(folder, _)| folder.clone()),
        );
    }
    Ok(told.into_iter().collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_this_machine_are_found() {
        let chores = Chores::new().expect("a clone and a cache");
        let left = |text: &str| left(&chores, text.as_bytes()).expect("folders");
        let ours = chores.repository.root().join("crates");
        let text = format!("panicked at {}/engine/src/lib.rs:1:1", ours.display());
        assert_eq!(left(&text), [ours]);
        assert!(left("panicked at .clone/crates/engine/src/lib.rs:1:1").is_empty());
    }

    #[test]
    fn of_two_flags_the_later_is_the_narrower() {
        let chores = Chores::new().expect("a clone and a cache");
        let flags = flags(&chores.repository, &chores.cache, &chores.toolchain).expect("flags");
        let from = |flag: &OsString| {
            let text = flag.to_string_lossy().into_owned();
            let (from, _) = text.rsplit_once('=').expect("a flag");
            from.to_owned()
        };
        let froms: Vec<String> = flags.iter().map(from).collect();
        for (at, from) in froms.iter().enumerate() {
            let later = froms[at + 1..].iter();
            for later in later {
                assert!(!from.starts_with(&format!("{later}/")), "{from}, {later}");
            }
        }
    }
}
