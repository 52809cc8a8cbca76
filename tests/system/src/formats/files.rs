//! Two folders of engine files, compared byte by byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Files that are equal in what they say, or not at all; the comment says why.
#[derive(Clone, Copy)]
pub struct Exception {
    /// Parts of the path, with `*` between them.
    pub path: &'static str,
    pub equal: Equal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Equal {
    /// As JSON values.
    Json,
    /// In length.
    Length,
    /// Byte by byte, but for the last four of each header of a posting list, which are padding.
    PostingLists,
    /// Not compared; the file must be on both sides.
    Not,
    /// In length, where both sides have it.
    LengthIfThere,
}

/// Differences between the files of two shards. Segments have random names; they are paired by
/// what their state says.
pub fn differences(one: &Path, other: &Path, exceptions: &[Exception]) -> Vec<String> {
    let (one, other) = (listed(one), listed(other));
    let mut found = Vec::new();
    let must_be_there = |path: &&String| exception(path, exceptions) != Some(Equal::LengthIfThere);
    let only = |path: &&String, there: &BTreeMap<String, PathBuf>| {
        !there.contains_key(*path) && must_be_there(path)
    };
    for path in one.keys().filter(|path| only(path, &other)) {
        found.push(format!("{path} is on the first side only"));
    }
    for path in other.keys().filter(|path| only(path, &one)) {
        found.push(format!("{path} is on the second side only"));
    }
    for (path, first) in &one {
        let Some(second) = other.get(path) else {
            continue;
        };
        match exception(path, exceptions) {
            Some(Equal::Not) => {}
            Some(Equal::Length | Equal::LengthIfThere) => {
                let length = |path: &Path| fs::metadata(path).expect("a file").len();
                let (a, b) = (length(first), length(second));
                if a != b {
                    found.push(format!("{path} has {a} bytes here and {b} there"));
                }
            }
            Some(Equal::PostingLists) => {
                let (a, b) = (without_padding(first), without_padding(second));
                if let Some(at) = first_difference_of(&a, &b) {
                    found.push(format!("{path} differs at byte {at}"));
                }
            }
            Some(Equal::Json) => {
                let (a, b) = (json(first), json(second));
                if a != b {
                    found.push(format!("{path} says {a} here and {b} there"));
                }
            }
            None => {
                if let Some(difference) = first_difference(first, second) {
                    found.push(format!("{path} {difference}"));
                }
            }
        }
    }
    found
}

fn exception(path: &str, exceptions: &[Exception]) -> Option<Equal> {
    exceptions
        .iter()
        .find(|exception| exception.path.split('*').all(|part| path.contains(part)))
        .map(|exception| exception.equal)
}

/// Every file by its path, in which the segments are numbered.
fn listed(folder: &Path) -> BTreeMap<String, PathBuf> {
    let mut files = BTreeMap::new();
    let mut segments = Vec::new();
    for path in entries(folder) {
        let name = name(&path);
        if name == "segments" {
            for path in entries(&path) {
                if path.is_dir() {
                    segments.push(path);
                } else {
                    files.insert(format!("segments/{}", self::name(&path)), path);
                }
            }
        } else {
            walk(&path, &name, &mut files);
        }
    }
    // Appendable segments come last; among those that are alike, the older one.
    segments.sort_by_key(|segment| {
        let state = json(&segment.join("segment.json"));
        let appendable = state["config"]["vector_data"]
            .as_object()
            .into_iter()
            .flat_map(|vectors| vectors.values())
            .any(|vector| vector["index"]["type"] == "plain");
        let size = |name: &str| fs::metadata(segment.join(name)).map_or(0, |file| file.len());
        (
            appendable,
            size("id_tracker.mappings"),
            size("mutable_id_tracker.mappings"),
            state["version"].as_u64(),
        )
    });
    for (number, segment) in segments.iter().enumerate() {
        walk(segment, &format!("segments/{number}"), &mut files);
    }
    files
}

fn walk(path: &Path, shown: &str, files: &mut BTreeMap<String, PathBuf>) {
    if path.is_dir() {
        for inner in entries(path) {
            let name = name(&inner);
            walk(&inner, &format!("{shown}/{name}"), files);
        }
    } else {
        files.insert(shown.to_owned(), path.to_owned());
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or(Value::Null)
}

/// A sparse index's file of posting lists, which begins with a header for each of them, with the
/// padding of the headers zeroed.
fn without_padding(file: &Path) -> Vec<u8> {
    const PADDING: usize = 4;
    let mut bytes = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let config = json(&file.with_file_name("inverted_index_config.json"));
    let count = config["posting_count"].as_u64().expect("a count") as usize;
    if count > 0 {
        // What the first list holds begins where the headers end.
        let headers = bytes.first_chunk().expect("a header");
        let headers = u64::from_le_bytes(*headers) as usize;
        assert_eq!(headers % count, 0, "{}: the headers", file.display());
        for header in bytes[..headers].chunks_mut(headers / count) {
            let end = header.len();
            header[end - PADDING..].fill(0);
        }
    }
    bytes
}

fn first_difference_of(one: &[u8], other: &[u8]) -> Option<usize> {
    let pairs = one.iter().zip(other);
    pairs
        .enumerate()
        .find_map(|(at, (a, b))| (a != b).then_some(at))
        .or_else(|| (one.len() != other.len()).then_some(one.len().min(other.len())))
}

fn first_difference(one: &Path, other: &Path) -> Option<String> {
    let open = |path: &Path| BufReader::with_capacity(1 << 20, File::open(path).expect("a file"));
    let length = |path: &Path| fs::metadata(path).expect("a file").len();
    if length(one) != length(other) {
        return Some(format!(
            "has {} bytes here and {} there",
            length(one),
            length(other)
        ));
    }
    let (mut first, mut second) = (open(one), open(other));
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    loop {
        let read = fill(&mut first, &mut a);
        fill(&mut second, &mut b);
        if read == 0 {
            return None;
        }
        if a[..read] != b[..read] {
            let offset = (0..read).find(|n| a[*n] != b[*n]).unwrap_or(0);
            let end = (offset + 16).min(read);
            return Some(format!(
                "differs at byte {}: {:02x?} here and {:02x?} there",
                at + offset,
                &a[offset..end],
                &b[offset..end]
            ));
        }
        at += read;
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]).expect("a file") {
            0 => break,
            read => filled += read,
        }
    }
    filled
}
