//! Packages from the Debian mirror that this machine's apt already uses, without installing them.
//!
//! The machine's own release is often too old, so the packages are looked for in newer suites of
//! the same mirror, with a private apt state. Nothing outside the given folder changes.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::{command, files::create_folder, progress, repository};

/// Where to look, the likeliest first.
const SUITES: [&str; 4] = [
    "trixie-backports",
    "stable-backports",
    "testing",
    "unstable",
];

/// Signs every Debian suite; used where the machine's configuration names no key.
const ARCHIVE_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A package wanted: its name and what its version must begin with.
pub struct Wanted<'a> {
    /// The package's name.
    pub name: &'a str,
    /// What its upstream version begins with; empty for any.
    pub version: &'a str,
}

/// A place that apt gets packages from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    uri: String,
    signed_by: Option<String>,
}

/// Downloads `packages` from one suite and unpacks them into a folder below `work`.
///
/// # Errors
/// Where this is no Debian machine, or none of its mirrors' suites has them all.
pub fn unpack(work: &Path, packages: &[Wanted<'_>]) -> Result<PathBuf> {
    let mirrors = configured_mirrors()?;
    ensure!(
        !mirrors.is_empty(),
        "this machine's apt configuration names no package mirror"
    );
    let mut failures = Vec::new();
    for mirror in &mirrors {
        for suite in SUITES {
            match unpack_from(work, mirror, suite, packages) {
                Ok(folder) => return Ok(folder),
                Err(error) => failures.push(format!("{suite}: {error:#}")),
            }
        }
    }
    let names: Vec<&str> = packages.iter().map(|wanted| wanted.name).collect();
    bail!(
        "no suite of the machine's package mirror has {}\n{}",
        names.join(" and "),
        failures.join("\n")
    )
}

fn unpack_from(
    work: &Path,
    mirror: &Mirror,
    suite: &str,
    packages: &[Wanted<'_>],
) -> Result<PathBuf> {
    let apt = Apt::new(work.join(suite), mirror, suite)?;
    command::capture(&mut apt.command("apt-get", &["update", "-q"]))?;
    let mut downloads = vec!["download".to_owned(), "-q".to_owned()];
    for wanted in packages {
        let listing = command::capture(&mut apt.command("apt-cache", &["madison", wanted.name]))?;
        let version = pick_version(&listing, wanted.version)
            .ok_or_else(|| anyhow!("it has no {} of version {}", wanted.name, wanted.version))?;
        progress::note(&format!("{} {version} from {suite}", wanted.name));
        downloads.push(format!("{}={version}", wanted.name));
    }
    let arguments: Vec<&str> = downloads.iter().map(String::as_str).collect();
    command::capture(&mut apt.command("apt-get", &arguments))?;
    let target = work.join("unpacked");
    for file in apt.downloaded()? {
        command::capture(Command::new("dpkg").arg("-x").arg(file).arg(&target))?;
    }
    Ok(target)
}

/// An apt whose state, cache and sources are its own.
struct Apt {
    root: PathBuf,
}

impl Apt {
    fn new(root: PathBuf, mirror: &Mirror, suite: &str) -> Result<Self> {
        for folder in [
            "state/lists/partial",
            "cache/archives/partial",
            "etc",
            "packages",
        ] {
            create_folder(&root.join(folder))?;
        }
        let apt = Self { root };
        let sources = apt.path("etc/sources.list");
        std::fs::write(&sources, mirror.source_line(suite))
            .with_context(|| format!("writing {}", sources.display()))?;
        // apt insists on the file.
        let status = apt.path("state/status");
        std::fs::write(&status, "").with_context(|| format!("writing {}", status.display()))?;
        Ok(apt)
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::State", self.path("state")),
            ("Dir::State::status", self.path("state/status")),
            ("Dir::Cache", self.path("cache")),
            ("Dir::Etc::sourcelist", self.path("etc/sources.list")),
            ("Dir::Etc::sourceparts", PathBuf::from("-")),
            ("Dir::Etc::preferencesparts", PathBuf::from("-")),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", value.display()));
        }
        // apt's own user may not enter a home folder. The rest of the machine's configuration stays in
        // force: it may name a proxy.
        for option in ["APT::Sandbox::User=root", "APT::Update::Error-Mode=any"] {
            command.arg("-o").arg(option);
        }
        command
            .args(arguments)
            .current_dir(self.path("packages"))
            .env("LC_ALL", "C");
        command
    }

    fn downloaded(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        repository::walk(&self.path("packages"), &mut |path| {
            if path.extension().is_some_and(|extension| extension == "deb") {
                files.push(path.to_owned());
            }
        })?;
        Ok(files)
    }
}

impl Mirror {
    fn source_line(&self, suite: &str) -> String {
        let keys = match &self.signed_by {
            Some(path) => format!("[signed-by={path}] "),
            None if Path::new(ARCHIVE_KEYS).exists() => format!("[signed-by={ARCHIVE_KEYS}] "),
            None => String::new(),
        };
        format!("deb {keys}{} {suite} main\n", self.uri)
    }
}

fn configured_mirrors() -> Result<Vec<Mirror>> {
    let etc = Path::new("/etc/apt");
    let mut files = vec![etc.join("sources.list")];
    let parts = etc.join("sources.list.d");
    if parts.is_dir() {
        repository::walk(&parts, &mut |path| files.push(path.to_owned()))?;
    }
    let mut mirrors: Vec<Mirror> = Vec::new();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else {
            continue;
        };
        let found = match file.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => deb822_mirrors(&text),
            Some("list") => list_mirrors(&text),
            _ => Vec::new(),
        };
        for mirror in found {
            if !mirrors.contains(&mirror) {
                mirrors.push(mirror);
            }
        }
    }
    Ok(mirrors)
}

