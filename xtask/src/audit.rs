//! `cargo xtask audit`: the engine's sites that depend on the width of a pointer are all explained.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{
    chores::Chores,
    pointer_width::{self, Problem},
    ports, progress,
    repository::Repository,
};

/// Looks through the patched sources, and checks that `AUDIT.md` shows the list as it is. With `json`
/// what was found is one JSON value.
///
/// # Errors
/// Where a site is unexplained, a patch has gone, or `AUDIT.md` is out of step.
pub fn run(chores: &Chores, json: bool) -> Result<()> {
    ports::provide(chores)?;
    progress::heading("sites that depend on the width of a pointer");
    let engine = chores.repository.component().join(".ports/qdrant-edge");
    let folder = chores.repository.ports().join("qdrant-edge");
    let list = list(&chores.repository);
    let report = pointer_width::run(&engine, &list)?;
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        for (pattern, sites) in &report.explained {
            println!("{pattern:<14} {sites:>5} explained");
        }
    }
    if !report.problems.is_empty() {
        let problems: Vec<String> = report.problems.iter().map(Problem::to_string).collect();
        bail!(
            "{} to settle in {}:\n{}",
            problems.len(),
            list.display(),
            problems.join("\n")
        );
    }
    let shown = folder.join("AUDIT.md");
    let table = pointer_width::table(&list)?;
    let text =
        std::fs::read_to_string(&shown).with_context(|| format!("reading {}", shown.display()))?;
    if text != table {
        std::fs::write(&shown, table).with_context(|| format!("writing {}", shown.display()))?;
        bail!("{} was out of step and has been rewritten", shown.display());
    }
    Ok(())
}

/// The list of sites that somebody has looked at.
pub fn list(repository: &Repository) -> PathBuf {
    repository.ports().join("qdrant-edge/audit.toml")
}
