//! The file operations that the crate is made of, each with its context in the error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::error::{Error, Result};
use crate::mirror::FileRecord;

/// Bytes moved at a time.
pub(crate) const PIECE: usize = 256 << 10;

/// Zeros are looked for, and left out, in blocks of this size; file systems keep no smaller hole.
const BLOCK: usize = 4096;

/// Data closer together than this counts as one extent, which bounds how many a file has.
const NEAR: u64 = 64 << 10;

/// Whether files may be hard links.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// Links where the file system takes them, copies elsewhere.
    #[default]
    Try,
    /// Copies only.
    Never,
}

/// How a file that was there already came to its new name.
#[derive(Debug)]
pub(crate) enum Placed {
    Linked,
    /// With the record of the copy.
    Copied(FileRecord),
}

/// Gives `from` the name `to` as well, or else copies it there, holes left out. A copy is compared
/// with `record`; a link is not read.
///
/// # Errors
/// [`Placing::Damaged`] says in which way the file is not what the record says.
pub(crate) fn link_or_copy(
    from: &Path,
    to: &Path,
    record: &FileRecord,
    links: Links,
) -> Result<Placed, Placing> {
    // Whatever a link fails with, a copy may do: file systems without links, other devices, a
    // file that has all the names that it may have.
    if links == Links::Try && fs::hard_link(from, to).is_ok() {
        return Ok(Placed::Linked);
    }
    copy(from, to, record).map(Placed::Copied)
}

/// Why a file is not in its new place.
#[derive(Debug)]
pub(crate) enum Placing {
    /// The file is not what its record says.
    Damaged(String),
    /// The file system refused.
    Failed(Error),
}

/// Copies the data of a file and leaves its holes; compares what it copies with `record`.
pub(crate) fn copy(from: &Path, to: &Path, record: &FileRecord) -> Result<FileRecord, Placing> {
    let read = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Placing::Damaged("it is not there".to_owned()),
        io::ErrorKind::UnexpectedEof => Placing::Damaged("it is shorter than it was".to_owned()),
        _ => Placing::Failed(Error::io("read", from, error)),
    };
    let mut source = File::open(from).map_err(read)?;
    let length = source.metadata().map_err(read)?.len();
    if length != record.length {
        return Err(Placing::Damaged(format!(
            "it has {length} bytes, it had {}",
            record.length
        )));
    }
    let mut target = NewFile::create(to).map_err(Placing::Failed)?;
    let mut buffer = vec![0; PIECE];
    for (at, length) in &record.extents {
        source.seek(SeekFrom::Start(*at)).map_err(read)?;
        let mut left = *length;
        let mut at = *at;
        while left > 0 {
            let piece = piece_of(&mut buffer, left);
            source.read_exact(piece).map_err(read)?;
            target.write(at, piece).map_err(Placing::Failed)?;
            at += piece.len() as u64;
            left -= piece.len() as u64;
        }
    }
    let (_, written) = target.finish(record.length).map_err(Placing::Failed)?;
    if written.crc32c == record.crc32c {
        Ok(written)
    } else {
        Err(Placing::Damaged("its checksum is wrong".to_owned()))
    }
}

/// The part of a buffer that takes what is left.
pub(crate) fn piece_of(buffer: &mut [u8], left: u64) -> &mut [u8] {
    let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
    buffer.get_mut(..length).unwrap_or_default()
}

/// Whether a file is what its record says, at the cost of asking for its size and time; it is read
/// only where the time tells nothing. Returns its time; otherwise what is wrong with it.
pub(crate) fn check(path: &Path, record: &FileRecord) -> Result<Option<u64>, String> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err("it is not there".to_owned());
        }
        Err(error) => return Err(error.to_string()),
    };
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    if metadata.len() != record.length {
        return Err(format!(
            "it has {} bytes, it had {}",
            metadata.len(),
            record.length
        ));
    }
    let time = modified(&metadata);
    if time.is_some() && time == record.modified {
        return Ok(time);
    }
    // A backup was put back, or somebody wrote to it.
    match checksum(path) {
        Ok(crc) if crc == record.crc32c => Ok(time),
        Ok(_) => Err("its checksum is wrong".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Nanoseconds since 1970 of the last change, where the file system says so.
fn modified(metadata: &fs::Metadata) -> Option<u64> {
    let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// The CRC32C of a whole file.
pub(crate) fn checksum(path: &Path) -> io::Result<u32> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; PIECE];
    let mut crc = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(crc),
            Ok(read) => {
                crc = crc32c::crc32c_append(crc, buffer.get(..read).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads a small file whole, if it is what its record says.
pub(crate) fn read_checked(path: &Path, record: &FileRecord) -> Result<Vec<u8>, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    if bytes.len() as u64 == record.length && crc32c::crc32c(&bytes) == record.crc32c {
        Ok(bytes)
    } else {
        Err("its checksum is wrong".to_owned())
    }
}

/// A file that is written from its start to its end, with holes where nothing but zeros would be.
pub(crate) struct NewFile<'a> {
    path: &'a Path,
    file: File,
    /// Where the file's own position is.
    position: u64,
    /// The checksum of the bytes before `summed`.
    crc: u32,
    summed: u64,
    extents: Vec<(u64, u64)>,
}

impl<'a> NewFile<'a> {
    /// Creates a file that must not be there.
    pub(crate) fn create(path: &'a Path) -> Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|source| Error::io("create", path, source))?;
        Ok(Self {
            path,
            file,
            position: 0,
            crc: 0,
            summed: 0,
            extents: Vec::new(),
        })
    }

    /// Adds `bytes` at offset `at`, which must not be before the end of what was added so far.
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        self.crc = append_zeros(self.crc, at.saturating_sub(self.summed));
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.summed = at + bytes.len() as u64;
        // Whole blocks of zeros stay holes; what is between them goes down in one write.
        let mut start: Option<u64> = None;
        let mut run: &[u8] = &[];
        let mut rest = bytes;
        let mut offset = at;
        while !rest.is_empty() {
            let to_boundary = BLOCK - usize::try_from(offset % BLOCK as u64).unwrap_or_default();
            let (block, after) = rest.split_at(to_boundary.min(rest.len()));
            if block.iter().all(|byte| *byte == 0) {
                if let Some(start) = start.take() {
                    self.put(start, run)?;
                }
            } else {
                let from = *start.get_or_insert(offset);
                let begin = usize::try_from(from - at).unwrap_or_default();
                let end = usize::try_from(offset - at).unwrap_or_default() + block.len();
                run = bytes.get(begin..end).unwrap_or_default();
            }
            offset += block.len() as u64;
            rest = after;
        }
        match start {
            Some(start) => self.put(start, run),
            None => Ok(()),
        }
    }

    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        let mut write = || {
            if self.position != at {
                self.file.seek(SeekFrom::Start(at))?;
            }
            self.file.write_all(bytes)
        };
        write().map_err(|source| Error::io("write", self.path, source))?;
        let end = at + bytes.len() as u64;
        self.position = end;
        match self.extents.last_mut() {
            Some((start, length)) if at - (*start + *length) < NEAR => *length = end - *start,
            _ => self.extents.push((at, end - at)),
        }
        Ok(())
    }

    /// Gives the file its length and says what is in it. The bytes are not durable yet.
    pub(crate) fn finish(self, length: u64) -> Result<(File, FileRecord)> {
        let failed = |source| Error::io("write", self.path, source);
        if self.position != length || self.summed != length {
            self.file.set_len(length).map_err(failed)?;
        }
        let metadata = self.file.metadata().map_err(failed)?;
        let record = FileRecord {
            length,
            crc32c: append_zeros(self.crc, length.saturating_sub(self.summed)),
            modified: modified(&metadata),
            extents: self.extents,
        };
        Ok((self.file, record))
    }
}

