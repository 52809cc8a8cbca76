//! Readers: instances that answer reads beside the one that has the shard open.
//!
//! A reader has a copy of the engine's files, and applies to it what it finds in the writer's log. It
//! writes to its copy alone, flushes nothing, and is thrown away: the log is what lasts.

use edge_sync_engine::{CollectionConfig, Shard};
use edge_sync_log::{Follower, follow};
use edge_sync_mirror::{Links, duplicate_shard};
use edge_sync_rollback::wasi::{self as rollback, Watch};

use crate::directory::{Directory, ReaderFolder};
use crate::error::{Error, Result, describe, storage};
use crate::generation::{check_watch, load_config_in, or_failed_call, replay};
use crate::store::Store;

/// A copy of a shard that follows its log.
pub struct Reader {
    folder: ReaderFolder,
    /// Over the copy, so that a failed call on its files is noticed.
    watch: Watch,
    /// None while it is taken apart.
    shard: Option<Shard>,
    log: Follower,
    /// What the copy holds: everything up to here.
    position: u64,
    failed: Option<String>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        // Dropping the engine flushes it, and nobody reads these files again.
        if let Some(shard) = self.shard.take() {
            shard.discard();
            rollback::abandon_changes();
        }
    }
}

/// Copies the open shard for a reader; see `reader.lend`.
pub fn lend(store: &mut Store, number: u32) -> Result<u64> {
    store.shard()?;
    // The files are all that is copied.
    store.checkpoint()?;
    let (generation, position) = (store.current().generation, store.current().applied);
    let directory = store.directory().clone();
    rollback::unwatched(|| {
        let folder = directory.create_reader(number)?;
        copy(&directory, generation, &folder).inspect_err(|_| {
            if let Err(error) = folder.remove() {
                // The next copy of that number, or the next opening, removes it.
                eprintln!(
                    "edge-sync: a copy that failed was not removed: {}",
                    describe(&error)
                );
            }
        })
    })?;
    Ok(position)
}

fn copy(directory: &Directory, generation: u64, folder: &ReaderFolder) -> Result<()> {
    duplicate_shard(
        &directory.shard(generation),
        &folder.shard(),
        Links::Try,
        &rollback::data_length,
    )?;
    let config = directory.collection(generation);
    let to = folder.collection();
    std::fs::copy(&config, &to)
        .map(drop)
        .map_err(|error| storage("copy the collection configuration to", &to, &error))
}

impl Reader {
    /// Opens a copy that was lent, which is up to `position`.
    pub fn open(directory: &Directory, copy: &str, position: u64) -> Result<Self> {
        let folder = ReaderFolder::new(copy);
        let config: CollectionConfig = load_config_in(&folder.collection())?;
        let tree = folder.shard();
        let watch = Watch::over_new(&tree)?;
        let shard = Shard::reopen(&tree, &config)
            .map_err(Error::from)
            .map_err(|error| or_failed_call(error, &watch, &tree))?;
        let reader = Self {
            log: follow(&directory.log(), position + 1),
            folder,
            watch,
            shard: Some(shard),
            position,
            failed: None,
        };
        reader.shard()?;
        Ok(reader)
    }

    /// The engine, unless it is in doubt.
    pub fn shard(&self) -> Result<&Shard> {
        if let Some(why) = &self.failed {
            return Err(Error::NeedsReopen(why.clone()));
        }
        check_watch(&self.watch, "read after a failure in", &self.folder.shard())
            .map_err(|error| Error::NeedsReopen(describe(&error)))?;
        self.shard.as_ref().ok_or(Error::NotOpen)
    }

    /// Applies what the log holds up to `until`; see `reader.follow`.
    pub fn follow(&mut self, until: u64) -> Result<u64> {
        self.shard()?;
        if until > self.position {
            self.log.has_returned(until);
            if let Err(error) = self.apply(until) {
                let why = format!("the reader cannot follow the log: {}", describe(&error));
                self.failed = Some(why.clone());
                return Err(Error::NeedsReopen(why));
            }
        }
        Ok(self.position)
    }

    fn apply(&mut self, until: u64) -> Result<()> {
        let shard = self.shard.as_ref().ok_or(Error::NotOpen)?;
        let missing = until - self.position;
        let replayed = replay(shard, &mut self.log)?;
        if replayed.operations < missing {
            return Err(Error::Internal(format!(
                "the log ends before operation {until}"
            )));
        }
        self.position = until;
        Ok(())
    }
}
