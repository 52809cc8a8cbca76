//! The server's shard: what was done to it, and the files that the native engine makes of that.
//!
//! A shard is what was done to it, in order, so that a server is cheap to clone and a seed gives the
//! same bytes again. Its files and their versions are made when somebody asks for them, by doing all of
//! it to a real shard: the engine is the same as the server's, its versions are as true and as false.
//!
//! What the engine does at random is settled or kept out: segments are named by number, indexed fields
//! are written in order of name, points are written one by one (the engine takes those of one operation
//! in the order of a hash map), and a shard is made again if a graph has more than its lowest level (with
//! so many links a point, one in 1,024 is above it). Of a payload index that is built once, the files of
//! the first time count, since the engine writes values in the order of a hash map; they have the same
//! lengths every time.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use edge_sync_engine::{CollectionConfig, Operation, Point, PointId, Shard, Vector};
use edge_sync_snapshots::{self as snapshots, Layout, Lineage};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::disk::Content;
use crate::model::PointChange;

/// How many shards' files are kept.
const KEPT: usize = 60;

/// How often a shard is made until its graphs are flat; one of ten may not be.
const ATTEMPTS: u32 = 20;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// One thing that was done to a shard.
#[derive(Clone, Debug)]
pub enum ShardChange {
    /// A change of one point.
    Point(u64, PointChange),
    /// A payload index, by field and type.
    CreateIndex(String, String),
    /// No payload index any more.
    DeleteIndex(String),
    /// The optimizers ran.
    Optimize,
    /// The server was started again: the versions that it keeps in memory begin anew.
    Restart,
}

/// What was done to a shard since it was made.
#[derive(Clone, Debug, Default)]
pub struct History {
    changes: Arc<Vec<ShardChange>>,
    /// Of all of it, so that equal histories are found again.
    digest: Digest,
    /// Operations that had a tick of the server's clock.
    ticks: u64,
    /// Drawn, as it were, with the last tick.
    token: u64,
}

impl History {
    /// One more.
    pub(super) fn push(&mut self, change: ShardChange) {
        self.digest = digest_after(self.digest, &change);
        Arc::make_mut(&mut self.changes).push(change);
    }

    /// An operation has got its tick.
    pub(super) fn tick(&mut self) {
        self.ticks += 1;
        let mut hash = Sha256::new();
        hash.update(self.digest);
        hash.update(self.ticks.to_le_bytes());
        let digest = hash.finalize();
        self.token = digest
            .iter()
            .take(8)
            .fold(0, |token, byte| token << 8 | u64::from(*byte));
    }

    /// As a snapshot tells it, of a server whose next operation has the number `next`.
    pub(super) fn lineage(&self, next: u64) -> Lineage {
        Lineage {
            peer: 1,
            next,
            tick: self.ticks,
            token: self.token,
        }
    }
}

/// Of a history with one thing more.
fn digest_after(digest: Digest, change: &ShardChange) -> Digest {
    let mut hash = Sha256::new();
    hash.update(digest);
    hash.update(format!("{change:?}"));
    hash.finalize().into()
}

/// What a snapshot is made of: a shard, or two states of it while an optimization runs.
#[derive(Clone, Debug)]
pub(super) struct Shown<'a> {
    /// The collection's creation request.
    pub(super) config: &'a Value,
    /// How often it was made. Segments of another collection have other names.
    pub(super) made: u64,
    pub(super) now: &'a History,
    /// When the optimization began that still runs. Of segments that take no points, what was deleted
    /// since is in memory only (Qdrant 1.19), and what goes out are their files of then.
    pub(super) frozen: Option<&'a History>,
}

/// The files of a shard at rest.
pub struct Files {
    folder: tempfile::TempDir,
    manifest: Value,
    contents: OnceLock<BTreeMap<String, Content>>,
}

impl Files {
    /// What changed since `old`; none if nothing did.
    pub(super) fn changes(&self, old: &Value, lineage: Lineage) -> Result<Option<Vec<u8>>, Failed> {
        let shard = shard_folder(self.folder.path());
        // Lives ask at the same time.
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("partial");
        let changed = snapshots::write_partial(&shard, &self.manifest, old, &file, lineage)?;
        Ok(if changed {
            Some(fs::read(&file)?)
        } else {
            None
        })
    }

