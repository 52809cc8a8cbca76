//! A mirror on the disk.
//!
//! ```text
//! mirror/<shard>/segments/<segment>/<file>   the server's files as they came
//! mirror/<shard>/mirror.json                 one line: where from, which moment, what each file is
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::lineage::Lineage;
use crate::manifest::{SegmentManifest, SnapshotManifest};
use crate::name;

pub(crate) const FILE: &str = "mirror.json";
/// What takes its place by a rename.
const FRESH: &str = "mirror.json.new";
const SEGMENTS: &str = "segments";
/// The format's version.
const FORMAT: u32 = 1;
/// What stands before and after the checksum's eight digits, at the end of the file.
const CHECKSUM_PREFIX: &str = ",\"crc32c\":\"";
const CHECKSUM_SUFFIX: &str = "\"}\n";

/// The shard that a mirror is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The server's address, as it was given.
    pub url: String,
    /// The collection.
    pub collection: String,
    /// The shard's number in it.
    pub shard: u32,
    /// Its shard key, as text, in a collection that has them. A number may be another key's later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard_key: Option<String>,
}

/// For people.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.shard)?;
        if let Some(key) = &self.shard_key {
            write!(f, " (shard key {key})")?;
        }
        write!(f, " of `{}` at {}", self.collection, self.url)
    }
}

/// The files of a shard as the server had them at one moment, and what they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Mirror {
    pub(crate) folder: PathBuf,
    pub(crate) content: Box<Recorded>,
}

/// What `mirror.json` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recorded {
    pub(crate) origin: Origin,
    pub(crate) lineage: Option<Lineage>,
    pub(crate) settled: bool,
    pub(crate) segments: BTreeMap<String, SegmentRecord>,
}

/// One segment of a mirror.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentRecord {
    /// The server's manifest, as it came with the files.
    pub manifest: SegmentManifest,
    /// Every file, by its name in the segment.
    pub files: BTreeMap<String, FileRecord>,
}

/// What a file was when it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its length in bytes, holes included.
    pub length: u64,
    /// The CRC32C of all of it.
    pub crc32c: u32,
    /// When it last changed, in nanoseconds since 1970, where the file system says so. Tells
    /// without reading that nothing wrote to the file since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<u64>,
    /// Where it has data, as offset and length; everything else in it is zero. Copying takes this
    /// much reading.
    pub extents: Vec<(u64, u64)>,
}

impl FileRecord {
    /// Bytes that are data, not holes.
    pub fn data(&self) -> u64 {
        self.extents
            .iter()
            .fold(0_u64, |sum, (_, length)| sum.saturating_add(*length))
    }
}

