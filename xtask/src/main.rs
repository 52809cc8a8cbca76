//! Every chore of the repository behind one command: `cargo xtask --help`.
//!
//! A chore provides what it needs by itself (the wasm target, the patched sources, the builds),
//! says what it does, and does nothing where nothing is to be done.

mod audit;
mod build;
mod cache;
mod chores;
mod command;
mod debian;
mod diagnostics;
mod digest;
mod files;
mod freshness;
mod hygiene;
mod names;
mod package;
mod patching;
mod pointer_width;
mod ports;
mod progress;
mod release;
mod remap;
mod repository;
mod requirements;
mod target;
mod test;
mod toolchain;
mod wasi_cargo;

use std::process::ExitCode;

use anyhow::Result;
use cargo_metadata::semver::Version;
use clap::{Parser, Subcommand};

use crate::chores::Chores;

/// The exit code of a trial that found something to do.
const TO_DO: u8 = 3;

/// The chores of edge-sync
///
/// Downloads and builds are kept in a cache that every clone on the machine shares:
/// $EDGE_SYNC_CACHE, else $XDG_CACHE_HOME/edge-sync, else ~/.cache/edge-sync.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Build the component and the edge-sync command
    Build,
    /// Build what other hosts take: the component and its WIT package, an OCI image layout, a Python
    /// wheel, an npm tarball, the browser package, an SBOM, and checksums of all of them
    Package,
    /// Run every check: format, lints, licences, packages, unit tests, whole-system tests
    Test {
        /// Run only the tests whose name contains this, without lints and other checks
        filter: Option<String>,
        /// Leave out the lints, the component and the whole-system tests
        #[arg(long)]
        quick: bool,
    },
    /// Show two devices and a server staying in step, on real data
    Demo {
        /// Passed to the demo, for example --qdrant-url URL
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure the component against the native engine
    Bench {
        /// Passed to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Provide the wasm32-wasip2 target
    Target,
    /// Fetch the crates of ports/, check and patch them
    Ports,
    /// Look for places in the engine that depend on the width of a pointer
    ///
    /// With --release: what moving to that release of the engine takes. The exit code is 3 where something
    /// has to be done first, and 1 where the release could not be tried.
    Audit {
        /// Try the patches, the list of places and the replaced dependencies on this release
        #[arg(long, value_name = "VERSION")]
        release: Option<Version>,
        /// Print what was found as one JSON value
        #[arg(long)]
        json: bool,
    },
    /// Print the environment that plain cargo commands need, for a shell to evaluate
    Env,
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(code) => code,
        Err(error) => {
            progress::failure(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<ExitCode> {
    let chores = Chores::new()?;
    let done = match chore {
        Chore::Build => chores
            .locked(|| build::everything(&chores, &[build::COMMAND]).map(|built| built.print())),
        Chore::Package => chores.locked(|| package::everything(&chores)),
        Chore::Test { filter, quick } => {
            chores.locked(|| test::run(&chores, filter.as_deref(), quick))
        }
        Chore::Demo { arguments } => build::run_program(&chores, &["demo"], &arguments),
        Chore::Bench { arguments } => {
            // It measures what the command serves, too.
            build::run_program(&chores, &["bench", build::COMMAND], &arguments)
        }
        Chore::Target => chores.locked(|| target::provide(&chores).map(drop)),
        Chore::Ports => chores.locked(|| ports::provide(&chores)),
        Chore::Audit {
            release: Some(release),
            json,
        } => {
            let clean = chores.locked(|| release::run(&chores, &release.to_string(), json))?;
            return Ok(ExitCode::from(if clean { 0 } else { TO_DO }));
        }
        Chore::Audit { json, .. } => chores.locked(|| audit::run(&chores, json)),
        Chore::Env => build::print_environment(&chores),
    };
    done.map(|()| ExitCode::SUCCESS)
}
