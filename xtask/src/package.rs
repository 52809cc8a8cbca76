//! `cargo xtask package`: what other hosts install.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{
    build::{self, Built},
    chores::Chores,
    command, progress,
    repository::Repository,
};

/// What the wheel is made with, pinned: another version may write other bytes.
const TOOL: &str = "setuptools==84.2.1";

/// The time of all files in the wheel, so that the same sources make the same bytes: the first that a
/// zip archive has, 1980-01-01, in seconds since 1970.
const TIME_OF_FILES: &str = "315532800";

/// Builds the component, and the Python wheel that has it inside.
///
/// # Errors
/// Where the build fails, or there is no Python.
pub fn everything(chores: &Chores) -> Result<()> {
    let built = build::everything(chores)?;
    let wheel = progress::step("making the Python wheel", || wheel(chores, &built))?;
    built.print();
    println!("wheel      {}", wheel.display());
    Ok(())
}

fn wheel(chores: &Chores, built: &Built) -> Result<PathBuf> {
    let python = tools(&chores.cache.root().join("python-build"))?;
    let products = chores.repository.products();
    for old in wheels(&products)? {
        std::fs::remove_file(&old).with_context(|| format!("removing {}", old.display()))?;
    }
    command::capture(
        Command::new(&python)
            .args(["-m", "pip", "--quiet", "--disable-pip-version-check"])
            .args(["wheel", "--no-deps", "--no-build-isolation"])
            .arg("--wheel-dir")
            .arg(&products)
            .arg(python_package(&chores.repository))
            .env("EDGE_SYNC_COMPONENT", built.component())
            .env("SOURCE_DATE_EPOCH", TIME_OF_FILES),
    )?;
    let made = wheels(&products)?;
    let [wheel] = made.as_slice() else {
        anyhow::bail!("pip left {} wheels", made.len());
    };
    Ok(wheel.clone())
}

fn python_package(repository: &Repository) -> PathBuf {
    repository.root().join("bindings").join("python")
}

/// A Python that has what the wheel is made with; installed once.
fn tools(environment: &Path) -> Result<PathBuf> {
    let python = environment.join("bin").join("python");
    // Says what was installed, and that it was installed as a whole.
    let installed = environment.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == TOOL) {
        return Ok(python);
    }
    ensure!(
        command::exists("python3"),
        "python3 cannot be started: install Python 3.10 or newer (Debian, Ubuntu: apt-get install \
         python3-venv)"
    );
    command::capture(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(environment),
    )?;
    command::capture(
        Command::new(&python)
            .args(["-m", "pip", "--quiet", "--disable-pip-version-check"])
            .args(["install", TOOL]),
    )?;
    std::fs::write(&installed, TOOL).with_context(|| installed.display().to_string())?;
    Ok(python)
}

/// The wheels in a folder.
fn wheels(folder: &Path) -> Result<Vec<PathBuf>> {
    let describe = || format!("the folder {}", folder.display());
    let mut wheels = Vec::new();
    for entry in folder.read_dir().with_context(describe)? {
        let path = entry.with_context(describe)?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            wheels.push(path);
        }
    }
    Ok(wheels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wheels_are_told_from_what_else_was_built() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["edge_sync.wasm", "edge_sync-1-py3-none-any.whl", "demo"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        let wheels = wheels(folder.path()).expect("a list");
        assert_eq!(wheels, [folder.path().join("edge_sync-1-py3-none-any.whl")]);
    }

    #[test]
    fn the_tests_of_the_package_make_it_with_the_same_tool() {
        let repository = Repository::of_this_program().expect("the clone");
        let file = python_package(&repository).join("tests/requirements.txt");
        let requirements = std::fs::read_to_string(file).expect("requirements");
        assert!(requirements.lines().any(|line| line == TOOL));
    }
}
