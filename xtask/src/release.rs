//! `cargo xtask audit --release VERSION`: what moving to another release of the engine takes.
//!
//! Nothing of the clone changes but a folder in `target/`: the release's sources as a git repository, with
//! one commit for each patch.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::{
    audit, cache,
    chores::Chores,
    command,
    files::create_folder,
    patching::{self, Trial, Verdict},
    pointer_width::{self, Problem},
    ports::{self, Target},
    progress,
    requirements::{self, Match, Requirements},
};

/// The engine's crate.
const ENGINE: &str = "qdrant-edge";

/// The tag of the last commit that is not a person's.
const TRIED: &str = "tried";

/// What a trial found.
#[derive(Debug, Serialize)]
struct Report {
    release: String,
    in_use: String,
    /// Of the `.crate` file, for `port.toml`.
    sha256: String,
    /// With all patches applied as far as they fit.
    sources: PathBuf,
    patches: Vec<Patch>,
    /// Over these sources.
    audit: pointer_width::Report,
    dependencies: Requirements,
}

#[derive(Debug, Serialize)]
struct Patch {
    file: String,
    #[serde(flatten)]
    trial: Trial,
    /// The patch with the line numbers of this release.
    remade: Option<PathBuf>,
}

/// Tries the patches, the audit and the replaced dependencies on `release`, prints what came of it, and
/// returns whether the release can be taken as it is.
///
/// # Errors
/// Where the release cannot be had, or the folder of an earlier trial has changes of a person in it.
pub fn run(chores: &Chores, release: &str, json: bool) -> Result<bool> {
    // Not the engine's: its patches may be on their way from one release to the other.
    let others = ports::lay_out_others(chores, ENGINE)?;
    let place = chores.repository.trials().join(release);
    ensure!(
        !place.exists() || is_untouched(&place, release)?,
        "{} has changes in it that no trial made: make a patch of them and remove the folder, or rename it",
        place.display()
    );
    let stage = cache::stage(&chores.repository.trials())?;
    let sha256 = ports::unpack_release(chores, ENGINE, release, stage.path())?;
    let staged = stage.path().join(folder(release));
    let patches = progress::step(&format!("trying the patches on {ENGINE} {release}"), || {
        try_patches(chores, release, &staged, &stage.path().join("patches"))
    })?;
    if place.exists() {
        std::fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
    }
    std::fs::rename(stage.keep(), &place).with_context(|| place.display().to_string())?;
    let sources = place.join(folder(release));
    progress::heading("sites that depend on the width of a pointer");
    let audit = pointer_width::run(&sources, &audit::list(&chores.repository))?;
    let in_use = ports::version(&chores.repository, ENGINE)?;
    let dependencies = progress::step("resolving the dependencies", || {
        requirements::compare(chores, ENGINE, &in_use, release, &sources, &others)
    })?;
    let report = Report {
        release: release.to_owned(),
        in_use,
        sha256,
        patches: patches
            .into_iter()
            .map(|(file, trial)| Patch {
                remade: (trial.verdict == Verdict::AppliesElsewhere)
                    .then(|| place.join("patches").join(&file)),
                file,
                trial,
            })
            .collect(),
        sources,
        audit,
        dependencies,
    };
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(report.is_clean())
}

