//! `cargo xtask package`: what other hosts install.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{
    build::{self, Built},
    cache::create_folder,
    chores::Chores,
    command, digest, progress,
    repository::Repository,
};

/// What the wheel is made with, pinned: another version may write other bytes.
const TOOL: &str = "setuptools==84.2.1";

/// The time of all files in the wheel, so that the same sources make the same bytes: the first that a
/// zip archive has, 1980-01-01, in seconds since 1970.
const TIME_OF_FILES: &str = "315532800";

/// Builds the component, and the Python wheel and the npm package that have it inside.
///
/// # Errors
/// Where the build fails, or there is no Python or no Node.
pub fn everything(chores: &Chores) -> Result<()> {
    let built = build::everything(chores)?;
    let wheel = progress::step("making the Python wheel", || wheel(chores, &built))?;
    let tarball = progress::step("making the npm package", || tarball(chores, &built))?;
    let sums = chores.repository.products().join("SHA256SUMS");
    write_sums(&sums, &[built.component(), built.names(), &wheel, &tarball])?;
    built.print();
    println!("wheel      {}", wheel.display());
    println!("npm        {}", tarball.display());
    println!("checksums  {}", sums.display());
    Ok(())
}

/// Writes what `sha256sum --check` reads, of files that lie beside.
fn write_sums(sums: &Path, files: &[&Path]) -> Result<()> {
    let mut text = String::new();
    for file in files {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        let name = file.file_name().context("a file without a name")?;
        let digest = digest::sha256(&bytes);
        text.push_str(&format!("{digest}  {}\n", name.to_string_lossy()));
    }
    std::fs::write(sums, text).with_context(|| sums.display().to_string())
}

fn wheel(chores: &Chores, built: &Built) -> Result<PathBuf> {
    let python = tools(&chores.cache.root().join("python-build"))?;
    let products = chores.repository.products();
    remove_made(&products, "whl")?;
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
    only(&products, "whl")
}

fn tarball(chores: &Chores, built: &Built) -> Result<PathBuf> {
    let package = chores.repository.root().join("bindings").join("node");
    let products = chores.repository.products();
    remove_made(&products, "tgz")?;
    // Apart from the clone: what it is transpiled with has some 400 MB.
    let folder = chores.cache.root().join("node-build");
    create_folder(&folder)?;
    copy_files(&package, &folder)?;
    // npm follows no links.
    let licence = chores.repository.root().join("LICENSE");
    std::fs::copy(&licence, folder.join("LICENSE")).context("copying the licence")?;
    for sources in ["src", "generated"] {
        let old = folder.join(sources);
        if old.exists() {
            std::fs::remove_dir_all(&old).with_context(|| format!("removing {}", old.display()))?;
        }
    }
    create_folder(&folder.join("src"))?;
    copy_files(&package.join("src"), &folder.join("src"))?;
    let npm = |arguments: &[&str]| {
        let mut npm = Command::new("npm");
        npm.args(arguments).current_dir(&folder);
        npm
    };
    let lock = folder.join("package-lock.json");
    let wanted = std::fs::read_to_string(&lock).with_context(|| lock.display().to_string())?;
    // Says what was installed, and that it was installed as a whole.
    let installed = folder.join("installed.json");
    if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        progress::note("what it is transpiled with is there");
    } else {
        command::capture(&mut npm(&["ci", "--no-audit", "--no-fund"]))?;
        std::fs::write(&installed, wanted).with_context(|| installed.display().to_string())?;
    }
    command::capture(npm(&["run", "build"]).env("EDGE_SYNC_COMPONENT", built.component()))?;
    command::capture(npm(&["pack", "--silent", "--pack-destination"]).arg(&products))?;
    only(&products, "tgz")
}

/// Copies the files of a folder, without the folders in it.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for path in files(from)? {
        let name = path.file_name().context("a file without a name")?;
        std::fs::copy(&path, to.join(name))
            .with_context(|| format!("copying {}", path.display()))?;
    }
    Ok(())
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

/// Removes what an earlier run made: files with this ending.
fn remove_made(folder: &Path, extension: &str) -> Result<()> {
    for old in made(folder, extension)? {
        std::fs::remove_file(&old).with_context(|| format!("removing {}", old.display()))?;
    }
    Ok(())
}

/// The one file with this ending.
fn only(folder: &Path, extension: &str) -> Result<PathBuf> {
    let made = made(folder, extension)?;
    match made.as_slice() {
        [one] => Ok(one.clone()),
        _ => bail!("{} files .{extension} in {}", made.len(), folder.display()),
    }
}

fn made(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut made = files(folder)?;
    made.retain(|path| path.extension().is_some_and(|found| found == extension));
    Ok(made)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let describe = || format!("the folder {}", folder.display());
    let mut files = Vec::new();
    for entry in folder.read_dir().with_context(describe)? {
        let path = entry.with_context(describe)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_told_from_what_else_was_built() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["edge_sync.wasm", "edge_sync-1-py3-none-any.whl", "demo"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        let wheel = only(folder.path(), "whl").expect("one");
        assert_eq!(wheel, folder.path().join("edge_sync-1-py3-none-any.whl"));
        assert!(only(folder.path(), "tgz").is_err());
        remove_made(folder.path(), "whl").expect("it goes");
        assert_eq!(files(folder.path()).expect("a list").len(), 2);
    }

    #[test]
    fn sums_are_those_that_sha256sum_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a");
        std::fs::write(&file, "abc").expect("a file");
        let sums = folder.path().join("SHA256SUMS");
        write_sums(&sums, &[&file]).expect("sums");
        assert_eq!(
            std::fs::read_to_string(sums).expect("sums"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n"
        );
    }

    #[test]
    fn the_tests_of_the_package_make_it_with_the_same_tool() {
        let repository = Repository::of_this_program().expect("the clone");
        let file = python_package(&repository).join("tests/requirements.txt");
        let requirements = std::fs::read_to_string(file).expect("requirements");
        assert!(requirements.lines().any(|line| line == TOOL));
    }
}
