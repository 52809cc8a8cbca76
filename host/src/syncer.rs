//! The background worker: uploads when there is something to upload, and pulls now and then.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use edge_sync_clock::now_ms;
use edge_sync_upload::{Step, Uploader};

use crate::cancel::Cancel;
use crate::courier::Courier;
use crate::error::{Error, Result};
use crate::events::{Event, Hub};
use crate::pull::{OnPull, pull};
use crate::setters::setters;
use crate::shard::Shard;
use crate::sync::{SyncOptions, server_error};
use crate::sync_record::{Exchange, SyncRecord, WorkerState};
use crate::watched::Watched;

/// When the background worker acts by itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SyncerOptions {
    /// How long it lets writes gather after the first one, to fill a batch. Default: 100 ms.
    pub linger: Duration,
    /// How often it looks without having been told of a write. Default: 30 s.
    pub interval: Duration,
    /// How long it waits after the server refused the settings (401, 403, ...), in case they are
    /// put right there. Default: 5 minutes.
    pub stopped_interval: Duration,
    /// How often it fetches what others wrote, with a quarter of jitter to either side; never for
    /// none. Default: 1 minute.
    pub pull_interval: Option<Duration>,
}

impl Default for SyncerOptions {
    fn default() -> SyncerOptions {
        SyncerOptions {
            linger: Duration::from_millis(100),
            interval: Duration::from_secs(30),
            stopped_interval: Duration::from_secs(300),
            pull_interval: Some(Duration::from_secs(60)),
        }
    }
}

setters!(SyncerOptions {
    linger: Duration,
    interval: Duration,
    stopped_interval: Duration,
    pull_interval: Option<Duration>,
});

/// Uploads and pulls on a thread of its own, until dropped. Writes through the shard's handles wake it.
pub struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

type Shared = Watched<Control>;

#[derive(Default)]
struct Control {
    /// There may be something to upload.
    dirty: bool,
    /// Somebody asked for a sync at once: no wait runs its course.
    now: bool,
    pauses: usize,
    end: bool,
    /// Within an exchange with the shard or the server.
    busy: bool,
    /// Ends the pull under way.
    pull: Option<Cancel>,
    record: SyncRecord,
}

impl Control {
    fn end_pull(&self) {
        if let Some(cancel) = &self.pull {
            cancel.cancel();
        }
    }
}

impl Shared {
    /// Sleeps until `due`, or until something needs attention: the end, a pause, or a wish to go
    /// now. True if the wait ran its course.
    fn wait_until(&self, due: Instant, also: impl Fn(&Control) -> bool) -> bool {
        let mut control = self.lock();
        loop {
            if control.end || control.pauses > 0 || control.now || also(&control) {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            control = self.wait_for(control, left);
        }
    }
}

/// Keeps the worker paused until dropped.
pub struct Paused(Arc<Shared>);

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.change(|control| {
            control.pauses = control.pauses.saturating_sub(1);
            control.dirty = true;
        });
    }
}

impl Syncer {
    pub(crate) fn start(
        shard: &Shard,
        courier: Arc<Courier>,
        uploader: Arc<Mutex<Uploader>>,
        sync: SyncOptions,
        options: SyncerOptions,
        on_pull: Option<OnPull>,
        hub: Hub,
    ) -> Result<Syncer> {
        let shared = Arc::new(Shared::new(Control {
            dirty: true,
            record: SyncRecord::load(shard.directory()),
            ..Control::default()
        }));
        let hook = Arc::clone(&shared);
        shard.on_write(move || hook.change(|control| control.dirty = true));
        let worker = Worker {
            shared: Arc::clone(&shared),
            shard: shard.clone(),
            courier,
            uploader,
            sync,
            options,
            on_pull,
            hub,
        };
        let thread = std::thread::Builder::new()
            .name("edge-sync uploads".into())
            .spawn(move || worker.run())
            .map_err(Error::io("start a thread for", "uploads"))?;
        Ok(Syncer {
            shared,
            thread: Some(thread),
        })
    }

    /// Uploads now: does not wait for the next attempt that is due.
    pub fn wake(&self) {
        self.shared.change(|control| control.now = true);
    }

    /// Stops uploading after the exchange under way, which is waited for, until the guard is
    /// dropped. A pull under way is given up.
    pub fn pause(&self) -> Paused {
        self.shared.change(|control| {
            control.pauses += 1;
            control.end_pull();
        });
        let mut control = self.shared.lock();
        while control.busy {
            control = self.shared.wait(control);
        }
        Paused(Arc::clone(&self.shared))
    }

