//! The shard instance: a data directory, no network.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use wasmtime::Store;
use wasmtime_wasi::FsPerms;

use crate::bindings::EdgeSync;
use crate::bindings::exports::edge_sync::shard::types::{Error as GuestError, Options};
use crate::component::Component;
use crate::error::{Error, Result};
use crate::instance::{Grants, Guest, Instance, TimeLimits};
use crate::lock::DirectoryLock;
use crate::origin::Outbound;
use crate::owner::Owner;
use crate::types::{
    Binding, Durability, Info, Opened, Point, PointId, QueueLimits, QueueProgress, QueueStanding,
    QueueStatus, Receipt, Refusal, RejectedOperation, ScoredPoint, ScrollPage, ScrollRequest,
    SearchRequest, Selection, StoredPoint, UploadBatch, WaitingOperation,
};

/// The data directory's name in the guest.
pub(crate) const GUEST_DATA: &str = "/data";

/// Rejected operations that are queued again in one call, between which others have their turn.
const RETRIED_A_CALL: u32 = 500;

/// Most memory that a 32-bit guest can address.
const MAX_MEMORY_BYTES: usize = 4 << 30;

/// Settings of an open shard that are not stored with it.
#[derive(Clone, Debug)]
pub struct ShardOptions {
    /// When a write reaches the disk. Default: before the call returns.
    pub durability: Durability,
    /// Size at which a log segment is closed, in bytes. None: the component's choice.
    pub log_segment_bytes: Option<u64>,
    /// Unflushed log bytes after which a write also flushes. None: the component's choice.
    pub flush_after_bytes: Option<u64>,
    /// Most linear memory that the instance may use, at most 4 GiB. Default: 2 GiB. A restore
    /// runs a second instance beside it for a while.
    pub memory_bytes: usize,
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
            times: TimeLimits::default(),
            process_name: None,
        }
    }
}

impl ShardOptions {
    pub(crate) fn for_guest(&self) -> Options {
        Options {
            durability: self.durability,
            log_segment_bytes: self.log_segment_bytes,
            flush_after_bytes: self.flush_after_bytes,
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
        Ok(())
    }
}

/// A shard in a data directory. Clones are handles to the same shard; when the last is dropped,
/// the shard is flushed and closed and the directory released.
///
/// Calls wait for those before them. Each has a twin for async callers, whose call is carried out
/// even if the future is dropped.
#[derive(Clone)]
pub struct Shard {
    inner: Arc<Inner>,
}

struct Inner {
    owner: Owner<ShardState>,
    component: Component,
    options: ShardOptions,
    folder: PathBuf,
    notes: Notes,
    on_write: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// What a person should know, gathered until asked for.
#[derive(Clone, Debug, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, note: String) {
        tracing::warn!("{note}");
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(note);
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
    /// is in [`Shard::notes`].
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
    pub fn create_here(&self, config: &str) -> Result<Opened> {
        let config = config.to_owned();
        self.inner.owner.call(move |state| state.create(&config))
    }

    /// Removes the shard and its log. Calls fail with [`Error::NotFound`] until
    /// [`Shard::create_here`], or a restore, has made another. Unless `discard_unsent`, it fails
    /// with [`Error::Unsent`] if something waits for upload or was refused by the server.
    pub(crate) fn remove(&self, discard_unsent: bool) -> Result<()> {
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
        let owner = Owner::spawn(
            "shard",
            ShardState {
                component: component.clone(),
                options: options.clone(),
                folder: directory.to_owned(),
                phase: Phase::Absent,
                notes: notes.clone(),
                lock: Some(lock),
            },
        )?;
        Ok(Shard {
            inner: Arc::new(Inner {
                owner,
                component: component.clone(),
                options,
                folder: directory.to_owned(),
                notes,
                on_write: OnceLock::new(),
            }),
        })
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
    /// from then on.
    pub fn close(&self) -> Result<()> {
        self.inner.owner.call(ShardState::close)
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
            let retried = self.inner.owner.call(move |state| {
                state.run("retry_rejected_after", limit, |guest, store| {
                    guest.edge_sync_shard_queue().call_retry_rejected_after(
                        store,
                        after,
                        RETRIED_A_CALL,
                    )
                })
            })?;
            report.sequences.extend(retried.sequences);
            let failures = retried.failures.into_iter();
            report
                .failures
                .extend(failures.map(|failed| (failed.sequence, Error::from(failed.why))));
            next = retried.next;
            self.wrote();
        }
        Ok(report)
    }

    /// Calls `hook` after each write; at most one hook can be set.
    pub(crate) fn on_write(&self, hook: impl Fn() + Send + Sync + 'static) {
        let _ = self.inner.on_write.set(Box::new(hook));
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

    fn wrote(&self) {
        if let Some(hook) = self.inner.on_write.get() {
            hook();
        }
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
    std::fs::File::open(directory)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("sync", directory))?;
    if let Err(error) = std::fs::remove_file(directory.join("server.json"))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove the binding to a collection: {error}");
    }
    for name in ["log", "rejected", "generations"] {
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
            folder: folder.to_owned(),
            guest_folder: GUEST_DATA,
            access: FsPerms::ReadWrite,
            outbound: Outbound::Denied,
            memory_bytes: options.memory_bytes,
        },
    )
}

