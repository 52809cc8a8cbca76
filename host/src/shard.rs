//! The shard instance: a data directory, no network.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use wasmtime::Store;
use wasmtime_wasi::FsPerms;

use crate::background;
use crate::bindings::EdgeSync;
use crate::bindings::exports::edge_sync::shard::restore::PlannedOptimization;
use crate::bindings::exports::edge_sync::shard::types::{Error as GuestError, Options};
use crate::cancel::Cancel;
use crate::component::Component;
use crate::disk;
use crate::error::{Error, Result};
use crate::instance::{Grants, Guest, GuestCall, Instance, Preopen, TimeLimits};
use crate::lock::DirectoryLock;
use crate::optimize::{
    MOST_BUILDERS, OptimizeProgress, OptimizeReport, default_builders, optimize,
};
use crate::outbound::Outbound;
use crate::owner::Owner;
use crate::readers::{Chosen, MOST_READERS, Position, Readers, Standing};
use crate::setters::setters;
use crate::types::{
    Binding, Difference, Durability, Info, MemoryShortage, Opened, Point, PointId, QueueLimits,
    QueueProgress, QueueStanding, QueueStatus, Receipt, Refusal, RejectedOperation, ScoredPoint,
    ScrollPage, ScrollRequest, SearchRequest, Selection, StoredPoint, UploadBatch,
    WaitingOperation,
};

/// The data directory's name in the guest.
pub(crate) const GUEST_DATA: &str = "/data";

/// Rejected operations that are queued again in one call, between which others have their turn.
const RETRIED_A_CALL: u32 = 500;

/// Most memory that a 32-bit guest can address.
const MAX_MEMORY_BYTES: usize = 4 << 30;

/// Notes that are kept for whoever asks.
const MAX_NOTES: usize = 100;

/// How often loading a shard is tried again that could not be loaded because the disk was full.
const LOAD_AGAIN: Duration = Duration::from_secs(10);

/// Writes that an instance has to have taken before another is opened for want of memory, if its own
/// has not grown much.
const WRITES_AN_OPENING: u32 = 32;

/// Stands for "nothing to take back" where the log's last sequence is asked for.
const ALL_RETURNED: u64 = u64::MAX;

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

impl ShardOptions {
    pub(crate) fn for_guest(&self) -> Options {
        Options {
            durability: self.durability,
            log_segment_bytes: self.log_segment_bytes,
            flush_after_bytes: self.flush_after_bytes,
            memory_bytes: Some(self.memory_bytes as u64),
        }
    }

    fn check(&self) -> Result<()> {
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

/// A shard in a data directory. Clones are handles to the same shard; when the last is dropped,
/// the shard is flushed and closed and the directory released.
///
/// Calls wait for those before them, but for reads that go to a reader ([`ShardOptions::readers`]). Each has a twin for async callers, whose call is carried out
/// even if the future is dropped.
#[derive(Clone)]
pub struct Shard {
    inner: Arc<Inner>,
}

struct Inner {
    /// They call the owner, and so are gone before it.
    readers: Readers,
    owner: Arc<Owner<ShardState>>,
    component: Component,
    options: ShardOptions,
    folder: PathBuf,
    notes: Notes,
    on_write: Arc<WriteHooks>,
    restoring: Mutex<()>,
}

/// What is called after each write, on the owner's thread.
#[derive(Default)]
struct WriteHooks(RwLock<Vec<Box<dyn Fn() + Send + Sync>>>);

impl WriteHooks {
    fn call(&self) {
        for hook in &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            hook();
        }
    }
}

/// What a person should know, gathered until asked for.
#[derive(Clone, Debug, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

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
}

impl Shard {
    /// Creates a shard in `directory`, which must be empty or missing, and opens it. `config` is
    /// the body of Qdrant's `PUT /collections/{c}`.
    ///
    /// Errors: [`Error::InvalidInput`] names the field of the configuration;
    /// [`Error::AlreadyExists`]; [`Error::Locked`]; [`Error::Storage`].
    pub fn create(
        component: &Component,
        directory: impl AsRef<Path>,
        config: &str,
        options: ShardOptions,
    ) -> Result<Shard> {
        let shard = Shard::start(component, directory.as_ref(), options)?;
        shard.create_here(config)?;
        Ok(shard)
    }