    /// How the last exchanges went and what happens next.
    pub fn record(&self) -> SyncRecord {
        self.shared.lock().record.clone()
    }

    /// Takes over what somebody else did while the worker was paused.
    pub(crate) fn set_record(&self, record: SyncRecord) {
        self.shared.lock().record = record;
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.change(|control| {
            control.end = true;
            control.end_pull();
        });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    shard: Shard,
    courier: Arc<Courier>,
    uploader: Arc<Mutex<Uploader>>,
    sync: SyncOptions,
    options: SyncerOptions,
    on_pull: Option<OnPull>,
    hub: Hub,
}

/// How one go at uploading ended.
struct UploadAttempt {
    state: WorkerState,
    failure: Option<Error>,
    /// How long until the next go, unless something happens before.
    wait: Duration,
    /// Whether the server was asked anything.
    exchanged: bool,
}

impl Worker {
    fn run(self) {
        let mut due = Instant::now();
        let mut pull_due = self.options.pull_interval.map(|_| due);
        // Whether a write may bring the next attempt forward; not after a failure.
        let mut eager = true;
        let mut stored = Instant::now();
        let mut told = None;
        let mut is_looked_at = false;
        // A process that is killed in its first upload must have said that it was at it.
        let mut record = self.begin();
        self.store(&mut record);
        while self.wait_for_work(pull_due.map_or(due, |pull| pull.min(due)), eager) {
            let pass = self.upload(&mut is_looked_at);
            eager = pass.failure.is_none();
            due = Instant::now() + pass.wait;
            if pull_due.is_some_and(|due| due <= Instant::now()) {
                // What waits goes first, so that a pull does not download it twice.
                if pass.state == WorkerState::Idle {
                    self.pull();
                }
                pull_due = self.next_pull();
            }
            let mut record = self.note(&pass);
            // Not with every batch: the record is for people. But what is no longer so must not stay.
            let now = Some((pass.state, pass.failure.is_some()));
            if pass.failure.is_some()
                || told != now
                || (pass.exchanged && stored.elapsed() > Duration::from_secs(1))
            {
                told = now;
                stored = Instant::now();
                self.store(&mut record);
            }
            self.shared.change(|control| control.busy = false);
        }
        let mut record = self.shared.lock().record.clone();
        (record.worker, record.next_attempt_ms, record.next_pull_ms) = (None, None, None);
        record.note_queue(self.shard.queue_status().ok().as_ref());
        self.store(&mut record);
    }

    /// Waits until it is time to upload, and not paused; false at the end.
    fn wait_for_work(&self, due: Instant, eager: bool) -> bool {
        self.shared
            .wait_until(due, |control| eager && control.dirty);
        if eager && self.shared.lock().dirty {
            self.shared
                .wait_until(Instant::now() + self.options.linger, |_| false);
        }
        let mut control = self.shared.lock();
        while control.pauses > 0 && !control.end {
            control.record.worker = Some(WorkerState::Paused);
            control = self.shared.wait(control);
        }
        if control.end {
            return false;
        }
        (control.dirty, control.now, control.busy) = (false, false, true);
        control.record.worker = Some(WorkerState::Uploading);
        true
    }

    /// When to pull next. Devices that were started together must not ask together for ever.
    fn next_pull(&self) -> Option<Instant> {
        let wait = self
            .options
            .pull_interval?
            .mul_f64(0.75 + 0.5 * fastrand::f64());
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.shared.lock().record.next_pull_ms = Some(now_ms().saturating_add(millis));
        Some(Instant::now() + wait)
    }

    /// Fetches what others wrote. Given up for a pause and for the end.
    fn pull(&self) {
        let Ok(_alone) = self.shard.no_restore() else {
            return;
        };
        // There is none before the first restore.
        if !self.shard.is_present().unwrap_or(false) {
            return;
        }
        let cancel = Cancel::new();
        {
            let mut control = self.shared.lock();
            if control.end || control.pauses > 0 {
                return;
            }
            control.pull = Some(cancel.clone());
            control.record.begin(Exchange::Pull);
        }
        let outcome = {
            let mut uploader = self.uploader.lock().unwrap_or_else(PoisonError::into_inner);
            pull(
                &self.shard,
                &self.courier,
                &mut uploader,
                &self.sync,
                &cancel,
                &mut |_| {},
            )
        };
        let mut record = {
            let mut control = self.shared.lock();
            control.pull = None;
            match &outcome {
                Err(Error::Cancelled) => control.record.under_way = None,
                outcome => control.record.note_pull(outcome),
            }
            control.record.clone()
        };
        self.store(&mut record);
        match outcome {
            Ok(report) => {
                self.hub.pulled(&report);
                if let Some(notify) = &self.on_pull
                    && report.changed()
                {
                    notify(&report);
                }
            }
            Err(Error::Cancelled) => {}
            Err(error) => {
                self.hub.waiting(&error);
                tracing::warn!("what others wrote was not fetched: {error}");
            }
        }
    }

