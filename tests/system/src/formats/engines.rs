//! The component and the native engine behind the same few calls.

use std::fs;
use std::path::{Path, PathBuf};

use edge_sync_engine::{
    CollectionConfig, Request, Shard as NativeShard, SnapshotLimits, parse_request, unpack_snapshot,
};
use edge_sync_host::{
    Cancel, Durability, EdgeSync, RestoreSource, Shard as ComponentShard, ShardOptions,
};
use edge_sync_log::Current;
use edge_sync_rollback::Journal;
use edge_sync_snapshots::{Layout, create};
use serde_json::{Value, json};

use crate::support::component;

/// One build of the engine with one open shard.
pub trait Engine {
    /// What the engine is called in a failed test.
    fn name(&self) -> &'static str;

    /// The REST `result`; that of a write says nothing.
    fn request(&self, method: &str, path: &str, body: &Value) -> Result<Value, String>;

    /// Builds indexes, merges segments, and makes that durable.
    fn optimize(&self) -> bool;

    fn flush(&self);

    /// Flushes and closes, and returns the folder with the engine's files.
    fn close(self) -> PathBuf;
}

/// The engine as compiled for this machine.
pub struct Native {
    folder: PathBuf,
    shard: NativeShard,
}

impl Native {
    /// Creates a shard in `folder`; `config` is the body of `PUT /collections/{c}`.
    pub fn create(folder: &Path, config: &Value) -> Self {
        let shard = NativeShard::create(folder, &parsed(config)).expect("a native shard");
        Self {
            folder: folder.to_owned(),
            shard,
        }
    }

    /// Opens the shard in `folder`, whoever wrote it. Named vectors may have come and gone since it
    /// was created with `config`.
    pub fn open(folder: &Path, config: &Value) -> Self {
        let shard = NativeShard::reopen(folder, &parsed(config)).expect("the native engine loads");
        Self {
            folder: folder.to_owned(),
            shard,
        }
    }

    /// Unpacks a snapshot into `folder` and opens it.
    pub fn restore(folder: &Path, snapshot: &Path, config: &Value) -> Self {
        unpack_snapshot(snapshot, folder, SnapshotLimits::default()).expect("unpacks");
        Self::open(folder, config)
    }

    pub fn snapshot(&self, file: &Path) {
        create(&self.shard, file, Layout::Streamed).expect("a snapshot");
    }

    fn write(&self, write: edge_sync_engine::Write) -> edge_sync_engine::Result<()> {
        self.shard.validate(&write)?;
        for step in write.steps() {
            self.shard.apply(self.shard.prepare(step)?)?;
        }
        Ok(())
    }
}

fn parsed(config: &Value) -> CollectionConfig {
    CollectionConfig::from_value(config).expect("a good configuration")
}

impl Engine for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let answer = match parse_request(method, path, &body.to_string()) {
            Ok(Request::Read(read)) => self.shard.read(read),
            Ok(Request::Write(write)) => self.write(write).map(|()| json!(null)),
            Ok(Request::Configure(_)) => Err(edge_sync_engine::Error::Internal(
                "the parameters are of the shard that a component has".to_owned(),
            )),
            Err(error) => Err(error),
        };
        answer.map_err(|error| error.to_string())
    }

    fn optimize(&self) -> bool {
        let done = self.shard.optimize().expect("the native engine optimizes");
        self.flush();
        done
    }

    fn flush(&self) {
        self.shard.flush().expect("the native engine flushes");
    }

    fn close(self) -> PathBuf {
        self.flush();
        self.folder
    }
}

/// The engine in the component.
pub struct Component {
    folder: PathBuf,
    shard: ComponentShard,
}

impl Component {
    /// Creates a shard in the data directory `folder`.
    pub fn create(folder: &Path, config: &Value) -> Self {
        let shard = ComponentShard::create(&component(), folder, &config.to_string(), options())
            .expect("a shard in the component");
        Self {
            folder: folder.to_owned(),
            shard,
        }
    }

    /// Opens the shard in the data directory `folder`. The engine's files may be another engine's
    /// since it was closed, so the checkpoint in force is made anew of what is there.
    pub fn open(folder: &Path) -> Self {
        let current = Current::load(folder).expect("CURRENT").expect("a shard");
        let tree = engine_folder(folder);
        Journal::begin(&tree, &tree.with_file_name("rollback"), current.checkpoint)
            .expect("a checkpoint");
        let shard =
            ComponentShard::open(&component(), folder, options()).expect("the component opens");
        Self {
            folder: folder.to_owned(),
            shard,
        }
    }

    /// Restores a snapshot into `folder`, which may have a shard or be missing.
    pub fn restore(folder: &Path, snapshot: &Path) -> Self {
        let edge = EdgeSync::builder(component(), folder)
            .options(options())
            .attach()
            .expect("a directory");
        let source = RestoreSource::File(snapshot.to_owned());
        edge.restore(&source, &Cancel::new(), |_| {})
            .expect("the component restores");
        Self {
            folder: folder.to_owned(),
            shard: edge.shard().clone(),
        }
    }
}

/// Where the engine's files are in a data directory.
pub fn engine_folder(data: &Path) -> PathBuf {
    let generations = fs::read_dir(data.join("generations")).expect("generations");
    let newest = generations
        .map(|entry| entry.expect("an entry").file_name())
        .filter_map(|name| name.to_str()?.parse::<u64>().ok())
        .max()
        .expect("a generation");
    data.join("generations")
        .join(newest.to_string())
        .join("shard")
}

/// Nothing here is about the log, and power cuts are tested elsewhere.
fn options() -> ShardOptions {
    ShardOptions::default()
        .durability(Durability::Os)
        .memory_bytes(4 << 30)
}

impl Engine for Component {
    fn name(&self) -> &'static str {
        "component"
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let body = body.to_string();
        match self.shard.request(method, path, &body) {
            Ok(answer) => Ok(serde_json::from_str(&answer).expect("JSON")),
            Err(error @ edge_sync_host::Error::Trapped { .. }) => panic!("{error}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn optimize(&self) -> bool {
        self.shard.optimize().expect("the component optimizes")
    }

    fn flush(&self) {
        self.shard.flush().expect("the component flushes");
    }

    fn close(self) -> PathBuf {
        self.shard.close().expect("the component closes");
        engine_folder(&self.folder)
    }
}
