//! Upload and restore in one call, for a host that runs one instance with a directory and network.
//! What to ask and what an answer means is `edge_sync_upload`'s; here are only the queue, the
//! network and the waiting.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use edge_sync_clock::now_ms;
use edge_sync_engine::PointId;
use edge_sync_mirror::Origin;
use edge_sync_upload::{
    Answer, Batch, Binding, Class, DownloadAttempts, Failure, Limits, NoAnswer, Options as Upload,
    Permissions, Progress, Queue, Request, RestoreCheck, Server as Network, Standing, Step,
    Uploader, keeps_enough,
};

use crate::binding;
use crate::bindings::courier::{
    Content, DownloadProgress, OptimizerState, Placement, SnapshotSource,
};
use crate::bindings::queue as wit;
use crate::bindings::restore::{Pulled, Staged};
use crate::bindings::shard::Opened;
use crate::bindings::sync::{Direction, PullReport, SourceShard, SyncOptions, SyncReport};
use crate::bindings::types::{FailureClass, Options, ServerFailure};
use crate::courier::{Server, server_error};
use crate::directory::Directory;
use crate::download::Download;
use crate::downloading::Downloading;
use crate::error::{Error, Result, describe, invalid};
use crate::instance;
use crate::pull::Pull;
use crate::queue;
use crate::resend;
use crate::restore::{self, Staging, download_path};
use crate::settled::unsettled;
use crate::store::{Store, load_current};
use crate::tenant::{PointsDownload, PointsFile};

/// Failures in a row after which the one-call restore gives up; it has no parameter for it.
const RESTORE_ATTEMPTS: u32 = 5;

/// How long the one-call restore waits for the server's optimizer, and how often it looks.
const SETTLE: Duration = Duration::from_secs(60);
/// How long for an optimization that the server would begin: it may be set to begin none.
const SETTLE_QUEUED: Duration = Duration::from_secs(3);
const SETTLE_LOOK: Duration = Duration::from_secs(1);

impl Queue for &mut Store {
    type Error = Error;

    fn next_batch(
        &mut self,
        limits: Limits,
        until: Option<u64>,
        done: Option<Progress>,
    ) -> Result<Option<Batch>> {
        let limits = wit::BatchLimits {
            operations: limits.operations,
            bytes: limits.bytes,
            points: limits.points,
            present_only: limits.present_only,
        };
        let done = done.map(|done| wit::Progress {
            sequence: done.sequence,
            points: done.points,
        });
        Ok(
            queue::next_batch(self, limits, until, done)?.map(|batch| Batch {
                first: batch.first,
                last: batch.last,
                operations: batch.operations,
                points: batch.points,
                rest: batch.rest,
                request: batch.request.into(),
            }),
        )
    }

    fn acknowledge(&mut self, last: u64) -> Result<()> {
        Store::acknowledge(self, last)
    }

    fn reject(&mut self, sequence: u64, status: u16, message: &str) -> Result<()> {
        Store::reject(self, sequence, status, message)
    }

    fn standing(&mut self) -> Result<Standing> {
        Ok(standing_of(queue::standing(self)?))
    }

    fn changing_vectors(&mut self) -> Result<Vec<String>> {
        queue::changing_vectors(self)
    }

    fn bind(&mut self, binding: &Binding) -> Result<()> {
        binding::store(self.directory(), binding)
    }
}

impl Network for &Server {
    type Error = Error;

    fn exchange(&mut self, request: &Request) -> Result<std::result::Result<Answer, NoAnswer>> {
        Server::exchange(self, request)
    }

    fn now_ms(&self) -> u64 {
        now_ms()
    }

    fn fresh_id(&mut self) -> String {
        let (high, low) = (random(), random());
        // RFC 9562, version 4.
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        )
    }
}

/// How the queue stands, as the upload machine knows it.
fn standing_of(standing: wit::QueueStanding) -> Standing {
    Standing {
        acknowledged: standing.acknowledged,
        restored: standing.restored,
        refused_in_a_row: standing.refused_in_a_row,
        refused_words: standing.refused_words,
        refused_status: standing.refused_status,
        binding: standing.binding.map(binding::from_wit),
        config: standing.config,
        creation: standing.creation,
    }
}

