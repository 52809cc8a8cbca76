//! Learns of what is done to a tree from the C library's calls, on WASI.
//!
//! The linker hands the calls that change names over to the functions here (`--wrap=NAME`, as for
//! `ports/memmap2`, which tells of changed bytes). They are those by which the C library resolves
//! every path, whichever function was called: a descriptor of a folder and a path below it.
//!
//! While a tree is watched over, three things hold for the files in it:
//! - what the journal of the checkpoint in force needs is saved first;
//! - syncs are left out, since a checkpoint syncs everything, and nothing before it counts;
//! - a call that fails is remembered, and no checkpoint is made of the tree any more: whoever made
//!   the call may have taken it lightly, and its files be other than it thinks. (A file whose
//!   attributes cannot be read passes for one that is not there.)

#![allow(unsafe_code, reason = "functions of the C library's interface")]

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libc::{c_char, c_int};
use memmap2::guard::{self, Guard};

use crate::descriptor::{self, Status};
use crate::error::{Error, Result};
use crate::journal::{Change, Entry, Journal};

/// The C library's own functions.
mod real {
    use libc::{c_char, c_int};

    // SAFETY: the linker resolves each `__real_` name to the C library's function of that name;
    // the signatures are those of its declarations.
    unsafe extern "C" {
        #[link_name = "__real___wasilibc_nocwd_openat_nomode"]
        pub(super) fn openat(folder: c_int, path: *const c_char, flags: c_int) -> c_int;
        #[link_name = "__real___wasilibc_nocwd_mkdirat_nomode"]
        pub(super) fn mkdirat(folder: c_int, path: *const c_char) -> c_int;
        #[link_name = "__real___wasilibc_nocwd___wasilibc_unlinkat"]
        pub(super) fn unlinkat(folder: c_int, path: *const c_char) -> c_int;
        #[link_name = "__real___wasilibc_nocwd___wasilibc_rmdirat"]
        pub(super) fn rmdirat(folder: c_int, path: *const c_char) -> c_int;
        #[link_name = "__real___wasilibc_nocwd_renameat"]
        pub(super) fn renameat(
            from_folder: c_int,
            from: *const c_char,
            to_folder: c_int,
            to: *const c_char,
        ) -> c_int;
        #[link_name = "__real_fsync"]
        pub(super) fn fsync(fd: c_int) -> c_int;
        #[link_name = "__real_fdatasync"]
        pub(super) fn fdatasync(fd: c_int) -> c_int;
        #[link_name = "__real___wasilibc_nocwd_opendirat"]
        pub(super) fn opendirat(folder: c_int, path: *const c_char) -> *mut libc::DIR;
        #[link_name = "__real_fstat"]
        pub(super) fn fstat(fd: c_int, stat: *mut libc::stat) -> c_int;
        #[link_name = "__real___wasilibc_nocwd_fstatat"]
        pub(super) fn fstatat(
            folder: c_int,
            path: *const c_char,
            stat: *mut libc::stat,
            flags: c_int,
        ) -> c_int;
    }
}

/// The tree that is watched over.
struct Watched {
    tree: PathBuf,
    /// How the C library names the tree: a folder that the host gave, and the path below it.
    folder: c_int,
    below: String,
    /// None while there is no checkpoint that the tree could go back to.
    journal: Option<Journal>,
    failure: Option<String>,
}

static WATCHED: Mutex<Option<Watched>> = Mutex::new(None);

/// Descriptors of files and folders in the tree.
static INSIDE: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// The name that a folder was last opened by, while that is to be learned.
static LEARNED: Mutex<Learning> = Mutex::new(Learning::Off);

enum Learning {
    Off,
    On,
    Learned(c_int, String),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches over a tree for as long as it lives. One at a time.
#[derive(Debug)]
pub struct Watch(());

impl Watch {
    /// Watches over a tree that no checkpoint was made of yet. Its parent must exist.
    ///
    /// # Errors
    /// The parent cannot be opened.
    pub fn over_new(tree: &Path) -> Result<Self> {
        Self::start(tree, None)
    }

