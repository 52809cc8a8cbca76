//! The crates that are built from other sources than the registry's: fetched, checked, patched.
//!
//! A folder in `ports/` is one of two things. With a `port.toml` it names a registry crate, its
//! checksum and the patches for each target. Without one it is a stand-in, a crate of our own in
//! the place of one that cannot work on WASI.
//!
//! Both are laid out in the cache, in a folder named after a digest of all that went into it, and
//! linked to from `.ports/` (for this machine) and `component/.ports/` (for WASI), where
//! `[patch.crates-io]` finds them. The links are below the workspaces so that cargo knows the crates
//! by the same relative path in every clone, and thus builds them once for all clones. (For the
//! same reason the component takes crates of the other workspace by a link to the clone,
//! `component/.clone`.) The files of ports have one fixed age, which alone would let cargo take
//! artifacts of other sources for theirs, so the manifest also declares a feature named after the
//! digest: cargo builds a crate again when the features that it declares change, under the same
//! name.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use serde::Deserialize;

use crate::{
    cache,
    chores::Chores,
    command, digest,
    files::{create_folder, link, remove},
    patching, progress,
    repository::{self, Repository},
};

/// Part of every digest. To be raised when the same inputs are to be laid out in another way.
const LAYOUT: &str = "2";

/// What `cargo package` gives the files in a crate: seconds since 1970.
const FILE_AGE: Duration = Duration::from_secs(1_153_704_088);

/// Parts of a stand-in that its users do not compile.
const NOT_BUILT: [&str; 6] = [
    "Cargo.lock",
    "README.md",
    "benches",
    "proptest-regressions",
    "target",
    "tests",
];

/// What a port is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The host, the tests and the server double.
    Native,
    /// The component.
    Wasi,
}

/// The file `port.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortFile {
    #[serde(rename = "crate")]
    name: String,
    version: String,
    /// Of the `.crate` file, as in the registry's index and in lock files.
    sha256: String,
    patches: Vec<PatchEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PatchEntry {
    file: String,
    targets: Vec<Target>,
}

/// A registry crate and what is changed in it.
#[derive(Debug)]
struct Port {
    file: PortFile,
    folder: PathBuf,
}

/// A crate of our own.
#[derive(Debug)]
struct StandIn {
    name: String,
    folder: PathBuf,
    /// Relative paths, in order.
    files: Vec<PathBuf>,
}

/// Lays out all ports and links the clone to them.
///
/// # Errors
/// Where a crate cannot be fetched, is not the one that was ported, or a patch does not fit.
pub fn provide(chores: &Chores) -> Result<()> {
    let (ports, stand_ins) = read(&chores.repository.ports())?;
    let store = chores.cache.root().join("ports");
    create_folder(&store)?;
    fetch_ports(chores, &ports)?;
    let root = chores.repository.root();
    let places = [
        (Target::Native, root.join(".ports")),
        (Target::Wasi, chores.repository.component().join(".ports")),
    ];
    for (target, place) in places {
        let mut links = Vec::new();
        for port in &ports {
            if port.patches(target).next().is_some() {
                links.push((port.file.name.as_str(), port.lay_out(&store, target)?));
            }
        }
        if target == Target::Wasi {
            for stand_in in &stand_ins {
                links.push((stand_in.name.as_str(), stand_in.lay_out(&store)?));
            }
        }
        link_all(&place, &links)?;
    }
    let clone = chores.repository.component().join(repository::CLONE);
    link(Path::new(".."), &clone)
}

/// The crates that builds for `target` must take from here.
///
/// # Errors
/// Where the descriptions in `ports/` cannot be read.
pub fn names(repository: &Repository, target: Target) -> Result<Vec<String>> {
    let (ports, stand_ins) = read(&repository.ports())?;
    let ported = ports
        .into_iter()
        .filter(|port| port.patches(target).next().is_some());
    let mut names: Vec<String> = ported.map(|port| port.file.name).collect();
    if target == Target::Wasi {
        names.extend(stand_ins.into_iter().map(|stand_in| stand_in.name));
    }
    Ok(names)
}

