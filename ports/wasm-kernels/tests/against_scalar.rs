//! Each kernel against the scalar code, for all lengths from 0 to 300, at unaligned places, of random
//! and of extreme values. Natively this compares the scalar code with itself and with exact sums;
//! `tests/system` of the workspace runs it as WebAssembly.

use wasm_kernels::{binary, byte, float, hadamard, half, product, quantile, scalar, sparse, turbo};

const LENGTHS: std::ops::RangeInclusive<usize> = 0..=300;

/// Relative to the sum of the terms' magnitudes.
const TOLERANCE: f64 = 1e-6;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn many<T>(&mut self, length: usize, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..length).map(|_| one(self)).collect()
    }

    fn byte(&mut self) -> u8 {
        self.next() as u8
    }

    /// From −1 to 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn float_or_extreme(&mut self, extreme: bool) -> f32 {
        match extreme {
            false => self.float(),
            true => self.one_of(&EXTREMES),
        }
    }
}

/// Finite values of all magnitudes whose products add up to finite sums.
const EXTREMES: [f32; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    1e17,
    -1e17,
    1e-17,
    1e-30,
    -1e-30,
    1e-40,
    -1e-45,
    f32::MIN_POSITIVE,
    f32::EPSILON,
    0.333_333_34,
];

/// Finite values of all magnitudes, as bits.
const HALF_EXTREMES: [u16; 12] = [
    0, 0x8000, 1, 0x8001, 0x3ff, 0x83ff, 0x400, 0x3c00, 0xbc00, 0x7bff, 0xfbff, 0x3555,
];

/// Calls `check` with two vectors of every length that begin anywhere, made by each of `makers`.
fn pairs<T: Copy>(
    makers: &[&dyn Fn(&mut Random) -> T],
    mut check: impl FnMut(&[T], &[T], &mut Random),
) {
    let mut random = Random(7);
    for length in LENGTHS {
        for make in makers {
            for _ in 0..4 {
                let [skip_a, skip_b] = [random.below(5), random.below(5)];
                let a = random.many(length + skip_a, make);
                let b = random.many(length + skip_b, make);
                check(&a[skip_a..], &b[skip_b..], &mut random);
            }
        }
    }
}

/// Calls `check` with vectors of different lengths.
fn uneven<T: Copy>(make: &dyn Fn(&mut Random) -> T, mut check: impl FnMut(&[T], &[T])) {
    let mut random = Random(8);
    for _ in 0..300 {
        let [a, b] = [random.below(120), random.below(120)].map(|length| random.many(length, make));
        check(&a, &b);
    }
}

/// The terms of a sum, exactly enough.
type Term = fn(f64, f64) -> f64;

