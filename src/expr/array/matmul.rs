//! Matrix products of f64 and of exact integers.
//!
//! Each element is a chain of products, each rounded and then added, in the order of the inner dimension: the
//! value does not depend on the machine, on blocks or on threads.

use rayon::prelude::*;

use crate::expr::ops::Fault;
use crate::tensor::simd::Level;

/// Rows and columns of the tile that stays in registers.
const ROWS: usize = 8;
const COLUMNS: usize = 16;
/// Rows that one task computes.
const TASK: usize = 64;

type Tile = [[f64; COLUMNS]; ROWS];

/// Extents of one product.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Extents {
    pub rows: usize,
    pub inner: usize,
    pub columns: usize,
}

impl Extents {
    /// Elements that both operands need when they are packed.
    pub fn packed(self) -> u64 {
        let padded = |extent: usize, by: usize| (extent as u64).div_ceil(by as u64).saturating_mul(by as u64);
        let inner = self.inner as u64;
        let (left, right) = (padded(self.rows, ROWS).saturating_mul(inner), padded(self.columns, COLUMNS).saturating_mul(inner));
        left.saturating_add(right)
    }
}

/// `into = left * right`, all row-major. `pack` has at least [`Extents::packed`] elements.
pub(super) fn floats(extents: Extents, left: &[f64], right: &[f64], into: &mut [f64], pack: &mut [f64], parallel: bool) {
    let Extents { rows, inner, columns } = extents;
    if rows == 0 || columns == 0 {
        return;
    }
    if inner == 0 {
        return into.fill(0.0);
    }
    let (pack_left, rest) = pack.split_at_mut(rows.div_ceil(ROWS) * ROWS * inner);
    let pack_right = &mut rest[..columns.div_ceil(COLUMNS) * COLUMNS * inner];
    let parallel = parallel && rows > TASK && rows * inner * columns > 1 << 18;
    let pack_panel = |(at, panel): (usize, &mut [f64])| {
        let first = at * COLUMNS;
        let count = COLUMNS.min(columns - first);
        for (row, line) in panel.as_chunks_mut::<COLUMNS>().0.iter_mut().enumerate() {
            line[..count].copy_from_slice(&right[row * columns + first..][..count]);
            line[count..].fill(0.0);
        }
    };
    let level = Level::detect();
    let packed_right = {
        match parallel {
            true => pack_right.par_chunks_mut(COLUMNS * inner).enumerate().for_each(pack_panel),
            false => pack_right.chunks_mut(COLUMNS * inner).enumerate().for_each(pack_panel),
        }
        &*pack_right
    };
    let task = |(at, (into, pack)): (usize, (&mut [f64], &mut [f64]))| {
        let first = at * TASK;
        let count = into.len() / columns;
        let left = &left[first * inner..(first + count) * inner];
        rows_of(level, left, packed_right, into, pack, inner, columns);
    };
    match parallel {
        true => into.par_chunks_mut(TASK * columns).zip(pack_left.par_chunks_mut(TASK * inner)).enumerate().for_each(task),
        false => into.chunks_mut(TASK * columns).zip(pack_left.chunks_mut(TASK * inner)).enumerate().for_each(task),
    }
}

/// Some rows of a product; `pack` gets the rows of the left operand, eight beside each other.
fn rows_of(level: Level, left: &[f64], right: &[f64], into: &mut [f64], pack: &mut [f64], inner: usize, columns: usize) {
    let groups = pack.chunks_mut(ROWS * inner).zip(left.chunks(ROWS * inner));
    for (packed, rows) in groups {
        for (at, row) in rows.chunks(inner).enumerate() {
            for (line, &value) in packed.as_chunks_mut::<ROWS>().0.iter_mut().zip(row) {
                line[at] = value;
            }
        }
        for at in rows.len() / inner..ROWS {
            for line in packed.as_chunks_mut::<ROWS>().0 {
                line[at] = 0.0;
            }
        }
    }
    for (panel, columns_right) in right.chunks(COLUMNS * inner).enumerate() {
        let first = panel * COLUMNS;
        let count = COLUMNS.min(columns - first);
        for (packed, into) in pack.chunks(ROWS * inner).zip(into.chunks_mut(ROWS * columns)) {
            let mut tile = [[0.0; COLUMNS]; ROWS];
            product(level, packed.as_chunks().0, columns_right.as_chunks().0, &mut tile);
            for (row, line) in into.chunks_mut(columns).zip(&tile) {
                row[first..first + count].copy_from_slice(&line[..count]);
            }
        }
    }
}

