//! Everything outside the component: disk, server, clock, randomness, and what goes wrong with them.

use std::hash::{Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, Inode};
use crate::faults::{CallKind, Failure, Fault, HostCall, Plan};
use crate::server::Server;

/// One step of the simulated clocks. They move only when they are asked, so that a run takes the
/// same time whenever and wherever it is repeated.
const TICK_NS: u64 = 20_000;

/// Where the clocks start: 2026-01-01.
const START_NS: u64 = 1_767_225_600_000_000_000;

/// A call that is not answered: the instance ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulator stopped the instance")]
pub struct Stopped;

/// How a call on the file system ends other than well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal<E> {
    /// The instance is stopped.
    Stopped,
    /// The simulator lets it fail.
    Injected(Failure),
    /// It is not possible.
    Impossible(E),
}

/// Promises of the disk that are broken on purpose, to show that the checks notice.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// Syncs of files and directories below these paths do nothing and succeed.
    pub ignores_sync_below: Vec<String>,
    /// A rename that replaces a file copies into it and removes the source.
    pub renames_by_copy: bool,
    /// Files have one name: links are refused, as on FAT. No promise: a device works without links.
    pub refuses_links: bool,
    /// The identity of a file says nothing of which file it is.
    pub identity: Lie,
    /// Folders cannot be synced.
    pub syncs_no_folders: bool,
    /// Files are said to be a byte longer than they are.
    pub lengthens: bool,
    /// No network: every request is denied, by WASI's code for that.
    pub denies_requests: bool,
}

/// What `metadata-hash` is, beside what WASI promises of it: that it usually changes with the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    /// None: it is of which file it is.
    #[default]
    None,
    /// The same for all files.
    Same,
    /// Of the file's size alone.
    Size,
    /// Of which file it is, and of its size: it changes with every write that adds.
    Growing,
    /// Of which file it is, and of the month in which it was written to: nearly always the same.
    Month,
    /// Another with every question.
    Random,
}

/// The outside state at one moment.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The call that led to it.
    pub call: HostCall,
    /// The script's mark, see [`World::mark`].
    pub mark: usize,
    /// The disk after the call.
    pub disk: Disk,
    /// The server after the call.
    pub server: Server,
}

/// The outside.
#[derive(Debug)]
pub struct World {
    /// The disk.
    pub disk: Disk,
    /// The server.
    pub server: Server,
    /// What goes wrong.
    pub plan: Plan,
    /// Broken promises.
    pub habits: Habits,
    /// Bytes that the disk has room for; none for as many as it takes.
    pub capacity: Option<u64>,
    /// What the script is doing; recorded with moments.
    pub mark: usize,
    /// Moments that differ from the one before, if they are to be kept.
    pub recording: Option<Vec<Moment>>,
    /// Faults that happened, for messages.
    pub happened: Vec<(HostCall, Fault)>,
    /// The last calls, for messages.
    pub trail: std::collections::VecDeque<HostCall>,
    path: std::hash::DefaultHasher,
    random: fastrand::Rng,
    now_ns: u64,
    calls: u64,
    stopped: bool,
    recorded: (u64, u64),
}

