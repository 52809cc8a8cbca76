//! How a generation came about that is another one, optimized: `optimized.json`.

use std::fs;
use std::io;

use serde_json::{Value, json};

use crate::directory::{self, Directory};
use crate::error::{Result, corrupt, describe, invalid, storage};

/// How a generation came about that is another one, optimized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Optimized {
    /// Operations up to here are in the files that were copied.
    pub barrier: u64,
    /// The shard was created here and never restored.
    pub created_here: bool,
}

impl Optimized {
    /// What is noted of a generation; none if it was made in another way.
    pub fn load(directory: &Directory, generation: u64) -> Result<Option<Self>> {
        let path = directory.optimized(generation);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(storage("read how a generation was made", &path, &error)),
        };
        let noted: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        match (noted["barrier"].as_u64(), noted["created_here"].as_bool()) {
            (Some(barrier), Some(created_here)) => Ok(Some(Self {
                barrier,
                created_here,
            })),
            _ => Err(corrupt(&path, None, "not a note on an optimization")),
        }
    }

    /// Notes it, durably.
    pub fn store(self, directory: &Directory, generation: u64) -> Result<()> {
        let noted = json!({ "barrier": self.barrier, "created_here": self.created_here });
        let path = directory.optimized(generation);
        directory::write_durably(&path, format!("{noted}\n").as_bytes())
    }
}

/// What the log of a shard must keep, for an optimization of its generation that is under way.
/// What cannot be read keeps everything.
pub fn kept_after(directory: &Directory, generation: u64) -> Option<u64> {
    match Optimized::load(directory, generation + 1) {
        Ok(noted) => noted.map(|noted| noted.barrier),
        Err(error) => {
            eprintln!("edge-sync: {}", describe(&error));
            Some(0)
        }
    }
}

/// The note of the copy that another instance has made; for `restore.stage-optimize`.
pub fn begun(directory: &Directory, generation: u64) -> Result<Optimized> {
    Optimized::load(directory, generation + 1)?
        .ok_or_else(|| invalid("optimize", "none was begun in this directory"))
}
