//! The worker that optimizes a shard that has no server, whenever there is enough to index.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::events::{Event, Hub};
use crate::optimize::optimize;
use crate::setters::setters;
use crate::shard::Shard;
use crate::watched::Watched;

/// When a shard is optimized without being asked for it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AutoOptimizeOptions {
    /// How long after a write it looks whether there is enough to do. Default: 10 s.
    pub interval: Duration,
    /// How long it waits after an optimization that failed, or that found nothing to do after all.
    /// Default: 10 minutes.
    pub failed_interval: Duration,
}

impl Default for AutoOptimizeOptions {
    fn default() -> AutoOptimizeOptions {
        AutoOptimizeOptions {
            interval: Duration::from_secs(10),
            failed_interval: Duration::from_secs(600),
        }
    }
}

setters!(AutoOptimizeOptions {
    interval: Duration,
    failed_interval: Duration,
});

/// Optimizes on a thread of its own, until dropped.
pub(crate) struct Optimizer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    control: Watched<Control>,
    /// Ends the optimization under way.
    cancel: Cancel,
}

#[derive(Default)]
struct Control {
    /// Something was written since it was last looked.
    dirty: bool,
    end: bool,
}

impl Optimizer {
    pub(crate) fn start(
        shard: &Shard,
        options: AutoOptimizeOptions,
        hub: Hub,
    ) -> Result<Optimizer> {
        let shared = Arc::new(Shared::default());
        // There may be enough from before.
        shared.control.lock().dirty = true;
        let hook = Arc::clone(&shared);
        shard.on_write(move || hook.control.change(|control| control.dirty = true));
        let worker = Worker {
            shared: Arc::clone(&shared),
            shard: shard.clone(),
            options,
            hub,
        };
        let thread = std::thread::Builder::new()
            .name("edge-sync optimizer".into())
            .spawn(move || worker.run())
            .map_err(Error::io("start a thread for", "the optimizer"))?;
        Ok(Optimizer {
            shared,
            thread: Some(thread),
        })
    }
}

impl Drop for Optimizer {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
        self.shared.control.change(|control| control.end = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Worker {
    shared: Arc<Shared>,
    shard: Shard,
    options: AutoOptimizeOptions,
    hub: Hub,
}

impl Worker {
    fn run(self) {
        // Not before this, whatever is written.
        let mut due = Instant::now();
        while self.wait(due) {
            let wait = match self.look() {
                Ok(wait) => wait,
                Err(Error::Cancelled | Error::Closed(_)) => return,
                Err(error) => {
                    tracing::warn!("the shard was not optimized: {error}");
                    self.hub.waiting(&error);
                    self.shared.control.lock().dirty = true;
                    self.options.failed_interval
                }
            };
            due = Instant::now() + wait;
        }
    }

    /// Waits for a write, and until `due`; false at the end.
    fn wait(&self, due: Instant) -> bool {
        let mut control = self.shared.control.lock();
        loop {
            if control.end {
                return false;
            }
            let left = due.saturating_duration_since(Instant::now());
            if control.dirty && left.is_zero() {
                control.dirty = false;
                return true;
            }
            let watched = &self.shared.control;
            control = match control.dirty {
                true => watched.wait_for(control, left),
                false => watched.wait(control),
            };
        }
    }

    /// Optimizes if there is enough to do; answers how long to wait before looking again.
    fn look(&self) -> Result<Duration> {
        match self.shard.needs_optimize() {
            Ok(true) => {}
            // There is no shard before the first creation or restore.
            Ok(false) | Err(Error::NotFound(_)) => return Ok(self.options.interval),
            Err(error) => return Err(error),
        }
        match optimize(&self.shard, &self.shared.cancel, &mut |_| {}) {
            Ok(report) => match report.opened {
                Some(opened) => {
                    let generation = opened.generation;
                    self.hub.tell(Event::Optimized { generation });
                    Ok(self.options.interval)
                }
                None => Ok(self.options.failed_interval),
            },
            // Somebody restores, or optimizes by hand.
            Err(Error::Restoring(_)) => {
                self.shared.control.lock().dirty = true;
                Ok(self.options.interval)
            }
            Err(error) => Err(error),
        }
    }
}