/// Applies what fits of each patch, as a commit, and writes the patches that fit at other lines anew.
fn try_patches(
    chores: &Chores,
    release: &str,
    sources: &Path,
    remade: &Path,
) -> Result<Vec<(String, Trial)>> {
    command::capture(git(sources).args(["init", "--quiet", "--initial-branch", "release"]))?;
    let excluded = sources.join(".git/info/exclude");
    std::fs::write(&excluded, "*.rej\n").with_context(|| excluded.display().to_string())?;
    commit(sources, &format!("{ENGINE} {release}"))?;
    create_folder(remade)?;
    let mut trials = Vec::new();
    for patch in ports::patches(&chores.repository, ENGINE, Target::Wasi)? {
        let file = patch.file_name().unwrap_or_default().to_string_lossy();
        let trial = patching::trial(&patch, sources)?;
        commit(sources, &file)?;
        if trial.verdict == Verdict::AppliesElsewhere {
            let text = std::fs::read_to_string(&patch)
                .with_context(|| format!("reading {}", patch.display()))?;
            let diff = command::capture(git(sources).args(["diff", "HEAD~", "HEAD"]))?;
            let path = remade.join(&*file);
            std::fs::write(&path, remake(&text, &diff))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        trials.push((file.into_owned(), trial));
    }
    command::capture(git(sources).args(["tag", TRIED]))?;
    Ok(trials)
}

/// The words at the head of a patch, with the hunks of a diff.
fn remake(patch: &str, diff: &str) -> String {
    let head = patch.lines().take_while(|line| !line.starts_with("--- "));
    // Hunks begin with none of these.
    let not_in_patches = ["diff ", "index ", "new file ", "deleted file "];
    let hunks = diff
        .lines()
        .filter(|line| !not_in_patches.iter().any(|start| line.starts_with(start)));
    head.chain(hunks).map(|line| format!("{line}\n")).collect()
}

/// Whether nobody has worked in the folder of a trial since.
fn is_untouched(place: &Path, release: &str) -> Result<bool> {
    let sources = place.join(folder(release));
    if !sources.join(".git").is_dir() {
        return Ok(false);
    }
    let mut status = git(&sources);
    status.args(["status", "--porcelain"]);
    let head = command::capture(git(&sources).args(["rev-parse", "HEAD"]))?;
    let tried = command::capture(git(&sources).args(["rev-parse", TRIED]))?;
    Ok(head == tried && command::capture(&mut status)?.is_empty())
}

fn commit(sources: &Path, message: &str) -> Result<()> {
    command::capture(git(sources).args(["add", "--all", "--force", "--", ".", ":!*.rej"]))?;
    let arguments = ["commit", "--quiet", "--allow-empty", "--message", message];
    command::capture(git(sources).args(arguments)).map(drop)
}

/// Git as nobody has set it up.
fn git(sources: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .current_dir(sources)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "cargo xtask");
        command.env(format!("GIT_{who}_EMAIL"), "xtask@localhost");
    }
    command
}

fn folder(release: &str) -> String {
    format!("{ENGINE}-{release}")
}

impl Report {
    fn is_clean(&self) -> bool {
        let Requirements {
            replaced, apart, ..
        } = &self.dependencies;
        self.patches
            .iter()
            .all(|patch| patch.trial.verdict == Verdict::Applies)
            && self.audit.problems.is_empty()
            && replaced.iter().all(|port| port.verdict == Match::Matches)
            && apart.is_empty()
    }