/// A tile of the product of eight rows and sixteen columns.
#[inline(always)]
fn product(level: Level, left: &[[f64; ROWS]], right: &[[f64; COLUMNS]], tile: &mut Tile) {
    match level {
        Level::Portable => portable(left, right, tile),
        // SAFETY: the level says that the machine has these instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { avx2(left, right, tile) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { avx512(left, right, tile) },
    }
}

fn portable(left: &[[f64; ROWS]], right: &[[f64; COLUMNS]], tile: &mut Tile) {
    for (row, line) in tile.iter_mut().enumerate() {
        let mut sums = [0.0; COLUMNS];
        for (a, b) in left.iter().zip(right) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a[row] * b;
            }
        }
        *line = sums;
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(left: &[[f64; ROWS]], right: &[[f64; COLUMNS]], tile: &mut Tile) {
    use std::arch::x86_64::{_mm512_add_pd, _mm512_loadu_pd, _mm512_mul_pd, _mm512_set1_pd, _mm512_setzero_pd, _mm512_storeu_pd};
    let mut sums = [[_mm512_setzero_pd(); 2]; ROWS];
    for (a, b) in left.iter().zip(right) {
        // SAFETY: `b` has 16 doubles.
        let columns = unsafe { [_mm512_loadu_pd(b.as_ptr()), _mm512_loadu_pd(b.as_ptr().add(8))] };
        for (sum, &a) in sums.iter_mut().zip(a) {
            let a = _mm512_set1_pd(a);
            sum[0] = _mm512_add_pd(sum[0], _mm512_mul_pd(a, columns[0]));
            sum[1] = _mm512_add_pd(sum[1], _mm512_mul_pd(a, columns[1]));
        }
    }
    for (line, sum) in tile.iter_mut().zip(sums) {
        // SAFETY: `line` has 16 doubles.
        unsafe {
            _mm512_storeu_pd(line.as_mut_ptr(), sum[0]);
            _mm512_storeu_pd(line.as_mut_ptr().add(8), sum[1]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(left: &[[f64; ROWS]], right: &[[f64; COLUMNS]], tile: &mut Tile) {
    use std::arch::x86_64::{_mm256_add_pd, _mm256_loadu_pd, _mm256_mul_pd, _mm256_set1_pd, _mm256_setzero_pd, _mm256_storeu_pd};
    // Four rows of eight columns at a time: eight sums, two columns and a factor fit the sixteen registers.
    for (half, lines) in tile.chunks_mut(4).enumerate() {
        for first in [0, 8] {
            let mut sums = [[_mm256_setzero_pd(); 2]; 4];
            for (a, b) in left.iter().zip(right) {
                // SAFETY: `b` has 16 doubles, and `first` is 0 or 8.
                let columns = unsafe { [_mm256_loadu_pd(b.as_ptr().add(first)), _mm256_loadu_pd(b.as_ptr().add(first + 4))] };
                let a = if half == 0 { &a[..4] } else { &a[4..] };
                for (sum, &a) in sums.iter_mut().zip(a) {
                    let a = _mm256_set1_pd(a);
                    sum[0] = _mm256_add_pd(sum[0], _mm256_mul_pd(a, columns[0]));
                    sum[1] = _mm256_add_pd(sum[1], _mm256_mul_pd(a, columns[1]));
                }
            }
            for (line, sum) in lines.iter_mut().zip(sums) {
                // SAFETY: `line` has 16 doubles, and `first` is 0 or 8.
                unsafe {
                    _mm256_storeu_pd(line.as_mut_ptr().add(first), sum[0]);
                    _mm256_storeu_pd(line.as_mut_ptr().add(first + 4), sum[1]);
                }
            }
        }
    }
}

/// `into = left * right` of exact integers, all row-major.
///
/// *Errors*: overflow.
pub(super) fn ints(extents: Extents, left: &[i128], right: &[i128], into: &mut [i128], parallel: bool) -> Result<(), Fault> {
    let Extents { inner, columns, .. } = extents;
    into.fill(0);
    if columns == 0 || inner == 0 {
        return Ok(());
    }
    let row = |(into, left): (&mut [i128], &[i128])| -> Result<(), Fault> {
        for (&a, line) in left.iter().zip(right.chunks(columns)) {
            for (sum, &b) in into.iter_mut().zip(line) {
                *sum = a.checked_mul(b).and_then(|product| sum.checked_add(product)).ok_or(Fault::Overflow("matmul"))?;
            }
        }
        Ok(())
    };
    match parallel {
        true => into.par_chunks_mut(columns).zip(left.par_chunks(inner)).try_for_each(row),
        false => into.chunks_mut(columns).zip(left.chunks(inner)).try_for_each(row),
    }
}
