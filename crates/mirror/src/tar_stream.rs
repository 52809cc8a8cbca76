//! Reading a GNU tar archive in a file: where each entry's bytes are.
//!
//! Contents are passed over, not read; the file's length shows whether they are all there.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use crate::error::{Error, Result};
use crate::name::MAX_NAME;

/// Tar's unit.
const BLOCK: u64 = 512;

/// Pieces with data that all sparse entries may have together; each takes memory.
const MAX_PIECES: usize = 1 << 22;

/// A part of a file that has data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    /// Where its bytes are in the archive.
    pub(crate) stored_at: u64,
    /// Where they belong in the file.
    pub(crate) at: u64,
    pub(crate) length: u64,
}

/// What an entry is.
#[derive(Debug)]
pub(crate) enum Content {
    Folder,
    File {
        /// The length of the file, holes included.
        length: u64,
        pieces: Vec<Piece>,
    },
}

/// One entry.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) content: Content,
}

/// An archive that is read through.
pub(crate) struct TarStream<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    at: u64,
    length: u64,
    pieces: usize,
}

impl<'a> TarStream<'a> {
    pub(crate) fn open(path: &'a Path) -> Result<Self> {
        let open = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().map_err(|source| Error::io("open", path, source))?;
        Ok(Self {
            path,
            reader: BufReader::with_capacity(1 << 16, file),
            at: 0,
            length,
            pieces: 0,
        })
    }