    fn count(&self, verdict: Verdict) -> usize {
        let verdicts = self.patches.iter().map(|patch| patch.trial.verdict);
        verdicts.filter(|found| *found == verdict).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{ENGINE} {}; {} is in use", self.release, self.in_use)?;
        writeln!(f, "sha256   {}", self.sha256)?;
        writeln!(f, "sources  {}", self.sources.display())?;
        writeln!(f, "\nPatches")?;
        for patch in &self.patches {
            let name = &patch.file;
            match patch.trial.verdict {
                Verdict::Applies => writeln!(f, "  {name}: applies")?,
                Verdict::AppliesElsewhere => writeln!(
                    f,
                    "  {name}: applies at other lines; written anew in ../patches"
                )?,
                Verdict::IsThere => writeln!(f, "  {name}: is in the release already")?,
                Verdict::Fails => writeln!(f, "  {name}: FAILS")?,
            }
            for failed in &patch.trial.failed {
                write!(f, "    {}", failed.file)?;
                if let Some(line) = failed.line {
                    write!(f, ":{line}")?;
                }
                if let Some(hunk) = failed.hunk {
                    write!(f, ", hunk {hunk}")?;
                }
                writeln!(f, ": {}", failed.why)?;
            }
        }
        let failing = self.count(Verdict::Fails);
        writeln!(f, "\nPlaces")?;
        for problem in &self.audit.problems {
            writeln!(f, "  {problem}")?;
        }
        let explained: usize = self.audit.explained.values().sum();
        write!(f, "  {explained} explained")?;
        if failing > 0 {
            write!(f, " (in sources that {failing} patches do not fit)")?;
        }
        writeln!(f)?;
        self.dependencies.fmt(f)?;
        let places = |wanted: &dyn Fn(&Problem) -> bool| {
            let problems = self.audit.problems.iter();
            problems.filter(|problem| wanted(problem)).count()
        };
        writeln!(
            f,
            "\nOf {} patches {} apply, {} at other lines, {} are there, {failing} fail. Of the places {} are new, \
             {} gone, {} not patched. {}",
            self.patches.len(),
            self.count(Verdict::Applies),
            self.count(Verdict::AppliesElsewhere),
            self.count(Verdict::IsThere),
            places(&|problem| matches!(problem, Problem::New { .. })),
            places(&|problem| matches!(problem, Problem::Gone { .. })),
            places(&|problem| matches!(problem, Problem::NotPatched { .. })),
            if self.is_clean() {
                "The release can be taken as it is."
            } else {
                "docs/engine-releases.md says what to do."
            }
        )
    }
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nReplaced dependencies")?;
        for port in &self.replaced {
            write!(f, "  {} {}: ", port.name, port.version)?;
            match port.verdict {
                Match::Matches => write!(f, "matches")?,
                Match::OtherVersion => write!(
                    f,
                    "DOES NOT MATCH, a build takes {} from the registry",
                    port.from_registry.join(", ")
                )?,
                Match::NotNeeded => write!(f, "NOT NEEDED any more")?,
            }
            for asked in &port.asked {
                write!(f, "; {} asks for {}", asked.by, asked.requirement)?;
            }
            if !port.released_with.is_empty() {
                write!(f, "; released with {}", port.released_with.join(", "))?;
            }
            writeln!(f)?;
        }
        for apart in &self.apart {
            writeln!(
                f,
                "  {}: the component has {} and the engine {}: FEATURES of the one do not reach the other",
                apart.name, apart.component, apart.engine
            )?;
        }
        writeln!(f, "\nOther dependencies of the engine")?;
        if self.changed.is_empty() {
            writeln!(f, "  as in the release in use")?;
        }
        for changed in &self.changed {
            let [before, after] =
                [&changed.before, &changed.after].map(|asked| asked.as_deref().unwrap_or("none"));
            writeln!(f, "  {}: {before} -> {after}", changed.name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_that_is_written_anew_keeps_its_words_and_takes_the_new_lines() {
        let patch = "Why it is so.\n\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-index a\n+index b\n";
        let diff = "diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n@@ -7 +7 @@\n-index a\n+index b\n\
            diff --git a/y b/y\nnew file mode 100644\nindex 0..1\n--- /dev/null\n+++ b/y\n@@ -0,0 +1 @@\n+y\n";
        assert_eq!(
            remake(patch, diff),
            "Why it is so.\n\n--- a/x\n+++ b/x\n@@ -7 +7 @@\n-index a\n+index b\n\
             --- /dev/null\n+++ b/y\n@@ -0,0 +1 @@\n+y\n"
        );
    }

    #[test]
    fn the_folder_of_a_trial_is_known_to_be_worked_in() {
        let place = tempfile::tempdir().expect("a folder");
        let sources = place.path().join(folder("1.0.0"));
        create_folder(&sources).expect("a folder");
        let untouched = || is_untouched(place.path(), "1.0.0").expect("git answers");
        assert!(!untouched());
        std::fs::write(sources.join("lib.rs"), "one").expect("a file");
        command::capture(git(&sources).args(["init", "--quiet"])).expect("git");
        commit(&sources, "one").expect("a commit");
        command::capture(git(&sources).args(["tag", TRIED])).expect("a tag");
        assert!(untouched());
        std::fs::write(sources.join("lib.rs"), "two").expect("a file");
        assert!(!untouched());
        commit(&sources, "two").expect("a commit");
        assert!(!untouched());
    }
}
