//! Async twins of calls that are made of several, or wait for a thread: each has the arguments of the
//! blocking call. `progress` is called on the thread that carries the call out.

use std::path::Path;

use crate::background;
use crate::cancel::Cancel;
use crate::component::{Component, ComponentOptions};
use crate::edge::EdgeSync;
use crate::error::Result;
use crate::optimize::{OptimizeProgress, OptimizeReport};
use crate::peek::Peek;
use crate::progress::{Progress, RestoreProgress};
use crate::reports::{PullReport, RestoreReport, SyncReport};
use crate::restore::RestoreSource;
use crate::shard::{RetryReport, Shard};
use crate::shard_options::ShardOptions;
use crate::sync::{Direction, SyncPermissions};
use crate::types::{Opened, Peeked, RejectedOperation, WaitingOperation};

impl EdgeSync {
    /// [`EdgeSync::sync_with`] for async callers.
    pub async fn sync_with_async(
        &self,
        cancel: &Cancel,
        progress: impl FnMut(Progress<'_>) + Send + 'static,
    ) -> Result<SyncReport> {
        let edge = self.clone();
        background::run_until(cancel, "sync", move |cancel| {
            edge.sync_with(cancel, progress)
        })
        .await
    }

    /// [`EdgeSync::sync_permitted`] for async callers.
    pub async fn sync_permitted_async(
        &self,
        direction: Direction,
        permissions: SyncPermissions,
        cancel: &Cancel,
        progress: impl FnMut(Progress<'_>) + Send + 'static,
    ) -> Result<SyncReport> {
        let edge = self.clone();
        background::run_until(cancel, "sync", move |cancel| {
            edge.sync_permitted(direction, permissions, cancel, progress)
        })
        .await
    }

    /// [`EdgeSync::pull_with`] for async callers.
    pub async fn pull_with_async(
        &self,
        cancel: &Cancel,
        progress: impl FnMut(RestoreProgress<'_>) + Send + 'static,
    ) -> Result<PullReport> {
        let edge = self.clone();
        background::run_until(cancel, "pull", move |cancel| {
            edge.pull_with(cancel, progress)
        })
        .await
    }

    /// [`EdgeSync::restore`] for async callers.
    pub async fn restore_async(
        &self,
        source: &RestoreSource,
        cancel: &Cancel,
        progress: impl FnMut(RestoreProgress<'_>) + Send + 'static,
    ) -> Result<RestoreReport> {
        let (edge, source) = (self.clone(), source.clone());
        background::run_until(cancel, "restore", move |cancel| {
            edge.restore(&source, cancel, progress)
        })
        .await
    }

    /// [`EdgeSync::restore_forced`] for async callers.
    pub async fn restore_forced_async(
        &self,
        source: &RestoreSource,
        cancel: &Cancel,
        progress: impl FnMut(RestoreProgress<'_>) + Send + 'static,
    ) -> Result<RestoreReport> {
        let (edge, source) = (self.clone(), source.clone());
        background::run_until(cancel, "restore", move |cancel| {
            edge.restore_forced(&source, cancel, progress)
        })
        .await
    }
}

impl Shard {
    /// [`Shard::create`] for async callers.
    pub async fn create_async(
        component: &Component,
        directory: impl AsRef<Path>,
        config: &str,
        options: ShardOptions,
    ) -> Result<Shard> {
        let (component, directory) = (component.clone(), directory.as_ref().to_owned());
        let config = config.to_owned();
        background::run("opening", move |_| {
            Shard::create(&component, directory, &config, options)
        })
        .await
    }

    /// [`Shard::open`] for async callers.
    pub async fn open_async(
        component: &Component,
        directory: impl AsRef<Path>,
        options: ShardOptions,
    ) -> Result<Shard> {
        let (component, directory) = (component.clone(), directory.as_ref().to_owned());
        background::run("opening", move |_| {
            Shard::open(&component, directory, options)
        })
        .await
    }

    /// [`Shard::attach`] for async callers.
    pub async fn attach_async(
        component: &Component,
        directory: impl AsRef<Path>,
        options: ShardOptions,
    ) -> Result<Shard> {
        let (component, directory) = (component.clone(), directory.as_ref().to_owned());
        background::run("opening", move |_| {
            Shard::attach(&component, directory, options)
        })
        .await
    }

    /// [`Shard::create_here`] for async callers.
    pub async fn create_here_async(&self, config: &str) -> Result<Opened> {
        let (shard, config) = (self.clone(), config.to_owned());
        background::run("opening", move |_| shard.create_here(&config)).await
    }

    /// [`Shard::is_present`] for async callers.
    pub async fn is_present_async(&self) -> Result<bool> {
        let shard = self.clone();
        background::run("shard", move |_| shard.is_present()).await
    }

    /// [`Shard::close`] for async callers.
    pub async fn close_async(&self) -> Result<()> {
        let shard = self.clone();
        background::run("closing", move |_| shard.close()).await
    }

    /// [`Shard::optimize_with`] for async callers.
    pub async fn optimize_with_async(
        &self,
        cancel: &Cancel,
        progress: impl FnMut(OptimizeProgress) + Send + 'static,
    ) -> Result<OptimizeReport> {
        let shard = self.clone();
        background::run_until(cancel, "optimize", move |cancel| {
            shard.optimize_with(cancel, progress)
        })
        .await
    }

    /// [`Shard::retry_all_rejected`] for async callers.
    pub async fn retry_all_rejected_async(&self) -> Result<RetryReport> {
        let shard = self.clone();
        background::run("retry", move |_| shard.retry_all_rejected()).await
    }
}

impl Peek {
    /// [`Peek::open`] for async callers.
    pub async fn open_async(
        component: &Component,
        directory: impl AsRef<Path>,
        options: &ShardOptions,
    ) -> Result<Peek> {
        let (component, directory) = (component.clone(), directory.as_ref().to_owned());
        let options = options.clone();
        background::run("opening", move |_| {
            Peek::open(&component, directory, &options)
        })
        .await
    }

    /// [`Peek::status`] for async callers.
    pub async fn status_async(&self) -> Result<Peeked> {
        let peek = self.clone();
        background::run("peek", move |_| peek.status()).await
    }

    /// [`Peek::waiting`] for async callers.
    pub async fn waiting_async(&self, after: u64, count: u32) -> Result<Vec<WaitingOperation>> {
        let peek = self.clone();
        background::run("peek", move |_| peek.waiting(after, count)).await
    }

    /// [`Peek::rejected`] for async callers.
    pub async fn rejected_async(&self, after: u64, count: u32) -> Result<Vec<RejectedOperation>> {
        let peek = self.clone();
        background::run("peek", move |_| peek.rejected(after, count)).await
    }
}

impl Component {
    /// [`Component::load_with`] for async callers.
    pub async fn load_with_async(
        path: impl AsRef<Path>,
        options: &ComponentOptions,
    ) -> Result<Component> {
        let (path, options) = (path.as_ref().to_owned(), options.clone());
        background::run("compiling", move |_| Component::load_with(path, &options)).await
    }

    /// [`Component::from_bytes`] for async callers.
    pub async fn from_bytes_async(bytes: &[u8], options: &ComponentOptions) -> Result<Component> {
        let (bytes, options) = (bytes.to_owned(), options.clone());
        background::run("compiling", move |_| {
            Component::from_bytes(&bytes, &options)
        })
        .await
    }
}
