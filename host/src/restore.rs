//! Restoring from a snapshot while the shard goes on serving.
//!
//! 1. The collection is looked at: unless forced, it must be the one that is bound. Then everything
//!    up to a barrier, the last operation logged so far, is uploaded; later uploads are held back, so
//!    that the log keeps what the snapshot may lack.
//! 2. The server's optimizer is waited for, within bounds, and the courier downloads the snapshot to
//!    the staging folder. Whether an optimization ran meanwhile is known from the state before and
//!    after.
//! 3. A fresh instance unpacks it into a new generation, checks it, makes one point of those that it
//!    holds several times, and replays the log after the barrier onto it. If an optimization ran,
//!    points that this device had deleted may be in it again: those that the server says it does not
//!    hold are deleted. A second instance, because linear memory never shrinks and ends at 4 GiB.
//!    Unless forced, a generation that would lack many of the shard's points is given up.
//! 4. In one job on the shard's actor, so that callers wait and none fails: the old instance
//!    closes the shard, the new one replays the rest and switches generations with one rename.
//!
//! Until the rename, any failure leaves the old generation in force.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edge_sync_upload::{
    Binding, Class, DownloadAttempts, Failure, RestoreCheck, Uploader, keeps_enough,
};
use wasmtime::Store;

use crate::actor::Actor;
use crate::background;
use crate::bindings::exports::edge_sync::shard::courier::{
    Content, DownloadProgress, OptimizerState, Placement,
};
use crate::bindings::exports::edge_sync::shard::restore::{
    Offer, Origin, PlannedOptimization, PullOutcome, Staged,
};
use crate::bindings::exports::edge_sync::shard::types::Error as GuestError;
use crate::cancel::Cancel;
use crate::courier::Courier;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::instance::Instance;
use crate::progress::RestoreProgress;
use crate::reports::{RestoreReport, SourceShard};
use crate::shard::Shard;
use crate::shard_options::ShardOptions;
use crate::shard_state::GUEST_DATA;
use crate::sync::{SyncOptions, server_error, standing, wit_binding};
use crate::types::{FailureClass, PointId, ScrollRequest, Selection, SnapshotSource};

/// Name of the staging folder in the data directory.
const STAGING: &str = "staging";

/// Name of the snapshot in the staging folder.
const SNAPSHOT: &str = "restore.snapshot";

/// The same, where a file of the user's has that name.
const OTHER_SNAPSHOT: &str = "restore-copy.snapshot";

/// What the component keeps in the staging folder: the snapshots that a server is still to delete.
const LEDGER: &str = "snapshots-on-server.json";

/// How often the server's optimizer is looked at while it is waited for.
const SETTLE_LOOK: Duration = Duration::from_secs(1);

/// How often a balancer is asked for another peer.
const PEERS_ASKED: u32 = 8;

/// How long an optimization is waited for that the server would begin: it may be set to begin none.
const SETTLE_QUEUED: Duration = Duration::from_secs(3);

/// Points of a page while all are listed.
const SCROLLED: u32 = 10_000;

/// Where the snapshot comes from.
#[derive(Clone, Debug)]
pub enum RestoreSource {
    /// The server.
    Server(SnapshotSource),
    /// A shard snapshot file. It is read, not moved.
    File(PathBuf),
}