    /// Opens the shard in `directory`. What opening found (a repaired log, an interrupted restore)
    /// is in [`Shard::notes`]. Where memory or disk are too small to load its data, or loading traps,
    /// it is opened all the same, for what waits for upload: calls on the data are
    /// [`Error::NotLoaded`].
    ///
    /// Errors: [`Error::NotFound`] if there is no shard; [`Error::Corrupt`]; [`Error::Locked`].
    pub fn open(
        component: &Component,
        directory: impl AsRef<Path>,
        options: ShardOptions,
    ) -> Result<Shard> {
        let directory = directory.as_ref();
        // Before the lock file makes an empty directory look used.
        if is_empty(directory)? {
            return Err(no_shard(directory));
        }
        let shard = Shard::start(component, directory, options)?;
        shard.inner.owner.call(ShardState::open)?;
        Ok(shard)
    }

    /// Takes `directory` and opens the shard in it if there is one; otherwise calls fail with
    /// [`Error::NotFound`] until a restore, or [`Shard::create_here`], has made one.
    pub fn attach(
        component: &Component,
        directory: impl AsRef<Path>,
        options: ShardOptions,
    ) -> Result<Shard> {
        let shard = Shard::start(component, directory.as_ref(), options)?;
        match shard.inner.owner.call(ShardState::open) {
            Ok(_) | Err(Error::NotFound(_)) => Ok(shard),
            Err(error) => Err(error),
        }
    }

    /// Creates a shard in a directory that was attached without one.
    ///
    /// Errors: as [`Shard::create`]; [`Error::Restoring`].
    pub fn create_here(&self, config: &str) -> Result<Opened> {
        let _alone = self.no_restore()?;
        let config = config.to_owned();
        self.inner.owner.call(move |state| state.create(&config))
    }

    /// Removes the shard and its log. Calls fail with [`Error::NotFound`] until
    /// [`Shard::create_here`], or a restore, has made another. Unless `discard_unsent`, it fails
    /// with [`Error::Unsent`] if something waits for upload or was refused by the server.
    pub(crate) fn remove(&self, discard_unsent: bool) -> Result<()> {
        let _alone = self.no_restore()?;
        self.inner
            .owner
            .call(move |state| state.remove(discard_unsent))
    }

    fn start(component: &Component, directory: &Path, options: ShardOptions) -> Result<Shard> {
        options.check()?;
        std::fs::create_dir_all(directory)
            .map_err(Error::io("create the data directory", directory))?;
        let lock = match &options.process_name {
            Some(name) => DirectoryLock::acquire_as(directory, name)?,
            None => DirectoryLock::acquire(directory)?,
        };
        let notes = Notes::default();
        let standing = Arc::new(Standing::default());
        let owner = Arc::new(Owner::spawn(
            "shard",
            ShardState {
                component: component.clone(),
                options: options.clone(),
                folder: directory.to_owned(),
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
                standing: (options.readers > 0).then(|| Arc::clone(&standing)),
                notes: notes.clone(),
                lock: Some(lock),
            },
        )?);
        let readers = Readers::new(component, &options, directory, &standing, &owner)?;
        Ok(Shard {
            inner: Arc::new(Inner {
                readers,
                owner,
                component: component.clone(),
                options,
                folder: directory.to_owned(),
                notes,
                on_write: Arc::default(),
                restoring: Mutex::new(()),
            }),
        })
    }

