//! A file without its zeros.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek as _, SeekFrom};

/// Holes are sought in steps of this size. A file that is no larger is not worth a map.
const STEP: usize = 4096;

/// Where a file has data; in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub offset: u64,
    pub length: u64,
}

impl Piece {
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Reads the pieces of a file as if they were all of it.
pub struct Sparse {
    file: File,
    size: u64,
    pieces: Vec<Piece>,
    /// Pieces that were begun.
    begun: usize,
    /// Bytes to read of the last.
    left: u64,
}

impl Sparse {
    /// Finds out where `file` has anything but zeros.
    pub fn of(file: File) -> io::Result<Self> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut reader = BufReader::with_capacity(1 << 20, &file);
        let mut step = Vec::with_capacity(STEP);
        let mut size = 0;
        while (&mut reader).take(STEP as u64).read_to_end(&mut step)? > 0 {
            let length = step.len() as u64;
            if step.iter().any(|byte| *byte != 0) {
                match pieces.last_mut() {
                    Some(last) if last.end() == size => last.length += length,
                    _ => pieces.push(Piece {
                        offset: size,
                        length,
                    }),
                }
            }
            size += length;
            step.clear();
        }
        if size <= STEP as u64 {
            pieces = vec![Piece {
                offset: 0,
                length: size,
            }];
        }
        Ok(Self {
            file,
            size,
            pieces,
            begun: 0,
            left: 0,
        })
    }

    /// Bytes of the file, zeros included.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where it has data, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

impl Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let Some(piece) = self.pieces.get(self.begun) else {
                return Ok(0);
            };
            self.file.seek(SeekFrom::Start(piece.offset))?;
            self.begun += 1;
            self.left = piece.length;
        }
        let read = (&mut self.file).take(self.left).read(buffer)?;
        if read == 0 && !buffer.is_empty() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}
