//! Whether there is room for a write, in memory and on the disk, with room to spare for what must
//! be possible afterwards: reads, deletes, uploads, and a checkpoint.

use std::cell::Cell;
use std::path::Path;

use edge_sync_rollback::wasi as rollback;

use crate::bindings::types::{MemoryShortage, StorageFailure, StorageKind};
use crate::error::{Error, Result};

/// The most that linear memory can be.
const ADDRESS_SPACE: u64 = 4 << 30;

/// Part of the memory that stays free of data, and its bounds. A checkpoint saves what it
/// overwrites 8 MiB at a time, and the buffer of a file that outgrows it is held twice for a moment
/// (32 MiB for most of the engine's files).
const RESERVED_PART: u64 = 3;
const LEAST_RESERVED: u64 = 16 << 20;
const MOST_RESERVED: u64 = 128 << 20;

/// Memory that an operation takes in the engine, against its bytes in the log: its own, those of
/// the update that the engine makes of it, and those of its tables.
const MEMORY_FACTOR: u64 = 4;

/// What is looked for beyond what a write needs, so that the small ones after it need not look: looking
/// takes longer than writing one point.
const AHEAD: u64 = 4 << 20;

thread_local! {
    static PROBE: Cell<Probe> = const { Cell::new(Probe { left: 0, memory: 0, maps: 0 }) };
}

/// The last probe for memory, and how things stood after it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Probe {
    /// What is left of its [`AHEAD`].
    left: u64,
    /// Size of the linear memory.
    memory: u64,
    /// Bytes that maps had taken from what the allocator had free.
    maps: usize,
}

impl Probe {
    /// One just now that found `left` more than was needed.
    fn that_found(left: u64) -> Probe {
        Probe {
            left,
            memory: memory_bytes(),
            maps: rollback::bytes_allocated_for_maps(),
        }
    }

    /// Whether nothing large was taken since: the map of a file that is full takes twice the file at
    /// once, and more than was found ahead.
    fn still_holds(&self) -> bool {
        *self == Probe::that_found(self.left)
    }
}

/// Room on the disk that logged bytes take until the log forgets them: in the log, in the engine's
/// files, and in the journal that saves what they overwrite there.
const DISK_FACTOR: u64 = 3;

/// Room on the disk that a checkpoint takes whatever it is of.
const CHECKPOINT_BYTES: u64 = 8 << 20;

/// Refuses a write that logs `bytes` if it would not leave enough memory.
pub fn check_memory(limit: Option<u64>, bytes: u64) -> Result<()> {
    let limit = limit.unwrap_or(ADDRESS_SPACE).min(ADDRESS_SPACE);
    let reserved = (limit / RESERVED_PART).clamp(LEAST_RESERVED, MOST_RESERVED);
    let taken = bytes.saturating_mul(MEMORY_FACTOR);
    let needed = taken.saturating_add(reserved);
    // A host that knows better may have set a limit that is passed already.
    if memory_bytes() <= limit && (is_left(taken) || is_found(needed)) {
        return Ok(());
    }
    Err(Error::NoMemory(MemoryShortage {
        needed_bytes: needed,
        free_bytes: limit.saturating_sub(memory_bytes()),
        limit_bytes: limit,
    }))
}

/// Whether the last probe was for so much more, which is taken off then.
fn is_left(taken: u64) -> bool {
    let probe = PROBE.get();
    match probe.left.checked_sub(taken) {
        Some(left) if probe.still_holds() => {
            PROBE.set(Probe { left, ..probe });
            true
        }
        _ => false,
    }
}

/// Whether there is so much, and perhaps some more for what comes.
fn is_found(needed: u64) -> bool {
    let has_more = are_to_be_had(needed.saturating_add(AHEAD));
    PROBE.set(Probe::that_found(if has_more { AHEAD } else { 0 }));
    has_more || are_to_be_had(needed)
}

/// Whether so many bytes could be allocated now. More than fits an address cannot.
fn are_to_be_had(bytes: u64) -> bool {
    usize::try_from(bytes).is_ok_and(rollback::are_free)
}

/// Refuses a write that logs `bytes` if the disk, of which `free` bytes are free, would not have
/// room for it and for a checkpoint after it; `unflushed` bytes are logged and wait for one.
pub fn check_disk(path: &Path, free: Option<u64>, unflushed: u64, bytes: u64) -> Result<()> {
    let Some(free) = free else { return Ok(()) };
    let needed = unflushed
        .saturating_add(bytes)
        .saturating_mul(DISK_FACTOR)
        .saturating_add(CHECKPOINT_BYTES);
    if needed <= free {
        return Ok(());
    }
    Err(Error::Storage(StorageFailure {
        kind: StorageKind::NoSpace,
        operation: "write".to_owned(),
        path: path.display().to_string(),
        message: format!(
            "{} KiB of the disk are free, and {} KiB are needed: for the write, and for a flush \
             after it",
            free >> 10,
            needed >> 10
        ),
    }))
}

/// Size of the linear memory.
pub fn memory_bytes() -> u64 {
    const PAGE: u64 = 64 << 10;
    #[cfg(target_arch = "wasm32")]
    let pages = core::arch::wasm32::memory_size(0) as u64;
    #[cfg(not(target_arch = "wasm32"))]
    let pages = 0;
    pages * PAGE
}
