//! What is needed of an open file, by its raw descriptor.
//!
//! Stable `std` on WASI has neither file identity nor positioned IO, so this goes to the C
//! library, in the same way on both platforms.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Which file a descriptor refers to, whatever it is called now.
///
/// On WASI 0.2 the inode is 64 bits of `metadata-hash`, which Wasmtime computes from the host's
/// device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Metadata {
    pub(crate) identity: Identity,
    /// Bytes.
    pub(crate) length: u64,
    pub(crate) is_file: bool,
    /// When the file was last written, after [`UNIX_EPOCH`]. Zero where the host does not say.
    pub(crate) modified: Duration,
}

/// The coarsest clock of a file system in use, that of FAT.
const CLOCK_TICK: Duration = Duration::from_secs(2);

impl Metadata {
    /// When the file was last written, if a write from now on would get another time.
    pub(crate) fn settled_since(&self) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        (!self.modified.is_zero() && self.modified + CLOCK_TICK < now).then_some(self.modified)
    }
}

#[allow(
    clippy::unnecessary_cast,
    reason = "the C library's types differ between platforms"
)]
pub(crate) fn metadata(fd: RawFd) -> io::Result<Metadata> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `stat` is as large as fstat expects.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed before, and filled by fstat.
    let stat = unsafe { stat.assume_init() };
    Ok(Metadata {
        identity: Identity {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
        },
        length: u64::try_from(stat.st_size).unwrap_or(0),
        is_file: stat.st_mode & libc::S_IFMT == libc::S_IFREG,
        modified: modified(&stat),
    })
}

fn modified(stat: &libc::stat) -> Duration {
    #[cfg(target_os = "wasi")]
    let (seconds, nanoseconds) = (stat.st_mtim.tv_sec, stat.st_mtim.tv_nsec);
    #[cfg(not(target_os = "wasi"))]
    let (seconds, nanoseconds) = (stat.st_mtime, stat.st_mtime_nsec);
    match (u64::try_from(seconds), u32::try_from(nanoseconds)) {
        (Ok(seconds), Ok(nanoseconds)) => Duration::new(seconds, nanoseconds.min(999_999_999)),
        _ => Duration::ZERO,
    }
}

/// The flags that the file was opened with.
fn flags(fd: RawFd) -> io::Result<i32> {
    // SAFETY: F_GETFL takes no argument and changes nothing.
    match unsafe { libc::fcntl(fd, libc::F_GETFL) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags),
    }
}

pub(crate) fn can_read_and_write(fd: RawFd) -> io::Result<bool> {
    Ok(flags(fd)? & libc::O_ACCMODE == libc::O_RDWR)
}

/// Where the next sequential write goes; `length` is that of the file.
pub(crate) fn write_position(fd: RawFd, length: u64) -> io::Result<u64> {
    if flags(fd)? & libc::O_APPEND != 0 {
        return Ok(length);
    }
    position(fd)
}

/// Where the next sequential write goes. An error for what is no file.
#[cfg_attr(not(target_os = "wasi"), allow(dead_code))]
pub(crate) fn next_write(fd: RawFd) -> io::Result<u64> {
    if flags(fd)? & libc::O_APPEND != 0 {
        return Ok(metadata(fd)?.length);
    }
    position(fd)
}

pub(crate) fn position(fd: RawFd) -> io::Result<u64> {
    // SAFETY: asks for the position and changes nothing.
    let position = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) };
    u64::try_from(position).map_err(|_| io::Error::last_os_error())
}

/// Reads until `buffer` is full or the file ends. Returns how much was read.
pub(crate) fn read_at(fd: RawFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        let at = file_offset(offset + done as u64)?;
        // SAFETY: `rest` is as long as it says.
        let read = unsafe { real::pread(fd, rest.as_mut_ptr().cast(), rest.len(), at) };
        match usize::try_from(read) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(_) => retry_if_interrupted(io::Error::last_os_error())?,
        }
    }
    Ok(done)
}

/// Writes all of `bytes`.
pub(crate) fn write_at(fd: RawFd, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        let at = file_offset(offset + done as u64)?;
        // SAFETY: `rest` is as long as it says.
        let wrote = unsafe { real::pwrite(fd, rest.as_ptr().cast(), rest.len(), at) };
        match usize::try_from(wrote) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(wrote) => done += wrote,
            Err(_) => retry_if_interrupted(io::Error::last_os_error())?,
        }
    }
    Ok(())
}

pub(crate) fn sync_data(fd: RawFd) -> io::Result<()> {
    // SAFETY: takes no memory.
    if unsafe { libc::fdatasync(fd) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

fn retry_if_interrupted(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

#[cfg(target_os = "wasi")]
use crate::real;

#[cfg(not(target_os = "wasi"))]
use libc as real;

/// A descriptor that stays usable after its owner has closed it.
///
/// A real map holds its file by itself. Here the file must stay open for as long as changes may
/// have to be written back, also when it has been renamed or removed meanwhile, so that no path
/// leads to it. It also keeps the inode from being given to another file.
#[derive(Debug)]
pub(crate) struct Held(RawFd);

impl Held {
    pub(crate) fn fd(&self) -> RawFd {
        self.0
    }
}

#[cfg(not(target_os = "wasi"))]
impl Held {
    pub(crate) fn new(fd: RawFd) -> io::Result<Self> {
        // SAFETY: takes no memory.
        match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) } {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(Self(fd)),
        }
    }
}

#[cfg(not(target_os = "wasi"))]
impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this value's own.
        unsafe { libc::close(self.0) };
    }
}

// WASI has no `dup`: the owner's descriptor is kept, and its closing put off.
#[cfg(target_os = "wasi")]
impl Held {
    #[allow(clippy::unnecessary_wraps, reason = "the other platform's can fail")]
    pub(crate) fn new(fd: RawFd) -> io::Result<Self> {
        crate::closing::put_off(fd);
        Ok(Self(fd))
    }
}

#[cfg(target_os = "wasi")]
impl Drop for Held {
    fn drop(&mut self) {
        if crate::closing::resume(self.0) {
            // SAFETY: the owner gave the descriptor up when it closed it.
            unsafe { real::close(self.0) };
        }
    }
}
