//! Rows of three elements <-> rows of three elements and one of padding, as some backends lay out three lanes. The host
//! has rows without padding everywhere; what it gives such a device it spreads, and what it takes it gathers.

/// Elements of a row.
const LANES: usize = 3;

/// Elements from one row to the next where rows are spaced.
const STRIDE: usize = 4;

/// What stands in the padding that the host lays: NaN in every float dtype, all ones in integers, so that a kernel that
/// computes with it is found out.
const PADDING: u8 = 0xff;

/// What so many elements, or bytes, of whole rows become where rows are spaced.
pub fn spaced(dense: u64) -> u64 {
    dense / LANES as u64 * STRIDE as u64
}

/// Where an element lies in spaced rows, counted in elements.
pub fn spaced_place(place: u64) -> u64 {
    place / LANES as u64 * STRIDE as u64 + place % LANES as u64
}

/// Writes rows of elements of `size` bytes spaced, with padding.
///
/// *Shapes*: `out` has four elements for every three of `dense`.
pub fn spread(size: usize, dense: &[u8], out: &mut [u8]) {
    fn rows<const SIZE: usize>(dense: &[u8], out: &mut [u8]) {
        for (row, out) in dense.chunks_exact(LANES * SIZE).zip(out.chunks_exact_mut(STRIDE * SIZE)) {
            let (lanes, padding) = out.split_at_mut(LANES * SIZE);
            lanes.copy_from_slice(row);
            padding.fill(PADDING);
        }
    }
    match size {
        1 => rows::<1>(dense, out),
        2 => rows::<2>(dense, out),
        4 => rows::<4>(dense, out),
        _ => rows::<8>(dense, out),
    }
}

/// As [`spread`], of rows that lie dense at the start of `bytes`.
pub fn spread_in_place(size: usize, bytes: &mut [u8]) {
    let (row, stride) = (LANES * size, STRIDE * size);
    // Rows only move up: from the last on, none is written over before it was read.
    for at in (0..bytes.len() / stride).rev() {
        bytes.copy_within(at * row..(at + 1) * row, at * stride);
        bytes[at * stride + row..(at + 1) * stride].fill(PADDING);
    }
}

/// Takes elements of `size` bytes out of spaced rows, from element `from` on, as many as `out` has.
///
/// *Shapes*: `spaced` starts with a row and has all that are asked for.
pub fn gather(size: usize, spaced: &[u8], from: usize, out: &mut [u8]) {
    fn elements<const SIZE: usize>(spaced: &[u8], from: usize, out: &mut [u8]) {
        // What is left of the row in which it starts, then whole rows, then the first lanes of the last.
        let left = (LANES - from % LANES) % LANES * SIZE;
        let (head, rest) = out.split_at_mut(left.min(out.len()));
        let start = spaced_place(from as u64) as usize * SIZE;
        head.copy_from_slice(&spaced[start..start + head.len()]);
        let row = from.div_ceil(LANES);
        let spaced = spaced.get(row * STRIDE * SIZE..).unwrap_or(&[]);
        let mut rows = rest.chunks_exact_mut(LANES * SIZE);
        let whole = rows.len();
        for (row, out) in spaced.chunks_exact(STRIDE * SIZE).zip(&mut rows) {
            out.copy_from_slice(&row[..LANES * SIZE]);
        }
        let tail = rows.into_remainder();
        if !tail.is_empty() {
            tail.copy_from_slice(&spaced[whole * STRIDE * SIZE..][..tail.len()]);
        }
    }
    match size {
        1 => elements::<1>(spaced, from, out),
        2 => elements::<2>(spaced, from, out),
        4 => elements::<4>(spaced, from, out),
        _ => elements::<8>(spaced, from, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_places() {
        for (dense, wide) in [(0, 0), (3, 4), (6, 8), (12, 16), (300, 400)] {
            assert_eq!(spaced(dense), wide);
        }
        for (place, wide) in [(0, 0), (1, 1), (2, 2), (3, 4), (5, 6), (6, 8), (299, 398)] {
            assert_eq!(spaced_place(place), wide);
        }
    }

    #[test]
    fn rows_of_bytes_are_spaced_by_four() {
        let mut out = [0; 8];
        spread(1, &[1, 2, 3, 4, 5, 6], &mut out);
        assert_eq!(out, [1, 2, 3, 0xff, 4, 5, 6, 0xff]);
        let mut out = [0; 16];
        spread(2, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], &mut out);
        assert_eq!(out, [1, 2, 3, 4, 5, 6, 0xff, 0xff, 7, 8, 9, 10, 11, 12, 0xff, 0xff]);
    }

    #[test]
    fn what_is_spread_is_gathered_from_anywhere() {
        for size in [1, 2, 4, 8] {
            for rows in [1, 2, 5, 33] {
                let dense: Vec<u8> = (0..rows * 3 * size).map(|i| (i * 7 % 251) as u8).collect();
                let mut wide = vec![0; spaced(dense.len() as u64) as usize];
                spread(size, &dense, &mut wide);
                for (place, element) in dense.chunks(size).enumerate() {
                    assert_eq!(&wide[spaced_place(place as u64) as usize * size..][..size], element);
                }
                assert!(wide.chunks(4 * size).all(|row| row[3 * size..].iter().all(|byte| *byte == PADDING)));
                let mut in_place = vec![0; wide.len()];
                in_place[..dense.len()].copy_from_slice(&dense);
                spread_in_place(size, &mut in_place);
                assert_eq!(in_place, wide, "{size} {rows}");
                for from in 0..rows * 3 {
                    for to in from..=rows * 3 {
                        let mut out = vec![0; (to - from) * size];
                        gather(size, &wide, from, &mut out);
                        assert_eq!(out, dense[from * size..to * size], "{size} {rows} {from} {to}");
                    }
                }
            }
        }
    }
}
