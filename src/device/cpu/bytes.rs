//! Turns copies and fills into writes, in pieces for several threads where they are large.

use super::pool::Pool;

/// Copies and fills above this size are dealt to the pool, in pieces of [`PIECE`]. *Units*: bytes.
const LARGE: usize = 1 << 20;
const PIECE: usize = 256 << 10;

/// An address that threads may share: each works on a part of its own.
#[derive(Clone, Copy)]
struct Address(*mut u8);

// SAFETY: an address alone does nothing; its users keep their parts apart.
unsafe impl Sync for Address {}

impl Address {
    fn at(self, offset: usize) -> *mut u8 {
        self.0.wrapping_add(offset)
    }
}

/// Copies bytes.
///
/// # Safety
/// `src` can be read and `dst` written for `len` bytes; they do not overlap and nobody else uses them.
pub(super) unsafe fn copy(src: *const u8, dst: *mut u8, len: usize, pool: &Pool) {
    if len <= LARGE {
        // SAFETY: promised by the caller.
        return unsafe { std::ptr::copy_nonoverlapping(src, dst, len) };
    }
    let (src, dst) = (Address(src.cast_mut()), Address(dst));
    pool.run(len.div_ceil(PIECE) as u64, 1, &|_, begin, end| {
        let (from, to) = (begin as usize * PIECE, len.min(end as usize * PIECE));
        // SAFETY: the pieces partition what the caller promised.
        unsafe { std::ptr::copy_nonoverlapping(src.at(from), dst.at(from), to - from) };
    });
}

/// Repeats a little-endian word; the last one may be cut off.
///
/// # Safety
/// `dst` can be written for `len` bytes, and nobody else uses them.
pub(super) unsafe fn fill(dst: *mut u8, len: usize, word: u32, pool: &Pool) {
    // Up to the first whole word byte by byte, and from there with the word's bytes turned by as many.
    let head = dst.align_offset(4).min(len);
    for (i, byte) in word.to_le_bytes()[..head.min(3)].iter().enumerate() {
        // SAFETY: within what the caller promised.
        unsafe { dst.add(i).write(*byte) };
    }
    // SAFETY: `head` is at most `len`.
    let (dst, len, word) = (unsafe { dst.add(head) }, len - head, word.rotate_right(8 * head as u32));
    let dst = Address(dst);
    let part = |from: usize, to: usize| {
        let bytes = word.to_le_bytes();
        if bytes == [bytes[0]; 4] {
            // SAFETY: a part of what the caller promised.
            return unsafe { dst.at(from).write_bytes(bytes[0], to - from) };
        }
        let whole = (to - from) / 4;
        // SAFETY: as above; `dst` and `from` are multiples of 4, as all pieces are, and any bytes are words.
        unsafe { std::slice::from_raw_parts_mut(dst.at(from).cast::<u32>(), whole) }.fill(u32::from_ne_bytes(bytes));
        let rest = (to - from) % 4;
        // SAFETY: the last, cut-off word of the part.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), dst.at(from + 4 * whole), rest) };
    };
    if len <= LARGE {
        return part(0, len);
    }
    pool.run(len.div_ceil(PIECE) as u64, 1, &|_, begin, end| part(begin as usize * PIECE, len.min(end as usize * PIECE)));
}
