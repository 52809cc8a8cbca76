//! What the tests share: what a real server answered, and a server that answers in its way with
//! the same files.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use edge_sync_mirror::{
    Archive, Error, Limits, Links, Mirror, Offer, Origin, Outcome, Report, Settings,
    SnapshotManifest, apply,
};
use flate2::read::GzDecoder;
use serde_json::Value;

/// The steps of the recorded chain, each with the state that it left.
pub const STEPS: [&str; 9] = [
    "00-all",
    "01-nothing",
    "02-append",
    "03-append-settled",
    "04-delete-in-indexed",
    "05-overwrite-in-indexed",
    "06-payload-in-indexed",
    "07-index-made",
    "08-index-remade",
];

pub fn fixtures() -> PathBuf {
    // As cargo says it when it runs the test: the build may be another clone's.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    Path::new(&package).join("../../tests/fixtures")
}

/// A recorded file of a step, unpacked; none if the server sent none.
pub fn recorded(step: &str, file: &str) -> Option<Vec<u8>> {
    unzipped(&fixtures().join("real-server/partial").join(step).join(file))
}

pub fn unzipped(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

pub fn origin() -> Origin {
    Origin {
        url: "http://localhost:6333".to_owned(),
        collection: "c".to_owned(),
        shard: 0,
        shard_key: None,
    }
}

pub fn settings() -> Settings {
    Settings {
        origin: origin(),
        settled: true,
        links: Links::Try,
    }
}

/// A folder in which mirrors follow each other, as generations do.
pub struct Room {
    pub dir: tempfile::TempDir,
    made: std::cell::Cell<u32>,
}

impl Room {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            made: std::cell::Cell::new(0),
        }
    }

    /// A path that nothing is at.
    pub fn fresh(&self, name: &str) -> PathBuf {
        self.made.set(self.made.get() + 1);
        self.dir.path().join(format!("{}-{name}", self.made.get()))
    }

    pub fn archive(&self, bytes: &[u8]) -> Result<Archive, Error> {
        let path = self.fresh("answer");
        fs::write(&path, bytes).unwrap();
        Archive::read(&path, Limits::default())
    }

    /// Applies an answer to what was offered.
    pub fn apply(&self, offer: &Offer, answer: &[u8]) -> Result<Outcome, Error> {
        self.apply_as(offer, answer, &settings())
    }

    pub fn apply_as(
        &self,
        offer: &Offer,
        answer: &[u8],
        settings: &Settings,
    ) -> Result<Outcome, Error> {
        let archive = self.archive(answer)?;
        let target = self.fresh("mirror");
        let outcome = apply(offer, &archive, &target, settings)?;
        match &outcome {
            Outcome::Applied { mirror, .. } => assert_eq!(mirror.folder(), target),
            _ => assert!(!target.exists(), "a mirror was begun and left"),
        }
        Ok(outcome)
    }

    /// The mirror of a step of the chain, applied from the start.
    pub fn mirror_of(&self, step: &str) -> Mirror {
        let mut mirror = None;
        for at in STEPS {
            if let Some(answer) = recorded(at, "answer.tar.gz") {
                let offer = match mirror {
                    Some(mirror) => Offer::of(mirror, &origin()),
                    None => Offer::everything(),
                };
                mirror = Some(applied(self.apply(&offer, &answer)).0);
            }
            if at == step {
                break;
            }
        }
        mirror.unwrap()
    }
}

/// The mirror that an answer led to.
pub fn applied(outcome: Result<Outcome, Error>) -> (Mirror, Report) {
    match outcome {
        Ok(Outcome::Applied { mirror, report, .. }) => (mirror, report),
        other => panic!("not applied: {other:?}"),
    }
}

/// Every file below `folder`, by its path from there.
pub fn walk(folder: &Path) -> BTreeMap<String, PathBuf> {
    fn into(folder: &Path, prefix: &str, found: &mut BTreeMap<String, PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                into(&entry.path(), &format!("{name}/"), found);
            } else {
                found.insert(name, entry.path());
            }
        }
    }
    let mut found = BTreeMap::new();
    into(folder, "", &mut found);
    found
}

