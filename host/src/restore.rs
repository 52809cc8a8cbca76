//! Restoring from a snapshot while the shard goes on serving.
//!
//! 1. The collection is looked at: unless forced, it must be the one that is bound. Then everything
//!    up to a barrier, the last operation logged so far, is uploaded; later uploads are held back, so
//!    that the log keeps what the snapshot may lack.
//! 2. The server's optimizer is waited for, within bounds, and the courier downloads the snapshot to
//!    the staging folder. Whether an optimization ran meanwhile is known from the state before and
//!    after.
//! 3. A fresh instance unpacks it into a new generation, checks it, makes one point of those that it
//!    holds several times, and replays the log after the barrier onto it. If an optimization ran,
//!    points that this device had deleted may be in it again: those that the server says it does not
//!    hold are deleted. A second instance, because linear memory never shrinks and ends at 4 GiB.
//!    Unless forced, a generation that would lack many of the shard's points is given up.
//! 4. In one job on the shard's owner, so that callers wait and none fails: the old instance
//!    closes the shard, the new one replays the rest and switches generations with one rename.
//!
//! Until the rename, any failure leaves the old generation in force.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edge_sync_upload::{
    Binding, Class, DownloadAttempts, Failure, RestoreCheck, Uploader, keeps_enough,
};

use crate::bindings::exports::edge_sync::shard::courier::OptimizerState;
use crate::bindings::exports::edge_sync::shard::restore::Staged;
use crate::courier::Courier;
use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::owner::Owner;
use crate::shard::{GUEST_DATA, Shard};
use crate::signal::Cancel;
use crate::sync::{Progress, SyncOptions, server_error, standing, wit_binding};
use crate::types::{FailureClass, Opened, PointId, SnapshotSource};

/// Name of the staging folder in the data directory.
const STAGING: &str = "staging";

/// Name of the snapshot in the staging folder.
const SNAPSHOT: &str = "restore.snapshot";

/// The same, where a file of the user's has that name.
const OTHER_SNAPSHOT: &str = "restore-copy.snapshot";

/// What the component keeps in the staging folder: the snapshots that a server is still to delete.
const LEDGER: &str = "snapshots-on-server.json";

/// How often the server's optimizer is looked at while it is waited for.
const SETTLE_LOOK: Duration = Duration::from_secs(1);

/// Where the snapshot comes from.
#[derive(Clone, Debug)]
pub enum RestoreSource {
    /// The server.
    Server(SnapshotSource),
    /// A shard snapshot file. It is read, not moved.
    File(PathBuf),
}

/// What a restore tells while it runs.
#[derive(Debug)]
#[non_exhaustive]
pub enum RestoreProgress<'a> {
    /// Uploading up to the barrier.
    Uploading(Progress<'a>),
    /// Waiting for the server's optimizer.
    Settling {
        /// How long so far.
        waited: Duration,
        /// How long at most.
        limit: Duration,
    },
    /// The server streams no snapshot, being busy with one for somebody else, and is asked to store
    /// one instead.
    StoredInstead,
    /// Downloading, or copying a local file.
    Downloading {
        /// Bytes on disk so far.
        bytes: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// The download failed in passing and will be tried again.
    Waiting {
        /// How long until then.
        after: Duration,
        /// Why.
        failure: &'a Error,
    },
    /// Unpacking, checking and replaying.
    Staging,
    /// Switching generations.
    Switching,
}

/// What a restore did.
#[derive(Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The generation now in force, and what opening it found.
    pub opened: Opened,
    /// Points in it before what was written meanwhile was replayed.
    pub points: u64,
    /// Operations after the barrier that were replayed before the switch.
    pub replayed: u64,
    /// Size of the snapshot, in bytes.
    pub snapshot_bytes: u64,
    /// Operations uploaded first.
    pub uploaded: u64,
    /// Old copies of points that the snapshot held beside newer ones, and that were removed.
    pub duplicates_removed: u64,
    /// Points that this device had deleted, that the snapshot held all the same and the server does
    /// not, and that were deleted again.
    pub deletes_applied: u64,
    /// Why the generation may not be what the server held: points that others deleted may be in it
    /// until the next restore. None for a snapshot that is sound, and for a file.
    pub unsettled: Option<String>,
}