    /// Watches over a tree that may have to go back to the checkpoint of `journal`.
    ///
    /// # Errors
    /// As [`Watch::over_new`].
    pub fn over(journal: Journal) -> Result<Self> {
        let tree = journal.tree().to_path_buf();
        Self::start(&tree, Some(journal))
    }

    fn start(tree: &Path, journal: Option<Journal>) -> Result<Self> {
        static GUARD: Changes = Changes;
        guard::set_guard(&GUARD);
        let parent = tree.parent().unwrap_or(tree);
        *lock(&LEARNED) = Learning::On;
        let opened = guard::unguarded(|| File::open(parent));
        let learned = std::mem::replace(&mut *lock(&LEARNED), Learning::Off);
        opened.map_err(Error::io("open", parent))?;
        let name = tree.file_name().and_then(|name| name.to_str());
        let (Learning::Learned(folder, below), Some(name)) = (learned, name) else {
            return Err(Error::corrupt(
                tree,
                "it has no name that can be watched over",
            ));
        };
        let below = match below.as_str() {
            "" | "." => name.to_owned(),
            below => format!("{below}/{name}"),
        };
        lock(&INSIDE).clear();
        *lock(&WATCHED) = Some(Watched {
            tree: tree.to_path_buf(),
            folder,
            below,
            journal,
            failure: None,
        });
        Ok(Self(()))
    }

    /// Makes the journal of a checkpoint that has come into force the one to go on with.
    pub fn advance(&self, journal: Journal) {
        if let Some(watched) = &mut *lock(&WATCHED) {
            watched.journal = Some(journal);
        }
    }

    /// Whether the tree is other than at the checkpoint that it would go back to.
    ///
    /// # Errors
    /// As [`Journal::has_changed`].
    pub fn has_changed(&self) -> Result<bool> {
        unwatched(|| match &*lock(&WATCHED) {
            Some(Watched {
                journal: Some(journal),
                ..
            }) => journal.has_changed(),
            _ => Ok(false),
        })
    }

    /// Whether a checkpoint may be made: no call on the tree failed.
    ///
    /// # Errors
    /// The failure.
    pub fn check(&self) -> Result<(), String> {
        match &*lock(&WATCHED) {
            Some(Watched {
                failure: Some(failure),
                ..
            }) => Err(failure.clone()),
            _ => Ok(()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *lock(&WATCHED) = None;
        lock(&INSIDE).clear();
    }
}

/// Calls `run`, whose calls on files are neither looked at nor changed.
pub fn unwatched<T>(run: impl FnOnce() -> T) -> T {
    guard::unguarded(run)
}

/// From where on a file, of `length` bytes, is known to be zero, in maps too; `length`, if that is not
/// known. Reads nothing.
///
/// # Errors
/// Those of asking which file it is.
pub fn data_length(file: &File, length: u64) -> io::Result<u64> {
    descriptor::data_length(file, length)
}

/// Saves, with one sync, what all maps together are about to overwrite when they are flushed.
///
/// # Errors
/// It could not be saved; the maps must not be flushed.
pub fn save_ahead() -> io::Result<()> {
    memmap2::announce_changes()
}

/// Gives up what maps hold that is not in their files; see
/// [`abandon_changes`](memmap2::abandon_changes).
pub fn abandon_changes() {
    memmap2::abandon_changes();
}

/// Bytes that maps have taken from what the allocator had free; see
/// [`allocated_bytes`](memmap2::allocated_bytes).
pub fn bytes_allocated_for_maps() -> usize {
    memmap2::allocated_bytes()
}

/// Whether so many bytes could be allocated now; see [`are_free`](memmap2::are_free).
pub fn are_free(bytes: usize) -> bool {
    memmap2::are_free(bytes)
}

/// What the maps and handles tell.
struct Changes;

impl Guard for Changes {
    fn concerns(&self, fd: RawFd) -> bool {
        lock(&INSIDE).contains(&fd)
    }

    fn before_change(&self, changes: &[guard::Change]) -> io::Result<()> {
        let changes: Vec<Change> = changes
            .iter()
            .map(|change| Change {
                fd: change.fd,
                from: change.from,
                to: change.to,
            })
            .collect();
        let mut watched = lock(&WATCHED);
        let Some(watched) = &mut *watched else {
            return Ok(());
        };
        let saved = match &mut watched.journal {
            Some(journal) => journal.before_change(&changes),
            None => watched.check(),
        };
        watched.noted(saved)
    }

    fn failed(&self, _: RawFd, error: &io::Error) {
        if let Some(watched) = &mut *lock(&WATCHED) {
            watched.note(error);
        }
    }
}

impl Watched {
    fn noted<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| self.note(error))
    }