/// Compares the files below `segments` with those of a full snapshot, byte for byte, by another
/// reading of the archive.
pub fn assert_equals_full(segments: &Path, full: &[u8]) {
    let mut there: BTreeSet<String> = walk(segments).into_keys().collect();
    for (name, blocks) in Parts::of(full).0 {
        let Some((segment, file)) = name
            .strip_prefix("segments/")
            .and_then(|rest| rest.split_once("/files/"))
        else {
            continue;
        };
        let name = format!("{segment}/{file}");
        assert!(there.remove(&name), "{name} is not there");
        assert_same(&blocks, &segments.join(&name));
    }
    assert_eq!(there, BTreeSet::new(), "more than the server has");
}

/// Compares a file with an entry: its length; where the entry has data, byte for byte; and where
/// the file has data, that the entry has the same or nothing but zeros.
fn assert_same(blocks: &[u8], path: &Path) {
    let (length, pieces) = pieces(blocks);
    let file = File::open(path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), length, "{}", path.display());
    let expect = |at: u64, found: &[u8]| {
        let mut expected = vec![0; found.len()];
        let end = at + found.len() as u64;
        for (from, data) in &pieces {
            let to = from + data.len() as u64;
            let (begin, stop) = (at.max(*from), end.min(to));
            if begin < stop {
                expected[(begin - at) as usize..(stop - at) as usize]
                    .copy_from_slice(&data[(begin - from) as usize..(stop - from) as usize]);
            }
        }
        assert!(expected == found, "{} differs at {at}", path.display());
    };
    for (at, data) in &pieces {
        let mut found = vec![0; data.len()];
        file.read_exact_at(&mut found, *at).unwrap();
        expect(*at, &found);
    }
    for_each_extent(&file, expect);
}

/// The parts of a file that the file system has data for.
fn for_each_extent(file: &File, mut see: impl FnMut(u64, &[u8])) {
    let mut end = 0;
    while let Ok(at) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(end)) {
        end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(at)).unwrap();
        let mut found = vec![0; (end - at) as usize];
        file.read_exact_at(&mut found, at).unwrap();
        see(at, &found);
    }
}

/// The CRC32C of a file, holes included, which are not read.
pub fn checksum(path: &Path) -> u32 {
    const ZEROS: [u8; 4096] = [0; 4096];
    let file = File::open(path).unwrap();
    let mut sum = 0;
    let mut end = 0;
    let skip_to = |sum: u32, from: u64, to: u64| {
        let count = (to - from) as usize;
        let mut zeros = crc32c::crc32c(&ZEROS[..count % ZEROS.len()]);
        let (mut block, mut length) = (crc32c::crc32c(&ZEROS), ZEROS.len());
        let mut blocks = count / ZEROS.len();
        while blocks > 0 {
            if blocks & 1 == 1 {
                zeros = crc32c::crc32c_combine(zeros, block, length);
            }
            block = crc32c::crc32c_combine(block, block, length);
            length *= 2;
            blocks /= 2;
        }
        crc32c::crc32c_combine(sum, zeros, count)
    };
    for_each_extent(&file, |at, bytes| {
        sum = crc32c::crc32c_append(skip_to(sum, end, at), bytes);
        end = at + bytes.len() as u64;
    });
    skip_to(sum, end, file.metadata().unwrap().len())
}

