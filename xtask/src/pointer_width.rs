//! Where the engine's sources depend on the width of a pointer or on what WASI lacks.
//!
//! The list of places that somebody has looked at is `ports/qdrant-edge/audit.toml`. A site is a
//! line of a file that one of [`PATTERNS`] matches, outside of tests; it is known by its text, so
//! that it stays known when lines move. A site that the list does not explain is reported, as is
//! an entry that explains nothing any more, and a patch of which the sources have no trace.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// A way in which a line can depend on the platform.
struct Pattern {
    name: &'static str,
    what: &'static str,
    matches: fn(&str) -> bool,
}

const PATTERNS: &[Pattern] = &[
    Pattern {
        name: "transmute",
        what: "bytes taken as values, or values as bytes",
        matches: |line| {
            ["transmute_from_u8", "transmute_to_u8", "mem::transmute"]
                .iter()
                .any(|name| line.contains(name))
                && !line.starts_with("use ")
                && !line.contains("fn ")
        },
    },
    Pattern {
        name: "pod-field",
        what: "a pointer-sized field of a type that is read from bytes",
        // Matched with its struct; see `sites`.
        matches: |_| false,
    },
    Pattern {
        name: "width",
        what: "the size of a pointer",
        matches: |line| {
            [
                "size_of::<usize>",
                "size_of::<isize>",
                "align_of::<usize>",
                "usize::BITS",
                "target_pointer_width",
            ]
            .iter()
            .any(|name| line.contains(name))
        },
    },
    Pattern {
        name: "bytes",
        what: "a pointer-sized number as bytes, or stored as such",
        matches: |line| {
            [
                "usize::from_ne_bytes",
                "usize::from_le_bytes",
                "usize::ref_from",
                "usize::read_from",
                "usize.to_",
                "len().as_bytes()",
                "TypedStorage<S, usize>",
                "BitVec<usize",
                "BitSlice<usize",
                "MmapSlice<usize",
                "StoredStruct<S, usize>",
            ]
            .iter()
            .any(|name| line.contains(name))
        },
    },
    Pattern {
        name: "config",
        what: "a pointer-sized field of a type that is read from JSON or CBOR",
        // Matched with its struct; see `sites`.
        matches: |_| false,
    },
    Pattern {
        name: "cast",
        what: "a length, offset or count made pointer-sized",
        matches: |line| {
            line.match_indices(" as usize").any(|(at, _)| {
                let before = line[..at].trim_end_matches(['(', ')', '?']);
                let name: String = before
                    .chars()
                    .rev()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let name: String = name.chars().rev().collect();
                [
                    "len",
                    "length",
                    "offset",
                    "size",
                    "bytes",
                    "pos",
                    "start",
                    "end",
                    "total",
                    "count",
                    "capacity",
                    "read_u64",
                    "FileEndianess",
                    "hash",
                    "get",
                ]
                .iter()
                .any(|part| name == *part || name.ends_with(&format!("_{part}")))
                    || before.ends_with('>')
            })
        },
    },
    Pattern {
        name: "thread",
        what: "a thread",
        matches: |line| {
            [
                "thread::spawn",
                "thread::Builder",
                "thread::scope",
                "spawn_blocking(",
            ]
            .iter()
            .any(|name| line.contains(name))
        },
    },
    Pattern {
        name: "file-system",
        what: "something of the file system that WASI does not have, or has without being Unix",
        matches: |line| {
            [
                "fs4::",
                "env::temp_dir()",
                "tempfile::tempdir()",
                "TempDir::new()",
                "cfg!(unix)",
                "cfg!(not(unix))",
                "set_permissions",
            ]
            .iter()
            .any(|name| line.contains(name))
        },
    },
];

/// Derives that make a type readable from bytes.
const BYTE_DERIVES: &[&str] = &["Pod", "FromBytes", "IntoBytes", "KnownLayout"];

#[derive(Deserialize)]
struct Audit {
    #[serde(default)]
    site: Vec<Entry>,
    #[serde(default)]
    patched: Vec<Patched>,
}

