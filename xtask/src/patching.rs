//! Strict patching: every hunk at its line, with all of its context, or nothing.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};

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

/// What git printed.
fn git_apply(folder: &Path, patch: &Path, options: &[&str]) -> Result<String> {
    let ceiling = folder.parent().unwrap_or(folder);
    command::capture_all(
        Command::new("git")
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
            .env_remove("GIT_INDEX_FILE"),
    )
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
}