/// The length of the file in an entry, and what it has where.
fn pieces(blocks: &[u8]) -> (u64, Vec<(u64, &[u8])>) {
    let mut begin = 0;
    let mut header = tar::Header::from_byte_slice(&blocks[..512]);
    if header.entry_type() == tar::EntryType::GNULongName {
        begin = 512 + (header.entry_size().unwrap() as usize).next_multiple_of(512);
        header = tar::Header::from_byte_slice(&blocks[begin..begin + 512]);
    }
    begin += 512;
    let stored = header.entry_size().unwrap() as usize;
    if header.entry_type() != tar::EntryType::GNUSparse {
        return (stored as u64, vec![(0, &blocks[begin..begin + stored])]);
    }
    let number = |field: &[u8]| {
        let digits = std::str::from_utf8(field)
            .unwrap()
            .trim_matches(['\0', ' ']);
        u64::from_str_radix(digits, 8).unwrap()
    };
    let gnu = header.as_bytes();
    let mut map: Vec<(u64, u64)> = Vec::new();
    let mut read_map = |fields: &[u8]| {
        for field in fields.chunks_exact(24).filter(|field| field[0] != 0) {
            map.push((number(&field[..12]), number(&field[12..])));
        }
    };
    read_map(&gnu[386..482]);
    let mut more = gnu[482] == 1;
    while more {
        read_map(&blocks[begin..begin + 504]);
        more = blocks[begin + 504] == 1;
        begin += 512;
    }
    let mut pieces = Vec::new();
    for (at, length) in map {
        let end = begin + length as usize;
        pieces.push((at, &blocks[begin..end]));
        begin = end;
    }
    (number(&gnu[483..495]), pieces)
}

/// An archive taken apart: each entry's blocks as they are, headers before it included.
#[derive(Clone)]
pub struct Parts(pub Vec<(String, Vec<u8>)>);

impl Parts {
    pub fn of(archive: &[u8]) -> Self {
        let mut parts = Vec::new();
        let mut begin = 0;
        let mut at = 0;
        let mut long_name = None;
        loop {
            let block = &archive[at..at + 512];
            if block.iter().all(|byte| *byte == 0) {
                return Self(parts);
            }
            let header = tar::Header::from_byte_slice(block);
            let stored = header.entry_size().unwrap() as usize;
            at += 512;
            if header.entry_type() == tar::EntryType::GNULongName {
                let name = &archive[at..at + stored];
                long_name = Some(
                    String::from_utf8(name.split(|byte| *byte == 0).next().unwrap().to_vec())
                        .unwrap(),
                );
                at += stored.next_multiple_of(512);
                continue;
            }
            let mut more = header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
            while more {
                more = archive[at + 504] == 1;
                at += 512;
            }
            at += stored.next_multiple_of(512);
            let name = long_name
                .take()
                .unwrap_or_else(|| String::from_utf8(header.path_bytes().into_owned()).unwrap());
            parts.push((name, archive[begin..at].to_vec()));
            begin = at;
        }
    }

    pub fn to_archive(&self) -> Vec<u8> {
        let mut archive: Vec<u8> = self
            .0
            .iter()
            .flat_map(|(_, blocks)| blocks.iter().copied())
            .collect();
        archive.resize(archive.len() + 1024, 0);
        archive
    }

    /// The contents of an ordinary file.
    pub fn text(&self, name: &str) -> Vec<u8> {
        let (_, blocks) = self.0.iter().find(|(at, _)| at == name).unwrap();
        let mut archive = tar::Archive::new(&blocks[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut text = Vec::new();
        entry.read_to_end(&mut text).unwrap();
        text
    }

    pub fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.text(name)).unwrap()
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(at, _)| at == name)
    }

    /// Puts an ordinary file in the place of the one of that name, or at the end.
    pub fn put(&mut self, name: &str, text: &[u8]) {
        let blocks = entry(name, tar::EntryType::Regular, text);
        match self.0.iter_mut().find(|(at, _)| at == name) {
            Some((_, old)) => *old = blocks,
            None => self.0.push((name.to_owned(), blocks)),
        }
    }

    pub fn put_json(&mut self, name: &str, json: &Value) {
        self.put(name, json.to_string().as_bytes());
    }

    /// Changes a JSON file.
    pub fn edit(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        let mut json = self.json(name);
        change(&mut json);
        self.put_json(name, &json);
    }

    pub fn remove(&mut self, name: &str) {
        let before = self.0.len();
        self.0.retain(|(at, _)| at != name);
        assert_eq!(self.0.len(), before - 1, "{name}");
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let text = self.text(from);
        self.remove(from);
        self.put(to, &text);
    }
}

