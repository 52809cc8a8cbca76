//! One instance of the component: what it is granted, and calling it within limits.

use std::path::PathBuf;
use std::time::Duration;

use wasmtime::{Store, Trap, UpdateDeadline};
use wasmtime_wasi::{FsPerms, WasiCtx};

use crate::bindings::EdgeSync;
use crate::bindings::exports::edge_sync::shard::types::Error as GuestError;
use crate::cancel::Cancel;
use crate::component::Component;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::outbound::Outbound;
use crate::setters::setters;
use crate::stderr::{OnIndexed, StderrTail};
use crate::types::{StorageFailure, StorageKind};

/// Longest times that calls may take. A call that takes longer is stopped and its instance made
/// anew. The limits are against guests that hang, and so are generous.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TimeLimits {
    /// Reads: search, scroll, ... Default: 2 minutes.
    pub read: Duration,
    /// Writes and flush. Default: 10 minutes.
    pub write: Duration,
    /// Opening (which replays the log) and restoring. Default: 1 hour.
    pub open: Duration,
    /// Optimizing, which builds indexes, and queueing everything again. Default: 12 hours.
    pub optimize: Duration,
}

impl Default for TimeLimits {
    fn default() -> TimeLimits {
        TimeLimits {
            read: Duration::from_secs(120),
            write: Duration::from_secs(600),
            open: Duration::from_secs(3600),
            optimize: Duration::from_secs(12 * 3600),
        }
    }
}

setters!(TimeLimits {
    read: Duration,
    write: Duration,
    open: Duration,
    optimize: Duration,
});

