//! A GNU tar archive whose files have holes. `tar::Builder` leaves out the holes that the file system
//! reports; which these are depends on the file system, and here the same files give the same bytes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Cursor, Read};
use std::path::{Path, PathBuf};

use edge_sync_engine::{Error, Result};
use serde_json::Value;
use tar::{Builder, EntryType, GnuExtSparseHeader, Header};

use crate::sparse::{Piece, Sparse};

/// Bytes that end an archive: two blocks of zeros.
const END_MARK: u64 = 2 * 512;

/// An archive that is being written.
pub struct Archive {
    path: PathBuf,
    builder: Builder<BufWriter<File>>,
}

impl Archive {
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|error| Error::storage("create", path, &error))?;
        Ok(Self {
            path: path.to_owned(),
            builder: Builder::new(BufWriter::new(file)),
        })
    }

    /// Adds JSON as the file `name`.
    pub fn json(&mut self, name: &str, value: &Value) -> Result<()> {
        let text = value.to_string();
        self.append(name, EntryType::Regular, text.len() as u64, text.as_bytes())
    }

    /// Adds an empty folder.
    pub fn directory(&mut self, name: &str) -> Result<()> {
        self.append(name, EntryType::Directory, 0, io::empty())
    }

    /// Adds what is in `folder` under `name`.
    pub fn folder(&mut self, folder: &Path, name: &str) -> Result<()> {
        for (entry, path) in listed(folder)? {
            let name = format!("{name}/{entry}");
            if path.is_dir() {
                self.folder(&path, &name)?;
            } else {
                self.file(&path, &name)?;
            }
        }
        Ok(())
    }

    /// Adds the file at `path`.
    pub fn file(&mut self, path: &Path, name: &str) -> Result<()> {
        let failed = |error: io::Error| Error::storage("read", path, &error);
        let file = Sparse::of(File::open(path).map_err(failed)?).map_err(failed)?;
        let (size, pieces) = (file.size(), file.pieces().to_vec());
        self.sparse(name, size, &pieces, file)
    }

    /// Adds a file of `size` bytes that begins with `data`, and is a hole from there.
    pub fn preallocated(&mut self, name: &str, size: u64, data: &[u8]) -> Result<()> {
        let piece = Piece {
            offset: 0,
            length: data.len() as u64,
        };
        self.sparse(name, size, &[piece], data)
    }

    /// Adds an archive, without an end mark, of what is in `folder`, in which that is under `inner`.
    /// Its size goes before it, so it is made beside this archive first.
    pub fn nested(&mut self, folder: &Path, inner: &str, name: &str) -> Result<()> {
        let mut beside = self.path.as_os_str().to_owned();
        beside.push(".segment");
        let beside = PathBuf::from(beside);
        let added = self.add_nested(&beside, folder, inner, name);
        let removed = fs::remove_file(&beside);
        added?;
        removed.map_err(|error| Error::storage("remove", &beside, &error))
    }

    fn add_nested(&mut self, beside: &Path, folder: &Path, inner: &str, name: &str) -> Result<()> {
        let mut archive = Self::create(beside)?;
        archive.folder(folder, inner)?;
        archive.close()?;
        let failed = |error: io::Error| Error::storage("read", beside, &error);
        let file = File::open(beside).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len() - END_MARK;
        self.append(name, EntryType::Regular, size, file.take(size))
    }

    /// Ends the archive and makes it durable.
    pub fn finish(self) -> Result<()> {
        let path = self.path.clone();
        let synced = self.close()?.sync_all();
        synced.map_err(|error| Error::storage("sync", &path, &error))
    }

    fn close(self) -> Result<File> {
        let output = self.builder.into_inner();
        let file = output.and_then(|it| it.into_inner().map_err(io::IntoInnerError::into_error));
        file.map_err(|error| Error::storage("write", &self.path, &error))
    }

    /// Adds a file of `size` bytes that has data at `pieces` and holes elsewhere; `data` gives the
    /// pieces one after another.
    fn sparse(&mut self, name: &str, size: u64, pieces: &[Piece], data: impl Read) -> Result<()> {
        let stored = pieces.iter().map(|piece| piece.length).sum();
        if stored == size {
            return self.append(name, EntryType::Regular, stored, data);
        }
        // The map must reach the end of the file.
        let mut map = pieces.to_vec();
        if map.last().is_none_or(|piece| piece.end() < size) {
            map.push(Piece {
                offset: size,
                length: 0,
            });
        }
        let mut header = header(EntryType::GNUSparse, stored);
        let gnu = header
            .as_gnu_mut()
            .ok_or_else(|| Error::Internal("not a GNU header".to_owned()))?;
        gnu.set_real_size(size);
        let (inline, beyond) = map.split_at(map.len().min(gnu.sparse.len()));
        for (slot, piece) in gnu.sparse.iter_mut().zip(inline) {
            slot.set_offset(piece.offset);
            slot.set_length(piece.length);
        }
        gnu.set_is_extended(!beyond.is_empty());
        let mut blocks = Vec::new();
        let mut chunks = beyond
            .chunks(GnuExtSparseHeader::new().sparse().len())
            .peekable();
        while let Some(chunk) = chunks.next() {
            let mut block = GnuExtSparseHeader::new();
            for (slot, piece) in block.sparse_mut().iter_mut().zip(chunk) {
                slot.set_offset(piece.offset);
                slot.set_length(piece.length);
            }
            block.set_is_extended(chunks.peek().is_some());
            blocks.extend_from_slice(block.as_bytes());
        }
        let before = blocks.len() as u64;
        self.append_as(
            header,
            name,
            before + stored,
            Cursor::new(blocks).chain(data),
        )
    }

    fn append(&mut self, name: &str, kind: EntryType, size: u64, data: impl Read) -> Result<()> {
        self.append_as(header(kind, size), name, size, data)
    }

    /// `size`: of `data`, which the header may not count all of.
    fn append_as(
        &mut self,
        mut header: Header,
        name: &str,
        size: u64,
        data: impl Read,
    ) -> Result<()> {
        let mut data = data.take(size);
        self.builder
            .append_data(&mut header, name, &mut data)
            .map_err(|error| Error::storage("write", &self.path, &error))?;
        if data.limit() > 0 {
            return Err(Error::Internal(format!(
                "{name} changed while it was added to a snapshot"
            )));
        }
        Ok(())
    }
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    let is_folder = kind == EntryType::Directory;
    header.set_mode(if is_folder { 0o755 } else { 0o644 });
    header
}