/// Lays out what replaces crates in the component, but for the crate `except`, and returns name and folder
/// of each. The clone's links stay as they are.
///
/// # Errors
/// As [`provide`].
pub fn lay_out_others(chores: &Chores, except: &str) -> Result<Vec<(String, PathBuf)>> {
    let (mut ports, stand_ins) = read(&chores.repository.ports())?;
    ports.retain(|port| port.file.name != except && port.patches(Target::Wasi).next().is_some());
    let store = chores.cache.root().join("ports");
    create_folder(&store)?;
    fetch_ports(chores, &ports)?;
    let mut places = Vec::new();
    for port in ports {
        let place = port.lay_out(&store, Target::Wasi)?;
        places.push((port.file.name, place));
    }
    for stand_in in stand_ins {
        let place = stand_in.lay_out(&store)?;
        places.push((stand_in.name, place));
    }
    Ok(places)
}

/// The version of a registry crate that is in use.
///
/// # Errors
/// Where there is no port of the crate.
pub fn version(repository: &Repository, name: &str) -> Result<String> {
    find(repository, name).map(|port| port.file.version)
}

/// The patches of a registry crate, in the order in which they are applied.
///
/// # Errors
/// Where there is no port of the crate.
pub fn patches(repository: &Repository, name: &str, target: Target) -> Result<Vec<PathBuf>> {
    find(repository, name).map(|port| port.patches(target).collect())
}

/// Unpacks any release of a registry crate into `folder`, as it is, and returns the archive's SHA-256.
///
/// # Errors
/// Where cargo cannot get the release.
pub fn unpack_release(chores: &Chores, name: &str, version: &str, folder: &Path) -> Result<String> {
    let id = id(name, version);
    fetch_missing(chores, &[(name, version)])?;
    let archive = fetched(&id)?;
    // Cargo has compared it with the registry's.
    let sha256 = digest::sha256(&read_bytes(&archive)?);
    unpack(&archive, &sha256, &id, folder)?;
    Ok(sha256)
}

fn find(repository: &Repository, name: &str) -> Result<Port> {
    let (ports, _) = read(&repository.ports())?;
    let mut ports = ports.into_iter();
    ports
        .find(|port| port.file.name == name)
        .with_context(|| format!("ports/ has no {name}"))
}

fn read(folder: &Path) -> Result<(Vec<Port>, Vec<StandIn>)> {
    let mut ports = Vec::new();
    let mut stand_ins = Vec::new();
    for folder in repository::folders(folder)? {
        let description = folder.join("port.toml");
        if description.is_file() {
            let text = read_text(&description)?;
            let file = toml::from_str(&text).with_context(|| description.display().to_string())?;
            ports.push(Port { file, folder });
        } else if folder.join("Cargo.toml").is_file() {
            stand_ins.push(StandIn::read(folder)?);
        }
    }
    Ok((ports, stand_ins))
}

impl Port {
    /// The patches for `target`, in the order in which they are applied.
    fn patches(&self, target: Target) -> impl Iterator<Item = PathBuf> {
        let entries = self.file.patches.iter();
        entries
            .filter(move |patch| patch.targets.contains(&target))
            .map(|patch| self.folder.join(&patch.file))
    }

    fn id(&self) -> String {
        id(&self.file.name, &self.file.version)
    }

    fn digest(&self, target: Target) -> Result<String> {
        let mut digest = digest::Short::default();
        for part in [
            LAYOUT,
            &self.file.name,
            &self.file.version,
            &self.file.sha256,
        ] {
            digest.add(part.as_bytes());
        }
        for patch in self.patches(target) {
            digest.add(&read_bytes(&patch)?);
        }
        Ok(digest.finish())
    }

