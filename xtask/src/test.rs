//! `cargo xtask test`: everything that has to hold before a change lands.

use std::{fmt, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    audit, build,
    chores::Chores,
    command, diagnostics, freshness, hygiene, package, progress,
    target::{self, WasmTarget},
    wasi_cargo,
};

/// By what name a filter asks for the packages to be made and checked.
const PACKAGES: &str = "packages";

/// How many tests ran, as the test runners report it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs the checks in order, the cheap ones first, and stops at the first that fails.
///
/// With a `filter` only tests run, those whose name contains it. `quick` leaves out the lints, the
/// component and the whole-system tests.
///
/// # Errors
/// Names the check that failed.
pub fn run(chores: &Chores, filter: Option<&str>, quick: bool) -> Result<()> {
    let mut tally = Tally::default();
    let result = checks(chores, filter, quick, &mut tally);
    if tally != Tally::default() {
        // Also after a failure: it says how far the run came.
        println!("\n{tally}");
    }
    result
}

fn checks(chores: &Chores, filter: Option<&str>, quick: bool, tally: &mut Tally) -> Result<()> {
    let everything = filter.is_none();
    let mut packages = false;
    if everything {
        format(chores)?;
        hygiene::check_files(&chores.repository)?;
    }
    let target = if quick {
        build::prepare_native(chores)?;
        None
    } else {
        Some(build::prepare(chores)?)
    };
    if everything {
        audit::run(chores, false)?;
        hygiene::check_dependencies(chores)?;
        small_crates(chores, quick, tally)?;
    }
    if let Some(target) = &target {
        if everything {
            lint(chores, target)?;
        }
        let built = build::everything(chores, &build::PROGRAMS)?;
        build::kernel_tests(chores, target)?;
        if filter.is_none_or(|filter| PACKAGES.contains(filter)) {
            packages = check(PACKAGES, || package::test(chores, &built))?;
        }
    }
    let mut cargo = chores.cargo(chores.repository.root(), "native");
    cargo.args([
        "test",
        diagnostics::AS_MESSAGES,
        "--release",
        "--locked",
        "--workspace",
        // One run names everything that fails.
        "--no-fail-fast",
    ]);
    if packages {
        cargo.env("EDGE_SYNC_PACKAGES", chores.repository.products());
    }
    if quick {
        cargo.args(["--lib", "--bins"]);
    }
    if let Some(filter) = filter {
        cargo.args(["--", filter]);
    }
    let what = if quick {
        "unit tests"
    } else {
        "unit and whole-system tests"
    };
    test(what, &mut cargo, tally)
}

/// The crates that need neither the engine nor Wasmtime: this one and the stand-ins.
fn small_crates(chores: &Chores, quick: bool, tally: &mut Tally) -> Result<()> {
    for folder in chores.repository.small_workspaces()? {
        let name = name(&folder);
        let cargo = |arguments: &[&str]| {
            let mut command = chores.cargo(&folder, freshness::SMALL);
            command.args(arguments);
            command
        };
        if !quick {
            let mut clippy = cargo(&["clippy", "--quiet", "--locked", "--all-targets"]);
            show(
                &format!("lints: {name}"),
                clippy.args(["--", "-D", "warnings"]),
            )?;
        }
        test(
            &format!("tests: {name}"),
            &mut cargo(&["test", "--quiet", "--locked"]),
            tally,
        )?;
    }
    Ok(())
}

fn format(chores: &Chores) -> Result<()> {
    for folder in chores.repository.workspaces()? {
        let mut cargo = chores.cargo(&folder, "native");
        show(
            &format!("format: {}", name(&folder)),
            cargo.args(["fmt", "--all", "--check"]),
        )
        .with_context(|| format!("run `cargo fmt --all` in {}", folder.display()))?;
    }
    Ok(())
}

fn lint(chores: &Chores, target: &WasmTarget) -> Result<()> {
    let deny = ["--", "-D", "warnings"];
    // The release profile shares what build scripts and macros need with the build.
    let mut cargo = chores.cargo(chores.repository.root(), "native");
    cargo.args([
        "clippy",
        diagnostics::AS_MESSAGES,
        "--release",
        "--locked",
        "--workspace",
        "--all-targets",
    ]);
    compile("lints: the workspace", cargo.args(deny))?;
    let for_wasi = [
        "clippy",
        diagnostics::AS_MESSAGES,
        "--release",
        "--locked",
        "--target",
        target::TRIPLE,
    ];
    let mut cargo = wasi_cargo::cargo(chores, target)?;
    compile("lints: component", cargo.args(for_wasi).args(deny))?;
    // Elsewhere most of it is not compiled.
    let kernels = chores.repository.kernels();
    let mut cargo = wasi_cargo::cargo_in(chores, &kernels, freshness::SMALL, target)?;
    cargo.args(for_wasi).arg("--all-targets").args(deny);
    compile("lints: the kernels for WASI", &mut cargo)
}

fn name(folder: &Path) -> String {
    folder.file_name().map_or_else(
        || folder.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn check<T>(what: &str, check: impl FnOnce() -> Result<T>) -> Result<T> {
    progress::heading(what);
    check().with_context(|| format!("failed: {what}"))
}

fn show(what: &str, command: &mut Command) -> Result<()> {
    progress::heading(what);
    command::show(command).with_context(|| format!("failed: {what}"))
}

fn compile(what: &str, command: &mut Command) -> Result<()> {
    progress::heading(what);
    command::compile(command).with_context(|| format!("failed: {what}"))
}

fn test(what: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    progress::heading(what);
    command::lines(command, |line| {
        if let Some(text) = diagnostics::shown(line) {
            println!("{text}");
        }
        tally.add(line);
    })
    .with_context(|| format!("failed: {what}"))
}

impl Tally {
    /// Counts a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        let counts = counts.split_once(". ").map_or(counts, |(_, counts)| counts);
        for part in counts.split(';') {
            let Some((number, what)) = part.trim().split_once(' ') else {
                continue;
            };
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn results_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 5 filtered out",
        ] {
            tally.add(line);
        }
        assert_eq!(tally.to_string(), "5 passed, 1 failed, 1 skipped");
    }
}
