//! Optimizing while the shard goes on serving.
//!
//! 1. In one call on the shard's actor, the shard is flushed and copied: links to the files that no
//!    write touches, copies of the rest. From then on the log keeps what the copy lacks.
//! 2. Fresh instances optimize the copy: the long part. It can be stopped at any moment. Where several
//!    optimizations are due, of different segments, as many instances do one each, beside each other.
//!    The last opens all of the copy, does what is left, and replays what the log holds by now.
//! 3. In one job on the shard's actor, as at the end of a restore: the old instance closes the shard,
//!    the new one replays the rest and switches generations with one rename.
//!
//! Until the rename, any failure leaves the old generation in force, and the copy is removed.

use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::background;
use crate::bindings::exports::edge_sync::shard::restore::PlannedOptimization;
use crate::cancel::Cancel;
use crate::error::{Error, Result};
use crate::restore::Stager;
use crate::shard::Shard;
use crate::types::Opened;

/// Steps of progress that wait for whoever is told; more are left out.
const TOLD_AHEAD: usize = 16;

/// What an optimization tells while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptimizeProgress {
    /// Flushing and copying the shard, which waits for it.
    Copying,
    /// Merging segments, before there is a graph to build and between two of them.
    Building,
    /// Building the graph of a segment, or of several at the same time.
    Indexing {
        /// Points that are linked into it, or into all that were begun together.
        indexed: u64,
        /// Points that it will have, or those that were begun.
        total: u64,
    },
    /// Replaying the rest and switching, for which the shard waits.
    Switching,
}

/// What an optimization did.
#[derive(Debug)]
#[non_exhaustive]
pub struct OptimizeReport {
    /// The generation now in force, and what opening it found; none if there was nothing to do.
    pub opened: Option<Opened>,
    /// Operations that were written meanwhile, and replayed before the switch.
    pub replayed: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl OptimizeReport {
    /// False if there was nothing to do.
    pub fn changed(&self) -> bool {
        self.opened.is_some()
    }
}

/// A copy of the shard that is removed in the end, unless it is in force by then.
struct Copy<'a>(&'a Shard);

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        match self.0.end_optimize() {
            // Then its next opening removes it.
            Ok(()) | Err(Error::Closed(_)) => {}
            Err(error) => tracing::warn!("the copy of the shard is not removed yet: {error}"),
        }
    }
}

impl Shard {
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
}

pub(crate) fn optimize(
    shard: &Shard,
    cancel: &Cancel,
    progress: &mut dyn FnMut(OptimizeProgress),
) -> Result<OptimizeReport> {
    let started = Instant::now();
    let _alone = shard.no_restore()?;
    cancel.check()?;
    progress(OptimizeProgress::Copying);
    let report = |opened, replayed| OptimizeReport {
        opened,
        replayed,
        elapsed: started.elapsed(),
    };
    // Dropped after the stager, whose instance has the copy open.
    let _copy = Copy(shard);
    let Some(planned) = shard.begin_optimize()? else {
        shard.shed_memory()?;
        return Ok(report(None, 0));
    };
    progress(OptimizeProgress::Building);
    let builders = shard.options().builders.min(planned.len());
    if builders > 1 {
        build_shares(shard, planned, builders, cancel, progress)?;
    }
    let stager = Stager::start_behind(shard)?;
    cancel.check()?;
    let staged = std::thread::scope(|scope| {
        let (told, steps) = mpsc::sync_channel(TOLD_AHEAD);
        let stager = &stager;
        let staging = scope.spawn(move || {
            stager.stage_optimize(cancel, move |indexed, total| {
                tell_indexed(&told, indexed, total);
            })
        });
        for step in steps {
            progress(step);
        }
        staging
            .join()
            .unwrap_or(Err(Error::Closed("the builder's instance")))
    })?;
    let Some(staged) = staged else {
        shard.shed_memory()?;
        return Ok(report(None, 0));
    };
    cancel.check()?;
    progress(OptimizeProgress::Switching);
    let opened = shard.promote(stager.into_inner()?, None)?;
    Ok(report(Some(opened), staged.replayed))
}

/// Whoever is told may be slow, and is not waited for.
fn tell_indexed(told: &SyncSender<OptimizeProgress>, indexed: u64, total: u64) {
    let _ = told.try_send(OptimizeProgress::Indexing { indexed, total });
}

/// Carries out all of the planned optimizations, so many at the same time. The first failure ends the
/// others.
fn build_shares(
    shard: &Shard,
    planned: Vec<PlannedOptimization>,
    builders: usize,
    cancel: &Cancel,
    progress: &mut dyn FnMut(OptimizeProgress),
) -> Result<()> {
    let together = cancel.follower();
    let graphs = Arc::new(Mutex::new(vec![(0, 0); planned.len()]));
    let left = Mutex::new(planned.into_iter().enumerate());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let build = |told: SyncSender<OptimizeProgress>| {
        while let Some((at, planned)) = next() {
            together.check()?;
            let (graphs, told) = (Arc::clone(&graphs), told.clone());
            Stager::start_behind(shard)?.build_share(
                planned,
                &together,
                move |indexed, total| {
                    let mut graphs = graphs.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(graph) = graphs.get_mut(at) {
                        *graph = (indexed, total);
                    }
                    let indexed = graphs.iter().map(|(indexed, _)| indexed).sum();
                    let total = graphs.iter().map(|(_, total)| total).sum();
                    tell_indexed(&told, indexed, total);
                },
            )?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let (told, steps) = mpsc::sync_channel(TOLD_AHEAD);
        let building: Vec<_> = (0..builders)
            .map(|_| {
                let (told, build, together) = (told.clone(), &build, &together);
                scope.spawn(move || build(told).inspect_err(|_| together.cancel()))
            })
            .collect();
        drop(told);
        for step in steps {
            progress(step);
        }
        let outcomes: Vec<Result<()>> = building
            .into_iter()
            .map(|builder| {
                let outcome = builder.join();
                outcome.unwrap_or(Err(Error::Closed("a builder's instance")))
            })
            .collect();
        // Those that were ended by another's failure say less than that.
        let (ended, failed): (Vec<_>, Vec<_>) = outcomes
            .into_iter()
            .filter_map(Result::err)
            .partition(|error| matches!(error, Error::Cancelled));
        match failed.into_iter().chain(ended).next() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    })
}
