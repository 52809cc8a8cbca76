//! A device's life: steps, what each must lead to, and what may be found after an interruption.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value, json};
use wasmtime::component::ResourceAny;

use crate::bindings::exports::edge_sync::shard::courier::{
    Content as Brings, OptimizerState, Server as Address, SnapshotSource,
};
use crate::bindings::exports::edge_sync::shard::queue::{BatchLimits, UploadRequest};
use crate::bindings::exports::edge_sync::shard::restore;
use crate::bindings::exports::edge_sync::shard::shard as wit;
use crate::bindings::exports::edge_sync::shard::sync::{Direction, SyncOptions, SyncReport};
use crate::bindings::exports::edge_sync::shard::types::{
    Durability, Error as GuestError, FailureClass, NamedVector, Options, Point as WitPoint,
    PointId, Vector,
};
use crate::disk::Names;
use crate::expected::{Expected, Rejected, Violation};
use crate::filesystem::GUEST_ROOT;
use crate::front::Front;
use crate::guest::{Ended, Instance, Program};
use crate::model::{DIMENSIONS, Fate, Point, PointChange, STAMP, State, Write};
use crate::server::{Happening, Limits, Server, Snapshot};
use crate::world::Shared;

/// Ids from here on are other devices' alone.
pub const OTHERS_FROM: u64 = 1000;

/// Stamps from here on are other devices'.
pub const OTHERS_STAMPS_FROM: u64 = 1_000_000;

/// The number of the reader in a life.
const READER: u32 = 0;

/// How often a page of the answer is asked for when a shard is read.
const PAGE: u32 = 1000;

/// One step of a life.
#[derive(Clone, Debug)]
pub enum Step {
    /// A write.
    Write(Write),
    /// `shard.flush`.
    Flush,
    /// `shard.optimize`.
    Optimize,
    /// `shard.close` and `shard.open`.
    Reopen,
    /// The instance is lost between two calls, and the host that had it opens the shard again.
    Lose,
    /// `sync.sync`.
    Sync,
    /// The same, as the host does it: `queue` and `courier`, batch after batch.
    Carry,
    /// `sync.sync`, which only fetches what changed on the server.
    Pull,
    /// `sync.sync`, both ways.
    Both,
    /// `sync.restore`.
    Restore(SnapshotSource),
    /// The host's pull in two instances, its first half: what is here is offered, and what changed is
    /// downloaded. [`Step::Stage`] and [`Step::Promote`] follow, as in a restore.
    Fetch,
    /// The host's restore in two instances, its first half: barrier and download.
    Download(SnapshotSource),
    /// The same while somebody writes: the upload ends at the barrier, and the log does not.
    DownloadAmidWrites(SnapshotSource, Write),
    /// Its second: unpacks beside the open shard. Writes may follow.
    Stage,
    /// Its third: the switch.
    Promote,
    /// The host's optimization in two instances: the shard is copied, and the copy is optimized beside
    /// it. Writes and uploads may follow, and [`Step::Promote`] or [`Step::EndOptimize`].
    StageOptimized,
    /// The copy is given up, by the instance that has the shard open.
    EndOptimize,
    /// `shard.request`, which changes the indexing threshold; not while a generation is staged.
    Configure(u64),
    /// A copy is lent to a reader, which opens it.
    Lend,
    /// The reader follows the log, and must hold what the shard does.
    Follow,
    /// Another device writes points to the server, and deletes some. They may be this device's.
    Others(Vec<(u64, Point)>, Vec<u64>),
    /// Something happens on the server, each at the so-many-th request from then on.
    Happen(Vec<(u32, Happening)>),
    /// From now on the server refuses upserts of these points. Nothing may wait for upload.
    Refuse(Vec<u64>),
    /// `queue.retry-rejected` of the last refused write of this point.
    RetryRejected(u64),
    /// `queue.drop-rejected`, likewise.
    DropRejected(u64),
    /// `queue.retry-rejected-after`, of all in one page.
    RetryAll,
}

/// How a step ends.
#[derive(Debug)]
pub enum Outcome {
    /// It did what it should.
    Done,
    /// The component answered an error.
    Refused(GuestError),
    /// The instance was stopped.
    Interrupted,
}

/// Settings that reach as many code paths as they can with few writes: small segments, so that
/// the log rotates, and few bytes between flushes.
pub fn options() -> Options {
    Options {
        durability: Durability::Always,
        log_segment_bytes: Some(4096),
        flush_after_bytes: Some(3000),
        memory_bytes: None,
    }
}

/// The collection of every life: Euclid, since vectors then come back as they went in.
pub fn config() -> String {
    json!({
        "vectors": {"size": DIMENSIONS, "distance": "Euclid"},
        "on_disk_payload": true,
    })
    .to_string()
}

/// The same, with an index for every kilobyte of vectors.
fn config_that_indexes_early() -> String {
    json!({
        "vectors": {"size": DIMENSIONS, "distance": "Euclid"},
        "on_disk_payload": true,
        "optimizers_config": {"indexing_threshold": 1, "default_segment_number": 2},
    })
    .to_string()
}

fn address() -> Address {
    Address {
        url: "http://server.test:6333".to_owned(),
        collection: "c".to_owned(),
        api_key: Some("secret".to_owned()),
        connect_timeout_ms: 1000,
        shard: None,
        shard_key: None,
        tenant: None,
    }
}

/// Few operations a batch, so that there are several.
const LIMITS: BatchLimits = BatchLimits {
    operations: 4,
    bytes: 1 << 20,
    points: 10_000,
    present_only: false,
};

fn sync_options() -> SyncOptions {
    SyncOptions {
        operations: LIMITS.operations,
        bytes: LIMITS.bytes,
        most_operations: 4 * LIMITS.operations,
        attempts: ATTEMPTS,
        patience_ms: 60_000,
        rebind: false,
        resend: false,
        create_shard_key: false,
        direction: Direction::Push,
    }
}

fn origin() -> restore::Origin {
    let Address {
        url, collection, ..
    } = address();
    restore::Origin {
        url,
        collection,
        shard: 0,
        shard_key: None,
    }
}

/// The offer for the one shard that there is.
fn one_offer(offers: Vec<restore::Offer>) -> [restore::Offer; 1] {
    <[restore::Offer; 1]>::try_from(offers).expect("one offer for one origin")
}

/// Attempts at every exchange.
const ATTEMPTS: u32 = 3;

/// Ways to drive the interfaces wrongly, to show that the checks notice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slips {
    /// The download does not wait for the queue.
    pub no_barrier: bool,
    /// The staged generation is told that it needs no replay.
    pub no_replay: bool,
}

/// A device.
pub struct Life {
    program: Program,
    /// What is around it.
    pub world: Shared,
    /// What must be there.
    pub expected: Expected,
    /// Settings for `create`, `open` and `restore`.
    pub options: Options,
    /// What the driver does wrongly.
    pub slips: Slips,
    /// Created with settings by which few points are worth an index.
    pub indexes_early: bool,
    /// The queue is drained by `sync.sync` alone, which knows what to do with what is refused.
    pub drains_by_sync: bool,
    /// What the next opening is to take back: all after this sequence, because the instance was lost
    /// in a call and its host goes on.
    pub take_back_after: Option<u64>,
    shard: Option<Instance>,
    /// Has a pull begun, of which the answer is here.
    fetched: Option<Fetched>,
    staged: Option<Instance>,
    reader: Option<Instance>,
    /// What the indexing threshold may be; anything before it was changed.
    thresholds: Vec<Value>,
    /// How many writes power cuts have taken, as they may without [`Durability::Always`].
    pub lost_writes: u64,
    /// Whether the power was cut since the shard was last open.
    pub power_was_cut: bool,
    /// How many faults had happened when the shard was opened.
    faults_at_open: usize,
    // How far what arrived at the server was checked.
    checked_arrivals: usize,
    high: Option<usize>,
    delivered: std::collections::HashSet<u64>,
}

