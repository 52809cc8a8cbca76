//! Instances that answer reads beside the shard's own, so that searches use more than one core.
//!
//! A reader has a copy of the shard's files and follows its log (`wit/reader.wit`). It is started when
//! reads find the shard's instance busy again and again, brought up to the last write that has returned
//! before it answers, and ended when nobody has needed it for a while. Whatever goes wrong with it, the
//! shard's own instance answers instead.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime_wasi::FsPerms;

use crate::actor::Actor;
use crate::bindings::EdgeSync;
use crate::bindings::exports::edge_sync::shard::types::Error as GuestError;
use crate::component::Component;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::instance::{Grants, GuestCall, Instance, Preopen};
use crate::outbound::Outbound;
use crate::shard_options::ShardOptions;
use crate::shard_state::{GUEST_DATA, ShardState};
use crate::standing::{Position, Standing};

/// In the data directory, as `reader.lend` has it: the readers' copies.
const FOLDER: &str = "readers";

/// A reader's copy, in the guest.
const GUEST_COPY: &str = "/copy";

/// Reads that find every instance busy before another reader is started: a reader takes as much memory
/// as the shard, which a passing crowd is not worth.
const WAITED: u32 = 16;

/// How long a reader stays that nobody needs.
const IDLE: Duration = Duration::from_secs(60);

/// How long none is started after one failed.
const FAILED: Duration = Duration::from_secs(60);

/// How many operations a reader may be behind before it is told to follow without being asked to read:
/// it would keep a read waiting, or the log would forget what it lacks.
const BEHIND: u64 = 1000;

/// The readers of a shard, started or not.
pub(crate) struct Readers {
    slots: Vec<Slot>,
    /// Where their copies are, each in a folder of its own.
    folder: PathBuf,
    standing: Arc<Standing>,
    waited: AtomicU32,
}

struct Slot {
    actor: Actor<Reader>,
    shared: Arc<Shared>,
}

/// What is known of a reader without asking it.
#[derive(Debug, Default)]
struct Shared {
    /// The opening that lent its copy; 0 without one.
    opening: AtomicU64,
    /// Up to which operation it is.
    followed: AtomicU64,
    starting: AtomicBool,
    failed: Mutex<Option<Instant>>,
}

impl Shared {
    fn may_start(&self) -> bool {
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_none_or(|at| at.elapsed() >= FAILED)
    }
}

/// A reader that a read goes to, and what the read must see.
pub(crate) struct Chosen<'a> {
    slot: &'a Slot,
    position: Position,
}

impl Readers {
    /// Up to as many as the options say; none is started yet.
    pub(crate) fn new(
        component: &Component,
        options: &ShardOptions,
        folder: &std::path::Path,
        standing: &Arc<Standing>,
        writer: &Arc<Actor<ShardState>>,
    ) -> Result<Readers> {
        let slots = (0..options.readers)
            .map(|number| {
                let shared = Arc::new(Shared::default());
                let number = u32::try_from(number).unwrap_or(u32::MAX);
                let reader = Reader {
                    number,
                    component: component.clone(),
                    options: options.clone(),
                    folder: folder.to_owned(),
                    writer: Arc::clone(writer),
                    shared: Arc::clone(&shared),
                    open: None,
                    last_read: Instant::now(),
                };
                let actor = Actor::spawn_idle("reader", reader, IDLE, Reader::end)?;
                Ok(Slot { actor, shared })
            })
            .collect::<Result<_>>()?;
        Ok(Readers {
            slots,
            folder: folder.join(FOLDER),
            standing: Arc::clone(standing),
            waited: AtomicU32::new(0),
        })
    }

    /// How many are running.
    pub(crate) fn running(&self) -> usize {
        let runs = |slot: &&Slot| slot.shared.opening.load(Ordering::Acquire) != 0;
        self.slots.iter().filter(runs).count()
    }

