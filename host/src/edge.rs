//! Everything a plugin host needs, in one value.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge_sync_upload::{Queue, Uploader};

use crate::background;
use crate::cancel::Cancel;
use crate::component::Component;
use crate::courier::{Courier, ServerSettings};
use crate::error::{Error, Result};
use crate::events::{Event, Events, Hub};
use crate::optimizer::{AutoOptimizeOptions, Optimizer};
use crate::progress::{Progress, RestoreProgress};
use crate::pull::{OnPull, pull};
use crate::reports::{PullReport, RestoreReport, SyncReport};
use crate::restore::{RestoreSource, restore, staging_folder};
use crate::shard::Shard;
use crate::shard_options::ShardOptions;
use crate::sync::{Direction, SyncOptions, SyncPermissions, permit, run, uploader};
use crate::sync_record::{Exchange, SyncRecord};
use crate::syncer::{Syncer, SyncerOptions};
use crate::types::Corruption;

/// The place that a shard was synced with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BoundServer {
    /// The server's URL.
    pub url: String,
    /// The collection, or an alias of it.
    pub collection: String,
    /// As [`ServerSettings::shard_key`](crate::ServerSettings).
    pub shard_key: Option<String>,
    /// As [`ServerSettings::tenant`](crate::ServerSettings).
    pub tenant: Option<String>,
    /// As [`ServerSettings::shard`](crate::ServerSettings).
    pub shard: Option<u32>,
}

/// The place that the shard in `directory` was synced with; none before the first sync. Can be asked
/// beside the process that has the directory.
///
/// Errors: [`Error::Io`]; [`Error::Corrupt`] if the file is not readable as one.
pub fn bound_server(directory: impl AsRef<Path>) -> Result<Option<BoundServer>> {
    let path = directory.as_ref().join("server.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let binding: edge_sync_upload::Binding = serde_json::from_slice(&bytes).map_err(|error| {
        Error::Corrupt(Corruption {
            file: path.display().to_string(),
            offset: None,
            message: format!("not a binding to a collection: {error}"),
        })
    })?;
    Ok((!binding.names_no_place()).then_some(BoundServer {
        url: binding.url,
        collection: binding.collection,
        shard_key: binding.shard_key,
        tenant: binding.tenant,
        shard: binding.shard,
    }))
}

/// Whether there is a shard in `directory`, as far as that can be seen without opening it.
pub fn has_shard(directory: impl AsRef<Path>) -> bool {
    directory.as_ref().join("CURRENT").is_file()
}

/// A shard, kept in step with a collection on a server if there is one.
///
/// Clones are handles to the same. Dropping the last ends the background worker after the exchange
/// under way, gives up an optimization that nobody asked for, then flushes and closes the shard; what is not
/// uploaded stays queued on disk.
///
/// Each call that may take long has a twin for async callers, which any executor can run: it is carried
/// out on a thread of its own. If the future is dropped, the call stops at the next good moment, as with
/// [`Cancel`].
#[derive(Clone)]
pub struct EdgeSync {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped in this order: the workers use the shard and the courier.
    syncer: Option<Syncer>,
    _optimizer: Option<Optimizer>,
    server: Option<Server>,
    shard: Shard,
    sync: SyncOptions,
    on_pull: Option<OnPull>,
    hub: Hub,
}

struct Server {
    courier: Arc<Courier>,
    uploader: Arc<Mutex<Uploader>>,
}

fn lock(uploader: &Mutex<Uploader>) -> MutexGuard<'_, Uploader> {
    uploader.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Settings of an [`EdgeSync`].
#[derive(Clone)]
pub struct Builder {
    component: Component,
    directory: PathBuf,
    options: ShardOptions,
    server: Option<ServerSettings>,
    sync: SyncOptions,
    background: Option<SyncerOptions>,
    auto_optimize: Option<AutoOptimizeOptions>,
    on_pull: Option<OnPull>,
}

impl Builder {
    /// Settings of the shard.
    #[must_use]
    pub fn options(mut self, options: ShardOptions) -> Builder {
        self.options = options;
        self
    }

    /// The server to keep in step with. Without one, writes are queued.
    #[must_use]
    pub fn server(mut self, server: ServerSettings) -> Builder {
        self.server = Some(server);
        self
    }

    /// How to upload.
    #[must_use]
    pub fn sync_options(mut self, options: SyncOptions) -> Builder {
        self.sync = options;
        self
    }

