//! Settings of an open shard.

use std::num::NonZero;

use crate::bindings::exports::edge_sync::shard::types::Options;
use crate::error::{Error, Result};
use crate::instance::TimeLimits;
use crate::setters::setters;
use crate::types::Durability;

/// Most memory that a 32-bit guest can address.
const MAX_MEMORY_BYTES: usize = 4 << 30;

/// Most readers that [`ShardOptions::readers`] may ask for.
pub const MOST_READERS: usize = 16;

/// Most builders that [`ShardOptions::builders`] may ask for.
pub const MOST_BUILDERS: usize = 64;

/// Settings of an open shard that are not stored with it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ShardOptions {
    /// When a write reaches the disk. Default: before the call returns.
    pub durability: Durability,
    /// Size at which a log segment is closed, in bytes. None: the component's choice.
    pub log_segment_bytes: Option<u64>,
    /// Unflushed log bytes after which a write also flushes. None: the component's choice.
    pub flush_after_bytes: Option<u64>,
    /// Most linear memory that the instance may use, at most 4 GiB. Default: 2 GiB. A third of it,
    /// at least 16 and at most 128 MiB, is kept free of data: writes that would take it are
    /// [`Error::NoMemory`]. A restore, a pull and an optimization run a second instance beside it for
    /// a while.
    pub memory_bytes: usize,
    /// Most instances that answer reads beside the shard's own, up to
    /// [`MOST_READERS`], so that several threads'
    /// searches use several cores. One is started when reads keep finding the others busy, and takes as
    /// much memory as the shard. A read sees every write that had returned when it began. Default: none.
    pub readers: usize,
    /// Most instances that build in an optimization at the same time, each with the segments of another of
    /// the optimizations that are due, up to [`MOST_BUILDERS`]. Each may take as much memory as the
    /// shard. Default: as many as there are cores but one, and one at least.
    pub builders: usize,
    /// Longest times that calls may take.
    pub times: TimeLimits,
    /// What others are told of this process when they find the directory in use. None: the name of
    /// the executable.
    pub process_name: Option<String>,
}

impl Default for ShardOptions {
    fn default() -> ShardOptions {
        ShardOptions {
            durability: Durability::Always,
            log_segment_bytes: None,
            flush_after_bytes: None,
            memory_bytes: 2 << 30,
            readers: 0,
            builders: default_builders(),
            times: TimeLimits::default(),
            process_name: None,
        }
    }
}

setters!(ShardOptions {
    durability: Durability,
    log_segment_bytes: Option<u64>,
    flush_after_bytes: Option<u64>,
    memory_bytes: usize,
    readers: usize,
    builders: usize,
    times: TimeLimits,
    process_name: Option<String>,
});

/// One core is left to the shard.
fn default_builders() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    (cores - 1).clamp(1, MOST_BUILDERS)
}

impl ShardOptions {
    pub(crate) fn for_guest(&self) -> Options {
        Options {
            durability: self.durability,
            log_segment_bytes: self.log_segment_bytes,
            flush_after_bytes: self.flush_after_bytes,
            memory_bytes: Some(self.memory_bytes as u64),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.memory_bytes > MAX_MEMORY_BYTES {
            return Err(Error::Setting {
                name: "memory",
                message: format!(
                    "{} bytes are more than the 4 GiB that the component can address",
                    self.memory_bytes
                ),
            });
        }
        if self.readers > MOST_READERS {
            return Err(Error::Setting {
                name: "readers",
                message: format!("{} are more than {MOST_READERS}", self.readers),
            });
        }
        if !(1..=MOST_BUILDERS).contains(&self.builders) {
            return Err(Error::Setting {
                name: "builders",
                message: format!("{} is not in 1..={MOST_BUILDERS}", self.builders),
            });
        }
        Ok(())
    }
}
