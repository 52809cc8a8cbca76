//! A look into a data directory that another process may have.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wasmtime_wasi::FsPerms;

use crate::actor::Actor;
use crate::component::Component;
use crate::error::{Error, Result};
use crate::instance::{Grants, Instance, Preopen};
use crate::outbound::Outbound;
use crate::shard_options::ShardOptions;
use crate::shard_state::{GUEST_DATA, no_shard};
use crate::types::{Peeked, RejectedOperation, WaitingOperation};

/// Reads where the queue of a shard stands, what waits and what was refused, whether or not another
/// process has the directory. It is an instance that may only read, takes no lock and loads no
/// engine; what it tells was on disk when it was asked. Clones are handles to the same.
#[derive(Clone)]
pub struct Peek {
    actor: Arc<Actor<Instance>>,
    folder: PathBuf,
    limit: Duration,
}

impl Peek {
    /// Of `options`, memory and the time limit of reads apply.
    ///
    /// Errors: [`Error::NotFound`] if there is no such directory.
    pub fn open(
        component: &Component,
        directory: impl AsRef<Path>,
        options: &ShardOptions,
    ) -> Result<Peek> {
        let folder = directory.as_ref().to_owned();
        if !folder.is_dir() {
            return Err(no_shard(&folder));
        }
        let instance = Instance::new(
            component,
            Grants {
                preopens: vec![Preopen::new(&folder, GUEST_DATA, FsPerms::ReadOnly)],
                outbound: Outbound::Denied,
                memory_bytes: options.memory_bytes,
            },
        )?;
        Ok(Peek {
            actor: Arc::new(Actor::spawn("peek", instance)?),
            folder,
            limit: options.times.read,
        })
    }

    /// The generation in force, and where the queue stands.
    ///
    /// Errors, of this and the other calls: [`Error::NotFound`] if there is no shard;
    /// [`Error::Corrupt`]; [`Error::Storage`].
    pub fn status(&self) -> Result<Peeked> {
        let limit = self.limit;
        self.outcome(self.actor.call(move |instance| {
            instance.call("status", limit, |guest, store| {
                guest.edge_sync_shard_peek().call_status(store, GUEST_DATA)
            })
        }))
    }

    /// As [`Shard::waiting`](crate::Shard::waiting).
    pub fn waiting(&self, after: u64, count: u32) -> Result<Vec<WaitingOperation>> {
        let limit = self.limit;
        self.outcome(self.actor.call(move |instance| {
            instance.call("waiting", limit, |guest, store| {
                guest
                    .edge_sync_shard_peek()
                    .call_waiting(store, GUEST_DATA, after, count)
            })
        }))
    }

    /// As [`Shard::rejected`](crate::Shard::rejected).
    pub fn rejected(&self, after: u64, count: u32) -> Result<Vec<RejectedOperation>> {
        let limit = self.limit;
        self.outcome(self.actor.call(move |instance| {
            instance.call("rejected", limit, |guest, store| {
                guest
                    .edge_sync_shard_peek()
                    .call_rejected(store, GUEST_DATA, after, count)
            })
        }))
    }

    fn outcome<T>(&self, outcome: Result<T>) -> Result<T> {
        outcome.map_err(|error| match error {
            Error::NotFound(_) => no_shard(&self.folder),
            other => other,
        })
    }
}