    /// Uploads and pulls in the background; without this, only [`EdgeSync::sync`] does.
    #[must_use]
    pub fn background(mut self, options: SyncerOptions) -> Builder {
        self.background = Some(options);
        self
    }

    /// Optimizes in the background whenever there is enough to do: when vectors without an index pass
    /// the configured `indexing_threshold`, above all. Only without a server: with one, the server
    /// builds the indexes, and pulls bring them.
    #[must_use]
    pub fn auto_optimize(mut self, options: AutoOptimizeOptions) -> Builder {
        self.auto_optimize = Some(options);
        self
    }

    /// Is called after each switch to what the server holds, by whoever pulled: so that an
    /// application can refresh what it shows. Calls on the shard are answered from the new
    /// generation by then.
    #[must_use]
    pub fn on_pull(mut self, notify: impl Fn(&PullReport) + Send + Sync + 'static) -> Builder {
        self.on_pull = Some(Arc::new(notify));
        self
    }

    /// Opens the shard in the directory.
    ///
    /// Errors: as [`Shard::open`], and [`Error::Setting`] for the server's settings.
    pub fn open(mut self) -> Result<EdgeSync> {
        self.check()?;
        let shard = Shard::open(&self.component, &self.directory, self.options.clone())?;
        self.finish(shard)
    }

    /// Creates a shard; `config` is the body of Qdrant's `PUT /collections/{c}`.
    ///
    /// Errors: as [`Shard::create`], and [`Error::Setting`] for the server's settings.
    pub fn create(mut self, config: &str) -> Result<EdgeSync> {
        self.check()?;
        let options = self.options.clone();
        let shard = Shard::create(&self.component, &self.directory, config, options)?;
        self.finish(shard)
    }

    /// Opens the shard if there is one, whatever its configuration; otherwise creates it.
    pub fn open_or_create(self, config: &str) -> Result<EdgeSync> {
        let edge = self.attach()?;
        if !edge.shard().is_present()? {
            edge.shard().create_here(config)?;
        }
        Ok(edge)
    }

    /// [`Builder::open`] for async callers.
    pub async fn open_async(self) -> Result<EdgeSync> {
        background::run("opening", move |_| self.open()).await
    }

    /// [`Builder::create`] for async callers.
    pub async fn create_async(self, config: &str) -> Result<EdgeSync> {
        let config = config.to_owned();
        background::run("opening", move |_| self.create(&config)).await
    }

    /// [`Builder::open_or_create`] for async callers.
    pub async fn open_or_create_async(self, config: &str) -> Result<EdgeSync> {
        let config = config.to_owned();
        background::run("opening", move |_| self.open_or_create(&config)).await
    }

    /// [`Builder::attach`] for async callers.
    pub async fn attach_async(self) -> Result<EdgeSync> {
        background::run("opening", move |_| self.attach()).await
    }

    /// Opens the shard if there is one; otherwise it comes with the first restore. See
    /// [`Shard::attach`].
    pub fn attach(mut self) -> Result<EdgeSync> {
        self.check()?;
        let shard = Shard::attach(&self.component, &self.directory, self.options.clone())?;
        self.finish(shard)
    }

    /// Before anything is created or opened.
    fn check(&mut self) -> Result<()> {
        self.server = self
            .server
            .take()
            .map(ServerSettings::checked)
            .transpose()?;
        Ok(())
    }

    fn finish(self, shard: Shard) -> Result<EdgeSync> {
        let mut record = SyncRecord::load(shard.directory());
        if record.settle()
            && let Err(error) = record.store(shard.directory())
        {
            tracing::warn!("the sync status is not kept: {error}");
        }
        let hub = Hub::default();
        let server = match self.server {
            Some(settings) => {
                let staging = staging_folder(&self.directory)?;
                let courier = Courier::start(&self.component, staging, settings)?;
                courier.follow_peer(record.peer);
                let uploader = uploader(courier.target().clone(), &self.sync);
                Some(Server {
                    courier: Arc::new(courier),
                    uploader: Arc::new(Mutex::new(uploader)),
                })
            }
            None => None,
        };
        let syncer = match (&server, self.background) {
            (Some(server), Some(options)) => Some(Syncer::start(
                &shard,
                Arc::clone(&server.courier),
                Arc::clone(&server.uploader),
                self.sync.clone(),
                options,
                self.on_pull.clone(),
                hub.clone(),
            )?),
            _ => None,
        };
        let optimizer = match (&server, self.auto_optimize) {
            (None, Some(options)) => Some(Optimizer::start(&shard, options, hub.clone())?),
            (Some(_), Some(_)) => {
                tracing::warn!(
                    "the shard is not optimized by itself: its server builds the indexes, and pulls \
                     bring them"
                );
                None
            }
            (_, None) => None,
        };
        let told = hub.clone();
        shard.on_write(move || told.tell(Event::Queued));
        Ok(EdgeSync {
            inner: Arc::new(Inner {
                syncer,
                _optimizer: optimizer,
                server,
                shard,
                sync: self.sync,
                on_pull: self.on_pull,
                hub,
            }),
        })
    }
}

