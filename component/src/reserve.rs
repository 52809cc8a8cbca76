//! Disk space set aside: a file of the data directory that is given up when the disk is full, so
//! that a deletion, an acknowledgement and a checkpoint find room then.

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::bindings::types::{StorageFailure, StorageKind};
use crate::directory::Directory;
use crate::error::{Error, Result};

/// Size of the whole reserve.
const BYTES: u64 = 4 << 20;

/// Bytes written at a time, so that a nearly full disk gives what it has.
const PIECE: usize = 256 << 10;

/// The reserve of one data directory.
pub struct Reserve {
    path: PathBuf,
    held: u64,
}

impl Reserve {
    /// The reserve as an earlier instance left it.
    pub fn of(directory: &Directory) -> Self {
        let path = directory.reserve();
        let held = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, held }
    }

    /// Whether all of it is there. What is not there was needed, or could not be had.
    pub fn is_whole(&self) -> bool {
        self.held >= BYTES
    }

    /// Sets aside what is missing, as far as the disk has it.
    pub fn fill(&mut self) {
        if self.is_whole() {
            return;
        }
        if let Err(error) = self.grow()
            && error.kind() != io::ErrorKind::StorageFull
        {
            eprintln!("edge-sync: the reserve on the disk is not whole: {error}");
        }
        self.held = fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
    }

    /// Refuses what would take room that is to be set aside first.
    ///
    /// Errors: `storage`, `no-space`, if the reserve is not whole.
    pub fn check(&self) -> Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        Err(Error::Storage(StorageFailure {
            kind: StorageKind::NoSpace,
            operation: "write".to_owned(),
            path: self.path.display().to_string(),
            message: format!(
                "the disk is full: of {} KiB that are held back for deletes, uploads and flushes, {} \
                 KiB could be had",
                BYTES >> 10,
                self.held >> 10
            ),
        }))
    }

    fn grow(&self) -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)?;
        let mut held = self.held;
        let written = loop {
            if held >= BYTES {
                break Ok(());
            }
            let length = (BYTES - held).min(PIECE as u64);
            if let Err(error) = file.write_all(&incompressible(held, length as usize)) {
                break Err(error);
            }
            held += length;
        };
        // Space that is only promised may turn out not to be there.
        file.sync_all()?;
        written
    }

    /// Gives it up. False if there was nothing to give.
    pub fn release(&mut self) -> bool {
        if self.held == 0 {
            return false;
        }
        self.held = 0;
        match fs::remove_file(&self.path) {
            Ok(()) => true,
            Err(error) => {
                eprintln!("edge-sync: the reserve on the disk was not given up: {error}");
                false
            }
        }
    }
}

/// Bytes that no file system stores in less room.
fn incompressible(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