impl Life {
    /// A device in `world`, of which `expected` holds.
    pub fn new(program: &Program, world: Shared, expected: Expected) -> Life {
        Life {
            program: program.clone(),
            world,
            expected,
            options: options(),
            slips: Slips::default(),
            indexes_early: false,
            drains_by_sync: false,
            take_back_after: None,
            shard: None,
            fetched: None,
            staged: None,
            reader: None,
            thresholds: Vec::new(),
            lost_writes: 0,
            power_was_cut: false,
            faults_at_open: 0,
            checked_arrivals: 0,
            high: None,
            delivered: std::collections::HashSet::new(),
        }
    }

    /// True while an instance has the shard open.
    pub fn is_open(&self) -> bool {
        self.shard.is_some()
    }

    /// Stops all instances, as a crash of their process does.
    pub fn kill(&mut self) {
        self.shard = None;
        self.fetched = None;
        self.staged = None;
        self.reader = None;
        self.world.lock().restart();
    }

    /// Stops all instances, and cuts the power.
    pub fn cut_power(&mut self, names: Names, seed: u64) {
        self.kill();
        self.power_was_cut = true;
        let mut world = self.world.lock();
        world.disk = world.disk.after_power_cut(names, seed);
    }

    /// Up to where the shard's files hold the log.
    pub fn applied(&mut self) -> Result<u64, Violation> {
        let status = self.shard.as_mut().map(|shard| {
            shard.call(|guest, store| guest.edge_sync_shard_queue().call_status(store))
        });
        match status {
            Some(Ok(status)) => Ok(status.applied),
            other => Err(Violation(format!("the positions: {other:?}"))),
        }
    }

    /// Does one step, and checks what it answers.
    pub fn step(&mut self, step: &Step) -> Result<Outcome, Violation> {
        let mut outcome = self.run(step);
        // A fault that made no call fail, such as one in a flush that came with a write, has left
        // the shard in doubt. What a host does then is opening it again.
        if let Err(Failed::Ended(Ended::Error(GuestError::NeedsReopen(_)))) = &outcome
            && self.world.lock().happened.len() > self.faults_at_open
        {
            self.shard = None;
            outcome = self.run(step);
        }
        let outcome = match outcome {
            Ok(()) => Outcome::Done,
            Err(Failed::Ended(Ended::Error(error))) => Outcome::Refused(error),
            Err(Failed::Ended(Ended::Stopped)) => Outcome::Interrupted,
            Err(Failed::Ended(Ended::Trapped(trap))) => {
                return Err(Violation(format!("the component trapped: {trap}")));
            }
            Err(Failed::Violation(violation)) => return Err(violation),
        };
        self.check_server()?;
        self.expected.check_mirror(&self.world.lock().disk)?;
        Ok(outcome)
    }