    /// A snapshot of everything.
    pub(super) fn snapshot(&self, layout: Layout) -> Result<Vec<u8>, Failed> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("snapshot");
        snapshots::write(&shard_folder(self.folder.path()), &file, layout)?;
        Ok(fs::read(&file)?)
    }

    /// Every file that a mirror of it has, by its path below `segments`.
    pub fn contents(&self) -> &BTreeMap<String, Content> {
        self.contents.get_or_init(|| {
            let segments = shard_folder(self.folder.path()).join("segments");
            let mut contents = BTreeMap::new();
            for (segment, told) in self.manifest.as_object().into_iter().flatten() {
                let files = told["file_versions"].as_object().into_iter().flatten();
                let always = ["segment.json", "version.info"];
                for file in files.map(|(file, _)| file.as_str()).chain(always) {
                    let name = format!("{segment}/{file}");
                    let content = content_of(&segments.join(&name));
                    contents.insert(name, content.expect("a file that the manifest lists"));
                }
            }
            contents
        })
    }
}

/// A file's bytes, holes left out.
fn content_of(path: &Path) -> std::io::Result<Content> {
    let mut file = fs::File::open(path)?;
    let mut content = Content::default();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            content.resize(at);
            return Ok(content);
        }
        content.write(at, &buffer[..read]);
        at += read as u64;
    }
}

/// SHA-256.
type Digest = [u8; 32];

/// By what was done until then, and segment and name.
type FirstBuilt = HashMap<(Digest, String), Arc<Vec<u8>>>;

/// Makes shards' files, each once: a sweep asks for the same ones again and again.
#[derive(Default)]
pub struct Maker {
    made: Mutex<HashMap<String, Arc<Files>>>,
    /// Files of payload indexes that were built once, by what was done until then, segment and name. The
    /// engine writes them in the order of a hash map; what was sent once has to stay what it was.
    built: Mutex<FirstBuilt>,
}

impl Maker {
    pub(super) fn files(&self, shown: &Shown<'_>) -> Arc<Files> {
        let frozen = shown.frozen.map(|history| hex::encode(history.digest));
        let key = format!(
            "{} {} {} {frozen:?}",
            shown.config,
            shown.made,
            hex::encode(shown.now.digest)
        );
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = made.get(&key) {
            return Arc::clone(files);
        }
        if made.len() >= KEPT {
            made.clear();
        }
        let files = Arc::new(
            self.make(shown)
                .expect("the native engine makes a shard's files"),
        );
        made.insert(key, Arc::clone(&files));
        files
    }

    fn make(&self, shown: &Shown<'_>) -> Result<Files, Failed> {
        let now = Replayed::of(self, shown.config, shown.made, &shown.now.changes)?;
        let Some(frozen) = shown.frozen else {
            return Ok(now.into_files());
        };
        let then = Replayed::of(self, shown.config, shown.made, &frozen.changes)?;
        let folder = tempfile::tempdir()?;
        let segments = shard_folder(folder.path()).join("segments");
        fs::create_dir_all(&segments)?;
        let mut manifest = serde_json::Map::new();
        for (name, now_told) in now.manifest.as_object().into_iter().flatten() {
            let then_told = then.manifest.get(name).filter(|_| then.is_built(name));
            let (from, told) = match then_told {
                Some(told) => (&then, told),
                None => (&now, now_told),
            };
            fs::rename(from.segment(name), segments.join(name))?;
            manifest.insert(name.clone(), told.clone());
        }
        Ok(Files {
            folder,
            manifest: Value::Object(manifest),
            contents: OnceLock::new(),
        })
    }

    /// Of a file that was built: what it was when it was first built.
    fn first_built(&self, digest: Digest, name: &str, bytes: Vec<u8>) -> Arc<Vec<u8>> {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = built.entry((digest, name.to_owned()));
        Arc::clone(entry.or_insert_with(|| Arc::new(bytes)))
    }
}

fn shard_folder(folder: &Path) -> PathBuf {
    folder.join("shard")
}

/// A shard to which all of a history was done, at rest.
struct Replayed {
    folder: tempfile::TempDir,
    manifest: Value,
}