/// Runs the restore. Uploads by others must be held back by the caller. Unless `force`, the
/// collection must be the one that the shard was synced with, and the snapshot must hold most of the
/// points.
pub(crate) fn restore(
    shard: &Shard,
    mut server: Option<(&Courier, &mut Uploader)>,
    source: &RestoreSource,
    force: bool,
    options: &SyncOptions,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
) -> Result<RestoreReport> {
    let present = shard.is_present()?;
    let held = if present { shard.info()?.points } else { 0 };
    let mut uploaded = 0;
    let mut from_collection = None;
    let mut doubt = None;
    let staging = Staging::clear(shard.directory(), source)?;
    let (barrier, snapshot_bytes) = match source {
        RestoreSource::Server(from) => {
            let (courier, uploader) = server.as_mut().ok_or(Error::Setting {
                name: "url",
                message: "a restore from the server needs one".to_owned(),
            })?;
            let binding = check(shard, present, courier, uploader, force, cancel, progress)?;
            let barrier = if present {
                shard.queue_status()?.logged
            } else {
                0
            };
            if present {
                let mut queue = shard;
                uploader.accept(&mut queue, &binding)?;
            }
            if present && shard.queue_status()?.queued > 0 {
                let report = crate::sync::run(
                    uploader,
                    shard,
                    courier,
                    Some(barrier),
                    cancel,
                    &mut |step| progress(RestoreProgress::Uploading(step)),
                )?;
                if let Some(failure) = report.failure {
                    return Err(failure);
                }
                uploaded = report.uploaded;
            }
            from_collection = Some(uploader.binding().clone());
            let before = settle(courier, options, cancel, progress)?;
            let bytes = download(courier, *from, options, cancel, progress)?;
            let unsettled = match persist(options, cancel, progress, || courier.optimizer()) {
                Ok(after) => unsettled(&before, &after),
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) => Some(format!(
                    "the server did not tell whether its optimizer ran meanwhile: {error}"
                )),
            };
            doubt = unsettled.map(|why| (*courier, why));
            (barrier, bytes)
        }
        RestoreSource::File(file) => {
            let barrier = if present {
                shard.queue_status()?.acknowledged
            } else {
                0
            };
            (barrier, staging.take(file, cancel, progress)?)
        }
    };
    cancel.check()?;

    progress(RestoreProgress::Staging);
    let (staged, mut instance) = stage(shard, staging.name, barrier)?;
    // Its bytes are in the new generation now; the switch may need the room.
    staging.remove_snapshot();
    let mut deletes_applied = 0;
    let mut unsettled = None;
    if let Some((courier, mut why)) = doubt {
        let deleted = if present {
            shard.deleted_here(barrier)?
        } else {
            Vec::new()
        };
        let (repaired, back) = delete_again(shard, instance, deleted, |alive| {
            persist(options, cancel, progress, || courier.absent(alive.clone()))
        })?;
        (deletes_applied, instance) = repaired;
        if let Some((count, error)) = back {
            why.push_str(&format!(
                "; up to {count} points that this device deleted may be back ({error})"
            ));
        }
        unsettled = Some(why);
    }
    let points = staged.points.saturating_sub(deletes_applied);
    if cancel.is_cancelled() {
        abandon(shard, instance);
        return Err(Error::Cancelled);
    }

    if !force && !keeps_enough(held, points, staged.replayed) {
        abandon(shard, instance);
        return Err(Error::WouldDrop {
            held,
            snapshot: points,
        });
    }

    progress(RestoreProgress::Switching);
    let binding = from_collection.map(|binding| Binding { points, ..binding });
    let opened = shard.promote(instance, binding.as_ref().map(wit_binding))?;
    if let (Some((_, uploader)), Some(binding)) = (server, binding) {
        uploader.restored(&binding);
    }
    Ok(RestoreReport {
        opened,
        points,
        replayed: staged.replayed,
        snapshot_bytes,
        uploaded,
        duplicates_removed: staged.duplicates_removed,
        deletes_applied,
        unsettled,
    })
}

/// Whether the collection may be restored from; asked again while failures are passing ones.
fn check(
    shard: &Shard,
    present: bool,
    courier: &Courier,
    uploader: &mut Uploader,
    force: bool,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
) -> Result<Binding> {
    let standing = if present {
        Some(standing(shard.standing()?))
    } else {
        None
    };
    uploader.begin();
    loop {
        cancel.check()?;
        let mut server = courier;
        match uploader.check_restore(standing.as_ref(), &mut server, force)? {
            RestoreCheck::Ready(binding) => return Ok(binding),
            RestoreCheck::Stop(failure) => {
                if present {
                    let mut queue = shard;
                    uploader.keep_finding(&mut queue)?;
                }
                return Err(server_error(failure));
            }
            RestoreCheck::Wait { after, failure } => {
                let failure = server_error(failure);
                if uploader.gives_up(after) {
                    return Err(failure);
                }
                progress(RestoreProgress::Waiting {
                    after,
                    failure: &failure,
                });
                cancel.sleep(after)?;
            }
        }
    }
}

