//! `cargo xtask package`: what other hosts install.

mod oci;
mod sbom;
mod wit;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{
    build::{self, Built},
    chores::Chores,
    command, digest,
    files::create_folder,
    hygiene, progress, remap,
    repository::{self, Repository},
    target,
};

/// What the wheel is made with, pinned: another version may write other bytes.
const TOOL: &str = "setuptools==84.2.1";

/// The checksums of all files, as `sha256sum` writes them.
const SUMS: &str = "SHA256SUMS";

/// Folder of the OCI image layout.
const IMAGE: &str = "oci";

/// The time of all files in the wheel, so that the same sources make the same bytes: the first that a
/// zip archive has, 1980-01-01, in seconds since 1970.
const TIME_OF_FILES: &str = "315532800";

/// What the packages are made with, beside what the build needs.
const PROGRAMS: [&str; 2] = ["python3", "npm"];

/// What was made: what it is and where.
struct Made(Vec<(&'static str, PathBuf)>);

/// Builds the component, and everything that other hosts install: the component without names, alone and as
/// an OCI image layout, its WIT as a package, what it is made of, and the packages for Python, Node and
/// browsers that have it inside. The same sources make the same bytes.
///
/// # Errors
/// Where the build fails, or there is no Python or no Node.
pub fn everything(chores: &Chores) -> Result<()> {
    let built = build::everything(chores, &[build::COMMAND])?;
    let made = make(chores, &built)?;
    built.print();
    for (what, path) in made.0 {
        println!("{what:<10} {}", path.display());
    }
    Ok(())
}

/// Makes the packages twice, which has to give the same bytes, and checks what can be checked without
/// installing them: the checksums and the image. The README's test installs them. False where there is
/// nothing to make them with, which on CI is an error.
///
/// # Errors
/// Says what does not hold.
pub fn test(chores: &Chores, built: &Built) -> Result<bool> {
    if let Some(program) = PROGRAMS.iter().find(|program| !command::exists(program)) {
        let reason = format!("there is no {program} to make the packages with");
        ensure!(!is_ci(), "not to be skipped on CI: {reason}");
        progress::note(&format!("skipped: {reason}"));
        return Ok(false);
    }
    let products = chores.repository.products();
    let sums = || {
        make(chores, built)?;
        let sums = products.join(SUMS);
        std::fs::read_to_string(&sums).with_context(|| sums.display().to_string())
    };
    let (first, second) = (sums()?, sums()?);
    let differs = differing(&first, &second);
    ensure!(
        differs.is_empty(),
        "made twice, these are not the same: {}",
        differs.join(", ")
    );
    command::capture(
        Command::new("sha256sum")
            .args(["--check", "--strict", "--quiet", SUMS])
            .current_dir(&products),
    )?;
    oci::check(&products.join(IMAGE), &read(built.component())?)?;
    Ok(true)
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// The files that only one of two lists of checksums has, or with another sum.
fn differing(one: &str, other: &str) -> Vec<String> {
    let of = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let lines = &of(one) ^ &of(other);
    let names = lines
        .iter()
        .filter_map(|line| line.split_once("  "))
        .map(|(_, name)| name.to_owned());
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn make(chores: &Chores, built: &Built) -> Result<Made> {
    let products = chores.repository.products();
    let version = version(&chores.repository)?;
    let named = |ending: &str| products.join(format!("edge-sync-{version}{ending}"));
    // Its names are in a file of their own already.
    let component = built.component();
    let bytes = read(component)?;
    let told = remap::left(chores, &bytes)?;
    ensure!(
        told.is_empty(),
        "{} tells of folders of this machine: {told:?}",
        component.display()
    );
    let wit = named(".wit.wasm");
    progress::step("encoding the WIT package", || {
        write(&wit, &wit::package(&chores.repository.root().join("wit"))?)
    })?;
    let sbom = named(".cdx.json");
    progress::step("listing what the component is made of", || {
        let component = chores.repository.component();
        let metadata = hygiene::resolve(chores, &component, target::TRIPLE)?;
        let document = sbom::document(&metadata, &bytes, &version)?;
        write(&sbom, format!("{document:#}\n").as_bytes())
    })?;
    let (stripped, image) = (named(".wasm"), products.join(IMAGE));
    progress::step("making the image", || {
        write(&stripped, &bytes)?;
        remove_folder(&image)?;
        oci::write(&image, &bytes, &version)
    })?;
    let wheel = progress::step("making the Python wheel", || wheel(chores, &stripped))?;
    let tarball = progress::step("making the npm package", || tarball(chores, &stripped))?;
    let site = products.join("browser");
    progress::step("making the browser package", || browser(chores, &site))?;
    let sums = products.join(SUMS);
    let mut files = vec![built.component().to_owned(), built.names().to_owned()];
    files.extend([stripped.clone(), wit.clone()]);
    files.extend([sbom.clone(), wheel.clone(), tarball.clone()]);
    for folder in [&image, &site] {
        repository::walk(folder, &mut |path| files.push(path.to_owned()))?;
    }
    write_sums(&sums, &products, &files)?;
    Ok(Made(vec![
        ("stripped", stripped),
        ("WIT", wit),
        ("OCI", image),
        ("SBOM", sbom),
        ("wheel", wheel),
        ("npm", tarball),
        ("browser", site),
        ("checksums", sums),
    ]))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}

/// The version of the WIT package, which is that of everything.
fn version(repository: &Repository) -> Result<String> {
    let path = repository.root().join("wit").join("types.wit");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let package = text.lines().find_map(|line| line.strip_prefix("package "));
    let version = package.and_then(|name| name.trim_end_matches(';').split_once('@'));
    let (_, version) = version.with_context(|| format!("no version in {}", path.display()))?;
    Ok(version.to_owned())
}

/// Writes what `sha256sum --check` reads, of files below the folder that the sums are in.
fn write_sums(sums: &Path, folder: &Path, files: &[PathBuf]) -> Result<()> {
    let mut lines = Vec::new();
    for file in files {
        let bytes = read(file)?;
        let name = file.strip_prefix(folder).context("a file elsewhere")?;
        lines.push((
            name,
            format!("{}  {}\n", digest::sha256(&bytes), name.display()),
        ));
    }
    lines.sort();
    let text: String = lines.into_iter().map(|(_, line)| line).collect();
    write(sums, text.as_bytes())
}

fn wheel(chores: &Chores, component: &Path) -> Result<PathBuf> {
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
            .env("EDGE_SYNC_COMPONENT", component)
            .env("SOURCE_DATE_EPOCH", TIME_OF_FILES),
    )?;
    only(&products, "whl")
}

fn tarball(chores: &Chores, component: &Path) -> Result<PathBuf> {
    let products = chores.repository.products();
    remove_made(&products, "tgz")?;
    let folder = npm_folder(chores, "node", &["src"])?;
    // npm follows no links.
    let licence = chores.repository.root().join("LICENSE");
    std::fs::copy(&licence, folder.join("LICENSE")).context("copying the licence")?;
    remove_folder(&folder.join("generated"))?;
    command::capture(npm(&folder, &["run", "build"]).env("EDGE_SYNC_COMPONENT", component))?;
    for packed in [folder.clone(), folder.join("src"), folder.join("generated")] {
        same_modes(&packed)?;
    }
    command::capture(npm(&folder, &["pack", "--silent", "--pack-destination"]).arg(&products))?;
    only(&products, "tgz")
}

/// The browser package, with the demo: of what the npm package was transpiled to.
fn browser(chores: &Chores, site: &Path) -> Result<()> {
    let folder = npm_folder(chores, "browser", &["src", "demo"])?;
    let digits = chores
        .repository
        .root()
        .join("tests/fixtures/digits.csv.gz");
    std::fs::copy(&digits, folder.join("demo/digits.csv.gz")).context("copying the digits")?;
    let dist = folder.join("dist");
    remove_folder(&dist)?;
    command::capture(&mut npm(&folder, &["run", "build"]))?;
    remove_folder(site)?;
    create_folder(site)?;
    copy_files(&dist, site)
}

/// A copy of an npm package of `bindings`, apart from the clone, with what it is built with: some 400 MB.
fn npm_folder(chores: &Chores, name: &str, sources: &[&str]) -> Result<PathBuf> {
    let package = chores.repository.root().join("bindings").join(name);
    // Beside each other, as in the clone.
    let folder = chores.cache.root().join("npm-build").join(name);
    create_folder(&folder)?;
    copy_files(&package, &folder)?;
    for sources in sources {
        remove_folder(&folder.join(sources))?;
        create_folder(&folder.join(sources))?;
        copy_files(&package.join(sources), &folder.join(sources))?;
    }
    let lock = folder.join("package-lock.json");
    let wanted = std::fs::read_to_string(&lock).with_context(|| lock.display().to_string())?;
    // Says what was installed, and that it was installed as a whole.
    let installed = folder.join("installed.json");
    if std::fs::read_to_string(&installed).is_ok_and(|installed| installed == wanted) {
        progress::note("what it is built with is there");
    } else {
        command::capture(&mut npm(&folder, &["ci", "--no-audit", "--no-fund"]))?;
        std::fs::write(&installed, wanted).with_context(|| installed.display().to_string())?;
    }
    Ok(folder)
}

/// Makes the files of a folder readable for everyone: packages keep the modes of files, and those of the
/// clone are whoever's who made it.
fn same_modes(folder: &Path) -> Result<()> {
    for file in files(folder)? {
        std::fs::set_permissions(&file, Permissions::from_mode(0o644))
            .with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn npm(folder: &Path, arguments: &[&str]) -> Command {
    let mut npm = Command::new("npm");
    npm.args(arguments).current_dir(folder);
    npm
}

fn remove_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
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
    fn modes_are_the_same_whoever_made_the_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a");
        std::fs::write(&file, "").expect("a file");
        for mode in [0o600, 0o664, 0o755] {
            std::fs::set_permissions(&file, Permissions::from_mode(mode)).expect("a mode");
            same_modes(folder.path()).expect("it is changed");
            let mode = file.metadata().expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o644);
        }
    }

    #[test]
    fn sums_are_those_that_sha256sum_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a");
        std::fs::write(&file, "abc").expect("a file");
        let sums = folder.path().join("SHA256SUMS");
        let deeper = folder.path().join("b/c");
        std::fs::create_dir(folder.path().join("b")).expect("a folder");
        std::fs::write(&deeper, "abc").expect("a file");
        write_sums(&sums, folder.path(), &[deeper, file]).expect("sums");
        assert_eq!(
            std::fs::read_to_string(sums).expect("sums"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n\
             ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b/c\n"
        );
    }

    #[test]
    fn what_is_not_the_same_is_named_once() {
        let (one, other) = ("1  same\n2  a\n3  gone\n", "1  same\n4  a\n");
        assert_eq!(differing(one, other), ["a", "gone"]);
        assert!(differing(one, one).is_empty());
    }

    #[test]
    fn the_tests_of_the_package_make_it_with_the_same_tool() {
        let repository = Repository::of_this_program().expect("the clone");
        let file = python_package(&repository).join("tests/requirements.txt");
        let requirements = std::fs::read_to_string(file).expect("requirements");
        assert!(requirements.lines().any(|line| line == TOOL));
    }
}
