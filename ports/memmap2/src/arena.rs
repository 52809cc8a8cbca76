//! Page-aligned memory that is zero, taken from the system in bulk and never given back.
//!
//! The C library's allocator clears what it hands out, so a sparse file's buffer would be touched
//! in full; pages fresh from the system cost nothing until they are written.
//!
//! Invariant: every byte of a free block is zero.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::page::{self, PAGE};

/// Size of the pieces in which free memory is looked for: what small allocations take of one large piece
/// would make the next look get another.
const PIECE: usize = 2 << 20;

/// Bytes that came from the program's allocator.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// See [`crate::allocated_bytes`].
pub(crate) fn allocated_bytes() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

/// Blocks of whole pages. Addresses have their provenance exposed.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    /// Address to length of each free block; neighbours are always merged.
    free: BTreeMap<usize, usize>,
}

impl Arena {
    /// `length` zero bytes (a multiple of [`PAGE`]), or `None` if memory is exhausted: if what the
    /// program's allocator has free would have to be taken, and `spared` bytes of it would not be left.
    pub(crate) fn allocate(&mut self, length: usize, spared: usize) -> Option<usize> {
        debug_assert!(length > 0 && length.is_multiple_of(PAGE));
        let address = match self.smallest_that_fits(length) {
            Some(address) => address,
            None => {
                // At the limit of the memory, what the allocator has free is the last there is.
                let (address, got) =
                    system::grow(length).or_else(|| last_resort(length, spared))?;
                self.insert(address, got);
                self.smallest_that_fits(length)?
            }
        };
        self.take(address, length);
        Some(address)
    }

    /// Lengthens a block where it lies. False, and nothing changed, if what follows it is in use.
    pub(crate) fn extend(&mut self, address: usize, length: usize, new_length: usize) -> bool {
        let (end, more) = (address + length, new_length - length);
        let follows = self.free.get(&end).copied().unwrap_or(0);
        if follows < more {
            if system::end() != Some(end + follows) {
                return false;
            }
            let Some((grown, got)) = system::grow(more - follows) else {
                return false;
            };
            self.insert(grown, got);
            if self.free.get(&end).is_none_or(|&free| free < more) {
                return false;
            }
        }
        self.take(end, more);
        true
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// The block is one that [`Self::allocate`] gave, as long as it is now, and is no longer used.
    pub(crate) unsafe fn free(&mut self, address: usize, length: usize) {
        for at in (address..address + length).step_by(PAGE) {
            // SAFETY: the page lies in the block, which the caller gives up.
            let bytes = unsafe { page::bytes_mut(at, PAGE) };
            // Reading an untouched page costs nothing; writing it would.
            if !page::is_zero(bytes) {
                bytes.fill(0);
            }
        }
        self.insert(address, length);
    }

    fn smallest_that_fits(&self, length: usize) -> Option<usize> {
        self.free
            .iter()
            .filter(|&(_, &free)| free >= length)
            .min_by_key(|&(_, &free)| free)
            .map(|(&address, _)| address)
    }

    fn take(&mut self, address: usize, length: usize) {
        if let Some(free) = self.free.remove(&address)
            && free > length
        {
            self.free.insert(address + length, free - length);
        }
    }

    fn insert(&mut self, mut address: usize, mut length: usize) {
        if let Some((&before, &free)) = self.free.range(..address).next_back()
            && before + free == address
        {
            self.free.remove(&before);
            address = before;
            length += free;
        }
        if let Some(after) = self.free.remove(&(address + length)) {
            length += after;
        }
        self.free.insert(address, length);
    }

    #[cfg(test)]
    fn free_bytes(&self) -> usize {
        self.free.values().sum()
    }
}

/// [`allocated`] for good, if `spared` bytes are left.
fn last_resort(length: usize, spared: usize) -> Option<(usize, usize)> {
    let block = allocated(length)?;
    if !are_free(spared) {
        give_back(block);
        return None;
    }
    ALLOCATED.fetch_add(length, Ordering::Relaxed);
    Some(block)
}

/// See [`crate::are_free`].
pub(crate) fn are_free(bytes: usize) -> bool {
    let count = bytes.div_ceil(PIECE);
    let pieces: Vec<Vec<u8>> = (0..count)
        .map_while(|_| {
            let mut piece = Vec::new();
            piece.try_reserve_exact(PIECE).ok()?;
            Some(piece)
        })
        .collect();
    // A compiler that sees that nothing is done with them could leave them out.
    std::hint::black_box(&pieces);
    pieces.len() == count
}

/// `length` zero bytes (a multiple of [`PAGE`]) from the program's allocator.
fn allocated(length: usize) -> Option<(usize, usize)> {
    let layout = Layout::from_size_align(length, PAGE).ok()?;
    // SAFETY: `length` is not zero, as no block is empty.
    let pointer = unsafe { alloc_zeroed(layout) };
    (!pointer.is_null()).then(|| (pointer.expose_provenance(), length))
}

/// Frees what [`allocated`] gave just now.
fn give_back((address, length): (usize, usize)) {
    if let Ok(layout) = Layout::from_size_align(length, PAGE) {
        // SAFETY: allocated with this layout, and nobody has been given it.
        unsafe { dealloc(std::ptr::with_exposed_provenance_mut(address), layout) };
    }
}

#[cfg(target_arch = "wasm32")]
mod system {
    use core::arch::wasm32::{memory_grow, memory_size};

