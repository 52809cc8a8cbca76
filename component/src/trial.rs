//! Whether the host's files behave as everything here relies on, tried before a shard is opened: a host
//! that is not Wasmtime may have a file system of its own.
//!
//! What nobody can try from within is whether a sync reaches the disk. That it can be asked for is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use edge_sync_rollback::{Identity, status};

use crate::directory::Directory;
use crate::error::{Error, Result, is_no_space, storage};

/// Folder of the trial, in the data directory; gone when it has ended.
const FOLDER: &str = ".trial";

/// Larger than a block of most file systems, and no multiple of one.
const LENGTH: u64 = 10_000;

/// Since 1970; further apart than the times of any file system are coarse.
const TIMES: [Duration; 2] = [
    Duration::from_secs(1_000_000_000),
    Duration::from_secs(1_100_000_000),
];

/// Tries the files of a data directory that is there.
///
/// # Errors
/// `unsupported`, with what does not behave; `storage`, if a call fails. A full disk is no failure: what
/// is on it can be opened all the same.
pub fn run(directory: &Directory) -> Result<()> {
    let root = directory.root();
    let folder = root.join(FOLDER);
    let tried = syncs(root).and_then(|()| {
        remove(&folder)?;
        let outcome = within(&folder);
        let removed = remove(&folder);
        outcome.and(removed)
    });
    match tried {
        Err(error) if is_no_space(&error) => Ok(()),
        tried => tried,
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(storage("remove folder", folder, &error))
        }
        _ => Ok(()),
    }
}

/// Nothing of it has changed, so that this costs nothing.
fn syncs(root: &Path) -> Result<()> {
    let synced = File::open(root).and_then(|folder| folder.sync_all());
    synced.map_err(|error| match error.kind() {
        io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput => {
            refused("a folder cannot be synced")
        }
        _ => storage("sync to disk", root, &error),
    })
}

fn within(folder: &Path) -> Result<()> {
    fs::create_dir(folder).map_err(|error| storage("create folder", folder, &error))?;
    let (first, second) = (folder.join("first"), folder.join("second"));
    // WASI has it be of a file's size and of when it was written to, and which file it is may be in it or not.
    // These two are alike in all else.
    let [written, other] = [make(&first, LENGTH)?, make(&second, LENGTH)?];
    for file in [&written, &other] {
        date(file, TIMES[0]);
    }
    let [one, two] = [identity(&first)?, identity(&second)?];
    ensure(one != two, "two files have one identity (metadata-hash)")?;
    drop(other);

    let stays = |when: &str| {
        let same = identity(&first)? == one;
        ensure(
            same,
            &format!("a file gets another identity (metadata-hash) when it is {when}"),
        )
    };
    // Apart from the bytes: a host's clock may not go on during the trial.
    date(&written, TIMES[1]);
    stays("written to at another time")?;
    grows(&first, written)?;
    stays("written to")?;

    fs::rename(&first, &second).map_err(|error| storage("rename", &first, &error))?;
    let gone = status(&first).map_err(|error| storage("look at", &first, &error))?;
    ensure(
        gone.is_none(),
        "a file that was renamed has its old name still",
    )?;
    ensure(
        identity(&second)? == one,
        "a file gets another identity (metadata-hash) when it is renamed onto another",
    )
}

/// Sets when a file was written to. A host that sets no times is tried without.
fn date(file: &File, time: Duration) {
    let _ = file.set_modified(UNIX_EPOCH + time);
}

/// A file of so many bytes of 1, open.
fn make(path: &Path, length: u64) -> Result<File> {
    let write = || {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        file.write_all(&vec![1; length as usize])?;
        Ok(file)
    };
    write().map_err(|error: io::Error| storage("write file", path, &error))
}

/// Its length is what was written or set, and what is added by setting it reads as zeros. In the end it is
/// a byte longer than before.
fn grows(path: &Path, mut file: File) -> Result<()> {
    let failed = |error: io::Error| storage("change file", path, &error);
    length_is(path, LENGTH)?;
    file.set_len(LENGTH / 2).map_err(failed)?;
    length_is(path, LENGTH / 2)?;
    file.set_len(LENGTH).map_err(failed)?;
    length_is(path, LENGTH)?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    file.read_to_end(&mut bytes).map_err(failed)?;
    let (kept, added) = bytes.split_at(bytes.len() / 2);
    ensure(
        bytes.len() as u64 == LENGTH && kept.iter().all(|&byte| byte == 1),
        "a file does not hold what was written to it",
    )?;
    ensure(
        added.iter().all(|&byte| byte == 0),
        "a file that is made longer does not read as zeros there",
    )?;
    file.write_all(&[1]).map_err(failed)?;
    length_is(path, LENGTH + 1)
}

fn length_is(path: &Path, expected: u64) -> Result<()> {
    let found = look(path)?.length;
    ensure(
        found == expected,
        &format!("a file of {expected} bytes is said to have {found}"),
    )
}

fn identity(path: &Path) -> Result<Identity> {
    Ok(look(path)?.identity)
}

fn look(path: &Path) -> Result<edge_sync_rollback::Status> {
    status(path)
        .map_err(|error| storage("look at", path, &error))?
        .ok_or_else(|| refused("a file that was just written is not there"))
}

fn ensure(holds: bool, otherwise: &str) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(refused(otherwise))
    }
}

fn refused(what: &str) -> Error {
    Error::Unsupported(format!(
        "the host's file system cannot hold a shard: {what}"
    ))
}
