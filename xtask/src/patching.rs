//! Strict patching: every hunk at its line, with all of its context, or nothing. And how far a patch
//! fits sources that it was not made for.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use crate::command;

/// Applies a patch in git's format to the sources in `folder`.
///
/// # Errors
/// Where a hunk does not fit exactly, or git is missing. The folder is then unchanged.
pub fn apply(patch: &Path, folder: &Path) -> Result<()> {
    let describe = || format!("{} does not apply exactly", patch.display());
    let checked = git_apply(folder, patch, &["--check", "--verbose"]).with_context(describe)?;
    if let Some(line) = checked.lines().find(|line| line.contains("offset")) {
        bail!("{}: {line}", describe());
    }
    git_apply(folder, patch, &[]).with_context(describe)?;
    // git skips what it takes for files outside of a surrounding repository, and calls it success.
    let done = git_apply(folder, patch, &["--check", "--reverse"]);
    ensure!(
        done.is_ok(),
        "{}: git left the files as they were",
        describe()
    );
    Ok(())
}

/// How far a patch fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it is.
    Applies,
    /// With all of its context, but at other lines.
    AppliesElsewhere,
    /// The sources have all of it already.
    IsThere,
    /// Not all of it.
    Fails,
}

/// What became of a patch.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// The sum of the rest.
    pub verdict: Verdict,
    /// Hunks that fit at other lines.
    pub moved: Vec<Moved>,
    /// What does not fit.
    pub failed: Vec<Failed>,
}

/// A hunk that fits at another line.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// Below the crate.
    pub file: String,
    /// Its number among those of the file.
    pub hunk: u32,
    /// Where it fits.
    pub line: u64,
}

/// A hunk that does not fit, or all of them in a file.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Below the crate.
    pub file: String,
    /// Its number among those of the file; none where it is the file that does not fit.
    pub hunk: Option<u32>,
    /// Where the patch expects the hunk.
    pub line: Option<u64>,
    /// What is wrong.
    pub why: String,
}

/// Applies what fits of a patch to the sources in `folder`; each hunk that does not is in a file beside
/// the one it is for, whose name ends in `.rej`.
///
/// # Errors
/// Where git is missing, or the file is no patch.
pub fn trial(patch: &Path, folder: &Path) -> Result<Trial> {
    let (is_there, _) = command::attempt(&mut git(folder, patch, &["--check", "--reverse"]))?;
    if is_there {
        return Ok(Trial {
            verdict: Verdict::IsThere,
            moved: Vec::new(),
            failed: Vec::new(),
        });
    }
    let (applied, said) = command::attempt(&mut git(folder, patch, &["--reject", "--verbose"]))?;
    let trial = read_trial(&said);
    ensure!(
        applied != (trial.verdict == Verdict::Fails),
        "{} cannot be tried:\n{said}",
        patch.display()
    );
    Ok(trial)
}

