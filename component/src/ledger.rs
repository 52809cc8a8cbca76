//! Which snapshots this device had a server make and has not seen deleted.
//!
//! A small file in the staging folder, `snapshots-on-server.json`: a list of
//! `{"url", "collection", "shard", "name"}`. A name is in the file, durably, before the snapshot is
//! used, so that a later download deletes what a killed one left behind. The file is not there
//! when there is nothing to delete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::courier::Server;
use crate::directory::{self, LEDGER};
use crate::error::{Result, storage};

/// The list in one staging folder.
pub struct Ledger {
    folder: PathBuf,
    /// The shard whose snapshots are meant.
    shard: u32,
}

impl Ledger {
    /// The list in the folder of `file`.
    pub fn beside(file: &Path, shard: u32) -> Self {
        Self {
            folder: file.parent().unwrap_or(Path::new("")).to_owned(),
            shard,
        }
    }

    /// Names of the snapshots that are this server's, collection's and shard's.
    pub fn names(&self, server: &Server) -> Result<Vec<String>> {
        let entries = self.read()?;
        Ok(entries
            .iter()
            .filter(|entry| self.is_of(entry, server))
            .filter_map(|entry| entry.get("name")?.as_str().map(str::to_owned))
            .collect())
    }

    /// Adds a snapshot, durably.
    pub fn add(&self, server: &Server, name: &str) -> Result<()> {
        let mut entries = self.read()?;
        let target = server.target();
        entries.push(json!({
            "url": target.url,
            "collection": target.collection,
            "shard": self.shard,
            "name": name,
        }));
        self.write(&entries)
    }

    /// Removes a snapshot that is gone.
    pub fn remove(&self, server: &Server, name: &str) -> Result<()> {
        let mut entries = self.read()?;
        let before = entries.len();
        entries.retain(|entry| !(self.is_of(entry, server) && entry["name"] == name));
        if entries.len() == before {
            return Ok(());
        }
        self.write(&entries)
    }

    /// Whether an entry is of this server's collection and of this shard.
    fn is_of(&self, entry: &Value, server: &Server) -> bool {
        let target = server.target();
        entry["url"] == target.url
            && entry["collection"] == target.collection
            && entry["shard"] == self.shard
    }

    fn path(&self) -> PathBuf {
        self.folder.join(LEDGER)
    }

    /// A file that is damaged counts as empty: it only saves a server's disk.
    fn read(&self) -> Result<Vec<Value>> {
        let path = self.path();
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(storage("read", &path, &error)),
        }
    }

    fn write(&self, entries: &[Value]) -> Result<()> {
        let path = self.path();
        if entries.is_empty() {
            fs::remove_file(&path).map_err(|error| storage("remove", &path, &error))?;
        } else {
            let temporary = self.folder.join(format!("{LEDGER}.tmp"));
            directory::write_durably(&temporary, json!(entries).to_string().as_bytes())?;
            fs::rename(&temporary, &path).map_err(|error| storage("replace", &path, &error))?;
        }
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| storage("sync to disk", &self.folder, &error))
    }
}
