//! The standard library for `wasm32-wasip2`: from the toolchain, from rustup, or built here.

use std::{
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    cache,
    chores::Chores,
    command,
    debian::{self, Wanted},
    digest,
    files::{create_folder, link},
    progress, remap, repository,
    toolchain::{self, Toolchain},
};

/// The target that components are built for.
pub const TRIPLE: &str = "wasm32-wasip2";

/// Written last: a sysroot without it was cut off.
const COMPLETE: &str = "complete";

/// Folder of the compiler that builds the standard library, while it does.
const COMPILER: &str = "compiler";

/// What wasi-libc gives the linker.
const START_FILES: [&str; 3] = ["crt1-command.o", "crt1-reactor.o", "libc.a"];

/// Where the target's standard library is.
pub struct WasmTarget {
    /// The sysroot to pass to the compiler; none where the toolchain has the target itself.
    pub sysroot: Option<PathBuf>,
}

/// Finds the target or gets it. The installed toolchain is changed by rustup only.
///
/// # Errors
/// Where the target is missing and cannot be had, saying how to install it.
pub fn provide(chores: &Chores) -> Result<WasmTarget> {
    let toolchain = &chores.toolchain;
    if toolchain.has(TRIPLE)? {
        return Ok(WasmTarget { sysroot: None });
    }
    if let Some(sysroot) = find_private(chores)? {
        link(&toolchain.host_folder(), &host_link(&sysroot, toolchain))?;
        return Ok(WasmTarget {
            sysroot: Some(sysroot),
        });
    }
    if command::exists("rustup") {
        let added = progress::step(&format!("getting {TRIPLE} from rustup"), || {
            command::capture(Command::new("rustup").args(["target", "add", TRIPLE]))
        });
        match added {
            Ok(_) if toolchain.has(TRIPLE)? => return Ok(WasmTarget { sysroot: None }),
            Ok(_) => progress::note("rustup has it for another toolchain than the one in use"),
            Err(_) => progress::note("rustup cannot get it here"),
        }
    }
    let sysroot = build(chores).with_context(|| {
        format!(
            "there is no {TRIPLE} for rustc {}: install it with `rustup target add {TRIPLE}`, or \
             give this machine a Debian mirror with rust-src {} and wasi-libc",
            toolchain.release, toolchain.release
        )
    })?;
    Ok(WasmTarget {
        sysroot: Some(sysroot),
    })
}

/// Where sysroots for the compiler in use are, and how their names begin: a standard library works
/// only with the very build of the compiler that made it.
fn private_place(chores: &Chores) -> (PathBuf, String) {
    let Toolchain {
        release,
        commit,
        host,
        ..
    } = &chores.toolchain;
    let folder = chores.cache.root().join("sysroots");
    let commit: String = commit.chars().take(9).collect();
    (folder, format!("{release}-{commit}-{host}-"))
}

fn find_private(chores: &Chores) -> Result<Option<PathBuf>> {
    let (folder, start) = private_place(chores);
    let found = repository::folders(&folder)?.into_iter().find(|sysroot| {
        let name = sysroot.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&start) && sysroot.join(COMPLETE).exists()
    });
    Ok(found)
}

fn host_link(sysroot: &Path, toolchain: &Toolchain) -> PathBuf {
    sysroot.join("lib/rustlib").join(&toolchain.host)
}

/// Builds the standard library from the distribution's sources and returns its sysroot.
fn build(chores: &Chores) -> Result<PathBuf> {
    let toolchain = &chores.toolchain;
    let linker = toolchain.host_folder().join("bin/wasm-component-ld");
    ensure!(
        linker.exists(),
        "the toolchain lacks {}: install Rust with rustup",
        linker.display()
    );
    let (parent, start) = private_place(chores);
    let work = cache::stage(&parent)?;

    let unpacked = progress::step(
        "getting rust-src and wasi-libc from the Debian mirror",
        || {
            debian::unpack(
                work.path(),
                &[
                    Wanted {
                        name: "rust-src",
                        version: &toolchain.release,
                    },
                    Wanted {
                        name: "wasi-libc",
                        version: "",
                    },
                ],
            )
        },
    )?;
    let sources = unpacked
        .join("usr/src")
        .join(format!("rustc-{}", toolchain.release))
        .join("library");
    let artifacts = progress::step(&format!("building std for {TRIPLE}"), || {
        build_std(toolchain, &sources, work.path())
    })?;

    let staged = work.path().join("sysroot");
    let library = staged.join("lib/rustlib").join(TRIPLE).join("lib");
    let start_files = library.join("self-contained");
    create_folder(&start_files)?;
    copy_rlibs(&artifacts, &library)?;
    let libc = unpacked.join("usr/lib").join(TRIPLE);
    for name in START_FILES {
        copy(&libc.join(name), &start_files.join(name))?;
    }
    ensure!(
        toolchain::holds_std(&library),
        "building the standard library left no libstd in {}",
        artifacts.display()
    );
    link(&toolchain.host_folder(), &host_link(&staged, toolchain))?;
    let complete = staged.join(COMPLETE);
    std::fs::write(&complete, "").with_context(|| complete.display().to_string())?;
    // Another build of the library is another library to the compiler, but not to cargo, unless its
    // path, which is among the compiler's flags, differs.
    let sysroot = parent.join(start + &digest_of(&library)?);
    if sysroot.exists() {
        std::fs::remove_dir_all(&sysroot).with_context(|| sysroot.display().to_string())?;
    }
    std::fs::rename(&staged, &sysroot).with_context(|| sysroot.display().to_string())?;
    Ok(sysroot)
}