/// Whether a call may leave something to upload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Writes,
}

/// Makes each WIT function a method and its async twin. `[limit effect]` are the field of
/// [`TimeLimits`] that applies, and whether there may be something to upload afterwards; each
/// argument says how it is owned for the way to the owner's thread, and how the guest gets it.
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
                    let outcome = self.inner.owner.call(move |state| {
                        state.run(stringify!($name), limit, |guest, store| {
                            guest.$interface().$function(store, $($pass),*)
                        })
                    });
                    if Effect::$effect == Effect::Writes {
                        self.wrote();
                    }
                    outcome
                }

                #[doc = concat!("[`Shard::", stringify!($name), "`] for async callers.")]
                pub async fn $name_async(&self, $($argument: $type),*) -> Result<$result> {
                    $(let $argument = $own;)*
                    let limit = self.inner.options.times.$limit;
                    let outcome = self.inner.owner.call_async(move |state| {
                        state.run(stringify!($name), limit, |guest, store| {
                            guest.$interface().$function(store, $($pass),*)
                        })
                    }).await;
                    if Effect::$effect == Effect::Writes {
                        self.wrote();
                    }
                    outcome
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

    /// Any request of Qdrant's points API: `path` below `/collections/{c}` with its query string,
    /// and body. Answers the REST `result`.
    [write Writes] request / request_async = edge_sync_shard_shard.call_request
    (method: &str = method.to_owned() => &method,
     path: &str = path.to_owned() => &path,
     body: &str = body.to_owned() => &body) -> String;

    /// As [`Shard::request`], for an endpoint that stands in for a server: read and refused as
    /// Qdrant 1.19 does it. What is refused is an answer.
    [write Writes] answer / answer_async = edge_sync_shard_shard.call_answer
    (method: &str = method.to_owned() => &method,
     path: &str = path.to_owned() => &path,
     body: &str = body.to_owned() => &body) -> std::result::Result<String, Refusal>;

    /// Merges segments and builds indexes as the configuration asks. True if anything was done.
    [optimize Reads] optimize / optimize_async = edge_sync_shard_shard.call_optimize
    () -> bool;

    /// Makes everything applied durable in the shard itself, so that the next opening has no log
    /// to replay.
    [write Reads] flush / flush_async = edge_sync_shard_shard.call_flush
    () -> ();

    /// State of the shard.
    [read Reads] info / info_async = edge_sync_shard_shard.call_info
    () -> Info;

    /// The next operations to upload, up to the sequence `until`. Asking again without
    /// [`Shard::acknowledge`] gives the same.
    [write Reads] next_batch / next_batch_async = edge_sync_shard_queue.call_next_batch
    (limits: QueueLimits = limits => limits, until: Option<u64> = until => until,
     done: Option<QueueProgress> = done => done)
        -> Option<UploadBatch>;

    /// What an upload has to know before it begins.
    [read Reads] standing / standing_async = edge_sync_shard_queue.call_standing
    () -> QueueStanding;

    /// Names of vectors that queued operations add or drop.
    [read Reads] changing_vectors / changing_vectors_async
        = edge_sync_shard_queue.call_changing_vectors
    () -> Vec<String>;

    /// Stores which collection holds what was acknowledged.
    [write Reads] bind / bind_async = edge_sync_shard_queue.call_bind
    (binding: Binding = binding => &binding) -> ();

    /// Queues everything that the shard holds again, in place of what waits. Returns the number of
    /// operations queued.
    [optimize Writes] resend / resend_async = edge_sync_shard_queue.call_resend
    () -> u64;

    /// The server has confirmed everything up to `last`.
    [write Reads] acknowledge / acknowledge_async = edge_sync_shard_queue.call_acknowledge
    (last: u64 = last => last) -> ();

    /// The server refuses the operation `sequence`, the first one not acknowledged: moves it to
    /// the rejected log.
    [write Reads] reject / reject_async = edge_sync_shard_queue.call_reject
    (sequence: u64 = sequence => sequence,
     status: u16 = status => status,
     message: &str = message.to_owned() => &message) -> ();

    /// Moves up to `count` operations from the head of the queue to the rejected log; how many were.
    /// No upload may be under way: see [`EdgeSync::skip`](crate::EdgeSync::skip).
    [write Reads] skip / skip_async = edge_sync_shard_queue.call_skip
    (count: u32 = count => count) -> u32;

    /// Operations that wait for upload, with sequences above `after`: up to `limit`, fewer if they
    /// are large, none at the end.
    [read Reads] waiting / waiting_async = edge_sync_shard_queue.call_waiting
    (after: u64 = after => after, limit: u32 = limit => limit) -> Vec<WaitingOperation>;

    /// The rejected log, oldest first: operations with sequences above `after`, up to `limit`, fewer
    /// if they are large, none at the end.
    [read Reads] rejected / rejected_async = edge_sync_shard_queue.call_rejected
    (after: u64 = after => after, limit: u32 = limit => limit) -> Vec<RejectedOperation>;

    /// Queues a rejected operation again, at the end of the log.
    [write Writes] retry_rejected / retry_rejected_async
        = edge_sync_shard_queue.call_retry_rejected
    (sequence: u64 = sequence => sequence) -> ();

    /// Forgets a rejected operation.
    [write Reads] drop_rejected / drop_rejected_async = edge_sync_shard_queue.call_drop_rejected
    (sequence: u64 = sequence => sequence) -> ();

    /// Forgets the rejected operations with sequences up to `last`. How many there were.
    [write Reads] drop_rejected_up_to / drop_rejected_up_to_async
        = edge_sync_shard_queue.call_drop_rejected_up_to
    (last: u64 = last => last) -> u64;
    /// Points that the log deleted last, of its operations up to `until`, as far as it goes back. A
    /// snapshot that was taken while the server's optimizer ran may hold them all the same.
    [read Reads] deleted_here / deleted_here_async = edge_sync_shard_restore.call_deleted_here
    (until: u64 = until => until) -> Vec<PointId>;

    /// Where the upload queue stands.
    [read Reads] queue_status / queue_status_async = edge_sync_shard_queue.call_status
    () -> QueueStatus;
}

