//! The Python package: its wheel is made and installed, and its own tests run against it, in
//! `bindings/python/tests`. They find the server double and the command by variables.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::foreign::run;
use crate::python;
use crate::support::{SETTINGS, built, command, component_file, repository};

/// Where the package is in the clone.
pub fn sources() -> PathBuf {
    repository().join("bindings/python")
}

/// A Python with the packages that tests need, and the folder that the package is installed in, made anew
/// in each run. None where there is no Python.
pub fn package() -> Option<(PathBuf, PathBuf)> {
    static PACKAGE: OnceLock<Option<(PathBuf, PathBuf)>> = OnceLock::new();
    PACKAGE.get_or_init(make).clone()
}

fn make() -> Option<(PathBuf, PathBuf)> {
    let requirements = sources().join("tests/requirements.txt");
    let python = python::environment("python-binding", &requirements)?;
    let environment = environment(&python);
    let (site, wheels) = (environment.join("site"), environment.join("wheel"));
    for old in [&site, &wheels] {
        if old.exists() {
            std::fs::remove_dir_all(old).expect("the old one goes");
        }
    }
    let pip = |arguments: &[&str]| {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"])
            .args(arguments);
        pip
    };
    let wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"];
    run(pip(&wheel)
        .arg(&wheels)
        .arg(sources())
        .env("EDGE_SYNC_COMPONENT", component_file()));
    run(pip(&["install", "--no-deps", "--no-index", "--target"])
        .arg(&site)
        .arg(only(&wheels)));
    Some((python, site))
}

/// The wheel that `package` installed.
pub fn wheel() -> Option<PathBuf> {
    let (python, _) = package()?;
    Some(only(&environment(&python).join("wheel")))
}

/// The virtual environment of a Python.
fn environment(python: &Path) -> PathBuf {
    let environment = python.ancestors().nth(2).expect("the environment");
    environment.to_owned()
}

/// The one file in a folder.
fn only(folder: &Path) -> PathBuf {
    let files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let [file] = files.as_slice() else {
        panic!("not one file: {files:?}");
    };
    file.clone()
}

#[test]
fn the_python_package_passes_its_tests() {
    let Some((python, site)) = package() else {
        return;
    };
    let mut tests = Command::new(&python);
    tests
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .current_dir(sources())
        .env("PYTHONPATH", &site)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("EDGE_SYNC_DOUBLE", built("qdrant-double"))
        .env("EDGE_SYNC_BIN", command())
        // The component is the one in the package.
        .env_remove("EDGE_SYNC_COMPONENT");
    for name in SETTINGS {
        tests.env_remove(name);
    }
    let output = run(&mut tests);
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    assert!(
        last.contains(" passed") && !last.contains("skipped"),
        "{text}"
    );
}
