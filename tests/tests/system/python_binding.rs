//! The Python package: its wheel is made and installed, and its own tests run against it, in
//! `bindings/python/tests`. They find the server double and the command by variables.

use std::path::PathBuf;
use std::process::Command;

use crate::foreign::run;
use crate::python;
use crate::support::{SETTINGS, command, component_file};

#[test]
fn the_python_package_passes_its_tests() {
    let package = edge_sync_tests::package_folder().join("../bindings/python");
    let requirements = package.join("tests/requirements.txt");
    let Some(python) = python::environment("python-binding", &requirements) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let site = folder.path().join("site");
    let pip = |arguments: &[&str]| {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"])
            .args(arguments);
        pip
    };
    run(
        pip(&["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir"])
            .arg(folder.path())
            .arg(&package)
            .env("EDGE_SYNC_COMPONENT", component_file()),
    );
    let wheels: Vec<PathBuf> = std::fs::read_dir(folder.path())
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .collect();
    let [wheel] = wheels.as_slice() else {
        panic!("not one wheel: {wheels:?}");
    };
    run(pip(&["install", "--no-deps", "--no-index", "--target"])
        .arg(&site)
        .arg(wheel));

    let mut tests = Command::new(&python);
    tests
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider"])
        .current_dir(&package)
        .env("PYTHONPATH", &site)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("EDGE_SYNC_DOUBLE", env!("CARGO_BIN_EXE_qdrant-double"))
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
