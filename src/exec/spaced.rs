//! What the host has dense <-> what lies spaced in a memory, rows of three elements by four: spread when it is filled,
//! gathered before it is checked, and hashed as if it were dense.

use rayon::prelude::*;

use super::host::hash_of;
use super::{CHUNK, HASHED};
use crate::tensor::rows;

/// Rows that one thread moves at a time. *Units*: elements, spaced and dense.
const SPACED: usize = CHUNK as usize;
const DENSE: usize = SPACED / 4 * 3;

/// Writes elements of `size` bytes as the device has them.
pub(super) fn spread(size: usize, dense: &[u8], out: &mut [u8], parallel: bool) {
    if parallel && out.len() > SPACED * size {
        let parts = dense.par_chunks(DENSE * size).zip(out.par_chunks_mut(SPACED * size));
        parts.for_each(|(dense, out)| rows::spread(size, dense, out));
    } else {
        rows::spread(size, dense, out);
    }
}

/// Takes elements of `size` bytes as the host has them.
pub(super) fn gather(size: usize, spaced: &[u8], out: &mut [u8], parallel: bool) {
    if parallel && spaced.len() > SPACED * size {
        let parts = spaced.par_chunks(SPACED * size).zip(out.par_chunks_mut(DENSE * size));
        parts.for_each(|(spaced, out)| rows::gather(size, spaced, 0, out));
    } else {
        rows::gather(size, spaced, 0, out);
    }
}

/// The hash of the `at`th [`HASHED`] elements of spaced bytes: that of the same elements where they lie dense.
pub(super) fn hash_of_part(size: usize, spaced: &[u8], at: usize) -> u64 {
    let elements = spaced.len() / size / 4 * 3;
    let from = at * HASHED as usize;
    let mut part = [0; HASHED as usize * 8];
    let part = &mut part[..(elements - from).min(HASHED as usize) * size];
    rows::gather(size, spaced, from, part);
    hash_of(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_and_parts_change_nothing() {
        let many = 3 * SPACED + 3 * 1000;
        for size in [1, 2, 4, 8] {
            let dense: Vec<u8> = (0..many * size).map(|i| (i * 31 % 251) as u8).collect();
            let (mut alone, mut together) = (vec![0; many / 3 * 4 * size], vec![1; many / 3 * 4 * size]);
            spread(size, &dense, &mut alone, false);
            spread(size, &dense, &mut together, true);
            assert_eq!(alone, together);
            for parallel in [false, true] {
                let mut back = vec![0; dense.len()];
                gather(size, &alone, &mut back, parallel);
                assert_eq!(back, dense);
            }
            for (at, part) in dense.chunks(HASHED as usize * size).enumerate() {
                assert_eq!(hash_of_part(size, &alone, at), hash_of(part), "{size} {at}");
            }
            alone[size * 5] ^= 1;
            assert_ne!(hash_of_part(size, &alone, 0), hash_of(&dense[..HASHED as usize * size]));
        }
    }
}
