//! `cargo xtask audit`: the engine's sites that depend on the width of a pointer are all explained.

use anyhow::{Context, Result, bail};

use crate::{chores::Chores, pointer_width, ports, progress};

/// Looks through the patched sources, and checks that `AUDIT.md` shows the list as it is.
///
/// # Errors
/// Where a site is unexplained, a patch has gone, or `AUDIT.md` is out of step.
pub fn run(chores: &Chores) -> Result<()> {
    ports::provide(chores)?;
    progress::heading("sites that depend on the width of a pointer");
    let engine = chores.repository.component().join(".ports/qdrant-edge");
    let folder = chores.repository.ports().join("qdrant-edge");
    let list = folder.join("audit.toml");
    let report = pointer_width::run(&engine, &list)?;
    for (pattern, sites) in &report.explained {
        println!("{pattern:<14} {sites:>5} explained");
    }
    if !report.problems.is_empty() {
        bail!(
            "{} to settle in {}:\n{}",
            report.problems.len(),
            list.display(),
            report.problems.join("\n")
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
