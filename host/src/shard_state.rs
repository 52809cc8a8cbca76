//! The shard behind its handles: the instance that has it open, and what becomes of the shard when that
//! instance fails.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime_wasi::FsPerms;

use crate::bindings::EdgeSync;
use crate::bindings::exports::edge_sync::shard::types::Error as GuestError;
use crate::component::Component;
use crate::disk;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::instance::{Grants, Instance, Preopen};
use crate::lock::DirectoryLock;
use crate::outbound::Outbound;
use crate::shard_options::ShardOptions;
use crate::standing::{Position, Standing};
use crate::types::{Binding, Durability, MemoryShortage, Opened};

/// The data directory's name in the guest.
pub(crate) const GUEST_DATA: &str = "/data";

/// Notes that are kept for whoever asks.
const MAX_NOTES: usize = 100;

/// How often loading a shard is tried again that could not be loaded because the disk was full.
const LOAD_AGAIN: Duration = Duration::from_secs(10);

/// Writes that an instance has to have taken before another is opened for want of memory, if its own
/// has not grown much.
const WRITES_AN_OPENING: u32 = 32;

/// Stands for "nothing to take back" where the log's last sequence is asked for.
const ALL_RETURNED: u64 = u64::MAX;

/// What a person should know, gathered until asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: String) {
        tracing::warn!("{note}");
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() >= MAX_NOTES {
            // Nobody asks; the last ones tell the most.
            notes.remove(0);
        }
        notes.push(note);
    }

    /// All of them, which are forgotten.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a call works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The shard's data alone, which a reader has too.
    Reads,
    /// The shard, without logging anything.
    Looks,
    /// The data and the log: there may be something to upload afterwards.
    Writes,
    /// The same, and the rejected log.
    Retries,
    /// The queue and the rejected log alone.
    Queue,
}

impl Access {
    /// Whether a call may write to the log.
    pub(crate) fn logs(self) -> bool {
        matches!(self, Access::Writes | Access::Retries)
    }
}

/// What the shard's actor owns.
pub(crate) struct ShardState {
    component: Component,
    options: ShardOptions,
    folder: PathBuf,
    phase: Phase,
    /// Whether an instance of this process has had the shard open: what lies beside it then may be
    /// in use.
    was_open: bool,
    /// The log's last sequence when the call began that ended the last instance.
    returned: u64,
    /// The same for calls that answered an error, if no call has succeeded since: should the shard
    /// have to be opened again because of one, nothing of it stays.
    failed_at: Option<u64>,
    /// Whether a write ran out of memory because too little was free for any.
    is_full: bool,
    /// Whether the write under way is made once more in a fresh instance if it runs out of memory.
    may_retry: bool,
    /// Writes that the instance has taken.
    writes_since_open: u32,
    /// Size of the instance's memory when it had opened the shard.
    memory_at_open: usize,
    /// Whether the last flush at an opening failed: no flush is tried but when it is asked for, or
    /// each write would cost an opening.
    flush_failed: bool,
    /// How often the shard was opened.
    openings: u64,
    /// Where to tell readers how far they have to follow; none if there are to be none.
    standing: Option<Arc<Standing>>,
    notes: Notes,
    lock: Option<DirectoryLock>,
}

enum Phase {
    /// There is no shard in the directory.
    Absent,
    Open(Box<Instance>),
    /// The queue and the rejected log are open; the data cannot be loaded.
    QueueOnly {
        instance: Box<Instance>,
        cause: Arc<Error>,
        since: Instant,
    },
    /// The instance is gone; the next call opens the shard again.
    Lost,
    Closed,
}

impl ShardState {
    /// The shard in `folder`, which is not open yet.
    pub(crate) fn new(
        component: &Component,
        options: &ShardOptions,
        folder: &Path,
        standing: Option<Arc<Standing>>,
        notes: Notes,
        lock: DirectoryLock,
    ) -> ShardState {
        ShardState {
            component: component.clone(),
            options: options.clone(),
            folder: folder.to_owned(),
            phase: Phase::Absent,
            was_open: false,
            returned: ALL_RETURNED,
            failed_at: None,
            is_full: false,
            may_retry: false,
            writes_since_open: 0,
            memory_at_open: 0,
            flush_failed: false,
            openings: 0,
            standing,
            notes,
            lock: Some(lock),
        }
    }