/// Randomly keyed by WASI at start-up, so two devices differ.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}

fn uploader(server: &Server, options: &SyncOptions) -> Result<Uploader> {
    if options.attempts == 0 {
        return Err(invalid("options.attempts", "0; at least 1 is needed"));
    }
    let defaults = Upload::default();
    let mut uploader = Uploader::new(
        server.target().clone(),
        Upload {
            limits: Limits {
                operations: options.operations,
                bytes: options.bytes,
                ..defaults.limits
            },
            most_operations: options.most_operations,
            attempts: options.attempts,
            patience: Duration::from_millis(options.patience_ms),
            ..defaults
        },
        random(),
    );
    uploader.permit(Permissions {
        rebind: options.rebind,
        resend: options.resend,
        create_shard_key: options.create_shard_key,
    });
    Ok(uploader)
}

/// Drains the queue of the open shard, and follows the server; see `sync.sync`.
pub fn sync(server: &Server, options: &SyncOptions) -> Result<SyncReport> {
    let mut uploader = uploader(server, options)?;
    let mut report = instance::with_store(|store| {
        if options.resend && uploader.accepts_place(binding::load(store.directory())?.as_ref()) {
            resend::resend(store)?;
        }
        match options.direction {
            Direction::Pull => Ok(SyncReport {
                remaining: queue::status(store)?.queued,
                ..nothing_done()
            }),
            Direction::Both | Direction::Push => run(store, server, &mut uploader),
        }
    })?;
    if !matches!(options.direction, Direction::Push) && report.failure.is_none() {
        match pull(server, &mut uploader) {
            Ok(pulled) => report.pulled = Some(pulled),
            Err(error @ Error::Server(_)) => report.failure = Some(error),
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

fn nothing_done() -> SyncReport {
    SyncReport {
        uploaded: 0,
        requests: 0,
        rejected: 0,
        remaining: 0,
        created_collection: false,
        pulled: None,
        failure: None,
    }
}

fn run(store: &mut Store, server: &Server, uploader: &mut Uploader) -> Result<SyncReport> {
    let mut report = nothing_done();
    uploader.begin();
    let mut prepared = false;
    loop {
        let (mut queue, mut network) = (&mut *store, server);
        let step = if prepared {
            uploader.step(&mut queue, &mut network, None)?
        } else {
            uploader.prepare(&mut queue, &mut network, true)?
        };
        match step {
            Step::Done => break,
            Step::Collection { created } => {
                prepared = true;
                report.created_collection |= created;
            }
            Step::Uploaded { operations } => {
                report.uploaded += u64::from(operations);
                report.requests += 1;
            }
            Step::Rejected { .. } => report.rejected += 1,
            Step::Again => {}
            Step::Wait { after, failure } => {
                if uploader.gives_up(after) {
                    report.failure = Some(server_error(failure));
                    break;
                }
                thread::sleep(after);
            }
            Step::Stop(failure) => {
                report.failure = Some(server_error(failure));
                break;
            }
        }
    }
    if report.requests > 0 {
        let (mut queue, mut network) = (&mut *store, server);
        uploader.conclude(&mut queue, &mut network)?;
    }
    report.remaining = queue::status(store)?.queued;
    Ok(report)
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
    force: bool,
    options: Options,
) -> Result<Opened> {
    let defaults = Upload::default();
    let mut uploader = uploader(
        server,
        &SyncOptions {
            operations: defaults.limits.operations,
            bytes: defaults.limits.bytes,
            most_operations: defaults.most_operations,
            attempts: RESTORE_ATTEMPTS,
            patience_ms: u64::try_from(defaults.patience.as_millis()).unwrap_or(u64::MAX),
            rebind: false,
            resend: false,
            direction: Direction::Push,
            create_shard_key: false,
        },
    )?;
    let before = instance::with_any_store(|store| {
        Ok((
            standing_of(queue::standing(store)?),
            store.shard()?.info()?.points,
        ))
    })?;
    let standing = before.as_ref().map(|(standing, _)| standing);
    let binding = check(&mut uploader, server, standing, force)?;
    let mut barrier = 0;
    if before.is_some() {
        barrier = instance::with_store(|store| {
            uploader.accept(&mut &mut *store, &binding)?;
            let report = run(store, server, &mut uploader)?;
            match report.failure {
                Some(failure) => Err(failure),
                None => Ok(store.current().acknowledged),
            }
        })?;
    }
    let wanted = match source {
        SnapshotSource::Stream => Wanted::Everything,
        SnapshotSource::Stored => Wanted::Stored,
    };
    let kept = before.filter(|_| !force).map(|(_, points)| points);
    let source = Source::new(server, barrier, binding)?;
    let fetched = fetch(&directory, &source, wanted, kept, options)?;
    fetched.opened.ok_or(Error::Internal(
        "nothing is new where everything was asked for".to_owned(),
    ))
}

/// Brings the open shard to what the server holds; see `sync.sync`.
fn pull(server: &Server, uploader: &mut Uploader) -> Result<PullReport> {
    let (standing, directory, options, points_before, barrier) = instance::with_store(|store| {
        Ok((
            standing_of(queue::standing(store)?),
            store.directory().clone(),
            *store.options(),
            store.shard()?.info()?.points,
            store.current().acknowledged,
        ))
    })?;
    let binding = check(uploader, server, Some(&standing), false)?;
    instance::with_store(|store| uploader.accept(&mut &mut *store, &binding))?;
    let source = Source::new(server, barrier, binding)?;
    // What is gone from a collection that is known to have gone on was deleted there.
    let kept = (!uploader.is_proven()).then_some(points_before);
    let fetched = fetch(&directory, &source, Wanted::Changes, kept, options)?;
    Ok(PullReport {
        changed: fetched.opened.is_some(),
        points_before,
        points: instance::with_store(|store| Ok(store.shard()?.info()?.points))?,
        bytes: fetched.bytes,
        shards: fetched.shards,
        peer: fetched.peer,
        elsewhere: fetched.elsewhere,
        pulled: fetched.pulled,
        reasons: fetched.reasons,
        unsettled: fetched.unsettled.map(str::to_owned),
        notes: fetched
            .opened
            .map(|opened| opened.notes)
            .unwrap_or_default(),
    })
}

/// Whether the collection may be restored from; tried again while failures are passing ones.
fn check(
    uploader: &mut Uploader,
    server: &Server,
    standing: Option<&Standing>,
    force: bool,
) -> Result<Binding> {
    loop {
        match uploader.check_restore(standing, &mut &*server, force)? {
            RestoreCheck::Ready(binding) => return Ok(binding),
            RestoreCheck::Wait { after, failure } => {
                if uploader.gives_up(after) {
                    return Err(server_error(failure));
                }
                thread::sleep(after);
            }
            RestoreCheck::Stop(failure) => {
                if standing.is_some() {
                    instance::with_store(|store| uploader.keep_finding(&mut &mut *store))?;
                }
                return Err(server_error(failure));
            }
        }
    }
}

fn download(download: &mut Downloading) -> Result<DownloadProgress> {
    let mut attempts = attempts();
    loop {
        match download.step() {
            Ok(progress) if progress.done => return Ok(progress),
            Ok(progress) => attempts.progressed(progress.bytes),
            Err(error) => wait(&mut attempts, error)?,
        }
    }
}

fn attempts() -> DownloadAttempts {
    DownloadAttempts::new(
        edge_sync_upload::BackoffOptions::default(),
        RESTORE_ATTEMPTS,
        Upload::default().patience,
        random(),
    )
}

/// Waits before the next attempt, or gives the error back.
fn wait(attempts: &mut DownloadAttempts, error: Error) -> Result<()> {
    let Error::Server(failure) = error else {
        return Err(error);
    };
    match attempts.failed(&judged(&failure)) {
        Some(after) => {
            thread::sleep(after);
            Ok(())
        }
        None => Err(Error::Server(failure)),
    }
}

fn judged(failure: &ServerFailure) -> Failure {
    let class = match failure.class {
        FailureClass::Retry => Class::Retry,
        FailureClass::Unclear => Class::Unclear,
        _ => Class::Stop,
    };
    Failure {
        retry_after: failure.retry_after_ms.map(Duration::from_millis),
        ..Failure::stop(&failure.request, "").with_class(class)
    }
}

/// Asks again while failures are passing ones.
fn persist<T>(mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let mut attempts = attempts();
    loop {
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => wait(&mut attempts, error)?,
        }
    }
}

/// Waits for the server's optimizer, but not for ever.
fn settle(server: &Server) -> Result<OptimizerState> {
    let mut waited = Duration::ZERO;
    loop {
        let state = persist(|| server.optimizer())?;
        let patience = match (state.running, state.queued) {
            (true, _) => SETTLE,
            (false, true) => SETTLE_QUEUED,
            (false, false) => return Ok(state),
        };
        if waited >= patience {
            return Ok(state);
        }
        thread::sleep(SETTLE_LOOK);
        waited += SETTLE_LOOK;
    }
}

/// What is asked of the server.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    /// A stored snapshot of everything.
    Stored,
    /// Everything, with manifests, so that a pull can follow.
    Everything,
    /// What changed.
    Changes,
}

/// Where a new generation comes from.
struct Source<'a> {
    server: &'a Server,
    barrier: u64,
    /// Operations above the barrier.
    above: u64,
    binding: Binding,
}