/// Waits until the server's optimizer is at rest, or for as long as the options say.
fn settle(
    courier: &Courier,
    options: &SyncOptions,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
) -> Result<OptimizerState> {
    let started = Instant::now();
    loop {
        let state = persist(options, cancel, progress, || courier.optimizer())?;
        let waited = started.elapsed();
        if !state.running || waited >= options.settle {
            return Ok(state);
        }
        progress(RestoreProgress::Settling {
            waited,
            limit: options.settle,
        });
        cancel.sleep(SETTLE_LOOK.min(options.settle))?;
    }
}

/// Why a snapshot that was taken between the two states may not be what the server held.
fn unsettled(before: &OptimizerState, after: &OptimizerState) -> Option<String> {
    let why = if before.running || after.running {
        "the server's optimizer ran while the snapshot was taken"
    } else if before.mark != after.mark {
        "an optimization ended on the server while the snapshot was taken"
    } else {
        return None;
    };
    Some(why.to_owned())
}

/// Attempts of one thing, and the waits between them.
struct Attempts<'a> {
    counter: DownloadAttempts,
    cancel: &'a Cancel,
}

impl<'a> Attempts<'a> {
    fn new(options: &SyncOptions, cancel: &'a Cancel) -> Self {
        let counter = DownloadAttempts::new(
            options.backoff.clone(),
            options.attempts,
            options.patience,
            fastrand::u64(..),
        );
        Self { counter, cancel }
    }

    /// Waits before the next attempt. `error`, which the last one failed with, is given back if there
    /// is to be none.
    fn after(&mut self, error: Error, progress: &mut dyn FnMut(RestoreProgress<'_>)) -> Result<()> {
        let after = if error.ends_instance() {
            self.counter.broke(None)
        } else {
            self.counter.failed(&judged(&error))
        };
        let Some(after) = after else {
            return Err(error);
        };
        progress(RestoreProgress::Waiting {
            after,
            failure: &error,
        });
        self.cancel.sleep(after)
    }
}

/// Asks the courier again while it fails in passing.
fn persist<T>(
    options: &SyncOptions,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
    mut ask: impl FnMut() -> Result<T>,
) -> Result<T> {
    let mut attempts = Attempts::new(options, cancel);
    loop {
        cancel.check()?;
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => attempts.after(error, progress)?,
        }
    }
}

/// How many points were deleted, and the instance with the staged generation.
type Repaired = (u64, Instance);

/// Deletes those of the points again that the staged generation has from its snapshot and the server
/// does not hold. If the server cannot be asked, none of them, and how many there are and why is
/// answered too.
fn delete_again(
    shard: &Shard,
    instance: Instance,
    deleted: Vec<PointId>,
    mut absent: impl FnMut(Vec<PointId>) -> Result<Vec<PointId>>,
) -> Result<(Repaired, Option<(usize, Error)>)> {
    if deleted.is_empty() {
        return Ok(((0, instance), None));
    }
    let times = &shard.options().times;
    let (read, write) = (times.read, times.write);
    let owner = Owner::spawn("restore", instance)?;
    let alive = owner.call(move |instance| {
        instance.call("held", read, |guest, store| {
            guest.edge_sync_shard_restore().call_held(store, &deleted)
        })
    })?;
    let count = alive.len();
    let mut applied = 0;
    let mut failed = None;
    if count > 0 {
        match absent(alive) {
            Ok(absent) => {
                applied = owner.call(move |instance| {
                    instance.call("delete-again", write, |guest, store| {
                        guest
                            .edge_sync_shard_restore()
                            .call_delete_again(store, &absent)
                    })
                })?;
            }
            Err(error) => failed = Some((count, error)),
        }
    }
    Ok(((applied, owner.into_inner()?), failed))
}

/// Stages on an owner of its own, for the stack that guest calls need.
fn stage(shard: &Shard, name: &str, barrier: u64) -> Result<(Staged, Instance)> {
    let limit = shard.options().times.open;
    let options = shard.options().for_guest();
    let snapshot = format!("{GUEST_DATA}/{STAGING}/{name}");
    let owner = Owner::spawn("restore", shard.fresh_instance()?)?;
    let staged = owner.call(move |instance| {
        instance.call("stage", limit, |guest, store| {
            guest
                .edge_sync_shard_restore()
                .call_stage(store, GUEST_DATA, &snapshot, barrier, options)
        })
    })?;
    Ok((staged, owner.into_inner()?))
}

