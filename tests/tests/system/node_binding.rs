//! The Node package: the component is transpiled for it, and its own tests run, in `bindings/node/test`.
//! They find the server double and the command by variables.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::foreign::{run, say, skip};
use crate::support::{SETTINGS, command, component_file};

/// What the package needs, by `engines` in `package.json`.
const OLDEST_NODE: u32 = 20;

/// The folder of the package with what it is built with, and the component transpiled. None where there
/// is no Node.
pub fn package() -> Option<PathBuf> {
    static PACKAGE: OnceLock<Option<PathBuf>> = OnceLock::new();
    PACKAGE.get_or_init(make).clone()
}

fn make() -> Option<PathBuf> {
    let folder = match place() {
        Ok(folder) => folder,
        Err(reason) => {
            skip(&reason);
            return None;
        }
    };
    let package = edge_sync_tests::package_folder().join("../bindings/node");
    install(&package, &folder);
    for sources in ["src", "test"] {
        copy(&package.join(sources), &folder.join(sources));
    }
    std::fs::copy(package.join("README.md"), folder.join("README.md")).expect("a copy");
    run(npm(&folder, &["run", "build"]).env("EDGE_SYNC_COMPONENT", component_file()));
    Some(folder)
}

#[test]
fn the_node_package_passes_its_tests() {
    let Some(folder) = package() else {
        return;
    };
    run(&mut npm(&folder, &["run", "types"]));
    let mut tests = npm(&folder, &["test"]);
    tests
        .env("EDGE_SYNC_DOUBLE", env!("CARGO_BIN_EXE_qdrant-double"))
        .env("EDGE_SYNC_BIN", command());
    for name in SETTINGS {
        tests.env_remove(name);
    }
    let output = run(&mut tests);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("# fail 0"), "{text}");
    let skips = cfg!(target_os = "linux").then_some("# skipped 0");
    assert!(skips.is_none_or(|none| text.contains(none)), "{text}");
}

/// A folder of the cache for the package with what it is built with; or why there can be none.
fn place() -> Result<PathBuf, String> {
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
    Ok(PathBuf::from(cache).join("node-binding"))
}

/// Installs what the lock file lists, once, and again when it changes.
fn install(package: &Path, folder: &Path) {
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
    say("installing what the Node package is built with, for a test");
    run(&mut npm(folder, &["ci", "--no-audit", "--no-fund"]));
    std::fs::write(&installed, lock).expect("a note of what is installed");
}

fn npm(folder: &Path, arguments: &[&str]) -> Command {
    let mut npm = Command::new("npm");
    npm.args(arguments).current_dir(folder);
    npm
}

/// Replaces a folder by another's files.
fn copy(from: &Path, to: &Path) {
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
