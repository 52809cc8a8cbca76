//! Pages and their fingerprints.

use xxhash_rust::xxh3::xxh3_128;

/// Granularity of write-back and alignment of maps, as on the platforms that Qdrant runs on.
pub(crate) const PAGE: usize = 4096;

/// What a page held when it last agreed with the file: [`ZERO`], XXH3's 128 bits, or [`UNKNOWN`].
///
/// 16 bytes a page, 0.4 % of the mapped size; a clean copy would be 100 %. That a changed page
/// keeps its fingerprint has a chance of 2^-128 a page and flush.
pub(crate) type Fingerprint = u128;

/// The fingerprint of a page of zeros, which is recognized without hashing.
pub(crate) const ZERO: Fingerprint = 0;

/// The fingerprint of no page: the file was changed while the page differed from it, so that the
/// page cannot be told to agree again by what it held before.
pub(crate) const UNKNOWN: Fingerprint = Fingerprint::MAX;

/// The fingerprint of one page.
pub(crate) fn fingerprint(page: &[u8]) -> Fingerprint {
    if is_zero(page) {
        return ZERO;
    }
    match xxh3_128(page) {
        ZERO => 1,
        UNKNOWN => UNKNOWN - 1,
        hash => hash,
    }
}

/// Whether all bytes are zero. Stops early at the first that is not.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // SAFETY: every bit pattern is a u64.
    let (head, words, tail) = unsafe { bytes.align_to::<u64>() };
    head.iter().all(|&byte| byte == 0)
        && tail.iter().all(|&byte| byte == 0)
        && words
            .chunks(16)
            .all(|chunk| chunk.iter().fold(0, |all, word| all | word) == 0)
}

/// The bytes at an address of the arena.
///
/// # Safety
/// The range lies in one block that is allocated for as long as the slice is used, and nobody
/// writes it meanwhile. As with real maps, that maps are not accessed during a call is what the
/// `unsafe` of mapping a file asks of the caller.
pub(crate) unsafe fn bytes<'a>(address: usize, length: usize) -> &'a [u8] {
    // SAFETY: as the caller promises; the arena exposed the provenance.
    unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(address), length) }
}

/// The bytes at an address of the arena, to be changed.
///
/// # Safety
/// As [`bytes`], and nobody reads the range meanwhile either.
pub(crate) unsafe fn bytes_mut<'a>(address: usize, length: usize) -> &'a mut [u8] {
    // SAFETY: as the caller promises; the arena exposed the provenance.
    unsafe {
        std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(address), length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        let mut page = [0_u8; PAGE];
        for at in 0..PAGE {
            assert!(is_zero(&page));
            page[at] = 0x80;
            assert!(!is_zero(&page));
            assert!(!is_zero(&page[at..]));
            assert_ne!(fingerprint(&page), ZERO);
            page[at] = 0;
        }
        assert_eq!(fingerprint(&page), ZERO);
    }
}