    /// The reader that a read goes to; none if the shard's own instance, for which `waiting` calls
    /// wait, is the better place.
    pub(crate) fn choose(&self, waiting: usize) -> Option<Chosen<'_>> {
        if waiting == 0 || self.slots.is_empty() {
            return None;
        }
        let position = self.standing.get()?;
        let ready = |slot: &&Slot| slot.shared.opening.load(Ordering::Acquire) == position.opening;
        let least = self
            .slots
            .iter()
            .filter(ready)
            .map(|slot| (slot.actor.waiting(), slot))
            .min_by_key(|(waits, _)| *waits);
        if let Some((waits, slot)) = least
            && waits < waiting
        {
            if waits > 0 {
                self.start_after_a_while();
            }
            return Some(Chosen { slot, position });
        }
        self.start_after_a_while();
        None
    }

    /// Every instance was busy: starts another reader, if that goes on.
    fn start_after_a_while(&self) {
        if self.waited.fetch_add(1, Ordering::Relaxed) < WAITED {
            return;
        }
        self.waited.store(0, Ordering::Relaxed);
        let Some(position) = self.standing.get() else {
            return;
        };
        let idle = self.slots.iter().find(|slot| {
            slot.shared.opening.load(Ordering::Acquire) != position.opening
                && slot.shared.may_start()
        });
        if let Some(slot) = idle
            && !slot.shared.starting.swap(true, Ordering::AcqRel)
        {
            slot.actor.tell(Reader::start);
        }
    }

    /// After a write: has readers follow that are far behind.
    pub(crate) fn written(&self) {
        let Some(position) = self.standing.get() else {
            return;
        };
        for slot in &self.slots {
            if slot.shared.opening.load(Ordering::Acquire) == position.opening
                && position
                    .last
                    .saturating_sub(slot.shared.followed.load(Ordering::Relaxed))
                    > BEHIND
                && slot.actor.waiting() == 0
            {
                slot.actor.tell(move |reader| reader.keep_up(position));
            }
        }
    }

    /// Ends all of them; waits for what they are doing.
    pub(crate) fn end(&self) {
        for slot in &self.slots {
            let _ = slot.actor.call(|reader| {
                reader.end();
                Ok(())
            });
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.slots.clear();
        // With nothing in it, or not there; else the next opening of the shard removes it.
        let _ = std::fs::remove_dir(&self.folder);
    }
}

impl Chosen<'_> {
    /// Has the reader make a call. None if it could not; it is of no use then.
    pub(crate) fn call<R: Send + 'static>(
        &self,
        name: &'static str,
        limit: Duration,
        function: &Arc<impl GuestCall<R>>,
    ) -> Option<Result<R>> {
        let read = self.read(name, limit, function);
        self.slot.actor.call(read).ok().flatten()
    }

    /// [`Chosen::call`] for async callers.
    pub(crate) async fn call_async<R: Send + 'static>(
        &self,
        name: &'static str,
        limit: Duration,
        function: &Arc<impl GuestCall<R>>,
    ) -> Option<Result<R>> {
        let read = self.read(name, limit, function);
        self.slot.actor.call_async(read).await.ok().flatten()
    }

    /// The call, as the reader's thread makes it.
    fn read<R, F: GuestCall<R>>(
        &self,
        name: &'static str,
        limit: Duration,
        function: &Arc<F>,
    ) -> impl FnOnce(&mut Reader) -> Result<Option<Result<R>>> + Send + use<R, F> {
        let (position, function) = (self.position, Arc::clone(function));
        move |reader| {
            let call = |guest: &EdgeSync, store: &mut Store<Guest>| function(guest, store);
            Ok(reader.read(name, limit, position, call))
        }
    }
}

/// What lives on a reader's thread.
struct Reader {
    number: u32,
    component: Component,
    options: ShardOptions,
    /// The shard's data directory.
    folder: PathBuf,
    writer: Arc<Actor<ShardState>>,
    shared: Arc<Shared>,
    open: Option<Open>,
    last_read: Instant,
}