impl<'a> Source<'a> {
    fn new(server: &'a Server, barrier: u64, binding: Binding) -> Result<Self> {
        Ok(Self {
            server,
            barrier,
            above: instance::with_any_store(|store| Ok(store.log().last()))?
                .map_or(0, |last| last.saturating_sub(barrier)),
            binding,
        })
    }
}

/// What came of asking the server.
struct Fetched {
    /// None: nothing is new.
    opened: Option<Opened>,
    bytes: u64,
    shards: Vec<SourceShard>,
    peer: Option<u64>,
    elsewhere: u64,
    pulled: Option<Pulled>,
    reasons: Vec<String>,
    unsettled: Option<&'static str>,
}

/// Asks the server, and puts what it sends in force. A shard that was open is open again afterwards,
/// whatever happened. `kept`: points that the shard holds, if losing many of them is to be refused.
fn fetch(
    directory: &Directory,
    source: &Source<'_>,
    wanted: Wanted,
    kept: Option<u64>,
    options: Options,
) -> Result<Fetched> {
    let fetched = fetch_generation(directory, source, wanted, kept, options);
    let cleared = directory.clear_staging();
    let fetched = fetched.inspect_err(|_| reopen(directory, options))?;
    cleared?;
    Ok(fetched)
}

/// Opens the shard again if it was closed for what failed.
fn reopen(directory: &Directory, options: Options) {
    // Best effort: without a shard in the directory there is nothing to open again.
    let reopened = instance::open_with(|| Store::open(directory.clone(), options));
    if let Err(error) = reopened
        && !matches!(error, Error::NotFound(_) | Error::AlreadyOpen)
    {
        eprintln!(
            "edge-sync: the shard could not be opened again: {}",
            describe(&error)
        );
    }
}

