//! The Rust and C toolchains of this machine.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::command;

/// The oldest compiler that builds the workspace, by its minor version.
const OLDEST_MINOR: u32 = 95;

/// Variables that `cargo run` sets for this program and that mean something else to the cargo
/// commands it starts.
const OF_THIS_PROGRAM: [&str; 3] = ["CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_PKG_"];

/// The compiler in use and where it lives.
pub struct Toolchain {
    cargo: OsString,
    /// Its version, such as `1.95.0`.
    pub release: String,
    /// The commit it was built from; empty where it does not know.
    pub commit: String,
    /// This machine's target triple.
    pub host: String,
    /// The folder it is installed in.
    pub sysroot: PathBuf,
}

impl Toolchain {
    /// Asks the compiler that cargo would use.
    ///
    /// # Errors
    /// Where there is none, or an older one than the workspace needs.
    pub fn find() -> Result<Self> {
        let version = command::capture(Command::new("rustc").arg("-vV"))?;
        let field = |name: &str| {
            let value = version.lines().find_map(|line| line.strip_prefix(name));
            value.map(|value| value.trim().to_owned())
        };
        let release = field("release:").context("rustc -vV names no release")?;
        ensure!(
            is_new_enough(&release),
            "rustc is {release}, and 1.{OLDEST_MINOR} or newer is needed: `rustup update stable`"
        );
        let commit = field("commit-hash:").filter(|hash| hash != "unknown");
        let sysroot = command::capture(Command::new("rustc").args(["--print", "sysroot"]))?;
        Ok(Self {
            cargo: std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
            release,
            commit: commit.unwrap_or_default(),
            host: field("host:").context("rustc -vV names no host")?,
            sysroot: PathBuf::from(sysroot.trim()),
        })
    }

    /// A cargo command free of what concerns only this program.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if OF_THIS_PROGRAM.iter().any(|start| text.starts_with(start)) {
                command.env_remove(&name);
            }
        }
        command
    }

    /// The folder with the standard library of `target`, whether or not it exists.
    ///
    /// # Errors
    /// Where the compiler does not know the target.
    pub fn library_folder(&self, target: &str) -> Result<PathBuf> {
        let arguments = ["--print", "target-libdir", "--target", target];
        let folder = command::capture(Command::new("rustc").args(arguments))?;
        Ok(PathBuf::from(folder.trim()))
    }

    /// Whether the standard library of `target` is installed.
    ///
    /// # Errors
    /// Where the compiler does not know the target.
    pub fn has(&self, target: &str) -> Result<bool> {
        Ok(holds_std(&self.library_folder(target)?))
    }

    /// How the compiler names the folder of the standard library's sources, wherever that is.
    pub fn name_of_sources(&self) -> String {
        let known = Some(self.commit.as_str()).filter(|commit| !commit.is_empty());
        format!("/rustc/{}", known.unwrap_or(&self.release))
    }

    /// The folder of what belongs to this machine's own target.
    pub fn host_folder(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib").join(&self.host)
    }
}

/// Whether a folder holds a compiled standard library.
pub fn holds_std(folder: &Path) -> bool {
    folder.read_dir().is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    })
}

/// Checks for what crates with C code are built by.
///
/// # Errors
/// Where there is no C compiler.
pub fn require_c() -> Result<()> {
    let named = std::env::var("CC").ok();
    if named.is_some_and(|name| command::exists(&name)) || command::exists("cc") {
        return Ok(());
    }
    bail!(
        "there is no C compiler (cc): install gcc (Debian, Ubuntu: apt-get install build-essential)"
    )
}

fn is_new_enough(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) => minor >= OLDEST_MINOR,
        (Some(Ok(major)), _) => major > 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_new_enough;

    #[test]
    fn releases_are_compared_by_number() {
        for (release, expected) in [
            ("1.95.0", true),
            ("1.100.0-nightly", true),
            ("2.0.0", true),
            ("1.94.1", false),
            ("1.9.5", false),
            ("unknown", false),
        ] {
            assert_eq!(is_new_enough(release), expected, "{release}");
        }
    }
}