    fn run(&mut self, step: &Step) -> Result<(), Failed> {
        if let Step::Others(points, deleted) = step {
            self.world.lock().server.write(points, deleted);
            self.expected.others(points, deleted);
            return Ok(());
        }
        if let Step::Happen(happenings) = step {
            let mut world = self.world.lock();
            for (after, happening) in happenings {
                world.server.expect(*after, happening.clone());
            }
            return Ok(());
        }
        if let Step::Refuse(ids) = step {
            self.world.lock().server.refuse(ids);
            self.expected.refused_ids = ids.clone();
            return Ok(());
        }
        if self.shard.is_none() {
            self.open()?;
        }
        let options = self.options;
        let Some(shard) = &mut self.shard else {
            return Err(Violation("nothing is open".to_owned()).into());
        };
        match step {
            Step::Write(write) => {
                let receipt = call_write(shard, write)?;
                let logged = self.expected.logged + u64::from(receipt.operations);
                if receipt.sequence != logged {
                    return Err(Violation(format!(
                        "a write of {} operations was given the sequence {}, expected {logged}",
                        receipt.operations, receipt.sequence
                    ))
                    .into());
                }
                self.expected.write(write, logged);
            }
            Step::Flush => {
                shard.call(|guest, store| guest.edge_sync_shard_shard().call_flush(store))?;
                self.expected.note_durable();
            }
            Step::Optimize => {
                shard.call(|guest, store| guest.edge_sync_shard_shard().call_optimize(store))?;
            }
            Step::Reopen => {
                shard.call(|guest, store| guest.edge_sync_shard_shard().call_close(store))?;
                self.shard = None;
                self.open()?;
                self.check_local()?;
                self.expected.note_durable();
            }
            Step::Lose => {
                let options = self.options;
                let mut instance = start(&self.program, &self.world)?;
                self.shard = None;
                instance.call(|guest, store| {
                    guest.edge_sync_shard_shard().call_reopen(
                        store,
                        GUEST_ROOT,
                        options,
                        self.expected.logged,
                    )
                })?;
                self.shard = Some(instance);
                self.check_local()?;
            }
            Step::Sync => {
                sync(shard, &self.world, &self.expected, Direction::Push)?;
                self.check_uploaded()?;
                self.expected.note_durable();
            }
            Step::Pull => self.pull(Direction::Pull)?,
            Step::Both => self.pull(Direction::Both)?,
            Step::Fetch => {
                self.staged = None;
                self.fetched = None;
                self.expected.snapshot = None;
                if !self.world.lock().server.has_collection() {
                    return Ok(());
                }
                let barrier = acknowledged(shard)?;
                let mut instance = start(&self.program, &self.world)?;
                let offers = instance.call(|guest, store| {
                    let restore = guest.edge_sync_shard_restore();
                    restore.call_begin_pull(store, GUEST_ROOT, &[origin()], false)
                })?;
                let [offer] = one_offer(offers);
                let fetched = Fetched {
                    instance,
                    settled: true,
                    partial: true,
                };
                self.fetch(fetched, barrier, &offer)?;
            }
            Step::Carry => {
                if self.drains_by_sync {
                    sync(shard, &self.world, &self.expected, Direction::Push)?;
                } else {
                    carry(shard, None)?;
                }
                self.check_uploaded()?;
                self.expected.note_durable();
            }
            Step::Restore(source) => {
                self.reader = None;
                // One restore at a time.
                self.staged = None;
                self.fetched = None;
                self.expected.snapshot = None;
                let before = self.world.lock().server.snapshots.len();
                let mut restore = |force| {
                    shard.call(|guest, store| {
                        guest.edge_sync_shard_sync().call_restore(
                            store,
                            GUEST_ROOT,
                            &address(),
                            *source,
                            force,
                            options,
                        )
                    })
                };
                let mut result = restore(false);
                // Others may have deleted, and the server refused, as many points as they like.
                if let Err(Ended::Error(GuestError::InvalidInput(input))) = &result
                    && input.field == "force"
                {
                    result = restore(true);
                }
                // A restore makes no collection: there is nothing to restore from yet.
                if let Err(Ended::Error(GuestError::Server(failure))) = &result
                    && failure.status == Some(404)
                    && !self.world.lock().server.has_collection()
                {
                    return Ok(());
                }
                // Noted even if the call fails: it may fail after the switch.
                self.note_snapshot(before, self.expected.logged);
                let opened = result?;
                let told = opened.notes.iter().any(|note| note.contains("unsettled"));
                self.adopt(told)?;
            }
            Step::Download(source) => {
                self.fetched = None;
                let before = self.world.lock().server.snapshots.len();
                if self.drains_by_sync {
                    sync(shard, &self.world, &self.expected, Direction::Push)?;
                } else if !self.slips.no_barrier {
                    carry(shard, None)?;
                }
                download(shard, &DownloadSource::Snapshot(*source))?;
                self.note_snapshot(before, self.expected.logged);
                // What the switch is to keep of the writes before the barrier is in the snapshot.
                let shared = self.world.lock().server.shared();
                if let Some((_, snapshot)) = &self.expected.snapshot
                    && let Some(difference) = snapshot
                        .state
                        .difference_but(&self.expected.server, &shared)
                {
                    return Err(Violation(format!(
                        "the snapshot lacks what was written before it: {difference}"
                    ))
                    .into());
                }
            }
            Step::DownloadAmidWrites(source, write) => {
                let barrier = self.expected.logged;
                let receipt = call_write(shard, write)?;
                self.expected.write(write, receipt.sequence);
                self.fetched = None;
                let before = self.world.lock().server.snapshots.len();
                carry(shard, Some(barrier))?;
                download(shard, &DownloadSource::Snapshot(*source))?;
                let world = self.world.lock();
                let snapshot = world.server.snapshots.get(before..).and_then(<[_]>::last);
                self.expected.snapshot = snapshot.map(|it| (barrier, Arc::clone(it)));
            }
            Step::Stage => {
                let (Some((barrier, _)), None) = (&self.expected.snapshot, &self.staged) else {
                    return Ok(());
                };
                let barrier = if self.slips.no_replay {
                    self.expected.logged
                } else {
                    *barrier
                };
                if self.fetched.as_ref().is_some_and(|fetched| fetched.partial) {
                    return self.stage_pull(barrier);
                }
                let mut instance = match self.fetched.take() {
                    Some(mut fetched) => {
                        fetched.instance.call(|guest, store| {
                            guest.edge_sync_shard_restore().call_abandon(store)
                        })?;
                        fetched.instance
                    }
                    None => start(&self.program, &self.world)?,
                };
                instance.call(|guest, store| {
                    guest.edge_sync_shard_restore().call_stage(
                        store,
                        GUEST_ROOT,
                        &[format!("{GUEST_ROOT}/{SNAPSHOT}")],
                        barrier,
                        options,
                    )
                })?;
                self.staged = Some(instance);
            }
            Step::StageOptimized => {
                self.staged = None;
                self.fetched = None;
                self.expected.snapshot = None;
                let planned = shard.call(|guest, store| {
                    guest.edge_sync_shard_restore().call_plan_optimize(store)
                })?;
                let begun = shard.call(|guest, store| {
                    guest.edge_sync_shard_restore().call_begin_optimize(store)
                })?;
                let Some(barrier) = begun else {
                    if planned.is_empty() {
                        return Ok(());
                    }
                    return Err(Violation(format!("{planned:?}, and nothing to do")).into());
                };
                // It is a checkpoint of all that there is.
                self.expected.note_durable();
                // Every second time, as a host with several cores does.
                if barrier.is_multiple_of(2) {
                    for planned in &planned {
                        let mut builder = start(&self.program, &self.world)?;
                        builder.call(|guest, store| {
                            let restore = guest.edge_sync_shard_restore();
                            restore.call_build_share(store, GUEST_ROOT, planned, options)
                        })?;
                    }
                }
                let mut instance = start(&self.program, &self.world)?;
                let staged = instance.call(|guest, store| {
                    let restore = guest.edge_sync_shard_restore();
                    restore.call_stage_optimize(store, GUEST_ROOT, options)
                })?;
                self.staged = staged.map(|_| instance);
            }
            Step::EndOptimize => {
                self.staged = None;
                shard.call(|guest, store| {
                    guest.edge_sync_shard_restore().call_end_optimize(store)
                })?;
                let world = self.world.lock();
                let generations = world.disk.find("generations");
                let left = generations.and_then(|folder| Ok(world.disk.entries(folder)?.len()));
                if !matches!(left, Ok(1)) {
                    return Err(Violation(format!("after its end: {left:?} generations")).into());
                }
            }
            Step::Configure(_) if self.staged.is_some() || self.fetched.is_some() => {}
            Step::Configure(threshold) => {
                if self.thresholds.is_empty() {
                    self.thresholds = vec![observe(shard)?.threshold];
                }
                self.thresholds.push(json!(threshold));
                let body = json!({"optimizers_config": {"indexing_threshold": threshold}});
                shard.call(|guest, store| {
                    let shard = guest.edge_sync_shard_shard();
                    shard.call_request(store, "PATCH", "", &body.to_string())
                })?;
                self.thresholds = vec![json!(threshold)];
                self.check_local()?;
                // A checkpoint comes before.
                self.expected.note_durable();
            }
            Step::Lend => {
                self.reader = None;
                let position = shard
                    .call(|guest, store| guest.edge_sync_shard_reader().call_lend(store, READER))?;
                // Of all that there is.
                self.expected.note_durable();
                let mut instance = start(&self.program, &self.world)?;
                let copy = format!("{GUEST_ROOT}/readers/{READER}");
                instance.call(|guest, store| {
                    let reader = guest.edge_sync_shard_reader();
                    reader.call_open(store, GUEST_ROOT, &copy, position)
                })?;
                self.reader = Some(instance);
            }
            Step::Follow => {
                let Some(mut reader) = self.reader.take() else {
                    return Ok(());
                };
                let position = shard
                    .call(|guest, store| guest.edge_sync_shard_reader().call_position(store))?;
                let followed = reader.call(|guest, store| {
                    guest.edge_sync_shard_reader().call_follow(store, position)
                });
                match followed {
                    Ok(followed) if followed == position => {}
                    Ok(followed) => {
                        let text = format!("a reader is at {followed}, and was told {position}");
                        return Err(Violation(text).into());
                    }
                    // The log has forgotten what it lacks, or a call on files failed.
                    Err(Ended::Error(GuestError::NeedsReopen(_))) => return Ok(()),
                    Err(other) => return Err(other.into()),
                }
                let found = State {
                    points: points(&mut reader)?,
                    indexes: self.expected.local.indexes.clone(),
                };
                if let Some(difference) = found.difference(&self.expected.local) {
                    return Err(Violation(format!("a reader differs: {difference}")).into());
                }
                self.reader = Some(reader);
            }
            Step::Promote => {
                let Some(mut staged) = self.staged.take() else {
                    return Ok(());
                };
                self.reader = None;
                shard.call(|guest, store| guest.edge_sync_shard_shard().call_close(store))?;
                self.shard = None;
                staged.call(|guest, store| {
                    guest.edge_sync_shard_restore().call_promote(store, None)
                })?;
                let status =
                    staged.call(|guest, store| guest.edge_sync_shard_queue().call_status(store))?;
                self.shard = Some(staged);
                if let Some((barrier, _)) = &self.expected.snapshot
                    && status.acknowledged < *barrier
                {
                    return Err(Violation(format!(
                        "uploaded up to {barrier} before the switch, and after it up to {}",
                        status.acknowledged
                    ))
                    .into());
                }
                // What it was told of the optimizer is not the component's to tell.
                self.adopt(true)?;
            }
            Step::RetryRejected(id) | Step::DropRejected(id) => {
                let Some(sequence) = self.expected.last_refused(*id).map(|it| it.sequence) else {
                    return Ok(());
                };
                let retry = matches!(step, Step::RetryRejected(_));
                shard.call(|guest, store| {
                    let queue = guest.edge_sync_shard_queue();
                    if retry {
                        queue.call_retry_rejected(store, sequence)
                    } else {
                        queue.call_drop_rejected(store, sequence)
                    }
                })?;
                if retry {
                    self.expected.retry(sequence);
                } else {
                    let refused = &mut self.expected.refused;
                    refused.retain(|refused| refused.sequence != sequence);
                }
                self.check_local()?;
                self.expected.note_durable();
            }
            Step::RetryAll => {
                let retried = shard.call(|guest, store| {
                    let queue = guest.edge_sync_shard_queue();
                    queue.call_retry_rejected_after(store, 0, 1000)
                })?;
                if !retried.failures.is_empty() || retried.next.is_some() {
                    return Err(Violation(format!("not all was retried: {retried:?}")).into());
                }
                self.expected.retry_all();
                self.check_local()?;
                self.expected.note_durable();
            }
            Step::Others(..) | Step::Refuse(_) | Step::Happen(_) => {}
        }
        Ok(())
    }

