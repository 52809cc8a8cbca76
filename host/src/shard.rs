//! The shard instance: a data directory, no network.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use wasmtime::Store;

use crate::actor::Actor;
use crate::background;
use crate::bindings::EdgeSync;
use crate::bindings::exports::edge_sync::shard::restore::PlannedOptimization;
use crate::bindings::exports::edge_sync::shard::types::Error as GuestError;
use crate::cancel::Cancel;
use crate::component::Component;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::instance::{GuestCall, Instance};
use crate::lock::DirectoryLock;
use crate::readers::{Chosen, Readers};
use crate::shard_options::ShardOptions;
use crate::shard_state::{Access, Notes, ShardState, fresh, no_shard};
use crate::standing::Standing;
use crate::types::{
    Binding, Difference, Info, Opened, Point, PointId, QueueLimits, QueueProgress, QueueStanding,
    QueueStatus, Receipt, Refusal, RejectedOperation, ScoredPoint, ScrollPage, ScrollRequest,
    SearchRequest, Selection, StoredPoint, UploadBatch, WaitingOperation,
};

/// Rejected operations that are queued again in one call, between which others have their turn.
const RETRIED_A_CALL: u32 = 500;

/// A shard in a data directory. Clones are handles to the same shard; when the last is dropped,
/// the shard is flushed and closed and the directory released.
///
/// Calls wait for those before them, but for reads that go to a reader ([`ShardOptions::readers`]). Each has
/// a twin for async callers, whose call is carried out even if the future is dropped.
#[derive(Clone)]
pub struct Shard {
    inner: Arc<Inner>,
}

struct Inner {
    /// They call the actor, and so are gone before it.
    readers: Readers,
    actor: Arc<Actor<ShardState>>,
    component: Component,
    options: ShardOptions,
    folder: PathBuf,
    notes: Notes,
    on_write: Arc<WriteHooks>,
    restoring: Mutex<()>,
}

/// What is called after each write, on the thread that made it.
#[derive(Default)]
struct WriteHooks(RwLock<Vec<Box<dyn Fn() + Send + Sync>>>);

impl WriteHooks {
    fn call(&self) {
        for hook in &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            hook();
        }
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
        shard.inner.actor.call(ShardState::open)?;
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
        match shard.inner.actor.call(ShardState::open) {
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
        self.inner.actor.call(move |state| state.create(&config))
    }

