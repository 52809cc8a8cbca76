//! A look into a data directory that another instance may have open.
//!
//! Its owner stores what it syncs in this order: log, then `CURRENT`, then what `CURRENT` allows to
//! be removed. Read in the order `CURRENT`, rejected log, log, and again if `CURRENT` has changed
//! meanwhile, the three belong together.

use edge_sync_log::{Current, RejectedView, View};
use edge_sync_mirror::Mirror;
use edge_sync_upload::refusal_fingerprint;

use crate::bindings::peek::{self as wit, Peeked};
use crate::bindings::queue::{QueueStatus, RejectedOperation, WaitingOperation};
use crate::bindings::restore::Origin;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::listing::{self, PAGE_BYTES, PAGE_OPERATIONS};

/// How often to look again because the owner was changing what is looked at.
const ATTEMPTS: u32 = 20;

struct Peek {
    current: Current,
    rejected: RejectedView,
    log: View,
}

impl Peek {
    fn look(directory: &Directory) -> Result<Self> {
        let current = load(directory)?;
        let rejected = RejectedView::look(
            &directory.rejected(),
            current.acknowledged,
            refusal_fingerprint,
        )?;
        let log = View::look(&directory.log())?;
        Ok(Self {
            current,
            rejected,
            log,
        })
    }
}

fn load(directory: &Directory) -> Result<Current> {
    Current::load(directory.root())?.ok_or_else(|| {
        Error::NotFound(format!(
            "there is no shard in {}",
            directory.root().display()
        ))
    })
}

/// Answers from one state of the directory. Should it change all the time, the last answer counts.
fn peek<T>(directory: &Directory, answer: impl Fn(&Peek) -> Result<T>) -> Result<T> {
    let mut attempts = ATTEMPTS;
    loop {
        let before = load(directory)?;
        let outcome = Peek::look(directory).and_then(|peek| answer(&peek));
        attempts -= 1;
        if attempts == 0 || (outcome.is_ok() && load(directory)? == before) {
            return outcome;
        }
    }
}

/// See `peek.status`.
pub fn status(directory: &Directory) -> Result<Peeked> {
    peek(directory, |peek| {
        let acknowledged = peek.current.acknowledged;
        let refusals = peek.rejected.refusals(acknowledged)?;
        Ok(Peeked {
            generation: peek.current.generation,
            mirrors: mirrors(directory, peek.current.generation)?,
            queue: QueueStatus {
                logged: peek.log.last(),
                applied: peek.current.applied,
                acknowledged,
                queued: peek.log.last().saturating_sub(acknowledged),
                queued_bytes: peek.log.bytes_after(acknowledged)?,
                oldest_queued_ms: peek.log.time_of(acknowledged.saturating_add(1))?,
                rejected: peek.rejected.len(),
                refused_in_a_row: refusals.in_a_row,
                refused_words: refusals.words,
            },
        })
    })
}

/// What the next pull compares with, by shard; nothing if it fetches everything.
pub fn mirrors(directory: &Directory, generation: u64) -> Result<Vec<wit::Mirror>> {
    let mut mirrors = Vec::new();
    for shard in directory.list_mirrors(generation)? {
        let mirror = match Mirror::load(&directory.mirror(generation, shard)) {
            Ok(Some(mirror)) if mirror.lineage().is_some() => mirror,
            // Of no use to a pull.
            Ok(_)
            | Err(
                edge_sync_mirror::Error::Corrupt { .. }
                | edge_sync_mirror::Error::UnknownVersion { .. },
            ) => continue,
            Err(error) => return Err(error.into()),
        };
        let origin = mirror.origin();
        let files = mirror
            .segments()
            .values()
            .flat_map(|segment| segment.files.values());
        mirrors.push(wit::Mirror {
            of: Origin {
                url: origin.url.clone(),
                collection: origin.collection.clone(),
                shard: origin.shard,
                shard_key: origin.shard_key.clone(),
            },
            peer: mirror.lineage().map(|lineage| lineage.peer),
            segments: u32::try_from(mirror.segments().len()).unwrap_or(u32::MAX),
            bytes: files.fold(0, |sum, file| file.data().saturating_add(sum)),
            settled: mirror.settled(),
        });
    }
    Ok(mirrors)
}

/// See `peek.waiting`.
pub fn waiting(directory: &Directory, after: u64, limit: u32) -> Result<Vec<WaitingOperation>> {
    peek(directory, |peek| {
        let from = after.max(peek.current.acknowledged).saturating_add(1);
        listing::waiting(peek.log.read(from), limit)
    })
}

/// See `peek.rejected`.
pub fn rejected(directory: &Directory, after: u64, limit: u32) -> Result<Vec<RejectedOperation>> {
    let limit = limit.min(PAGE_OPERATIONS);
    let entries = peek(directory, |peek| {
        Ok(peek.rejected.page(after, limit, PAGE_BYTES)?)
    })?;
    listing::rejected(entries)
}
