//! `CURRENT`: which generation and which positions are in force.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files;

const FILE: &str = "CURRENT";
const TEMPORARY: &str = "CURRENT.tmp";
/// The format's version.
const FORMAT: u32 = 1;
/// What stands before and after the checksum's eight digits, at the end of the file.
const CHECKSUM_PREFIX: &str = ",\"crc32c\":\"";
const CHECKSUM_SUFFIX: &str = "\"}\n";

/// The positions file of a shard's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Current {
    /// The generation in force.
    pub generation: u64,
    /// The checkpoint of its files that is in force.
    pub checkpoint: u64,
    /// Records up to this sequence are durable in the shard itself.
    pub applied: u64,
    /// Records up to this sequence were confirmed by the server, or moved to the rejected log.
    pub acknowledged: u64,
    /// Of records up to this sequence, the generation holds what the snapshot that it was restored
    /// from had of them; of those above, everything. 0 if it was created here.
    pub barrier: u64,
}

#[derive(Serialize)]
struct CurrentFile<'a> {
    format: u32,
    #[serde(flatten)]
    current: &'a Current,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Current {
    /// Reads the positions file of `directory`; None if there is none. Changes nothing, so that
    /// it can be called beside the instance that owns the directory.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`], [`Error::Corrupt`], [`Error::Io`].
    pub fn load(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Self::decode(&bytes, &path).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io("read", &path, source)),
        }
    }

    /// [`Current::load`] for the owner of the directory: also removes what a crash in
    /// [`Current::store`] left behind, and makes the file that is there the one that stays. After a
    /// stop between its rename and its fsync a power cut could bring the one before it back, for
    /// which things may be missing by then that were removed because of this one.
    ///
    /// # Errors
    /// As [`Current::load`].
    pub fn recover(directory: &Path) -> Result<Option<Self>> {
        let temporary = directory.join(TEMPORARY);
        if temporary.exists() {
            files::remove(&temporary, "remove")?;
        }
        let current = Self::load(directory)?;
        if current.is_some() {
            files::sync_directory(directory)?;
        }
        Ok(current)
    }

    /// Replaces the positions file of `directory`, atomically and durably: whatever happens, the
    /// file is the old one or the new one.
    ///
    /// # Errors
    /// [`Error::Io`]; which of both is in force is then open until the next [`Current::load`].
    pub fn store(&self, directory: &Path) -> Result<()> {
        let target = directory.join(FILE);
        let bytes = self.encode(&target)?;
        let temporary = directory.join(TEMPORARY);
        write_whole(&temporary, &bytes)?;
        files::rename(&temporary, &target, "replace")?;
        files::sync_directory(directory)
    }

    fn encode(&self, path: &Path) -> Result<Vec<u8>> {
        let stored = CurrentFile {
            format: FORMAT,
            current: self,
        };
        let mut text = serde_json::to_string(&stored)
            .map_err(|error| Error::io("write", path, io::Error::other(error)))?;
        text.pop();
        let crc = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("{CHECKSUM_PREFIX}{crc:08x}{CHECKSUM_SUFFIX}"));
        Ok(text.into_bytes())
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let corrupt = |message: String| Error::corrupt(path, 0, message);
        let text = std::str::from_utf8(bytes).map_err(|error| corrupt(error.to_string()))?;
        // The version first, from any JSON object, so that later versions may change the rest.
        if let Ok(Format { format }) = serde_json::from_str(text)
            && format != FORMAT
        {
            return Err(Error::UnknownVersion {
                file: PathBuf::from(path),
                found: format,
                supported: FORMAT,
            });
        }
        let (covered, digits) = text
            .strip_suffix(CHECKSUM_SUFFIX)
            .and_then(|text| text.rsplit_once(CHECKSUM_PREFIX))
            .ok_or_else(|| corrupt("the file does not end with its checksum".to_owned()))?;
        let crc = format!("{:08x}", crc32c::crc32c(covered.as_bytes()));
        if digits != crc {
            return Err(corrupt("the checksum does not match".to_owned()));
        }
        let mut value: serde_json::Map<_, _> = serde_json::from_str(&format!("{covered}}}"))
            .map_err(|error| corrupt(error.to_string()))?;
        value.remove("format");
        serde_json::from_value(value.into()).map_err(|error| corrupt(error.to_string()))
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let file = files::create(path, "create")?;
    files::write_at(&file, path, 0, bytes, "write")?;
    files::sync(&file, path, "sync")
}