/// A call of the guest, as often as it has to be made.
pub(crate) trait GuestCall<R>:
    Fn(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>> + Send + Sync + 'static
{
}

impl<R, F> GuestCall<R> for F where
    F: Fn(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>
        + Send
        + Sync
        + 'static
{
}

/// What an instance is given. There is nothing else: no environment, no arguments, no sockets.
pub(crate) struct Grants {
    pub(crate) preopens: Vec<Preopen>,
    pub(crate) outbound: Outbound,
    pub(crate) memory_bytes: usize,
}

/// A folder of the host that an instance sees.
#[derive(Clone, Debug)]
pub(crate) struct Preopen {
    folder: PathBuf,
    /// Its name in the guest.
    guest_folder: &'static str,
    /// Whether the instance may change what is in the folder.
    access: FsPerms,
}

impl Preopen {
    pub(crate) fn new(
        folder: impl Into<PathBuf>,
        guest_folder: &'static str,
        access: FsPerms,
    ) -> Preopen {
        Preopen {
            folder: folder.into(),
            guest_folder,
            access,
        }
    }
}

/// An instance with its store. After an error that [`Error::ends_instance`], it must be dropped.
pub(crate) struct Instance {
    component: Component,
    store: Store<Guest>,
    bindings: EdgeSync,
    preopens: Vec<Preopen>,
}

impl Instance {
    pub(crate) fn new(component: &Component, grants: Grants) -> Result<Instance> {
        let stderr = StderrTail::default();
        let mut wasi = WasiCtx::builder();
        // Whose thread it is waits anyway, and a hop to another thread for each file access costs more
        // than the access.
        wasi.allow_blocking_current_thread(true)
            .stderr(stderr.clone());
        for preopen in &grants.preopens {
            wasi.preopened_dir(&preopen.folder, preopen.guest_folder, preopen.access)
                .map_err(|error| Error::Io {
                    operation: "open the folder",
                    path: preopen.folder.clone(),
                    source: error
                        .downcast()
                        .unwrap_or_else(|error| std::io::Error::other(format!("{error:#}"))),
                })?;
        }
        let wasi = wasi.build();
        let mut store = Store::new(
            component.engine(),
            Guest::new(wasi, stderr, grants.outbound, grants.memory_bytes),
        );
        store.limiter(|guest| &mut guest.memory);
        store.epoch_deadline_trap();
        let (ticks, _ticking) = component.timed(Duration::from_secs(60));
        store.set_epoch_deadline(ticks);
        let bindings = component.pre().instantiate(&mut store).map_err(|error| {
            if store.data().memory.exceeded {
                return Error::MemoryLimit {
                    call: "instantiate",
                    limit_bytes: store.data().memory.bytes,
                };
            }
            Error::BadComponent(format!("{error:#}"))
        })?;
        Ok(Instance {
            component: component.clone(),
            store,
            bindings,
            preopens: grants.preopens,
        })
    }

    /// Calls a function of the component; `name` is its WIT name, for errors.
    pub(crate) fn call<R>(
        &mut self,
        name: &'static str,
        limit: Duration,
        function: impl FnOnce(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    ) -> Result<R> {
        let _span = tracing::debug_span!("call", name).entered();
        let (ticks, _ticking) = self.component.timed(limit);
        self.store.set_epoch_deadline(ticks);
        self.make(name, limit, function)
    }

    /// [`Instance::call`] that can be cancelled: the call is stopped where it is, with
    /// [`Error::Cancelled`], and the instance is of no use any more.
    pub(crate) fn call_or_cancel<R>(
        &mut self,
        name: &'static str,
        limit: Duration,
        cancel: &Cancel,
        function: impl FnOnce(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    ) -> Result<R> {
        let _span = tracing::debug_span!("call", name).entered();
        let (mut ticks, _ticking) = self.component.timed(limit);
        let cancel = cancel.clone();
        self.store.set_epoch_deadline(1);
        self.store.epoch_deadline_callback(move |_| {
            cancel.check()?;
            ticks = ticks.saturating_sub(1);
            match ticks {
                0 => Err(Trap::Interrupt.into()),
                _ => Ok(UpdateDeadline::Continue(1)),
            }
        });
        let outcome = self.make(name, limit, function);
        self.store.epoch_deadline_trap();
        outcome
    }

    /// From now on, how far the building of a graph is goes there.
    pub(crate) fn on_indexed(&self, told: Option<OnIndexed>) {
        self.store.data().stderr.on_indexed(told);
    }

    fn make<R>(
        &mut self,
        name: &'static str,
        limit: Duration,
        function: impl FnOnce(&EdgeSync, &mut Store<Guest>) -> wasmtime::Result<Result<R, GuestError>>,
    ) -> Result<R> {
        self.store.data_mut().memory.exceeded = false;
        match function(&self.bindings, &mut self.store) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let memory = &self.store.data().memory;
                // Where the engine could do without the memory, it says what it wanted it for; what
                // it could not read for lack of memory, it may take for damaged.
                let may_follow = matches!(
                    error,
                    GuestError::Internal(_)
                        | GuestError::Corrupt(_)
                        | GuestError::BadSnapshot(_)
                        | GuestError::Storage(StorageFailure {
                            kind: StorageKind::Io,
                            ..
                        })
                );
                if memory.exceeded && may_follow {
                    return Err(Error::MemoryLimit {
                        call: name,
                        limit_bytes: memory.bytes,
                    });
                }
                let names =
                    |error: Error, it: &Preopen| error.with_host_paths(it.guest_folder, &it.folder);
                Err(self.preopens.iter().fold(Error::from(error), names))
            }
            Err(trap) => Err(self.describe(name, limit, &trap)),
        }
    }

    /// Size of the linear memory. It never shrinks.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().memory.granted
    }

    pub(crate) fn guest_mut(&mut self) -> &mut Guest {
        self.store.data_mut()
    }

    fn describe(&mut self, call: &'static str, limit: Duration, trap: &wasmtime::Error) -> Error {
        if matches!(trap.downcast_ref(), Some(Error::Cancelled)) {
            return Error::Cancelled;
        }
        let guest = self.store.data_mut();
        let said = guest.stderr.take();
        let error = if trap.downcast_ref::<Trap>() == Some(&Trap::Interrupt) {
            Error::TimedOut { call, limit }
        } else if guest.memory.exceeded {
            Error::MemoryLimit {
                call,
                limit_bytes: guest.memory.bytes,
            }
        } else {
            let why = trap.root_cause().to_string();
            let message = if said.is_empty() {
                why
            } else {
                format!("{why}; it said: {said}")
            };
            Error::Trapped { call, message }
        };
        let frames = trap
            .downcast_ref()
            .map(|backtrace| self.component.names().of(backtrace));
        let frames = frames.unwrap_or_default();
        tracing::error!(call, said, "{}{frames}", trap.root_cause());
        error
    }
}
