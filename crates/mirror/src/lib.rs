//! The mirror: a server's segment files as they came, kept beside the shard that is worked with.
//!
//! A device that holds a mirror asks the server for a partial snapshot: only the files that
//! changed. This crate knows the files and nothing else: no network, no engine.
//!
//! ```text
//! offer     what to ask with: the manifests that the server sent with the mirror's files
//! archive   the answer, a streamed tar archive, checked as a whole before anything is written
//! apply     the next mirror, from files that came and files that are kept
//! working   the folder that the engine loads, from a mirror
//! duplicate a second tree of a shard and its mirror, for one that is changed beside them
//! ```
//!
//! docs/pull.md has the formats, the invariants and the crash argument.

mod apply;
mod archive;
mod duplicate;
mod durable;
mod error;
mod files;
mod lineage;
mod manifest;
mod mirror;
mod name;
mod offer;
mod plan;
mod tar_stream;
mod working;

pub use apply::{Outcome, Report, Settings, apply, carry};
pub use archive::{Archive, Limits, StreamKind};
pub use duplicate::{DataLength, Duplicate, duplicate_mirrors, duplicate_shard};
pub use durable::Unsynced;
pub use error::{Error, Result};
pub use files::Links;
pub use lineage::{Clock, Lineage};
pub use manifest::{SegmentManifest, SnapshotManifest};
pub use mirror::{FileRecord, Mirror, Origin, SegmentRecord};
pub use offer::Offer;
pub use working::{Working, build, build_linking, is_never_written};
