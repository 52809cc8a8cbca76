//! Which of the cache's artifacts are those of this clone's sources.
//!
//! Cargo takes an artifact for fresh if it is younger than the sources it was made from. A clone's
//! files are as old as the clone, whatever is in them: those of a new clone would have everything
//! built again, those of an old one would take another clone's artifacts for theirs. So where the last
//! build was of another clone, each file gets the age of its content before anything is built: a file
//! that is as it was then gets the time that it had then, and every other file is young.
//!
//! The clone that was built last keeps the ages that its files have, for there cargo is right; but
//! for a file that is older than its last change, as after `mv` and `cp -p`, which is young.

use std::{
    collections::BTreeMap,
    fs::{File, Metadata},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};

use crate::{
    cache::Cache,
    digest,
    files::{create_folder, remove},
    repository::{Repository, folders},
};

/// What the packages of this repository that are built in common folders are called.
const OUR_PACKAGES: &str = "edge-sync";

/// Where the small workspaces are built: nothing in it is worth keeping at any risk.
pub const SMALL: &str = "small";

/// Files below this are read by macros, which cargo learns of only if they have been there before.
const READ_BY_MACROS: &str = "wit";

/// In a clone: when it was built last.
const LAST_BUILD: &str = "target/last-build";

/// How long a program may take that writes a file and then gives it its name.
const CHANGE: Duration = Duration::from_millis(100);

/// The last build's sources.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sources {
    /// Since 1970; the clone that was built says the same in [`LAST_BUILD`].
    built: Duration,
    /// Content and age, by relative path.
    files: BTreeMap<String, Source>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    digest: String,
    /// Since 1970.
    age: Duration,
}

/// Sees to it that cargo builds again what it has to and no more. To be called before anything is
/// built, with the cache locked.
///
/// # Errors
/// Where files cannot be read or touched.
pub fn age_sources(cache: &Cache, repository: &Repository) -> Result<()> {
    create_folder(&cache.targets())?;
    let record = cache.targets().join("sources");
    let before = std::fs::read_to_string(&record)
        .ok()
        .and_then(|text| Sources::parse(&text));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock is before 1970")?;
    // The clock may have been set back.
    let now = before.as_ref().map_or(now, |before| now.max(before.built));
    let mut sources = Sources::of(repository, before.as_ref(), now)?;
    let last_build = repository.root().join(LAST_BUILD);
    let began = || last_build.metadata().and_then(|it| it.modified()).ok();
    // The last build, if it was of this clone.
    let here = before.as_ref().filter(|before| {
        let built = std::fs::read_to_string(&last_build);
        built.is_ok_and(|built| built == before.built.as_nanos().to_string())
    });
    let wrong = match before {
        Some(_) => sources.wrong_ages(repository, here.zip(began()))?,
        // There will be no artifact for cargo to compare with.
        None => Vec::new(),
    };
    if before
        .as_ref()
        .is_none_or(|before| before.read_by_macros() != sources.read_by_macros())
    {
        // First, so that a crash in between leaves too little rather than too much.
        remove(&record)?;
        forget_our_artifacts(cache)?;
    }
    // Before the files: a file that is older than the record says is taken for unchanged.
    std::fs::write(&record, sources.text())
        .with_context(|| format!("writing {}", record.display()))?;
    for (path, age) in wrong {
        File::options()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(age))
            .with_context(|| format!("setting the age of {}", path.display()))?;
    }
    create_folder(last_build.parent().context("a path with a folder")?)?;
    std::fs::write(&last_build, sources.built.as_nanos().to_string())
        .with_context(|| format!("writing {}", last_build.display()))
}

impl Sources {
    fn of(repository: &Repository, before: Option<&Self>, now: Duration) -> Result<Self> {
        let mut files = BTreeMap::new();
        for relative in repository.files()? {
            let path = repository.root().join(&relative);
            // What is not a file, or has an odd name, is no source.
            let (true, Some(name)) = (path.is_file(), relative.to_str()) else {
                continue;
            };
            if name.contains(['\n', '\t']) {
                continue;
            }
            let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
            let digest = digest::sha256(&bytes);
            let known = before
                .and_then(|before| before.files.get(name))
                .filter(|source| source.digest == digest);
            let age = known.map_or(now, |source| source.age);
            files.insert(name.to_owned(), Source { digest, age });
        }
        Ok(Self { built: now, files })
    }