    /// Remembers a failure that says something about the disk, not about the call.
    fn note(&mut self, error: &io::Error) {
        let is_an_answer = error.raw_os_error().is_some_and(|code| {
            [
                libc::ENOENT,
                libc::EEXIST,
                libc::ENOTEMPTY,
                libc::ENOTDIR,
                libc::EISDIR,
                libc::EXDEV,
                libc::EINTR,
                libc::EINVAL,
                libc::ENOTSUP,
            ]
            .contains(&code)
        });
        if !is_an_answer && self.failure.is_none() {
            self.failure = Some(error.to_string());
        }
    }

    /// The path of a name, if it is in the tree and known.
    fn path(&self, folder: c_int, name: &CStr) -> Option<PathBuf> {
        if folder != self.folder {
            return None;
        }
        let rest = name.to_str().ok()?.strip_prefix(&self.below)?;
        match rest.strip_prefix('/') {
            Some(rest) => Some(self.tree.join(rest)),
            None => rest.is_empty().then(|| self.tree.clone()),
        }
    }

    fn has(&self, folder: c_int, name: &CStr) -> bool {
        self.path(folder, name).is_some() || lock(&INSIDE).contains(&folder)
    }

    /// Whether the tree may be changed. One without a checkpoint is worth nothing after a failure, and
    /// may share files with another tree: whoever takes a file that cannot be read for one that is not
    /// there would make it anew, and so empty the other tree's.
    fn check(&self) -> io::Result<()> {
        match (&self.journal, &self.failure) {
            (Some(journal), _) => journal.check(),
            (None, Some(_)) => Err(io::Error::from_raw_os_error(libc::EIO)),
            (None, None) => Ok(()),
        }
    }

    /// The name that the C library has for a place beside the tree.
    fn name_beside(&self, path: &Path) -> io::Result<CString> {
        let parent = self.tree.parent().unwrap_or(&self.tree);
        let name = path
            .strip_prefix(parent)
            .ok()
            .map(|rest| Path::new(&self.below).with_file_name("").join(rest));
        name.as_deref()
            .and_then(Path::to_str)
            .and_then(|name| CString::new(name).ok())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EXDEV))
    }
}

/// What a name refers to; `None` if there is nothing.
fn status(folder: c_int, name: &CStr) -> io::Result<Option<Status>> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `name` ends with a zero, and `stat` is as large as fstatat expects.
    let result = unsafe {
        real::fstatat(
            folder,
            name.as_ptr(),
            stat.as_mut_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
        )
    };
    if result == 0 {
        // SAFETY: zeroed before, and filled by fstatat.
        return Ok(Some(Status::of(&unsafe { stat.assume_init() })));
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::NotFound => Ok(None),
        error => Err(error),
    }
}

/// The C library resolves paths into a buffer of its own, which the next path overwrites.
///
/// # Safety
/// `path` ends with a zero.
unsafe fn kept(path: *const c_char) -> CString {
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(path) }.to_owned()
}

fn from_c(result: c_int) -> io::Result<c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

fn to_c(result: io::Result<c_int>) -> c_int {
    result.unwrap_or_else(|error| {
        let code = error.raw_os_error().unwrap_or(libc::EIO);
        // SAFETY: the C library's `errno` is a variable of the calling thread.
        unsafe { *libc::__errno_location() = code };
        -1
    })
}

/// Calls `change` with what is watched over, if `concerns` it, else `call`.
fn watch(
    concerns: impl FnOnce(&Watched) -> bool,
    call: impl FnOnce() -> c_int,
    change: impl FnOnce(&mut Watched) -> io::Result<c_int>,
) -> c_int {
    if guard::is_unguarded() {
        return call();
    }
    let mut watched = lock(&WATCHED);
    match &mut *watched {
        Some(watched) if concerns(watched) => to_c(guard::unguarded(|| {
            let result = change(watched);
            watched.noted(result)
        })),
        _ => {
            drop(watched);
            call()
        }
    }
}