#[derive(Serialize)]
struct MirrorFile<'a> {
    format: u32,
    #[serde(flatten)]
    content: &'a Recorded,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Mirror {
    /// The mirror in `folder`; none if there is none. Reads `mirror.json` only:
    /// [`crate::Offer::of`] looks at the files.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::UnknownVersion`]: the mirror is of no use, which costs a full
    /// download. [`Error::Io`].
    pub fn load(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(Self {
                folder: folder.to_path_buf(),
                content: Box::new(decode(&bytes, &path)?),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::io("read", &path, source)),
        }
    }

    /// Notes, durably, that the mirror is what the server holds: it says that nothing is new, and does
    /// not optimize. Whatever an optimization had hidden shows in the manifest once it has ended.
    ///
    /// # Errors
    /// [`Error::Io`]; the mirror is as it was, or settled.
    pub fn settle(&mut self) -> Result<()> {
        if self.content.settled {
            return Ok(());
        }
        self.content.settled = true;
        let fresh = self.folder.join(FRESH);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &fresh, error));
            }
            _ => self.write(&fresh)?,
        }
        let path = self.folder.join(FILE);
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        sync(&fresh)
            .and_then(|()| fs::rename(&fresh, &path))
            .and_then(|()| sync(&self.folder))
            .map_err(|source| Error::io("replace", &path, source))
    }

    /// Writes `mirror.json`, which must not be there.
    pub(crate) fn store(&self) -> Result<PathBuf> {
        let path = self.folder.join(FILE);
        self.write(&path)?;
        Ok(path)
    }

    fn write(&self, path: &Path) -> Result<()> {
        let failed = |source| Error::io("write", path, source);
        let stored = MirrorFile {
            format: FORMAT,
            content: &self.content,
        };
        let mut text =
            serde_json::to_string(&stored).map_err(|error| failed(io::Error::other(error)))?;
        text.pop();
        let crc = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("{CHECKSUM_PREFIX}{crc:08x}{CHECKSUM_SUFFIX}"));
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(failed)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The shard that it is of.
    pub fn origin(&self) -> &Origin {
        &self.content.origin
    }

    /// The replica and the moment that it is of, if the server said so.
    pub fn lineage(&self) -> Option<&Lineage> {
        self.content.lineage.as_ref()
    }

    /// False if the server was optimizing while it sent the files: points that were deleted or
    /// overwritten meanwhile may be in them as they were before.
    pub fn settled(&self) -> bool {
        self.content.settled
    }

    /// The segments, by name.
    pub fn segments(&self) -> &BTreeMap<String, SegmentRecord> {
        &self.content.segments
    }

    /// The server's manifest of everything in the mirror.
    pub fn manifest(&self) -> SnapshotManifest {
        self.content
            .segments
            .values()
            .map(|segment| segment.manifest.clone())
            .collect()
    }

    /// Where a segment's file is.
    pub fn path(&self, segment: &str, file: &str) -> PathBuf {
        segment_folder(&self.folder, segment).join(file)
    }
}

pub(crate) fn segment_folder(folder: &Path, segment: &str) -> PathBuf {
    folder.join(SEGMENTS).join(segment)
}

fn decode(bytes: &[u8], path: &Path) -> Result<Recorded> {
    let corrupt = |message: String| Error::corrupt(path, message);
    let text = std::str::from_utf8(bytes).map_err(|error| corrupt(error.to_string()))?;
    // The version first, from any JSON object, so that later versions may change the rest.
    if let Ok(Format { format }) = serde_json::from_str(text)
        && format != FORMAT
    {
        return Err(Error::UnknownVersion {
            file: path.to_path_buf(),
            found: format,
            supported: FORMAT,
        });
    }
    let (covered, digits) = text
        .strip_suffix(CHECKSUM_SUFFIX)
        .and_then(|text| text.rsplit_once(CHECKSUM_PREFIX))
        .ok_or_else(|| corrupt("it does not end with its checksum".to_owned()))?;
    if digits != format!("{:08x}", crc32c::crc32c(covered.as_bytes())) {
        return Err(corrupt("the checksum does not match".to_owned()));
    }
    let mut value: serde_json::Map<_, _> = serde_json::from_str(&format!("{covered}}}"))
        .map_err(|error| corrupt(error.to_string()))?;
    value.remove("format");
    let content: Recorded =
        serde_json::from_value(value.into()).map_err(|error| corrupt(error.to_string()))?;
    check(&content).map_err(corrupt)?;
    Ok(content)
}

/// The checksum shows damage; this keeps a file that was made up from leading out of the folder.
fn check(content: &Recorded) -> Result<(), String> {
    for (segment, record) in &content.segments {
        record
            .manifest
            .check(segment)
            .map_err(|error| error.to_string())?;
        for (file, record) in &record.files {
            name::check_path(file).map_err(|why| format!("{segment}: {file:?}: {why}"))?;
            let mut end = 0;
            for (at, length) in &record.extents {
                match at.checked_add(*length) {
                    Some(next) if *at >= end && next <= record.length => end = next,
                    _ => return Err(format!("{segment}: {file}: its extents make no sense")),
                }
            }
        }
        if let Some(file) = name::file_and_folder(&record.files) {
            return Err(format!("{segment}: {file}: a file and a folder"));
        }
    }
    Ok(())
}