impl EdgeSync {
    /// Starts with `component` and the data directory `directory`.
    pub fn builder(component: Component, directory: impl AsRef<Path>) -> Builder {
        Builder {
            component,
            directory: directory.as_ref().to_owned(),
            options: ShardOptions::default(),
            server: None,
            sync: SyncOptions::default(),
            background: None,
            auto_optimize: None,
            on_pull: None,
        }
    }

    /// The shard: reads and writes.
    pub fn shard(&self) -> &Shard {
        &self.inner.shard
    }

    /// The background worker, if it was asked for.
    pub fn syncer(&self) -> Option<&Syncer> {
        self.inner.syncer.as_ref()
    }

    /// Uploads everything that waits, then brings the shard to what the server holds, in the calling
    /// thread. Reads and writes through [`EdgeSync::shard`] go on meanwhile.
    ///
    /// A sync that gives up is no error: the report says why, and the queue is kept;
    /// [`SyncReport::into_result`] makes an error of that. Errors are the shard's, and
    /// [`Error::Setting`] without a server.
    pub fn sync(&self) -> Result<SyncReport> {
        self.sync_with(&Cancel::new(), |_| {})
    }

    /// [`EdgeSync::sync`] for async callers.
    pub async fn sync_async(&self) -> Result<SyncReport> {
        let edge = self.clone();
        background::run("sync", move |cancel| edge.sync_with(cancel, |_| {})).await
    }

    /// What happens from now on: writes that are queued, what was uploaded, refused and fetched, and
    /// why it stopped. Whoever does not keep up is told how many events are gone
    /// ([`Event::Missed`]).
    pub fn events(&self) -> Events {
        self.inner.hub.listen()
    }

    /// Uploads everything that waits and fetches nothing; as [`EdgeSync::sync`] otherwise.
    pub fn push(&self) -> Result<SyncReport> {
        let permissions = SyncPermissions::default();
        self.sync_permitted(Direction::Push, permissions, &Cancel::new(), |_| {})
    }

    /// [`EdgeSync::push`] for async callers.
    pub async fn push_async(&self) -> Result<SyncReport> {
        let edge = self.clone();
        let permissions = SyncPermissions::default();
        background::run("push", move |cancel| {
            edge.sync_permitted(Direction::Push, permissions, cancel, |_| {})
        })
        .await
    }

    /// Brings the shard to what the server holds and uploads nothing; what waits for upload stays.
    ///
    /// Errors: as [`EdgeSync::restore`].
    pub fn pull(&self) -> Result<PullReport> {
        self.pull_with(&Cancel::new(), |_| {})
    }

    /// [`EdgeSync::pull`] for async callers.
    pub async fn pull_async(&self) -> Result<PullReport> {
        let edge = self.clone();
        background::run("pull", move |cancel| edge.pull_with(cancel, |_| {})).await
    }