    /// One call that fetches what changed, and may upload before.
    fn pull(&mut self, direction: Direction) -> Result<(), Failed> {
        // One restore at a time.
        self.staged = None;
        self.fetched = None;
        self.reader = None;
        self.expected.snapshot = None;
        let Some(shard) = &mut self.shard else {
            return Err(Violation("nothing is open".to_owned()).into());
        };
        let (made, before) = {
            let world = self.world.lock();
            (world.server.has_collection(), world.server.snapshots.len())
        };
        if direction == Direction::Pull && !made {
            // There is nothing to follow yet.
            return Ok(());
        }
        let standing = acknowledged(shard)?;
        let report = sync(shard, &self.world, &self.expected, direction);
        let barrier = match direction {
            Direction::Pull => standing,
            Direction::Both | Direction::Push => self.expected.logged,
        };
        // Noted even if the call fails: it may fail after the switch.
        self.note_snapshot(before, barrier);
        let report = match report {
            // Others may have deleted as many points as they like; a person would say that it is meant.
            Err(Failed::Ended(Ended::Error(GuestError::InvalidInput(input))))
                if input.field == "force" =>
            {
                self.check_local()?;
                return self.run(&Step::Restore(SnapshotSource::Stream));
            }
            report => report?,
        };
        if direction == Direction::Both {
            self.check_uploaded()?;
            self.expected.note_durable();
        }
        let Some(pulled) = report.pulled else {
            return Err(Violation(format!("a pull that tells nothing: {report:?}")).into());
        };
        let Some((barrier, snapshot)) = &self.expected.snapshot else {
            return Err(Violation("a pull asked for no snapshot".to_owned()).into());
        };
        if pulled.changed {
            return self.adopt(pulled.unsettled.is_some());
        }
        // What is here is what the server holds, and what was not uploaded.
        let local = &self.expected.local;
        let (held, came) = self.expected.restored_as_found(*barrier, snapshot, local);
        let difference = local.difference(&held);
        if let Some(difference) = difference {
            return Err(Violation(format!("nothing is new, but {difference}")).into());
        }
        if came && pulled.unsettled.is_none() {
            return Err(Violation(format!(
                "points that the server does not hold, and nothing is told: {pulled:?}"
            ))
            .into());
        }
        self.expected.snapshot = None;
        self.check_local()
    }

    /// Asks the server with an offer, for a pull in two instances.
    fn fetch(
        &mut self,
        mut fetched: Fetched,
        barrier: u64,
        offer: &restore::Offer,
    ) -> Result<(), Failed> {
        let Some(shard) = &mut self.shard else {
            return Err(Violation("nothing is open".to_owned()).into());
        };
        let before = optimizer(shard)?;
        let made = self.world.lock().server.snapshots.len();
        let brings = download(shard, &DownloadSource::Changes(offer.manifest.clone()))?;
        let after = optimizer(shard)?;
        fetched.settled = before == after && !after.running;
        fetched.partial = brings == Brings::Partial;
        if brings == Brings::NothingNew {
            return Ok(());
        }
        self.note_snapshot(made, barrier);
        self.fetched = Some(fetched);
        Ok(())
    }

    /// Makes a generation of what was fetched; asks again where it is in doubt.
    fn stage_pull(&mut self, barrier: u64) -> Result<(), Failed> {
        let options = self.options;
        while let Some(mut fetched) = self.fetched.take() {
            let settled = fetched.settled;
            let outcome = fetched.instance.call(|guest, store| {
                guest.edge_sync_shard_restore().call_stage_pull(
                    store,
                    &[Some(format!("{GUEST_ROOT}/{SNAPSHOT}"))],
                    barrier,
                    settled,
                    options,
                )
            })?;
            match outcome {
                restore::PullOutcome::Staged(_) => self.staged = Some(fetched.instance),
                restore::PullOutcome::Again(offers) => {
                    let [offer] = one_offer(offers);
                    let barrier = self.expected.snapshot.take().map_or(0, |it| it.0);
                    self.fetch(fetched, barrier, &offer)?;
                }
            }
        }
        Ok(())
    }

    /// Creates the shard.
    pub fn create(&mut self) -> Result<Outcome, Violation> {
        let created = || -> Result<Instance, Failed> {
            let mut instance = start(&self.program, &self.world)?;
            instance.call(|guest, store| {
                let config = match self.indexes_early {
                    true => config_that_indexes_early(),
                    false => config(),
                };
                let shard = guest.edge_sync_shard_shard();
                shard.call_create(store, GUEST_ROOT, &config, self.options)
            })?;
            Ok(instance)
        };
        match created() {
            Ok(instance) => {
                self.shard = Some(instance);
                self.faults_at_open = self.world.lock().happened.len();
                self.expected.exists = true;
                self.power_was_cut = false;
                Ok(Outcome::Done)
            }
            Err(Failed::Ended(Ended::Error(error))) => Ok(Outcome::Refused(error)),
            Err(Failed::Ended(Ended::Stopped)) => Ok(Outcome::Interrupted),
            Err(Failed::Ended(Ended::Trapped(trap))) => {
                Err(Violation(format!("create trapped: {trap}")))
            }
            Err(Failed::Violation(violation)) => Err(violation),
        }
    }

    /// Opens the shard in a fresh instance.
    fn open(&mut self) -> Result<(), Failed> {
        let options = self.options;
        // Opening removes what is staged.
        self.staged = None;
        self.fetched = None;
        let mut instance = start(&self.program, &self.world)?;
        let returned = self.take_back_after;
        if returned.is_none() {
            // It removes what readers have, too.
            self.reader = None;
        }
        instance.call(|guest, store| {
            let shard = guest.edge_sync_shard_shard();
            match returned {
                Some(returned) => shard.call_reopen(store, GUEST_ROOT, options, returned),
                None => shard.call_open(store, GUEST_ROOT, options),
            }
        })?;
        self.take_back_after = None;
        self.shard = Some(instance);
        self.faults_at_open = self.world.lock().happened.len();
        Ok(())
    }

    /// After an interruption, or an error that leaves the outcome open: opens the shard, finds out
    /// which of the permitted states it is in, and goes on from there. `doubtful` is the step under
    /// way; `None` if none was. With `strict` it must not have taken effect.
    ///
    /// Answers `None` if the opening itself was interrupted or failed for an injected fault.
    pub fn recover(
        &mut self,
        doubtful: Option<&Doubt>,
        strict: bool,
    ) -> Result<Option<Settled>, Violation> {
        let settled = self.settle(doubtful, strict)?;
        if settled.is_some() {
            self.power_was_cut = false;
            // What is found at an opening is on disk.
            self.expected.note_durable();
        }
        Ok(settled)
    }

    fn settle(
        &mut self,
        doubtful: Option<&Doubt>,
        strict: bool,
    ) -> Result<Option<Settled>, Violation> {
        let faults_before = self.world.lock().happened.len();
        self.shard = None;
        self.staged = None;
        self.fetched = None;
        match self.open() {
            Ok(()) => {}
            Err(Failed::Ended(Ended::Error(GuestError::NotFound(_)))) if !self.expected.exists => {
                return Ok(Some(Settled::NotThere));
            }
            Err(Failed::Ended(Ended::Stopped)) => return Ok(None),
            Err(Failed::Ended(Ended::Error(error))) => {
                if self.world.lock().happened.len() > faults_before
                    && !matches!(error, GuestError::Corrupt(_) | GuestError::NotFound(_))
                {
                    return Ok(None);
                }
                return Err(Violation(format!("the shard cannot be opened: {error:?}")));
            }
            Err(Failed::Ended(Ended::Trapped(trap))) => {
                return Err(Violation(format!("opening trapped: {trap}")));
            }
            Err(Failed::Violation(violation)) => return Err(violation),
        }
        let found = match self.observe() {
            Ok(found) => found,
            Err(Failed::Ended(Ended::Trapped(trap))) => {
                return Err(Violation(format!("reading trapped: {trap}")));
            }
            Err(Failed::Violation(violation)) => return Err(violation),
            Err(Failed::Ended(_)) if self.world.lock().happened.len() > faults_before => {
                self.shard = None;
                return Ok(None);
            }
            Err(Failed::Ended(ended)) => {
                return Err(Violation(format!("the shard cannot be read: {ended:?}")));
            }
        };
        self.expected.exists = true;
        let settled = self.settle_state(&found, doubtful, strict)?;
        self.settle_rejected(&found.rejected, doubtful)?;
        self.expected.check_mirror(&self.world.lock().disk)?;
        Ok(Some(settled))
    }