/// Runs the restore. Uploads by others must be held back by the caller. Unless `force`, the
/// collection must be the one that the shard was synced with, and the snapshot must hold most of the
/// points.
pub(crate) fn restore(
    shard: &Shard,
    mut server: Option<(&Courier, &mut Uploader)>,
    source: &RestoreSource,
    force: bool,
    options: &SyncOptions,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
) -> Result<RestoreReport> {
    let present = shard.is_present()?;
    let held = if present { shard.info()?.points } else { 0 };
    let mut uploaded = 0;
    let mut from_collection = None;
    let staging = Staging::clear(shard.directory(), source)?;
    let generation = match source {
        RestoreSource::Server(from) => {
            let (courier, uploader) = server.as_mut().ok_or(Error::Setting {
                name: "url",
                message: "a restore from the server needs one".to_owned(),
            })?;
            let binding = check(shard, present, courier, uploader, force, cancel, progress)?;
            let barrier = if present {
                shard.queue_status()?.logged
            } else {
                0
            };
            if present {
                let mut queue = shard;
                uploader.accept(&mut queue, &binding)?;
            }
            if present && shard.queue_status()?.queued > 0 {
                let report = crate::sync::run(
                    uploader,
                    shard,
                    courier,
                    Some(barrier),
                    cancel,
                    &mut |step| progress(RestoreProgress::Uploading(step)),
                )?;
                if let Some(failure) = report.failure {
                    return Err(failure);
                }
                uploaded = report.uploaded;
            }
            from_collection = Some(uploader.binding().clone());
            let wanted = match from {
                SnapshotSource::Stream => Wanted::Everything,
                SnapshotSource::Stored => Wanted::Stored,
            };
            let exchange = Exchange {
                shard,
                courier,
                options,
                cancel,
            };
            match exchange.fetch(&staging, wanted, barrier, progress)? {
                Fetched::NothingNew { .. } => {
                    return Err(Error::BadSnapshot(
                        "the server says that nothing is new, though everything was asked for"
                            .to_owned(),
                    ));
                }
                Fetched::Staged(generation) => *generation,
            }
        }
        RestoreSource::File(file) => {
            let barrier = if present {
                shard.queue_status()?.acknowledged
            } else {
                0
            };
            let bytes = staging.take(file, cancel, progress)?;
            cancel.check()?;
            progress(RestoreProgress::Staging);
            let stager = Stager::start(shard)?;
            let staged = stager.stage(vec![in_staging(staging.name)], barrier)?;
            // Its bytes are in the new generation now; the switch may need the room.
            staging.remove(staging.name);
            Generation {
                elsewhere: 0,
                from: Provenance::default(),
                staged,
                stager,
                bytes,
                deletes_applied: 0,
                unsettled: None,
                started_over: true,
                reasons: Vec::new(),
            }
        }
    };
    if cancel.is_cancelled() {
        generation.stager.abandon();
        return Err(Error::Cancelled);
    }
    let above = generation.staged.replayed;
    if !force && let Some(refused) = generation.would_drop(held, above) {
        generation.stager.abandon();
        return Err(refused);
    }

    progress(RestoreProgress::Switching);
    let points = generation.points();
    let binding = from_collection.map(|binding| Binding { points, ..binding });
    let Generation {
        staged,
        stager,
        bytes,
        deletes_applied,
        unsettled,
        elsewhere,
        from,
        ..
    } = generation;
    let opened = shard.promote(stager.into_inner()?, binding.as_ref().map(wit_binding))?;
    if let (Some((_, uploader)), Some(binding)) = (server, binding) {
        uploader.restored(&binding);
    }
    Ok(RestoreReport {
        opened,
        points,
        replayed: staged.replayed,
        snapshot_bytes: bytes,
        uploaded,
        duplicates_removed: staged.duplicates_removed,
        deletes_applied,
        shards: from.shards,
        peer: from.peer,
        elsewhere,
        unsettled,
    })
}

/// What is asked of the server.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Wanted {
    /// A stored snapshot of everything.
    Stored,
    /// Everything, with manifests, so that a pull can follow.
    Everything,
    /// What changed since the mirror.
    Changes,
}

/// What came of asking.
pub(crate) enum Fetched {
    /// The server holds what the mirror holds.
    NothingNew {
        /// Why that may not be what the server should hold.
        unsettled: Option<String>,
        /// Who said so.
        from: Provenance,
    },
    /// A generation that is complete but not in force.
    Staged(Box<Generation>),
}

/// The answer for one shard.
struct Arrived {
    /// What it was asked with.
    manifest: String,
    content: Content,
}

/// The shards that something came from, and the peer that sent them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Provenance {
    pub(crate) shards: Vec<SourceShard>,
    pub(crate) peer: Option<u64>,
}

impl Provenance {
    fn of(placement: &Placement) -> Provenance {
        let shards = placement.shards.iter();
        Provenance {
            shards: shards
                .map(|placed| SourceShard {
                    shard: placed.shard,
                    shard_key: placed.shard_key.clone(),
                })
                .collect(),
            peer: placement.peer,
        }
    }
}

/// A staged generation, and what is known of it.
pub(crate) struct Generation {
    pub(crate) staged: Staged,
    pub(crate) stager: Stager,
    /// Bytes that were downloaded for it.
    pub(crate) bytes: u64,
    pub(crate) deletes_applied: u64,
    pub(crate) unsettled: Option<String>,
    /// Points that are in shards of the collection that the device does not follow.
    pub(crate) elsewhere: u64,
    pub(crate) from: Provenance,
    /// It does not go on from the mirror, so that what it lacks may be a mistake.
    started_over: bool,
    /// Why more was fetched than changed.
    pub(crate) reasons: Vec<String>,
}

impl Generation {
    /// Points in it, but for what was replayed.
    pub(crate) fn points(&self) -> u64 {
        self.staged.points.saturating_sub(self.deletes_applied)
    }

    /// The refusal to put it in the place of a shard that holds `held` points, if there is a reason.
    /// `above`: operations of the log that are applied onto it.
    pub(crate) fn would_drop(&self, held: u64, above: u64) -> Option<Error> {
        let points = self.points();
        // What the server has is not lost.
        let enough = keeps_enough(held.saturating_sub(self.elsewhere), points, above);
        (self.started_over && !enough).then_some(Error::WouldDrop {
            held,
            snapshot: points,
        })
    }
}

/// With whom and how a generation is fetched.
pub(crate) struct Exchange<'a> {
    pub(crate) shard: &'a Shard,
    pub(crate) courier: &'a Courier,
    pub(crate) options: &'a SyncOptions,
    pub(crate) cancel: &'a Cancel,
}

