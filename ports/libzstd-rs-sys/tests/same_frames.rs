//! The port of zstd to Rust against the C library: the same frames, and each reads the other's.

use std::io::Write;

use libzstd_rs_sys as port;
use port::{ZSTD_cParameter, ZSTD_inBuffer, ZSTD_outBuffer};
use proptest::prelude::*;

// Of zstd.h; the port does not export them.
const ZSTD_E_CONTINUE: port::ZSTD_EndDirective = 0;
const ZSTD_E_END: port::ZSTD_EndDirective = 2;

/// As the engine compresses: streamed in pieces, with a checksum.
fn compress_with_c(pieces: &[Vec<u8>], level: i32) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), level).unwrap();
    encoder.include_checksum(true).unwrap();
    for piece in pieces {
        encoder.write_all(piece).unwrap();
    }
    encoder.finish().unwrap()
}

fn compress_with_port(pieces: &[Vec<u8>], level: i32) -> Vec<u8> {
    let mut frame = Vec::new();
    // SAFETY: the context is created before and freed after its use, and the buffers are as long
    // as they say.
    unsafe {
        let context = port::ZSTD_createCCtx();
        assert!(!context.is_null());
        for (parameter, value) in [
            (ZSTD_cParameter::ZSTD_c_compressionLevel, level),
            (ZSTD_cParameter::ZSTD_c_checksumFlag, 1),
        ] {
            let set = port::ZSTD_CCtx_setParameter(context, parameter, value);
            assert_eq!(port::ZSTD_isError(set), 0);
        }
        let end: [&[u8]; 1] = [&[]];
        for (index, piece) in pieces.iter().map(Vec::as_slice).chain(end).enumerate() {
            let mut input = ZSTD_inBuffer {
                src: piece.as_ptr().cast(),
                size: piece.len(),
                pos: 0,
            };
            let last = index == pieces.len();
            loop {
                let mut room = vec![0_u8; 128 * 1024];
                let mut output = ZSTD_outBuffer {
                    dst: room.as_mut_ptr().cast(),
                    size: room.len(),
                    pos: 0,
                };
                let directive = if last { ZSTD_E_END } else { ZSTD_E_CONTINUE };
                let left = port::ZSTD_compressStream2(context, &mut output, &mut input, directive);
                assert_eq!(port::ZSTD_isError(left), 0);
                frame.extend_from_slice(&room[..output.pos]);
                if if last {
                    left == 0
                } else {
                    input.pos == input.size
                } {
                    break;
                }
            }
        }
        port::ZSTD_freeCCtx(context);
    }
    frame
}

fn decompress_with_port(frame: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0_u8; length];
    // SAFETY: the buffers are as long as they say.
    let got = unsafe {
        let got = port::ZSTD_decompress(
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            frame.as_ptr().cast(),
            frame.len(),
        );
        (port::ZSTD_isError(got) == 0).then_some(got)
    }?;
    bytes.truncate(got);
    Some(bytes)
}

/// Runs, repetitions and noise, as in byte planes of offsets and lengths.
fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let piece = prop_oneof![
        (any::<u8>(), 0..70_000_usize).prop_map(|(byte, length)| vec![byte; length]),
        prop::collection::vec(any::<u8>(), 0..3_000),
        (prop::collection::vec(0..4_u8, 1..50), 1..2_000_usize)
            .prop_map(|(pattern, times)| pattern.repeat(times)),
    ];
    prop::collection::vec(piece, 0..5)
}

proptest! {
    #[test]
    fn same_frames(pieces in pieces(), level in 0..4) {
        let bytes = pieces.concat();
        let frame = compress_with_c(&pieces, level);
        prop_assert!(compress_with_port(&pieces, level) == frame);
        prop_assert!(decompress_with_port(&frame, bytes.len()) == Some(bytes));
    }

    #[test]
    fn damage_is_found(pieces in pieces(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let bytes = pieces.concat();
        prop_assume!(!bytes.is_empty());
        let mut frame = compress_with_c(&pieces, 3);
        let at = at.index(frame.len());
        frame[at] ^= 1_u8 << bit;
        if let Some(other) = decompress_with_port(&frame, bytes.len()) {
            // A reserved bit of the header, or one of no consequence.
            prop_assert!(other == bytes);
        }
    }
}
