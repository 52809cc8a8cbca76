//! The local shard over the engine.

use std::collections::hash_map::Entry;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use qdrant_edge::{EdgeConfig, EdgeShard, SEGMENT_STATE_FILE, SegmentState, ShardInfo};
use serde_json::{Map, Value};

use crate::config::{CollectionConfig, runtime};
use crate::error::{Error, Result, from_engine, from_loading};
use crate::point::{PointId, StoredPoint, Vector};

/// What a search compares points with.
#[derive(Debug, Clone)]
pub enum Target {
    /// A vector, of the kind that `name` is configured for.
    Vector {
        /// The vector's name; empty for the default vector.
        name: String,
        /// The vector.
        vector: Vector,
    },
    /// The stored vector `name` of a point, which is left out of the results itself.
    Point {
        /// The vector's name; empty for the default vector.
        name: String,
        /// The point.
        id: PointId,
    },
}

/// Which payload fields and vectors a read returns.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// REST `with_payload`. None: none.
    pub payload: Option<Value>,
    /// REST `with_vector`. None: none.
    pub vectors: Option<Value>,
}

/// A nearest-neighbour search.
#[derive(Debug, Clone)]
pub struct SearchRequest {
    /// What to compare with.
    pub target: Target,
    /// REST `filter`.
    pub filter: Option<Value>,
    /// REST `params`.
    pub params: Option<Value>,
    /// How many results, at least 1.
    pub limit: usize,
    /// How many results to skip.
    pub offset: usize,
    /// Results that score worse are left out.
    pub score_threshold: Option<f32>,
    /// What to return of each point.
    pub selection: Selection,
}

/// One of the optimizations of a plan.
#[cfg(target_os = "wasi")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedOptimization {
    /// What the engine calls the optimizer.
    pub optimizer: String,
    /// Folders of the segments that become one.
    pub segments: Vec<String>,
}

/// The file in a shard's directory that holds its configuration as the engine has it in force.
pub const CONFIG_FILE: &str = "edge_config.json";

/// A page of a walk over points in order of id.
#[derive(Debug, Clone)]
pub struct ScrollRequest {
    /// The first id of the page; none starts at the beginning.
    pub offset: Option<PointId>,
    /// Points a page, at least 1.
    pub limit: usize,
    /// REST `filter`.
    pub filter: Option<Value>,
    /// What to return of each point.
    pub selection: Selection,
}

/// A page of points.
#[derive(Debug, Clone)]
pub struct ScrollPage {
    /// The points, in order of id.
    pub points: Vec<StoredPoint>,
    /// Where the next page begins; none at the end.
    pub next: Option<PointId>,
}

/// State of a shard.
#[derive(Debug, Clone)]
pub struct Info {
    /// Points that the shard holds.
    pub points: u64,
    /// Vectors that an HNSW or sparse index covers.
    pub indexed_vectors: u64,
    /// Segments.
    pub segments: u32,
    /// Payload indexes, as a collection's `payload_schema`.
    pub payload_schema: Value,
}

/// One open shard in one directory. Dropping it flushes; see [`Shard::discard`].
#[derive(Debug)]
pub struct Shard {
    pub(crate) dir: PathBuf,
    pub(crate) engine: EdgeShard,
    pub(crate) config: RwLock<CollectionConfig>,
    /// Held while the shard's files change, so that a snapshot sees one state.
    pub(crate) changing: Mutex<()>,
}

impl Shard {
    /// Creates a shard in `dir`, which is made if missing.
    ///
    /// Errors: [`crate::Error::AlreadyExists`] if there is one; storage errors.
    pub fn create(dir: &Path, config: &CollectionConfig) -> Result<Self> {
        if has_segments(dir)? {
            return Err(Error::AlreadyExists(format!(
                "a shard in {}",
                dir.display()
            )));
        }
        let engine = EdgeShard::new(dir, config.edge().clone())
            .map_err(|error| from_engine("create the shard in", dir, error))?;
        Ok(Self {
            dir: dir.to_owned(),
            engine,
            config: RwLock::new(config.clone()),
            changing: Mutex::new(()),
        })
    }

