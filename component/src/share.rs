//! A share of an optimization: one of the optimizations that are planned, carried out by an instance of
//! its own.
//!
//! ```text
//! generations/N+1/shares/S/shard/   the segments, and the shard's configuration; S is the first segment
//! generations/N+1/shares/built      segments were built
//! ```
//!
//! The copy in `generations/N+1/` is not in force: its segments are moved to the share, and what they have
//! become is moved back. What a crash leaves goes with the copy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use edge_sync_engine::{CONFIG_FILE, PlannedOptimization, Shard};
use edge_sync_rollback::wasi::{self as rollback, Watch};

use crate::bindings::types::Options;
use crate::directory::Directory;
use crate::error::{Result, invalid, storage};
use crate::generation::{check_watch, or_failed_call};
use crate::optimize::tell_indexed;
use crate::optimized;
use crate::store::{check_options, load_current};

/// The file that says that a share has built something.
const BUILT: &str = "built";

/// Carries out what was planned; see `restore.build-share`.
pub fn build(
    directory: &Directory,
    planned: &PlannedOptimization,
    options: &Options,
) -> Result<bool> {
    check_options(options)?;
    let in_force = load_current(directory)?.generation;
    optimized::begun(directory, in_force)?;
    let copy = directory.shard(in_force + 1);
    let shares = directory.shares(in_force + 1);
    let share = shares.join(name(planned)?);
    let tree = share.join("shard");
    let (from, to) = (copy.join("segments"), tree.join("segments"));
    fs::create_dir_all(&to).map_err(|error| storage("create a share", &to, &error))?;
    fs::copy(copy.join(CONFIG_FILE), tree.join(CONFIG_FILE))
        .map_err(|error| storage("copy the configuration to", &tree, &error))?;
    for segment in &planned.segments {
        move_segment(segment, &from, &to)?;
    }

    let watch = Watch::over_new(&tree)?;
    let (done, besides) =
        optimize(&tree, planned).map_err(|error| or_failed_call(error, &watch, &tree))?;
    check_watch(&watch, "optimize after a failure in", &tree)?;
    drop(watch);

    for segment in list(&to)? {
        if !besides.contains(&segment) {
            move_segment(&segment, &to, &from)?;
        }
    }
    fs::remove_dir_all(&share).map_err(|error| storage("remove a share", &share, &error))?;
    if done {
        let built = shares.join(BUILT);
        fs::write(&built, b"").map_err(|error| storage("write", &built, &error))?;
    }
    Ok(done)
}

/// Optimizes the segments in `tree`. Also answers those that loading has added, which the copy does
/// not need.
fn optimize(tree: &Path, planned: &PlannedOptimization) -> Result<(bool, Vec<String>)> {
    let shard = Shard::load(tree)?;
    let mut besides = list(&tree.join("segments"))?;
    besides.retain(|segment| !planned.segments.contains(segment));
    let done = shard.optimize_planned(planned, tell_indexed);
    match done.and_then(|done| shard.flush().map(|()| done)) {
        Ok(done) => Ok((done, besides)),
        Err(error) => {
            shard.discard();
            rollback::abandon_changes();
            Err(error.into())
        }
    }
}

/// Ends the sharing: true if shares of the copy have built something.
pub fn settle(directory: &Directory, copy: u64) -> Result<bool> {
    let shares = directory.shares(copy);
    let found = match list(&shares) {
        Ok(found) => found,
        Err(_) if !shares.exists() => return Ok(false),
        Err(error) => return Err(error),
    };
    if let Some(share) = found.iter().find(|name| *name != BUILT) {
        let message = format!("the share {share} was begun and is not built");
        return Err(invalid("optimize", message));
    }
    fs::remove_dir_all(&shares).map_err(|error| storage("remove the shares", &shares, &error))?;
    Ok(!found.is_empty())
}

/// The share's name: its first segment's.
fn name(planned: &PlannedOptimization) -> Result<&str> {
    for segment in &planned.segments {
        let is_name = Path::new(segment).file_name() == Some(segment.as_ref());
        if !is_name || segment == BUILT {
            return Err(invalid(
                "planned.segments",
                format!("{segment:?} is no segment"),
            ));
        }
    }
    match planned.segments.first() {
        Some(first) => Ok(first),
        None => Err(invalid("planned.segments", "there is none")),
    }
}

fn move_segment(segment: &str, from: &Path, to: &Path) -> Result<()> {
    let path: PathBuf = from.join(segment);
    fs::rename(&path, to.join(segment)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => invalid(
            "planned.segments",
            format!("there is no segment {segment} in the copy"),
        ),
        _ => storage("move a segment from", &path, &error),
    })
}

fn list(folder: &Path) -> Result<Vec<String>> {
    let failed = |error: io::Error| storage("list", folder, &error);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name().display().to_string());
    }
    Ok(names)
}
