//! What no compiler checks: licences and sources of dependencies, reasons for `unsafe`, files that
//! name what only one machine has.
//!
//! The licence rules are in `deny.toml`, in cargo-deny's own format, so that cargo-deny can be used
//! as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use cargo_metadata::{DepKindInfo, DependencyKind, Metadata, Package, PackageId};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use crate::{
    chores::Chores,
    command,
    ports::{self, Target},
    progress,
    repository::Repository,
    target,
};

/// How paths begin that one machine or person has. In pieces, as this file is looked at too.
const FOREIGN_PATHS: [&str; 3] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
];

/// What a program that embeds the library must not get with it: the command's ways to read arguments,
/// to serve and to show progress.
const NOT_IN_THE_LIBRARY: [&str; 4] = ["axum", "clap", "indicatif", "tracing-subscriber"];
/// The library.
const LIBRARY: &str = "edge-sync-host";

/// How many lines above an `unsafe` its reason may begin.
const REASON_DISTANCE: usize = 12;

/// The part of `deny.toml` that is used here.
#[derive(Deserialize)]
struct Rules {
    licenses: LicenseRules,
}

#[derive(Deserialize)]
struct LicenseRules {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<LicenseException>,
}

#[derive(Deserialize)]
struct LicenseException {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

/// Looks at every file of the repository.
///
/// # Errors
/// Lists everything that is wrong, by file and line.
pub fn check_files(repository: &Repository) -> Result<()> {
    progress::step(
        "files: reasons for unsafe, foreign paths, lock files",
        || {
            let files = repository.files()?;
            let mut problems = missing_locks(repository, &files)?;
            for file in &files {
                // Binary files have no lines.
                let Ok(text) = std::fs::read_to_string(repository.root().join(file)) else {
                    continue;
                };
                let at = |line: usize, what: &str| format!("{}:{line}: {what}", file.display());
                for line in foreign_paths(&text) {
                    problems.push(at(line, "a path that only one machine has"));
                }
                if file.extension().is_some_and(|extension| extension == "rs") {
                    for line in unexplained_unsafe(&text) {
                        problems.push(at(line, "unsafe without a SAFETY: reason"));
                    }
                }
            }
            ensure!(problems.is_empty(), "{}", problems.join("\n"));
            Ok(())
        },
    )
}

/// Looks at the resolved dependencies of every workspace. The patched sources must be in place.
///
/// # Errors
/// Lists the crates whose licence is not allowed or whose source is neither the registry nor this
/// repository, and names the lock file that is out of date.
pub fn check_dependencies(chores: &Chores) -> Result<()> {
    progress::step("dependencies: lock files, licences, sources", || {
        let root = chores.repository.root();
        let path = root.join("deny.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let rules: Rules = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let rules = AllowedLicences::new(&rules.licenses)?;
        let host = chores.toolchain.host.as_str();
        let mut problems = Vec::new();
        let component = chores.repository.component();
        for folder in chores.repository.workspaces()? {
            let wasi = folder == component;
            let metadata = resolve(chores, &folder, if wasi { target::TRIPLE } else { host })?;
            if wasi || folder == root {
                let target = if wasi { Target::Wasi } else { Target::Native };
                let names = ports::names(&chores.repository, target)?;
                problems.extend(unused_ports(&metadata.packages, &names, &folder));
            }
            if folder == root {
                problems.extend(strangers_in_the_library(&metadata));
            }
            for package in &metadata.packages {
                let reasons = [
                    rules.objection(&package.name, package.license.as_deref()),
                    wrong_source(package, root),
                ];
                for reason in reasons.into_iter().flatten() {
                    problems.push(format!("{} {}: {reason}", package.name, package.version));
                }
            }
        }
        problems.sort();
        problems.dedup();
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    })
}

/// The resolved dependencies of a workspace for a target.
///
/// # Errors
/// Where the lock file does not fit the manifests.
pub fn resolve(chores: &Chores, folder: &Path, triple: &str) -> Result<Metadata> {
    let arguments = [
        "metadata",
        "--format-version",
        "1",
        "--locked",
        "--filter-platform",
    ];
    let text = command::capture(chores.cargo(folder, "native").args(arguments).arg(triple))
        .with_context(|| format!("{}/Cargo.lock must fit the manifests", folder.display()))?;
    cargo_metadata::MetadataCommand::parse(text).context("the output of cargo metadata")
}

/// Which licences are fine, for all crates and for single ones.
struct AllowedLicences {
    all: Vec<Licensee>,
    exceptions: BTreeMap<String, Vec<Licensee>>,
}

impl AllowedLicences {
    fn new(rules: &LicenseRules) -> Result<Self> {
        let parse = |names: &[String]| -> Result<Vec<Licensee>> {
            let parsed = names.iter().map(|name| {
                Licensee::parse(name).with_context(|| format!("deny.toml: the licence {name}"))
            });
            parsed.collect()
        };
        let mut exceptions = BTreeMap::new();
        for exception in &rules.exceptions {
            exceptions.insert(exception.name.clone(), parse(&exception.allow)?);
        }
        Ok(Self {
            all: parse(&rules.allow)?,
            exceptions,
        })
    }

    /// Why the licence of the crate `name` does not do.
    fn objection(&self, name: &str, licence: Option<&str>) -> Option<String> {
        let Some(text) = licence else {
            return Some("no licence expression".to_owned());
        };
        // Older crates write "MIT/Apache-2.0".
        let Ok(expression) = Expression::parse_mode(text, ParseMode::LAX) else {
            return Some(format!("not an SPDX expression: {text}"));
        };
        let own = self.exceptions.get(name).map_or(&[][..], Vec::as_slice);
        let fine = expression.evaluate(|wanted| {
            let mut allowed = self.all.iter().chain(own);
            allowed.any(|licence| licence.satisfies(wanted))
        });
        (!fine).then(|| format!("the licence {text} is not in deny.toml"))
    }
}

/// Why the place a package comes from does not do.
fn wrong_source(package: &Package, root: &Path) -> Option<String> {
    match &package.source {
        Some(source) if source.is_crates_io() => None,
        Some(source) => Some(format!("it comes from {source}")),
        None if package.manifest_path.as_std_path().starts_with(root) => None,
        None => Some(format!(
            "it is outside of the repository, at {}",
            package.manifest_path
        )),
    }
}

/// Which of [`NOT_IN_THE_LIBRARY`] the library depends on, tests aside.
fn strangers_in_the_library(metadata: &Metadata) -> Vec<String> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let nodes: BTreeMap<_, _> = nodes.map(|node| (&node.id, node)).collect();
    let name = |id: &PackageId| {
        let package = metadata.packages.iter().find(|package| package.id == *id);
        package.map_or("", |package| package.name.as_str())
    };
    let mut reached = BTreeSet::new();
    let mut next: Vec<_> = nodes
        .keys()
        .filter(|id| name(id) == LIBRARY)
        .copied()
        .collect();
    while let Some(id) = next.pop() {
        let Some(node) = nodes.get(id).filter(|_| reached.insert(id)) else {
            continue;
        };
        let is_normal = |kind: &DepKindInfo| kind.kind == DependencyKind::Normal;
        let dependencies = node.deps.iter();
        next.extend(
            dependencies
                .filter(|dependency| dependency.dep_kinds.iter().any(is_normal))
                .map(|dependency| &dependency.pkg),
        );
    }
    let strangers = reached.into_iter().map(name);
    strangers
        .filter(|name| NOT_IN_THE_LIBRARY.contains(name))
        .map(|name| format!("{LIBRARY} must not depend on {name}"))
        .collect()
}

/// Ports that cargo passed over, as it does where the lock file has another version.
fn unused_ports(packages: &[Package], names: &[String], folder: &Path) -> Vec<String> {
    let from_here = |name: &String| {
        let mut found = packages.iter().filter(|package| *package.name == **name);
        found.any(|package| package.source.is_none())
    };
    let unused = names.iter().filter(|name| !from_here(name));
    unused
        .map(|name| {
            format!(
                "{name}: {} does not use what is in ports/",
                folder.display()
            )
        })
        .collect()
}

/// Workspaces whose lock file is not, and is not going to be, committed.
fn missing_locks(repository: &Repository, files: &[PathBuf]) -> Result<Vec<String>> {
    let mut missing = Vec::new();
    for workspace in repository.workspaces()? {
        let lock = workspace.join("Cargo.lock");
        let lock = lock.strip_prefix(repository.root()).unwrap_or(&lock);
        if !files.iter().any(|file| file == lock) {
            missing.push(format!("{}: missing or ignored by git", lock.display()));
        }
    }
    Ok(missing)
}

/// The numbers of the lines that name a foreign path.
fn foreign_paths(text: &str) -> Vec<usize> {
    numbered(text)
        .filter(|(_, line)| FOREIGN_PATHS.iter().any(|path| line.contains(path)))
        .map(|(number, _)| number)
        .collect()
}

/// The numbers of the lines with `unsafe` code that no comment near it explains.
fn unexplained_unsafe(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    numbered(text)
        .filter(|(_, line)| is_unsafe_code(line))
        .filter(|(number, _)| {
            let first = number.saturating_sub(1 + REASON_DISTANCE);
            let near = lines.get(first..*number).unwrap_or_default();
            !near
                .iter()
                .any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
        })
        .map(|(number, _)| number)
        .collect()
}

fn is_unsafe_code(line: &str) -> bool {
    let code = without_strings(line);
    let code = code.split("//").next().unwrap_or_default();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("unsafe") {
        let starts = !before.ends_with(|last: char| last.is_alphanumeric() || "_(".contains(last));
        let after = after.trim_start();
        if starts
            && ["{", "fn ", "impl", "extern", "trait "]
                .iter()
                .any(|next| after.starts_with(next))
        {
            return true;
        }
        rest = after;
    }
    false
}

/// A line without what stands in its string literals, as far as one line tells.
fn without_strings(line: &str) -> String {
    let mut code = String::new();
    let mut inside = false;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' if inside => drop(characters.next()),
            '"' => inside = !inside,
            _ if !inside => code.push(character),
            _ => {}
        }
    }
    code
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_needs_a_reason() {
        let bare = "fn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(unexplained_unsafe(bare), [2]);
        let reasoned = "// SAFETY: g only reads.\nlet x = unsafe { g() };\n";
        assert!(unexplained_unsafe(reasoned).is_empty());
        let documented = "/// # Safety\n/// Map it first.\npub unsafe fn h() {}\n";
        assert!(unexplained_unsafe(documented).is_empty());
        for harmless in [
            "// unsafe { }",
            "#![forbid(unsafe_code)]",
            "let s = \"unsafe {\";",
        ] {
            assert!(unexplained_unsafe(harmless).is_empty(), "{harmless}");
        }
    }

    #[test]
    fn foreign_paths_are_found_by_line() {
        let text = format!("fine\nsee {}/x\n", FOREIGN_PATHS[0]);
        assert_eq!(foreign_paths(&text), [2]);
    }

    #[test]
    fn lock_files_must_be_there() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["component", "ports/fnv"] {
            std::fs::create_dir_all(folder.path().join(name)).expect("a folder");
        }
        for name in ["Cargo.toml", "ports/fnv/Cargo.toml"] {
            std::fs::write(folder.path().join(name), "").expect("a file");
        }
        let repository = Repository::at(folder.path()).expect("a clone");
        let files = ["Cargo.lock", "xtask/Cargo.lock"].map(PathBuf::from);
        let missing = missing_locks(&repository, &files).expect("a list");
        let [component, fnv] = missing.as_slice() else {
            panic!("two are missing: {missing:?}");
        };
        assert!(component.starts_with("component/Cargo.lock"), "{component}");
        assert!(fnv.starts_with("ports/fnv/Cargo.lock"), "{fnv}");
    }

    #[test]
    fn licences_are_judged_as_expressions() {
        let rules = LicenseRules {
            allow: vec!["MIT".into(), "Apache-2.0".into()],
            exceptions: Vec::new(),
        };
        let rules = AllowedLicences::new(&rules).expect("rules");
        for (expression, fine) in [
            ("MIT", true),
            ("MIT OR GPL-3.0", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 / GPL-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("GPL-3.0", false),
            ("whatever", false),
        ] {
            let objection = rules.objection("x", Some(expression));
            assert_eq!(objection.is_none(), fine, "{expression}: {objection:?}");
        }
    }
}
