//! Turns (key, block, time, draw) into random words: Philox4x32-10.
//!
//! *Source*: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, and
//! Random123's known answers. The counter is (block low word, block high word, time, draw); word `j` of
//! block `b` belongs to element `4 * b + j`.

use crate::tensor::simd::Level;

/// The time of contents that are the same in every round.
pub const EVERY_ROUND: u32 = u32::MAX;

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const W0: u32 = 0x9E37_79B9;
const W1: u32 = 0xBB67_AE85;
const ROUNDS: usize = 10;
/// Bytes of one block of four words.
const BLOCK: usize = 16;

/// What makes one tensor's random contents differ from another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key([u32; 2]);

impl Key {
    /// The first 8 bytes of blake3(seed as little-endian u64, then the name), as two little-endian u32.
    pub fn new(seed: u64, name: &str) -> Key {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes()).update(name.as_bytes());
        let h = *hasher.finalize().as_bytes();
        Key([u32::from_le_bytes([h[0], h[1], h[2], h[3]]), u32::from_le_bytes([h[4], h[5], h[6], h[7]])])
    }
}

/// The four words of one counter.
#[inline(always)]
fn block(key: Key, counter: [u32; 4]) -> [u32; 4] {
    let [mut k0, mut k1] = key.0;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    for _ in 0..ROUNDS {
        let p0 = u64::from(M0) * u64::from(c0);
        let p1 = u64::from(M1) * u64::from(c2);
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(W0);
        k1 = k1.wrapping_add(W1);
    }
    [c0, c1, c2, c3]
}

/// One draw of one tensor at one time: a word for every element.
#[derive(Clone, Copy)]
pub(super) struct Draw {
    pub key: Key,
    pub time: u32,
    pub draw: u32,
}

impl Draw {
    /// Writes the words of elements `first..` as little-endian u32; `out` has 4 bytes per element.
    pub(super) fn words(self, level: Level, first: u64, out: &mut [u8]) {
        let mut at = first / 4;
        let skip = (first % 4) as usize * 4;
        let mut out = out;
        if skip > 0 {
            let len = out.len().min(BLOCK - skip);
            let (head, rest) = std::mem::take(&mut out).split_at_mut(len);
            head.copy_from_slice(&self.block_bytes(at)[skip..skip + len]);
            out = rest;
            at += 1;
        }
        let whole = out.len() / BLOCK * BLOCK;
        let (body, tail) = out.split_at_mut(whole);
        self.blocks(level, at, body);
        if !tail.is_empty() {
            let bytes = self.block_bytes(at + (whole / BLOCK) as u64);
            tail.copy_from_slice(&bytes[..tail.len()]);
        }
    }

    /// The word of one element.
    pub(super) fn word(self, index: u64) -> u32 {
        let counter = [(index / 4) as u32, (index >> 34) as u32, self.time, self.draw];
        block(self.key, counter)[(index % 4) as usize]
    }