    /// The files whose age would mislead cargo, and what it should be. `here`: the last build and when
    /// it began, if it was of this clone. What keeps its own age is recorded with that.
    fn wrong_ages(
        &mut self,
        repository: &Repository,
        here: Option<(&Self, SystemTime)>,
    ) -> Result<Vec<(PathBuf, SystemTime)>> {
        let now = self.built;
        let mut wrong = Vec::new();
        for (path, source) in &mut self.files {
            let file = repository.root().join(path);
            let failed = || file.display().to_string();
            let metadata = file.metadata().with_context(failed)?;
            let age = metadata.modified().with_context(failed)?;
            let is_right = match here {
                Some((last, began)) => {
                    let before = last.files.get(path);
                    let is_as_built = before.is_some_and(|before| before.digest == source.digest);
                    let is_right = match changed(&metadata) {
                        Some(changed) if is_as_built && changed <= began => true,
                        // The age is that of the change.
                        Some(changed) => changed <= age + CHANGE,
                        None => is_as_built,
                    };
                    if !is_right {
                        source.age = now;
                    } else if !is_as_built {
                        source.age = age.duration_since(UNIX_EPOCH).unwrap_or(now);
                    }
                    is_right
                }
                None => age == UNIX_EPOCH + source.age,
            };
            if !is_right {
                wrong.push((file, UNIX_EPOCH + source.age));
            }
        }
        Ok(wrong)
    }

    fn read_by_macros(&self) -> Vec<(&String, &String)> {
        let files = self.files.iter();
        files
            .filter(|(path, _)| Path::new(path).starts_with(READ_BY_MACROS))
            .map(|(path, source)| (path, &source.digest))
            .collect()
    }

    fn text(&self) -> String {
        let lines = self.files.iter().map(|(path, source)| {
            let (digest, age) = (&source.digest, source.age.as_nanos());
            format!("{digest}\t{age}\t{path}\n")
        });
        let built = format!("{}\n", self.built.as_nanos());
        std::iter::once(built).chain(lines).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let line = |line: &str| {
            let mut parts = line.splitn(3, '\t');
            let digest = parts.next()?.to_owned();
            let age = Duration::from_nanos(parts.next()?.parse().ok()?);
            Some((parts.next()?.to_owned(), Source { digest, age }))
        };
        let (built, files) = text.split_once('\n')?;
        Some(Self {
            built: Duration::from_nanos(built.parse().ok()?),
            files: files.lines().map(line).collect::<Option<_>>()?,
        })
    }
}

/// When a file's contents, age or name were last changed, where the system tells.
#[cfg(unix)]
fn changed(metadata: &Metadata) -> Option<SystemTime> {
    use std::os::unix::fs::MetadataExt as _;
    let seconds = u64::try_from(metadata.ctime()).ok()?;
    let rest = u64::try_from(metadata.ctime_nsec()).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(rest))
}

#[cfg(not(unix))]
fn changed(_metadata: &Metadata) -> Option<SystemTime> {
    None
}

/// Makes cargo build again what the record cannot speak for.
fn forget_our_artifacts(cache: &Cache) -> Result<()> {
    for target in folders(&cache.targets())? {
        let all = target.ends_with(SMALL);
        for fingerprints in fingerprint_folders(&target)? {
            for package in folders(&fingerprints)? {
                let name = package.file_name().unwrap_or_default().to_string_lossy();
                if all || name.starts_with(OUR_PACKAGES) {
                    std::fs::remove_dir_all(&package)
                        .with_context(|| format!("removing {}", package.display()))?;
                }
            }
        }
    }
    Ok(())
}

