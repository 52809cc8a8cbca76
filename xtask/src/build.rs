//! Building the component and the programs, and running the latter.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    chores::Chores,
    command, diagnostics, digest,
    files::create_folder,
    freshness, names, ports, progress,
    target::{self, WasmTarget},
    toolchain, wasi_cargo,
};

/// What cargo calls the component.
const COMPONENT_ARTIFACT: &str = "edge_sync_component.wasm";

/// The component, as programs find it.
const COMPONENT: &str = "edge_sync.wasm";

/// The names of its functions, where the host looks for them when something trapped.
const NAMES: &str = "edge_sync.names";

/// The command.
pub const COMMAND: &str = "edge-sync";

/// All programs: the whole-system tests run each of them.
pub const PROGRAMS: [&str; 4] = [COMMAND, "bench", "demo", "qdrant-double"];

/// What a build left in the clone.
pub struct Built {
    component: PathBuf,
    names: PathBuf,
}

impl Built {
    /// The component.
    pub fn component(&self) -> &Path {
        &self.component
    }

    /// The names of its functions.
    pub fn names(&self) -> &Path {
        &self.names
    }

    /// Prints where it and the command are.
    pub fn print(&self) {
        println!("component  {}", self.component.display());
        let command = self.component.with_file_name(COMMAND);
        println!("command    {}", command.display());
    }
}

/// What building needs: the target and the patched sources.
///
/// # Errors
/// Where they cannot be had, or there is no C compiler.
pub fn prepare(chores: &Chores) -> Result<WasmTarget> {
    toolchain::require_c()?;
    let target = target::provide(chores)?;
    prepare_native(chores)?;
    Ok(target)
}

/// What building for this machine alone needs.
///
/// # Errors
/// Where the patched sources cannot be had, or there is no C compiler.
pub fn prepare_native(chores: &Chores) -> Result<()> {
    toolchain::require_c()?;
    ports::provide(chores)?;
    freshness::age_sources(&chores.cache, &chores.repository)
}

/// Builds the component and `programs`, and copies them to one folder of the clone.
///
/// # Errors
/// Where something needed is missing or a build fails.
pub fn everything(chores: &Chores, programs: &[&str]) -> Result<Built> {
    let target = prepare(chores)?;
    progress::heading("building the component (the engine in it takes minutes, once)");
    command::compile(wasi_cargo::cargo(chores, &target)?.args([
        "build",
        diagnostics::AS_MESSAGES,
        "--release",
        "--locked",
        "--target",
        target::TRIPLE,
    ]))
    .context("building the component")?;
    let wasm = chores.cache.target("wasm").join(target::TRIPLE);
    let (component, names) =
        install_component(chores, &wasm.join("release").join(COMPONENT_ARTIFACT))?;

    progress::heading("building the host and its programs (Wasmtime and the engine, once)");
    let mut cargo = chores.cargo(chores.repository.root(), "native");
    // Always of the whole workspace: a part of it would unify features differently, and build the
    // engine a second time.
    cargo.args([
        "build",
        diagnostics::AS_MESSAGES,
        "--release",
        "--locked",
        "--workspace",
    ]);
    for program in programs {
        cargo.args(["--bin", program]);
    }
    command::compile(&mut cargo).context("building the host")?;
    let native = chores.cache.target("native").join("release");
    for program in programs {
        install(chores, &native.join(program), program)?;
    }
    if programs.contains(&COMMAND) {
        compile_component(chores)?;
    }
    Ok(Built { component, names })
}

/// Compiles the component for this machine, into the cache where programs look, so that none of them
/// has to.
fn compile_component(chores: &Chores) -> Result<()> {
    progress::heading("compiling the component for this machine (once)");
    let mut prepare = std::process::Command::new(chores.repository.products().join(COMMAND));
    prepare.arg("prepare").envs(chores.variables());
    command::show(&mut prepare).context("compiling the component for this machine")
}