    #[inline(always)]
    fn block_bytes(self, at: u64) -> [u8; BLOCK] {
        let words = block(self.key, [at as u32, (at >> 32) as u32, self.time, self.draw]);
        let mut bytes = [0; BLOCK];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Writes blocks `at..`; `out` is whole blocks.
    fn blocks(self, level: Level, mut at: u64, mut out: &mut [u8]) {
        // The vector code holds the counter's high word fixed: no call crosses a multiple of 2^32 blocks.
        while !out.is_empty() {
            let until_wrap = (1u64 << 32) - (at & 0xFFFF_FFFF);
            let count = until_wrap.min((out.len() / BLOCK) as u64) as usize;
            let (part, rest) = out.split_at_mut(count * BLOCK);
            match level {
                Level::Portable => self.portable(at, part),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a `Level` other than `Portable` is only made where the processor has its instructions.
                Level::Avx2 => unsafe { x86::avx2(self, at, part) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Level::Avx512 => unsafe { x86::avx512(self, at, part) },
            }
            out = rest;
            at += count as u64;
        }
    }

    fn portable(self, at: u64, out: &mut [u8]) {
        for (at, out) in (at..).zip(out.chunks_exact_mut(BLOCK)) {
            out.copy_from_slice(&self.block_bytes(at));
        }
    }
}

/// One round on 64-bit lanes, each with one block's word in its low half; the high halves are ignored.
///
/// With `x = c0, y = c2, a = c1, b = c3` a round is `x' = hi(y * M1) ^ a ^ k0`, `a' = lo(y * M1)` and the
/// same for `y, b`: the product itself serves as `a'`, since only its low half is ever looked at. The first
/// two rounds are cheaper: all words of the counter but the lowest are the same in all lanes.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Draw, M0, M1, ROUNDS, W0, W1};

    /// What all blocks with one high word of the counter have in common.
    struct Common {
        k0: [u64; ROUNDS],
        k1: [u64; ROUNDS],
        /// XORed into c2 in round 1.
        y1: u64,
        /// XORed into c0 in round 2.
        x2: u64,
        /// XORed into c2 in round 2.
        y2: u64,
        /// XORed into c2 in round 3.
        y3: u64,
    }

    impl Common {
        #[inline(always)]
        fn new(draw: Draw, high: u32) -> Common {
            let [key0, key1] = draw.key.0;
            let (mut k0, mut k1) = ([0; ROUNDS], [0; ROUNDS]);
            for round in 0..ROUNDS {
                k0[round] = u64::from(key0.wrapping_add(W0.wrapping_mul(round as u32)));
                k1[round] = u64::from(key1.wrapping_add(W1.wrapping_mul(round as u32)));
            }
            let p1 = u64::from(M1) * u64::from(draw.time);
            let x1 = (p1 >> 32) ^ u64::from(high) ^ k0[0];
            let p0 = u64::from(M0) * x1;
            Common {
                y1: u64::from(draw.draw) ^ k1[0],
                x2: (p1 & 0xFFFF_FFFF) ^ k0[1],
                y2: (p0 >> 32) ^ k1[1],
                y3: (p0 & 0xFFFF_FFFF) ^ k1[2],
                k0,
                k1,
            }
        }
    }

    /// Writes blocks `at..`, all with the same high word of the counter, 32 at a time, then 16 at a time.
    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(draw: Draw, at: u64, out: &mut [u8]) {
        const HALF: usize = 16 * BLOCK;
        let common = Common::new(draw, (at >> 32) as u32);
        let low = at as u32;
        // Lane order in which interleaving two results gives consecutive blocks.
        let lanes = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
        let mut counter = _mm512_add_epi64(lanes, _mm512_set1_epi64(i64::from(low)));
        let mut last = [0u8; HALF];
        let (wide, rest) = out.as_chunks_mut::<{ 2 * HALF }>();
        for chunk in wide {
            // SAFETY: the chunk has eight stores of 64 bytes.
            unsafe { write::<4>(&common, counter, chunk.as_mut_ptr()) };
            counter = _mm512_add_epi64(counter, _mm512_set1_epi64(32));
        }
        let (narrow, rest) = rest.as_chunks_mut::<HALF>();
        for chunk in narrow.iter_mut().chain((!rest.is_empty()).then_some(&mut last)) {
            // SAFETY: the chunk has four stores of 64 bytes.
            unsafe { write::<2>(&common, counter, chunk.as_mut_ptr()) };
            counter = _mm512_add_epi64(counter, _mm512_set1_epi64(16));
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }

    /// Writes the words of `V` times eight blocks, in order. Several vectors hide the products' latency.
    ///
    /// # Safety
    /// `to` can be written for `128 * V` bytes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn write<const V: usize>(common: &Common, counter: __m512i, to: *mut u8) {
        let m0 = _mm512_set1_epi64(i64::from(M0));
        let m1 = _mm512_set1_epi64(i64::from(M1));
        let set = |word: u64| _mm512_set1_epi64(word as i64);
        let xor3 = |a, b, c| _mm512_ternarylogic_epi64::<0x96>(a, b, c);
        // Shift and shuffle use different ports.
        let high_s = |p| _mm512_srli_epi64::<32>(p);
        let high_p = |p| _mm512_shuffle_epi32::<0xF5>(p);

        let zero = [_mm512_setzero_si512(); V];
        let (mut x, mut y, mut a, mut b) = (zero, zero, zero, zero);
        for v in 0..V {
            let b1 = _mm512_mul_epu32(_mm512_add_epi64(counter, set(8 * v as u64)), m0);
            a[v] = _mm512_mul_epu32(_mm512_xor_si512(high_s(b1), set(common.y1)), m1);
            x[v] = _mm512_xor_si512(high_p(a[v]), set(common.x2));
            y[v] = _mm512_xor_si512(b1, set(common.y2));
            let p1 = _mm512_mul_epu32(y[v], m1);
            let p0 = _mm512_mul_epu32(x[v], m0);
            x[v] = xor3(high_s(p1), a[v], set(common.k0[2]));
            y[v] = _mm512_xor_si512(high_p(p0), set(common.y3));
            (a[v], b[v]) = (p1, p0);
        }
        for round in 3..ROUNDS - 1 {
            let (k0, k1) = (set(common.k0[round]), set(common.k1[round]));
            for v in 0..V {
                let p1 = _mm512_mul_epu32(y[v], m1);
                let p0 = _mm512_mul_epu32(x[v], m0);
                x[v] = xor3(high_s(p1), a[v], k0);
                y[v] = xor3(high_p(p0), b[v], k1);
                (a[v], b[v]) = (p1, p0);
            }
        }
        // The last round leaves (c0, c1) and (c2, c3) as the halves of 64-bit lanes.
        let (k0, k1) = (set(common.k0[ROUNDS - 1]), set(common.k1[ROUNDS - 1]));
        for v in 0..V {
            let p1 = _mm512_mul_epu32(y[v], m1);
            let p0 = _mm512_mul_epu32(x[v], m0);
            let c01 = _mm512_mask_ternarylogic_epi32::<0x96>(_mm512_ror_epi64::<32>(p1), 0x5555, a[v], k0);
            let c23 = _mm512_mask_ternarylogic_epi32::<0x96>(_mm512_shuffle_epi32::<0xB1>(p0), 0x5555, b[v], k1);
            // SAFETY: promised by the caller.
            unsafe {
                _mm512_storeu_si512(to.add(128 * v).cast(), _mm512_unpacklo_epi64(c01, c23));
                _mm512_storeu_si512(to.add(128 * v + 64).cast(), _mm512_unpackhi_epi64(c01, c23));
            }
        }
    }

    /// Writes blocks `at..`, all with the same high word of the counter, 8 at a time.
    #[target_feature(enable = "avx2")]
    pub(super) fn avx2(draw: Draw, at: u64, out: &mut [u8]) {
        const STEP: usize = 8 * BLOCK;
        let common = Common::new(draw, (at >> 32) as u32);
        let low = at as u32;
        let mut counter = _mm256_add_epi64(_mm256_setr_epi64x(0, 2, 1, 3), _mm256_set1_epi64x(i64::from(low)));
        let mut last = [0u8; STEP];
        let whole = out.len() / STEP * STEP;
        let (body, rest) = out.split_at_mut(whole);
        for chunk in body.chunks_exact_mut(STEP).chain((!rest.is_empty()).then_some(&mut last[..])) {
            let [a, b] = four(&common, counter);
            let [c, d] = four(&common, _mm256_add_epi64(counter, _mm256_set1_epi64x(4)));
            let to = chunk.as_mut_ptr();
            for (i, v) in [a, b, c, d].into_iter().enumerate() {
                // SAFETY: the chunk has 128 bytes, four stores of 32.
                unsafe { _mm256_storeu_si256(to.add(32 * i).cast(), v) };
            }
            counter = _mm256_add_epi64(counter, _mm256_set1_epi64x(8));
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn four(common: &Common, c0: __m256i) -> [__m256i; 2] {
        let m0 = _mm256_set1_epi64x(i64::from(M0));
        let m1 = _mm256_set1_epi64x(i64::from(M1));
        let set = |word: u64| _mm256_set1_epi64x(word as i64);
        let high = |p| _mm256_shuffle_epi32::<0xF5>(p);
        let xor = |a, b| _mm256_xor_si256(a, b);

        let b1 = _mm256_mul_epu32(c0, m0);
        let mut a = _mm256_mul_epu32(xor(high(b1), set(common.y1)), m1);
        let mut x = xor(high(a), set(common.x2));
        let mut y = xor(b1, set(common.y2));
        // c3 after round 2 is the same in all lanes: y3 without the key of round 3.
        let mut b = set(common.y3 ^ common.k1[2]);
        for round in 2..ROUNDS - 1 {
            let p1 = _mm256_mul_epu32(y, m1);
            let p0 = _mm256_mul_epu32(x, m0);
            x = xor(xor(high(p1), a), set(common.k0[round]));
            y = xor(xor(high(p0), b), set(common.k1[round]));
            a = p1;
            b = p0;
        }
        let p1 = _mm256_mul_epu32(y, m1);
        let p0 = _mm256_mul_epu32(x, m0);
        let low_half = set(0xFFFF_FFFF);
        let join = |p, old, key| xor(_mm256_shuffle_epi32::<0xB1>(p), _mm256_and_si256(xor(old, set(key)), low_half));
        let c01 = join(p1, a, common.k0[ROUNDS - 1]);
        let c23 = join(p0, b, common.k1[ROUNDS - 1]);
        [_mm256_unpacklo_epi64(c01, c23), _mm256_unpackhi_epi64(c01, c23)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123() {
        // kat_vectors of Random123: philox4x32 10.
        for (counter, key, want) in [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            ([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0], [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]),
        ] {
            assert_eq!(block(Key(key), counter), want);
        }
    }

    #[test]
    fn every_level_gives_the_words_of_single_blocks() {
        let (key, time, draw) = (Key([0xa409_3822, 0x299f_31d0]), 7, 3);
        let draw = Draw { key, time, draw };
        // Around the carry of the counter's low word, and lengths that end inside of vectors and blocks.
        for first in [0u64, 1, 2, 3, 5, (1 << 34) - 130, (1 << 34) - 1, (1 << 40) - 7] {
            for len in [0usize, 1, 2, 3, 4, 5, 31, 63, 64, 65, 127, 129, 1000] {
                let want: Vec<u8> = (0..len as u64).flat_map(|i| draw.word(first + i).to_le_bytes()).collect();
                for level in Level::all() {
                    // One byte off alignment.
                    let mut got = vec![0xAA; 4 * len + 1];
                    draw.words(level, first, &mut got[1..]);
                    assert_eq!(got[1..], want, "{level:?} {first} {len}");
                }
            }
        }
    }

    #[test]
    fn a_key_depends_on_seed_and_name() {
        assert_eq!(Key::new(0, "x"), Key::new(0, "x"));
        assert_ne!(Key::new(0, "x"), Key::new(1, "x"));
        assert_ne!(Key::new(0, "x"), Key::new(0, "y"));
    }
}