fn fetch_generation(
    directory: &Directory,
    source: &Source<'_>,
    wanted: Wanted,
    kept: Option<u64>,
    options: Options,
) -> Result<Fetched> {
    let placement = persist(|| source.server.placement())?;
    let fetching = Fetching {
        directory,
        source,
        kept: kept.map(|held| (held, source.above)),
        options,
        deleted: Vec::new(),
        fetched: Fetched {
            opened: None,
            bytes: 0,
            shards: placement
                .shards
                .iter()
                .map(|placed| SourceShard {
                    shard: placed.shard,
                    shard_key: placed.shard_key.clone(),
                })
                .collect(),
            peer: placement.peer,
            elsewhere: 0,
            pulled: None,
            reasons: Vec::new(),
            unsettled: None,
        },
    };
    if placement.among_others {
        return fetching.points(&placement, wanted);
    }
    fetching.shards(&placement, wanted)
}

impl Source<'_> {
    /// What the server says of a shard that it does not send: perhaps where it is.
    fn explain(&self, error: Error) -> Error {
        match &error {
            Error::Server(failure)
                if failure.class == FailureClass::Stop
                    && matches!(failure.status, Some(400 | 404)) =>
            {
                match self.server.placement() {
                    Err(Error::Server(placed)) if placed.class == FailureClass::Stop => {
                        Error::Server(placed)
                    }
                    _ => error,
                }
            }
            _ => error,
        }
    }
}