    /// Which of the permitted states was found.
    fn settle_state(
        &mut self,
        observed: &Observed,
        doubtful: Option<&Doubt>,
        strict: bool,
    ) -> Result<Settled, Violation> {
        let (found, logged) = (&observed.state, observed.logged);
        let unchanged = found.difference(&self.expected.local);
        if unchanged.is_none() && logged == self.expected.logged {
            // A download that was interrupted, or its stage, is gone.
            self.expected.snapshot = None;
            return Ok(Settled::Before);
        }
        let mut message = format!(
            "found operations up to {logged}, expected {}; against the state before: {}",
            self.expected.logged,
            unchanged.unwrap_or_else(|| "the same".to_owned()),
        );
        if self.power_was_cut
            && self.options.durability != Durability::Always
            && logged < self.expected.logged
            && let Some(left) = self.expected.without_writes_after(logged)
        {
            let Some(difference) = found.difference(&left.local) else {
                self.lost_writes += (self.expected.writes.len() - left.writes.len()) as u64;
                self.expected = left;
                return Ok(Settled::Earlier);
            };
            message.push_str(&format!("\nagainst the state at {logged}: {difference}"));
        }
        match doubtful {
            Some(_) if strict => {
                message.push_str("\nthe call failed, so it must not have changed anything")
            }
            Some(Doubt::Write(write)) => {
                let mut after = self.expected.clone();
                after.write(write, logged);
                let difference = found.difference(&after.local);
                if difference.is_none() && logged > self.expected.logged {
                    after.snapshot = None;
                    self.expected = after;
                    return Ok(Settled::After);
                }
                message.push_str(&format!(
                    "\nagainst the state after {write:?}: {}",
                    difference.unwrap_or_else(|| "the same".to_owned()),
                ));
            }
            Some(Doubt::Restore { snapshots_before } | Doubt::Pull { snapshots_before }) => {
                let barrier = match doubtful {
                    // Nothing is uploaded after a pull has begun.
                    Some(Doubt::Pull { .. }) => observed.rejected.acknowledged,
                    _ => self.expected.logged,
                };
                self.note_snapshot(*snapshots_before, barrier);
                if let Some((barrier, snapshot)) = self.expected.snapshot.clone() {
                    let (restored, _) = self.expected.restored_as_found(barrier, &snapshot, found);
                    let difference = found.difference(&restored);
                    if difference.is_none() && logged == self.expected.logged {
                        return self.take_over(restored, &snapshot).map(|()| Settled::After);
                    }
                    message.push_str(&format!(
                        "\nagainst the restored state: {}",
                        difference.unwrap_or_else(|| "the same".to_owned()),
                    ));
                }
            }
            Some(Doubt::Retry { sequence }) => {
                let mut after = self.expected.clone();
                after.retry(*sequence);
                let difference = found.difference(&after.local);
                if difference.is_none() && logged == after.logged {
                    // It may be in the rejected log still, and a second retry does no harm.
                    after.refused.clone_from(&self.expected.refused);
                    after.snapshot = None;
                    self.expected = after;
                    return Ok(Settled::After);
                }
                message.push_str(&format!(
                    "\nagainst the state after the retry: {}",
                    difference.unwrap_or_else(|| "the same".to_owned()),
                ));
            }
            Some(Doubt::RetryAll) => {
                let mut after = self.expected.clone();
                after.retry_all();
                if found.difference(&after.local).is_none() && logged == after.logged {
                    // They may be in the rejected log still.
                    after.refused.clone_from(&self.expected.refused);
                    after.snapshot = None;
                    self.expected = after;
                    return Ok(Settled::After);
                }
                message.push_str("\nnor is it the state after all retries");
            }
            Some(Doubt::Drop { .. }) | None => {}
        }
        Err(Violation(message))
    }

    /// The rejected log is what it must be, or what the step in doubt would have made of it.
    fn settle_rejected(
        &mut self,
        rejected: &Rejected,
        doubtful: Option<&Doubt>,
    ) -> Result<(), Violation> {
        if let Some(Doubt::Retry { sequence } | Doubt::Drop { sequence }) = doubtful
            && !rejected.sequences.contains(sequence)
        {
            let refused = &mut self.expected.refused;
            refused.retain(|refused| refused.sequence != *sequence);
        }
        let missed = self.world.lock().server.missed();
        // They leave it together.
        if let Some(Doubt::RetryAll) = doubtful
            && rejected.sequences.is_empty()
        {
            self.expected.refused.clear();
        }
        rejected.check(&self.expected, &missed)
    }

    /// Reads the whole shard. Checks on the way that its parts agree.
    fn observe(&mut self) -> Result<Observed, Failed> {
        let Some(shard) = &mut self.shard else {
            return Err(Violation("nothing is open".to_owned()).into());
        };
        let found = observe(shard)?;
        if !self.thresholds.is_empty() {
            if !self.thresholds.contains(&found.threshold) {
                let (found, may) = (&found.threshold, &self.thresholds);
                let text = format!("the indexing threshold is {found}, and may be {may:?}");
                return Err(Violation(text).into());
            }
            self.thresholds = vec![found.threshold.clone()];
        }
        Ok(found)
    }

    /// The shard holds what it must.
    fn check_local(&mut self) -> Result<(), Failed> {
        let found = self.observe()?;
        if let Some(difference) = found.state.difference(&self.expected.local) {
            return Err(Violation(format!("the shard differs: {difference}")).into());
        }
        if found.logged != self.expected.logged {
            return Err(Violation(format!(
                "the log ends at {}, expected {}",
                found.logged, self.expected.logged
            ))
            .into());
        }
        let missed = self.world.lock().server.missed();
        Ok(found.rejected.check(&self.expected, &missed)?)
    }

    /// The server holds all of it. Of a point that others write as well, it got all of it, in order:
    /// the last to reach the server wins.
    fn check_uploaded(&mut self) -> Result<(), Violation> {
        let world = self.world.lock();
        let server = &world.server;
        let (shared, missed) = (server.shared(), server.missed());
        if let Some(difference) = server
            .state()
            .difference_but(&self.expected.server, &shared)
        {
            return Err(Violation(format!(
                "the queue is drained, but the server differs: {difference}"
            )));
        }
        let arrived = server.effects().iter().flat_map(|effects| effects.iter());
        let arrived = fates(arrived.map(|(id, effect)| (*id, effect.clone())));
        let written = fates(
            self.expected
                .writes
                .iter()
                .flat_map(|(_, write)| write.effects()),
        );
        for id in &shared {
            let fate = |fates: &BTreeMap<u64, Fate>| {
                let fate = fates.get(id).cloned().unwrap_or_default();
                // What came for a point that was not there is in the rejected log.
                if missed.contains(id) {
                    fate.without_marks()
                } else {
                    fate
                }
            };
            let (arrived, written) = (fate(&arrived), fate(&written));
            if arrived != written {
                return Err(Violation(format!(
                    "the queue is drained, but what the server got of point {id} comes to \
                     {arrived:?}, and what was written to {written:?}"
                )));
            }
        }
        Ok(())
    }

