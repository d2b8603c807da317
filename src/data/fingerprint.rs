//! Turns bytes into 64 bits by which a later change of them is seen.

use crate::tensor::simd::{Level, per_level};

/// Sums side by side: so many that the compiler turns one pass over them into a few vectors.
const LANES: usize = 32;

/// Bytes of one step: a word for each sum.
const STRIPE: usize = 8 * LANES;

/// Keys of the first stripe.
const KEYS: [u64; LANES] = keys();

/// What a key grows by from stripe to stripe, so that words that change places are seen.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Words without order. *Source*: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), from the first digits of pi.
const fn keys() -> [u64; LANES] {
    let (mut keys, mut state, mut i) = ([0; LANES], 0x243f_6a88_85a3_08d3u64, 0);
    while i < LANES {
        state = state.wrapping_add(STEP);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        keys[i] = z ^ (z >> 31);
        i += 1;
    }
    keys
}

/// The same bytes give the same value, in this version of the program; other bytes of the same length most likely another.
///
/// A word `w` with key `k` adds the product of both halves of `w ^ k` to the sum of its lane: another word gives
/// another product but for one key in 2^32. Nothing here withstands one who knows the keys and looks for two inputs
/// with the same value.
///
/// *Source*: the construction is NH's (Black, Halevi, Krawczyk, Krovetz, Rogaway, "UMAC", CRYPTO 1999), with XXH3's xor.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    fingerprint_at(Level::detect(), bytes)
}

per_level! {
    fn fingerprint_at(level; bytes: &[u8]) -> u64 {
        let (mut sums, mut grown) = ([0u64; LANES], 0u64);
        let (stripes, rest) = bytes.as_chunks::<STRIPE>();
        for stripe in stripes {
            add(stripe, grown, &mut sums);
            grown = grown.wrapping_add(STEP);
        }
        if !rest.is_empty() {
            let mut last = [0; STRIPE];
            last[..rest.len()].copy_from_slice(rest);
            add(&last, grown, &mut sums);
        }
        // Each sum alone decides the value when the others stay: a product with an odd number loses nothing.
        let mut value = bytes.len() as u64;
        for (sum, key) in sums.into_iter().zip(KEYS) {
            value = value.wrapping_add(sum.wrapping_mul(key | 1));
        }
        value
    }
}

#[inline(always)]
fn add(stripe: &[u8; STRIPE], grown: u64, sums: &mut [u64; LANES]) {
    for ((word, key), sum) in stripe.as_chunks().0.iter().zip(&KEYS).zip(sums) {
        let mixed = u64::from_le_bytes(*word) ^ key.wrapping_add(grown);
        *sum = sum.wrapping_add((mixed & 0xFFFF_FFFF).wrapping_mul(mixed >> 32));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * i % 251) as u8).collect()
    }

    #[test]
    fn every_level_gives_the_same_value() {
        for len in [0, 1, 7, 63, 64, 65, 255, 256, 257, 1000, 4096] {
            let all = bytes(len + 1);
            let want = fingerprint_at(Level::Portable, &all[1..]);
            for level in Level::all() {
                assert_eq!(fingerprint_at(level, &all[1..]), want, "{level:?} {len}");
            }
        }
    }

    #[test]
    fn any_changed_bit_is_seen() {
        for mut data in [bytes(600), vec![0; 600]] {
            let whole = fingerprint(&data);
            for bit in 0..8 * data.len() {
                data[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(fingerprint(&data), whole, "{bit}");
                data[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn words_that_change_places_are_seen() {
        let data: Vec<u8> = (0..1024u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let whole = fingerprint(&data);
        for (a, b) in [(0, 1), (0, 2), (3, 19), (3, 1023), (16, 32), (0, 64), (0, 512)] {
            let mut swapped = data.clone();
            (0..4).for_each(|i| swapped.swap(4 * a + i, 4 * b + i));
            assert_ne!(fingerprint(&swapped), whole, "{a} {b}");
        }
    }

    #[test]
    fn lengths_are_seen() {
        let zeros = [0; 300];
        let mut seen: Vec<u64> = (0..=300).map(|len| fingerprint(&zeros[..len])).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 301);
    }
}
