//! npm packages of this repository, built in the cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::foreign::{run, say};

/// What the packages need, by `engines` in `package.json`.
const OLDEST_NODE: u32 = 20;

/// A folder of the cache for a package with what it is built with; or why there can be none.
pub fn place(name: &str) -> Result<PathBuf, String> {
    let version = Command::new("node")
        .arg("--version")
        .output()
        .map_err(|error| format!("no Node: {error}"))?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    let major = version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < OLDEST_NODE) {
        return Err(format!("Node {version} is older than {OLDEST_NODE}"));
    }
    let has_npm = Command::new("npm").arg("--version").output();
    has_npm.map_err(|error| format!("no npm: {error}"))?;
    let cache = std::env::var_os("EDGE_SYNC_CACHE")
        .ok_or("EDGE_SYNC_CACHE names no folder for it; `cargo xtask test` does")?;
    Ok(PathBuf::from(cache).join(name))
}

/// Installs what the lock file lists, once, and again when it changes.
pub fn install(package: &Path, folder: &Path) {
    let read = |name: &str| std::fs::read_to_string(package.join(name)).expect("a file");
    let (manifest, lock) = (read("package.json"), read("package-lock.json"));
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join("package.json"), manifest).expect("a copy");
    std::fs::write(folder.join("package-lock.json"), &lock).expect("a copy");
    // Says what was installed, and that it was installed as a whole.
    let installed = folder.join("installed.json");
    if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == lock) {
        return;
    }
    say(&format!(
        "installing what {} is built with, for a test",
        package.display()
    ));
    run(&mut npm(folder, &["ci", "--no-audit", "--no-fund"]));
    std::fs::write(&installed, lock).expect("a note of what is installed");
}

/// `npm` in a package's folder.
pub fn npm(folder: &Path, arguments: &[&str]) -> Command {
    let mut npm = Command::new("npm");
    npm.args(arguments).current_dir(folder);
    npm
}

/// Replaces a folder by another's files.
pub fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).expect("the old copy goes");
    }
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let file = entry.expect("a file").path();
        let name = file.file_name().expect("a name");
        std::fs::copy(&file, to.join(name)).expect("a copy");
    }
}