/// Gives a staged generation up. What is left behind if that fails is removed at the next opening.
fn abandon(shard: &Shard, instance: Instance) {
    let limit = shard.options().times.write;
    let outcome = Owner::spawn("restore", instance).and_then(|owner| {
        owner.call(move |instance| {
            instance.call("abandon", limit, |guest, store| {
                guest.edge_sync_shard_restore().call_abandon(store)
            })
        })
    });
    if let Err(error) = outcome {
        tracing::warn!("giving up a staged generation: {error}");
    }
}

/// Downloads with attempts. A step after a failure in passing takes a stored snapshot up where it
/// was cut; a streamed one starts over, since the server makes another each time.
fn download(
    courier: &Courier,
    mut source: SnapshotSource,
    options: &SyncOptions,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
) -> Result<u64> {
    let mut attempts = Attempts::new(options, cancel);
    let mut download = None;
    loop {
        cancel.check()?;
        let outcome = match &mut download {
            None => courier
                .begin_download(source, SNAPSHOT, cancel)
                .map(|begun| {
                    download = Some(begun);
                    None
                }),
            Some(download) => download.step().map(Some),
        };
        match outcome {
            Ok(None) => {}
            Ok(Some(so_far)) => {
                if let (SnapshotSource::Stream, SnapshotSource::Stored) = (source, so_far.source) {
                    source = SnapshotSource::Stored;
                    progress(RestoreProgress::StoredInstead);
                }
                progress(RestoreProgress::Downloading {
                    bytes: so_far.bytes,
                    total: so_far.total,
                });
                if so_far.done {
                    return Ok(so_far.bytes);
                }
                attempts.counter.progressed(so_far.bytes);
            }
            Err(error) => {
                if error.ends_instance() {
                    download = None;
                }
                attempts.after(error, progress)?;
            }
        }
    }
}

/// A failed download, as the counter of attempts takes it.
fn judged(error: &Error) -> Failure {
    let (class, retry_after) = match error {
        Error::Server(failure) => (
            match failure.class {
                FailureClass::Retry => Class::Retry,
                FailureClass::Unclear => Class::Unclear,
                _ => Class::Stop,
            },
            failure.retry_after_ms.map(Duration::from_millis),
        ),
        _ => (Class::Stop, None),
    };
    Failure {
        retry_after,
        ..Failure::stop("GET snapshot", error.to_string()).with_class(class)
    }
}

/// The staging folder, empty at first and emptied in the end, however the restore ends; but for a
/// snapshot of the user's own that lies in it.
struct Staging {
    folder: PathBuf,
    /// What is not removed: the entry of the folder that is, or holds, the user's snapshot.
    kept: Option<PathBuf>,
    /// What the staged snapshot is called in it.
    name: &'static str,
}

impl Staging {
    fn clear(directory: &Path, source: &RestoreSource) -> Result<Staging> {
        let folder = staging_folder(directory)?;
        let kept = match source {
            RestoreSource::File(file) => entry_that_holds(&folder, file),
            RestoreSource::Server(_) => None,
        };
        let is_taken = kept.as_ref() == Some(&folder.join(SNAPSHOT));
        let staging = Staging {
            folder,
            kept,
            name: if is_taken { OTHER_SNAPSHOT } else { SNAPSHOT },
        };
        staging.empty()?;
        Ok(staging)
    }

    fn snapshot(&self) -> PathBuf {
        self.folder.join(self.name)
    }