    /// Keeps restores out, and what they must not meet: other restores, pulls, optimizations, the
    /// creation and the removal of the shard.
    ///
    /// Errors: [`Error::Restoring`], at once.
    pub(crate) fn no_restore(&self) -> Result<MutexGuard<'_, ()>> {
        match self.inner.restoring.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::Restoring(self.inner.folder.clone())),
        }
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        &self.inner.folder
    }

    /// True if there is a shard to work with: not before the first restore into an empty
    /// directory.
    pub fn is_present(&self) -> Result<bool> {
        self.inner
            .owner
            .call(|state| Ok(!matches!(state.phase, Phase::Absent)))
    }

    /// What happened that a person should know, since the last call: repairs at opening,
    /// restores that were finished or rolled back, instances that trapped and were replaced.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self
            .inner
            .notes
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut notes)
    }

    /// Flushes and closes the shard and releases the directory. Calls through other handles fail
    /// from then on. A flush that fails is in [`Shard::notes`]: everything is in the log.
    ///
    /// Errors: [`Error::Storage`] if the log could not be synced.
    pub fn close(&self) -> Result<()> {
        self.inner.readers.end();
        let closed = self.inner.owner.call(ShardState::close);
        // Those that were started meanwhile.
        self.inner.readers.end();
        closed
    }

    /// How many instances answer reads beside the shard's own, now.
    pub fn running_readers(&self) -> usize {
        self.inner.readers.running()
    }

    /// Queues all rejected operations again: those that there are when the call begins. What is
    /// queued again leaves the rejected log; what the shard does not take any more stays there.
    pub fn retry_all_rejected(&self) -> Result<RetryReport> {
        let last = self.queue_status()?.acknowledged;
        let limit = self.inner.options.times.write;
        let mut report = RetryReport::default();
        let mut next = Some(0);
        // What is refused meanwhile comes after `last`, and must not be gone after for ever.
        while let Some(after) = next.filter(|after| *after < last) {
            let retried = self.inner.owner.call(self.job(
                "retry_rejected_after",
                limit,
                Effect::Retries,
                move |guest, store| {
                    guest.edge_sync_shard_queue().call_retry_rejected_after(
                        store,
                        after,
                        RETRIED_A_CALL,
                    )
                },
            ))?;
            report.sequences.extend(retried.sequences);
            let failures = retried.failures.into_iter();
            report
                .failures
                .extend(failures.map(|failed| (failed.sequence, Error::from(failed.why))));
            next = retried.next;
        }
        Ok(report)
    }

    /// Calls `hook` after each write.
    pub(crate) fn on_write(&self, hook: impl Fn() + Send + Sync + 'static) {
        let hooks = self.inner.on_write.0.write();
        hooks
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(hook));
    }

    /// A second instance over the same directory, with nothing open, for a restore.
    pub(crate) fn fresh_instance(&self) -> Result<Instance> {
        fresh(
            &self.inner.component,
            &self.inner.options,
            &self.inner.folder,
        )
    }

    pub(crate) fn options(&self) -> &ShardOptions {
        &self.inner.options
    }

    /// Puts `staged`, which has staged a generation, in the place of the instance in force. Calls
    /// that come meanwhile wait. If it fails, the old generation is open again.
    /// `binding`: the collection that the snapshot came from.
    pub(crate) fn promote(&self, staged: Instance, binding: Option<Binding>) -> Result<Opened> {
        self.inner
            .owner
            .call(move |state| state.promote(staged, binding))
    }

    /// Merges segments and builds indexes as the configuration asks, in another instance: reads,
    /// writes and uploads go on meanwhile, and wait for a moment at the beginning, when the shard is
    /// copied, and at the end, when the copy takes its place. True if anything was done. The other
    /// instance takes memory, as this one does, and the copy disk, until then.
    ///
    /// Errors: [`Error::Restoring`] at once if a restore, a pull or an optimization is under way;
    /// [`Error::Storage`], [`Error::MemoryLimit`], [`Error::TimedOut`]. The shard is as before.
    pub fn optimize(&self) -> Result<bool> {
        let report = self.optimize_with(&Cancel::new(), |_| {})?;
        Ok(report.changed())
    }

    /// [`Shard::optimize`] for async callers. If the future is dropped, it is cancelled.
    pub async fn optimize_async(&self) -> Result<bool> {
        let shard = self.clone();
        background::run("optimization", move |cancel| {
            Ok(shard.optimize_with(cancel, |_| {})?.changed())
        })
        .await
    }

    /// [`Shard::optimize`] that can be cancelled, and tells its progress.
    ///
    /// Errors: as [`Shard::optimize`]; [`Error::Cancelled`], and nothing is left of it.
    pub fn optimize_with(
        &self,
        cancel: &Cancel,
        mut progress: impl FnMut(OptimizeProgress),
    ) -> Result<OptimizeReport> {
        optimize(self, cancel, &mut progress)
    }

    /// Copies the shard for other instances; answers the optimizations that are due, none if there is
    /// no copy since there is nothing to do. See `restore.begin-optimize`.
    pub(crate) fn begin_optimize(&self) -> Result<Option<Vec<PlannedOptimization>>> {
        let limit = self.inner.options.times.write;
        self.inner.owner.call(
            self.job("begin-optimize", limit, Effect::Looks, |guest, store| {
                let restore = guest.edge_sync_shard_restore();
                let planned = match restore.call_plan_optimize(&mut *store)? {
                    Ok(planned) => planned,
                    Err(error) => return Ok(Err(error)),
                };
                let begun = restore.call_begin_optimize(store)?;
                Ok(begun.map(|begun| begun.map(|_| planned)))
            }),
        )
    }

    /// Removes the copy, unless it has come into force.
    pub(crate) fn end_optimize(&self) -> Result<()> {
        let limit = self.inner.options.times.write;
        self.inner.owner.call(
            self.job("end-optimize", limit, Effect::Queue, |guest, store| {
                guest.edge_sync_shard_restore().call_end_optimize(store)
            }),
        )
    }

    /// Opens the shard in a fresh instance if its memory was full: what was deleted is gone from there.
    pub(crate) fn shed_memory(&self) -> Result<()> {
        self.inner.owner.call(ShardState::shed_memory)
    }

    /// Any request of Qdrant's points API, and `PATCH` of the collection's parameters: `path` below `/collections/{c}` with its query string,
    /// and body. Answers the REST `result`.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Result<String> {
        self.ask("request", method, path, request_call(method, path, body))
    }

    /// [`Shard::request`] for async callers.
    pub async fn request_async(&self, method: &str, path: &str, body: &str) -> Result<String> {
        let call = request_call(method, path, body);
        self.ask_async("request", method, path, call).await
    }

    /// As [`Shard::request`], for an endpoint that stands in for a server: read and refused as
    /// Qdrant 1.19 does it. What is refused is an answer.
    pub fn answer(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<std::result::Result<String, Refusal>> {
        self.ask("answer", method, path, answer_call(method, path, body))
    }

    /// [`Shard::answer`] for async callers.
    pub async fn answer_async(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<std::result::Result<String, Refusal>> {
        let call = answer_call(method, path, body);
        self.ask_async("answer", method, path, call).await
    }

    /// Makes the call of a request. The parameters of a collection are copied with a generation, and must
    /// not change meanwhile.
    fn ask<R: Send + 'static>(
        &self,
        name: &'static str,
        method: &str,
        path: &str,
        call: impl GuestCall<R>,
    ) -> Result<R> {
        let _alone = is_configuration(method, path)
            .then(|| self.no_restore())
            .transpose()?;
        let (limit, effect) = self.cost(method, path);
        self.carry_out(name, limit, effect, call)
    }

    /// [`Shard::ask`] for async callers.
    async fn ask_async<R: Send + 'static>(
        &self,
        name: &'static str,
        method: &str,
        path: &str,
        call: impl GuestCall<R>,
    ) -> Result<R> {
        if is_configuration(method, path) {
            // What keeps restores out is a thread's.
            let (shard, method, path) = (self.clone(), method.to_owned(), path.to_owned());
            let ask = move |_: &Cancel| shard.ask(name, &method, &path, call);
            return background::run("configuration", ask).await;
        }
        let (limit, effect) = self.cost(method, path);
        self.carry_out_async(name, limit, effect, call).await
    }

    /// How long a request of the points API may take, and whether it may leave something to upload.
    fn cost(&self, method: &str, path: &str) -> (Duration, Effect) {
        let times = &self.inner.options.times;
        match is_read(method, path) {
            true => (times.read, Effect::Reads),
            false => (times.write, Effect::Writes),
        }
    }

    /// Makes a call that may read in another instance than the shard's own.
    fn carry_out<R, F>(
        &self,
        name: &'static str,
        limit: Duration,
        effect: Effect,
        function: F,
    ) -> Result<R>
    where
        R: Send + 'static,
        F: GuestCall<R>,
    {
        let function = Arc::new(function);
        if let Some(reader) = self.reader(effect)
            && let Some(answer) = reader.call(name, limit, &function)
        {
            return answer;
        }
        let outcome = self
            .inner
            .owner
            .call(self.job(name, limit, effect, move |guest, store| {
                function(guest, store)
            }));
        self.after(effect);
        outcome
    }

    /// [`Shard::carry_out`] for async callers.
    async fn carry_out_async<R, F>(
        &self,
        name: &'static str,
        limit: Duration,
        effect: Effect,
        function: F,
    ) -> Result<R>
    where
        R: Send + 'static,
        F: GuestCall<R>,
    {
        let function = Arc::new(function);
        if let Some(reader) = self.reader(effect)
            && let Some(answer) = reader.call_async(name, limit, &function).await
        {
            return answer;
        }
        let job = self.job(name, limit, effect, move |guest, store| {
            function(guest, store)
        });
        let outcome = self.inner.owner.call_async(job).await;
        self.after(effect);
        outcome
    }

    /// The reader that a call goes to, if one is the better place.
    fn reader(&self, effect: Effect) -> Option<Chosen<'_>> {
        match effect {
            Effect::Reads => self.inner.readers.choose(self.inner.owner.waiting()),
            _ => None,
        }
    }

    fn after(&self, effect: Effect) {
        if effect.logs() {
            self.inner.readers.written();
        }
    }

    /// A call as the owner's thread makes it.
    fn job<R, F>(
        &self,
        name: &'static str,
        limit: Duration,
        effect: Effect,
        function: F,
    ) -> impl FnOnce(&mut ShardState) -> Result<R> + use<R, F>
    where
        F: Fn(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    {
        let on_write = Arc::clone(&self.inner.on_write);
        move |state| {
            let outcome = state.run(name, limit, effect, function);
            // Here, so that it is done for a caller who did not wait, too.
            if effect.logs() {
                if outcome.is_ok() {
                    state.tell_position();
                }
                on_write.call();
            }
            outcome
        }
    }
}