    /// The file's length.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Where the next entry begins.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The next entry; none at the end mark, which must be there. Its contents are in the file
    /// whole.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>> {
        let mut long_name = None;
        loop {
            let Some(header) = self.header()? else {
                return match long_name {
                    Some(_) => Err(self.damaged("a name without its entry")),
                    None => Ok(None),
                };
            };
            // The size of what follows in the archive; of a sparse file, without its holes.
            let stored = header
                .entry_size()
                .map_err(|_| self.damaged("an entry's size is not a number"))?;
            if header.entry_type() == EntryType::GNULongName {
                if stored > MAX_NAME as u64 || long_name.is_some() {
                    return Err(self.damaged("an entry's name is too long"));
                }
                long_name = Some(self.long_name(stored)?);
                continue;
            }
            let name = match long_name {
                Some(name) => name,
                None => String::from_utf8(header.path_bytes().into_owned())
                    .map_err(|_| self.damaged("an entry's name is not UTF-8"))?,
            };
            let content = self.content(&header, stored, &name)?;
            return Ok(Some(Entry { name, content }));
        }
    }

    fn content(&mut self, header: &Header, stored: u64, name: &str) -> Result<Content> {
        match header.entry_type() {
            EntryType::Directory => {
                if stored != 0 {
                    return Err(Error::bad(format!("{name:?}: a directory with contents")));
                }
                Ok(Content::Folder)
            }
            EntryType::Regular => {
                let piece = Piece {
                    stored_at: self.at,
                    at: 0,
                    length: stored,
                };
                self.skip(stored, name)?;
                Ok(Content::File {
                    length: stored,
                    pieces: if stored == 0 { Vec::new() } else { vec![piece] },
                })
            }
            EntryType::GNUSparse => {
                let (length, pieces) = self.sparse_map(header, stored, name)?;
                self.skip(stored, name)?;
                Ok(Content::File { length, pieces })
            }
            other => Err(Error::bad(format!(
                "{name:?}: entries of type {other:?} have no place in a snapshot"
            ))),
        }
    }

    fn damaged(&self, what: &str) -> Error {
        Error::bad(format!(
            "damaged or cut off before byte {}: {what}",
            self.at
        ))
    }

    fn failed(&self, error: io::Error) -> Error {
        if error.kind() == ErrorKind::UnexpectedEof {
            self.damaged("the archive ends early")
        } else {
            Error::io("read", self.path, error)
        }
    }

    fn block(&mut self) -> Result<[u8; BLOCK as usize]> {
        let mut block = [0; BLOCK as usize];
        self.reader
            .read_exact(&mut block)
            .map_err(|error| self.failed(error))?;
        self.at += BLOCK;
        Ok(block)
    }

    /// The next header; none at the end mark.
    fn header(&mut self) -> Result<Option<Header>> {
        let block = self.block()?;
        if block.iter().all(|byte| *byte == 0) {
            return if self.block()?.iter().all(|byte| *byte == 0) {
                Ok(None)
            } else {
                Err(self.damaged("half an end mark"))
            };
        }
        let header = Header::from_byte_slice(&block).clone();
        let stated = header
            .cksum()
            .map_err(|_| self.damaged("an entry's checksum is not a number"))?;
        // The checksum's own eight bytes count as spaces.
        let sum: u32 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| match at {
                148..156 => u32::from(b' '),
                _ => u32::from(*byte),
            })
            .sum();
        if sum == stated {
            Ok(Some(header))
        } else {
            Err(self.damaged("an entry's checksum is wrong"))
        }
    }

    /// The contents of a long-name entry.
    fn long_name(&mut self, size: u64) -> Result<String> {
        let mut bytes = Vec::new();
        for _ in 0..size.div_ceil(BLOCK) {
            bytes.extend(self.block()?);
        }
        bytes.truncate(usize::try_from(size).unwrap_or_default());
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        String::from_utf8(bytes).map_err(|_| self.damaged("an entry's name is not UTF-8"))
    }

    /// Reads a sparse entry's map to its end. Returns the file's full length and its data.
    fn sparse_map(
        &mut self,
        header: &Header,
        stored: u64,
        name: &str,
    ) -> Result<(u64, Vec<Piece>)> {
        let wrong = || Error::bad(format!("{name:?}: its map of holes makes no sense"));
        let gnu = header.as_gnu().ok_or_else(wrong)?;
        let length = gnu.real_size().map_err(|_| wrong())?;
        let mut pieces: Vec<Piece> = Vec::new();
        let mut end = 0_u64;
        let mut data = 0_u64;
        let mut add = |map: &[GnuSparseHeader]| {
            for part in map.iter().filter(|part| !part.is_empty()) {
                let at = part.offset().map_err(|_| wrong())?;
                let length = part.length().map_err(|_| wrong())?;
                if at < end {
                    return Err(wrong());
                }
                if length > 0 {
                    pieces.push(Piece {
                        stored_at: data,
                        at,
                        length,
                    });
                }
                end = at.checked_add(length).ok_or_else(wrong)?;
                data = data.checked_add(length).ok_or_else(wrong)?;
            }
            Ok(pieces.len())
        };
        let mut count = add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            if self.pieces.saturating_add(count) > MAX_PIECES {
                return Err(Error::bad(format!(
                    "{name:?}: the files have more than {MAX_PIECES} holes together"
                )));
            }
            let block = self.block()?;
            let mut extended = GnuExtSparseHeader::new();
            extended.as_mut_bytes().copy_from_slice(&block);
            count = add(extended.sparse())?;
            more = extended.is_extended();
        }
        self.pieces += count;
        if end != length || data != stored {
            return Err(wrong());
        }
        for piece in &mut pieces {
            piece.stored_at += self.at;
        }
        Ok((length, pieces))
    }

    /// Passes over an entry's contents, which must all be there.
    fn skip(&mut self, size: u64, name: &str) -> Result<()> {
        let end = size
            .checked_next_multiple_of(BLOCK)
            .and_then(|padded| self.at.checked_add(padded))
            .ok_or_else(|| Error::bad(format!("{name:?}: impossibly large")))?;
        if end > self.length {
            return Err(self.damaged(&format!("the archive ends within {name:?}")));
        }
        let over = end - self.at;
        match i64::try_from(over) {
            Ok(over) => self.reader.seek_relative(over),
            Err(_) => self.reader.seek(SeekFrom::Start(end)).map(|_| ()),
        }
        .map_err(|error| self.failed(error))?;
        self.at = end;
        Ok(())
    }
}