    /// Uploads until there is nothing left, something fails, or a pause or the end is wanted. The
    /// collection is looked at first, once, also where nothing waits: it may have to be created.
    fn upload(&self, is_looked_at: &mut bool) -> UploadAttempt {
        let mut uploader = self.uploader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut exchanged = false;
        let (state, failure, wait) = loop {
            {
                let control = self.shared.lock();
                if control.end || control.pauses > 0 {
                    break (WorkerState::Paused, None, Duration::ZERO);
                }
            }
            let (mut queue, mut server) = (&self.shard, &*self.courier);
            let step = match *is_looked_at || uploader.is_ready() {
                true => uploader.step(&mut queue, &mut server, None),
                false => uploader.prepare(&mut queue, &mut server, true),
            };
            exchanged |= !matches!(step, Ok(Step::Done) | Err(_));
            match step {
                Ok(Step::Done) => {
                    if exchanged
                        && let Err(error) = uploader.conclude_now_and_then(&mut queue, &mut server)
                    {
                        tracing::warn!("noting what the server holds: {error}");
                    }
                    break (WorkerState::Idle, None, self.options.interval);
                }
                Ok(Step::Rejected { sequence, failure }) => {
                    let failure = server_error(failure);
                    self.hub.tell(Event::Rejected {
                        sequence,
                        message: failure.to_string(),
                    });
                    tracing::warn!(sequence, "the server refuses an operation: {failure}");
                }
                Ok(Step::Collection { created }) => {
                    *is_looked_at = true;
                    if created {
                        tracing::info!("created the collection");
                    }
                }
                Ok(Step::Uploaded { operations }) => {
                    self.hub.tell(Event::Uploaded {
                        operations: operations.into(),
                    });
                }
                Ok(Step::Again) => {}
                Ok(Step::Wait { after, failure }) => {
                    let failure = server_error(failure);
                    self.hub.waiting(&failure);
                    tracing::info!(?after, "upload failed in passing: {failure}");
                    break (WorkerState::Waiting, Some(failure), after);
                }
                Ok(Step::Stop(failure)) => {
                    let failure = server_error(failure);
                    self.hub.stopped(&failure);
                    tracing::error!("upload stopped: {failure}");
                    let wait = self.options.stopped_interval;
                    break (WorkerState::Stopped, Some(failure), wait);
                }
                // There is no shard before the first restore.
                Err(Error::NotFound(_)) => {
                    break (WorkerState::Idle, None, self.options.interval);
                }
                Err(error) => {
                    tracing::error!("upload failed at the shard: {error}");
                    break (WorkerState::Waiting, Some(error), self.options.interval);
                }
            }
        };
        UploadAttempt {
            state,
            failure,
            wait,
            exchanged,
        }
    }

    fn begin(&self) -> SyncRecord {
        let queue = self.shard.queue_status().ok();
        let mut control = self.shared.lock();
        control.record.worker = Some(WorkerState::Uploading);
        control.record.note_queue(queue.as_ref());
        control.record.clone()
    }

    fn note(&self, pass: &UploadAttempt) -> SyncRecord {
        let queue = self.shard.queue_status().ok();
        let mut control = self.shared.lock();
        let record = &mut control.record;
        if pass.failure.is_some() || (pass.exchanged && pass.state == WorkerState::Idle) {
            record.note(pass.failure.as_ref());
        }
        record.note_queue(queue.as_ref());
        record.worker = Some(pass.state);
        record.next_attempt_ms = pass.failure.as_ref().map(|_| {
            let wait = u64::try_from(pass.wait.as_millis()).unwrap_or(u64::MAX);
            now_ms().saturating_add(wait)
        });
        record.clone()
    }

    fn store(&self, record: &mut SyncRecord) {
        if let Err(error) = record.store(self.shard.directory()) {
            tracing::warn!("the sync status is not kept: {error}");
        }
    }
}