fn request_call(method: &str, path: &str, body: &str) -> impl GuestCall<String> + use<> {
    let (method, path, body) = (method.to_owned(), path.to_owned(), body.to_owned());
    move |guest: &EdgeSync, store: &mut Store<Guest>| {
        let shard = guest.edge_sync_shard_shard();
        shard.call_request(store, &method, &path, &body)
    }
}

fn answer_call(
    method: &str,
    path: &str,
    body: &str,
) -> impl GuestCall<std::result::Result<String, Refusal>> + use<> {
    let (method, path, body) = (method.to_owned(), path.to_owned(), body.to_owned());
    move |guest: &EdgeSync, store: &mut Store<Guest>| {
        let shard = guest.edge_sync_shard_shard();
        shard.call_answer(store, &method, &path, &body)
    }
}

/// What became of the rejected operations of a [`Shard::retry_all_rejected`].
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RetryReport {
    /// Sequences of those that are queued again.
    pub sequences: Vec<u64>,
    /// Sequences of those that the shard does not take any more, and why.
    pub failures: Vec<(u64, Error)>,
}

/// Whether a request changes the collection's parameters.
fn is_configuration(method: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path);
    method.eq_ignore_ascii_case("PATCH") && path.trim_matches('/').is_empty()
}

/// Whether a request of the points API changes nothing.
fn is_read(method: &str, path: &str) -> bool {
    let path = path.split('?').next().unwrap_or(path).trim_end_matches('/');
    match method.to_ascii_uppercase().as_str() {
        "GET" => true,
        "POST" => ![
            "/points/batch",
            "/points/delete",
            "/points/payload",
            "/points/payload/clear",
            "/points/payload/delete",
            "/points/vectors/delete",
        ]
        .contains(&path),
        _ => false,
    }
}