impl Replayed {
    fn of(
        maker: &Maker,
        config: &Value,
        made: u64,
        history: &[ShardChange],
    ) -> Result<Replayed, Failed> {
        for _ in 0..ATTEMPTS {
            if let Some(replayed) = Replayed::tried(maker, config, made, history)? {
                return Ok(replayed);
            }
        }
        Err("the graphs of this shard will not be flat".into())
    }

    /// None: a graph has levels, which are random.
    fn tried(
        maker: &Maker,
        config: &Value,
        made: u64,
        history: &[ShardChange],
    ) -> Result<Option<Replayed>, Failed> {
        let folder = tempfile::tempdir()?;
        let path = shard_folder(folder.path());
        fs::create_dir(&path)?;
        let config = CollectionConfig::from_value(&with_small_segments(config))?;
        let mut shard = Shard::create(&path, &config)?;
        let mut names = Names::of(made);
        names.settle(&path.join("segments"))?;
        let mut built = Built::default();
        let mut digest = [0; 32];
        for change in history {
            digest = digest_after(digest, change);
            match change {
                ShardChange::Point(id, effect) => shard.apply(operations(&shard, *id, effect)?)?,
                ShardChange::CreateIndex(field, schema) => {
                    built.forget(field, Some(schema));
                    shard.apply(vec![Operation::CreatePayloadIndex {
                        field: field.clone(),
                        schema: json!(schema),
                    }])?;
                }
                ShardChange::DeleteIndex(field) => {
                    built.forget(field, None);
                    shard.apply(vec![Operation::DeletePayloadIndex {
                        field: field.clone(),
                    }])?;
                }
                ShardChange::Optimize => {
                    shard.optimize()?;
                    shard.flush()?;
                    names.settle(&path.join("segments"))?;
                    if !are_flat(&path.join("segments"))? {
                        return Ok(None);
                    }
                }
                ShardChange::Restart => {
                    shard.flush()?;
                    drop(shard);
                    settle_fields(&path.join("segments"))?;
                    shard = Shard::load_as(&path, &config)?;
                }
            }
            if matches!(change, ShardChange::Optimize | ShardChange::CreateIndex(..)) {
                shard.flush()?;
                built.note(maker, digest, &names, &path.join("segments"))?;
            }
        }
        shard.flush()?;
        let manifest = names.told(&shard.snapshot_manifest()?)?;
        drop(shard);
        settle_fields(&path.join("segments"))?;
        for (name, told) in &names.names {
            let segments = path.join("segments");
            if manifest.get(told).is_some() {
                fs::rename(segments.join(name), segments.join(told))?;
            }
        }
        for (name, bytes) in &built.files {
            let file = path.join("segments").join(name);
            if file.exists() {
                fs::write(&file, bytes.as_slice())?;
            }
        }
        Ok(Some(Replayed { folder, manifest }))
    }

    fn segment(&self, name: &str) -> PathBuf {
        shard_folder(self.folder.path()).join("segments").join(name)
    }

    /// Whether a segment takes no points.
    fn is_built(&self, name: &str) -> bool {
        self.segment(name).join("id_tracker.mappings").exists()
    }

    fn into_files(self) -> Files {
        Files {
            folder: self.folder,
            manifest: self.manifest,
            contents: OnceLock::new(),
        }
    }
}

/// A person on the server has set these: segments are built of a kilobyte of vectors, and merged when
/// there are more than two.
fn with_small_segments(config: &Value) -> Value {
    let mut config = config.clone();
    config["hnsw_config"] = json!({ "m": 1024 });
    config["optimizers_config"] = json!({
        "indexing_threshold": 1,
        "default_segment_number": 2,
        "deleted_threshold": 0.2,
        "vacuum_min_vector_number": 100,
    });
    config
}

fn operations(shard: &Shard, id: u64, effect: &PointChange) -> Result<Vec<Operation>, Failed> {
    let ids = vec![PointId::Num(id)];
    let operation = match effect {
        PointChange::Upsert(point) => {
            let point = Point {
                id: PointId::Num(id),
                vectors: [(String::new(), Vector::Dense(point.vector.clone()))].into(),
                payload: Some(point.payload.clone()),
            };
            return Ok(shard.prepare_upsert(vec![point])?);
        }
        PointChange::Delete => Operation::DeletePoints { ids },
        PointChange::Set(payload) => Operation::SetPayload {
            ids,
            payload: payload.clone(),
            key: None,
        },
        PointChange::Overwrite(payload) => Operation::OverwritePayload {
            ids,
            payload: payload.clone(),
            key: None,
        },
        PointChange::Remove(keys) => Operation::DeletePayload {
            ids,
            keys: keys.clone(),
        },
    };
    Ok(vec![operation])
}