fn digest_of(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    repository::walk(folder, &mut |path| files.push(path.to_owned()))?;
    let mut digest = digest::Short::default();
    for file in files {
        let name = file.file_name().unwrap_or_default();
        digest.add(name.as_encoded_bytes());
        digest.add(&std::fs::read(&file).with_context(|| file.display().to_string())?);
    }
    Ok(digest.finish())
}

/// Compiles `sources` for the target and returns the folder of the results.
fn build_std(toolchain: &Toolchain, sources: &Path, work: &Path) -> Result<PathBuf> {
    ensure!(
        sources.join("std/Cargo.toml").is_file(),
        "rust-src has no {}",
        sources.display()
    );
    let compiler = wrap_compiler(toolchain, sources, work)?;
    let package = work.join("empty");
    create_folder(&package.join("src"))?;
    for (file, text) in [
        // A library, since a program could not be linked yet.
        (
            "Cargo.toml",
            "[workspace]\n[package]\nname = \"empty\"\nedition = \"2024\"\n[lib]\n",
        ),
        ("src/lib.rs", ""),
    ] {
        let path = package.join(file);
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    let target = work.join("std");
    // As in a standard library that comes compiled: not where it happens to be for now.
    let names = [
        remap::flag(work, "/std"),
        remap::flag(
            &remap::sources(&work.join(COMPILER)),
            &toolchain.name_of_sources(),
        ),
    ]
    .join(OsStr::new("\u{1f}"));
    command::capture(
        toolchain
            .cargo()
            .args(["build", "--release", "-Zbuild-std=std,panic_abort"])
            .args(["--target", TRIPLE])
            .current_dir(&package)
            .env("CARGO_TARGET_DIR", &target)
            .env("RUSTC", compiler)
            // Building std is an unstable feature of a stable compiler.
            .env("RUSTC_BOOTSTRAP", "1")
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTFLAGS")
            .env("CARGO_ENCODED_RUSTFLAGS", names),
    )?;
    Ok(target.join(TRIPLE).join("release/deps"))
}

/// A compiler whose sysroot is the installed one with std's sources in it.
fn wrap_compiler(toolchain: &Toolchain, sources: &Path, work: &Path) -> Result<PathBuf> {
    let real = &toolchain.sysroot;
    let copy = work.join(COMPILER);
    let rustlib = Path::new("lib/rustlib");
    create_folder(&copy.join(rustlib).join("src/rust"))?;
    link_entries(real, &copy, "lib")?;
    link_entries(&real.join("lib"), &copy.join("lib"), "rustlib")?;
    link_entries(&real.join(rustlib), &copy.join(rustlib), "src")?;
    link(sources, &copy.join(rustlib).join("src/rust/library"))?;
    let script = work.join("rustc");
    let text = format!(
        "#!/bin/sh\n\
         for argument in \"$@\"; do\n\
         \tcase \"$argument\" in --sysroot*) exec '{real}/bin/rustc' \"$@\";; esac\n\
         done\n\
         exec '{real}/bin/rustc' --sysroot '{copy}' \"$@\"\n",
        real = real.display(),
        copy = copy.display()
    );
    std::fs::write(&script, text).with_context(|| script.display().to_string())?;
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&script, executable).with_context(|| script.display().to_string())?;
    Ok(script)
}

/// Links everything in `from` into `to`, but for the entry `except`.
fn link_entries(from: &Path, to: &Path, except: &str) -> Result<()> {
    for entry in from
        .read_dir()
        .with_context(|| from.display().to_string())?
    {
        let entry = entry.with_context(|| from.display().to_string())?;
        if entry.file_name() != except {
            link(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn copy_rlibs(from: &Path, to: &Path) -> Result<()> {
    for entry in from
        .read_dir()
        .with_context(|| from.display().to_string())?
    {
        let path = entry.with_context(|| from.display().to_string())?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        let is_empty_crate = name.to_string_lossy().starts_with("libempty-");
        if path
            .extension()
            .is_some_and(|extension| extension == "rlib")
            && !is_empty_crate
        {
            copy(&path, &to.join(name))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("copying {} to {}", from.display(), to.display()))
}
