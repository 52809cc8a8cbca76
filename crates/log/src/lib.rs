//! The durable log of edge-sync.
//!
//! A [`Log`] is a directory of segment files that records are appended to. It serves two readers
//! at once: the shard, which replays what it had not flushed, and the upload, which sends what
//! the server has not confirmed. [`Current`] is the file with both positions and the generation
//! in force; [`Rejected`] keeps the operations that the server refused. A [`View`] and a
//! [`RejectedView`] show both to whoever reads beside the owner.
//!
//! `docs/log-format.md` specifies every byte and argues why each crash leaves files that open.
//! Everything is `std::fs`, without locks, threads or positioned reads, so that it runs on WASI.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use edge_sync_log::{Log, LogOptions};
//!
//! let directory = tempfile::tempdir()?;
//! let (mut log, report) = Log::open(directory.path(), LogOptions::default())?;
//! assert_eq!(report.notes(), Vec::<String>::new());
//! let sequences = log.append(&[b"first", b"other"])?;
//! assert_eq!(sequences, 1..3);
//! let read: Result<Vec<_>, _> = log.read(2).collect();
//! assert_eq!(read?[0].payload, b"other");
//! # Ok(())
//! # }
//! ```

mod current;
mod error;
mod files;
mod follow;
mod log;
mod read;
mod record;
mod recovery;
mod rejected;
mod segment;
#[cfg(test)]
mod tests;
mod view;

pub use current::Current;
pub use error::{Error, Result};
pub use follow::{Follower, follow};
pub use log::{Durability, Log, LogOptions, MIN_SEGMENT_BYTES};
pub use read::Reader;
pub use record::{MAX_RECORD_BYTES, Record};
pub use recovery::{OpenReport, TornTail};
pub use rejected::{
    Fingerprint, Refusals, Rejected, RejectedOperation, RejectedView, SKIPPED_BY_HAND,
};
pub use view::View;