/// What git's words, file by file and hunk by hunk, come to.
fn read_trial(said: &str) -> Trial {
    let mut moved = Vec::new();
    let mut failed: Vec<Failed> = Vec::new();
    let mut file = "";
    for line in said.lines() {
        if let Some(rest) = line.strip_prefix("Checking patch ") {
            file = rest.trim_end_matches("...");
        } else if let Some((hunk, place)) = line
            .strip_prefix("Hunk #")
            .and_then(|rest| rest.split_once(" succeeded at "))
        {
            let line = place.split(' ').next().unwrap_or_default();
            if let (Ok(hunk), Ok(line)) = (hunk.parse(), line.parse()) {
                let file = file.to_owned();
                moved.push(Moved { file, hunk, line });
            }
        } else if let Some(rest) = line.strip_prefix("error: patch failed: ") {
            // Its number comes later: the hunks are checked first, and counted when they are applied.
            let (file, line) = rest.rsplit_once(':').unwrap_or((rest, ""));
            failed.push(Failed {
                file: file.to_owned(),
                hunk: None,
                line: line.parse().ok(),
                why: "other lines are there".to_owned(),
            });
        } else if let Some(why) = line
            .strip_prefix("error: ")
            .and_then(|rest| rest.strip_prefix(file)?.strip_prefix(": "))
        {
            failed.push(Failed {
                file: file.to_owned(),
                hunk: None,
                line: None,
                why: why.to_owned(),
            });
        } else if let Some(rest) = line.strip_prefix("Applying patch ") {
            file = rest.split_once(" with ").map_or(rest, |(file, _)| file);
        } else if let Some(number) = line.strip_prefix("Rejected hunk #") {
            let number = number.trim_end_matches('.').parse().ok();
            let unnumbered = failed.iter_mut().find(|failed| {
                failed.file == file && failed.line.is_some() && failed.hunk.is_none()
            });
            if let Some(failed) = unnumbered {
                failed.hunk = number;
            }
        }
    }
    let verdict = match (failed.is_empty(), moved.is_empty()) {
        (false, _) => Verdict::Fails,
        (true, false) => Verdict::AppliesElsewhere,
        (true, true) => Verdict::Applies,
    };
    Trial {
        verdict,
        moved,
        failed,
    }
}

/// What git printed.
fn git_apply(folder: &Path, patch: &Path, options: &[&str]) -> Result<String> {
    command::capture_all(&mut git(folder, patch, options))
}