/// The `.fingerprint` folders of every profile, below `target` and below its triples.
fn fingerprint_folders(target: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for profile in folders(target)? {
        found.push(profile.join(".fingerprint"));
        for nested in folders(&profile)? {
            found.push(nested.join(".fingerprint"));
        }
    }
    found.retain(|folder| folder.is_dir());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        cache: Cache,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let cache = Cache::at(&folder.path().join("cache")).expect("a cache");
            Self { folder, cache }
        }

        fn clone(&self, name: &str, files: &[(&str, &str)]) -> Repository {
            let root = self.folder.path().join(name);
            for (path, text) in [("Cargo.toml", "")].iter().chain(files) {
                let path = root.join(path);
                create_folder(path.parent().expect("a parent")).expect("a folder");
                std::fs::write(path, text).expect("a file");
            }
            Repository::at(&root).expect("a clone")
        }

        fn age_sources(&self, repository: &Repository) {
            age_sources(&self.cache, repository).expect("ages");
        }

        fn artifact(&self, kind: &str, name: &str) -> PathBuf {
            let folder = self.cache.target(kind).join("release/.fingerprint");
            let artifact = folder.join(name);
            create_folder(&artifact).expect("a folder");
            artifact
        }
    }

    fn age(repository: &Repository, path: &str) -> SystemTime {
        let metadata = repository.root().join(path).metadata().expect("a file");
        metadata.modified().expect("a time")
    }

    fn set_age(repository: &Repository, path: &str, age: SystemTime) {
        let file = File::options()
            .append(true)
            .open(repository.root().join(path));
        file.and_then(|file| file.set_modified(age))
            .expect("an age");
    }

    #[test]
    fn the_clone_that_was_built_last_keeps_its_ages() {
        let place = Place::new();
        let one = place.clone("one", &[("a.rs", "a"), ("b.rs", "b")]);
        let as_cloned = SystemTime::now() - Duration::from_secs(60);
        set_age(&one, "a.rs", as_cloned);
        place.age_sources(&one);
        assert_eq!(age(&one, "a.rs"), as_cloned, "nothing was built before");
        let later = SystemTime::now() + Duration::from_secs(60);
        std::fs::write(one.root().join("b.rs"), "edited").expect("a file");
        for path in ["a.rs", "b.rs"] {
            set_age(&one, path, later);
        }
        place.age_sources(&one);
        assert_eq!([age(&one, "a.rs"), age(&one, "b.rs")], [later, later]);
        // Another clone in between: what is unchanged is as old as at the last build.
        place.age_sources(&place.clone("two", &[("a.rs", "a"), ("b.rs", "b")]));
        place.age_sources(&one);
        assert!(age(&one, "a.rs") < later && age(&one, "b.rs") < later);
    }

    #[test]
    fn what_is_unchanged_keeps_its_age_in_another_clone_and_what_is_not_is_young() {
        let place = Place::new();
        let one = place.clone("one", &[("a.rs", "a"), ("b.rs", "b"), ("c.rs", "c")]);
        place.age_sources(&one);
        let two = place.clone("two", &[("a.rs", "a"), ("b.rs", "changed")]);
        place.age_sources(&two);
        assert!(age(&two, "a.rs") < age(&two, "b.rs"));
        assert!(age(&two, "b.rs") > age(&one, "b.rs"));
        // Back in the first: the last build's `b.rs` was another one.
        let last = age(&two, "b.rs");
        place.age_sources(&one);
        assert!(age(&one, "b.rs") > last);
        assert_eq!(age(&one, "a.rs"), age(&two, "a.rs"));
    }

    #[test]
    fn an_edit_is_young_even_if_its_file_is_not() {
        let place = Place::new();
        let one = place.clone("one", &[("a.rs", "a")]);
        place.age_sources(&one);
        let built = age(&one, "a.rs");
        let path = one.root().join("a.rs");
        std::fs::write(&path, "edited").expect("a file");
        set_age(&one, "a.rs", built - Duration::from_secs(60));
        place.age_sources(&one);
        assert!(age(&one, "a.rs") > built);
    }

    #[test]
    fn a_file_that_is_older_than_its_change_is_young() {
        let place = Place::new();
        let one = place.clone("one", &[("a.rs", "a"), ("b.rs", "b")]);
        place.age_sources(&one);
        // Later than the build began, and yet earlier than an artifact may be.
        let built = SystemTime::now();
        std::thread::sleep(3 * CHANGE);
        std::fs::write(one.root().join("a.rs"), "another").expect("a file");
        for path in ["a.rs", "b.rs"] {
            set_age(&one, path, built);
        }
        place.age_sources(&one);
        // `b.rs` is as it was, but cargo itself may have built another in between.
        assert!(age(&one, "a.rs") > built && age(&one, "b.rs") > built);
    }

    #[test]
    fn artifacts_of_unknown_sources_go_and_those_of_others_stay() {
        let place = Place::new();
        let ours = place.artifact("native", "edge-sync-log-1");
        let engine = place.artifact("native", "qdrant-edge-1");
        let small = place.artifact(SMALL, "memmap2-1");
        let one = place.clone("one", &[("a.rs", "a"), ("wit/a.wit", "a")]);
        place.age_sources(&one);
        assert!(!ours.exists() && !small.exists());
        assert!(engine.exists());

        let ours = place.artifact("native", "edge-sync-log-1");
        place.age_sources(&place.clone("two", &[("a.rs", "b"), ("wit/a.wit", "a")]));
        assert!(ours.exists(), "cargo sees by its age that a.rs is another");
        place.age_sources(&place.clone("three", &[("wit/a.wit", "a"), ("wit/b.wit", "b")]));
        assert!(!ours.exists(), "cargo cannot see that a macro reads b.wit");
    }

    #[test]
    fn the_record_is_read_as_it_was_written() {
        let source = Source {
            digest: digest::sha256(b"a"),
            age: Duration::from_nanos(1_700_000_000_123_456_789),
        };
        let sources = Sources {
            built: Duration::from_nanos(1_700_000_001_123_456_789),
            files: BTreeMap::from([("a b.rs".to_owned(), source)]),
        };
        assert_eq!(Sources::parse(&sources.text()), Some(sources));
        assert_eq!(Sources::parse("damaged"), None);
    }
}
