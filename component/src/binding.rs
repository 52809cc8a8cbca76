//! The file that says which collection holds what was acknowledged.
//!
//! One line of JSON, replaced by a rename. It is written before the first request that writes to a
//! server, and by the switch of a restore.

use std::fs;
use std::io;

use edge_sync_upload::Binding;

use crate::bindings::queue;
use crate::directory::{Directory, replace_durably};
use crate::error::{Result, corrupt, storage};

/// Reads the binding of a data directory; none before the first exchange.
pub fn load(directory: &Directory) -> Result<Option<Binding>> {
    let path = directory.binding();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(storage("read the binding to a collection", &path, &error)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        corrupt(
            &path,
            None,
            format!("not a binding to a collection: {error}"),
        )
    })
}

/// Replaces the binding, durably.
pub fn store(directory: &Directory, binding: &Binding) -> Result<()> {
    let path = directory.binding();
    let mut bytes = serde_json::to_vec(binding)
        .map_err(|error| storage("write the binding to a collection", &path, &error.into()))?;
    bytes.push(b'\n');
    replace_durably(&path, &bytes)
}

/// Notes that something was confirmed or restored, and that nobody said from which collection; unless
/// that is known. From then on no collection is created for it.
pub fn note_contact(directory: &Directory) -> Result<()> {
    match load(directory)? {
        Some(_) => Ok(()),
        None => store(directory, &Binding::default()),
    }
}

/// Removes the binding, of a directory that has no shard.
pub fn remove(directory: &Directory) -> Result<()> {
    let path = directory.binding();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(storage("remove the binding to a collection", &path, &error))
        }
        _ => Ok(()),
    }
}

/// From the WIT record.
pub fn from_wit(binding: queue::Binding) -> Binding {
    let queue::Binding {
        url,
        collection,
        shard_key,
        tenant,
        shard,
        alias_of,
        id,
        operation,
        points,
        lost,
    } = binding;
    Binding {
        url,
        collection,
        shard_key,
        tenant,
        shard,
        alias_of,
        id,
        operation,
        points,
        lost,
    }
}

/// To the WIT record.
pub fn to_wit(binding: Binding) -> queue::Binding {
    let Binding {
        url,
        collection,
        shard_key,
        tenant,
        shard,
        alias_of,
        id,
        operation,
        points,
        lost,
    } = binding;
    queue::Binding {
        url,
        collection,
        shard_key,
        tenant,
        shard,
        alias_of,
        id,
        operation,
        points,
        lost,
    }
}