/// # Safety
/// As `openat(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___wasilibc_nocwd_openat_nomode(
    folder: c_int,
    path: *const c_char,
    flags: c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    let name = &*unsafe { kept(path) };
    learn(folder, name);
    let mut inside = false;
    let fd = watch(
        |watched| watched.has(folder, name),
        // SAFETY: as the caller promises.
        || unsafe { real::openat(folder, name.as_ptr(), flags) },
        |watched| {
            inside = true;
            open(watched, folder, name, flags)
        },
    );
    // Whatever had the number before has been closed.
    if fd >= 0 {
        let mut descriptors = lock(&INSIDE);
        if inside {
            descriptors.insert(fd);
        } else {
            descriptors.remove(&fd);
        }
    }
    fd
}

fn learn(folder: c_int, name: &CStr) {
    let mut learned = lock(&LEARNED);
    if matches!(*learned, Learning::On) {
        *learned = Learning::Learned(folder, name.to_string_lossy().into_owned());
    }
}

fn open(watched: &mut Watched, folder: c_int, name: &CStr, flags: c_int) -> io::Result<c_int> {
    // SAFETY: `name` ends with a zero.
    let open = |flags| from_c(unsafe { real::openat(folder, name.as_ptr(), flags) });
    if flags & (libc::O_CREAT | libc::O_TRUNC) != 0 {
        watched.check()?;
    }
    // What is overwritten must be read first.
    let flags = match flags & libc::O_ACCMODE {
        libc::O_WRONLY => flags & !libc::O_ACCMODE | libc::O_RDWR,
        _ => flags,
    };
    if flags & libc::O_TRUNC != 0
        && let Some(journal) = &mut watched.journal
        && let Some(status) = status(folder, name)?
        && journal.keeps(status.identity)
    {
        let fd = open(flags & !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC))?;
        let saved = journal.before_change(&[Change {
            fd,
            from: 0,
            to: status.length,
        }]);
        // SAFETY: the descriptor was opened here, and nobody else has it.
        unsafe { libc::close(fd) };
        saved?;
    }
    open(flags)
}

/// # Safety
/// As `mkdirat(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___wasilibc_nocwd_mkdirat_nomode(
    folder: c_int,
    path: *const c_char,
) -> c_int {
    // SAFETY: as the caller promises.
    let name = &*unsafe { kept(path) };
    // SAFETY: as the caller promises.
    let call = || unsafe { real::mkdirat(folder, name.as_ptr()) };
    watch(
        |watched| watched.has(folder, name),
        call,
        |watched| {
            watched.check()?;
            from_c(call())
        },
    )
}

/// # Safety
/// As `unlinkat(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___wasilibc_nocwd___wasilibc_unlinkat(
    folder: c_int,
    path: *const c_char,
) -> c_int {
    // SAFETY: as the caller promises.
    let name = &*unsafe { kept(path) };
    // SAFETY: as the caller promises.
    let call = || unsafe { real::unlinkat(folder, name.as_ptr()) };
    watch(
        |watched| watched.journal.is_some() && watched.has(folder, name),
        call,
        |watched| {
            if let Some(journal) = &mut watched.journal
                && let Some(status) = status(folder, name)?
                && !status.is_folder
                && let Some(trash) = journal.before_remove_file(status)?
            {
                let to = watched.name_beside(&trash)?;
                // SAFETY: both names end with a zero.
                return from_c(unsafe {
                    real::renameat(folder, name.as_ptr(), watched.folder, to.as_ptr())
                });
            }
            from_c(call())
        },
    )
}

/// # Safety
/// As `rmdir(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___wasilibc_nocwd___wasilibc_rmdirat(
    folder: c_int,
    path: *const c_char,
) -> c_int {
    // SAFETY: as the caller promises.
    let name = &*unsafe { kept(path) };
    // SAFETY: as the caller promises.
    let call = || unsafe { real::rmdirat(folder, name.as_ptr()) };
    watch(
        |watched| watched.journal.is_some() && watched.has(folder, name),
        call,
        |watched| {
            if let Some(journal) = &mut watched.journal {
                journal.before_remove_folder()?;
            }
            from_c(call())
        },
    )
}