/// The entries of a folder in order of name.
pub fn listed(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let failed = |error: io::Error| Error::storage("list", folder, &error);
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().into_string().map_err(|name| {
            Error::Internal(format!("{}: {name:?} is not UTF-8", folder.display()))
        })?;
        entries.push((name, entry.path()));
    }
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn files_are_read_back_as_they_were_whatever_their_holes() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = folder.path().join("files");
        fs::create_dir_all(files.join("deeper")).expect("a folder");
        // Pieces of data with holes before them, and what comes after the last.
        let file = |pieces: u8, tail: usize| {
            let mut bytes = Vec::new();
            for piece in 0..pieces {
                bytes.extend([0; 4096]);
                bytes.extend([piece + 1; 4096]);
            }
            bytes.extend(vec![0; tail]);
            bytes
        };
        let long = format!("deeper/{}", "n".repeat(150));
        let contents: BTreeMap<String, Vec<u8>> = [
            ("empty", file(0, 0)),
            ("zeros", file(0, 100_000)),
            ("small", vec![7; 100]),
            ("in the header", file(4, 0)),
            ("in a block more", file(5, 5000)),
            ("in two blocks more", file(30, 4096)),
            (long.as_str(), file(1, 1)),
        ]
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .into();
        for (name, bytes) in &contents {
            fs::write(files.join(name), bytes).expect("a file");
        }
        let path = folder.path().join("archive");
        let mut archive = Archive::create(&path).expect("an archive");
        archive.folder(&files, "in").expect("its files");
        archive.finish().expect("an end");
        let held = fs::metadata(&path).expect("a file").len();
        assert!(held < 250_000, "{held} bytes, holes were written out");

        let mut read = tar::Archive::new(File::open(&path).expect("the archive"));
        let mut found = BTreeMap::new();
        for entry in read.entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("contents");
            found.insert(name.trim_start_matches("in/").to_owned(), bytes);
        }
        assert!(found == contents, "{:?}", found.keys());
    }
}
