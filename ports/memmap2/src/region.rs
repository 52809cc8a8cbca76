//! A map: a range of a file's buffer, or memory of its own.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use crate::descriptor;
use crate::page::PAGE;
use crate::table::{self, BufferId, FileId, too_long};

/// What a map of a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    /// Writes stay in the map.
    Copy,
}

pub(crate) struct Region {
    pointer: *mut u8,
    length: usize,
    backing: Backing,
}

#[derive(Clone, Copy, Debug)]
enum Backing {
    File {
        file: FileId,
        buffer: BufferId,
        offset: u64,
        writable: bool,
    },
    Memory {
        address: usize,
        length: usize,
    },
}

// SAFETY: the memory stays where it is until the region is dropped, from whatever thread; the
// table that frees it is behind a lock.
unsafe impl Send for Region {}
// SAFETY: see `Send`; what may be done through shared references only reads or takes the lock.
unsafe impl Sync for Region {}

impl Region {
    pub(crate) fn of_file(
        fd: RawFd,
        offset: u64,
        length: Option<usize>,
        kind: Kind,
    ) -> io::Result<Self> {
        let length = match length {
            Some(length) => length,
            None => rest_of_file(descriptor::metadata(fd)?.length, offset)?,
        };
        if kind == Kind::Copy {
            return Self::copy(fd, offset, length);
        }
        let end = offset
            .checked_add(length as u64)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let writable = kind == Kind::Write;
        let attached = table::with(|table| table.attach(fd, end, writable))?;
        // `attach` has refused an end beyond the address space.
        let start = attached.address + usize::try_from(offset).unwrap_or(0);
        Ok(Self {
            pointer: std::ptr::with_exposed_provenance_mut(start),
            length,
            backing: Backing::File {
                file: attached.file,
                buffer: attached.buffer,
                offset,
                writable,
            },
        })
    }

    pub(crate) fn anonymous(length: usize) -> io::Result<Self> {
        let address = table::with(|table| table.allocate(length))?;
        Ok(Self {
            pointer: std::ptr::with_exposed_provenance_mut(address),
            length,
            backing: Backing::Memory { address, length },
        })
    }

    fn copy(fd: RawFd, offset: u64, length: usize) -> io::Result<Self> {
        let region = Self::anonymous(length)?;
        // SAFETY: the region was just allocated.
        let bytes = unsafe { std::slice::from_raw_parts_mut(region.pointer, length) };
        descriptor::read_at(fd, bytes, offset)?;
        if let Some(position) = crate::file_io::read_position(fd, Some(offset))? {
            position.overlay(bytes)?;
        }
        Ok(region)
    }

    pub(crate) fn pointer(&self) -> *mut u8 {
        self.pointer
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Makes the map longer, at its end. It may lie elsewhere afterwards, but holds the same.
    pub(crate) fn lengthen(&mut self, length: usize) -> io::Result<()> {
        let Backing::File {
            file,
            buffer,
            offset,
            writable: true,
        } = self.backing
        else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "only maps that are written can be made longer",
            ));
        };
        if length < self.length {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a map cannot be made shorter",
            ));
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start
            .checked_add(length)
            .filter(|&end| end <= isize::MAX as usize - PAGE)
            .ok_or_else(|| too_long(offset.saturating_add(length as u64)))?;
        let attached = table::with(|table| table.lengthen(file, buffer, end))?;
        self.pointer = std::ptr::with_exposed_provenance_mut(attached.address + start);
        self.length = length;
        self.backing = Backing::File {
            file: attached.file,
            buffer: attached.buffer,
            offset,
            writable: true,
        };
        Ok(())
    }

    pub(crate) fn flush(&self, start: usize, length: usize, durable: bool) -> io::Result<()> {
        if start
            .checked_add(length)
            .is_none_or(|end| end > self.length)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "bytes {start} to {start}+{length} are not in a map of {} bytes",
                    self.length
                ),
            ));
        }
        match self.backing {
            Backing::File { file, offset, .. } => {
                let at = offset + start as u64;
                table::with(|table| table.flush(file, at, length, durable))
            }
            Backing::Memory { .. } => Ok(()),
        }
    }

    pub(crate) fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("ptr", &self.pointer)
            .field("len", &self.length)
            .finish_non_exhaustive()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let dropped = match self.backing {
            Backing::File {
                file,
                buffer,
                writable,
                ..
            } => table::with(|table| table.detach(file, buffer, writable)),
            Backing::Memory { address, length } => {
                // SAFETY: only this region uses the memory, until now.
                table::with(|table| unsafe { table.free(address, length) });
                Ok(())
            }
        };
        if let Err(error) = dropped {
            log::error!(
                "changes of a memory map of {} bytes could not be written to its file: {error}; \
                 they are kept in memory until it can",
                self.length
            );
        }
    }
}

fn rest_of_file(length: u64, offset: u64) -> io::Result<usize> {
    let rest = length.checked_sub(offset).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a map from byte {offset} on of a file of {length} bytes"),
        )
    })?;
    usize::try_from(rest).map_err(|_| {
        io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("a map of {rest} bytes does not fit into the address space"),
        )
    })
}