impl Exchange<'_> {
    /// Downloads and stages. What the server's answers put in doubt is asked for again, at most
    /// until everything was.
    pub(crate) fn fetch(
        &self,
        staging: &Staging,
        wanted: Wanted,
        barrier: u64,
        progress: &mut dyn FnMut(RestoreProgress<'_>),
    ) -> Result<Fetched> {
        let placement = self.locate(wanted, progress)?;
        let fetched = if placement.among_others {
            self.fetch_points(staging, &placement, wanted, barrier, progress)
        } else {
            self.fetch_shards(staging, &placement, wanted, barrier, progress)
        };
        if fetched.is_ok() {
            self.courier.follow_peer(placement.peer);
        }
        fetched
    }

    /// Where to download from. Only the peer that sent what is here can say what changed since, so
    /// that a balancer is asked for that peer, a few times.
    fn locate(
        &self,
        wanted: Wanted,
        progress: &mut dyn FnMut(RestoreProgress<'_>),
    ) -> Result<Placement> {
        let known = self
            .courier
            .known_peer()
            .filter(|_| wanted == Wanted::Changes);
        let is_known = |located: &Result<Placement>| match (located, known) {
            (Ok(placement), Some(known)) => placement.peer.is_none_or(|peer| peer == known),
            // The peer that answered does not have the shard.
            (Err(Error::Server(failure)), Some(_)) => failure.class != FailureClass::Stop,
            _ => true,
        };
        let mut ask = || {
            let ask = || self.courier.locate();
            persist(self.options, self.cancel, progress, ask)
        };
        let mut located = ask();
        for _ in 0..PEERS_ASKED {
            if is_known(&located) {
                break;
            }
            self.courier.reconnect();
            located = ask();
        }
        located
    }

    fn fetch_shards(
        &self,
        staging: &Staging,
        placement: &Placement,
        wanted: Wanted,
        barrier: u64,
        progress: &mut dyn FnMut(RestoreProgress<'_>),
    ) -> Result<Fetched> {
        let Exchange {
            shard,
            courier,
            options,
            cancel,
        } = self;
        let target = courier.target();
        let origins = placement.shards.iter().map(|placed| Origin {
            url: target.url.clone(),
            collection: target.collection.clone(),
            shard: placed.shard,
            shard_key: placed.shard_key.clone(),
        });
        let names: Vec<String> = placement
            .shards
            .iter()
            .map(|placed| format!("shard-{}.snapshot", placed.shard))
            .collect();
        let mut stored = wanted == Wanted::Stored;
        let stager = Stager::start(shard)?;
        let mut offers = stager.begin_pull(origins.collect(), wanted != Wanted::Changes)?;
        let mut reasons = doubts(&offers);
        let mut arrived: Vec<Option<Arrived>> = names.iter().map(|_| None).collect();
        let mut bytes = 0;
        loop {
            let before = settle(courier, options, cancel, progress)?;
            for (((offer, placed), name), arrived) in (offers.iter().zip(&placement.shards))
                .zip(&names)
                .zip(&mut arrived)
            {
                let is_there = |it: &Arrived| stored || it.manifest == offer.manifest;
                if arrived.as_ref().is_some_and(is_there) {
                    continue;
                }
                let asked = match stored {
                    true => Asked::Stored(placed.shard),
                    false => Asked::Partial(placed.shard, &offer.manifest),
                };
                let downloaded = download(courier, asked, name, options, cancel, progress)
                    .map_err(|error| self.explain(error))?;
                bytes += downloaded.bytes;
                *arrived = Some(Arrived {
                    manifest: offer.manifest.clone(),
                    content: downloaded.content,
                });
            }
            let unsettled = self.unsettled(&before, placement, progress)?;
            let contents: Vec<Content> = arrived.iter().flatten().map(|it| it.content).collect();
            let is_any = |content: Content| contents.contains(&content);
            if !is_any(Content::Snapshot) && !is_any(Content::Partial) {
                if offers.iter().any(|offer| !offer.whole) {
                    return Err(Error::BadSnapshot(
                        "the server says that nothing is new, and was not asked with all that is \
                         here"
                            .to_owned(),
                    ));
                }
                // What an optimization hid while an earlier snapshot was taken shows in the manifest
                // once it has ended.
                if unsettled.is_none()
                    && let Err(error) = stager.settle()
                {
                    tracing::warn!("the mirrors could not be marked as settled: {error}");
                }
                return Ok(Fetched::NothingNew {
                    unsettled,
                    from: Provenance::of(placement),
                });
            }
            if is_any(Content::Snapshot) && contents.iter().any(|it| *it != Content::Snapshot) {
                // Parts and wholes do not go together.
                stored = true;
                arrived = names.iter().map(|_| None).collect();
                continue;
            }
            cancel.check()?;

            progress(RestoreProgress::Staging);
            let whole = is_any(Content::Snapshot);
            let staged = if whole {
                stager.stage(names.iter().map(|name| in_staging(name)).collect(), barrier)?
            } else {
                let snapshots = names
                    .iter()
                    .zip(&contents)
                    .map(|(name, content)| (*content == Content::Partial).then(|| in_staging(name)))
                    .collect();
                match stager.stage_pull(snapshots, barrier, unsettled.is_none())? {
                    PullOutcome::Staged(staged) => staged,
                    PullOutcome::Again(narrower) => {
                        reasons = doubts(&narrower);
                        offers = narrower;
                        continue;
                    }
                }
            };
            // Their bytes are in the new generation now; the switch may need the room.
            for name in &names {
                staging.remove(name);
            }
            let starts_over = whole || offers.iter().any(|offer| offer.manifest.trim() == "{}");
            let mut generation = Generation {
                staged,
                stager,
                bytes,
                deletes_applied: 0,
                unsettled,
                started_over: starts_over,
                elsewhere: 0,
                from: Provenance::of(placement),
                reasons,
            };
            self.count_elsewhere(&mut generation, progress)?;
            self.delete_again(&mut generation, barrier, progress)?;
            return Ok(Fetched::Staged(Box::new(generation)));
        }
    }

    /// A tenant's points, from among those of others.
    fn fetch_points(
        &self,
        staging: &Staging,
        placement: &Placement,
        wanted: Wanted,
        barrier: u64,
        progress: &mut dyn FnMut(RestoreProgress<'_>),
    ) -> Result<Fetched> {
        let Exchange {
            shard,
            courier,
            options,
            cancel,
        } = self;
        let name = "points.jsonl";
        let downloaded = download(courier, Asked::Points, name, options, cancel, progress)?;
        let now = persist(options, cancel, progress, || courier.locate())?;
        let unsettled = if !now.among_others {
            Some("the tenant got a shard key of its own meanwhile".to_owned())
        } else {
            (placement.moving || now.moving).then(|| MOVING.to_owned())
        };
        cancel.check()?;
        if wanted == Wanted::Changes && shard.is_present()? {
            let found = shard.compare_points(&in_staging(name))?;
            if found.added + found.changed + found.removed == 0 {
                staging.remove(name);
                return Ok(Fetched::NothingNew {
                    unsettled,
                    from: Provenance::of(placement),
                });
            }
        }
        progress(RestoreProgress::Staging);
        let stager = Stager::start(shard)?;
        let staged = stager.stage_points(name, barrier)?;
        staging.remove(name);
        Ok(Fetched::Staged(Box::new(Generation {
            staged,
            stager,
            bytes: downloaded.bytes,
            deletes_applied: 0,
            unsettled,
            // The collection was found to be the one that is bound: what is not there was deleted.
            started_over: false,
            elsewhere: 0,
            from: Provenance::of(placement),
            reasons: Vec::new(),
        })))
    }

    /// Why what was downloaded since `before` may not be what the server held.
    fn unsettled(
        &self,
        before: &OptimizerState,
        placement: &Placement,
        progress: &mut dyn FnMut(RestoreProgress<'_>),
    ) -> Result<Option<String>> {
        let after = persist(self.options, self.cancel, progress, || {
            self.courier.optimizer()
        });
        Ok(match after {
            Ok(after) => {
                unsettled(before, &after).or_else(|| placement.moving.then(|| MOVING.to_owned()))
            }
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => Some(format!(
                "the server did not tell whether its optimizer ran meanwhile: {error}"
            )),
        })
    }

    /// What the server says of a shard that it does not send: perhaps where it is.
    fn explain(&self, error: Error) -> Error {
        match &error {
            Error::Server(failure)
                if failure.class == FailureClass::Stop
                    && matches!(failure.status, Some(400 | 404)) =>
            {
                match self.courier.locate() {
                    Err(Error::Server(placed)) if placed.class == FailureClass::Stop => {
                        Error::Server(placed)
                    }
                    _ => error,
                }
            }
            _ => error,
        }
    }

    /// Ids of all points of the shard.
    fn all_points(&self) -> Result<Vec<PointId>> {
        let mut ids = Vec::new();
        let mut offset = None;
        loop {
            let page = self.shard.scroll(ScrollRequest {
                offset,
                limit: SCROLLED,
                filter: None,
                selection: Selection::none(),
            })?;
            ids.extend(page.points.into_iter().map(|point| point.id));
            match page.next {
                Some(next) => offset = Some(next),
                None => return Ok(ids),
            }
        }
    }

    /// Counts points of this device that are in shards of the collection that it does not follow.
    fn count_elsewhere(
        &self,
        generation: &mut Generation,
        progress: &mut dyn FnMut(RestoreProgress<'_>),
    ) -> Result<()> {
        let one_of_several = self.courier.target().routing.shard().is_some();
        if !one_of_several || !self.shard.is_present()? {
            return Ok(());
        }
        let lacking = generation.stager.lacking(self.all_points()?)?;
        if lacking.is_empty() {
            return Ok(());
        }
        let ask = || self.courier.absent(lacking.clone());
        let absent = persist(self.options, self.cancel, progress, ask)?;
        generation.elsewhere = (lacking.len() - absent.len()) as u64;
        Ok(())
    }

    /// Deletes those points again that this device had deleted, that an unsettled snapshot holds all
    /// the same, and that the server does not hold.
    fn delete_again(
        &self,
        generation: &mut Generation,
        barrier: u64,
        progress: &mut dyn FnMut(RestoreProgress<'_>),
    ) -> Result<()> {
        let Some(why) = &mut generation.unsettled else {
            return Ok(());
        };
        let deleted = if self.shard.is_present()? {
            self.shard.deleted_here(barrier)?
        } else {
            Vec::new()
        };
        if deleted.is_empty() {
            return Ok(());
        }
        let alive = generation.stager.held(deleted)?;
        if alive.is_empty() {
            return Ok(());
        }
        let ask = || self.courier.absent(alive.clone());
        match persist(self.options, self.cancel, progress, ask) {
            Ok(absent) => generation.deletes_applied = generation.stager.delete_again(absent)?,
            Err(error) => why.push_str(&format!(
                "; up to {} points that this device deleted may be back ({error})",
                alive.len()
            )),
        }
        Ok(())
    }
}

/// Why what came may not be what the server holds.
const MOVING: &str = "shards were being moved on the server meanwhile";

fn doubts(offers: &[Offer]) -> Vec<String> {
    offers
        .iter()
        .flat_map(|offer| offer.doubts.clone())
        .collect()
}

/// Whether the collection may be restored from; asked again while failures are passing ones.
pub(crate) fn check(
    shard: &Shard,
    present: bool,
    courier: &Courier,
    uploader: &mut Uploader,
    force: bool,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
) -> Result<Binding> {
    let standing = if present {
        Some(standing(shard.standing()?))
    } else {
        None
    };
    uploader.begin();
    loop {
        cancel.check()?;
        let mut server = courier;
        match uploader.check_restore(standing.as_ref(), &mut server, force)? {
            RestoreCheck::Ready(binding) => return Ok(binding),
            RestoreCheck::Stop(failure) => {
                if present {
                    let mut queue = shard;
                    uploader.keep_finding(&mut queue)?;
                }
                return Err(server_error(failure));
            }
            RestoreCheck::Wait { after, failure } => {
                let failure = server_error(failure);
                if uploader.gives_up(after) {
                    return Err(failure);
                }
                progress(RestoreProgress::Waiting {
                    after,
                    failure: &failure,
                });
                cancel.sleep(after)?;
            }
        }
    }
}

/// Waits until the server's optimizer is at rest, or for as long as the options say.
fn settle(
    courier: &Courier,
    options: &SyncOptions,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
) -> Result<OptimizerState> {
    let started = Instant::now();
    loop {
        let state = persist(options, cancel, progress, || courier.optimizer())?;
        let waited = started.elapsed();
        let limit = match (state.running, state.queued) {
            (true, _) => options.settle,
            (false, true) => options.settle.min(SETTLE_QUEUED),
            (false, false) => return Ok(state),
        };
        if waited >= limit {
            return Ok(state);
        }
        progress(RestoreProgress::Settling { waited, limit });
        cancel.sleep(SETTLE_LOOK.min(limit))?;
    }
}

/// Why a snapshot that was taken between the two states may not be what the server held.
fn unsettled(before: &OptimizerState, after: &OptimizerState) -> Option<String> {
    let why = if before.running || after.running {
        "the server's optimizer ran while the snapshot was taken"
    } else if before.mark != after.mark {
        "an optimization ended on the server while the snapshot was taken"
    } else {
        return None;
    };
    Some(why.to_owned())
}

/// Attempts of one thing, and the waits between them.
struct Attempts<'a> {
    counter: DownloadAttempts,
    cancel: &'a Cancel,
}

impl<'a> Attempts<'a> {
    fn new(options: &SyncOptions, cancel: &'a Cancel) -> Self {
        let counter = DownloadAttempts::new(
            options.backoff.clone(),
            options.attempts,
            options.patience,
            fastrand::u64(..),
        );
        Self { counter, cancel }
    }

    /// Waits before the next attempt. `error`, which the last one failed with, is given back if there
    /// is to be none.
    fn after(&mut self, error: Error, progress: &mut dyn FnMut(RestoreProgress<'_>)) -> Result<()> {
        let after = if error.ends_instance() {
            self.counter.broke(None)
        } else {
            self.counter.failed(&judged(&error))
        };
        let Some(after) = after else {
            return Err(error);
        };
        progress(RestoreProgress::Waiting {
            after,
            failure: &error,
        });
        self.cancel.sleep(after)
    }
}

/// Asks the courier again while it fails in passing.
fn persist<T>(
    options: &SyncOptions,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
    mut ask: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut attempts = Attempts::new(options, cancel);
    loop {
        cancel.check()?;
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => attempts.after(error, progress)?,
        }
    }
}

/// An instance that stages a generation. On an actor of its own, for the stack that guest calls need.
pub(crate) struct Stager {
    actor: Actor<Instance>,
    options: ShardOptions,
}

impl Stager {
    pub(crate) fn start(shard: &Shard) -> Result<Stager> {
        Ok(Stager {
            actor: Actor::spawn("restore", shard.fresh_instance()?)?,
            options: shard.options().clone(),
        })
    }

    /// [`Stager::start`] for work of minutes: what it does waits for the threads that answer.
    pub(crate) fn start_behind(shard: &Shard) -> Result<Stager> {
        let stager = Stager::start(shard)?;
        stager.actor.tell(|_| background::step_back());
        Ok(stager)
    }

    fn call<R: Send + 'static>(
        &self,
        name: &'static str,
        limit: Duration,
        function: impl FnOnce(
            &crate::bindings::exports::edge_sync::shard::restore::Guest,
            &mut Store<Guest>,
        ) -> wasmtime::Result<std::result::Result<R, GuestError>>
        + Send
        + 'static,
    ) -> Result<R> {
        self.actor.call(move |instance| {
            instance.call(name, limit, |guest, store| {
                function(guest.edge_sync_shard_restore(), store)
            })
        })
    }

    fn begin_pull(&self, origins: Vec<Origin>, everything: bool) -> Result<Vec<Offer>> {
        self.call(
            "begin-pull",
            self.options.times.open,
            move |guest, store| guest.call_begin_pull(store, GUEST_DATA, &origins, everything),
        )
    }

    /// `snapshots` are guest paths.
    fn stage(&self, snapshots: Vec<String>, barrier: u64) -> Result<Staged> {
        let options = self.options.for_guest();
        self.call("stage", self.options.times.open, move |guest, store| {
            guest.call_stage(store, GUEST_DATA, &snapshots, barrier, options)
        })
    }

    /// `snapshots` are guest paths.
    fn stage_pull(
        &self,
        snapshots: Vec<Option<String>>,
        barrier: u64,
        settled: bool,
    ) -> Result<PullOutcome> {
        let options = self.options.for_guest();
        self.call(
            "stage-pull",
            self.options.times.open,
            move |guest, store| guest.call_stage_pull(store, &snapshots, barrier, settled, options),
        )
    }

    fn settle(&self) -> Result<()> {
        self.call("settle-pull", self.options.times.write, |guest, store| {
            guest.call_settle_pull(store)
        })
    }

    fn stage_points(&self, name: &str, barrier: u64) -> Result<Staged> {
        let (points, options) = (in_staging(name), self.options.for_guest());
        self.call(
            "stage-points",
            self.options.times.open,
            move |guest, store| {
                guest.call_stage_points(store, GUEST_DATA, &points, barrier, options)
            },
        )
    }

    /// Those of the points that the staged generation does not hold.
    fn lacking(&self, ids: Vec<PointId>) -> Result<Vec<PointId>> {
        self.call("lacking", self.options.times.read, move |guest, store| {
            guest.call_lacking(store, &ids)
        })
    }

    /// Carries out one of the optimizations that are due, in the copy of the shard. `told`: how far it
    /// is.
    pub(crate) fn build_share(
        &self,
        planned: PlannedOptimization,
        cancel: &Cancel,
        told: impl Fn(u64, u64) + Send + 'static,
    ) -> Result<bool> {
        let (limit, options) = (self.options.times.optimize, self.options.for_guest());
        let cancel = cancel.clone();
        self.actor.call(move |instance| {
            instance.on_indexed(Some(Box::new(told)));
            let built = instance.call_or_cancel("build-share", limit, &cancel, |guest, store| {
                guest
                    .edge_sync_shard_restore()
                    .call_build_share(store, GUEST_DATA, &planned, options)
            });
            instance.on_indexed(None);
            built
        })
    }

    /// Optimizes the copy of the shard; none if there was nothing to do. `told`: how far it is.
    pub(crate) fn stage_optimize(
        &self,
        cancel: &Cancel,
        told: impl Fn(u64, u64) + Send + 'static,
    ) -> Result<Option<Staged>> {
        let (limit, options) = (self.options.times.optimize, self.options.for_guest());
        let cancel = cancel.clone();
        self.actor.call(move |instance| {
            instance.on_indexed(Some(Box::new(told)));
            let staged =
                instance.call_or_cancel("stage-optimize", limit, &cancel, |guest, store| {
                    guest
                        .edge_sync_shard_restore()
                        .call_stage_optimize(store, GUEST_DATA, options)
                });
            instance.on_indexed(None);
            staged
        })
    }

    /// Those of the points that the staged generation has from its snapshot.
    fn held(&self, ids: Vec<PointId>) -> Result<Vec<PointId>> {
        self.call("held", self.options.times.read, move |guest, store| {
            guest.call_held(store, &ids)
        })
    }

    /// How many of the points were deleted.
    fn delete_again(&self, ids: Vec<PointId>) -> Result<u64> {
        self.call(
            "delete-again",
            self.options.times.write,
            move |guest, store| guest.call_delete_again(store, &ids),
        )
    }

    /// Gives the staged generation up. What is left behind if that fails is removed at the next
    /// opening.
    pub(crate) fn abandon(self) {
        let limit = self.options.times.write;
        if let Err(error) = self.call("abandon", limit, |guest, store| guest.call_abandon(store)) {
            tracing::warn!("giving up a staged generation: {error}");
        }
    }

    pub(crate) fn into_inner(self) -> Result<Instance> {
        self.actor.into_inner()
    }
}

fn in_staging(name: &str) -> String {
    format!("{GUEST_DATA}/{STAGING}/{name}")
}

/// What a download asks for.
#[derive(Clone, Copy)]
enum Asked<'a> {
    /// A stored snapshot of this shard.
    Stored(u32),
    /// What changed in this shard since this manifest.
    Partial(u32, &'a str),
    /// A tenant's points.
    Points,
}

/// Downloads with attempts. A step after a failure in passing takes a stored snapshot up where it
/// was cut; a streamed one starts over, since the server makes another each time.
fn download(
    courier: &Courier,
    asked: Asked<'_>,
    name: &str,
    options: &SyncOptions,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
) -> Result<DownloadProgress> {
    let mut stored_instead = false;
    let mut attempts = Attempts::new(options, cancel);
    let mut download = None;
    loop {
        cancel.check()?;
        let outcome = match &mut download {
            None => match asked {
                Asked::Partial(shard, manifest) if !stored_instead => {
                    courier.begin_partial(shard, manifest, name, cancel)
                }
                Asked::Partial(shard, _) | Asked::Stored(shard) => {
                    courier.begin_download(shard, SnapshotSource::Stored, name, cancel)
                }
                Asked::Points => courier.begin_points(name, cancel),
            }
            .map(|begun| {
                download = Some(begun);
                None
            }),
            Some(download) => download.step().map(Some),
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(so_far)) => {
                let was_stored = matches!(asked, Asked::Stored(_));
                if so_far.source == SnapshotSource::Stored && !was_stored && !stored_instead {
                    stored_instead = true;
                    progress(RestoreProgress::StoredInstead);
                }
                progress(RestoreProgress::Downloading {
                    bytes: so_far.bytes,
                    total: so_far.total,
                });
                if so_far.done {
                    return Ok(so_far);
                }
                attempts.counter.progressed(so_far.bytes);
            }
            Err(error) => {
                if error.ends_instance() {
                    download = None;
                }
                attempts.after(error, progress)?;
            }
        }
    }
}

/// A failed download, as the counter of attempts takes it.
fn judged(error: &Error) -> Failure {
    let (class, retry_after) = match error {
        Error::Server(failure) => (
            match failure.class {
                FailureClass::Retry => Class::Retry,
                FailureClass::Unclear => Class::Unclear,
                _ => Class::Stop,
            },
            failure.retry_after_ms.map(Duration::from_millis),
        ),
        _ => (Class::Stop, None),
    };
    Failure {
        retry_after,
        ..Failure::stop("GET snapshot", error.to_string()).with_class(class)
    }
}

/// The staging folder, empty at first and emptied in the end, however the restore ends; but for a
/// snapshot of the user's own that lies in it.
pub(crate) struct Staging {
    folder: PathBuf,
    /// What is not removed: the entry of the folder that is, or holds, the user's snapshot.
    kept: Option<PathBuf>,
    /// What the staged snapshot is called in it.
    name: &'static str,
}

impl Staging {
    pub(crate) fn clear(directory: &Path, source: &RestoreSource) -> Result<Staging> {
        let folder = staging_folder(directory)?;
        let kept = match source {
            RestoreSource::File(file) => entry_that_holds(&folder, file),
            RestoreSource::Server(_) => None,
        };
        let is_taken = kept.as_ref() == Some(&folder.join(SNAPSHOT));
        let staging = Staging {
            folder,
            kept,
            name: if is_taken { OTHER_SNAPSHOT } else { SNAPSHOT },
        };
        staging.empty()?;
        Ok(staging)
    }

    fn snapshot(&self) -> PathBuf {
        self.folder.join(self.name)
    }

    fn empty(&self) -> Result<()> {
        let folder = &self.folder;
        let entries =
            std::fs::read_dir(folder).map_err(Error::io("read the staging folder", folder))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("read the staging folder", folder))?;
            let path = entry.path();
            if entry.file_name() == LEDGER || self.kept.as_ref() == Some(&path) {
                continue;
            }
            let is_folder = entry
                .file_type()
                .map_err(Error::io("examine", &path))?
                .is_dir();
            if is_folder {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            }
            .map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// Brings a local file in: a link where the file system can, else a copy. Links cost nothing;
    /// the component only reads it.
    fn take(
        &self,
        file: &Path,
        cancel: &Cancel,
        progress: &mut dyn FnMut(RestoreProgress<'_>),
    ) -> Result<u64> {
        let target = self.snapshot();
        // A link to a symbolic link would be one itself, and lead out of the guest's folder.
        let file = file
            .canonicalize()
            .map_err(Error::io("find the snapshot", file))?;
        let total = match std::fs::metadata(&file) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => {
                return Err(Error::invalid(
                    "snapshot",
                    format!("{} is not a file", file.display()),
                ));
            }
            Err(error) => return Err(Error::io("examine the snapshot", file)(error)),
        };
        if std::fs::hard_link(&file, &target).is_ok() {
            progress(RestoreProgress::Downloading {
                bytes: total,
                total: Some(total),
            });
            return Ok(total);
        }
        copy(&file, &target, total, cancel, progress)
    }

    /// Removes a file that was downloaded or copied, if it is there.
    fn remove(&self, name: &str) {
        if let Err(error) = std::fs::remove_file(self.folder.join(name))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!("the staged file {name} stays for now: {error}");
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = self.empty() {
            tracing::warn!("the staging folder is not clean: {error}");
        }
    }
}

/// The entry of `folder` that is `file`, or a folder that leads to it.
fn entry_that_holds(folder: &Path, file: &Path) -> Option<PathBuf> {
    let (real_folder, real_file) = (folder.canonicalize().ok()?, file.canonicalize().ok()?);
    let below = real_file.strip_prefix(real_folder).ok()?;
    Some(folder.join(below.components().next()?))
}

/// The staging folder of a data directory, made if it is missing.
pub(crate) fn staging_folder(directory: &Path) -> Result<PathBuf> {
    let folder = directory.join(STAGING);
    std::fs::create_dir_all(&folder).map_err(Error::io("create the staging folder", &folder))?;
    Ok(folder)
}

fn copy(
    from: &Path,
    to: &Path,
    total: u64,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
) -> Result<u64> {
    use std::io::{Read, Write};

    let mut source = std::fs::File::open(from).map_err(Error::io("open the snapshot", from))?;
    let mut target = std::fs::File::create(to).map_err(Error::io("create", to))?;
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        cancel.check()?;
        let read = source
            .read(&mut buffer)
            .map_err(Error::io("read the snapshot", from))?;
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
            return Ok(bytes);
        };
        target.write_all(piece).map_err(Error::io("write", to))?;
        bytes += read as u64;
        progress(RestoreProgress::Downloading {
            bytes,
            total: Some(total),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_takes_a_file_and_is_clean_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.snapshot");
        std::fs::write(&file, b"snapshot").unwrap();
        let folder = staging_folder(directory.path()).unwrap();
        std::fs::create_dir(folder.join("left")).unwrap();
        std::fs::write(folder.join("left/over"), b"x").unwrap();

        let source = RestoreSource::File(file.clone());
        let staging = Staging::clear(directory.path(), &source).unwrap();
        assert!(!folder.join("left").exists());
        let bytes = staging.take(&file, &Cancel::new(), &mut |_| {}).unwrap();
        assert_eq!(bytes, 8);
        assert_eq!(std::fs::read(folder.join(SNAPSHOT)).unwrap(), b"snapshot");
        drop(staging);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        assert_eq!(std::fs::read(&file).unwrap(), b"snapshot");
    }

    #[test]
    fn a_snapshot_in_the_staging_folder_is_its_owners() {
        let directory = tempfile::tempdir().unwrap();
        let folder = staging_folder(directory.path()).unwrap();
        for name in ["mine.snapshot", SNAPSHOT, "folder/mine.snapshot"] {
            let file = folder.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, b"snapshot").unwrap();
            std::fs::write(folder.join("left over"), b"x").unwrap();
            let source = RestoreSource::File(file.clone());
            let staging = Staging::clear(directory.path(), &source).unwrap();
            assert!(!folder.join("left over").exists());
            staging.take(&file, &Cancel::new(), &mut |_| {}).unwrap();
            assert_eq!(std::fs::read(staging.snapshot()).unwrap(), b"snapshot");
            staging.remove(staging.name);
            drop(staging);
            assert_eq!(std::fs::read(&file).unwrap(), b"snapshot");
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
            std::fs::remove_dir_all(&folder).unwrap();
            staging_folder(directory.path()).unwrap();
        }
    }

    #[test]
    fn copies_across_file_systems() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("a"), directory.path().join("b"));
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        std::fs::write(&from, &content).unwrap();
        let mut seen = Vec::new();
        copy(&from, &to, 3_000_000, &Cancel::new(), &mut |step| {
            if let RestoreProgress::Downloading { bytes, .. } = step {
                seen.push(bytes);
            }
        })
        .unwrap();
        assert_eq!(seen.last(), Some(&3_000_000));
        assert_eq!(std::fs::read(&to).unwrap(), content);
        let cancelled = Cancel::new();
        cancelled.cancel();
        assert!(matches!(
            copy(&from, &to, 0, &cancelled, &mut |_| {}),
            Err(Error::Cancelled)
        ));
    }
}