struct Open {
    instance: Instance,
    position: Position,
}

impl Reader {
    fn start(&mut self) {
        self.end();
        if let Err(error) = self.open() {
            self.end();
            if !matches!(error, Error::Closed(_)) {
                tracing::warn!("a reader was not started: {error}");
            }
            let mut failed = self
                .shared
                .failed
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *failed = Some(Instant::now());
        }
        self.shared.starting.store(false, Ordering::Release);
    }

    fn open(&mut self) -> Result<()> {
        let number = self.number;
        let position = self.writer.call(move |state| state.lend(number))?;
        let mut instance = Instance::new(
            &self.component,
            Grants {
                preopens: vec![
                    Preopen::new(&self.folder, GUEST_DATA, FsPerms::ReadOnly),
                    Preopen::new(self.copy(), GUEST_COPY, FsPerms::ReadWrite),
                ],
                outbound: Outbound::Denied,
                memory_bytes: self.options.memory_bytes,
            },
        )?;
        instance.call("open", self.options.times.open, |guest, store| {
            guest
                .edge_sync_shard_reader()
                .call_open(store, GUEST_DATA, GUEST_COPY, position.last)
        })?;
        tracing::debug!(number, "a reader was started");
        self.open = Some(Open { instance, position });
        self.last_read = Instant::now();
        self.shared.followed.store(position.last, Ordering::Relaxed);
        self.shared
            .opening
            .store(position.opening, Ordering::Release);
        Ok(())
    }

    fn copy(&self) -> PathBuf {
        self.folder.join(FOLDER).join(self.number.to_string())
    }

    /// Gives back what it has.
    fn end(&mut self) {
        self.shared.opening.store(0, Ordering::Release);
        if self.open.take().is_none() && !self.copy().exists() {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(self.copy())
            && error.kind() != std::io::ErrorKind::NotFound
        {
            // The next opening of the shard removes it.
            tracing::warn!("a reader's copy is not removed yet: {error}");
        }
    }

    /// Follows the log, unless nobody has read for a while.
    fn keep_up(&mut self, position: Position) {
        if self.last_read.elapsed() >= IDLE {
            self.end();
        } else if let Err(error) = self.follow(position) {
            self.lose(&error);
        }
    }

    fn follow(&mut self, wanted: Position) -> Result<()> {
        let limit = self.options.times.open;
        let open = match &mut self.open {
            Some(open) if open.position.opening == wanted.opening => open,
            _ => return Err(Error::Closed("reader")),
        };
        if open.position.last < wanted.last {
            open.position.last = open.instance.call("follow", limit, |guest, store| {
                guest
                    .edge_sync_shard_reader()
                    .call_follow(store, wanted.last)
            })?;
            self.shared
                .followed
                .store(open.position.last, Ordering::Relaxed);
        }
        Ok(())
    }

    fn read<R>(
        &mut self,
        name: &'static str,
        limit: Duration,
        wanted: Position,
        function: impl FnOnce(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    ) -> Option<Result<R>> {
        if let Err(error) = self.follow(wanted) {
            self.lose(&error);
            return None;
        }
        self.last_read = Instant::now();
        let outcome = self.open.as_mut()?.instance.call(name, limit, function);
        match outcome {
            // Again, in the shard's own instance, it would take as long.
            Err(error @ Error::TimedOut { .. }) => {
                self.lose(&error);
                Some(Err(error))
            }
            Err(error) if error.ends_instance() || matches!(error, Error::NeedsReopen(_)) => {
                self.lose(&error);
                None
            }
            outcome => Some(outcome),
        }
    }

    fn lose(&mut self, error: &Error) {
        if self.open.is_some() {
            tracing::debug!("a reader has ended: {error}");
        }
        self.end();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.end();
    }
}