    const WASM_PAGE: usize = 64 * 1024;

    /// At least `length` bytes at the end of the linear memory.
    pub(super) fn grow(length: usize) -> Option<(usize, usize)> {
        let pages = length.div_ceil(WASM_PAGE);
        // The last page stays unused, so that the end of a block is always an address.
        if memory_size::<0>() + pages >= 65536 {
            return None;
        }
        let at = memory_grow::<0>(pages);
        (at != usize::MAX).then(|| (at * WASM_PAGE, pages * WASM_PAGE))
    }

    /// Where memory would grow, unless it has reached its largest size.
    pub(super) fn end() -> Option<usize> {
        memory_size::<0>().checked_mul(WASM_PAGE)
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod system {
    /// Only tests run here: 16 MiB at a time keeps blocks from being one allocation each.
    pub(super) fn grow(length: usize) -> Option<(usize, usize)> {
        super::allocated(length.next_multiple_of(16 * 1024 * 1024))
    }

    pub(super) fn end() -> Option<usize> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zero_and_merge_when_freed() {
        let mut arena = Arena::default();
        let blocks: Vec<_> = [1, 7, 3, 64]
            .map(|pages| (arena.allocate(pages * PAGE, 0).unwrap(), pages * PAGE))
            .into();
        let total = arena.free_bytes() + blocks.iter().map(|block| block.1).sum::<usize>();
        for &(address, length) in &blocks {
            // SAFETY: the block was just allocated.
            let bytes = unsafe { page::bytes_mut(address, length) };
            assert!(page::is_zero(bytes));
            bytes.fill(0xa5);
        }
        for index in [2, 0, 3, 1] {
            // SAFETY: each block is freed once and not used afterwards.
            unsafe { arena.free(blocks[index].0, blocks[index].1) };
        }
        assert_eq!(arena.free_bytes(), total);
        assert_eq!(arena.free.len(), 1);
        let again = arena.allocate(75 * PAGE, 0).unwrap();
        // SAFETY: the block was just allocated.
        assert!(page::is_zero(unsafe { page::bytes_mut(again, 75 * PAGE) }));
    }

    #[test]
    fn extends_into_free_space_only() {
        let mut arena = Arena::default();
        let first = arena.allocate(2 * PAGE, 0).unwrap();
        assert!(arena.extend(first, 2 * PAGE, 5 * PAGE));
        let second = arena.allocate(PAGE, 0).unwrap();
        assert_eq!(second, first + 5 * PAGE);
        assert!(!arena.extend(first, 5 * PAGE, 6 * PAGE));
        assert!(arena.extend(second, PAGE, 2 * PAGE));
    }
}