    /// What arrived at the server was written, and arrived in order.
    fn check_server(&mut self) -> Result<(), Violation> {
        let world = self.world.lock();
        if let Some(violation) = world.server.violations.first() {
            return Err(Violation(format!("the server: {violation}")));
        }
        let written: Vec<(u64, u64)> = self
            .expected
            .writes
            .iter()
            .flat_map(|(_, write)| write.stamps())
            .collect();
        let place: HashMap<u64, usize> = written
            .iter()
            .enumerate()
            .map(|(place, (_, stamp))| (*stamp, place))
            .collect();
        let deleted_since = |place: usize, id: u64| {
            // A later write of the same point, or a deletion, stands for an earlier one.
            written[place + 1..].iter().any(|(other, _)| *other == id)
                || self
                    .expected
                    .writes
                    .iter()
                    .any(|(_, write)| match &**write {
                        Write::Delete(ids) | Write::Batch(_, ids) => ids.contains(&id),
                        _ => false,
                    })
        };
        for arrivals in &world.server.arrivals()[self.checked_arrivals..] {
            let mut batch_end = None;
            for arrived in arrivals.iter() {
                match place.get(&arrived.stamp) {
                    Some(place) if written[*place].0 == arrived.id => {
                        batch_end = batch_end.max(Some(*place));
                        self.delivered.insert(arrived.stamp);
                    }
                    _ => {
                        return Err(Violation(format!(
                            "the server got {arrived:?}, which no write that returned made"
                        )));
                    }
                }
            }
            let Some(end) = batch_end else { continue };
            let start = self.high.map_or(0, |high| high + 1);
            for place in start..end {
                let (id, stamp) = written[place];
                if self.expected.refused_stamps.contains(&stamp) {
                    continue;
                }
                if !self.delivered.contains(&stamp) && !deleted_since(place, id) {
                    return Err(Violation(format!(
                        "the server got write {} before write {stamp} of point {id}",
                        written[end].1
                    )));
                }
            }
            self.high = self.high.max(Some(end));
        }
        self.checked_arrivals = world.server.arrivals().len();
        Ok(())
    }

    fn note_snapshot(&mut self, before: usize, barrier: u64) {
        let world = self.world.lock();
        if let Some(snapshot) = world.server.snapshots.get(before..).and_then(<[_]>::last) {
            self.expected.snapshot = Some((barrier, Arc::clone(snapshot)));
        }
    }

    /// The snapshot that was noted has come into force. `told`: that it may not be what the server held.
    fn adopt(&mut self, told: bool) -> Result<(), Failed> {
        let found = self.observe()?;
        if let Some((barrier, snapshot)) = self.expected.snapshot.take() {
            let expected = &self.expected;
            let (restored, came) = expected.restored_as_found(barrier, &snapshot, &found.state);
            if came && !told {
                return Err(Violation(
                    "points came that the server does not hold, and nothing is told".to_owned(),
                )
                .into());
            }
            self.take_over(restored, &snapshot)?;
        }
        self.check_local()
    }

    fn take_over(&mut self, restored: State, snapshot: &Snapshot) -> Result<(), Violation> {
        self.expected.local = restored;
        self.expected.snapshot = None;
        let noted = self.expected.note_mirror(&self.world.lock().disk, snapshot);
        // The switch waits for the log.
        self.expected.note_durable();
        noted
    }

    /// What is in doubt when `step` is interrupted.
    pub fn doubt(step: &Step, expected: &Expected, snapshots_before: usize) -> Option<Doubt> {
        match step {
            Step::Write(write) | Step::DownloadAmidWrites(_, write) => {
                Some(Doubt::Write(write.clone()))
            }
            Step::Restore(_) => Some(Doubt::Restore { snapshots_before }),
            Step::Pull | Step::Both => Some(Doubt::Pull { snapshots_before }),
            // Its snapshot is known from the download.
            Step::Promote => Some(Doubt::Restore {
                snapshots_before: usize::MAX,
            }),
            Step::RetryRejected(id) => Some(Doubt::Retry {
                sequence: expected.last_refused(*id)?.sequence,
            }),
            Step::DropRejected(id) => Some(Doubt::Drop {
                sequence: expected.last_refused(*id)?.sequence,
            }),
            Step::RetryAll => Some(Doubt::RetryAll),
            _ => None,
        }
    }

    /// A person has to put something right: the upload stops and says so, and once it is right,
    /// nothing is missing. `stamp` is that of the first of some writes that are made for this.
    pub fn end_in(&mut self, trouble: Trouble, stamp: u64) -> Result<(), Violation> {
        match self.step(&Step::Sync)? {
            Outcome::Done => {}
            other => return Err(Violation(format!("before the trouble: {other:?}"))),
        }
        let points = (1..).zip(stamp..stamp + TROUBLED);
        let points: Vec<_> = points.map(|(id, n)| (id, Point::stamped(n))).collect();
        match self.step(&Step::Write(Write::Upsert(points)))? {
            Outcome::Done => {}
            other => return Err(Violation(format!("before the trouble: {other:?}"))),
        }
        self.suffer(trouble, stamp).map_err(|failed| match failed {
            Failed::Violation(violation) => Violation(format!("{trouble:?}: {violation}")),
            Failed::Ended(ended) => Violation(format!("{trouble:?}: {ended:?}")),
        })
    }

    fn suffer(&mut self, trouble: Trouble, stamp: u64) -> Result<(), Failed> {
        let Some(shard) = &mut self.shard else {
            return Err(Violation("nothing is open".to_owned()).into());
        };
        let logged = self.expected.logged;
        trouble.begin(&mut self.world.lock().server, stamp);
        let report = shard.call(|guest, store| {
            guest
                .edge_sync_shard_sync()
                .call_sync(store, &address(), sync_options())
        })?;
        let told = match (&report.failure, trouble) {
            (None, Trouble::Firewall) => report.rejected == 1 && report.remaining == 0,
            // Passing, for all that the device can know: nothing is put aside.
            (Some(GuestError::Server(failure)), Trouble::Page(_) | Trouble::Portal) => {
                report.rejected == 0
                    && report.remaining == TROUBLED
                    && failure.class != FailureClass::Reject
                    && !failure.message.is_empty()
            }
            (Some(GuestError::Server(failure)), _) => {
                failure.class == FailureClass::Stop
                    && !failure.message.is_empty()
                    // Not drained into the rejected log.
                    && report.rejected < TROUBLED / 2
                    && report.rejected + report.remaining == TROUBLED
            }
            _ => false,
        };
        if !told {
            return Err(Violation(format!("the upload ended with {report:?}")).into());
        }
        trouble.end(&mut self.world.lock().server);
        let rejected = shard.call(|guest, store| {
            guest
                .edge_sync_shard_queue()
                .call_rejected(store, 0, u32::MAX)
        })?;
        for one in rejected
            .iter()
            .filter(|one| one.sequence > logged - TROUBLED)
        {
            shard.call(|guest, store| {
                guest
                    .edge_sync_shard_queue()
                    .call_retry_rejected(store, one.sequence)
            })?;
        }
        let options = SyncOptions {
            resend: trouble.loses_data(),
            ..sync_options()
        };
        let report = shard.call(|guest, store| {
            guest
                .edge_sync_shard_sync()
                .call_sync(store, &address(), options)
        })?;
        if report.failure.is_some() || report.remaining > 0 || report.rejected > 0 {
            return Err(Violation(format!("put right, the upload ended with {report:?}")).into());
        }
        let world = self.world.lock();
        let server = &world.server;
        let difference = if trouble.loses_data() {
            server.state().difference(&self.expected.local)
        } else {
            server
                .state()
                .difference_but(&self.expected.server, &server.shared())
        };
        match difference {
            Some(difference) => {
                Err(Violation(format!("put right, the server differs: {difference}")).into())
            }
            None => Ok(()),
        }
    }

    /// The last checks of a life: everything uploads, and a new instance finds everything. If the server
    /// is one that can be followed, then what is here is what is there.
    pub fn finish(&mut self) -> Result<(), Violation> {
        self.last_step(&Step::Sync)?;
        if self.world.lock().server.is_followed() {
            self.world.lock().server.rest();
            self.last_step(&Step::Both)?;
            self.equals_server()?;
        }
        self.last_step(&Step::Reopen)
    }

    /// A step at the end, which has to succeed.
    pub fn last_step(&mut self, step: &Step) -> Result<(), Violation> {
        match self.step(step)? {
            Outcome::Done => Ok(()),
            other => Err(Violation(format!("at the end, {step:?}: {other:?}"))),
        }
    }

    /// After a sync at rest, the device holds what the server holds.
    pub fn equals_server(&self) -> Result<(), Violation> {
        let world = self.world.lock();
        match self.expected.local.difference(world.server.state()) {
            Some(difference) => Err(Violation(format!(
                "all is synced, and against the server: {difference}"
            ))),
            None => Ok(()),
        }
    }
}