/// Mirrors of one-line entries: `deb [options] uri suite component...`.
fn list_mirrors(text: &str) -> Vec<Mirror> {
    let mut mirrors = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line
            .strip_prefix("deb")
            .filter(|rest| rest.starts_with([' ', '\t']))
        else {
            continue;
        };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        if let (Some(uri), Some(_suite)) = (words.next(), words.next())
            && words.any(|component| component == "main")
        {
            let mut options = options.split_whitespace();
            mirrors.push(Mirror {
                uri: uri.to_owned(),
                signed_by: options
                    .find_map(|option| option.strip_prefix("signed-by="))
                    .map(str::to_owned),
            });
        }
    }
    mirrors
}

/// Mirrors of deb822 stanzas: `Types`, `URIs`, `Components`, `Signed-By`, `Enabled`.
fn deb822_mirrors(text: &str) -> Vec<Mirror> {
    let mut mirrors = Vec::new();
    for stanza in stanzas(text) {
        let field = |name: &str| {
            let mut fields = stanza.iter();
            let found = fields.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.trim())
        };
        let has = |name: &str, word: &str| {
            field(name).is_some_and(|value| value.split_whitespace().any(|found| found == word))
        };
        if field("Enabled") == Some("no") || !has("Types", "deb") || !has("Components", "main") {
            continue;
        }
        // An embedded key has several lines; the archive's own key is used then.
        let signed_by = field("Signed-By").filter(|value| value.starts_with('/'));
        for uri in field("URIs").unwrap_or_default().split_whitespace() {
            mirrors.push(Mirror {
                uri: uri.to_owned(),
                signed_by: signed_by.map(str::to_owned),
            });
        }
    }
    mirrors
}

fn stanzas(text: &str) -> Vec<Vec<(String, String)>> {
    let mut stanzas = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(stanza) = stanzas.last_mut() else {
            break;
        };
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                let value: &mut String = value;
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((key, value)) = line.split_once(':') {
            stanza.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    stanzas
}

/// The newest version in the output of `apt-cache madison` that is of release `wanted`.
fn pick_version(listing: &str, wanted: &str) -> Option<String> {
    listing.lines().find_map(|line| {
        let version = line.split('|').nth(1)?.trim();
        let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
        let rest = upstream.strip_prefix(wanted)?;
        let ends = wanted.is_empty()
            || !rest.starts_with(|next: char| next.is_ascii_digit() || next == '.');
        ends.then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(uri: &str, signed_by: Option<&str>) -> Mirror {
        Mirror {
            uri: uri.to_owned(),
            signed_by: signed_by.map(str::to_owned),
        }
    }

    #[test]
    fn one_line_entries_are_read() {
        let text = "# deb http://commented.invalid/debian a main\n\
            deb http://one.invalid/debian bookworm main contrib\n\
            deb-src http://sources.invalid/debian bookworm main\n\
            deb [arch=amd64 signed-by=/k.gpg] http://two.invalid/debian bookworm main # x\n\
            deb http://flat.invalid/repo ./\n";
        assert_eq!(
            list_mirrors(text),
            [
                mirror("http://one.invalid/debian", None),
                mirror("http://two.invalid/debian", Some("/k.gpg")),
            ]
        );
    }

    #[test]
    fn stanzas_are_read() {
        let text = "Types: deb deb-src\n# note\nURIs: http://one.invalid/debian\n http://two.invalid/debian\n\
            Suites: bookworm\nComponents: main\nSigned-By: /k.gpg\n\n\
            Types: deb\nURIs: http://off.invalid/\nComponents: main\nEnabled: no\n\n\
            types: deb\nuris: http://three.invalid/\nsuites: x\ncomponents: main\nSigned-By:\n -----BEGIN\n";
        assert_eq!(
            deb822_mirrors(text),
            [
                mirror("http://one.invalid/debian", Some("/k.gpg")),
                mirror("http://two.invalid/debian", Some("/k.gpg")),
                mirror("http://three.invalid/", None),
            ]
        );
    }

    #[test]
    fn only_the_exact_release_is_picked() {
        let listing =
            " rust-src | 1.95.10+dfsg1-1 | mirror\n rust-src | 1.95.1+dfsg1-2~bpo13+1 | mirror\n";
        assert_eq!(
            pick_version(listing, "1.95.1").as_deref(),
            Some("1.95.1+dfsg1-2~bpo13+1")
        );
        assert_eq!(pick_version(listing, "1.95"), None);
        assert_eq!(pick_version(listing, "1.95.0"), None);
        assert_eq!(
            pick_version("wasi-libc | 0.0~git2 | mirror", "").as_deref(),
            Some("0.0~git2")
        );
    }
}