    /// Opens the shard in `dir`: one that was created here, or an unpacked snapshot. The
    /// configuration is what the shard recorded, or what its segments show.
    ///
    /// Errors: [`crate::Error::NotFound`], [`crate::Error::Corrupt`], storage errors.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::open(dir, None)
    }

    /// As [`Shard::load`], with the configuration as the collection states it: segments do not
    /// show all of it (HNSW parameters before there is an index, optimizer settings).
    ///
    /// Errors: as [`Shard::load`]; [`crate::Error::InvalidInput`] if the segments store other
    /// vectors.
    pub fn load_as(dir: &Path, config: &CollectionConfig) -> Result<Self> {
        Self::open(dir, Some(config))
    }

    /// Opens a shard that was created with `stated`, or made to go on with it. Named vectors that
    /// were created or deleted since are taken from the shard.
    ///
    /// Errors: as [`Shard::load`].
    pub fn reopen(dir: &Path, stated: &CollectionConfig) -> Result<Self> {
        require_segments(dir)?;
        Self::open(dir, Some(&Self::config_in(dir, stated)?))
    }

    /// The configuration that the segments of the shard in `dir` show, which is less than all of it.
    ///
    /// Errors: [`crate::Error::NotFound`], [`crate::Error::Corrupt`], storage errors.
    pub fn config_shown(dir: &Path) -> Result<CollectionConfig> {
        require_segments(dir)?;
        CollectionConfig::from_edge(segments_config(dir)?)
    }

    /// The configuration of the shard in `dir`, which may be open elsewhere: as stated, but for
    /// named vectors that were created or deleted since.
    ///
    /// Errors: [`crate::Error::Corrupt`], storage errors.
    pub fn config_in(dir: &Path, stated: &CollectionConfig) -> Result<CollectionConfig> {
        match found_config(dir)? {
            Some(found) => stated.clone().with_vectors_of(&found),
            None => Ok(stated.clone()),
        }
    }

    /// Whether the engine runs as [`Shard::reopen`] with `stated` would have it run.
    ///
    /// Errors: as [`Shard::config_in`].
    pub fn runs_as(&self, stated: &CollectionConfig) -> Result<bool> {
        let reopened = Self::config_in(&self.dir, stated)?;
        Ok(*reopened.edge() == *self.engine.config())
    }

    fn open(dir: &Path, config: Option<&CollectionConfig>) -> Result<Self> {
        require_segments(dir)?;
        let recorded = EdgeConfig::load(dir)
            .transpose()
            .map_err(|error| from_engine("read the configuration in", dir, error))?;
        let edge = match (config, recorded) {
            (Some(config), _) => {
                let found = CollectionConfig::from_edge(segments_config(dir)?)?;
                config.check_same_vectors(&found)?;
                config.edge().clone()
            }
            // The engine fills in what it recorded.
            (None, Some(_)) => runtime(),
            (None, None) => segments_config(dir)?.fill_unspecified_from(&runtime()),
        };
        let engine = EdgeShard::load(dir, Some(edge)).map_err(|error| from_loading(dir, error))?;
        let config = match config {
            Some(config) => config.clone(),
            None => CollectionConfig::from_edge(engine.config().clone())?,
        };
        Ok(Self {
            dir: dir.to_owned(),
            engine,
            config: RwLock::new(config),
            changing: Mutex::new(()),
        })
    }

    /// The configuration in force: as created or given, or as found.
    pub fn config(&self) -> CollectionConfig {
        self.config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes everything applied durable.
    ///
    /// Errors: storage errors.
    pub fn flush(&self) -> Result<()> {
        let _changing = self.begin_change();
        self.engine
            .flush()
            .map_err(|error| from_engine("flush the shard in", &self.dir, error))
    }

    /// Merges segments and builds indexes as the configuration asks. True if anything was done.
    ///
    /// Errors: storage errors.
    pub fn optimize(&self) -> Result<bool> {
        let _changing = self.begin_change();
        self.engine
            .optimize()
            .map_err(|error| from_engine("optimize the shard in", &self.dir, error))
    }

    /// [`Shard::optimize`], which tells `observer` of each graph that it builds how many points are
    /// linked and how many there are.
    ///
    /// Errors: storage errors.
    #[cfg(target_os = "wasi")]
    pub fn optimize_observed(&self, observer: fn(u64, u64)) -> Result<bool> {
        qdrant_edge::observe_indexing(Some(observer));
        let done = self.optimize();
        qdrant_edge::observe_indexing(None);
        done
    }

    /// What [`Shard::optimize`] would begin with. No segment is in two of them.
    #[cfg(target_os = "wasi")]
    pub fn planned_optimizations(&self) -> Vec<PlannedOptimization> {
        let planned = self.engine.planned_optimizations().into_iter();
        planned
            .map(|(optimizer, segments)| PlannedOptimization {
                optimizer: optimizer.to_owned(),
                segments,
            })
            .collect()
    }

    /// Carries out one optimization that was planned where there were more segments; true if anything
    /// was done. `observer` as for [`Shard::optimize_observed`].
    ///
    /// Errors: [`crate::Error::Internal`] if there is no such optimizer or segment; storage errors.
    #[cfg(target_os = "wasi")]
    pub fn optimize_planned(
        &self,
        planned: &PlannedOptimization,
        observer: fn(u64, u64),
    ) -> Result<bool> {
        let _changing = self.begin_change();
        qdrant_edge::observe_indexing(Some(observer));
        let done = self
            .engine
            .optimize_segments(&planned.optimizer, &planned.segments);
        qdrant_edge::observe_indexing(None);
        done.map_err(|error| from_engine("optimize segments in", &self.dir, error))
    }

    /// Whether [`Shard::optimize`] has something to plan.
    #[cfg(target_os = "wasi")]
    pub fn has_optimizations(&self) -> bool {
        self.engine.has_optimizations()
    }

    /// Counts and payload schema. Looks at no point, so that it takes as long for many as for few: no
    /// two segments hold the same point between calls that succeeded, once [`Shard::remove_duplicates`] was done on
    /// what a server sent.
    ///
    /// Errors: storage errors.
    pub fn info(&self) -> Result<Info> {
        let ShardInfo {
            segments_count,
            points_count,
            indexed_vectors_count,
            payload_schema,
        } = self.engine_info()?;
        let mut fields: Vec<_> = payload_schema.into_iter().collect();
        fields.sort_by_key(|(field, _)| field.to_string());
        let mut schema = Map::new();
        for (field, info) in fields {
            let info = serde_json::to_value(info)
                .map_err(|error| Error::Internal(format!("payload schema: {error}")))?;
            schema.insert(field.to_string(), info);
        }
        Ok(Info {
            points: points_count as u64,
            indexed_vectors: indexed_vectors_count as u64,
            segments: u32::try_from(segments_count).unwrap_or(u32::MAX),
            payload_schema: Value::Object(schema),
        })
    }

    /// How many segments there are.
    ///
    /// Errors: storage errors.
    pub fn segments(&self) -> Result<u64> {
        Ok(self.engine_info()?.segments_count as u64)
    }

    pub(crate) fn engine_info(&self) -> Result<ShardInfo> {
        self.engine
            .info()
            .map_err(|error| from_engine("inspect the shard in", &self.dir, error))
    }

    /// Flushes, and calls `work` with the shard's folder; writes wait meanwhile.
    ///
    /// Errors: storage errors; those of `work`.
    pub fn at_rest<T>(&self, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        let _changing = self.begin_change();
        self.engine
            .flush()
            .map_err(|error| from_engine("flush the shard in", &self.dir, error))?;
        work(&self.dir)
    }

    /// What the shard holds, file by file with versions: `result` of
    /// `GET .../snapshot/partial/manifest`.
    ///
    /// Errors: storage errors.
    pub fn snapshot_manifest(&self) -> Result<Value> {
        let versions = self
            .engine
            .snapshot_manifest()
            .map_err(|error| from_engine("list the files of", &self.dir, error))?;
        serde_json::to_value(versions)
            .map_err(|error| Error::Internal(format!("snapshot manifest: {error}")))
    }

    /// Drops the shard without flushing, for a shard whose memory is in doubt.
    pub fn discard(self) {
        // The engine flushes when it is dropped; what is in doubt must not reach the disk. Its
        // memory and open files stay until the process or instance ends.
        std::mem::forget(self);
    }

    pub(crate) fn begin_change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn require_segments(dir: &Path) -> Result<()> {
    if has_segments(dir)? {
        return Ok(());
    }
    Err(Error::NotFound(format!("a shard in {}", dir.display())))
}

/// Whether a shard's segments are in `dir`.
fn has_segments(dir: &Path) -> Result<bool> {
    let segments = dir.join("segments");
    match fs::read_dir(&segments) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::storage("list", &segments, &error)),
    }
}