/// A world that instances share.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    /// Shares `world`.
    pub fn new(world: World) -> Shared {
        Shared(Arc::new(Mutex::new(world)))
    }

    /// The world, for the time of the guard.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl World {
    /// A world with randomness from `seed`.
    pub fn new(disk: Disk, server: Server, seed: u64) -> World {
        World {
            recorded: (disk.version(), server.version()),
            disk,
            server,
            plan: Plan::Quiet,
            habits: Habits::default(),
            capacity: None,
            mark: 0,
            recording: None,
            happened: Vec::new(),
            trail: std::collections::VecDeque::new(),
            path: std::hash::DefaultHasher::new(),
            random: fastrand::Rng::with_seed(seed),
            now_ns: START_NS,
            calls: 0,
            stopped: false,
        }
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// A hash of all calls in their order: runs that went the same way have the same.
    pub fn path(&self) -> u64 {
        self.path.finish()
    }

    /// Nanoseconds since 1970; a little later each time.
    pub fn now_ns(&mut self) -> u64 {
        self.now_ns += TICK_NS;
        self.now_ns
    }

    /// Lets time pass.
    pub fn pass(&mut self, nanoseconds: u64) {
        self.now_ns = self.now_ns.saturating_add(nanoseconds);
    }

    /// Random bits for the component.
    pub fn random_u64(&mut self) -> u64 {
        self.random.u64(..)
    }

    /// True once an instance was stopped; all further calls end in [`Refusal::Stopped`] until
    /// [`World::restart`].
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Lets the next instance run.
    pub fn restart(&mut self) {
        self.stopped = false;
    }

    /// Numbers a call and says what is to happen to it. `Err` if the instance stops before it.
    pub(super) fn begin(
        &mut self,
        kind: CallKind,
        name: &'static str,
        target: &str,
    ) -> Result<(HostCall, Option<Fault>), Stopped> {
        if self.stopped {
            return Err(Stopped);
        }
        self.calls += 1;
        let call = HostCall {
            number: self.calls,
            name,
            target: target.to_owned(),
            kind,
        };
        (call.name, &call.target).hash(&mut self.path);
        self.trail.push_back(call.clone());
        if self.trail.len() > 60 {
            self.trail.pop_front();
        }
        self.disk.set_time(self.now_ns);
        let fault = self.plan.decide(&call);
        if let Some(fault) = fault {
            self.happened.push((call.clone(), fault));
        }
        if fault == Some(Fault::StopBefore) {
            self.stopped = true;
            return Err(Stopped);
        }
        Ok((call, fault))
    }

    /// Ends a call that took effect.
    pub(super) fn end(&mut self, call: HostCall, fault: Option<Fault>) -> Result<(), Stopped> {
        let versions = (self.disk.version(), self.server.version());
        if self.recorded != versions {
            self.recorded = versions;
            if let Some(recording) = &mut self.recording {
                recording.push(Moment {
                    call,
                    mark: self.mark,
                    disk: self.disk.clone(),
                    server: self.server.clone(),
                });
            }
        }
        if fault == Some(Fault::StopAfter) {
            self.stopped = true;
            return Err(Stopped);
        }
        Ok(())
    }

    /// One call on the file system, with what goes wrong with it.
    pub(super) fn call<T, E>(
        &mut self,
        kind: CallKind,
        name: &'static str,
        target: &str,
        effect: impl FnOnce(&mut World) -> Result<T, E>,
    ) -> Result<T, Refusal<E>> {
        let (call, fault) = self
            .begin(kind, name, target)
            .map_err(|Stopped| Refusal::Stopped)?;
        if let Some(Fault::Fail(failure) | Fault::Short(_, failure)) = fault
            && kind != CallKind::Http
        {
            return Err(Refusal::Injected(failure));
        }
        let result = effect(self);
        self.end(call, fault).map_err(|Stopped| Refusal::Stopped)?;
        result.map_err(Refusal::Impossible)
    }

    /// One write. Answers how many bytes were written, and the failure that stopped it there.
    pub(super) fn write(
        &mut self,
        name: &'static str,
        target: &str,
        inode: Inode,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(usize, Option<Failure>), Refusal<crate::disk::DiskError>> {
        let (call, fault) = self
            .begin(CallKind::Write, name, target)
            .map_err(|Stopped| Refusal::Stopped)?;
        let room = self
            .capacity
            .map(|capacity| capacity.saturating_sub(self.disk.used()));
        let is_full = room.is_some_and(|room| self.disk.growth(inode, offset, bytes.len()) > room);
        let (length, failure) = match fault {
            None if is_full => (0, Some(Failure::NoSpace)),
            Some(Fault::Fail(failure)) => (0, Some(failure)),
            Some(Fault::Short(thousandths, failure)) => (
                bytes.len() * usize::from(thousandths.min(1000)) / 1000,
                Some(failure),
            ),
            _ => (bytes.len(), None),
        };
        let result = self.disk.write(inode, offset, &bytes[..length]);
        self.end(call, fault).map_err(|Stopped| Refusal::Stopped)?;
        result.map_err(Refusal::Impossible)?;
        Ok((length, failure))
    }

    /// One sync of a file or directory.
    pub(super) fn sync(
        &mut self,
        name: &'static str,
        path: &str,
        inode: Inode,
    ) -> Result<(), Refusal<crate::disk::DiskError>> {
        let (call, fault) = self
            .begin(CallKind::Sync, name, path)
            .map_err(|Stopped| Refusal::Stopped)?;
        if let Some(Fault::Fail(failure) | Fault::Short(_, failure)) = fault {
            self.disk.lose_unsynced(inode);
            return Err(Refusal::Injected(failure));
        }
        let ignored = self
            .habits
            .ignores_sync_below
            .iter()
            .any(|below| path.starts_with(below.as_str()));
        let result = if ignored {
            Ok(())
        } else {
            self.disk.sync(inode)
        };
        self.end(call, fault).map_err(|Stopped| Refusal::Stopped)?;
        result.map_err(Refusal::Impossible)
    }
}