/// Why the sites of a pattern in a file are as they should be.
#[derive(Deserialize)]
struct Entry {
    /// Below the engine's `src`. `*` at the end stands for any rest.
    file: String,
    pattern: String,
    /// The line, its spaces as one; all lines of the file that match, if not given.
    line: Option<String>,
    why: String,
}

/// What a patch has to have left behind.
#[derive(Deserialize)]
struct Patched {
    file: String,
    /// Text that is in the file.
    has: Option<String>,
    /// Text that is not.
    lacks: Option<String>,
    why: String,
}

/// What an audit found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Sites that were looked at, by pattern.
    pub explained: BTreeMap<&'static str, usize>,
    /// What has to be done, in the order of the files, then of the list.
    pub problems: Vec<Problem>,
}

/// What has to be done about a place.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Problem {
    /// The list does not explain this site: look at it.
    New {
        file: String,
        line: usize,
        pattern: &'static str,
        what: &'static str,
        text: String,
    },
    /// This entry of the list explains nothing any more: remove it.
    Gone {
        file: String,
        pattern: String,
        /// The line that the entry is for; none if it is for all of the file.
        text: Option<String>,
        why: String,
    },
    /// The sources have no trace of this patch: put it back.
    NotPatched { file: String, why: String },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New {
                file,
                line,
                pattern,
                what,
                text,
            } => write!(
                f,
                "{file}:{line}: not explained: {pattern} ({what}): {text}"
            ),
            Self::Gone {
                file,
                pattern,
                text,
                why,
            } => write!(
                f,
                "{file}: nothing there any more that is explained as {pattern}: {}",
                text.as_ref().unwrap_or(why)
            ),
            Self::NotPatched { file, why } => write!(f, "{file}: a patch is missing: {why}"),
        }
    }
}

/// Looks through the engine's patched sources (the folder with `Cargo.toml`).
///
/// # Errors
/// The sources or the list cannot be read, or the list names a pattern that there is not.
pub fn run(source: &Path, audit: &Path) -> Result<Report> {
    let audit = read(audit)?;
    let source = source.join("src");
    let mut report = Report::default();
    let mut used = vec![false; audit.site.len()];
    for path in rust_files(&source)? {
        let name = path
            .strip_prefix(&source)
            .context("a file outside of its folder")?
            .to_string_lossy()
            .replace('\\', "/");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for (number, pattern, line) in sites(&text) {
            let mut explained = false;
            for (entry, used) in audit.site.iter().zip(&mut used) {
                if entry.explains(&name, pattern.name, &line) {
                    (explained, *used) = (true, true);
                }
            }
            if explained {
                *report.explained.entry(pattern.name).or_default() += 1;
            } else {
                report.problems.push(Problem::New {
                    file: name.clone(),
                    line: number,
                    pattern: pattern.name,
                    what: pattern.what,
                    text: line,
                });
            }
        }
    }
    for (entry, used) in audit.site.iter().zip(used) {
        if !used {
            report.problems.push(Problem::Gone {
                file: entry.file.clone(),
                pattern: entry.pattern.clone(),
                text: entry.line.clone(),
                why: entry.why.clone(),
            });
        }
    }
    for patched in &audit.patched {
        let text = fs::read_to_string(source.join(&patched.file)).unwrap_or_default();
        let text = spaces_as_one(&text);
        let has = |wanted: &String| text.contains(&spaces_as_one(wanted));
        if !patched.has.as_ref().is_none_or(has) || patched.lacks.as_ref().is_some_and(has) {
            report.problems.push(Problem::NotPatched {
                file: patched.file.clone(),
                why: patched.why.clone(),
            });
        }
    }
    Ok(report)
}