/// Points that wait for upload when something has to be put right.
const TROUBLED: u64 = 12;

/// Something that keeps every write from the server, or this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Somebody has deleted the collection.
    Deleted,
    /// Somebody has made it anew.
    MadeAnew,
    /// Its name has become an alias of another one.
    AliasMoved,
    /// The collection has got shard keys.
    Keyed,
    /// Strict mode: the collection holds as many points as it may.
    Full,
    /// Everything is answered with a page of this status.
    Page(u16),
    /// Everything is sent to the login of a captive portal.
    Portal,
    /// A firewall lets everything pass but one point.
    Firewall,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Trouble; 11] = [
        Trouble::Deleted,
        Trouble::MadeAnew,
        Trouble::AliasMoved,
        Trouble::Keyed,
        Trouble::Full,
        Trouble::Page(200),
        Trouble::Page(400),
        Trouble::Page(411),
        Trouble::Page(502),
        Trouble::Portal,
        Trouble::Firewall,
    ];

    fn begin(self, server: &mut Server, stamp: u64) {
        match self {
            Trouble::Deleted => server.drop_collection(false),
            Trouble::MadeAnew => server.drop_collection(true),
            Trouble::AliasMoved => server.move_alias(),
            Trouble::Keyed => server.limit(Limits {
                keyed: true,
                ..Limits::default()
            }),
            Trouble::Full => server.limit(Limits {
                points: Some(0),
                ..Limits::default()
            }),
            Trouble::Page(status) => server.front = Front::Page(status),
            Trouble::Portal => server.front = Front::Portal,
            Trouble::Firewall => {
                server.front = Front::Firewall(format!("\"{STAMP}\":{}", stamp + TROUBLED / 2));
            }
        }
    }

    fn end(self, server: &mut Server) {
        server.limit(Limits::default());
        server.front = Front::Open;
    }

    /// Whether what was confirmed is no longer there.
    fn loses_data(self) -> bool {
        matches!(
            self,
            Trouble::Deleted | Trouble::MadeAnew | Trouble::AliasMoved
        )
    }
}

/// What writes come to, point by point.
fn fates(effects: impl Iterator<Item = (u64, PointChange)>) -> BTreeMap<u64, Fate> {
    let mut fates: BTreeMap<u64, Fate> = BTreeMap::new();
    for (id, effect) in effects {
        fates.entry(id).or_default().then(&effect);
    }
    fates
}

/// A step that was under way when its instance ended.
#[derive(Clone, Debug)]
pub enum Doubt {
    /// A write.
    Write(Write),
    /// A restore.
    Restore {
        /// Snapshots that the server had made before it.
        snapshots_before: usize,
    },
    /// A pull, perhaps after an upload.
    Pull {
        /// Snapshots that the server had made before it.
        snapshots_before: usize,
    },
    /// A retry.
    Retry {
        /// The refused operation's.
        sequence: u64,
    },
    /// The removal of a refused operation.
    Drop {
        /// Its sequence.
        sequence: u64,
    },
    /// A retry of all.
    RetryAll,
}

/// What was found after an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// There is no shard, and none was promised.
    NotThere,
    /// What was before the step in doubt.
    Before,
    /// What the step leads to.
    After,
    /// A power cut took the last writes, as it may without [`Durability::Always`].
    Earlier,
}

/// What was read of a shard.
struct Observed {
    /// Of the optimizers, from which size on vectors are indexed.
    threshold: Value,
    state: State,
    /// The log's last sequence.
    logged: u64,
    rejected: Rejected,
}

/// A pull in two instances, between its halves.
struct Fetched {
    /// Has made the offer.
    instance: Instance,
    /// The optimizer was at rest.
    settled: bool,
    /// What came is what changed, and not everything.
    partial: bool,
}

enum Failed {
    Ended(Ended),
    Violation(Violation),
}

impl From<Ended> for Failed {
    fn from(ended: Ended) -> Failed {
        Failed::Ended(ended)
    }
}

impl From<Violation> for Failed {
    fn from(violation: Violation) -> Failed {
        Failed::Violation(violation)
    }
}

fn start(program: &Program, world: &Shared) -> Result<Instance, Failed> {
    program
        .start(world)
        .map_err(|error| Violation(format!("the component does not start: {error:?}")).into())
}

/// Where the host puts a download, below the data directory.
const SNAPSHOT: &str = "staging/shard.snapshot";

fn wit_points(points: &[(u64, Point)]) -> Vec<WitPoint> {
    points
        .iter()
        .map(|(id, point)| WitPoint {
            id: PointId::Num(*id),
            vectors: vec![NamedVector {
                name: String::new(),
                vector: Vector::Dense(point.vector.clone()),
            }],
            payload: Some(Value::Object(point.payload.clone()).to_string()),
        })
        .collect()
}

fn rest_points(points: &[(u64, Point)]) -> Vec<Value> {
    points
        .iter()
        .map(|(id, point)| json!({"id": id, "vector": point.vector, "payload": point.payload}))
        .collect()
}

fn call_write(shard: &mut Instance, write: &Write) -> Result<wit::Receipt, Ended> {
    shard.call(|guest, store| {
        let shard = guest.edge_sync_shard_shard();
        match write {
            Write::Upsert(points) => shard.call_upsert(store, &wit_points(points)),
            Write::Delete(ids) => {
                let ids: Vec<PointId> = ids.iter().copied().map(PointId::Num).collect();
                shard.call_delete(store, &ids)
            }
            Write::SetPayload(ids, payload) => {
                let body =
                    json!({"operations": [{"set_payload": {"points": ids, "payload": payload}}]});
                shard.call_batch(store, &body.to_string())
            }
            Write::Batch(points, ids) => {
                let mut operations = vec![json!({"upsert": {"points": rest_points(points)}})];
                if !ids.is_empty() {
                    operations.push(json!({"delete": {"points": ids}}));
                }
                let body = json!({ "operations": operations });
                shard.call_batch(store, &body.to_string())
            }
            Write::CreateIndex(field, schema) => {
                shard.call_create_payload_index(store, field, &json!(schema).to_string())
            }
            Write::DeleteIndex(field) => shard.call_delete_payload_index(store, field),
        }
    })
}

/// What the server's optimizer does.
fn optimizer(shard: &mut Instance) -> Result<OptimizerState, Ended> {
    persist(|| {
        shard.call(|guest, store| {
            guest
                .edge_sync_shard_courier()
                .call_optimizer(store, &address())
        })
    })
}

/// How far the queue was uploaded.
fn acknowledged(shard: &mut Instance) -> Result<u64, Failed> {
    let status = shard.call(|guest, store| guest.edge_sync_shard_queue().call_status(store))?;
    Ok(status.acknowledged)
}

/// `sync.sync`. If it uploads, the queue is drained.
fn sync(
    shard: &mut Instance,
    world: &Shared,
    expected: &Expected,
    direction: Direction,
) -> Result<SyncReport, Failed> {
    let before = shard
        .call(|guest, store| guest.edge_sync_shard_queue().call_status(store))?
        .rejected;
    let options = SyncOptions {
        direction,
        ..sync_options()
    };
    let mut report = shard.call(|guest, store| {
        guest
            .edge_sync_shard_sync()
            .call_sync(store, &address(), options)
    })?;
    if let Some(failure) = report.failure.take() {
        return Err(Failed::Ended(Ended::Error(failure)));
    }
    if direction == Direction::Pull {
        return Ok(report);
    }
    let refused = expected.refused.len() as u64;
    // What came for points that were not there may be in the rejected log as well.
    let late = expected.changes_of(&world.lock().server.missed()).len() as u64;
    let rejected = before + report.rejected;
    if report.remaining != 0 || !(refused..=refused + late).contains(&rejected) {
        return Err(Violation(format!("a sync without failure left {report:?}")).into());
    }
    Ok(report)
}