    fn lay_out(&self, store: &Path, target: Target) -> Result<PathBuf> {
        let digest = self.digest(target)?;
        let id = self.id();
        let place = store.join(format!("{id}-{digest}"));
        if place.is_dir() {
            return Ok(place);
        }
        progress::step(&format!("patching {id} for {target:?}"), || {
            let archive = fetched(&id)?;
            let stage = cache::stage(store)?;
            unpack(&archive, &self.file.sha256, &id, stage.path())?;
            let sources = stage.path().join(&id);
            for patch in self.patches(target) {
                patching::apply(&patch, &sources)?;
            }
            finish(&sources, &digest, &place)
        })?;
        Ok(place)
    }
}

impl StandIn {
    fn read(folder: PathBuf) -> Result<Self> {
        let manifest = folder.join("Cargo.toml");
        let table = read_manifest(&manifest)?;
        let name = table
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(toml::Value::as_str)
            .with_context(|| format!("{} names no package", manifest.display()))?
            .to_owned();
        let mut files = Vec::new();
        repository::walk(&folder, &mut |path| {
            let relative = path.strip_prefix(&folder).unwrap_or(path);
            let first = relative.iter().next().unwrap_or_default();
            if !NOT_BUILT.iter().any(|part| first == OsStr::new(part)) {
                files.push(relative.to_owned());
            }
        })?;
        Ok(Self {
            name,
            folder,
            files,
        })
    }

    fn lay_out(&self, store: &Path) -> Result<PathBuf> {
        let mut digest = digest::Short::default();
        digest.add(LAYOUT.as_bytes());
        for file in &self.files {
            digest.add(file.as_os_str().as_encoded_bytes());
            digest.add(&read_bytes(&self.folder.join(file))?);
        }
        let digest = digest.finish();
        let place = store.join(format!("{}-{digest}", self.name));
        if place.is_dir() {
            return Ok(place);
        }
        progress::step(
            &format!("laying out the stand-in for {}", self.name),
            || {
                let stage = cache::stage(store)?;
                let sources = stage.path().join(&self.name);
                for file in &self.files {
                    let to = sources.join(file);
                    create_folder(to.parent().unwrap_or(&sources))?;
                    std::fs::copy(self.folder.join(file), &to)
                        .with_context(|| format!("copying to {}", to.display()))?;
                }
                finish(&sources, &digest, &place)
            },
        )?;
        Ok(place)
    }
}

/// Marks complete sources with their digest, gives them their age and moves them to their place.
fn finish(sources: &Path, digest: &str, place: &Path) -> Result<()> {
    mark(&sources.join("Cargo.toml"), digest)?;
    let age = SystemTime::UNIX_EPOCH + FILE_AGE;
    let mut result = Ok(());
    repository::walk(sources, &mut |path| {
        let set = File::options()
            .append(true)
            .open(path)
            .and_then(|file| file.set_modified(age));
        if let Err(error) = set
            && result.is_ok()
        {
            result = Err(error).with_context(|| format!("setting the age of {}", path.display()));
        }
    })?;
    result?;
    std::fs::rename(sources, place).with_context(|| place.display().to_string())
}

/// Declares a feature that does nothing but to tell these sources from others.
fn mark(manifest: &Path, digest: &str) -> Result<()> {
    let mut table = read_manifest(manifest)?;
    table
        .entry("features")
        .or_insert_with(|| toml::Value::Table(toml::Table::new()))
        .as_table_mut()
        .with_context(|| format!("{} has odd features", manifest.display()))?
        .insert(mark_name(digest), toml::Value::Array(Vec::new()));
    write(manifest, &toml::to_string(&table)?)
}

fn mark_name(digest: &str) -> String {
    format!("sources-{digest}")
}

/// Links `place/<crate>` to each crate's sources; other links there go.
fn link_all(place: &Path, links: &[(&str, PathBuf)]) -> Result<()> {
    if place.is_symlink() {
        remove(place)?;
    }
    create_folder(place)?;
    for entry in place
        .read_dir()
        .with_context(|| place.display().to_string())?
    {
        let path = entry.with_context(|| place.display().to_string())?.path();
        let wanted = links
            .iter()
            .any(|(name, _)| path.file_name() == Some(OsStr::new(name)));
        if path.is_symlink() && !wanted {
            remove(&path)?;
        }
    }
    for (name, sources) in links {
        link(sources, &place.join(name))?;
    }
    Ok(())
}