/// # Safety
/// As `renameat(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___wasilibc_nocwd_renameat(
    from_folder: c_int,
    from: *const c_char,
    to_folder: c_int,
    to: *const c_char,
) -> c_int {
    // SAFETY: as the caller promises.
    let (from_name, to_name) = unsafe { (&*kept(from), &*kept(to)) };
    // SAFETY: as the caller promises.
    let call =
        || unsafe { real::renameat(from_folder, from_name.as_ptr(), to_folder, to_name.as_ptr()) };
    watch(
        |watched| {
            watched.journal.is_some()
                && (watched.has(from_folder, from_name) || watched.has(to_folder, to_name))
        },
        call,
        |watched| {
            let from_path = watched.path(from_folder, from_name);
            let to_path = watched.path(to_folder, to_name);
            let (Some(from_path), Some(to_path)) = (from_path, to_path) else {
                // Out of the tree or into it, or by a folder's descriptor, which nobody does.
                return Err(io::Error::from_raw_os_error(libc::EXDEV));
            };
            let (Some(journal), Some(status_from)) =
                (&mut watched.journal, status(from_folder, from_name)?)
            else {
                return from_c(call());
            };
            let from = Entry {
                path: &from_path,
                status: status_from,
            };
            let replaced = status(to_folder, to_name)?;
            journal.rename(from, &to_path, replaced, || from_c(call()).map(drop))?;
            Ok(0)
        },
    )
}

/// # Safety
/// As `fstatat(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___wasilibc_nocwd_fstatat(
    folder: c_int,
    path: *const c_char,
    stat: *mut libc::stat,
    flags: c_int,
) -> c_int {
    // SAFETY: as the caller promises.
    let name = &*unsafe { kept(path) };
    // SAFETY: as the caller promises.
    let call = || unsafe { real::fstatat(folder, name.as_ptr(), stat, flags) };
    watch(
        |watched| watched.has(folder, name),
        call,
        |_| from_c(call()),
    )
}

/// # Safety
/// As `opendir(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___wasilibc_nocwd_opendirat(
    folder: c_int,
    path: *const c_char,
) -> *mut libc::DIR {
    // SAFETY: as the caller promises.
    let name = &*unsafe { kept(path) };
    let mut opened = std::ptr::null_mut();
    let mut call = || {
        // SAFETY: as the caller promises.
        opened = unsafe { real::opendirat(folder, name.as_ptr()) };
        if opened.is_null() { -1 } else { 0 }
    };
    if guard::is_unguarded() {
        call();
    } else {
        // Its descriptor is not one of the tree's, so nothing else is told of it.
        let result = call();
        let failed = from_c(result);
        if let Some(watched) = &mut *lock(&WATCHED)
            && watched.has(folder, name)
        {
            to_c(watched.noted(failed));
        }
    }
    opened
}

/// # Safety
/// As `fstat(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_fstat(fd: c_int, stat: *mut libc::stat) -> c_int {
    // SAFETY: as the caller promises.
    let call = || unsafe { real::fstat(fd, stat) };
    if guard::is_unguarded() || !lock(&INSIDE).contains(&fd) {
        return call();
    }
    let result = from_c(call());
    match &mut *lock(&WATCHED) {
        Some(watched) => to_c(watched.noted(result)),
        None => to_c(result),
    }
}

/// # Safety
/// As `fsync(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_fsync(fd: c_int) -> c_int {
    if is_left_to_the_checkpoint(fd) {
        return 0;
    }
    // SAFETY: as the caller promises.
    unsafe { real::fsync(fd) }
}

/// # Safety
/// As `fdatasync(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_fdatasync(fd: c_int) -> c_int {
    if is_left_to_the_checkpoint(fd) {
        return 0;
    }
    // SAFETY: as the caller promises.
    unsafe { real::fdatasync(fd) }
}

fn is_left_to_the_checkpoint(fd: c_int) -> bool {
    !guard::is_unguarded() && lock(&INSIDE).contains(&fd)
}
