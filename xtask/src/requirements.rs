//! Which versions of its dependencies a release of the engine asks for, against those that `ports/` replaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use serde::Serialize;

use crate::{chores::Chores, command, target};

/// What is different about the dependencies of a release.
#[derive(Debug, Serialize)]
pub struct Requirements {
    /// The crates that are replaced in the component.
    pub replaced: Vec<Replaced>,
    /// Crates of which the component turns on a feature, where the engine has another version of the
    /// crate, for which that has no effect.
    pub apart: Vec<Apart>,
    /// The engine's own dependencies, as they were and as they are now.
    pub changed: Vec<Changed>,
}

/// Whether a replaced crate still takes the place of the registry's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Match {
    /// Everybody who needs the crate gets the replacement.
    Matches,
    /// Somebody asks for a version that the replacement does not have.
    OtherVersion,
    /// Nobody needs the crate any more.
    NotNeeded,
}

/// A crate that is replaced in the component.
#[derive(Debug, Serialize)]
pub struct Replaced {
    /// The crate.
    pub name: String,
    /// The replacement's version.
    pub version: String,
    /// The outcome.
    pub verdict: Match,
    /// Who asks for which versions.
    pub asked: Vec<Asked>,
    /// Versions that a build would take from the registry.
    pub from_registry: Vec<String>,
    /// The versions in the lock file that the release came with.
    pub released_with: Vec<String>,
}

/// A requirement.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Asked {
    /// The crate that asks.
    pub by: String,
    /// What it asks for.
    pub requirement: String,
}

/// A crate in two versions.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Apart {
    /// The crate.
    pub name: String,
    /// The version that the component has.
    pub component: String,
    /// The version that the engine has.
    pub engine: String,
}

/// A dependency of the engine.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The crate.
    pub name: String,
    /// Which versions the release in use asks for; none where it does not need the crate.
    pub before: Option<String>,
    /// Which versions this release asks for.
    pub after: Option<String>,
}

/// Has cargo resolve the component with `release` of the engine in the place of `in_use`. The sources of
/// the release are in `sources`; `ports` are names and folders of what replaces other crates.
///
/// # Errors
/// Where cargo finds no versions that fit, or a manifest cannot be read.
pub fn compare(
    chores: &Chores,
    engine: &str,
    in_use: &str,
    release: &str,
    sources: &Path,
    ports: &[(String, PathBuf)],
) -> Result<Requirements> {
    let component = Manifest::read(&chores.repository.component(), ports)?;
    let before = resolve(chores, &component, engine, in_use)?;
    let after = resolve(chores, &component, engine, release)?;
    let lock = sources.join("Cargo.lock");
    let released_with = if lock.is_file() {
        locked(&read_table(&lock)?)
    } else {
        BTreeMap::new()
    };
    let mut replaced = Vec::new();
    for (name, place) in &component.patches {
        let manifest = place.join("Cargo.toml");
        let version = read_table(&manifest)?
            .get("package")
            .and_then(|package| package.get("version")?.as_str().map(str::to_owned))
            .with_context(|| format!("{} has no version", manifest.display()))?;
        let mut port = replacement(&after, name, version);
        port.released_with = released_with.get(name).cloned().unwrap_or_default();
        replaced.push(port);
    }
    Ok(Requirements {
        replaced,
        apart: apart(&after, &component, engine),
        changed: changed(&asked_by(&before, engine), &asked_by(&after, engine)),
    })
}

/// What of the component's manifest decides on versions.
struct Manifest {
    dependencies: toml::Table,
    /// Name and folder of each crate that is replaced, but for the engine.
    patches: Vec<(String, PathBuf)>,
    lock: String,
}

impl Manifest {
    fn read(folder: &Path, ports: &[(String, PathBuf)]) -> Result<Self> {
        let manifest = read_table(&folder.join("Cargo.toml"))?;
        let dependencies = manifest.get("dependencies");
        let mut dependencies = dependencies
            .and_then(toml::Value::as_table)
            .cloned()
            .unwrap_or_default();
        // Those of this repository need the engine in use.
        dependencies.retain(|_, dependency| dependency.get("path").is_none());
        let replaced = manifest
            .get("patch")
            .and_then(|patches| patches.get("crates-io"));
        let is_replaced = |name: &str| replaced.is_some_and(|all| all.get(name).is_some());
        let lock = folder.join("Cargo.lock");
        let lock = std::fs::read_to_string(&lock)
            .with_context(|| format!("reading {}", lock.display()))?;
        Ok(Self {
            dependencies,
            patches: ports
                .iter()
                .filter(|(name, _)| is_replaced(name))
                .cloned()
                .collect(),
            lock,
        })
    }