    fn empty(&self) -> Result<()> {
        let folder = &self.folder;
        let entries =
            std::fs::read_dir(folder).map_err(Error::io("read the staging folder", folder))?;
        for entry in entries {
            let entry = entry.map_err(Error::io("read the staging folder", folder))?;
            let path = entry.path();
            if entry.file_name() == LEDGER || self.kept.as_ref() == Some(&path) {
                continue;
            }
            let is_folder = entry
                .file_type()
                .map_err(Error::io("examine", &path))?
                .is_dir();
            if is_folder {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            }
            .map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    /// Brings a local file in: a link where the file system can, else a copy. Links cost nothing;
    /// the component only reads it.
    fn take(
        &self,
        file: &Path,
        cancel: &Cancel,
        progress: &mut dyn FnMut(RestoreProgress<'_>),
    ) -> Result<u64> {
        let target = self.snapshot();
        // A link to a symbolic link would be one itself, and lead out of the guest's folder.
        let file = file
            .canonicalize()
            .map_err(Error::io("find the snapshot", file))?;
        let total = match std::fs::metadata(&file) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => {
                return Err(Error::invalid(
                    "snapshot",
                    format!("{} is not a file", file.display()),
                ));
            }
            Err(error) => return Err(Error::io("examine the snapshot", file)(error)),
        };
        if std::fs::hard_link(&file, &target).is_ok() {
            progress(RestoreProgress::Downloading {
                bytes: total,
                total: Some(total),
            });
            return Ok(total);
        }
        copy(&file, &target, total, cancel, progress)
    }

    fn remove_snapshot(&self) {
        if let Err(error) = std::fs::remove_file(self.snapshot()) {
            tracing::debug!("the staged snapshot stays for now: {error}");
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = self.empty() {
            tracing::warn!("the staging folder is not clean: {error}");
        }
    }
}

/// The entry of `folder` that is `file`, or a folder that leads to it.
fn entry_that_holds(folder: &Path, file: &Path) -> Option<PathBuf> {
    let (real_folder, real_file) = (folder.canonicalize().ok()?, file.canonicalize().ok()?);
    let below = real_file.strip_prefix(real_folder).ok()?;
    Some(folder.join(below.components().next()?))
}

/// The staging folder of a data directory, made if it is missing.
pub(crate) fn staging_folder(directory: &Path) -> Result<PathBuf> {
    let folder = directory.join(STAGING);
    std::fs::create_dir_all(&folder).map_err(Error::io("create the staging folder", &folder))?;
    Ok(folder)
}

fn copy(
    from: &Path,
    to: &Path,
    total: u64,
    cancel: &Cancel,
    progress: &mut dyn FnMut(RestoreProgress<'_>),
) -> Result<u64> {
    use std::io::{Read, Write};

    let mut source = std::fs::File::open(from).map_err(Error::io("open the snapshot", from))?;
    let mut target = std::fs::File::create(to).map_err(Error::io("create", to))?;
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        cancel.check()?;
        let read = source
            .read(&mut buffer)
            .map_err(Error::io("read the snapshot", from))?;
        let Some(piece) = buffer.get(..read).filter(|piece| !piece.is_empty()) else {
            return Ok(bytes);
        };
        target.write_all(piece).map_err(Error::io("write", to))?;
        bytes += read as u64;
        progress(RestoreProgress::Downloading {
            bytes,
            total: Some(total),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn staging_takes_a_file_and_is_clean_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.snapshot");
        std::fs::write(&file, b"snapshot").unwrap();
        let folder = staging_folder(directory.path()).unwrap();
        std::fs::create_dir(folder.join("left")).unwrap();
        std::fs::write(folder.join("left/over"), b"x").unwrap();

        let source = RestoreSource::File(file.clone());
        let staging = Staging::clear(directory.path(), &source).unwrap();
        assert!(!folder.join("left").exists());
        let bytes = staging.take(&file, &Cancel::new(), &mut |_| {}).unwrap();
        assert_eq!(bytes, 8);
        assert_eq!(std::fs::read(folder.join(SNAPSHOT)).unwrap(), b"snapshot");
        drop(staging);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        assert_eq!(std::fs::read(&file).unwrap(), b"snapshot");
    }

    #[test]
    fn a_snapshot_in_the_staging_folder_is_its_owners() {
        let directory = tempfile::tempdir().unwrap();
        let folder = staging_folder(directory.path()).unwrap();
        for name in ["mine.snapshot", SNAPSHOT, "folder/mine.snapshot"] {
            let file = folder.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, b"snapshot").unwrap();
            std::fs::write(folder.join("left over"), b"x").unwrap();
            let source = RestoreSource::File(file.clone());
            let staging = Staging::clear(directory.path(), &source).unwrap();
            assert!(!folder.join("left over").exists());
            staging.take(&file, &Cancel::new(), &mut |_| {}).unwrap();
            assert_eq!(std::fs::read(staging.snapshot()).unwrap(), b"snapshot");
            staging.remove_snapshot();
            drop(staging);
            assert_eq!(std::fs::read(&file).unwrap(), b"snapshot");
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
            std::fs::remove_dir_all(&folder).unwrap();
            staging_folder(directory.path()).unwrap();
        }
    }

    #[test]
    fn copies_across_file_systems() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("a"), directory.path().join("b"));
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
        std::fs::write(&from, &content).unwrap();
        let mut seen = Vec::new();
        copy(&from, &to, 3_000_000, &Cancel::new(), &mut |step| {
            if let RestoreProgress::Downloading { bytes, .. } = step {
                seen.push(bytes);
            }
        })
        .unwrap();
        assert_eq!(seen.last(), Some(&3_000_000));
        assert_eq!(std::fs::read(&to).unwrap(), content);
        let cancelled = Cancel::new();
        cancelled.cancel();
        assert!(matches!(
            copy(&from, &to, 0, &cancelled, &mut |_| {}),
            Err(Error::Cancelled)
        ));
    }
}