/// True if nothing is there, or only an empty directory.
fn is_empty(directory: &Path) -> Result<bool> {
    match std::fs::read_dir(directory) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io("read the data directory", directory)(error)),
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

fn fresh(component: &Component, options: &ShardOptions, folder: &Path) -> Result<Instance> {
    Instance::new(
        component,
        Grants {
            preopens: vec![Preopen::new(folder, GUEST_DATA, FsPerms::ReadWrite)],
            outbound: Outbound::Denied,
            memory_bytes: options.memory_bytes,
        },
    )
}

/// What a call works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
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

impl Effect {
    /// Whether a call may write to the log.
    fn logs(self) -> bool {
        matches!(self, Effect::Writes | Effect::Retries)
    }
}

/// Makes each WIT function a method and its async twin. `[limit effect]` are the field of
/// [`TimeLimits`] that applies, and what the call works on; each argument says how it is owned for the way to the owner's thread, and how the guest gets it.
macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        [$limit:ident $effect:ident]
        $name:ident / $name_async:ident = $interface:ident . $function:ident
        ($($argument:ident: $type:ty = $own:expr => $pass:expr),*) -> $result:ty;
    )*) => {
        #[allow(clippy::redundant_locals, reason = "some arguments are owned already")]
        impl Shard {
            $(
                $(#[$doc])*
                pub fn $name(&self, $($argument: $type),*) -> Result<$result> {
                    $(let $argument = $own;)*
                    let limit = self.inner.options.times.$limit;
                    self.carry_out(
                        stringify!($name),
                        limit,
                        Effect::$effect,
                        move |guest, store| guest.$interface().$function(store, $($pass),*),
                    )
                }

                #[doc = concat!("[`Shard::", stringify!($name), "`] for async callers.")]
                pub async fn $name_async(&self, $($argument: $type),*) -> Result<$result> {
                    $(let $argument = $own;)*
                    let limit = self.inner.options.times.$limit;
                    self.carry_out_async(
                        stringify!($name),
                        limit,
                        Effect::$effect,
                        move |guest, store| guest.$interface().$function(store, $($pass),*),
                    ).await
                }
            )*
        }
    };
}

