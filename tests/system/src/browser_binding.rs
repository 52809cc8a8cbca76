//! The browser package: built from the Node package's component, and its own tests run in Chromium, in
//! `bindings/browser/test`.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::foreign::{run, skip};
use crate::support::{built, repository};
use crate::{node_binding, npm};

/// The browser package.
#[derive(Clone)]
pub struct Package {
    folder: PathBuf,
    chromium: PathBuf,
}

impl Package {
    /// A Node program of the package's tests, that knows the browser and the server double.
    pub fn program(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.folder)
            .env("EDGE_SYNC_CHROMIUM", &self.chromium)
            .env("EDGE_SYNC_DOUBLE", built("qdrant-double"));
        command
    }
}

/// The package as a page has it, and a browser. None where there is no Node or no Chromium.
pub fn package() -> Option<Package> {
    static PACKAGE: OnceLock<Option<Package>> = OnceLock::new();
    PACKAGE.get_or_init(make).clone()
}

fn make() -> Option<Package> {
    let found = chromium().and_then(|chromium| {
        let folder = npm::place("browser-binding")?.join("browser");
        Ok(Package { folder, chromium })
    });
    let made = match found {
        Ok(found) => found,
        Err(reason) => {
            skip(&reason);
            return None;
        }
    };
    let node = node_binding::package()?;
    let package = repository().join("bindings/browser");
    npm::install(&package, &made.folder);
    for sources in ["src", "test", "demo"] {
        npm::copy(&package.join(sources), &made.folder.join(sources));
    }
    let digits = edge_sync_fixtures::folder().join("digits.csv.gz");
    std::fs::copy(digits, made.folder.join("demo/digits.csv.gz")).expect("a copy");
    // Where its sources look for the Node package.
    let beside = made.folder.with_file_name("node");
    if beside.read_link().ok().as_ref() != Some(&node) {
        let _ = std::fs::remove_file(&beside);
        std::os::unix::fs::symlink(&node, &beside).expect("a link");
    }
    std::fs::copy(package.join("README.md"), made.folder.join("README.md")).expect("a copy");
    run(&mut npm::npm(&made.folder, &["run", "build"]));
    Some(made)
}

/// The browser: a program that `EDGE_SYNC_CHROMIUM` names, or the first of these on the path.
fn chromium() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("EDGE_SYNC_CHROMIUM") {
        return Ok(PathBuf::from(named));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|program| program.is_file())
        .ok_or_else(|| "no Chromium (Debian: apt-get install chromium)".to_owned())
}

#[test]
fn the_browser_package_passes_its_tests() {
    let Some(package) = package() else {
        return;
    };
    run(package.program("npm").args(["run", "types"]));
    let output = run(package.program("npm").arg("test"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("# fail 0") && text.contains("# skipped 0"),
        "{text}"
    );
}