fn git(folder: &Path, patch: &Path, options: &[&str]) -> Command {
    let ceiling = folder.parent().unwrap_or(folder);
    let mut command = Command::new("git");
    command
        .args(["apply", "--whitespace=nowarn"])
        .args(options)
        .arg(patch)
        .current_dir(folder)
        .env("LC_ALL", "C")
        // The person's settings may allow fuzz or change line ends.
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CEILING_DIRECTORIES", ceiling)
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE");
    command
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const PATCH: &str =
        "--- a/src/lib.rs\n+++ b/src/lib.rs\n@@ -2,3 +2,3 @@\n two\n-three\n+drei\n four\n";

    struct Sources {
        folder: tempfile::TempDir,
        patch: PathBuf,
    }

    impl Sources {
        fn new(text: &str, patch: &str) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let source = folder.path().join("crate/src");
            std::fs::create_dir_all(&source).expect("a folder");
            std::fs::write(source.join("lib.rs"), text).expect("a file");
            let path = folder.path().join("x.patch");
            std::fs::write(&path, patch).expect("a file");
            Self {
                folder,
                patch: path,
            }
        }

        fn apply(&self) -> Result<()> {
            apply(&self.patch, &self.folder.path().join("crate"))
        }

        fn trial(&self) -> Trial {
            trial(&self.patch, &self.folder.path().join("crate")).expect("it can be tried")
        }

        fn text(&self) -> String {
            let file = self.folder.path().join("crate/src/lib.rs");
            std::fs::read_to_string(file).expect("the file")
        }
    }

    #[test]
    fn an_exact_patch_is_applied() {
        let sources = Sources::new("one\ntwo\nthree\nfour\nfive\n", PATCH);
        sources.apply().expect("applied");
        assert_eq!(sources.text(), "one\ntwo\ndrei\nfour\nfive\n");
    }

    #[test]
    fn other_context_is_refused() {
        let text = "one\ntwo!\nthree\nfour\nfive\n";
        let sources = Sources::new(text, PATCH);
        assert!(sources.apply().is_err());
        assert_eq!(sources.text(), text);
    }

    #[test]
    fn another_line_is_refused() {
        let text = "zero\none\ntwo\nthree\nfour\nfive\n";
        let sources = Sources::new(text, PATCH);
        let error = sources.apply().expect_err("it is one line off");
        assert!(error.to_string().contains("offset"), "{error}");
        assert_eq!(sources.text(), text);
    }

    #[test]
    fn one_bad_hunk_spoils_the_patch() {
        let bad = "--- a/src/lib.rs\n+++ b/src/lib.rs\n@@ -1,2 +1,2 @@\n-one\n+eins\n two\n@@ -4,2 +4,2 @@\n-vier\n+four\n five\n";
        let text = "one\ntwo\nthree\nfour\nfive\n";
        let sources = Sources::new(text, bad);
        assert!(sources.apply().is_err());
        assert_eq!(sources.text(), text);
    }

    #[test]
    fn a_surrounding_repository_makes_no_difference() {
        let sources = Sources::new("one\ntwo\nthree\nfour\nfive\n", PATCH);
        let root = sources.folder.path();
        command::capture(Command::new("git").args(["init", "-q"]).current_dir(root)).expect("git");
        sources.apply().expect("applied");
        assert_eq!(sources.text(), "one\ntwo\ndrei\nfour\nfive\n");
    }

    #[test]
    fn a_trial_says_at_which_lines_a_patch_fits() {
        let exact = Sources::new("one\ntwo\nthree\nfour\nfive\n", PATCH);
        assert_eq!(exact.trial().verdict, Verdict::Applies);
        assert_eq!(exact.trial().verdict, Verdict::IsThere);
        let sources = Sources::new("zero\none\ntwo\nthree\nfour\nfive\n", PATCH);
        let trial = sources.trial();
        assert_eq!(trial.verdict, Verdict::AppliesElsewhere);
        let moved = Moved {
            file: "src/lib.rs".to_owned(),
            hunk: 1,
            line: 3,
        };
        assert_eq!(trial.moved, [moved]);
        assert_eq!(sources.text(), "zero\none\ntwo\ndrei\nfour\nfive\n");
    }

    #[test]
    fn a_trial_names_what_does_not_fit_and_applies_the_rest() {
        // Of the file's three hunks the first and the last do not fit; the second is two lines off. One
        // file is not there, one that the patch makes is.
        let patch = "Why.\n\n\
            --- a/src/lib.rs\n+++ b/src/lib.rs\n\
            @@ -1,2 +1,2 @@\n-eins\n+one\n two\n\
            @@ -4,3 +4,3 @@\n four\n-five\n+fuenf\n six\n\
            @@ -9,2 +9,2 @@\n nine\n-zehn\n+ten\n\
            --- a/src/gone.rs\n+++ b/src/gone.rs\n@@ -3,1 +3,1 @@\n-x\n+y\n\
            --- /dev/null\n+++ b/src/new.rs\n@@ -0,0 +1,1 @@\n+new\n\
            --- /dev/null\n+++ b/Cargo.toml\n@@ -0,0 +1,1 @@\n+new\n";
        let text = "zero\none\none\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n";
        let sources = Sources::new(text, patch);
        let folder = sources.folder.path().join("crate");
        std::fs::write(folder.join("Cargo.toml"), "").expect("a file");
        let trial = sources.trial();
        assert_eq!(trial.verdict, Verdict::Fails);
        let failed: Vec<_> = trial
            .failed
            .iter()
            .map(|failed| (failed.file.as_str(), failed.hunk, failed.line))
            .collect();
        assert_eq!(
            failed,
            [
                ("src/lib.rs", Some(1), Some(1)),
                ("src/lib.rs", Some(3), Some(9)),
                ("src/gone.rs", None, None),
                ("Cargo.toml", None, None),
            ]
        );
        let moved: Vec<_> = trial.moved.iter().map(|m| (m.hunk, m.line)).collect();
        assert_eq!(moved, [(2, 6)]);
        assert!(sources.text().contains("four\nfuenf\nsix"));
        assert!(folder.join("src/new.rs").is_file());
        assert!(folder.join("src/lib.rs.rej").is_file());
    }

    #[test]
    fn what_is_no_patch_cannot_be_tried() {
        let sources = Sources::new("one\n", "@@ nonsense\n");
        assert!(trial(&sources.patch, &sources.folder.path().join("crate")).is_err());
    }
}