/// What lives on the owner's thread.
struct ShardState {
    component: Component,
    options: ShardOptions,
    folder: PathBuf,
    phase: Phase,
    notes: Notes,
    lock: Option<DirectoryLock>,
}

enum Phase {
    /// There is no shard in the directory.
    Absent,
    Open(Box<Instance>),
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

    fn open(&mut self) -> Result<Opened> {
        let mut instance = self.fresh()?;
        let options = self.options.for_guest();
        let opened = instance
            .call("open", self.options.times.open, |guest, store| {
                guest
                    .edge_sync_shard_shard()
                    .call_open(store, GUEST_DATA, options)
            })
            .map_err(|error| match error {
                Error::NotFound(_) => no_shard(&self.folder),
                other => other,
            })?;
        self.took(instance, &opened);
        Ok(opened)
    }

    fn took(&mut self, instance: Instance, opened: &Opened) {
        for note in &opened.notes {
            self.notes.add(note.clone());
        }
        tracing::debug!(
            generation = opened.generation,
            replayed = opened.replayed,
            "shard opened"
        );
        self.phase = Phase::Open(Box::new(instance));
    }

    fn run<R>(
        &mut self,
        name: &'static str,
        limit: Duration,
        function: impl Fn(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    ) -> Result<R> {
        if matches!(self.phase, Phase::Lost) {
            self.open()?;
        }
        match self.instance()?.call(name, limit, &function) {
            // The call was refused before it did anything, so it can be made again.
            Err(Error::NeedsReopen(why)) => {
                self.phase = Phase::Lost;
                let opened = self.open()?;
                self.notes.add(format!(
                    "the shard was opened again ({} operations replayed) after: {why}",
                    opened.replayed
                ));
                self.instance()?.call(name, limit, &function)
            }
            Err(error) if error.ends_instance() => {
                self.phase = Phase::Lost;
                self.recover(&error);
                Err(error)
            }
            outcome => outcome,
        }
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
            Phase::Open(instance) => Ok(instance),
            Phase::Absent => Err(no_shard(&self.folder)),
            Phase::Lost => Err(Error::NeedsReopen("its instance is gone".into())),
            Phase::Closed => Err(Error::Closed("shard")),
        }
    }

    fn close_instance(&mut self) -> Result<()> {
        let limit = self.options.times.write;
        match std::mem::replace(&mut self.phase, Phase::Lost) {
            Phase::Open(mut instance) => instance.call("close", limit, |guest, store| {
                guest.edge_sync_shard_shard().call_close(store)
            }),
            Phase::Absent | Phase::Lost => Ok(()),
            Phase::Closed => {
                self.phase = Phase::Closed;
                Err(Error::Closed("shard"))
            }
        }
    }

    fn remove(&mut self, discard_unsent: bool) -> Result<()> {
        // In one job with the removal, so that no write comes between.
        let queue = self.run("status", self.options.times.read, |guest, store| {
            guest.edge_sync_shard_queue().call_status(store)
        })?;
        if !discard_unsent && (queue.queued > 0 || queue.rejected > 0) {
            return Err(Error::Unsent {
                queued: queue.queued,
                rejected: queue.rejected,
            });
        }
        // Dropped without a flush. If the removal fails, the next call opens the shard again.
        self.phase = Phase::Lost;
        remove_shard(&self.folder)?;
        self.phase = Phase::Absent;
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let outcome = self.close_instance();
        self.phase = Phase::Closed;
        self.lock = None;
        outcome
    }

    fn promote(&mut self, mut staged: Instance, binding: Option<Binding>) -> Result<Opened> {
        let was_absent = matches!(self.phase, Phase::Absent);
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

impl Drop for ShardState {
    fn drop(&mut self) {
        if !matches!(self.phase, Phase::Closed)
            && let Err(error) = self.close()
        {
            tracing::error!("closing the shard: {error}");
        }
    }
}
