//! A fill of any word -> the fills that drivers have: whole patterns of 4, 2 or 1 bytes.

use super::contract::period;

/// The fills that a fill is made of: where each starts, how long it is and how many bytes its pattern has. A driver's
/// fill starts and ends at multiples of its pattern; what is cut off is a fill of its own.
///
/// `None`: the word does not repeat where the fill starts.
pub(crate) fn pieces(at: usize, len: usize, word: u32) -> Option<[(usize, usize, usize); 3]> {
    let size = [4, 2, 1].into_iter().find(|size| at.is_multiple_of(*size)).unwrap_or(1);
    if (size as u64) < period(word) {
        return None;
    }
    let whole = len / size * size;
    let two = if size == 4 && len - whole >= 2 { 2 } else { 0 };
    Some([(at, whole, size), (at + whole, two, 2), (at + whole + two, len - whole - two, 1)])
}

/// The word as it is so many bytes after the start of a fill.
pub(crate) fn turned(word: u32, bytes: usize) -> u32 {
    word.rotate_right(8 * (bytes % 4) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_are_whole_patterns() {
        assert_eq!(pieces(0, 16, 0x7fc0_0001), Some([(0, 16, 4), (16, 0, 2), (16, 0, 1)]));
        assert_eq!(pieces(4, 7, 0xdead_beef), Some([(4, 4, 4), (8, 2, 2), (10, 1, 1)]));
        assert_eq!(pieces(4, 1, 0xdead_beef), Some([(4, 0, 4), (4, 0, 2), (4, 1, 1)]));
        assert_eq!(pieces(6, 10, 0xabcd_abcd), Some([(6, 10, 2), (16, 0, 2), (16, 0, 1)]));
        assert_eq!(pieces(3, 5, 0x7777_7777), Some([(3, 5, 1), (8, 0, 2), (8, 0, 1)]));
        assert_eq!(pieces(3, 5, 0xabcd_abcd), None);
        assert_eq!(pieces(2, 8, 0xdead_beef), None);
    }
}