/// What it is, the kernel, the scalar code, the terms.
type Compared<T> = (&'static str, Distance<T>, Distance<T>, Term);

type Distance<T> = fn(&[T], &[T]) -> f32;

const DOT: Term = |a, b| a * b;
const EUCLID: Term = |a, b| (a - b) * (a - b);
const MANHATTAN: Term = |a, b| (a - b).abs();

fn close(result: f32, scalar: f32, terms: &[f64], what: &str) {
    let exact: f64 = terms.iter().sum();
    let magnitude: f64 = terms.iter().map(|term| term.abs()).sum();
    // Products and sums below the smallest normal number are rounded to its steps.
    let allowed = TOLERANCE * magnitude + terms.len() as f64 * 1.5e-45;
    let error = (f64::from(result) - exact).abs();
    assert!(
        error <= allowed,
        "{what}, {}: {result} for {exact}",
        terms.len()
    );
    // The scalar code is the less exact of the two.
    let scalar_error = (f64::from(scalar) - exact).abs();
    let apart = (f64::from(result) - f64::from(scalar)).abs();
    assert!(
        apart <= allowed.max(2.0 * scalar_error),
        "{what}, {}: {result} for {scalar}",
        terms.len()
    );
}

#[test]
fn floats() {
    let kernels: [Compared<f32>; 3] = [
        ("dot", float::dot, scalar::float::dot, DOT),
        ("euclid", float::euclid, scalar::float::euclid, EUCLID),
        (
            "manhattan",
            float::manhattan,
            scalar::float::manhattan,
            MANHATTAN,
        ),
    ];
    let check = |a: &[f32], b: &[f32]| {
        for (what, kernel, reference, term) in kernels {
            let pairs = a.iter().zip(b);
            let terms: Vec<f64> = pairs
                .map(|(a, b)| match what {
                    // The difference is rounded before it is squared.
                    "euclid" => DOT(f64::from(a - b), f64::from(a - b)),
                    _ => term(f64::from(*a), f64::from(*b)),
                })
                .collect();
            close(kernel(a, b), reference(a, b), &terms, what);
        }
        let squares: Vec<f64> = a.iter().map(|a| f64::from(*a) * f64::from(*a)).collect();
        let scalar = scalar::float::squared_length(a);
        close(float::squared_length(a), scalar, &squares, "squared length");
    };
    pairs(
        &[
            &|random| random.float(),
            &|random| random.one_of(&EXTREMES),
            &|_| 0.1,
        ],
        |a, b, _| check(a, b),
    );
    uneven(&|random| random.float(), check);
}

#[test]
fn floats_without_bounds() {
    for length in 1..=100 {
        for place in 0..length {
            let mut a = vec![1.0; length];
            let b = vec![0.5; length];
            a[place] = f32::INFINITY;
            for kernel in [float::dot, float::euclid, float::manhattan] {
                assert_eq!(kernel(&a, &b), f32::INFINITY);
            }
            a[place] = f32::MAX;
            let mut b = b;
            b[place] = f32::MIN;
            assert_eq!(float::dot(&a, &b), f32::NEG_INFINITY);
            assert_eq!(float::euclid(&a, &b), f32::INFINITY);
            assert_eq!(float::manhattan(&a, &b), f32::INFINITY);
            let halves: Vec<u16> = a
                .iter()
                .map(|a| if *a == 1.0 { 0x3c00 } else { 0x7c00 })
                .collect();
            let ones = vec![0x3800; length];
            for kernel in [half::dot, half::euclid, half::manhattan] {
                assert_eq!(kernel(&halves, &ones), f32::INFINITY);
            }
        }
    }
}

#[test]
fn division() {
    pairs(&[&|random| random.float()], |a, _, random| {
        let length = random.float().abs() + 0.01;
        let mut result = a.to_vec();
        float::divide(&mut result, length);
        for (result, value) in result.iter().zip(a) {
            let exact = value / length;
            assert!((result - exact).abs() <= exact.abs() * 2.0 * f32::EPSILON);
        }
    });
}

/// By the definition of the format.
fn half_by_definition(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let fraction = f64::from(bits & 0x3ff) / 1024.0;
    match i32::from(bits >> 10 & 31) {
        0 => sign * fraction * 2_f64.powi(-14),
        31 if fraction == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        exponent => sign * (1.0 + fraction) * 2_f64.powi(exponent - 15),
    }
}

#[test]
fn halves_are_converted_exactly() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let mut values = vec![0.0; all.len()];
    half::widen(&all, &mut values);
    for (bits, value) in all.iter().zip(&values) {
        let expected = half_by_definition(*bits);
        for value in [*value, scalar::half::value(*bits)].map(f64::from) {
            assert!(
                value.is_nan() && expected.is_nan() || value.to_bits() == expected.to_bits(),
                "{bits:#x}: {value} for {expected}"
            );
        }
    }
    pairs(&[&|random| random.one_of(&HALF_EXTREMES)], |a, b, _| {
        let mut values = vec![9.0; b.len() + 3];
        half::widen(a, &mut values);
        for (bits, value) in a.iter().zip(&values) {
            assert_eq!(f64::from(*value), half_by_definition(*bits));
        }
        assert!(values[a.len()..].iter().all(|value| *value == 9.0));
    });
}

/// From 2⁻⁷ to 2, as vectors hold them.
fn usual_half(random: &mut Random) -> u16 {
    (random.next() as u16 & 0x8000) | (0x2000 + random.below(0x2000) as u16)
}