    /// Whether there is no shard in the directory.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.phase, Phase::Absent)
    }

    fn fresh(&self) -> Result<Instance> {
        fresh(&self.component, &self.options, &self.folder)
    }

    pub(crate) fn create(&mut self, config: &String) -> Result<Opened> {
        let mut instance = match self.phase {
            Phase::Absent => self.fresh()?,
            Phase::Closed => return Err(Error::Closed("shard")),
            _ => return Err(already_a_shard(&self.folder)),
        };
        let options = self.options.for_guest();
        let opened = instance.call("create", self.options.times.open, |guest, store| {
            guest
                .edge_sync_shard_shard()
                .call_create(store, GUEST_DATA, config, options)
        });
        let opened = opened.map_err(|error| match error {
            Error::AlreadyExists(_) => already_a_shard(&self.folder),
            other => other,
        })?;
        self.adopt(instance, &opened);
        Ok(opened)
    }

    /// Opens the shard: with its data if that can be loaded, else for what waits for upload.
    pub(crate) fn open(&mut self) -> Result<Opened> {
        let opened = match self.load(self.flush_failed) {
            // So that the next opening has no log to replay.
            Ok(opened) if opened.replayed > 0 && !self.flush_failed => self.flush_replayed(opened),
            outcome => outcome,
        };
        match opened {
            Ok(opened) => {
                (self.returned, self.failed_at) = (ALL_RETURNED, None);
                Ok(opened)
            }
            Err(error) if leaves_the_queue(&error) => self.open_queue(error),
            Err(error) => Err(error),
        }
    }

    /// Opens the shard with its data. `hold_flush`: writes do not flush.
    fn load(&mut self, hold_flush: bool) -> Result<Opened> {
        let mut instance = self.fresh()?;
        let mut options = self.options.for_guest();
        if hold_flush {
            options.flush_after_bytes = Some(u64::MAX);
        }
        if self.is_full {
            options.memory_bytes = Some(0);
        }
        let (was_open, returned) = (self.was_open, self.returned);
        let name = if was_open { "reopen" } else { "open" };
        let opened = instance
            .call(name, self.options.times.open, |guest, store| {
                let shard = guest.edge_sync_shard_shard();
                match was_open {
                    true => shard.call_reopen(store, GUEST_DATA, options, returned),
                    false => shard.call_open(store, GUEST_DATA, options),
                }
            })
            .map_err(|error| match error {
                Error::NotFound(_) => no_shard(&self.folder),
                other => other,
            })?;
        self.adopt(instance, &opened);
        Ok(opened)
    }

    /// Flushes after an opening that replayed operations. Where that fails, the shard is opened once
    /// more, to go on without.
    fn flush_replayed(&mut self, opened: Opened) -> Result<Opened> {
        let limit = self.options.times.open;
        let flushed = self.instance()?.call("flush", limit, |guest, store| {
            guest.edge_sync_shard_shard().call_flush(store)
        });
        let Err(error) = flushed else {
            return Ok(opened);
        };
        self.notes.add(format!(
            "{} operations were replayed from the log and could not be flushed: {error}",
            opened.replayed
        ));
        self.flush_failed = true;
        self.phase = Phase::Lost;
        self.returned = ALL_RETURNED;
        self.load(true)?;
        Ok(opened)
    }

    /// Opens what can be opened without the data, which `error` keeps from being loaded.
    fn open_queue(&mut self, error: Error) -> Result<Opened> {
        let open = || -> Result<(Instance, Opened)> {
            let mut instance = self.fresh()?;
            let options = self.options.for_guest();
            let opened = instance.call("open", self.options.times.open, |guest, store| {
                guest
                    .edge_sync_shard_queue()
                    .call_open(store, GUEST_DATA, options)
            })?;
            Ok((instance, opened))
        };
        let Ok((instance, opened)) = open() else {
            return Err(error);
        };
        self.notes.add(format!(
            "the shard cannot be loaded: {error}; what waits for upload can be uploaded all the same"
        ));
        self.adopt(instance, &opened);
        self.leave_readers();
        if let Phase::Open(instance) = std::mem::replace(&mut self.phase, Phase::Lost) {
            self.phase = Phase::QueueOnly {
                instance,
                cause: Arc::new(error),
                since: Instant::now(),
            };
        }
        Ok(opened)
    }

    /// A note with the guest's paths.
    fn add_guest_note(&self, note: &str) {
        let (guest, host) = (format!("{GUEST_DATA}/"), self.folder.join(""));
        self.notes
            .add(note.replace(&guest, &host.to_string_lossy()));
    }

    fn adopt(&mut self, instance: Instance, opened: &Opened) {
        for note in &opened.notes {
            self.add_guest_note(note);
        }
        tracing::debug!(
            generation = opened.generation,
            replayed = opened.replayed,
            "shard opened"
        );
        self.was_open = true;
        self.memory_at_open = instance.memory_bytes();
        self.writes_since_open = 0;
        self.phase = Phase::Open(Box::new(instance));
        self.openings += 1;
        self.tell_position();
    }

    /// Tells readers up to where the log has what calls returned.
    pub(crate) fn tell_position(&mut self) {
        let Some(standing) = self.standing.clone() else {
            return;
        };
        let limit = self.options.times.read;
        let last = match &mut self.phase {
            Phase::Open(instance) => instance.call("position", limit, |guest, store| {
                guest.edge_sync_shard_reader().call_position(store)
            }),
            _ => Err(Error::Closed("shard")),
        };
        let opening = self.openings;
        standing.set(last.ok().map(|last| Position { opening, last }));
    }

    /// No reader answers until the shard is opened again.
    fn leave_readers(&self) {
        if let Some(standing) = &self.standing {
            standing.set(None);
        }
    }

    /// Makes a copy for a reader.
    pub(crate) fn lend(&mut self, number: u32) -> Result<Position> {
        let limit = self.options.times.write;
        let last = self.run("lend", limit, Access::Looks, |guest, store| {
            guest.edge_sync_shard_reader().call_lend(store, number)
        })?;
        let opening = self.openings;
        Ok(Position { opening, last })
    }

    pub(crate) fn run<R>(
        &mut self,
        name: &'static str,
        limit: Duration,
        access: Access,
        function: impl Fn(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    ) -> Result<R> {
        self.be_open(access)?;
        let had_grown = self.has_grown() || self.writes_since_open >= WRITES_AN_OPENING;
        // Until a fresh instance has been tried.
        self.may_retry = had_grown && access == Access::Writes;
        let outcome = self.call(name, limit, access, &function);
        self.may_retry = false;
        if access == Access::Writes && outcome.is_ok() {
            self.writes_since_open += 1;
        }
        match &outcome {
            // A fresh instance holds the same in less, and nothing of the call has stayed.
            Err(Error::NoMemory(_)) if had_grown || self.has_grown() => self.close_instance()?,
            Err(Error::MemoryLimit { .. }) if had_grown && access == Access::Writes => {}
            Err(error) if error.is_no_memory() && access == Access::Writes => {
                return outcome.map_err(|error| self.or_shortage(error));
            }
            _ => return outcome,
        }
        self.be_open(access)?;
        let outcome = self.call(name, limit, access, &function);
        if matches!(&outcome, Err(error) if error.is_no_memory()) {
            // This is the least that the data takes.
            self.memory_at_open = usize::MAX;
        }
        outcome.map_err(|error| self.or_shortage(error))
    }

    pub(crate) fn shed_memory(&mut self) -> Result<()> {
        if self.is_full {
            self.is_full = false;
            self.close_instance()?;
        }
        Ok(())
    }

    /// A write that ran out of memory where too little was free for any, as what it is. Such writes
    /// are refused from then on before they are begun.
    fn or_shortage(&mut self, error: Error) -> Error {
        match error {
            Error::MemoryLimit { .. } if self.is_full => Error::NoMemory(self.shortage()),
            Error::NoMemory(_) if self.is_full => Error::NoMemory(self.shortage()),
            other => other,
        }
    }

    fn shortage(&self) -> MemoryShortage {
        let limit = self.options.memory_bytes;
        let used = match &self.phase {
            Phase::Open(instance) => instance.memory_bytes(),
            _ => limit,
        };
        MemoryShortage {
            needed_bytes: 2 * reserved_memory(limit) as u64,
            free_bytes: limit.saturating_sub(used) as u64,
            limit_bytes: limit as u64,
        }
    }

    /// Makes a call, once more if the shard has to be opened again for it, and sees to it that the
    /// shard is open afterwards.
    fn call<R>(
        &mut self,
        name: &'static str,
        limit: Duration,
        access: Access,
        function: impl Fn(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    ) -> Result<R> {
        let logged = self.before(access)?;
        let returned = self.failed_at.map_or(logged, |failed| failed.min(logged));
        let mut outcome = self.instance()?.call(name, limit, &function);
        if let Err(Error::NeedsReopen(why)) = outcome {
            self.phase = Phase::Lost;
            self.returned = returned;
            let opened = self.open()?;
            self.notes.add(format!(
                "the shard was opened again ({} operations replayed) after: {why}",
                opened.replayed
            ));
            self.be_open(access)?;
            // What a batch of several steps has done by now may be flushed, and then it stays.
            if self.before(access)? != returned && returned != ALL_RETURNED {
                return Err(Error::NeedsReopen(why));
            }
            outcome = self.instance()?.call(name, limit, &function);
        }
        match &outcome {
            // The queue says nothing of whether the shard is in doubt.
            Ok(_) if access != Access::Queue => self.failed_at = None,
            Ok(_) => {}
            Err(error) if error.ends_instance() => {
                self.phase = Phase::Lost;
                // What a retry has logged may be gone from the rejected log already.
                let is_retry = access == Access::Retries;
                self.returned = if is_retry { ALL_RETURNED } else { returned };
                self.recover(error);
                self.settle_memory(access, error);
                if is_retry && !matches!(self.phase, Phase::Open(_)) {
                    // It ended where it was applied, before that.
                    self.phase = Phase::Lost;
                    self.returned = returned;
                    self.recover(error);
                }
            }
            Err(_) if access == Access::Writes => self.failed_at = Some(returned),
            Err(_) => {}
        }
        outcome
    }

    /// After a write ran out of memory: whether that was for want of room for any, and not for what it
    /// asked. Then the shard is opened with a limit that is passed already.
    fn settle_memory(&mut self, access: Access, error: &Error) {
        let limit = self.options.memory_bytes;
        let needed = self
            .memory_at_open
            .saturating_add(2 * reserved_memory(limit));
        if access != Access::Writes
            || self.is_full
            || self.may_retry
            || !matches!(error, Error::MemoryLimit { .. })
            || !matches!(self.phase, Phase::Open(_))
            || needed <= limit
        {
            return;
        }
        self.is_full = true;
        self.phase = Phase::Lost;
        if let Err(error) = self.open() {
            self.notes
                .add(format!("opening the shard again failed: {error}"));
        }
    }

    /// Whether the instance's memory has grown so much since it was opened that a fresh one may do
    /// with less.
    fn has_grown(&self) -> bool {
        match &self.phase {
            Phase::Open(instance) => {
                let limit = self.options.memory_bytes;
                let at_first = self.memory_at_open.saturating_add(reserved_memory(limit));
                instance.memory_bytes().saturating_sub(at_first) >= limit / 8
            }
            // It was lost, and made anew already if that was possible.
            _ => false,
        }
    }

    /// Sees to it that the shard is open as far as a call needs it.
    fn be_open(&mut self, access: Access) -> Result<()> {
        if matches!(self.phase, Phase::Lost) {
            self.open()?;
        }
        let Phase::QueueOnly { cause, since, .. } = &self.phase else {
            return Ok(());
        };
        if access == Access::Queue {
            return Ok(());
        }
        let cause = Arc::clone(cause);
        if cause.is_no_space() && since.elapsed() >= LOAD_AGAIN {
            // There may be room by now.
            self.close_instance()?;
            self.open()?;
            if matches!(self.phase, Phase::Open(_)) {
                return Ok(());
            }
        }
        Err(Error::NotLoaded(cause))
    }

    /// What has to be known before a call: the log's last sequence, if the call may log.
    fn before(&mut self, access: Access) -> Result<u64> {
        if !matches!(access, Access::Writes | Access::Retries) {
            return Ok(ALL_RETURNED);
        }
        let free = disk::free_bytes(&self.folder);
        let limit = self.options.times.read;
        self.instance()?
            .call("before-write", limit, |guest, store| {
                guest.edge_sync_shard_shard().call_before_write(store, free)
            })
    }

    /// Opens the shard again in a fresh instance after `cause` ended the last one.
    fn recover(&mut self, cause: &Error) {
        let note = match self.open() {
            Ok(opened) => format!(
                "{cause}; the shard was opened again in a fresh instance, {} operations replayed",
                opened.replayed
            ),
            Err(error) => format!("{cause}; opening the shard again failed: {error}"),
        };
        self.notes.add(note);
    }

    fn instance(&mut self) -> Result<&mut Instance> {
        match &mut self.phase {
            Phase::Open(instance) | Phase::QueueOnly { instance, .. } => Ok(instance),
            Phase::Absent => Err(no_shard(&self.folder)),
            Phase::Lost => Err(Error::NeedsReopen("its instance is gone".into())),
            Phase::Closed => Err(Error::Closed("shard")),
        }
    }

    fn close_instance(&mut self) -> Result<()> {
        let mut instance = match std::mem::replace(&mut self.phase, Phase::Lost) {
            Phase::Open(instance) | Phase::QueueOnly { instance, .. } => instance,
            Phase::Absent | Phase::Lost => return Ok(()),
            Phase::Closed => {
                self.phase = Phase::Closed;
                return Err(Error::Closed("shard"));
            }
        };
        let limit = self.options.times.write;
        let closed = instance.call("close", limit, |guest, store| {
            guest.edge_sync_shard_shard().call_close(store)
        });
        match closed {
            Ok(notes) => {
                for note in &notes {
                    self.add_guest_note(note);
                }
                Ok(())
            }
            Err(error) if error.ends_instance() => {
                drop(instance);
                self.sync_log_after(&error)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes sure that everything is in the log, durably, after a flush ended the instance.
    fn sync_log_after(&mut self, cause: &Error) -> Result<()> {
        if self.options.durability != Durability::Always {
            // Opening the log makes what is in it durable.
            let mut instance = self.fresh()?;
            let options = self.options.for_guest();
            instance.call("open", self.options.times.open, |guest, store| {
                guest
                    .edge_sync_shard_queue()
                    .call_open(store, GUEST_DATA, options)
            })?;
        }
        self.notes.add(format!(
            "the shard was closed without a flush, everything is in its log: {cause}"
        ));
        Ok(())
    }

    pub(crate) fn remove(&mut self, discard_unsent: bool) -> Result<()> {
        // In one job with the removal, so that no write comes between.
        let limit = self.options.times.read;
        let queue = self.run("status", limit, Access::Queue, |guest, store| {
            guest.edge_sync_shard_queue().call_status(store)
        })?;
        if !discard_unsent && (queue.queued > 0 || queue.rejected > 0) {
            return Err(Error::Unsent {
                queued: queue.queued,
                rejected: queue.rejected,
            });
        }
        // Dropped without a flush. If the removal fails, the next call opens the shard again.
        self.leave_readers();
        self.phase = Phase::Lost;
        self.returned = ALL_RETURNED;
        remove_shard(&self.folder)?;
        self.phase = Phase::Absent;
        self.was_open = false;
        Ok(())
    }

    pub(crate) fn close(&mut self) -> Result<()> {
        self.leave_readers();
        let outcome = self.close_instance();
        self.phase = Phase::Closed;
        self.lock = None;
        outcome
    }

    pub(crate) fn promote(
        &mut self,
        mut staged: Instance,
        binding: Option<Binding>,
    ) -> Result<Opened> {
        let was_absent = matches!(self.phase, Phase::Absent);
        if matches!(self.phase, Phase::Lost)
            && let Err(error) = self.open()
        {
            // What the lost instance left in the log has to be taken back first.
            self.notes.add(format!(
                "the old generation could not be opened before the switch: {error}"
            ));
        }
        match self.close_instance() {
            Ok(()) => {}
            Err(error @ Error::Closed(_)) => return Err(error),
            // What it could not flush is in the log, which `promote` replays.
            Err(error) => self.notes.add(format!(
                "the old generation could not be flushed before the switch: {error}"
            )),
        }
        let promoted = staged.call("promote", self.options.times.open, |guest, store| {
            guest
                .edge_sync_shard_restore()
                .call_promote(store, binding.as_ref())
        });
        match promoted {
            Ok(opened) => {
                self.is_full = false;
                self.adopt(staged, &opened);
                Ok(opened)
            }
            Err(error) => {
                // Opening rolls back or finishes what was begun, and says which.
                drop(staged);
                match self.open() {
                    Ok(_) => {}
                    Err(Error::NotFound(_)) if was_absent => self.phase = Phase::Absent,
                    Err(reopening) => self.notes.add(format!(
                        "opening the shard after a failed switch failed: {reopening}"
                    )),
                }
                Err(error)
            }
        }
    }
}

/// What the guest keeps free of data, and takes from the host to see that it is there; as
/// `component/src/room.rs` has it.
fn reserved_memory(limit: usize) -> usize {
    (limit / 3).clamp(16 << 20, 128 << 20)
}

/// Whether the queue may be of use where this keeps the data from being loaded. Damage is told as it
/// is, since a person has to look at it.
fn leaves_the_queue(error: &Error) -> bool {
    error.ends_instance() || error.is_no_space() || error.is_no_memory()
}

impl Drop for ShardState {
    fn drop(&mut self) {
        if !matches!(self.phase, Phase::Closed)
            && let Err(error) = self.close()
        {
            tracing::error!("closing the shard: {error}");
        }
    }
}

/// Without its `CURRENT` there is no shard. The rest is only space: what a failure or a crash leaves
/// of it, the next shard's creation removes.
fn remove_shard(directory: &Path) -> Result<()> {
    let current = directory.join("CURRENT");
    std::fs::remove_file(&current).map_err(Error::io("remove", &current))?;
    // Windows neither needs nor offers it.
    #[cfg(not(windows))]
    std::fs::File::open(directory)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("sync", directory))?;
    if let Err(error) = std::fs::remove_file(directory.join("server.json"))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove the binding to a collection: {error}");
    }
    for name in ["log", "rejected", "generations", "readers"] {
        let folder = directory.join(name);
        if let Err(error) = std::fs::remove_dir_all(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove {}: {error}", folder.display());
        }
    }
    Ok(())
}

pub(crate) fn no_shard(directory: &Path) -> Error {
    Error::NotFound(format!("there is no shard in {}", directory.display()))
}

fn already_a_shard(directory: &Path) -> Error {
    Error::AlreadyExists(format!("a shard in {}", directory.display()))
}

pub(crate) fn fresh(
    component: &Component,
    options: &ShardOptions,
    folder: &Path,
) -> Result<Instance> {
    Instance::new(
        component,
        Grants {
            preopens: vec![Preopen::new(folder, GUEST_DATA, FsPerms::ReadWrite)],
            outbound: Outbound::Denied,
            memory_bytes: options.memory_bytes,
        },
    )
}
