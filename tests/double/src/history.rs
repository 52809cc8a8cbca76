//! How far a collection's operations have come, in the numbers that a server's snapshots tell.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use edge_sync_rest::{Error, Result};
use edge_sync_snapshots::Lineage;

const FILE: &str = "operations";

/// The numbers of the server's log and clock, kept in a file of the collection's folder.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct History {
    /// Number of the last operation in the log; the first of a new collection is 1.
    operations: u64,
    /// Operations that had a tick of the clock.
    tick: u64,
    /// Random, drawn with the last tick: tells apart two histories that came equally far.
    token: u64,
}

impl History {
    fn file(directory: &Path) -> PathBuf {
        directory.join(FILE)
    }

    /// That of the collection in `directory`; of none, the beginning.
    pub(super) fn load(directory: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(Self::file(directory)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        let mut next = || match numbers.next() {
            Some(Ok(number)) => Ok(number),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, text.clone())),
        };
        Ok(Self {
            operations: next()?,
            tick: next()?,
            token: next()?,
        })
    }

    pub(super) fn store(&self, directory: &Path) -> Result<()> {
        let path = Self::file(directory);
        let text = format!("{} {} {}", self.operations, self.tick, self.token);
        fs::write(&path, text)
            .map_err(|error| Error::Internal(format!("write {}: {error}", path.display())))
    }

    /// Number of the last operation.
    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    /// Counts an operation on points.
    pub(super) fn count(&mut self) {
        self.operations += 1;
        self.tick();
    }

    /// Counts an operation on the collection: one for its description, one for the shard. Only the
    /// latter has a tick.
    pub(super) fn count_of_the_collection(&mut self) {
        self.operations += 2;
        self.tick();
    }

    fn tick(&mut self) {
        self.tick += 1;
        self.token = fastrand::u64(..);
    }

    /// As a snapshot of `peer` tells it.
    pub(super) fn lineage(&self, peer: u64) -> Lineage {
        Lineage {
            peer,
            next: self.operations + 1,
            tick: self.tick,
            token: self.token,
        }
    }
}