calls! {
    /// Inserts points, or replaces those whose ids exist. All of them or, on error, none. Durable
    /// as the durability setting promises when it returns.
    [write Writes] upsert / upsert_async = edge_sync_shard_shard.call_upsert
    (points: Vec<Point> = points => &points) -> Receipt;

    /// Deletes points by id; ids that the shard does not hold are deleted on the server too.
    [write Writes] delete / delete_async = edge_sync_shard_shard.call_delete
    (ids: Vec<PointId> = ids => &ids) -> Receipt;

    /// Deletes the points that match a REST `filter`, resolved to ids now.
    [write Writes] delete_by_filter / delete_by_filter_async
        = edge_sync_shard_shard.call_delete_by_filter
    (filter: &str = filter.to_owned() => &filter) -> Receipt;

    /// A mix of operations in order: the body of Qdrant's `POST /points/batch`.
    [write Writes] batch / batch_async = edge_sync_shard_shard.call_batch
    (body: &str = body.to_owned() => &body) -> Receipt;

    /// Creates a payload index; `schema` is the REST `field_schema`.
    [write Writes] create_payload_index / create_payload_index_async
        = edge_sync_shard_shard.call_create_payload_index
    (field_name: &str = field_name.to_owned() => &field_name,
     schema: &str = schema.to_owned() => &schema) -> Receipt;

    /// Removes a payload index.
    [write Writes] delete_payload_index / delete_payload_index_async
        = edge_sync_shard_shard.call_delete_payload_index
    (field_name: &str = field_name.to_owned() => &field_name) -> Receipt;

    /// Points by id, in the order asked; ids that do not exist are left out.
    [read Reads] retrieve / retrieve_async = edge_sync_shard_shard.call_retrieve
    (ids: Vec<PointId> = ids => &ids, selection: Selection = selection => &selection)
        -> Vec<StoredPoint>;

    /// The nearest points, best first.
    [read Reads] search / search_async = edge_sync_shard_shard.call_search
    (request: SearchRequest = request => &request) -> Vec<ScoredPoint>;

    /// One page of points in order of id.
    [read Reads] scroll / scroll_async = edge_sync_shard_shard.call_scroll
    (request: ScrollRequest = request => &request) -> ScrollPage;

    /// How many points match a REST `filter`, exactly; all of them without one.
    [read Reads] count / count_async = edge_sync_shard_shard.call_count
    (filter: Option<&str> = filter.map(str::to_owned) => filter.as_ref()) -> u64;

    /// Whether [`Shard::optimize`] has something to do: vectors above the configured
    /// `indexing_threshold` without an index, segments to merge, many deleted points.
    [read Looks] needs_optimize / needs_optimize_async = edge_sync_shard_shard.call_needs_optimize
    () -> bool;

    /// Makes everything applied durable in the shard itself, so that the next opening has no log
    /// to replay.
    [write Queue] flush / flush_async = edge_sync_shard_shard.call_flush
    () -> ();

    /// State of the shard.
    [read Looks] info / info_async = edge_sync_shard_shard.call_info
    () -> Info;

    /// The next operations to upload, up to the sequence `until`. Asking again without
    /// [`Shard::acknowledge`] gives the same.
    [write Queue] next_batch / next_batch_async = edge_sync_shard_queue.call_next_batch
    (limits: QueueLimits = limits => limits, until: Option<u64> = until => until,
     done: Option<QueueProgress> = done => done)
        -> Option<UploadBatch>;

    /// What an upload has to know before it begins.
    [read Queue] standing / standing_async = edge_sync_shard_queue.call_standing
    () -> QueueStanding;

    /// Names of vectors that queued operations add or drop.
    [read Queue] changing_vectors / changing_vectors_async
        = edge_sync_shard_queue.call_changing_vectors
    () -> Vec<String>;

    /// Stores which collection holds what was acknowledged.
    [write Queue] bind / bind_async = edge_sync_shard_queue.call_bind
    (binding: Binding = binding => &binding) -> ();

    /// Queues everything that the shard holds again, in place of what waits. Returns the number of
    /// operations queued.
    [optimize Writes] resend / resend_async = edge_sync_shard_queue.call_resend
    () -> u64;

    /// The server has confirmed everything up to `last`.
    [write Queue] acknowledge / acknowledge_async = edge_sync_shard_queue.call_acknowledge
    (last: u64 = last => last) -> ();

    /// The server refuses the operation `sequence`, the first one not acknowledged: moves it to
    /// the rejected log.
    [write Queue] reject / reject_async = edge_sync_shard_queue.call_reject
    (sequence: u64 = sequence => sequence,
     status: u16 = status => status,
     message: &str = message.to_owned() => &message) -> ();

    /// Moves up to `count` operations from the head of the queue to the rejected log; how many were.
    /// No upload may be under way: see [`EdgeSync::skip`](crate::EdgeSync::skip).
    [write Queue] skip / skip_async = edge_sync_shard_queue.call_skip
    (count: u32 = count => count) -> u32;

    /// Operations that wait for upload, with sequences above `after`: up to `limit`, fewer if they
    /// are large, none at the end.
    [read Queue] waiting / waiting_async = edge_sync_shard_queue.call_waiting
    (after: u64 = after => after, limit: u32 = limit => limit) -> Vec<WaitingOperation>;

    /// The rejected log, oldest first: operations with sequences above `after`, up to `limit`, fewer
    /// if they are large, none at the end.
    [read Queue] rejected / rejected_async = edge_sync_shard_queue.call_rejected
    (after: u64 = after => after, limit: u32 = limit => limit) -> Vec<RejectedOperation>;

    /// Queues a rejected operation again, at the end of the log.
    [write Retries] retry_rejected / retry_rejected_async
        = edge_sync_shard_queue.call_retry_rejected
    (sequence: u64 = sequence => sequence) -> ();

    /// Forgets a rejected operation.
    [write Queue] drop_rejected / drop_rejected_async = edge_sync_shard_queue.call_drop_rejected
    (sequence: u64 = sequence => sequence) -> ();

    /// Forgets the rejected operations with sequences up to `last`. How many there were.
    [write Queue] drop_rejected_up_to / drop_rejected_up_to_async
        = edge_sync_shard_queue.call_drop_rejected_up_to
    (last: u64 = last => last) -> u64;
    /// Points that the log deleted last, of its operations up to `until`, as far as it goes back. A
    /// snapshot that was taken while the server's optimizer ran may hold them all the same.
    [read Looks] deleted_here / deleted_here_async = edge_sync_shard_restore.call_deleted_here
    (until: u64 = until => until) -> Vec<PointId>;

    /// How a tenant's points that were downloaded to a file (a guest path) differ from those here.
    [optimize Looks] compare_points / compare_points_async
        = edge_sync_shard_restore.call_compare_points
    (points: &str = points.to_owned() => &points) -> Difference;

    /// Where the upload queue stands.
    [read Queue] queue_status / queue_status_async = edge_sync_shard_queue.call_status
    () -> QueueStatus;
}

