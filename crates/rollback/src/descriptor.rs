//! What is needed of an open file, by its raw descriptor: stable `std` on WASI has neither file
//! identity nor positioned reads.

#![allow(unsafe_code, reason = "calls of the C library")]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

/// Which file or folder it is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// What a descriptor or a name refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Which file or folder.
    pub identity: Identity,
    /// Bytes, of a file.
    pub length: u64,
    /// Whether it is a folder.
    pub is_folder: bool,
}

impl Status {
    #[allow(
        clippy::unnecessary_cast,
        reason = "the C library's types differ between platforms"
    )]
    pub(crate) fn of(stat: &libc::stat) -> Self {
        Self {
            identity: Identity {
                device: stat.st_dev as u64,
                inode: stat.st_ino as u64,
            },
            length: u64::try_from(stat.st_size).unwrap_or(0),
            is_folder: stat.st_mode & libc::S_IFMT == libc::S_IFDIR,
        }
    }
}

pub(crate) fn of_descriptor(fd: RawFd) -> io::Result<Status> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `stat` is as large as fstat expects.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed before, and filled by fstat.
    Ok(Status::of(&unsafe { stat.assume_init() }))
}

pub(crate) fn of_file(file: &File) -> io::Result<Status> {
    of_descriptor(file.as_raw_fd())
}

/// What `path` refers to; `None` if there is nothing.
///
/// # Errors
/// The file system's.
pub fn status(path: &Path) -> io::Result<Option<Status>> {
    Ok(open_with_status(path)?.map(|(_, status)| status))
}

pub(crate) fn open_with_status(path: &Path) -> io::Result<Option<(File, Status)>> {
    match File::open(path) {
        Ok(file) => {
            let status = of_file(&file)?;
            Ok(Some((file, status)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// From where on the file, of `length` bytes, is known to be zero. Reads nothing.
#[cfg(target_os = "wasi")]
pub(crate) fn data_length(file: &File, length: u64) -> io::Result<u64> {
    Ok(memmap2::known_data_length(file)?.map_or(length, |known| known.min(length)))
}

/// Spares whoever maps the file to look from where on it is zero.
#[cfg(target_os = "wasi")]
pub(crate) fn note_data_length(file: &File, data_length: u64) -> io::Result<()> {
    memmap2::note_data_length(file, data_length)
}

/// Real maps take no memory for zeros.
#[cfg(not(target_os = "wasi"))]
#[allow(clippy::unnecessary_wraps, reason = "it can fail on WASI")]
pub(crate) fn data_length(_file: &File, length: u64) -> io::Result<u64> {
    Ok(length)
}

#[cfg(not(target_os = "wasi"))]
#[allow(clippy::unnecessary_wraps, reason = "it can fail on WASI")]
pub(crate) fn note_data_length(_file: &File, _data_length: u64) -> io::Result<()> {
    Ok(())
}

/// Fills `buffer` from `offset` on.
pub(crate) fn read_exact_at(fd: RawFd, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        let at = libc::off_t::try_from(offset + done as u64)
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        // SAFETY: `rest` is as long as it says.
        let read = unsafe { libc::pread(fd, rest.as_mut_ptr().cast(), rest.len(), at) };
        match usize::try_from(read) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => done += read,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}