/// The blocks of one entry.
pub fn entry(name: &str, kind: tar::EntryType, text: &[u8]) -> Vec<u8> {
    let mut blocks = Vec::new();
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(kind);
    if name.len() >= 100 {
        blocks = entry(
            "././@LongLink",
            tar::EntryType::GNULongName,
            name.as_bytes(),
        );
    }
    // Past what `set_path` would refuse.
    let bytes = &mut header.as_gnu_mut().unwrap().name;
    let length = name.len().min(bytes.len());
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    header.set_cksum();
    blocks.extend(header.as_bytes());
    blocks.extend(text);
    blocks.resize(blocks.len().next_multiple_of(512), 0);
    blocks
}

/// A server at one moment of the chain: answers as the real one does, from its manifest and its
/// files.
pub struct Server {
    pub full: Vec<u8>,
    pub parts: Parts,
    pub manifest: SnapshotManifest,
}

impl Server {
    pub fn at(step: &str) -> Self {
        let full = recorded(step, "full.tar.gz").unwrap();
        // What the step after it was asked with; of the last step, what came with its answer.
        let next = STEPS.iter().skip_while(|at| **at != step).nth(1);
        let manifest = match next {
            Some(next) => SnapshotManifest::parse(&recorded(next, "request.json.gz").unwrap()),
            None => {
                let answer = Parts::of(&recorded(step, "answer.tar.gz").unwrap());
                let segments = answer
                    .0
                    .iter()
                    .filter(|(name, _)| name.ends_with("/segment_manifest.json"))
                    .map(|(name, _)| {
                        let json = answer.json(name);
                        (json["segment_id"].as_str().unwrap().to_owned(), json)
                    })
                    .collect::<serde_json::Map<_, _>>();
                SnapshotManifest::parse(Value::from(segments).to_string().as_bytes())
            }
        };
        Self {
            parts: Parts::of(&full),
            full,
            manifest: manifest.unwrap(),
        }
    }

    /// None is 304.
    pub fn answer(&self, asked: &SnapshotManifest) -> Option<Vec<u8>> {
        if *asked == self.manifest {
            return None;
        }
        let offered: BTreeMap<_, _> = asked.segments().collect();
        let mut answer = Parts(Vec::new());
        for (segment, manifest) in self.manifest.segments() {
            let sent = |file: &str| {
                let now = manifest.effective_version(file);
                let before = offered
                    .get(segment)
                    .and_then(|offered| offered.effective_version(file));
                before.is_none() || before < now || (before == Some(0) && now == Some(0))
            };
            let folder = format!("segments/{segment}/files/");
            answer.put_json(
                &format!("{folder}segment_manifest.json"),
                &serde_json::to_value(manifest).unwrap(),
            );
            for (name, blocks) in &self.parts.0 {
                if let Some(file) = name.strip_prefix(&folder)
                    && (!manifest.lists(file) || sent(file))
                {
                    answer.0.push((name.clone(), blocks.clone()));
                }
            }
        }
        for (name, blocks) in &self.parts.0 {
            if !name.starts_with("segments/") {
                answer.0.push((name.clone(), blocks.clone()));
            }
        }
        Some(answer.to_archive())
    }

    /// Asks until the mirror is applied, as a pull does. Returns how often, and the mirror.
    pub fn pull(&self, room: &Room, mut offer: Offer) -> (u32, Mirror) {
        for round in 1.. {
            let answer = self.answer(&offer.manifest()).expect("something changed");
            match room.apply(&offer, &answer).unwrap() {
                Outcome::Applied { mirror, .. } => return (round, mirror),
                Outcome::Again { offer: next, .. } | Outcome::Everything { offer: next, .. } => {
                    offer = next;
                }
            }
        }
        unreachable!()
    }
}