/// Compiles the tests of the kernels for WASI, and puts them where the whole-system tests look.
///
/// # Errors
/// Where the build fails.
pub fn kernel_tests(chores: &Chores, target: &WasmTarget) -> Result<()> {
    progress::heading("building the tests of the kernels for WASI");
    let mut cargo = wasi_cargo::cargo_in(
        chores,
        &chores.repository.kernels(),
        freshness::SMALL,
        target,
    )?;
    cargo.args([
        "test",
        "--no-run",
        diagnostics::AS_MESSAGES,
        "--release",
        "--locked",
        "--target",
        target::TRIPLE,
        "--test",
        "against_scalar",
    ]);
    let mut tests = None;
    command::lines(&mut cargo, |line| {
        if let Some(text) = diagnostics::shown(line) {
            eprintln!("{text}");
        }
        if let Some(file) = diagnostics::executable(line) {
            tests = Some(file);
        }
    })
    .context("building the tests of the kernels")?;
    let tests = tests.context("cargo names no tests of the kernels")?;
    install(chores, &tests, "wasm_kernels_tests.wasm").map(drop)
}

/// Builds `programs`, then runs the first. The cache is free again by then.
///
/// # Errors
/// Where the build or the program fails.
pub fn run_program(chores: &Chores, programs: &[&str], arguments: &[String]) -> Result<()> {
    chores.locked(|| everything(chores, programs))?;
    let program = programs.first().context("no program is named")?;
    progress::heading(program);
    let mut command = std::process::Command::new(chores.repository.products().join(program));
    command.args(arguments).envs(chores.variables());
    command::show(&mut command)
}

/// Prints shell commands after which plain cargo commands use the cache.
///
/// # Errors
/// Where the WASI target cannot be had.
pub fn print_environment(chores: &Chores) -> Result<()> {
    let target = chores.locked(|| {
        freshness::age_sources(&chores.cache, &chores.repository)?;
        target::provide(chores)
    })?;
    let export = |name: &str, value: &Path| println!("export {name}='{}'", value.display());
    for (name, value) in chores.variables() {
        export(name, &value);
    }
    export("CARGO_TARGET_DIR", &chores.cache.target("native"));
    export(
        "CARGO_TARGET_WASM32_WASIP2_RUSTFLAGS",
        Path::new(&wasi_cargo::flags(chores, &target, " ")?),
    );
    Ok(())
}

/// Copies the component out of the cache, and the names of its functions into a file beside it.
fn install_component(chores: &Chores, artifact: &Path) -> Result<(PathBuf, PathBuf)> {
    let bytes =
        std::fs::read(artifact).with_context(|| format!("reading {}", artifact.display()))?;
    let split = names::split(&bytes)
        .with_context(|| format!("{} is not a component", artifact.display()))?;
    let names = format!("{}\n{}", digest::sha256(&split.component), split.names);
    let names = place(chores, NAMES, |fresh| std::fs::write(fresh, names))?;
    let component = place(chores, COMPONENT, |fresh| {
        std::fs::write(fresh, &split.component)
    })?;
    Ok((component, names))
}

/// Copies an artifact out of the cache, where another clone may overwrite it.
fn install(chores: &Chores, artifact: &Path, name: &str) -> Result<PathBuf> {
    place(chores, name, |fresh| {
        std::fs::copy(artifact, fresh).map(drop)
    })
    .with_context(|| format!("copying {}", artifact.display()))
}

fn place(
    chores: &Chores,
    name: &str,
    write: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<PathBuf> {
    let folder = chores.repository.products();
    create_folder(&folder)?;
    let product = folder.join(name);
    // Renamed into place, for a program may be running.
    let fresh = folder.join(format!("{name}.new"));
    write(&fresh)
        .and_then(|()| std::fs::rename(&fresh, &product))
        .with_context(|| format!("writing {}", product.display()))?;
    Ok(product)
}
