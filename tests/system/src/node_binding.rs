//! The Node package: the component is transpiled for it, and its own tests run, in `bindings/node/test`.
//! They find the server double and the command by variables.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::foreign::{run, skip};
use crate::npm;
use crate::support::{SETTINGS, built, command, component_file, repository};

/// The folder of the package with what it is built with, and the component transpiled. None where there
/// is no Node.
pub fn package() -> Option<PathBuf> {
    static PACKAGE: OnceLock<Option<PathBuf>> = OnceLock::new();
    PACKAGE.get_or_init(make).clone()
}

fn make() -> Option<PathBuf> {
    let folder = match npm::place("node-binding") {
        Ok(folder) => folder,
        Err(reason) => {
            skip(&reason);
            return None;
        }
    };
    let package = repository().join("bindings/node");
    npm::install(&package, &folder);
    for sources in ["src", "test"] {
        npm::copy(&package.join(sources), &folder.join(sources));
    }
    std::fs::copy(package.join("README.md"), folder.join("README.md")).expect("a copy");
    run(npm::npm(&folder, &["run", "build"]).env("EDGE_SYNC_COMPONENT", component_file()));
    Some(folder)
}

/// Puts the tarball that `npm install` takes into a folder, where there is Node.
pub fn pack(folder: &Path) {
    if let Some(package) = package() {
        run(npm::npm(&package, &["pack", "--silent", "--pack-destination"]).arg(folder));
    }
}

#[test]
fn the_node_package_passes_its_tests() {
    let Some(folder) = package() else {
        return;
    };
    run(&mut npm::npm(&folder, &["run", "types"]));
    let mut tests = npm::npm(&folder, &["test"]);
    tests
        .env("EDGE_SYNC_DOUBLE", built("qdrant-double"))
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