/// The checksum of bytes whose checksum is `crc`, and `count` zeros after them.
fn append_zeros(crc: u32, count: u64) -> u32 {
    match usize::try_from(count) {
        Ok(count) if count > 0 => {
            // Zeros only move the checksum's register on, which is the checksum inverted.
            !crc32c::crc32c_combine(!crc, 0, count)
        }
        _ => crc,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_summed_without_reading_them() {
        for count in [0_u32, 1, 2, 3, 7, 8, 4095, 4096, 4097, 1 << 20] {
            for prefix in [&b""[..], b"a", b"some bytes"] {
                let mut bytes = prefix.to_vec();
                bytes.resize(prefix.len() + count as usize, 0);
                assert_eq!(
                    append_zeros(crc32c::crc32c(prefix), u64::from(count)),
                    crc32c::crc32c(&bytes),
                    "{count} zeros after {prefix:?}"
                );
            }
        }
    }

    #[test]
    fn a_written_file_is_what_its_record_says() {
        let dir = tempfile::tempdir().unwrap();
        let mut content = vec![0; 3 << 20];
        for (at, byte) in [(0, 1), (4095, 2), (4096, 3), (200_000, 4), (1 << 20, 5)] {
            content[at] = byte;
        }
        // In pieces that begin and end anywhere.
        for piece in [1000, 4096, 5000, PIECE] {
            let path = dir.path().join(piece.to_string());
            let mut file = NewFile::create(&path).unwrap();
            for (index, bytes) in content[..2 << 20].chunks(piece).enumerate() {
                file.write((index * piece) as u64, bytes).unwrap();
            }
            let (_, record) = file.finish(content.len() as u64).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content);
            assert_eq!(record.crc32c, crc32c::crc32c(&content));
            assert_eq!(check(&path, &record), Ok(record.modified));
            let held = |at: usize| {
                let at = at as u64;
                record
                    .extents
                    .iter()
                    .any(|(from, length)| (*from..*from + *length).contains(&at))
            };
            for (at, byte) in content.iter().enumerate() {
                assert!(*byte == 0 || held(at), "byte {at} is in no extent");
            }
            let data: u64 = record.extents.iter().map(|(_, length)| length).sum();
            assert!(data < 300_000, "{data} bytes of data");

            let copied = dir.path().join(format!("{piece}-copy"));
            copy(&path, &copied, &record).unwrap();
            assert_eq!(fs::read(&copied).unwrap(), content);
        }
    }

    #[test]
    fn damage_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = NewFile::create(&path).unwrap();
        file.write(0, b"what was written").unwrap();
        let (_, record) = file.finish(16).unwrap();
        let unread = FileRecord {
            modified: None,
            ..record.clone()
        };
        let damaged = |copy_name: &str| {
            let copied = copy(&path, &dir.path().join(copy_name), &record);
            assert!(matches!(copied, Err(Placing::Damaged(_))), "{copied:?}");
            assert!(check(&path, &unread).is_err());
            assert!(read_checked(&path, &record).is_err());
        };
        fs::write(&path, b"what was writtem").unwrap();
        damaged("flipped");
        fs::write(&path, b"what was").unwrap();
        damaged("short");
        fs::remove_file(&path).unwrap();
        damaged("gone");
        assert!(check(&path, &record).is_err());
    }

    #[test]
    fn a_time_that_tells_nothing_costs_a_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = NewFile::create(&path).unwrap();
        file.write(0, b"content").unwrap();
        let (_, record) = file.finish(7).unwrap();
        let earlier = FileRecord {
            modified: record.modified.map(|time| time - 1),
            ..record.clone()
        };
        assert_eq!(check(&path, &earlier), Ok(record.modified));
    }
}
