//! Takes a folder of files that change in place back to its last checkpoint.
//!
//! The engine overwrites its files, appends to them, replaces and removes them. Whoever is stopped
//! on the way leaves a folder that is neither what it was nor what it was to be. Here, as in
//! SQLite's rollback journal, what is about to be lost is saved first, so that after a crash the
//! folder can be brought back, byte for byte, to what it was at the last checkpoint. What was
//! written since is in the log and is applied again.
//!
//! - A checkpoint ([`Journal::begin`]) syncs the folder, the *tree*, and notes what it holds: every
//!   file with its length, every folder. It is in force when its owner says so, durably (in
//!   `CURRENT`), and until then the one before is.
//! - Before bytes that the checkpoint has are overwritten or cut off, they are saved
//!   ([`Journal::before_change`]). What is appended needs nothing.
//! - A file or folder of the checkpoint is not removed but moved aside ([`Journal::remove`]), and
//!   moves are noted ([`Journal::rename`]). What is new needs nothing.
//! - [`Journal::roll_back`] brings the tree back.
//!
//! `docs/log-format.md` specifies the files and argues why every crash leaves a tree that can be
//! brought back. On WASI the module `wasi` learns of the calls that change files from the C library;
//! elsewhere, in tests, who changes files says so.

mod descriptor;
mod error;
mod folder;
mod journal;
mod record;
#[cfg(target_os = "wasi")]
pub mod wasi;

pub use descriptor::{Identity, Status, status};
pub use error::{Error, Result};
pub use journal::{Change, Entry, Journal};
