//! Upload and restore in one call, for a host that runs one instance with a directory and
//! network. The host library has its own loop over `queue` and `courier`; the decisions it takes
//! are the same, see `docs/architecture.md`.

use std::path::Path;
use std::thread;
use std::time::Duration;

use edge_sync_engine::PointId;

use crate::bindings::courier::{OptimizerState, SnapshotSource};
use crate::bindings::queue::BatchLimits;
use crate::bindings::restore::Staged;
use crate::bindings::shard::Opened;
use crate::bindings::sync::SyncReport;
use crate::bindings::types::{FailureClass, Options, ServerFailure};
use crate::courier::Server;
use crate::directory::Directory;
use crate::download::Download;
use crate::error::{Error, Result, invalid};
use crate::exports;
use crate::queue;
use crate::restore::{self, Staging, download_path};
use crate::settled::unsettled;
use crate::store::{Store, load_current};

/// First and longest wait between attempts; each wait doubles the one before.
const BACKOFF_BASE: Duration = Duration::from_millis(200);
const BACKOFF_LONGEST: Duration = Duration::from_secs(30);

/// Attempts for the one-call restore, which has no parameter for it.
const RESTORE_ATTEMPTS: u32 = 5;

/// How long the one-call restore waits for the server's optimizer, and how often it looks.
const SETTLE: Duration = Duration::from_secs(60);
const SETTLE_LOOK: Duration = Duration::from_secs(1);

/// Batches of the one-call restore: the defaults of the documentation of Qdrant Edge.
const RESTORE_LIMITS: BatchLimits = BatchLimits {
    operations: 10,
    bytes: 8 << 20,
};

/// After this many accepted batches in a row, a byte limit that a 413 lowered is doubled, to see
/// whether the server takes more again.
const PROBE_AFTER: u32 = 64;

/// Drains the queue; see `sync.sync`.
pub fn drain(
    store: &mut Store,
    server: &Server,
    limits: BatchLimits,
    attempts: u32,
) -> Result<SyncReport> {
    if attempts == 0 {
        return Err(invalid("attempts", "0 attempts; at least 1 is needed"));
    }
    let mut report = SyncReport {
        uploaded: 0,
        requests: 0,
        rejected: 0,
        remaining: 0,
        failure: None,
    };
    let outcome = upload(store, server, limits, attempts, &mut report);
    report.remaining = queue::status(store)?.queued;
    match outcome {
        Ok(()) => {}
        Err(error @ Error::Server(_)) => report.failure = Some(error),
        Err(error) => return Err(error),
    }
    Ok(report)
}