    /// A package that depends on `version` of the engine and, but for that, on what the component does.
    fn with(&self, engine: &str, version: &str) -> Result<String> {
        let mut dependencies = self.dependencies.clone();
        dependencies.insert(engine.to_owned(), format!("={version}").into());
        let patches = self.patches.iter().map(|(name, place)| {
            let path = place.to_string_lossy().into_owned();
            let patch = toml::Table::from_iter([("path".to_owned(), path.into())]);
            (name.clone(), patch.into())
        });
        let patches = toml::Table::from_iter(patches);
        let mut manifest: toml::Table = toml::from_str(
            "workspace = {}\n[package]\nname = \"release\"\nedition = \"2024\"\n[lib]\npath = \"lib.rs\"\n",
        )?;
        manifest.insert("dependencies".to_owned(), dependencies.into());
        let patch = toml::Table::from_iter([("crates-io".to_owned(), patches.into())]);
        manifest.insert("patch".to_owned(), patch.into());
        Ok(toml::to_string(&manifest)?)
    }
}

fn resolve(chores: &Chores, component: &Manifest, engine: &str, version: &str) -> Result<Metadata> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let files = [
        ("Cargo.toml", component.with(engine, version)?),
        // What need not change stays as it is locked.
        ("Cargo.lock", component.lock.clone()),
        ("lib.rs", String::new()),
    ];
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let text = command::capture(
        chores
            .toolchain
            .cargo()
            .args(["metadata", "--quiet", "--format-version", "1"])
            .args(["--filter-platform", target::TRIPLE])
            .current_dir(folder.path()),
    )
    .with_context(|| format!("cargo finds no versions for {engine} {version}"))?;
    MetadataCommand::parse(text).context("the output of cargo metadata")
}

fn replacement(metadata: &Metadata, name: &str, version: String) -> Replaced {
    let mut asked = BTreeSet::new();
    for package in &metadata.packages {
        for dependency in built(package).filter(|dependency| dependency.name == name) {
            asked.insert(Asked {
                by: format!("{} {}", package.name, package.version),
                requirement: dependency.req.to_string(),
            });
        }
    }
    let resolved = || metadata.packages.iter().filter(|p| p.name.as_str() == name);
    let from_registry: Vec<String> = resolved()
        .filter(|package| package.source.is_some())
        .map(|package| package.version.to_string())
        .collect();
    let verdict = if !from_registry.is_empty() {
        Match::OtherVersion
    } else if resolved().next().is_some() {
        Match::Matches
    } else {
        Match::NotNeeded
    };
    Replaced {
        name: name.to_owned(),
        version,
        verdict,
        asked: asked.into_iter().collect(),
        from_registry,
        released_with: Vec::new(),
    }
}

/// The dependencies that a build of the package has.
fn built(package: &Package) -> impl Iterator<Item = &cargo_metadata::Dependency> {
    let all = package.dependencies.iter();
    all.filter(|dependency| dependency.kind != DependencyKind::Development)
}

/// What the crate `name` asks of its dependencies.
fn asked_by(metadata: &Metadata, name: &str) -> BTreeMap<String, String> {
    let mut asked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let package = metadata.packages.iter().find(|p| p.name.as_str() == name);
    for dependency in package.into_iter().flat_map(built) {
        let mut text = dependency.req.to_string();
        if !dependency.features.is_empty() {
            text += &format!(" with {}", dependency.features.join(", "));
        }
        asked
            .entry(dependency.name.clone())
            .or_default()
            .insert(text);
    }
    let join = |texts: BTreeSet<String>| texts.into_iter().collect::<Vec<_>>().join("; ");
    asked
        .into_iter()
        .map(|(name, texts)| (name, join(texts)))
        .collect()
}

fn changed(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<Changed> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differ = names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name));
    differ
        .map(|name| Changed {
            name: name.clone(),
            before: before.get(name).cloned(),
            after: after.get(name).cloned(),
        })
        .collect()
}

fn apart(metadata: &Metadata, manifest: &Manifest, engine: &str) -> Vec<Apart> {
    let has_features = |name: &String| {
        let dependency = manifest.dependencies.get(name);
        dependency.is_some_and(|dependency| dependency.get("features").is_some())
    };
    let of = |wanted: &dyn Fn(&Package) -> bool| -> BTreeMap<String, String> {
        let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
        nodes
            .filter(|node| wanted(&metadata[&node.id]))
            .flat_map(|node| &node.deps)
            .map(|dependency| &metadata[&dependency.pkg])
            .map(|package| (package.name.to_string(), package.version.to_string()))
            .collect()
    };
    let component = of(&|package| Some(&package.id) == root(metadata));
    let engine = of(&|package| package.name.as_str() == engine);
    let both = component
        .into_iter()
        .filter_map(|(name, component)| Some((engine.get(&name)?.clone(), name, component)));
    both.filter(|(engine, name, component)| engine != component && has_features(name))
        .map(|(engine, name, component)| Apart {
            name,
            component,
            engine,
        })
        .collect()
}

fn root(metadata: &Metadata) -> Option<&cargo_metadata::PackageId> {
    metadata.resolve.as_ref()?.root.as_ref()
}