    /// Removes the shard and its log. Calls fail with [`Error::NotFound`] until
    /// [`Shard::create_here`], or a restore, has made another. Unless `discard_unsent`, it fails
    /// with [`Error::Unsent`] if something waits for upload or was refused by the server.
    pub(crate) fn remove(&self, discard_unsent: bool) -> Result<()> {
        let _alone = self.no_restore()?;
        self.inner
            .actor
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
        let actor = Arc::new(Actor::spawn_lending(
            "shard",
            ShardState::new(
                component,
                &options,
                directory,
                (options.readers > 0).then(|| Arc::clone(&standing)),
                notes.clone(),
                lock,
            ),
        )?);
        let readers = Readers::new(component, &options, directory, &standing, &actor)?;
        Ok(Shard {
            inner: Arc::new(Inner {
                readers,
                actor,
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
        self.inner.actor.call(|state| Ok(!state.is_absent()))
    }

    /// What happened that a person should know, since the last call: repairs at opening,
    /// restores that were finished or rolled back, instances that trapped and were replaced.
    pub fn notes(&self) -> Vec<String> {
        self.inner.notes.take()
    }

    /// Flushes and closes the shard and releases the directory. Calls through other handles fail
    /// from then on. A flush that fails is in [`Shard::notes`]: everything is in the log.
    ///
    /// Errors: [`Error::Storage`] if the log could not be synced.
    pub fn close(&self) -> Result<()> {
        self.inner.readers.end();
        let closed = self.inner.actor.call(ShardState::close);
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
            let retried = self.inner.actor.call(self.job(
                "retry_rejected_after",
                limit,
                Access::Retries,
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
            .actor
            .call(move |state| state.promote(staged, binding))
    }

    /// Copies the shard for other instances; answers the optimizations that are due, none if there is
    /// no copy since there is nothing to do. See `restore.begin-optimize`.
    pub(crate) fn begin_optimize(&self) -> Result<Option<Vec<PlannedOptimization>>> {
        let limit = self.inner.options.times.write;
        self.inner.actor.call(
            self.job("begin-optimize", limit, Access::Looks, |guest, store| {
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
        self.inner.actor.call(
            self.job("end-optimize", limit, Access::Queue, |guest, store| {
                guest.edge_sync_shard_restore().call_end_optimize(store)
            }),
        )
    }

    /// Opens the shard in a fresh instance if its memory was full: what was deleted is gone from there.
    pub(crate) fn shed_memory(&self) -> Result<()> {
        self.inner.actor.call(ShardState::shed_memory)
    }

    /// Any request of Qdrant's points API, and `PATCH` of the collection's parameters: `path` below
    /// `/collections/{c}` with its query string, and body. Answers the REST `result`.
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
        let (limit, access) = self.cost(method, path);
        self.carry_out(name, limit, access, call)
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
        let (limit, access) = self.cost(method, path);
        self.carry_out_async(name, limit, access, call).await
    }

    /// How long a request of the points API may take, and whether it may leave something to upload.
    fn cost(&self, method: &str, path: &str) -> (Duration, Access) {
        let times = &self.inner.options.times;
        match is_read(method, path) {
            true => (times.read, Access::Reads),
            false => (times.write, Access::Writes),
        }
    }

    /// Makes a call that may read in another instance than the shard's own.
    fn carry_out<R, F>(
        &self,
        name: &'static str,
        limit: Duration,
        access: Access,
        function: F,
    ) -> Result<R>
    where
        R: Send + 'static,
        F: GuestCall<R>,
    {
        let function = Arc::new(function);
        if let Some(reader) = self.reader(access)
            && let Some(answer) = reader.call(name, limit, &function)
        {
            return answer;
        }
        let outcome = self
            .inner
            .actor
            .call(self.job(name, limit, access, move |guest, store| {
                function(guest, store)
            }));
        self.after(access);
        outcome
    }

    /// [`Shard::carry_out`] for async callers.
    async fn carry_out_async<R, F>(
        &self,
        name: &'static str,
        limit: Duration,
        access: Access,
        function: F,
    ) -> Result<R>
    where
        R: Send + 'static,
        F: GuestCall<R>,
    {
        let function = Arc::new(function);
        if let Some(reader) = self.reader(access)
            && let Some(answer) = reader.call_async(name, limit, &function).await
        {
            return answer;
        }
        let job = self.job(name, limit, access, move |guest, store| {
            function(guest, store)
        });
        let outcome = self.inner.actor.call_async(job).await;
        self.after(access);
        outcome
    }

    /// The reader that a call goes to, if one is the better place.
    fn reader(&self, access: Access) -> Option<Chosen<'_>> {
        match access {
            Access::Reads => self.inner.readers.choose(self.inner.actor.waiting()),
            _ => None,
        }
    }

    fn after(&self, access: Access) {
        if access.logs() {
            self.inner.readers.written();
        }
    }

    /// A call as the actor makes it.
    fn job<R, F>(
        &self,
        name: &'static str,
        limit: Duration,
        access: Access,
        function: F,
    ) -> impl FnOnce(&mut ShardState) -> Result<R> + use<R, F>
    where
        F: Fn(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    {
        let on_write = Arc::clone(&self.inner.on_write);
        move |state| {
            let outcome = state.run(name, limit, access, function);
            // Here, so that it is done for a caller who did not wait, too.
            if access.logs() {
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

/// Makes each WIT function a method and its async twin. `[limit access]` are the field of
/// [`TimeLimits`] that applies, and what the call works on; each argument says how it is owned for the way to
/// the actor, and how the guest gets it.
macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        [$limit:ident $access:ident]
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
                        Access::$access,
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
                        Access::$access,
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