#[test]
fn halves() {
    let kernels: [Compared<u16>; 3] = [
        ("dot", half::dot, scalar::half::dot, DOT),
        ("euclid", half::euclid, scalar::half::euclid, EUCLID),
        (
            "manhattan",
            half::manhattan,
            scalar::half::manhattan,
            MANHATTAN,
        ),
    ];
    let check = |a: &[u16], b: &[u16]| {
        for (what, kernel, reference, term) in kernels {
            let pairs = a
                .iter()
                .zip(b)
                .map(|(a, b)| (half_by_definition(*a), half_by_definition(*b)));
            let terms: Vec<f64> = pairs
                .map(|(a, b)| match what {
                    "euclid" => DOT(f64::from((a - b) as f32), f64::from((a - b) as f32)),
                    _ => term(a, b),
                })
                .collect();
            close(kernel(a, b), reference(a, b), &terms, what);
        }
    };
    pairs(
        &[&usual_half, &|random| random.one_of(&HALF_EXTREMES)],
        |a, b, _| check(a, b),
    );
    uneven(&usual_half, check);
}

/// The order in which the engine's kernels for x86 add up, with AVX from 32 values on, and with SSE
/// from 16; all engines and processors must do so.
#[cfg(target_feature = "simd128")]
mod order_of_sums {
    use super::*;

    type Term = fn(f32, f32) -> f32;

    /// `LANES` sums, and how many pairs are in them.
    fn lanes<const LANES: usize>(a: &[f32], b: &[f32], term: Term) -> ([f32; LANES], usize) {
        let mut sums = [0.0; LANES];
        let whole = a.len() - a.len() % LANES;
        for (index, (a, b)) in a.iter().zip(b).take(whole).enumerate() {
            sums[index % LANES] += term(*a, *b);
        }
        (sums, whole)
    }

    fn avx_register(sums: &[f32]) -> f32 {
        let lane = |lane: usize| sums[lane] + sums[lane + 4];
        (lane(0) + lane(1)) + (lane(2) + lane(3))
    }

    /// The kernels for `f32` add up registers before lanes, those for `f16` lanes before registers.
    fn sum(a: &[f32], b: &[f32], term: Term, registers_first: bool) -> f32 {
        let (mut sum, whole) = if a.len() >= 32 {
            let (sums, whole) = lanes::<32>(a, b, term);
            let [first, second, third, fourth] = [0, 8, 16, 24].map(|from| &sums[from..from + 8]);
            let sum = if registers_first {
                let together: Vec<f32> = (0..8)
                    .map(|lane| (first[lane] + second[lane]) + (third[lane] + fourth[lane]))
                    .collect();
                avx_register(&together)
            } else {
                let [first, second, third, fourth] =
                    [first, second, third, fourth].map(avx_register);
                first + second + third + fourth
            };
            (sum, whole)
        } else {
            let (sums, whole) = lanes::<16>(a, b, term);
            let register =
                |from: usize| (sums[from] + sums[from + 2]) + (sums[from + 1] + sums[from + 3]);
            let sum = register(0) + register(4) + register(8) + register(12);
            (sum, whole)
        };
        for index in whole..a.len() {
            sum += term(a[index], b[index]);
        }
        sum
    }

    const TERMS: [Term; 3] = [|a, b| a * b, |a, b| (a - b) * (a - b), |a, b| (a - b).abs()];

    #[test]
    fn sums_are_those_of_the_engine_on_x86() {
        let kernels: [Distance<f32>; 3] = [float::dot, float::euclid, float::manhattan];
        pairs(&[&|random| random.float()], |a, b, _| {
            if a.len() < 16 {
                return;
            }
            for (kernel, term) in kernels.into_iter().zip(TERMS) {
                assert_eq!(kernel(a, b).to_bits(), sum(a, b, term, true).to_bits());
            }
        });
        let kernels: [Distance<u16>; 3] = [half::dot, half::euclid, half::manhattan];
        pairs(&[&usual_half], |a, b, _| {
            if a.len() < 16 {
                return;
            }
            let [wide_a, wide_b] = [a, b].map(|bits| {
                let values = bits.iter().map(|bits| scalar::half::value(*bits));
                values.collect::<Vec<_>>()
            });
            for (kernel, term) in kernels.into_iter().zip(TERMS) {
                let expected = sum(&wide_a, &wide_b, term, false);
                assert_eq!(kernel(a, b).to_bits(), expected.to_bits());
            }
        });
    }
}