/// The versions of each crate in a lock file.
fn locked(lock: &toml::Table) -> BTreeMap<String, Vec<String>> {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let packages = lock.get("package").and_then(toml::Value::as_array);
    for package in packages.into_iter().flatten() {
        let text = |key: &str| package.get(key).and_then(toml::Value::as_str);
        if let (Some(name), Some(version)) = (text("name"), text("version")) {
            let of_name = versions.entry(name.to_owned()).or_default();
            of_name.push(version.to_owned());
        }
    }
    versions
}

fn read_table(path: &Path) -> Result<toml::Table> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    toml::from_str(&text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of `cargo metadata` for a component that turns on a feature of `zip` 2 and replaces `map` 1.
    fn metadata(engine_asks: [(&str, &str); 2], map_source: &str) -> Metadata {
        let dependency = |(name, req): (&str, &str)| {
            format!(
                r#"{{"name":"{name}","source":null,"req":"{req}","kind":null,"optional":false,
                "uses_default_features":true,"features":[],"target":null}}"#
            )
        };
        let package = |name: &str, version: &str, source: &str, dependencies: &[String]| {
            format!(
                r#"{{"name":"{name}","version":"{version}","id":"{name}-{version}","source":{source},
                "dependencies":[{}],"targets":[],"features":{{}},"manifest_path":"/Cargo.toml"}}"#,
                dependencies.join(",")
            )
        };
        let node = |id: &str, deps: &[&str]| {
            let deps: Vec<String> = deps
                .iter()
                .map(|id| format!(r#"{{"name":"x","pkg":"{id}","dep_kinds":[]}}"#))
                .collect();
            format!(
                r#"{{"id":"{id}","dependencies":[],"features":[],"deps":[{}]}}"#,
                deps.join(",")
            )
        };
        let registry = r#""registry+index""#;
        let zip = format!("zip-{}.0.0", engine_asks[1].1.trim_start_matches('^'));
        let packages = [
            package("release", "0.0.0", "null", &[]),
            package("engine", "1.0.0", registry, &engine_asks.map(dependency)),
            package("map", "1.0.0", map_source, &[]),
            package("zip", "2.0.0", registry, &[]),
            package("zip", "1.0.0", registry, &[]),
        ];
        let nodes = [
            node("release-0.0.0", &["engine-1.0.0", "zip-2.0.0"]),
            node("engine-1.0.0", &["map-1.0.0", &zip]),
        ];
        let text = format!(
            r#"{{"packages":[{}],"workspace_members":[],"target_directory":"/","workspace_root":"/",
            "version":1,"resolve":{{"root":"release-0.0.0","nodes":[{}]}}}}"#,
            packages.join(","),
            nodes.join(",")
        );
        MetadataCommand::parse(text).expect("metadata")
    }

    #[test]
    fn a_replacement_matches_if_nothing_of_its_name_comes_from_the_registry() {
        let asks = [("map", "^1"), ("zip", "^2")];
        let verdict = |source: &str, name: &str| {
            replacement(&metadata(asks, source), name, "1.0.0".to_owned())
        };
        let matching = verdict("null", "map");
        assert_eq!(matching.verdict, Match::Matches);
        let asked = Asked {
            by: "engine 1.0.0".to_owned(),
            requirement: "^1".to_owned(),
        };
        assert_eq!(matching.asked, [asked]);
        let other = verdict("\"registry+index\"", "map");
        assert_eq!(other.verdict, Match::OtherVersion);
        assert_eq!(other.from_registry, ["1.0.0"]);
        assert_eq!(verdict("null", "gone").verdict, Match::NotNeeded);
    }

    #[test]
    fn a_feature_that_does_not_reach_the_engine_is_found() {
        let manifest = Manifest {
            dependencies: toml::from_str("zip = { version = \"2\", features = [\"rust\"] }")
                .expect("a table"),
            patches: Vec::new(),
            lock: String::new(),
        };
        let found = |zip: &str| {
            let metadata = metadata([("map", "^1"), ("zip", zip)], "null");
            apart(&metadata, &manifest, "engine")
        };
        assert_eq!(found("^2"), []);
        let apart = Apart {
            name: "zip".to_owned(),
            component: "2.0.0".to_owned(),
            engine: "1.0.0".to_owned(),
        };
        assert_eq!(found("^1"), [apart]);
    }

    #[test]
    fn what_an_engine_asks_for_is_compared() {
        let before = asked_by(&metadata([("map", "^1"), ("zip", "^1")], "null"), "engine");
        let after = asked_by(&metadata([("map", "^1"), ("zip", "^2")], "null"), "engine");
        let expected = Changed {
            name: "zip".to_owned(),
            before: Some("^1".to_owned()),
            after: Some("^2".to_owned()),
        };
        assert_eq!(changed(&before, &after), [expected]);
    }
}