fn upload(
    store: &mut Store,
    server: &Server,
    limits: BatchLimits,
    attempts: u32,
    report: &mut SyncReport,
) -> Result<()> {
    let config = store.shard()?.config().to_json().to_string();
    persist(attempts, || server.ensure_collection(&config))?;
    let BatchLimits {
        mut operations,
        mut bytes,
    } = limits;
    let mut accepted = 0;
    while let Some(batch) = queue::next_batch(store, BatchLimits { operations, bytes }, None)? {
        match persist(attempts, || server.send(&batch.request)) {
            Ok(()) => {
                store.acknowledge(batch.last)?;
                report.uploaded += u64::from(batch.operations);
                report.requests += 1;
                operations = operations.saturating_mul(2).min(limits.operations);
                accepted += 1;
                if accepted >= PROBE_AFTER {
                    accepted = 0;
                    bytes = bytes.saturating_mul(2).min(limits.bytes);
                }
            }
            Err(Error::Server(failure)) => {
                if failure.class == FailureClass::TooLarge {
                    accepted = 0;
                    let sent = u32::try_from(batch.request.body.len()).unwrap_or(u32::MAX);
                    bytes = sent.min(bytes).div_ceil(2).max(1);
                }
                match failure.class {
                    FailureClass::Reject | FailureClass::TooLarge if batch.operations > 1 => {
                        operations = (batch.operations / 2).max(1);
                    }
                    // One operation that the server takes at no size is refused like any other.
                    FailureClass::Reject | FailureClass::TooLarge => {
                        let status = failure.status.unwrap_or_default();
                        store.reject(batch.first, status, &failure.message)?;
                        report.rejected += 1;
                        operations = limits.operations;
                    }
                    FailureClass::Retry | FailureClass::Stop => return Err(Error::Server(failure)),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Tries again while failures are passing ones.
fn persist<T>(attempts: u32, mut run: impl FnMut() -> Result<T>) -> Result<T> {
    let mut backoff = BACKOFF_BASE;
    for _ in 1..attempts {
        match run() {
            Err(Error::Server(failure)) if failure.class == FailureClass::Retry => {
                thread::sleep(wait(backoff, &failure));
                backoff = (backoff * 2).min(BACKOFF_LONGEST);
            }
            outcome => return outcome,
        }
    }
    run()
}

/// What the server asks for, or between half and all of the backoff, so that devices that failed
/// together do not come back together.
fn wait(backoff: Duration, failure: &ServerFailure) -> Duration {
    match failure.retry_after_ms {
        Some(milliseconds) => Duration::from_millis(milliseconds),
        None => backoff.mul_f64(0.5 + 0.5 * random_fraction()),
    }
}

/// Randomly keyed by WASI at start-up, so two devices differ.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let bits = std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish();
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// Drains the queue, downloads a snapshot and restores from it; see `sync.restore`.
///
/// One memory cannot hold two generations of any size, so the open shard is closed before the
/// new one is loaded. Nothing else runs in this instance meanwhile, and until the switch the old
/// generation is what the next open finds.
pub fn restore(
    directory: Directory,
    server: &Server,
    source: SnapshotSource,
    options: Options,
) -> Result<Opened> {
    let barrier = match exports::with_store(|store| {
        let report = drain(store, server, RESTORE_LIMITS, RESTORE_ATTEMPTS)?;
        match report.failure {
            Some(failure) => Err(failure),
            None => Ok(store.current().acknowledged),
        }
    }) {
        Err(Error::NotOpen) => 0,
        outcome => outcome?,
    };
    let before = settle(server)?;
    let snapshot = download_path(&directory)?;
    let mut download = Download::start(server.clone(), source, snapshot.clone())?;
    let downloaded = loop {
        match persist(RESTORE_ATTEMPTS, || download.step()) {
            Ok(progress) if progress.done => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    drop(download);
    let restored = downloaded.and_then(|()| {
        let after = persist(RESTORE_ATTEMPTS, || server.optimizer())?;
        let source = Source {
            server,
            barrier,
            unsettled: unsettled(&before, &after),
            deleted: match exports::with_store(|store| restore::deleted_here(store, barrier)) {
                Err(Error::NotOpen) => Vec::new(),
                deleted => deleted?,
            },
        };
        replace_generation(&directory, &snapshot, Some(&source), options)
    });
    let cleared = directory.clear_staging();
    let opened = restored?;
    cleared?;
    Ok(opened)
}

/// Waits for the server's optimizer, but not for ever.
fn settle(server: &Server) -> Result<OptimizerState> {
    let mut waited = Duration::ZERO;
    loop {
        let state = persist(RESTORE_ATTEMPTS, || server.optimizer())?;
        if !state.running || waited >= SETTLE {
            return Ok(state);
        }
        thread::sleep(SETTLE_LOOK);
        waited += SETTLE_LOOK;
    }
}

/// Where a downloaded snapshot comes from.
struct Source<'a> {
    server: &'a Server,
    barrier: u64,
    /// Why it may not be what the server held.
    unsettled: Option<&'static str>,
    /// What this device deleted, as far as it knows.
    deleted: Vec<PointId>,
}

/// What a person should know of the repairs of a snapshot; deletes again what the server says it
/// does not hold.
fn repair(staging: &Staging, staged: &Staged, source: Option<&Source<'_>>) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if staged.duplicates_removed > 0 {
        notes.push(format!(
            "{} old copies of points were removed",
            staged.duplicates_removed
        ));
    }
    let Some((source, why)) = source.and_then(|source| Some((source, source.unsettled?))) else {
        return Ok(notes);
    };
    let mut note = format!("unsettled: {why}; another restore later gets what the server holds");
    let alive = staging.held(&source.deleted)?;
    if !alive.is_empty() {
        match persist(RESTORE_ATTEMPTS, || source.server.absent(&alive)) {
            Ok(absent) => {
                let deleted = staging.delete_again(&absent)?;
                notes.push(format!("{deleted} deleted points were deleted again"));
            }
            Err(_) => note.push_str(&format!(
                "; up to {} points that this device deleted may be back",
                alive.len()
            )),
        }
    }
    notes.push(note);
    Ok(notes)
}

/// Restores from a local file; see `sync.restore-file`.
pub fn restore_file(directory: Directory, snapshot: &Path, options: Options) -> Result<Opened> {
    replace_generation(&directory, snapshot, None, options)
}

/// Stages and promotes. A shard that was open is open again afterwards, whatever happened.
fn replace_generation(
    directory: &Directory,
    snapshot: &Path,
    source: Option<&Source<'_>>,
    options: Options,
) -> Result<Opened> {
    match exports::close() {
        Ok(()) | Err(Error::NotOpen) => {}
        // What it could not flush is in the log, which is replayed onto the new generation.
        Err(error) => eprintln!("edge-sync: the old generation was not flushed: {error:?}"),
    }
    let staged = || {
        let barrier = match source {
            Some(source) => source.barrier,
            // What waits for upload is not on the server, so it cannot be in its snapshot.
            None => match load_current(directory) {
                Ok(current) => current.acknowledged,
                Err(Error::NotFound(_)) => 0,
                Err(error) => return Err(error),
            },
        };
        let (staging, staged) = Staging::stage(directory.clone(), snapshot, barrier, options)?;
        let notes = repair(&staging, &staged, source)?;
        let mut opened = exports::open_with(|| staging.promote())?;
        opened.notes.extend(notes);
        Ok(opened)
    };
    staged().inspect_err(|_| {
        // Best effort: without a shard in the directory there is nothing to open again.
        let reopened = exports::open_with(|| Store::open(directory.clone(), options));
        if let Err(error) = reopened
            && !matches!(error, Error::NotFound(_))
        {
            eprintln!("edge-sync: the shard could not be opened again: {error:?}");
        }
    })
}
