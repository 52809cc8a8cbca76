//! Where things are in a data directory.
//!
//! ```text
//! CURRENT                    generation in force and both positions; replaced atomically
//! log/                       the durable log: write-ahead log and upload queue in one
//! rejected/                  operations that the server refused
//! server.json                which collection holds what was acknowledged
//! generations/N/shard/       the engine's files
//! generations/N/mirror/S/    files of the server's shard S as they came; never written to
//! generations/N/rollback/    what takes them back to their last checkpoint
//! generations/N/collection.json   the collection configuration (body of PUT /collections/{c})
//! generations/N/optimized.json    how it was made, if it is another generation, optimized
//! generations/N/shares/S/    segments of it while an instance of its own optimizes them
//! readers/N/                 what the reader N has: a copy of the engine's files and configuration
//! staging/                   snapshots on their way in; the courier's only folder
//! .trial/                    what an opening tries the host's files with; gone when it has ended
//! reserve                    room on the disk that is given up when it is full
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Result, storage};

/// Name of the file; whatever else is in the staging folder may be removed.
pub const LEDGER: &str = "snapshots-on-server.json";

/// The paths below one data directory.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Names the directory; touches nothing.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The data directory itself, which holds `CURRENT`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The log's folder.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The rejected log's folder.
    pub fn rejected(&self) -> PathBuf {
        self.root.join("rejected")
    }

    /// Which collection holds what was acknowledged.
    pub fn binding(&self) -> PathBuf {
        self.root.join("server.json")
    }

    /// Where snapshots are downloaded to.
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// What readers have. Nothing in there outlives the opening that lent it.
    fn readers(&self) -> PathBuf {
        self.root.join("readers")
    }

    /// Makes the folder of a reader, empty even if there is one of that number.
    pub fn create_reader(&self, number: u32) -> Result<ReaderFolder> {
        let folder = self.readers().join(number.to_string());
        remove_folder(&folder)?;
        fs::create_dir_all(&folder)
            .map_err(|error| storage("create a reader's folder", &folder, &error))?;
        Ok(ReaderFolder::new(folder))
    }

    /// Removes what readers had.
    pub fn remove_readers(&self) -> Result<()> {
        remove_folder(&self.readers())
    }

    /// The file that holds room on the disk.
    pub fn reserve(&self) -> PathBuf {
        self.root.join("reserve")
    }

    fn generations(&self) -> PathBuf {
        self.root.join("generations")
    }

    /// The folder of one generation.
    pub fn generation(&self, generation: u64) -> PathBuf {
        self.generations().join(generation.to_string())
    }

    /// The engine's files of one generation.
    pub fn shard(&self, generation: u64) -> PathBuf {
        self.generation(generation).join("shard")
    }

    /// What takes the engine's files of one generation back to a checkpoint.
    pub fn rollback(&self, generation: u64) -> PathBuf {
        self.generation(generation).join("rollback")
    }

    /// A server's files as they came, from which one generation was made.
    pub fn mirror(&self, generation: u64, shard: u32) -> PathBuf {
        self.mirrors(generation).join(shard.to_string())
    }

    /// The mirrors of one generation, each named by its shard.
    pub fn mirrors(&self, generation: u64) -> PathBuf {
        self.generation(generation).join("mirror")
    }

    /// The shards that one generation has mirrors of, in ascending order.
    pub fn list_mirrors(&self, generation: u64) -> Result<Vec<u32>> {
        list_numbers("list mirrors", &self.mirrors(generation))
    }

    /// The collection configuration of one generation.
    pub fn collection(&self, generation: u64) -> PathBuf {
        self.generation(generation).join("collection.json")
    }

    /// How a generation was made that is another one, optimized.
    pub fn optimized(&self, generation: u64) -> PathBuf {
        self.generation(generation).join("optimized.json")
    }

    /// What instances have that optimize one generation together, each its own segments.
    pub fn shares(&self, generation: u64) -> PathBuf {
        self.generation(generation).join("shares")
    }

    /// Generations that have a folder, in ascending order.
    pub fn list_generations(&self) -> Result<Vec<u64>> {
        list_numbers("list generations", &self.generations())
    }

    /// Makes the folder of a new generation, empty even if a crash left one of that number.
    pub fn create_generation(&self, generation: u64) -> Result<()> {
        self.remove_generation(generation)?;
        let folder = self.generation(generation);
        fs::create_dir_all(&folder).map_err(|error| storage("create generation", &folder, &error))
    }

    /// Removes a generation's folder if it is there.
    pub fn remove_generation(&self, generation: u64) -> Result<()> {
        remove_folder(&self.generation(generation))
    }

    /// Removes both logs, of a directory that has no shard.
    pub fn remove_logs(&self) -> Result<()> {
        remove_folder(&self.log())?;
        remove_folder(&self.rejected())
    }

    /// Removes what downloads left behind, but not the list of what is to be deleted from a server.
    pub fn clear_staging(&self) -> Result<()> {
        let folder = self.staging();
        if !folder.join(LEDGER).exists() {
            return remove_folder(&folder);
        }
        let failed = |error: io::Error| storage("clear staging folder", &folder, &error);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name() == LEDGER {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_dir() {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            } else {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Makes a generation's own names and configuration durable. Its files are durable with a
    /// checkpoint.
    pub fn sync_generation(&self, generation: u64) -> Result<()> {
        sync_path(&self.collection(generation))?;
        sync_path(&self.generation(generation))?;
        sync_path(&self.generations())?;
        sync_path(&self.root)
    }
}

/// What one reader has.
#[derive(Debug)]
pub struct ReaderFolder {
    root: PathBuf,
}

impl ReaderFolder {
    /// Names the folder; touches nothing.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The copy of the engine's files.
    pub fn shard(&self) -> PathBuf {
        self.root.join("shard")
    }

    /// The collection configuration.
    pub fn collection(&self) -> PathBuf {
        self.root.join("collection.json")
    }

    /// Removes all of it.
    pub fn remove(&self) -> Result<()> {
        remove_folder(&self.root)
    }
}

fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(storage("remove folder", path, &error))
        }
        _ => Ok(()),
    }
}

/// Syncs a file or a folder to disk.
pub fn sync_path(path: &Path) -> Result<()> {
    fs::File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| storage("sync to disk", path, &error))
}

/// Writes a small file whole and durably; the folder is synced by the caller.
pub fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    fs::File::create(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .map_err(|error| storage("write file", path, &error))
}

/// Replaces a small file as a whole, durably: it is the old one or the new one at any time.
pub fn replace_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    write_durably(&new, bytes)?;
    fs::rename(&new, path).map_err(|error| storage("replace file", path, &error))?;
    path.parent().map_or(Ok(()), sync_path)
}

/// Entries of a folder that are named by numbers, in ascending order; none without the folder.
fn list_numbers<N: FromStr + Ord>(operation: &'static str, folder: &Path) -> Result<Vec<N>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(storage(operation, folder, &error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry
            .map_err(|error| storage(operation, folder, &error))?
            .file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