/// A download in the instance, and what came of it so far.
struct Fetching<'a> {
    directory: &'a Directory,
    source: &'a Source<'a>,
    /// Points that the shard holds and operations above the barrier, if losing many points is to be
    /// refused.
    kept: Option<(u64, u64)>,
    options: Options,
    /// What this device deleted, as far as it knows, where that may be back.
    deleted: Vec<PointId>,
    fetched: Fetched,
}

/// The answer for one shard.
struct Arrived {
    /// What it was asked with.
    manifest: String,
    content: Content,
}

impl Fetching<'_> {
    fn shards(mut self, placement: &Placement, wanted: Wanted) -> Result<Fetched> {
        let Source {
            server, barrier, ..
        } = *self.source;
        let target = server.target();
        let origins: Vec<Origin> = placement
            .shards
            .iter()
            .map(|placed| Origin {
                url: target.url.clone(),
                collection: target.collection.clone(),
                shard: placed.shard,
                shard_key: placed.shard_key.clone(),
            })
            .collect();
        let files = origins
            .iter()
            .map(|origin| download_path(self.directory, origin.shard))
            .collect::<Result<Vec<_>>>()?;
        let mut stored = wanted == Wanted::Stored;
        let everything = wanted != Wanted::Changes;
        let mut pull = Pull::begin(self.directory.clone(), origins, everything)?;
        self.fetched.reasons = doubts(&pull);
        let mut arrived: Vec<Option<Arrived>> = files.iter().map(|_| None).collect();
        loop {
            let before = settle(server)?;
            for (((offer, placed), file), arrived) in pull
                .offers()
                .into_iter()
                .zip(&placement.shards)
                .zip(&files)
                .zip(&mut arrived)
            {
                let is_there = |it: &Arrived| stored || it.manifest == offer.manifest;
                if arrived.as_ref().is_some_and(is_there) {
                    continue;
                }
                let (server, shard, file) = (server.clone(), placed.shard, file.clone());
                let mut running = Downloading::Snapshot(if stored {
                    Download::start(server, shard, SnapshotSource::Stored, file)?
                } else {
                    Download::partial(server, shard, offer.manifest.clone(), file)?
                });
                let downloaded = download(&mut running);
                drop(running);
                let downloaded = downloaded.map_err(|error| self.source.explain(error))?;
                self.fetched.bytes += downloaded.bytes;
                *arrived = Some(Arrived {
                    manifest: offer.manifest,
                    content: downloaded.content,
                });
            }
            let after = persist(|| server.optimizer())?;
            self.fetched.unsettled =
                unsettled(&before, &after).or(placement.moving.then_some(MOVING));
            let contents: Vec<Content> = arrived.iter().flatten().map(|it| it.content).collect();
            let is_any = |content: Content| contents.contains(&content);
            if !is_any(Content::Snapshot) && !is_any(Content::Partial) {
                let offers = pull.offers();
                if offers.iter().any(|offer| !offer.whole) {
                    return Err(Error::BadSnapshot(
                        "the server says that nothing is new, and was not asked with everything"
                            .to_owned(),
                    ));
                }
                // What an optimization hid while an earlier snapshot was taken shows in the manifest
                // once it has ended.
                if self.fetched.unsettled.is_none()
                    && let Err(error) = pull.settle()
                {
                    eprintln!(
                        "edge-sync: the mirrors could not be marked as settled: {}",
                        describe(&error)
                    );
                }
                return Ok(self.fetched);
            }
            if is_any(Content::Snapshot) && contents.iter().any(|it| *it != Content::Snapshot) {
                // Parts and wholes do not go together.
                stored = true;
                arrived = files.iter().map(|_| None).collect();
                continue;
            }
            let whole = is_any(Content::Snapshot);
            // A history that goes on is followed, whatever was deleted in it.
            self.kept = self.kept.filter(|_| whole || pull.starts_over());
            let held = self.held_before()?;
            if self.fetched.unsettled.is_some() {
                self.deleted = self.deleted_before()?;
            }
            // One memory cannot hold two generations of any size.
            close_old();
            let staged = if whole {
                Some(Staging::stage(
                    self.directory.clone(),
                    &files,
                    barrier,
                    self.options,
                )?)
            } else {
                let snapshots: Vec<Option<PathBuf>> = files
                    .iter()
                    .zip(&contents)
                    .map(|(file, content)| (*content == Content::Partial).then(|| file.clone()))
                    .collect();
                let settled = self.fetched.unsettled.is_none();
                pull.stage(&snapshots, barrier, settled, self.options)?
            };
            match staged {
                Some((staging, staged)) => return self.finish(staging, &staged, &held),
                None => self.fetched.reasons = doubts(&pull),
            }
        }
    }

    /// A tenant's points, from among those of others.
    fn points(mut self, placement: &Placement, wanted: Wanted) -> Result<Fetched> {
        let Source {
            server, barrier, ..
        } = *self.source;
        let file = download_path(self.directory, 0)?;
        let mut running = Downloading::Points(PointsDownload::start(server.clone(), file.clone())?);
        let downloaded = download(&mut running);
        drop(running);
        self.fetched.bytes = downloaded?.bytes;
        if persist(|| server.placement())?.among_others != placement.among_others {
            self.fetched.unsettled = Some(PROMOTED);
        } else if placement.moving {
            self.fetched.unsettled = Some(MOVING);
        }
        let is_same = || {
            instance::with_store(|store| {
                let found = PointsFile::open(&file)?.compare(store.shard()?)?;
                Ok(found.added + found.changed + found.removed == 0)
            })
        };
        if wanted == Wanted::Changes && is_same()? {
            return Ok(self.fetched);
        }
        // The collection was found to be the one that is bound: what is not there was deleted.
        self.kept = None;
        if self.fetched.unsettled.is_some() {
            self.deleted = self.deleted_before()?;
        }
        close_old();
        let (staging, staged) =
            Staging::stage_points(self.directory.clone(), &file, barrier, self.options)?;
        self.finish(staging, &staged, &[])
    }

    /// The points of the open shard, where those of other shards are to be told.
    fn held_before(&self) -> Result<Vec<PointId>> {
        let routing = &self.source.server.target().routing;
        if routing.shard().is_none() {
            return Ok(Vec::new());
        }
        let held = instance::with_any_store(|store| restore::all_points(store))?;
        Ok(held.unwrap_or_default())
    }

    /// What this device has deleted, as the open shard's log has it.
    fn deleted_before(&self) -> Result<Vec<PointId>> {
        let until = self.source.barrier;
        let deleted = instance::with_any_store(|store| restore::deleted_here(store, until))?;
        Ok(deleted.unwrap_or_default())
    }

    fn finish(mut self, staging: Staging, staged: &Staged, held: &[PointId]) -> Result<Fetched> {
        let lacking = staging.lacking(held)?;
        if !lacking.is_empty() {
            let absent = persist(|| self.source.server.absent(&lacking))?;
            self.fetched.elsewhere = (lacking.len() - absent.len()) as u64;
            // What the server has is not lost.
            let elsewhere = self.fetched.elsewhere;
            self.kept = self
                .kept
                .map(|(held, above)| (held.saturating_sub(elsewhere), above));
        }
        self.fetched.pulled = staged.pulled;
        let repaired = self.fetched.unsettled.map(|why| Unsettled {
            server: self.source.server,
            deleted: &self.deleted,
            why,
        });
        let mut notes = repair(&staging, staged, repaired)?;
        if self.fetched.elsewhere > 0 {
            notes.push(format!(
                "{} points are in other shards of the collection, and not here any more",
                self.fetched.elsewhere
            ));
        }
        let binding = Some(&self.source.binding);
        self.fetched.opened = Some(promote(staging, staged, self.kept, binding, notes)?);
        Ok(self.fetched)
    }
}