#[test]
fn bytes() {
    let check = |a: &[u8], b: &[u8]| {
        assert_eq!(byte::dot(a, b), scalar::byte::dot(a, b));
        assert_eq!(byte::euclid(a, b), scalar::byte::euclid(a, b));
        assert_eq!(byte::manhattan(a, b), scalar::byte::manhattan(a, b));
        assert_eq!(
            byte::dot_and_squared_lengths(a, b),
            scalar::byte::dot_and_squared_lengths(a, b)
        );
    };
    pairs(
        &[
            &Random::byte,
            &|_| 255,
            &|random| random.one_of(&[0, 255]),
            &|random| random.one_of(&[127, 128]),
        ],
        |a, b, _| check(a, b),
    );
    uneven(&Random::byte, check);
    for length in [65_535, 65_536, 65_537, 140_000, 400_003] {
        check(&vec![255; length], &vec![255; length]);
        check(&vec![255; length], &vec![0; length]);
    }
}

#[test]
fn bits() {
    let check = |a: &[u8], b: &[u8]| {
        assert_eq!(
            binary::differing_bits(a, b),
            scalar::binary::differing_bits(a, b)
        );
    };
    pairs(&[&Random::byte, &|_| 255], |a, b, _| check(a, b));
    uneven(&Random::byte, check);
    check(&[255; 10_000], &[0; 10_000]);
}

#[test]
fn bits_of_planes() {
    fn check<const WORD: usize>(vector: &[u8], query: &[u8], planes: usize) {
        assert_eq!(
            binary::differing_bits_of_planes::<WORD>(vector, query, planes),
            scalar::binary::differing_bits_of_planes::<WORD>(vector, query, planes),
            "{} bytes, {} of the query in {planes} planes of {WORD}",
            vector.len(),
            query.len()
        );
    }
    let mut random = Random(9);
    for length in LENGTHS {
        for planes in [0, 1, 4, 8] {
            let [skip, query_skip] = [random.below(5), random.below(5)];
            let vector = &random.many(skip + length, Random::byte)[skip..];
            let query = &random.many(query_skip + length * planes, Random::byte)[query_skip..];
            check::<1>(vector, query, planes);
            check::<16>(vector, query, planes);
            let opposite: Vec<u8> = vec![255; length * planes];
            check::<1>(&vec![0; length], &opposite, planes);
            check::<16>(&vec![0; length], &opposite, planes);
            let cut = random.below(query.len() + 1);
            check::<1>(vector, &query[cut..], planes);
            check::<16>(vector, &query[cut..], planes);
        }
    }
    check::<16>(&[0; 1600], &[255; 12_800], 8);
    check::<1>(&[0; 1600], &[255; 12_800], 8);
}

#[test]
fn codes_of_product_quantization() {
    let mut random = Random(10);
    for (parts, extreme) in LENGTHS.flat_map(|parts| [(parts, false), (parts, true)]) {
        let centroids = random.one_of(&[1, 2, 16, 255, 256]);
        let [skip, codes_skip] = [random.below(5), random.below(5)];
        let entry = |random: &mut Random| random.float_or_extreme(extreme);
        let table = &random.many(skip + parts * centroids, entry)[skip..];
        let code = |random: &mut Random| random.below(centroids) as u8;
        let codes = &random.many(codes_skip + parts, code)[codes_skip..];
        let terms: Vec<f32> = codes
            .iter()
            .enumerate()
            .map(|(part, code)| table[part * centroids + usize::from(*code)])
            .collect();
        let result = product::look_up(table, centroids, codes);
        let exact: Vec<f64> = terms.iter().map(|term| f64::from(*term)).collect();
        close(result, terms.iter().sum(), &exact, "product");
        // A table or a vector that is too short.
        let cut = &table[..random.below(table.len() + 1)];
        let parts_left = cut.len() / centroids;
        assert_eq!(
            product::look_up(cut, centroids, codes),
            product::look_up(table, centroids, &codes[..parts_left])
        );
        if parts > 0 && centroids < 256 {
            let mut codes = codes.to_vec();
            codes[random.below(parts)] = centroids as u8;
            assert_eq!(
                product::look_up(table, centroids, &codes),
                f32::NEG_INFINITY
            );
        }
    }
    assert_eq!(product::look_up(&[], 0, &[1, 2]), 0.0);
}