/// Drains the queue, up to `until` if that is given, through `queue` and `courier`, as a host does
/// that drives them by itself. Passing failures are tried again at once. The collection is made if
/// it is not there.
fn carry(shard: &mut Instance, until: Option<u64>) -> Result<(), Failed> {
    let creation = shard
        .call(|guest, store| guest.edge_sync_shard_queue().call_standing(store))?
        .creation;
    let mut exchange = |method: &str, body: &str| {
        let request = UploadRequest {
            method: method.to_owned(),
            path: String::new(),
            body: body.to_owned(),
        };
        persist(|| {
            shard.call(|guest, store| {
                guest
                    .edge_sync_shard_courier()
                    .call_exchange(store, &address(), &request, false)
            })
        })
    };
    if exchange("GET", "")?.status == 404 {
        exchange("PUT", &creation)?;
    }
    loop {
        let batch = shard.call(|guest, store| {
            guest
                .edge_sync_shard_queue()
                .call_next_batch(store, LIMITS, until, None)
        })?;
        let Some(batch) = batch else { return Ok(()) };
        persist(|| {
            shard.call(|guest, store| {
                guest
                    .edge_sync_shard_courier()
                    .call_send(store, &address(), &batch.request)
            })
        })?;
        shard.call(|guest, store| {
            guest
                .edge_sync_shard_queue()
                .call_acknowledge(store, batch.last)
        })?;
    }
}

/// What is downloaded.
enum DownloadSource {
    Snapshot(SnapshotSource),
    /// What changed since this manifest.
    Changes(String),
}

fn download(shard: &mut Instance, from: &DownloadSource) -> Result<Brings, Failed> {
    let file = format!("{GUEST_ROOT}/{SNAPSHOT}");
    let download: ResourceAny = persist(|| {
        shard.call(|guest, store| {
            let courier = guest.edge_sync_shard_courier();
            match from {
                DownloadSource::Snapshot(source) => {
                    courier.call_start_download(store, &address(), 0, *source, &file)
                }
                DownloadSource::Changes(manifest) => {
                    courier.call_start_partial(store, &address(), 0, manifest, &file)
                }
            }
        })
    })?;
    let result = loop {
        let step = persist(|| {
            shard.call(|guest, store| {
                guest
                    .edge_sync_shard_courier()
                    .download()
                    .call_step(store, download)
            })
        });
        match step {
            Ok(progress) if progress.done => break Ok(progress.content),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
    };
    // Dropping it may delete a file or a stored snapshot; that it fails changes nothing here.
    let dropped = shard.call(|_, store| Ok(Ok(download.resource_drop(store)?)));
    let brings = result?;
    dropped?;
    Ok(brings)
}

fn persist<T>(mut run: impl FnMut() -> Result<T, Ended>) -> Result<T, Ended> {
    for _ in 1..ATTEMPTS {
        match run() {
            Err(Ended::Error(GuestError::Server(failure)))
                if matches!(failure.class, FailureClass::Retry | FailureClass::Unclear) => {}
            outcome => return outcome,
        }
    }
    run()
}

/// All points of an instance that has them.
fn points(shard: &mut Instance) -> Result<BTreeMap<u64, Point>, Failed> {
    let mut points = BTreeMap::new();
    let mut offset = None;
    loop {
        let page = shard.call(|guest, store| {
            guest.edge_sync_shard_shard().call_scroll(
                store,
                &wit::ScrollRequest {
                    offset: offset.clone(),
                    limit: PAGE,
                    filter: None,
                    selection: wit::Selection {
                        payload: Some("true".to_owned()),
                        vectors: Some("true".to_owned()),
                    },
                },
            )
        })?;
        for point in page.points {
            let (id, point) = model_point(point)?;
            points.insert(id, point);
        }
        offset = page.next;
        if offset.is_none() {
            return Ok(points);
        }
    }
}

fn observe(shard: &mut Instance) -> Result<Observed, Failed> {
    let mut state = State {
        points: points(shard)?,
        ..State::default()
    };
    let info = shard.call(|guest, store| guest.edge_sync_shard_shard().call_info(store))?;
    let schema: Map<String, Value> = serde_json::from_str(&info.payload_schema)
        .map_err(|error| Violation(format!("payload schema {}: {error}", info.payload_schema)))?;
    for (field, schema) in schema {
        let schema = schema["data_type"]
            .as_str()
            .or(schema.as_str())
            .unwrap_or("?");
        state.indexes.insert(field, schema.to_owned());
    }
    let config: Value = serde_json::from_str(&info.config)
        .map_err(|error| Violation(format!("configuration {}: {error}", info.config)))?;
    let points = state.points.len() as u64;
    if info.points != points {
        return Err(Violation(format!(
            "the shard counts {} points, and {points} can be read",
            info.points
        ))
        .into());
    }
    check_indexes(shard, &state)?;
    let status = shard.call(|guest, store| guest.edge_sync_shard_queue().call_status(store))?;
    if status.acknowledged > status.logged || status.applied > status.logged {
        return Err(Violation(format!("a position is beyond the log: {status:?}")).into());
    }
    let rejected =
        shard.call(|guest, store| guest.edge_sync_shard_queue().call_rejected(store, 0, 1000))?;
    Ok(Observed {
        threshold: config["optimizers_config"]["indexing_threshold"].clone(),
        state,
        logged: status.logged,
        rejected: Rejected {
            acknowledged: status.acknowledged,
            sequences: rejected.iter().map(|one| one.sequence).collect(),
        },
    })
}

/// Filters and searches agree with what was read: payload indexes and vectors are whole.
fn check_indexes(shard: &mut Instance, state: &State) -> Result<(), Failed> {
    let even = state
        .points
        .values()
        .filter(|point| point.payload.get("kind").and_then(Value::as_str) == Some("even"))
        .count() as u64;
    let filter = json!({"must": [{"key": "kind", "match": {"value": "even"}}]}).to_string();
    let counted = shard.call(|guest, store| {
        guest
            .edge_sync_shard_shard()
            .call_count(store, Some(&filter))
    })?;
    if counted != even {
        return Err(Violation(format!("a filter finds {counted} points of {even}")).into());
    }
    let stamped = state
        .points
        .values()
        .filter(|point| point.payload.contains_key(STAMP))
        .count() as u64;
    let filter = json!({"must": [{"key": STAMP, "range": {"gte": 0}}]}).to_string();
    let counted = shard.call(|guest, store| {
        guest
            .edge_sync_shard_shard()
            .call_count(store, Some(&filter))
    })?;
    if counted != stamped {
        return Err(Violation(format!("a range finds {counted} points of {stamped}")).into());
    }
    let Some((id, point)) = state.points.iter().next() else {
        return Ok(());
    };
    let found = shard.call(|guest, store| {
        guest.edge_sync_shard_shard().call_search(
            store,
            &wit::SearchRequest {
                target: wit::Target::Vector(NamedVector {
                    name: String::new(),
                    vector: Vector::Dense(point.vector.clone()),
                }),
                filter: None,
                params: None,
                limit: state.points.len() as u32,
                offset: 0,
                score_threshold: None,
                selection: wit::Selection {
                    payload: None,
                    vectors: None,
                },
            },
        )
    })?;
    let best = found.first().map(|point| point.score);
    if found.len() != state.points.len() || best.is_none_or(|score| score.abs() > 1e-5) {
        return Err(Violation(format!(
            "a search for point {id} finds {} of {} points, the best at {best:?}",
            found.len(),
            state.points.len()
        ))
        .into());
    }
    Ok(())
}

fn model_point(point: wit::StoredPoint) -> Result<(u64, Point), Violation> {
    let text = format!("{point:?}");
    let odd = || Violation(format!("a point that nobody wrote: {text}"));
    let PointId::Num(id) = point.id else {
        return Err(odd());
    };
    let payload = match point.payload {
        Some(payload) => serde_json::from_str(&payload).map_err(|_| odd())?,
        None => Map::new(),
    };
    let vector = match point.vectors.into_iter().next() {
        Some(NamedVector {
            vector: Vector::Dense(vector),
            ..
        }) => vector,
        _ => return Err(odd()),
    };
    Ok((id, Point { vector, payload }))
}