    /// [`EdgeSync::pull`] that can be cancelled and tells its progress.
    pub fn pull_with(
        &self,
        cancel: &Cancel,
        mut progress: impl FnMut(RestoreProgress<'_>),
    ) -> Result<PullReport> {
        let server = self.server()?;
        let _alone = self.inner.shard.no_restore()?;
        let _paused = self.inner.syncer.as_ref().map(Syncer::pause);
        self.note(|record| record.begin(Exchange::Pull));
        let outcome = {
            let mut uploader = lock(&server.uploader);
            pull(
                &self.inner.shard,
                &server.courier,
                &mut uploader,
                &self.inner.sync,
                cancel,
                &mut progress,
            )
        };
        self.note(|record| record.note_pull(&outcome));
        match &outcome {
            Ok(report) => self.inner.hub.pulled(report),
            Err(failure) => self.inner.hub.stopped(failure),
        }
        if let (Ok(report), Some(notify)) = (&outcome, &self.inner.on_pull)
            && report.changed()
        {
            notify(report);
        }
        outcome
    }

    /// [`EdgeSync::sync`] that can be cancelled and tells its progress.
    pub fn sync_with(
        &self,
        cancel: &Cancel,
        progress: impl FnMut(Progress<'_>),
    ) -> Result<SyncReport> {
        self.sync_permitted(
            Direction::Both,
            SyncPermissions::default(),
            cancel,
            progress,
        )
    }

    /// [`EdgeSync::sync_with`] in one direction or both, and with what a person has allowed: to go on
    /// with another server or collection, to send everything again.
    pub fn sync_permitted(
        &self,
        direction: Direction,
        permissions: SyncPermissions,
        cancel: &Cancel,
        mut progress: impl FnMut(Progress<'_>),
    ) -> Result<SyncReport> {
        let mut report = match direction {
            Direction::Both | Direction::Push => self.upload(permissions, cancel, &mut progress)?,
            Direction::Pull => {
                if permissions.rebind {
                    permit(&mut lock(&self.server()?.uploader), permissions);
                }
                SyncReport {
                    remaining: self.inner.shard.queue_status()?.queued,
                    ..SyncReport::default()
                }
            }
        };
        if direction == Direction::Push || report.failure.is_some() {
            return Ok(report);
        }
        match self.pull_with(cancel, |step| progress(Progress::Pulling(&step))) {
            Ok(pulled) => report.pulled = Some(pulled),
            Err(failure) => report.failure = Some(failure),
        }
        Ok(report)
    }

    fn server(&self) -> Result<&Server> {
        self.inner.server.as_ref().ok_or_else(|| Error::Setting {
            name: "url",
            message: "no server is set".to_owned(),
        })
    }

    fn upload(
        &self,
        permissions: SyncPermissions,
        cancel: &Cancel,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<SyncReport> {
        let server = self.server()?;
        let _paused = self.inner.syncer.as_ref().map(Syncer::pause);
        let mut uploader = lock(&server.uploader);
        // It may have been replaced since the last sync.
        uploader.forget();
        if permissions.resend || permissions.rebind || permissions.create_shard_key {
            permit(&mut uploader, permissions);
        }
        if permissions.resend {
            let standing = Queue::standing(&mut &self.inner.shard)?;
            if uploader.accepts_place(standing.binding.as_ref()) {
                self.inner.shard.resend()?;
            }
        }
        self.note(|record| record.begin(Exchange::Sync));
        let mut told = 0;
        let hub = &self.inner.hub;
        let outcome = run(
            &mut uploader,
            &self.inner.shard,
            &server.courier,
            None,
            cancel,
            &mut |step| {
                match &step {
                    Progress::Uploaded { done, .. } if *done > told => {
                        let operations = *done - told;
                        hub.tell(Event::Uploaded { operations });
                        told = *done;
                    }
                    Progress::Rejected { sequence, failure } => {
                        // Among those that are done with, but not uploaded.
                        told += 1;
                        hub.tell(Event::Rejected {
                            sequence: *sequence,
                            message: failure.to_string(),
                        });
                    }
                    Progress::Waiting { failure, .. } => hub.waiting(failure),
                    _ => {}
                }
                progress(step);
            },
        );
        if let Ok(Some(failure)) = outcome.as_ref().map(|report| report.failure.as_ref()) {
            hub.stopped(failure);
        }
        drop(uploader);
        self.note(|record| {
            record.note(match &outcome {
                Ok(report) => report.failure.as_ref(),
                Err(error) => Some(error),
            });
            record.note_queue(self.inner.shard.queue_status().ok().as_ref());
        });
        outcome
    }

    /// Moves up to `count` operations from the head of the queue to the rejected log, as they are:
    /// a person's way past one that no server answers. Waits for the exchange under way. How many
    /// were moved: fewer if no more waited.
    pub fn skip(&self, count: u32) -> Result<u32> {
        let paused = self.inner.syncer.as_ref().map(Syncer::pause);
        let skipped = self.inner.shard.skip(count);
        if let Some(server) = &self.inner.server {
            // What it has found out is about the operations that were the head of the queue.
            lock(&server.uploader).forget();
        }
        drop(paused);
        if let Some(syncer) = &self.inner.syncer {
            syncer.wake();
        }
        skipped
    }

    /// Replaces the shard's data by a snapshot, plus what was written since and is not in it.
    /// Reads and writes through [`EdgeSync::shard`] go on meanwhile. On failure everything is as
    /// before.
    ///
    /// The collection must be the one that the shard was synced with, and the snapshot must hold
    /// most of the points of the shard ([`Error::WouldDrop`]); [`EdgeSync::restore_forced`] takes it
    /// whatever it is.
    ///
    /// Errors: [`Error::Server`], [`Error::BadSnapshot`], [`Error::Storage`], [`Error::Cancelled`];
    /// [`Error::Restoring`] at once if another restore, a pull or an optimization is under way.
    pub fn restore(
        &self,
        source: &RestoreSource,
        cancel: &Cancel,
        progress: impl FnMut(RestoreProgress<'_>),
    ) -> Result<RestoreReport> {
        self.restore_from(source, false, cancel, progress)
    }

    /// [`EdgeSync::restore`] from any collection, whatever it drops.
    pub fn restore_forced(
        &self,
        source: &RestoreSource,
        cancel: &Cancel,
        progress: impl FnMut(RestoreProgress<'_>),
    ) -> Result<RestoreReport> {
        self.restore_from(source, true, cancel, progress)
    }

    fn restore_from(
        &self,
        source: &RestoreSource,
        force: bool,
        cancel: &Cancel,
        mut progress: impl FnMut(RestoreProgress<'_>),
    ) -> Result<RestoreReport> {
        let _alone = self.inner.shard.no_restore()?;
        let _paused = self.inner.syncer.as_ref().map(Syncer::pause);
        let mut guard = self
            .inner
            .server
            .as_ref()
            .map(|server| (&*server.courier, lock(&server.uploader)));
        self.note(|record| record.begin(Exchange::Restore));
        let outcome = restore(
            &self.inner.shard,
            guard
                .as_mut()
                .map(|(courier, uploader)| (*courier, &mut **uploader)),
            source,
            force,
            &self.inner.sync,
            cancel,
            &mut progress,
        );
        self.note(|record| record.note_restore(&outcome));
        outcome
    }

    /// Removes the shard from its directory, log and all; the server's collection stays as it is.
    /// Calls fail with [`Error::NotFound`] until [`Shard::create_here`], or a restore, has made
    /// another shard.
    ///
    /// Unless `discard_unsent`, it is refused with [`Error::Unsent`] if anything waits for upload
    /// or is in the rejected log: that is nowhere else.
    pub fn remove(&self, discard_unsent: bool) -> Result<()> {
        let _paused = self.inner.syncer.as_ref().map(Syncer::pause);
        self.inner.shard.remove(discard_unsent)?;
        if let Some(server) = &self.inner.server {
            // What it knows about the server's collection was checked against this shard.
            lock(&server.uploader).forget();
        }
        self.note(|record| *record = SyncRecord::default());
        Ok(())
    }

    /// [`EdgeSync::skip`] for async callers.
    pub async fn skip_async(&self, count: u32) -> Result<u32> {
        let edge = self.clone();
        background::run("skip", move |_| edge.skip(count)).await
    }

    /// [`EdgeSync::remove`] for async callers.
    pub async fn remove_async(&self, discard_unsent: bool) -> Result<()> {
        let edge = self.clone();
        background::run("removal", move |_| edge.remove(discard_unsent)).await
    }

    /// True if there is a server to keep in step with.
    pub fn has_server(&self) -> bool {
        self.inner.server.is_some()
    }

    /// How the last exchanges with the server went, in this process or an earlier one.
    pub fn sync_record(&self) -> SyncRecord {
        match &self.inner.syncer {
            Some(syncer) => syncer.record(),
            None => SyncRecord::load(self.inner.shard.directory()),
        }
    }

    fn note(&self, change: impl FnOnce(&mut SyncRecord)) {
        let mut record = self.sync_record();
        change(&mut record);
        if let Err(error) = record.store(self.inner.shard.directory()) {
            tracing::warn!("the sync status is not kept: {error}");
        }
        if let Some(syncer) = &self.inner.syncer {
            syncer.set_record(record);
        }
    }
}