fn fetch_ports(chores: &Chores, ports: &[Port]) -> Result<()> {
    let crates: Vec<_> = ports
        .iter()
        .map(|port| (port.file.name.as_str(), port.file.version.as_str()))
        .collect();
    fetch_missing(chores, &crates)
}

/// Has cargo download the crates that its cache lacks, given by name and version.
fn fetch_missing(chores: &Chores, crates: &[(&str, &str)]) -> Result<()> {
    let home = cargo_home()?;
    let missing: Vec<_> = crates
        .iter()
        .filter(|(name, version)| find_archive(&home, &id(name, version)).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing
        .iter()
        .map(|(name, version)| id(name, version))
        .collect();
    progress::step(&format!("fetching {}", names.join(", ")), || {
        let folder = tempfile::tempdir().context("a temporary folder")?;
        let mut manifest = String::from(
            "[workspace]\n[package]\nname = \"fetch\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n[dependencies]\n",
        );
        for (name, version) in missing {
            writeln!(manifest, "{name} = \"={version}\"")?;
        }
        write(&folder.path().join("Cargo.toml"), &manifest)?;
        write(&folder.path().join("lib.rs"), "")?;
        // So that what they depend on is what the build needs as well.
        let lock = chores.repository.root().join("Cargo.lock");
        if lock.is_file() {
            write(&folder.path().join("Cargo.lock"), &read_text(&lock)?)?;
        }
        command::capture(
            chores
                .toolchain
                .cargo()
                .args(["fetch", "--target", &chores.toolchain.host])
                .current_dir(folder.path()),
        )
        .map(drop)
        .context("cargo cannot get them: check its registry settings and the network")
    })
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
        return Ok(PathBuf::from(home));
    }
    let home = std::env::home_dir().context("no home folder: set CARGO_HOME")?;
    Ok(home.join(".cargo"))
}

/// How the file and the folder of a crate are called.
fn id(name: &str, version: &str) -> String {
    format!("{name}-{version}")
}

fn fetched(id: &str) -> Result<PathBuf> {
    find_archive(&cargo_home()?, id).with_context(|| format!("cargo fetched no {id}.crate"))
}

fn archive(id: &str) -> String {
    format!("{id}.crate")
}

/// The downloaded archive of a crate, from whichever registry cargo is set up to use.
fn find_archive(cargo_home: &Path, id: &str) -> Option<PathBuf> {
    let registries = repository::folders(&cargo_home.join("registry/cache")).ok()?;
    registries
        .into_iter()
        .map(|registry| registry.join(archive(id)))
        .find(|archive| archive.is_file())
}

/// Where cargo unpacks crates: a folder for each registry that ports were fetched from, and all of them.
///
/// # Errors
/// Where the descriptions in `ports/` or cargo's folder cannot be read.
pub fn unpacked(repository: &Repository) -> Result<Vec<PathBuf>> {
    let (ports, _) = read(&repository.ports())?;
    let home = cargo_home()?;
    let sources = home.join("registry/src");
    let mut folders = vec![sources.clone()];
    for registry in repository::folders(&home.join("registry/cache"))? {
        let is_used = ports
            .iter()
            .any(|port| registry.join(archive(&port.id())).is_file());
        if let (true, Some(name)) = (is_used, registry.file_name()) {
            folders.push(sources.join(name));
        }
    }
    Ok(folders)
}

/// Unpacks `archive` into `folder`, if its checksum is `sha256` and all of it is below `id/`.
fn unpack(archive: &Path, sha256: &str, id: &str, folder: &Path) -> Result<()> {
    let bytes = read_bytes(archive)?;
    let found = digest::sha256(&bytes);
    ensure!(
        found.eq_ignore_ascii_case(sha256),
        "{} is not what was ported: its SHA-256 is {found}, and port.toml has {sha256}",
        archive.display()
    );
    let mut entries = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
    for entry in entries.entries()? {
        let mut entry = entry.with_context(|| archive.display().to_string())?;
        let path = entry.path()?.into_owned();
        if !path.starts_with(id) || !entry.unpack_in(folder)? {
            bail!(
                "{} holds {}, outside of {id}/",
                archive.display(),
                path.display()
            );
        }
    }
    Ok(())
}

fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn read_manifest(path: &Path) -> Result<toml::Table> {
    toml::from_str(&read_text(path)?).with_context(|| path.display().to_string())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const LIBRARY: &str = "pub fn answer() -> u32 {\n    41\n}\n";
    const PATCH: &str = "--- a/src/lib.rs\n+++ b/src/lib.rs\n@@ -1,3 +1,3 @@\n pub fn answer() -> u32 {\n-    41\n+    42\n }\n";

    fn archive(folder: &Path, entries: &[(&str, &str)]) -> PathBuf {
        let file = folder.join("answer-1.0.0.crate");
        let mut builder = tar::Builder::new(GzEncoder::new(
            File::create(&file).expect("a file"),
            Compression::fast(),
        ));
        for (path, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            let name = header.as_gnu_mut().expect("a GNU header");
            name.name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            builder.append(&header, text.as_bytes()).expect("appended");
        }
        builder
            .into_inner()
            .and_then(GzEncoder::finish)
            .expect("an archive");
        file
    }

    fn sum(file: &Path) -> String {
        digest::sha256(&std::fs::read(file).expect("the file"))
    }

    #[test]
    fn port_files_are_read_and_misspellings_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let port = folder.path().join("answer");
        create_folder(&port).expect("a folder");
        let text = "crate = \"answer\"\nversion = \"1.0.0\"\nsha256 = \"00\"\n\
            [[patches]]\nfile = \"a.patch\"\ntargets = [\"native\", \"wasi\"]\n\
            [[patches]]\nfile = \"b.patch\"\ntargets = [\"wasi\"]\n";
        write(&port.join("port.toml"), text).expect("written");
        let (ports, stand_ins) = read(folder.path()).expect("read");
        assert!(stand_ins.is_empty());
        let [port] = ports.as_slice() else {
            panic!("one port: {ports:?}");
        };
        assert_eq!(port.patches(Target::Native).count(), 1);
        assert_eq!(port.patches(Target::Wasi).count(), 2);
        write(
            &port.folder.join("port.toml"),
            &text.replace("targets", "target"),
        )
        .expect("written");
        assert!(read(folder.path()).is_err());
    }

    #[test]
    fn digests_follow_content_and_target() {
        let folder = tempfile::tempdir().expect("a folder");
        let port = Port {
            file: toml::from_str(
                "crate = \"answer\"\nversion = \"1.0.0\"\nsha256 = \"00\"\n\
                 patches = [{ file = \"a\", targets = [\"wasi\"] }]\n",
            )
            .expect("a port"),
            folder: folder.path().to_owned(),
        };
        write(&folder.path().join("a"), "one").expect("written");
        let first = port.digest(Target::Wasi).expect("a digest");
        assert_eq!(first, port.digest(Target::Wasi).expect("a digest"));
        assert_ne!(first, port.digest(Target::Native).expect("a digest"));
        write(&folder.path().join("a"), "two").expect("written");
        assert_ne!(first, port.digest(Target::Wasi).expect("a digest"));
    }

    #[test]
    fn only_the_ported_archive_is_unpacked() {
        let folder = tempfile::tempdir().expect("a folder");
        let good = archive(folder.path(), &[("answer-1.0.0/src/lib.rs", LIBRARY)]);
        let error = unpack(&good, &"0".repeat(64), "answer-1.0.0", folder.path())
            .expect_err("another checksum");
        assert!(error.to_string().contains("not what was ported"), "{error}");
        assert!(!folder.path().join("answer-1.0.0").exists());
        unpack(&good, &sum(&good), "answer-1.0.0", folder.path()).expect("unpacked");
        let other = archive(folder.path(), &[("other/src/lib.rs", LIBRARY)]);
        assert!(unpack(&other, &sum(&other), "answer-1.0.0", folder.path()).is_err());
        let outside = archive(folder.path(), &[("answer-1.0.0/../../lib.rs", LIBRARY)]);
        assert!(unpack(&outside, &sum(&outside), "answer-1.0.0", folder.path()).is_err());
    }

    #[test]
    fn sources_are_marked_and_of_one_age() {
        let folder = tempfile::tempdir().expect("a folder");
        let sources = folder.path().join("stage");
        create_folder(&sources.join("src")).expect("a folder");
        let manifest =
            "[package]\nname = \"answer\"\nversion = \"1.0.0\"\ndescription = \"Answers\"\n";
        write(&sources.join("Cargo.toml"), manifest).expect("written");
        write(&sources.join("src/lib.rs"), LIBRARY).expect("written");
        let patch = folder.path().join("answer.patch");
        write(&patch, PATCH).expect("written");
        patching::apply(&patch, &sources).expect("patched");
        let place = folder.path().join("answer-1.0.0-ab");
        finish(&sources, "ab", &place).expect("finished");
        let table = read_manifest(&place.join("Cargo.toml")).expect("a manifest");
        assert!(table["features"].get("sources-ab").is_some(), "{table}");
        let library = place.join("src/lib.rs");
        assert!(read_text(&library).expect("text").contains("42"));
        let modified = library
            .metadata()
            .and_then(|data| data.modified())
            .expect("an age");
        assert_eq!(modified, SystemTime::UNIX_EPOCH + FILE_AGE);
    }

    /// What the shared artifacts rest on, and what only cargo itself can answer.
    #[test]
    fn cargo_rebuilds_for_another_digest_and_not_for_another_clone() {
        let folder = tempfile::tempdir().expect("a folder");
        let lay = |answer: &str| {
            let sources = folder.path().join("stage");
            create_folder(&sources.join("src")).expect("a folder");
            let manifest =
                "[package]\nname = \"answer\"\nversion = \"1.0.0\"\nedition = \"2024\"\n";
            write(&sources.join("Cargo.toml"), manifest).expect("written");
            let library = format!("pub const ANSWER: &str = \"{answer}\";\n");
            write(&sources.join("src/lib.rs"), &library).expect("written");
            let place = folder.path().join(format!("answer-{answer}"));
            finish(&sources, answer, &place).expect("finished");
            place
        };
        let places = [lay("one"), lay("two")];
        let build = |clone: &str, place: &PathBuf| {
            let root = folder.path().join(clone);
            create_folder(&root.join("src")).expect("a folder");
            let manifest = "[workspace]\n[package]\nname = \"clone\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\
                [dependencies]\nanswer = { path = \".ports/answer\" }\n";
            write(&root.join("Cargo.toml"), manifest).expect("written");
            write(
                &root.join("src/main.rs"),
                "fn main() { println!(\"{}\", answer::ANSWER) }",
            )
            .expect("written");
            link_all(&root.join(".ports"), &[("answer", place.clone())]).expect("linked");
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let said = command::capture_all(
                std::process::Command::new(cargo)
                    .args(["run", "--offline"])
                    .current_dir(&root)
                    .env("CARGO_TARGET_DIR", folder.path().join("target")),
            )
            .expect("it builds");
            let answer = said.lines().next().map(str::to_owned);
            (
                answer.unwrap_or_default(),
                said.contains("Compiling answer"),
            )
        };
        let [one, two] = &places;
        assert_eq!(build("first", one), ("one".to_owned(), true));
        assert_eq!(build("second", one), ("one".to_owned(), false));
        assert_eq!(build("second", two), ("two".to_owned(), true));
        assert_eq!(build("first", one), ("one".to_owned(), true));
    }

    #[test]
    fn links_are_replaced_and_stale_ones_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join(".ports");
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        link_all(&place, &[("a", one.clone()), ("b", one)]).expect("linked");
        link_all(&place, &[("a", two.clone())]).expect("linked");
        assert_eq!(place.join("a").read_link().expect("a link"), two);
        assert!(!place.join("b").is_symlink());
    }
}