/// What lives on the owner's thread.
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
    fn fresh(&self) -> Result<Instance> {
        fresh(&self.component, &self.options, &self.folder)
    }

    fn create(&mut self, config: &String) -> Result<Opened> {
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
        self.took(instance, &opened);
        Ok(opened)
    }

    /// Opens the shard: with its data if that can be loaded, else for what waits for upload.
    fn open(&mut self) -> Result<Opened> {
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
        self.took(instance, &opened);
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
        self.took(instance, &opened);
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

    fn took(&mut self, instance: Instance, opened: &Opened) {
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
    fn tell_position(&mut self) {
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
        let last = self.run("lend", limit, Effect::Looks, |guest, store| {
            guest.edge_sync_shard_reader().call_lend(store, number)
        })?;
        let opening = self.openings;
        Ok(Position { opening, last })
    }

    fn run<R>(
        &mut self,
        name: &'static str,
        limit: Duration,
        effect: Effect,
        function: impl Fn(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    ) -> Result<R> {
        self.be_open(effect)?;
        let had_grown = self.has_grown() || self.writes_since_open >= WRITES_AN_OPENING;
        // Until a fresh instance has been tried.
        self.may_retry = had_grown && effect == Effect::Writes;
        let outcome = self.call(name, limit, effect, &function);
        self.may_retry = false;
        if effect == Effect::Writes && outcome.is_ok() {
            self.writes_since_open += 1;
        }
        match &outcome {
            // A fresh instance holds the same in less, and nothing of the call has stayed.
            Err(Error::NoMemory(_)) if had_grown || self.has_grown() => self.close_instance()?,
            Err(Error::MemoryLimit { .. }) if had_grown && effect == Effect::Writes => {}
            Err(error) if error.is_no_memory() && effect == Effect::Writes => {
                return outcome.map_err(|error| self.or_shortage(error));
            }
            _ => return outcome,
        }
        self.be_open(effect)?;
        let outcome = self.call(name, limit, effect, &function);
        if matches!(&outcome, Err(error) if error.is_no_memory()) {
            // This is the least that the data takes.
            self.memory_at_open = usize::MAX;
        }
        outcome.map_err(|error| self.or_shortage(error))
    }

    fn shed_memory(&mut self) -> Result<()> {
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
        effect: Effect,
        function: impl Fn(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    ) -> Result<R> {
        let logged = self.before(effect)?;
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
            self.be_open(effect)?;
            // What a batch of several steps has done by now may be flushed, and then it stays.
            if self.before(effect)? != returned && returned != ALL_RETURNED {
                return Err(Error::NeedsReopen(why));
            }
            outcome = self.instance()?.call(name, limit, &function);
        }
        match &outcome {
            // The queue says nothing of whether the shard is in doubt.
            Ok(_) if effect != Effect::Queue => self.failed_at = None,
            Ok(_) => {}
            Err(error) if error.ends_instance() => {
                self.phase = Phase::Lost;
                // What a retry has logged may be gone from the rejected log already.
                let is_retry = effect == Effect::Retries;
                self.returned = if is_retry { ALL_RETURNED } else { returned };
                self.recover(error);
                self.settle_memory(effect, error);
                if is_retry && !matches!(self.phase, Phase::Open(_)) {
                    // It ended where it was applied, before that.
                    self.phase = Phase::Lost;
                    self.returned = returned;
                    self.recover(error);
                }
            }
            Err(_) if effect == Effect::Writes => self.failed_at = Some(returned),
            Err(_) => {}
        }
        outcome
    }

    /// After a write ran out of memory: whether that was for want of room for any, and not for what it
    /// asked. Then the shard is opened with a limit that is passed already.
    fn settle_memory(&mut self, effect: Effect, error: &Error) {
        let limit = self.options.memory_bytes;
        let needed = self
            .memory_at_open
            .saturating_add(2 * reserved_memory(limit));
        if effect != Effect::Writes
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
    fn be_open(&mut self, effect: Effect) -> Result<()> {
        if matches!(self.phase, Phase::Lost) {
            self.open()?;
        }
        let Phase::QueueOnly { cause, since, .. } = &self.phase else {
            return Ok(());
        };
        if effect == Effect::Queue {
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
    fn before(&mut self, effect: Effect) -> Result<u64> {
        if !matches!(effect, Effect::Writes | Effect::Retries) {
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

    fn remove(&mut self, discard_unsent: bool) -> Result<()> {
        // In one job with the removal, so that no write comes between.
        let limit = self.options.times.read;
        let queue = self.run("status", limit, Effect::Queue, |guest, store| {
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

    fn close(&mut self) -> Result<()> {
        self.leave_readers();
        let outcome = self.close_instance();
        self.phase = Phase::Closed;
        self.lock = None;
        outcome
    }

    fn promote(&mut self, mut staged: Instance, binding: Option<Binding>) -> Result<Opened> {
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
                self.took(staged, &opened);
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