/// The configuration that the segments show together. The engine's own derivation takes the
/// vectors of one segment whole; an appendable segment knows nothing of HNSW and little of
/// quantization, so here every vector's settings come from the segment that knows them.
fn segments_config(dir: &Path) -> Result<EdgeConfig> {
    Ok(found_config(dir)?.unwrap_or_default())
}

/// As [`segments_config`]; none if there is no segment.
#[allow(deprecated, reason = "older segments say on_disk, not memory")]
fn found_config(dir: &Path) -> Result<Option<EdgeConfig>> {
    let segments = dir.join("segments");
    let mut states = Vec::new();
    let entries =
        fs::read_dir(&segments).map_err(|error| Error::storage("list", &segments, &error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::storage("list", &segments, &error))?;
        let file = entry.path().join(SEGMENT_STATE_FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                continue;
            }
            Err(error) => return Err(Error::storage("read", &file, &error)),
        };
        let state: SegmentState = serde_json::from_str(&text).map_err(|error| Error::Corrupt {
            file: file.display().to_string(),
            offset: None,
            message: error.to_string(),
        })?;
        states.push((entry.file_name(), state));
    }
    states.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut merged: Option<EdgeConfig> = None;
    for (_, state) in states {
        let found = EdgeConfig::from_segment_config(&state.config);
        let Some(merged) = &mut merged else {
            merged = Some(found);
            continue;
        };
        for (name, found) in found.vectors {
            match merged.vectors.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(found);
                }
                Entry::Occupied(mut entry) => {
                    let known = entry.get_mut();
                    known.hnsw_config = known.hnsw_config.or(found.hnsw_config);
                    known.quantization_config = known
                        .quantization_config
                        .take()
                        .or(found.quantization_config);
                }
            }
        }
        for (name, found) in found.sparse_vectors {
            merged.sparse_vectors.entry(name).or_insert(found);
        }
        merged.hnsw_config = merged.hnsw_config.or(found.hnsw_config);
    }
    Ok(merged)
}