/// The list as the table that `AUDIT.md` holds.
///
/// # Errors
/// The list cannot be read.
pub fn table(audit: &Path) -> Result<String> {
    let audit = read(audit)?;
    let mut text = String::from(
        "# Places that depend on the width of a pointer or on what WASI lacks\n\
         Made by `cargo xtask audit` from `audit.toml`; what a site is, `xtask/src/pointer_width.rs` says.\n\n\
         ## Patched\n| file | why |\n| --- | --- |\n",
    );
    for patched in &audit.patched {
        writeln!(text, "| {} | {} |", patched.file, cell(&patched.why))?;
    }
    for pattern in PATTERNS {
        let mut entries = audit
            .site
            .iter()
            .filter(|entry| entry.pattern == pattern.name)
            .peekable();
        if entries.peek().is_none() {
            continue;
        }
        writeln!(
            text,
            "\n## {}: {}\n| file | line | verdict |\n| --- | --- | --- |",
            pattern.name, pattern.what
        )?;
        for entry in entries {
            let line = entry
                .line
                .as_deref()
                .map_or("all".to_owned(), |line| format!("`{}`", cell(line)));
            writeln!(
                text,
                "| {} | {line} | {} |",
                entry.file.replace('*', "\\*"),
                cell(&entry.why)
            )?;
        }
    }
    Ok(text)
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn read(audit: &Path) -> Result<Audit> {
    let text = fs::read_to_string(audit).with_context(|| format!("read {}", audit.display()))?;
    let audit: Audit =
        toml::from_str(&text).with_context(|| format!("parse {}", audit.display()))?;
    for entry in &audit.site {
        ensure!(
            PATTERNS.iter().any(|pattern| pattern.name == entry.pattern),
            "{}: no pattern is called {}",
            entry.file,
            entry.pattern
        );
    }
    Ok(audit)
}

impl Entry {
    fn explains(&self, file: &str, pattern: &str, line: &str) -> bool {
        let same_file = match self.file.strip_suffix('*') {
            Some(start) => file.starts_with(start),
            None => file == self.file,
        };
        same_file
            && self.pattern == pattern
            && self
                .line
                .as_deref()
                .is_none_or(|wanted| spaces_as_one(wanted) == line)
    }
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if entry.file_type()?.is_dir() {
                if !["tests", "fixtures", "bin", "benches"].contains(&name.as_ref()) {
                    folders.push(path);
                }
            } else if name.ends_with(".rs")
                && !["tests.rs", "fixtures.rs", "test_utils.rs"].contains(&name.as_ref())
            {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Line number, pattern and text of each site.
fn sites(text: &str) -> Vec<(usize, &'static Pattern, String)> {
    let lines: Vec<String> = text.lines().map(spaces_as_one).collect();
    let in_tests = in_tests(&lines);
    let in_struct = in_struct(&lines);
    let mut sites = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        if in_tests[index] || line.starts_with("//") {
            continue;
        }
        let pointer_sized = line.contains("usize") || line.contains("isize");
        for pattern in PATTERNS {
            let matches = match pattern.name {
                "pod-field" => pointer_sized && in_struct[index] == Some(Of::Bytes),
                "config" => pointer_sized && in_struct[index] == Some(Of::Text),
                _ => (pattern.matches)(line),
            };
            if matches {
                sites.push((index + 1, pattern, line.clone()));
            }
        }
    }
    sites
}

/// What a struct can be read from.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Bytes,
    Text,
}

/// For each line, whether it is a field of a type that can be read from something.
fn in_struct(lines: &[String]) -> Vec<Option<Of>> {
    let mut fields = vec![None; lines.len()];
    let mut index = 0;
    while index < lines.len() {
        if !lines[index].starts_with("#[derive(") {
            index += 1;
            continue;
        }
        let start = index;
        while index < lines.len() && !is_type(&lines[index]) && index < start + 40 {
            index += 1;
        }
        if index >= lines.len() || !is_type(&lines[index]) {
            index = start + 1;
            continue;
        }
        let head = lines[start..index].join(" ");
        let of = if BYTE_DERIVES.iter().any(|derive| head.contains(derive)) {
            Some(Of::Bytes)
        } else if head.contains("Deserialize") {
            Some(Of::Text)
        } else {
            None
        };
        let end = end_of_item(lines, index);
        fields[index..end].fill(of);
        index = end;
    }
    fields
}

fn is_type(line: &str) -> bool {
    line.split(' ')
        .take(3)
        .any(|word| ["struct", "enum", "union"].contains(&word))
}

fn in_tests(lines: &[String]) -> Vec<bool> {
    let mut tests = vec![false; lines.len()];
    let mut index = 0;
    while index < lines.len() {
        let line = &lines[index];
        if line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(any(test") {
            let mut item = index + 1;
            while item < lines.len() && lines[item].starts_with(['#', '/']) {
                item += 1;
            }
            let end = end_of_item(lines, item).max(index + 1);
            tests[index..end].fill(true);
            index = end;
        } else {
            index += 1;
        }
    }
    tests
}

/// The line after the item that starts at `start`: by braces, or up to a semicolon or comma.
fn end_of_item(lines: &[String], start: usize) -> usize {
    let mut depth = 0_i64;
    for (index, line) in lines.iter().enumerate().skip(start) {
        let before = depth;
        let code = line.split("//").next().unwrap_or_default();
        for c in code.chars() {
            match c {
                '{' | '(' => depth += 1,
                '}' | ')' => depth -= 1,
                _ => {}
            }
        }
        let closed = depth <= 0 && (before > 0 || code.contains(['{', ';']) || code.ends_with(','));
        if closed {
            return index + 1;
        }
    }
    lines.len()
}

fn spaces_as_one(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, &'static str)> {
        sites(text)
            .into_iter()
            .map(|(number, pattern, _)| (number, pattern.name))
            .collect()
    }

    #[test]
    fn finds_fields_of_types_that_are_read() {
        let text = "#[derive(Clone, Pod)]\n#[repr(C)]\nstruct A {\n    a: u64,\n    b: usize,\n}\n\
                    #[derive(Deserialize)]\npub struct B {\n    c: Option<usize>,\n}\n\
                    #[derive(Clone)]\nstruct C {\n    d: usize,\n}\n";
        assert_eq!(found(text), [(5, "pod-field"), (9, "config")]);
    }

    #[test]
    fn leaves_tests_and_comments_out() {
        let text = "// size_of::<usize>()\n#[cfg(test)]\nmod tests {\n    fn f() {\n        \
                    thread::spawn(g);\n    }\n}\nlet x = thread::spawn(h);\n";
        assert_eq!(found(text), [(8, "thread")]);
    }

    #[test]
    fn finds_casts_of_lengths() {
        assert_eq!(found("let a = header.len() as usize;"), [(1, "cast")]);
        assert_eq!(found("let a = byte_offset as usize;"), [(1, "cast")]);
        assert_eq!(found("let a = point_id as usize;"), []);
    }

    #[test]
    fn reports_what_is_new_what_is_gone_and_what_was_reverted() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("engine");
        fs::create_dir_all(source.join("src")).unwrap();
        fs::write(
            source.join("src/a.rs"),
            "let n = size_of::<usize>();\nlet w = u32::BITS;\n",
        )
        .unwrap();
        let audit = folder.path().join("audit.toml");
        let problems = |text: &str| {
            fs::write(&audit, text).unwrap();
            run(&source, &audit).unwrap().problems.len()
        };
        assert_eq!(problems(""), 1);
        let explained = "[[site]]\nfile = \"a.rs\"\npattern = \"width\"\nwhy = \"\"\n";
        assert_eq!(problems(explained), 0);
        let gone = "[[site]]\nfile = \"a.rs\"\npattern = \"thread\"\nwhy = \"\"\n";
        assert_eq!(problems(&format!("{explained}{gone}")), 1);
        let patched = "[[patched]]\nfile = \"a.rs\"\nhas = \"u64::BITS\"\nlacks = \"u32::BITS\"\nwhy = \"\"\n";
        assert_eq!(problems(&format!("{explained}{patched}")), 1);
    }
}