/// Files of payload indexes in segments that take no points, by the segments' told names.
#[derive(Default)]
struct Built {
    schemas: BTreeMap<String, String>,
    files: BTreeMap<String, Arc<Vec<u8>>>,
}

impl Built {
    /// What there is of a field is built anew, or gone.
    fn forget(&mut self, field: &str, schema: Option<&String>) {
        if schema.is_some() && self.schemas.get(field) == schema {
            return;
        }
        match schema {
            Some(schema) => self.schemas.insert(field.to_owned(), schema.clone()),
            None => self.schemas.remove(field),
        };
        let of_field = format!("-{field}-");
        self.files.retain(|name, _| !name.contains(&of_field));
    }

    /// Takes note of what was built now.
    fn note(
        &mut self,
        maker: &Maker,
        digest: Digest,
        names: &Names,
        segments: &Path,
    ) -> std::io::Result<()> {
        for (name, told) in &names.names {
            let segment = segments.join(name);
            if !segment.join("id_tracker.mappings").exists() {
                continue;
            }
            let indexes = segment.join("payload_index");
            for index in fs::read_dir(&indexes)? {
                let index = index?;
                if !index.file_type()?.is_dir() {
                    continue;
                }
                for file in fs::read_dir(index.path())? {
                    let file = file?;
                    let name = file.file_name();
                    let name = format!(
                        "{told}/payload_index/{}/{}",
                        index.file_name().to_string_lossy(),
                        name.to_string_lossy()
                    );
                    if name.ends_with(".bin") && !self.files.contains_key(&name) {
                        let first = maker.first_built(digest, &name, fs::read(file.path())?);
                        self.files.insert(name, first);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether all graphs have their lowest level only.
fn are_flat(segments: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(segments)? {
        let folder = entry?.path().join("vector_index");
        // Where each of the engine's formats has the number of levels.
        for (name, at) in [("links.bin", 8), ("links_compressed.bin", 16)] {
            let file = folder.join(name);
            if !file.exists() {
                continue;
            }
            let bytes = fs::read(&file)?;
            let levels = bytes
                .get(at..at + 8)
                .and_then(|bytes| bytes.try_into().ok());
            if levels.map(u64::from_le_bytes) != Some(1) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Segments have random names. Here they are told by another, in the order in which they came.
struct Names {
    made: u64,
    count: u64,
    names: BTreeMap<String, String>,
}

impl Names {
    fn of(made: u64) -> Names {
        Names {
            made,
            count: 0,
            names: BTreeMap::new(),
        }
    }

    /// Names what has come since.
    fn settle(&mut self, segments: &Path) -> std::io::Result<()> {
        let mut found = Vec::new();
        for entry in fs::read_dir(segments)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() && !self.names.contains_key(&name) {
                found.push((digest(&entry.path())?, name));
            }
        }
        found.sort();
        for (_, name) in found {
            self.count += 1;
            let told = format!(
                "00000000-0000-4000-{:04x}-{:012}",
                0x8000 + self.made,
                self.count
            );
            self.names.insert(name, told);
        }
        Ok(())
    }

    /// A manifest with these names.
    fn told(&self, manifest: &Value) -> Result<Value, Failed> {
        let mut told = serde_json::Map::new();
        for (name, segment) in manifest.as_object().into_iter().flatten() {
            let name = self.names.get(name).ok_or("a segment without a name")?;
            let mut segment = segment.clone();
            segment["segment_id"] = json!(name);
            told.insert(name.clone(), segment);
        }
        let mut told = Value::Object(told);
        told.sort_all_objects();
        Ok(told)
    }
}

/// The engine writes the indexed fields in the order of a hash map, and builds them in the order in
/// which it reads them.
pub(super) fn settle_fields(segments: &Path) -> Result<(), Failed> {
    for entry in fs::read_dir(segments)? {
        let file = entry?.path().join("payload_index/config.json");
        if file.exists() {
            let mut fields: Value = serde_json::from_slice(&fs::read(&file)?)?;
            fields.sort_all_objects();
            fs::write(&file, fields.to_string())?;
        }
    }
    Ok(())
}

/// Of the names and lengths of all files: enough to tell an empty segment from one with points.
pub(super) fn digest(folder: &Path) -> std::io::Result<Vec<u8>> {
    let mut files: Vec<(PathBuf, u64)> = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            } else {
                files.push((entry.path(), entry.metadata()?.len()));
            }
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for (path, len) in files {
        let name = path.strip_prefix(folder).unwrap_or(&path);
        hash.update(format!("{} {len}\n", name.display()));
    }
    Ok(hash.finalize().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Point as ModelPoint;

    const CONFIG: &str =
        r#"{"vectors": {"size": 4, "distance": "Euclid"}, "on_disk_payload": true}"#;

    fn upsert(history: &mut History, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            let point = ModelPoint::stamped(id + history.ticks);
            history.push(ShardChange::Point(id, PointChange::Upsert(Arc::new(point))));
            history.tick();
        }
    }

    fn shown<'a>(config: &'a Value, now: &'a History, frozen: Option<&'a History>) -> Shown<'a> {
        Shown {
            config,
            made: 1,
            now,
            frozen,
        }
    }

    #[test]
    fn a_history_gives_the_same_bytes_again() {
        let config = serde_json::from_str(CONFIG).unwrap();
        let mut history = History::default();
        history.push(ShardChange::CreateIndex("kind".into(), "keyword".into()));
        history.push(ShardChange::CreateIndex("n".into(), "integer".into()));
        upsert(&mut history, 1..=90);
        let maker = Maker::default();
        let mut first = Vec::new();
        for step in 0..3 {
            let old = first
                .last()
                .map_or(json!({}), |files: &Arc<Files>| files.manifest.clone());
            let make = |maker: &Maker| maker.make(&shown(&config, &history, None)).unwrap();
            let one = Arc::new(make(&maker));
            let other = make(&maker);
            assert_eq!(one.manifest, other.manifest, "step {step}");
            for (name, content) in one.contents() {
                assert!(content == &other.contents()[name], "step {step}: {name}");
            }
            // Elsewhere the same but for the order in a built index.
            let elsewhere = make(&Maker::default());
            assert_eq!(one.manifest, elsewhere.manifest, "step {step}");
            for (name, content) in one.contents() {
                let is_built = name.contains("/payload_index/") && name.ends_with(".bin");
                let found = &elsewhere.contents()[name];
                assert_eq!(content.len(), found.len(), "step {step}: {name}");
                assert!(is_built || content == found, "step {step}: {name}");
            }
            let lineage = history.lineage(7);
            let changes = |files: &Files| files.changes(&old, lineage).unwrap().unwrap();
            assert!(changes(&one) == changes(&other), "step {step}");
            let built = |files: &Files| {
                let names = files.contents().keys();
                names
                    .filter(|name| name.ends_with("/id_tracker.mappings"))
                    .count()
            };
            assert_eq!(built(&one), usize::from(step > 0), "step {step}");
            first.push(one);
            match step {
                0 => history.push(ShardChange::Optimize),
                _ => {
                    upsert(&mut history, 80..=100);
                    history.push(ShardChange::Point(1, PointChange::Delete));
                    history.push(ShardChange::Restart);
                }
            }
        }
    }

    #[test]
    fn while_an_optimization_runs_what_is_deleted_is_not_told() {
        let config = serde_json::from_str(CONFIG).unwrap();
        let mut history = History::default();
        upsert(&mut history, 1..=90);
        history.push(ShardChange::Optimize);
        let maker = Maker::default();
        let before = maker.files(&shown(&config, &history, None));
        let frozen = history.clone();
        history.push(ShardChange::Point(1, PointChange::Delete));
        history.tick();
        let during = maker.files(&shown(&config, &history, Some(&frozen)));
        let changes = during
            .changes(&before.manifest, history.lineage(1))
            .unwrap();
        assert!(
            changes.is_none(),
            "as the server, which says that nothing is new"
        );
        let after = maker.files(&shown(&config, &history, None));
        let changes = after.changes(&before.manifest, history.lineage(1)).unwrap();
        assert!(changes.is_some());
    }
}