/// The codebooks of the engine, and one of extremes.
const CODEBOOKS: [[u8; 16]; 3] = [
    [
        0, 31, 52, 69, 84, 97, 110, 122, 134, 146, 159, 172, 187, 204, 225, 255,
    ],
    [0, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [
        255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0,
    ],
];

fn turbo_queries<const PLANES: usize, const QUERY_BYTES: usize>() {
    let mut random = Random(11);
    for length in LENGTHS.chain([2048, 8192, 40_000, 140_000]) {
        let plane_length = length.next_multiple_of(64);
        let codebook = random.one_of(&CODEBOOKS);
        for extreme in [false, true] {
            let [skip, vector_skip] = [random.below(5), random.below(5)];
            let mut query = vec![0; skip + PLANES * QUERY_BYTES * plane_length];
            for plane in query[skip..].chunks_exact_mut(plane_length.max(1)) {
                for byte in &mut plane[..length] {
                    *byte = if extreme { -128 } else { random.next() as i8 };
                }
            }
            let make = |random: &mut Random| if extreme { 255 } else { random.byte() };
            let vector = &random.many(vector_skip + length, make)[vector_skip..];
            for vector in [vector, &vector[..length / 2]] {
                let arguments = (&query[skip..], plane_length, &codebook, vector);
                let (query, plane_length, codebook, vector) = arguments;
                assert_eq!(
                    turbo::query::<PLANES, QUERY_BYTES>(query, plane_length, codebook, vector),
                    scalar::turbo::query::<PLANES, QUERY_BYTES>(
                        query,
                        plane_length,
                        codebook,
                        vector
                    ),
                    "{PLANES} planes, {QUERY_BYTES} bytes, {length}"
                );
            }
        }
    }
}

#[test]
fn queries_of_turbo_quantization() {
    turbo_queries::<1, 2>();
    turbo_queries::<2, 2>();
    turbo_queries::<4, 2>();
    turbo_queries::<8, 1>();
    turbo_queries::<8, 2>();
}

fn turbo_vectors<const PLANES: usize>() {
    let check = |a: &[u8], b: &[u8]| {
        for codebook in CODEBOOKS {
            assert_eq!(
                turbo::vectors::<PLANES>(&codebook, a, b),
                scalar::turbo::vectors::<PLANES>(&codebook, a, b),
                "{PLANES} planes"
            );
        }
    };
    pairs(&[&Random::byte, &|_| 0, &|_| 255], |a, b, _| check(a, b));
    uneven(&Random::byte, check);
    for length in [8192, 40_000, 140_000] {
        check(&vec![0; length], &vec![0; length]);
    }
}

fn turbo_weights<const PLANES: usize>() {
    let check = |a: &[u8], b: &[u8], weights: &[i16]| {
        for codebook in CODEBOOKS {
            assert_eq!(
                turbo::weighted_vectors::<PLANES>(&codebook, a, b, weights),
                scalar::turbo::weighted_vectors::<PLANES>(&codebook, a, b, weights),
                "{PLANES} planes, {} weights",
                weights.len()
            );
        }
    };
    pairs(&[&Random::byte, &|_| 0, &|_| 255], |a, b, random| {
        let weights = random.many(a.len() * PLANES, |random| random.next() as i16);
        check(a, b, &weights);
        check(a, b, &vec![i16::MAX; a.len() * PLANES]);
        check(a, b, &vec![i16::MIN; a.len() * PLANES]);
        check(a, b, &weights[..random.below(weights.len() + 1)]);
    });
}

#[test]
fn vectors_of_turbo_quantization() {
    turbo_vectors::<1>();
    turbo_vectors::<2>();
    turbo_vectors::<4>();
    turbo_vectors::<8>();
    turbo_weights::<2>();
    turbo_weights::<4>();
    turbo_weights::<1>();
    let check = |a: &[u8], b: &[u8]| {
        assert_eq!(turbo::wide_vectors(a, b), scalar::turbo::wide_vectors(a, b));
    };
    // No code is −32,768: the upper byte is never 128.
    let byte = |random: &mut Random| random.byte().max(1) & 127;
    pairs(&[&byte, &|_| 127, &|_| 255], |a, b, _| check(a, b));
    for (a, b) in [
        (i16::MAX, i16::MAX),
        (-i16::MAX, i16::MAX),
        (-i16::MAX, -i16::MAX),
    ] {
        let [a, b] = [a, b].map(|code| code.to_le_bytes().repeat(5000));
        check(&a, &b);
    }
    uneven(&byte, check);
}

#[test]
fn hadamard_transforms_are_equal_to_the_bit() {
    let mut random = Random(12);
    let lengths = (0..=300).chain([512, 1024, 2048, 4096, 8192]);
    for length in lengths {
        for (scale, extreme) in [
            (1.0, false),
            (0.088_388_347_648_318_45, false),
            (0.088_388_347_648_318_45, true),
        ] {
            let skip = random.below(3);
            let value = |random: &mut Random| f64::from(random.float_or_extreme(extreme));
            let values = random.many(skip + length, value);
            let [mut result, mut expected] = [values.clone(), values];
            hadamard::transform(&mut result[skip..], scale);
            scalar::hadamard::transform(&mut expected[skip..], scale);
            let bits = |values: &[f64]| {
                values
                    .iter()
                    .map(|value| value.to_bits())
                    .collect::<Vec<_>>()
            };
            assert_eq!(bits(&result), bits(&expected), "{length}");
        }
    }
}

#[test]
fn quantiles() {
    let mut random = Random(13);
    for length in LENGTHS {
        let [skip, probabilities_skip] = [random.below(3), random.below(3)];
        for extreme in [true, false] {
            let value = |random: &mut Random| f64::from(random.float_or_extreme(extreme));
            let mut values = random.many(skip + length, value);
            let limit = f64::from(random.float());
            for limit in [
                limit,
                values.last().copied().unwrap_or(limit),
                f64::INFINITY,
                f64::NEG_INFINITY,
            ] {
                assert_eq!(
                    quantile::count_below(&values[skip..], limit),
                    scalar::quantile::count_below(&values[skip..], limit)
                );
            }
            let steps = random.many(probabilities_skip + length, value);
            let steps = &steps[probabilities_skip..];
            let mut expected = values.clone();
            quantile::desired_positions(&mut values[skip..], steps, 12_345.0);
            scalar::quantile::desired_positions(&mut expected[skip..], steps, 12_345.0);
            assert_eq!(values, expected);
        }
        let probabilities = random.many(length, |random| f64::from(random.float().abs()));
        // What has no probability stays.
        let mut short = vec![-1.0; length];
        quantile::desired_positions(&mut short, &probabilities[length / 2..], 1.0);
        assert!(
            short[length - length / 2..]
                .iter()
                .all(|value| *value == -1.0)
                || length < 2
        );
    }
}

#[test]
fn scores_above_a_threshold() {
    let mut random = Random(14);
    for length in LENGTHS {
        let skip = random.below(5);
        let scores = random.many(skip + length, |random| match random.below(16) {
            0 => random.float(),
            1 => random.one_of(&EXTREMES),
            _ => random.one_of(&[0.0, -0.0, -0.9]),
        });
        let scores = &scores[skip..];
        for threshold in [f32::NEG_INFINITY, -0.5, 0.0, 0.5, 2.0, f32::INFINITY] {
            for from in [
                0,
                1,
                random.below(length + 1),
                length,
                length + 1,
                usize::MAX,
            ] {
                assert_eq!(
                    sparse::next_above(scores, from, threshold),
                    scalar::sparse::next_above(scores, from, threshold),
                    "{length}, from {from}, above {threshold}"
                );
            }
        }
    }
}