fn doubts(pull: &Pull) -> Vec<String> {
    let offers = pull.offers().into_iter();
    offers.flat_map(|offer| offer.doubts).collect()
}

/// Why what came may not be what the server holds.
const MOVING: &str = "shards were being moved on the server meanwhile";
const PROMOTED: &str = "the tenant got a shard key of its own meanwhile";

fn close_old() {
    match instance::close() {
        // What it could not flush is in the log, which is replayed onto the new generation.
        Ok(_) | Err(Error::NotOpen) => {}
        Err(error) => eprintln!(
            "edge-sync: the old generation was not flushed: {}",
            describe(&error)
        ),
    }
}

/// A snapshot that may not be what the server held.
struct Unsettled<'a> {
    server: &'a Server,
    /// What this device deleted, and the snapshot may hold all the same.
    deleted: &'a [PointId],
    why: &'static str,
}

/// What a person should know of the repairs of a snapshot; deletes again what the server says it
/// does not hold.
fn repair(
    staging: &Staging,
    staged: &Staged,
    unsettled: Option<Unsettled<'_>>,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if staged.duplicates_removed > 0 {
        notes.push(format!(
            "{} old copies of points were removed",
            staged.duplicates_removed
        ));
    }
    let Some(Unsettled {
        server,
        deleted,
        why,
    }) = unsettled
    else {
        return Ok(notes);
    };
    let mut note = format!("unsettled: {why}; another pull later gets what the server holds");
    let alive = staging.held(deleted)?;
    if !alive.is_empty() {
        match persist(|| server.absent(&alive)) {
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

/// Puts a staged generation in force, unless it would lack many of the `kept` points. With them: how
/// many operations of the log come on top.
fn promote(
    staging: Staging,
    staged: &Staged,
    kept: Option<(u64, u64)>,
    binding: Option<&Binding>,
    notes: Vec<String>,
) -> Result<Opened> {
    if let Some((held, above)) = kept
        && !keeps_enough(held, staged.points, above)
    {
        return Err(invalid(
            "force",
            format!(
                "the snapshot has {} points and the shard {held}; a restore would drop the \
                 difference. If that is meant, force it",
                staged.points
            ),
        ));
    }
    let mut opened = instance::open_with(|| staging.promote(binding))?;
    opened.notes.extend(notes);
    Ok(opened)
}

/// Points of the shard in the directory, which is open then; none if there is no shard.
fn points_held(directory: &Directory, options: Options) -> Result<Option<u64>> {
    let points = || instance::with_any_store(|store| Ok(store.shard()?.info()?.points));
    if let Some(held) = points()? {
        return Ok(Some(held));
    }
    match instance::open_with(|| Store::open(directory.clone(), options)) {
        Ok(_) => points(),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Restores from a local file; see `sync.restore-file`. A shard that was open is open again
/// afterwards, whatever happened.
pub fn restore_file(
    directory: Directory,
    snapshot: &Path,
    force: bool,
    options: Options,
) -> Result<Opened> {
    let kept = match force {
        true => None,
        false => points_held(&directory, options)?,
    };
    close_old();
    let restored = || {
        // What waits for upload is not on the server, so it cannot be in its snapshot.
        let barrier = match load_current(&directory) {
            Ok(current) => current.acknowledged,
            Err(Error::NotFound(_)) => 0,
            Err(error) => return Err(error),
        };
        let snapshots = [snapshot.to_owned()];
        let (staging, staged) = Staging::stage(directory.clone(), &snapshots, barrier, options)?;
        let notes = repair(&staging, &staged, None)?;
        let kept = kept.map(|held| (held, staged.replayed));
        promote(staging, &staged, kept, None, notes)
    };
    restored().inspect_err(|_| reopen(&directory, options))
}
